//! One call of a function, or one scan of a table.

use std::time::{Duration, Instant};

use tideline_journal::{Code, Error, Result, Store};

use crate::argument::Arguments;
use crate::locate::{Locate, Located};
use crate::raw::Host;

/// What a function or a table has to go by.
pub(crate) struct Call<'a> {
    /// What it was called with.
    pub arguments: Arguments<'a>,
    /// The connection that calls.
    pub host: Host<'a>,
    /// Who knows the stores.
    pub locate: &'a dyn Locate,
}

impl Call<'_> {
    /// The store that the call is about.
    pub fn located(&self) -> Result<Located> {
        self.host.locate(self.locate, self.arguments.schema()?)
    }

    /// The same for a command, which writes for itself and so can't be part of a transaction.
    pub fn commanded(&self) -> Result<Located> {
        let located = self.located()?;
        if self.host.in_transaction() || located.writing {
            let what = self.arguments.function();
            let text =
                format!("{what} can't run inside a transaction; COMMIT or ROLLBACK, then call it by itself");
            return Err(Error::new(Code::Denied, text));
        }
        Ok(located)
    }

    /// Runs a command again while it answers BUSY, for as long as the connection's busy timeout says.
    pub fn patiently<T>(&self, store: &Store, mut command: impl FnMut() -> Result<T>) -> Result<T> {
        const PAUSE: Duration = Duration::from_millis(2);
        let begun = Instant::now();
        let mut end = None;
        loop {
            let busy = match command() {
                Err(error) if error.code() == Code::Busy => error,
                done => return done,
            };
            let end = *end.get_or_insert_with(|| begun + self.host.busy_timeout());
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(busy);
            }
            // Somebody's commit is what it waits for, most of the time.
            if store.wait_for_turn(left)? {
                store.give_turn_up();
            }
            std::thread::sleep(PAUSE.min(left));
        }
    }
}

/// Refuses a BLOB that a connection with this limit couldn't pass on.
pub(crate) fn fitting(blob: Vec<u8>, limit: usize) -> Result<Vec<u8>> {
    if blob.len() <= limit {
        return Ok(blob);
    }
    let text = format!(
        "{} bytes are more than a value of this connection holds, {limit}; use tide_batches, with fewer bytes a piece",
        blob.len()
    );
    Err(Error::new(Code::Limit, text))
}
