//! Choices at random that can be repeated.

use std::time::{SystemTime, UNIX_EPOCH};

/// A small generator (SplitMix64). Its seed is `TIDELINE_SEED`, or drawn from the clock, and printed.
pub struct Dice(u64);

impl Dice {
    /// One for the test of this name.
    pub fn new(test: &str) -> Self {
        let seed = match std::env::var("TIDELINE_SEED") {
            Ok(text) => text.parse().expect("TIDELINE_SEED is a number"),
            Err(_) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock past 1970");
                now.as_secs() ^ u64::from(now.subsec_nanos()) << 20
            }
        };
        println!("{test}: TIDELINE_SEED={seed}");
        Self(seed)
    }

    /// One with this seed.
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u32) -> u32 {
        u32::try_from(((self.draw() >> 32) * u64::from(end)) >> 32).expect("below a number of 32 bits")
    }

    /// An index into a list of this length.
    pub fn pick(&mut self, length: usize) -> usize {
        let length = u32::try_from(length).expect("a short list");
        self.below(length).try_into().expect("an index")
    }

    /// True in so many cases of a hundred.
    pub fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }

    /// One of a list.
    pub fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.pick(list.len())]
    }
}

/// How often a test that draws at random does so: `full`, or a quarter of it where haste is asked for.
pub fn rounds(full: u32) -> u32 {
    if std::env::var_os("TIDELINE_QUICK").is_some() { full.div_ceil(4) } else { full }
}
