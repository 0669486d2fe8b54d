//! `cargo xtask soak differential`: the black-box test `differential`, some plays for each seed.

use super::record::{self, Span};
use crate::suite;
use crate::workspace::{Result, Workspace};

/// Plays of a round.
const PLAYS: u32 = 40;

/// Plays rounds.
pub fn run(workspace: &Workspace, span: &Span) -> Result<()> {
    record::play(workspace, "differential", span, |seed| {
        let mut command = suite::black_box(workspace, None);
        command.args(["--test", "differential", "--", "--ignored", "--exact", "soak", "--nocapture"]);
        command.env("TIDELINE_PLAYS", PLAYS.to_string()).env("TIDELINE_SEED", seed.to_string());
        record::program(&mut command)
    })
}
