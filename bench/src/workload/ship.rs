//! Shipping a database, and a delta of it, and replaying both on a replica. The peer is what an operator would do
//! without Tideline: copy the file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::{Arm, Bed, Metric, Unit, Workload, timed};
use crate::data::{self, Bodies, Rng};
use crate::engine::{Cache, Engine, Site, Sync, Tuning};

/// FULL, so that nothing is left for `tide_prepare` to make durable, and what is received is durable.
const TUNING: Tuning = Tuning { sync: Sync::Full, cache: Cache::Default };
/// A database above this goes in pieces of about this size.
const PIECE: i64 = 256 << 20;

struct Ship {
    name: &'static str,
    what: &'static str,
    delta: bool,
}

const ALL: [Ship; 2] = [
    Ship { name: "ship-full", what: "the whole database", delta: false },
    Ship { name: "ship-delta", what: "a delta of single-row updates", delta: true },
];

/// Everything, and a delta.
pub fn all() -> impl Iterator<Item = Box<dyn Workload>> {
    ALL.into_iter().map(|ship| Box::new(ship) as Box<dyn Workload>)
}

impl Workload for Ship {
    fn name(&self) -> &str {
        self.name
    }

    fn about(&self) -> String {
        format!(
            "tide_prepare of {} into a file, tide_receive from it; the rate is that of uncompressed pages",
            self.what
        )
    }

    fn metrics(&self) -> Vec<Metric> {
        vec![
            Metric::main(format!("ship {} into a file (peer: file copy)", self.what), Unit::BytesPerSecond),
            Metric::named(
                "replay",
                format!("replay {} from a file, durably (peer: file copy and fsync)", self.what),
                Unit::BytesPerSecond,
            ),
        ]
    }

    fn engines(&self) -> &[Engine] {
        &[Engine::Stock, Engine::Tideline]
    }

    fn arm(&self, bed: &Bed, engine: Engine) -> Result<Box<dyn Arm>> {
        let (source, connection) = bed.built(engine, bed.scale.rows, TUNING)?;
        if engine == Engine::Stock {
            connection.close().map_err(|(_, error)| error)?;
            return Ok(Box::new(CopyArm::new(&source, self.delta, bed)?));
        }
        let replica_site = source.sibling("replica")?;
        let arm = TideArm {
            delta: self.delta,
            rows: bed.scale.rows,
            updates: bed.scale.delta_updates,
            page_size: i64::from(bed.settings.page_size),
            folder: bed.dir.clone(),
            replica: replica_site.create(TUNING)?,
            replica_site,
            source: connection,
            rng: Rng::new(6),
            bodies: Bodies::new(),
        };
        if self.delta {
            let pieces = arm.prepare(0)?;
            arm.receive(&pieces)?;
        }
        Ok(Box::new(arm))
    }
}

/// The peer.
struct CopyArm {
    from: PathBuf,
    to: PathBuf,
    bytes: u64,
}

impl CopyArm {
    /// Copies the database; for a delta, as much of it as the updates touch if each touches a page of its own.
    fn new(source: &Site, delta: bool, bed: &Bed) -> Result<Self> {
        let mut bytes = fs::metadata(&source.path)?.len();
        let mut from = source.path.clone();
        if delta {
            bytes = bytes.min(bed.scale.delta_updates * u64::from(bed.settings.page_size));
            from = bed.dir.join("part");
            fs::copy(&source.path, &from)?;
            File::options().write(true).open(&from)?.set_len(bytes)?;
        }
        Ok(Self { from, to: bed.dir.join("copy"), bytes })
    }

    fn copy(&self, sync: bool) -> Result<f64> {
        if self.to.exists() {
            fs::remove_file(&self.to)?;
        }
        let seconds = timed(|| {
            fs::copy(&self.from, &self.to)?;
            if sync {
                File::open(&self.to)?.sync_all()?;
            }
            Ok(())
        })?;
        Ok(self.bytes as f64 / seconds)
    }
}

impl Arm for CopyArm {
    fn round(&mut self) -> Result<Vec<f64>> {
        Ok(vec![self.copy(false)?, self.copy(true)?])
    }

    fn digest(&mut self) -> Result<Option<String>> {
        Ok(None)
    }
}

struct TideArm {
    delta: bool,
    rows: u64,
    updates: u64,
    page_size: i64,
    /// For what is shipped.
    folder: PathBuf,
    source: Connection,
    replica: Connection,
    replica_site: Site,
    rng: Rng,
    bodies: Bodies,
}

impl TideArm {
    /// Writes what the source has after `after` into files.
    fn prepare(&self, after: i64) -> Result<Vec<PathBuf>> {
        let size: i64 = self.source.query_row(
            "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
            [],
            |row| row.get(0),
        )?;
        let sql = if after == 0 && size > PIECE {
            "SELECT blob FROM tide_batches(?1, ?2) ORDER BY seq"
        } else {
            "SELECT tide_prepare(?1, ?2)"
        };
        let mut statement = self.source.prepare_cached(sql)?;
        let mut rows = statement.query((after, PIECE))?;
        let mut pieces = Vec::new();
        while let Some(row) = rows.next()? {
            let ValueRef::Blob(blob) = row.get_ref(0)? else {
                continue;
            };
            let path = self.folder.join(format!("piece-{}.tide", pieces.len()));
            fs::write(&path, blob)?;
            pieces.push(path);
        }
        ensure!(!pieces.is_empty(), "nothing to ship after LSN {after}");
        Ok(pieces)
    }

    /// Receives the files; gives the LSN reached.
    fn receive(&self, pieces: &[PathBuf]) -> Result<i64> {
        let mut receive = self.replica.prepare_cached("SELECT tide_receive(?1)")?;
        let mut lsn = 0;
        for piece in pieces {
            lsn = receive.query_row([fs::read(piece)?], |row| row.get(0))?;
        }
        Ok(lsn)
    }

    /// Gives the replica something new to receive.
    fn commit_updates(&mut self) -> Result<()> {
        let mut update = self.source.prepare_cached("UPDATE item SET body = ?2 WHERE id = 1 + ?1")?;
        let mut left = self.updates;
        while left > 0 {
            let now = left.min(100);
            self.source.execute_batch("BEGIN")?;
            for _ in 0..now {
                update.raw_bind_parameter(1, self.rng.below(self.rows))?;
                update.raw_bind_parameter(2, self.bodies.pick(self.rng.next()))?;
                update.raw_execute()?;
            }
            self.source.execute_batch("COMMIT")?;
            left -= now;
        }
        Ok(())
    }

    /// An empty replica, in a folder that the last one has left.
    fn renew_replica(&mut self) -> Result<()> {
        let last = std::mem::replace(&mut self.replica, Connection::open_in_memory()?);
        last.close().map_err(|(_, error)| error)?;
        self.replica_site = self.replica_site.sibling("replica")?;
        self.replica = self.replica_site.create(TUNING)?;
        Ok(())
    }
}

impl Arm for TideArm {
    fn round(&mut self) -> Result<Vec<f64>> {
        let mut after = 0;
        if self.delta {
            after = lsn(&self.replica)?;
            self.commit_updates()?;
        } else {
            self.renew_replica()?;
        }
        let start = Instant::now();
        let pieces = self.prepare(after)?;
        let ship = start.elapsed().as_secs_f64();

        sync_all(&pieces)?;
        let start = Instant::now();
        let reached = self.receive(&pieces)?;
        let replay = start.elapsed().as_secs_f64();

        let head = lsn(&self.source)?;
        ensure!(reached == head, "the replica reached LSN {reached}, the source has {head}");
        let pages: i64 = self
            .replica
            .query_row("SELECT sum(pages) FROM tide_log WHERE last_lsn > ?1", [after], |row| row.get(0))
            .context("pages in tide_log")?;
        let bytes = (pages * self.page_size) as f64;
        Ok(vec![bytes / ship, bytes / replay])
    }

    fn digest(&mut self) -> Result<Option<String>> {
        let (source, replica) = (data::digest(&self.source)?, data::digest(&self.replica)?);
        ensure!(source == replica, "the replica has {replica}, the source {source}");
        Ok(Some(source))
    }
}

fn lsn(connection: &Connection) -> Result<i64> {
    Ok(connection.query_row("SELECT tide_lsn()", [], |row| row.get(0))?)
}

fn sync_all(paths: &[impl AsRef<Path>]) -> Result<()> {
    for path in paths {
        File::open(path)?.sync_all()?;
    }
    Ok(())
}
