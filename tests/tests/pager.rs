//! What SQLite's pager keeps from one transaction to the next: the traps 1 to 4 of PAGER.md, each on this system's
//! SQLite, on the newer one that is bundled, and on an old one. The first is built with `SECURE_DELETE` on Debian, the
//! others without.
//!
//! More of 1 and 4 is in `files.rs`; 5 and 6 are in `attached.rs`, 7 to 13 in `calls.rs`, 14 to 17 in `loading.rs`.

use tideline_tests::Host;

#[test]
fn the_hosts_are_with_and_without_secure_delete() {
    Host::each(|host, scratch| {
        let ask = "SELECT count(*) FROM pragma_compile_options WHERE compile_options = 'SECURE_DELETE';";
        let with = host.ok(scratch, "a.db", ask) == "1\n";
        let debian = std::path::Path::new("/etc/debian_version").exists();
        assert_eq!(with, host == Host::System && debian, "{host:?}");
    });
}

#[test]
fn an_image_that_was_never_written_is_rolled_back_to() {
    // Trap 1: a page that is changed and then freed as a leaf of the freelist stays in the cache with content that is
    // never written, and may be journaled so. Where a rollback gets the snapshot's image instead, its checksum is wrong,
    // and the rollback ends there without a word.
    let script = r#"
from tide import *
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

class Stop(Exception):
    pass

def backup(db, k):
    """A backup into it that is given up after so many steps."""
    source = connect(f"source-{name}")
    source.execute("PRAGMA page_size = 1024")
    source.execute("PRAGMA synchronous = OFF")
    source.execute("CREATE TABLE other(a)")
    source.executemany("INSERT INTO other VALUES (?)", [("x" * 900,) for _ in range(200)])
    steps = [k]
    def progress(*_):
        steps[0] -= 1
        if steps[0] == 0:
            raise Stop
    try:
        source.backup(db, pages=2, progress=progress)
    except Stop:
        return
    raise AssertionError("not given up")

def incremental(db, k):
    db.execute("BEGIN")
    for _ in range(k):
        db.execute("PRAGMA incremental_vacuum")
    db.execute("ROLLBACK")

def incremental_to_savepoint(db, k):
    db.execute("BEGIN")
    db.execute("SAVEPOINT s")
    for _ in range(k):
        db.execute("PRAGMA incremental_vacuum")
    db.execute("ROLLBACK TO s")
    db.execute("COMMIT")

def vacuum(db, k):
    """One that finds the disk full while it copies back."""
    db.execute("CREATE TABLE ballast(v)")
    db.executemany("INSERT INTO ballast VALUES (?)", [(bytes(900),) for _ in range(4000)])
    most = max(entry.stat().st_size for entry in os.scandir(f"{name}-tide") if entry.is_file())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        fails(lambda: db.execute("VACUUM"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

def rows(db):
    return [db.execute(f"SELECT * FROM {table} ORDER BY id").fetchall() for table in ("t", "u")]

def attempt(undo, mode, mapped, k):
    global name
    name = f"{undo.__name__}-{mode}-{mapped}-{k}.db"
    db = connect(name)
    for pragma in ("page_size = 1024", f"auto_vacuum = {mode}", "cache_size = 9000", "synchronous = OFF", f"mmap_size = {mapped}"):
        db.execute(f"PRAGMA {pragma}").fetchall()
    for table in ("t", "u"):
        db.execute(f"CREATE TABLE {table}(id INTEGER PRIMARY KEY, v)")
    db.execute("BEGIN")
    for n in range(150):
        db.execute("INSERT INTO t(v) VALUES (?)", ("a" * 300,))
        db.execute("INSERT INTO u(v) VALUES (?)", (str(n) * 50,))
    db.execute("COMMIT")
    db.execute("BEGIN")
    db.execute("UPDATE t SET v = ? WHERE id % 11", ("b" * 300,))
    db.execute("DELETE FROM t WHERE id % 11")
    db.execute("COMMIT")
    before = rows(db)
    undo(db, k)
    assert rows(db) == before, name
    assert one(db, "PRAGMA integrity_check") == "ok", name
    # What this pager has in its cache gets into its next commits.
    db.execute("DELETE FROM u WHERE id % 2")
    db.executemany("INSERT INTO t(v) VALUES (?)", [("c" * 400,) for _ in range(100)])
    other = connect(name)
    assert rows(other) == rows(db), name
    assert one(other, "PRAGMA integrity_check") == "ok", name
    other.close(), db.close()

for mapped in (0, 1 << 30):
    for k in (2, 15, 40):
        attempt(backup, "NONE", mapped, k)
        attempt(backup, "INCREMENTAL", mapped, k)
        attempt(incremental, "INCREMENTAL", mapped, k)
        attempt(incremental_to_savepoint, "INCREMENTAL", mapped, k)
    attempt(vacuum, "NONE", mapped, 0)
    attempt(vacuum, "INCREMENTAL", mapped, 0)
"#;
    Host::each_python("never written", script);
}

#[test]
fn whatever_is_given_up_at_random_leaves_no_trace() {
    // Traps 1, 2 and 4, in any order: rollbacks, interrupted VACUUMs and backups, caches small and large.
    let script = r#"
from tide import *
import random
dice = random.Random(int(sys.argv[1]))
db, look = connect("a.db"), connect("a.db")
for pragma in ("page_size = 1024", "auto_vacuum = INCREMENTAL", "synchronous = OFF"):
    db.execute(f"PRAGMA {pragma}")
db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
db.execute("CREATE INDEX by_v ON t(v)")
source = connect("source.db")
source.execute("PRAGMA page_size = 1024")
source.execute("PRAGMA synchronous = OFF")
source.execute("CREATE TABLE other(a)")
source.executemany("INSERT INTO other VALUES (?)", [("x" * 900,) for _ in range(150)])

def rows(connection):
    return connection.execute("SELECT id, v FROM t ORDER BY id").fetchall()

def insert():
    db.executemany("INSERT INTO t(v) VALUES (?)",
                   [(f"{dice.randrange(10**6):0{dice.randrange(10, 1500)}}",) for _ in range(dice.randrange(1, 60))])

def update():
    db.execute("UPDATE t SET v = printf('%0*d', ?, id) WHERE id % 3 = ?", (dice.randrange(1500), dice.randrange(3)))

def delete():
    of, which = dice.randrange(1, 5), dice.randrange(3)
    db.execute("SAVEPOINT d")
    db.execute("UPDATE t SET v = hex(zeroblob(length(v) / 2)) WHERE id % ? = ?", (of, which))
    db.execute("DELETE FROM t WHERE id % ? = ?", (of, which))
    db.execute("RELEASE d")

def shrink():
    for _ in range(dice.randrange(1, 12)):
        db.execute("PRAGMA incremental_vacuum")

def interrupted(action):
    left = [dice.randrange(60)]
    def tick():
        left[0] -= 1
        return left[0] < 0
    db.set_progress_handler(tick, 50)
    try:
        action()
        return False
    except sqlite3.OperationalError as error:
        assert "interrupted" in str(error), error
        return True
    finally:
        db.set_progress_handler(None, 0)

class Stop(Exception):
    pass

def backup_into():
    steps = [dice.randrange(1, 30)]
    def progress(*_):
        steps[0] -= 1
        if steps[0] <= 0:
            raise Stop
    try:
        source.backup(db, pages=2, progress=progress)
    except Stop:
        return
    raise AssertionError("not given up")

for step in range(int(sys.argv[2])):
    db.execute(f"PRAGMA cache_size = {dice.choice([8, 2000])}")
    db.execute(f"PRAGMA mmap_size = {dice.choice([0, 1 << 30])}").fetchall()
    for _ in range(dice.randrange(3)):
        dice.choice([insert, delete, update, insert])()
    before = rows(db)
    kind = dice.randrange(5)
    if kind == 0:
        interrupted(lambda: db.execute("VACUUM"))
    elif kind == 1:
        backup_into()
    else:
        db.execute("BEGIN")
        if dice.randrange(2):
            dice.choice([insert, delete, update])()
        saved = rows(db)
        db.execute("SAVEPOINT s")
        for _ in range(dice.randrange(1, 5)):
            dice.choice([insert, delete, update, shrink, shrink, shrink])()
        db.execute("ROLLBACK TO s")
        assert rows(db) == saved, f"savepoint, step {step}"
        shrink()
        db.execute("ROLLBACK")
    assert rows(db) == before, f"step {step}, kind {kind}"
    assert one(db, "PRAGMA integrity_check") == "ok", f"step {step}, kind {kind}"
    # What this pager thinks that it has goes into its next commit.
    insert(), delete()
    assert rows(look) == rows(db), f"step {step}, kind {kind}"
    assert one(look, "PRAGMA integrity_check") == "ok", f"step {step}, kind {kind}"
"#;
    Host::each_python("given up", script);
}

#[test]
fn a_counter_that_disagrees_lets_the_file_say_how_long_it_is() {
    // Trap 2: SQLite trusts the size in the header only where bytes 24..27 are those of 92..95.
    let script = r#"
from tide import *
import struct

def header(name):
    with open(name, "rb") as file:
        head = file.read(100)
    return *struct.unpack_from(">II", head, 24), *struct.unpack_from(">I", head, 92)

for claimed, older in ((0, 1), (1, 1), (3, 7), (999, 1), (None, 0)):
    name = f"{claimed}-{older}.db"
    plain = sqlite3.connect(name, isolation_level=None)
    plain.execute("PRAGMA synchronous = OFF")
    plain.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    plain.executemany("INSERT INTO t(v) VALUES (?)", [("x" * 500,) for _ in range(60)])
    pages = one(plain, "PRAGMA page_count")
    plain.close()
    counter, size, _ = header(name)
    with open(name, "r+b") as file:
        if claimed is None:
            # What is behind the pages that it has isn't part of it.
            file.seek(0, 2)
            file.write(b"\xff" * 10000)
        else:
            file.seek(28), file.write(struct.pack(">I", claimed))
            file.seek(92), file.write(struct.pack(">I", counter - older))
    look = ("PRAGMA page_count", "PRAGMA integrity_check", "SELECT count(*) FROM t")
    sound = [pages, "ok", 60]
    plain = sqlite3.connect(name)
    assert [one(plain, sql) for sql in look] == sound, name
    plain.close()
    before = header(name)

    db, other, copy = connect(name), connect(name), connect("copy-" + name)
    for connection in (db, other, db):
        assert [one(connection, sql) for sql in look] == sound, name
    assert db.execute("SELECT size_pages, tide_lsn() FROM tide_log").fetchall() == [(pages, 1)], name
    assert one(copy, "SELECT tide_receive(?)", one(db, "SELECT tide_prepare(0)")) == 1
    assert [one(copy, sql) for sql in look] == sound, name
    for connection in (db, other, copy):
        connection.close()
    assert header(name) == before, "nothing was written to it"

    db, other = connect(name), connect(name)
    assert [one(other, sql) for sql in look] == sound, name
    db.execute("UPDATE t SET v = 'y' WHERE id = 1")
    assert [one(other, sql) for sql in look] == sound, name
    db.execute("INSERT INTO t(v) SELECT v FROM t")
    assert one(other, "PRAGMA page_count") == one(db, "PRAGMA page_count") > pages, name
    assert db.execute("SELECT * FROM tide_verify").fetchall() == [], name
    db.close(), other.close()
    plain = sqlite3.connect(name)
    assert one(plain, "PRAGMA integrity_check") == "ok" and one(plain, "SELECT count(*) FROM t") == 120, name
    counter, size, valid = header(name)
    assert counter == valid and size == one(plain, "PRAGMA page_count"), name
"#;
    Host::each_python("sizes", script);
}

#[test]
fn no_pager_takes_the_state_of_another_for_its_own() {
    // Trap 2: each pager counts from the value that it read last, whatever others commit meanwhile.
    let script = r#"
from tide import *
import random, subprocess
dice = random.Random(int(sys.argv[1]))

def opened(mapped):
    db = connect("a.db")
    # Mapped, a reader never looks into its cache.
    db.execute(f"PRAGMA mmap_size = {mapped}").fetchall()
    db.execute("PRAGMA synchronous = OFF")
    return db

connections = [opened(mapped) for mapped in (0, 0, 1 << 30, 0)]
connections[0].execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
connections[0].executemany("INSERT INTO t VALUES (?, 0)", [(n,) for n in range(1, 1001)])
connections[1].execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
model = [0] * 1001
other = subprocess.Popen([sys.executable, "-c", """
from tide import *
db = connect("a.db")
db.execute("PRAGMA synchronous = OFF")
for line in sys.stdin:
    db.execute("UPDATE t SET v = v + 1 WHERE id = ?", (int(line),))
    print("done", flush=True)
"""], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
for step in range(6 * int(sys.argv[2])):
    db, at = dice.choice(connections), dice.randrange(1, 1001)
    kind = dice.randrange(10)
    if kind == 0:
        # An LSN that changes no row, and maybe no byte.
        db.execute("BEGIN")
        db.execute("UPDATE t SET v = v + 1 WHERE id = ?", (at,))
        db.execute("UPDATE t SET v = v - 1 WHERE id = ?", (at,))
        db.execute("COMMIT")
    elif kind == 1:
        db.execute("BEGIN")
        db.execute("UPDATE t SET v = v + 1 WHERE id > ?", (at,))
        db.execute("ROLLBACK")
    elif kind == 2:
        db.execute("BEGIN IMMEDIATE")
        db.execute("COMMIT")
    elif kind == 3:
        db.execute("BEGIN")
        db.execute("SAVEPOINT s")
        db.execute("UPDATE t SET v = 7 WHERE id = ?", (at,))
        db.execute("ROLLBACK TO s")
        db.execute("COMMIT")
    elif kind == 4:
        db.execute(f"PRAGMA user_version = {dice.randrange(3)}")
    elif kind == 5:
        other.stdin.write(f"{at}\n"), other.stdin.flush()
        assert other.stdout.readline() == "done\n"
        model[at] += 1
    else:
        db.execute("UPDATE t SET v = v + 1 WHERE id = ?", (at,))
        model[at] += 1
    if dice.randrange(3) == 0:
        continue
    reader, at = dice.choice(connections), dice.randrange(1, 1001)
    assert one(reader, "SELECT v FROM t WHERE id = ?", at) == model[at], f"step {step}"
    if step % 16 == 0:
        assert one(reader, "SELECT sum(v) FROM t") == sum(model), f"step {step}"
for db in connections:
    assert [v for v, in db.execute("SELECT v FROM t ORDER BY id")] == model[1:]
    assert one(db, "PRAGMA integrity_check") == "ok"
other.stdin.close()
assert other.wait() == 0
"#;
    Host::each_python("counters", script);
}

/// Commits through a pager in EXCLUSIVE mode, on files whose counters begin at `starts`, and looks each time.
fn counts_for_a_pager_that_does_not(name: &str, starts: &str) {
    let script = r#"
from tide import *
import struct
for start in STARTS:
    name = f"{start}.db"
    plain = sqlite3.connect(name, isolation_level=None)
    plain.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    plain.execute("INSERT INTO t VALUES (1, 0)")
    plain.close()
    with open(name, "r+b") as file:
        for at in (24, 92):
            file.seek(at), file.write(struct.pack(">I", start))
    reader = connect(name)
    reader.execute("PRAGMA mmap_size = 0").fetchall()
    normal = connect(name)
    exclusive = sqlite3.connect("file:plain.db", uri=True, isolation_level=None)
    exclusive.execute(f"ATTACH '{uri(name)}' AS b")
    exclusive.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
    for n in range(1, 9):
        exclusive.execute("UPDATE b.t SET v = ?", (n,))
        assert one(reader, "SELECT v FROM t") == n, (start, n)
    exclusive.close()
    for n in range(9, 17):
        normal.execute("UPDATE t SET v = ?", (n,))
        assert one(reader, "SELECT v FROM t") == n, (start, n)
"#;
    Host::each_python(name, &script.replace("STARTS", starts));
}

#[test]
fn a_pager_that_stops_counting_repeats_no_value() {
    // Traps 2 and 6: in EXCLUSIVE mode it writes no page 1 after its first commit.
    counts_for_a_pager_that_does_not("stops counting", "(5, 2**31 - 4)");
}

#[test]
fn a_counter_that_runs_over_repeats_no_value() {
    // Trap 2.
    counts_for_a_pager_that_does_not("runs over", "(2**32 - 1, 2**32 - 4)");
}

#[test]
fn a_stale_snapshot_is_told_where_it_matters_and_nowhere_else() {
    // Trap 3.
    let script = r#"
from tide import *
mine, other = connect("a.db", timeout=100), connect("a.db")
mine.execute("CREATE TABLE t(v)")

def stale(action):
    start = time.monotonic()
    text = fails(action, "database is locked")
    assert time.monotonic() - start < 60, "no waiting makes it fresh"
    try:
        action()
    except sqlite3.OperationalError as error:
        assert getattr(error, "sqlite_errorname", "SQLITE_BUSY_SNAPSHOT") == "SQLITE_BUSY_SNAPSHOT"

for locking in ("normal", "exclusive"):
    mine.execute(f"PRAGMA locking_mode = {locking}").fetchall()
    # Without a transaction nothing is stale, however warm the cache.
    for n in range(5):
        before = one(mine, "SELECT count(*) FROM t")
        other.execute("INSERT INTO t VALUES (1)")
        mine.execute("INSERT INTO t VALUES (2)")
        other.execute("INSERT INTO t VALUES (1)")
        mine.execute("BEGIN")
        mine.execute("INSERT INTO t VALUES (2)")
        mine.execute("COMMIT")
        other.execute("INSERT INTO t VALUES (1)")
        mine.execute("BEGIN IMMEDIATE")
        mine.execute("COMMIT")
        assert one(mine, "SELECT count(*) FROM t") == before + 5
    # In one it is; it may go on reading, and is fresh after it ends.
    for end in ("ROLLBACK", "COMMIT"):
        mine.execute("BEGIN")
        before = one(mine, "SELECT count(*) FROM t")
        other.execute("INSERT INTO t VALUES (1)")
        for _ in range(2):
            stale(lambda: mine.execute("INSERT INTO t VALUES (3)"))
            stale(lambda: mine.execute("CREATE TABLE u(v)"))
        assert one(mine, "SELECT count(*) FROM t") == before
        mine.execute(end)
        assert one(mine, "SELECT count(*) FROM t") == before + 1
    # A statement that is under way is a transaction too.
    cursor = mine.execute("SELECT v FROM t")
    cursor.fetchone()
    other.execute("INSERT INTO t VALUES (1)")
    stale(lambda: mine.execute("INSERT INTO t VALUES (3)"))
    cursor.close()
    mine.execute("INSERT INTO t VALUES (2)")
    assert one(mine, "SELECT count(*) FROM t WHERE v = 3") == 0
assert one(other, "PRAGMA integrity_check") == "ok"
assert one(other, "SELECT count(*) FROM t") == one(other, "SELECT tide_lsn()") - 1
"#;
    Host::each_python("staleness", script);
}

#[test]
fn a_pager_in_exclusive_mode_loses_and_overwrites_nothing() {
    // Traps 3 and 6: it keeps its snapshot between transactions, and an attached one gets the mode without our VFS
    // being asked. What it writes on a stale snapshot is refused, and is rolled back whole in its cache too.
    let script = r#"
from tide import *
load()
exclusive = sqlite3.connect("file:plain.db", uri=True, isolation_level=None, timeout=0)
exclusive.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
exclusive.execute(f"ATTACH '{uri('b.db')}' AS b")
assert one(exclusive, "PRAGMA b.locking_mode") == "exclusive"
exclusive.execute("CREATE TABLE b.t(id INTEGER PRIMARY KEY, v)")
exclusive.execute("CREATE INDEX b.by_v ON t(v)")
exclusive.execute("INSERT INTO b.t VALUES (1, 0)")
other = connect("b.db", timeout=0)
for rows in (1, 50):
    done = {"exclusive": 0, "other": 0}
    before = other.execute("SELECT tide_lsn(), total(v) FROM t").fetchone()
    for n in range(60):
        who, db, table = (("exclusive", exclusive, "b.t"), ("other", other, "t"))[n * 7 % 3 % 2]
        if n % 5 == 0:
            exclusive.execute("SELECT v FROM b.t").fetchall()
        try:
            db.execute("BEGIN")
            for _ in range(rows):
                db.execute(f"INSERT INTO {table}(v) VALUES (0.5 / ?)", (rows,))
            db.execute(f"UPDATE {table} SET v = v + 0.5 WHERE id = 1")
            db.execute("COMMIT")
            done[who] += 1
        except sqlite3.OperationalError as error:
            assert "locked" in str(error), (n, who, error)
            if db.in_transaction:
                db.execute("ROLLBACK")
        assert one(exclusive, "PRAGMA b.integrity_check") == "ok", (n, who)
        lsn, total = other.execute("SELECT tide_lsn(), round(total(v), 6) FROM t").fetchone()
        assert (lsn, total) == (before[0] + sum(done.values()), round(before[1] + sum(done.values()), 6)), (n, who, done)
    assert done["exclusive"] > 5 and done["other"] > 5, done
exclusive.close()
exclusive = sqlite3.connect("file:plain.db", uri=True, isolation_level=None, timeout=0)
exclusive.execute(f"ATTACH '{uri('b.db')}' AS b")
exclusive.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
# What changes nothing leaves it with the writer's place, until it leaves the mode.
exclusive.execute("DELETE FROM b.t WHERE id < 0")
text = refused("DENIED", lambda: one(exclusive, "SELECT tide_fold('b')"))
assert "set it to NORMAL" in text, text
assert one(exclusive, "PRAGMA b.locking_mode = NORMAL") == "normal"
rows = one(exclusive, "SELECT count(*) FROM b.t")
assert one(exclusive, "SELECT tide_fold('b')") == one(other, "SELECT tide_lsn()")
other.execute("INSERT INTO t(v) VALUES (0)")
assert one(exclusive, "SELECT count(*) FROM b.t") == rows + 1
exclusive.close()
assert one(other, "PRAGMA integrity_check") == "ok"
"#;
    Host::each_python("exclusive", script);
}

#[test]
fn a_change_of_the_page_size_that_is_given_up_changes_nothing() {
    // Trap 4: blocks of the old size under a page 1 that names the new one.
    let script = r#"
from tide import *
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
sizes = [512, 65536, 4096]
for n, (before, after) in enumerate(zip(sizes, sizes[1:] + sizes[:1])):
    name = f"{n}.db"
    db, other = connect(name), connect(name)
    db.execute("PRAGMA synchronous = OFF")
    db.execute(f"PRAGMA page_size = {before}")
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    db.executemany("INSERT INTO t VALUES (?, ?)", [(n, f"{n:04}" * 600) for n in range(2500)])
    rows = db.execute("SELECT * FROM t ORDER BY id").fetchall()
    lsn = one(db, "SELECT tide_lsn()")
    db.execute(f"PRAGMA page_size = {after}")
    full = max(entry.stat().st_size for entry in os.scandir(f"{name}-tide") if entry.is_file())
    resource.setrlimit(resource.RLIMIT_FSIZE, (full, hard))
    for spill in ("cache_spill = 0", "cache_size = 10"):
        db.execute(f"PRAGMA {spill}")
        fails(lambda: db.execute("VACUUM"))
        for connection in (db, other):
            assert connection.execute("SELECT * FROM t ORDER BY id").fetchall() == rows, name
            assert one(connection, "PRAGMA page_size") == before, name
            assert one(connection, "PRAGMA integrity_check") == "ok", name
            assert one(connection, "SELECT tide_lsn()") == lsn, name
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    db.execute(f"PRAGMA page_size = {after}")
    db.execute("VACUUM")
    for connection in (db, other):
        assert connection.execute("SELECT * FROM t ORDER BY id").fetchall() == rows, name
        assert one(connection, "PRAGMA page_size") == after, name
        assert one(connection, "SELECT tide_lsn()") == lsn + 1, name
    db.close(), other.close()
    plain = sqlite3.connect(name)
    assert one(plain, "PRAGMA integrity_check") == "ok" and one(plain, "PRAGMA page_size") == after, name
"#;
    Host::each_python("page sizes", script);
}
