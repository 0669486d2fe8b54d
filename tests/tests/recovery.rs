//! `kill -9` at a chosen point and at random ones, one process at a time: what was acknowledged is there, what was
//! not committed isn't, and nothing stays locked.

use std::time::Duration;

use tideline_tests::{Dice, Scratch, Shell, crash_library, python, python_start, rounds};

/// The shell kills itself.
const KILL: &str = ".shell kill -9 $PPID\n";

#[test]
fn a_transaction_that_was_open_never_was() {
    let scratch = Scratch::new();
    let db = Shell::new(&scratch, "a.db");
    db.ok("CREATE TABLE t(a); INSERT INTO t VALUES (1);");
    db.run(&format!("BEGIN IMMEDIATE; INSERT INTO t VALUES (2); UPDATE t SET a = 9;\n{KILL}")).killed();
    assert_eq!(db.ok("SELECT * FROM t; SELECT tide_lsn(); PRAGMA integrity_check;"), "1\n2\nok\n");
    assert_eq!(db.ok("INSERT INTO t VALUES (3); SELECT tide_lsn();"), "3\n");
    assert_eq!(db.ok("SELECT last_lsn FROM tide_log;"), "1\n2\n3\n");
}

#[test]
fn a_spilled_transaction_that_was_open_never_was() {
    let scratch = Scratch::new();
    let db = Shell::new(&scratch, "a.db");
    db.ok("CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (100000, 'stays');");
    for round in 1..=3 {
        db.run(&format!(
            "PRAGMA cache_size = 10; PRAGMA cache_spill = 1; BEGIN;
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
                 INSERT INTO t SELECT i, printf('%0600d', i) FROM n;
             DELETE FROM t WHERE id = 100000;\n{KILL}"
        ))
        .killed();
        let answer =
            db.ok("SELECT id, v FROM t WHERE id >= 100000; SELECT min(id) FROM t; PRAGMA integrity_check;");
        assert_eq!(answer, format!("{}100000\nok\n", rows(round)));
        db.ok(&format!("INSERT INTO t VALUES ({}, 'after {round}');", 100_000 + round));
    }
    assert_eq!(db.ok("SELECT tide_lsn();"), "5\n");
}

/// What is in the table of the test above before a round.
fn rows(round: u32) -> String {
    let later = (1..round).map(|n| format!("{}|after {n}\n", 100_000 + n));
    std::iter::once("100000|stays\n".to_string()).chain(later).collect()
}

#[test]
fn what_was_acknowledged_survives_at_every_level_of_synchronous() {
    for level in ["OFF", "NORMAL", "FULL", "EXTRA"] {
        let scratch = Scratch::new();
        let db = Shell::new(&scratch, "a.db");
        // The process dies, the machine doesn't: even OFF loses nothing then.
        db.run(&format!(
            "PRAGMA synchronous = {level}; CREATE TABLE t(a); INSERT INTO t VALUES (1);
             BEGIN; INSERT INTO t VALUES (2); INSERT INTO t VALUES (3); COMMIT;\n{KILL}"
        ))
        .killed();
        assert_eq!(
            db.ok("SELECT sum(a), tide_lsn() FROM t; PRAGMA integrity_check;"),
            "6|3\nok\n",
            "{level}"
        );
    }
}

#[test]
fn a_database_killed_at_birth_is_empty_and_usable() {
    let scratch = Scratch::new();
    let db = Shell::new(&scratch, "a.db");
    db.run(&format!("BEGIN; CREATE TABLE t(a);\n{KILL}")).killed();
    assert_eq!(db.ok("SELECT count(*), tide_lsn() FROM sqlite_schema;"), "0|0\n");
    db.run(&format!("SELECT tide_lsn();\n{KILL}")).killed();
    assert_eq!(db.ok("CREATE TABLE t(a); INSERT INTO t VALUES (1); SELECT a, tide_lsn() FROM t;"), "1|2\n");
}

#[test]
fn a_reader_that_is_killed_leaves_no_trace() {
    let scratch = Scratch::new();
    let db = Shell::new(&scratch, "a.db");
    db.ok("CREATE TABLE t(a); INSERT INTO t VALUES (1), (2);");
    for _ in 0..5 {
        db.run(&format!("BEGIN; SELECT * FROM t;\n{KILL}")).killed();
    }
    assert_eq!(db.ok("INSERT INTO t VALUES (3); SELECT sum(a), tide_lsn() FROM t;"), "6|3\n");
}

#[test]
fn killed_again_and_again_the_numbers_go_on() {
    let scratch = Scratch::new();
    let db = Shell::new(&scratch, "a.db");
    db.ok("CREATE TABLE t(a);");
    let count = rounds(20);
    for n in 1..=count {
        db.run(&format!("INSERT INTO t VALUES ({n}); BEGIN; DELETE FROM t; CREATE TABLE u{n}(b);\n{KILL}"))
            .killed();
    }
    let answer = db
        .ok("SELECT count(*), sum(a), tide_lsn() FROM t; SELECT count(*), max(last_lsn) FROM tide_log;
                        PRAGMA integrity_check;");
    let (sum, lsn) = (count * (count + 1) / 2, count + 1);
    assert_eq!(answer, format!("{count}|{sum}|{lsn}\n{lsn}|{lsn}\nok\n"));
}

/// Commits numbers one after another, and writes each to a file of its own once it is acknowledged.
const WRITER: &str = r#"
from tide import *
level, spill = sys.argv[1:]
db = connect("a.db")
db.execute(f"PRAGMA synchronous = {level}")
if spill == "spill":
    db.execute("PRAGMA cache_size = 5")
    db.execute("PRAGMA cache_spill = 1")
db.execute("CREATE TABLE IF NOT EXISTS t(n INTEGER PRIMARY KEY, v)")
n = one(db, "SELECT coalesce(max(n), 0) FROM t")
print("ready")
while True:
    n += 1
    db.execute("BEGIN")
    db.execute("INSERT INTO t VALUES (?, ?)", (n, "x" * (n * 37 % 5000)))
    if spill == "spill":
        db.execute("UPDATE t SET v = v || 'y' WHERE n > ?", (n - 40,))
    db.execute("COMMIT")
    acknowledge("acks", n)
"#;

#[test]
fn killed_at_random_a_writer_loses_nothing_that_it_acknowledged() {
    for (level, spill) in [("OFF", "no"), ("NORMAL", "no"), ("FULL", "no"), ("NORMAL", "spill")] {
        let scratch = Scratch::new();
        let mut dice = Dice::new("recovery");
        for _ in 0..rounds(8) {
            let mut writer = python_start(&scratch, WRITER, &[level, spill]);
            writer.wait_for("ready");
            std::thread::sleep(Duration::from_micros(dice.below(150_000).into()));
            writer.kill().killed();
            let check = r#"
from tide import *
db = connect("a.db")
acknowledged = int(open("acks").read().split()[-1]) if os.path.exists("acks") else 0
newest = one(db, "SELECT coalesce(max(n), 0) FROM t")
assert newest - acknowledged in (0, 1), (newest, acknowledged)
assert one(db, "SELECT count(*) FROM t") == newest
assert one(db, "SELECT tide_lsn()") == newest + 1
assert one(db, "PRAGMA integrity_check") == "ok"
assert one(db, "SELECT count(*) FROM t WHERE length(rtrim(v, 'y')) <> n * 37 % 5000") == 0
# The next writer goes on from here.
acknowledge("acks", newest)
"#;
            python(&scratch, check, &[]).ok();
        }
    }
}

#[test]
fn a_receive_that_is_killed_has_happened_or_not() {
    let scratch = Scratch::new();
    let prepare = r#"
from tide import *
db = connect("source.db")
db.execute("CREATE TABLE t(n INTEGER PRIMARY KEY, v)")
db.execute("INSERT INTO t SELECT value, zeroblob(900) FROM json_each(?)", (json.dumps(list(range(2000))),))
open("full.tide", "wb").write(one(db, "SELECT tide_prepare(0)"))
db.execute("UPDATE t SET v = randomblob(900)")
open("next.tide", "wb").write(one(db, "SELECT tide_prepare(2)"))
print(one(db, "SELECT tide_lsn()"))
"#;
    assert_eq!(python(&scratch, prepare, &[]).ok(), "3\n");
    let receive = r#"
from tide import *
db = connect(sys.argv[1])
one(db, "SELECT tide_receive(?)", open("full.tide", "rb").read())
blob = open("next.tide", "rb").read()
print("ready")
one(db, "SELECT tide_receive(?)", blob)
time.sleep(60)
"#;
    let check = r#"
from tide import *
db = connect(sys.argv[1])
lsn, zeros, rows = db.execute("SELECT tide_lsn(), sum(v = zeroblob(900)), count(*) FROM t").fetchone()
assert (lsn, zeros, rows) in ((2, 2000, 2000), (3, 0, 2000)), (lsn, zeros, rows)
assert one(db, "PRAGMA integrity_check") == "ok"
assert one(db, "SELECT tide_receive(?)", open("next.tide", "rb").read()) == 3
assert one(db, "SELECT sum(v = zeroblob(900)) FROM t") == 0
"#;
    let mut dice = Dice::new("receive");
    for n in 0..rounds(12) {
        let name = format!("copy{n}.db");
        let mut receiver = python_start(&scratch, receive, &[&name]);
        receiver.wait_for("ready");
        std::thread::sleep(Duration::from_micros(dice.below(40_000).into()));
        receiver.kill().killed();
        python(&scratch, check, &[&name]).ok();
    }
}

#[test]
fn a_process_that_ends_without_closing_is_no_worse() {
    let scratch = Scratch::new();
    let script = r#"
from tide import *
db = connect("a.db")
db.execute("CREATE TABLE t(a)")
db.execute("BEGIN")
db.execute("INSERT INTO t VALUES (1)")
os._exit(0)
"#;
    python(&scratch, script, &[]).ok();
    assert_eq!(Shell::new(&scratch, "a.db").ok("SELECT count(*), tide_lsn() FROM t;"), "0|1\n");
}

/// Dies at each call of the work that is named, in turn, and looks at what is left.
const AT_EVERY_CALL: &str = r#"
from tide import *
from crash import *
crash, what, *allowed = sys.argv[1:]
allowed = set(map(int, allowed))
calls = preloaded(crash)

def begin():
    plain = sqlite3.connect("a.db", isolation_level=None)
    plain.execute("PRAGMA synchronous = OFF")
    plain.execute("CREATE TABLE t(n INTEGER PRIMARY KEY, v)")
    plain.executemany("INSERT INTO t VALUES (?, zeroblob(3000))", [(n,) for n in range(1, 6)])
    plain.close()
    if what == "adopt":
        return
    db = connect("a.db")
    db.execute("PRAGMA synchronous = OFF")
    db.executemany("INSERT INTO t VALUES (?, zeroblob(3000))", [(n,) for n in range(6, 20)])
    if what == "receive":
        source, copy = db, connect("copy.db")
        one(copy, "SELECT tide_receive(?)", one(source, "SELECT tide_prepare(0)"))
        source.executemany("UPDATE t SET v = randomblob(3000) WHERE n = ?", [(n,) for n in range(1, 10)])
        with open("delta", "wb") as file:
            file.write(one(source, "SELECT tide_prepare(15)"))
        copy.close()
        os.remove("a.db"), source.close(), shutil.rmtree("a.db-tide")
        os.rename("copy.db", "a.db"), os.rename("copy.db-tide", "a.db-tide")
    db.close()

def work():
    db = connect("a.db")
    if what in ("adopt", "commit"):
        n = one(db, "SELECT max(n) FROM t")
        for n in range(n + 1, n + 4):
            db.execute("INSERT INTO t VALUES (?, randomblob(9000))", (n,))
            acknowledge("acks", n)
    elif what == "receive":
        one(db, "SELECT tide_receive(?)", open("delta", "rb").read())
    elif what == "vacuum":
        db.execute("DELETE FROM t WHERE n < 10")
        db.execute("VACUUM")
    elif what == "compact":
        db.executemany("UPDATE t SET v = randomblob(3000) WHERE n = ?", [(n,) for n in range(1, 4)])
        one(db, "SELECT tide_fold()"), one(db, "SELECT tide_compact()")
    elif what == "retain":
        one(db, "SELECT tide_retain('none')")
        db.execute("UPDATE t SET v = randomblob(4000)")
        one(db, "SELECT tide_fold()")
    elif what == "detach":
        db.execute("SELECT tide_detach()").fetchall()
    db.close()

def attempt(n):
    load()
    calls.crash_at(n)
    work()

os.mkdir("new")
os.chdir("new")
begin()
os.chdir("..")
lsns = set()
for n in at_every_call(calls, attempt):
    db = connect("a.db")
    assert one(db, "PRAGMA integrity_check") == "ok", n
    assert db.execute("SELECT * FROM tide_verify").fetchall() == [], n
    acknowledged = open("acks").read().split() if os.path.exists("acks") else []
    assert one(db, "SELECT max(n) FROM t") >= max(map(int, acknowledged), default=0), n
    count = one(db, "SELECT count(*) FROM t")
    lsns.add(one(db, "SELECT tide_lsn()"))
    db.execute("INSERT INTO t VALUES (1000, 'after')")
    db.close()
    plain = sqlite3.connect("a.db")
    assert one(plain, "PRAGMA integrity_check") == "ok" and one(plain, "SELECT count(*) FROM t") == count + 1, n
    plain.close()
assert {min(allowed), max(allowed)} <= lsns <= allowed, lsns
print(n, "calls, LSNs", sorted(lsns))
"#;

#[test]
fn killed_at_any_call_work_of_every_kind_leaves_a_sound_store() {
    let Some(crash) = crash_library() else { return };
    let crash = crash.to_str().expect("a path in text");
    // The LSNs that may be found.
    let kinds = [
        ("adopt", &["1", "2", "3", "4"][..]),
        ("commit", &["15", "16", "17", "18"]),
        ("receive", &["15", "24"]),
        ("vacuum", &["15", "16", "17"]),
        ("compact", &["15", "16", "17", "18"]),
        ("retain", &["15", "16"]),
        ("detach", &["1", "15"]),
    ];
    for (what, lsns) in kinds {
        let output = python(&Scratch::new(), AT_EVERY_CALL, &[&[crash, what], lsns].concat());
        println!("{what}: {}", output.ok().trim_end());
    }
}
