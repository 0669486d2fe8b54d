//! Log sequence numbers.

use std::fmt;

/// Number of a commit on one lineage. Dense and increasing; 0 is "before everything".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(u64);

impl Lsn {
    /// Before the first commit.
    pub const ZERO: Lsn = Lsn(0);

    /// The LSN with this number.
    pub const fn new(number: u64) -> Lsn {
        Lsn(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The LSN of the commit after this one.
    pub const fn next(self) -> Lsn {
        Lsn(self.0 + 1)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The inclusive range of LSNs that an entry covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LsnRange {
    /// First LSN in it.
    pub first: Lsn,
    /// Last LSN in it, not below `first`.
    pub last: Lsn,
}

impl LsnRange {
    /// The range of one commit.
    pub const fn one(lsn: Lsn) -> LsnRange {
        LsnRange { first: lsn, last: lsn }
    }

    /// How many LSNs it covers.
    pub const fn count(self) -> u64 {
        self.last.0 - self.first.0 + 1
    }
}
