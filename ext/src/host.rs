//! The SQLite library that this one is loaded into, or linked with.

use std::any::Any;
use std::ffi::{CStr, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};

use libsqlite3_sys as ffi;
use tideline_journal::{Code, Error, Result};

/// Oldest SQLite that has all that is called.
const OLDEST: c_int = 3_034_001;

/// What allocates memory that the host will free.
pub(crate) type Malloc = unsafe extern "C" fn(c_int) -> *mut std::ffi::c_void;

#[cfg(feature = "loadable")]
mod table {
    use std::ptr;
    use std::sync::atomic::{AtomicPtr, Ordering};

    use super::{Code, Error, Malloc, Result, check_version, ffi};

    /// The API table in use; null before the first load.
    static TABLE: AtomicPtr<ffi::sqlite3_api_routines> = AtomicPtr::new(ptr::null_mut());

    /// The host's `sqlite3_malloc`.
    ///
    /// # Safety
    /// `api` is null or a host's table.
    pub(crate) unsafe fn malloc(api: *const ffi::sqlite3_api_routines) -> Option<Malloc> {
        // SAFETY: the caller's promise.
        unsafe { api.as_ref() }.and_then(|api| api.malloc)
    }

    /// Takes a host's table into use, unless the host is too old or another one is in use: replacing
    /// the table would pull the functions from under the first one's connections.
    ///
    /// # Safety
    /// `api` is null or a host's table.
    pub(crate) unsafe fn adopt(api: *const ffi::sqlite3_api_routines) -> Result<()> {
        // SAFETY: the caller's promise.
        let Some(table) = (unsafe { api.as_ref() }) else {
            return Err(Error::new(
                Code::Format,
                "this SQLite passes no API table; link the static library instead",
            ));
        };
        // SAFETY: a function of the host without arguments.
        let version = table.libversion_number.map_or(0, |number| unsafe { number() });
        check_version(version)?;
        let api = api.cast_mut();
        match TABLE.compare_exchange(ptr::null_mut(), api, Ordering::AcqRel, Ordering::Acquire) {
            Err(first) if first != api => {
                return Err(Error::new(
                    Code::Denied,
                    "another SQLite library in this process has loaded Tideline already; \
                     use one of the two for databases of Tideline",
                ));
            }
            _ => {}
        }
        // SAFETY: a host's table, new enough; the same one whenever this is repeated.
        unsafe { ffi::rusqlite_extension_init2(api) }
            .map_err(|e| Error::new(Code::Format, format!("{e}; use SQLite 3.34.1 or a newer one")))
    }

    /// True if the host has the functions that tell how it was compiled.
    pub(crate) fn tells_options() -> bool {
        // SAFETY: a table that was adopted stays.
        unsafe { TABLE.load(Ordering::Acquire).as_ref() }.is_some_and(|api| api.compileoption_get.is_some())
    }
}

#[cfg(not(feature = "loadable"))]
mod table {
    use super::{Malloc, Result, check_version, ffi};

    /// SQLite's.
    ///
    /// # Safety
    /// None is needed; the loadable library's function has the same name.
    #[allow(clippy::unnecessary_wraps)]
    pub(crate) unsafe fn malloc(_api: *const ffi::sqlite3_api_routines) -> Option<Malloc> {
        Some(ffi::sqlite3_malloc)
    }

    /// Nothing is taken into use: SQLite is called by name. It may be too old all the same.
    ///
    /// # Safety
    /// As [`malloc`].
    pub(crate) unsafe fn adopt(_api: *const ffi::sqlite3_api_routines) -> Result<()> {
        // SAFETY: the function has no arguments.
        check_version(unsafe { ffi::sqlite3_libversion_number() })
    }

    /// SQLite has the functions that tell how it was compiled.
    pub(crate) fn tells_options() -> bool {
        true
    }
}

pub(crate) use table::{adopt, malloc};

fn check_version(version: c_int) -> Result<()> {
    if version >= OLDEST {
        return Ok(());
    }
    let (major, minor, patch) = (version / 1_000_000, version / 1000 % 1000, version % 1000);
    Err(Error::new(
        Code::Format,
        format!("SQLite {major}.{minor}.{patch} is too old; use 3.34.1 or a newer one"),
    ))
}

/// Value of a compile-time option of the host, if it has one and tells.
pub(crate) fn option(name: &str) -> Option<i64> {
    if !table::tells_options() {
        return None;
    }
    for number in 0.. {
        // SAFETY: the function takes any number; its strings are constants.
        let option = unsafe { ffi::sqlite3_compileoption_get(number) };
        if option.is_null() {
            break;
        }
        // SAFETY: as above.
        let option = unsafe { CStr::from_ptr(option) }.to_str().unwrap_or_default();
        if let Some(value) = option.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
            return number_of(value);
        }
    }
    None
}

/// Reads a C integer, such as `2` or `0x7fff0000`.
fn number_of(text: &str) -> Option<i64> {
    let text = text.trim_matches(|c| c == '(' || c == ')').trim_end_matches(['L', 'l', 'U', 'u']);
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => i64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Gives SQLite a message to show and free, if it asked for one.
///
/// # Safety
/// `message` is null or SQLite's `pzErrMsg`, `malloc` the same SQLite's.
pub(crate) unsafe fn tell(message: *mut *mut c_char, malloc: Option<Malloc>, text: &str) {
    let (Some(malloc), false) = (malloc, message.is_null()) else { return };
    let Ok(size) = c_int::try_from(text.len() + 1) else { return };
    // SAFETY: the memory has room for the text and a zero.
    unsafe {
        let copy = malloc(size).cast::<u8>();
        if !copy.is_null() {
            copy.copy_from_nonoverlapping(text.as_ptr(), text.len());
            copy.add(text.len()).write(0);
            *message = copy.cast();
        }
    }
}

/// Runs what the host called; a panic becomes an error.
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
    fn numbers_are_read_as_c_writes_them() {
        for (text, number) in
            [("2", Some(2)), ("0x7fff0000", Some(0x7fff_0000)), ("0", Some(0)), ("(1)", Some(1))]
        {
            assert_eq!(number_of(text), number, "{text}");
        }
        assert_eq!(number_of("clang-14.0.0"), None);
        assert_eq!(number_of(""), None);
    }

    #[cfg(feature = "loadable")]
    #[test]
    fn old_hosts_and_second_libraries_are_refused() {
        use std::mem::MaybeUninit;

        unsafe extern "C" fn old() -> c_int {
            3_034_000
        }
        unsafe extern "C" fn new() -> c_int {
            3_054_001
        }
        let host = |version| {
            // SAFETY: a table of optional functions may be all zeros, which is none of them.
            let mut table = unsafe { MaybeUninit::<ffi::sqlite3_api_routines>::zeroed().assume_init() };
            table.libversion_number = version;
            // It may stay in use to the end of the process.
            let table: &ffi::sqlite3_api_routines = Box::leak(Box::new(table));
            table
        };
        // SAFETY: null, or tables made above.
        let adopt =
            |table: *const ffi::sqlite3_api_routines| unsafe { adopt(table) }.map_err(|e| e.to_string());

        let error = adopt(std::ptr::null()).unwrap_err();
        assert!(error.contains("static library"), "{error}");
        let error = adopt(host(Some(old))).unwrap_err();
        assert_eq!(error, "tideline: FORMAT: SQLite 3.34.0 is too old; use 3.34.1 or a newer one");
        assert!(adopt(host(None)).is_err());

        let first = host(Some(new));
        assert_eq!(adopt(first), Ok(()));
        assert_eq!(adopt(first), Ok(()), "a second load is harmless");
        // PAGER.md 14: sqlite3 and apsw in one Python.
        let error = adopt(host(Some(new))).unwrap_err();
        assert!(error.starts_with("tideline: DENIED: another SQLite library"), "{error}");
        assert_eq!(adopt(first), Ok(()));
        assert_eq!(option("MAX_MMAP_SIZE"), None, "a host may not tell");
    }
}
