//! The rollback journals of main databases, which are virtual.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

use libsqlite3_sys as ffi;
use tideline_journal::{Code, Error};

use crate::catalog;
use crate::failure::note;
use crate::shim::beside;
use crate::shim::database::{bytes_mut, characteristics, database, read_code, sector_size};
use crate::shim::vfs::host_open;
use crate::shim::{TideFile, code, guard, io_code, path_of};

/// # Safety
/// As `xOpen`, for a main journal with a name.
pub(super) unsafe fn open_journal(
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: the arguments are SQLite's; a database that is found is open, and used by this thread.
    unsafe {
        let Some(database) = beside::database_of(name) else {
            if catalog::journal(path_of(CStr::from_ptr(name))) == catalog::Journal::Foreign {
                return host_open(name, file, flags, out_flags);
            }
            return note(&Error::new(
                Code::Denied,
                "several connections have this database open through a VFS that passes copies of SQLite's names; \
                 open it through vfs=tideline alone, or by one connection",
            ));
        };
        let file = file.cast::<TideFile>();
        (*file).database = database;
        (*file).methods = &raw const METHODS;
        if !out_flags.is_null() {
            *out_flags = flags;
        }
    }
    ffi::SQLITE_OK
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(journal_close),
    xRead: Some(journal_read),
    xWrite: Some(journal_write),
    xTruncate: Some(journal_truncate),
    xSync: Some(journal_sync),
    xFileSize: Some(journal_file_size),
    xLock: Some(no_lock),
    xUnlock: Some(no_lock),
    xCheckReservedLock: Some(no_reserved),
    xFileControl: Some(no_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

/// # Safety
/// SQLite's contract for `xClose`.
unsafe extern "C" fn journal_close(file: *mut ffi::sqlite3_file) -> c_int {
    guard(ffi::SQLITE_OK, || {
        // SAFETY: a journal is closed before its database.
        unsafe {
            if let Ok(open) = database(file).open() {
                open.journal().deleted(false);
            }
            (*file).pMethods = ptr::null();
        }
        ffi::SQLITE_OK
    })
}

/// # Safety
/// SQLite's contract for `xRead`.
unsafe extern "C" fn journal_read(
    file: *mut ffi::sqlite3_file,
    to: *mut c_void,
    len: c_int,
    offset: i64,
) -> c_int {
    guard(ffi::SQLITE_IOERR_READ, || {
        // SAFETY: the arguments are SQLite's.
        let (database, to) = unsafe { (database(file), bytes_mut(to, len)) };
        read_code(database.open().and_then(|open| open.read_journal(to, offset as u64)))
    })
}

/// # Safety
/// SQLite's contract for `xWrite`.
unsafe extern "C" fn journal_write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    len: c_int,
    offset: i64,
) -> c_int {
    guard(ffi::SQLITE_IOERR_WRITE, || {
        // SAFETY: the arguments are SQLite's.
        let (database, from) = unsafe {
            (database(file), std::slice::from_raw_parts(from.cast(), usize::try_from(len).unwrap_or(0)))
        };
        io_code(database.open().map(|open| open.write_journal(from, offset as u64)), ffi::SQLITE_IOERR_WRITE)
    })
}

/// # Safety
/// SQLite's contract for `xTruncate`.
unsafe extern "C" fn journal_truncate(file: *mut ffi::sqlite3_file, len: i64) -> c_int {
    guard(ffi::SQLITE_OK, || {
        // SAFETY: the arguments are SQLite's.
        code(unsafe { database(file) }.open().map(|open| open.journal().truncate(len as u64)))
    })
}

/// # Safety
/// SQLite's contract for `xSync`.
unsafe extern "C" fn journal_sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    guard(ffi::SQLITE_IOERR_FSYNC, || {
        // SAFETY: the arguments are SQLite's.
        code(unsafe { database(file) }.open().map(|open| open.journal().sync()))
    })
}

/// # Safety
/// SQLite's contract for `xFileSize`.
unsafe extern "C" fn journal_file_size(file: *mut ffi::sqlite3_file, out: *mut i64) -> c_int {
    guard(ffi::SQLITE_IOERR_FSTAT, || {
        // SAFETY: the arguments are SQLite's.
        let (database, out) = unsafe { (database(file), &mut *out) };
        code(database.open().map(|open| *out = open.journal().len() as i64))
    })
}

/// # Safety
/// SQLite's contract for `xLock`; it locks no journal.
unsafe extern "C" fn no_lock(_file: *mut ffi::sqlite3_file, _level: c_int) -> c_int {
    ffi::SQLITE_OK
}

/// # Safety
/// SQLite's contract for `xCheckReservedLock`.
unsafe extern "C" fn no_reserved(_file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: the arguments are SQLite's.
    unsafe { *out = 0 };
    ffi::SQLITE_OK
}

/// # Safety
/// SQLite's contract for `xFileControl`.
unsafe extern "C" fn no_control(_file: *mut ffi::sqlite3_file, _op: c_int, _arg: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}
