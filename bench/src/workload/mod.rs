//! What is measured.

mod bulk;
mod commit;
mod crowd;
mod ddl;
pub mod memory;
mod mixed;
pub mod open;
mod query;
mod select;
mod ship;
mod tail;
pub mod writers;
mod written;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use crate::config::{Scale, Settings};
use crate::engine::{Engine, Site, Tuning};

/// What a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Less is better.
    Seconds,
    /// More is better.
    BytesPerSecond,
    /// Commits or statements; more is better.
    PerSecond,
    /// Less is better.
    Bytes,
    /// A part of what it should be; more is better.
    Share,
    /// How many times as much as something else; less is better.
    Times,
}

impl Unit {
    /// Whether the larger value is the better one.
    pub fn more_is_better(self) -> bool {
        match self {
            Self::BytesPerSecond | Self::PerSecond | Self::Share => true,
            Self::Seconds | Self::Bytes | Self::Times => false,
        }
    }
}

/// Those that can be opened more than once, and write to a disk.
pub const ON_DISK: [Engine; 2] = [Engine::Stock, Engine::Tideline];

/// One row of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Metric {
    /// Tells the metrics of a workload apart; empty for the only or main one.
    pub key: &'static str,
    /// What the table says.
    pub title: String,
    /// Of its values.
    pub unit: Unit,
}

/// Something to measure.
pub trait Workload {
    /// As `--only` takes it.
    fn name(&self) -> &str;

    /// A line for `--list`: what is done, exactly.
    fn about(&self) -> String;

    /// What a round measures, in the order of its values.
    fn metrics(&self) -> Vec<Metric>;

    /// Who can do it.
    fn engines(&self) -> &[Engine] {
        &Engine::ALL
    }

    /// Builds an engine's database in `bed`. Called in the engine's own process, before all rounds.
    fn arm(&self, bed: &Bed, engine: Engine) -> Result<Box<dyn Arm>>;
}

/// A workload set up for one engine.
pub trait Arm {
    /// Does the work once and gives a value for each metric, NaN for one that can't be known here. What isn't to be
    /// measured may be done before and after.
    fn round(&mut self) -> Result<Vec<f64>>;

    /// Checks the database at the end, and gives what must be equal in every engine after as many rounds.
    fn digest(&mut self) -> Result<Option<String>>;
}

/// An arm's folder, and the run's numbers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bed {
    /// Empty, and removed at the end.
    pub dir: PathBuf,
    /// How much.
    pub scale: Scale,
    /// For every connection.
    pub settings: Settings,
    /// Where databases lie that were built before, to be copied; none where each workload builds its own.
    pub templates: Option<PathBuf>,
}

impl Bed {
    /// A place for a database.
    pub fn site(&self, engine: Engine, name: &str) -> Result<Site> {
        Site::new(engine, &self.dir.join(name), &self.settings)
    }

    /// A database with [`crate::data::build`]'s table, at rest and opened again.
    pub fn built(&self, engine: Engine, rows: u64, tuning: Tuning) -> Result<(Site, Connection)> {
        let site = self.site(engine, "main")?;
        if let Some(templates) = self.templates.as_ref().filter(|_| ON_DISK.contains(&engine)) {
            let template = templates.join(format!("{}-{rows}", engine.key()));
            if !template.exists() {
                let half = Site::new(engine, &template.with_extension("half"), &self.settings)?;
                let connection = half.create(tuning)?;
                crate::data::build(&connection, rows)?;
                connection.close().map_err(|(_, error)| error).context("close")?;
                std::fs::rename(template.with_extension("half"), &template)?;
            }
            copy_folder(&template, site.folder()?)?;
            let connection = site.open(tuning)?;
            return Ok((site, connection));
        }
        let connection = site.create(tuning)?;
        crate::data::build(&connection, rows)?;
        let connection = site.reopen(connection, tuning)?;
        Ok((site, connection))
    }
}

/// Copies what is in a folder, with the folders in it, into another one.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target).with_context(|| format!("copy {}", target.display()))?;
        }
    }
    Ok(())
}

impl Metric {
    /// A workload's only or main metric.
    pub fn main(title: impl Into<String>, unit: Unit) -> Self {
        Self::named("", title, unit)
    }

    /// One of several.
    pub fn named(key: &'static str, title: impl Into<String>, unit: Unit) -> Self {
        Self { key, title: title.into(), unit }
    }
}

/// Every workload, in the table's order.
pub fn all() -> Vec<Box<dyn Workload>> {
    let mut all: Vec<Box<dyn Workload>> = Vec::new();
    all.extend(commit::all());
    all.extend(select::all());
    all.extend(query::all());
    all.push(Box::new(bulk::Bulk));
    all.extend(ddl::all());
    all.extend(writers::all());
    all.extend(mixed::all());
    all.push(Box::new(tail::Tail));
    all.extend(written::all());
    all.extend(memory::all());
    all.extend(open::all());
    all.extend(ship::all());
    all
}

/// Seconds that `work` takes.
fn timed(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64())
}

/// Seconds of a large transaction, and of the same with a checkpoint behind it: a store that moves pages to their place
/// later must not look faster than one that does it in the commit.
fn timed_with_checkpoint(connection: &Connection, work: impl FnOnce() -> Result<()>) -> Result<Vec<f64>> {
    let alone = timed(work)?;
    let checkpoint = timed(|| Ok(connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?))?;
    Ok(vec![alone, alone + checkpoint])
}

/// The two metrics of [`timed_with_checkpoint`].
fn metrics_with_checkpoint(title: &str) -> Vec<Metric> {
    vec![
        Metric::main(title, Unit::Seconds),
        Metric::named("checkpoint", format!("{title}, and `wal_checkpoint`"), Unit::Seconds),
    ]
}
