//! The entry point that makes Tideline's VFS the process's default.

use std::ptr;

use rusqlite::Connection;
use tideline::{sqlite3_tideline_init, sqlite3_tidelinedefault_init};

fn mode(db: &Connection) -> String {
    db.query_row("PRAGMA journal_mode", (), |row| row.get(0)).expect("a mode")
}

// LESSONS.md 8.
#[test]
fn databases_are_opened_through_it_without_a_uri() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.db");
    // SAFETY: null pointers are what the entry points take, in a program that they are linked into.
    unsafe {
        assert_eq!(sqlite3_tideline_init(ptr::null_mut(), ptr::null_mut(), ptr::null()), 0);
        let plain = Connection::open(&path).expect("a plain database");
        assert_eq!(mode(&plain), "delete");
        drop(plain);
        assert_eq!(sqlite3_tidelinedefault_init(ptr::null_mut(), ptr::null_mut(), ptr::null()), 0);
        // Loading without asking for the default leaves it.
        assert_eq!(sqlite3_tideline_init(ptr::null_mut(), ptr::null_mut(), ptr::null()), 0);
    }
    let db = Connection::open(&path).expect("a database");
    db.execute_batch("CREATE TABLE t(a); CREATE TEMP TABLE u(b); INSERT INTO u VALUES (1)").expect("tables");
    assert_eq!(mode(&db), "wal");
    let lsn: i64 = db.query_row("SELECT tide_lsn()", (), |row| row.get(0)).expect("an LSN");
    assert_eq!(lsn, 1);
    let memory = Connection::open_in_memory().expect("a database in memory");
    assert!(memory.query_row("SELECT tide_lsn()", (), |_| Ok(())).is_err());
}
