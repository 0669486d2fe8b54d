//! What speedtest1 prints, and what is made of it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::workspace::Result;

/// A line of fewer seconds in stock SQLite is noise.
const SHORTEST: f64 = 0.05;
/// What no line of a testset should be below; such are bold.
const LEAST: f64 = 0.95;

const BEGIN: &str = "<!-- speedtest1:table begin -->";
const END: &str = "<!-- speedtest1:table end -->";

/// A run of the program: seconds.
#[derive(Debug, PartialEq)]
pub struct Run {
    /// Number and name of each test, and its time.
    pub lines: Vec<(String, f64)>,
    /// Of all of them.
    pub total: f64,
    /// From the process's start to its end: closing the database is in no line.
    pub process: f64,
}

/// One round of a testset.
pub struct Pair {
    /// Stock SQLite.
    pub stock: Run,
    /// The same through Tideline.
    pub tideline: Run,
}

/// All rounds of a testset.
pub struct Set {
    /// As `--testset` takes it.
    pub name: String,
    /// Those that count.
    pub rounds: Vec<Pair>,
}

/// Reads what the program printed: ` 100 - 50000 INSERTs into table with no index......    0.051s`, and a total.
pub fn parse(printed: &str) -> Result<Run> {
    let mut run = Run { lines: Vec::new(), total: f64::NAN, process: f64::NAN };
    for line in printed.lines() {
        let Some((name, seconds)) = line.trim_end().strip_suffix('s').and_then(|line| line.rsplit_once(' '))
        else {
            continue;
        };
        let Ok(seconds) = seconds.parse::<f64>() else { continue };
        let name = name.trim().trim_end_matches('.');
        if name == "TOTAL" {
            run.total = seconds;
        } else if name.contains(" - ") {
            run.lines.push((name.to_owned(), seconds));
        }
    }
    if run.lines.is_empty() || run.total.is_nan() {
        return Err(format!("this isn't what speedtest1 prints:\n{printed}").into());
    }
    Ok(run)
}

/// The smallest, the median and the largest.
fn spread(values: impl Iterator<Item = f64>) -> (f64, f64, f64) {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    let median = if values.len() % 2 == 1 { values[half] } else { values[half - 1].midpoint(values[half]) };
    (values[0], median, values[values.len() - 1])
}

/// Stock's and Tideline's seconds round by round, as they stand in the tables.
struct Row {
    name: String,
    stock: f64,
    tideline: f64,
    ratio: (f64, f64, f64),
    /// Of the fastest run of each: what others do on the machine only ever adds to a time.
    fastest: f64,
}

impl Row {
    fn of(name: &str, pairs: &[(f64, f64)]) -> Self {
        Self {
            name: name.to_owned(),
            stock: spread(pairs.iter().map(|pair| pair.0)).1,
            tideline: spread(pairs.iter().map(|pair| pair.1)).1,
            ratio: spread(pairs.iter().map(|pair| pair.0 / pair.1)),
            fastest: spread(pairs.iter().map(|pair| pair.0)).0 / spread(pairs.iter().map(|pair| pair.1)).0,
        }
    }

    fn cells(&self, least: f64) -> String {
        let (low, ratio, high) = self.ratio;
        let bold = if ratio < least { "**" } else { "" };
        format!(
            "{} | {:.3} s | {:.3} s | {bold}{ratio:.2}{bold} ({low:.2} to {high:.2}) | {:.2} |\n",
            self.name, self.stock, self.tideline, self.fastest
        )
    }
}

impl Set {
    fn of(&self, value: impl Fn(&Run) -> f64) -> Vec<(f64, f64)> {
        self.rounds.iter().map(|pair| (value(&pair.stock), value(&pair.tideline))).collect()
    }
}

/// The tables.
pub fn report(sets: &[Set]) -> Result<String> {
    let mut text = "| testset | stock WAL | Tideline | stock WAL ÷ Tideline | of the fastest runs | from the process's start to its end |\n\
                    |---|---:|---:|---:|---:|---:|\n"
        .to_owned();
    let mut row = |name: &str, totals: &[(f64, f64)], processes: &[(f64, f64)]| {
        let cells = Row::of(name, totals).cells(1.0);
        let (low, ratio, high) = Row::of(name, processes).ratio;
        let _ = writeln!(text, "| {} {ratio:.2} ({low:.2} to {high:.2}) |", cells.trim_end());
    };
    let mut all = (Vec::new(), Vec::new());
    for set in sets {
        let (totals, processes) = (set.of(|run| run.total), set.of(|run| run.process));
        row(&set.name, &totals, &processes);
        add(&mut all.0, &totals);
        add(&mut all.1, &processes);
    }
    if sets.len() > 1 {
        row("all", &all.0, &all.1);
    }

    let mut rows = Vec::new();
    for set in sets {
        let names = set.rounds.first().map_or(&[][..], |pair| &pair.stock.lines);
        let runs = || set.rounds.iter().flat_map(|pair| [&pair.stock, &pair.tideline]);
        if runs().any(|run| run.lines.len() != names.len()) {
            return Err(format!("the runs of testset {} don't have the same lines", set.name).into());
        }
        for (index, (name, _)) in names.iter().enumerate() {
            let row = Row::of(&format!("{} {name}", set.name), &set.of(|run| run.lines[index].1));
            if row.stock >= SHORTEST {
                rows.push(row);
            }
        }
    }
    rows.sort_by(|a, b| a.ratio.1.total_cmp(&b.ratio.1));
    text += "\n| line | stock WAL | Tideline | stock WAL ÷ Tideline | of the fastest runs |\n|---|---:|---:|---:|---:|\n";
    for row in rows {
        let _ = write!(text, "| {}", row.cells(LEAST));
    }
    let _ = write!(
        text,
        "\nTimes: medians of the rounds. Ratios: median (smallest to largest) of the rounds' own, and the \
         shortest time of stock SQLite divided by the shortest of Tideline. The lines are those of {:.0} ms or more in stock SQLite, the worst first; below {LEAST} is bold.\n",
        SHORTEST * 1000.0
    );
    Ok(text)
}

/// Adds round by round.
fn add(sums: &mut Vec<(f64, f64)>, values: &[(f64, f64)]) {
    sums.resize(values.len(), (0.0, 0.0));
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum = (sum.0 + value.0, sum.1 + value.1);
    }
}

/// Writes the tables into a document, between its marker comments, or at its end.
pub fn publish(document: &Path, report: &str) -> Result<()> {
    let text = fs::read_to_string(document).map_err(|error| format!("{}: {error}", document.display()))?;
    Ok(fs::write(document, replace(&text, report)?)?)
}

fn replace(text: &str, report: &str) -> Result<String> {
    let block = format!("{BEGIN}\n{}\n{END}", report.trim_end());
    match (text.find(BEGIN), text.find(END)) {
        (None, None) => Ok(format!("{}\n\n{block}\n", text.trim_end())),
        (Some(from), Some(to)) if from < to => {
            Ok(format!("{}{block}{}", &text[..from], &text[to + END.len()..]))
        }
        _ => {
            Err(format!("the marker comments {BEGIN} and {END} don't stand as a pair, in this order").into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "-- Speedtest1 for SQLite 3.53.2 2026\n \
                           100 - 5 INSERTs, with dots.................    0.100s\n \
                           145 - 10 SELECTS.......    0.010s\n       TOTAL.........    0.110s\n";

    fn run(first: f64) -> Run {
        Run { lines: vec![("100 - a".into(), first), ("110 - b".into(), 0.01)], total: first, process: first }
    }

    #[test]
    fn what_is_printed_is_understood() {
        let run = parse(PRINTED).unwrap();
        assert_eq!(
            run.lines,
            [("100 - 5 INSERTs, with dots".to_owned(), 0.1), ("145 - 10 SELECTS".to_owned(), 0.01)]
        );
        assert_eq!(run.total, 0.11);
        assert!(parse("no such vfs").is_err());
    }

    #[test]
    fn ratios_are_of_rounds_and_short_lines_are_left_out() {
        let pair = |stock, tideline| Pair { stock: run(stock), tideline: run(tideline) };
        let set = Set { name: "x".into(), rounds: vec![pair(0.3, 0.1), pair(0.1, 0.2), pair(0.2, 0.4)] };
        let report = report(&[set]).unwrap();
        assert!(
            report.contains("| x 100 - a | 0.200 s | 0.200 s | **0.50** (0.50 to 3.00) | 1.00 |"),
            "{report}"
        );
        assert!(!report.contains("110 - b"));
    }

    #[test]
    fn the_rest_of_a_document_stays() {
        let once = replace("# T\n", "one\n").unwrap();
        assert_eq!(
            replace(&format!("{once}tail"), "two").unwrap(),
            format!("{once}tail").replace("one", "two")
        );
        assert!(replace(BEGIN, "x").is_err());
    }
}
