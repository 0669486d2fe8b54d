//! All of SQLite's file behaviour: each on this system's SQLite and on a newer one that lacks `SECURE_DELETE`.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};
use tideline_tests::{
    Dice, Host, Scratch, Shell, bundled, bundled_at, bundled_stock, content, plain_header, python, refusal,
    rounds, script,
};

const LOCKED: &str = "database is locked";

/// The head of a statement that has the numbers `i` from 1 to `n` in a table `n`.
fn numbers(n: u32) -> String {
    format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {n})")
}

/// A table `t` with this many rows of some hundred bytes.
fn filled(rows: u32) -> String {
    format!(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); CREATE INDEX by_v ON t(v);
         {} INSERT INTO t SELECT i, printf('%0300d', i * 7919 % 10007) FROM n;",
        numbers(rows)
    )
}

/// Makes the transactions that follow spill.
const SPILL: &str = "PRAGMA cache_size = 10; PRAGMA cache_spill = 1;";

const SUMS: &str = "SELECT count(*), sum(id), sum(length(v)) FROM t; PRAGMA integrity_check;";

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
        println!("SKIPPED: a database of more than 1 GiB, in haste");
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
        host.ok(scratch, "a.db", &format!("VACUUM INTO '{}';", scratch.path("plain.db").display()));
        assert!(plain_header(&scratch.path("plain.db")) && !scratch.side("plain.db").exists());
        assert_eq!(content(&bundled_stock(scratch, "plain.db")), wanted);

        let plain = format!("file:{}", scratch.path("plain.db").display());
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
fn a_database_without_a_name_or_in_memory_is_temporary() {
    Host::each(|host, scratch| {
        for uri in ["file:?vfs=tideline", "file::memory:?vfs=tideline", "file:x.db?vfs=tideline&mode=memory"]
        {
            let answer = host.sql_at(
                scratch,
                uri,
                &format!("{SPILL} {} BEGIN; DELETE FROM t; ROLLBACK; {SUMS}", filled(300)),
            );
            assert_eq!(answer.as_deref(), Ok("300|45150|90000\nok\n"), "{uri}");
        }
        assert!(!scratch.path("x.db").exists());
    });
}

#[test]
fn mode_ro_reads_and_does_not_write() {
    Host::each(|host, scratch| {
        host.ok(scratch, "a.db", &filled(50));
        let before = scratch.read("a.db");
        let uri = scratch.uri_with("a.db", "mode=ro");
        let answer =
            host.sql_at(scratch, &uri, &format!("{SUMS} SELECT tide_lsn(); SELECT count(*) FROM tide_log;"));
        assert_eq!(answer.as_deref(), Ok("50|1275|15000\nok\n3\n3\n"));
        for sql in ["DELETE FROM t;", "CREATE TABLE u(a);", "VACUUM;"] {
            let error = host.sql_at(scratch, &uri, sql).expect_err("read-only");
            assert!(error.contains("readonly"), "{sql} {error}");
        }
        assert_eq!(scratch.read("a.db"), before);
        let missing =
            host.sql_at(scratch, &scratch.uri_with("none.db", "mode=ro"), "SELECT 1 FROM sqlite_schema;");
        missing.expect_err("there is no such database");
        let missing =
            host.sql_at(scratch, &scratch.uri_with("none.db", "mode=rw"), "SELECT 1 FROM sqlite_schema;");
        missing.expect_err("there is no such database");
        assert!(!scratch.path("none.db").exists() && !scratch.side("none.db").exists());
    });
}

#[test]
fn a_reader_that_may_not_write_follows_a_writer() {
    let scratch = Scratch::new();
    Shell::new(&scratch, "a.db").ok("CREATE TABLE t(v); INSERT INTO t VALUES (1);");
    let mut reader = Shell::at(&scratch, &scratch.uri_with("a.db", "mode=ro")).session();
    let mut writer = Shell::new(&scratch, "a.db").session();
    assert_eq!(reader.sql("BEGIN; SELECT sum(v) FROM t;"), "1\n");
    writer.sql("INSERT INTO t VALUES (2);");
    assert_eq!(reader.sql("SELECT sum(v) FROM t; COMMIT; SELECT sum(v) FROM t;"), "1\n3\n");
}

#[test]
fn in_a_folder_that_may_not_be_written_a_database_is_read() {
    let scratch = Scratch::new();
    Shell::new(&scratch, "a.db").ok("CREATE TABLE t(v); INSERT INTO t VALUES (1), (2);");
    Shell::stock(&scratch, "plain.db").ok("CREATE TABLE t(v); INSERT INTO t VALUES (1), (2);");
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("other permissions");
    };
    open(scratch.folder(), 0o555);
    // Permissions don't bind root: the script becomes nobody where it can.
    let script = r#"
from tide import *
load()
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
for name in ("a.db", "plain.db"):
    for parameters in ({}, {"mode": "ro"}):
        db = connect(name, timeout=1, **parameters)
        assert one(db, "SELECT sum(v) FROM t") == 3, name
        fails(lambda: db.execute("INSERT INTO t VALUES (3)"), "readonly")
        assert one(db, "SELECT sum(v) FROM t") == 3, name
        db.close()
fails(lambda: connect("new.db", timeout=1).execute("CREATE TABLE t(a)"))
"#;
    let output = python(&scratch, script, &[]);
    open(scratch.folder(), 0o755);
    output.ok();
    assert_eq!(Shell::new(&scratch, "a.db").ok("INSERT INTO t VALUES (3); SELECT sum(v) FROM t;"), "6\n");
    assert_eq!(Shell::stock(&scratch, "plain.db").ok("SELECT sum(v) FROM t;"), "3\n");
}

#[test]
fn new_files_take_the_mode_of_the_base() {
    for mode in [0o600, 0o640, 0o664] {
        let scratch = Scratch::new();
        Shell::stock(&scratch, "a.db").ok("CREATE TABLE t(v);");
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(scratch.path("a.db"), permissions).expect("other permissions");
        Shell::new(&scratch, "a.db").ok("INSERT INTO t VALUES (1);");
        let mode_of = |path| std::fs::metadata(path).expect("a file").permissions().mode() & 0o777;
        assert_eq!(mode_of(scratch.path("a.db")), mode);
        let readers = (mode & 0o444) >> 2;
        assert_eq!(mode_of(scratch.side("a.db")), mode | readers, "the folder");
        for entry in std::fs::read_dir(scratch.side("a.db")).expect("the side folder") {
            let path = entry.expect("an entry").path();
            let wanted = if path.is_dir() { mode | readers } else { mode };
            assert_eq!(mode_of(path.clone()), wanted, "{}", path.display());
        }
    }
}

#[test]
fn every_locking_mode_works_and_lets_go_in_the_end() {
    for mode in ["exclusive", "normal"] {
        for journal in ["", "PRAGMA journal_mode = wal;", "PRAGMA journal_mode = delete;"] {
            Host::each(|host, scratch| {
                let answer = host.ok(
                    scratch,
                    "a.db",
                    &format!(
                        "PRAGMA locking_mode = {mode}; {journal} {} {SPILL}
                     BEGIN; DELETE FROM t; ROLLBACK; DELETE FROM t WHERE id > 10; {SUMS} SELECT tide_lsn();",
                        filled(300)
                    ),
                );
                assert!(answer.ends_with("10|55|3000\nok\n4\n"), "{mode}: {answer}");
                assert_eq!(host.ok(scratch, "a.db", SUMS), "10|55|3000\nok\n", "{mode}");
            });
        }
    }
}

#[test]
fn an_exclusive_connection_that_fell_stale_does_not_overwrite() {
    let scratch = Scratch::new();
    let db = Shell::new(&scratch, "a.db");
    db.ok("CREATE TABLE t(v); INSERT INTO t VALUES (0);");
    let (mut exclusive, mut other) = (db.session(), db.session());
    exclusive.sql("PRAGMA locking_mode = exclusive;");
    let (mut wanted, mut refused) = (0, 0);
    for _ in 0..20 {
        for session in [&mut exclusive, &mut other] {
            if session.sql("UPDATE t SET v = v + 1;").is_empty() { wanted += 1 } else { refused += 1 }
        }
        exclusive.sql("SELECT v FROM t;");
    }
    exclusive.end();
    other.end();
    println!("{wanted} updates done, {refused} refused");
    assert!(wanted >= 20, "one of them at least can always write");
    assert_eq!(db.ok("SELECT v FROM t; PRAGMA integrity_check;"), format!("{wanted}\nok\n"));
    assert_eq!(db.ok("SELECT tide_lsn();"), format!("{}\n", wanted + 2));
}

#[test]
fn begin_exclusive_does_not_shut_readers_out() {
    let scratch = Scratch::new();
    let db = Shell::new(&scratch, "a.db");
    db.ok("CREATE TABLE t(v); INSERT INTO t VALUES (1);");
    for begin in ["BEGIN IMMEDIATE;", "BEGIN EXCLUSIVE;"] {
        let (mut writer, mut reader) = (db.session(), db.session());
        assert_eq!(writer.sql(&format!("{begin} INSERT INTO t VALUES (2);")), "");
        assert_eq!(reader.sql("SELECT sum(v) FROM t;"), "1\n", "{begin}");
        assert!(reader.sql(begin).contains(LOCKED), "{begin}");
        writer.sql("ROLLBACK;");
        assert_eq!(reader.sql(&format!("{begin} SELECT sum(v) FROM t; ROLLBACK;")), "1\n");
    }
}

#[test]
fn every_level_of_synchronous_is_taken() {
    Host::each(|host, scratch| {
        host.ok(scratch, "a.db", "CREATE TABLE t(v);");
        for (n, level) in ["OFF", "NORMAL", "FULL", "EXTRA"].into_iter().enumerate() {
            let answer = host.ok(
                scratch,
                "a.db",
                &format!(
                "PRAGMA synchronous = {level}; INSERT INTO t VALUES ({n}); BEGIN; DELETE FROM t; ROLLBACK;
                 PRAGMA synchronous; SELECT count(*) FROM t;"
            ),
            );
            assert_eq!(answer, format!("{n}\n{}\n", n + 1));
        }
        assert_eq!(
            host.ok(scratch, "a.db", "PRAGMA synchronous;"),
            "2\n",
            "the default that a WAL database has here"
        );
    });
}

#[test]
fn mapped_pages_are_right_inside_and_outside_of_transactions() {
    // PAGER.md 8: SQLite fetches pages also inside a write transaction, where a spilled page hides the snapshot's.
    for size in ["0", "100000", "1000000000"] {
        Host::each(|host, scratch| {
            let map = format!("PRAGMA mmap_size = {size};");
            host.ok(scratch, "a.db", &format!("{map} {}", filled(2000)));
            let answer = host.ok(scratch, "a.db", &format!(
                "{SPILL} {SUMS}
                 BEGIN; UPDATE t SET v = 'x' || v; {SUMS} SELECT count(*) FROM t WHERE v LIKE 'x%';
                 SAVEPOINT s; UPDATE t SET v = 'y' || v WHERE id % 2; SELECT count(*) FROM t WHERE v LIKE 'yx%';
                 ROLLBACK TO s; SELECT count(*) FROM t WHERE v LIKE 'yx%'; {SUMS}
                 ROLLBACK; {SUMS}
                 DELETE FROM t WHERE id > 1000; {SUMS}
                 {} INSERT INTO t SELECT i + 5000, 'new' FROM n; {SUMS}",
                numbers(3000)
            ));
            // `mmap_size` set in the script before is not kept: this one has the default.
            let one = "2000|2001000|600000\nok\n";
            let two = "2000|2001000|602000\nok\n";
            assert_eq!(
                answer,
                format!(
                    "{one}{two}2000\n1000\n0\n{two}{one}1000|500500|300000\nok\n4000|20002000|309000\nok\n"
                ),
                "mmap_size {size}"
            );
            let mapped = host.ok(scratch, "a.db", &format!("{map} {SUMS}"));
            assert!(mapped.ends_with("4000|20002000|309000\nok\n"), "{mapped}");
        });
    }
}

#[test]
fn mapping_is_on_by_default_for_ours_alone() {
    Host::each(|host, scratch| {
        let mapped = host.ok(scratch, "a.db", "PRAGMA mmap_size;");
        assert!(mapped.trim_end().parse::<u64>().is_ok_and(|bytes| bytes > 0), "{mapped}");
        let plain = format!("file:{}", scratch.path("plain.db").display());
        let ask = "CREATE TABLE t(v); PRAGMA mmap_size;";
        let with = host.sql_at(scratch, &plain, ask).expect("an answer");
        std::fs::remove_file(scratch.path("plain.db")).expect("deleted");
        let without = match host {
            Host::Shell => Shell::stock(scratch, "plain.db").ok(ask),
            Host::Bundled => script(&bundled_stock(scratch, "plain.db"), ask).expect("an answer"),
        };
        assert_eq!(with, without, "plain databases keep what they have");
    });
}

#[test]
fn connections_with_a_shared_cache_share_a_store() {
    let scratch = Scratch::new();
    let uri = scratch.uri_with("a.db", "cache=shared");
    let open = || bundled_at(&uri).expect("a connection");
    let (one, two, apart) = (open(), open(), bundled(&scratch, "a.db"));
    script(&one, &filled(400)).expect("filled");
    assert_eq!(script(&two, SUMS).expect("read"), "400|80200|120000\nok\n");
    script(&two, &format!("{SPILL} BEGIN; DELETE FROM t WHERE id % 2;")).expect("a transaction");
    let error = script(&one, "SELECT count(*) FROM t").expect_err("the table is locked in the cache");
    assert!(error.to_string().contains("locked"), "{error}");
    assert_eq!(script(&apart, SUMS).expect("read"), "400|80200|120000\nok\n");
    script(&two, "ROLLBACK").expect("rolled back");
    script(&apart, "DELETE FROM t WHERE id > 10").expect("changed");
    assert_eq!(script(&one, &format!("{SUMS} SELECT tide_lsn()")).expect("read"), "10|55|3000\nok\n4\n");
    drop(one);
    script(&two, "INSERT INTO t VALUES (11, 'x')").expect("changed");
    assert_eq!(script(&apart, "SELECT count(*), tide_lsn() FROM t").expect("read"), "11|5\n");
}

#[test]
fn uris_with_odd_characters_are_understood() {
    Host::each(|host, scratch| {
        for name in [
            "a b.db",
            "per%cent.db",
            "hash#.db",
            "question?.db",
            "amp&ersand=.db",
            "äöü 日本 🌊.db",
            "+plus.db",
            "x",
        ] {
            host.ok(scratch, name, "CREATE TABLE t(v); INSERT INTO t VALUES (1);");
            assert!(scratch.path(name).exists(), "{name}");
            assert_eq!(host.ok(scratch, name, "SELECT v, tide_lsn() FROM t;"), "1|2\n", "{name}");
        }
        let path = scratch.path("abs.db").display().to_string();
        for start in ["file://", "file://localhost"] {
            let answer = host.sql_at(
                scratch,
                &format!("{start}{path}?vfs=tideline"),
                "CREATE TABLE IF NOT EXISTS t(v);
                SELECT tide_lsn();",
            );
            assert_eq!(answer.as_deref(), Ok("1\n"), "{start}");
        }
        host.sql_at(scratch, &format!("file:{path}?vfs=nothing"), "SELECT 1;").expect_err("no such VFS");
        let error =
            host.sql_at(scratch, &scratch.uri_with("a b.db", "tide=high"), "SELECT 1;").expect_err("unknown");
        assert!(refusal(&error, "ARGUMENT").contains("tide"), "{error}");
    });
}

#[test]
fn a_symbolic_link_leads_to_the_same_store() {
    let scratch = Scratch::new();
    std::fs::create_dir(scratch.path("real")).expect("a folder");
    Shell::new(&scratch, "real/a.db").ok("CREATE TABLE t(v); INSERT INTO t VALUES (1);");
    symlink(scratch.path("real/a.db"), scratch.path("link.db")).expect("a link");
    let mut direct = Shell::new(&scratch, "real/a.db").session();
    assert_eq!(direct.sql("SELECT v FROM t;"), "1\n");
    let mut linked = Shell::new(&scratch, "link.db").session();
    assert_eq!(linked.sql("INSERT INTO t VALUES (2); SELECT tide_lsn();"), "3\n");
    assert_eq!(direct.sql("SELECT sum(v), tide_lsn() FROM t;"), "3|3\n");
    assert!(!scratch.side("link.db").exists());
}

#[test]
fn nolock_is_refused() {
    Host::each(|host, scratch| {
        host.ok(scratch, "a.db", "CREATE TABLE t(v);");
        let error = host
            .sql_at(scratch, &scratch.uri_with("a.db", "nolock=1"), "SELECT * FROM t;")
            .expect_err("refused");
        assert!(refusal(&error, "ARGUMENT").contains("nolock"), "{error}");
    });
}

#[test]
fn immutable_reads_what_was_there_when_it_was_opened() {
    let scratch = Scratch::new();
    let db = Shell::new(&scratch, "a.db");
    db.ok(&filled(300));
    let mut immutable = Shell::at(&scratch, &scratch.uri_with("a.db", "immutable=1")).session();
    assert_eq!(immutable.sql(SUMS), "300|45150|90000\nok\n");
    let mut writer = db.session();
    writer.sql("UPDATE t SET v = 'x'; DELETE FROM t WHERE id > 10; VACUUM; SELECT 1;");
    assert_eq!(immutable.sql(SUMS), "300|45150|90000\nok\n");
    assert!(immutable.sql("DELETE FROM t;").contains("readonly"));
    immutable.end();
    writer.end();
    assert_eq!(db.ok(SUMS), "10|55|10\nok\n");
}

#[test]
fn a_statement_that_fails_takes_back_itself_before_and_after_a_spill() {
    Host::each(|host, scratch| {
        host.ok(
            scratch,
            "a.db",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT UNIQUE); INSERT INTO t VALUES (1, 'one');",
        );
        let connection = bundled(scratch, "a.db");
        for spill in ["", SPILL] {
            script(&connection, &format!("{spill} BEGIN; INSERT INTO t VALUES (2, 'two');"))
                .expect("a transaction");
            for (conflict, stays) in [("ABORT", 2), ("IGNORE", 1502), ("FAIL", 1502)] {
                let insert = format!(
                    "SAVEPOINT s; {} INSERT OR {conflict} INTO t SELECT i + 10, CASE WHEN i = 1501 THEN 'one'
                         ELSE printf('%0300d', i) END FROM n;",
                    numbers(1501)
                );
                let outcome = script(&connection, &insert);
                assert_eq!(outcome.is_err(), conflict != "IGNORE", "{conflict}: {outcome:?}");
                let count = script(&connection, "SELECT count(*) FROM t").expect("a count");
                assert_eq!(count, format!("{stays}\n"), "{conflict}");
                script(&connection, "ROLLBACK TO s; RELEASE s").expect("taken back");
                assert_eq!(script(&connection, "SELECT group_concat(v) FROM t").expect("rows"), "one,two\n");
            }
            let insert = format!(
                "{} INSERT OR ROLLBACK INTO t SELECT i + 10, CASE WHEN i = 900 THEN 'one' ELSE hex(zeroblob(200)) || i END
                     FROM n;",
                numbers(1500)
            );
            script(&connection, &insert).expect_err("a conflict that rolls all back");
            let left = script(
                &connection,
                "SELECT group_concat(v) FROM t; PRAGMA integrity_check; SELECT tide_lsn()",
            );
            assert_eq!(left.expect("rows"), "one\nok\n2\n");
        }
        drop(connection);
        assert_eq!(host.ok(scratch, "a.db", "SELECT v, tide_lsn() FROM t;"), "one|2\n");
    });
}

#[test]
fn savepoints_before_and_after_a_spill() {
    Host::each(|host, scratch| {
        host.ok(scratch, "a.db", &filled(400));
        let answer = host.ok(
            scratch,
            "a.db",
            &format!(
                "{SPILL}
             BEGIN;
             SAVEPOINT one; UPDATE t SET v = 'one' WHERE id <= 100;
             SAVEPOINT two; {} INSERT INTO t SELECT i + 1000, printf('%0400d', i) FROM n;
             SAVEPOINT three; UPDATE t SET v = 'three' || v; DELETE FROM t WHERE id % 2;
             ROLLBACK TO three; SELECT count(*) FROM t; SELECT count(*) FROM t WHERE v LIKE 'three%';
             UPDATE t SET v = 'again' WHERE id > 1900;
             ROLLBACK TO two; SELECT count(*), sum(v = 'one') FROM t;
             DROP TABLE t; CREATE TABLE t(id, v); INSERT INTO t VALUES (1, 'other');
             ROLLBACK TO one; {SUMS}
             RELEASE one; COMMIT; {SUMS} SELECT tide_lsn();",
                numbers(1000)
            ),
        );
        let all = "400|80200|120000\nok\n";
        assert_eq!(answer, format!("1400\n0\n400|100\n{all}{all}4\n"));
        assert_eq!(host.ok(scratch, "a.db", SUMS), all);
    });
}

#[test]
fn a_hot_journal_is_rolled_back_before_the_database_is_adopted() {
    Host::each(|host, scratch| {
        let stock = Shell::stock(scratch, "a.db");
        stock.ok(&filled(1500));
        stock
            .run(&format!(
                "{SPILL} BEGIN; UPDATE t SET v = 'never'; DELETE FROM t WHERE id % 2;\n.shell kill -9 $PPID\n"
            ))
            .killed();
        assert!(std::fs::metadata(scratch.path("a.db-journal")).is_ok_and(|journal| journal.len() > 10_000));
        let answer = host.ok(
            scratch,
            "a.db",
            &format!("{SUMS} SELECT tide_lsn(); DELETE FROM t WHERE id > 5; {SUMS}"),
        );
        assert_eq!(answer, "1500|1125750|450000\nok\n1\n5|15|1500\nok\n");
        assert!(!scratch.path("a.db-journal").exists());
        assert_eq!(Shell::stock(scratch, "a.db").ok(SUMS), "5|15|1500\nok\n");
    });
}

#[test]
fn a_wal_is_brought_in_before_the_database_is_adopted() {
    Host::each(|host, scratch| {
        let stock = Shell::stock(scratch, "a.db");
        stock.ok("PRAGMA journal_mode = wal; CREATE TABLE first(a);");
        stock
            .run(&format!("{} BEGIN; INSERT INTO first VALUES (1);\n.shell kill -9 $PPID\n", filled(500)))
            .killed();
        assert!(std::fs::metadata(scratch.path("a.db-wal")).is_ok_and(|wal| wal.len() > 10_000));
        let answer = host.ok(
            scratch,
            "a.db",
            &format!("{SUMS} SELECT count(*), tide_lsn() FROM first; PRAGMA journal_mode;"),
        );
        assert_eq!(answer, "500|125250|150000\nok\n0|1\nwal\n");
        host.ok(scratch, "a.db", "INSERT INTO first VALUES (2);");
        assert!(!scratch.path("a.db-wal").exists() && !scratch.path("a.db-shm").exists());
        assert!(plain_header(&scratch.path("a.db")));
        assert_eq!(stock.ok(&format!("SELECT a FROM first; {SUMS}")), "2\n500|125250|150000\nok\n");
    });
}

#[test]
fn a_database_that_stock_sqlite_has_open_in_wal_mode_is_not_taken_from_it() {
    let scratch = Scratch::new();
    let mut stock = Shell::stock(&scratch, "a.db").session();
    stock.sql(
        "PRAGMA journal_mode = wal; CREATE TABLE t(v); INSERT INTO t VALUES (1); BEGIN; SELECT v FROM t;",
    );
    let output = Shell::new(&scratch, "a.db").run(".timeout 200\nINSERT INTO t VALUES (2);");
    assert!(!output.stderr.is_empty(), "{output:#?}");
    assert_eq!(
        stock.sql("COMMIT; INSERT INTO t VALUES (3); SELECT sum(v) FROM t; PRAGMA integrity_check;"),
        "4\nok\n"
    );
    stock.end();
    assert_eq!(Shell::new(&scratch, "a.db").ok("SELECT sum(v), tide_lsn() FROM t;"), "4|1\n");
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
fn a_database_that_is_full_rolls_back_and_goes_on() {
    Host::each(|host, scratch| {
        host.ok(scratch, "a.db", &filled(100));
        let connection = bundled(scratch, "a.db");
        script(&connection, &format!("{SPILL} PRAGMA max_page_count = 60")).expect("a limit");
        let insert = format!("{} INSERT INTO t SELECT i + 1000, hex(zeroblob(400)) FROM n", numbers(1000));
        let error = script(&connection, &insert).expect_err("full");
        assert!(error.to_string().contains("full"), "{error}");
        script(&connection, "BEGIN").expect("a transaction");
        script(&connection, &insert).expect_err("full");
        script(&connection, "ROLLBACK").expect("rolled back");
        let left =
            script(&connection, &format!("{SUMS} SELECT tide_lsn(); INSERT INTO t VALUES (500, 'fits')"));
        assert_eq!(left.expect("sums"), "100|5050|30000\nok\n3\n");
        drop(connection);
        assert_eq!(host.ok(scratch, "a.db", "SELECT count(*) FROM t;"), "101\n");
    });
}

#[test]
fn a_disk_that_takes_no_more_is_an_error_and_no_damage() {
    let scratch = Scratch::new();
    Shell::new(&scratch, "a.db").ok(&filled(100));
    let script = r#"
from tide import *
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
db = connect("a.db")
db.execute("PRAGMA cache_size = 10")
most = max(os.path.getsize(os.path.join(folder, file)) for folder, _, files in os.walk(".", followlinks=False)
           for file in files if not os.path.islink(os.path.join(folder, file)))
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (most + 100_000, hard))
refusals = 0
for n in range(300):
    try:
        db.execute("INSERT INTO t VALUES (?, zeroblob(1000000))", (1000 + n,))
    except sqlite3.Error:
        refusals += 1
        assert not db.in_transaction or db.execute("ROLLBACK")
assert refusals > 0
assert one(db, "PRAGMA integrity_check") == "ok"
kept = one(db, "SELECT count(*) FROM t")
assert kept == 100 + 300 - refusals, (kept, refusals)
db.close()
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
db = connect("a.db")
assert one(db, "SELECT count(*) FROM t") == kept
db.execute("INSERT INTO t VALUES (5000, 'fits')")
assert one(db, "PRAGMA integrity_check") == "ok"
"#;
    python(&scratch, script, &[]).ok();
    assert_eq!(
        Shell::stock(&scratch, "a.db").ok("PRAGMA integrity_check; SELECT v FROM t WHERE id = 5000;"),
        "ok\nfits\n"
    );
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
fn the_same_store_twice_at_one_connection() {
    Host::each(|host, scratch| {
        host.ok(scratch, "a.db", "CREATE TABLE t(v); INSERT INTO t VALUES (1);");
        let attach = format!("ATTACH '{}' AS again;", scratch.uri("a.db"));
        let answer = host.ok(
            scratch,
            "a.db",
            &format!(
                "{attach} SELECT v FROM main.t; SELECT v FROM again.t;
            INSERT INTO again.t VALUES (2); SELECT sum(v) FROM main.t;"
            ),
        );
        assert_eq!(answer, "1\n1\n3\n");
        let both =
            format!("{attach} BEGIN; INSERT INTO main.t VALUES (3); INSERT INTO again.t VALUES (4); COMMIT;");
        assert!(host.error(scratch, "a.db", &both).contains("locked"));
        assert_eq!(host.ok(scratch, "a.db", "SELECT sum(v) FROM t; PRAGMA integrity_check;"), "3\nok\n");
    });
}

#[test]
fn no_connection_trusts_a_cache_that_another_made_stale() {
    // PAGER.md 2: whatever pager writes its counter, none ever sees the value of another state again.
    let scratch = Scratch::new();
    let connections: Vec<Connection> = (0..4).map(|_| bundled(&scratch, "a.db")).collect();
    script(
        &connections[0],
        &format!(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, v); {} INSERT INTO t SELECT i, 0 FROM n;",
            numbers(2000)
        ),
    )
    .expect("filled");
    let mut model = vec![0; 2001];
    let mut dice = Dice::new("caches");
    for step in 0..rounds(1200) {
        let connection = &connections[dice.pick(connections.len())];
        let id = dice.pick(2000) + 1;
        let sql = match dice.below(8) {
            0 => format!(
                "BEGIN; UPDATE t SET v = v + 1 WHERE id = {id}; UPDATE t SET v = v - 1 WHERE id = {id}; COMMIT"
            ),
            1 => format!("BEGIN; UPDATE t SET v = v + 1 WHERE id >= {id}; ROLLBACK"),
            2 => format!("BEGIN; SAVEPOINT s; UPDATE t SET v = 7 WHERE id = {id}; ROLLBACK TO s; COMMIT"),
            3 => "BEGIN IMMEDIATE; COMMIT".into(),
            _ => {
                model[id] += 1;
                format!("UPDATE t SET v = v + 1 WHERE id = {id}")
            }
        };
        script(connection, &sql).unwrap_or_else(|error| panic!("step {step}, {sql}: {error}"));
        let reader = &connections[dice.pick(connections.len())];
        let id = dice.pick(2000) + 1;
        let seen =
            script(reader, &format!("SELECT v FROM t WHERE id = {id}; SELECT sum(v) FROM t")).expect("read");
        let sum: i32 = model.iter().sum();
        assert_eq!(seen, format!("{}\n{sum}\n", model[id]), "step {step}");
    }
}

#[test]
fn random_work_comes_out_as_it_does_in_memory() {
    for round in 0..rounds(12) {
        let scratch = Scratch::new();
        let mut dice = Dice::new("random work");
        let vacuum = ["NONE", "FULL", "INCREMENTAL"][dice.pick(3)];
        let size = 512 << dice.below(6);
        let begin =
            format!("PRAGMA page_size = {size}; PRAGMA auto_vacuum = {vacuum}; CREATE TABLE start(a);");
        let model = Connection::open_in_memory().expect("a model");
        script(&model, &begin).expect("the model begun");
        let mut ours = bundled(&scratch, "a.db");
        script(&ours, &begin).expect("ours begun");
        for step in 0..120 {
            let sql = piece_of_work(&mut dice);
            script(&ours, "PRAGMA cache_size = 8; PRAGMA cache_spill = 2; PRAGMA temp_store = FILE")
                .expect("small");
            let (wanted, got) = (script(&model, &sql), script(&ours, &sql));
            let what = || format!("round {round}, page size {size}, {vacuum}, step {step}: {sql}");
            match (&wanted, &got) {
                (Ok(wanted), Ok(got)) => assert_eq!(got, wanted, "{}", what()),
                (Err(_), Err(_)) => {}
                _ => panic!("{}: {wanted:?} in memory, {got:?} here", what()),
            }
            for connection in [&model, &ours] {
                if !connection.is_autocommit() {
                    script(connection, "ROLLBACK").expect("rolled back");
                }
            }
            assert_eq!(content(&ours), content(&model), "{}", what());
            if dice.below(8) == 0 {
                ours.close().unwrap_or_else(|(_, error)| panic!("{}: {error}", what()));
                assert_eq!(content(&bundled_stock(&scratch, "a.db")), content(&model), "{} at rest", what());
                ours = bundled(&scratch, "a.db");
            }
        }
        assert_eq!(
            script(&ours, "PRAGMA integrity_check; SELECT count(*) FROM tide_verify").expect("sound"),
            "ok\n0\n"
        );
    }
}

/// Something to do with one of three tables, in a transaction or not.
fn piece_of_work(dice: &mut Dice) -> String {
    let table = ["x", "y", "z"][dice.pick(3)];
    let mut sql = String::new();
    let whole = dice.below(3) == 0;
    if whole {
        sql += "BEGIN; ";
    }
    for _ in 0..=dice.below(4) {
        let (a, b, c) = (dice.below(40) + 1, dice.below(300), dice.below(2500));
        sql += &match dice.below(14) {
            0 => format!("CREATE TABLE IF NOT EXISTS {table}(id INTEGER PRIMARY KEY, v); "),
            1 => format!("CREATE TABLE IF NOT EXISTS {table}(id PRIMARY KEY, v) WITHOUT ROWID; "),
            2 => format!("DROP TABLE IF EXISTS {table}; "),
            3 => format!("CREATE INDEX IF NOT EXISTS i{table} ON {table}(v); "),
            4..=7 => format!(
                "{} INSERT OR REPLACE INTO {table} SELECT i * {a} % 997, printf('%0{c}d', i) FROM n; ",
                numbers(b + 1)
            ),
            8 => format!("DELETE FROM {table} WHERE id % {a} = 0; "),
            9 => format!("UPDATE {table} SET v = printf('%0{c}d', id) WHERE id % {a} = 1; "),
            10 => format!("SAVEPOINT s; DELETE FROM {table}; ROLLBACK TO s; RELEASE s; "),
            11 => format!("SAVEPOINT s; UPDATE {table} SET v = {c} WHERE id > {b}; RELEASE s; "),
            12 => format!("PRAGMA incremental_vacuum({a}); "),
            _ => format!("SELECT count(*), sum(id) FROM {table}; "),
        };
    }
    if whole {
        sql += if dice.below(2) == 0 { "COMMIT;" } else { "ROLLBACK;" };
    } else if dice.below(12) == 0 {
        sql += "VACUUM;";
    }
    sql
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
    db.busy_timeout(Duration::ZERO).expect("no timeout");
}
