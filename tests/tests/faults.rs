//! Faults of the operating system, seen through SQL: a full disk, errors of reads, writes and syncs, interruptions, too
//! few descriptors, a file system that can't be written any more, memory that SQLite doesn't get.

use tideline_tests::{Host, Scratch, faults_library, python};

/// Has calls of every kind fail that a seed draws, so many of each; see `py/faults.py`.
const SWEEP: &str = r#"
from faults import *
library, seed, attempts = sys.argv[1:]
sweep(faulty(library), int(seed), int(attempts))
"#;

/// Attempts of each kind: in the short part, and in a round of the soak.
const FEW: &str = "1";
const MANY: &str = "12";

/// The path of the library that makes calls fail.
fn faulty() -> Option<String> {
    Some(faults_library()?.to_str().expect("a path in text").to_owned())
}

#[test]
fn whatever_fails_is_told_and_nothing_that_was_committed_is_lost() {
    let Some(library) = faulty() else { return };
    println!("{}", python(&Scratch::new(), SWEEP, &[&library, "0", FEW]).ok());
}

/// A medium that can't be read. With `mmap_size=0` pages are read by system calls, which say so; behind a mapping nobody
/// could be told, and no call is made.
const UNREADABLE: &str = r#"
from faults import *
calls = faulty(sys.argv[1])
work = Work(calls, 1, errno.EIO)
work.open()
for _ in range(9):
    work.commit(40, 3000)
for state in ["in the journal", "in the base"]:
    if state == "in the base":
        work.function("SELECT tide_fold()")
    for size, by_calls in [(0, True), (1 << 30, False)]:
        reader = connect("a.db")
        reader.execute(f"PRAGMA main.mmap_size = {size}")
        reader.execute("PRAGMA cache_size = 10")
        ask = lambda: reader.execute("SELECT id, n, v FROM t").fetchall()
        whole = ask()
        calls.fault_arm(b"pread", b".db", 1, errno.EIO, 1)
        if by_calls:
            for _ in range(3):
                try:
                    ask()
                    raise AssertionError(f"{state}: it was read all the same")
                except sqlite3.OperationalError as error:
                    assert error.sqlite_errorname.startswith("SQLITE_IOERR"), error
        else:
            assert ask() == whole
        made = calls.fault_disarm()
        assert (made > 0) == by_calls, (state, size, made)
        assert ask() == whole
        reader.close()
# Every single read may fail.
for n in range(1, 1000):
    reader = connect("a.db")
    reader.execute("PRAGMA main.mmap_size = 0")
    calls.fault_arm(b"pread", b".db", n, errno.EIO, 0)
    try:
        assert reader.execute("SELECT id, n, v FROM t").fetchall() == whole
    except sqlite3.OperationalError as error:
        assert error.sqlite_errorname.startswith("SQLITE_IOERR"), error
    calls.fault_disarm()
    struck = calls.fault_struck()
    assert reader.execute("SELECT id, n, v FROM t").fetchall() == whole
    reader.close()
    if not struck:
        break
assert 10 < n < 999, n
work.judge(False)
"#;

#[test]
fn a_medium_that_cannot_be_read_is_an_error_where_nothing_is_mapped() {
    let Some(library) = faulty() else { return };
    Host::each(|host, scratch| {
        host.python(scratch, UNREADABLE, &[&library]).ok();
    });
}

/// A commit over two databases of which each call fails in turn. SQLite hears of nothing behind the deletion of its
/// super-journal; whatever COMMIT said is what both databases have, at once and after all have closed them.
const TOGETHER: &str = r#"
from faults import *
calls = faulty(sys.argv[1])
ROWS = "SELECT (SELECT count(*) FROM main.t), (SELECT count(*) FROM b.t)"

def both():
    db = connect("a.db")
    db.execute("ATTACH 'file:b.db?vfs=tideline' AS b")
    return db

db = both()
db.execute("CREATE TABLE main.t(v)")
db.execute("CREATE TABLE b.t(v)")
count, ignored = 0, 0
for kind in ["pwrite", "fsync", "unlink"]:
    for n in range(1, 100):
        db.execute("BEGIN")
        for schema in ["main", "b"]:
            db.execute(f"INSERT INTO {schema}.t VALUES (zeroblob(9000))")
        calls.fault_arm(kind.encode(), b".db", n, errno.EIO, 0)
        try:
            db.execute("COMMIT")
            committed = True
        except sqlite3.OperationalError as error:
            assert honest(error, errno.EIO), error
            committed = False
        calls.fault_disarm()
        struck = calls.fault_struck()
        if db.in_transaction:
            db.execute("ROLLBACK")
        count += committed
        ignored += committed and struck > 0
        assert db.execute(ROWS).fetchone() == (count, count), (kind, n, committed)
        db.close()
        db = both()
        found = db.execute(ROWS).fetchone()
        # What failed at an fsync may be there when everybody has closed the database, but then in both.
        assert found[0] == found[1] and found[0] - count in ([0] if committed or kind != "fsync" else [0, 1]), (kind, n, found)
        count = found[0]
        if not struck:
            break
    assert n < 99
assert ignored
assert db.execute("SELECT * FROM tide_verify").fetchall() == []
"#;

#[test]
fn a_commit_over_databases_is_what_it_was_said_to_be() {
    let Some(library) = faulty() else { return };
    Host::each(|host, scratch| {
        host.python(scratch, TOGETHER, &[&library]).ok();
    });
}

/// A compaction of which each removal fails in turn; it can be done again.
const COMPACTED: &str = r#"
from faults import *
calls = faulty(sys.argv[1])
db = connect("a.db")
db.execute("CREATE TABLE t(v)")
db.execute("PRAGMA synchronous = NORMAL")
for n in range(1, 20):
    for _ in range(4):
        db.execute("INSERT INTO t VALUES (zeroblob(2000000))")
    calls.fault_arm(b"unlink", b".seg", n, errno.EIO, 0)
    try:
        db.execute("SELECT tide_compact()").fetchall()
    except sqlite3.OperationalError as error:
        assert honest(error, errno.EIO), error
    calls.fault_disarm()
    struck = calls.fault_struck()
    db.execute("INSERT INTO t VALUES (1)")
    db.execute("SELECT tide_compact()").fetchall()
    assert one(db, "SELECT count(*) FROM t") == 5 * n
    assert db.execute("SELECT * FROM tide_verify").fetchall() == []
    if not struck:
        break
assert 1 < n < 19, n
"#;

#[test]
fn a_compaction_that_fails_is_done_again() {
    let Some(library) = faulty() else { return };
    python(&Scratch::new(), COMPACTED, &[&library]).ok();
}

/// A rollback whose writes fail, of a transaction that the pager had to write in part, and one that goes on.
const FAILED_ROLLBACK: &str = r#"
from faults import *
calls = faulty(sys.argv[1])
for fault in [errno.EACCES, errno.ENOSPC]:
    work = Work(calls, 1, fault)
    work.open()
    work.acknowledged = work.found()
    for _ in range(3):
        work.commit(20, 3000)
    work.db.execute("PRAGMA cache_size = 10")
    work.db.execute("BEGIN")
    for row in range(0, 200, 3):
        work.db.execute("REPLACE INTO t VALUES (?, -1, zeroblob(9000))", (row,))
    for kind in [b"pwrite", b"fallocate", b"stat"]:
        calls.fault_arm(kind, b".db", 1, fault, 1)
        for sql in ["DELETE FROM t WHERE id % 2", "UPDATE t SET v = zeroblob(20000)", "ROLLBACK", "ROLLBACK"]:
            if work.db.in_transaction:
                work.attempt(sql, lambda: work.function(sql))
        calls.fault_disarm()
    work.judge(False)
    work.commit(3, 3000)
    work.judge(False)
    assert one(work.db, "PRAGMA integrity_check") == "ok", name_of(fault)
    work.close()
"#;

#[test]
fn a_rollback_that_fails_is_made_up_for() {
    let Some(library) = faulty() else { return };
    Host::each(|host, scratch| {
        host.python(scratch, FAILED_ROLLBACK, &[&library]).ok();
    });
}

#[test]
#[ignore = "takes minutes; `cargo xtask soak faults`"]
fn soak() {
    let Some(library) = faulty() else { return };
    let seed = std::env::var("TIDELINE_SEED").unwrap_or_else(|_| "0".into());
    for host in [Host::System, Host::Bundled] {
        println!("{}", host.python(&Scratch::new(), SWEEP, &[&library, &seed, MANY]).ok());
    }
}
