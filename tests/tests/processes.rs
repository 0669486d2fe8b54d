//! Many processes on one database: readers and writers, waiting, stopping, forking, and being killed.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tideline_tests::{Host, LOCKED, Scratch, Shell, bundled, python, python_start, script};

/// A database with a table of one row, at LSN 2.
fn prepared() -> Scratch {
    let scratch = Scratch::new();
    Shell::new(&scratch, "a.db")
        .ok("CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'one');");
    scratch
}

/// Runs `test` on every host with such a database.
fn each_prepared(test: impl Fn(Host, &Scratch)) {
    Host::each(|host, scratch| {
        host.ok(
            scratch,
            "a.db",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'one');",
        );
        test(host, scratch);
    });
}

#[test]
fn a_reader_and_a_writer_do_not_wait_for_each_other() {
    let scratch = prepared();
    let db = Shell::new(&scratch, "a.db");
    let (mut reader, mut writer) = (db.session(), db.session());
    assert_eq!(reader.sql("BEGIN; SELECT count(*), tide_lsn() FROM t;"), "1|2\n");
    assert_eq!(writer.sql("INSERT INTO t VALUES (2, 'two'); SELECT count(*), tide_lsn() FROM t;"), "2|3\n");
    assert_eq!(reader.sql("SELECT count(*), tide_lsn() FROM t;"), "1|2\n");
    assert_eq!(writer.sql("BEGIN IMMEDIATE; INSERT INTO t VALUES (3, 'three');"), "");
    assert_eq!(reader.sql("COMMIT; SELECT count(*), tide_lsn() FROM t;"), "2|3\n");
    assert_eq!(writer.sql("COMMIT;"), "");
    assert_eq!(reader.sql("SELECT count(*), tide_lsn() FROM t;"), "3|4\n");
    reader.end();
    writer.end();
}

#[test]
fn a_snapshot_lasts_as_long_as_its_transaction() {
    let scratch = prepared();
    let db = Shell::new(&scratch, "a.db");
    let (mut reader, mut writer) = (db.session(), db.session());
    writer.sql("INSERT INTO t SELECT value, hex(zeroblob(400)) FROM generate_series(2, 1000);");
    let look = "SELECT count(*), sum(id), sum(length(v)) FROM t; SELECT count(*) FROM sqlite_schema;
                PRAGMA page_count; SELECT tide_lsn(); PRAGMA integrity_check;";
    let before = reader.sql(&format!("BEGIN; {look}"));
    for change in [
        "UPDATE t SET v = 'short';",
        "DELETE FROM t WHERE id % 2;",
        "CREATE TABLE u AS SELECT * FROM t;",
        "CREATE INDEX by_v ON t(v); ALTER TABLE t ADD COLUMN w DEFAULT 5;",
        "BEGIN; DROP TABLE u; DELETE FROM t; COMMIT;",
        "VACUUM;",
        "INSERT INTO t(id, v) SELECT value, hex(randomblob(700)) FROM generate_series(5000, 9000);",
    ] {
        assert_eq!(writer.sql(change), "", "{change}");
        assert_eq!(reader.sql(look), before, "after {change}");
    }
    writer.end();
    assert_eq!(reader.sql(look), before, "after the writer left");
    assert_eq!(reader.sql("COMMIT; SELECT count(*), min(w), tide_lsn() FROM t;"), "4001|5|11\n");
    reader.end();
}

#[test]
fn what_is_not_committed_is_seen_by_nobody_else() {
    let scratch = prepared();
    let db = Shell::new(&scratch, "a.db");
    let (mut reader, mut writer) = (db.session(), db.session());
    writer.sql(
        "PRAGMA cache_size = 10; PRAGMA cache_spill = 1; BEGIN;
                INSERT INTO t SELECT value, hex(zeroblob(500)) FROM generate_series(2, 2000);
                UPDATE t SET v = 'changed' WHERE id = 1;",
    );
    let look = "SELECT count(*), max(v), tide_lsn() FROM t; PRAGMA integrity_check;";
    assert_eq!(reader.sql(look), "1|one|2\nok\n");
    let mut late = db.session();
    assert_eq!(late.sql(look), "1|one|2\nok\n");
    writer.sql("ROLLBACK;");
    assert_eq!(reader.sql(look), "1|one|2\nok\n");
    assert_eq!(writer.sql(look), "1|one|2\nok\n");
}

#[test]
fn a_second_writer_waits_for_its_turn() {
    each_prepared(|host, scratch| {
        let db = host.shell(Shell::new(scratch, "a.db"));
        let (mut first, mut second) = (db.session(), db.session());
        for end in ["COMMIT;", "ROLLBACK;"] {
            first.sql("BEGIN IMMEDIATE; INSERT INTO t(v) VALUES ('first');");
            second.start(".timeout 100000\nINSERT INTO t(v) VALUES ('second');");
            assert_eq!(first.sql(end), "");
            assert_eq!(second.answer(), "");
        }
        assert_eq!(first.sql("SELECT v FROM t; SELECT tide_lsn();"), "one\nfirst\nsecond\nsecond\n5\n");
    });
}

#[test]
fn a_second_writer_gives_up_when_its_timeout_is_over() {
    each_prepared(|host, scratch| {
        let db = host.shell(Shell::new(scratch, "a.db"));
        let (mut first, mut second) = (db.session(), db.session());
        first.sql("BEGIN IMMEDIATE; INSERT INTO t(v) VALUES ('first');");
        for (milliseconds, statement) in
            [(0, "INSERT INTO t(v) VALUES ('x');"), (700, "BEGIN IMMEDIATE;"), (300, "BEGIN EXCLUSIVE;")]
        {
            let start = Instant::now();
            let answer = second.sql(&format!(".timeout {milliseconds}\n{statement}"));
            assert!(answer.contains(LOCKED), "{answer}");
            let waited = start.elapsed();
            assert!(waited >= Duration::from_millis(milliseconds * 9 / 10), "it gave up after {waited:?}");
            assert!(waited < Duration::from_secs(30), "it gave up after {waited:?}");
        }
        assert_eq!(second.sql("SELECT count(*) FROM t;"), "1\n");
        assert_eq!(first.sql("COMMIT;"), "");
        assert_eq!(second.sql("INSERT INTO t(v) VALUES ('second'); SELECT count(*) FROM t;"), "3\n");
    });
}

#[test]
fn a_stale_transaction_is_told_at_once_that_it_cannot_write() {
    each_prepared(|host, scratch| {
        let db = host.shell(Shell::new(scratch, "a.db"));
        let (mut stale, mut other) = (db.session(), db.session());
        stale.sql(".timeout 2000000\nBEGIN; SELECT count(*) FROM t;");
        other.sql("INSERT INTO t(v) VALUES ('two');");
        // No waiting makes its snapshot fresh: an answer that came only after its timeout would find the test gone.
        let answer = stale.sql("UPDATE t SET v = 'mine';");
        assert!(answer.contains(LOCKED), "{answer}");
        assert_eq!(stale.sql("SELECT count(*) FROM t;"), "1\n", "it may go on reading");
        assert_eq!(stale.sql("ROLLBACK; BEGIN; SELECT count(*) FROM t;"), "2\n");
        assert_eq!(stale.sql("UPDATE t SET v = 'mine'; COMMIT; SELECT DISTINCT v FROM t;"), "mine\n");
        assert_eq!(other.sql("SELECT DISTINCT v FROM t;"), "mine\n");
    });
}

#[test]
fn the_code_of_staleness_is_busy_snapshot() {
    each_prepared(|host, scratch| {
        let script = r#"
from tide import *
one_of, other = connect("a.db"), connect("a.db")
one_of.execute("BEGIN")
one(one_of, "SELECT count(*) FROM t")
other.execute("INSERT INTO t(v) VALUES ('two')")
try:
    one_of.execute("INSERT INTO t(v) VALUES ('three')")
except sqlite3.OperationalError as error:
    assert error.sqlite_errorname == "SQLITE_BUSY_SNAPSHOT", error.sqlite_errorname
else:
    raise AssertionError("a stale transaction wrote")
one_of.execute("ROLLBACK")
other.execute("BEGIN IMMEDIATE")
one_of.execute("PRAGMA busy_timeout = 0")
try:
    one_of.execute("INSERT INTO t(v) VALUES ('three')")
except sqlite3.OperationalError as error:
    assert error.sqlite_errorname == "SQLITE_BUSY", error.sqlite_errorname
else:
    raise AssertionError("two wrote at once")
"#;
        host.python(scratch, script, &[]).ok();
    });
}

#[test]
fn a_transaction_that_begins_with_a_write_is_never_stale() {
    let scratch = prepared();
    let db = Shell::new(&scratch, "a.db");
    let (mut one, mut two) = (db.session(), db.session());
    for n in 0..20 {
        assert_eq!(one.sql("SELECT count(*) FROM t;"), format!("{}\n", 1 + 2 * n));
        assert_eq!(two.sql("INSERT INTO t(v) VALUES ('two');"), "");
        assert_eq!(one.sql("BEGIN; INSERT INTO t(v) VALUES ('one'); COMMIT;"), "");
    }
    assert_eq!(two.sql("SELECT count(*), tide_lsn() FROM t; PRAGMA integrity_check;"), "41|42\nok\n");
}

#[test]
fn a_change_of_the_schema_reaches_the_others() {
    let scratch = prepared();
    let db = Shell::new(&scratch, "a.db");
    let (mut one, mut two) = (db.session(), db.session());
    assert_eq!(one.sql("SELECT * FROM t;"), "1|one\n");
    two.sql("ALTER TABLE t ADD COLUMN w DEFAULT 7; CREATE TABLE u(a); INSERT INTO u VALUES (3);");
    assert_eq!(one.sql("SELECT * FROM t; SELECT a FROM u;"), "1|one|7\n3\n");
    two.sql("DROP TABLE u; CREATE TABLE x(b); INSERT INTO x VALUES (4);");
    assert_eq!(one.sql("SELECT b FROM x;"), "4\n");
    assert!(one.sql("SELECT a FROM u;").contains("no such table"));
}

#[test]
fn data_version_moves_with_the_commits_of_others_alone() {
    let scratch = prepared();
    let db = Shell::new(&scratch, "a.db");
    let (mut one, mut two) = (db.session(), db.session());
    let version = "PRAGMA data_version;";
    let before = one.sql(version);
    one.sql("INSERT INTO t(v) VALUES ('mine');");
    assert_eq!(one.sql(version), before);
    two.sql("INSERT INTO t(v) VALUES ('theirs');");
    let after = one.sql(version);
    assert_ne!(after, before);
    two.sql("BEGIN; INSERT INTO t(v) VALUES ('never'); ROLLBACK;");
    assert_eq!(one.sql(version), after);
}

#[test]
fn a_writer_that_is_killed_leaves_nothing_locked() {
    let scratch = prepared();
    let db = Shell::new(&scratch, "a.db");
    let mut other = db.session();
    for n in 0..10 {
        let mut writer = db.session();
        writer.sql("BEGIN IMMEDIATE; INSERT INTO t(v) VALUES ('never'); UPDATE t SET v = 'never';");
        writer.kill();
        let answer =
            other.sql("INSERT INTO t(v) VALUES ('later'); SELECT count(*) FROM t WHERE v = 'never';");
        assert_eq!(answer, "0\n", "after {n} of them");
    }
    assert_eq!(other.sql("SELECT count(*), tide_lsn() FROM t; PRAGMA integrity_check;"), "11|12\nok\n");
}

#[test]
fn a_writer_that_is_killed_makes_way_for_the_one_that_waits() {
    each_prepared(|host, scratch| {
        let db = host.shell(Shell::new(scratch, "a.db"));
        let mut waiting = db.session();
        for _ in 0..5 {
            let mut writer = db.session();
            writer.sql("BEGIN IMMEDIATE; INSERT INTO t(v) VALUES ('never');");
            waiting.start(".timeout 100000\nINSERT INTO t(v) VALUES ('waited');");
            writer.kill();
            assert_eq!(waiting.answer(), "");
        }
        assert_eq!(waiting.sql("SELECT count(*), tide_lsn() FROM t WHERE v <> 'never';"), "6|7\n");
    });
}

#[test]
fn a_writer_that_is_stopped_makes_others_busy_and_harms_nothing() {
    let scratch = prepared();
    let db = Shell::new(&scratch, "a.db");
    let (mut stopped, mut other) = (db.session(), db.session());
    stopped.sql("BEGIN IMMEDIATE; INSERT INTO t(v) VALUES ('slow');");
    stopped.process().signal(Signal::SIGSTOP);
    let answer = other.sql(".timeout 400\nINSERT INTO t(v) VALUES ('x');");
    assert!(answer.contains(LOCKED), "{answer}");
    assert_eq!(other.sql("SELECT count(*) FROM t;"), "1\n", "readers go on");
    let mut newcomer = db.session();
    assert_eq!(newcomer.sql("SELECT count(*) FROM t;"), "1\n", "also those who come now");
    stopped.process().signal(Signal::SIGCONT);
    assert_eq!(stopped.sql("COMMIT;"), "");
    assert_eq!(other.sql("INSERT INTO t(v) VALUES ('x'); SELECT group_concat(v) FROM t;"), "one,slow,x\n");
    assert_eq!(newcomer.sql("SELECT count(*), tide_lsn() FROM t; PRAGMA integrity_check;"), "3|4\nok\n");
}

#[test]
fn a_process_that_is_stopped_between_transactions_holds_nobody_up() {
    let scratch = prepared();
    let db = Shell::new(&scratch, "a.db");
    let (mut stopped, mut other) = (db.session(), db.session());
    stopped.sql("INSERT INTO t(v) VALUES ('two');");
    stopped.process().signal(Signal::SIGSTOP);
    assert_eq!(other.sql("INSERT INTO t(v) VALUES ('three'); SELECT count(*) FROM t;"), "3\n");
    stopped.process().signal(Signal::SIGCONT);
    assert_eq!(
        stopped.sql("INSERT INTO t(v) VALUES ('four'); SELECT group_concat(v) FROM t;"),
        "one,two,three,four\n"
    );
}

#[test]
fn the_last_one_to_close_is_not_the_last_one_who_wrote() {
    let scratch = prepared();
    let db = Shell::new(&scratch, "a.db");
    let (mut stays, mut leaves) = (db.session(), db.session());
    stays.sql("SELECT count(*) FROM t;");
    leaves.sql("INSERT INTO t(v) VALUES ('two');");
    leaves.end();
    assert_eq!(stays.sql("SELECT count(*) FROM t; INSERT INTO t(v) VALUES ('three');"), "2\n");
    stays.end();
    assert_eq!(db.ok("SELECT group_concat(v), tide_lsn() FROM t;"), "one,two,three|4\n");
}

#[test]
fn two_connections_of_one_process_are_as_apart_as_two_processes() {
    let scratch = prepared();
    let (one, two) = (bundled(&scratch, "a.db"), bundled(&scratch, "a.db"));
    let count = "SELECT count(*) FROM t";
    assert_eq!(script(&one, &format!("BEGIN; {count}")).expect("a snapshot"), "1\n");
    script(&two, "INSERT INTO t(v) VALUES ('two')").expect("a commit beside a reader");
    assert_eq!(script(&one, count).expect("the snapshot"), "1\n");
    let error = script(&one, "INSERT INTO t(v) VALUES ('x')").expect_err("a stale write");
    assert!(error.to_string().contains(LOCKED), "{error}");
    assert_eq!(script(&one, &format!("ROLLBACK; BEGIN IMMEDIATE; {count}")).expect("the writer"), "2\n");
    two.busy_timeout(Duration::ZERO).expect("no timeout");
    let error = script(&two, "INSERT INTO t(v) VALUES ('x')").expect_err("a second writer");
    assert!(error.to_string().contains(LOCKED), "{error}");
    drop(one);
    assert_eq!(
        script(&two, "INSERT INTO t(v) VALUES ('x'); SELECT count(*), tide_lsn() FROM t").expect("x"),
        "3|4\n"
    );
}

#[test]
fn threads_take_their_turns() {
    let scratch = prepared();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let scratch = &scratch;
            scope.spawn(move || {
                let connection = bundled(scratch, "a.db");
                connection.busy_timeout(Duration::from_secs(60)).expect("a timeout");
                for n in 0..50 {
                    let sql = format!("INSERT INTO t(v) VALUES ('{thread}-{n}'); SELECT 1 FROM t LIMIT 1");
                    script(&connection, &sql).unwrap_or_else(|error| panic!("{thread}-{n}: {error}"));
                }
            });
        }
    });
    let answer = Shell::new(&scratch, "a.db").ok(
        "SELECT count(*), count(DISTINCT v), tide_lsn() FROM t; PRAGMA integrity_check;
         SELECT count(*) FROM (SELECT substr(v, 1, 1) w, CAST(substr(v, 3) AS INTEGER) n,
             lag(CAST(substr(v, 3) AS INTEGER)) OVER (PARTITION BY substr(v, 1, 1) ORDER BY id) b FROM t WHERE id > 1)
             WHERE n <> coalesce(b, -1) + 1;",
    );
    assert_eq!(answer, "201|201|202\nok\n0\n");
}

#[test]
fn a_child_of_fork_leaves_its_parents_connection_alone() {
    each_prepared(|host, scratch| {
        let script = r#"
from tide import *
db = connect("a.db")
db.execute("BEGIN IMMEDIATE")
db.execute("INSERT INTO t VALUES (2, 'parent')")
child = os.fork()
if child == 0:
    try:
        # SQLite's cache may take a row, but nothing of it gets further.
        try:
            db.execute("INSERT INTO t VALUES (3, 'child')")
        except sqlite3.Error:
            pass
        fails(lambda: db.execute("COMMIT"))
        # What it opens itself is its own.
        mine = connect("a.db", timeout=0)
        assert one(mine, "SELECT count(*) FROM t") == 1
        fails(lambda: mine.execute("INSERT INTO t VALUES (4, 'child')"), "locked")
        mine.close()
        os._exit(0)
    except BaseException as fault:
        print(repr(fault), file=sys.stderr)
        os._exit(1)
assert os.waitpid(child, 0)[1] == 0
db.execute("COMMIT")
assert db.execute("SELECT group_concat(v), tide_lsn() FROM t").fetchone() == ("one,parent", 3)
child = os.fork()
if child == 0:
    mine = connect("a.db")
    mine.execute("INSERT INTO t VALUES (3, 'child')")
    mine.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
db.execute("INSERT INTO t VALUES (4, 'parent')")
assert one(db, "SELECT group_concat(v) FROM t") == "one,parent,child,parent"
"#;
        host.python(scratch, script, &[]).ok();
        let answer =
            Shell::new(scratch, "a.db").ok("SELECT count(*), tide_lsn() FROM t; PRAGMA integrity_check;");
        assert_eq!(answer, "4|5\nok\n");
    });
}

#[test]
fn a_child_of_fork_that_ends_takes_no_lock_of_its_parent_along() {
    each_prepared(|host, scratch| {
        let script = r#"
from tide import *
db = connect("a.db")
db.execute("BEGIN IMMEDIATE")
db.execute("INSERT INTO t VALUES (2, 'parent')")
for way in ("exit", "close"):
    child = os.fork()
    if child == 0:
        if way == "close":
            try:
                db.close()
            except sqlite3.Error:
                pass
        os._exit(0)
    os.waitpid(child, 0)
print("forked")
sys.stdin.readline()
db.execute("COMMIT")
"#;
        let mut parent = host.python_start(scratch, script, &[]);
        parent.wait_for("forked");
        let mut other = host.session(scratch, "a.db");
        let answer = other.sql("INSERT INTO t VALUES (3, 'x');");
        assert!(answer.contains(LOCKED), "{answer}");
        parent.send("\n");
        parent.finish().ok();
        assert_eq!(other.sql("INSERT INTO t VALUES (3, 'x'); SELECT count(*), tide_lsn() FROM t;"), "3|4\n");
    });
}

#[test]
fn a_child_of_fork_keeps_nothing_locked_when_its_parent_was_killed() {
    each_prepared(|host, scratch| {
        let script = r#"
from tide import *
db = connect("a.db")
db.execute("BEGIN IMMEDIATE")
db.execute("INSERT INTO t VALUES (2, 'never')")
child = os.fork()
if child == 0:
    os.close(0), os.close(1), os.close(2)
    while os.path.exists("a.db"):
        time.sleep(0.02)
    os._exit(0)
print("forked")
time.sleep(600)
"#;
        let mut parent = host.python_start(scratch, script, &[]);
        parent.wait_for("forked");
        parent.kill().killed();
        let answer =
            Shell::new(scratch, "a.db").ok("INSERT INTO t VALUES (2, 'later'); SELECT v, tide_lsn() FROM t;");
        assert_eq!(answer, "one|3\nlater|3\n");
    });
}

#[test]
fn a_delta_is_received_while_others_read() {
    let scratch = prepared();
    let source = Shell::new(&scratch, "a.db");
    source.ok("SELECT writefile('full.tide', tide_prepare(0)) > 0; UPDATE t SET v = 'uno';
               INSERT INTO t SELECT value, hex(zeroblob(300)) FROM generate_series(2, 500);
               SELECT writefile('next.tide', tide_prepare(2)) > 0;");
    let copy = Shell::new(&scratch, "copy.db");
    let (mut reader, mut receiver) = (copy.session(), copy.session());
    assert_eq!(receiver.sql("SELECT tide_receive(readfile('full.tide'));"), "2\n");
    assert_eq!(reader.sql("BEGIN; SELECT v, tide_lsn() FROM t;"), "one|2\n");
    assert_eq!(receiver.sql("SELECT tide_receive(readfile('next.tide'));"), "4\n");
    assert_eq!(reader.sql("SELECT v, tide_lsn() FROM t; PRAGMA integrity_check;"), "one|2\nok\n");
    assert_eq!(reader.sql("COMMIT; SELECT count(*), min(v), tide_lsn() FROM t WHERE id = 1;"), "1|uno|4\n");
    assert_eq!(reader.sql("SELECT count(*) FROM t; PRAGMA integrity_check;"), "500\nok\n");
}

#[test]
fn a_receiver_waits_for_a_writer_or_says_that_it_is_busy() {
    let scratch = prepared();
    let source = Shell::new(&scratch, "a.db");
    source.ok("SELECT writefile('full.tide', tide_prepare(0)) > 0; UPDATE t SET v = 'uno';
               SELECT writefile('next.tide', tide_prepare(2)) > 0;");
    let copy = Shell::new(&scratch, "copy.db");
    let (mut writer, mut receiver) = (copy.session(), copy.session());
    receiver.sql("SELECT tide_receive(readfile('full.tide'));");
    writer.sql("BEGIN IMMEDIATE; INSERT INTO t VALUES (9, 'never');");
    let answer = receiver.sql("SELECT tide_receive(readfile('next.tide'));");
    assert!(answer.contains(LOCKED) || answer.contains("tideline: BUSY: "), "{answer}");
    writer.sql("ROLLBACK;");
    assert_eq!(receiver.sql("SELECT tide_receive(readfile('next.tide')); SELECT v FROM t;"), "3\nuno\n");
}

#[test]
fn a_busy_source_is_shipped_to_a_copy_that_ends_up_equal() {
    let scratch = prepared();
    let writer = r#"
from tide import *
db = connect("a.db")
for n in range(2, 300):
    db.execute("INSERT INTO t VALUES (?, ?)", (n, "x" * (n * 13 % 900)))
    if n % 10 == 0:
        db.execute("UPDATE t SET v = v || 'y' WHERE id % 10 = ?", (n // 10 % 10,))
"#;
    let shipper = r#"
from tide import *
source, copy = connect("a.db"), connect("copy.db")
one(copy, "SELECT tide_receive(?)", one(source, "SELECT tide_prepare(0)"))
rounds = 0
while True:
    ended = os.path.exists("ended")
    blob = one(source, "SELECT tide_prepare(?)", one(copy, "SELECT tide_lsn()"))
    if blob is None and ended:
        break
    one(copy, "SELECT tide_receive(?)", blob)
    rounds += 1
    if rounds % 10 == 0:
        assert one(copy, "PRAGMA integrity_check") == "ok"
rows = "SELECT * FROM t ORDER BY id"
assert source.execute(rows).fetchall() == copy.execute(rows).fetchall()
assert one(source, "SELECT tide_lsn()") == one(copy, "SELECT tide_lsn()")
"#;
    let shipping = python_start(&scratch, shipper, &[]);
    python(&scratch, writer, &[]).ok();
    scratch.write("ended", "");
    shipping.finish().ok();
}
