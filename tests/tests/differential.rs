//! Random SQL on stock SQLite and on Tideline, side by side: both say the same.

use tideline_tests::Dice;
use tideline_tests::differential::{Tally, play};

/// Plays of these seeds, each of so many steps.
fn plays(seeds: impl Iterator<Item = u64>, steps: usize) -> Tally {
    let mut tally = Tally::default();
    for seed in seeds {
        println!("seed {seed}");
        tally.add(&play(seed, steps));
    }
    tally
}

#[test]
fn both_say_the_same() {
    println!("{}", plays(0..12, 250));
}

/// `cargo xtask soak differential`.
#[test]
#[ignore = "it takes as long as it is told to"]
fn soak() {
    let first = Dice::new("differential").draw();
    let plays_ = std::env::var("TIDELINE_PLAYS").ok().and_then(|text| text.parse().ok()).unwrap_or(40);
    println!("tried: {}", plays((0..plays_).map(|n| first.wrapping_add(n)), 1000));
}
