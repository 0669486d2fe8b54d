//! The methods of the VFS itself, and how it is registered.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::time::Duration;

use libsqlite3_sys as ffi;

use crate::catalog::{self, Journal};
use crate::shim::database::open_database;
use crate::shim::journal::open_journal;
use crate::shim::{HOST, HostVfs, TideFile, VFS_NAME, guard, host, path_of};

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
            xFullPathname: Some(super::name::x_full_pathname),
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
pub(super) unsafe fn host_open(
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
/// SQLite's contract for `xDelete`.
unsafe extern "C" fn x_delete(_vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    guard(ffi::SQLITE_IOERR, || {
        // SAFETY: the name ends in a zero.
        unsafe {
            if catalog::journal(path_of(CStr::from_ptr(name))) != Journal::Foreign {
                return ffi::SQLITE_OK;
            }
            match (*host()).xDelete {
                Some(delete) => delete(host(), name, sync),
                None => ffi::SQLITE_IOERR,
            }
        }
    })
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
            if catalog::journal(path_of(CStr::from_ptr(name))) == Journal::Virtual {
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
