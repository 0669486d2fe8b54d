//! The databases that the `functions` target begins with, and what they shipped and pushed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use rusqlite::{Connection, OpenFlags, ffi};

use crate::pages::Files;
use crate::place;
use crate::remotes::{self, Known, Remotes};

pub(crate) fn path(name: &str) -> PathBuf {
    place::folder().join(name)
}

pub(crate) fn open(name: &str) -> rusqlite::Result<Connection> {
    open_at(&path(name).display().to_string())
}

/// Opens what is at a path, written as in a URI.
pub(crate) fn open_at(path: &str) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_URI;
    let db = Connection::open_with_flags(format!("file:{path}?vfs=tideline"), flags)?;
    db.busy_timeout(std::time::Duration::ZERO)?;
    Ok(db)
}

/// Puts the files of a database where it is opened. The database file itself stays the same one: the process keeps it
/// open.
pub(crate) fn put(database: &Path, files: &Files) {
    let side = tideline_journal::side_folder(database);
    drop(fs::remove_dir_all(&side));
    for (name, bytes) in files {
        if name.is_empty() {
            fs::write(database, bytes).expect("there is room");
        } else {
            fs::create_dir_all(&side).expect("there is room");
            fs::write(side.join(name), bytes).expect("there is room");
        }
    }
}

/// What a database holds, in words.
pub(crate) fn content(db: &Connection) -> String {
    let tables: i64 = db
        .query_row("SELECT count(*) FROM sqlite_schema WHERE name = 't'", (), |row| row.get(0))
        .unwrap_or_else(|e| panic!("{e}: the schema can be read"));
    if tables == 0 {
        return String::new();
    }
    let sql = "SELECT count(*) || ' ' || total(a) || ' ' || coalesce(group_concat(hex(b)), '') FROM t";
    db.query_row(sql, (), |row| row.get(0)).unwrap_or_else(|e| panic!("{e}: the table can be read"))
}

pub(crate) fn lsn(db: &Connection) -> i64 {
    db.query_row("SELECT tide_lsn()", (), |row| row.get(0))
        .unwrap_or_else(|e| panic!("{e}: there is a store"))
}

/// A database that plans begin with.
pub(crate) struct Start {
    /// By their names in the side folder; the database file has none.
    pub files: Files,
    pub lsn: i64,
    pub content: String,
}

/// A blob, and what its source had then.
pub(crate) struct Shipped {
    pub blob: Vec<u8>,
    pub lsn: i64,
    pub content: String,
    pub lineage: String,
}

pub(crate) struct Fixture {
    pub starts: Vec<Start>,
    pub shipped: Vec<Shipped>,
    pub remotes: Remotes,
    /// What was at some LSNs of the databases that were pushed or shipped.
    pub known: Vec<Known>,
}

pub(crate) fn fixture() -> &'static Fixture {
    static FIXTURE: LazyLock<Fixture> = LazyLock::new(build);
    &FIXTURE
}

/// Statements of the application: what some fail with depends on what there is.
pub(crate) const STATEMENTS: [&str; 8] = [
    "CREATE TABLE IF NOT EXISTS t(a INTEGER PRIMARY KEY, b)",
    "INSERT INTO t(b) VALUES (zeroblob(40)), ('x')",
    "INSERT INTO t(b) SELECT zeroblob(900) FROM (SELECT 1 UNION SELECT 2 UNION SELECT 3)",
    "UPDATE t SET b = 'y' WHERE a % 2",
    "DELETE FROM t WHERE a > 4",
    "CREATE INDEX IF NOT EXISTS i ON t(b)",
    "VACUUM",
    "PRAGMA wal_checkpoint",
];

fn build() -> Fixture {
    getrandom::reset(7);
    // SAFETY: nobody reads the environment yet: the stores' threads begin below.
    unsafe { std::env::set_var("XDG_CACHE_HOME", path("caches")) };
    // SAFETY: in the static library the connection may be null.
    let code = unsafe {
        tideline::sqlite3_tideline_init(std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null())
    };
    assert_eq!(code, ffi::SQLITE_OK);
    let mut fixture =
        Fixture { starts: Vec::new(), shipped: Vec::new(), remotes: Remotes::new(), known: Vec::new() };
    // The base of an empty one has no bytes.
    fixture.starts.push(Start {
        files: Files::from([(String::new(), Vec::new())]),
        lsn: 0,
        content: String::new(),
    });
    for seed in 0..2 {
        put(&path("main.db"), &fixture.starts[0].files);
        let db = open("main.db").expect("it opens");
        for round in 0..3 {
            for statement in &STATEMENTS[..4 + seed] {
                db.execute_batch(statement).expect(statement);
            }
            ship(&db, &mut fixture.shipped);
            fixture.known.push(Known::of(&db));
            if round == 1 {
                db.query_row("SELECT tide_fold()", (), |_| Ok(())).expect("it folds");
            }
        }
        let (lsn, content) = (lsn(&db), content(&db));
        db.close().expect("it closes");
        fixture.starts.push(Start { files: take(&path("main.db")), lsn, content });
    }
    // One that stock SQLite made.
    put(&path("main.db"), &fixture.starts[0].files);
    let plain = Connection::open(path("main.db")).expect("it opens");
    plain.execute_batch(&STATEMENTS[..3].join(";")).expect("a table");
    let content = content(&plain);
    plain.close().expect("it closes");
    fixture.starts.push(Start { files: take(&path("main.db")), lsn: 1, content });
    remotes::prepare(&mut fixture);
    fixture
}

/// Ships everything, and what is new since a few LSNs, whole and in pieces.
fn ship(db: &Connection, shipped: &mut Vec<Shipped>) {
    let (lsn, content) = (lsn(db), content(db));
    let lineage: String =
        db.query_row("SELECT tide_status() ->> '$.lineage'", (), |row| row.get(0)).expect("a lineage");
    let mut add = |sql: &str, after: i64| {
        let mut statement = db.prepare(sql).expect(sql);
        let mut rows = statement.query([after]).expect(sql);
        while let Some(row) = rows.next().expect(sql) {
            let blob = row.get(0).expect(sql);
            shipped.push(Shipped { blob, lsn, content: content.clone(), lineage: lineage.clone() });
        }
    };
    add("SELECT tide_prepare(?1)", 0);
    add("SELECT tide_prepare(?1)", lsn - 2);
    add("SELECT blob FROM tide_batches(?1, 2000)", lsn - 1);
}

/// The files of a database that nobody has open.
pub(crate) fn take(database: &Path) -> Files {
    let mut files = Files::from([(String::new(), fs::read(database).expect("it is there"))]);
    for entry in fs::read_dir(tideline_journal::side_folder(database)).into_iter().flatten().flatten() {
        let name = entry.file_name().into_string().expect("names are ours");
        files.insert(name, fs::read(entry.path()).expect("it is there"));
    }
    files.remove("control");
    files
}
