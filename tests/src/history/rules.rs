//! What every history has to keep.

use std::fmt;

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Each commit has an LSN of its own, and no LSN is left out.
    OwnLsn,
    /// What was acknowledged is there.
    Acknowledged,
    /// What was rolled back or refused isn't there, nor is what nobody asked to be committed.
    Nothing,
    /// A read sees the state of the commits up to its LSN, all of them and nothing else.
    Snapshot,
    /// All reads of a transaction see the same.
    Repeatable,
    /// A transaction sees its own writes.
    OwnWrites,
    /// First committer wins: a commit follows the one whose state it read.
    FirstCommitter,
    /// A connection's transactions don't go back in time.
    Monotonic,
    /// A transaction sees its connection's commits before it.
    ReadYourWrites,
    /// A transaction sees every commit that was acknowledged before it began.
    Recent,
    /// A transaction sees what anybody had seen before it began.
    Visible,
    /// Nothing is seen before somebody asked for its commit.
    Future,
    /// Where two commits don't overlap, the earlier one has the smaller LSN.
    Order,
}

/// What is wrong with a history.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which rule isn't kept.
    pub rule: Rule,
    /// By whom.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.text)
    }
}
