//! The floor: SQLite over a VFS that costs nothing. Databases are memory, their rollback journals are forgotten as they
//! are written, there is no lock, no checksum and no disk. No store under the same SQLite can be faster, so the distance
//! to it is what a store itself costs. Rolling back isn't possible here, and no workload does.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, Once};

use memmap2::{MmapOptions, MmapRaw};
use rusqlite::ffi;

/// Name of the VFS.
pub const NAME: &CStr = c"floor";

/// Address space of a database in bytes; memory is used as pages are written.
const ROOM: usize = 64 << 30;

/// A database.
struct Memory {
    map: MmapRaw,
    len: AtomicU64,
}

/// What SQLite allocates for a file: its methods, then our part. A journal has no memory.
#[repr(C)]
struct FloorFile {
    methods: *const ffi::sqlite3_io_methods,
    memory: Option<Arc<Memory>>,
    /// How long a journal would be.
    journal: i64,
}

/// Databases stay for as long as the process: closing one and opening it again must find it.
static DATABASES: LazyLock<Mutex<HashMap<Vec<u8>, Arc<Memory>>>> = LazyLock::new(Mutex::default);

/// The VFS that opens temporary files.
static HOST: AtomicPtr<ffi::sqlite3_vfs> = AtomicPtr::new(ptr::null_mut());

/// Registers the VFS, once.
pub fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the default VFS lives for as long as the process; what isn't replaced in the copy doesn't look at
        // the private part of the VFS that it is called with.
        unsafe {
            let host = ffi::sqlite3_vfs_find(ptr::null());
            HOST.store(host, Ordering::Release);
            let mut vfs = *host;
            vfs.szOsFile = vfs.szOsFile.max(size_of::<FloorFile>() as c_int);
            vfs.pNext = ptr::null_mut();
            vfs.zName = NAME.as_ptr();
            vfs.xOpen = Some(open);
            vfs.xDelete = Some(delete);
            vfs.xAccess = Some(access);
            ffi::sqlite3_vfs_register(Box::leak(Box::new(vfs)), 0);
        }
    });
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 3,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(lock),
    xCheckReservedLock: Some(check_reserved),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: Some(fetch),
    xUnfetch: Some(unfetch),
};

/// # Safety
/// SQLite's contract for `xOpen`.
unsafe extern "C" fn open(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: a main database has a name that ends in a zero; there is room for a `FloorFile`, and for the
    // host's own.
    unsafe {
        if flags & (ffi::SQLITE_OPEN_MAIN_DB | ffi::SQLITE_OPEN_MAIN_JOURNAL) == 0 {
            let host = HOST.load(Ordering::Acquire);
            return match (*host).xOpen {
                Some(open) => open(host, name, file, flags, out_flags),
                None => ffi::SQLITE_CANTOPEN,
            };
        }
        let memory = if flags & ffi::SQLITE_OPEN_MAIN_DB != 0 {
            let mut databases = DATABASES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let name = CStr::from_ptr(name).to_bytes().to_vec();
            if !databases.contains_key(&name) {
                let Ok(map) = MmapOptions::new().len(ROOM).no_reserve_swap().map_anon() else {
                    (*file).pMethods = ptr::null();
                    return ffi::SQLITE_CANTOPEN;
                };
                let memory = Memory { map: MmapRaw::from(map), len: AtomicU64::new(0) };
                databases.insert(name.clone(), Arc::new(memory));
            }
            databases.get(&name).cloned()
        } else {
            None
        };
        file.cast::<FloorFile>().write(FloorFile { methods: &raw const METHODS, memory, journal: 0 });
        if !out_flags.is_null() {
            *out_flags = flags;
        }
    }
    ffi::SQLITE_OK
}

/// # Safety
/// SQLite's contract for `xDelete`: of a journal, which isn't there.
unsafe extern "C" fn delete(_vfs: *mut ffi::sqlite3_vfs, _name: *const c_char, _sync: c_int) -> c_int {
    ffi::SQLITE_OK
}

/// # Safety
/// SQLite's contract for `xAccess`: of a journal, which isn't there.
unsafe extern "C" fn access(
    _vfs: *mut ffi::sqlite3_vfs,
    _name: *const c_char,
    _flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: the argument is SQLite's.
    unsafe { *out = 0 };
    ffi::SQLITE_OK
}

/// # Safety
/// `file` is one that `open` opened.
unsafe fn own<'a>(file: *mut ffi::sqlite3_file) -> &'a mut FloorFile {
    // SAFETY: the caller's promise; SQLite calls a file's methods from one thread at a time.
    unsafe { &mut *file.cast::<FloorFile>() }
}

/// # Safety
/// SQLite's contract for `xClose`.
unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes a file once.
    unsafe { ptr::drop_in_place(file.cast::<FloorFile>()) };
    ffi::SQLITE_OK
}

/// # Safety
/// SQLite's contract for `xRead`.
unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, to: *mut c_void, len: c_int, offset: i64) -> c_int {
    // SAFETY: the arguments are SQLite's; what is copied lies in the mapping.
    unsafe {
        let len = len as usize;
        let Some(memory) = &own(file).memory else {
            ptr::write_bytes(to.cast::<u8>(), 0, len);
            return ffi::SQLITE_IOERR_SHORT_READ;
        };
        let there = (memory.len.load(Ordering::Relaxed) as usize).saturating_sub(offset as usize).min(len);
        ptr::copy_nonoverlapping(memory.map.as_ptr().add(offset as usize), to.cast(), there);
        ptr::write_bytes(to.cast::<u8>().add(there), 0, len - there);
        if there == len { ffi::SQLITE_OK } else { ffi::SQLITE_IOERR_SHORT_READ }
    }
}

/// # Safety
/// SQLite's contract for `xWrite`.
unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    len: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: the arguments are SQLite's; what is written lies in the mapping.
    unsafe {
        let file = own(file);
        let Some(memory) = &file.memory else {
            file.journal = file.journal.max(offset + i64::from(len));
            return ffi::SQLITE_OK;
        };
        let end = offset as usize + len as usize;
        if end > ROOM {
            return ffi::SQLITE_FULL;
        }
        ptr::copy_nonoverlapping(from.cast(), memory.map.as_mut_ptr().add(offset as usize), len as usize);
        memory.len.fetch_max(end as u64, Ordering::Relaxed);
    }
    ffi::SQLITE_OK
}

/// # Safety
/// SQLite's contract for `xTruncate`.
unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, len: i64) -> c_int {
    // SAFETY: the arguments are SQLite's.
    let file = unsafe { own(file) };
    match &file.memory {
        Some(memory) => memory.len.store(len as u64, Ordering::Relaxed),
        None => file.journal = len,
    }
    ffi::SQLITE_OK
}

/// # Safety
/// SQLite's contract for `xSync`.
unsafe extern "C" fn sync(_file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    ffi::SQLITE_OK
}

/// # Safety
/// SQLite's contract for `xFileSize`.
unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, out: *mut i64) -> c_int {
    // SAFETY: the arguments are SQLite's.
    unsafe {
        let file = own(file);
        *out = file.memory.as_ref().map_or(file.journal, |memory| memory.len.load(Ordering::Relaxed) as i64);
    }
    ffi::SQLITE_OK
}

/// # Safety
/// SQLite's contract for `xLock` and `xUnlock`.
unsafe extern "C" fn lock(_file: *mut ffi::sqlite3_file, _level: c_int) -> c_int {
    ffi::SQLITE_OK
}

/// # Safety
/// SQLite's contract for `xCheckReservedLock`.
unsafe extern "C" fn check_reserved(_file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: the argument is SQLite's.
    unsafe { *out = 0 };
    ffi::SQLITE_OK
}

/// # Safety
/// SQLite's contract for `xFileControl`.
unsafe extern "C" fn file_control(_file: *mut ffi::sqlite3_file, op: c_int, _arg: *mut c_void) -> c_int {
    // Whatever mmap_size is asked for is fine.
    if op == ffi::SQLITE_FCNTL_MMAP_SIZE { ffi::SQLITE_OK } else { ffi::SQLITE_NOTFOUND }
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
unsafe extern "C" fn fetch(
    file: *mut ffi::sqlite3_file,
    offset: i64,
    len: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: the arguments are SQLite's; the pointer is into a mapping that is never given up.
    unsafe {
        *out = match &own(file).memory {
            Some(memory) if offset as u64 + len as u64 <= memory.len.load(Ordering::Relaxed) => {
                memory.map.as_mut_ptr().add(offset as usize).cast()
            }
            _ => ptr::null_mut(),
        };
    }
    ffi::SQLITE_OK
}

/// # Safety
/// SQLite's contract for `xUnfetch`.
unsafe extern "C" fn unfetch(_file: *mut ffi::sqlite3_file, _offset: i64, _page: *mut c_void) -> c_int {
    ffi::SQLITE_OK
}
