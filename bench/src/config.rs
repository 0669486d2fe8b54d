//! What a run is made of: sizes, settings, and the plan that the command line makes of them.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::workload::Workload;

/// How much work a round does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ScaleName {
    /// Seconds: does everything run, and about where does it stand.
    Quick,
    /// Minutes: the figures of the documents, on a database of 100 MB.
    Normal,
    /// The same on a database of 1 GB.
    Large,
}

/// The numbers behind a [`ScaleName`].
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Scale {
    /// Which one it is.
    pub name: ScaleName,
    /// Rows of the table that reads, updates, CREATE INDEX and VACUUM work on; a row takes about 130 bytes of file.
    pub rows: u64,
    /// Rows in the table before single rows are inserted.
    pub prefill: u64,
    /// Autocommit writes in a round, where a commit doesn't wait for the disk.
    pub commits: u64,
    /// Autocommit writes in a round, where each waits for the disk. The journal grows to what is retained in the first of
    /// [`ScaleName::Normal`], and then stays as long as it is.
    pub synced_commits: u64,
    /// Point reads in a round.
    pub reads: u64,
    /// Rows of the bulk load.
    pub bulk_rows: u64,
    /// Row updates that a shipped delta holds.
    pub delta_updates: u64,
    /// MiB of journal beside the base, where a database is opened that isn't at rest.
    pub journal_mib: u64,
    /// Processes in a round that open the database.
    pub opens: u64,
    /// Length of a round that lasts a time, not a number of commits.
    pub seconds: f64,
    /// The same where the rare slow commits are looked for.
    pub tail_seconds: f64,
    /// Rounds that count, unless the command line says otherwise; three engines have six orders.
    pub rounds: usize,
}

/// With their index; [`ScaleName::Normal`] has 100 MB.
const ROWS_PER_MEGABYTE: u64 = 8_000;

impl ScaleName {
    /// The numbers.
    pub fn scale(self) -> Scale {
        let quick = Scale {
            name: self,
            rows: 50_000,
            prefill: 5_000,
            commits: 5_000,
            synced_commits: 200,
            reads: 30_000,
            bulk_rows: 50_000,
            delta_updates: 1_000,
            journal_mib: 4,
            opens: 5,
            seconds: 2.0,
            tail_seconds: 2.0,
            rounds: 6,
        };
        let normal = Scale {
            rows: 800_000,
            prefill: 20_000,
            commits: 20_000,
            synced_commits: 10_000,
            reads: 200_000,
            bulk_rows: 1_000_000,
            delta_updates: 10_000,
            journal_mib: 64,
            opens: 20,
            rounds: 6,
            ..quick
        };
        match self {
            Self::Quick => quick,
            Self::Normal => normal,
            Self::Large => Scale { rows: 8_000_000, tail_seconds: 60.0, ..normal },
        }
    }
}

impl Scale {
    /// The same work on a database of so many megabytes (of a million bytes), its single-row inserts too.
    pub fn on_megabytes(self, megabytes: u64) -> Self {
        let rows = megabytes * ROWS_PER_MEGABYTE;
        Self { rows, prefill: rows, ..self }
    }
}

/// What is the same for every connection of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// `PRAGMA page_size` of every new database, in bytes.
    pub page_size: u32,
    /// Default `PRAGMA cache_size`, in KiB.
    pub cache_kib: u32,
    /// `PRAGMA mmap_size` for stock, in bytes; none leaves SQLite's default.
    pub stock_mmap: Option<u64>,
    /// Tideline's loadable library, where there is one.
    pub library: Option<PathBuf>,
}

/// Everything that a run needs to know.
pub struct Plan {
    /// How much.
    pub scale: Scale,
    /// Rounds that count.
    pub rounds: usize,
    /// Rounds before them that don't.
    pub warmup: usize,
    /// A step of an engine that takes longer has failed.
    pub timeout: Duration,
    /// For every connection.
    pub settings: Settings,
    /// Those that take part, in the table's order.
    pub engines: Vec<Engine>,
    /// Why Tideline takes no part, when it should.
    pub without_tideline: Option<String>,
    /// What `tide_version()` says.
    pub tideline_version: Option<String>,
    /// What is measured, in the table's order.
    pub workloads: Vec<Box<dyn Workload>>,
    /// Whether a database is built once for all workloads, and copied.
    pub copies: bool,
    /// Where the databases are made, in a temporary folder.
    pub dir: PathBuf,
}
