//! From appended to durable: one fsync for all who wait (COMMIT protocol in ARCHITECTURE.md, step 7).

use std::time::Duration;

use crate::control::Word;
use crate::error::{At, Code, Result};
use crate::lsn::Lsn;
use crate::recover::rewrite;
use crate::session::poisoned;
use crate::store::Store;

/// How long a waiter sleeps before it asks whether the flusher is alive.
const PATIENCE: Duration = Duration::from_millis(20);

impl Store {
    /// Waits until everything up to `lsn` is on the disk, and does the fsync if nobody else does.
    ///
    /// # Errors
    /// `Poisoned` if this or an earlier fsync failed.
    pub(crate) fn make_durable(&self, lsn: Lsn) -> Result<()> {
        loop {
            let seen = self.control.durable();
            if seen >= lsn {
                return Ok(());
            }
            if self.control.poisoned() {
                return Err(poisoned());
            }
            match self.control.take(Word::Flusher) {
                Ok(()) => self.flush(false)?,
                Err(holder) if !self.control.alive(holder)? => {
                    if self.control.steal(Word::Flusher, holder) {
                        self.flush(true)?;
                    }
                }
                Err(_) => self.control.wait_durable(seen, PATIENCE),
            }
        }
    }

    /// Syncs every segment that holds D+1..A. Holding the flusher word, which is given up.
    fn flush(&self, stolen: bool) -> Result<()> {
        let result = self.flush_held(stolen);
        if result.is_err() {
            // Poison comes before the word is free: a retried fsync proves nothing.
            self.control.poison();
        }
        self.control.release(Word::Flusher);
        result
    }

    fn flush_held(&self, stolen: bool) -> Result<()> {
        if stolen {
            self.rewrite_unsynced()?;
        }
        let head = self.control.appended();
        let durable = self.control.durable();
        self.catch_up(head)?;
        let dirty = self.tail.lock().index.unsynced(durable, head);
        for segment in dirty {
            segment.file.sync().at(|| format!("syncing {}", segment.path.display()))?;
        }
        self.control.set_durable(head);
        Ok(())
    }

    /// The last flusher died: its fsync may have failed unseen, so the bytes are written again, by
    /// the holder of the writer word, while nobody is in the middle of an entry.
    fn rewrite_unsynced(&self) -> Result<()> {
        loop {
            match self.take_writer() {
                Ok(()) => break,
                Err(e) if e.code() == Code::Busy => {
                    if let Some(holder) = self.control.holder(Word::Writer) {
                        self.control.wait_word(Word::Writer, holder, PATIENCE);
                    }
                }
                Err(e) => return Err(e),
            }
        }
        let result = (|| {
            self.adopt_orphans()?;
            let tail = self.tail.lock();
            rewrite(&tail, self.control.durable(), self.control.appended())
        })();
        self.control.release(Word::Writer);
        result
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
