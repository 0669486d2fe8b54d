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
    beside: Beside,
}

/// What is beside the base that is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    /// Nothing that isn't in it: the last process closed it.
    Rest,
    /// Another process that has it open, with a journal or WAL.
    Process,
    /// A journal or WAL whose process is dead.
    Dead,
}

const ALL: [Open; 3] = [
    Open {
        name: "open-rest",
        title: "open and first query in a new process, database at rest",
        beside: Beside::Rest,
    },
    Open {
        name: "open-journal",
        title: "open and first query in a new process, beside one that keeps a journal",
        beside: Beside::Process,
    },
    Open {
        name: "open-killed",
        title: "open and first query in a new process, with the journal of one that was killed",
        beside: Beside::Dead,
    },
];

/// At rest, and with journals.
pub fn all() -> impl Iterator<Item = Box<dyn Workload>> {
    ALL.into_iter().map(|open| Box::new(open) as Box<dyn Workload>)
}

impl Workload for Open {
    fn name(&self) -> &str {
        self.name
    }

    fn about(&self) -> String {
        let journal = match self.beside {
            Beside::Rest => "",
            Beside::Process => "; 64 MiB of journal (4 at scale quick), kept by a reader",
            Beside::Dead => {
                "; 64 MiB of journal (4 at scale quick); the files are copied while they are in use"
            }
        };
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
        if self.beside == Beside::Rest {
            connection.close().map_err(|(_, error)| error)?;
        } else {
            kept = keep_journal(&site, connection, bed)?;
        }
        let (rows, opens, dead) = (bed.scale.rows, bed.scale.opens, self.beside == Beside::Dead);
        Ok(Box::new(OpenArm { site, kept, rows, opens, dead, rng: Rng::new(5) }))
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
    /// A copy is opened, whose files are what a process leaves that is killed now.
    dead: bool,
    rng: Rng,
}

impl OpenArm {
    fn left_by_dead(&self) -> Result<Site> {
        let site = self.site.sibling("dead")?;
        super::copy_folder(self.site.folder()?, site.folder()?)?;
        Ok(site)
    }
}

impl Arm for OpenArm {
    fn round(&mut self) -> Result<Vec<f64>> {
        let (mut opened, mut process) = (Vec::new(), Vec::new());
        for _ in 0..self.opens {
            let site = if self.dead { self.left_by_dead()? } else { self.site.clone() };
            let task = Task::Open { site, id: 1 + self.rng.below(self.rows) };
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
