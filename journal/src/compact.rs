//! Compaction: neighbouring entries become one whose range covers them all, with each page's newest
//! image.
//!
//! Copy-on-write: the sealed segments up to the range's end are written anew into one segment, whose
//! seal leads on to the first that stays; the superblock then names the new one as the first, and
//! the old ones go. Whoever has them open goes on reading them.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Code, Error, Result};
use crate::format::Superblock;
use crate::index::Index;
use crate::lsn::{Lsn, LsnRange};
use crate::store::Store;

/// How long a compaction waits for the writer's place; whoever wants to wait for longer calls again.
const PATIENCE: Duration = Duration::from_millis(200);

impl Store {
    /// Merges the entries of `range`, or all of them that every remote has got, into one; returns by how
    /// many bytes the journal is smaller. What is merged is folded first.
    ///
    /// # Errors
    /// `Argument` where the range's ends aren't those of entries, `Busy` while a reader holds the
    /// fold back or another process folds.
    pub fn compact(self: &Arc<Self>, range: Option<LsnRange>) -> Result<u64> {
        self.alone_folding(|| {
            let base = self.fold_now()?;
            self.compact_locked(range, base)
        })
    }

    fn compact_locked(&self, range: Option<LsnRange>, base: Lsn) -> Result<u64> {
        let block = self.read_superblock()?;
        let oldest = block.history.max(block.horizon.lsn).next();
        let range = match range {
            Some(range) => range,
            None => {
                // Merged, what a remote hasn't got can't be told from what it has.
                let held = self.held_for_remotes(&*self.current()?, &block)?;
                LsnRange { first: oldest, last: held.map_or(base, |held| held.min(base)) }
            }
        };
        if range.first > range.last {
            return Ok(0);
        }
        if range.last > base {
            return Err(Error::new(
                Code::Busy,
                format!(
                    "only what is folded can be merged, and that ends at LSN {base}, where a reader or the head is; give a lower end, or end that transaction"
                ),
            ));
        }
        let index = self.current()?;
        let ends = |lsn: Lsn| index.is_end(lsn);
        if range.first < oldest || !ends(Lsn::new(range.first.get() - 1)) || !ends(range.last) {
            return Err(Error::new(
                Code::Argument,
                format!(
                    "LSN {} to {} isn't a range of whole entries above the horizon; tide_log lists their ends",
                    range.first, range.last
                ),
            ));
        }
        self.seal_through(range.last)?;
        let index = Arc::clone(&self.tail.lock().index);
        if index.first_above(range.last) - index.first_above(Lsn::new(range.first.get() - 1)) < 2 {
            return Ok(0);
        }
        self.rewrite_merged(&index, range, &block)
    }

    /// Makes sure that the segment which holds `last` is sealed.
    fn seal_through(&self, last: Lsn) -> Result<()> {
        let end = std::time::Instant::now() + PATIENCE;
        loop {
            match self.take_writer() {
                Ok(()) => break,
                Err(e) if e.code() == Code::Busy && std::time::Instant::now() < end => {
                    if self.wait_for_turn(Duration::from_millis(50))? && self.control.take_turn() {
                        break;
                    }
                }
                Err(e) => return Err(e),
            }
        }
        let sealed = (|| {
            let mut tail = self.tail.lock();
            self.settle_tail(&mut tail)?;
            let segment = Arc::clone(tail.index.segment(tail.segment));
            if segment.header.first <= last {
                self.roll(&mut tail, segment.header.lineage)?;
            }
            Ok(())
        })();
        self.control.release(crate::control::Word::Writer);
        sealed
    }

    /// Writes the segments up to the one that holds the range's end into a new one.
    fn rewrite_merged(&self, index: &Arc<Index>, range: LsnRange, block: &Superblock) -> Result<u64> {
        let old = index.retained_journal(block.horizon.lsn);
        let split = old.iter().position(|s| s.header.first > range.last).ok_or_else(|| {
            Error::new(Code::Io, "the range's last segment isn't sealed; report this as a bug")
        })?;
        let (old, next) = (&old[..split], old[split]);
        let segment = self.merged_segment(index, old[0].header.first, range, next)?;
        self.sync_side()?;
        let number = segment.header.number;
        let before = old.iter().map(|segment| segment.len()).sum::<Result<u64>>()?;
        let freed = before.saturating_sub(segment.len()?);
        {
            let _guard = self.lock_superblock()?;
            let mut block = self.read_superblock()?;
            block.first_segment = number;
            block.behind = None;
            self.write_superblock(&mut block)?;
        }
        self.read_anew(&mut self.tail.lock())?;
        // From here on they are in nobody's way; one that can't be removed now is when the store comes to rest.
        self.remove_all(old.iter().map(|segment| segment.path.clone()).collect())?;
        if old[0].header.number != block.first_segment {
            self.remove_segment(block.first_segment)?;
        }
        Ok(freed)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::disk::{Disk, SimDisk};
    use crate::sample::{commit, last, write};
    use crate::session::Session;
    use crate::store::Options;

    #[test]
    fn a_commit_under_way_ends_where_it_began() -> Result<()> {
        let disk: Arc<dyn Disk> = SimDisk::new().process();
        let options = Options { background: false, ..Options::default() };
        let store = Store::open(disk, Path::new("/app.db"), options)?;
        let mut session = Session::new(Arc::clone(&store))?;
        for fill in 1..=3 {
            write(&mut session, fill)?;
            commit(&mut session)?;
        }
        let base = store.fold()?;
        // As compact_locked does, with another connection's transaction between its two steps.
        store.seal_through(base)?;
        let index = store.whole()?;
        write(&mut session, 4)?;
        store.rewrite_merged(
            &index,
            LsnRange { first: Lsn::new(1), last: base },
            &store.read_superblock()?,
        )?;
        commit(&mut session)?;
        assert_eq!(last(&store)?, 4);
        assert!(store.verify()?.is_empty());
        Ok(())
    }
}
