//! The rolling checksum of the database: the wrapping sum of its pages' hashes.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::{Code, Error, Result, still};
use crate::hash::page_hash;
use crate::hashes::Hashes;
use crate::index::{Entry, Index};
use crate::kept::Kept;
use crate::lsn::Lsn;
use crate::session::Session;
use crate::snapshot::{Snapshot, hash_in_table};
use crate::source::Ahead;
use crate::state::{State, lock_page};
use crate::store::Store;

/// Pages whose hashes are read from the sidecar at a time.
const BULK: usize = 8192;
/// Pages that are read before it is asked whether to go on.
const ASK_EVERY: u32 = 64;

impl Store {
    /// The sidecar of the base's hashes.
    pub(crate) fn hashes(&self, page_size: u32) -> Result<Hashes> {
        let _guard = self.lock_superblock()?;
        self.side_in_place()?;
        Hashes::open(&*self.disk, &self.path, &self.side, page_size)
    }

    /// Rolling checksum at a pinned snapshot. Where hashes of the base aren't known yet: reads the
    /// pages if `pay`, else answers `None`.
    pub(crate) fn checksum(&self, view: &Snapshot, pay: bool) -> Result<Option<u64>> {
        self.checksum_while(view, pay, &|| Ok(()))
    }

    /// The same, as long as `go_on` says so, which is asked now and then where pages are read.
    pub(crate) fn checksum_while(
        &self,
        view: &Snapshot,
        pay: bool,
        go_on: &dyn Fn() -> Result<()>,
    ) -> Result<Option<u64>> {
        let state = view.state;
        if state.size == 0 {
            return Ok(Some(0));
        }
        if let Some((lsn, sum)) = *self.known_checksum.lock() {
            if lsn == state.lsn {
                return Ok(Some(sum));
            }
        }
        let journaled = journaled_hashes(view)?;
        let hashes = self.hashes(state.page_size)?;
        let mut known = vec![0; BULK];
        let mut image = vec![0; state.page_size as usize];
        let mut sum = 0u64;
        let mut learned = false;
        let mut ahead = Ahead::default();
        let mut from = 1;
        while from <= state.size {
            let count = BULK.min((state.size - from + 1) as usize);
            hashes.get_many(from, &mut known[..count])?;
            for (page, &base) in (from..).zip(&known[..count]) {
                if page == lock_page(state.page_size as usize) {
                    continue;
                }
                let hash = match journaled.get(&page) {
                    Some(&hash) => hash,
                    None if base != 0 => base,
                    None if !pay => return Ok(None),
                    None => {
                        if page.is_multiple_of(ASK_EVERY) {
                            go_on()?;
                        }
                        ahead.reach(self, view, page)?;
                        view.read(self, page, 0, &mut image)?;
                        let hash = page_hash(page, &image);
                        // One that is noted of a page that isn't here tells that it should be.
                        if !self.lacks(page)? {
                            hashes.set(page, hash)?;
                            learned = true;
                        }
                        hash
                    }
                };
                sum = sum.wrapping_add(hash);
            }
            from += count as u32;
        }
        if learned {
            hashes.sync()?;
        }
        *self.known_checksum.lock() = Some((state.lsn, sum));
        Ok(Some(sum))
    }

    /// Hash of a page at a pinned snapshot.
    pub(crate) fn hash_at(&self, view: &Snapshot, hashes: &Hashes, page: u32) -> Result<u64> {
        if let Some(found) = view.index.find(page, view.state.lsn) {
            if found.last > view.floor {
                return hash_in_table(&view.index, page, &found);
            }
        }
        if let Some(hash) = hashes.get(page)? {
            return Ok(hash);
        }
        let mut image = vec![0; view.state.page_size as usize];
        view.read(self, page, 0, &mut image)?;
        Ok(page_hash(page, &image))
    }

    /// Computes the checksum of the head, at whatever cost, and remembers the hashes.
    ///
    /// # Errors
    /// `Damaged` where a page can't be read.
    pub fn learn_checksum(self: &Arc<Self>) -> Result<u64> {
        let mut session = Session::new(Arc::clone(self))?;
        session.begin_read()?;
        let sum = self.checksum(session.pinned()?, true)?;
        session.end_read()?;
        sum.ok_or_else(|| Error::new(Code::Io, "the checksum can't be computed; report this as a bug"))
    }

    /// Checksums at the ends of the entries from `down_to` to `view`, newest first, for as far back as
    /// they can be told: (LSN, checksum).
    pub(crate) fn checksums_back(&self, view: &Snapshot, down_to: Lsn) -> Result<Vec<(Lsn, u64)>> {
        let Some(mut sum) = self.checksum(view, false)? else { return Ok(Vec::new()) };
        let index = &view.index;
        let down_to = down_to.max(self.control.horizon());
        let (kept, _) = self.kept()?;
        let hashes = if view.state.size > 0 { Some(self.hashes(view.state.page_size)?) } else { None };
        // What isn't readable any more may be in the journal still, as it was given up by itself: a kept image that is
        // older than that isn't the newest. While a fold to a new horizon is under way, the base doesn't have the rows up
        // to it yet.
        let dropped = self.read_superblock()?.horizon.lsn.min(view.floor);
        let mut sums = vec![(view.state.lsn, sum)];
        let Some(mut ordinal) = index.entry_at(view.state.lsn) else { return Ok(sums) };
        loop {
            if index.last(ordinal) <= down_to {
                break;
            }
            let Some(entry) = still(index.entry(ordinal))? else { break };
            let before = Lsn::new(entry.range.first.get() - 1);
            let Some(before) = self.retained_state(index, before)? else { break };
            if before.page_size != 0 && before.page_size != entry.state.page_size {
                break;
            }
            let Some(difference) = self.undo_sum(view, &entry, dropped, &before, &kept, hashes.as_ref())?
            else {
                break;
            };
            sum = sum.wrapping_sub(difference);
            sums.push((before.lsn, sum));
            let Some(next) = ordinal.checked_sub(1) else { break };
            ordinal = next;
        }
        Ok(sums)
    }

    /// What an entry added to the checksum; `None` if an earlier hash isn't known. Rows up to `dropped` aren't there any
    /// more.
    fn undo_sum(
        &self,
        view: &Snapshot,
        entry: &Entry,
        dropped: Lsn,
        before: &State,
        kept: &[Kept],
        hashes: Option<&Hashes>,
    ) -> Result<Option<u64>> {
        let index = &view.index;
        let mut difference = 0u64;
        let old = |page: u32| -> Result<Option<u64>> {
            if let Some(found) = index.find(page, before.lsn) {
                if found.last > dropped {
                    return hash_in_table(index, page, &found).map(Some);
                }
            }
            let newest = kept
                .iter()
                .filter(|k| k.from <= before.lsn && k.target > before.lsn)
                .filter_map(|k| k.hash(page).map(|hash| (k.from, hash)))
                .max();
            if let Some((_, hash)) = newest {
                return Ok(Some(hash));
            }
            // The base has it, unless it has moved on, or is about to.
            if self.control.base() > before.lsn || self.control.fold_target() > before.lsn {
                return Ok(None);
            }
            match hashes {
                Some(hashes) => hashes.get(page),
                None => Ok(None),
            }
        };
        for row in index.rows(entry)? {
            difference = difference.wrapping_add(row.hash);
            if row.page <= before.size {
                let Some(hash) = old(row.page)? else { return Ok(None) };
                difference = difference.wrapping_sub(hash);
            }
        }
        for page in entry.state.size + 1..=before.size {
            if page != lock_page(before.page_size as usize) {
                let Some(hash) = old(page)? else { return Ok(None) };
                difference = difference.wrapping_sub(hash);
            }
        }
        Ok(Some(difference))
    }
}

/// Hashes of the pages whose newest version at a snapshot is in the journal.
fn journaled_hashes(view: &Snapshot) -> Result<HashMap<u32, u64>> {
    let index: &Index = &view.index;
    let mut hashes = HashMap::new();
    for entry in index.between(view.floor, view.state.lsn) {
        hashes.extend(index.rows(&entry?)?.map(|row| (row.page, row.hash)));
    }
    Ok(hashes)
}
