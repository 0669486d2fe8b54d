//! The table that workloads work on, the same rows in every engine.

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;

/// The table, without its index.
pub const TABLE: &str = "CREATE TABLE item(id INTEGER PRIMARY KEY, key INTEGER NOT NULL, body TEXT NOT NULL)";
/// Its index.
pub const INDEX: &str = "CREATE INDEX item_key ON item(key)";
/// Keys are below this.
pub const KEYS: u64 = 1 << 31;

/// Numbers that look random and come again with the same seed (splitmix64).
pub struct Rng(u64);

impl Rng {
    /// The sequence of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next number, below `limit`.
    pub fn below(&mut self, limit: u64) -> i64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as i64
    }
}

/// Texts of 96 characters to choose from, made beforehand so that making them isn't measured.
pub struct Bodies(Vec<String>);

impl Bodies {
    /// The same ones every time.
    pub fn new() -> Self {
        let mut rng = Rng::new(0xb0d1e5);
        Self((0..1021).map(|_| (0..6).map(|_| format!("{:016x}", rng.next())).collect()).collect())
    }

    /// One of them.
    pub fn pick(&self, number: u64) -> &str {
        &self.0[(number % self.0.len() as u64) as usize]
    }
}

/// Inserts rows, within the transaction that the caller has, and takes keys and bodies from `rng`.
pub fn insert_rows(connection: &Connection, rows: u64, rng: &mut Rng, bodies: &Bodies) -> Result<()> {
    let mut insert = connection.prepare_cached("INSERT INTO item(key, body) VALUES(?1, ?2)")?;
    for _ in 0..rows {
        insert.raw_bind_parameter(1, rng.below(KEYS))?;
        insert.raw_bind_parameter(2, bodies.pick(rng.next()))?;
        insert.raw_execute()?;
    }
    Ok(())
}

/// Makes the table with `rows` rows, ids from 1, and its index.
pub fn build(connection: &Connection, rows: u64) -> Result<()> {
    connection.execute_batch(&format!("BEGIN; {TABLE};"))?;
    insert_rows(connection, rows, &mut Rng::new(1), &Bodies::new())?;
    connection.execute_batch(&format!("{INDEX}; COMMIT"))?;
    Ok(())
}

/// Reads the whole table, so that what a cache can hold is in it.
pub fn warm(connection: &Connection) -> Result<()> {
    let _: i64 =
        connection.query_row("SELECT ifnull(sum(length(body)), 0) FROM item", [], |row| row.get(0))?;
    Ok(())
}

/// A text that differs when the rows differ, from a database that `quick_check` finds sound: the engines must agree on it.
pub fn digest(connection: &Connection) -> Result<String> {
    let check: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    ensure!(check == "ok", "quick_check: {check}");
    connection
        .query_row(
            "SELECT count(*) || ':' || ifnull(sum(key), 0) || ':' || ifnull(sum(unicode(substr(body, 1 + id % 90)) * (id % 1021)), 0) FROM item",
            [],
            |row| row.get(0),
        )
        .context("digest")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_sees_a_changed_row() {
        let digests: Vec<String> =
            ["SELECT 1", "UPDATE item SET body = body || 'x', key = key + 1 WHERE id = 7"]
                .iter()
                .map(|sql| {
                    let connection = Connection::open_in_memory().unwrap();
                    build(&connection, 100).unwrap();
                    connection
                        .query_row(sql, [], |_| Ok(()))
                        .or_else(|_| connection.execute(sql, []).map(|_| ()))
                        .unwrap();
                    digest(&connection).unwrap()
                })
                .collect();
        assert_ne!(digests[0], digests[1]);
    }

    #[test]
    fn below_stays_below() {
        let mut rng = Rng::new(3);
        assert!((0..1000).all(|_| (0..10).contains(&rng.below(10))));
    }
}
