//! `bench`: stock WAL, Tideline and `:memory:` side by side on one SQLite library.
//!
//! ```text
//!   cli ─► runner ─► worker (one process for each engine of a workload) ─► workload ─► engine
//!             │                                                              └─► data
//!             └─► report (Markdown, JSON lines) ─► publish (into a document)
//!                                               └─► chart (SVG)
//! ```
//!
//! Every engine runs in a process of its own, the same executable started again, so all use the one SQLite that is
//! linked into it, Tideline is loaded only where it is measured, and a crash of one engine is a line in the report.
//! The processes of a workload live side by side and take turns: round 1 of each, round 2 of each, and so on, with
//! the first place moving on by one. A ratio is computed within each round, and the median of these is what is reported,
//! so that a machine that slows down for a while changes both sides of a ratio.
//!
//! `curve` runs a few of the workloads on databases of several sizes.
//!
//! To add a workload: a file in `workload/` with a [`workload::Workload`] and an [`workload::Arm`], and a line in
//! [`workload::all`]. An arm may report several metrics (a tail latency, a throughput of readers and one of writers),
//! may start threads, and may start processes through [`worker::Task`] (`workload/open.rs` does).
//! To add an engine (a floor VFS): a variant of [`engine::Engine`]; the compiler names the places.

mod chart;
mod cli;
mod config;
mod curve;
mod data;
mod engine;
mod floor;
mod host;
mod publish;
mod report;
mod runner;
mod stats;
mod worker;
mod workload;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

fn main() -> ExitCode {
    let outcome = match std::env::args().nth(1) {
        Some(first) if first == worker::TASK_ARGUMENT => worker::serve().map(|()| true),
        _ => run(&cli::Cli::parse()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Measures and reports; false when an engine failed somewhere, which the report says.
fn run(cli: &cli::Cli) -> Result<bool> {
    if cli.list {
        for workload in workload::all() {
            println!("{:<20} {}", workload.name(), workload.about());
        }
        return Ok(true);
    }
    if let (Some(from), Some(to)) = (&cli.chart_from, &cli.chart) {
        chart::write(to, &chart::read(from)?)?;
        return Ok(true);
    }
    if !cli.curve.is_empty() {
        return curve::run(cli);
    }
    let plan = cli.plan()?;
    let header = host::Header::collect(&plan)?;
    let head = report::markdown_header(&header);
    println!("{head}");

    let results = runner::run(&plan)?;

    let table = report::markdown_table(&plan, &results);
    println!("{table}");
    let lines = report::lines(&header, &results);
    if let Some(path) = &cli.json {
        report::write_json(path, &lines)?;
    }
    if let Some(path) = &cli.chart {
        chart::write(path, &lines)?;
    }
    if let Some(path) = &cli.write {
        publish::write(path, &cli.section, &format!("{head}\n{table}"))?;
    }
    Ok(results.iter().all(|result| result.failures.is_empty()))
}
