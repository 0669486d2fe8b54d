//! Where connections register their snapshots, so that no fold passes them.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::{CELLS, Control, Holder, W_CELLS, W_CELLS_HIGH, W_TARGET};
use crate::error::{Code, Error, Result};
use crate::lsn::Lsn;

impl Control {
    /// Oldest LSN below `limit` that a living reader has pinned, else `limit`. Pins of dead readers
    /// are cleared.
    pub fn oldest_pin(&self, limit: Lsn) -> Result<Lsn> {
        let mut oldest = limit;
        let high = (self.word(W_CELLS_HIGH).load(Ordering::SeqCst) as usize).min(CELLS);
        for cell in 0..high {
            let pin = self.word(W_CELLS + 2 * cell + 1).load(Ordering::SeqCst);
            if pin == 0 || Lsn::new(pin - 1) >= oldest {
                continue;
            }
            let owner = self.word(W_CELLS + 2 * cell).load(Ordering::SeqCst);
            if owner != 0 && self.alive(Holder(owner))? {
                oldest = Lsn::new(pin - 1);
            } else {
                self.free_cell(cell, owner);
            }
        }
        Ok(oldest)
    }

    /// Number of readers that have a snapshot.
    pub fn readers(&self) -> usize {
        let high = (self.word(W_CELLS_HIGH).load(Ordering::SeqCst) as usize).min(CELLS);
        (0..high).filter(|cell| self.word(W_CELLS + 2 * cell + 1).load(Ordering::SeqCst) != 0).count()
    }

    /// Number of connections other than those of this process... and of this one.
    pub fn connections(&self) -> usize {
        let high = (self.word(W_CELLS_HIGH).load(Ordering::SeqCst) as usize).min(CELLS);
        (0..high)
            .filter(|cell| {
                let owner = Holder(self.word(W_CELLS + 2 * cell).load(Ordering::SeqCst));
                owner != Holder::NOBODY && self.alive(owner).unwrap_or(true)
            })
            .count()
    }

    fn free_cell(&self, cell: usize, owner: u64) {
        // Only whoever takes the dead owner's claim away clears the pin, so that a new owner's isn't.
        let claim = W_CELLS + 2 * cell;
        let claimed = |owner| {
            self.word(claim).compare_exchange(owner, self.me.0, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        };
        if owner != 0 && claimed(owner) {
            self.word(claim + 1).store(0, Ordering::SeqCst);
            self.word(claim).store(0, Ordering::SeqCst);
        }
    }

    /// Takes a cell for one connection.
    pub fn cell(self: &Arc<Self>) -> Result<Cell> {
        for attempt in 0..2 {
            for cell in 0..CELLS {
                let claim = W_CELLS + 2 * cell;
                let owner = self.word(claim).load(Ordering::SeqCst);
                if owner != 0 {
                    // The second time round, cells of the dead are collected.
                    if attempt == 0 || self.alive(Holder(owner))? {
                        continue;
                    }
                    self.free_cell(cell, owner);
                }
                let free = Holder::NOBODY.0;
                let taken =
                    self.word(claim).compare_exchange(free, self.me.0, Ordering::SeqCst, Ordering::SeqCst);
                if taken.is_ok() {
                    self.word(W_CELLS_HIGH).fetch_max(cell as u64 + 1, Ordering::SeqCst);
                    return Ok(Cell { control: Arc::clone(self), cell });
                }
            }
        }
        Err(Error::new(
            Code::Limit,
            format!("{CELLS} connections have this database open; close one of them"),
        ))
    }
}

/// Where one connection registers its snapshot.
pub(crate) struct Cell {
    control: Arc<Control>,
    cell: usize,
}

impl Cell {
    /// Pins the newest LSN that `head` gives, which no fold will then pass.
    pub fn pin(&self, head: impl Fn(&Control) -> Lsn) -> Lsn {
        loop {
            let lsn = head(&self.control);
            self.control.word(W_CELLS + 2 * self.cell + 1).store(lsn.get() + 1, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            // A fold announces its target and then looks at the pins; here it is the other way
            // round, so one of the two sees the other.
            if self.control.lsn(W_TARGET) <= lsn {
                return lsn;
            }
        }
    }

    /// Pins nothing.
    pub fn unpin(&self) {
        if !self.control.is_own() {
            return;
        }
        // Whatever was read has been read.
        self.control.word(W_CELLS + 2 * self.cell + 1).store(0, Ordering::Release);
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        if !self.control.is_own() {
            return;
        }
        self.unpin();
        self.control.word(W_CELLS + 2 * self.cell).store(0, Ordering::SeqCst);
    }
}
