//! A process of `tests/histories.rs`, on the bundled SQLite: `recorder URI FIRST SEED ROLE...`. Each role is a thread with
//! a connection of its own, whose history it records under a writer's number from FIRST on; they share the store. It runs
//! in the current folder until it is killed, until a file `stop` is there, or until it has had enough.

use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use rusqlite::{Connection, ErrorCode};
use tideline_tests::history::{Mode, REGISTERS, Recorder, Register, Registers, next_value};
use tideline_tests::{Dice, bundled_at};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [uri, first, seed, roles @ ..] = arguments.as_slice() else {
        return Err("recorder URI FIRST SEED ROLE...".into());
    };
    let first: u32 = first.parse()?;
    let seed: u64 = seed.parse()?;
    if let [only] = roles {
        // Whoever forks has no other thread.
        return run(uri, first, seed, only);
    }
    std::thread::scope(|scope| {
        let run = |(role, n): (&'_ String, u32)| {
            let role = role.clone();
            scope.spawn(move || run(uri, first + n, seed.wrapping_add(n.into()), &role))
        };
        let threads: Vec<_> = roles.iter().zip(0..).map(run).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a thread that doesn't panic"))
    })
}

fn run(uri: &str, writer: u32, seed: u64, role: &str) -> Result<()> {
    let mut dice = Dice::seeded(seed);
    match role {
        "fold" => maintain(uri, &mut dice),
        "fork" => forking(uri, writer, &mut dice),
        "write" | "read" | "hold" => {
            let mut client = Client::new(uri, writer, dice)?;
            let enough = 50 + client.dice.below(400);
            for _ in 0..enough {
                if stopped() {
                    break;
                }
                client.step(role)?;
            }
            Ok(())
        }
        _ => Err(format!("{role}: no such role").into()),
    }
}

fn stopped() -> bool {
    Path::new("stop").exists()
}

fn sleep(milliseconds: u32) {
    std::thread::sleep(Duration::from_millis(milliseconds.into()));
}

/// A connection, and its history.
struct Client {
    uri: String,
    connection: Connection,
    recorder: Recorder,
    writer: u32,
    seq: u32,
    dice: Dice,
}

/// True if somebody else writes, or the snapshot is stale.
fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}

fn connect(uri: &str, dice: &mut Dice) -> Result<Connection> {
    let connection = bundled_at(uri)?;
    connection.busy_timeout(Duration::from_secs(60))?;
    let level = ["NORMAL", "FULL", "FULL", "OFF"][dice.pick(4)];
    connection.execute_batch(&format!("PRAGMA synchronous = {level}"))?;
    if dice.below(3) == 0 {
        connection.execute_batch("PRAGMA cache_size = 10; PRAGMA cache_spill = 1")?;
    }
    if dice.below(4) == 0 {
        connection.execute_batch("PRAGMA mmap_size = 0")?;
    }
    Ok(connection)
}

impl Client {
    fn new(uri: &str, writer: u32, mut dice: Dice) -> Result<Self> {
        let connection = connect(uri, &mut dice)?;
        let recorder = Recorder::new(Path::new("."), writer)?;
        Ok(Self { uri: uri.into(), connection, recorder, writer, seq: 0, dice })
    }

    /// One transaction.
    fn step(&mut self, role: &str) -> Result<()> {
        if self.dice.below(40) == 0 {
            // The last connection of the process, perhaps, or the last of all.
            self.connection = connect(&self.uri, &mut self.dice)?;
        }
        match role {
            "write" if self.dice.below(5) > 0 => self.write(),
            "hold" => self.read(10, 60),
            _ => self.read(1, 3),
        }
    }

    fn begin(&mut self, mode: Mode) -> Result<()> {
        self.seq += 1;
        Ok(self.recorder.begin(self.seq, mode)?)
    }

    /// Reads all registers and the LSN.
    fn see(&mut self, own: bool) -> Result<Registers> {
        let mut statement =
            self.connection.prepare("SELECT value, writer, seq, tide_lsn() FROM register ORDER BY id")?;
        let mut lsn: Option<i64> = None;
        let rows = statement.query_map([], |row| {
            let lsn: i64 = row.get(3)?;
            Ok((Register { value: row.get(0)?, writer: row.get(1)?, seq: row.get(2)? }, lsn))
        })?;
        let mut registers = Registers::new();
        for row in rows {
            let (register, at) = row?;
            if lsn.replace(at).is_some_and(|before| before != at) {
                return Err(format!("the LSN changed to {at} within a statement").into());
            }
            registers.push(register);
        }
        if registers.len() != REGISTERS {
            return Err(format!("{} registers", registers.len()).into());
        }
        self.recorder.seen(lsn.unwrap_or(0).cast_unsigned(), own, &registers)?;
        Ok(registers)
    }

    /// Reads up to `most` times in one transaction, with up to `pause` milliseconds between.
    fn read(&mut self, most: u32, pause: u32) -> Result<()> {
        self.begin(Mode::Deferred)?;
        if self.dice.below(4) == 0 {
            // Without a transaction around it.
            self.see(false)?;
        } else {
            self.connection.execute_batch("BEGIN")?;
            for _ in 0..=self.dice.below(most) {
                self.see(false)?;
                sleep(self.dice.below(pause));
            }
            if self.dice.below(20) == 0 {
                let sound: String =
                    self.connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
                if sound != "ok" {
                    return Err(format!("integrity_check: {sound}").into());
                }
            }
            self.see(false)?;
            self.connection.execute_batch(["COMMIT", "ROLLBACK"][self.dice.pick(2)])?;
        }
        Ok(self.recorder.ended()?)
    }

    /// Changes registers, by one of the ways to begin a transaction.
    fn write(&mut self) -> Result<()> {
        match self.change() {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.connection.execute_batch("ROLLBACK")?;
                Ok(self.recorder.ended()?)
            }
            Err(error) => {
                if !error.downcast_ref().is_some_and(is_busy) {
                    return Err(error);
                }
                if !self.connection.is_autocommit() {
                    self.connection.execute_batch("ROLLBACK")?;
                }
                Ok(self.recorder.ended()?)
            }
        }
    }

    /// The transaction of [`Client::write`]; false if it is to be rolled back.
    fn change(&mut self) -> Result<bool> {
        let way = self.dice.below(4);
        self.begin(if way == 0 { Mode::Deferred } else { Mode::Writing })?;
        match way {
            0 => self.connection.execute_batch("BEGIN")?,
            1 => self.connection.execute_batch("BEGIN; UPDATE register SET value = value WHERE id = 0")?,
            _ => self.connection.execute_batch("BEGIN IMMEDIATE")?,
        }
        let before = self.see(false)?;
        let lsn: i64 = self.connection.query_row("SELECT tide_lsn()", [], |row| row.get(0))?;
        if self.dice.below(8) == 0 {
            sleep(self.dice.below(8));
        }
        let mut ids = vec![0];
        ids.extend((0..self.dice.below(4)).map(|_| 1 + self.dice.pick(REGISTERS - 1)));
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            let value = next_value(&before, id, self.writer, self.seq);
            self.recorder.write(id, value)?;
            let sql = "UPDATE register SET value = ?1, writer = ?2, seq = ?3 WHERE id = ?4";
            let mut update = self.connection.prepare(sql)?;
            update.execute((value, self.writer, self.seq, u32::try_from(id)?))?;
        }
        let sql = "INSERT INTO done VALUES (?1, ?2, ?3)";
        self.connection.prepare(sql)?.execute((lsn + 1, self.writer, self.seq))?;
        if self.dice.below(4) == 0 {
            let sql = "UPDATE ballast SET v = randomblob(length(v)) WHERE id % 5 = ?1";
            self.connection.execute(sql, [self.dice.below(5)])?;
        }
        if self.dice.below(4) == 0 {
            self.see(true)?;
        }
        if self.dice.below(10) == 0 {
            return Ok(false);
        }
        self.recorder.commit()?;
        self.connection.execute_batch("COMMIT")?;
        self.recorder.committed()?;
        Ok(true)
    }
}

/// Folds, compacts and changes what is retained, while others work.
fn maintain(uri: &str, dice: &mut Dice) -> Result<()> {
    let connection = connect(uri, dice)?;
    while !stopped() {
        let sql = match dice.below(8) {
            0 | 1 => "SELECT tide_compact()",
            2 => "SELECT tide_retain('none')",
            3 => "SELECT tide_retain('20 lsns')",
            4 => "SELECT tide_retain('1 MB')",
            5 => "PRAGMA wal_checkpoint(TRUNCATE)",
            _ => "SELECT tide_fold()",
        };
        match connection.query_row(sql, [], |_| Ok(())) {
            // Another one folds or compacts.
            Err(error) if !is_busy(&error) && !error.to_string().contains("tideline: BUSY: ") => {
                return Err(format!("{sql}: {error}").into());
            }
            _ => {}
        }
        sleep(dice.below(40));
    }
    Ok(())
}

/// Works like a writer, and forks now and then, also in the middle of a transaction: the child leaves its parent's
/// connection alone, and opens its own.
fn forking(uri: &str, writer: u32, dice: &mut Dice) -> Result<()> {
    static BORN: AtomicU32 = AtomicU32::new(0);
    let mut client = Client::new(uri, writer, Dice::seeded(dice.draw()))?;
    while !stopped() {
        client.step("write")?;
        reap();
        if dice.below(12) > 0 {
            continue;
        }
        let within = dice.below(3) == 0;
        if within {
            client
                .connection
                .execute_batch("BEGIN IMMEDIATE; UPDATE register SET value = -1 WHERE id = 1")?;
        }
        let child = writer + 1 + BORN.fetch_add(1, Ordering::SeqCst);
        let seed = dice.draw();
        // SAFETY: this is the only thread that uses SQLite or this program's own locks.
        match unsafe { fork() }? {
            ForkResult::Parent { .. } => println!("forked"),
            ForkResult::Child => {
                // What is the parent's stays as it is.
                std::mem::forget(client);
                let worked = (|| {
                    let mut own = Client::new(uri, child, Dice::seeded(seed))?;
                    (0..3 + own.dice.below(20)).try_for_each(|_| own.step("write"))
                })();
                if let Err(error) = &worked {
                    eprintln!("in a child: {error}");
                }
                // SAFETY: nothing of the parent's is flushed or dropped.
                unsafe { nix::libc::_exit(i32::from(worked.is_err())) }
            }
        }
        if within {
            client.connection.execute_batch("ROLLBACK")?;
        }
    }
    drop(client);
    while !matches!(waitpid(None::<Pid>, None), Err(nix::Error::ECHILD)) {}
    Ok(())
}

/// Lets children go that have ended.
fn reap() {
    use nix::sys::wait::WaitStatus::StillAlive;
    while waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status != StillAlive) {}
}
