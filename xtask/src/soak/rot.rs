//! `cargo xtask soak rot`: for each seed, bytes that change in the files of stores: many on a simulated disk, by the test
//! `rot` of `journal`, and some through the library, by the black-box test of that name.

use super::record::{self, Span};
use crate::workspace::{Result, Workspace};

/// Bytes that change in a round, on the simulated disk.
const FLIPS: u64 = 100_000;

/// Plays rounds.
pub fn run(workspace: &Workspace, span: &Span) -> Result<()> {
    record::play(workspace, "rot", span, |seed| {
        let mut command = workspace.cargo();
        command.args(["test", "--release", "--package", "tideline-journal", "--test", "rot"]);
        command.args(["--", "--nocapture"]);
        command.env("TIDELINE_SEED", seed.to_string()).env("TIDELINE_FLIPS", FLIPS.to_string());
        let simulated = record::program(&mut command)?;
        if simulated.found.is_some() {
            return Ok(simulated);
        }
        let mut real = super::black_box_round(workspace, "rot", seed, &[])?;
        real.tried.add(&simulated.tried);
        Ok(real)
    })
}
