//! `cargo xtask soak faults`: the black-box test `faults`, with calls of every kind that fail, drawn by each seed.

use super::record::{self, Span};
use crate::suite;
use crate::workspace::{Result, Workspace};

/// Plays rounds.
pub fn run(workspace: &Workspace, span: &Span) -> Result<()> {
    record::play(workspace, "faults", span, |seed| {
        let mut command = suite::black_box(workspace, None);
        command.args(["--test", "faults", "--", "--ignored", "--exact", "soak", "--nocapture"]);
        // A call that fails may be anywhere in a process that works for minutes.
        command.env("TIDELINE_TEST_SECONDS", "1800").env("TIDELINE_SEED", seed.to_string());
        record::program(&mut command)
    })
}
