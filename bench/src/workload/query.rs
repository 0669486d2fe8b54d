//! Reads of many rows, one statement each.

use anyhow::Result;
use rusqlite::Connection;

use super::{Arm, Bed, Metric, Unit, Workload, timed};
use crate::data;
use crate::engine::{Cache, Engine, Sync, Tuning};

/// A statement with one value as its result.
struct Query {
    name: &'static str,
    title: &'static str,
    sql: &'static str,
}

const ALL: [Query; 4] = [
    Query { name: "scan", title: "full scan", sql: "SELECT sum(length(body)) FROM item" },
    Query {
        name: "range",
        title: "range scan of a tenth of the table through its index",
        sql: "SELECT sum(length(body)) FROM item WHERE key BETWEEN 1000000000 AND 1214748364",
    },
    Query {
        name: "join",
        title: "join of a tenth of the table with the whole, by primary key",
        sql: "SELECT sum(length(b.body)) FROM item a CROSS JOIN item b ON b.id = 1 + a.key % (SELECT max(id) FROM item) \
              WHERE a.key < 214748364",
    },
    Query {
        name: "aggregate",
        title: "aggregate with GROUP BY over the whole table",
        sql: "SELECT sum(n * longest) FROM (SELECT count(*) AS n, max(length(body)) AS longest FROM item GROUP BY key % 97)",
    },
];

/// One for each statement.
pub fn all() -> impl Iterator<Item = Box<dyn Workload>> {
    ALL.into_iter().map(|query| Box::new(query) as Box<dyn Workload>)
}

impl Workload for Query {
    fn name(&self) -> &str {
        self.name
    }

    fn about(&self) -> String {
        format!("{}: {}", self.title, self.sql)
    }

    fn metrics(&self) -> Vec<Metric> {
        vec![Metric::main(self.title, Unit::Seconds)]
    }

    fn arm(&self, bed: &Bed, engine: Engine) -> Result<Box<dyn Arm>> {
        let tuning = Tuning { sync: Sync::Normal, cache: Cache::Default };
        let (_, connection) = bed.built(engine, bed.scale.rows, tuning)?;
        data::warm(&connection)?;
        Ok(Box::new(QueryArm { connection, sql: self.sql, result: 0 }))
    }
}

struct QueryArm {
    connection: Connection,
    sql: &'static str,
    result: i64,
}

/// A round repeats a statement that is over soon.
const REPEATS: u32 = 3;

impl Arm for QueryArm {
    fn round(&mut self) -> Result<Vec<f64>> {
        let Self { connection, result, .. } = self;
        let mut statement = connection.prepare_cached(self.sql)?;
        let seconds = timed(|| {
            for _ in 0..REPEATS {
                *result = statement.query_row([], |row| row.get(0))?;
            }
            Ok(())
        })?;
        Ok(vec![seconds / f64::from(REPEATS)])
    }

    fn digest(&mut self) -> Result<Option<String>> {
        Ok(Some(self.result.to_string()))
    }
}
