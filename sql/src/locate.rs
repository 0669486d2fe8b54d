//! Where the store behind a connection is.

use std::sync::Arc;

use rusqlite::ffi::sqlite3;
use tideline_journal::{Error, Lsn, Result, Store};

/// The store behind a schema, as one connection has it.
pub struct Located {
    /// The store.
    pub store: Arc<Store>,
    /// LSN of the connection's snapshot; `None` outside a transaction.
    pub snapshot: Option<Lsn>,
    /// True inside a write transaction.
    pub writing: bool,
}

/// Finds the store behind a schema of a connection; `ext` wires it to the VFS.
pub trait Locate: Send + Sync {
    /// The store behind `schema`.
    ///
    /// # Errors
    /// `Argument` if there is none, or why it was refused.
    ///
    /// # Safety
    /// `db` is an open connection, used by this thread alone during the call.
    unsafe fn locate(&self, db: *mut sqlite3, schema: &str) -> Result<Located>;

    /// Text of the last refusal; empty if there was none.
    fn last_error(&self) -> String;

    /// Remembers a refusal.
    fn note(&self, error: &Error);
}
