//! Several databases at one connection: attached stores, plain databases among them, and commits over all of them.

use std::time::Duration;

use tideline_tests::{Dice, Host, Scratch, Shell, crash_library, python, refusal, rounds};

/// Attaches `b.db`, through Tideline.
const ATTACH: &str = "ATTACH 'file:b.db?vfs=tideline' AS b;";

/// The same where the current folder isn't the test's.
fn attach(scratch: &Scratch, name: &str, schema: &str) -> String {
    format!("ATTACH '{}' AS {schema};", scratch.uri(name))
}

/// The URI of a plain database. It names SQLite's own VFS: what a URI leaves open is taken from the main database.
fn plain(scratch: &Scratch) -> String {
    format!("file:{}?vfs=unix", scratch.path("plain.db").display())
}

/// Nothing that SQLite leaves beside a database while it commits.
#[track_caller]
fn no_journals(scratch: &Scratch) {
    for entry in std::fs::read_dir(scratch.folder()).expect("the folder") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        let left = name.contains("-journal")
            || name.contains("-mj")
            || name.ends_with("-wal")
            || name.ends_with("-shm");
        assert!(!left, "{name} was left");
    }
}

#[test]
fn stores_commit_and_roll_back_together() {
    Host::each(|host, scratch| {
        let answer = host.ok(
            scratch,
            "a.db",
            &format!(
                "{} {}
             CREATE TABLE t(v); CREATE TABLE b.u(v); CREATE TABLE c.w(v);
             BEGIN; INSERT INTO t VALUES (1); INSERT INTO u VALUES (2); INSERT INTO w VALUES (3); COMMIT;
             BEGIN; INSERT INTO t VALUES (4); DELETE FROM u; UPDATE w SET v = 9; ROLLBACK;
             SELECT t.v, u.v, w.v FROM t, u, w;
             SELECT tide_lsn(), tide_lsn('main'), tide_lsn('b'), tide_lsn('c');
             INSERT INTO u VALUES (5);
             SELECT tide_lsn(), tide_lsn('b'), tide_lsn('c');",
                attach(scratch, "b.db", "b"),
                attach(scratch, "c.db", "c")
            ),
        );
        assert_eq!(answer, "1|2|3\n2|2|2|2\n2|3|2\n");
        no_journals(scratch);
        assert_eq!(host.ok(scratch, "b.db", "SELECT group_concat(v), tide_lsn() FROM u;"), "2,5|3\n");
        assert_eq!(
            host.ok(scratch, "c.db", "SELECT v, tide_lsn() FROM w; PRAGMA integrity_check;"),
            "3|2\nok\n"
        );
    });
}

#[test]
fn commands_name_the_schema_that_they_act_on() {
    Host::each(|host, scratch| {
        let answer = host.ok(
            scratch,
            "a.db",
            &format!(
                "{}
             CREATE TABLE b.u(v); INSERT INTO u VALUES (2);
             SELECT tide_lsn(), tide_lsn('b');
             SELECT tide_prepare(0) IS NULL, length(tide_prepare(0, NULL, 'b')) > 0;
             SELECT count(*) FROM tide_log; SELECT count(*) FROM tide_log('b');
             SELECT json_extract(tide_status('b'), '$.head');
             SELECT tide_receive(tide_prepare(0, NULL, 'b'), 'main');
             SELECT v, tide_lsn() FROM main.u;",
                attach(scratch, "b.db", "b")
            ),
        );
        assert_eq!(answer, "0|2\n1|1\n0\n2\n2\n2\n2|2\n");
        refusal(&host.error(scratch, "a.db", "SELECT tide_lsn('nowhere');"), "ARGUMENT");
        let plain = "ATTACH ':memory:' AS m; SELECT tide_lsn('m');";
        assert!(host.error(scratch, "a.db", plain).contains("tideline: "));
    });
}

#[test]
fn a_plain_database_is_attached_to_a_store_and_a_store_to_a_plain_database() {
    Host::each(|host, scratch| {
        let plain = plain(scratch);
        let answer = host.ok(
            scratch,
            "a.db",
            &format!(
                "ATTACH '{}' AS p; CREATE TABLE t(v); CREATE TABLE p.q(v);
             BEGIN; INSERT INTO t VALUES (1); INSERT INTO q VALUES (2); COMMIT;
             BEGIN; UPDATE t SET v = 7; UPDATE q SET v = 7; ROLLBACK;
             SELECT t.v, q.v FROM t, q;",
                plain
            ),
        );
        assert_eq!(answer, "1|2\n");
        let answer = host.sql_at(
            scratch,
            &plain,
            &format!(
                "{}
             BEGIN; INSERT INTO q VALUES (3); INSERT INTO b.t VALUES (4); COMMIT;
             BEGIN; DELETE FROM q; DELETE FROM b.t; ROLLBACK;
             INSERT INTO b.t SELECT v * 10 FROM q;
             SELECT sum(v) FROM q; SELECT sum(v), tide_lsn('b') FROM b.t; PRAGMA b.integrity_check;",
                attach(scratch, "a.db", "b")
            ),
        );
        assert_eq!(answer.as_deref(), Ok("5\n55|4\nok\n"));
        assert!(!scratch.side("plain.db").exists());
        assert_eq!(Shell::stock(scratch, "plain.db").ok("SELECT sum(v) FROM q;"), "5\n");
        no_journals(scratch);
    });
}

#[test]
fn as_many_stores_as_sqlite_attaches() {
    Host::each(|host, scratch| {
        let mut sql = String::from("CREATE TABLE t(v);");
        for n in 0..10 {
            sql += &attach(scratch, &format!("x{n}.db"), &format!("x{n}"));
            sql += &format!("CREATE TABLE x{n}.t(v);");
        }
        sql += "BEGIN; INSERT INTO main.t VALUES (99);";
        for n in 0..10 {
            sql += &format!("INSERT INTO x{n}.t VALUES ({n});");
        }
        sql += "COMMIT; SELECT tide_lsn(), tide_lsn('x0'), tide_lsn('x9'); DETACH x3; SELECT v FROM x4.t;";
        assert_eq!(host.ok(scratch, "a.db", &sql), "2|2|2\n4\n");
        for n in 0..10 {
            let answer = host.ok(scratch, &format!("x{n}.db"), "SELECT v, tide_lsn() FROM t;");
            assert_eq!(answer, format!("{n}|2\n"));
        }
        no_journals(scratch);
    });
}

#[test]
fn a_spilled_transaction_over_stores_commits_and_rolls_back_whole() {
    Host::each(|host, scratch| {
        let work = "
            BEGIN;
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500)
                INSERT INTO t SELECT i, hex(zeroblob(300)) FROM n;
            INSERT INTO b.t SELECT id, 'b' || v FROM main.t;
            UPDATE main.t SET v = 'a' || v WHERE id % 2;
            SAVEPOINT s; DELETE FROM main.t; DELETE FROM b.t; ROLLBACK TO s;";
        let sums = "SELECT count(*), sum(length(v)) FROM main.t; SELECT count(*), sum(length(v)) FROM b.t;
                    PRAGMA integrity_check; SELECT tide_lsn(), tide_lsn('b');";
        let begin = format!(
            "{} PRAGMA main.cache_size = 10; PRAGMA b.cache_size = 10; PRAGMA cache_spill = 1;",
            attach(scratch, "b.db", "b")
        );
        host.ok(scratch, "a.db", &format!(
            "{begin} CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE b.t(id INTEGER PRIMARY KEY, v);"
        ));
        let answer = host.ok(scratch, "a.db", &format!("{begin} {work} ROLLBACK; {sums}"));
        assert_eq!(answer, "0|\n0|\nok\n1|1\n");
        let answer = host.ok(scratch, "a.db", &format!("{begin} {work} COMMIT; {sums}"));
        assert_eq!(answer, "1500|900750\n1500|901500\nok\n2|2\n");
        no_journals(scratch);
    });
}

#[test]
fn a_store_that_somebody_else_writes_holds_the_whole_commit_up() {
    let scratch = Scratch::new();
    Shell::new(&scratch, "a.db").ok(&format!("{ATTACH} CREATE TABLE t(v); CREATE TABLE b.u(v);"));
    let mut other = Shell::new(&scratch, "b.db").session();
    other.sql("BEGIN IMMEDIATE; INSERT INTO u VALUES (1);");
    let mut both = Shell::new(&scratch, "a.db").session();
    both.sql(ATTACH);
    let answer = both.sql("BEGIN; INSERT INTO t VALUES (2); INSERT INTO u VALUES (2);");
    assert!(answer.contains("locked"), "{answer}");
    assert_eq!(both.sql("ROLLBACK; SELECT count(*) FROM t;"), "0\n");
    other.sql("COMMIT;");
    let answer =
        both.sql("BEGIN; INSERT INTO t VALUES (2); INSERT INTO u VALUES (2); COMMIT; SELECT * FROM t, u;");
    assert_eq!(answer, "2|1\n2|2\n");
}

#[test]
fn a_reader_of_one_store_sees_the_commit_over_both_or_not() {
    let scratch = Scratch::new();
    Shell::new(&scratch, "a.db").ok(&format!("{ATTACH} CREATE TABLE t(v); CREATE TABLE b.u(v);"));
    let mut reader = Shell::new(&scratch, "b.db").session();
    assert_eq!(reader.sql("BEGIN; SELECT count(*) FROM u;"), "0\n");
    Shell::new(&scratch, "a.db")
        .ok(&format!("{ATTACH} BEGIN; INSERT INTO t VALUES (1); INSERT INTO u VALUES (1); COMMIT;"));
    assert_eq!(reader.sql("SELECT count(*) FROM u;"), "0\n");
    assert_eq!(reader.sql("COMMIT; SELECT count(*), tide_lsn() FROM u;"), "1|2\n");
}

#[test]
fn an_attachment_that_is_refused_says_why() {
    Host::each(|host, scratch| {
        let uri = scratch.uri_with("b.db", "frobnicate=1");
        host.error(scratch, "a.db", &format!("ATTACH '{uri}' AS b;"));
    });
    let script = r#"
from tide import *
db = connect("a.db")
fails(lambda: db.execute("ATTACH 'file:b.db?vfs=tideline&frobnicate=1' AS b"))
text = one(db, "SELECT tide_last_error()")
assert "tideline: ARGUMENT: " in text and "frobnicate" in text, text
db.execute("ATTACH 'file:b.db?vfs=tideline' AS b")
"#;
    python(&Scratch::new(), script, &[]).ok();
}

#[test]
fn a_pragma_without_a_schema_may_reach_an_attached_store() {
    // PAGER.md 6: with a plain main database such a PRAGMA never passes our VFS.
    for pragma in ["delete", "truncate", "persist", "memory", "off", "wal"] {
        for locking in ["normal", "exclusive"] {
            Host::each(|host, scratch| {
                host.ok(
                    scratch,
                    "b.db",
                    "CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t VALUES (1, 'one');",
                );
                let plain = plain(scratch);
                let answer = host.sql_at(
                    scratch,
                    &plain,
                    &format!(
                        "CREATE TABLE p(v); {}
                     PRAGMA locking_mode = {locking}; PRAGMA journal_mode = {pragma};
                     INSERT INTO b.t VALUES (2, 'two');
                     BEGIN; INSERT INTO p VALUES (3); INSERT INTO b.t VALUES (3, 'three'); COMMIT;
                     SAVEPOINT s; INSERT INTO b.t VALUES (4, 'four'); RELEASE s;
                     SELECT count(*), tide_lsn('b') FROM b.t;",
                        attach(scratch, "b.db", "b")
                    ),
                );
                if let Err(error) = &answer
                    && (pragma, locking) == ("wal", "exclusive")
                {
                    // A WAL that SQLite would keep to itself needs no shared memory; the switch is refused.
                    assert!(error.contains("SQL logic error"), "{error}");
                    let left =
                        "SELECT v, tide_lsn() FROM t; INSERT INTO t VALUES (2, 'two'); SELECT tide_lsn();";
                    assert_eq!(host.ok(scratch, "b.db", left), "one|2\n3\n");
                    return;
                }
                let answer = answer.unwrap_or_else(|error| panic!("{pragma}, {locking}: {error}"));
                assert!(answer.ends_with("4|5\n"), "{pragma}, {locking}: {answer}");
                let left = "SELECT group_concat(v), tide_lsn() FROM t; PRAGMA integrity_check;";
                assert_eq!(
                    host.ok(scratch, "b.db", left),
                    "one,two,three,four|5\nok\n",
                    "{pragma}, {locking}"
                );
                assert_eq!(
                    Shell::stock(scratch, "b.db").ok("SELECT count(*) FROM t;"),
                    "4\n",
                    "{pragma}, {locking}"
                );
            });
        }
    }
}

#[test]
fn with_a_plain_main_a_rollback_of_an_attached_store_leaves_what_was() {
    for pragma in ["delete", "truncate", "persist", "memory", "wal"] {
        Host::each(|host, scratch| {
            host.ok(
                scratch,
                "b.db",
                "CREATE TABLE t(id INTEGER PRIMARY KEY, v);
                WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
                    INSERT INTO t SELECT i, hex(zeroblob(200)) FROM n;",
            );
            let plain = plain(scratch);
            let answer = host.sql_at(scratch, &plain, &format!(
                "CREATE TABLE p(v); {} PRAGMA journal_mode = {pragma};
                 PRAGMA b.cache_size = 10; PRAGMA cache_spill = 1;
                 BEGIN; INSERT INTO p VALUES (1); UPDATE b.t SET v = 'x' || v; DELETE FROM b.t WHERE id % 2; ROLLBACK;
                 SELECT count(*), sum(length(v)), tide_lsn('b') FROM b.t; PRAGMA b.integrity_check;",
                attach(scratch, "b.db", "b")
            ));
            let answer = answer.unwrap_or_else(|error| panic!("{pragma}: {error}"));
            assert!(answer.ends_with("500|200000|2\nok\n"), "{pragma}: {answer}");
        });
    }
}

/// Commits the same number to all the databases, again and again; the one called `plain` is not Tideline's.
const WRITER: &str = r#"
from tide import *
import random
seed, *names = sys.argv[1:]
dice = random.Random(int(seed))
db = connect(names[0] + ".db")
for name in names[1:]:
    vfs = "unix" if name == "plain" else "tideline"
    db.execute(f"ATTACH 'file:{name}.db?vfs={vfs}' AS {name}")
db.execute("PRAGMA main.cache_size = 10")
db.execute("PRAGMA cache_spill = 1")
schemas = ["main", *names[1:]]
largest = 60000 // len(names)
for schema in schemas:
    db.execute(f"CREATE TABLE IF NOT EXISTS {schema}.t(n, v)")
n = one(db, "SELECT coalesce(max(n), 0) FROM main.t")
print("ready")
while True:
    n += 1
    db.execute("BEGIN")
    for schema in schemas:
        db.execute(f"INSERT INTO {schema}.t VALUES (?, zeroblob(?))", (n, dice.randrange(largest)))
    db.execute("COMMIT")
    acknowledge("acks", n)
"#;

/// Opens what was left in the order that is given, and compares.
const CHECK: &str = r#"
from tide import *
newest = {}
for name in sys.argv[1:]:
    load()
    db = sqlite3.connect("plain.db", isolation_level=None) if name == "plain" else connect(name + ".db")
    newest[name] = db.execute("SELECT coalesce(max(n), 0), count(*) FROM t").fetchone()
    assert one(db, "PRAGMA integrity_check") == "ok", name
    db.close()
acknowledged = int(open("acks").read().split()[-1]) if os.path.exists("acks") else 0
assert len(set(newest.values())) == 1, (newest, acknowledged)
top, count = newest.popitem()[1]
assert top == count and top - acknowledged in (0, 1), (top, count, acknowledged)
# The next writer goes on from here.
acknowledge("acks", top)
"#;

#[test]
fn killed_at_random_a_commit_over_databases_has_happened_in_all_or_none() {
    // PAGER.md 5.
    for databases in [["a", "b"].as_slice(), &["a", "b", "plain"], &["a", "b", "c", "d", "e", "f", "plain"]] {
        Host::each(|host, scratch| {
            for name in databases {
                let uri = if *name == "plain" { plain(scratch) } else { scratch.uri(&format!("{name}.db")) };
                host.sql_at(scratch, &uri, "CREATE TABLE t(n, v);").expect("a table");
            }
            let mut names = databases.to_vec();
            let mut dice = Dice::new(&databases.concat());
            for _ in 0..rounds(10) {
                let seed = dice.below(u32::MAX).to_string();
                let mut writer = host.python_start(scratch, WRITER, &[&[seed.as_str()], databases].concat());
                writer.wait_for("ready");
                std::thread::sleep(Duration::from_micros(dice.below(60_000).into()));
                writer.kill().killed();
                let first = dice.pick(names.len());
                names.rotate_left(first);
                host.python(scratch, CHECK, &names).ok();
                // A super-journal may stay, as with SQLite alone; what names it doesn't.
                for name in databases.iter().filter(|name| **name != "plain") {
                    let journal = format!("{name}.db-journal");
                    assert!(!scratch.path(&journal).exists(), "{journal} was left");
                }
            }
        });
    }
}

/// Dies at each call of a commit over the databases that are named, in turn, and looks at what is left, in an order that
/// differs from time to time.
const AT_EVERY_CALL: &str = r#"
from tide import *
from crash import *
crash, *names = sys.argv[1:]
calls = preloaded(crash)

def path(name):
    return f"file:{name}.db?vfs={'unix' if name == 'plain' else 'tideline'}"

def opened(name):
    load()
    return sqlite3.connect(path(name), uri=True, isolation_level=None)

def commit(n):
    db = opened(names[0])
    for name in names[1:]:
        db.execute(f"ATTACH '{path(name)}' AS {name}")
    db.execute("BEGIN")
    for schema in ["main", *names[1:]]:
        db.execute(f"INSERT INTO {schema}.t VALUES (1, zeroblob(9000))")
    calls.crash_at(n)
    db.execute("COMMIT")

os.mkdir("new")
os.chdir("new")
for name in names:
    db = opened(name)
    db.execute("CREATE TABLE t(n, v)")
    db.close()
os.chdir("..")
outcomes = []
orders = itertools.cycle(itertools.permutations(names))
for n in at_every_call(calls, commit):
    order, found = next(orders), {}
    for name in order:
        db = opened(name)
        found[name] = one(db, "SELECT count(*) FROM t")
        assert one(db, "PRAGMA integrity_check") == "ok", (n, order)
        db.close()
    assert len(set(found.values())) == 1, (n, order, found)
    outcomes.append(found.popitem()[1])
    for name in names:
        assert name == "plain" or not os.path.exists(name + ".db-journal"), (n, order)
assert outcomes[0] == 0 and outcomes[-1] == 1, outcomes
print(len(outcomes), "calls")
"#;

#[test]
fn killed_at_any_call_a_commit_over_databases_has_happened_in_all_or_none() {
    // PAGER.md 5.
    let Some(crash) = crash_library() else { return };
    let crash = crash.to_str().expect("a path in text");
    for names in [["a", "plain", "b"], ["plain", "a", "b"]] {
        Host::each(|host, scratch| {
            let output = host.python(scratch, AT_EVERY_CALL, &[[crash].as_slice(), &names].concat());
            println!("{names:?}: {}", output.ok().trim_end());
        });
    }
}
