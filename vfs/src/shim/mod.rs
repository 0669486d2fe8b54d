//! The boundary to SQLite: the only `unsafe` code of this crate.
//!
//! Every callback passes [`guard`], so that no panic unwinds into C, and turns errors into codes.

mod beside;
mod database;
mod journal;
mod name;
mod settle;
mod vfs;

use std::ffi::{CStr, CString, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::ptr;
use std::sync::OnceLock;

use libsqlite3_sys as ffi;
use tideline_journal::{Code, Error, Result};

use crate::database::{Database, Handle};
use crate::failure::note;

pub use vfs::register;

/// Name of the VFS.
pub const VFS_NAME: &CStr = c"tideline";

/// What SQLite allocates for an open file: its methods, then our part.
#[repr(C)]
struct TideFile {
    methods: *const ffi::sqlite3_io_methods,
    /// The database, made by `Box::into_raw`; a journal's is that of its database's file.
    database: *mut Database,
}

/// The host's default VFS, which serves everything but main databases and their journals.
struct HostVfs(*mut ffi::sqlite3_vfs);

// SAFETY: SQLite keeps a registered VFS for the life of the process and lets any thread call it.
unsafe impl Send for HostVfs {}
// SAFETY: as above.
unsafe impl Sync for HostVfs {}

static HOST: OnceLock<HostVfs> = OnceLock::new();

fn host() -> *mut ffi::sqlite3_vfs {
    HOST.get().map_or(ptr::null_mut(), |host| host.0)
}

/// The path that SQLite names a file by; one that can't be names no file.
fn path_of(name: &CStr) -> &Path {
    tideline_journal::disk::path_from(name.to_bytes()).unwrap_or(Path::new(""))
}

/// Runs a callback; a panic becomes `on_panic` and a line in SQLite's log.
fn guard<T>(on_panic: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        note(&Error::new(Code::Io, format!("internal error: {text}; report this as a bug")));
        on_panic
    })
}

/// Turns the result of a callback into SQLite's code.
fn code(result: Result<()>) -> c_int {
    match result {
        Ok(()) => ffi::SQLITE_OK,
        Err(e) => note(&e),
    }
}

/// The same of a callback that reads or writes, whose failure is `failed`. The pager drops what it has cached, and rolls
/// back for good, upon an I/O error or a full disk alone: behind any other code it would go on with half a rollback.
fn io_code(result: Result<()>, failed: c_int) -> c_int {
    match code(result) {
        code if matches!(
            code & 0xff,
            ffi::SQLITE_OK | ffi::SQLITE_IOERR | ffi::SQLITE_FULL | ffi::SQLITE_BUSY | ffi::SQLITE_INTERRUPT
        ) =>
        {
            code
        }
        _ => failed,
    }
}

/// Writes a line into SQLite's error log.
pub(crate) fn log(code: c_int, text: &str) {
    if let Ok(text) = CString::new(text.replace('\0', " ")) {
        // SAFETY: the text is passed as an argument of a constant format, never as the format.
        unsafe { ffi::sqlite3_log(code, c"%s".as_ptr(), text.as_ptr()) };
    }
}

/// The file of schema `schema` of a connection, if it is one of ours.
///
/// # Safety
/// `db` is an open connection, used by this thread alone during the call.
unsafe fn file_of<'a>(db: *mut ffi::sqlite3, schema: &CStr) -> Option<&'a mut TideFile> {
    let mut file: *mut ffi::sqlite3_file = ptr::null_mut();
    // SAFETY: the opcode stores a pointer to the schema's file, which lives as long as it is open.
    unsafe {
        let found = ffi::sqlite3_file_control(
            db,
            schema.as_ptr(),
            ffi::SQLITE_FCNTL_FILE_POINTER,
            (&raw mut file).cast(),
        );
        let ours = found == ffi::SQLITE_OK
            && !file.is_null()
            && ptr::eq((*file).pMethods, &raw const database::METHODS);
        ours.then(|| &mut *file.cast::<TideFile>())
    }
}

/// The database behind schema `schema` of a connection; `None` if this VFS doesn't serve it.
///
/// # Errors
/// Why it was refused when it was opened.
///
/// # Safety
/// `db` is an open connection, used by this thread alone during the call.
pub unsafe fn handle(db: *mut ffi::sqlite3, schema: &CStr) -> Option<Result<Handle>> {
    // SAFETY: passed on; the database lives as long as its file is open.
    unsafe { file_of(db, schema).map(|file| (*file.database).handle()) }
}

/// Why the main database of a connection was refused, if it was.
///
/// # Safety
/// As [`handle`].
pub unsafe fn open_refusal(db: *mut ffi::sqlite3) -> Option<Error> {
    // SAFETY: as in `handle`.
    unsafe { file_of(db, c"main").and_then(|file| (*file.database).refusal().cloned()) }
}
