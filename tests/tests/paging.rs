//! What SQLite's pager does: locking modes, levels of `synchronous`, mapping, shared caches, spills, full disks, stale
//! caches, and random work that must come out as it does in memory.

use rusqlite::Connection;
use tideline_tests::{
    Dice, Host, LOCKED, SPILL, SUMS, Scratch, bundled, bundled_at, bundled_stock, content, filled, numbers,
    rounds, script,
};

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
    Host::each(|host, scratch| {
        host.ok(scratch, "a.db", "CREATE TABLE t(v); INSERT INTO t VALUES (0);");
        let (mut exclusive, mut other) = (host.session(scratch, "a.db"), host.session(scratch, "a.db"));
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
        let answer = host.ok(scratch, "a.db", "SELECT v, tide_lsn() FROM t; PRAGMA integrity_check;");
        assert_eq!(answer, format!("{wanted}|{}\nok\n", wanted + 2));
    });
}

#[test]
fn begin_exclusive_does_not_shut_readers_out() {
    Host::each(|host, scratch| {
        host.ok(scratch, "a.db", "CREATE TABLE t(v); INSERT INTO t VALUES (1);");
        for begin in ["BEGIN IMMEDIATE;", "BEGIN EXCLUSIVE;"] {
            let (mut writer, mut reader) = (host.session(scratch, "a.db"), host.session(scratch, "a.db"));
            assert_eq!(writer.sql(&format!("{begin} INSERT INTO t VALUES (2);")), "");
            assert_eq!(reader.sql("SELECT sum(v) FROM t;"), "1\n", "{begin}");
            assert!(reader.sql(begin).contains(LOCKED), "{begin}");
            writer.sql("ROLLBACK;");
            assert_eq!(reader.sql(&format!("{begin} SELECT sum(v) FROM t; ROLLBACK;")), "1\n");
        }
    });
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
        // PAGER.md 7: the pager applies the level for rollback mode by itself.
        let options = "SELECT substr(compile_options, -1) FROM pragma_compile_options
            WHERE compile_options LIKE 'DEFAULT_WAL_SYNCHRONOUS=%';";
        let wal = host.ok(scratch, "a.db", options);
        let wal = if wal.is_empty() { "2\n" } else { &wal };
        assert_eq!(
            host.ok(scratch, "a.db", "PRAGMA synchronous;"),
            wal,
            "what a WAL database has on {host:?}"
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
        let without = host.stock(scratch, "plain.db", ask);
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
fn a_statement_that_fails_takes_back_itself_before_and_after_a_spill() {
    Host::each(|host, scratch| {
        let mut db = host.session(scratch, "a.db");
        db.sql("CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT UNIQUE); INSERT INTO t VALUES (1, 'one');");
        for spill in ["", SPILL] {
            assert_eq!(db.sql(&format!("{spill} BEGIN; INSERT INTO t VALUES (2, 'two');")), "");
            for (conflict, stays) in [("ABORT", 2), ("IGNORE", 1502), ("FAIL", 1502)] {
                let insert = format!(
                    "SAVEPOINT s; {} INSERT OR {conflict} INTO t SELECT i + 10, CASE WHEN i = 1501 THEN 'one'
                         ELSE printf('%0300d', i) END FROM n;",
                    numbers(1501)
                );
                let outcome = db.sql(&insert);
                assert_eq!(outcome.contains("UNIQUE"), conflict != "IGNORE", "{conflict}: {outcome}");
                assert_eq!(db.sql("SELECT count(*) FROM t;"), format!("{stays}\n"), "{conflict}");
                assert_eq!(db.sql("ROLLBACK TO s; RELEASE s; SELECT group_concat(v) FROM t;"), "one,two\n");
            }
            let insert = format!(
                "{} INSERT OR ROLLBACK INTO t SELECT i + 10, CASE WHEN i = 900 THEN 'one' ELSE hex(zeroblob(200)) || i END
                     FROM n;",
                numbers(1500)
            );
            assert!(db.sql(&insert).contains("UNIQUE"), "a conflict that rolls all back");
            let left = db.sql("SELECT group_concat(v) FROM t; PRAGMA integrity_check; SELECT tide_lsn();");
            assert_eq!(left, "one\nok\n2\n");
        }
        db.end();
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
fn a_database_that_is_full_rolls_back_and_goes_on() {
    Host::each(|host, scratch| {
        host.ok(scratch, "a.db", &filled(100));
        let mut db = host.session(scratch, "a.db");
        db.sql(&format!("{SPILL} PRAGMA max_page_count = 60;"));
        let insert = format!("{} INSERT INTO t SELECT i + 1000, hex(zeroblob(400)) FROM n;", numbers(1000));
        assert!(db.sql(&insert).contains("full"));
        assert!(db.sql(&format!("BEGIN; {insert}")).contains("full"));
        let left =
            db.sql(&format!("ROLLBACK; {SUMS} SELECT tide_lsn(); INSERT INTO t VALUES (500, 'fits');"));
        assert_eq!(left, "100|5050|30000\nok\n3\n");
        db.end();
        assert_eq!(host.ok(scratch, "a.db", "SELECT count(*) FROM t;"), "101\n");
    });
}

#[test]
fn a_disk_that_takes_no_more_is_an_error_and_no_damage() {
    // A failed FCNTL_SYNC is rolled back with another one, which publishes nothing (LESSONS.md 16).
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
    Host::each(|host, scratch| {
        host.ok(scratch, "a.db", &filled(100));
        host.python(scratch, script, &[]).ok();
        let left = host.stock(scratch, "a.db", "PRAGMA integrity_check; SELECT v FROM t WHERE id = 5000;");
        assert_eq!(left, "ok\nfits\n");
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
            let small = "PRAGMA cache_size = 8; PRAGMA cache_spill = 2; PRAGMA temp_store = FILE";
            script(&ours, small).expect("small");
            let mapped = [0, 1 << 30][dice.pick(2)];
            let secure = ["OFF", "FAST", "ON"][dice.pick(3)];
            script(&ours, &format!("PRAGMA mmap_size = {mapped}; PRAGMA secure_delete = {secure}"))
                .expect("settings");
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
