//! Databases that stock SQLite left with a journal or a WAL.

use std::ffi::CString;
use std::path::Path;
use std::ptr;

use libsqlite3_sys as ffi;
use tideline_journal::disk::{Disk, How, RealDisk};
use tideline_journal::{Code, Error, Result};

use crate::shim::host;

/// Lets stock SQLite recover a database that has a rollback journal or a WAL, before it is adopted.
pub(super) fn settle(path: &Path) -> Result<()> {
    let beside = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        std::fs::metadata(name).is_ok_and(|found| found.len() > 0)
    };
    // A journal beside a marked base is a marker of ours.
    if (beside("-journal") || beside("-wal")) && is_plain(path) { recover(path) } else { Ok(()) }
}

/// Lets stock SQLite take a database out of WAL mode; false if it isn't in it.
pub(super) fn leave_wal(path: &Path) -> Result<bool> {
    match header(path) {
        Ok(header) if header[18] == 2 || header[19] == 2 => recover(path).map(|()| true),
        _ => Ok(false),
    }
}

/// Lets stock SQLite recover it, and leave WAL mode.
fn recover(path: &Path) -> Result<()> {
    let refuse = |what: String| {
        Error::new(Code::Busy, format!("{} {what}; close it in stock SQLite first", path.display()))
    };
    let name = CString::new(path.as_os_str().as_encoded_bytes())
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

/// True if the file at `path` is no marked base.
pub(super) fn is_plain(path: &Path) -> bool {
    header(path).is_ok_and(|header| header[19] <= 2)
}

/// The first bytes of the database, zeros behind its end. The host may have it open through stock
/// SQLite, whose locks closing a descriptor would drop.
fn header(path: &Path) -> std::io::Result<[u8; 20]> {
    let mut header = [0; 20];
    RealDisk::new().open_kept(path, How::Read)?.read_at(&mut header, 0)?;
    Ok(header)
}
