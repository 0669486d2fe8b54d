//! An allocator that counts, and refuses what goes beyond a budget.
//!
//! A refused allocation ends the process with `memory allocation of … bytes failed`, which libFuzzer
//! reports with the place that asked for it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes that this thread has allocated and not freed; below 0 if it freed what others allocated.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    /// Most that may be live.
    static LIMIT: Cell<isize> = const { Cell::new(isize::MAX) };
}

/// The system's allocator, counted.
pub(crate) struct Counting;

fn size_of(layout: Layout) -> isize {
    // A layout is never longer than isize::MAX.
    layout.size() as isize
}

/// Counts `size` more bytes; false if they are beyond the budget.
fn take(size: isize) -> bool {
    let live = LIVE.get().saturating_add(size);
    // A panic's message and backtrace aren't the work's.
    let within = live <= LIMIT.get() || std::thread::panicking();
    if within {
        LIVE.set(live);
    }
    within
}

fn give(size: isize) {
    LIVE.set(LIVE.get().saturating_sub(size));
}

// SAFETY: every block comes from `System` and goes back to it with the layout it was asked for; a
// null pointer is what the trait has for a refusal. The counters are plain cells without destructors,
// so touching them neither allocates nor fails while a thread ends.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !take(size_of(layout)) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promises about `layout` are the ones that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !take(size_of(layout)) {
            return std::ptr::null_mut();
        }
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        give(size_of(layout));
        // SAFETY: the caller got `pointer` from this allocator, so from `System`, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both blocks exist while one is copied into the other.
        if !take(isize::try_from(size).unwrap_or(isize::MAX)) {
            return std::ptr::null_mut();
        }
        // SAFETY: as in `dealloc`; the caller's promises about `size` are those of `System`.
        let moved = unsafe { System.realloc(pointer, layout, size) };
        give(size_of(layout));
        moved
    }
}

/// Runs `work`, which may at no moment hold more than `limit` bytes beyond what is held now.
pub fn within<T>(limit: usize, work: impl FnOnce() -> T) -> T {
    /// Ends the budget, also where `work` panics.
    struct Restore(isize);

    impl Drop for Restore {
        fn drop(&mut self) {
            LIMIT.set(self.0);
        }
    }

    let _restore = Restore(LIMIT.replace(LIVE.get().saturating_add_unsigned(limit)));
    work()
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_beyond_the_budget_is_refused() {
        let reserved =
            |limit, bytes| super::within(limit, || Vec::<u8>::new().try_reserve_exact(bytes).is_ok());
        assert!(reserved(1 << 20, 1 << 19));
        assert!(!reserved(1 << 20, 1 << 21));
        let mut kept = Vec::<u8>::with_capacity(1 << 19);
        super::within(1 << 20, || {
            drop(std::mem::take(&mut kept));
            assert!(kept.try_reserve_exact(3 << 18).is_ok(), "freed memory counts");
        });
    }
}
