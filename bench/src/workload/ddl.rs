//! Statements that write a large part of the database: CREATE INDEX and VACUUM.

use anyhow::Result;
use rusqlite::Connection;

use super::{Arm, Bed, Metric, Workload, metrics_with_checkpoint, timed_with_checkpoint};
use crate::data;
use crate::engine::{Cache, Engine, Sync, Tuning};

struct Ddl {
    name: &'static str,
    title: &'static str,
    /// Done before each round, and checkpointed, unmeasured.
    before: &'static str,
    sql: &'static str,
}

const ALL: [Ddl; 2] = [
    Ddl { name: "create-index", title: "CREATE INDEX", before: "DROP INDEX item_key", sql: data::INDEX },
    Ddl { name: "vacuum", title: "VACUUM", before: "", sql: "VACUUM" },
];

/// Both.
pub fn all() -> impl Iterator<Item = Box<dyn Workload>> {
    ALL.into_iter().map(|ddl| Box::new(ddl) as Box<dyn Workload>)
}

impl Workload for Ddl {
    fn name(&self) -> &str {
        self.name
    }

    fn about(&self) -> String {
        format!("{} of the whole table, synchronous=NORMAL", self.title)
    }

    fn metrics(&self) -> Vec<Metric> {
        metrics_with_checkpoint(self.title)
    }

    fn arm(&self, bed: &Bed, engine: Engine) -> Result<Box<dyn Arm>> {
        let tuning = Tuning { sync: Sync::Normal, cache: Cache::Default };
        let (_, connection) = bed.built(engine, bed.scale.rows, tuning)?;
        data::warm(&connection)?;
        Ok(Box::new(DdlArm { connection, before: self.before, sql: self.sql }))
    }
}

struct DdlArm {
    connection: Connection,
    before: &'static str,
    sql: &'static str,
}

impl Arm for DdlArm {
    fn round(&mut self) -> Result<Vec<f64>> {
        if !self.before.is_empty() {
            self.connection.execute_batch(self.before)?;
        }
        self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        timed_with_checkpoint(&self.connection, || Ok(self.connection.execute_batch(self.sql)?))
    }

    fn digest(&mut self) -> Result<Option<String>> {
        data::digest(&self.connection).map(Some)
    }
}
