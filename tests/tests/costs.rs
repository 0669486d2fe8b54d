//! What the hot paths cost in system calls and bytes, which doesn't depend on the machine: a change that makes them
//! dearer fails here before any clock can tell. Linux counts them for each thread.
#![cfg(target_os = "linux")]

use rusqlite::Connection;
use tideline_tests::{Scratch, bundled};

/// Commits of a batch: so few that most batches fit into a segment that was begun before.
const COMMITS: i64 = 80;

/// What a thread has done so far.
#[derive(Clone, Copy, Debug)]
struct Spent {
    /// Calls that read, and that write.
    reads: u64,
    writes: u64,
    /// Bytes that the writes had.
    bytes: u64,
}

impl Spent {
    fn so_far() -> Spent {
        let counts = std::fs::read_to_string("/proc/thread-self/io").expect("this thread's counts");
        let field = |name: &str| {
            let line = counts.lines().find_map(|line| line.strip_prefix(name)).expect("a count");
            line.trim().parse::<u64>().expect("a number")
        };
        Spent { reads: field("syscr:"), writes: field("syscw:"), bytes: field("wchar:") }
    }
}

/// What `work` costs. Asking for it costs reads itself: those of doing nothing are subtracted.
fn spent(work: impl FnOnce()) -> Spent {
    let idle = Spent::so_far();
    let from = Spent::so_far();
    work();
    let to = Spent::so_far();
    Spent {
        reads: to.reads - from.reads - (from.reads - idle.reads),
        writes: to.writes - from.writes,
        bytes: to.bytes - from.bytes,
    }
}

/// A table with one index, some rows in it, and everything warm.
fn warmed(scratch: &Scratch, synchronous: &str) -> Connection {
    let db = bundled(scratch, "a.db");
    db.execute_batch(&format!(
        "PRAGMA synchronous = {synchronous};
         CREATE TABLE t(id INTEGER PRIMARY KEY, key INTEGER, body TEXT); CREATE INDEX k ON t(key);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
         INSERT INTO t(key, body) SELECT i * 7919 % 5003, printf('%0100d', i) FROM n;"
    ))
    .expect("a table");
    insert(&db, 50);
    db
}

fn insert(db: &Connection, count: i64) {
    let mut statement = db.prepare("INSERT INTO t(key, body) VALUES (?1, ?2)").expect("a statement");
    for n in 0..count {
        statement.execute((n * 104_729 % 5003, "x".repeat(100))).expect("a commit");
    }
}

#[test]
fn a_commit_is_one_write_of_its_pages() {
    for synchronous in ["OFF", "NORMAL", "FULL"] {
        let scratch = Scratch::new();
        let db = warmed(&scratch, synchronous);
        // A page of the table, one of the index and a head; a split now and then. A few batches begin a segment, and may
        // have to make it.
        let mut batches: Vec<Spent> = (0..9).map(|_| spent(|| insert(&db, COMMITS))).collect();
        batches.sort_by_key(|cost| cost.bytes);
        let cost = batches[batches.len() / 2];
        let commits = COMMITS as u64;
        assert!(cost.writes <= commits + 5, "{synchronous}: {cost:?} for {commits} commits");
        assert!(cost.bytes <= commits * 9500, "{synchronous}: {cost:?} for {commits} commits");
        assert!(cost.reads <= 5, "{synchronous}: {cost:?} for {commits} commits");
    }
}

#[test]
fn without_fsyncs_a_commit_makes_no_call() {
    let scratch = Scratch::new();
    let kind = nix::sys::statfs::statfs(&scratch.path("")).expect("a file system").filesystem_type();
    if ![nix::sys::statfs::EXT4_SUPER_MAGIC, nix::sys::statfs::TMPFS_MAGIC].contains(&kind) {
        println!("skipped: on this file system nothing is written through a mapping");
        return;
    }
    let db = warmed(&scratch, "NORMAL");
    // From when the thread has made a segment ready, which takes it as long as it takes.
    let quiet = (0..500).any(|_| spent(|| insert(&db, COMMITS)).writes == 0);
    assert!(quiet, "each of 500 batches of {COMMITS} commits has made calls");
}

#[test]
fn a_read_makes_no_call() {
    let scratch = Scratch::new();
    let db = warmed(&scratch, "NORMAL");
    // From the journal, and after a fold from the base.
    for fold in [false, true] {
        if fold {
            db.execute_batch("PRAGMA wal_checkpoint").expect("a fold");
        }
        let mut statement = db.prepare("SELECT length(body) FROM t WHERE id = ?1").expect("a statement");
        let mut select = || {
            for n in 0..3000 {
                let len: i64 = statement.query_row([1 + n * 7919 % 5000], |row| row.get(0)).expect("a row");
                assert_eq!(len, 100);
            }
        };
        select();
        let cost = spent(select);
        assert!(cost.reads == 0 && cost.writes == 0, "folded: {fold}, {cost:?}");
    }
}
