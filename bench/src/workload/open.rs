//! Opening a database in a new process, up to the first row.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::{Arm, Bed, Metric, Unit, Workload};
use crate::data::{self, Bodies, Rng};
use crate::engine::{self, Cache, Engine, Site, Sync, Tuning};
use crate::stats;
use crate::worker::{self, Task};

const TUNING: Tuning = Tuning { sync: Sync::Normal, cache: Cache::Default };

/// What the new process measured.
#[derive(Serialize, Deserialize)]
pub struct Opened {
    /// Seconds for opening and reading a row, the library being loaded.
    pub seconds: f64,
}

/// What the new process does; closing is its last step, and not in [`Opened::seconds`].
pub fn open_once(site: &Site, id: i64) -> Result<Opened> {
    if site.engine == Engine::Tideline {
        engine::load_library(site.settings.library.as_deref().context("no Tideline library")?)?;
    }
    // Loading has initialised SQLite already, so stock may do it beforehand too.
    drop(Connection::open_in_memory()?);
    let start = Instant::now();
    let connection = site.open(TUNING)?;
    let body: String = connection.query_row("SELECT body FROM item WHERE id = ?1", [id], |row| row.get(0))?;
    let seconds = start.elapsed().as_secs_f64();
    ensure!(!body.is_empty(), "row {id} is empty");
    connection.close().map_err(|(_, error)| error)?;
    Ok(Opened { seconds })
}

struct Open {
    name: &'static str,
    title: &'static str,
    /// Whether another process has the database open, with a journal or WAL beside the base.
    beside_journal: bool,
}

const ALL: [Open; 2] = [
    Open {
        name: "open-rest",
        title: "open and first query in a new process, database at rest",
        beside_journal: false,
    },
    Open {
        name: "open-journal",
        title: "open and first query in a new process, beside one that keeps a journal",
        beside_journal: true,
    },
];

/// At rest, and with a journal.
pub fn all() -> impl Iterator<Item = Box<dyn Workload>> {
    ALL.into_iter().map(|open| Box::new(open) as Box<dyn Workload>)
}

impl Workload for Open {
    fn name(&self) -> &str {
        self.name
    }

    fn about(&self) -> String {
        let journal =
            if self.beside_journal { "; 64 MiB of journal (4 at scale quick), kept by a reader" } else { "" };
        format!("{}{journal}; the median of several processes is a round's value", self.title)
    }

    fn metrics(&self) -> Vec<Metric> {
        vec![
            Metric::main(self.title, Unit::Seconds),
            Metric::named(
                "process",
                format!("{}: from the process's start to its end", self.title),
                Unit::Seconds,
            ),
        ]
    }

    fn engines(&self) -> &[Engine] {
        &[Engine::Stock, Engine::Tideline]
    }

    fn arm(&self, bed: &Bed, engine: Engine) -> Result<Box<dyn Arm>> {
        let (site, connection) = bed.built(engine, bed.scale.rows, TUNING)?;
        let mut kept = Vec::new();
        if self.beside_journal {
            kept = keep_journal(&site, connection, bed)?;
        } else {
            connection.close().map_err(|(_, error)| error)?;
        }
        Ok(Box::new(OpenArm { site, kept, rows: bed.scale.rows, opens: bed.scale.opens, rng: Rng::new(5) }))
    }
}

/// Pins a snapshot, which nothing is folded beyond, and commits until the journal is long enough.
fn keep_journal(site: &Site, reader: Connection, bed: &Bed) -> Result<Vec<Connection>> {
    reader.execute_batch("BEGIN; SELECT id FROM item LIMIT 1")?;
    let writer = site.open(TUNING)?;
    let pages = bed.scale.journal_mib * (1 << 20) / u64::from(bed.settings.page_size);
    let bodies = Bodies::new();
    {
        let mut update = writer.prepare("UPDATE item SET body = ?2 WHERE id = 1 + ?1")?;
        // A row takes less than 200 bytes, so that steps of this size touch another page each.
        let step = u64::from(bed.settings.page_size) / 100 + 1;
        for chunk in 0..pages.div_ceil(500) {
            writer.execute_batch("BEGIN")?;
            for page in chunk * 500..((chunk + 1) * 500).min(pages) {
                update.raw_bind_parameter(1, i64::try_from(page * step % bed.scale.rows)?)?;
                update.raw_bind_parameter(2, bodies.pick(page + 1))?;
                update.raw_execute()?;
            }
            writer.execute_batch("COMMIT")?;
        }
    }
    if site.engine == Engine::Stock {
        let wal = std::fs::metadata(site.path.with_extension("db-wal"))?.len();
        ensure!(wal >= bed.scale.journal_mib << 20, "the WAL has only {wal} bytes");
    }
    Ok(vec![writer, reader])
}

struct OpenArm {
    site: Site,
    /// Connections that keep the journal.
    kept: Vec<Connection>,
    rows: u64,
    opens: u64,
    rng: Rng,
}

impl Arm for OpenArm {
    fn round(&mut self) -> Result<Vec<f64>> {
        let (mut opened, mut process) = (Vec::new(), Vec::new());
        for _ in 0..self.opens {
            let task = Task::Open { site: self.site.clone(), id: 1 + self.rng.below(self.rows) };
            let start = Instant::now();
            let answer: Opened = worker::ask(&task, Duration::from_secs(300))?;
            process.push(start.elapsed().as_secs_f64());
            opened.push(answer.seconds);
        }
        [&mut opened, &mut process]
            .into_iter()
            .map(|values| stats::median(values).context("no opens"))
            .collect()
    }

    fn digest(&mut self) -> Result<Option<String>> {
        match self.kept.first() {
            Some(writer) => data::digest(writer).map(Some),
            None => data::digest(&self.site.open(TUNING)?).map(Some),
        }
    }
}
