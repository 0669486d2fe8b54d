//! Pushing or pulling again and again, in a thread of its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

use tideline_journal::{Clock, Code, Error, Result, Store, SystemClock, Visitor, block_signals};

use crate::desk::Desk;
use crate::remotes::{Remotes, Task};

/// Longest time between two tries that fail.
const LONGEST: Duration = Duration::from_secs(300);

/// Longest time between two tries while somebody else talks to the remote; they cost no request.
const BUSY: Duration = Duration::from_secs(1);

/// What the thread and its owner share. They wait in the system's own way: a child of `fork` keeps parking_lot's queues.
#[derive(Default)]
struct Shared {
    stopped: Mutex<bool>,
    wake: Condvar,
    next_try: AtomicU64,
}

impl Shared {
    fn is_stopped(&self) -> bool {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits; true if it was stopped.
    fn wait(&self, time: Duration) -> bool {
        let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.wake.wait_timeout_while(stopped, time, |stopped| !*stopped);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// The owner's end. The thread comes to an end when this is dropped.
pub(crate) struct Keeper {
    shared: Arc<Shared>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        *self.shared.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.wake.notify_all();
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
        let shared = Arc::new(Shared::default());
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

    /// When it next tries; `None` while it does, and before the first time.
    pub fn next_try(&self) -> Option<u64> {
        Some(self.shared.next_try.load(Ordering::Relaxed)).filter(|&time| time > 0)
    }
}

fn run(shared: &Shared, visitor: &Visitor, desk: &Weak<Desk>, name: &str, task: Task, every: Duration) {
    let mut failures = 0;
    loop {
        let stop = || shared.is_stopped() || visitor.is_left();
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
            // Somebody else talks to it; perhaps the one who kept on before, and is ending.
            Some(Err(e)) if e.code() == Code::Busy => every.min(BUSY),
            Some(Err(e)) if e.code() == Code::Interrupted => every,
            Some(Err(_)) => {
                failures = (failures + 1).min(16);
                behind(every, failures)
            }
        };
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
