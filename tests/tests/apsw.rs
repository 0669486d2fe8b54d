//! The same in `apsw`, which brings a far newer SQLite.

use tideline_tests::{Scratch, apsw, python};

/// Runs a script in apsw; false where there is none.
#[track_caller]
fn run(scratch: &Scratch, script: &str) -> bool {
    let output = apsw(scratch, &format!("from tide_apsw import *\n{script}"), &[]);
    output.map(|output| output.ok().len()).is_some()
}

#[test]
fn the_main_job() {
    run(
        &Scratch::new(),
        r#"
notes = connect("notes.db")
notes.execute("CREATE TABLE note(id INTEGER PRIMARY KEY, body TEXT)")
notes.execute("INSERT INTO note(body) VALUES ('bread'), ('fern')")
with notes:
    notes.execute("UPDATE note SET body = upper(body)")
assert notes.execute("SELECT tide_lsn()").get == 3
copy = connect("copy.db")
assert copy.execute("SELECT tide_receive(?)", (notes.execute("SELECT tide_prepare(0)").get,)).get == 3
assert copy.execute("SELECT * FROM note").get == [(1, "BREAD"), (2, "FERN")]
assert notes.pragma("journal_mode") == "wal"
assert notes.pragma("integrity_check") == "ok"
"#,
    );
}

#[test]
fn rollback_savepoints_and_spills() {
    run(
        &Scratch::new(),
        r#"
db = connect("a.db")
db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v); PRAGMA cache_size = 10; PRAGMA cache_spill = 1")
db.execute("BEGIN")
db.executemany("INSERT INTO t(v) VALUES (?)", ((f"{n:0500}",) for n in range(2000)))
db.execute("ROLLBACK")
assert db.execute("SELECT count(*), tide_lsn() FROM t").get == (0, 1)
with db:
    db.executemany("INSERT INTO t(v) VALUES (?)", ((f"{n:0500}",) for n in range(2000)))
    try:
        with db:
            db.execute("UPDATE t SET v = 'x' || v")
            raise KeyError
    except KeyError:
        pass
assert db.execute("SELECT count(*), max(length(v)), tide_lsn() FROM t").get == (2000, 500, 2)
assert db.pragma("integrity_check") == "ok"
"#,
    );
}

#[test]
fn an_old_and_a_new_sqlite_exchange_deltas() {
    let scratch = Scratch::new();
    let wrote = run(
        &scratch,
        r#"
db = connect("new.db")
db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE INDEX by_v ON t(v)")
db.executemany("INSERT INTO t(v) VALUES (?)", ((n * 7 % 101,) for n in range(1000)))
open("full.tide", "wb").write(db.execute("SELECT tide_prepare(0)").get)
lsn = db.execute("SELECT tide_lsn()").get
db.execute("DELETE FROM t WHERE v % 2")
open("next.tide", "wb").write(db.execute("SELECT tide_prepare(?)", (lsn,)).get)
print(db.execute("SELECT count(*), sum(v) FROM t").get)
"#,
    );
    if !wrote {
        return;
    }
    let script = r#"
from tide import *
db = connect("old.db")
one(db, "SELECT tide_receive(?)", open("full.tide", "rb").read())
assert one(db, "SELECT count(*) FROM t") == 1000
one(db, "SELECT tide_receive(?)", open("next.tide", "rb").read())
assert one(db, "PRAGMA integrity_check") == "ok"
assert one(db, "SELECT count(*) FROM t WHERE v % 2") == 0
assert one(db, "SELECT count(*) FROM t") == sum(1 for n in range(1000) if n * 7 % 101 % 2 == 0)
"#;
    python(&scratch, script, &[]).ok();
}

#[test]
fn the_vfs_and_the_file_name_are_told_to_the_host() {
    run(
        &Scratch::new(),
        r#"
db = connect("a.db")
db.execute("CREATE TABLE t(a)")
assert db.filename == os.path.realpath("a.db")
assert "tideline" in apsw.vfs_names()
"#,
    );
}
