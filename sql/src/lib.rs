//! What Tideline adds to SQL: scalar functions, and table-valued functions that are tables as well.
//!
//! ```text
//!   functions ─┐             ┌─► Locate ─► journal::Store
//!              ├─► Call ─────┤
//!   tables ────┘             └─► Arguments
//!      ├──────────► raw: SQLite's C interface
//!      ├──────────► owner: which table a page belongs to
//!      └──────────► remotes ─► sync
//! ```
//! SURFACE.md is the contract. Where a connection's store is, `ext` says, by [`Locate`].

mod argument;
mod call;
mod failure;
mod functions;
mod locate;
mod owner;
mod raw;
mod remotes;
mod table;
mod tables;
mod time;
mod trace;

pub use locate::{Locate, Located};

use std::sync::Arc;

use rusqlite::Connection;

/// Registers all functions and tables with a connection. Doing it again is harmless, but answers
/// `SQLITE_BUSY` while a statement of the connection runs.
///
/// # Errors
/// What SQLite says.
pub fn register(connection: &Connection, locate: Arc<dyn Locate>) -> rusqlite::Result<()> {
    functions::register(connection, &locate)?;
    tables::register(connection, &locate)
}
