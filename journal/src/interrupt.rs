//! Work that whoever asked for it may give up.
//!
//! Reading a page may mean to wait for somebody far away. The one who waits knows nothing of the one who asked, many calls
//! above; but both are in one thread.

use std::cell::Cell;

thread_local! {
    static CURRENT: Cell<Option<Interrupt>> = const { Cell::new(None) };
}

/// How to find out whether work was given up.
#[derive(Clone, Copy)]
pub struct Interrupt {
    asked: fn(usize) -> bool,
    of: usize,
}

impl Interrupt {
    /// `asked(of)` says so. It is called by the thread that does the work, and only while it does.
    pub fn new(asked: fn(usize) -> bool, of: usize) -> Interrupt {
        Interrupt { asked, of }
    }

    /// Does some work, in which [`interrupted`] asks this one.
    pub fn over<T>(self, work: impl FnOnce() -> T) -> T {
        struct Before(Option<Interrupt>);
        impl Drop for Before {
            fn drop(&mut self) {
                CURRENT.set(self.0);
            }
        }
        let _before = Before(CURRENT.replace(Some(self)));
        work()
    }
}

/// True if what this thread does was given up: whoever waits for something stops, and says so with `Interrupted`.
pub fn interrupted() -> bool {
    // Whatever is asked may be about this thread's own work, and isn't itself given up.
    let Some(current) = CURRENT.take() else { return false };
    let asked = (current.asked)(current.of);
    CURRENT.set(Some(current));
    asked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_works_is_asked_and_nobody_else() {
        let [odd, never] = [Interrupt::new(|n| n % 2 == 1, 3), Interrupt::new(|_| false, 0)];
        assert!(!interrupted());
        odd.over(|| {
            assert!(interrupted());
            assert!(!never.over(interrupted));
            assert!(interrupted() && !std::thread::spawn(interrupted).join().unwrap());
        });
        assert!(std::panic::catch_unwind(|| odd.over(|| panic!("at work"))).is_err());
        assert!(!interrupted());
    }
}
