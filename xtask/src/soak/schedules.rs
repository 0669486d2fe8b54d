//! `cargo xtask soak schedules`: orders of the steps of several processes, some ten thousand for each seed
//! (`journal/src/control/schedules`).

use super::record::{self, Span};
use crate::workspace::{Result, Workspace};

/// Orders of each kind that a round tries with each scheduler.
const SCHEDULES: u32 = 4000;

/// Plays rounds.
pub fn run(workspace: &Workspace, span: &Span) -> Result<()> {
    record::play(workspace, "schedules", span, |seed| {
        let mut command = workspace.cargo();
        command.args(["test", "--package", "tideline-journal", "--lib", "control::schedules::soak"]);
        command.args(["--", "--ignored", "--exact", "--nocapture"]);
        command.env("TIDELINE_SCHEDULES", SCHEDULES.to_string()).env("TIDELINE_SEED", seed.to_string());
        record::program(&mut command)
    })
}
