//! Medians and their spread.

use serde::Serialize;

/// What is left of a series of samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Middle value, or the mean of the two in the middle.
    pub median: f64,
    /// Median of the distances from the median.
    pub mad: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

impl Summary {
    /// None of an empty series.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        let median = median(&mut values)?;
        let (min, max) = (values[0], values[values.len() - 1]);
        let mut distances: Vec<f64> = values.iter().map(|value| (value - median).abs()).collect();
        Some(Self { median, mad: self::median(&mut distances)?, min, max })
    }

    /// The MAD in percent of the median.
    pub fn mad_percent(&self) -> f64 {
        if self.median == 0.0 { 0.0 } else { self.mad / self.median * 100.0 }
    }
}

/// Sorts the values; none where there are none.
pub fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some(values[middle - 1].midpoint(values[middle])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_of_an_odd_and_an_even_series() {
        let odd = Summary::of([9.0, 1.0, 2.0]).unwrap();
        assert_eq!(odd, Summary { median: 2.0, mad: 1.0, min: 1.0, max: 9.0 });
        let even = Summary::of([4.0, 1.0, 2.0, 3.0]).unwrap();
        assert_eq!(even, Summary { median: 2.5, mad: 1.0, min: 1.0, max: 4.0 });
        assert_eq!(even.mad_percent(), 40.0);
        assert_eq!(Summary::of([]), None);
    }
}
