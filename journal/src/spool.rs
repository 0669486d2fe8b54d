//! The journal is the spool of remotes: history that one of them is to get, and hasn't got yet, stays in it.
//!
//! Whoever talks to remotes says what they haven't got each time that it changes what it keeps about them. That is looked
//! at only when history is about to be given up, so commits never wait for it; and beyond a bound nobody is waited for.

use crate::error::{Code, Result};
use crate::format::{Superblock, Unsent};
use crate::index::Index;
use crate::lsn::Lsn;
use crate::store::Store;

impl Store {
    /// The lowest LSN from which on history is kept for remotes. One whose history is gone, or would take more of the
    /// journal than it may, holds nothing.
    pub(crate) fn held_for_remotes(&self, index: &Index, block: &Superblock) -> Result<Option<Lsn>> {
        let unsent = self.unsent()?;
        if unsent.is_empty() {
            return Ok(None);
        }
        let segments = index.retained_journal(block.horizon.lsn);
        // For each of them its length, and that of those behind.
        let mut lens = Vec::with_capacity(segments.len());
        let mut sum = 0u64;
        for segment in segments.iter().rev() {
            sum += segment.len()?;
            lens.push(sum);
        }
        lens.reverse();
        let behind = |lsn: Lsn| {
            let first = segments.iter().skip(1).take_while(|next| next.header.first <= lsn.next()).count();
            lens.get(first).copied().unwrap_or(0)
        };
        let oldest = block.history.max(block.horizon.lsn);
        let holds = |one: &&Unsent| {
            one.behind >= oldest && index.is_end(one.behind) && behind(one.behind) <= one.most
        };
        Ok(unsent.iter().filter(holds).map(|one| one.behind).min())
    }

    /// False if no remote holds history below the base, whatever the journal's length.
    pub(crate) fn may_be_held(&self, block: &Superblock) -> Result<bool> {
        let oldest = block.history.max(block.horizon.lsn);
        Ok(self.unsent()?.iter().any(|one| one.behind >= oldest && one.behind < block.base.lsn))
    }

    /// What remotes haven't got yet.
    fn unsent(&self) -> Result<Vec<Unsent>> {
        self.side_in_place()?;
        match self.read_remotes() {
            Ok(kept) => Ok(kept.map(|(unsent, _)| unsent).unwrap_or_default()),
            // Nothing can be pushed before that is mended, and until then history must not fill the disk.
            Err(e) if matches!(e.code(), Code::Damaged | Code::Format) => {
                crate::report(&e);
                Ok(Vec::new())
            }
            Err(e) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::disk::{Disk, How, SimDisk};
    use crate::error::At;
    use crate::format::{Name, Retention};
    use crate::sample::{commit, last, write};
    use crate::session::Session;
    use crate::store::Options;

    fn open(disk: &Arc<SimDisk>) -> Result<Arc<Store>> {
        let disk: Arc<dyn Disk> = disk.process();
        Store::open(
            disk,
            Path::new("/app.db"),
            Options { background: false, segment_bytes: 8 << 10, ..Options::default() },
        )
    }

    fn commits(store: &Arc<Store>, count: u8) -> Result<()> {
        let mut session = Session::new(Arc::clone(store))?;
        for _ in 0..count {
            let fill = if store.head() == Lsn::ZERO { 1 } else { last(store)?.wrapping_add(1) };
            write(&mut session, fill)?;
            commit(&mut session)?;
        }
        Ok(())
    }

    /// Says that remotes have got what is up to these LSNs, and how much of the journal each may hold.
    fn say(store: &Store, unsent: &[(u64, u64)]) -> Result<()> {
        let one = |&(lsn, most): &(u64, u64)| Unsent { behind: Lsn::new(lsn), most };
        store.change_remotes(|_| Ok((b"{}".to_vec(), unsent.iter().map(one).collect(), ())))
    }

    /// True if what is behind this LSN can be sent as it was committed.
    fn can_send(store: &Arc<Store>, lsn: u64) -> bool {
        store.batches(Lsn::new(lsn), None).is_ok_and(|mut batches| batches.all(|piece| piece.is_ok()))
    }

    const SPARSE: [Retention; 2] = [Retention::None, Retention::Lsns(1)];

    #[test]
    #[cfg_attr(miri, ignore = "miri runs no C, and so no zstd")]
    fn history_stays_from_where_a_remote_is_and_goes_as_it_goes_on() -> Result<()> {
        for retention in SPARSE {
            let disk = SimDisk::new();
            let mut store = open(&disk)?;
            store.set_retention(retention)?;
            commits(&store, 5)?;
            say(&store, &[(5, u64::MAX)])?;
            for _ in 0..3 {
                commits(&store, 30)?;
                assert!(can_send(&store, 5), "{retention:?}");
                store.fold()?;
                store.set_retention(retention)?;
                assert!(can_send(&store, 5), "{retention:?}: folded");
                store.close()?;
                store = open(&disk)?;
                assert!(can_send(&store, 5) && store.verify()?.is_empty(), "{retention:?}: closed");
                store.compact(None)?;
                assert!(can_send(&store, 5), "{retention:?}: compacted");
            }
            // It has got more by now.
            say(&store, &[(70, u64::MAX)])?;
            commits(&store, 10)?;
            let horizon = store.status()?.horizon;
            assert!(horizon > Lsn::new(5) && horizon <= Lsn::new(70), "{retention:?}: {horizon}");
            assert!(can_send(&store, 70));
            // And then all of it.
            let head = store.head();
            say(&store, &[(head.get(), u64::MAX)])?;
            store.close()?;
            let store = open(&disk)?;
            assert!(!can_send(&store, 70) && can_send(&store, head.get()), "{retention:?}");
        }
        Ok(())
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri runs no C, and so no zstd")]
    fn beyond_its_bound_a_remote_holds_nothing() -> Result<()> {
        for retention in SPARSE {
            let store = open(&SimDisk::new())?;
            store.set_retention(retention)?;
            commits(&store, 2)?;
            // One may hold little, and one that is further on much.
            say(&store, &[(2, 400 << 10), (20, u64::MAX)])?;
            commits(&store, 20)?;
            assert!(can_send(&store, 2), "{retention:?}");
            commits(&store, 60)?;
            assert!(!can_send(&store, 2) && can_send(&store, 20), "{retention:?}");
            say(&store, &[(2, u64::MAX), (20, 400 << 10)])?;
            commits(&store, 60)?;
            assert!(!can_send(&store, 20), "{retention:?}: what is gone holds nothing");
            let status = store.status()?;
            assert!(status.journal_bytes < 200 << 10, "{retention:?}: {status:?}");
        }
        Ok(())
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri runs no C, and so no zstd")]
    fn a_list_of_remotes_that_is_damaged_holds_nothing() -> Result<()> {
        let disk = SimDisk::new();
        let store = open(&disk)?;
        store.set_retention(Retention::None)?;
        commits(&store, 5)?;
        say(&store, &[(5, u64::MAX)])?;
        commits(&store, 20)?;
        assert!(can_send(&store, 5));
        let path = store.file_path(Name::Remotes);
        let file = disk.process().open(&path, How::Write).at(|| "opening".into())?;
        file.write_at(&[7], 40).at(|| "writing".into())?;
        commits(&store, 20)?;
        assert!(!can_send(&store, 5));
        store.close()
    }
}
