//! What SQLite tells a VFS by its calls, and what it does without asking: the traps 7 to 11 and 13 of PAGER.md, each on
//! the three builds of SQLite that `pager.rs` names. 12 is in `files.rs`, more of 8 in `paging.rs`, of 10 in `rest.rs`,
//! of 11 in `processes.rs`.

use tideline_tests::Host;

#[test]
fn the_level_of_synchronous_is_told_by_the_calls() {
    // Trap 7. A commit that has to be durable is so when it returns. The others wait for nobody, and are seen before
    // they are durable, unless a fold happened to sync them.
    let script = r#"
from tide import *
def durable(db, schema="main"):
    status = json.loads(one(db, "SELECT tide_status(?)", schema))
    return status["head"] == status["durable"]

db = connect("a.db")
db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
db.execute("PRAGMA cache_size = 10")
db.execute("PRAGMA cache_spill = 5")
work = (
    ("INSERT INTO t(v) VALUES (1)",),
    ("BEGIN", "INSERT INTO t(v) VALUES (2)", "SAVEPOINT s", "INSERT INTO t(v) VALUES (3)", "ROLLBACK TO s", "COMMIT"),
    ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) "
     "INSERT INTO t(v) SELECT hex(zeroblob(2000)) FROM n",),
    ("UPDATE t SET v = v || 'x'",),
    ("DELETE FROM t WHERE id % 2",),
    ("VACUUM",),
)
for level, wanted in (("OFF", False), ("NORMAL", False), ("FULL", True), ("EXTRA", True), ("OFF", False), ("FULL", True)):
    db.execute(f"PRAGMA synchronous = {level}")
    seen = []
    for statements in 3 * work:
        for sql in statements:
            db.execute(sql)
        seen.append(durable(db))
    assert all(seen) if wanted else not all(seen), (level, seen)
for journal in ("delete", "truncate", "persist", "memory", "off"):
    for locking in ("normal", "exclusive"):
        db = sqlite3.connect(f"file:plain-{journal}-{locking}.db", uri=True, isolation_level=None)
        db.execute(f"ATTACH '{uri(f'b-{journal}-{locking}.db')}' AS b")
        # Trap 6: these reach the pager of the attached one, and never its VFS.
        db.execute(f"PRAGMA locking_mode = {locking}").fetchall()
        db.execute(f"PRAGMA journal_mode = {journal}").fetchall()
        db.execute("CREATE TABLE b.t(v)")
        for level in ("OFF", "NORMAL", "FULL", "EXTRA", "NORMAL", "OFF", "FULL"):
            db.execute(f"PRAGMA b.synchronous = {level}")
            wanted = level in ("FULL", "EXTRA") or level == "NORMAL" and journal in ("memory", "off")
            seen = []
            for _ in range(5 if wanted else 20):
                db.execute("INSERT INTO b.t VALUES (1)")
                seen.append(durable(db, "b"))
            assert all(seen) if wanted else not all(seen), (journal, locking, level, seen)
"#;
    Host::each_python("synchronous", script);
}

#[test]
fn mapped_pages_are_right_while_others_write_fold_and_truncate() {
    // Trap 8.
    let script = r#"
from tide import *
changes = (
    "UPDATE t SET v = zeroblob(length(v))",
    "SELECT tide_fold()",
    "DELETE FROM t WHERE id % 2",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "VACUUM",
    "SELECT tide_fold()",
    "SELECT tide_compact()",
    "DELETE FROM t",
    "PRAGMA incremental_vacuum",
    "VACUUM",
    "SELECT tide_retain('none')",
    "SELECT tide_fold()",
    "INSERT INTO t SELECT value, randomblob(2500) FROM json_each('[" + ",".join(map(str, range(5000, 5600))) + "]')",
    "SELECT tide_fold()",
)
look = "SELECT count(*), coalesce(sum(length(v)), 0), sum(id), max(hex(substr(v, 1, 40))), min(hex(substr(v, -40))) FROM t"
for mapped in (0, 100_000, 1 << 30):
    for name, begun in (("young.db", False), ("at-rest.db", True)):
        name = f"{mapped}-{name}"
        writer = connect(name)
        writer.execute("PRAGMA synchronous = OFF")
        writer.execute("PRAGMA auto_vacuum = FULL")
        writer.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
        writer.executemany("INSERT INTO t VALUES (?, ?)", [(n, bytes([n % 251]) * (n % 5000)) for n in range(800)])
        if begun:
            writer.close()
            writer = connect(name)
            writer.execute("PRAGMA synchronous = OFF")
        readers = []
        for change in changes:
            # A reader for each state, its cache cold, and a statement in the middle of its rows.
            reader = connect(name)
            reader.execute(f"PRAGMA mmap_size = {mapped}").fetchall()
            reader.execute("PRAGMA cache_size = 10")
            reader.execute("BEGIN")
            seen = reader.execute(look).fetchone()
            rows = reader.execute("SELECT id, v FROM t ORDER BY id")
            first = rows.fetchmany(50)
            readers.append((reader, seen, rows, first))
            writer.execute(change).fetchall()
            for reader, seen, rows, first in readers[-4:]:
                assert reader.execute(look).fetchone() == seen, (name, change)
            if len(readers) > 3:
                reader, seen, rows, first = readers.pop(0)
                first += rows.fetchall()
                assert len(first) == seen[0] and sum(len(v) for _, v in first) == seen[1], (name, change)
                assert one(reader, "PRAGMA integrity_check") == "ok", (name, change)
                reader.execute("COMMIT")
                assert reader.execute(look).fetchone() == writer.execute(look).fetchone(), (name, change)
                reader.close()
        # The same inside a write transaction, where spilled pages hide the snapshot's.
        writer.execute(f"PRAGMA mmap_size = {mapped}").fetchall()
        writer.execute("PRAGMA cache_size = 10")
        writer.execute("BEGIN")
        total = one(writer, "SELECT sum(length(v)) FROM t")
        for n in range(1, 4):
            writer.execute("UPDATE t SET v = zeroblob(length(v) + 1)")
            assert one(writer, "SELECT sum(length(v)) FROM t") == total + n * one(writer, "SELECT count(*) FROM t"), name
            assert one(writer, "PRAGMA integrity_check") == "ok", name
        writer.execute("ROLLBACK")
        assert one(writer, "SELECT sum(length(v)) FROM t") == total, name
        for reader, seen, rows, first in readers:
            assert reader.execute(look).fetchone() == seen, name
            reader.close()
        writer.close()
"#;
    Host::each_python("mapped", script);
}

#[test]
fn an_attached_plain_database_keeps_its_mapping_and_level() {
    // Trap 8: an unqualified mmap_size, and trap 7: the level that a main database of ours gets.
    let script = r#"
from tide import *
def plain_settings(main):
    db = main
    db.execute("ATTACH 'file:plain.db?vfs=unix' AS p")
    return [one(db, f"PRAGMA p.{pragma}") for pragma in ("mmap_size", "synchronous", "journal_mode", "locking_mode")]

plain = sqlite3.connect("file:main.db", uri=True, isolation_level=None)
plain.execute("CREATE TABLE t(a)")
wanted = plain_settings(plain)
assert plain_settings(connect("ours.db")) == wanted
after = sqlite3.connect("file:main.db", uri=True, isolation_level=None)
assert plain_settings(after) == wanted
"#;
    Host::each_python("attached", script);
}

#[test]
fn a_shared_cache_joins_by_name() {
    // Trap 9.
    let script = r#"
from tide import *
first, second, apart = connect("a.db", cache="shared"), connect("a.db", cache="shared"), connect("a.db", timeout=0)
first.execute("CREATE TABLE t(v)")
os.symlink("a.db", "link.db")
linked = connect("link.db", cache="shared")
second.execute("BEGIN")
second.execute("INSERT INTO t VALUES (1)")
# In the cache the table is locked; outside of it nothing has happened yet.
for joined in (first, linked):
    fails(lambda: joined.execute("SELECT * FROM t"), "locked")
assert one(apart, "SELECT count(*) FROM t") == 0
fails(lambda: apart.execute("INSERT INTO t VALUES (2)"), "locked")
second.execute("COMMIT")
assert [one(db, "SELECT count(*) FROM t") for db in (first, second, apart, linked)] == [1] * 4
apart.execute("INSERT INTO t VALUES (2)")
assert [one(db, "SELECT sum(v) FROM t") for db in (first, second, apart, linked)] == [3] * 4
first.close()
linked.execute("INSERT INTO t VALUES (3)")
second.close(), linked.close()
assert apart.execute("SELECT sum(v), tide_lsn() FROM t").fetchone() == (6, 4)
"#;
    Host::each_python("shared", script);
}

#[test]
fn a_shared_cache_does_not_swallow_parameters() {
    // Trap 9: SQLite joins it before it opens anything, so that what asked for the past wrote to the head.
    let script = r#"
from tide import *
db = connect("a.db", cache="shared")
db.execute("CREATE TABLE t(v)")
for parameter in ({"at": 1}, {"as_of": "2020-01-01"}, {"branch": "b"}, {"nolock": 1}, {"colour": "red"}):
    refused("ARGUMENT", lambda: connect("a.db", cache="shared", **parameter).execute("INSERT INTO t VALUES (1)"))
assert db.execute("SELECT count(*), tide_lsn() FROM t").fetchone() == (0, 1)
"#;
    Host::each_python("parameters", script);
}

#[test]
fn stock_sqlite_in_the_same_process_keeps_its_locks() {
    // Trap 10: closing any descriptor of a file drops all POSIX locks that the process has on it.
    let script = r#"
from tide import *
import subprocess

def elsewhere(begin):
    """What another process with stock SQLite is told."""
    script = f"import sqlite3; db = sqlite3.connect('a.db', timeout=0, isolation_level=None); db.execute('{begin}')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    return "locked" in done.stderr

def ours(action):
    try:
        db = connect("a.db", timeout=0)
        try:
            action(db)
        finally:
            db.close()
    except sqlite3.Error as error:
        assert "locked" in str(error) or "tideline: BUSY" in str(error), error

stock = sqlite3.connect("a.db", isolation_level=None)
stock.execute("CREATE TABLE t(v)")
stock.execute("INSERT INTO t VALUES (1)")
load()
for state in ("new", "known"):
    for lock, others in (("BEGIN IMMEDIATE", "BEGIN IMMEDIATE"), ("BEGIN", "BEGIN EXCLUSIVE")):
        stock.execute(lock)
        assert one(stock, "SELECT count(*) FROM t") == 1
        assert elsewhere(others), (state, lock)
        ours(lambda db: None)
        assert elsewhere(others), (state, lock, "opened")
        ours(lambda db: one(db, "SELECT count(*) FROM t"))
        assert elsewhere(others), (state, lock, "read")
        ours(lambda db: db.execute("INSERT INTO t VALUES (2)"))
        assert elsewhere(others), (state, lock, "written")
        assert one(stock, "SELECT count(*) FROM t") == 1
        stock.execute("COMMIT")
        assert not elsewhere(others), (state, lock)
    ours(lambda db: one(db, "SELECT tide_lsn()"))
ours(lambda db: db.execute("INSERT INTO t VALUES (2)"))
assert one(stock, "SELECT count(*) FROM t") == 2
assert one(stock, "PRAGMA integrity_check") == "ok"
"#;
    Host::each_python("locks", script);
}

#[test]
fn a_sleep_of_the_application_takes_no_turn() {
    // Trap 11: whoever was told BUSY and sleeps wakes in its turn, but may not come for it.
    let script = r#"
from tide import *
import ctypes, subprocess
library = ctypes.CDLL("libsqlite3.so.0")
assert library.sqlite3_libversion_number() == sum(n * f for n, f in zip(sqlite3.sqlite_version_info, (10**6, 1000, 1)))
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.execute("SELECT load_extension(?, 'sqlite3_tidelinedefault_init')", (LIBRARY,)).fetchall()
other = subprocess.Popen([sys.executable, "-c", """
from tide import *
db = connect("a.db", timeout=0)
db.execute("CREATE TABLE t(v)")
print("ready", flush=True)
for line in sys.stdin:
    try:
        db.execute(line)
        print("done", flush=True)
    except sqlite3.Error as error:
        print(error, flush=True)
"""], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
assert other.stdout.readline() == "ready\n"

def tell(sql):
    other.stdin.write(sql + "\n"), other.stdin.flush()
    return other.stdout.readline().strip()

db = sqlite3.connect("a.db", timeout=0, isolation_level=None)
for _ in range(3):
    assert tell("BEGIN IMMEDIATE") == "done"
    fails(lambda: db.execute("INSERT INTO t VALUES (1)"), "locked")
    assert tell("COMMIT") == "done"
    # sqlite3_sleep() sleeps through the default VFS, which is ours.
    library.sqlite3_sleep(50)
    assert tell("INSERT INTO t VALUES (2)") == "done", "nobody writes"
other.stdin.close()
assert other.wait() == 0
"#;
    Host::each_python("sleep", script);
}

#[test]
fn a_refused_open_says_why_and_hurts_no_other() {
    // Trap 13.
    let script = r#"
from tide import *
load()
for n in range(3):
    text = refused("ARGUMENT", lambda: connect("a.db", colour="red"))
    assert "colour" in text, text
    for name in ("file:plain.db", ":memory:"):
        db = sqlite3.connect(name, uri=True, isolation_level=None)
        db.execute("CREATE TABLE IF NOT EXISTS t(a)")
        db.close()
    db = connect("a.db")
    db.execute("CREATE TABLE IF NOT EXISTS t(a)")
    # ATTACH has only the code; the text is asked for.
    fails(lambda: db.execute(f"ATTACH '{uri('b.db', colour='blue')}' AS b").fetchall())
    text = one(db, "SELECT tide_last_error()")
    assert "tideline: ARGUMENT: " in text and "colour" in text, text
    db.execute(f"ATTACH '{uri('b.db')}' AS b")
    assert one(db, "SELECT tide_lsn()") == 1
    db.close()
assert sorted(name for name in os.listdir(".") if name.endswith(".db")) == ["a.db", "b.db", "plain.db"]
"#;
    Host::each_python("refused", script);
}

#[test]
fn why_a_database_is_busy_is_told_and_waiting_for_it_can_be_interrupted() {
    let script = r#"
from tide import *
import threading
db, other = connect("a.db"), connect("a.db", timeout=0)
db.execute("CREATE TABLE t(v)")
one(other, "SELECT count(*) FROM t")
db.execute("BEGIN IMMEDIATE")
fails(lambda: other.execute("INSERT INTO t VALUES (1)"), "locked")
why = one(other, "SELECT tide_last_error()")
assert why.startswith("tideline: BUSY: ") and "; " in why, why
refused("BUSY", lambda: one(other, "SELECT tide_compact()"))
patient = connect("a.db", timeout=3600)
said = []
def waits():
    try:
        said.append(one(patient, "SELECT tide_compact()"))
    except sqlite3.Error as error:
        said.append(str(error))
waiting = threading.Thread(target=waits, daemon=True)
waiting.start()
while waiting.is_alive():
    patient.interrupt()
    waiting.join(0.05)
assert "interrupted" in said[0], said
"#;
    Host::each_python("busy", script);
}
