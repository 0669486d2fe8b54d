//! What commits leave to be done: making sealed segments durable, folding, dropping.
//!
//! A thread does it, so that no commit waits for the disk or for a fold. It is there while there is
//! something to do, and for a while after, and holds the store for one step at a time: whoever lets
//! go of the store last closes it, and [`Held`] waits for that.

use std::cell::Cell;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use crate::control::Lock;
use crate::disk::fork_generation;
use crate::error::Result;
use crate::store::Store;

/// Segments that may be half filled before the thread has seen to what there was at the first of them: from then on
/// every so many of them wait a moment for it, so that nobody has to wait for long.
const BEHIND: u32 = 32;
const EVERY: u32 = 4;
const MOMENT: Duration = Duration::from_millis(10);

/// Segments after which the next one waits until the thread has.
const FAR_BEHIND: u32 = 96;

/// How long the thread waits for more to do.
const LINGER: Duration = Duration::from_secs(1);

/// How long a commit waits for a thread that is far behind; it goes on then.
const PATIENCE: Duration = Duration::from_millis(100);

/// The thread of a store, as both see it.
///
/// The thread waits in the system's own way: a child of `fork` keeps parking_lot's queues, in which the waiting thread's
/// memory would still be linked when the child uses it anew.
#[derive(Default)]
pub(crate) struct Maintenance {
    turn: std::sync::Mutex<Turn>,
    /// Something came up.
    wanted: Condvar,
    /// The thread has got on.
    progress: Condvar,
    /// Held during a step.
    step: Mutex<()>,
    /// Read by those who visit.
    visits: RwLock<()>,
    /// How many hold the store, those who visit it left out.
    held: AtomicUsize,
}

#[derive(Default)]
struct Turn {
    running: bool,
    /// Segments begun since the thread last looked.
    behind: u32,
}

impl Maintenance {
    /// Waits until the thread is between two steps, and keeps it there.
    pub fn step(&self) -> parking_lot::MutexGuard<'_, ()> {
        self.step.lock()
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

thread_local! {
    /// True in a thread that visits a store.
    static VISITING: Cell<bool> = const { Cell::new(false) };
}

/// A store that is held; the last to let go of it has seen it closed.
pub struct Held {
    store: Option<Arc<Store>>,
    maintenance: Arc<Maintenance>,
    visiting: bool,
    born: u64,
}

impl Held {
    /// Holds `store`.
    pub fn new(store: Arc<Store>) -> Held {
        let (maintenance, visiting) = (Arc::clone(&store.maintenance), VISITING.get());
        if !visiting {
            maintenance.held.fetch_add(1, Ordering::SeqCst);
        }
        Held { maintenance, store: Some(store), visiting, born: fork_generation() }
    }
}

/// A thread of the library's own that works with a store now and then, for as long as a connection has it.
pub struct Visitor {
    store: Weak<Store>,
    maintenance: Arc<Maintenance>,
}

impl Visitor {
    /// One of `store`, which doesn't hold it.
    pub fn of(store: &Arc<Store>) -> Visitor {
        Visitor { store: Arc::downgrade(store), maintenance: Arc::clone(&store.maintenance) }
    }

    /// True if no connection has the store: whoever visits it is waited for then, and is to come to an end.
    pub fn is_left(&self) -> bool {
        self.maintenance.held.load(Ordering::SeqCst) == 0
    }

    /// Does `work` with the store; `None` if no connection has it any more.
    pub fn visit<T>(&self, work: impl FnOnce(&Arc<Store>) -> T) -> Option<T> {
        // The one who lets go of the store last waits for this.
        let _visit = self.maintenance.visits.read();
        if self.is_left() {
            return None;
        }
        let store = self.store.upgrade().filter(|store| store.is_usable())?;
        let _visiting = Visiting::begin();
        Some(work(&store))
    }
}

/// For as long as it lives, the thread visits.
struct Visiting;

impl Visiting {
    fn begin() -> Visiting {
        VISITING.set(true);
        Visiting
    }
}

impl Drop for Visiting {
    fn drop(&mut self) {
        VISITING.set(false);
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
        let last = !self.visiting && self.maintenance.held.fetch_sub(1, Ordering::SeqCst) == 1;
        drop(self.store.take());
        // The thread may be the last now, and close the store at the end of its step. In a child of
        // fork there is no such thread.
        if self.born == fork_generation() {
            drop(self.maintenance.step.lock());
            // Who opens it meanwhile has taken over: a visit may go on then.
            while last
                && self.maintenance.held.load(Ordering::SeqCst) == 0
                && self.maintenance.visits.try_write_for(MOMENT).is_none()
            {}
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
        {
            let mut turn = self.maintenance.turn();
            turn.behind += 1;
            if std::mem::replace(&mut turn.running, true) {
                self.maintenance.wanted.notify_one();
                // More is committed than the thread gets done.
                let patience = match turn.behind {
                    FAR_BEHIND.. => PATIENCE,
                    behind if behind >= BEHIND && behind.is_multiple_of(EVERY) => MOMENT,
                    _ => return Ok(()),
                };
                let seen = |turn: &mut Turn| turn.behind >= BEHIND;
                let waited = self.maintenance.progress.wait_timeout_while(turn, patience, seen);
                drop(waited.unwrap_or_else(PoisonError::into_inner));
                return Ok(());
            }
        }
        let maintenance = Arc::clone(&self.maintenance);
        let store = Arc::downgrade(self);
        let begun =
            std::thread::Builder::new().name("tideline".into()).spawn(move || run(&maintenance, &store));
        if begun.is_err() {
            self.maintenance.turn().running = false;
            while self.maintain_step()? {}
        }
        Ok(())
    }

    /// One step; true if there is more to do.
    fn maintain_step(&self) -> Result<bool> {
        let mut job = self.fold.lock();
        self.ready_next()?;
        // Also without a fold: what a power cut may take stays little.
        self.sync_sealed()?;
        if job.is_none() {
            if !self.begin_fold(&mut job)? {
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
        // What is on the disk isn't known any more.
        if self.control.poisoned() || !self.control.file().try_lock(Lock::Fold)? {
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

/// Lets a thread of the library's own get no signals: they are for the host's.
pub fn block_signals() {
    #[cfg(unix)]
    nix::sys::signal::SigSet::all().thread_block().ok();
}

/// What the thread does.
fn run(maintenance: &Maintenance, store: &Weak<Store>) {
    block_signals();
    loop {
        {
            let mut turn = maintenance.turn();
            if turn.behind == 0 {
                let waited = maintenance.wanted.wait_timeout(turn, LINGER);
                turn = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            if turn.behind == 0 {
                turn.running = false;
                drop(turn);
                let _step = maintenance.step.lock();
                let open = |store: &Arc<Store>| store.closed.try_lock().is_some_and(|closed| !*closed);
                if let Some(store) = store.upgrade().filter(open) {
                    // What nobody waited for is soon on the disk all the same.
                    let durable = store.make_durable(store.control.appended());
                    durable.and_then(|()| store.drop_most_spares()).unwrap_or_else(|e| crate::report(&e));
                }
                return;
            }
            turn.behind = 0;
            maintenance.progress.notify_all();
        }
        loop {
            let _step = maintenance.step.lock();
            // Dropped before the step is over, and so closed if nobody else holds it.
            let Some(store) = store.upgrade() else {
                maintenance.turn().running = false;
                return;
            };
            // Detached: there is nothing left to maintain.
            if store.closed.try_lock().is_none_or(|closed| *closed) {
                maintenance.turn().running = false;
                return;
            }
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
