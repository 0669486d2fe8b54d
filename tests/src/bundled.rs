//! `rusqlite` with a SQLite of its own, newer than this system's.

use std::ffi::{CStr, CString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::{null, null_mut};
use std::sync::Once;

use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::types::ValueRef;
use rusqlite::{Batch, Connection, OpenFlags, ffi};

use crate::library::{against_stock, library};
use crate::scratch::Scratch;

/// A connection to the database of this name, through Tideline.
#[track_caller]
pub fn bundled(scratch: &Scratch, name: &str) -> Connection {
    bundled_at(&scratch.uri(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A connection to this URI. The library is loaded once into this process.
pub fn bundled_at(uri: &str) -> rusqlite::Result<Connection> {
    static LOADED: Once = Once::new();
    if !against_stock() {
        LOADED.call_once(|| load(&library()).expect("the library loaded"));
    }
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(uri, flags)
}

/// A connection to the database of this name as SQLite sees it.
#[track_caller]
pub fn bundled_stock(scratch: &Scratch, name: &str) -> Connection {
    let opened = Connection::open(scratch.path(name));
    opened.unwrap_or_else(|error| panic!("{name}: {error}"))
}

// Not through rusqlite: built together with a loadable extension, as by `cargo clippy --workspace`, it has no
// functions for that.
unsafe extern "C" {
    fn sqlite3_enable_load_extension(db: *mut ffi::sqlite3, on: c_int) -> c_int;
    fn sqlite3_load_extension(
        db: *mut ffi::sqlite3,
        file: *const c_char,
        entry_point: *const c_char,
        message: *mut *mut c_char,
    ) -> c_int;
}

fn load(library: &Path) -> rusqlite::Result<()> {
    let connection = Connection::open_in_memory()?;
    let file = CString::new(library.as_os_str().as_bytes())?;
    // SAFETY: the connection and the name outlive the calls, and no message is asked for.
    let code = unsafe {
        sqlite3_enable_load_extension(connection.handle(), 1);
        sqlite3_load_extension(connection.handle(), file.as_ptr(), null(), null_mut())
    };
    if code == ffi::SQLITE_OK {
        Ok(())
    } else {
        // SAFETY: the connection is open; its message is copied before anything else is done with it.
        let message = unsafe { CStr::from_ptr(ffi::sqlite3_errmsg(connection.handle())) };
        let message = message.to_string_lossy().into_owned();
        Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some(message)))
    }
}

/// Runs every statement of a script, and gives their rows as the shell prints them.
pub fn script(connection: &Connection, sql: &str) -> rusqlite::Result<String> {
    let mut printed = String::new();
    let mut batch = Batch::new(connection, sql);
    while let Some(mut statement) = batch.next()? {
        let width = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let fields: Vec<String> =
                (0..width).map(|at| row.get_ref(at).map(render)).collect::<Result<_, _>>()?;
            printed += &fields.join("|");
            printed.push('\n');
        }
    }
    Ok(printed)
}

/// A value as the shell prints it.
pub fn render(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => format!("{number:?}"),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => String::from_utf8_lossy(bytes).into_owned(),
    }
}
