//! `cargo xtask soak histories`: the black-box test `histories`, a minute for each seed.

use super::record::{self, Span};
use crate::suite;
use crate::workspace::{Result, Workspace};

/// Length of a round in seconds.
const ROUND: u32 = 60;

/// Plays rounds.
pub fn run(workspace: &Workspace, span: &Span) -> Result<()> {
    record::play(workspace, "histories", span, |seed| {
        let mut command = suite::black_box(workspace, None);
        command.args(["--test", "histories", "--", "--ignored", "--exact", "soak", "--nocapture"]);
        command.env("TIDELINE_SOAK_SECONDS", ROUND.to_string()).env("TIDELINE_SEED", seed.to_string());
        record::program(&mut command)
    })
}
