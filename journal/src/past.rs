//! Images that pages had at an LSN, as far as they are still there.

use std::sync::Arc;

use crate::error::{At, Result, still};
use crate::format::Shipped;
use crate::index::Index;
use crate::lsn::Lsn;
use crate::snapshot::Snapshot;
use crate::state::State;
use crate::store::Store;

impl Store {
    /// The pages whose earlier images a shipped entry, or a piece of one, is made from, and for which this lazy clone's
    /// source would be asked while [`Store::receive`] keeps others from committing. Whoever fetches them before has it
    /// find them quickly.
    ///
    /// # Errors
    /// `Damaged`, `Format` if `blob` is none; `Io`.
    pub fn pages_wanted(self: &Arc<Self>, blob: &[u8]) -> Result<Vec<u32>> {
        if blob.is_empty() || !self.is_lazy()? {
            return Ok(Vec::new());
        }
        let shipped = Shipped::check(blob)?;
        let header = &shipped.header;
        self.catch_up(self.head())?;
        let index = self.whole()?;
        let before = Lsn::new(header.range.first.get() - 1);
        let due = !header.full && header.range.last > self.head();
        let known = due && header.lineage == self.lineage();
        let state = if known { self.retained_state(&index, before)? } else { None };
        let Some(state) = state else { return Ok(Vec::new()) };
        let past = Past::new(self, index, state, false);
        let mut pages = Vec::new();
        for row in shipped.rows().filter(|row| row.is_difference()) {
            if past.is_absent(self, row.page)? {
                pages.push(row.page);
            }
        }
        Ok(pages)
    }
}

impl Store {
    /// The state at `lsn`, where `index` knows it and history reaches back so far.
    pub(crate) fn retained_state(&self, index: &Index, lsn: Lsn) -> Result<Option<State>> {
        if lsn < self.control.horizon() {
            return Ok(None);
        }
        Ok(still(index.state(lsn))?.flatten())
    }
}

/// The database at an LSN that may be below the base's. Whoever reads it has a newer snapshot pinned.
pub(crate) struct Past {
    view: Snapshot,
    /// Images that the base of a lazy clone lacks count as gone, instead of being asked for.
    here_alone: bool,
}

impl Past {
    /// At `state`, which `index` knows: images from `here_alone`, or from a lazy clone's source as well.
    pub fn new(store: &Store, index: Arc<Index>, state: State, here_alone: bool) -> Past {
        // What is above either is in the journal, and stays there for whoever has a snapshot. The horizon moves before
        // the base gets there.
        let floor = store.control.horizon().min(store.control.base());
        Past { view: Snapshot { index, state, floor, copies: false }, here_alone }
    }

    /// True if [`Past::read`] would ask the source of a lazy clone for `page`.
    pub fn is_absent(&self, store: &Store, page: u32) -> Result<bool> {
        let Snapshot { state, .. } = &self.view;
        Ok(page > 1 && page <= state.size && self.view.is_in_base(page) && store.lacks(page)?)
    }

    /// Fills `to` with the image that `page` had; false if it isn't there any more, wasn't yet, or had another length.
    /// Never page 1, of which bytes are served that aren't stored.
    pub fn read(&self, store: &Store, page: u32, to: &mut [u8]) -> Result<bool> {
        let Snapshot { index, state, floor, .. } = &self.view;
        if page == 1 || page > state.size || to.len() != state.page_size as usize {
            return Ok(false);
        }
        let version = index.find(page, state.lsn);
        if version.is_some_and(|found| found.last > *floor) {
            self.view.read(store, page, 0, to)?;
            return Ok(true);
        }
        // The base has it unless a fold has brought a newer image, or is about to. A fold says so before it does, so
        // what was read is right if none has said so afterwards.
        let version = version.map(|found| found.version);
        let stays = || {
            let target = store.control.fold_target().max(store.control.base());
            index.find(page, target).map(|found| found.version) == version
        };
        if !stays() {
            return Ok(false);
        }
        if store.lacks(page)? {
            return if self.here_alone {
                Ok(false)
            } else {
                store.read_absent(page, to.len(), 0, to).map(|()| stays())
            };
        }
        // Not through a mapping: a fold may cut the file off.
        let offset = u64::from(page - 1) * to.len() as u64;
        let got = store.base.read_at(to, offset).at(|| format!("reading {}", store.path.display()))?;
        Ok(got == to.len() && stays())
    }
}
