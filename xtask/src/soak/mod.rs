//! `cargo xtask soak`: tests that take as long as one lets them.
//!
//! All but `adopt` are rounds, each with a seed of its own, and note in `docs/soak` what they tried and found
//! ([`record`]); each has a short part of it among the tests.

mod adopt;
mod fuzz;
mod power;
mod record;
mod report;
mod rot;
mod schedules;

use std::path::PathBuf;

use clap::Subcommand;

use self::record::{Outcome, Span};
use crate::workspace::{Result, Workspace, headline};
use crate::{dist, suite, tools};

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
    /// Replicas of one database over a network that fails, and a remote that gives up history: all read the same
    Replicas(Span),
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
            black_box(workspace, span, "processes", "bank", &[("TIDELINE_SOAK_SECONDS", "60")])
        }
        Soak::Faults(span) => {
            // A call that fails may be anywhere in a process that works for minutes.
            black_box(workspace, span, "faults", "faults", &[("TIDELINE_TEST_SECONDS", "1800")])
        }
        Soak::Rot(span) => {
            build(workspace)?;
            rot::run(workspace, span)
        }
        Soak::Histories(span) => {
            black_box(workspace, span, "histories", "histories", &[("TIDELINE_SOAK_SECONDS", "60")])
        }
        Soak::Schedules(span) => schedules::run(workspace, span),
        Soak::Replicas(span) => record::play(workspace, "replicas", span, |seed| {
            let mut command = workspace.cargo();
            command.args(["test", "--package", "tideline-sync", "--test", "replicas", "--"]);
            command.args(["--ignored", "--exact", "soak", "--nocapture"]);
            record::program(command.env("TIDELINE_SEED", seed.to_string()))
        }),
        Soak::Differential(span) => {
            black_box(workspace, span, "differential", "differential", &[("TIDELINE_PLAYS", "40")])
        }
        Soak::Adopt(arguments) => {
            build(workspace)?;
            adopt::run(workspace, arguments)
        }
        Soak::Report { write } => report::run(workspace, write.as_deref()),
    }
}

/// The soak `name`, a round of which is the part of the black-box test `test` that takes long, with these settings.
fn black_box(
    workspace: &Workspace,
    span: &Span,
    name: &str,
    test: &str,
    settings: &[(&str, &str)],
) -> Result<()> {
    build(workspace)?;
    record::play(workspace, name, span, |seed| black_box_round(workspace, test, seed, settings))
}

fn black_box_round(
    workspace: &Workspace,
    test: &str,
    seed: u64,
    settings: &[(&str, &str)],
) -> Result<Outcome> {
    let mut command = suite::black_box(workspace);
    command.args(["--test", test, "--", "--ignored", "--exact", "soak", "--nocapture"]);
    record::program(command.env("TIDELINE_SEED", seed.to_string()).envs(settings.iter().copied()))
}

/// What the black-box tests need.
fn build(workspace: &Workspace) -> Result<()> {
    tools::shell()?;
    tools::python()?;
    dist::build(workspace, &workspace.dist(), dist::Parts::SharedOnly)
}
