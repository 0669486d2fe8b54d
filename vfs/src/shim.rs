//! The boundary to SQLite: the only `unsafe` code of this crate.
//!
//! Every callback passes [`guard`], so that no panic unwinds into C, and turns errors into codes.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::ptr;
use std::sync::OnceLock;
use std::time::Duration;

use libsqlite3_sys as ffi;
use tideline_journal::{Code, Error, Result};

use crate::catalog;
use crate::database::{Database, Handle};
use crate::failure::note;
use crate::params;

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

/// Writes a line into SQLite's error log.
pub(crate) fn log(code: c_int, text: &str) {
    if let Ok(text) = CString::new(text.replace('\0', " ")) {
        // SAFETY: the text is passed as an argument of a constant format, never as the format.
        unsafe { ffi::sqlite3_log(code, c"%s".as_ptr(), text.as_ptr()) };
    }
}

/// Registers the VFS with the SQLite library whose API is in use; `default` makes it the process's
/// default. A second call is harmless.
///
/// # Errors
/// SQLite's code.
pub fn register(default: bool) -> std::result::Result<(), c_int> {
    // SAFETY: the arguments are a null pointer or constant strings; a VFS that is found stays.
    unsafe {
        let own = ffi::sqlite3_vfs_find(VFS_NAME.as_ptr());
        if !own.is_null() {
            return if default { ok(ffi::sqlite3_vfs_register(own, 1)) } else { Ok(()) };
        }
        let host = ffi::sqlite3_vfs_find(ptr::null());
        if host.is_null() {
            return Err(ffi::SQLITE_ERROR);
        }
        let host = &*HOST.get_or_init(|| HostVfs(host)).0;
        let vfs = Box::leak(Box::new(ffi::sqlite3_vfs {
            iVersion: 2,
            szOsFile: host.szOsFile.max(size_of::<TideFile>() as c_int),
            mxPathname: host.mxPathname,
            pNext: ptr::null_mut(),
            zName: VFS_NAME.as_ptr(),
            pAppData: ptr::null_mut(),
            xOpen: Some(x_open),
            xDelete: Some(x_delete),
            xAccess: Some(x_access),
            xFullPathname: Some(x_full_pathname),
            xDlOpen: Some(x_dl_open),
            xDlError: Some(x_dl_error),
            xDlSym: Some(x_dl_sym),
            xDlClose: Some(x_dl_close),
            xRandomness: Some(x_randomness),
            xSleep: Some(x_sleep),
            xCurrentTime: Some(x_current_time),
            xGetLastError: Some(x_get_last_error),
            xCurrentTimeInt64: Some(x_current_time_int64),
            xSetSystemCall: None,
            xGetSystemCall: None,
            xNextSystemCall: None,
        }));
        ok(ffi::sqlite3_vfs_register(vfs, c_int::from(default)))
    }
}

fn ok(code: c_int) -> std::result::Result<(), c_int> {
    if code == ffi::SQLITE_OK { Ok(()) } else { Err(code) }
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
            && ptr::eq((*file).pMethods, &raw const DATABASE_METHODS);
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

// ---- the VFS ------------------------------------------------------------------------------------

/// # Safety
/// SQLite's contract for `xOpen`.
unsafe extern "C" fn x_open(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives room for `szOsFile` bytes; a null method table says that it isn't open.
    unsafe { (*file).pMethods = ptr::null() };
    guard(ffi::SQLITE_CANTOPEN, || {
        // SAFETY: the arguments are SQLite's.
        unsafe {
            if flags & ffi::SQLITE_OPEN_MAIN_DB != 0 && !name.is_null() {
                open_database(name, file.cast(), flags, out_flags)
            } else if flags & ffi::SQLITE_OPEN_MAIN_JOURNAL != 0 && !name.is_null() {
                open_journal(name, file, flags, out_flags)
            } else if flags & ffi::SQLITE_OPEN_WAL != 0 {
                ffi::SQLITE_CANTOPEN
            } else {
                host_open(name, file, flags, out_flags)
            }
        }
    })
}

/// # Safety
/// As `xOpen`.
unsafe fn host_open(
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: the room suffices for the host's files too.
    unsafe {
        match (*host()).xOpen {
            Some(open) => open(host(), name, file, flags, out_flags),
            None => ffi::SQLITE_CANTOPEN,
        }
    }
}

/// # Safety
/// As `xOpen`, for a main database with a name.
unsafe fn open_database(
    name: *const c_char,
    file: *mut TideFile,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let read_only = flags & ffi::SQLITE_OPEN_READONLY != 0;
    // SAFETY: the name ends in a zero and is followed by the URI parameters.
    let (path, parameters) =
        unsafe { (CStr::from_ptr(name).to_string_lossy().into_owned(), uri_parameters(name)) };
    let path = Path::new(&path);
    if flags & ffi::SQLITE_OPEN_CREATE == 0 && !path.exists() {
        return ffi::SQLITE_CANTOPEN;
    }
    let immutable =
        parameters.iter().any(|(name, value)| name == "immutable" && value != "0" && !value.is_empty());
    let opened = params::check(parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())))
        .and_then(|()| settle(path))
        .and_then(|()| catalog::open(path))
        .and_then(|store| Database::new(store, read_only, immutable));
    let database = match opened {
        Ok(database) => database,
        // BUSY is nothing to explain: whoever opens tries again.
        Err(e) if e.code() == Code::Busy => return note(&e),
        // Where nothing may be written, a database at rest is what it is: a plain SQLite file.
        Err(e) if e.code() == Code::Denied && is_plain(path) => {
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
        (*file).methods = &raw const DATABASE_METHODS;
        if !out_flags.is_null() {
            *out_flags = flags;
        }
    }
    ffi::SQLITE_OK
}

/// True if the file at `path` is no marked base.
fn is_plain(path: &Path) -> bool {
    use std::io::Read;
    let mut header = [0; 20];
    match std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut header)) {
        Ok(()) => header[19] <= 2,
        Err(e) => e.kind() == std::io::ErrorKind::UnexpectedEof,
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

/// Lets stock SQLite recover a database that has a rollback journal or a WAL, and take it out of
/// WAL mode, before it is adopted.
fn settle(path: &Path) -> Result<()> {
    use std::io::Read;
    let mut header = [0; 20];
    let wal = match std::fs::File::open(path) {
        Ok(mut file) => file.read_exact(&mut header).is_ok() && (header[18] == 2 || header[19] == 2),
        Err(_) => return Ok(()),
    };
    if header[19] > 2 {
        // Marked: a journal beside it is a marker of ours.
        return Ok(());
    }
    let beside = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        std::fs::metadata(name).is_ok_and(|found| found.len() > 0)
    };
    if !wal && !beside("-journal") && !beside("-wal") {
        return Ok(());
    }
    let refuse = |what: String| {
        Error::new(Code::Busy, format!("{} {what}; close it in stock SQLite first", path.display()))
    };
    let name = CString::new(path.to_string_lossy().as_bytes())
        .map_err(|_| Error::new(Code::Argument, "the path has a zero byte; rename the file"))?;
    let mut db = ptr::null_mut();
    // SAFETY: a connection of our own, closed before we return. A private cache, because the caller
    // may hold the lock of the shared ones.
    let done = unsafe {
        let flags = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_PRIVATECACHE;
        let mut done = ffi::sqlite3_open_v2(name.as_ptr(), &raw mut db, flags, (*host()).zName);
        for sql in [c"SELECT count(*) FROM sqlite_master", c"PRAGMA journal_mode=DELETE"] {
            if done == ffi::SQLITE_OK {
                done = ffi::sqlite3_exec(db, sql.as_ptr(), None, ptr::null_mut(), ptr::null_mut());
            }
        }
        ffi::sqlite3_close(db);
        done
    };
    match done {
        ffi::SQLITE_OK => Ok(()),
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED => {
            Err(refuse("is in use, with a journal or a WAL of stock SQLite".into()))
        }
        // Not ours to judge: opening it tells more.
        ffi::SQLITE_NOTADB => Ok(()),
        other => Err(Error::new(
            Code::Io,
            format!(
                "{}: stock SQLite can't recover it (error {other}); open it there to see why",
                path.display()
            ),
        )),
    }
}

/// # Safety
/// As `xOpen`, for a main journal with a name.
unsafe fn open_journal(
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite opens a main journal by the name that it has beside its database.
    unsafe {
        let database = ffi::sqlite3_database_file_object(name);
        if database.is_null() || !ptr::eq((*database).pMethods, &raw const DATABASE_METHODS) {
            return host_open(name, file, flags, out_flags);
        }
        let file = file.cast::<TideFile>();
        (*file).database = (*database.cast::<TideFile>()).database;
        (*file).methods = &raw const JOURNAL_METHODS;
        if !out_flags.is_null() {
            *out_flags = flags;
        }
    }
    ffi::SQLITE_OK
}

/// # Safety
/// SQLite's contract for `xDelete`.
unsafe extern "C" fn x_delete(_vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    guard(ffi::SQLITE_IOERR, || {
        // SAFETY: the name ends in a zero.
        unsafe {
            if is_virtual(name) {
                return ffi::SQLITE_OK;
            }
            match (*host()).xDelete {
                Some(delete) => delete(host(), name, sync),
                None => ffi::SQLITE_IOERR,
            }
        }
    })
}

/// True for the journal or the WAL of a database that is open here: no such file exists.
///
/// # Safety
/// `name` ends in a zero.
unsafe fn is_virtual(name: *const c_char) -> bool {
    // SAFETY: the caller's promise.
    let Ok(name) = (unsafe { CStr::from_ptr(name) }).to_str() else { return false };
    ["-journal", "-wal"].iter().any(|suffix| name.ends_with(suffix) && catalog::belongs(name, suffix))
}

/// True if the database whose journal `name` is has a prepared entry.
///
/// # Safety
/// `name` ends in a zero.
unsafe fn has_marker(name: *const c_char) -> bool {
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(name) }
        .to_str()
        .ok()
        .and_then(|name| name.strip_suffix("-journal"))
        .is_some_and(catalog::is_prepared)
}

/// # Safety
/// SQLite's contract for `xAccess`.
unsafe extern "C" fn x_access(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    guard(ffi::SQLITE_IOERR, || {
        // SAFETY: the arguments are SQLite's.
        unsafe {
            // A marker of a transaction over several databases is real, and must be seen.
            if is_virtual(name) && !has_marker(name) {
                *out = 0;
                return ffi::SQLITE_OK;
            }
            match (*host()).xAccess {
                Some(access) => access(host(), name, flags, out),
                None => ffi::SQLITE_IOERR,
            }
        }
    })
}

/// # Safety
/// SQLite's contract for `xSleep`.
unsafe extern "C" fn x_sleep(_vfs: *mut ffi::sqlite3_vfs, microseconds: c_int) -> c_int {
    guard(0, || {
        let time = Duration::from_micros(u64::try_from(microseconds).unwrap_or(0));
        if !crate::turn::sleep(time) {
            std::thread::sleep(time);
        }
        microseconds
    })
}

/// A callback that only passes its arguments to the host's VFS.
macro_rules! pass {
    ($name:ident, $method:ident, ($($arg:ident: $type:ty),*) -> $out:ty, $missing:expr) => {
        /// # Safety
        /// SQLite's contract for the method.
        unsafe extern "C" fn $name(_vfs: *mut ffi::sqlite3_vfs, $($arg: $type),*) -> $out {
            // SAFETY: the arguments are SQLite's, the VFS is the one that they are meant for.
            unsafe {
                match (*host()).$method {
                    Some(method) => method(host(), $($arg),*),
                    None => $missing,
                }
            }
        }
    };
}

pass!(x_full_pathname, xFullPathname, (name: *const c_char, len: c_int, out: *mut c_char) -> c_int, ffi::SQLITE_CANTOPEN);
pass!(x_dl_open, xDlOpen, (name: *const c_char) -> *mut c_void, ptr::null_mut());
pass!(x_dl_error, xDlError, (len: c_int, out: *mut c_char) -> (), ());
type Symbol = Option<unsafe extern "C" fn(*mut ffi::sqlite3_vfs, *mut c_void, *const c_char)>;
pass!(x_dl_sym, xDlSym, (library: *mut c_void, name: *const c_char) -> Symbol, None);
pass!(x_dl_close, xDlClose, (library: *mut c_void) -> (), ());
pass!(x_randomness, xRandomness, (len: c_int, out: *mut c_char) -> c_int, 0);
pass!(x_current_time, xCurrentTime, (out: *mut f64) -> c_int, ffi::SQLITE_ERROR);
pass!(x_get_last_error, xGetLastError, (len: c_int, out: *mut c_char) -> c_int, 0);

/// # Safety
/// SQLite's contract for the method.
unsafe extern "C" fn x_current_time_int64(
    _vfs: *mut ffi::sqlite3_vfs,
    out: *mut ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: the arguments are SQLite's; a VFS of version 1 lacks the method.
    unsafe {
        let host = host();
        match (*host).xCurrentTimeInt64.filter(|_| (*host).iVersion >= 2) {
            Some(method) => method(host, out),
            None => {
                let now =
                    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                *out = 210_866_760_000_000 + i64::try_from(now.as_millis()).unwrap_or(0);
                ffi::SQLITE_OK
            }
        }
    }
}

// ---- main databases -----------------------------------------------------------------------------

static DATABASE_METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
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
unsafe fn database<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Database {
    // SAFETY: the caller's promise.
    unsafe { &mut *(*file.cast::<TideFile>()).database }
}

/// Bytes that SQLite wants filled.
///
/// # Safety
/// `to` points to `len` bytes that may be written.
unsafe fn bytes_mut<'a>(to: *mut c_void, len: c_int) -> &'a mut [u8] {
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
            drop(Box::from_raw((*file).database));
            (*file).database = ptr::null_mut();
            (*file).methods = ptr::null();
        }
        ffi::SQLITE_OK
    })
}

/// SQLite's code for a read that found `whole`, or less than was asked for.
fn read_code(read: Result<bool>) -> c_int {
    match read {
        Ok(true) => ffi::SQLITE_OK,
        Ok(false) => ffi::SQLITE_IOERR_SHORT_READ,
        Err(e) => note(&e),
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
        code(database.open().and_then(|open| open.write(from, offset as u64)))
    })
}

/// # Safety
/// SQLite's contract for `xTruncate`.
unsafe extern "C" fn db_truncate(file: *mut ffi::sqlite3_file, len: i64) -> c_int {
    guard(ffi::SQLITE_IOERR_TRUNCATE, || {
        // SAFETY: the arguments are SQLite's.
        code(unsafe { database(file) }.open().and_then(|open| open.truncate(len as u64)))
    })
}

/// # Safety
/// SQLite's contract for `xSync`.
unsafe extern "C" fn db_sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    guard(ffi::SQLITE_IOERR_FSYNC, || {
        // SAFETY: the arguments are SQLite's.
        code(unsafe { database(file) }.open().and_then(|open| open.sync()))
    })
}

/// # Safety
/// SQLite's contract for `xFileSize`.
unsafe extern "C" fn db_file_size(file: *mut ffi::sqlite3_file, out: *mut i64) -> c_int {
    guard(ffi::SQLITE_IOERR_FSTAT, || {
        // SAFETY: the arguments are SQLite's.
        let (database, out) = unsafe { (database(file), &mut *out) };
        code(database.open().and_then(|open| open.len()).map(|len| *out = len as i64))
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
                    let name =
                        (!arg.is_null()).then(|| CStr::from_ptr(arg.cast()).to_string_lossy().into_owned());
                    code(open.prepare(name.as_deref().map(Path::new)))
                }
                ffi::SQLITE_FCNTL_COMMIT_PHASETWO => code(open.publish()),
                ffi::SQLITE_FCNTL_PRAGMA => pragma(open, arg.cast()),
                ffi::SQLITE_FCNTL_MMAP_SIZE => {
                    let size = arg.cast::<i64>();
                    *size = open.set_mmap_size(*size);
                    ffi::SQLITE_OK
                }
                ffi::SQLITE_FCNTL_HAS_MOVED => {
                    *arg.cast::<c_int>() = 0;
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
unsafe fn pragma(open: &mut crate::database::Open, arg: *mut *mut c_char) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        let name = CStr::from_ptr(*arg.add(1)).to_string_lossy().to_ascii_lowercase();
        let value = *arg.add(2);
        match name.as_str() {
            "journal_mode" => return_text(arg, c"wal"),
            // A connection that never unlocks would never see another's commits, nor give up a
            // stale snapshot.
            "locking_mode" if !value.is_null() => return_text(arg, c"normal"),
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
unsafe extern "C" fn sector_size(_file: *mut ffi::sqlite3_file) -> c_int {
    512
}

/// # Safety
/// SQLite's contract for `xDeviceCharacteristics`.
unsafe extern "C" fn characteristics(_file: *mut ffi::sqlite3_file) -> c_int {
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
                Err(e) => note(&e),
            }
        }
    })
}

/// # Safety
/// SQLite's contract for `xUnfetch`.
unsafe extern "C" fn db_unfetch(_file: *mut ffi::sqlite3_file, _offset: i64, _page: *mut c_void) -> c_int {
    ffi::SQLITE_OK
}

// ---- their rollback journals --------------------------------------------------------------------

static JOURNAL_METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
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
        code(database.open().map(|open| open.write_journal(from, offset as u64)))
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
