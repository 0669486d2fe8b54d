//! Pieces of SQL that many tests use.

/// What SQLite says where somebody else writes, or where a snapshot is stale.
pub const LOCKED: &str = "database is locked";

/// What stock SQLite says of a base that is behind its journal.
pub const NOT_A_DATABASE: &str = "file is not a database";

/// The head of a statement that has the numbers `i` from 1 to `n` in a table `n`.
pub fn numbers(n: u32) -> String {
    format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {n})")
}

/// A table `t` with this many rows of some hundred bytes.
pub fn filled(rows: u32) -> String {
    format!(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); CREATE INDEX by_v ON t(v);
         {} INSERT INTO t SELECT i, printf('%0300d', i * 7919 % 10007) FROM n;",
        numbers(rows)
    )
}

/// Makes the transactions that follow spill.
pub const SPILL: &str = "PRAGMA cache_size = 10; PRAGMA cache_spill = 1;";

/// What is in that table, in short, and whether the database is sound.
pub const SUMS: &str = "SELECT count(*), sum(id), sum(length(v)) FROM t; PRAGMA integrity_check;";
