//! The report: Markdown for people, JSON lines for programs.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::config::Plan;
use crate::engine::Engine;
use crate::host::Header;
use crate::runner::Outcome;
use crate::stats::Summary;
use crate::workload::Unit;

/// Ratios in the table: who, against whom.
const GAINS: [(Engine, Engine); 3] =
    [(Engine::Tideline, Engine::Stock), (Engine::Memory, Engine::Stock), (Engine::Floor, Engine::Stock)];

/// The facts above the table.
pub fn markdown_header(header: &Header) -> String {
    let mut lines = vec![
        format!("Measured on {} UTC with", header.date),
        String::new(),
        format!("    {}", header.command),
        String::new(),
    ];
    let commit = header.commit.as_ref().map_or(String::new(), |commit| format!(", commit {commit}"));
    let tideline = match (&header.tideline, &header.without_tideline) {
        (Some(version), _) => format!("{version}{commit}"),
        (None, Some(reason)) => format!("**not measured**: {reason}"),
        (None, None) => "not asked for".to_owned(),
    };
    let threads = header
        .compile_options
        .iter()
        .find(|option| option.starts_with("THREADSAFE"))
        .map_or("", String::as_str);
    let settings = &header.settings;
    let mmap = settings.stock_mmap.map_or("SQLite's default".to_owned(), |bytes| format!("{bytes}"));
    let memory =
        header.memory_mib.map_or(String::new(), |mib| format!(", {:.0} GiB of memory", mib as f64 / 1024.0));
    lines.extend([
        format!("- Tideline: {tideline}"),
        format!("- SQLite: {}, {threads}, one library for all", header.sqlite),
        format!("- machine: {}{memory}, {}", header.cpu, header.kernel),
        format!("- file system: {}", header.filesystem),
        format!(
            "- page size {}; cache {} KiB, unless a row says otherwise; mmap_size of stock: {mmap}",
            settings.page_size, settings.cache_kib
        ),
        format!(
            "- table of {} rows; {} rounds, interleaved, after {} that {}n't count",
            header.scale.rows,
            header.rounds,
            header.warmup,
            if header.warmup == 1 { "does" } else { "do" }
        ),
    ]);
    lines.extend(header.warnings().into_iter().map(|warning| format!("- **warning**: {warning}")));
    lines.join("\n") + "\n"
}

/// The table, its legend, and what failed.
pub fn markdown_table(plan: &Plan, outcomes: &[Outcome]) -> String {
    let gains: Vec<_> = GAINS
        .iter()
        .filter(|(ours, peer)| plan.engines.contains(ours) && plan.engines.contains(peer))
        .collect();
    let mut text = String::from("| work | name |");
    for engine in &plan.engines {
        let _ = write!(text, " {} |", engine.title());
    }
    for (ours, peer) in &gains {
        let _ = write!(text, " {} ÷ {} |", peer.title(), ours.title());
    }
    text += "\n|---|---|";
    text += &"---:|".repeat(plan.engines.len() + gains.len());
    text += "\n";
    for outcome in outcomes {
        for (index, metric) in outcome.metrics.iter().enumerate() {
            let _ = write!(text, "| {} | {} |", metric.title, row_name(outcome, index));
            for &engine in &plan.engines {
                let _ = write!(text, " {} |", value_cell(outcome, index, engine));
            }
            for &&(ours, peer) in &gains {
                let _ =
                    write!(text, " {} |", outcome.gain(index, ours, peer).map_or("–".to_owned(), gain_cell));
            }
            text += "\n";
        }
    }
    text += "\nTimes and rates: median ± median absolute deviation. \
             Ratios: median (smallest to largest) of the rounds' own; above 1 is better than the peer: faster, \
             for rates too, or fewer bytes; below 1 is bold.\n";
    for outcome in outcomes {
        for (engine, error) in &outcome.failures {
            let _ = writeln!(
                text,
                "\n**{}, {} failed**: {}",
                outcome.workload,
                engine.title(),
                error.replace('\n', " ")
            );
        }
    }
    text
}

fn row_name(outcome: &Outcome, metric: usize) -> String {
    match outcome.metrics[metric].key {
        "" => outcome.workload.clone(),
        key => format!("{}:{key}", outcome.workload),
    }
}

pub fn value_cell(outcome: &Outcome, metric: usize, engine: Engine) -> String {
    if outcome.failures.contains_key(&engine) {
        return "failed".to_owned();
    }
    match outcome.summary(metric, engine) {
        None => "–".to_owned(),
        Some(summary) => {
            format!(
                "{} ±{:.0}%",
                quantity(summary.median, outcome.metrics[metric].unit),
                summary.mad_percent()
            )
        }
    }
}

pub fn gain_cell(gain: Summary) -> String {
    let text = format!("{:.2}", gain.median);
    let text = if gain.median < 0.995 { format!("**{text}**") } else { text };
    format!("{text} ({:.2} to {:.2})", gain.min, gain.max)
}

/// Three digits and a unit.
fn quantity(value: f64, unit: Unit) -> String {
    let (value, suffix) = match unit {
        Unit::BytesPerSecond => (value / 1e6, " MB/s"),
        Unit::PerSecond => (value, " /s"),
        Unit::Share | Unit::Times => (value, ""),
        Unit::Bytes if value.abs() < 1e3 => (value, " B"),
        Unit::Bytes if value.abs() < 1e6 => (value / 1e3, " kB"),
        Unit::Bytes => (value / 1e6, " MB"),
        Unit::Seconds if value < 1e-3 => (value * 1e6, " µs"),
        Unit::Seconds if value < 1.0 => (value * 1e3, " ms"),
        Unit::Seconds => (value, " s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$}{suffix}")
}

/// A line for the header, one for every sample, one for every row of the table, one for every failure.
pub fn lines(header: &Header, outcomes: &[Outcome]) -> Vec<Value> {
    let mut head = json!(header);
    head["type"] = json!("header");
    let mut lines = vec![head];
    for outcome in outcomes {
        for (index, metric) in outcome.metrics.iter().enumerate() {
            let name = row_name(outcome, index);
            for (round, values) in outcome.rounds.iter().enumerate() {
                for (engine, values) in values {
                    lines.push(json!({"type": "sample", "name": name, "engine": engine, "round": round + 1,
                        "unit": metric.unit, "value": values[index]}));
                }
            }
            let mut row = json!({"type": "row", "name": name, "title": metric.title, "unit": metric.unit});
            for &engine in &outcome.able {
                row[engine.key()] = json!(outcome.summary(index, engine));
            }
            for (ours, peer) in GAINS {
                if let Some(gain) = outcome.gain(index, ours, peer) {
                    row[format!("{}_over_{}", peer.key(), ours.key())] = json!(gain);
                }
            }
            lines.push(row);
        }
        for (engine, error) in &outcome.failures {
            lines.push(
                json!({"type": "failure", "workload": outcome.workload, "engine": engine, "error": error}),
            );
        }
    }
    lines
}

/// Writes [`lines`] into a file.
pub fn write_json(path: &Path, lines: &[Value]) -> Result<()> {
    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    let mut out = BufWriter::new(file);
    for line in lines {
        writeln!(out, "{line}")?;
    }
    out.flush().with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_have_three_digits() {
        assert_eq!(quantity(2.345e-6, Unit::Seconds), "2.35 µs");
        assert_eq!(quantity(0.1234, Unit::Seconds), "123 ms");
        assert_eq!(quantity(12.34, Unit::Seconds), "12.3 s");
        assert_eq!(quantity(1.5e9, Unit::BytesPerSecond), "1500 MB/s");
        assert_eq!(quantity(12345.6, Unit::PerSecond), "12346 /s");
        assert_eq!(quantity(4321.0, Unit::Bytes), "4.32 kB");
        assert_eq!(quantity(0.876, Unit::Share), "0.88");
    }

    #[test]
    fn a_gain_below_one_is_bold() {
        let gain = Summary { median: 0.5, mad: 0.0, min: 0.4, max: 1.1 };
        assert_eq!(gain_cell(gain), "**0.50** (0.40 to 1.10)");
    }
}
