//! `cargo xtask soak`: a black-box test that can go on for as long as one likes.

use clap::ValueEnum;

use crate::workspace::{Result, Workspace, headline};
use crate::{dist, suite, tools, workspace};

/// Those that there are.
#[derive(Clone, Copy, ValueEnum)]
pub enum Soak {
    /// Eight processes, readers and writers, on one database, killed at random
    Processes,
}

/// Runs one for `seconds`.
pub fn run(workspace: &Workspace, what: Soak, seconds: u64, seed: Option<u64>) -> Result<()> {
    headline("cargo xtask soak");
    tools::shell()?;
    tools::python()?;
    dist::build(workspace, &workspace.dist(), dist::Parts::SharedOnly)?;
    let (feature, test, name) = match what {
        Soak::Processes => ("slice-c", "bank", "soak"),
    };
    let mut command = suite::black_box(workspace, None);
    command.args(["--features", feature, "--test", test, "--", "--ignored", "--exact", name, "--nocapture"]);
    command.env("TIDELINE_SOAK_SECONDS", seconds.to_string());
    if let Some(seed) = seed {
        command.env("TIDELINE_SEED", seed.to_string());
    }
    workspace::run(&mut command)
}
