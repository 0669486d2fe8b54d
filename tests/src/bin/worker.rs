//! A worker on the bank that `tests/bank.rs` describes, on the bundled SQLite: `worker write|read URI NAME SEED`.
//! It runs in the current folder until it is killed, or until a file `stop` is there. `py/bank.py` is its counterpart.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode};
use tideline_tests::{Dice, bundled_at};

const ACCOUNTS: u32 = 20;
const TOTAL: i64 = 20_000;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, role, uri, name, seed] = arguments.as_slice() else {
        return Err("worker write|read URI NAME SEED".into());
    };
    let connection = bundled_at(uri)?;
    connection.busy_timeout(Duration::from_secs(60))?;
    let mut dice = Dice::seeded(seed.parse()?);
    println!("ready");
    match role.as_str() {
        "write" => write(&connection, name, &mut dice),
        "read" => read(&connection, &mut dice),
        _ => Err(format!("{role}: neither write nor read").into()),
    }
}

fn stopped() -> bool {
    Path::new("stop").exists()
}

/// Moves money and acknowledges each commit.
fn write(connection: &Connection, name: &str, dice: &mut Dice) -> Result<(), Box<dyn Error>> {
    connection.execute_batch("PRAGMA cache_size = 20; PRAGMA cache_spill = 5;")?;
    let mut acks = OpenOptions::new().create(true).append(true).open(format!("acks-{name}"))?;
    let mut seq = 0;
    while !stopped() {
        let looks_first = dice.below(5) == 0;
        match transfer(connection, name, seq + 1, looks_first, dice) {
            Ok(()) => {
                seq += 1;
                acks.write_all(format!("{seq}\n").as_bytes())?;
            }
            // Stale, or somebody else writes: SQLite doesn't let a transaction that has read wait for that.
            Err(rusqlite::Error::SqliteFailure(error, _))
                if looks_first && error.code == ErrorCode::DatabaseBusy =>
            {
                connection.execute_batch("ROLLBACK")?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn transfer(
    connection: &Connection,
    name: &str,
    seq: u32,
    looks_first: bool,
    dice: &mut Dice,
) -> rusqlite::Result<()> {
    if looks_first {
        connection.execute_batch("BEGIN; SELECT count(*) FROM account;")?;
        let sum: i64 = connection.query_row("SELECT sum(balance) FROM account", [], |row| row.get(0))?;
        assert_eq!(sum, TOTAL);
    } else {
        connection.execute_batch("BEGIN IMMEDIATE")?;
    }
    let giver = dice.below(ACCOUNTS);
    let taker = (giver + 1 + dice.below(ACCOUNTS - 1)) % ACCOUNTS;
    let amount = 1 + dice.below(50);
    let update = "UPDATE account SET balance = balance + ?1 WHERE id = ?2";
    connection.execute(update, (-i64::from(amount), giver + 1))?;
    connection.execute(update, (amount, taker + 1))?;
    if dice.below(10) == 0 {
        connection
            .execute("UPDATE ballast SET v = randomblob(length(v)) WHERE id % 5 = ?1", [dice.below(5)])?;
    }
    connection.execute("INSERT INTO done VALUES (?1, ?2)", (name, seq))?;
    connection.execute_batch("COMMIT")
}

/// Looks for anything that no order of whole commits explains.
fn read(connection: &Connection, dice: &mut Dice) -> Result<(), Box<dyn Error>> {
    let mut newest: BTreeMap<String, i64> = BTreeMap::new();
    while !stopped() {
        let promised = acknowledged()?;
        connection.execute_batch("BEGIN")?;
        let first = look(connection)?;
        for (writer, (count, seq)) in &first {
            assert_eq!(count, seq, "{writer} has holes");
        }
        for (writer, seq) in promised.iter().chain(&newest) {
            let seen = first.get(writer).map_or(0, |(_, seq)| *seq);
            assert!(seen >= *seq, "{writer}: {seq} was there, now {seen}");
        }
        let sum: i64 = connection.query_row("SELECT sum(balance) FROM account", [], |row| row.get(0))?;
        assert_eq!(sum, TOTAL);
        if dice.below(10) == 0 {
            let sound: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
            assert_eq!(sound, "ok");
        }
        assert_eq!(look(connection)?, first, "a snapshot changed");
        connection.execute_batch("COMMIT")?;
        newest = first.into_iter().map(|(writer, (_, seq))| (writer, seq)).collect();
    }
    Ok(())
}

/// Commits and the newest of them, of each writer.
fn look(connection: &Connection) -> rusqlite::Result<BTreeMap<String, (i64, i64)>> {
    let mut statement = connection.prepare("SELECT writer, count(*), max(seq) FROM done GROUP BY writer")?;
    statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?.collect()
}

/// What each writer had acknowledged when we looked.
fn acknowledged() -> Result<BTreeMap<String, i64>, Box<dyn Error>> {
    let mut newest = BTreeMap::new();
    for entry in std::fs::read_dir(".")? {
        let entry = entry?;
        let file = entry.file_name().to_string_lossy().into_owned();
        if let Some(writer) = file.strip_prefix("acks-") {
            let text = std::fs::read_to_string(entry.path())?;
            if let Some((whole, _)) = text.rsplit_once('\n') {
                let last = whole.rsplit('\n').next().unwrap_or_default();
                newest.insert(writer.to_string(), last.parse()?);
            }
        }
    }
    Ok(newest)
}
