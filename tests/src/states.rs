//! Databases in the states that tests begin with; the file is `a.db`.

use crate::host::Host;
use crate::scratch::Scratch;
use crate::shell::{Session, Shell};

/// Makes a plain database of stock SQLite with one row.
const ONE_ROW: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'one');";

/// A plain database of stock SQLite with one row.
pub fn plain_store() -> Scratch {
    let scratch = Scratch::new();
    Shell::stock(&scratch, "a.db").ok(ONE_ROW);
    scratch
}

/// Runs `test` on every host, with such a database: a shell through Tideline, one of stock SQLite, and the folder.
pub fn each_plain_store(test: impl Fn(&Shell<'_>, &Shell<'_>, &Scratch)) {
    Host::each(|host, scratch| {
        let stock = host.shell(Shell::stock(scratch, "a.db"));
        stock.ok(ONE_ROW);
        test(&host.shell(Shell::new(scratch, "a.db")), &stock, scratch);
    });
}

/// A reader that keeps an old snapshot, and a writer that has gone on: the base is behind the journal for as long as
/// both are there.
pub fn behind(db: &Shell<'_>) -> (Session, Session) {
    let (mut reader, mut writer) = (db.session(), db.session());
    assert_eq!(reader.sql("BEGIN; SELECT count(*) FROM t;"), "1\n");
    assert_eq!(writer.sql("INSERT INTO t VALUES (2, 'two'); SELECT count(*) FROM t;"), "2\n");
    (reader, writer)
}

/// Leaves a base that is behind its journal, and nobody alive.
pub fn left_behind() -> Scratch {
    let scratch = plain_store();
    let (reader, writer) = behind(&Shell::new(&scratch, "a.db"));
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
