//! One connection's view of a store: its snapshot and its transaction.
//!
//! ```text
//!            begin_read           begin_write            first write or truncate
//!   Idle ───────────────► Reading ───────────► Writing ───────────────────────► Writing, dirty
//!     ▲                     │  ▲                  │ rollback                        │ prepare
//!     └───── end_read ──────┘  └──────────────────┴────────── publish ──────────────┘
//! ```

mod commit;
mod pages;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::control::{Cell, Word};
use crate::error::{Code, Error, Result, trimmed};
use crate::index::Index;
use crate::lsn::Lsn;
use crate::maintenance::Held;
use crate::overlay::Overlay;
use crate::snapshot::Snapshot;
use crate::state::State;
use crate::store::Store;

use commit::Prepared;
pub(crate) use commit::Proto;

/// When a commit has returned, what can't take it back any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The death of every process.
    Process,
    /// A power cut.
    Disk,
}

/// One connection's view of a store.
pub struct Session {
    cell: Cell,
    index: Arc<Index>,
    generation: u64,
    snapshot: Option<Snapshot>,
    /// The snapshot before: one like it is made of it without touching what other threads count on.
    idle: Option<Snapshot>,
    /// The snapshot isn't known to be durable, so nothing of it may be shown yet.
    unpublished: bool,
    /// The next snapshot is taken at the appended head, because the last was refused as stale.
    want_appended: bool,
    writing: bool,
    overlay: Option<Overlay>,
    prepared: Option<Prepared>,
    committed: bool,
    /// See [`Session::read_by_calls`].
    copies: bool,
    table: Vec<u8>,
    /// Last, so that nothing of the session is left when it is let go of.
    store: Held,
}

impl Session {
    /// A connection to `store`.
    ///
    /// # Errors
    /// `Limit` if there are too many; `Busy` if the store was closed meanwhile, which [`Store::is_usable`] tells.
    pub fn new(store: Arc<Store>) -> Result<Session> {
        store.check_process()?;
        // Whoever closes or detaches it counts connections, and none may come behind that.
        let closed = store.closed.lock();
        if *closed {
            return Err(Error::new(Code::Busy, "the database was just closed; open it again"));
        }
        let cell = store.control.cell()?;
        drop(closed);
        let (index, generation) = store.index();
        Ok(Session {
            store: Held::new(store),
            cell,
            index,
            generation,
            snapshot: None,
            idle: None,
            unpublished: false,
            want_appended: false,
            writing: false,
            overlay: None,
            prepared: None,
            committed: false,
            copies: false,
            table: Vec::new(),
        })
    }

    /// Has pages read by system calls, or through mappings. Behind a mapping a medium that fails is a signal, which ends
    /// the process; a system call answers it with an error.
    pub fn read_by_calls(&mut self, by_calls: bool) {
        self.copies = by_calls;
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.copies = by_calls;
        }
    }

    /// The store.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The state that this connection sees; `None` outside a transaction.
    pub fn state(&self) -> Option<&State> {
        self.snapshot.as_ref().map(|snapshot| &snapshot.state)
    }

    /// True between [`Session::begin_write`] and the end of the transaction.
    pub fn is_writing(&self) -> bool {
        self.writing
    }

    /// True if this transaction has written anything.
    pub fn has_changed(&self) -> bool {
        self.dirty_overlay().is_some()
    }

    /// True if some connection holds the writer word.
    pub fn somebody_writes(&self) -> bool {
        self.store
            .control
            .holder(Word::Writer)
            .is_some_and(|holder| !holder.is_turn() && self.store.control.alive(holder).unwrap_or(true))
    }

    /// Pins the newest snapshot. Makes no system call unless entries of other processes are new.
    ///
    /// # Errors
    /// `Damaged`, `Io` while catching up with other processes.
    pub fn begin_read(&mut self) -> Result<()> {
        self.begin_read_as(false)
    }

    /// As [`Session::begin_read`]; a `writer` sees the appended head, which is what it must write on.
    ///
    /// # Errors
    /// As [`Session::begin_read`].
    pub fn begin_read_as(&mut self, writer: bool) -> Result<()> {
        if self.snapshot.is_some() {
            return Ok(());
        }
        self.store.check_process()?;
        let control = &self.store.control;
        if control.pending() {
            self.store.finish_prepared()?;
        }
        if control.appended() > control.visible() {
            self.store.publish_orphans()?;
        }
        let appended = std::mem::take(&mut self.want_appended) || writer;
        let lsn = self.cell.pin(|control| if appended { control.appended() } else { control.visible() });
        if self.store.given_way.load(Ordering::SeqCst) {
            self.cell.unpin();
            let text =
                "the database was opened anew since tide_detach() was called here; close this connection";
            return Err(Error::new(Code::Missing, text));
        }
        match self.snapshot_at(lsn, None) {
            Ok(snapshot) => {
                self.unpublished = appended && lsn > self.store.control.visible();
                self.snapshot = Some(snapshot);
                Ok(())
            }
            Err(e) => {
                self.cell.unpin();
                Err(e)
            }
        }
    }

    /// The snapshot at an LSN that is pinned, whose state may be known.
    fn snapshot_at(&mut self, lsn: Lsn, known: Option<State>) -> Result<Snapshot> {
        let mut idle = self.idle.take();
        if self.generation != self.store.index_generation() {
            (self.index, self.generation) = self.store.index();
            idle = None;
        }
        if self.index.applied() < lsn {
            self.store.catch_up(lsn)?;
            (self.index, self.generation) = self.store.index();
            idle = None;
        }
        let floor = self.store.control.base();
        let state = match (known, &idle) {
            (Some(state), _) => state,
            (None, Some(idle)) if idle.state.lsn == lsn => idle.state,
            _ => self.index.state(lsn)?.ok_or_else(|| trimmed(lsn))?,
        };
        let index = idle.map_or_else(|| Arc::clone(&self.index), |idle| idle.index);
        Ok(Snapshot { index, state, floor, copies: self.copies })
    }

    /// Forgets the snapshot.
    ///
    /// # Errors
    /// Those of maintenance that was due after a commit; the session is idle all the same.
    pub fn end_read(&mut self) -> Result<()> {
        self.rollback()?;
        self.idle = self.snapshot.take();
        self.cell.unpin();
        if std::mem::take(&mut self.committed) { self.store.maintain() } else { Ok(()) }
    }

    /// Moves the snapshot to the newest, for a pager that holds no page of it.
    ///
    /// # Errors
    /// As [`Session::begin_read`].
    pub fn refresh(&mut self) -> Result<()> {
        let stale = self.snapshot.as_ref().is_some_and(|own| own.state.lsn < self.store.control.visible());
        if !stale || self.writing || self.dirty_overlay().is_some() {
            return Ok(());
        }
        self.end_read()?;
        self.begin_read()
    }

    /// Becomes the writer, on the present snapshot.
    ///
    /// # Errors
    /// `Busy` if somebody else is, `Stale` if the snapshot isn't the newest, `Poisoned`.
    pub fn begin_write(&mut self) -> Result<()> {
        if self.writing {
            return Ok(());
        }
        if self.snapshot.is_none() {
            return Err(Error::new(Code::Stale, "a write needs a snapshot; read first"));
        }
        self.store.take_writer()?;
        self.begin_write_holding()
    }

    /// As [`Session::begin_write`], in the turn that [`Store::wait_for_turn`] got.
    ///
    /// # Errors
    /// As [`Session::begin_write`]; the turn may be over.
    pub fn begin_write_in_turn(&mut self) -> Result<()> {
        if self.snapshot.is_some() && !self.writing && self.store.control.take_turn() {
            return self.begin_write_holding();
        }
        self.begin_write()
    }

    /// As [`Session::begin_write`], with the writer word, which is given up on errors.
    fn begin_write_holding(&mut self) -> Result<()> {
        let lsn = self.snapshot.as_ref().map_or(Lsn::ZERO, |snapshot| snapshot.state.lsn);
        let begun = (|| {
            if self.store.control.poisoned() {
                return Err(if self.store.control.detached() {
                    Error::new(
                        Code::Denied,
                        "the database was detached; close this connection and open it again",
                    )
                } else {
                    poisoned()
                });
            }
            if self.store.control.pending() {
                self.store.adopt_orphans()?;
            }
            if self.store.control.appended() != lsn {
                return Err(Error::new(
                    Code::Stale,
                    "another connection has committed meanwhile; begin again",
                ));
            }
            self.store.mark()
        })();
        if let Err(e) = begun {
            self.want_appended = e.code() == Code::Stale;
            self.store.control.release(Word::Writer);
            return Err(e);
        }
        self.writing = true;
        Ok(())
    }

    fn snapshot(&self) -> Result<&Snapshot> {
        self.snapshot
            .as_ref()
            .ok_or_else(|| Error::new(Code::Io, "no snapshot is pinned; begin a transaction"))
    }

    /// The overlay, begun if need be.
    fn overlay(&mut self) -> Result<&mut Overlay> {
        let dirty = self.overlay.as_ref().is_some_and(|overlay| overlay.dirty);
        if !dirty {
            if !self.writing {
                // EXCLUSIVE locking mode writes again without asking for a lock.
                self.begin_write()?;
            }
            let len = self.snapshot()?.state.bytes();
            let (segment, start) = {
                let mut tail = self.store.tail.lock();
                self.store.settle_tail(&mut tail)?;
                (Arc::clone(tail.index.segment(tail.segment)), tail.offset)
            };
            match &mut self.overlay {
                Some(overlay) => overlay.reset(segment, start, len),
                None => self.overlay = Some(Overlay::new(segment, start, len)),
            }
        }
        self.take_back()?;
        Ok(self.overlay.as_mut().expect("it was put there"))
    }

    fn dirty_overlay(&self) -> Option<&Overlay> {
        self.overlay.as_ref().filter(|overlay| overlay.dirty)
    }
    /// Forgets the overlay's content.
    fn forget(&mut self) -> Result<()> {
        let undone = self.take_back();
        if let Some(overlay) = &mut self.overlay {
            overlay.dirty = false;
        }
        undone
    }

    fn stop_writing(&mut self) {
        if std::mem::take(&mut self.writing) {
            self.store.control.release(Word::Writer);
        }
    }

    /// Discards the transaction's changes and gives the writer's place up; the snapshot stays.
    ///
    /// # Errors
    /// `Poisoned` if the snapshot turns out never to have been committed durably.
    pub fn rollback(&mut self) -> Result<()> {
        let undone = self.forget();
        let wrote = self.writing;
        self.stop_writing();
        // What was read as the writer must not be taken back by a power cut once it is told.
        if wrote && self.unpublished {
            let lsn = self.snapshot()?.state.lsn;
            self.store.make_durable(lsn)?;
            self.unpublished = false;
        }
        undone
    }

    /// Makes everything committed so far durable.
    ///
    /// # Errors
    /// `Poisoned` if the fsync fails.
    pub fn sync(&self) -> Result<()> {
        self.store.make_durable(self.store.control.visible())
    }

    /// The snapshot, for those that read whole pages.
    pub(crate) fn pinned(&self) -> Result<&Snapshot> {
        self.snapshot()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Rolls back; there is nobody left to be told of an error.
        drop(self.rollback());
    }
}

pub(crate) fn poisoned() -> Error {
    Error::new(
        Code::Poisoned,
        "an fsync failed, so nothing more is written; close the database everywhere and open it again",
    )
}
