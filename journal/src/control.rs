//! The control file: words that every process of a store shares (COMMIT protocol in ARCHITECTURE.md).
//!
//! Nothing in it need survive: the first process to open a store rebuilds it from the segments. SETTLED alone is looked at
//! before, and believed where it names the superblock that is there.
//! Each process holds a lock on its slot for as long as it has the store open, so that the kernel
//! can tell whether the holder of a word is alive.
//!
//! ```text
//! W  writer    slot and generation, 0 when free     BASE     LSN of the base
//! F  flusher   the same                             TARGET   LSN that a fold is moving it to
//! A  appended head                                  HORIZON  oldest LSN that segments are kept for
//! D  durable head                                   MARKED   1 while the base is marked
//! P  published without waiting                      WRITER_LAST  who set A last
//!                                                   SEGMENT  largest number of a segment so far
//!                                                   TURN_SINCE  when W was given to one who waited
//!                                                   SETTLED  stamp of a superblock that rests on the disk
//!                                                   WRITTEN  sequence number of a superblock that is on the disk
//! ```
//! Readers see `max(P, D)`.

mod cells;
#[cfg(test)]
mod schedules;
mod turn;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::time::Duration;

use crate::disk::{Disk, File, How, LockKind, Words, fork_generation};
use crate::error::{At, Code, Error, Result};
use crate::lsn::Lsn;

pub(crate) use cells::Cell;

const MAGIC: u64 = u64::from_le_bytes(*b"TIDECTL1");

// Each hot word has a cache line of its own.
const W_MAGIC: usize = 0;
const W_EPOCH: usize = 2;
const W_SETTLED: usize = 4;
const W_WRITTEN: usize = 5;
const W_WRITER: usize = 8;
const W_FLUSHER: usize = 16;
const W_APPENDED: usize = 24;
const W_DURABLE: usize = 32;
const W_PUBLISHED: usize = 40;
const W_POISON: usize = 48;
/// Value of the poison word of a store that was detached.
const DETACHED: u64 = 2;
const W_BASE: usize = 56;
const W_TARGET: usize = 64;
const W_HORIZON: usize = 72;
const W_MARKED: usize = 80;
const W_WRITER_LAST: usize = 88;
const W_CELLS_HIGH: usize = 96;
const W_PENDING: usize = 104;
const W_SEGMENT: usize = 112;
const W_TURN_SINCE: usize = 120;
const W_SLOTS: usize = 128;
const SLOTS: usize = 256;
const W_CELLS: usize = 1024;
// Miri takes its time for each word.
const CELLS: usize = if cfg!(miri) { 128 } else { 4096 };
const WORDS: usize = W_CELLS + 2 * CELLS;

// Lock bytes lie behind the words.
const LOCK_SLOTS: u64 = 1 << 20;
const LOCK_OPEN: u64 = LOCK_SLOTS + 1024;
const LOCK_FOLD: u64 = LOCK_OPEN + 1;
const LOCK_SUPERBLOCK: u64 = LOCK_OPEN + 2;
const LOCK_REMOTES: u64 = LOCK_OPEN + 3;
/// A byte for each hash of a remote's name, far behind all others; a file's offsets go on to 2^63.
const LOCK_LANES: u64 = 1 << 32;
const LANES: u64 = 1 << 32;

/// Who holds a word: slot + 1 in the low 15 bits, then [`Holder::TURN`], generation above. 0 is nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder(u64);

impl Holder {
    const NOBODY: Holder = Holder(0);
    /// Set in the writer word when nobody holds it, but somebody who waited is to be next. It lies in the half that
    /// the kernel compares for those who sleep.
    const TURN: u64 = 1 << 15;

    fn slot(self) -> Option<usize> {
        ((self.0 & (Self::TURN - 1)) as usize).checked_sub(1)
    }

    /// The same holder, as one whose turn it is.
    fn turn(self) -> Holder {
        Holder(self.0 | Self::TURN)
    }

    /// True if the word is free but for somebody's turn.
    pub fn is_turn(self) -> bool {
        self.0 & Self::TURN != 0
    }

    fn generation(self) -> u64 {
        self.0 >> 16
    }
}

/// A word that one process holds at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Writer,
    Flusher,
}

impl Word {
    fn index(self) -> usize {
        match self {
            Word::Writer => W_WRITER,
            Word::Flusher => W_FLUSHER,
        }
    }
}

/// The locks that serialise rare work. Each is held through the control file's descriptor, so the
/// threads of one process need a mutex of their own in front of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lock {
    /// Opening, closing, rebuilding.
    Open,
    /// Folding and trimming.
    Fold,
    /// Changing the superblock.
    Superblock,
    /// Changing what is kept about remotes.
    Remotes,
    /// Talking to the remote whose name has this hash.
    Remote(u32),
}

impl Lock {
    fn byte(self) -> u64 {
        match self {
            Lock::Open => LOCK_OPEN,
            Lock::Fold => LOCK_FOLD,
            Lock::Superblock => LOCK_SUPERBLOCK,
            Lock::Remotes => LOCK_REMOTES,
            Lock::Remote(lane) => LOCK_LANES + u64::from(lane),
        }
    }
}

/// How long a rare lock is waited for before the caller is told that it is busy.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// This process's view of the control file, before it has a slot.
pub(crate) struct ControlFile {
    words: Arc<dyn Words>,
    file: Arc<dyn File>,
}

impl ControlFile {
    /// Opens it, creating it if need be.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<ControlFile> {
        let file = disk.open(path, How::Create).at(|| format!("opening {}", path.display()))?;
        let words = disk.words(path, WORDS).at(|| format!("mapping {}", path.display()))?;
        Ok(ControlFile { words, file })
    }

    /// Takes `lock`, waiting for it within reason.
    pub fn lock(&self, lock: Lock) -> Result<()> {
        let mut slept = Duration::ZERO;
        let mut step = Duration::from_micros(100);
        while !self.try_lock(lock)? {
            if slept >= LOCK_PATIENCE {
                return Err(Error::new(
                    Code::Busy,
                    "another process is opening, closing or folding this database; try again",
                ));
            }
            self.words.pause(step);
            slept += step;
            step = (step * 2).min(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Takes `lock` if nobody else has it.
    pub fn try_lock(&self, lock: Lock) -> Result<bool> {
        self.file.lock(lock.byte(), 1, LockKind::Write).at(|| "locking the control file".into())
    }

    /// Gives `lock` up.
    pub fn unlock(&self, lock: Lock) {
        // Nothing can be done about a failure: the lock goes with the descriptor.
        drop(self.file.unlock(lock.byte(), 1));
    }

    /// Gives up every lock, the slot's too.
    pub fn leave(&self) {
        drop(self.file.unlock(LOCK_SLOTS, LOCK_LANES + LANES - LOCK_SLOTS));
    }

    /// What identifies it: device and inode.
    pub fn inode(&self) -> Result<(u64, u64)> {
        let identity = self.file.identity().at(|| "reading the control file".into())?;
        Ok((identity.device, identity.inode))
    }

    /// Lets others run for a while.
    pub fn pause(&self, time: Duration) {
        self.words.pause(time);
    }

    /// True if no other process has the store open. Only meaningful under [`Lock::Open`].
    pub fn alone(&self) -> Result<bool> {
        Ok(!self.file.locked_by_other(LOCK_SLOTS, SLOTS as u64).at(|| "asking for locks".into())?)
    }

    /// True while the base on disk is marked.
    pub fn marked(&self) -> bool {
        self.word(W_MARKED).load(Ordering::SeqCst) != 0
    }

    /// Stamp of the superblock that was on the disk with all that it speaks of, when that was found out last.
    pub fn settled(&self) -> u64 {
        self.word(W_SETTLED).load(Ordering::SeqCst)
    }

    /// Says that the superblock with this stamp is on the disk with all that it speaks of. With nobody else there.
    pub fn set_settled(&self, stamp: u64) {
        self.word(W_SETTLED).store(stamp, Ordering::SeqCst);
    }

    /// Largest sequence number of a superblock that is known to be on the disk.
    pub fn written(&self) -> u64 {
        self.word(W_WRITTEN).load(Ordering::SeqCst)
    }

    /// Says that the superblock with this sequence number is on the disk.
    pub fn set_written(&self, sequence: u64) {
        self.word(W_WRITTEN).fetch_max(sequence, Ordering::SeqCst);
    }

    /// Sets every word as for a store whose head and durable head are `head`, and whose base is at one LSN and may hold
    /// images up to another. Under [`Lock::Open`] with nobody else there.
    pub fn rebuild(
        &self,
        epoch: u64,
        head: Lsn,
        [base, target]: [Lsn; 2],
        horizon: Lsn,
        marked: bool,
        segment: u32,
    ) {
        for word in self.words.words() {
            // Most are, and to write to a page of a file for the first time takes the system longer than to read it.
            if word.load(Ordering::Relaxed) != 0 {
                word.store(0, Ordering::Relaxed);
            }
        }
        let set = |index: usize, value: u64| self.word(index).store(value, Ordering::SeqCst);
        set(W_EPOCH, epoch);
        set(W_APPENDED, head.get());
        set(W_DURABLE, head.get());
        set(W_PUBLISHED, head.get());
        set(W_BASE, base.get());
        set(W_TARGET, target.get());
        set(W_HORIZON, horizon.get());
        set(W_MARKED, u64::from(marked));
        set(W_SEGMENT, u64::from(segment));
        set(W_MAGIC, MAGIC);
    }

    /// Takes a slot. Under [`Lock::Open`], after a rebuild if this process is alone.
    pub fn claim(self) -> Result<Control> {
        if self.word(W_MAGIC).load(Ordering::SeqCst) != MAGIC {
            return Err(Error::new(
                Code::Format,
                "the control file was made by another version of this library; close the database everywhere",
            ));
        }
        for slot in 0..SLOTS {
            let taken = self
                .file
                .lock(LOCK_SLOTS + slot as u64, 1, LockKind::Write)
                .at(|| "locking a slot of the control file".into())?;
            if taken {
                // A new generation: words that name the slot's earlier holder are a dead one's.
                let generation = self.word(W_SLOTS + 2 * slot).fetch_add(1, Ordering::SeqCst) + 1;
                let me = Holder((generation << 16) | (slot as u64 + 1));
                return Ok(Control { shared: self, me, born: fork_generation() });
            }
        }
        Err(Error::new(Code::Limit, format!("{SLOTS} processes have this database open; close one of them")))
    }

    /// A word, for one look or change: whatever tries out orders of these counts on it.
    fn word(&self, index: usize) -> &AtomicU64 {
        &self.words.words()[index]
    }
}

/// The control file, as seen by a process that has a slot.
///
/// In a child of `fork` it changes nothing: the words are its parent's.
pub(crate) struct Control {
    shared: ControlFile,
    me: Holder,
    born: u64,
}

impl Control {
    fn word(&self, index: usize) -> &AtomicU64 {
        self.shared.word(index)
    }

    /// False in a child of `fork`.
    fn is_own(&self) -> bool {
        self.born == fork_generation()
    }

    fn lsn(&self, index: usize) -> Lsn {
        Lsn::new(self.word(index).load(Ordering::SeqCst))
    }

    /// Time for those who wait: that of all processes.
    pub fn now(&self) -> Duration {
        self.shared.words.now()
    }

    /// Lets others run before a word is looked at again.
    pub fn pause(&self) {
        self.shared.words.pause(Duration::ZERO);
    }

    /// The file, for its locks.
    pub fn file(&self) -> &ControlFile {
        &self.shared
    }

    /// Random number drawn at the last rebuild.
    pub fn epoch(&self) -> u64 {
        self.word(W_EPOCH).load(Ordering::SeqCst)
    }

    /// A: newest entry that has its commit record.
    pub fn appended(&self) -> Lsn {
        self.lsn(W_APPENDED)
    }

    /// D: newest entry known to be on the disk.
    pub fn durable(&self) -> Lsn {
        self.lsn(W_DURABLE)
    }

    /// Newest entry that readers see.
    pub fn visible(&self) -> Lsn {
        self.lsn(W_PUBLISHED).max(self.lsn(W_DURABLE))
    }

    /// LSN of the base.
    pub fn base(&self) -> Lsn {
        self.lsn(W_BASE)
    }

    /// Oldest LSN that segments are kept for.
    pub fn horizon(&self) -> Lsn {
        self.lsn(W_HORIZON)
    }

    /// As [`ControlFile::marked`].
    pub fn marked(&self) -> bool {
        self.shared.marked()
    }

    /// Notes that the base on disk is, or isn't, marked.
    pub fn set_marked(&self, marked: bool) {
        self.word(W_MARKED).store(u64::from(marked), Ordering::SeqCst);
    }

    /// True once an fsync failed, or the store was detached.
    pub fn poisoned(&self) -> bool {
        self.word(W_POISON).load(Ordering::SeqCst) != 0
    }

    /// True once the store was detached.
    pub fn detached(&self) -> bool {
        self.word(W_POISON).load(Ordering::SeqCst) == DETACHED
    }

    /// Nothing is committed any more: there is no store.
    pub fn set_detached(&self) {
        self.word(W_POISON).store(DETACHED, Ordering::SeqCst);
    }

    /// Marks the store as unusable until all have closed it, and wakes who waits.
    pub fn poison(&self) {
        if !self.is_own() {
            return;
        }
        // One that was detached stays so.
        self.word(W_POISON).fetch_max(1, Ordering::SeqCst);
        self.wake(W_DURABLE, u32::MAX);
    }

    /// Takes `word` if nobody has it.
    pub fn take(&self, word: Word) -> std::result::Result<(), Holder> {
        self.word(word.index())
            .compare_exchange(Holder::NOBODY.0, self.me.0, Ordering::SeqCst, Ordering::SeqCst)
            .map(drop)
            .map_err(Holder)
    }

    /// Takes `word` from `dead`; false if it has changed hands meanwhile.
    pub fn steal(&self, word: Word, dead: Holder) -> bool {
        self.word(word.index())
            .compare_exchange(dead.0, self.me.0, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// Leaves `word`, which was stolen from `dead`, to whoever steals it next.
    pub fn give_back(&self, word: Word, dead: Holder) {
        if self.is_own() {
            self.word(word.index()).store(dead.0, Ordering::SeqCst);
        }
    }

    /// True if somebody writes, or waits to.
    pub fn crowded(&self) -> bool {
        let word = self.word(W_WRITER).load(Ordering::SeqCst);
        word != Holder::NOBODY.0 || self.word(W_WRITER + 1).load(Ordering::SeqCst) != 0
    }

    /// Gives `word` up and wakes who waits for it: one who wants to write, and all who want to be durable, as most of
    /// them are.
    pub fn release(&self, word: Word) {
        if !self.is_own() {
            return;
        }
        self.word(word.index()).store(Holder::NOBODY.0, Ordering::SeqCst);
        self.wake(word.index(), if word == Word::Flusher { u32::MAX } else { 1 });
    }

    /// Wakes up to `count` of those who wait for a word, if anybody does: the word behind it counts
    /// them. One who is killed while it waits makes later wakes needless, no more.
    fn wake(&self, index: usize, count: u32) {
        if self.word(index + 1).load(Ordering::SeqCst) != 0 {
            self.shared.words.wake(index, count);
        }
    }

    fn wait(&self, index: usize, seen: u64, timeout: Duration) {
        self.word(index + 1).fetch_add(1, Ordering::SeqCst);
        self.shared.words.wait(index, seen, timeout);
        self.word(index + 1).fetch_sub(1, Ordering::SeqCst);
    }

    /// Who has `word`; `None` if nobody.
    pub fn holder(&self, word: Word) -> Option<Holder> {
        let holder = Holder(self.word(word.index()).load(Ordering::SeqCst));
        (holder != Holder::NOBODY).then_some(holder)
    }

    /// Sleeps until `word` leaves the hands of `holder`, or until `timeout`, or until a turn has been kept long enough.
    pub fn wait_word(&self, word: Word, holder: Holder, timeout: Duration) {
        let timeout = if holder.is_turn() { timeout.min(self.turn_left()) } else { timeout };
        self.wait(word.index(), holder.0, timeout);
    }

    /// Sleeps until the durable head leaves `seen`, or until `timeout`.
    pub fn wait_durable(&self, seen: Lsn, timeout: Duration) {
        self.wait(W_DURABLE, seen.get(), timeout);
    }

    /// True if the process that `holder` names still has the store open.
    pub fn alive(&self, holder: Holder) -> Result<bool> {
        let Some(slot) = holder.slot().filter(|&slot| slot < SLOTS) else { return Ok(false) };
        if self.word(W_SLOTS + 2 * slot).load(Ordering::SeqCst) != holder.generation() {
            return Ok(false);
        }
        if self.me.slot() == Some(slot) {
            return Ok(true);
        }
        self.shared
            .file
            .locked_by_other(LOCK_SLOTS + slot as u64, 1)
            .at(|| "asking whether a process is alive".into())
    }

    /// A := `lsn`, by the holder of the writer word.
    pub fn set_appended(&self, lsn: Lsn) {
        self.word(W_WRITER_LAST).store(self.me.0, Ordering::SeqCst);
        self.word(W_APPENDED).store(lsn.get(), Ordering::SeqCst);
    }

    /// A := `lsn`, of an entry whose writer is dead; it stays the last writer, so that whoever pins
    /// next publishes the entry.
    pub fn set_appended_for_dead(&self, lsn: Lsn) {
        self.word(W_APPENDED).store(lsn.get(), Ordering::SeqCst);
    }

    /// True while the writer has a prepared entry that a super-journal decides about.
    pub fn pending(&self) -> bool {
        self.word(W_PENDING).load(Ordering::SeqCst) != 0
    }

    /// Notes that there is, or isn't, a prepared entry. By the holder of the writer word.
    pub fn set_pending(&self, pending: bool) {
        if !self.is_own() {
            return;
        }
        self.word(W_PENDING).store(u64::from(pending), Ordering::SeqCst);
    }

    /// Who set A last.
    pub fn last_writer(&self) -> Option<Holder> {
        let holder = Holder(self.word(W_WRITER_LAST).load(Ordering::SeqCst));
        (holder != Holder::NOBODY).then_some(holder)
    }

    /// P := max(P, `lsn`).
    pub fn publish(&self, lsn: Lsn) {
        self.word(W_PUBLISHED).fetch_max(lsn.get(), Ordering::SeqCst);
    }

    /// D := max(D, `lsn`), and wakes all who wait for it.
    pub fn set_durable(&self, lsn: Lsn) {
        if self.word(W_DURABLE).fetch_max(lsn.get(), Ordering::SeqCst) < lsn.get() {
            self.wake(W_DURABLE, u32::MAX);
        }
    }

    /// Announces that the base will move to `wanted`, and returns how far it may move: never past
    /// a snapshot that a living reader has registered. What an earlier fold announced, and may have
    /// written, stays announced until the base is there.
    pub fn announce_fold(&self, wanted: Lsn) -> Result<Lsn> {
        let before = self.fold_target().max(self.base());
        self.word(W_TARGET).store(wanted.max(before).get(), Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let allowed = wanted.min(self.oldest_pin(wanted)?);
        self.word(W_TARGET).store(allowed.max(before).get(), Ordering::SeqCst);
        Ok(allowed)
    }

    /// BASE := `lsn`.
    pub fn set_base(&self, lsn: Lsn) {
        self.word(W_BASE).store(lsn.get(), Ordering::SeqCst);
    }

    /// LSN that the base is at, or up to which it may hold images of a fold that isn't finished.
    pub fn fold_target(&self) -> Lsn {
        self.lsn(W_TARGET)
    }

    /// HORIZON := `lsn`.
    pub fn set_horizon(&self, lsn: Lsn) {
        self.word(W_HORIZON).store(lsn.get(), Ordering::SeqCst);
    }

    /// A number that no segment has had.
    ///
    /// # Errors
    /// `Limit` once they are used up.
    pub fn next_segment(&self) -> Result<u32> {
        let last = self.word(W_SEGMENT).fetch_add(1, Ordering::SeqCst);
        u32::try_from(last + 1).map_err(|_| {
            Error::new(
                Code::Limit,
                "the journal has used up its segment numbers; detach the database and adopt it again",
            )
        })
    }
}
