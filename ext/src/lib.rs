//! Tideline's entry points, and the wiring of its parts. Nothing else is here.
//!
//! ```text
//!   sqlite3_tideline_init ────────┐
//!   sqlite3_tidelinedefault_init ─┴─► load ─┬─► host        what the host is, and its messages
//!                                           ├─► tideline_vfs::register
//!                                           └─► connection  functions, and what an open is told
//! ```
//! `tideline.h` has the same for C.

mod connection;
mod host;
mod load;

use std::ffi::{c_char, c_int};

use libsqlite3_sys::{sqlite3, sqlite3_api_routines};

/// Loads Tideline: databases opened with `?vfs=tideline` are its own from now on.
///
/// In the loadable library it answers `SQLITE_OK_LOAD_PERMANENTLY`; in the static one, where `api`
/// isn't looked at and `db` may be null, `SQLITE_OK`. A second call is harmless.
///
/// # Safety
/// SQLite's contract for the entry point of an extension.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sqlite3_tideline_init(
    db: *mut sqlite3,
    message: *mut *mut c_char,
    api: *const sqlite3_api_routines,
) -> c_int {
    // SAFETY: the same contract.
    unsafe { load::load(db, message, api, false) }
}

/// Loads Tideline and makes its VFS the process's default, for hosts that can't pass a URI.
///
/// # Safety
/// As [`sqlite3_tideline_init`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sqlite3_tidelinedefault_init(
    db: *mut sqlite3,
    message: *mut *mut c_char,
    api: *const sqlite3_api_routines,
) -> c_int {
    // SAFETY: the same contract.
    unsafe { load::load(db, message, api, true) }
}
