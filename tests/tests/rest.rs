//! The base: adopting plain databases, being plain again at rest, what stock SQLite meets in between, and what it
//! changed.

use std::fs::{File, FileTimes};
use std::time::Duration;

use tideline_tests::{
    Dice, Host, LOCKED, NOT_A_DATABASE, Scratch, Shell, behind, bundled, bundled_stock, content,
    each_plain_store, files_below, left_behind, plain_header, plain_store, python, python_start, refusal,
    rounds, status,
};

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
    let complaint = Shell::new(&scratch, "a.db").run("CREATE TABLE t(a);").stderr;
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

// PAGER.md 10, and the tests that follow.
#[test]
fn while_the_base_is_behind_stock_sqlite_is_refused() {
    each_plain_store(|db, stock, scratch| {
        let sessions = behind(db);
        assert_eq!(scratch.read("a.db")[19], 0x54);
        for sql in
            ["SELECT count(*) FROM t;", "INSERT INTO t VALUES (9, 'stock');", "PRAGMA integrity_check;"]
        {
            let output = stock.run(sql);
            assert!(output.stderr.contains(NOT_A_DATABASE), "{sql} {output:#?}");
        }
        let (reader, writer) = sessions;
        writer.end();
        reader.end();
        assert_eq!(stock.ok("SELECT group_concat(v) FROM t; PRAGMA integrity_check;"), "one,two\nok\n");
    });
}

#[test]
fn while_the_base_is_behind_a_stock_connection_that_was_open_already_is_refused() {
    each_plain_store(|db, stock, _| {
        let mut stock = stock.session();
        assert_eq!(stock.sql("SELECT v FROM t;"), "one\n");
        let (reader, mut writer) = behind(db);
        assert!(stock.sql("SELECT v FROM t;").contains(NOT_A_DATABASE));
        assert!(stock.sql("INSERT INTO t VALUES (9, 'stock');").contains(NOT_A_DATABASE));
        assert!(stock.sql("BEGIN IMMEDIATE;").contains(NOT_A_DATABASE));
        assert_eq!(writer.sql("INSERT INTO t VALUES (3, 'three'); PRAGMA integrity_check;"), "ok\n");
        reader.end();
        writer.end();
        assert_eq!(
            stock.sql("SELECT group_concat(v) FROM t; PRAGMA integrity_check;"),
            "one,two,three\nok\n"
        );
        assert_eq!(stock.sql("INSERT INTO t VALUES (4, 'four');"), "");
        assert_eq!(db.ok("SELECT group_concat(v), tide_lsn() FROM t;"), "one,two,three,four|4\n");
    });
}

#[test]
fn while_tideline_has_it_open_stock_sqlite_does_not_write() {
    each_plain_store(|db, stock, _| {
        let mut ours = db.session();
        assert_eq!(ours.sql("SELECT count(*) FROM t;"), "1\n");
        let mut stock = stock.session();
        let answer = stock.sql("INSERT INTO t VALUES (2, 'stock');");
        assert!(answer.contains(LOCKED) || answer.contains(NOT_A_DATABASE), "{answer}");
        ours.end();
        assert_eq!(stock.sql("INSERT INTO t VALUES (2, 'stock');"), "");
        assert_eq!(db.ok("SELECT group_concat(v), tide_lsn() FROM t;"), "one,stock|2\n");
    });
}

#[test]
fn while_stock_sqlite_reads_nothing_is_marked_beneath_it() {
    each_plain_store(|db, stock, _| {
        let mut ours = db.session();
        assert_eq!(ours.sql("SELECT count(*) FROM t;"), "1\n");
        let mut stock = stock.session();
        assert_eq!(stock.sql("BEGIN; SELECT v FROM t;"), "one\n");
        let answer = ours.sql(".timeout 300\nINSERT INTO t VALUES (2, 'two');");
        assert!(answer.contains(LOCKED), "{answer}");
        assert_eq!(stock.sql("SELECT v FROM t;"), "one\n");
        assert_eq!(stock.sql("COMMIT;"), "");
        assert_eq!(ours.sql("INSERT INTO t VALUES (2, 'two'); SELECT count(*) FROM t;"), "2\n");
    });
}

#[test]
fn a_stock_transaction_under_way_is_not_run_over() {
    each_plain_store(|db, stock, _| {
        let mut stock = stock.session();
        assert_eq!(stock.sql("BEGIN IMMEDIATE; INSERT INTO t VALUES (2, 'stock');"), "");
        let output = db.run(".timeout 200\nINSERT INTO t VALUES (3, 'ours');");
        assert!(output.stderr.contains(LOCKED) || output.stderr.contains("tideline: BUSY"), "{output:#?}");
        assert_eq!(stock.sql("COMMIT; SELECT group_concat(v) FROM t;"), "one,stock\n");
        stock.end();
        assert_eq!(
            db.ok("INSERT INTO t VALUES (3, 'ours'); SELECT group_concat(v) FROM t; PRAGMA integrity_check;"),
            "one,stock,ours\nok\n"
        );
    });
}

#[test]
fn after_a_kill_stock_is_refused_until_tideline_has_opened_it_once() {
    each_plain_store(|db, stock, scratch| {
        let (reader, writer) = behind(db);
        reader.kill();
        writer.kill();
        assert!(stock.error("SELECT count(*) FROM t;").contains(NOT_A_DATABASE));
        assert_eq!(db.ok("SELECT group_concat(v), tide_lsn() FROM t;"), "one,two|2\n");
        assert!(plain_header(&scratch.path("a.db")));
        assert_eq!(stock.ok("SELECT group_concat(v) FROM t; PRAGMA integrity_check;"), "one,two\nok\n");
    });
}

#[test]
fn the_last_close_folds_what_killed_processes_left() {
    each_plain_store(|db, stock, scratch| {
        for n in 0..5 {
            db.run(&format!(
                "INSERT INTO t(v) VALUES ('{n}'); BEGIN; DELETE FROM t;\n.shell kill -9 $PPID\n"
            ))
            .killed();
        }
        assert_eq!(db.ok("SELECT count(*) FROM t;"), "6\n");
        assert!(plain_header(&scratch.path("a.db")));
        assert_eq!(stock.ok("SELECT group_concat(v) FROM t; PRAGMA integrity_check;"), "one,0,1,2,3,4\nok\n");
    });
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
    let scratch = plain_store();
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
    let scratch = plain_store();
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
    let scratch = plain_store();
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
    let scratch = plain_store();
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
    let scratch = plain_store();
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
    let scratch = plain_store();
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
    let before = files_below(&scratch.side("a.db")).len();
    let output =
        Shell::new(&scratch, "a.db").going_on().run("SELECT count(*) FROM sqlite_schema; CREATE TABLE n(a);");
    assert!(output.stderr.contains("tideline: "), "{output:#?}");
    assert!(files_below(&scratch.side("a.db")).len() >= before, "nothing is thrown away");
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
    let scratch = plain_store();
    let db = Shell::new(&scratch, "a.db");
    db.ok("INSERT INTO t VALUES (2, 'two');");
    std::fs::remove_dir_all(scratch.side("a.db")).expect("the side folder deleted");
    assert_eq!(
        db.ok("SELECT group_concat(v), tide_lsn() FROM t; SELECT count(*) FROM tide_verify;"),
        "one,two|1\n0\n"
    );
}

#[test]
fn killed_while_it_folds_at_the_last_close_a_database_loses_nothing() {
    let scratch = plain_store();
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
            PRAGMA integrity_check; SELECT * FROM tide_verify;");
        assert_eq!(answer, format!("{newest}|1\nok\n"));
        assert!(plain_header(&scratch.path("a.db")));
        let stock = Shell::stock(&scratch, "a.db").ok("SELECT max(id) FROM t; PRAGMA integrity_check;");
        assert_eq!(stock, format!("{newest}\nok\n"));
    }
    println!("{closed} had closed before they were killed");
}

#[test]
fn opening_closing_and_killing_many_at_once_keeps_the_base_in_step() {
    let scratch = plain_store();
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
