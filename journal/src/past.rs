//! Images that pages had at an LSN, as far as they are still there.

use std::sync::Arc;

use crate::error::{At, Result};
use crate::index::Index;
use crate::snapshot::Snapshot;
use crate::state::State;
use crate::store::Store;

/// The database at an LSN that may be below the base's. Whoever reads it has a newer snapshot pinned.
pub(crate) struct Past {
    view: Snapshot,
}

impl Past {
    /// At `state`, which `index` knows.
    pub fn new(store: &Store, index: Arc<Index>, state: State) -> Past {
        // What is above either is in the journal, and stays there for whoever has a snapshot. The horizon moves before
        // the base gets there.
        let floor = store.control.horizon().min(store.control.base());
        Past { view: Snapshot { index, state, floor, copies: false } }
    }

    /// Fills `to` with the image that `page` had; false if it isn't there any more, wasn't yet, or had another length.
    /// Never page 1, of which bytes are served that aren't stored.
    pub fn read(&self, store: &Store, page: u32, to: &mut [u8]) -> Result<bool> {
        let Snapshot { index, state, floor, .. } = &self.view;
        if page == 1 || page > state.size || to.len() != state.page_size as usize {
            return Ok(false);
        }
        let version = index.find(page, state.lsn);
        if version.is_some_and(|found| index.entry(found.entry).range.last > *floor) {
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
        // Not through a mapping: a fold may cut the file off.
        let offset = u64::from(page - 1) * to.len() as u64;
        let got = store.base.read_at(to, offset).at(|| format!("reading {}", store.path.display()))?;
        Ok(got == to.len() && stays())
    }
}
