//! Point reads by key, in and outside a transaction, in the page cache and beyond it.

use std::hint::black_box;

use anyhow::{Context, Result};
use rusqlite::Connection;

use super::{Arm, Bed, Metric, Unit, Workload, timed};
use crate::data::{self, Rng};
use crate::engine::{Cache, Engine, Sync, Tuning};

struct Select {
    name: &'static str,
    title: &'static str,
    in_transaction: bool,
    cache: Cache,
}

const ALL: [Select; 4] = [
    Select {
        name: "select-cached",
        title: "autocommit point SELECT, in the page cache",
        in_transaction: false,
        cache: Cache::Whole,
    },
    Select {
        name: "select-beyond",
        title: "autocommit point SELECT, beyond the page cache",
        in_transaction: false,
        cache: Cache::Default,
    },
    Select {
        name: "transaction-cached",
        title: "point SELECT in a transaction, in the page cache",
        in_transaction: true,
        cache: Cache::Whole,
    },
    Select {
        name: "transaction-beyond",
        title: "point SELECT in a transaction, beyond the page cache",
        in_transaction: true,
        cache: Cache::Default,
    },
];

/// The four combinations.
pub fn all() -> impl Iterator<Item = Box<dyn Workload>> {
    ALL.into_iter().map(|select| Box::new(select) as Box<dyn Workload>)
}

impl Workload for Select {
    fn name(&self) -> &str {
        self.name
    }

    fn about(&self) -> String {
        format!("{}; random ids, the file is in the system's memory", self.title)
    }

    fn metrics(&self) -> Vec<Metric> {
        vec![Metric::main(self.title, Unit::Seconds)]
    }

    fn arm(&self, bed: &Bed, engine: Engine) -> Result<Box<dyn Arm>> {
        let tuning = Tuning { sync: Sync::Normal, cache: self.cache };
        let (_, connection) = bed.built(engine, bed.scale.rows, tuning)?;
        data::warm(&connection)?;
        Ok(Box::new(SelectArm {
            connection,
            in_transaction: self.in_transaction,
            rows: bed.scale.rows,
            reads: bed.scale.reads,
            rng: Rng::new(3),
            seen: 0,
        }))
    }
}

struct SelectArm {
    connection: Connection,
    in_transaction: bool,
    rows: u64,
    reads: u64,
    rng: Rng,
    /// Sum over what was read, for the comparison at the end.
    seen: u64,
}

impl Arm for SelectArm {
    fn round(&mut self) -> Result<Vec<f64>> {
        let Self { connection, rng, seen, .. } = self;
        let mut select = connection.prepare_cached("SELECT body FROM item WHERE id = 1 + ?1")?;
        if self.in_transaction {
            connection.execute_batch("BEGIN")?;
        }
        let seconds = timed(|| {
            for _ in 0..self.reads {
                select.raw_bind_parameter(1, rng.below(self.rows))?;
                let mut rows = select.raw_query();
                let row = rows.next()?.context("a row is missing")?;
                *seen += u64::from(black_box(row.get_ref(0)?.as_str()?).as_bytes()[0]);
            }
            Ok(())
        })?;
        if self.in_transaction {
            connection.execute_batch("COMMIT")?;
        }
        Ok(vec![seconds / self.reads as f64])
    }

    fn digest(&mut self) -> Result<Option<String>> {
        Ok(Some(format!("{} {}", self.seen, data::digest(&self.connection)?)))
    }
}
