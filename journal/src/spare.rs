//! Segments that the journal doesn't go through any more, kept to be written again: nothing is
//! allocated then, and an fsync has no metadata to write.
//!
//! Whoever has a snapshot from before a segment was given up may look at it, so it is written again
//! only when every snapshot is newer. What is in it from its earlier life continues no chain of
//! entries, and so counts for nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::disk::{File, How, is_at};
use crate::error::{At, Result};
use crate::format::{Name, SegmentHeader, SegmentKind};
use crate::lsn::Lsn;
use crate::segment::Segment;
use crate::store::{FEW, Store, remove};

/// Spare segments that one process keeps.
const MOST: usize = 24;

/// Spare segments that stay while nothing is to be done.
const IDLE: usize = 16;

/// Segments that are made ready before the journal comes to them.
const READY: usize = 12;

/// Ready segments that suffice where another one would have to be made.
const FEW_READY: usize = 3;

/// Ready segments that come so soon that they are warmed once more.
const SOON: usize = 2;

/// Bytes that a segment may surely have.
const LONG: u64 = 1 << 20;

/// Bytes of a new segment that are written at a time.
const FILL: usize = 256 << 10;

/// A segment to be written again.
pub(crate) struct Spare {
    file: Arc<dyn File>,
    path: PathBuf,
    /// Newest LSN when it was given up.
    retired: Lsn,
}

/// A file that the journal can go on in: its name is that of a segment, and on the disk.
pub(crate) struct Ready {
    file: Arc<dyn File>,
    path: PathBuf,
    number: u32,
    /// Nothing was in it before.
    new: bool,
    /// It is warm, unless it reached the disk by itself meanwhile: that is looked at when its turn comes.
    warmed: bool,
}

/// Writes zeros over the whole of a new file.
fn fill(file: &dyn File, len: u64) -> std::io::Result<()> {
    let zeros = vec![0; FILL];
    let mut at = 0;
    while at < len {
        let part = (len - at).min(FILL as u64) as usize;
        file.write_at(&zeros[..part], at)?;
        at += part as u64;
    }
    Ok(())
}

impl Store {
    /// Keeps a segment that nobody needs but readers of snapshots up to now; false if there are
    /// enough, or it is of an odd size.
    pub(crate) fn retire(&self, segment: &Segment) -> Result<bool> {
        if segment.gone.swap(true, Ordering::Relaxed) {
            return Ok(true);
        }
        let len = segment.len()?;
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

    /// Readies the segments that the journal goes on in next, so that no commit has to wait for that.
    pub(crate) fn ready_next(&self) -> Result<()> {
        self.warm_soonest();
        let have = self.ready.lock().len();
        if have > READY / 2 {
            return Ok(());
        }
        let mut made = Vec::new();
        while have + made.len() < READY {
            let Some(next) = self.recycled()? else { break };
            made.push(next);
        }
        if made.is_empty() {
            // What is written to a new one competes with commits for the disk.
            if have >= FEW_READY {
                return Ok(());
            }
            made.push(self.created()?);
        }
        self.sync_side()?;
        for mut next in made {
            let here = || format!("writing {}", next.path.display());
            if next.new {
                // In large pieces, which the system then keeps as such.
                fill(&*next.file, self.options.segment_bytes).at(here)?;
            }
            if self.seldom_synced.load(Ordering::Relaxed) && self.flushes.load(Ordering::Relaxed) <= FEW {
                next.file.warm(0..self.options.segment_bytes);
                next.warmed = true;
            } else if next.new {
                // Commits that are synced overwrite blocks that have been written, without a change of metadata.
                next.file.sync().at(here)?;
            }
            self.ready.lock().push_back(next);
        }
        Ok(())
    }

    /// Warms those again that the journal comes to next: the system writes what lies about for long, or when somebody asks
    /// it to write everything, and each page is protected then. It costs next to nothing where it didn't.
    fn warm_soonest(&self) {
        let mut ready = self.ready.lock();
        let mut files = Vec::new();
        for next in ready.iter_mut().take(SOON) {
            if std::mem::take(&mut next.warmed) {
                files.push(Arc::clone(&next.file));
            }
        }
        // A commit may ask for one meanwhile.
        drop(ready);
        for file in files {
            file.warm(0..self.options.segment_bytes);
        }
    }

    /// The segment that the journal goes on in, with the header that `header` makes for its number. Its
    /// name is on the disk, the rest need not be.
    pub(crate) fn next_segment(&self, header: impl FnOnce(u32) -> SegmentHeader) -> Result<Segment> {
        let Ready { file, path, number, .. } = match self.still_ready()? {
            Some(ready) => ready,
            None => {
                let made = match self.recycled()? {
                    Some(recycled) => recycled,
                    None => self.created()?,
                };
                self.sync_side()?;
                made
            }
        };
        Segment::begin(file, path, header(number))
    }

    /// The next one that is ready, and at its name still.
    fn still_ready(&self) -> Result<Option<Ready>> {
        loop {
            let Some(ready) = self.ready.lock().pop_front() else { return Ok(None) };
            let here = || format!("looking for {}", ready.path.display());
            if is_at(&*self.disk, &*ready.file, &ready.path).at(here)? {
                return Ok(Some(ready));
            }
        }
    }

    pub(crate) fn sync_side(&self) -> Result<()> {
        // What didn't get to the disk is there for whoever looks, and another sync would prove nothing.
        let synced = self.disk.sync_dir(&self.side).inspect_err(|_| self.control.poison());
        synced.at(|| format!("syncing {}", self.side.display()))
    }

    /// A file that was a segment before, with the name of a new one; that isn't on the disk yet.
    fn recycled(&self) -> Result<Option<Ready>> {
        self.side_in_place()?;
        while let Some(spare) = self.unpinned_spare(|spares| spares.remove(0))? {
            let number = self.control.next_segment()?;
            let path = self.file_path(Name::Segment(number));
            match self.disk.rename(&spare.path, &path) {
                // Somebody else took it.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(e).at(|| format!("renaming {}", spare.path.display())),
                Ok(()) => {
                    return Ok(Some(Ready { file: spare.file, path, number, new: false, warmed: false }));
                }
            }
        }
        Ok(None)
    }

    /// A new file with the name of a new segment; that isn't on the disk yet.
    fn created(&self) -> Result<Ready> {
        self.side_in_place()?;
        let number = self.control.next_segment()?;
        let path = self.file_path(Name::Segment(number));
        let here = || format!("writing {}", path.display());
        let file = self.disk.open(&path, How::Create).at(here)?;
        file.set_len(0).and_then(|()| file.allocate(self.options.segment_bytes)).at(here)?;
        self.disk.copy_owner(&self.path, &path).at(|| "setting a segment's owner".into())?;
        Ok(Ready { file, path, number, new: true, warmed: false })
    }

    /// Removes the segments that this process has ready or to spare.
    pub(crate) fn drop_spares(&self) -> Result<()> {
        let ready: Vec<PathBuf> = self.ready.lock().drain(..).map(|ready| ready.path).collect();
        self.remove_all(ready)?;
        self.keep_spares(0)
    }

    /// Removes segments to spare but for a few, when there is little to do.
    pub(crate) fn drop_most_spares(&self) -> Result<()> {
        self.keep_spares(IDLE)
    }

    fn keep_spares(&self, count: usize) -> Result<()> {
        let mut spares = self.spares.lock();
        let count = count.min(spares.len());
        let dropped = spares.drain(count..).map(|spare| spare.path).collect();
        drop(spares);
        self.remove_all(dropped)
    }

    pub(crate) fn remove_all(&self, paths: Vec<PathBuf>) -> Result<()> {
        if !paths.is_empty() {
            self.side_in_place()?;
        }
        for path in paths {
            remove(&*self.disk, &path)?;
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
