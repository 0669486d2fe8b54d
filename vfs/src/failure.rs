//! Errors of the store as SQLite's codes, and the text of the last one.

use std::cell::RefCell;
use std::os::raw::c_int;

use libsqlite3_sys as ffi;
use tideline_journal::{Code, Error};

thread_local! {
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Text of the last refusal in this thread; empty if there was none.
pub fn last_error() -> String {
    LAST.with_borrow(String::clone)
}

/// Remembers `error` for `tide_last_error()`, tells `sqlite3_log` but for what passes, and returns SQLite's code for it.
pub fn note(error: &Error) -> c_int {
    let code = sqlite_code(error.code());
    let text = error.to_string();
    // What passes, and whoever meets it tries again, would fill the log.
    if !matches!(error.code(), Code::Busy | Code::Stale | Code::Interrupted) {
        crate::shim::log(code, &text);
    }
    LAST.with_borrow_mut(|last| *last = text);
    code
}

/// SQLite's code for a kind of error.
pub(crate) fn sqlite_code(code: Code) -> c_int {
    match code {
        Code::Busy => ffi::SQLITE_BUSY,
        Code::Stale => ffi::SQLITE_BUSY_SNAPSHOT,
        Code::Damaged => ffi::SQLITE_IOERR | (32 << 8), // SQLITE_IOERR_DATA
        Code::NotADatabase => ffi::SQLITE_NOTADB,
        Code::Full => ffi::SQLITE_FULL,
        Code::Interrupted => ffi::SQLITE_INTERRUPT,
        Code::Denied => ffi::SQLITE_CANTOPEN,
        Code::Missing | Code::Format | Code::Foreign | Code::Diverged | Code::Limit => ffi::SQLITE_CANTOPEN,
        Code::Argument | Code::Gap | Code::Trimmed => ffi::SQLITE_ERROR,
        _ => ffi::SQLITE_IOERR,
    }
}
