//! From appended to durable: one fsync for all who wait (COMMIT protocol in ARCHITECTURE.md, step 7).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::control::Word;
use crate::error::{Code, Result};
use crate::lsn::Lsn;
use crate::recover::rewrite;
use crate::segment::Segment;
use crate::session::poisoned;
use crate::store::Store;

/// Sealed segments that are made durable together.
const MANY: usize = 4;

/// Sealed segments that are given time to reach the disk before they are waited for.
const UNDER_WAY: usize = 4;

/// Age in milliseconds up to which segments aren't put on the disk by themselves.
const YOUNG_MS: u64 = 500;

/// How long an fsync is put off, at most, for writers that are about to commit.
const GATHER: Duration = Duration::from_millis(1);

/// How long a waiter sleeps before it asks whether the flusher is alive.
const PATIENCE: Duration = Duration::from_millis(20);

impl Store {
    /// Waits until everything up to `lsn` is on the disk, and does the fsync if nobody else does.
    /// The caller doesn't hold the writer word.
    ///
    /// # Errors
    /// `Poisoned` if this or an earlier fsync failed.
    pub(crate) fn make_durable(&self, lsn: Lsn) -> Result<()> {
        self.make_durable_as(lsn, false)
    }

    /// The same, by somebody who may hold the writer word.
    ///
    /// Whoever steals the flusher word needs the writer word too, and its holder may be waiting
    /// here; so the thief gives back what it stole when it can't have both, and the holder steals.
    pub(crate) fn make_durable_as(&self, lsn: Lsn, writer: bool) -> Result<()> {
        self.make_durable_through(lsn, None, writer)
    }

    /// Begins to put sealed segments on the disk, and waits for older ones. The segment that commits are
    /// written to is left alone: after a sync it would be slower to write. So are those of the last moment: where much
    /// is committed, a fold may come before they need to be on the disk ([`Store::merge_ahead`]).
    pub(crate) fn sync_sealed(&self) -> Result<()> {
        let (index, first) = {
            let tail = self.tail.lock();
            (Arc::clone(&tail.index), tail.index.segment(tail.segment).header.first)
        };
        let sealed = Lsn::new(first.get().saturating_sub(1));
        let segments = index.unsynced(self.control.durable(), sealed);
        let now = self.options.clock.now_ms();
        let young = |s: &Arc<Segment>| now.saturating_sub(s.header.time) < YOUNG_MS;
        let old = segments.iter().position(young).unwrap_or(segments.len());
        let segments = &segments[..old];
        for segment in segments.iter().filter(|s| !s.under_way.swap(true, Ordering::Relaxed)) {
            segment.file.begin_sync();
        }
        // The newest are still on their way.
        match segments.len().checked_sub(UNDER_WAY) {
            Some(arrived) if arrived >= MANY => {
                self.make_just_durable(Lsn::new(segments[arrived].header.first.get() - 1))
            }
            _ => Ok(()),
        }
    }

    /// Makes what is in a segment durable, apart from what D says.
    ///
    /// # Errors
    /// `Io`, which poisons the store; `Poisoned`, as another process may have been told of what this sync then wasn't.
    pub(crate) fn sync_segment(&self, segment: &Segment) -> Result<()> {
        segment.sync().inspect_err(|_| self.control.poison())?;
        if self.control.poisoned() { Err(poisoned()) } else { Ok(()) }
    }

    /// Makes everything up to `lsn` durable, and nothing else.
    pub(crate) fn make_just_durable(&self, lsn: Lsn) -> Result<()> {
        self.make_durable_through(lsn, Some(lsn), false)
    }

    /// Makes everything up to `lsn` durable, and what is beyond it up to `limit`.
    fn make_durable_through(&self, lsn: Lsn, limit: Option<Lsn>, writer: bool) -> Result<()> {
        loop {
            let seen = self.control.durable();
            if seen >= lsn {
                return Ok(());
            }
            if self.control.poisoned() {
                return Err(poisoned());
            }
            match self.control.take(Word::Flusher) {
                // Whoever had it before may have failed since it was looked at.
                Ok(()) if self.control.poisoned() => {
                    self.control.release(Word::Flusher);
                    return Err(poisoned());
                }
                Ok(()) => {
                    if limit.is_none() && !writer {
                        self.gather();
                    }
                    self.flush(limit)?;
                }
                Err(holder) if !self.control.alive(holder)? => {
                    if !self.control.steal(Word::Flusher, holder) {
                        continue;
                    }
                    match self.rewrite_unsynced(writer) {
                        Ok(true) => self.flush(None)?,
                        Ok(false) => {
                            self.control.give_back(Word::Flusher, holder);
                            self.control.wait_durable(seen, PATIENCE);
                        }
                        Err(e) => {
                            self.control.poison();
                            self.control.release(Word::Flusher);
                            return Err(e);
                        }
                    }
                }
                // Not for D to move: it may have moved already, and not far enough, before the word is given up.
                Err(holder) => self.control.wait_word(Word::Flusher, holder, PATIENCE),
            }
        }
    }

    /// Waits for writers that are about to commit, so that one fsync serves them too; not for longer than an
    /// fsync or two take.
    fn gather(&self) {
        let usual = Duration::from_micros(self.sync_time.load(Ordering::Relaxed));
        let (begun, most) = (self.control.now(), (usual * 2).min(GATHER));
        while self.control.crowded() && self.control.now().saturating_sub(begun) < most {
            self.control.pause();
        }
    }

    /// Syncs every segment that holds D+1..A, or up to `limit`. Holding the flusher word, which is given
    /// up.
    fn flush(&self, limit: Option<Lsn>) -> Result<()> {
        let result = self.flush_held(limit);
        if result.is_err() {
            // Poison comes before the word is free: a retried fsync proves nothing.
            self.control.poison();
        }
        self.control.release(Word::Flusher);
        result
    }

    fn flush_held(&self, limit: Option<Lsn>) -> Result<()> {
        let head = self.control.appended();
        let head = limit.map_or(head, |limit| limit.min(head));
        if limit.is_none() {
            self.flushes.fetch_add(1, Ordering::Relaxed);
        }
        let durable = self.control.durable();
        self.catch_up(head)?;
        let index = Arc::clone(&self.tail.lock().index);
        let dirty = index.unsynced(durable, head);
        let begun = self.control.now();
        for segment in dirty {
            segment.sync()?;
        }
        let took = self.control.now().saturating_sub(begun);
        self.sync_time.store(took.as_micros() as u64, Ordering::Relaxed);
        self.control.set_durable(head);
        Ok(())
    }

    /// The last flusher died: its fsync may have failed unseen, so the bytes are written again, by
    /// the holder of the writer word, while nobody is in the middle of an entry. False if somebody
    /// else holds that word.
    fn rewrite_unsynced(&self, writer: bool) -> Result<bool> {
        if !writer {
            match self.take_writer() {
                Ok(()) => {}
                Err(e) if e.code() == Code::Busy => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        let result = (|| {
            if !writer {
                self.adopt_orphans()?;
            }
            let tail = self.tail.lock();
            rewrite(&tail, self.control.durable(), self.control.appended())
        })();
        if !writer {
            self.control.release(Word::Writer);
        }
        result.map(|()| true)
    }

    /// Publishes entries whose writer died before it could.
    pub(crate) fn publish_orphans(&self) -> Result<()> {
        if let Some(flusher) = self.control.holder(Word::Flusher) {
            if self.control.alive(flusher)? {
                return Ok(());
            }
        }
        match self.control.last_writer() {
            Some(writer) if !self.control.alive(writer)? => {}
            _ => return Ok(()),
        }
        match self.make_durable(self.control.appended()) {
            // Readers stop at the durable head of a poisoned store.
            Err(e) if e.code() == Code::Poisoned => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::disk::{Disk, FaultKind, SimDisk};
    use crate::format::Retention;
    use crate::sample::{last, write};
    use crate::session::{Durability, Session};
    use crate::store::Options;

    /// Commits while a call fails, and goes on; returns what was acknowledged as durable last.
    fn commits(store: &Arc<Store>) -> Result<u8> {
        let mut session = Session::new(Arc::clone(store))?;
        let mut acknowledged = 0;
        for fill in 1..=40 {
            let done = write(&mut session, fill).and_then(|()| {
                session.prepare(None)?;
                session.publish(Durability::Disk, false)
            });
            if done.is_ok() {
                acknowledged = fill;
            }
            // What is due then may fail as well.
            drop(session.rollback().and(session.end_read()));
        }
        Ok(acknowledged)
    }

    #[test]
    fn nothing_is_built_upon_what_a_failed_sync_has_forgotten() -> Result<()> {
        let path = Path::new("/app.db");
        let open = |disk: &Arc<SimDisk>| {
            let process = disk.process();
            let options = Options { background: false, segment_bytes: 8 << 10, ..Options::default() };
            Store::open(Arc::clone(&process) as Arc<dyn Disk>, path, options).map(|store| (process, store))
        };
        for step in 0.. {
            let disk = SimDisk::new();
            let (process, store) = open(&disk)?;
            store.set_retention(Retention::None)?;
            let at = disk.steps() + step;
            disk.fail(at, FaultKind::SyncForgets);
            let acknowledged = commits(&store)?;
            if disk.steps() <= at {
                assert!(step > 100, "{step} steps");
                break;
            }
            process.kill();
            drop(store);
            let (_process, store) = open(&disk).unwrap_or_else(|e| panic!("step {step}: {e}"));
            assert!(last(&store)? >= acknowledged, "step {step}");
        }
        Ok(())
    }
}
