//! Turns: the writer's place is free, but kept for one who has waited for it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Control, Holder, W_TURN_SINCE, W_WRITER, Word};

/// How long the writer word is kept for one who waited for it and was woken. It comes back at once, if it comes: the
/// time is what a busy machine may take to run it.
const TURN_PATIENCE: Duration = Duration::from_millis(5);

impl Control {
    fn now_us(&self) -> u64 {
        self.now().as_micros() as u64
    }

    /// How much longer a turn is kept.
    pub(super) fn turn_left(&self) -> Duration {
        let since = self.word(W_TURN_SINCE).load(Ordering::SeqCst);
        TURN_PATIENCE.saturating_sub(Duration::from_micros(self.now_us().saturating_sub(since)))
    }

    /// Keeps the writer word, which was free, for the caller's next [`Control::take_turn`]; false if it isn't free.
    ///
    /// Nobody holds the word then: whoever wants it and finds that the turn isn't taken in good time, takes it. So
    /// one who never comes back for its turn, or dies, stops nobody.
    pub fn keep_turn(&self) -> bool {
        let before = self.word(W_WRITER).load(Ordering::SeqCst);
        if before != Holder::NOBODY.0 && !(Holder(before).is_turn() && self.turn_left().is_zero()) {
            return false;
        }
        self.word(W_TURN_SINCE).store(self.now_us(), Ordering::SeqCst);
        self.word(W_WRITER)
            .compare_exchange(before, self.me.turn().0, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// Takes the writer word in the turn that was kept; false if somebody else has taken it.
    pub fn take_turn(&self) -> bool {
        self.word(W_WRITER)
            .compare_exchange(self.me.turn().0, self.me.0, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// Gives a kept turn up.
    pub fn give_turn_up(&self) {
        if self.is_own() && self.take_turn() {
            self.release(Word::Writer);
        }
    }

    /// Waits, while it is `holder`'s turn, until it is taken or kept for too long, and in that case takes the writer
    /// word; false if somebody else got it.
    pub fn outwait_turn(&self, holder: Holder) -> bool {
        loop {
            let left = self.turn_left();
            if left.is_zero() {
                return self.steal(Word::Writer, holder);
            }
            self.wait(W_WRITER, holder.0, left);
            match self.word(W_WRITER).load(Ordering::SeqCst) {
                0 => return self.take(Word::Writer).is_ok(),
                now if now == holder.0 => {}
                _ => return false,
            }
        }
    }
}
