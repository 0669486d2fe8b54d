//! Waiting for the writer's place.
//!
//! A VFS can't see the busy handler, but SQLite's sleeps through `xSleep`, and counts the time that
//! it asked for, not the time that passed. So a sleep ends early only with the place in hand.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tideline_journal::Store;

/// A connection's claim to be the next writer.
pub(crate) struct Turn {
    store: Arc<Store>,
    /// The writer's place was taken for the connection while it slept.
    held: AtomicBool,
}

thread_local! {
    /// Who was told BUSY last in this thread, and may sleep now.
    static WAITING: RefCell<Option<std::sync::Weak<Turn>>> = const { RefCell::new(None) };
}

impl Turn {
    pub fn new(store: Arc<Store>) -> Arc<Turn> {
        Arc::new(Turn { store, held: AtomicBool::new(false) })
    }

    /// Notes that the connection was told BUSY.
    pub fn wait_next(self: &Arc<Turn>) {
        WAITING.with_borrow_mut(|waiting| *waiting = Some(Arc::downgrade(self)));
    }

    /// True if the place is held for the connection.
    pub fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    /// Takes the place over from the sleep, if it got it.
    pub fn take(&self) -> bool {
        self.held.swap(false, Ordering::AcqRel)
    }

    /// Gives the place up that a sleep got and nobody used.
    pub fn give_up(&self) {
        if self.take() {
            self.store.release_writer();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// Sleeps for `time`, or until the connection that was told BUSY has the writer's place; false if
/// nobody waits for one.
pub(crate) fn sleep(time: Duration) -> bool {
    let waiting = WAITING.with_borrow_mut(Option::take);
    let Some(turn) = waiting.and_then(|turn| turn.upgrade()) else { return false };
    let end = Instant::now() + time;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        match turn.store.wait_for_writer(left) {
            Ok(true) => {
                turn.held.store(true, Ordering::Release);
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
