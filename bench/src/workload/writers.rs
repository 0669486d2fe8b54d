//! Eight writers at once, each with a connection of its own: threads of one process, or processes.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rusqlite::Connection;

use super::crowd::{self, Member};
use super::{Arm, Bed, Metric, ON_DISK, Unit, Workload};
use crate::data::{self, Bodies, KEYS, Rng};
use crate::engine::{Cache, Engine, Site, Sync, Tuning};
use crate::worker::{Task, Worker};

const WRITERS: u64 = 8;
const TUNING: Tuning = Tuning { sync: Sync::Full, cache: Cache::Default };
/// Longer than a round, so that a writer that never has its turn is a figure and not an error.
const PATIENCE: Duration = Duration::from_secs(60);

struct Writers {
    name: &'static str,
    title: &'static str,
    processes: bool,
}

const ALL: [Writers; 2] = [
    Writers {
        name: "writers-threads",
        title: "eight threads, each autocommit INSERT, synchronous=FULL",
        processes: false,
    },
    Writers {
        name: "writers-processes",
        title: "eight processes, each autocommit INSERT, synchronous=FULL",
        processes: true,
    },
];

/// Threads, and processes.
pub fn all() -> impl Iterator<Item = Box<dyn Workload>> {
    ALL.into_iter().map(|writers| Box::new(writers) as Box<dyn Workload>)
}

impl Workload for Writers {
    fn name(&self) -> &str {
        self.name
    }

    fn about(&self) -> String {
        format!("{}; busy_timeout 60 s, one index, a fixed time", self.title)
    }

    fn metrics(&self) -> Vec<Metric> {
        vec![
            Metric::main(format!("{}: commits of all", self.title), Unit::PerSecond),
            Metric::named(
                "slowest",
                format!("{}: commits of the slowest ÷ an eighth of all", self.title),
                Unit::Share,
            ),
        ]
    }

    fn engines(&self) -> &[Engine] {
        &ON_DISK
    }

    fn arm(&self, bed: &Bed, engine: Engine) -> Result<Box<dyn Arm>> {
        let (site, connection) = bed.built(engine, bed.scale.prefill, TUNING)?;
        let seconds = bed.scale.seconds;
        let crew = if self.processes {
            let start = |number| {
                Worker::start(
                    &Task::Writer { site: site.clone(), number, seconds },
                    PATIENCE + Duration::from_secs(60),
                )
            };
            Crew::Processes((0..WRITERS).map(start).collect::<Result<_>>()?)
        } else {
            Crew::Threads((0..WRITERS).map(|number| Writer::new(&site, number)).collect::<Result<_>>()?)
        };
        Ok(Box::new(WritersArm { crew, connection, seconds, rows: bed.scale.prefill }))
    }
}

enum Crew {
    Threads(Vec<Writer>),
    Processes(Vec<Worker>),
}

struct WritersArm {
    crew: Crew,
    /// Only for the check at the end.
    connection: Connection,
    seconds: f64,
    /// As many as the commits that were acknowledged have left.
    rows: u64,
}

impl Arm for WritersArm {
    fn round(&mut self) -> Result<Vec<f64>> {
        let counts: Vec<f64> = match &mut self.crew {
            Crew::Threads(writers) => {
                let members = writers.iter_mut().map(|writer| writer as &mut dyn Member);
                let counts = crowd::at_once(members, self.seconds)?;
                self.rows += writers.iter_mut().map(Writer::take_acknowledged).sum::<u64>();
                counts.into_iter().map(|count| count as f64).collect()
            }
            Crew::Processes(workers) => {
                for worker in &mut *workers {
                    worker.begin_round()?;
                }
                let mut counts = Vec::new();
                for worker in workers {
                    let answer = worker.end_round()?;
                    counts.push(answer[0]);
                    self.rows += answer[1] as u64;
                }
                counts
            }
        };
        let all: f64 = counts.iter().sum();
        ensure!(all > 0.0, "nobody committed anything");
        let slowest = counts.iter().copied().fold(f64::INFINITY, f64::min);
        Ok(vec![all / self.seconds, slowest / (all / WRITERS as f64)])
    }

    /// Everything that was acknowledged is there; how much that is differs.
    fn digest(&mut self) -> Result<Option<String>> {
        self.crew = Crew::Threads(Vec::new());
        data::digest(&self.connection)?;
        let rows: i64 = self.connection.query_row("SELECT count(*) FROM item", [], |row| row.get(0))?;
        ensure!(rows.cast_unsigned() == self.rows, "{rows} rows, but {} were committed", self.rows);
        Ok(None)
    }
}

/// One of them, in a thread or in a process.
pub struct Writer {
    connection: Connection,
    rng: Rng,
    bodies: Bodies,
    acknowledged: u64,
}

impl Writer {
    fn new(site: &Site, number: u64) -> Result<Self> {
        let connection = site.open(TUNING)?;
        connection.busy_timeout(PATIENCE)?;
        Ok(Self { connection, rng: Rng::new(0x3717e5 + number), bodies: Bodies::new(), acknowledged: 0 })
    }

    /// For a process: a round gives what was counted, and what was acknowledged.
    pub fn arm(site: &Site, number: u64, seconds: f64) -> Result<Box<dyn Arm>> {
        Ok(Box::new(WriterArm { writer: Self::new(site, number)?, seconds }))
    }

    fn take_acknowledged(&mut self) -> u64 {
        std::mem::take(&mut self.acknowledged)
    }
}

impl Member for Writer {
    fn work(&mut self, until: Instant) -> Result<u64> {
        let Self { connection, rng, bodies, acknowledged } = self;
        let mut insert = connection.prepare_cached("INSERT INTO item(key, body) VALUES(?1, ?2)")?;
        crowd::repeat(until, || {
            insert.raw_bind_parameter(1, rng.below(KEYS))?;
            insert.raw_bind_parameter(2, bodies.pick(rng.next()))?;
            insert.raw_execute()?;
            *acknowledged += 1;
            Ok(())
        })
    }
}

struct WriterArm {
    writer: Writer,
    seconds: f64,
}

impl Arm for WriterArm {
    fn round(&mut self) -> Result<Vec<f64>> {
        let counted = self.writer.work(Instant::now() + Duration::from_secs_f64(self.seconds))?;
        Ok(vec![counted as f64, self.writer.take_acknowledged() as f64])
    }

    fn digest(&mut self) -> Result<Option<String>> {
        Ok(None)
    }
}
