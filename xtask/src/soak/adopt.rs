//! `cargo xtask soak adopt`: the acceptance run for a large database, which `adopt/run.py` plays.

use std::process::Command;

use clap::Args;

use crate::tools;
use crate::workspace::{self, Result, Workspace};

/// What one can choose.
#[derive(Args)]
pub struct Arguments {
    /// Size of the database that is adopted; the run takes about ten times as much on the disk
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    megabytes: u32,
    /// How many transactions are done on it
    #[arg(long, default_value_t = 4000, value_parser = clap::value_parser!(u32).range(1..))]
    transactions: u32,
    /// Seed of data and work; drawn when not given
    #[arg(long)]
    seed: Option<u64>,
    /// Leaves the folder that it worked in, as it does when something fails
    #[arg(long)]
    keep: bool,
}

/// Plays it, in a temporary folder.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("tideline-adopt-").tempdir()?;
    let mut command = Command::new(tools::PYTHON);
    // The script has modules beside it; -B, so that nothing is compiled into the source tree.
    command.arg("-B").arg(workspace.root().join("xtask/src/soak/adopt/run.py"));
    command.arg(folder.path()).arg(workspace.dist().join("libtideline"));
    command.arg("--megabytes").arg(arguments.megabytes.to_string());
    command.arg("--transactions").arg(arguments.transactions.to_string());
    if let Some(seed) = arguments.seed {
        command.arg("--seed").arg(seed.to_string());
    }
    let played = workspace::run(&mut command);
    if arguments.keep || played.is_err() {
        println!("The files are in {}.", folder.keep().display());
    }
    played
}
