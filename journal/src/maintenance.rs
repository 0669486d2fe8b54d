//! What commits leave to be done: making sealed segments durable, folding, dropping.
//!
//! A thread does it, so that no commit waits for the disk or for a fold. It is there only while
//! there is something to do, and holds the store for one step at a time: whoever lets go of the
//! store last closes it, and [`Held`] waits for that.

use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::control::Lock;
use crate::disk::fork_generation;
use crate::error::Result;
use crate::store::Store;

/// Segments that may be begun before a commit helps to fold.
const BEHIND: u32 = 8;

/// The thread of a store, as both see it.
#[derive(Default)]
pub(crate) struct Maintenance {
    turn: Mutex<Turn>,
    /// Held during a step.
    step: Mutex<()>,
}

#[derive(Default)]
struct Turn {
    running: bool,
    /// True if something came up since the thread last looked.
    wanted: bool,
}

/// A store that is held; the last to let go of it has seen it closed.
pub struct Held {
    store: Option<Arc<Store>>,
    maintenance: Arc<Maintenance>,
    born: u64,
}

impl Held {
    /// Holds `store`.
    pub fn new(store: Arc<Store>) -> Held {
        Held { maintenance: Arc::clone(&store.maintenance), store: Some(store), born: fork_generation() }
    }
}

impl Deref for Held {
    type Target = Arc<Store>;

    fn deref(&self) -> &Arc<Store> {
        self.store.as_ref().expect("it is let go of when this is dropped")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.store.take());
        // The thread may be the last now, and close the store at the end of its step. In a child of
        // fork there is no such thread.
        if self.born == fork_generation() {
            drop(self.maintenance.step.lock());
        }
    }
}

impl Store {
    /// Has done, or does, what commits have left to be done. Called after each of them.
    ///
    /// # Errors
    /// Of what is done at once.
    pub(crate) fn maintain(self: &Arc<Self>) -> Result<()> {
        if !self.options.background {
            return self.maintain_inline();
        }
        if !self.rolled.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        if self.behind.fetch_add(1, Ordering::Relaxed) >= BEHIND {
            // More is committed than the thread gets done.
            let _step = self.maintenance.step.lock();
            while self.maintain_step()? {}
            return Ok(());
        }
        {
            let mut turn = self.maintenance.turn.lock();
            turn.wanted = true;
            if std::mem::replace(&mut turn.running, true) {
                return Ok(());
            }
        }
        let maintenance = Arc::clone(&self.maintenance);
        let store = Arc::downgrade(self);
        let begun =
            std::thread::Builder::new().name("tideline".into()).spawn(move || run(&maintenance, &store));
        if begun.is_err() {
            self.maintenance.turn.lock().running = false;
            while self.maintain_step()? {}
        }
        Ok(())
    }

    /// One step; true if there is more to do.
    fn maintain_step(&self) -> Result<bool> {
        let mut job = self.fold.lock();
        if job.is_none() {
            self.stock_spare()?;
            // Also without a fold: what a power cut may take stays little.
            self.make_durable(self.control.appended())?;
            if !self.begin_fold(&mut job)? {
                self.behind.store(0, Ordering::Relaxed);
                return Ok(false);
            }
        }
        self.go_on_folding(&mut job)?;
        Ok(true)
    }

    /// Goes on with a fold, or begins one if the journal has grown beyond what is retained; does a
    /// bounded part of the work.
    fn maintain_inline(&self) -> Result<()> {
        let Some(mut job) = self.fold.try_lock() else { return Ok(()) };
        if job.is_none() && !(self.rolled.swap(false, Ordering::Relaxed) && self.begin_fold(&mut job)?) {
            return Ok(());
        }
        self.go_on_folding(&mut job)
    }

    /// True if a fold was due and is begun.
    fn begin_fold(&self, job: &mut Option<crate::fold::FoldJob>) -> Result<bool> {
        if !self.control.file().try_lock(Lock::Fold)? {
            return Ok(false);
        }
        let due = self.due();
        if !matches!(due, Ok(Some(_))) {
            self.control.file().unlock(Lock::Fold);
        }
        *job = due?;
        Ok(job.is_some())
    }

    fn go_on_folding(&self, job: &mut Option<crate::fold::FoldJob>) -> Result<()> {
        let Some(begun) = job.as_mut() else { return Ok(()) };
        let done = self.fold_step(begun, self.options.fold_step);
        if !matches!(done, Ok(false)) {
            *job = None;
            self.control.file().unlock(Lock::Fold);
        }
        done.map(drop)
    }
}

/// What the thread does.
fn run(maintenance: &Maintenance, store: &Weak<Store>) {
    #[cfg(unix)]
    {
        // Signals are for the host's own threads.
        nix::sys::signal::SigSet::all().thread_block().ok();
    }
    loop {
        {
            let mut turn = maintenance.turn.lock();
            if !turn.wanted {
                turn.running = false;
                return;
            }
            turn.wanted = false;
        }
        loop {
            let _step = maintenance.step.lock();
            // Dropped before the step is over, and so closed if nobody else holds it.
            let Some(store) = store.upgrade() else {
                maintenance.turn.lock().running = false;
                return;
            };
            let stepped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| store.maintain_step()));
            match stepped {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => break,
                // It is tried again when the next segment is begun.
                Ok(Err(e)) => {
                    crate::report(&e);
                    break;
                }
                Err(_) => {
                    crate::report(&crate::Error::new(
                        crate::Code::Io,
                        "internal error while folding; report this as a bug",
                    ));
                    break;
                }
            }
        }
    }
}
