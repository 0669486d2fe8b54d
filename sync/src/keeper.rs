//! Pushing or pulling again and again, in a thread of its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tideline_journal::{Clock, Code, Error, Result, Store, SystemClock, Visitor, block_signals};

use crate::desk::Desk;
use crate::remotes::{Remotes, Task};

/// Longest time between two tries that fail.
const LONGEST: Duration = Duration::from_secs(300);

/// Longest time between two tries while somebody else talks to the remote; they cost no request.
const BUSY: Duration = Duration::from_secs(1);

/// Longest time that somebody waits for a keeper to pause. Between two requests it looks often whether it is to.
const PAUSED_WITHIN: Duration = Duration::from_secs(5);

/// What the owner wants of the thread, and whether that is at work.
#[derive(Default)]
struct State {
    stopped: bool,
    /// So many want it to do nothing for now.
    paused: usize,
    at_work: bool,
}

/// What the thread and its owner share. They wait in the system's own way: a child of `fork` keeps parking_lot's queues.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    next_try: AtomicU64,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.wake.notify_all();
    }

    /// Whether a task that is under way is to be given up.
    fn is_over(&self) -> bool {
        let state = self.state();
        state.stopped || state.paused > 0
    }

    /// Waits for so long, and while it is paused; true if it was stopped.
    fn wait(&self, time: Duration) -> bool {
        let waited = self.wake.wait_timeout_while(self.state(), time, |state| !state.stopped);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let waited = self.wake.wait_while(state, |state| !state.stopped && state.paused > 0);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.at_work = !state.stopped;
        state.stopped
    }
}

/// Holds a keeper back, for as long as it isn't dropped.
pub(crate) struct Pause {
    shared: Arc<Shared>,
}

impl Pause {
    /// Waits until it is at nothing any more, or `stop` says so, or it has been long enough.
    pub fn wait(&self, stop: &dyn Fn() -> bool) {
        let (begun, look_every) = (Instant::now(), Duration::from_millis(20));
        let mut state = self.shared.state();
        while state.at_work && begun.elapsed() < PAUSED_WITHIN && !stop() {
            let waited = self.shared.wake.wait_timeout(state, look_every);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        self.shared.change(|state| state.paused -= 1);
    }
}

/// The owner's end. The thread comes to an end when this is dropped.
pub(crate) struct Keeper {
    shared: Arc<Shared>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.change(|state| state.stopped = true);
    }
}

impl Keeper {
    /// Does `task` with the remote `name` every so often, for as long as a connection has the store open.
    ///
    /// # Errors
    /// `Io` if there is no thread for it.
    pub fn begin(
        store: &Arc<Store>,
        desk: &Arc<Desk>,
        name: &str,
        task: Task,
        every: Duration,
    ) -> Result<Keeper> {
        let state = Mutex::new(State { at_work: true, ..State::default() });
        let shared = Arc::new(Shared { state, ..Shared::default() });
        let own = Arc::clone(&shared);
        let (visitor, desk, name) = (Visitor::of(store), Arc::downgrade(desk), name.to_owned());
        let thread = std::thread::Builder::new().name("tideline-keeper".into());
        let begun = thread.spawn(move || {
            block_signals();
            run(&own, &visitor, &desk, &name, task, every);
        });
        begun.map_err(|e| {
            Error::new(Code::Io, format!("no thread for it: {e}; look at the system's limits"))
        })?;
        Ok(Keeper { shared })
    }

    /// Has it give up what it is at, and do nothing.
    pub fn pause(&self) -> Pause {
        self.shared.change(|state| state.paused += 1);
        Pause { shared: Arc::clone(&self.shared) }
    }

    /// When it next tries; `None` while it does, and before the first time.
    pub fn next_try(&self) -> Option<u64> {
        Some(self.shared.next_try.load(Ordering::Relaxed)).filter(|&time| time > 0)
    }
}

fn run(shared: &Shared, visitor: &Visitor, desk: &Weak<Desk>, name: &str, task: Task, every: Duration) {
    let mut failures = 0;
    loop {
        let stop = || shared.is_over() || visitor.is_left();
        let done = visitor.visit(|store| {
            let Some(desk) = desk.upgrade() else { return Ok(()) };
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                Remotes::at(store, desk).until(&stop).once_more(name, task)
            }));
            caught.unwrap_or_else(|_| {
                Err(Error::new(Code::Io, "internal error while talking to a remote; report this as a bug"))
            })
        });
        let pause = match done {
            // A connection may come again, and the store with it; if not, the desk goes, and this with it.
            None => every,
            Some(Ok(())) => {
                failures = 0;
                every
            }
            // Somebody else talks to it; perhaps the one who kept on before, and is ending. Or it was to pause, and may go on.
            Some(Err(e)) if matches!(e.code(), Code::Busy | Code::Interrupted) => every.min(BUSY),
            Some(Err(_)) => {
                failures = (failures + 1).min(16);
                behind(every, failures)
            }
        };
        shared.change(|state| state.at_work = false);
        let next = SystemClock.now_ms() + u64::try_from(pause.as_millis()).unwrap_or(u64::MAX / 2);
        shared.next_try.store(next, Ordering::Relaxed);
        if shared.wait(pause) {
            return;
        }
        shared.next_try.store(0, Ordering::Relaxed);
    }
}

/// How long to wait after so many failures: twice as long each time, up to some minutes, and not all replicas at once.
fn behind(every: Duration, failures: u32) -> Duration {
    let longest = LONGEST.max(every);
    let full = every.saturating_mul(1 << failures).min(longest);
    let spread = u64::from(std::process::id()).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ SystemClock.now_ms();
    // Between half of it and all of it.
    full.mul_f64(0.5 + (spread % 1000) as f64 / 2000.0).max(every)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_that_fail_come_further_and_further_apart() {
        let every = Duration::from_secs(1);
        for failures in 1..=16 {
            let pause = behind(every, failures);
            assert!(pause >= every && pause <= LONGEST, "{pause:?}");
            let least = every.saturating_mul(1 << failures).min(LONGEST) / 2;
            assert!(pause >= least, "{failures}: {pause:?}");
        }
        assert_eq!(behind(LONGEST * 2, 3), behind(LONGEST * 2, 3).max(LONGEST * 2));
    }
}
