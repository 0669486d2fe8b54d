//! What must hold between any two steps.
//!
//! 1. A, D, P and the base's LSN never fall; D and P never pass A.
//! 2. Only the holder of W moves A, each time by one LSN. Only the holder of F moves D.
//! 3. W and F are taken when they are free, given up by their holder, and stolen from the dead alone; a turn is given to
//!    whoever keeps it, or taken once it is over.
//! 4. The base doesn't pass a snapshot that a living process has, and neither does what a fold writes.
//! 5. Nothing is poisoned unless something failed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::control::{
    Control, Holder, W_APPENDED, W_BASE, W_DURABLE, W_FLUSHER, W_POISON, W_PUBLISHED, W_WRITER,
};
use crate::disk::Words;
use crate::lsn::Lsn;

/// Those of the words that are watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    writer: u64,
    flusher: u64,
    appended: u64,
    durable: u64,
    published: u64,
    base: u64,
    poison: u64,
}

#[derive(Default)]
pub(super) struct Watch {
    words: Option<Arc<dyn Words>>,
    on: bool,
    last: Seen,
    /// Who the processes are in the words.
    holders: BTreeMap<usize, Holder>,
    dead: BTreeSet<u64>,
    /// Snapshots of the living, by process.
    pins: BTreeMap<usize, Lsn>,
    /// Something was made to fail.
    pub faulty: bool,
}

impl Watch {
    /// The words themselves, as the first process has them.
    pub fn see(&mut self, words: &Arc<dyn Words>) {
        self.words.get_or_insert_with(|| Arc::clone(words));
    }

    /// Begins; the first process is there, and nobody does anything.
    pub fn begin(&mut self) {
        self.on = true;
        self.last = self.now();
    }

    /// Ends: the store is being closed.
    pub fn end(&mut self) {
        self.on = false;
    }

    /// A process has its slot.
    pub fn joined(&mut self, id: usize, control: &Control) {
        self.holders.insert(id, control.me);
    }

    /// A process was killed.
    pub fn died(&mut self, id: usize) {
        self.pins.remove(&id);
        self.dead.extend(self.holders.get(&id).map(|holder| holder.0));
    }

    /// A process has pinned a snapshot, or has none any more.
    pub fn pinned(&mut self, id: usize, lsn: Option<Lsn>) {
        match lsn {
            Some(lsn) => self.pins.insert(id, lsn),
            None => self.pins.remove(&id),
        };
        self.keeps_pins();
    }

    fn now(&self) -> Seen {
        let words = self.words.as_ref().expect("somebody has mapped them").words();
        let get = |index: usize| words[index].load(Ordering::SeqCst);
        Seen {
            writer: get(W_WRITER),
            flusher: get(W_FLUSHER),
            appended: get(W_APPENDED),
            durable: get(W_DURABLE),
            published: get(W_PUBLISHED),
            base: get(W_BASE),
            poison: get(W_POISON),
        }
    }

    fn keeps_pins(&self) {
        for (id, pin) in &self.pins {
            assert!(
                self.last.base <= pin.get(),
                "the base is at {}, process {id} reads {pin}",
                self.last.base
            );
        }
    }

    /// Looks at what process `id` has changed.
    pub fn look(&mut self, id: usize) {
        if !self.on {
            return;
        }
        let (before, now) = (self.last, self.now());
        if before == now {
            return;
        }
        self.last = now;
        let me = self.holders.get(&id).map_or(0, |holder| holder.0);
        let told = || format!("by process {id}, {me:#x}: {before:x?} to {now:x?}");
        assert!(now.appended >= before.appended && now.durable >= before.durable, "it falls, {}", told());
        assert!(now.published >= before.published && now.base >= before.base, "it falls, {}", told());
        assert!(now.durable <= now.appended && now.published <= now.appended, "beyond A, {}", told());
        assert!(now.base <= now.durable, "the base beyond D, {}", told());
        if now.appended != before.appended {
            assert_eq!(now.appended, before.appended + 1, "LSNs are left out, {}", told());
            assert!(before.writer == me && now.writer == me, "A moved without W, {}", told());
        }
        if now.durable != before.durable {
            assert_eq!(before.flusher, me, "D moved without F, {}", told());
        }
        assert!(now.poison == before.poison || self.faulty, "poisoned, {}", told());
        self.changes_hands(before.writer, now.writer, me, &told);
        self.changes_hands(before.flusher, now.flusher, me, &told);
        self.keeps_pins();
    }

    fn changes_hands(&self, before: u64, now: u64, me: u64, told: &dyn Fn() -> String) {
        let (was, is) = (Holder(before), Holder(now));
        let mine = Holder(me);
        let sound = match (before, now) {
            (before, now) if before == now => true,
            (0, _) => is == mine || is == mine.turn(),
            // Somebody's turn that is over is another's, or nobody's but the taker's.
            (_, _) if was.is_turn() => is == mine || is == mine.turn(),
            (_, 0) => was == mine,
            // What was stolen is given back to the dead.
            (_, _) if was == mine => self.dead.contains(&now),
            (_, _) => is == mine && self.dead.contains(&before),
        };
        assert!(sound, "a word changes hands, {}", told());
    }
}
