//! Pulling: what a remote has and this store hasn't is applied, manifest by manifest.

use std::sync::Arc;

use tideline_journal::{Code, Error, Lsn, Result, Store};

use crate::book::{Position, Remote};
use crate::chain;
use crate::manifest::{Manifest, Part};
use crate::objects::Objects;
use crate::push::{Keep, diverged, foreign, has, holding, locate, settle};
use crate::{segment, whole};

/// Gets what the remote has; returns the LSN that the store has then.
///
/// # Errors
/// `Diverged` if both sides have commits that the other hasn't: nothing is changed. `Offline`, `Missing`, `Damaged`.
pub(crate) fn pull(
    store: &Arc<Store>,
    objects: &Objects<'_>,
    remote: &mut Remote,
    keep: &mut Keep<'_>,
) -> Result<Lsn> {
    settle(store, objects, remote, keep)?;
    let mut position = match holding(store, remote)? {
        Some(position) => position,
        None if store.head() == Lsn::ZERO => {
            let Some(head) = chain::head(objects)? else { return Ok(Lsn::ZERO) };
            let link = chain::whole(objects, &head)?;
            apply(store, objects, &link.manifest, None, true)?;
            Position::behind(&link)
        }
        None => {
            let link = locate(store, objects)?;
            link.as_ref().map_or_else(|| Position::start(store.lineage()), Position::behind)
        }
    };
    loop {
        remote.position = Some(position.clone());
        keep(remote)?;
        let Some(link) = chain::read(objects, position.number + 1)? else { return Ok(store.head()) };
        let manifest = &link.manifest;
        if position.number == 0 && manifest.lineage != position.lineage {
            return Err(foreign(objects));
        }
        if manifest.previous != position.hash || manifest.lineage != position.lineage {
            return Err(chain::broken(objects, manifest.number));
        }
        if !has(store, &manifest.part)? {
            if store.head() > position.lsn() && !is_under_way(store, &manifest.part, position.lsn())? {
                return Err(diverged(objects, &manifest.part, position.lsn(), store.head()));
            }
            let known = Some((position.lsn(), position.id));
            apply(store, objects, manifest, known, manifest.part.full)?;
        }
        position = Position::behind(&link);
    }
}

/// True if what the store has behind a position may have been received: a pull that was interrupted between two entries
/// of a manifest. If it wasn't of this one, the entry behind it says so, and nothing is changed.
fn is_under_way(store: &Store, part: &Part, position: Lsn) -> Result<bool> {
    Ok(!part.full && store.head() < part.range().last && !store.has_own_since(position)?)
}

/// Applies what one push brought, or the whole database as it is behind it, behind the commit `known`.
fn apply(
    store: &Arc<Store>,
    objects: &Objects<'_>,
    manifest: &Manifest,
    known: Option<(Lsn, u64)>,
    whole: bool,
) -> Result<()> {
    let part = &manifest.part;
    if whole {
        whole::receive(store, objects, manifest, known)?;
    } else {
        for name in &part.segments {
            segment::receive(store, objects, name, known)?;
        }
    }
    if has(store, part)? {
        return Ok(());
    }
    let text = format!(
        "what {} has for LSN {} to {} isn't what its manifest says; clone from another remote",
        objects.url(),
        part.first,
        part.last
    );
    Err(Error::new(Code::Damaged, text))
}
