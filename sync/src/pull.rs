//! Pulling: what a remote has and this store hasn't is applied, manifest by manifest.

use std::sync::Arc;

use tideline_journal::{Code, Error, Lsn, Result, Store};

use crate::book::{Position, Remote};
use crate::chain::{self, Behind, Link, Sure};
use crate::manifest::{Manifest, Part};
use crate::objects::Objects;
use crate::point::Point;
use crate::push::{Found, Keep, diverged, has, holding, locate, nothing_missed, settle};
use crate::segment;
use crate::whole;

/// Gets what the remote has, up to a point; returns the LSN that the store has then.
///
/// # Errors
/// `Diverged` if both sides have commits that the other hasn't: nothing is changed. `Offline`, `Missing`, `Damaged`.
pub(crate) fn pull(
    store: &Arc<Store>,
    objects: &Objects<'_>,
    remote: &mut Remote,
    sure: &Sure,
    until: Point,
    keep: &mut Keep<'_>,
) -> Result<Lsn> {
    settle(store, objects, remote, keep)?;
    let mut position = match holding(store, remote)? {
        Some(position) => position,
        None if store.head() == Lsn::ZERO => {
            let Some(head) = chain::head(objects)? else {
                return nothing_missed(store, objects, remote).map(|()| Lsn::ZERO);
            };
            all(store, objects, &head, None)?
        }
        None => stand_anew(store, objects, remote, sure)?,
    };
    loop {
        remote.position = Some(position.clone());
        keep(remote)?;
        let link = match chain::behind(objects, &position, sure, sure.there(position.number))? {
            Behind::Nothing => {
                // What of a later one was applied isn't there any more: an older copy was put back.
                remote.part = 0;
                return Ok(store.head());
            }
            Behind::Next(link) => link,
            // What is newer isn't wanted.
            Behind::Gone if until != Point::Newest => return Err(given_up(objects, &position)),
            Behind::Gone => {
                let found = stand_anew(store, objects, remote, sure)?;
                if (found.number, found.hash) == (position.number, position.hash) {
                    return Err(chain::broken(objects, position.number + 1));
                }
                position = found;
                continue;
            }
        };
        let part = &link.manifest.part;
        if !has(store, part)? {
            if store.head() > position.lsn() && !is_under_way(store, part, position.lsn())? {
                return Err(diverged(objects, part, position.lsn(), store.head()));
            }
            let known = Some((position.lsn(), position.id));
            if !until.has(part.last, part.time) {
                if !part.full {
                    apply(store, objects, &link.manifest, known, until)?;
                    // None of them is this store's own.
                    remote.part = store.head().get();
                }
                return Ok(store.head());
            }
            let applied = match part.full {
                true => whole::receive(store, objects, &link.manifest, known)
                    .and_then(|()| arrived(store, objects, part)),
                false => apply(store, objects, &link.manifest, known, until),
            };
            if let Err(e) = applied {
                // It may have been given up while it was being read.
                let gone = e.code() == Code::Missing && until == Point::Newest;
                if !gone
                    || chain::head(objects)?.is_none_or(|head| head.manifest.oldest() <= link.manifest.number)
                {
                    return Err(e);
                }
                position = stand_anew(store, objects, remote, sure)?;
                continue;
            }
        } else {
            // Somebody may have received it, and died.
            store.harden()?;
        }
        position = position.and(&link);
    }
}

/// Gets the whole database of the newest manifest that has it, up to `head`.
fn all(
    store: &Arc<Store>,
    objects: &Objects<'_>,
    head: &Link,
    known: Option<(Lsn, u64)>,
) -> Result<Position> {
    let link = chain::whole(objects, head)?;
    whole::receive(store, objects, &link.manifest, known)?;
    arrived(store, objects, &link.manifest.part)?;
    Ok(Position::behind(&link))
}

/// Where the store is at a remote that doesn't go on from the position that it had. Where that was given up, it gets the
/// whole database.
fn stand_anew(
    store: &Arc<Store>,
    objects: &Objects<'_>,
    remote: &mut Remote,
    sure: &Sure,
) -> Result<Position> {
    let known = remote.position.clone();
    let found = locate(store, objects, known.as_ref())?;
    if matches!(found, Found::Nothing) {
        nothing_missed(store, objects, remote)?;
    }
    remote.stand_elsewhere();
    match found {
        Found::Nothing => {
            sure.note(0, true);
            Ok(Position::start(store.lineage()))
        }
        Found::At(link) => Ok(Position::behind(&link)),
        Found::Ahead(head) => all(store, objects, &head, known.map(|at| (at.lsn(), at.id))),
    }
}

fn given_up(objects: &Objects<'_>, position: &Position) -> Error {
    let text = format!(
        "{} gave up what is behind LSN {} while it was read; begin again, with a later LSN or time",
        objects.url(),
        position.lsn
    );
    Error::new(Code::Trimmed, text)
}

/// True if what the store has behind a position may have been received: a pull that was interrupted between two entries
/// of a manifest. If it wasn't of this one, the entry behind it says so, and nothing is changed.
fn is_under_way(store: &Store, part: &Part, position: Lsn) -> Result<bool> {
    Ok(!part.full && store.head() < part.range().last && !store.has_own_since(position)?)
}

/// Applies what one push brought, up to a point, behind the commit `known`, durably.
fn apply(
    store: &Arc<Store>,
    objects: &Objects<'_>,
    manifest: &Manifest,
    known: Option<(Lsn, u64)>,
    until: Point,
) -> Result<()> {
    let part = &manifest.part;
    for name in &part.segments {
        if !segment::receive(store, objects, name, known, until)? {
            return store.harden();
        }
    }
    store.harden()?;
    if until.has(part.last, part.time) { arrived(store, objects, part) } else { Ok(()) }
}

/// Makes sure that what was applied is what the manifest says.
fn arrived(store: &Store, objects: &Objects<'_>, part: &Part) -> Result<()> {
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
