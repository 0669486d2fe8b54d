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
        let text = if self.host.in_transaction() {
            "can't run inside a transaction; COMMIT or ROLLBACK, then call it by itself"
        } else if located.writing {
            "can't run while this connection writes; call it by itself, and where locking_mode is EXCLUSIVE, set it to NORMAL \
             and read something first"
        } else {
            return Ok(located);
        };
        Err(Error::new(Code::Denied, format!("{} {text}", self.arguments.function())))
    }

    /// The same for a command that changes the database, or what is kept with it.
    pub fn changed(&self) -> Result<Located> {
        let located = self.commanded()?;
        if self.host.only_reads(self.arguments.schema()?) {
            let what = self.arguments.function();
            let text = format!(
                "{what} changes the database, and this connection only reads it (mode=ro, immutable=1 or PRAGMA query_only); \
                 call it on one that may write"
            );
            return Err(Error::new(Code::Denied, text));
        }
        Ok(located)
    }

    /// Runs a command again while it answers BUSY, for as long as the connection's busy timeout says, or until it is
    /// interrupted.
    pub fn patiently<T>(&self, store: &Store, mut command: impl FnMut() -> Result<T>) -> Result<T> {
        const PAUSE: Duration = Duration::from_millis(2);
        /// How often it looks whether it was interrupted.
        const LOOK: Duration = Duration::from_millis(100);
        let end = Instant::now() + self.host.busy_timeout();
        loop {
            let busy = match command() {
                Err(error) if error.code() == Code::Busy => error,
                done => return done,
            };
            if self.host.interrupted() {
                let text = "the call was interrupted while another connection was at work; call it again";
                return Err(Error::new(Code::Interrupted, text));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(busy);
            }
            // Somebody's commit is what it waits for, most of the time.
            if store.wait_for_turn(left.min(LOOK))? {
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
