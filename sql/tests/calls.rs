//! The functions and tables on a connection, with stores that are named like schemas.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, ffi};
use tempfile::TempDir;
use tideline_journal::disk::RealDisk;
use tideline_journal::{Code, Error, Lsn, Options, Result, Store};
use tideline_sql::{Locate, Located, register};

/// Stores by the name of their schema.
#[derive(Default)]
struct Stores {
    stores: HashMap<&'static str, Arc<Store>>,
    writing: bool,
    snapshot: Option<Lsn>,
    last: Mutex<String>,
}

impl Stores {
    fn last(&self) -> MutexGuard<'_, String> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Locate for Stores {
    unsafe fn locate(&self, _db: *mut ffi::sqlite3, schema: &str) -> Result<Located> {
        match (schema, self.stores.get(schema)) {
            ("panic", _) => panic!("asked to"),
            ("busy", _) => Err(Error::new(Code::Busy, "somebody writes; try again")),
            (_, Some(store)) => {
                Ok(Located { store: Arc::clone(store), snapshot: self.snapshot, writing: self.writing })
            }
            (_, None) => Err(Error::new(Code::Argument, format!("no schema {schema}; attach it"))),
        }
    }

    fn last_error(&self) -> String {
        self.last().clone()
    }

    fn note(&self, error: &Error) {
        *self.last() = error.to_string();
    }
}

/// A connection with a store of one commit as `main` and an empty one as `copy`.
struct Fixture {
    db: Connection,
    folder: TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture::with(Stores::default())
    }

    fn with(mut stores: Stores) -> Fixture {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("main.db");
        let plain = Connection::open(&path).expect("a plain database");
        plain
            .execute_batch("CREATE TABLE t(a); INSERT INTO t SELECT randomblob(900) FROM json_each('[1,2,3,4,5,6,7,8,9]');")
            .expect("a table");
        plain.close().expect("closed");
        stores.stores.insert("main", store(&path));
        stores.stores.insert("copy", store(&folder.path().join("copy.db")));
        let db = Connection::open_in_memory().expect("a connection");
        register(&db, Arc::new(stores)).expect("registered");
        Fixture { db, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, sql: &str) -> String {
        let value: Option<String> = self.db.query_row(sql, (), |row| row.get(0)).expect(sql);
        value.unwrap_or_else(|| "NULL".into())
    }

    fn number(&self, sql: &str) -> i64 {
        self.db.query_row(sql, (), |row| row.get(0)).expect(sql)
    }

    #[track_caller]
    fn refused(&self, sql: &str) -> (ffi::Error, String) {
        let result = self.db.query_row(sql, (), |row| row.get::<_, rusqlite::types::Value>(0));
        match result {
            Err(rusqlite::Error::SqliteFailure(code, Some(text))) => (code, text),
            other => panic!("{sql}: {other:?}"),
        }
    }
}

fn store(path: &Path) -> Arc<Store> {
    Store::open(Arc::new(RealDisk::new()), path, Options::default()).expect("a store")
}

#[test]
fn readings_answer() {
    let f = Fixture::new();
    assert_eq!(f.text("SELECT tide_version()"), env!("CARGO_PKG_VERSION"));
    assert_eq!(f.number("SELECT tide_lsn()"), 1);
    assert_eq!(f.number("SELECT tide_lsn(NULL)"), 1);
    assert_eq!(f.number("SELECT tide_lsn('copy')"), 0);
    assert_eq!(f.text("SELECT tide_last_error()"), "NULL");
    assert_eq!(f.text("SELECT tide_retain()"), "64 MiB or 10000 lsns");
    assert_eq!(
        f.text("SELECT group_concat(key) FROM (SELECT key FROM json_each(tide_status()) ORDER BY key)"),
        "base,durable,head,horizon,journal_bytes,lineage,page_size,path,readers,remotes,segments"
    );
    assert_eq!(f.text("SELECT tide_status() ->> '$.path'"), f.path("main.db").to_string_lossy());
    assert_eq!(f.number("SELECT length(tide_status() ->> '$.lineage')"), 32);
}

#[test]
fn the_snapshot_of_a_connection_goes_before_the_head() {
    let f = Fixture::with(Stores { snapshot: Some(Lsn::ZERO), ..Stores::default() });
    assert_eq!(f.number("SELECT tide_lsn()"), 0);
}

#[test]
fn what_is_prepared_is_received() {
    let f = Fixture::new();
    assert_eq!(f.number("SELECT tide_receive(NULL, 'copy')"), 0);
    assert_eq!(f.number("SELECT tide_receive(x'', 'copy')"), 0);
    assert_eq!(f.number("SELECT tide_receive(tide_prepare(0), 'copy')"), 1);
    assert_eq!(f.number("SELECT tide_prepare(1) IS NULL"), 1);
    assert_eq!(
        f.text("SELECT tide_status() ->> '$.lineage'"),
        f.text("SELECT tide_status('copy') ->> '$.lineage'")
    );
    assert_eq!(f.number("SELECT tide_fold('copy')"), 1);
    let path = f.path("out.db");
    let export = format!("SELECT tide_export('{}', 'copy')", path.display());
    assert_eq!(f.number(&export), 1);
    let rows: i64 = Connection::open(&path)
        .and_then(|db| db.query_row("SELECT count(*) FROM t", (), |row| row.get(0)))
        .expect("a plain database");
    assert_eq!(rows, 9);
    let (_, text) = f.refused(&export);
    assert!(text.starts_with("tideline: ARGUMENT: ") && text.contains("out.db"), "{text}");
}

#[test]
fn tables_are_read_with_arguments_and_without() {
    let f = Fixture::new();
    assert_eq!(f.number("SELECT count(*) FROM tide_log"), 1);
    assert_eq!(f.number("SELECT count(*) FROM tide_log('main')"), 1);
    assert_eq!(f.number("SELECT count(*) FROM tide_log(NULL)"), 1);
    assert_eq!(f.number("SELECT count(*) FROM tide_log WHERE schema = 'copy'"), 0);
    assert_eq!(f.number("SELECT count(*) FROM tide_log WHERE schema = 'copy' AND schema = 'main'"), 0);
    assert_eq!(f.number("SELECT count(*) FROM tide_log WHERE 'main' IS schema AND last_lsn = 1"), 1);
    assert_eq!(f.text("SELECT kind || ' ' || size_pages FROM tide_log ORDER BY last_lsn DESC"), "full 5");
    assert_eq!(f.number("SELECT count(*) FROM tide_verify"), 0);
    let schemas = "WITH s(name) AS (VALUES ('main'), ('copy')) SELECT group_concat(n) FROM \
                   (SELECT (SELECT count(*) FROM tide_log(s.name)) AS n FROM s)";
    assert_eq!(f.text(schemas), "1,0");
    let joined = "WITH s(name) AS (VALUES ('copy'), ('main')) SELECT s.name FROM tide_log AS l JOIN s ON l.schema = s.name";
    assert_eq!(f.text(joined), "main");
}

#[test]
fn batches_come_one_after_the_other() {
    let f = Fixture::new();
    let pieces = f.number("SELECT count(*) FROM tide_batches(0, 5000)");
    assert!(pieces > 2, "{pieces}");
    assert_eq!(f.text("SELECT group_concat(seq) FROM tide_batches(0, 100000000)"), "1");
    let reached =
        f.text("SELECT group_concat(tide_receive(blob, 'copy')) FROM tide_batches(0, 5000) ORDER BY seq");
    assert!(reached.starts_with("0,") && reached.ends_with(",1"), "{reached}");
    assert_eq!(f.number("SELECT count(*) FROM tide_batches(1)"), 0);
    for sql in
        ["SELECT * FROM tide_batches", "SELECT * FROM tide_batches('x')", "SELECT * FROM tide_batches(0, 0)"]
    {
        let (code, text) = f.refused(sql);
        assert_eq!(code.extended_code, ffi::SQLITE_ERROR);
        assert!(text.starts_with("tideline: ARGUMENT: "), "{text}");
    }
    // Nothing is sorted, which would hold them all at once.
    let plan: Vec<String> =
        f.db.prepare("EXPLAIN QUERY PLAN SELECT * FROM tide_batches(0) ORDER BY seq")
            .and_then(|mut plan| plan.query_map((), |row| row.get(3))?.collect())
            .expect("a plan");
    assert_eq!(plan.len(), 1, "{plan:?}");
}

#[test]
fn a_value_longer_than_the_connection_takes_is_a_limit() {
    let f = Fixture::new();
    f.db.set_limit(Limit::SQLITE_LIMIT_LENGTH, 8_000).expect("a limit");
    let (code, text) = f.refused("SELECT tide_prepare(0)");
    assert_eq!(code.extended_code, ffi::SQLITE_TOOBIG);
    assert!(text.starts_with("tideline: LIMIT: "), "{text}");
    assert!(f.number("SELECT count(*) FROM tide_batches(0)") > 1, "which still fit");
}

#[test]
fn commands_stay_out_of_transactions() {
    let f = Fixture::new();
    let commands = [
        "tide_receive(NULL)",
        "tide_compact()",
        "tide_fold()",
        "tide_export('x')",
        "tide_retain('none')",
        "tide_detach()",
    ];
    f.db.execute_batch("BEGIN").expect("begun");
    for command in commands {
        let (_, text) = f.refused(&format!("SELECT {command}"));
        let name = command.split('(').next().expect("a name");
        assert!(text.starts_with("tideline: DENIED: ") && text.contains(name), "{text}");
        assert_eq!(f.text("SELECT tide_last_error()"), text);
    }
    assert_eq!(f.number("SELECT tide_lsn()"), 1);
    assert_eq!(f.text("SELECT tide_retain()"), "64 MiB or 10000 lsns", "nothing was done");
    f.db.execute_batch("COMMIT").expect("committed");

    let writing = Fixture::with(Stores { writing: true, ..Stores::default() });
    for command in commands {
        assert!(writing.refused(&format!("SELECT {command}")).1.contains("DENIED"));
    }
}

#[test]
fn a_schema_that_is_not_trusted_reads_and_commands_nothing() {
    let f = Fixture::new();
    f.db.execute_batch(
        "CREATE VIEW reading AS SELECT tide_lsn(), tide_retain(), tide_version(); CREATE VIEW listing AS SELECT * FROM tide_log;
         CREATE VIEW commanding AS SELECT tide_fold(); CREATE VIEW telling AS SELECT tide_trace('off');
         PRAGMA trusted_schema = 0;",
    )
    .expect("views");
    assert_eq!(f.number("SELECT * FROM reading"), 1);
    assert_eq!(f.number("SELECT count(*) FROM listing"), 1);
    for view in ["commanding", "telling"] {
        let error = f.db.prepare(&format!("SELECT * FROM {view}")).expect_err("unsafe");
        assert!(error.to_string().contains("unsafe use of"), "{error}");
    }
}

#[test]
fn arguments_are_refused_by_name_and_type() {
    let f = Fixture::new();
    for (sql, part) in [
        ("SELECT tide_prepare(NULL)", "after_lsn of tide_prepare can't be NULL"),
        ("SELECT tide_prepare(-1)", "can't be -1"),
        ("SELECT tide_prepare('0')", "can't be '0'"),
        ("SELECT tide_prepare(1.5)", "can't be 1.5"),
        ("SELECT tide_prepare(0, 0)", "max_bytes"),
        ("SELECT tide_prepare(2)", "above the head"),
        ("SELECT tide_prepare(9223372036854775807)", "above the head"),
        ("SELECT tide_receive('x')", "give a BLOB"),
        ("SELECT tide_receive(zeroblob(10), 7)", "schema"),
        ("SELECT tide_lsn('nowhere')", "no schema nowhere"),
        ("SELECT tide_lsn(CAST(x'ff' AS TEXT))", "schema"),
        ("SELECT tide_compact(1)", "both ends"),
        ("SELECT tide_compact(NULL, 1)", "both ends"),
        ("SELECT tide_compact(2, 1)", "no range"),
        ("SELECT tide_compact(0, 1)", "no range"),
        ("SELECT tide_compact(1, 99)", "no range"),
        ("SELECT tide_compact('x', 3)", "first"),
        ("SELECT tide_export(NULL)", "path"),
        ("SELECT tide_export('')", "path"),
        ("SELECT tide_retain(7)", "what"),
        ("SELECT tide_retain('3 parsecs')", "parsecs"),
        ("SELECT tide_trace('loud')", "loud"),
        ("SELECT tide_trace(1)", "level"),
        ("SELECT * FROM tide_log(7)", "schema"),
        ("SELECT * FROM tide_verify('nowhere')", "no schema nowhere"),
    ] {
        let (code, text) = f.refused(sql);
        assert_eq!(code.extended_code, ffi::SQLITE_ERROR, "{sql}: {text}");
        assert!(
            text.starts_with("tideline: ARGUMENT: ") && text.contains("; ") && text.contains(part),
            "{sql}: {text}"
        );
    }
    for sql in ["SELECT tide_prepare()", "SELECT tide_prepare(1, 2, 3, 4)", "SELECT tide_version(1)"] {
        assert!(
            f.db.prepare(sql).is_err_and(|error| error.to_string().contains("wrong number of arguments"))
        );
    }
    assert!(f.db.prepare("SELECT * FROM tide_log('main', 2)").is_err());
}

// LESSONS.md 12.
#[test]
fn errors_keep_sqlites_code_and_panics_stay_inside() {
    let f = Fixture::new();
    for sql in ["SELECT tide_lsn('busy')", "SELECT * FROM tide_log('busy')"] {
        let (code, text) = f.refused(sql);
        assert_eq!((code.code, code.extended_code), (ErrorCode::DatabaseBusy, ffi::SQLITE_BUSY));
        assert_eq!(text, "tideline: BUSY: somebody writes; try again");
    }
    for sql in ["SELECT tide_lsn('panic')", "SELECT * FROM tide_log('panic')"] {
        let (_, text) = f.refused(sql);
        assert_eq!(text, "tideline: IO: internal error: asked to; report this as a bug");
    }
    assert_eq!(f.number("SELECT tide_lsn()"), 1, "the connection goes on");
}

#[test]
fn retention_is_kept_as_it_was_said() {
    let f = Fixture::new();
    assert_eq!(f.text("SELECT tide_retain('7 days')"), "7 days");
    assert_eq!(f.text("SELECT tide_retain()"), "7 days");
    assert_eq!(f.text("SELECT tide_retain(NULL, 'copy')"), "64 MiB or 10000 lsns");
    assert_eq!(f.text("SELECT tide_retain('default')"), "64 MiB or 10000 lsns");
}

#[test]
fn the_level_of_tracing_is_the_processes() {
    let f = Fixture::new();
    assert_eq!(f.text("SELECT tide_trace('DEBUG')"), "debug");
    assert_eq!(f.text("SELECT tide_trace(NULL)"), "debug");
    assert_eq!(f.number("SELECT tide_lsn()"), 1);
    assert_eq!(f.text("SELECT tide_trace('off')"), "off");
}

#[test]
fn registering_again_is_harmless() {
    let f = Fixture::new();
    register(&f.db, Arc::new(Stores::default())).expect("registered again");
    assert!(f.refused("SELECT tide_lsn()").1.contains("no schema main"), "the later one counts");
}
