//! What was committed, acknowledged and seen.

use std::collections::BTreeMap;

use crate::lsn::Lsn;

/// Pages of the database behind page 1. The first of them is written by each commit, with its name.
pub(super) const PAGES: usize = 4;

/// What those pages hold: names of commits.
pub(super) type Pages = [u64; PAGES];

/// A commit that was asked for.
struct Asked {
    lsn: Lsn,
    pages: Pages,
}

#[derive(Default)]
pub(super) struct Ledger {
    asked: BTreeMap<u64, Asked>,
    /// Which commit an LSN is, once somebody knows.
    known: BTreeMap<Lsn, u64>,
    /// Newest LSN that somebody was told of, by an acknowledgement or a read.
    told: Lsn,
    /// Newest LSN that was acknowledged as durable.
    pub durable: Lsn,
    /// Whether somebody committed without waiting for the disk.
    pub hurried: bool,
    next: u64,
}

impl Ledger {
    /// A name for a commit.
    pub fn name(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Somebody is about to commit these pages.
    pub fn ask(&mut self, name: u64, lsn: Lsn, pages: Pages) {
        self.asked.insert(name, Asked { lsn, pages });
    }

    /// A commit was acknowledged.
    pub fn acknowledge(&mut self, name: u64, lsn: Lsn, durable: bool) {
        assert_eq!(self.asked[&name].lsn, lsn, "the commit has another LSN than its snapshot's next");
        self.is(lsn, name);
        self.told = self.told.max(lsn);
        if durable {
            self.durable = self.durable.max(lsn);
        } else {
            self.hurried = true;
        }
    }

    /// What whoever begins now must see at least.
    pub fn least(&self) -> Lsn {
        self.told
    }

    /// Somebody read this at an LSN. Others must see it, too, from now on, unless it was the `writer`.
    pub fn read(&mut self, lsn: Lsn, pages: Pages, writer: bool) {
        let Some(asked) = self.asked.get(&pages[0]) else {
            panic!("LSN {lsn} holds {pages:?}, and nobody wrote that");
        };
        assert_eq!(asked.lsn, lsn, "{pages:?} is of another LSN");
        assert_eq!(asked.pages, pages, "LSN {lsn} isn't one commit");
        self.is(lsn, pages[0]);
        if !writer {
            self.told = self.told.max(lsn);
        }
    }

    fn is(&mut self, lsn: Lsn, name: u64) {
        let known = *self.known.entry(lsn).or_insert(name);
        assert_eq!(known, name, "LSN {lsn} is two commits");
    }

    /// What is found in the end, perhaps after a power cut, has all that was promised.
    pub fn found(&mut self, lsn: Lsn) {
        let least = if self.hurried { self.durable } else { self.told };
        assert!(lsn >= least, "LSN {lsn} was found, {least} was promised");
    }
}
