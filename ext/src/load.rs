//! What the entry points do.

use std::ffi::{c_char, c_int};
use std::sync::{Mutex, PoisonError};

use libsqlite3_sys as ffi;
use rusqlite::Connection;
use tideline_journal::{Code, Error, Result};

use crate::{connection, host};

/// What an entry point answers when all is well. The static library's may be given to
/// `sqlite3_auto_extension`, where anything but OK is an error.
const DONE: c_int = if cfg!(feature = "loadable") { ffi::SQLITE_OK_LOAD_PERMANENTLY } else { ffi::SQLITE_OK };

/// True once the VFS of this copy of the library is registered.
static REGISTERED: Mutex<bool> = Mutex::new(false);

/// Registers all there is; with `default`, as the process's default VFS.
///
/// # Safety
/// SQLite's contract for the entry point of an extension; in the static library `db` and `message`
/// may be null.
pub(crate) unsafe fn load(
    db: *mut ffi::sqlite3,
    message: *mut *mut c_char,
    api: *const ffi::sqlite3_api_routines,
    default: bool,
) -> c_int {
    // SAFETY: the caller's promise.
    match host::guard(|| unsafe { load_into(db, api, default) }) {
        Ok(()) => DONE,
        Err(error) => {
            // SAFETY: as above.
            unsafe { host::tell(message, host::malloc(api), &error.to_string()) };
            ffi::SQLITE_ERROR
        }
    }
}

/// # Safety
/// As [`load`].
unsafe fn load_into(
    db: *mut ffi::sqlite3,
    api: *const ffi::sqlite3_api_routines,
    default: bool,
) -> Result<()> {
    // SAFETY: a host's table, or null.
    unsafe { host::adopt(api) }?;
    let mut registered = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the name is a constant.
    let found = unsafe { ffi::sqlite3_vfs_find(tideline_vfs::VFS_NAME.as_ptr()) };
    if !found.is_null() && !*registered {
        // SAFETY: what was found stays registered.
        return unsafe { join_another_copy(db, found, default) };
    }
    tideline_vfs::open_with(tideline_sync::store_options);
    tideline_vfs::register(default).map_err(|code| failed("registering the VFS", code))?;
    *registered = true;
    tideline_journal::report_to(|error| {
        tideline_vfs::note(error);
    });
    connection::watch().map_err(|code| failed("registering for later connections", code))?;
    if db.is_null() {
        return Ok(());
    }
    // SAFETY: an open connection, which isn't closed with the value.
    let equipped = unsafe { Connection::from_handle(db) }.and_then(|db| connection::equip(&db));
    match equipped {
        // The functions are there already, and a statement is running: this one, that loads.
        Err(rusqlite::Error::SqliteFailure(code, _)) if code.extended_code == ffi::SQLITE_BUSY => Ok(()),
        Err(error) => Err(Error::new(
            Code::Io,
            format!("registering the functions: {error}; load into a new connection"),
        )),
        Ok(()) => Ok(()),
    }
}

/// Another file with Tideline in it was loaded into this SQLite before, such as
/// `libtidelinedefault.so`. Its VFS and its functions serve; two of them would not know of each
/// other's stores.
///
/// # Safety
/// `db` is null or an open connection, `vfs` is registered.
unsafe fn join_another_copy(db: *mut ffi::sqlite3, vfs: *mut ffi::sqlite3_vfs, default: bool) -> Result<()> {
    // SAFETY: the caller's promise.
    let equipped =
        db.is_null() || unsafe { Connection::from_handle(db) }.is_ok_and(|db| connection::is_equipped(&db));
    if !equipped {
        return Err(Error::new(
            Code::Denied,
            "another file with Tideline in it is loaded into this process; load that one here, or open a new connection",
        ));
    }
    if default {
        // SAFETY: as above.
        let code = unsafe { ffi::sqlite3_vfs_register(vfs, 1) };
        if code != ffi::SQLITE_OK {
            return Err(failed("making the VFS the default", code));
        }
    }
    Ok(())
}

fn failed(what: &str, code: c_int) -> Error {
    Error::new(Code::Io, format!("{what} failed with SQLite's code {code}; look at its error log"))
}
