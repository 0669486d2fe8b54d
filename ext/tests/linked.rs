//! Tideline linked into a program, as `tideline.h` describes it.

use std::ffi::{CStr, c_char};
use std::path::Path;
use std::ptr;

use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};
use tideline::sqlite3_tideline_init;

fn init(db: *mut ffi::sqlite3) -> Result<(), String> {
    let mut message: *mut c_char = ptr::null_mut();
    // SAFETY: null, or an open connection; the message is read and freed once.
    unsafe {
        let code = sqlite3_tideline_init(db, &raw mut message, ptr::null());
        if code == ffi::SQLITE_OK {
            return Ok(());
        }
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        ffi::sqlite3_free(message.cast());
        Err(text)
    }
}

fn open(path: &Path, parameters: &str) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(format!("file:{}?{parameters}", path.display()), flags)
}

fn number(db: &Connection, sql: &str) -> i64 {
    db.query_row(sql, (), |row| row.get(0)).expect(sql)
}

// LESSONS.md 10, PAGER.md 17.
#[test]
fn connections_opened_before_and_after_have_the_functions() {
    let folder = tempfile::tempdir().expect("a folder");
    let before = Connection::open_in_memory().expect("a connection");
    for _ in 0..2 {
        assert_eq!(init(ptr::null_mut()), Ok(()));
        // SAFETY: the connection is open.
        assert_eq!(init(unsafe { before.handle() }), Ok(()));
    }
    let version: String = before.query_row("SELECT tide_version()", (), |row| row.get(0)).expect("a version");
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    let error = before.query_row("SELECT tide_lsn()", (), |_| Ok(())).unwrap_err().to_string();
    assert!(error.contains("open it as file:PATH?vfs=tideline"), "{error}");

    let db = open(&folder.path().join("a.db"), "vfs=tideline").expect("a database");
    db.execute_batch("CREATE TABLE t(a); INSERT INTO t VALUES (1)").expect("a table");
    assert_eq!(number(&db, "SELECT tide_lsn() FROM t"), 2);
    assert_eq!(number(&db, "SELECT count(*) FROM tide_log"), 2);
    assert_eq!(number(&db, "PRAGMA main.mmap_size"), 2_147_418_112);
    assert_eq!(number(&db, "PRAGMA synchronous"), 2);
    // Loading again while a statement runs, as SELECT load_extension(…) does.
    let mut statement = db.prepare("SELECT a FROM t").expect("a statement");
    let mut rows = statement.query(()).expect("rows");
    assert!(rows.next().is_ok_and(|row| row.is_some()));
    // SAFETY: the connection is open.
    assert_eq!(init(unsafe { db.handle() }), Ok(()));
    assert_eq!(number(&db, "SELECT tide_lsn()"), 2);
}

// LESSONS.md 3, PAGER.md 8.
#[test]
fn other_databases_are_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(init(ptr::null_mut()), Ok(()));
    let plain = open(&folder.path().join("plain.db"), "").expect("a database");
    assert_eq!(number(&plain, "PRAGMA mmap_size"), 0);
    plain.execute_batch("CREATE TABLE t(a)").expect("a table");
    let attach = format!("ATTACH 'file:{}?vfs=tideline' AS b", folder.path().join("b.db").display());
    plain.execute_batch(&attach).expect("attached");
    plain.execute_batch("CREATE TABLE b.u(a)").expect("a table");
    assert_eq!(number(&plain, "SELECT tide_lsn('b')"), 1);
    let error = plain.query_row("SELECT tide_lsn('c')", (), |_| Ok(())).unwrap_err().to_string();
    assert!(error.contains("ATTACH 'file:PATH?vfs=tideline' AS c"), "{error}");
    let odd = plain.query_row("SELECT tide_lsn('a \"b')", (), |_| Ok(())).unwrap_err().to_string();
    assert!(odd.contains(r#"AS "a ""b""#), "{odd}");
}

// LESSONS.md 4 and 38, PAGER.md 13.
#[test]
fn a_refused_open_tells_why() {
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(init(ptr::null_mut()), Ok(()));
    match open(&folder.path().join("a.db"), "vfs=tideline&colour=100%25s") {
        Err(rusqlite::Error::SqliteFailure(code, Some(text))) => {
            assert_eq!(code.code, ErrorCode::CannotOpen);
            assert!(text.contains("tideline: ARGUMENT: ") && text.contains("colour"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    open(&folder.path().join("a.db"), "vfs=tideline").expect("the next one opens");
}

// PAGER.md 13.
#[test]
fn the_entry_point_may_be_an_automatic_extension() {
    type EntryPoint =
        unsafe extern "C" fn(*mut ffi::sqlite3, *mut *mut c_char, *const ffi::sqlite3_api_routines) -> i32;
    let folder = tempfile::tempdir().expect("a folder");
    assert_eq!(init(ptr::null_mut()), Ok(()));
    let entry: EntryPoint = sqlite3_tideline_init;
    // SAFETY: the function has the signature of an automatic extension, and stays.
    assert_eq!(unsafe { ffi::sqlite3_auto_extension(Some(entry)) }, ffi::SQLITE_OK);
    let db = open(&folder.path().join("a.db"), "vfs=tideline");
    assert_eq!(number(&db.expect("a database"), "SELECT tide_lsn()"), 0);
    // SAFETY: as above.
    unsafe { ffi::sqlite3_cancel_auto_extension(Some(entry)) };
}
