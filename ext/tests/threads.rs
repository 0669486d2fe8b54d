//! Threads with a connection each on one database, while the journal is folded, compacted, trimmed, checked and shipped. The
//! thread sanitizer looks at it, too (`cargo xtask sanitize`), SQLite's own code included. `TIDELINE_COMMITS=N` has them make
//! N commits.

use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use tideline::sqlite3_tideline_init;

/// Commits that they make together.
fn commits() -> u32 {
    std::env::var("TIDELINE_COMMITS").ok().and_then(|count| count.parse().ok()).unwrap_or(600)
}

fn open(path: &Path) -> Connection {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_URI;
    let db = Connection::open_with_flags(format!("file:{}?vfs=tideline", path.display()), flags);
    let db = db.expect("a database");
    db.busy_timeout(Duration::from_secs(60)).expect("a timeout");
    db
}

/// Moves some of what one account has to another.
fn transfer(db: &mut Connection, n: u32) -> rusqlite::Result<()> {
    let transfer = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let update = "UPDATE account SET balance = balance + ?2, note = randomblob(?3) WHERE id = ?1";
    transfer.execute(update, (n % 20, -7, n % 900))?;
    transfer.execute(update, ((n * 7 + 3) % 20, 7, n % 500))?;
    // Some of them are taken back.
    if n.is_multiple_of(11) { transfer.rollback() } else { transfer.commit() }
}

/// Sees the same sum in one snapshot twice.
fn look(db: &mut Connection) -> rusqlite::Result<()> {
    let snapshot = db.transaction()?;
    for _ in 0..2 {
        let (sum, count): (i64, i64) =
            snapshot.query_row("SELECT sum(balance), count(note) FROM account", (), |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
        assert_eq!((sum, count), (20_000, 20));
    }
    snapshot.commit()
}

/// Does one of the things that an application's keeper does now and then.
fn keep(db: &Connection, replica: &Connection, n: u32) -> rusqlite::Result<()> {
    match n % 6 {
        0 => db.query_row("SELECT tide_fold()", (), |_| Ok(())),
        1 => db.query_row("SELECT tide_compact()", (), |_| Ok(())),
        2 => db.query_row("SELECT tide_retain(?1)", [format!("{} lsns", 1 + n % 40)], |_| Ok(())),
        3 => {
            let faults: i64 = db.query_row("SELECT count(*) FROM tide_verify", (), |row| row.get(0))?;
            assert_eq!(faults, 0);
            Ok(())
        }
        4 => db.query_row("SELECT count(*) FROM tide_log", (), |_| Ok(())),
        _ => {
            let after: i64 = replica.query_row("SELECT tide_lsn()", (), |row| row.get(0))?;
            let blob: rusqlite::Result<Option<Vec<u8>>> =
                db.query_row("SELECT tide_prepare(?1)", [after], |row| row.get(0));
            let blob = match blob {
                Err(error) if ["TRIMMED", "ARGUMENT"].iter().any(|code| error.to_string().contains(code)) => {
                    db.query_row("SELECT tide_prepare(0)", (), |row| row.get(0))?
                }
                other => other?,
            };
            let Some(blob) = blob else { return Ok(()) };
            replica.query_row("SELECT tide_receive(?1)", [blob], |_| Ok(()))
        }
    }
}

/// Counts a thread that has ended, however that came.
struct Ends<'a>(&'a AtomicU32);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn threads_share_a_database() {
    // SAFETY: null pointers are what the entry point takes, in a program that it is linked into.
    assert_eq!(unsafe { sqlite3_tideline_init(ptr::null_mut(), ptr::null_mut(), ptr::null()) }, 0);
    let folder = tempfile::tempdir().expect("a folder");
    let (path, copy) = (folder.path().join("a.db"), folder.path().join("copy.db"));
    let mut first = open(&path);
    first
        .execute_batch(
            "CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER, note BLOB);
             WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 19)
             INSERT INTO account SELECT i, 1000, randomblob(3000) FROM n",
        )
        .expect("accounts");
    let (made, over, commits) = (AtomicU32::new(0), AtomicU32::new(0), commits());
    std::thread::scope(|scope| {
        let (path, copy, made, over) = (&path, &copy, &made, &over);
        for _ in 0..3 {
            scope.spawn(move || {
                let _ends = Ends(over);
                let mut db = open(path);
                loop {
                    let n = made.fetch_add(1, Ordering::Relaxed);
                    if n >= commits {
                        break;
                    }
                    transfer(&mut db, n).expect("a transfer");
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(move || {
                let mut db = open(path);
                while over.load(Ordering::Relaxed) < 3 {
                    look(&mut db).expect("a snapshot");
                    // One comes and goes.
                    db = open(path);
                }
            });
        }
        scope.spawn(move || {
            let (db, replica) = (open(path), open(copy));
            for n in 0.. {
                if over.load(Ordering::Relaxed) == 3 {
                    break;
                }
                if let Err(error) = keep(&db, &replica, n) {
                    assert_eq!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy), "{error}");
                }
            }
        });
    });
    look(&mut first).expect("a snapshot");
    first.close().expect("the last connection closed");
    let plain = Connection::open(&path).expect("a plain database");
    let sound: String = plain.query_row("PRAGMA integrity_check", (), |row| row.get(0)).expect("an answer");
    assert_eq!(sound, "ok");
}
