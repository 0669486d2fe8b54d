//! One writer and several readers at once, as threads.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;

use super::crowd::{self, Member};
use super::{Arm, Bed, Metric, ON_DISK, Unit, Workload};
use crate::data::{self, Bodies, Rng};
use crate::engine::{Cache, Engine, Sync, Tuning};

const READERS: usize = 4;
/// One of so many reads is a range.
const RANGE_EVERY: u64 = 256;
/// Its rows.
const RANGE_ROWS: u64 = 100;
const TUNING: Tuning = Tuning { sync: Sync::Normal, cache: Cache::Default };

/// Commits per second of a writer that is held back: what every engine manages beside the readers.
const PACE: u32 = 3000;

/// The mix. Where the writer isn't held back, the faster one takes more from the readers: time, and what they have
/// cached. So its pace is the same for all in the other.
pub struct Mixed {
    paced: bool,
}

/// The writer as fast as it can, and held back.
pub fn all() -> impl Iterator<Item = Box<dyn Workload>> {
    [false, true].into_iter().map(|paced| Box::new(Mixed { paced }) as Box<dyn Workload>)
}

impl Workload for Mixed {
    fn name(&self) -> &str {
        if self.paced { "mixed-paced" } else { "mixed" }
    }

    fn about(&self) -> String {
        let pace = if self.paced { format!("{PACE} times a second") } else { "as fast as it can".to_owned() };
        format!(
            "one thread: autocommit random UPDATE, synchronous=NORMAL, {pace}; four: autocommit point SELECT, one in 256 a \
             range of 100 rows; a fixed time"
        )
    }

    fn metrics(&self) -> Vec<Metric> {
        let writer = if self.paced { "a writer held back" } else { "a writer" };
        vec![
            Metric::named(
                "readers",
                format!("four readers beside {writer}: SELECTs of all"),
                Unit::PerSecond,
            ),
            Metric::named("writer", format!("{writer} beside four readers: commits"), Unit::PerSecond),
        ]
    }

    fn engines(&self) -> &[Engine] {
        &ON_DISK
    }

    fn arm(&self, bed: &Bed, engine: Engine) -> Result<Box<dyn Arm>> {
        let rows = bed.scale.rows;
        let (site, connection) = bed.built(engine, rows, TUNING)?;
        data::warm(&connection)?;
        let reader = |number| -> Result<Reader> {
            Ok(Reader { connection: site.open(TUNING)?, rows, rng: Rng::new(0x4ead + number as u64) })
        };
        Ok(Box::new(MixedArm {
            writer: Writer {
                connection,
                rows,
                rng: Rng::new(7),
                bodies: Bodies::new(),
                every: self.paced.then(|| Duration::from_secs(1) / PACE),
            },
            readers: (0..READERS).map(reader).collect::<Result<_>>()?,
            seconds: bed.scale.seconds,
        }))
    }
}

struct MixedArm {
    writer: Writer,
    readers: Vec<Reader>,
    seconds: f64,
}

impl Arm for MixedArm {
    fn round(&mut self) -> Result<Vec<f64>> {
        let mut members: Vec<&mut dyn Member> = vec![&mut self.writer];
        members.extend(self.readers.iter_mut().map(|reader| reader as &mut dyn Member));
        let counts = crowd::at_once(members.into_iter(), self.seconds)?;
        let read: u64 = counts[1..].iter().sum();
        Ok(vec![read as f64 / self.seconds, counts[0] as f64 / self.seconds])
    }

    /// How many rows were updated differs, so nothing is compared.
    fn digest(&mut self) -> Result<Option<String>> {
        data::digest(&self.writer.connection)?;
        Ok(None)
    }
}

struct Writer {
    connection: Connection,
    rows: u64,
    rng: Rng,
    bodies: Bodies,
    /// Time from one commit to the next, if it is held back.
    every: Option<Duration>,
}

impl Member for Writer {
    fn work(&mut self, until: Instant) -> Result<u64> {
        let Self { connection, rows, rng, bodies, every } = self;
        let mut due = Instant::now();
        let mut update = connection.prepare_cached("UPDATE item SET body = ?2 WHERE id = 1 + ?1")?;
        crowd::repeat(until, || {
            update.raw_bind_parameter(1, rng.below(*rows))?;
            update.raw_bind_parameter(2, bodies.pick(rng.next()))?;
            update.raw_execute()?;
            if let Some(every) = every {
                due += *every;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            Ok(())
        })
    }
}

struct Reader {
    connection: Connection,
    rows: u64,
    rng: Rng,
}

impl Member for Reader {
    fn work(&mut self, until: Instant) -> Result<u64> {
        let Self { connection, rows, rng } = self;
        let mut point = connection.prepare_cached("SELECT length(body) FROM item WHERE id = 1 + ?1")?;
        let mut range =
            connection.prepare_cached("SELECT sum(length(body)) FROM item WHERE id > ?1 AND id <= ?2")?;
        crowd::repeat(until, || {
            let first = rng.below(*rows - RANGE_ROWS);
            let select = if rng.next() % RANGE_EVERY == 0 {
                range.raw_bind_parameter(2, first + RANGE_ROWS as i64)?;
                &mut range
            } else {
                &mut point
            };
            select.raw_bind_parameter(1, first)?;
            let mut found = select.raw_query();
            let length: i64 = found.next()?.context("a row is missing")?.get(0)?;
            ensure!(black_box(length) > 0, "a row is empty");
            Ok(())
        })
    }
}
