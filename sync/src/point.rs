//! How far a history is followed.

use tideline_journal::Lsn;

/// How far what is at a remote is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// All of it.
    Newest,
    /// Up to this LSN.
    Lsn(Lsn),
    /// Up to the newest commit that isn't later, in milliseconds since 1970.
    Time(u64),
}

impl Point {
    /// Whether a commit is in it.
    pub(crate) fn has(self, lsn: u64, time: u64) -> bool {
        match self {
            Point::Newest => true,
            Point::Lsn(last) => lsn <= last.get(),
            Point::Time(last) => time <= last,
        }
    }
}
