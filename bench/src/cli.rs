//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;

use crate::config::{Plan, ScaleName, Settings};
use crate::curve;
use crate::engine::{self, Engine};
use crate::worker::{self, Task};
use crate::workload;

/// Compares stock WAL, Tideline and `:memory:` on one SQLite library.
#[derive(Parser)]
#[command(name = "bench", version)]
pub struct Cli {
    /// How much work: quick (seconds), normal (100 MB database) or large (1 GB)
    #[arg(long, value_enum, default_value = "normal")]
    scale: ScaleName,

    /// Size of the database, where the scale's isn't meant; single rows are inserted into one of this size too
    #[arg(long, value_name = "N")]
    megabytes: Option<u64>,

    /// Measure how a few workloads grow with the database: its sizes in megabytes. With --write, the section is `curve`
    #[arg(long, value_name = "N,N", value_delimiter = ',', conflicts_with_all = ["megabytes", "section"])]
    pub curve: Vec<u64>,

    /// Rounds that count; the scale says how many otherwise
    #[arg(long)]
    rounds: Option<usize>,

    /// Rounds before them that don't count
    #[arg(long, default_value_t = 1)]
    warmup: usize,

    /// Measure only the workloads of this name, or whose name begins with it and a dash; may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,

    /// Engines to measure
    #[arg(long, value_enum, value_delimiter = ',')]
    engines: Vec<Engine>,

    /// Folder for the databases, which names the file system too; the system's temporary folder otherwise
    #[arg(long)]
    dir: Option<PathBuf>,

    /// PRAGMA page_size of every database
    #[arg(long, default_value_t = 4096)]
    page_size: u32,

    /// PRAGMA cache_size in KiB, for all engines; 2000 is SQLite's default. Workloads that want the whole database in
    /// the cache set their own, for all engines too
    #[arg(long, default_value_t = 2000)]
    cache_kib: u32,

    /// PRAGMA mmap_size for stock, which has SQLite's default (none) otherwise
    #[arg(long, value_name = "BYTES")]
    stock_mmap: Option<u64>,

    /// Seconds after which one step of an engine counts as failed
    #[arg(long, default_value_t = 900)]
    timeout: u64,

    /// Write the header, every sample and every row as JSON lines
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Draw the ratios of stock WAL and Tideline as an SVG
    #[arg(long, value_name = "FILE")]
    pub chart: Option<PathBuf>,

    /// Draw them from what --json wrote, and measure nothing
    #[arg(long, value_name = "FILE", requires = "chart")]
    pub chart_from: Option<PathBuf>,

    /// Write the table into this document, between its two marker comments
    #[arg(long, value_name = "FILE")]
    pub write: Option<PathBuf>,

    /// Name in the marker comments, for a document with several tables
    #[arg(long, default_value = "table")]
    pub section: String,

    /// List the workloads
    #[arg(long)]
    pub list: bool,
}

impl Cli {
    /// Checks the arguments against each other and against what is there.
    pub fn plan(&self) -> Result<Plan> {
        self.plan_of(self.megabytes)
    }

    /// The plan for one size of a curve.
    pub fn plan_of(&self, megabytes: Option<u64>) -> Result<Plan> {
        let mut scale = self.scale.scale();
        if let Some(megabytes) = megabytes {
            ensure!(megabytes > 0, "a database of 0 megabytes has no rows");
            scale = scale.on_megabytes(megabytes);
        }
        let rounds = self.rounds.unwrap_or(scale.rounds);
        ensure!(rounds > 0, "--rounds must be at least 1");
        ensure!(
            !(cfg!(debug_assertions) && self.write.is_some()),
            "this is a debug build, with a SQLite that wasn't optimised: build with --release before writing figures into a document"
        );

        let mut settings = Settings {
            page_size: self.page_size,
            cache_kib: self.cache_kib,
            stock_mmap: self.stock_mmap,
            library: None,
        };
        let timeout = Duration::from_secs(self.timeout);
        // A curve is about what is on a disk.
        let on_curve = |engine| self.curve.is_empty() || workload::ON_DISK.contains(&engine);
        let asked = |engine| (self.engines.is_empty() && on_curve(engine)) || self.engines.contains(&engine);
        let mut without_tideline = None;
        let mut tideline_version = None;
        if asked(Engine::Tideline) {
            match find_tideline(&mut settings, timeout) {
                Ok(version) => tideline_version = Some(version),
                Err(error) if self.engines.is_empty() => without_tideline = Some(format!("{error:#}")),
                Err(error) => return Err(error),
            }
        }
        let engines = Engine::ALL
            .into_iter()
            .filter(|&engine| asked(engine) && (engine != Engine::Tideline || tideline_version.is_some()))
            .collect();

        let dir = self.dir.clone().unwrap_or_else(std::env::temp_dir);
        let dir = dir.canonicalize().with_context(|| format!("--dir {}", dir.display()))?;
        Ok(Plan {
            scale,
            rounds,
            warmup: self.warmup,
            timeout,
            settings,
            engines,
            without_tideline,
            tideline_version,
            workloads: self.workloads()?,
            copies: !self.curve.is_empty(),
            dir,
        })
    }

    fn workloads(&self) -> Result<Vec<Box<dyn workload::Workload>>> {
        let mut workloads = workload::all();
        if !self.curve.is_empty() {
            workloads.retain(|workload| curve::WORKLOADS.contains(&workload.name()));
        }
        let matches = |only: &str, name: &str| {
            name.strip_prefix(only).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        for only in &self.only {
            if !workloads.iter().any(|workload| matches(only, workload.name())) {
                bail!("--only {only}: no such workload; --list names them");
            }
        }
        if !self.only.is_empty() {
            workloads.retain(|workload| self.only.iter().any(|only| matches(only, workload.name())));
        }
        Ok(workloads)
    }
}

/// Finds the library, tries it in a process of its own, and gives its version.
fn find_tideline(settings: &mut Settings, timeout: Duration) -> Result<String> {
    settings.library = Some(engine::find_library()?);
    worker::ask(&Task::Probe { settings: settings.clone() }, timeout).with_context(|| {
        format!("{} is there, but doesn't work", settings.library.as_ref().expect("just set").display())
    })
}
