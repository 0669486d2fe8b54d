//! Stand-in for the `getrandom` crate in the fuzz targets: the numbers of each thread follow from
//! the last [`reset`], so that an input always does the same.

use std::cell::Cell;
use std::fmt;

thread_local! {
    static STATE: Cell<u64> = const { Cell::new(0) };
}

/// Never happens.
#[derive(Clone, Copy, Debug)]
pub struct Error;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no random numbers")
    }
}

impl std::error::Error for Error {}

/// Begins a sequence of numbers anew.
pub fn reset(seed: u64) {
    STATE.set(seed);
}

/// The next number (splitmix64).
///
/// # Errors
/// None; the real crate's may fail.
pub fn u64() -> Result<u64, Error> {
    let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    Ok(z ^ (z >> 31))
}
