//! `cargo xtask soak`: tests that take as long as one lets them.
//!
//! All but `adopt` are rounds, each with a seed of its own, and note in `docs/soak` what they tried and found
//! ([`record`]); each has a short part of it among the tests.

mod adopt;
mod differential;
mod faults;
mod fuzz;
mod histories;
mod power;
mod processes;
mod record;
mod report;
mod rot;
mod schedules;

use std::path::PathBuf;

use clap::Subcommand;

use self::record::Span;
use crate::workspace::{Result, Workspace, headline};
use crate::{dist, tools};

/// Those that there are.
#[derive(Subcommand)]
pub enum Soak {
    /// The power is cut at every step of generated work on a simulated disk
    Power(Span),
    /// Eight processes, readers and writers, on one database, killed at random
    Processes(Span),
    /// The fuzz targets, one after the other
    Fuzz(Span),
    /// Calls of the operating system that fail, and memory that SQLite doesn't get
    Faults(Span),
    /// Bytes that change in the files of stores
    Rot(Span),
    /// What processes did, saw and were told, while they come, go, fork and are killed, checked against every rule
    Histories(Span),
    /// Orders of the steps of several processes, drawn by shuttle
    Schedules(Span),
    /// Random SQL on stock SQLite and on Tideline, side by side: both say the same
    Differential(Span),
    /// A large database: adopted, worked on, shipped, closed and opened again; stock SQLite says what is right
    Adopt(adopt::Arguments),
    /// What the others have tried and found so far
    Report {
        /// A document whose table is replaced
        #[arg(long)]
        write: Option<PathBuf>,
    },
}

/// Runs one.
pub fn run(workspace: &Workspace, what: &Soak) -> Result<()> {
    headline("cargo xtask soak");
    match what {
        Soak::Power(span) => power::run(workspace, span),
        Soak::Fuzz(span) => fuzz::run(workspace, span),
        Soak::Processes(span) => {
            build(workspace)?;
            processes::run(workspace, span)
        }
        Soak::Faults(span) => {
            build(workspace)?;
            faults::run(workspace, span)
        }
        Soak::Rot(span) => {
            build(workspace)?;
            rot::run(workspace, span)
        }
        Soak::Histories(span) => {
            build(workspace)?;
            histories::run(workspace, span)
        }
        Soak::Schedules(span) => schedules::run(workspace, span),
        Soak::Differential(span) => {
            build(workspace)?;
            differential::run(workspace, span)
        }
        Soak::Adopt(arguments) => {
            build(workspace)?;
            adopt::run(workspace, arguments)
        }
        Soak::Report { write } => report::run(workspace, write.as_deref()),
    }
}

/// What the black-box tests need.
fn build(workspace: &Workspace) -> Result<()> {
    tools::shell()?;
    tools::python()?;
    dist::build(workspace, &workspace.dist(), dist::Parts::SharedOnly)
}
