//! What a connection, and a page in the journal, take in memory.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::{Arm, Bed, Metric, ON_DISK, Unit, Workload};
use crate::data::{self, Bodies};
use crate::engine::{Cache, Engine, Site, Sync, Tuning};
use crate::worker::{self, Task};

const TUNING: Tuning = Tuning { sync: Sync::Normal, cache: Cache::Default };
const CONNECTIONS: u64 = 20;

/// What takes memory.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Of {
    /// Each more connection to a database that the process has open.
    Connection,
    /// Each page in the journal or WAL.
    JournalPage {
        /// How many there will be.
        pages: u64,
        /// Rows of the table.
        rows: u64,
        /// Which round it is: a page that is written as it was takes no place in a journal.
        round: u64,
    },
}

/// What the new process measured.
#[derive(Serialize, Deserialize)]
pub struct Growth {
    /// For each one.
    pub bytes: f64,
}

/// What the new process does. A process that has done it before has memory left over, and would grow by less.
pub fn grow(site: &Site, of: Of) -> Result<Growth> {
    let (grown, count) = match of {
        Of::Connection => (connections(site)?, CONNECTIONS),
        Of::JournalPage { pages, rows, round } => (journal(site, pages, rows, round)?, pages),
    };
    Ok(Growth { bytes: grown / count as f64 })
}

fn connections(site: &Site) -> Result<f64> {
    let mut open = vec![opened(site)?];
    open.reserve(CONNECTIONS as usize);
    let before = anonymous()?;
    for _ in 0..CONNECTIONS {
        open.push(opened(site)?);
    }
    Ok(anonymous()? - before)
}

fn opened(site: &Site) -> Result<Connection> {
    let connection = site.open(TUNING)?;
    let _: String = connection.query_row("SELECT body FROM item WHERE id = 1", [], |row| row.get(0))?;
    Ok(connection)
}

/// Commits a page at a time, with a reader that holds the journal back.
fn journal(site: &Site, pages: u64, rows: u64, round: u64) -> Result<f64> {
    let (reader, writer) = (opened(site)?, opened(site)?);
    reader.execute_batch("BEGIN; SELECT id FROM item LIMIT 1")?;
    let bodies = Bodies::new();
    let mut update = writer.prepare("UPDATE item SET body = ?2 WHERE id = 1 + ?1")?;
    // A row takes less than 200 bytes, so that steps of this size touch another page each.
    let step = u64::from(site.settings.page_size) / 100 + 1;
    let mut commit = |number: u64| -> Result<()> {
        update.raw_bind_parameter(1, i64::try_from(number * step % rows)?)?;
        update.raw_bind_parameter(2, bodies.pick(number + round))?;
        update.raw_execute()?;
        Ok(())
    };
    // SQLite's cache fills, of pages that are written too, which a scan doesn't do where it reads from a mapping.
    let first = 2 * u64::from(site.settings.cache_kib) * 1024 / u64::from(site.settings.page_size);
    data::warm(&writer)?;
    for number in 0..first {
        commit(number)?;
    }
    let before = anonymous()?;
    for number in first..first + pages {
        commit(number)?;
    }
    let grown = anonymous()? - before;
    ensure_in_journal(site, &writer, first + pages)?;
    Ok(grown)
}

fn ensure_in_journal(site: &Site, connection: &Connection, pages: u64) -> Result<()> {
    let found = if site.engine == Engine::Stock {
        fs::metadata(site.path.with_extension("db-wal"))?.len() / u64::from(site.settings.page_size)
    } else {
        let sql = "SELECT (tide_status() ->> 'head') - (tide_status() ->> 'base')";
        let entries: i64 = connection.query_row(sql, [], |row| row.get(0))?;
        entries.cast_unsigned()
    };
    // A body may be what it was already, by chance.
    ensure!(found > pages * 19 / 20, "the journal has {found} pages instead of {pages}");
    Ok(())
}

/// Bytes of this process's memory that no file is behind.
fn anonymous() -> Result<f64> {
    let rollup =
        fs::read_to_string("/proc/self/smaps_rollup").context("smaps_rollup, which only Linux has")?;
    let kib = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")?.trim().strip_suffix(" kB"));
    let kib: u64 = kib.context("no Anonymous in smaps_rollup")?.trim().parse()?;
    Ok((kib * 1024) as f64)
}

struct Memory {
    name: &'static str,
    title: &'static str,
    journal: bool,
}

const ALL: [Memory; 2] = [
    Memory {
        name: "memory-connection",
        title: "memory of each more connection, with one query run",
        journal: false,
    },
    Memory {
        name: "memory-journal",
        title: "memory of each page in the journal, a commit each",
        journal: true,
    },
];

/// Of connections, and of a journal.
pub fn all() -> impl Iterator<Item = Box<dyn Workload>> {
    ALL.into_iter().map(|memory| Box::new(memory) as Box<dyn Workload>)
}

impl Workload for Memory {
    fn name(&self) -> &str {
        self.name
    }

    fn about(&self) -> String {
        let how = if self.journal {
            "64 MiB of journal (4 at scale quick), held back by a reader"
        } else {
            "20 of them in one process"
        };
        format!("{}: {how}; growth of anonymous memory, a new process each round", self.title)
    }

    fn metrics(&self) -> Vec<Metric> {
        vec![Metric::main(self.title, Unit::Bytes)]
    }

    fn engines(&self) -> &[Engine] {
        &ON_DISK
    }

    fn arm(&self, bed: &Bed, engine: Engine) -> Result<Box<dyn Arm>> {
        let rows = bed.scale.rows;
        let (site, connection) = bed.built(engine, rows, TUNING)?;
        connection.close().map_err(|(_, error)| error)?;
        let pages = bed.scale.journal_mib * (1 << 20) / u64::from(bed.settings.page_size);
        let of = if self.journal { Of::JournalPage { pages, rows, round: 0 } } else { Of::Connection };
        Ok(Box::new(MemoryArm { site, of }))
    }
}

struct MemoryArm {
    site: Site,
    of: Of,
}

impl Arm for MemoryArm {
    fn round(&mut self) -> Result<Vec<f64>> {
        if let Of::JournalPage { round, .. } = &mut self.of {
            *round += 1;
        }
        let task = Task::Memory { site: self.site.clone(), of: self.of };
        let growth: Growth = worker::ask(&task, Duration::from_secs(300))?;
        Ok(vec![growth.bytes])
    }

    fn digest(&mut self) -> Result<Option<String>> {
        data::digest(&self.site.open(TUNING)?).map(Some)
    }
}
