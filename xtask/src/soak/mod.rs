//! `cargo xtask soak`: black-box tests that take long.

mod adopt;
mod processes;

use clap::Subcommand;

use crate::workspace::{Result, Workspace, headline};
use crate::{dist, tools};

/// Those that there are.
#[derive(Subcommand)]
pub enum Soak {
    /// Eight processes, readers and writers, on one database, killed at random
    Processes {
        /// For how long
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Seed of its choices; drawn when not given
        #[arg(long)]
        seed: Option<u64>,
    },
    /// A large database: adopted, worked on, shipped, closed and opened again; stock SQLite says what is right
    Adopt(adopt::Arguments),
}

/// Runs one, against a library that is built before.
pub fn run(workspace: &Workspace, what: &Soak) -> Result<()> {
    headline("cargo xtask soak");
    tools::shell()?;
    tools::python()?;
    dist::build(workspace, &workspace.dist(), dist::Parts::SharedOnly)?;
    match what {
        Soak::Processes { seconds, seed } => processes::run(workspace, *seconds, *seed),
        Soak::Adopt(arguments) => adopt::run(workspace, arguments),
    }
}
