//! Waiting for the writer's place.
//!
//! A VFS can't see the busy handler, but SQLite's sleeps through `xSleep`, and counts the time that
//! it asked for, not the time that passed. So a sleep ends early only in its turn: the place is kept for the
//! connection then, but not for long, as the sleep may have been the application's own.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tideline_journal::Store;

/// A connection's claim to be the next writer.
pub(crate) struct Turn {
    store: Arc<Store>,
    /// The writer's place was kept for the connection while it slept.
    kept: AtomicBool,
}

thread_local! {
    /// Who was told BUSY last in this thread, and may sleep now.
    static WAITING: RefCell<Option<std::sync::Weak<Turn>>> = const { RefCell::new(None) };
}

impl Turn {
    pub fn new(store: Arc<Store>) -> Arc<Turn> {
        Arc::new(Turn { store, kept: AtomicBool::new(false) })
    }

    /// Notes that the connection was told BUSY.
    pub fn wait_next(self: &Arc<Turn>) {
        WAITING.with_borrow_mut(|waiting| *waiting = Some(Arc::downgrade(self)));
    }

    /// True if the place was kept for the connection.
    pub fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Acquire)
    }

    /// True if the place was kept for the connection, which now comes for it.
    pub fn take(&self) -> bool {
        self.kept.swap(false, Ordering::AcqRel)
    }

    /// Gives a turn up that a sleep got and nobody used.
    pub fn give_up(&self) {
        if self.take() {
            self.store.give_turn_up();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// Sleeps for `time`, or until it is the turn of the connection that was told BUSY; false if none was.
pub(crate) fn sleep(time: Duration) -> bool {
    let waiting = WAITING.with_borrow_mut(Option::take);
    let Some(turn) = waiting.and_then(|turn| turn.upgrade()) else { return false };
    let end = Instant::now() + time;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        match turn.store.wait_for_turn(left) {
            Ok(true) => {
                turn.kept.store(true, Ordering::Release);
                return true;
            }
            Ok(false) => {}
            // The next attempt to lock reports it.
            Err(_) => {
                std::thread::sleep(left);
                return true;
            }
        }
    }
}
