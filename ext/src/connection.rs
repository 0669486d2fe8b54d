//! What a connection gets when it is opened.

use std::borrow::Cow;
use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;
use std::sync::Arc;

use libsqlite3_sys as ffi;
use rusqlite::Connection;
use tideline_journal::{Code, Error, Result};
use tideline_sql::{Locate, Located};

use crate::host;

/// Bytes that a database of ours may map: the most that SQLite takes.
const MMAP_SIZE: &CStr = c"PRAGMA main.mmap_size=2147418112";

/// SQLite's level of `synchronous` where a host doesn't say: FULL.
const FULL: i64 = 2;

/// The stores, by what the VFS knows of a connection.
struct Stores;

impl Locate for Stores {
    unsafe fn locate(&self, db: *mut ffi::sqlite3, schema: &str) -> Result<Located> {
        let name = CString::new(schema)
            .map_err(|_| Error::new(Code::Argument, "the schema's name has a zero byte; give one without"))?;
        // SAFETY: passed on.
        match unsafe { tideline_vfs::handle(db, &name) } {
            Some(handle) => handle.map(|handle| Located {
                store: handle.store,
                snapshot: handle.snapshot,
                writing: handle.writing,
            }),
            None if schema.eq_ignore_ascii_case("main") => Err(Error::new(
                Code::Argument,
                "the database isn't open through vfs=tideline; open it as file:PATH?vfs=tideline, where its folder can \
                 be written",
            )),
            None if schema.eq_ignore_ascii_case("temp") => Err(Error::new(
                Code::Argument,
                "schema temp is SQLite's own; name main, or a schema that is attached through vfs=tideline",
            )),
            None => Err(Error::new(
                Code::Argument,
                format!(
                    "schema {schema} isn't a database that is open through vfs=tideline; \
                     ATTACH 'file:PATH?vfs=tideline' AS {}",
                    identifier(schema)
                ),
            )),
        }
    }

    fn last_error(&self) -> String {
        tideline_vfs::last_error()
    }

    fn note(&self, error: &Error) {
        tideline_vfs::note(error);
    }
}

/// Registers the functions with a connection.
///
/// # Errors
/// What SQLite says.
pub(crate) fn equip(connection: &Connection) -> rusqlite::Result<()> {
    tideline_sql::register(connection, Arc::new(Stores))
}

/// True if a connection has the functions, of whatever copy of the library.
pub(crate) fn is_equipped(connection: &Connection) -> bool {
    let names = connection.prepare("PRAGMA function_list").and_then(|mut statement| {
        let mut rows = statement.query(())?;
        while let Some(row) = rows.next()? {
            if row.get_ref(0)?.as_str().is_ok_and(|name| name == "tide_version") {
                return Ok(true);
            }
        }
        Ok(false)
    });
    names.unwrap_or(false)
}

/// Has every connection that is opened from now on equipped.
///
/// # Errors
/// SQLite's code.
pub(crate) fn watch() -> std::result::Result<(), c_int> {
    type Callback =
        unsafe extern "C" fn(*mut ffi::sqlite3, *mut *mut c_char, *const ffi::sqlite3_api_routines) -> c_int;
    let callback: Callback = opened;
    // SAFETY: SQLite declares the function without arguments, and calls it with these three.
    #[cfg(feature = "loadable")]
    let callback = unsafe { std::mem::transmute::<Callback, unsafe extern "C" fn()>(callback) };
    // SAFETY: the function stays: the library is never unloaded. A second registration changes nothing.
    let code = unsafe { ffi::sqlite3_auto_extension(Some(callback)) };
    if code == ffi::SQLITE_OK { Ok(()) } else { Err(code) }
}

/// Called by SQLite for every connection that was opened. Only a refused database of ours makes the
/// open fail: an error here would make every open of the process fail, also of others' databases.
///
/// # Safety
/// SQLite's contract for an automatic extension.
unsafe extern "C" fn opened(
    db: *mut ffi::sqlite3,
    message: *mut *mut c_char,
    api: *const ffi::sqlite3_api_routines,
) -> c_int {
    // SAFETY: the caller's promise.
    let set_up = host::guard(|| Ok(unsafe { set_up(db) })).unwrap_or_else(SetUp::Unequipped);
    let refusal = match set_up {
        SetUp::Done => return ffi::SQLITE_OK,
        SetUp::Refused(refusal) => refusal,
        // As for an open that has none left itself.
        SetUp::OutOfMemory => return ffi::SQLITE_NOMEM,
        SetUp::Unequipped(error) => {
            tideline_vfs::note(&error);
            return ffi::SQLITE_OK;
        }
    };
    // SAFETY: the message and the table are the host's. Where it passes no table, ours is in use.
    unsafe {
        let malloc = host::malloc(api).unwrap_or(libsqlite3_malloc);
        host::tell(message, Some(malloc), &refusal.to_string());
    }
    if refusal.code() == Code::NotADatabase { ffi::SQLITE_NOTADB } else { ffi::SQLITE_CANTOPEN }
}

/// `sqlite3_malloc` as a C function, whatever the bindings make of it.
///
/// # Safety
/// As `sqlite3_malloc`.
unsafe extern "C" fn libsqlite3_malloc(size: c_int) -> *mut std::ffi::c_void {
    // SAFETY: passed on.
    unsafe { ffi::sqlite3_malloc(size) }
}

/// What became of a connection that was opened.
enum SetUp {
    Done,
    /// Its main database is ours, and was refused.
    Refused(Error),
    OutOfMemory,
    /// It has no functions.
    Unequipped(Error),
}

/// Equips a connection.
///
/// # Safety
/// `db` is an open connection, used by this thread alone during the call.
unsafe fn set_up(db: *mut ffi::sqlite3) -> SetUp {
    // SAFETY: the connection isn't closed with the value.
    let equipped = unsafe { Connection::from_handle(db) }.and_then(|connection| equip(&connection));
    // SAFETY: the caller's promise.
    if let Some(refusal) = unsafe { tideline_vfs::open_refusal(db) } {
        return SetUp::Refused(refusal);
    }
    // SAFETY: as above.
    if unsafe { tideline_vfs::handle(db, c"main") }.is_some() {
        // SAFETY: as above.
        unsafe { tune(db) };
    }
    let Err(error) = equipped else { return SetUp::Done };
    if error.sqlite_error_code() == Some(rusqlite::ErrorCode::OutOfMemory) {
        return SetUp::OutOfMemory;
    }
    // SAFETY: as above. The connection's error would else be taken for that of the open.
    unsafe { run(db, c"") };
    let text = format!("a connection has no functions of Tideline: {error}; open it again");
    SetUp::Unequipped(Error::new(Code::Io, text))
}

/// Gives a main database of ours what WAL mode would have: pages served from mappings, and the
/// host's level of `synchronous` for it (the pager applies the one for rollback mode).
///
/// # Safety
/// As [`set_up`].
unsafe fn tune(db: *mut ffi::sqlite3) {
    // SAFETY: constant statements on an open connection.
    unsafe {
        let mapped = host::option("MAX_MMAP_SIZE") == Some(0) || run(db, MMAP_SIZE);
        let rollback = host::option("DEFAULT_SYNCHRONOUS").unwrap_or(FULL);
        let wal = host::option("DEFAULT_WAL_SYNCHRONOUS").unwrap_or(rollback);
        let levels = [
            c"PRAGMA main.synchronous=0",
            c"PRAGMA main.synchronous=1",
            c"PRAGMA main.synchronous=2",
            c"PRAGMA main.synchronous=3",
        ];
        let level = usize::try_from(wal).ok().and_then(|wal| levels.get(wal));
        let synced = match level {
            Some(level) if wal != rollback => run(db, level),
            _ => true,
        };
        if !(mapped && synced) {
            // The database may be busy or damaged: whoever uses it is told. SQLite would take what
            // a statement left for the result of the open; even no statement clears that.
            run(db, c"");
        }
    }
}

/// Runs a statement; true if it went well.
///
/// # Safety
/// `db` is an open connection, used by this thread alone during the call.
unsafe fn run(db: *mut ffi::sqlite3, sql: &CStr) -> bool {
    // SAFETY: the caller's promise.
    unsafe { ffi::sqlite3_exec(db, sql.as_ptr(), None, ptr::null_mut(), ptr::null_mut()) == ffi::SQLITE_OK }
}

/// A schema's name as SQL writes it.
fn identifier(name: &str) -> Cow<'_, str> {
    if !name.is_empty() && name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric()) {
        return name.into();
    }
    format!("\"{}\"", name.replace('"', "\"\"")).into()
}
