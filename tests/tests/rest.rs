//! The base and the journal: adopting plain databases, folding, being plain again at rest, what stock SQLite meets in
//! between, what it changed, retention, compaction, export, verification, and the way back.

use std::fs::{File, FileTimes};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tideline_tests::{
    Dice, Host, Scratch, Session, Shell, bundled, bundled_stock, content, plain_header, python, python_start,
    refusal, rounds,
};

const NOT_A_DATABASE: &str = "file is not a database";
const LOCKED: &str = "database is locked";

/// A plain database of stock SQLite with one row.
fn plain() -> Scratch {
    let scratch = Scratch::new();
    Shell::stock(&scratch, "a.db")
        .ok("CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'one');");
    scratch
}

/// A reader that keeps an old snapshot, and a writer that has gone on: the base is behind the journal for as long as
/// both are there.
fn behind(scratch: &Scratch) -> (Session, Session) {
    let db = Shell::new(scratch, "a.db");
    let (mut reader, mut writer) = (db.session(), db.session());
    assert_eq!(reader.sql("BEGIN; SELECT count(*) FROM t;"), "1\n");
    assert_eq!(writer.sql("INSERT INTO t VALUES (2, 'two'); SELECT count(*) FROM t;"), "2\n");
    (reader, writer)
}

/// Leaves a base that is behind its journal, and nobody alive.
fn left_behind() -> Scratch {
    let scratch = plain();
    let (reader, writer) = behind(&scratch);
    reader.kill();
    writer.kill();
    scratch
}

fn status(scratch: &Scratch, key: &str) -> String {
    Shell::new(scratch, "a.db")
        .ok(&format!("SELECT json_extract(tide_status(), '$.{key}');"))
        .trim_end()
        .into()
}

/// What the files below a folder take on disk.
fn disk_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let sizes = entries.map(|entry| {
        let path = entry.expect("an entry").path();
        let metadata = std::fs::symlink_metadata(&path).expect("its metadata");
        if metadata.is_dir() { disk_bytes(&path) } else { metadata.blocks() * 512 }
    });
    sizes.sum()
}

/// The files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Changes a byte of every place where `text` stands in a file, and leaves its times as they were.
fn damage(file: &Path, text: &[u8]) -> usize {
    let mut bytes = std::fs::read(file).expect("the file");
    let places: Vec<usize> =
        bytes.windows(text.len()).enumerate().filter(|(_, w)| *w == text).map(|(n, _)| n).collect();
    for place in &places {
        bytes[*place] ^= 1;
    }
    if !places.is_empty() {
        let modified = std::fs::metadata(file).and_then(|metadata| metadata.modified()).expect("its time");
        std::fs::write(file, bytes).expect("the damage");
        let times = FileTimes::new().set_modified(modified);
        File::options()
            .write(true)
            .open(file)
            .and_then(|file| file.set_times(times))
            .expect("its time again");
    }
    places.len()
}

#[test]
fn a_plain_database_is_adopted_by_opening_it() {
    Host::each(|host, scratch| {
        Shell::stock(scratch, "a.db")
            .ok("CREATE TABLE t(a); INSERT INTO t VALUES (1), (2); CREATE INDEX i ON t(a);");
        let before = content(&bundled_stock(scratch, "a.db"));
        let log = "SELECT first_lsn, last_lsn, size_pages FROM tide_log; SELECT tide_lsn(), count(*) FROM t;";
        assert_eq!(host.ok(scratch, "a.db", log), "1|1|3\n1|2\n");
        assert_eq!(content(&bundled_stock(scratch, "a.db")), before);
        let change = "INSERT INTO t VALUES (3); SELECT tide_lsn(), sum(a) FROM t; PRAGMA integrity_check;";
        assert_eq!(host.ok(scratch, "a.db", change), "2|6\nok\n");
        assert_eq!(
            Shell::stock(scratch, "a.db").ok("SELECT sum(a) FROM t; PRAGMA integrity_check;"),
            "6\nok\n"
        );
    });
}

#[test]
fn any_plain_database_is_adopted() {
    let kinds = [
        "PRAGMA page_size = 512;",
        "PRAGMA page_size = 65536;",
        "PRAGMA auto_vacuum = FULL;",
        "PRAGMA auto_vacuum = INCREMENTAL;",
        "PRAGMA encoding = 'UTF-16le';",
        "PRAGMA journal_mode = wal;",
        "PRAGMA journal_mode = persist;",
        "PRAGMA application_id = 77; PRAGMA user_version = 12;",
    ];
    for kind in kinds {
        let scratch = Scratch::new();
        let stock = Shell::stock(&scratch, "a.db");
        stock.ok(&format!(
            "{kind} CREATE TABLE t(id INTEGER PRIMARY KEY, v);
             INSERT INTO t SELECT value, hex(zeroblob(200)) FROM generate_series(1, 300); DELETE FROM t WHERE id % 3 = 0;"
        ));
        let look = "PRAGMA page_size; PRAGMA auto_vacuum; PRAGMA encoding; PRAGMA application_id; PRAGMA user_version;
                    SELECT count(*), sum(id) FROM t; PRAGMA freelist_count; PRAGMA integrity_check;";
        let before = stock.ok(look);
        let db = Shell::new(&scratch, "a.db");
        assert_eq!(db.ok(look), before, "{kind}");
        assert_eq!(db.ok("UPDATE t SET v = 'x' WHERE id = 1; SELECT tide_lsn();"), "2\n", "{kind}");
        assert_eq!(db.ok(look), before, "{kind}");
        assert!(plain_header(&scratch.path("a.db")), "{kind}");
        assert_eq!(stock.ok(look), before, "{kind}");
    }
}

#[test]
fn an_empty_file_is_an_empty_database() {
    let scratch = Scratch::new();
    scratch.write("a.db", "");
    let db = Shell::new(&scratch, "a.db");
    assert_eq!(db.ok("SELECT tide_lsn(), count(*) FROM sqlite_schema;"), "0|0\n");
    assert_eq!(db.ok("CREATE TABLE t(a); SELECT tide_lsn();"), "1\n");
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let scratch = Scratch::new();
    let text = "this is a letter to a friend, not a database. ".repeat(200);
    scratch.write("a.db", &text);
    let complaint = Shell::new(&scratch, "a.db").error("CREATE TABLE t(a);");
    assert!(complaint.contains(NOT_A_DATABASE) || complaint.contains("tideline: "), "{complaint}");
    assert_eq!(scratch.read("a.db"), text.as_bytes());
}

#[test]
fn at_rest_the_database_is_plain_whatever_was_done() {
    Host::each(|host, scratch| {
        let scripts = [
            "CREATE TABLE t(id INTEGER PRIMARY KEY, v);",
            "INSERT INTO t SELECT value, hex(randomblob(300)) FROM json_each('[1,2,3,4,5,6,7,8,9]');",
            "BEGIN; DELETE FROM t; ROLLBACK;",
            "SELECT count(*) FROM t;",
            "UPDATE t SET v = upper(v); DELETE FROM t WHERE id % 2; CREATE INDEX i ON t(v);",
            "DROP TABLE t;",
            "VACUUM;",
        ];
        for sql in scripts {
            host.ok(scratch, "a.db", sql);
            assert!(plain_header(&scratch.path("a.db")), "after {sql}");
            let ours = content(&bundled(scratch, "a.db"));
            assert_eq!(content(&bundled_stock(scratch, "a.db")), ours, "after {sql}");
            assert_eq!(Shell::stock(scratch, "a.db").ok("PRAGMA integrity_check;"), "ok\n", "after {sql}");
        }
        let beside: Vec<String> = std::fs::read_dir(scratch.folder())
            .expect("the folder")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .filter(|name| name.starts_with("a.db"))
            .collect();
        assert_eq!(beside.len(), 2, "the database and its side folder alone: {beside:?}");
    });
}

#[test]
fn history_stays_when_the_database_is_at_rest() {
    let scratch = Scratch::new();
    let db = Shell::new(&scratch, "a.db");
    db.ok("CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'one');");
    let copy = Shell::new(&scratch, "copy.db");
    db.ok("SELECT writefile('full.tide', tide_prepare(0)) > 0;");
    assert_eq!(copy.ok("SELECT tide_receive(readfile('full.tide'));"), "2\n");
    for n in 2..8 {
        db.ok(&format!("INSERT INTO t VALUES ({n}, 'v'); UPDATE t SET v = v || '!';"));
    }
    assert_eq!(db.ok("SELECT count(*), min(first_lsn), max(last_lsn) FROM tide_log;"), "14|1|14\n");
    assert_eq!(status(&scratch, "horizon"), "1");
    db.ok("SELECT writefile('next.tide', tide_prepare(2)) > 0;");
    assert_eq!(copy.ok("SELECT tide_receive(readfile('next.tide')); SELECT count(*) FROM t;"), "14\n7\n");
    assert_eq!(content(&bundled_stock(&scratch, "copy.db")), content(&bundled_stock(&scratch, "a.db")));
}

#[test]
fn while_the_base_is_behind_stock_sqlite_is_refused() {
    let scratch = plain();
    let sessions = behind(&scratch);
    assert_eq!(scratch.read("a.db")[19], 0x54);
    let stock = Shell::stock(&scratch, "a.db");
    for sql in ["SELECT count(*) FROM t;", "INSERT INTO t VALUES (9, 'stock');", "PRAGMA integrity_check;"] {
        let output = stock.run(sql);
        assert!(output.stderr.contains(NOT_A_DATABASE), "{sql} {output:#?}");
    }
    let (reader, writer) = sessions;
    writer.end();
    reader.end();
    assert_eq!(stock.ok("SELECT group_concat(v) FROM t; PRAGMA integrity_check;"), "one,two\nok\n");
}

#[test]
fn while_the_base_is_behind_a_stock_connection_that_was_open_already_is_refused() {
    let scratch = plain();
    let mut stock = Shell::stock(&scratch, "a.db").session();
    assert_eq!(stock.sql("SELECT v FROM t;"), "one\n");
    let (reader, mut writer) = behind(&scratch);
    assert!(stock.sql("SELECT v FROM t;").contains(NOT_A_DATABASE));
    assert!(stock.sql("INSERT INTO t VALUES (9, 'stock');").contains(NOT_A_DATABASE));
    assert!(stock.sql("BEGIN IMMEDIATE;").contains(NOT_A_DATABASE));
    assert_eq!(writer.sql("INSERT INTO t VALUES (3, 'three'); PRAGMA integrity_check;"), "ok\n");
    reader.end();
    writer.end();
    assert_eq!(stock.sql("SELECT group_concat(v) FROM t; PRAGMA integrity_check;"), "one,two,three\nok\n");
    assert_eq!(stock.sql("INSERT INTO t VALUES (4, 'four');"), "");
    assert_eq!(
        Shell::new(&scratch, "a.db").ok("SELECT group_concat(v), tide_lsn() FROM t;"),
        "one,two,three,four|4\n"
    );
}

#[test]
fn while_tideline_has_it_open_stock_sqlite_does_not_write() {
    let scratch = plain();
    let mut ours = Shell::new(&scratch, "a.db").session();
    assert_eq!(ours.sql("SELECT count(*) FROM t;"), "1\n");
    let mut stock = Shell::stock(&scratch, "a.db").session();
    let answer = stock.sql("INSERT INTO t VALUES (2, 'stock');");
    assert!(answer.contains(LOCKED) || answer.contains(NOT_A_DATABASE), "{answer}");
    ours.end();
    assert_eq!(stock.sql("INSERT INTO t VALUES (2, 'stock');"), "");
    assert_eq!(
        Shell::new(&scratch, "a.db").ok("SELECT group_concat(v), tide_lsn() FROM t;"),
        "one,stock|2\n"
    );
}

#[test]
fn while_stock_sqlite_reads_nothing_is_marked_beneath_it() {
    let scratch = plain();
    let mut ours = Shell::new(&scratch, "a.db").session();
    assert_eq!(ours.sql("SELECT count(*) FROM t;"), "1\n");
    let mut stock = Shell::stock(&scratch, "a.db").session();
    assert_eq!(stock.sql("BEGIN; SELECT v FROM t;"), "one\n");
    let answer = ours.sql(".timeout 300\nINSERT INTO t VALUES (2, 'two');");
    assert!(answer.contains(LOCKED), "{answer}");
    assert_eq!(stock.sql("SELECT v FROM t;"), "one\n");
    assert_eq!(stock.sql("COMMIT;"), "");
    assert_eq!(ours.sql("INSERT INTO t VALUES (2, 'two'); SELECT count(*) FROM t;"), "2\n");
}

#[test]
fn a_stock_transaction_under_way_is_not_run_over() {
    let scratch = plain();
    let mut stock = Shell::stock(&scratch, "a.db").session();
    assert_eq!(stock.sql("BEGIN IMMEDIATE; INSERT INTO t VALUES (2, 'stock');"), "");
    let db = Shell::new(&scratch, "a.db");
    let output = db.run(".timeout 200\nINSERT INTO t VALUES (3, 'ours');");
    assert!(output.stderr.contains(LOCKED) || output.stderr.contains("tideline: BUSY"), "{output:#?}");
    assert_eq!(stock.sql("COMMIT; SELECT group_concat(v) FROM t;"), "one,stock\n");
    stock.end();
    assert_eq!(
        db.ok("INSERT INTO t VALUES (3, 'ours'); SELECT group_concat(v) FROM t; PRAGMA integrity_check;"),
        "one,stock,ours\nok\n"
    );
}

#[test]
fn after_a_kill_stock_is_refused_until_tideline_has_opened_it_once() {
    let scratch = left_behind();
    let stock = Shell::stock(&scratch, "a.db");
    assert!(stock.error("SELECT count(*) FROM t;").contains(NOT_A_DATABASE));
    assert_eq!(Shell::new(&scratch, "a.db").ok("SELECT group_concat(v), tide_lsn() FROM t;"), "one,two|2\n");
    assert!(plain_header(&scratch.path("a.db")));
    assert_eq!(stock.ok("SELECT group_concat(v) FROM t; PRAGMA integrity_check;"), "one,two\nok\n");
}

#[test]
fn the_last_close_folds_what_killed_processes_left() {
    let scratch = plain();
    let db = Shell::new(&scratch, "a.db");
    for n in 0..5 {
        db.run(&format!("INSERT INTO t(v) VALUES ('{n}'); BEGIN; DELETE FROM t;\n.shell kill -9 $PPID\n"))
            .killed();
    }
    assert_eq!(db.ok("SELECT count(*) FROM t;"), "6\n");
    assert!(plain_header(&scratch.path("a.db")));
    let stock = Shell::stock(&scratch, "a.db");
    assert_eq!(stock.ok("SELECT group_concat(v) FROM t; PRAGMA integrity_check;"), "one,0,1,2,3,4\nok\n");
}

#[test]
fn a_change_by_stock_sqlite_at_rest_is_one_external_lsn() {
    Host::each(|host, scratch| {
        host.ok(
            scratch,
            "a.db",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'one');
            INSERT INTO t VALUES (2, 'two');",
        );
        let stock = Shell::stock(scratch, "a.db");
        stock
            .ok("INSERT INTO t VALUES (3, 'stock'); UPDATE t SET v = 'uno' WHERE id = 1; CREATE TABLE u(a);");
        let answer = host.ok(
            scratch,
            "a.db",
            "SELECT group_concat(v), tide_lsn() FROM t; SELECT count(*) FROM u;
            SELECT first_lsn, last_lsn, origin FROM tide_log;
            SELECT json_extract(tide_status(), '$.horizon'), json_extract(tide_status(), '$.head');",
        );
        assert_eq!(answer, "uno,two,stock|4\n0\n4|4|external\n4|4\n");
        let error = host.error(scratch, "a.db", "SELECT tide_prepare(2);");
        refusal(&error, "TRIMMED");
        assert_eq!(host.ok(scratch, "a.db", "INSERT INTO u VALUES (1); SELECT tide_lsn();"), "5\n");
        let copied =
            host.ok(scratch, "a.db", "SELECT length(tide_prepare(0)) > 0, length(tide_prepare(4)) > 0;");
        assert_eq!(copied, "1|1\n");
        assert_eq!(host.ok(scratch, "a.db", "SELECT count(*) FROM tide_verify;"), "0\n");
    });
}

#[test]
fn a_copy_learns_of_an_external_change_by_a_new_full_image() {
    let scratch = plain();
    let script = r#"
from tide import *

def ship(after):
    source, copy = connect("a.db"), connect("copy.db")
    try:
        return one(copy, "SELECT tide_receive(?)", one(source, "SELECT tide_prepare(?)", after))
    finally:
        source.close()
        copy.close()

assert ship(0) == 1
stock = sqlite3.connect("a.db", isolation_level=None)
stock.execute("INSERT INTO t VALUES (2, 'stock')")
stock.close()
refused("TRIMMED", lambda: ship(1))
assert ship(0) == 2
source, copy = connect("a.db"), connect("copy.db")
rows = "SELECT * FROM t ORDER BY id"
assert copy.execute(rows).fetchall() == source.execute(rows).fetchall() == [(1, "one"), (2, "stock")]
"#;
    python(&scratch, script, &[]).ok();
}

#[test]
fn what_stock_sqlite_only_reads_and_a_touch_change_nothing() {
    let scratch = plain();
    let db = Shell::new(&scratch, "a.db");
    db.ok("INSERT INTO t VALUES (2, 'two');");
    let stock = Shell::stock(&scratch, "a.db");
    stock.ok("SELECT * FROM t; PRAGMA integrity_check; BEGIN IMMEDIATE; ROLLBACK;");
    assert_eq!(db.ok("SELECT tide_lsn();"), "2\n");
    let later = FileTimes::new().set_modified(std::time::SystemTime::now() + Duration::from_secs(1000));
    let file = File::options().write(true).open(scratch.path("a.db")).expect("the base");
    file.set_times(later).expect("another time");
    drop(file);
    assert_eq!(
        db.ok("SELECT tide_lsn(), count(*) FROM tide_log; SELECT count(*) FROM tide_verify;"),
        "2|2\n0\n"
    );
}

#[test]
fn stock_sqlite_may_rebuild_the_database_at_rest() {
    let scratch = plain();
    let db = Shell::new(&scratch, "a.db");
    db.ok("INSERT INTO t SELECT value, hex(zeroblob(500)) FROM generate_series(2, 500);");
    let stock = Shell::stock(&scratch, "a.db");
    stock.ok("DELETE FROM t WHERE id > 10; PRAGMA page_size = 8192; VACUUM;");
    let answer = db.ok("PRAGMA page_size; SELECT count(*), tide_lsn() FROM t; PRAGMA integrity_check;
                        INSERT INTO t VALUES (600, 'x'); SELECT tide_lsn();");
    assert_eq!(answer, "8192\n10|3\nok\n4\n");
    assert_eq!(stock.ok("SELECT count(*) FROM t; PRAGMA integrity_check;"), "11\nok\n");
}

#[test]
fn a_database_replaced_at_rest_is_the_new_one_alone() {
    let scratch = plain();
    let db = Shell::new(&scratch, "a.db");
    db.ok("INSERT INTO t SELECT value, hex(zeroblob(500)) FROM generate_series(2, 500);");
    Shell::stock(&scratch, "other.db").ok("CREATE TABLE u(b); INSERT INTO u VALUES ('other');");
    std::fs::rename(scratch.path("other.db"), scratch.path("a.db")).expect("the base replaced");
    let answer = db.ok("SELECT name FROM sqlite_schema; SELECT b FROM u; PRAGMA integrity_check;
                        INSERT INTO u VALUES ('more'); SELECT count(*) FROM tide_verify;");
    assert_eq!(answer, "u\nother\nok\n0\n");
    assert_eq!(
        Shell::stock(&scratch, "a.db").ok("SELECT b FROM u; PRAGMA integrity_check;"),
        "other\nmore\nok\n"
    );
}

#[test]
fn a_database_deleted_at_rest_is_gone_with_its_history() {
    let scratch = plain();
    let db = Shell::new(&scratch, "a.db");
    db.ok("INSERT INTO t VALUES (2, 'two');");
    let lineage = status(&scratch, "lineage");
    std::fs::remove_file(scratch.path("a.db")).expect("the base deleted");
    assert_eq!(
        db.ok("SELECT tide_lsn(), count(*) FROM sqlite_schema; SELECT count(*) FROM tide_log;"),
        "0|0\n0\n"
    );
    assert_eq!(db.ok("CREATE TABLE n(a); SELECT tide_lsn();"), "1\n");
    assert_ne!(status(&scratch, "lineage"), lineage);
}

#[test]
fn a_copied_store_is_still_the_store() {
    let scratch = plain();
    let db = Shell::new(&scratch, "a.db");
    db.ok("INSERT INTO t VALUES (2, 'two'); INSERT INTO t VALUES (3, 'three');");
    scratch.copy_store("a.db", "b.db");
    let look = "SELECT json_extract(tide_status(), '$.lineage'), tide_lsn(), count(*) FROM tide_log;";
    let copy = Shell::new(&scratch, "b.db");
    assert_eq!(copy.ok(look), db.ok(look));
    assert_eq!(
        copy.ok("SELECT group_concat(v) FROM t; SELECT count(*) FROM tide_verify;"),
        "one,two,three\n0\n"
    );
}

#[test]
fn a_base_deleted_while_the_journal_was_ahead_is_refused() {
    let scratch = left_behind();
    std::fs::remove_file(scratch.path("a.db")).expect("the base deleted");
    let before = files(&scratch.side("a.db")).len();
    let output =
        Shell::new(&scratch, "a.db").going_on().run("SELECT count(*) FROM sqlite_schema; CREATE TABLE n(a);");
    assert!(output.stderr.contains("tideline: ") && output.stdout.is_empty(), "{output:#?}");
    assert!(files(&scratch.side("a.db")).len() >= before, "nothing is thrown away");
}

#[test]
fn a_base_replaced_while_the_journal_was_ahead_is_refused() {
    let scratch = left_behind();
    Shell::stock(&scratch, "other.db").ok("CREATE TABLE u(b); INSERT INTO u VALUES ('other');");
    std::fs::copy(scratch.path("other.db"), scratch.path("a.db")).expect("the base replaced");
    let bytes = scratch.read("a.db");
    let output = Shell::new(&scratch, "a.db").going_on().run("SELECT count(*) FROM t; SELECT b FROM u;");
    assert!(output.stderr.contains("tideline: ") && output.stdout.is_empty(), "{output:#?}");
    assert_eq!(scratch.read("a.db"), bytes, "nothing is mixed into it");
}

#[test]
fn a_marked_base_without_its_folder_is_refused() {
    let scratch = left_behind();
    std::fs::remove_dir_all(scratch.side("a.db")).expect("the side folder deleted");
    let bytes = scratch.read("a.db");
    let output = Shell::new(&scratch, "a.db").going_on().run("SELECT count(*) FROM t;");
    assert!(output.stderr.contains("tideline: ") && output.stdout.is_empty(), "{output:#?}");
    assert_eq!(scratch.read("a.db"), bytes);
}

#[test]
fn a_plain_base_without_its_folder_is_adopted_anew() {
    let scratch = plain();
    let db = Shell::new(&scratch, "a.db");
    db.ok("INSERT INTO t VALUES (2, 'two');");
    std::fs::remove_dir_all(scratch.side("a.db")).expect("the side folder deleted");
    assert_eq!(
        db.ok("SELECT group_concat(v), tide_lsn() FROM t; SELECT count(*) FROM tide_verify;"),
        "one,two|1\n0\n"
    );
}

#[test]
fn tide_fold_goes_as_far_as_readers_allow() {
    let scratch = plain();
    let (mut reader, mut writer) = behind(&scratch);
    assert_eq!(writer.sql("INSERT INTO t VALUES (3, 'three'); SELECT tide_fold();"), "1\n");
    assert_eq!(reader.sql("SELECT count(*), tide_lsn() FROM t; PRAGMA integrity_check;"), "1|1\nok\n");
    assert_eq!(reader.sql("COMMIT; SELECT count(*) FROM t;"), "3\n");
    assert_eq!(
        writer.sql("SELECT tide_fold(), json_extract(tide_status(), '$.base'), tide_lsn();"),
        "3|3|3\n"
    );
    assert_eq!(reader.sql("SELECT count(*), tide_lsn() FROM t; PRAGMA integrity_check;"), "3|3\nok\n");
    assert_eq!(writer.sql("SELECT count(*) FROM tide_log;"), "3\n", "history stays");
    let answer = writer.sql("BEGIN; INSERT INTO t VALUES (4, 'x'); SELECT tide_fold();");
    assert!(answer.contains("tideline: "), "{answer}");
    assert_eq!(writer.sql("ROLLBACK; SELECT count(*) FROM t;"), "3\n");
}

#[test]
fn a_snapshot_outlives_folds_and_compactions() {
    let scratch = plain();
    let db = Shell::new(&scratch, "a.db");
    let (mut reader, mut writer) = (db.session(), db.session());
    writer.sql("INSERT INTO t SELECT value, hex(zeroblob(400)) FROM generate_series(2, 800);");
    let look = "SELECT count(*), sum(length(v)), tide_lsn() FROM t; PRAGMA integrity_check;";
    let before = reader.sql(&format!("BEGIN; {look}"));
    for n in 0..30 {
        writer.sql(&format!("UPDATE t SET v = hex(randomblob(200 + {n})) WHERE id % 3 = {n} % 3;"));
        if n % 5 == 4 {
            let answer = writer.sql("SELECT tide_fold() >= 1, tide_compact() >= 0;");
            assert_eq!(answer, "1|1\n");
        }
        assert_eq!(reader.sql(look), before, "after {n} changes");
    }
    writer.sql("DELETE FROM t WHERE id > 5; VACUUM; SELECT tide_fold();");
    assert_eq!(reader.sql(look), before);
    assert_eq!(reader.sql("COMMIT; SELECT count(*) FROM t; PRAGMA integrity_check;"), "5\nok\n");
}

#[test]
fn compaction_merges_entries_and_changes_no_content() {
    let scratch = plain();
    let db = Shell::new(&scratch, "a.db");
    db.ok("SELECT writefile('one.tide', tide_prepare(0)) > 0;");
    for n in 0..5 {
        db.ok(&format!(
            "INSERT INTO t SELECT value, hex(zeroblob(900)) FROM generate_series({n} * 100 + 10, {n} * 100 + 100);
             UPDATE t SET v = 'v{n}' WHERE id % 7 = {n}; DELETE FROM t WHERE id % 11 = {n};"
        ));
    }
    let before = content(&bundled_stock(&scratch, "a.db"));
    let checksum = db.ok("SELECT checksum FROM tide_log WHERE last_lsn = 16;");
    let freed = db.ok("SELECT tide_compact();");
    assert!(freed.trim_end().parse::<i64>().is_ok_and(|bytes| bytes >= 0), "{freed}");
    assert_eq!(content(&bundled(&scratch, "a.db")), before);
    let answer = db.ok("SELECT max(last_lsn), count(*) <= 16 FROM tide_log; SELECT tide_lsn();
        SELECT count(*) FROM tide_log WHERE first_lsn < last_lsn AND kind = 'commit';
        SELECT count(*) FROM tide_verify; PRAGMA integrity_check;");
    assert_eq!(answer, "16|1\n16\n0\n0\nok\n");
    assert_eq!(db.ok("SELECT checksum FROM tide_log WHERE last_lsn = 16;"), checksum);
    db.ok("SELECT writefile('rest.tide', tide_prepare(1)) > 0;");
    let copy = Shell::new(&scratch, "copy.db");
    let answer =
        copy.ok("SELECT tide_receive(readfile('one.tide')); SELECT tide_receive(readfile('rest.tide'));");
    assert_eq!(answer, "1\n16\n");
    assert_eq!(content(&bundled_stock(&scratch, "copy.db")), before);
}

#[test]
fn compaction_of_a_part_leaves_the_rest_as_it_was() {
    let scratch = plain();
    let db = Shell::new(&scratch, "a.db");
    for n in 2..=20 {
        db.ok(&format!("INSERT INTO t VALUES ({n}, 'n')"));
    }
    db.ok("SELECT tide_compact(5, 12);");
    let outside =
        "SELECT count(*) FROM tide_log WHERE first_lsn = last_lsn AND (last_lsn < 5 OR last_lsn > 12);";
    assert_eq!(db.ok(outside), "12\n");
    assert_eq!(db.ok("SELECT first_lsn, last_lsn, kind FROM tide_log WHERE last_lsn = 12;"), "5|12|merged\n");
    assert_eq!(db.ok("SELECT count(*), tide_lsn() FROM t; SELECT count(*) FROM tide_verify;"), "20|20\n0\n");
    for arguments in ["12, 5", "0, 3", "15, 99", "'x', 3"] {
        refusal(&db.error(&format!("SELECT tide_compact({arguments});")), "ARGUMENT");
    }
}

#[test]
fn tide_retain_keeps_what_it_is_told_with_the_store() {
    let scratch = plain();
    let db = Shell::new(&scratch, "a.db");
    let default = db.ok("SELECT typeof(tide_retain()), length(tide_retain()) > 0;");
    assert_eq!(default, "text|1\n");
    for what in ["7 days", "1 GB", "10000 lsns", "none", "2 MB", "3 days"] {
        db.ok(&format!("SELECT tide_retain('{what}');"));
        let answer = db.ok("SELECT tide_retain();");
        assert!(answer.contains(what), "{what}: {answer}");
    }
    for what in ["", "much", "-3 days", "3 parsecs", "lsns"] {
        refusal(&db.error(&format!("SELECT tide_retain('{what}');")), "ARGUMENT");
    }
    refusal(&db.error("SELECT tide_retain(7);"), "ARGUMENT");
    assert!(db.ok("SELECT tide_retain();").contains("3 days"), "a refusal changes nothing");
}

#[test]
fn with_retention_none_history_goes_when_it_is_folded() {
    let scratch = plain();
    let db = Shell::new(&scratch, "a.db");
    db.ok("SELECT tide_retain('none');");
    for n in 2..12 {
        db.ok(&format!("INSERT INTO t VALUES ({n}, 'n');"));
    }
    assert_eq!(status(&scratch, "horizon"), "11");
    assert_eq!(db.ok("SELECT count(*) <= 1 FROM tide_log;"), "1\n");
    refusal(&db.error("SELECT tide_prepare(3);"), "TRIMMED");
    assert_eq!(db.ok("SELECT length(tide_prepare(0)) > 0, tide_prepare(11) IS NULL;"), "1|1\n");
    assert_eq!(db.ok("SELECT count(*), tide_lsn() FROM t; SELECT count(*) FROM tide_verify;"), "11|11\n0\n");
}

#[test]
fn retention_of_so_many_lsns_keeps_them_readable() {
    let scratch = plain();
    let db = Shell::new(&scratch, "a.db");
    db.ok("SELECT tide_retain('5 lsns');");
    for n in 2..=40 {
        db.ok(&format!("INSERT INTO t VALUES ({n}, 'n');"));
    }
    let horizon: u32 = status(&scratch, "horizon").parse().expect("a number");
    assert!(horizon <= 36, "{horizon}");
    assert_eq!(db.ok("SELECT length(tide_prepare(36)) > 0, tide_lsn();"), "1|40\n");
}

#[test]
fn a_journal_that_nobody_folds_stays_within_bounds() {
    let scratch = plain();
    let script = r#"
from tide import *
db = connect("a.db")
db.execute("PRAGMA synchronous = OFF")
db.execute("CREATE TABLE big(id INTEGER PRIMARY KEY, v BLOB)")
db.execute("INSERT INTO big VALUES (1, zeroblob(1000000))")
most = 0
for n in range(400):
    db.execute("UPDATE big SET v = randomblob(1000000)")
    most = max(most, json.loads(one(db, "SELECT tide_status()"))["journal_bytes"])
print(most)
"#;
    let printed = python(&scratch, script, &[]).ok().to_string();
    let most: u64 = printed.trim_end().parse().expect("a number");
    // 400 MB went through a journal of which 64 MiB are kept.
    assert!(most < 200 << 20, "the journal grew to {most} bytes");
    let side = disk_bytes(&scratch.side("a.db"));
    assert!(side < 200 << 20, "{side} bytes beside a database at rest");
    assert_eq!(
        Shell::stock(&scratch, "a.db").ok("SELECT length(v) FROM big; PRAGMA integrity_check;"),
        "1000000\nok\n"
    );
}

#[test]
fn an_export_is_a_plain_database_of_its_own() {
    Host::each(|host, scratch| {
        host.ok(
            scratch,
            "a.db",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'one');",
        );
        let path = scratch.path("export.db");
        let export = format!("SELECT tide_export('{}');", path.display());
        assert_eq!(host.ok(scratch, "a.db", &format!("INSERT INTO t VALUES (2, 'two'); {export}")), "3\n");
        assert!(plain_header(&path));
        assert!(!scratch.side("export.db").exists());
        assert_eq!(content(&bundled_stock(scratch, "export.db")), content(&bundled(scratch, "a.db")));
        assert_eq!(Shell::stock(scratch, "export.db").ok("PRAGMA integrity_check;"), "ok\n");
        let before = scratch.read("export.db");
        refusal(&host.error(scratch, "a.db", &export), "ARGUMENT");
        assert_eq!(scratch.read("export.db"), before, "what is there is left alone");
        host.error(scratch, "a.db", "SELECT tide_export('/nowhere/at/all/x.db');");
    });
}

#[test]
fn a_sound_store_verifies_in_every_state() {
    let scratch = plain();
    let db = Shell::new(&scratch, "a.db");
    let verify = "SELECT * FROM tide_verify;";
    assert_eq!(db.ok(verify), "", "adopted");
    let (mut reader, mut writer) = behind(&scratch);
    assert_eq!(writer.sql(verify), "", "behind");
    writer.sql("SELECT tide_fold();");
    assert_eq!(writer.sql(verify), "", "folded in part");
    assert_eq!(reader.sql(verify), "", "in a reader's transaction");
    reader.kill();
    writer.kill();
    assert_eq!(db.ok(verify), "", "recovered");
    db.ok("INSERT INTO t SELECT value, hex(zeroblob(800)) FROM generate_series(10, 600);
           DELETE FROM t WHERE id > 20; VACUUM; SELECT tide_compact();");
    assert_eq!(db.ok(verify), "", "compacted");
    let header = db.ok(".headers on\nSELECT * FROM tide_verify UNION ALL SELECT 1, 2, 3, 4, 5, 6, 7;");
    assert_eq!(header.lines().next(), Some("severity|file|offset|lsn|page|object|message"));
}

#[test]
fn a_rotten_byte_in_the_base_is_an_error_and_never_a_wrong_row() {
    Host::each(|host, scratch| {
        host.ok(
            scratch,
            "a.db",
            "CREATE TABLE m(v); INSERT INTO m VALUES ('MARKER-of-this-test');
            CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'one');
            SELECT tide_retain('none');",
        );
        host.ok(scratch, "a.db", "INSERT INTO t VALUES (2, 'two'); SELECT tide_fold();");
        assert_eq!(damage(&scratch.path("a.db"), b"MARKER-of-this-test"), 1);
        match host.sql(scratch, "a.db", "SELECT v FROM m;") {
            Err(error) => println!("{error}"),
            Ok(answer) => panic!("a rotten page was read: {answer}"),
        }
        let found = host.ok(scratch, "a.db", "SELECT count(*) > 0 FROM tide_verify;");
        assert_eq!(found, "1\n");
        assert_eq!(host.ok(scratch, "a.db", "SELECT count(*) FROM t;"), "2\n", "other pages are read");
    });
}

#[test]
fn a_rotten_byte_in_the_journal_is_an_error_and_never_a_wrong_row() {
    let scratch = plain();
    let (reader, mut writer) = behind(&scratch);
    writer.sql("CREATE TABLE m(v); INSERT INTO m VALUES ('MARKER-of-this-test');");
    for n in 3..10 {
        writer.sql(&format!("INSERT INTO t VALUES ({n}, 'later');"));
    }
    reader.kill();
    writer.kill();
    let damaged: usize =
        files(&scratch.side("a.db")).iter().map(|file| damage(file, b"MARKER-of-this-test")).sum();
    assert!(damaged > 0, "the row should be in the journal");
    let db = Shell::new(&scratch, "a.db").going_on();
    let output = db.run("SELECT v FROM m;");
    assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "a rotten page was read: {output:#?}");
    let output = db.run("SELECT count(*) > 0 FROM tide_verify;");
    assert!(output.stdout == "1\n" || output.stderr.contains("tideline: DAMAGED: "), "{output:#?}");
}

#[test]
fn tide_detach_leaves_a_plain_database_and_nothing_else() {
    Host::each(|host, scratch| {
        host.ok(scratch, "a.db", "CREATE TABLE t(a); INSERT INTO t VALUES (1); INSERT INTO t VALUES (2);");
        host.ok(scratch, "a.db", "SELECT tide_detach(); SELECT sum(a) FROM t;");
        assert!(!scratch.side("a.db").exists());
        assert!(plain_header(&scratch.path("a.db")));
        let stock = Shell::stock(scratch, "a.db");
        assert_eq!(
            stock.ok("INSERT INTO t VALUES (3); SELECT sum(a) FROM t; PRAGMA integrity_check;"),
            "6\nok\n"
        );
        assert_eq!(host.ok(scratch, "a.db", "SELECT sum(a), tide_lsn() FROM t;"), "6|1\n");
    });
}

#[test]
fn after_tide_detach_the_connection_reads_and_does_not_write() {
    let scratch = plain();
    let db = Shell::new(&scratch, "a.db");
    let mut session = db.session();
    session.sql("INSERT INTO t VALUES (2, 'two'); SELECT tide_detach();");
    assert_eq!(session.sql("SELECT group_concat(v) FROM t;"), "one,two\n");
    let answer = session.sql("INSERT INTO t VALUES (3, 'three');");
    assert!(!answer.is_empty(), "it has to be reopened to write");
    assert_eq!(session.sql("SELECT group_concat(v) FROM t;"), "one,two\n");
    assert_eq!(
        session.sql(".open 'file:a.db?vfs=tideline'\nINSERT INTO t VALUES (3, 'three'); SELECT tide_lsn();"),
        "2\n"
    );
}

#[test]
fn tide_detach_is_refused_while_somebody_else_needs_it() {
    let scratch = plain();
    let db = Shell::new(&scratch, "a.db");
    let (mut one, mut two) = (db.session(), db.session());
    assert_eq!(two.sql("SELECT count(*) FROM t;"), "1\n");
    let answer = one.sql("SELECT tide_detach();");
    refusal(&answer, "BUSY");
    assert!(scratch.side("a.db").exists());
    assert_eq!(two.sql("INSERT INTO t VALUES (2, 'two'); SELECT count(*) FROM t;"), "2\n");
    let answer = one.sql("BEGIN; SELECT tide_detach(); ROLLBACK;");
    assert!(answer.contains("tideline: "), "{answer}");
    two.end();
    let answer = one.sql("SELECT tide_detach();");
    assert!(!answer.contains("tideline: "), "{answer}");
    assert!(!scratch.side("a.db").exists());
}

#[test]
fn killed_while_it_folds_at_the_last_close_a_database_loses_nothing() {
    let scratch = plain();
    let script = r#"
from tide import *
db = connect("a.db")
db.execute("PRAGMA synchronous = NORMAL")
n = one(db, "SELECT max(id) FROM t")
for _ in range(20):
    n += 1
    db.execute("INSERT INTO t VALUES (?, zeroblob(20000))", (n,))
    db.execute("UPDATE t SET v = randomblob(length(v)) WHERE id = ?", (n - 7,))
acknowledge("acks", n)
print("closing")
db.close()
"#;
    let mut dice = Dice::new("rest");
    let mut closed = 0;
    for _ in 0..rounds(24) {
        let mut process = python_start(&scratch, script, &[]);
        process.wait_for("closing");
        std::thread::sleep(Duration::from_micros(dice.below(8_000).into()));
        closed += u32::from(process.kill().status.success());
        let acks = String::from_utf8(scratch.read("acks")).expect("text");
        let newest = acks.lines().last().expect("an acknowledgement");
        let answer = Shell::new(&scratch, "a.db").ok("SELECT max(id), count(*) = max(id) FROM t;
            PRAGMA integrity_check; SELECT count(*) FROM tide_verify;");
        assert_eq!(answer, format!("{newest}|1\nok\n0\n"));
        assert!(plain_header(&scratch.path("a.db")));
        let stock = Shell::stock(&scratch, "a.db").ok("SELECT max(id) FROM t; PRAGMA integrity_check;");
        assert_eq!(stock, format!("{newest}\nok\n"));
    }
    println!("{closed} had closed before they were killed");
}

#[test]
fn opening_closing_and_killing_many_at_once_keeps_the_base_in_step() {
    let scratch = plain();
    let script = r#"
from tide import *
name, seed = sys.argv[1:]
import random
dice = random.Random(int(seed))
seq = 0
while not os.path.exists("stop"):
    db = connect("a.db")
    for _ in range(dice.randrange(4)):
        db.execute("INSERT INTO done VALUES (?, ?)", (name, seq + 1))
        seq += 1
        acknowledge(f"acks-{name}", seq)
    db.close()
"#;
    Shell::new(&scratch, "a.db").ok("CREATE TABLE done(writer, seq, PRIMARY KEY (writer, seq));");
    let mut dice = Dice::new("coming and going");
    let mut born = 0;
    let mut workers = Vec::new();
    for _ in 0..rounds(40) {
        while workers.len() < 3 {
            born += 1;
            workers.push(python_start(
                &scratch,
                script,
                &[&born.to_string(), &dice.below(u32::MAX).to_string()],
            ));
        }
        std::thread::sleep(Duration::from_millis(dice.below(120).into()));
        let output = workers.swap_remove(dice.pick(3)).kill();
        assert!(output.stderr.is_empty(), "{output:#?}");
    }
    scratch.write("stop", "");
    for worker in workers {
        worker.finish().ok();
    }
    // With nobody left, one more opens and closes it.
    Shell::new(&scratch, "a.db").ok("SELECT count(*) FROM done;");
    let stock = Shell::stock(&scratch, "a.db");
    assert_eq!(stock.ok("PRAGMA integrity_check;"), "ok\n");
    for writer in 1..=born {
        let acks = std::fs::read_to_string(scratch.path(&format!("acks-{writer}"))).unwrap_or_default();
        let last: u32 = acks.lines().last().map_or(0, |line| line.parse().expect("a number"));
        let answer =
            stock.ok(&format!("SELECT count(*), coalesce(max(seq), 0) FROM done WHERE writer = '{writer}';"));
        let wanted = [last, last + 1].map(|n| format!("{n}|{n}\n"));
        assert!(wanted.contains(&answer), "{writer}: {last} acknowledged, {answer} there");
    }
}

#[test]
fn a_rich_database_is_adopted_changed_shipped_and_plain_again() {
    let scratch = Scratch::new();
    Shell::stock(&scratch, "a.db").ok("
        CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, price REAL, tags TEXT, made DEFAULT 0);
        CREATE TABLE word(w TEXT PRIMARY KEY, n INTEGER) WITHOUT ROWID;
        CREATE INDEX by_price ON item(price, name);
        CREATE INDEX partial ON item(tags) WHERE tags IS NOT NULL;
        CREATE VIRTUAL TABLE text USING fts5(body);
        CREATE TABLE audit(what, at);
        CREATE TRIGGER changed AFTER UPDATE ON item BEGIN INSERT INTO audit VALUES (new.id, new.price); END;
        CREATE VIEW cheap AS SELECT * FROM item WHERE price < 10;
        INSERT INTO item(id, name, price, tags)
            SELECT value, 'item ' || value, value * 0.7 % 90, CASE WHEN value % 4 THEN 'tag' || value % 9 END
            FROM generate_series(1, 6000);
        INSERT INTO word SELECT 'word ' || value, value FROM generate_series(1, 3000);
        INSERT INTO text SELECT 'the quick fox number ' || value || ' jumps' FROM generate_series(1, 2000);");
    let db = Shell::new(&scratch, "a.db");
    let copy = Shell::new(&scratch, "copy.db");
    let mut reached = 0;
    for n in 0..6 {
        db.ok(&format!(
            "UPDATE item SET price = price + {n} WHERE id % 13 = {n};
             DELETE FROM word WHERE n % 17 = {n};
             INSERT INTO text SELECT 'more of {n} ' || value FROM generate_series(1, 200);
             BEGIN; DELETE FROM item WHERE id % 29 = {n}; INSERT INTO word VALUES ('new {n}', {n}); COMMIT;
             BEGIN; DELETE FROM item; ROLLBACK;
             INSERT INTO item(name, price) VALUES ('late {n}', {n});"
        ));
        db.ok(&format!("SELECT writefile('d{n}.tide', tide_prepare({reached})) > 0;"));
        reached = 1 + 5 * (n + 1);
        assert_eq!(copy.ok(&format!("SELECT tide_receive(readfile('d{n}.tide'));")), format!("{reached}\n"));
    }
    let head = "SELECT checksum FROM tide_log ORDER BY last_lsn DESC LIMIT 1;";
    assert_eq!(db.ok(head), copy.ok(head));
    let look = "SELECT count(*) FROM text WHERE text MATCH 'fox'; SELECT count(*) FROM cheap; SELECT count(*) FROM audit;
                PRAGMA integrity_check;";
    assert_eq!(db.ok(look), copy.ok(look));
    for name in ["a.db", "copy.db"] {
        assert!(plain_header(&scratch.path(name)));
        assert_eq!(Shell::new(&scratch, name).ok("SELECT count(*) FROM tide_verify;"), "0\n");
        assert_eq!(Shell::stock(&scratch, name).ok(look), db.ok(look));
    }
    assert_eq!(content(&bundled_stock(&scratch, "a.db")), content(&bundled_stock(&scratch, "copy.db")));
}
