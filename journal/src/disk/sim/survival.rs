//! What a power loss spares of the changes that weren't synced.

use super::random::Random;

/// The rule that one power loss follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Survival {
    /// Nothing survives that wasn't synced.
    Nothing,
    /// Everything survives, as if it had been synced.
    Everything,
    /// Each sector, length and name for itself.
    Scattered,
    /// What was done before this step, and nothing else.
    Before(u64),
    /// Each file by a rule of its own.
    Mixed,
}

impl Survival {
    /// Draws a rule for a disk whose next step is `steps`, and whose oldest unsynced change is of
    /// step `oldest`.
    pub(super) fn draw(random: &mut Random, oldest: u64, steps: u64) -> Survival {
        match random.below(6) {
            0 => Survival::Nothing,
            1 => Survival::Everything,
            2 => Survival::Mixed,
            3 => Survival::Before(oldest + random.below(steps.saturating_sub(oldest) + 1)),
            _ => Survival::Scattered,
        }
    }

    /// The rule for one file.
    pub(super) fn of_file(self, random: &mut Random) -> Survival {
        if self != Survival::Mixed {
            return self;
        }
        match random.below(3) {
            0 => Survival::Nothing,
            1 => Survival::Everything,
            _ => Survival::Scattered,
        }
    }
}

/// A power loss: its rule, and the step during which it came, if it came during one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loss {
    pub(super) survival: Survival,
    pub(super) during: Option<u64>,
}

impl Loss {
    /// True if the whole of a change made in `step`, which can't survive in parts, does.
    pub(super) fn spares(self, step: u64, random: &mut Random) -> bool {
        let spared = match self.survival {
            Survival::Nothing => false,
            Survival::Everything => true,
            Survival::Scattered | Survival::Mixed => random.coin(),
            Survival::Before(end) => step < end,
        };
        // What was under way isn't certain to survive by any rule.
        spared && (self.during != Some(step) || random.coin())
    }
}
