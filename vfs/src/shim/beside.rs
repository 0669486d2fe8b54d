//! Which database a rollback journal belongs to.
//!
//! SQLite names a journal by an address behind the name of its database, and finds the one from the other by looking
//! at the memory around. A VFS that stands before this one may pass copies of the names, with nothing around them; so
//! where the journal's name is to be found is worked out when a database is opened, and nothing is read later.

use std::ffi::{CStr, c_char};
use std::path::PathBuf;

use parking_lot::RwLock;

use crate::database::Database;
use crate::shim::path_of;

/// A main database that SQLite has open.
struct Open {
    path: PathBuf,
    /// Where SQLite has the name of its journal, if it is SQLite that passed the name.
    journal: usize,
    database: *mut Database,
}

// SAFETY: the pointer is only handed out, to the thread in which SQLite uses the database.
unsafe impl Send for Open {}
// SAFETY: as above.
unsafe impl Sync for Open {}

static OPEN: RwLock<Vec<Open>> = RwLock::new(Vec::new());

/// Notes that a database was opened by `name`, with URI parameters behind it or without.
///
/// # Safety
/// `name` ends in a zero; with `uri`, it is one that SQLite passed to `xOpen`.
pub(super) unsafe fn opened(name: *const c_char, uri: bool, database: *mut Database) {
    // SAFETY: the caller's promise. Parameters are names and values, and an empty name ends them.
    let (path, journal) = unsafe {
        let behind = |text: *const c_char| text.add(CStr::from_ptr(text).count_bytes() + 1);
        let mut end = behind(name);
        while uri && *end != 0 {
            end = behind(behind(end));
        }
        (path_of(CStr::from_ptr(name)).to_owned(), end as usize + 1)
    };
    OPEN.write().push(Open { path, journal, database });
}

/// Forgets a database.
pub(super) fn closed(database: *mut Database) {
    OPEN.write().retain(|open| open.database != database);
}

/// The database whose journal SQLite calls `name`: by the name's address, or else the only one of that path.
///
/// # Safety
/// `name` ends in a zero.
pub(super) unsafe fn database_of(name: *const c_char) -> Option<*mut Database> {
    // SAFETY: the caller's promise.
    let path = path_of(unsafe { CStr::from_ptr(name) });
    let database = path.as_os_str().as_encoded_bytes().strip_suffix(b"-journal")?;
    let database = tideline_journal::disk::path_from(database)?;
    let open = OPEN.read();
    let of_path = || open.iter().filter(|open| open.path == *database);
    if let Some(found) = of_path().find(|open| open.journal == name as usize) {
        return Some(found.database);
    }
    let mut candidates = of_path();
    candidates.next().filter(|_| candidates.next().is_none()).map(|open| open.database)
}
