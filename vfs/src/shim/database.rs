//! Main databases: opened, and the methods of their files.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::ptr;
use std::sync::Arc;

use libsqlite3_sys as ffi;
use tideline_journal::{Code, Interrupt, Result};

use crate::database::{Database, Open};
use crate::failure::note;
use crate::shim::beside;
use crate::shim::settle::{is_plain, leave_wal, settle};
use crate::shim::vfs::host_open;
use crate::shim::{TideFile, VFS_NAME, code, guard, io_code, path_of};
use crate::{catalog, params};

/// # Safety
/// As `xOpen`, for a main database with a name.
pub(super) unsafe fn open_database(
    name: *const c_char,
    file: *mut TideFile,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let read_only = flags & ffi::SQLITE_OPEN_READONLY != 0;
    // Only then is there something behind the name, whoever passes it.
    let uri = flags & ffi::SQLITE_OPEN_URI != 0;
    // SAFETY: the name ends in a zero and, with that flag, is followed by the URI parameters.
    let (path, parameters) =
        unsafe { (path_of(CStr::from_ptr(name)), if uri { uri_parameters(name) } else { Vec::new() }) };
    if flags & ffi::SQLITE_OPEN_CREATE == 0 && !path.exists() {
        return ffi::SQLITE_CANTOPEN;
    }
    // SAFETY: as above.
    let immutable = uri && unsafe { ffi::sqlite3_uri_boolean(name, c"immutable".as_ptr(), 0) } != 0;
    let opened = params::check(parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())))
        .and_then(|()| settle(path))
        .and_then(|()| match open(path, read_only, immutable) {
            Err(e) if e.code() == Code::Busy && leave_wal(path)? => open(path, read_only, immutable),
            opened => opened,
        });
    let database = match opened {
        Ok(database) => database,
        // BUSY is nothing to explain: whoever opens tries again.
        Err(e) if e.code() == Code::Busy => return note(&e),
        // Where nothing may be written, a database at rest is what it is: a plain SQLite file.
        Err(e) if e.code() == Code::Denied && is_plain(path) && !catalog::is_remote(path) => {
            // Whoever wants to write, or calls a function, asks why it can't be.
            note(&e);
            let flags =
                flags & !(ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_CREATE) | ffi::SQLITE_OPEN_READONLY;
            // SAFETY: the arguments are SQLite's.
            return unsafe { host_open(name, file.cast(), flags, out_flags) };
        }
        Err(e) => {
            note(&e);
            Database::refused(e)
        }
    };
    // SAFETY: `file` has room for a `TideFile`; `xClose` takes the box back.
    unsafe {
        (*file).database = Box::into_raw(Box::new(database));
        (*file).methods = &raw const METHODS;
        beside::opened(name, uri, (*file).database);
        if !out_flags.is_null() {
            *out_flags = flags;
        }
    }
    ffi::SQLITE_OK
}

fn open(path: &Path, read_only: bool, immutable: bool) -> Result<Database> {
    loop {
        let store = catalog::open(path)?;
        match Database::new(path, Arc::clone(&store), read_only, immutable) {
            // Somebody has closed or detached it meanwhile; it is opened anew.
            Err(_) if !store.is_usable() => {}
            made => return made,
        }
    }
}

/// The URI parameters behind a file name that SQLite passed to `xOpen`.
///
/// # Safety
/// `name` is such a name.
unsafe fn uri_parameters(name: *const c_char) -> Vec<(String, String)> {
    let mut parameters = Vec::new();
    // SAFETY: both functions take such a name; the strings live as long as it does.
    unsafe {
        for n in 0.. {
            let key = ffi::sqlite3_uri_key(name, n);
            if key.is_null() {
                break;
            }
            let value = ffi::sqlite3_uri_parameter(name, key);
            let value = if value.is_null() { c"" } else { CStr::from_ptr(value) };
            parameters.push((
                CStr::from_ptr(key).to_string_lossy().into_owned(),
                value.to_string_lossy().into_owned(),
            ));
        }
    }
    parameters
}

pub(super) static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 3,
    xClose: Some(db_close),
    xRead: Some(db_read),
    xWrite: Some(db_write),
    xTruncate: Some(db_truncate),
    xSync: Some(db_sync),
    xFileSize: Some(db_file_size),
    xLock: Some(db_lock),
    xUnlock: Some(db_unlock),
    xCheckReservedLock: Some(db_check_reserved),
    xFileControl: Some(db_file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    // No shared memory, so SQLite never takes the database into WAL mode.
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: Some(db_fetch),
    xUnfetch: Some(db_unfetch),
};

/// The database behind a file.
///
/// # Safety
/// `file` is one that `open_database` or `open_journal` opened; SQLite calls its methods from one
/// thread at a time.
pub(super) unsafe fn database<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Database {
    // SAFETY: the caller's promise.
    unsafe { &mut *(*file.cast::<TideFile>()).database }
}

/// Bytes that SQLite wants filled.
///
/// # Safety
/// `to` points to `len` bytes that may be written.
pub(super) unsafe fn bytes_mut<'a>(to: *mut c_void, len: c_int) -> &'a mut [u8] {
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(to.cast(), usize::try_from(len).unwrap_or(0)) }
}

/// # Safety
/// SQLite's contract for `xClose`.
unsafe extern "C" fn db_close(file: *mut ffi::sqlite3_file) -> c_int {
    guard(ffi::SQLITE_OK, || {
        // SAFETY: the box was made at `xOpen`, and SQLite closes a file once.
        unsafe {
            let file = file.cast::<TideFile>();
            beside::closed((*file).database);
            drop(Box::from_raw((*file).database));
            (*file).database = ptr::null_mut();
            (*file).methods = ptr::null();
        }
        ffi::SQLITE_OK
    })
}

/// SQLite's code for a read that found `whole`, or less than was asked for.
pub(super) fn read_code(read: Result<bool>) -> c_int {
    match read {
        Ok(true) => ffi::SQLITE_OK,
        Ok(false) => ffi::SQLITE_IOERR_SHORT_READ,
        Err(e) => io_code(Err(e), ffi::SQLITE_IOERR_READ),
    }
}

/// # Safety
/// SQLite's contract for `xRead`.
unsafe extern "C" fn db_read(
    file: *mut ffi::sqlite3_file,
    to: *mut c_void,
    len: c_int,
    offset: i64,
) -> c_int {
    guard(ffi::SQLITE_IOERR_READ, || {
        // SAFETY: the arguments are SQLite's.
        let (database, to) = unsafe { (database(file), bytes_mut(to, len)) };
        match database.open() {
            Ok(open) => read_code(open.read(to, offset as u64)),
            Err(_) => {
                // A refused database looks empty until it is locked, so that opening it gets as far
                // as the auto-extension, which can say why.
                to.fill(0);
                ffi::SQLITE_IOERR_SHORT_READ
            }
        }
    })
}

/// # Safety
/// SQLite's contract for `xWrite`.
unsafe extern "C" fn db_write(
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
        io_code(database.open().and_then(|open| open.write(from, offset as u64)), ffi::SQLITE_IOERR_WRITE)
    })
}

/// # Safety
/// SQLite's contract for `xTruncate`.
unsafe extern "C" fn db_truncate(file: *mut ffi::sqlite3_file, len: i64) -> c_int {
    guard(ffi::SQLITE_IOERR_TRUNCATE, || {
        // SAFETY: the arguments are SQLite's.
        let truncated = unsafe { database(file) }.open().and_then(|open| open.truncate(len as u64));
        io_code(truncated, ffi::SQLITE_IOERR_TRUNCATE)
    })
}

/// # Safety
/// SQLite's contract for `xSync`.
unsafe extern "C" fn db_sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    guard(ffi::SQLITE_IOERR_FSYNC, || {
        // SAFETY: the arguments are SQLite's.
        let synced = unsafe { database(file) }.open().and_then(|open| open.sync());
        io_code(synced, ffi::SQLITE_IOERR_FSYNC)
    })
}

/// # Safety
/// SQLite's contract for `xFileSize`.
unsafe extern "C" fn db_file_size(file: *mut ffi::sqlite3_file, out: *mut i64) -> c_int {
    guard(ffi::SQLITE_IOERR_FSTAT, || {
        // SAFETY: the arguments are SQLite's.
        let (database, out) = unsafe { (database(file), &mut *out) };
        let asked = match database.open() {
            Ok(open) => open.len().map(|len| *out = len as i64),
            // As in `db_read`.
            Err(_) => {
                *out = 0;
                Ok(())
            }
        };
        io_code(asked, ffi::SQLITE_IOERR_FSTAT)
    })
}

/// # Safety
/// SQLite's contract for `xLock`.
unsafe extern "C" fn db_lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    guard(ffi::SQLITE_IOERR_LOCK, || {
        // SAFETY: the arguments are SQLite's.
        code(unsafe { database(file) }.open().and_then(|open| open.lock(level)))
    })
}

/// # Safety
/// SQLite's contract for `xUnlock`.
unsafe extern "C" fn db_unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    guard(ffi::SQLITE_OK, || {
        // SAFETY: the arguments are SQLite's.
        if let Ok(open) = unsafe { database(file) }.open() {
            if let Err(e) = open.unlock(level) {
                note(&e);
            }
        }
        ffi::SQLITE_OK
    })
}

/// # Safety
/// SQLite's contract for `xCheckReservedLock`.
unsafe extern "C" fn db_check_reserved(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    guard(ffi::SQLITE_IOERR_CHECKRESERVEDLOCK, || {
        // SAFETY: the arguments are SQLite's.
        let (database, out) = unsafe { (database(file), &mut *out) };
        code(database.open().map(|open| *out = c_int::from(open.is_reserved())))
    })
}

/// # Safety
/// SQLite's contract for `xFileControl`.
unsafe extern "C" fn db_file_control(file: *mut ffi::sqlite3_file, op: c_int, arg: *mut c_void) -> c_int {
    guard(ffi::SQLITE_IOERR, || {
        // SAFETY: the arguments are SQLite's; each opcode says what `arg` points to.
        unsafe {
            let database = database(file);
            if op == ffi::SQLITE_FCNTL_VFSNAME {
                return return_text(arg.cast(), VFS_NAME);
            }
            let Ok(open) = database.open() else { return ffi::SQLITE_NOTFOUND };
            match op {
                ffi::SQLITE_FCNTL_SYNC => {
                    let super_journal = (!arg.is_null()).then(|| path_of(CStr::from_ptr(arg.cast())));
                    match open.prepare(super_journal) {
                        // What was asked for can't be; nothing failed, and nothing was written that a rollback restores.
                        Err(e) if e.code() == Code::Argument => note(&e),
                        prepared => io_code(prepared, ffi::SQLITE_IOERR_WRITE),
                    }
                }
                ffi::SQLITE_FCNTL_COMMIT_PHASETWO => io_code(open.publish(), ffi::SQLITE_IOERR_FSYNC),
                ffi::SQLITE_FCNTL_PRAGMA => pragma(open, arg.cast()),
                ffi::SQLITE_FCNTL_MMAP_SIZE => {
                    let size = arg.cast::<i64>();
                    *size = open.set_mmap_size(*size);
                    ffi::SQLITE_OK
                }
                ffi::SQLITE_FCNTL_PDB => {
                    open.interrupted_as(interrupt_of(arg.cast()));
                    ffi::SQLITE_OK
                }
                ffi::SQLITE_FCNTL_HAS_MOVED => {
                    *arg.cast::<c_int>() = c_int::from(open.has_moved());
                    ffi::SQLITE_OK
                }
                ffi::SQLITE_FCNTL_LOCKSTATE => {
                    *arg.cast::<c_int>() = open.level();
                    ffi::SQLITE_OK
                }
                ffi::SQLITE_FCNTL_POWERSAFE_OVERWRITE => {
                    *arg.cast::<c_int>() = 1;
                    ffi::SQLITE_OK
                }
                ffi::SQLITE_FCNTL_SIZE_HINT | ffi::SQLITE_FCNTL_CHUNK_SIZE => ffi::SQLITE_OK,
                _ => ffi::SQLITE_NOTFOUND,
            }
        }
    })
}

/// What tells whether the connection that reads a file was interrupted.
///
/// # Safety
/// `connection` is what `FCNTL_PDB` passes: the place where SQLite keeps the connection that uses the file, for as long as
/// it is open. It is asked while a method of the file runs.
unsafe fn interrupt_of(connection: *const *mut ffi::sqlite3) -> Interrupt {
    fn asked(connection: usize) -> bool {
        let connection = connection as *const *mut ffi::sqlite3;
        let mut statement = ptr::null_mut();
        // SAFETY: the promise above; this thread has the connection, as it runs a method of its file.
        unsafe {
            // `sqlite3_is_interrupted` came with SQLite 3.41. Any other statement ends at once, too; this one reads
            // nothing.
            let sql = c"SELECT 1";
            let mut code =
                ffi::sqlite3_prepare_v2(*connection, sql.as_ptr(), -1, &mut statement, ptr::null_mut());
            if code == ffi::SQLITE_OK {
                code = ffi::sqlite3_step(statement);
            }
            ffi::sqlite3_finalize(statement);
            code == ffi::SQLITE_INTERRUPT
        }
    }
    Interrupt::new(asked, connection as usize)
}

/// Stores a copy of `text`, which SQLite frees.
///
/// # Safety
/// `out` may be written.
unsafe fn return_text(out: *mut *mut c_char, text: &CStr) -> c_int {
    let bytes = text.to_bytes_with_nul();
    // SAFETY: the room is as long as the text.
    unsafe {
        let copy = ffi::sqlite3_malloc64(bytes.len() as u64).cast::<c_char>();
        if copy.is_null() {
            return ffi::SQLITE_NOMEM;
        }
        ptr::copy_nonoverlapping(bytes.as_ptr().cast(), copy, bytes.len());
        *out = copy;
    }
    ffi::SQLITE_OK
}

/// `FCNTL_PRAGMA`. Runs when the statement is prepared, maybe more than once.
///
/// # Safety
/// `arg` points to SQLite's three strings: result, name, value or null.
unsafe fn pragma(open: &mut Open, arg: *mut *mut c_char) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        let name = CStr::from_ptr(*arg.add(1)).to_string_lossy().to_ascii_lowercase();
        let value = *arg.add(2);
        match name.as_str() {
            "journal_mode" => return_text(arg, c"wal"),
            // A connection that never unlocks would never see another's commits, nor give up a
            // stale snapshot.
            "locking_mode" if !value.is_null() => {
                // An attached database may be in that mode without our having been asked.
                let leaves = CStr::from_ptr(value).to_bytes().eq_ignore_ascii_case(b"normal");
                if leaves { ffi::SQLITE_NOTFOUND } else { return_text(arg, c"normal") }
            }
            "wal_checkpoint" => {
                if !open.in_transaction() {
                    if let Err(e) = open.store().fold() {
                        note(&e);
                    }
                }
                ffi::SQLITE_NOTFOUND
            }
            _ => ffi::SQLITE_NOTFOUND,
        }
    }
}

/// # Safety
/// SQLite's contract for `xSectorSize`.
pub(super) unsafe extern "C" fn sector_size(_file: *mut ffi::sqlite3_file) -> c_int {
    512
}

/// # Safety
/// SQLite's contract for `xDeviceCharacteristics`.
pub(super) unsafe extern "C" fn characteristics(_file: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

/// # Safety
/// SQLite's contract for `xFetch`.
unsafe extern "C" fn db_fetch(
    file: *mut ffi::sqlite3_file,
    offset: i64,
    len: c_int,
    out: *mut *mut c_void,
) -> c_int {
    guard(ffi::SQLITE_IOERR, || {
        // SAFETY: the arguments are SQLite's, which doesn't write through the pointer it gets.
        unsafe {
            *out = ptr::null_mut();
            let fetched = database(file)
                .open()
                .and_then(|open| open.fetch(offset as u64, usize::try_from(len).unwrap_or(0)));
            match fetched {
                Ok(page) => {
                    if let Some(page) = page {
                        *out = page.cast_mut().cast();
                    }
                    ffi::SQLITE_OK
                }
                Err(e) => io_code(Err(e), ffi::SQLITE_IOERR_READ),
            }
        }
    })
}

/// # Safety
/// SQLite's contract for `xUnfetch`.
unsafe extern "C" fn db_unfetch(_file: *mut ffi::sqlite3_file, _offset: i64, _page: *mut c_void) -> c_int {
    ffi::SQLITE_OK
}
