//! Many rows in one transaction, into a new database.

use anyhow::Result;
use rusqlite::Connection;

use super::{Arm, Bed, Metric, Workload, metrics_with_checkpoint, timed_with_checkpoint};
use crate::data::{self, Bodies, Rng};
use crate::engine::{Cache, Engine, Site, Sync, Tuning};

/// The bulk load.
pub struct Bulk;

impl Workload for Bulk {
    fn name(&self) -> &str {
        "bulk"
    }

    fn about(&self) -> String {
        "bulk load in one transaction: a table with one index on a random key, prepared INSERTs".to_owned()
    }

    fn metrics(&self) -> Vec<Metric> {
        metrics_with_checkpoint("bulk load in one transaction, one index")
    }

    fn arm(&self, bed: &Bed, engine: Engine) -> Result<Box<dyn Arm>> {
        Ok(Box::new(BulkArm {
            site: bed.site(engine, "round-0")?,
            rows: bed.scale.bulk_rows,
            rounds: 0,
            bodies: Bodies::new(),
            last: None,
        }))
    }
}

struct BulkArm {
    site: Site,
    rows: u64,
    rounds: u64,
    bodies: Bodies,
    last: Option<Connection>,
}

impl Arm for BulkArm {
    fn round(&mut self) -> Result<Vec<f64>> {
        if let Some(last) = self.last.take() {
            last.close().map_err(|(_, error)| error)?;
            std::fs::remove_dir_all(self.site.path.parent().expect("a site has a folder"))?;
        }
        self.rounds += 1;
        self.site = self.site.sibling(&format!("round-{}", self.rounds))?;
        let connection = self.site.create(Tuning { sync: Sync::Normal, cache: Cache::Default })?;
        connection.execute_batch(&format!("{}; {}", data::TABLE, data::INDEX))?;
        let values = timed_with_checkpoint(&connection, || {
            connection.execute_batch("BEGIN")?;
            data::insert_rows(&connection, self.rows, &mut Rng::new(4), &self.bodies)?;
            connection.execute_batch("COMMIT")?;
            Ok(())
        })?;
        self.last = Some(connection);
        Ok(values)
    }

    fn digest(&mut self) -> Result<Option<String>> {
        self.last.as_ref().map(data::digest).transpose()
    }
}
