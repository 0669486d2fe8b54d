//! SQLite's file interface over the Tideline page store.
//!
//! ```text
//!   sqlite3_vfs ─► shim ─┬─► Database ─► journal::Session      main databases
//!                        ├─► Database's RollbackJournal        their -journal
//!                        └─► the host's default VFS            temporary files, everything else
//! ```
//! The pager runs in rollback mode; its rollback journal is virtual, and a commit is what the store
//! does at `FCNTL_SYNC` and `FCNTL_COMMIT_PHASETWO`. ARCHITECTURE.md has the order of calls.

#[rustfmt::skip]
mod rollback;

mod catalog;
mod database;
mod failure;
mod params;
mod shim;
mod turn;

pub use catalog::open_with;
pub use database::Handle;
pub use failure::{last_error, note};
pub use shim::{VFS_NAME, handle, open_refusal, register};
