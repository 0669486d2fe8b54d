//! `cargo xtask soak power`: the tests of `journal` on a disk on which something happens at every step, the power goes, a
//! process is killed, a call fails, with a few scripts for each seed.

use super::record::{self, Span};
use crate::workspace::{Result, Workspace};

/// Scripts of a round, and outcomes that are tried of each cut.
const SCRIPTS: u64 = 8;
const OUTCOMES: u64 = 4;

/// Plays rounds.
pub fn run(workspace: &Workspace, span: &Span) -> Result<()> {
    record::play(workspace, "power", span, |seed| {
        let mut command = workspace.cargo();
        command.args([
            "test",
            "--release",
            "--package",
            "tideline-journal",
            "--test",
            "power",
            "--test",
            "machine",
            "--test",
            "lazy_power",
        ]);
        command.args(["--", "--nocapture", "--test-threads", "2"]);
        command.env("TIDELINE_FIRST", (seed * SCRIPTS).to_string());
        command.env("TIDELINE_SCRIPTS", SCRIPTS.to_string()).env("TIDELINE_SEEDS", OUTCOMES.to_string());
        command.env("TIDELINE_SEED", seed.to_string());
        record::program(&mut command)
    })
}
