//! The writer's place, and what a writer that died leaves to whoever takes it.

use std::time::Duration;

use crate::control::Word;
use crate::error::{Code, Error, Result};
use crate::store::Store;
use crate::store::tail::{Images, advance};

/// How long one who waits for the writer's place stays awake.
const SPIN: Duration = Duration::from_micros(50);

impl Store {
    /// Takes the writer word. Nothing is known about the snapshot yet.
    ///
    /// # Errors
    /// `Busy` if a living process or another connection has it.
    pub(crate) fn take_writer(&self) -> Result<()> {
        let busy = || Error::new(Code::Busy, "another connection is writing; try again");
        let Err(holder) = self.control.take(Word::Writer) else { return Ok(()) };
        if holder.is_turn() {
            return if self.control.outwait_turn(holder) { Ok(()) } else { Err(busy()) };
        }
        if self.control.alive(holder)? || !self.control.steal(Word::Writer, holder) {
            return Err(busy());
        }
        self.adopt_orphans().inspect_err(|_| self.control.release(Word::Writer))
    }

    /// Waits until nobody writes, and keeps the writer's place for the caller for a few milliseconds; false if
    /// `patience` ends before. [`crate::Session::begin_write_in_turn`] takes the place.
    ///
    /// # Errors
    /// `Denied` in a forked child.
    pub fn wait_for_turn(&self, patience: Duration) -> Result<bool> {
        self.check_process()?;
        // Most write for a few microseconds only, and waking a thread takes longer.
        let begun = self.control.now();
        loop {
            if self.control.keep_turn() {
                return Ok(true);
            }
            if self.control.now().saturating_sub(begun) >= SPIN.min(patience) {
                break;
            }
            self.control.pause();
        }
        if let Some(holder) = self.control.holder(Word::Writer) {
            self.control.wait_word(Word::Writer, holder, patience);
        }
        Ok(self.control.keep_turn())
    }

    /// Gives up the turn that [`Store::wait_for_turn`] got.
    pub fn give_turn_up(&self) {
        self.control.give_turn_up();
    }

    /// Finishes what the dead holder of the writer word may have appended. Holding the word.
    pub(crate) fn adopt_orphans(&self) -> Result<()> {
        let mut tail = self.tail.lock();
        self.catch_up_tail(&mut tail, self.control.appended())?;
        let mut decided = false;
        loop {
            while advance(&*self.disk, &self.side, &mut tail, Images::Check)? {
                let lsn = tail.index.applied();
                if lsn > self.control.appended() {
                    self.control.set_appended_for_dead(lsn);
                }
            }
            if decided {
                // It is on the disk, and its transaction was committed before.
                self.control.publish(self.control.appended());
            }
            decided = crate::prepared::resolve(&*self.disk, &self.path, &self.side, &mut tail)?;
            if !decided {
                break;
            }
        }
        self.adopt_take_over(&tail)?;
        crate::prepared::remove_left_marker(&*self.disk, &self.path)?;
        self.control.set_pending(false);
        Ok(())
    }

    /// Decides about a prepared entry that nobody is working on any more: its writer died, or couldn't write down what
    /// the super-journal's going had decided.
    pub(crate) fn finish_prepared(&self) -> Result<()> {
        match self.take_writer() {
            Ok(()) => {}
            Err(e) if e.code() == Code::Busy => return Ok(()),
            Err(e) => return Err(e),
        }
        let finished = if self.control.pending() { self.adopt_orphans() } else { Ok(()) };
        self.control.release(Word::Writer);
        finished
    }
}
