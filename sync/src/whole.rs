//! Applying a whole database from a remote, to a store that has another one, or none.

use std::sync::Arc;

use tideline_journal::{
    Code, Durability, Error, Lsn, Result, State, Store, WholePiece, lock_page, random_id,
};

use crate::cache::Cache;
use crate::library::Library;
use crate::manifest::Manifest;
use crate::objects::Objects;
use crate::runs::Runs;

/// Bytes of images that are fetched at a time.
const BATCH_BYTES: usize = 4 << 20;

/// Applies the whole database of a manifest, behind the commit `known`, that both sides had.
///
/// # Errors
/// `Offline`, `Missing`, `Damaged`; those of [`Store::receive`].
pub(crate) fn receive(
    store: &Arc<Store>,
    objects: &Objects<'_>,
    manifest: &Manifest,
    known: Option<(Lsn, u64)>,
) -> Result<()> {
    let Some(runs) = &manifest.runs else {
        let text = format!("manifest {} lacks the whole database; report this as a bug", manifest.number);
        return Err(Error::new(Code::Damaged, text));
    };
    let library = Library::new(runs.clone(), Cache::none());
    let Runs { state, checksum, .. } = library.runs();
    let (state, checksum) = (State::from(state), *checksum);
    let mut token = [0; 8];
    token.copy_from_slice(&random_id()?[..8]);
    let token = u64::from_le_bytes(token);
    let lock = lock_page(state.page_size as usize);
    let rows = u64::from(state.size) - u64::from(state.size >= lock);
    let at_once = (BATCH_BYTES / state.page_size as usize).max(1);
    let (mut before, mut first) = (0, 1);
    while first <= state.size {
        let last = state.size.min(first.saturating_add(at_once as u32 - 1));
        let some: Vec<u32> = (first..=last).filter(|&page| page != lock).collect();
        first = last.saturating_add(1);
        let mut piece = WholePiece::new(manifest.lineage, state, checksum, token, rows, before);
        library.read_many(objects, &some, &mut |page, image| {
            piece.push(page, image);
            Ok(())
        })?;
        store.receive_behind(&piece.finish(), known, Durability::Disk)?;
        before += some.len() as u64;
    }
    Ok(())
}
