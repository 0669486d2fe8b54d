//! Transactions of one row, each committed by itself.

use anyhow::Result;
use rusqlite::Connection;

use super::{Arm, Bed, Metric, Unit, Workload, timed};
use crate::data::{self, Bodies, KEYS, Rng};
use crate::engine::{Cache, Engine, Sync, Tuning};

#[derive(Clone, Copy)]
enum Statement {
    Insert,
    Update,
}

struct Commit {
    name: &'static str,
    title: &'static str,
    statement: Statement,
    sync: Sync,
    /// Inserts measure the commit, so their small table is in the cache; updates are spread over a database that isn't.
    cache: Cache,
}

const ALL: [Commit; 4] = [
    Commit::insert("insert-off", "autocommit INSERT, one index, synchronous=OFF", Sync::Off),
    Commit::insert("insert-normal", "autocommit INSERT, one index, synchronous=NORMAL", Sync::Normal),
    Commit::insert("insert-full", "autocommit INSERT, one index, synchronous=FULL", Sync::Full),
    Commit {
        name: "update-normal",
        title: "autocommit random UPDATE, synchronous=NORMAL",
        statement: Statement::Update,
        sync: Sync::Normal,
        cache: Cache::Default,
    },
];

/// INSERT at each level of `synchronous`, and UPDATE.
pub fn all() -> impl Iterator<Item = Box<dyn Workload>> {
    ALL.into_iter().map(|commit| Box::new(commit) as Box<dyn Workload>)
}

impl Commit {
    const fn insert(name: &'static str, title: &'static str, sync: Sync) -> Self {
        Self { name, title, statement: Statement::Insert, sync, cache: Cache::Whole }
    }
}

impl Workload for Commit {
    fn name(&self) -> &str {
        self.name
    }

    fn about(&self) -> String {
        match self.statement {
            Statement::Insert => format!("{}; random key, table in the cache", self.title),
            Statement::Update => {
                format!("{}; of an unindexed column, whole table, default cache", self.title)
            }
        }
    }

    fn metrics(&self) -> Vec<Metric> {
        vec![Metric::main(self.title, Unit::Seconds)]
    }

    fn arm(&self, bed: &Bed, engine: Engine) -> Result<Box<dyn Arm>> {
        let rows = match self.statement {
            Statement::Insert => bed.scale.prefill,
            Statement::Update => bed.scale.rows,
        };
        let commits = match self.sync {
            Sync::Full => bed.scale.synced_commits,
            Sync::Off | Sync::Normal => bed.scale.commits,
        };
        let (_, connection) = bed.built(engine, rows, Tuning { sync: self.sync, cache: self.cache })?;
        data::warm(&connection)?;
        Ok(Box::new(CommitArm {
            connection,
            statement: self.statement,
            rows,
            commits,
            rng: Rng::new(2),
            bodies: Bodies::new(),
        }))
    }
}

struct CommitArm {
    connection: Connection,
    statement: Statement,
    rows: u64,
    commits: u64,
    rng: Rng,
    bodies: Bodies,
}

impl Arm for CommitArm {
    fn round(&mut self) -> Result<Vec<f64>> {
        let Self { connection, rng, bodies, .. } = self;
        let (sql, limit) = match self.statement {
            Statement::Insert => ("INSERT INTO item(key, body) VALUES(?1, ?2)", KEYS),
            Statement::Update => ("UPDATE item SET body = ?2 WHERE id = 1 + ?1", self.rows),
        };
        let mut statement = connection.prepare_cached(sql)?;
        let seconds = timed(|| {
            for _ in 0..self.commits {
                statement.raw_bind_parameter(1, rng.below(limit))?;
                statement.raw_bind_parameter(2, bodies.pick(rng.next()))?;
                statement.raw_execute()?;
            }
            Ok(())
        })?;
        Ok(vec![seconds / self.commits as f64])
    }

    fn digest(&mut self) -> Result<Option<String>> {
        data::digest(&self.connection).map(Some)
    }
}
