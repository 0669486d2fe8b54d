//! Databases in the states that tests begin with; the file is `a.db`.

use crate::scratch::Scratch;
use crate::shell::{Session, Shell};

/// A plain database of stock SQLite with one row.
pub fn plain_store() -> Scratch {
    let scratch = Scratch::new();
    Shell::stock(&scratch, "a.db")
        .ok("CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'one');");
    scratch
}

/// A reader that keeps an old snapshot, and a writer that has gone on: the base is behind the journal for as long as
/// both are there.
pub fn behind(scratch: &Scratch) -> (Session, Session) {
    let db = Shell::new(scratch, "a.db");
    let (mut reader, mut writer) = (db.session(), db.session());
    assert_eq!(reader.sql("BEGIN; SELECT count(*) FROM t;"), "1\n");
    assert_eq!(writer.sql("INSERT INTO t VALUES (2, 'two'); SELECT count(*) FROM t;"), "2\n");
    (reader, writer)
}

/// Leaves a base that is behind its journal, and nobody alive.
pub fn left_behind() -> Scratch {
    let scratch = plain_store();
    let (reader, writer) = behind(&scratch);
    reader.kill();
    writer.kill();
    scratch
}

/// A field of `tide_status()` of `a.db`, as text.
pub fn status(scratch: &Scratch, key: &str) -> String {
    Shell::new(scratch, "a.db")
        .ok(&format!("SELECT json_extract(tide_status(), '$.{key}');"))
        .trim_end()
        .into()
}
