//! `cargo xtask soak processes`: the black-box test `bank`, for as long as one likes.

use crate::suite;
use crate::workspace::{self, Result, Workspace};

/// Runs it for `seconds`.
pub fn run(workspace: &Workspace, seconds: u64, seed: Option<u64>) -> Result<()> {
    let mut command = suite::black_box(workspace, None);
    command.args(["--test", "bank", "--", "--ignored", "--exact", "soak", "--nocapture"]);
    command.env("TIDELINE_SOAK_SECONDS", seconds.to_string());
    if let Some(seed) = seed {
        command.env("TIDELINE_SEED", seed.to_string());
    }
    workspace::run(&mut command)
}
