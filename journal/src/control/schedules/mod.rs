//! The protocol under every order of its steps that there is time for: `shuttle` decides who goes on.
//!
//! ```text
//!   main ── keeper: a process that stays
//!     ├──── worker ┐  threads of shuttle, each a process with a store of its own:
//!     ├──── worker ┤  Store, Session, Control as they are          work.rs, ledger.rs
//!     └──── worker ┘
//!              │
//!            Turns     a Disk whose every call, and every look at a word,
//!              │       is where another may go on                  turns.rs
//!              ├─ Watch   what must hold between any two steps     watch.rs
//!              ▼
//!           SimDisk
//! ```
//! It is the product's own code that runs. Its words are atomics of the machine, but nobody goes on between two calls
//! of [`Words::words`](crate::disk::Words::words), which [`Control`](super::Control) makes for each look and each change; so
//! they are what shuttle's own are: sequentially consistent. Threads of one process aren't tried here: its locks
//! aren't shuttle's.
//!
//! What happens to the workers is a [`Trouble`]. Where nobody dies, no wait ends before it is woken: a wake-up that is
//! lost is a deadlock, which shuttle reports. Where somebody may, waits can end at any time.

mod ledger;
mod turns;
mod watch;
mod work;

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

/// What happens while the workers work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// Nothing.
    None,
    /// Workers are killed.
    Kills,
    /// The power goes; perhaps workers were killed before.
    Power,
    /// An fsync or a write fails, and in the end the power goes.
    Fault,
    /// Nobody who sleeps is woken, which must be found out.
    Deafness,
    /// The living are taken for dead, which must be found out.
    Slander,
}

const TROUBLES: [Trouble; 4] = [Trouble::None, Trouble::Kills, Trouble::Power, Trouble::Fault];

/// Tries orders of one kind; gives their number.
fn explore(scheduler: impl Scheduler + 'static, trouble: Trouble) -> usize {
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    config.failure_persistence = if matches!(trouble, Trouble::Deafness | Trouble::Slander) {
        FailurePersistence::None
    } else {
        FailurePersistence::Print
    };
    config.max_steps = MaxSteps::FailAfter(200_000);
    Runner::new(scheduler, config).run(move || work::play(trouble))
}

/// Tries orders of all kinds, `count` of each with each scheduler.
fn explore_all(seed: u64, count: usize) -> usize {
    let mut tried = 0;
    for trouble in TROUBLES {
        println!("{trouble:?}, seed {seed}");
        tried += explore(RandomScheduler::new_from_seed(seed, count), trouble);
        tried += explore(PctScheduler::new_from_seed(seed, 3, count), trouble);
    }
    tried
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[test]
fn no_order_of_steps_breaks_the_protocol() {
    let tried = explore_all(1, 250);
    println!("tried: schedules={tried}");
}

#[test]
#[should_panic(expected = "deadlock!")]
fn a_wake_up_that_is_lost_is_found() {
    explore(RandomScheduler::new_from_seed(1, 500), Trouble::Deafness);
}

#[test]
#[should_panic(expected = "a word changes hands")]
fn a_word_that_is_stolen_from_the_living_is_found() {
    explore(RandomScheduler::new_from_seed(1, 500), Trouble::Slander);
}

/// `cargo xtask soak schedules`.
#[test]
#[ignore = "it takes as long as it is told to"]
fn soak() {
    let count = usize::try_from(setting("TIDELINE_SCHEDULES", 2000)).expect("a number");
    let tried = explore_all(setting("TIDELINE_SEED", 0), count);
    println!("tried: schedules={tried}");
}
