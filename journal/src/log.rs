//! What a store tells about itself.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Result, still};
use crate::lsn::{Lsn, LsnRange};
use crate::session::Session;
use crate::store::Store;

/// Where a store stands.
#[derive(Clone, Debug)]
pub struct Status {
    /// Path of the base.
    pub path: PathBuf,
    /// Page size in bytes; 0 while there is no page.
    pub page_size: u32,
    /// The lineage.
    pub lineage: [u8; 16],
    /// Newest LSN that readers see.
    pub head: Lsn,
    /// Newest LSN known to be on the disk.
    pub durable: Lsn,
    /// LSN of the base.
    pub base: Lsn,
    /// Oldest LSN still readable.
    pub horizon: Lsn,
    /// Number of segments of the journal.
    pub segments: u64,
    /// Their length in bytes.
    pub journal_bytes: u64,
    /// Connections that have a snapshot now.
    pub readers: u64,
}

/// One row of the log: an entry, or the state at the horizon.
#[derive(Clone, Debug)]
pub struct LogRow {
    /// LSNs that it covers.
    pub range: LsnRange,
    /// Time of the commit in milliseconds since 1970.
    pub time: u64,
    /// Pages that it changed; all for a full image.
    pub pages: u64,
    /// Its length in the journal in bytes; 0 for one that is in the base alone.
    pub bytes: u64,
    /// Size of the database in pages.
    pub size: u32,
    /// Rolling checksum of the database, where it is known.
    pub checksum: Option<u64>,
    /// `commit`, `merged` or `full`.
    pub kind: &'static str,
    /// `local`, `received`, `external`, `restore`, `merge` or `rebase`.
    pub origin: &'static str,
}

impl Store {
    /// Where the store stands now.
    ///
    /// # Errors
    /// `Io`.
    pub fn status(&self) -> Result<Status> {
        let head = self.head();
        self.catch_up(head)?;
        let index = self.whole()?;
        let horizon = self.control.horizon();
        let (mut segments, mut journal_bytes) = (0, 0);
        for segment in index.retained(self.read_superblock()?.horizon.lsn) {
            segments += 1;
            journal_bytes += segment.len()?;
        }
        Ok(Status {
            path: self.path.clone(),
            page_size: index.state(head)?.map_or(0, |state| state.page_size),
            lineage: self.lineage(),
            head,
            durable: self.durable(),
            base: self.control.base(),
            horizon: if head > Lsn::ZERO { horizon.max(Lsn::new(1)) } else { horizon },
            segments,
            journal_bytes,
            readers: self.control.readers() as u64,
        })
    }

    /// The entries from the horizon to the head, in order. The first row is the state at the horizon
    /// itself, where the base alone has it.
    ///
    /// # Errors
    /// `Io`, `Damaged`.
    pub fn log(self: &Arc<Self>) -> Result<Vec<LogRow>> {
        self.whole()?;
        let mut session = Session::new(Arc::clone(self))?;
        session.begin_read()?;
        let view = session.pinned()?;
        let index = &view.index;
        let horizon = self.control.horizon();
        let sums: HashMap<Lsn, u64> =
            self.checksums_back(view, self.control.horizon())?.into_iter().collect();
        let mut rows = Vec::new();
        if let Some(state) = self.retained_state(index, horizon)?.filter(|state| state.lsn > Lsn::ZERO) {
            rows.push(LogRow {
                range: LsnRange::one(state.lsn),
                time: state.time,
                pages: u64::from(state.size),
                bytes: 0,
                size: state.size,
                checksum: sums.get(&state.lsn).copied(),
                kind: "full",
                origin: index.origin_at(horizon).word(),
            });
        }
        for entry in index.between(horizon, view.state.lsn) {
            let Some(entry) = still(entry)? else { continue };
            rows.push(LogRow {
                range: entry.range,
                time: entry.state.time,
                pages: u64::from(entry.rows),
                bytes: entry.len,
                size: entry.state.size,
                checksum: entry.checksum.or_else(|| sums.get(&entry.range.last).copied()),
                kind: entry.kind.word(),
                origin: entry.origin.word(),
            });
        }
        session.end_read()?;
        Ok(rows)
    }
}
