//! Errors of the store as those of a statement.

use std::any::Any;
use std::os::raw::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rusqlite::ffi;
use tideline_journal::{Code, Error, Result};

/// SQLite's code for an error that a function or a table reports.
pub(crate) fn sqlite_code(code: Code) -> c_int {
    match code {
        Code::Busy => ffi::SQLITE_BUSY,
        Code::Stale => ffi::SQLITE_BUSY_SNAPSHOT,
        Code::Limit => ffi::SQLITE_TOOBIG,
        Code::Full => ffi::SQLITE_FULL,
        Code::Interrupted => ffi::SQLITE_INTERRUPT,
        Code::Io => ffi::SQLITE_IOERR,
        Code::Poisoned => ffi::SQLITE_IOERR_FSYNC,
        _ => ffi::SQLITE_ERROR,
    }
}

/// The error as rusqlite passes it on.
pub(crate) fn failure(error: &Error) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(sqlite_code(error.code())), Some(error.to_string()))
}

/// Runs what SQLite called; a panic becomes an error.
pub(crate) fn guard<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(internal(&*panic)))
}

fn internal(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic");
    Error::new(Code::Io, format!("internal error: {text}; report this as a bug"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_text() {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let error = guard::<()>(|| panic!("page {} of none", 7)).unwrap_err();
        std::panic::set_hook(hook);
        assert_eq!(error.to_string(), "tideline: IO: internal error: page 7 of none; report this as a bug");
    }

    #[test]
    fn codes_that_fit_are_sqlites_own() {
        assert_eq!(sqlite_code(Code::Busy), 5);
        assert_eq!(sqlite_code(Code::Limit), 18);
        assert_eq!(sqlite_code(Code::Trimmed), 1);
    }
}
