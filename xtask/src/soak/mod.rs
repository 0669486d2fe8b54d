//! `cargo xtask soak`: tests that take as long as one lets them.
//!
//! All but `adopt` are rounds, each with a seed of its own, and note in `docs/soak` what they tried and found
//! ([`record`]); each has a short part of it among the tests.

mod adopt;
mod fuzz;
mod power;
mod processes;
mod record;
mod report;

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
