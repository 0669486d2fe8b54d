//! Segments that the journal doesn't go through any more, kept to be written again: nothing is
//! allocated then, and an fsync has no metadata to write.
//!
//! Whoever has a snapshot from before a segment was given up may look at it, so it is written again
//! only when every snapshot is newer. What is in it from its earlier life continues no chain of
//! entries, and so counts for nothing.

use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::{File, How};
use crate::error::{At, Result};
use crate::format::{Name, SegmentHeader, SegmentKind};
use crate::lsn::Lsn;
use crate::segment::Segment;
use crate::store::Store;

/// Spare segments that one process keeps.
const MOST: usize = 8;

/// Bytes that a segment may surely have.
const LONG: u64 = 1 << 20;

/// A segment to be written again.
pub(crate) struct Spare {
    file: Arc<dyn File>,
    path: PathBuf,
    /// Newest LSN when it was given up.
    retired: Lsn,
}

impl Store {
    /// Keeps a segment that nobody needs but readers of snapshots up to now; false if there are
    /// enough, or it is of an odd size.
    pub(crate) fn retire(&self, segment: &Segment) -> Result<bool> {
        let len = segment.file.len().at(|| format!("reading {}", segment.path.display()))?;
        let usual = self.options.segment_bytes..=self.options.segment_bytes.saturating_mul(2).max(LONG);
        let mut spares = self.spares.lock();
        if segment.header.kind != SegmentKind::Journal || !usual.contains(&len) || spares.len() >= MOST {
            return Ok(false);
        }
        let retired = self.control.appended();
        let path = self.file_path(Name::Spare(segment.header.number, retired));
        match self.disk.rename(&segment.path, &path) {
            // Somebody else dropped it.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(true),
            other => other.at(|| format!("renaming {}", segment.path.display()))?,
        }
        spares.push(Spare { file: Arc::clone(&segment.file), path, retired });
        Ok(true)
    }

    /// Makes a spare segment if there is none, so that no commit has to wait for that. Its blocks are
    /// written: they can then be written again without a change of the file's metadata.
    pub(crate) fn stock_spare(&self) -> Result<()> {
        if self.unpinned_spare(|_| ())?.is_some() {
            return Ok(());
        }
        let path = self.file_path(Name::Spare(self.control.next_segment()?, Lsn::ZERO));
        let here = || format!("writing {}", path.display());
        let file = self.disk.open(&path, How::Create).at(here)?;
        self.disk.copy_owner(&self.path, &path).at(|| "setting a segment's owner".into())?;
        crate::segment::fill(&*file, 0, self.options.segment_bytes).and_then(|()| file.sync()).at(here)?;
        self.spares.lock().insert(0, Spare { file, path, retired: Lsn::ZERO });
        Ok(())
    }

    /// A segment with this header, in a file that was one before or in a new one. It isn't on the
    /// disk before it is anchored.
    pub(crate) fn fresh_segment(&self, header: SegmentHeader) -> Result<Segment> {
        let path = self.file_path(Name::Segment(header.number));
        while let Some(spare) = self.unpinned_spare(|spares| spares.remove(0))? {
            let made = Segment::reuse(&*self.disk, spare.file, &spare.path, path.clone(), header)?;
            if let Some(segment) = made {
                return Ok(segment);
            }
        }
        let segment = Segment::create_loose(&*self.disk, path, header, self.options.segment_bytes)?;
        self.disk.copy_owner(&self.path, &segment.path).at(|| "setting a segment's owner".into())?;
        Ok(segment)
    }

    /// Removes the spare segments of this process; with `all`, also those that others left.
    pub(crate) fn drop_spares(&self, all: bool) -> Result<()> {
        let mut paths: Vec<PathBuf> = self.spares.lock().drain(..).map(|spare| spare.path).collect();
        if all {
            let names = self.disk.list(&self.side).at(|| format!("listing {}", self.side.display()))?;
            paths = names
                .iter()
                .filter(|name| matches!(Name::parse(name), Some(Name::Spare(..))))
                .map(|name| self.side.join(name))
                .collect();
        }
        for path in paths {
            self.disk.remove(&path).at(|| format!("removing {}", path.display()))?;
        }
        Ok(())
    }

    /// What `take` makes of the spare segments, the one first that every snapshot is newer than; `None`
    /// if there is no such one.
    fn unpinned_spare<T>(&self, take: impl FnOnce(&mut Vec<Spare>) -> T) -> Result<Option<T>> {
        let mut spares = self.spares.lock();
        let Some(first) = spares.first() else { return Ok(None) };
        let after = first.retired.next();
        Ok(if self.control.oldest_pin(after)? < after { None } else { Some(take(&mut spares)) })
    }
}
