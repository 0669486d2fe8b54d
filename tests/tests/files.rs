//! What SQLite does to its file: page sizes, VACUUM, backups, and what lives in a database. Each on this system's
//! SQLite and on a newer one that lacks `SECURE_DELETE`.

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};
use tideline_tests::{
    Host, SPILL, SUMS, Scratch, Shell, bundled, bundled_stock, content, filled, numbers, plain_header,
    python, script, skipped,
};

#[test]
fn page_sizes_from_512_to_65536() {
    for size in [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536] {
        Host::each(|host, scratch| {
            host.ok(scratch, "a.db", &format!("PRAGMA page_size = {size}; {}", filled(600)));
            let answer = host.ok(
                scratch,
                "a.db",
                &format!(
                    "PRAGMA page_size; {SPILL}
                 BEGIN; UPDATE t SET v = v || v; DELETE FROM t WHERE id > 300; ROLLBACK; {SUMS}
                 BEGIN; UPDATE t SET v = v || v WHERE id % 2; DELETE FROM t WHERE id > 400; COMMIT; {SUMS}"
                ),
            );
            assert_eq!(answer, format!("{size}\n600|180300|180000\nok\n400|80200|180000\nok\n"));
            assert_eq!(host.ok(scratch, "a.db", SUMS), "400|80200|180000\nok\n", "{size} reopened");
            assert_eq!(host.ok(scratch, "a.db", "SELECT tide_lsn();"), "4\n");
        });
    }
}

#[test]
fn past_one_gibibyte_the_lock_page_is_left_out() {
    if std::env::var_os("TIDELINE_QUICK").is_some() {
        skipped("a database of more than 1 GiB, in haste");
        return;
    }
    let scratch = Scratch::new();
    let db = Shell::new(&scratch, "a.db");
    db.ok(
        "PRAGMA page_size = 65536; PRAGMA synchronous = OFF; CREATE TABLE big(v BLOB); CREATE TABLE t(id, v);
           INSERT INTO big VALUES (zeroblob(530000000)); INSERT INTO big VALUES (zeroblob(530000000));
           INSERT INTO t SELECT value, hex(zeroblob(40000)) FROM generate_series(1, 400);",
    );
    let look = "SELECT count(*), sum(length(v)) FROM t; SELECT sum(length(v)) FROM big;";
    let whole = "400|32000000\n1060000000\n";
    assert_eq!(db.ok(&format!("BEGIN; UPDATE t SET v = 'x'; DELETE FROM big; ROLLBACK; {look}")), whole);
    let pages: u32 = db.ok("PRAGMA page_count;").trim_end().parse().expect("a number");
    assert!(pages > (1 << 30) / 65536 + 100, "{pages}");
    assert_eq!(db.ok("UPDATE t SET v = 'y' || v WHERE id > 200; PRAGMA integrity_check;"), "ok\n");
    let stock = Shell::stock(&scratch, "a.db");
    assert_eq!(stock.ok(&format!("{look} PRAGMA integrity_check;")), "400|32000200\n1060000000\nok\n");
}

#[test]
fn auto_vacuum_full_shrinks_the_file_with_the_commit() {
    Host::each(|host, scratch| {
        host.ok(scratch, "a.db", &format!("PRAGMA auto_vacuum = FULL; {}", filled(1500)));
        let answer = host.ok(scratch, "a.db", &format!(
            "{SPILL} BEGIN; DELETE FROM t WHERE id > 100; ROLLBACK; {SUMS} PRAGMA auto_vacuum;
             DELETE FROM t WHERE id > 100; {SUMS} SELECT page_count < 60 FROM pragma_page_count; PRAGMA freelist_count;"
        ));
        assert_eq!(answer, "1500|1125750|450000\nok\n1\n100|5050|30000\nok\n1\n0\n");
        let pages = host.ok(scratch, "a.db", "PRAGMA page_count;");
        let size = std::fs::metadata(scratch.path("a.db")).expect("the base").len();
        assert_eq!(format!("{}\n", size / 4096), pages, "at rest the file is as long as the database");
        let again = host.ok(
            scratch,
            "a.db",
            &format!("{} INSERT INTO t SELECT i + 200, i FROM n; {SUMS}", numbers(900)),
        );
        assert_eq!(again, "1000|590500|32592\nok\n");
    });
}

#[test]
fn incremental_vacuum_commits_and_rolls_back() {
    // PAGER.md 1: pages freed as leaves of the freelist are journaled with content that the snapshot hasn't.
    Host::each(|host, scratch| {
        host.ok(scratch, "a.db", &format!("PRAGMA auto_vacuum = INCREMENTAL; {}", filled(1500)));
        let answer = host.ok(scratch, "a.db", &format!(
            "{SPILL}
             BEGIN; DELETE FROM t WHERE id % 3; PRAGMA incremental_vacuum(30); ROLLBACK; {SUMS}
             DELETE FROM t WHERE id % 3;
             BEGIN; PRAGMA incremental_vacuum(20); UPDATE t SET v = 'x' || v; PRAGMA incremental_vacuum; ROLLBACK; {SUMS}
             BEGIN; PRAGMA incremental_vacuum(7); SAVEPOINT s; PRAGMA incremental_vacuum; ROLLBACK TO s; COMMIT; {SUMS}
             PRAGMA incremental_vacuum; PRAGMA freelist_count; {SUMS}"
        ));
        // The pragma answers with a row of nothing for each page, on some versions.
        let answer: String =
            answer.lines().filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect();
        let third = "500|375750|150000\nok\n";
        assert_eq!(answer, format!("1500|1125750|450000\nok\n{third}{third}0\n{third}"));
        assert_eq!(Shell::stock(scratch, "a.db").ok(SUMS), third);
    });
}

#[test]
fn vacuum_rebuilds_the_database_in_one_commit() {
    Host::each(|host, scratch| {
        host.ok(scratch, "a.db", &filled(1500));
        host.ok(scratch, "a.db", "DELETE FROM t WHERE id % 5;");
        let before = content(&bundled(scratch, "a.db"));
        let answer = host.ok(
            scratch,
            "a.db",
            &format!("{SPILL} VACUUM; PRAGMA freelist_count; {SUMS} SELECT tide_lsn();"),
        );
        assert_eq!(answer, "0\n300|225750|90000\nok\n5\n");
        assert_eq!(content(&bundled(scratch, "a.db")), before);
        let size = std::fs::metadata(scratch.path("a.db")).expect("the base").len();
        assert!(size < 300_000, "{size}");
    });
}

#[test]
fn vacuum_changes_the_page_size() {
    Host::each(|host, scratch| {
        host.ok(scratch, "a.db", &filled(800));
        for (n, size) in [512, 65536, 1024, 8192, 4096].into_iter().enumerate() {
            for spill in ["", SPILL] {
                let answer = host.ok(
                    scratch,
                    "a.db",
                    &format!("{spill} PRAGMA page_size = {size}; VACUUM; PRAGMA page_size; {SUMS}"),
                );
                assert_eq!(answer, format!("{size}\n800|320400|240000\nok\n"), "{size}, change {n}");
            }
            let answer = host.ok(
                scratch,
                "a.db",
                &format!("PRAGMA page_size; BEGIN; DELETE FROM t; ROLLBACK; {SUMS}"),
            );
            assert_eq!(answer, format!("{size}\n800|320400|240000\nok\n"), "{size} reopened");
            assert!(plain_header(&scratch.path("a.db")));
        }
        host.ok(scratch, "a.db", "PRAGMA auto_vacuum = FULL; VACUUM;");
        assert_eq!(host.ok(scratch, "a.db", "PRAGMA auto_vacuum; PRAGMA integrity_check;"), "1\nok\n");
    });
}

#[test]
fn a_reader_keeps_its_page_size_while_another_vacuums() {
    let scratch = Scratch::new();
    let db = Shell::new(&scratch, "a.db");
    db.ok(&filled(300));
    let (mut reader, mut writer) = (db.session(), db.session());
    let before = reader.sql(&format!("BEGIN; PRAGMA page_size; {SUMS}"));
    assert_eq!(writer.sql("PRAGMA page_size = 1024; VACUUM; PRAGMA page_size;"), "1024\n");
    assert_eq!(reader.sql(&format!("PRAGMA page_size; {SUMS}")), before);
    assert_eq!(reader.sql(&format!("COMMIT; {SUMS}")), "300|45150|90000\nok\n");
}

#[test]
fn vacuum_into_goes_both_ways() {
    Host::each(|host, scratch| {
        host.ok(scratch, "a.db", &filled(500));
        let wanted = content(&bundled(scratch, "a.db"));
        // A name without a VFS takes that of the main database.
        let plain = format!("file:{}?vfs=unix", scratch.path("plain.db").display());
        host.ok(scratch, "a.db", &format!("VACUUM INTO '{plain}';"));
        assert!(plain_header(&scratch.path("plain.db")) && !scratch.side("plain.db").exists());
        assert_eq!(content(&bundled_stock(scratch, "plain.db")), wanted);

        let into = format!("VACUUM INTO '{}';", scratch.uri("ours.db"));
        assert_eq!(host.sql_at(scratch, &plain, &into).as_deref(), Ok(""));
        assert!(scratch.side("ours.db").exists());
        assert_eq!(
            host.ok(scratch, "ours.db", &format!("{SUMS} SELECT tide_lsn() > 0;")),
            "500|125250|150000\nok\n1\n"
        );
        assert_eq!(content(&bundled_stock(scratch, "ours.db")), wanted);

        host.ok(scratch, "a.db", &format!("VACUUM INTO '{}';", scratch.uri("third.db")));
        assert_eq!(content(&bundled_stock(scratch, "third.db")), wanted);
    });
}

#[test]
fn backup_goes_both_ways_on_a_new_sqlite() {
    let scratch = Scratch::new();
    let mut ours = bundled(&scratch, "a.db");
    script(&ours, &filled(700)).expect("filled");
    let mut plain = bundled_stock(&scratch, "plain.db");
    run_backup(&ours, &mut plain);
    assert_eq!(content(&plain), content(&ours));
    script(&plain, "DELETE FROM t WHERE id % 2; CREATE TABLE more(x); INSERT INTO more VALUES (1)")
        .expect("changed");
    run_backup(&plain, &mut ours);
    assert_eq!(content(&ours), content(&plain));
    assert_eq!(
        script(&ours, &format!("{SUMS} SELECT tide_lsn()")).expect("sums"),
        "350|122850|105000\nok\n4\n"
    );
    drop(ours);
    assert_eq!(content(&bundled_stock(&scratch, "a.db")), content(&plain));
}

fn run_backup(from: &Connection, to: &mut Connection) {
    let backup = Backup::new(from, to).expect("a backup begun");
    while backup.step(7).expect("a step") == StepResult::More {}
}

#[test]
fn a_backup_that_is_aborted_leaves_its_target_as_it_was() {
    for (from, to) in [("ours", "plain"), ("plain", "ours"), ("ours", "ours")] {
        let scratch = Scratch::new();
        let open = |kind: &str, name: &str| {
            if kind == "ours" { bundled(&scratch, name) } else { bundled_stock(&scratch, name) }
        };
        let source = open(from, "source.db");
        script(&source, &filled(700)).expect("filled");
        let mut target = open(to, "target.db");
        script(&target, "CREATE TABLE old(a); INSERT INTO old VALUES (7);").expect("filled");
        script(&target, &format!("{} INSERT INTO old SELECT i FROM n;", numbers(5000))).expect("filled");
        let before = content(&target);
        for steps in [1, 3, 20] {
            let backup = Backup::new(&source, &mut target).expect("a backup begun");
            for _ in 0..steps {
                assert_eq!(backup.step(2).expect("a step"), StepResult::More);
            }
            drop(backup);
            assert_eq!(content(&target), before, "{from} to {to}, {steps} steps");
            let sound = script(
                &target,
                "PRAGMA integrity_check; INSERT INTO old VALUES (-1); DELETE FROM old WHERE a = -1",
            );
            sound.expect("a usable target");
        }
        assert_eq!(script(&source, SUMS).expect("the source"), "700|245350|210000\nok\n");
    }
}

#[test]
fn backup_goes_both_ways_in_python_and_follows_a_writer() {
    let script = r#"
from tide import *
ours, plain = connect("a.db"), sqlite3.connect("plain.db", isolation_level=None)
ours.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
ours.execute("INSERT INTO t SELECT value, hex(zeroblob(400)) FROM json_each(?)", (json.dumps(list(range(1000))),))
writer = connect("a.db")
steps = []

def progress(status, remaining, total):
    if len(steps) < 5:
        writer.execute("UPDATE t SET v = 'changed' WHERE id = ?", (len(steps),))
    steps.append(remaining)

ours.backup(plain, pages=9, progress=progress)
rows = "SELECT * FROM t ORDER BY id"
assert plain.execute(rows).fetchall() == ours.execute(rows).fetchall()
assert one(plain, "PRAGMA integrity_check") == "ok"
plain.execute("DELETE FROM t WHERE id % 2")
back = connect("back.db")
plain.backup(back)
assert back.execute(rows).fetchall() == plain.execute(rows).fetchall()
lsn = one(back, "SELECT tide_lsn()")
assert lsn >= 1

class Stop(Exception):
    pass

def stop(status, remaining, total):
    raise Stop

try:
    ours.backup(back, pages=3, progress=stop)
except Stop:
    pass
assert back.execute(rows).fetchall() == plain.execute(rows).fetchall()
assert one(back, "SELECT tide_lsn()") == lsn
assert one(back, "PRAGMA integrity_check") == "ok"
"#;
    python(&Scratch::new(), script, &[]).ok();
}

#[test]
fn temporary_files_and_tables_are_none_of_the_store() {
    Host::each(|host, scratch| {
        host.ok(scratch, "a.db", &filled(1500));
        let answer = host.ok(
            scratch,
            "a.db",
            &format!(
                "PRAGMA temp_store = FILE; {SPILL} PRAGMA temp.cache_size = 5;
             CREATE TEMP TABLE x AS SELECT v, id FROM t ORDER BY v, id DESC;
             CREATE INDEX temp.by_id ON x(id);
             BEGIN; UPDATE x SET v = v || v; SAVEPOINT s; DELETE FROM x; ROLLBACK TO s; ROLLBACK;
             SELECT count(*), sum(length(v)) FROM x;
             SELECT count(*) FROM (SELECT DISTINCT v || id FROM t UNION SELECT v FROM x ORDER BY 1 DESC);
             SELECT tide_lsn(); DROP TABLE x;"
            ),
        );
        assert_eq!(answer, "1500|450000\n3000\n3\n");
        assert_eq!(
            host.ok(scratch, "a.db", &format!("{SUMS} SELECT count(*) FROM sqlite_schema;")),
            "1500|1125750|450000\nok\n2\n"
        );
    });
}

#[test]
fn header_fields_and_the_schema_version_are_kept() {
    Host::each(|host, scratch| {
        host.ok(
            scratch,
            "a.db",
            "PRAGMA encoding = 'UTF-16be'; PRAGMA user_version = 5; PRAGMA application_id = 1234;
            CREATE TABLE t(v); INSERT INTO t VALUES ('ä');",
        );
        let look = "PRAGMA encoding; PRAGMA user_version; PRAGMA application_id; SELECT v FROM t;";
        let answer = host.ok(scratch, "a.db", look);
        assert_eq!(answer, "UTF-16be\n5\n1234\nä\n");
        let version = host.ok(scratch, "a.db", "PRAGMA schema_version;");
        host.ok(scratch, "a.db", "CREATE TABLE u(v);");
        assert_ne!(host.ok(scratch, "a.db", "PRAGMA schema_version;"), version);
        host.ok(scratch, "a.db", "BEGIN; PRAGMA user_version = 6; ROLLBACK;");
        assert_eq!(Shell::stock(scratch, "a.db").ok(look), answer);
    });
}

#[test]
fn virtual_tables_live_in_a_store() {
    Host::each(|host, scratch| {
        host.ok(
            scratch,
            "a.db",
            &format!(
                "CREATE VIRTUAL TABLE text USING fts5(body);
             {} INSERT INTO text SELECT 'the fox number ' || i || ' jumps' FROM n;
             BEGIN; DELETE FROM text; ROLLBACK; DELETE FROM text WHERE rowid % 3 = 0;",
                numbers(900)
            ),
        );
        let answer = host.ok(
            scratch,
            "a.db",
            "SELECT count(*) FROM text WHERE text MATCH 'fox'; PRAGMA integrity_check;
            INSERT INTO text(text) VALUES ('optimize'); INSERT INTO text(text) VALUES ('integrity-check');
            SELECT count(*) FROM text WHERE text MATCH 'jumps';",
        );
        assert_eq!(answer, "600\nok\n600\n");
    });
}

#[test]
fn housekeeping_statements_work() {
    Host::each(|host, scratch| {
        host.ok(scratch, "a.db", &filled(300));
        let answer = host.ok(scratch, "a.db", &format!(
            "ANALYZE; REINDEX; PRAGMA optimize; PRAGMA quick_check; PRAGMA foreign_key_check; PRAGMA shrink_memory;
             EXPLAIN QUERY PLAN SELECT 1; {SUMS}"
        ));
        assert!(answer.starts_with("ok\n") && answer.ends_with("300|45150|90000\nok\n"), "{answer}");
        // PAGER.md 12: explained, a PRAGMA does nothing, and harms nothing.
        for pragma in
            ["journal_mode = delete", "wal_checkpoint", "locking_mode = exclusive", "synchronous = off"]
        {
            host.ok(scratch, "a.db", &format!("EXPLAIN PRAGMA {pragma};"));
        }
        assert_eq!(host.ok(scratch, "a.db", SUMS), "300|45150|90000\nok\n");
    });
}

#[test]
fn a_handle_to_a_blob_reads_and_writes() {
    let scratch = Scratch::new();
    let db = bundled(&scratch, "a.db");
    script(&db, "CREATE TABLE t(v); INSERT INTO t VALUES (zeroblob(300000));").expect("filled");
    let mut blob = db.blob_open("main", "t", "v", 1, false).expect("a handle");
    blob.write_all_at(b"tide", 200_000).expect("written");
    drop(blob);
    assert_eq!(script(&db, "SELECT instr(v, x'74696465'), tide_lsn() FROM t").expect("read"), "200001|3\n");
}

#[test]
fn pages_that_are_flushed_before_the_commit_are_part_of_it_or_never_were() {
    let scratch = Scratch::new();
    let (db, other) = (bundled(&scratch, "a.db"), bundled(&scratch, "a.db"));
    script(&db, &filled(400)).expect("filled");
    let before = content(&db);
    for end in ["ROLLBACK TO s; COMMIT", "ROLLBACK", "COMMIT"] {
        script(&db, "BEGIN; SAVEPOINT s; UPDATE t SET v = 'x' || v").expect("a transaction");
        db.cache_flush().expect("flushed");
        script(&db, "DELETE FROM t WHERE id % 3 = 0").expect("more of it");
        db.cache_flush().expect("flushed again");
        assert_eq!(content(&other), before, "{end}");
        script(&db, end).unwrap_or_else(|error| panic!("{end}: {error}"));
        assert_eq!(content(&other), content(&db), "{end}");
        assert_eq!(content(&db) == before, end != "COMMIT", "{end}");
    }
    assert_eq!(script(&other, "PRAGMA integrity_check; SELECT count(*) FROM t").expect("sound"), "ok\n267\n");
}

#[test]
fn a_database_with_reserved_bytes_is_adopted_and_keeps_them() {
    let scratch = Scratch::new();
    let stock = Shell::stock(&scratch, "a.db");
    stock.ok(&format!(".filectrl reserve_bytes 24\nVACUUM; {}", filled(400)));
    assert_eq!(scratch.read("a.db")[20], 24);
    let db = Shell::new(&scratch, "a.db");
    assert_eq!(db.ok(&format!("{SUMS} SELECT tide_lsn();")), "400|80200|120000\nok\n1\n");
    db.ok(&format!(
        "{SPILL} UPDATE t SET v = v || v WHERE id > 200; BEGIN; DELETE FROM t; ROLLBACK; VACUUM;
         SELECT writefile('delta.tide', tide_prepare(0));"
    ));
    let copy = Shell::new(&scratch, "copy.db");
    assert_eq!(
        copy.ok(&format!("SELECT tide_receive(readfile('delta.tide')); {SUMS}")),
        "3\n400|80200|180000\nok\n"
    );
    for name in ["a.db", "copy.db"] {
        assert_eq!(scratch.read(name)[20], 24, "{name}");
        assert_eq!(Shell::stock(&scratch, name).ok(SUMS), "400|80200|180000\nok\n", "{name}");
    }
}

#[test]
fn the_commands_of_the_shell_that_copy_databases_work() {
    let scratch = Scratch::new();
    let db = Shell::new(&scratch, "a.db");
    db.ok(&filled(300));
    let wanted = content(&bundled(&scratch, "a.db"));
    db.ok(".backup plain.db\n.clone clone.db\n.output dump.sql\n.dump\n");
    Shell::new(&scratch, "restored.db").ok("CREATE TABLE old(a);\n.restore plain.db\n");
    Shell::new(&scratch, "dumped.db").ok(".read dump.sql\n");
    for name in ["plain.db", "clone.db", "restored.db", "dumped.db"] {
        let copy = bundled_stock(&scratch, name);
        assert_eq!(script(&copy, SUMS).expect("sums"), "300|45150|90000\nok\n", "{name}");
        assert_eq!(content(&copy), wanted, "{name}");
    }
    for name in ["restored.db", "dumped.db"] {
        assert_eq!(Shell::new(&scratch, name).ok("SELECT count(*) FROM tide_verify;"), "0\n", "{name}");
    }
}

#[test]
fn an_image_of_the_database_in_memory_is_a_plain_one() {
    let script = r#"
from tide import *
db = connect("a.db")
if not hasattr(db, "serialize"):
    sys.exit()
db.execute("CREATE TABLE t(v)")
db.executemany("INSERT INTO t VALUES (?)", [(bytes(n),) for n in range(500)])
image = db.serialize()
with open("plain.db", "wb") as file:
    file.write(image)
plain = sqlite3.connect("plain.db")
assert one(plain, "PRAGMA integrity_check") == "ok" and one(plain, "SELECT sum(length(v)) FROM t") == 124750
# A store is let go of when a connection takes an image in its place.
db.deserialize(image)
db.execute("DELETE FROM t")
refused("ARGUMENT", lambda: one(db, "SELECT tide_lsn()"))
assert one(connect("a.db"), "SELECT count(*) FROM t") == 500
"#;
    Host::each(|host, scratch| {
        host.python(scratch, script, &[]).ok();
    });
}
