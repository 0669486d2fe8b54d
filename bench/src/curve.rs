//! The same work on databases of several sizes: what the work doesn't touch shouldn't make it dearer.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::{Value, json};

use crate::cli::Cli;
use crate::engine::Engine;
use crate::host::Header;
use crate::runner::{self, Outcome};
use crate::{chart, publish, report};

/// What is measured: single rows written, read and found after opening.
pub const WORKLOADS: [&str; 6] =
    ["insert-normal", "update-normal", "select-cached", "select-beyond", "open-rest", "open-journal"];

/// Name in the marker comments.
const SECTION: &str = "curve";

/// One size.
struct Point {
    megabytes: u64,
    outcomes: Vec<Outcome>,
}

/// Measures and reports; false when an engine failed somewhere.
pub fn run(cli: &Cli) -> Result<bool> {
    let mut points = Vec::new();
    let mut header = None;
    for &megabytes in &cli.curve {
        let plan = cli.plan_of(Some(megabytes))?;
        if header.is_none() {
            header = Some(Header::collect(&plan)?);
        }
        eprintln!("{}", size(megabytes));
        points.push(Point { megabytes, outcomes: runner::run(&plan)? });
    }
    let Some(header) = header else { return Ok(true) };

    let head = report::markdown_header(&header);
    // The number of rows is the first size's; the table has the sizes.
    let rows = format!("- table of {} rows; ", header.scale.rows);
    let head = head.replace(&rows, "- the database is built once for each size and engine, and copied; ");
    let table = table(&points);
    println!("{head}\n{table}");
    let lines = lines(&header, &points);
    if let Some(path) = &cli.json {
        report::write_json(path, &lines)?;
    }
    if let Some(path) = &cli.chart {
        chart::write(path, &lines)?;
    }
    if let Some(path) = &cli.write {
        publish::write(path, SECTION, &format!("{head}\n{table}"))?;
    }
    Ok(points.iter().flat_map(|point| &point.outcomes).all(|outcome| outcome.failures.is_empty()))
}

/// A row for each workload, with its main metric; a column for each size.
fn table(points: &[Point]) -> String {
    let sizes: Vec<String> = points.iter().map(|point| size(point.megabytes)).collect();
    let mut text = String::from("| name |");
    for column in ["Tideline", "stock WAL ÷ Tideline"] {
        for size in &sizes {
            let _ = write!(text, " {column}, {size} |");
        }
    }
    let first_and_last = format!("{} ÷ {}", sizes[sizes.len() - 1], sizes[0]);
    let _ = write!(text, " Tideline, {first_and_last} | stock WAL, {first_and_last} |\n|---|");
    text += &"---:|".repeat(2 * points.len() + 2);
    text += "\n";
    for (index, outcome) in points[0].outcomes.iter().enumerate() {
        let _ = write!(text, "| {} |", outcome.workload);
        for point in points {
            let _ = write!(text, " {} |", report::value_cell(&point.outcomes[index], 0, Engine::Tideline));
        }
        for point in points {
            let gain = point.outcomes[index].gain(0, Engine::Tideline, Engine::Stock);
            let _ = write!(text, " {} |", gain.map_or("–".to_owned(), report::gain_cell));
        }
        for engine in [Engine::Tideline, Engine::Stock] {
            let growth = growth(points, index, engine);
            let _ = write!(text, " {} |", growth.map_or("–".to_owned(), |growth| format!("{growth:.2}")));
        }
        text += "\n";
    }
    text += "\nTimes: median ± median absolute deviation. Ratios: median (smallest to largest) of the rounds' own; below \
             1 is bold. The last two columns are the time with the largest database divided by that with the smallest.\n";
    for point in points {
        for outcome in &point.outcomes {
            for (engine, error) in &outcome.failures {
                let _ = writeln!(
                    text,
                    "\n**{}, {}, {} failed**: {}",
                    outcome.workload,
                    size(point.megabytes),
                    engine.title(),
                    error.replace('\n', " ")
                );
            }
        }
    }
    text
}

/// The time with the last size divided by that with the first.
fn growth(points: &[Point], index: usize, engine: Engine) -> Option<f64> {
    let median = |point: &Point| Some(point.outcomes[index].summary(0, engine)?.median);
    Some(median(points.last()?)? / median(points.first()?)?)
}

/// As the report's own, but with the sizes in the names, and workload by workload.
fn lines(header: &Header, points: &[Point]) -> Vec<Value> {
    let mut head = json!(header);
    head["type"] = json!("header");
    let mut lines = vec![head];
    for index in 0..points[0].outcomes.len() {
        for point in points {
            for mut line in report::lines(header, &point.outcomes[index..=index]).into_iter().skip(1) {
                for key in ["name", "title", "workload"] {
                    if let Some(text) = line[key].as_str() {
                        line[key] = json!(format!("{text}, {}", size(point.megabytes)));
                    }
                }
                lines.push(line);
            }
        }
    }
    lines
}

fn size(megabytes: u64) -> String {
    if megabytes.is_multiple_of(1000) {
        format!("{} GB", megabytes / 1000)
    } else {
        format!("{megabytes} MB")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::workload::{Metric, Unit};

    #[test]
    fn a_row_has_all_sizes_and_how_it_grows() {
        let point = |megabytes, stock, tideline| Point {
            megabytes,
            outcomes: vec![Outcome {
                workload: "open-rest".to_owned(),
                metrics: vec![Metric::main("open", Unit::Seconds)],
                able: Vec::new(),
                rounds: vec![BTreeMap::from([
                    (Engine::Stock, vec![stock]),
                    (Engine::Tideline, vec![tideline]),
                ])],
                failures: BTreeMap::new(),
            }],
        };
        let table = table(&[point(100, 3.0, 1.0), point(1000, 3.0, 4.0)]);
        assert!(
            table.contains(
                "| open-rest | 1.00 s ±0% | 4.00 s ±0% | 3.00 (3.00 to 3.00) | **0.75** (0.75 to 0.75) | 4.00 | 1.00 |"
            ),
            "{table}"
        );
        assert!(table.contains("Tideline, 1 GB ÷ 100 MB"));
    }
}
