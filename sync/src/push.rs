//! Pushing: what a remote doesn't have is put there, and becomes its next manifest.

use std::sync::Arc;

use tideline_journal::{Code, Error, Lsn, Result, Store};

use crate::book::{Position, Remote};
use crate::chain::{self, Appended, Link};
use crate::hex;
use crate::manifest::{Manifest, Part, SUMMARY_EVERY, VERSION};
use crate::objects::Objects;
use crate::probe::probe;
use crate::random;
use crate::segment;

/// How often somebody may have been faster with what this store has as well.
const TRIES: usize = 100;

/// Whether the store has the commit that a manifest ends with, and so everything before.
pub(crate) fn has(store: &Store, part: &Part) -> Result<bool> {
    Ok(store.identity(part.range().last)? == Some(part.id))
}

/// What is said where both sides have commits that the other hasn't.
pub(crate) fn diverged(objects: &Objects, part: &Part, position: Lsn, head: Lsn) -> Error {
    Error::new(
        Code::Diverged,
        format!(
            "{} has LSN {} to {} from somebody else, and this database has LSN {} to {head} of its own; keep these with tide_export(path) before you delete and clone it, or push to another place",
            objects.url(),
            part.first,
            part.last,
            position.next()
        ),
    )
}

/// What is said where another database is.
pub(crate) fn foreign(objects: &Objects) -> Error {
    let text = format!(
        "{} holds another database; give a place of its own to this one, or clone that one",
        objects.url()
    );
    Error::new(Code::Foreign, text)
}

/// A position, if the store still has the commit there, as far as that is known. One before everything is none: whoever
/// pushes first decides what is there.
pub(crate) fn holding(store: &Store, position: Option<Position>) -> Result<Option<Position>> {
    let Some(position) = position.filter(|p| p.number > 0 && p.lsn() <= store.head()) else {
        return Ok(None);
    };
    let same = store.identity(position.lsn())?.is_none_or(|id| id == position.id);
    Ok(same.then_some(position))
}

/// Where the store and the remote have the same history, for a remote of which nothing is known.
///
/// # Errors
/// `Foreign` where another database is there; `Diverged`.
pub(crate) fn locate(store: &Store, objects: &Objects) -> Result<Position> {
    let Some(mut link) = chain::head(objects)? else { return Ok(Position::start(store.lineage())) };
    let head = link.manifest.part.clone();
    if link.manifest.lineage != store.lineage() {
        return Err(foreign(objects));
    }
    loop {
        if has(store, &link.manifest.part)? {
            return Ok(Position::behind(&link));
        }
        match chain::before(objects, &link)? {
            Some(found) => link = found,
            None => return Err(diverged(objects, &head, Lsn::ZERO, store.head())),
        }
    }
}

/// Takes note of a manifest that this store created before it died.
pub(crate) fn settle(
    store: &Store,
    objects: &Objects,
    remote: &mut Remote,
    keep: &mut Keep<'_>,
) -> Result<()> {
    let (Some(attempt), Some(position)) = (&remote.attempt, &remote.position) else { return Ok(()) };
    if let Some(link) = chain::read(objects, position.number + 1)? {
        let Part { last, id, .. } = link.manifest.part;
        let same = store.identity(Lsn::new(last))?.is_none_or(|own| own == id);
        if same && hex::print(&link.manifest.writer) == *attempt {
            remote.position = Some(Position::behind(&link));
        }
    }
    remote.attempt = None;
    keep(remote)
}

/// How it is pushed.
#[derive(Clone, Copy)]
pub(crate) struct How {
    /// The time, in milliseconds since 1970.
    pub now: u64,
    /// About the length of a piece, in bytes.
    pub piece: u64,
}

/// Keeps what is known of a remote.
pub(crate) type Keep<'a> = dyn FnMut(&Remote) -> Result<()> + 'a;

/// Pushes what the remote doesn't have; returns the LSN that it has then.
///
/// # Errors
/// `Diverged` if somebody else was faster, `Foreign`, `Offline`, `Denied`.
pub(crate) fn push(
    store: &Arc<Store>,
    objects: &Objects,
    remote: &mut Remote,
    how: How,
    keep: &mut Keep<'_>,
) -> Result<Lsn> {
    if !remote.single_writer && !remote.probed {
        probe(objects)?;
        remote.probed = true;
    }
    settle(store, objects, remote, keep)?;
    for _ in 0..TRIES {
        let lineage = store.lineage();
        let known = remote.position.take().filter(|position| position.lineage == lineage);
        let position = match holding(store, known)? {
            // What it goes on from must be there still: another disk may be mounted by now, or an older copy.
            Some(position) if is_there(objects, &position)? => position,
            _ => locate(store, objects)?,
        };
        remote.position = Some(position.clone());
        let next = position.number + 1;
        let taken = match segment::send(store, objects, position.lsn(), how.piece)? {
            None => match chain::read(objects, next)? {
                None => return Ok(position.lsn()),
                Some(taken) => taken,
            },
            Some(sent) => {
                let mut manifest = Manifest {
                    tideline: VERSION,
                    number: next,
                    lineage: sent.lineage,
                    writer: random::id()?,
                    previous: position.hash,
                    time: how.now,
                    part: Part {
                        first: sent.range.first.get(),
                        last: sent.range.last.get(),
                        id: sent.id,
                        full: sent.full,
                        segments: sent.segments,
                    },
                    earlier: None,
                };
                if next.is_multiple_of(SUMMARY_EVERY) && !manifest.part.full {
                    manifest.earlier = earlier(objects, &position)?;
                }
                // If it dies now, or the answer gets lost, it knows its own again.
                remote.attempt = Some(hex::print(&manifest.writer));
                keep(remote)?;
                match chain::append(objects, &manifest)? {
                    Appended::Ours(hash) => {
                        let lsn = manifest.part.range().last;
                        remote.position = Some(Position::behind(&Link { manifest, hash }));
                        remote.attempt = None;
                        keep(remote)?;
                        chain::hint(objects, next);
                        return Ok(lsn);
                    }
                    Appended::Other(taken) => {
                        remote.attempt = None;
                        keep(remote)?;
                        taken
                    }
                }
            }
        };
        if taken.manifest.lineage != lineage && store.head() > Lsn::ZERO {
            return Err(foreign(objects));
        }
        if taken.manifest.lineage != lineage || !has(store, &taken.manifest.part)? {
            let behind = position.lsn() == store.head();
            return Err(if behind {
                let Part { first, last, .. } = taken.manifest.part;
                let text = format!(
                    "{} has LSN {first} to {last} from somebody else; get them with tide_pull()",
                    objects.url()
                );
                Error::new(Code::Diverged, text)
            } else {
                diverged(objects, &taken.manifest.part, position.lsn(), store.head())
            });
        }
        remote.position = Some(Position::behind(&taken));
        keep(remote)?;
    }
    let text = format!("others push to {} all the time; try again", objects.url());
    Err(Error::new(Code::Busy, text))
}

/// True if the manifest at a position is the one that was there.
fn is_there(objects: &Objects, position: &Position) -> Result<bool> {
    Ok(chain::read(objects, position.number)?.is_some_and(|link| link.hash == position.hash))
}

/// The parts up to a position, from the newest full one on.
fn earlier(objects: &Objects, position: &Position) -> Result<Option<Vec<Part>>> {
    let Some(link) = chain::read(objects, position.number)? else { return Ok(None) };
    chain::parts(objects, &link).map(Some)
}
