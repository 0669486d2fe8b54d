//! Lazy clones through SQL: pages come when they are read, from a cache or a remote, and never as zeros.

use tideline_tests::{Host, Scratch, python};

/// A source of some MiB at a remote, and helpers.
const PREPARED: &str = r#"
from tide import *
import pathlib, shutil, threading

os.environ["XDG_CACHE_HOME"] = os.path.abspath("caches")
URL = pathlib.Path("there").absolute().as_uri()
HERE = os.path.abspath("copy.db")

def status(db, what):
    return one(db, "SELECT json_extract(tide_status(), ?)", what)

def traffic(db):
    return db.execute("SELECT requests, bytes FROM tide_remotes WHERE name = 'origin'").fetchone()

def denies(db, code, statement, *values):
    return refused(code, lambda: db.execute(statement, values).fetchall())

def unreadable(db, code, statement):
    try:
        db.execute(statement).fetchall()
    except sqlite3.DatabaseError as e:
        text = one(db, "SELECT tide_last_error()")
        assert code in text, text
        return e
    raise AssertionError(f"{statement}: it was answered")

def offline(db, statement):
    e = unreadable(db, "OFFLINE", statement)
    assert isinstance(e, sqlite3.OperationalError) and "I/O" in str(e), e

CONTENT = "SELECT count(*), sum(k), sum(length(v)), max(v) FROM t"

def big(db, rows):
    db.execute("CREATE TABLE t(k INTEGER PRIMARY KEY, v)")
    db.execute("INSERT INTO t SELECT value, hex(randomblob(200)) FROM json_each(?)", (json.dumps(list(range(rows))),))

source = connect("source.db")
big(source, 20000)
one(source, "SELECT tide_remote('origin', ?)", URL)
one(source, "SELECT tide_push()")
expected = source.execute(CONTENT).fetchone()
row = source.execute("SELECT * FROM t WHERE k = 12345").fetchone()
whole = sum(len(open(os.path.join(at, name), "rb").read()) for at, _, names in os.walk("there") for name in names)
"#;

#[track_caller]
fn run(script: &str) {
    python(&Scratch::new(), &format!("{PREPARED}{script}"), &[]).ok();
}

#[test]
fn pages_come_when_they_are_read_and_then_are_here() {
    Host::each(|host, scratch| {
        let script = r#"
anywhere = sqlite3.connect(":memory:", isolation_level=None)
assert anywhere.execute("SELECT tide_clone(?, ?)", (URL, HERE)).fetchone() == (one(source, "SELECT tide_lsn()"),)
assert sum(os.path.getsize(os.path.join("copy.db-tide", name)) for name in ("store", "present", "source")) < 1 << 20
assert os.path.getsize(HERE) <= 4096
copy = connect("copy.db")
begun = traffic(copy)
assert copy.execute("SELECT * FROM t WHERE k = 12345").fetchone() == row
first = traffic(copy)
assert 0 < first[1] - begun[1] < whole / 20, (begun, first, whole)
# It is here now.
assert copy.execute("SELECT * FROM t WHERE k = 12345").fetchone() == row
assert traffic(copy) == first
absent, pages = status(copy, "$.lazy.absent"), status(copy, "$.lazy.pages")
assert 0 < absent <= pages, (absent, pages)
# One page after the other is fetched in larger and larger parts.
assert copy.execute(CONTENT).fetchone() == expected
scanned = traffic(copy)
assert scanned[0] - first[0] < 60, (first, scanned)
assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
assert copy.execute("SELECT * FROM tide_verify").fetchall() == []
denies(copy, "DENIED", "SELECT tide_detach()")
# Stock SQLite doesn't take it for a database; a second clone needs nothing from the remote but its manifest.
copy.close()
try:
    sqlite3.connect("copy.db").execute("SELECT * FROM t").fetchall()
    raise AssertionError("stock SQLite reads a lazy clone")
except sqlite3.DatabaseError as e:
    assert "not a database" in str(e), e
again = os.path.abspath("again.db")
anywhere.execute("SELECT tide_clone(?, ?)", (URL, again)).fetchone()
copy = connect("again.db")
assert copy.execute(CONTENT).fetchone() == expected
assert traffic(copy) == (0, 0), traffic(copy)
"#;
        host.python(scratch, &format!("{PREPARED}{script}"), &[]).ok();
    });
}

#[test]
fn offline_is_an_error_and_the_same_statement_succeeds_later() {
    run(r#"
one(source, "SELECT tide_clone(?, ?)", URL, HERE)
copy = connect("copy.db")
assert copy.execute("SELECT * FROM t WHERE k = 12345").fetchone() == row
os.rename("there", "away")
# What is here goes on; what isn't is an error, and never zeros.
assert copy.execute("SELECT * FROM t WHERE k = 12345").fetchone() == row
for _ in range(2):
    offline(copy, CONTENT)
    offline(copy, "SELECT * FROM t WHERE k = 3")
offline(copy, "UPDATE t SET v = 'new' WHERE k = 3")
copy.execute("UPDATE t SET v = 'new' WHERE k = 12345")
copy.close()
copy = connect("copy.db")
assert copy.execute("SELECT v FROM t WHERE k = 12345").fetchone() == ("new",)
offline(copy, CONTENT)
denies(copy, "OFFLINE", "SELECT tide_hydrate()")
# It may come back in another place.
one(copy, "SELECT tide_remote('origin', ?)", pathlib.Path("away").absolute().as_uri())
assert copy.execute(CONTENT).fetchone()[:2] == expected[:2]
copy.execute("UPDATE t SET v = 'new' WHERE k = 3")
"#);
}

#[test]
fn who_waits_for_a_page_can_be_interrupted() {
    Host::each(|host, scratch| {
        let script = r#"
one(source, "SELECT tide_clone(?, ?)", URL, HERE)
copy = connect("copy.db")
assert copy.execute("SELECT * FROM t WHERE k = 12345").fetchone() == row
# Whoever opens one of these waits for ever.
names = [os.path.join(at, name) for at, _, names in os.walk("there/segment") for name in names]
assert names
for name in names:
    os.rename(name, name + ".away")
    os.mkfifo(name)

def interrupted(statement):
    timer = threading.Timer(0.2, copy.interrupt)
    timer.start()
    try:
        copy.execute(statement).fetchall()
        raise AssertionError(f"{statement}: it was answered")
    except sqlite3.OperationalError as e:
        assert "interrupt" in str(e).lower(), e
    timer.join()

interrupted(CONTENT)
copy.execute("BEGIN")
copy.execute("UPDATE t SET v = 'new' WHERE k = 12345")
interrupted("SELECT v FROM t WHERE k = 3")
copy.execute("COMMIT")
interrupted("UPDATE t SET v = 'newer' WHERE k IN (12345, 3)")
interrupted("SELECT tide_hydrate()")
interrupted("SELECT * FROM tide_batches(0)")
for name in names:
    os.rename(name + ".away", name)
assert copy.execute("SELECT v FROM t WHERE k = 12345").fetchone() == ("new",)
assert copy.execute(CONTENT).fetchone()[:2] == expected[:2]
assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
assert copy.execute("SELECT * FROM tide_verify").fetchall() == []
"#;
        host.python(scratch, &format!("{PREPARED}{script}"), &[]).ok();
    });
}

#[test]
fn a_lazy_clone_is_written_pushed_and_follows() {
    run(r#"
one(source, "SELECT tide_clone(?, ?)", URL, HERE)
copy = connect("copy.db")
for n in range(30):
    copy.execute("INSERT INTO t VALUES (?, 'from the copy')", (100000 + n,))
assert one(copy, "SELECT tide_push()") == one(copy, "SELECT tide_lsn()")
one(source, "SELECT tide_pull()")
for n in range(40):
    source.execute("UPDATE t SET v = ? WHERE k = ?", (f"changed {n}", n * 499))
    one(source, "SELECT tide_push()")
one(copy, "SELECT tide_pull()")
assert copy.execute(CONTENT).fetchone() == source.execute(CONTENT).fetchone()
# Much at once, so that it folds; a table is dropped, and the file shrinks and grows again.
copy.execute("PRAGMA synchronous = OFF")
for n in range(40):
    copy.execute("INSERT INTO t SELECT value, zeroblob(900) FROM json_each(?)", (json.dumps(list(range(200000 + n * 3000, 203000 + n * 3000))),))
copy.execute("DELETE FROM t WHERE k >= 150000")
copy.execute("VACUUM")
copy.execute("CREATE TABLE u AS SELECT * FROM t LIMIT 5000")
one(copy, "SELECT tide_fold()")
content = copy.execute(CONTENT).fetchone()
assert content == source.execute(CONTENT).fetchone()
copy.close()
copy = connect("copy.db")
assert copy.execute(CONTENT).fetchone() == content
assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
one(copy, "SELECT tide_push()")
one(source, "SELECT tide_pull()")
assert source.execute("SELECT count(*) FROM u").fetchone() == (5000,)
checksums = [one(db, "SELECT checksum FROM tide_log ORDER BY last_lsn DESC LIMIT 1") for db in (source, copy)]
assert checksums[0] == checksums[1] or None in checksums, checksums
# A clone of the clone's pushes.
other = os.path.abspath("other.db")
one(source, "SELECT tide_clone(?, ?)", URL, other)
assert connect("other.db").execute(CONTENT).fetchone() == content
"#);
}

#[test]
fn the_rest_is_fetched_when_told_and_then_it_is_a_database_like_any_other() {
    run(r#"
one(source, "SELECT tide_clone(?, ?)", URL, HERE)
copy, watch = connect("copy.db"), connect("copy.db")
pages = status(watch, "$.lazy.pages")
before = status(watch, "$.lazy.absent")
seen = set()
done = threading.Event()
def look():
    other = connect("copy.db")
    while not done.is_set():
        seen.add(status(other, "$.lazy.absent"))
        assert other.execute("SELECT * FROM t WHERE k = 12345").fetchone() == row
    other.close()
thread = threading.Thread(target=look, daemon=True)
thread.start()
fetched = one(copy, "SELECT tide_hydrate()")
done.set()
thread.join()
assert fetched <= before and pages - 1 <= fetched + 1, (fetched, before, pages)
assert status(watch, "$.lazy") is None
assert one(copy, "SELECT tide_hydrate()") == 0
os.rename("there", "away")
shutil.rmtree("caches")
assert copy.execute(CONTENT).fetchone() == expected
assert copy.execute("SELECT * FROM tide_verify").fetchall() == []
copy.execute("INSERT INTO t VALUES (-1, 'own')")
copy.close()
watch.close()
assert not os.path.exists("copy.db-tide/source")
plain = sqlite3.connect("copy.db")
assert plain.execute("SELECT count(*) FROM t").fetchone() == (20001,)
assert plain.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
"#);
}

#[test]
fn what_was_damaged_at_the_remote_or_in_the_cache_is_never_shown() {
    run(r#"
import random
one(source, "SELECT tide_clone(?, ?)", URL, HERE)
copy = connect("copy.db")
assert copy.execute(CONTENT).fetchone() == expected
copy.close()
# The cache is looked at each time.
cached = [os.path.join(at, name) for at, _, names in os.walk("caches") for name in names]
assert cached
for path in cached:
    data = bytearray(open(path, "rb").read())
    data[random.Random(len(data)).randrange(len(data))] ^= 4
    open(path, "wb").write(data)
copy = connect("copy.db")
assert copy.execute(CONTENT).fetchone() == expected
copy.close()
shutil.rmtree("caches")
segments = sorted(pathlib.Path("there").glob("segment/*/*"), key=lambda path: path.stat().st_size)
data = segments[-1].read_bytes()
spoilt = bytearray(data)
for at in range(200, len(spoilt), 1000):
    spoilt[at] ^= 1
segments[-1].write_bytes(spoilt)
copy = connect("copy.db")
unreadable(copy, "DAMAGED", CONTENT)
denies(copy, "DAMAGED", "SELECT tide_hydrate()")
segments[-1].unlink()
copy.close()
copy = connect("copy.db")
unreadable(copy, "MISSING", CONTENT)
segments[-1].write_bytes(data)
copy.close()
assert connect("copy.db").execute(CONTENT).fetchone() == expected
"#);
}
