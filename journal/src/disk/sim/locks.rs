//! Byte-range locks of open files.

use crate::disk::LockKind;

/// Who has a lock: a number that each open of a file gets for itself.
pub(super) type Owner = u64;

struct Held {
    node: u64,
    owner: Owner,
    process: u64,
    start: u64,
    end: u64,
    kind: LockKind,
}

/// The locks of a disk.
#[derive(Default)]
pub(super) struct Locks(Vec<Held>);

/// Bytes `start..end` of one file, as one of its openers sees them.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub(super) node: u64,
    pub(super) owner: Owner,
    pub(super) process: u64,
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Range {
    fn meets(self, held: &Held) -> bool {
        held.node == self.node && held.start < self.end && self.start < held.end
    }
}

impl Locks {
    /// True if another owner's lock would keep this owner from one of `kind`.
    pub(super) fn taken(&self, range: Range, kind: LockKind) -> bool {
        self.0.iter().any(|held| {
            range.meets(held)
                && held.owner != range.owner
                && (kind == LockKind::Write || held.kind == LockKind::Write)
        })
    }

    /// False, with nothing changed, if another's lock is in the way.
    pub(super) fn take(&mut self, range: Range, kind: LockKind) -> bool {
        if self.taken(range, kind) {
            return false;
        }
        self.release(range);
        let Range { node, owner, process, start, end } = range;
        self.0.push(Held { node, owner, process, start, end, kind });
        true
    }

    /// Gives up what the owner has in `range`; a lock that reaches out of it keeps its ends.
    pub(super) fn release(&mut self, range: Range) {
        let mut ends = Vec::new();
        self.0.retain(|held| {
            if held.owner != range.owner || !range.meets(held) {
                return true;
            }
            if held.start < range.start {
                ends.push(Held { end: range.start, ..*held });
            }
            if held.end > range.end {
                ends.push(Held { start: range.end, ..*held });
            }
            false
        });
        self.0.append(&mut ends);
    }

    /// Gives up all that `owner` has.
    pub(super) fn release_owner(&mut self, owner: Owner) {
        self.0.retain(|held| held.owner != owner);
    }

    /// Gives up all that `process` has.
    pub(super) fn release_process(&mut self, process: u64) {
        self.0.retain(|held| held.process != process);
    }
}
