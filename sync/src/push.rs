//! Pushing: what a remote doesn't have is put there, and becomes its next manifest.

use std::sync::Arc;

use bytes::Bytes;
use tideline_journal::{Code, Error, Lsn, Result, Store, random_id};

use crate::book::{Position, Remote};
use crate::cache::Cache;
use crate::chain::{self, Appended, Link};
use crate::hex;
use crate::images::ImageSegment;
use crate::library::fetch_index;
use crate::manifest::{Manifest, Part, VERSION, WHOLE_EVERY};
use crate::objects::Objects;
use crate::probe::probe;
use crate::runs::{self, Shelf};
use crate::segment;

/// How often somebody may have been faster with what this store has as well.
const TRIES: usize = 100;

/// A push of so many bytes brings the whole database as well.
const WHOLE_BYTES: u64 = 8 << 20;

/// Whether the store has the commit that a manifest ends with, and so everything before.
pub(crate) fn has(store: &Store, part: &Part) -> Result<bool> {
    Ok(store.identity(part.range().last)? == Some(part.id))
}

/// What is said where both sides have commits that the other hasn't.
pub(crate) fn diverged(objects: &Objects<'_>, part: &Part, position: Lsn, head: Lsn) -> Error {
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

/// What is said where the other side alone has commits that this one hasn't.
fn overtaken(objects: &Objects<'_>, part: &Part) -> Error {
    let Part { first, last, .. } = part;
    let text =
        format!("{} has LSN {first} to {last} from somebody else; get them with tide_pull()", objects.url());
    Error::new(Code::Diverged, text)
}

/// What is said where another database is.
pub(crate) fn foreign(objects: &Objects<'_>) -> Error {
    let text = format!(
        "{} holds another database; give a place of its own to this one, or clone that one",
        objects.url()
    );
    Error::new(Code::Foreign, text)
}

/// False if the store is known to have another commit there.
fn may_have(store: &Store, lsn: Lsn, id: u64) -> Result<bool> {
    Ok(store.identity(lsn)?.is_none_or(|own| own == id))
}

/// The position of a remote, if the store still has the commit there, as far as that is known. One before everything is
/// none: whoever pushes first decides what is there.
pub(crate) fn holding(store: &Store, remote: &Remote) -> Result<Option<Position>> {
    let ours = |p: &&Position| p.lineage == store.lineage() && p.number > 0 && p.lsn() <= store.head();
    let Some(position) = remote.position.as_ref().filter(ours) else { return Ok(None) };
    Ok(may_have(store, position.lsn(), position.id)?.then(|| position.clone()))
}

/// The newest manifest whose commits the store has as well, at a remote of which nothing is known; `None` if nothing was
/// pushed there.
///
/// # Errors
/// `Foreign` where another database is there; `Diverged`.
pub(crate) fn locate(store: &Store, objects: &Objects<'_>) -> Result<Option<Link>> {
    let Some(mut link) = chain::head(objects)? else { return Ok(None) };
    let head = link.manifest.part.clone();
    if link.manifest.lineage != store.lineage() {
        return Err(foreign(objects));
    }
    loop {
        if has(store, &link.manifest.part)? {
            return Ok(Some(link));
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
    objects: &Objects<'_>,
    remote: &mut Remote,
    keep: &mut Keep<'_>,
) -> Result<()> {
    let (Some(attempt), Some(position)) = (&remote.attempt, &remote.position) else { return Ok(()) };
    if let Some(link) = chain::read(objects, position.number + 1)? {
        let part = &link.manifest.part;
        let ours = hex::print(&link.manifest.writer) == *attempt;
        if ours && may_have(store, part.range().last, part.id)? {
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
    /// Number of a manifest that is known to be there: it was a moment ago.
    pub sure: Option<u64>,
}

/// Keeps what is known of a remote.
pub(crate) type Keep<'a> = dyn FnMut(&Remote) -> Result<()> + 'a;

/// Pushes what the remote doesn't have; returns the LSN that it has then.
///
/// # Errors
/// `Diverged` if somebody else was faster, `Foreign`, `Offline`, `Denied`.
pub(crate) fn push(
    store: &Arc<Store>,
    objects: &Objects<'_>,
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
        let position = standing(store, objects, remote, how)?;
        remote.position = Some(position.clone());
        let taken = match next(store, objects, remote, &position, how, keep)? {
            None => match chain::read(objects, position.number + 1)? {
                None => return Ok(position.lsn()),
                Some(taken) => taken,
            },
            Some(manifest) => {
                // If it dies now, or the answer gets lost, it knows its own again.
                remote.attempt = Some(hex::print(&manifest.writer));
                keep(remote)?;
                let appended = chain::append(objects, &manifest)?;
                remote.attempt = None;
                match appended {
                    Appended::Ours(hash) => {
                        let position = Position::behind(&Link { manifest, hash });
                        remote.position = Some(position.clone());
                        remote.uploading = false;
                        keep(remote)?;
                        chain::hint(objects, position.number);
                        return Ok(position.lsn());
                    }
                    Appended::Other(taken) => *taken,
                }
            }
        };
        keep(remote)?;
        let (theirs, head) = (&taken.manifest.part, store.head());
        if taken.manifest.lineage == lineage && has(store, theirs)? {
            remote.position = Some(Position::behind(&taken));
            continue;
        }
        return Err(if taken.manifest.lineage != lineage && head > Lsn::ZERO {
            foreign(objects)
        } else if position.lsn() == head {
            overtaken(objects, theirs)
        } else {
            diverged(objects, theirs, position.lsn(), head)
        });
    }
    let text = format!("others push to {} all the time; try again", objects.url());
    Err(Error::new(Code::Busy, text))
}

/// The newest manifest known whose commits the store has as well. It must be there still: another disk may be mounted by
/// now, or an older copy.
fn standing(store: &Store, objects: &Objects<'_>, remote: &Remote, how: How) -> Result<Position> {
    if let Some(position) = holding(store, remote)? {
        let there = how.sure == Some(position.number)
            || chain::read(objects, position.number)?.is_some_and(|link| link.hash == position.hash);
        if there {
            return Ok(position);
        }
    }
    let link = locate(store, objects)?;
    Ok(link.as_ref().map_or_else(|| Position::start(store.lineage()), Position::behind))
}

/// The manifest that comes behind a position, with what it names in the object store; `None` if there is nothing new.
fn next(
    store: &Arc<Store>,
    objects: &Objects<'_>,
    remote: &mut Remote,
    position: &Position,
    how: How,
    keep: &mut Keep<'_>,
) -> Result<Option<Manifest>> {
    if store.head() == position.lsn() {
        return Ok(None);
    }
    let number = position.number + 1;
    let (image, segments) = segment::send(store, objects, position.lsn(), how.piece)?;
    let state = image.state()?;
    let sent: u64 = segments.iter().flatten().map(|segment| segment.bytes).sum();
    let whole = segments.is_none() || number.is_multiple_of(WHOLE_EVERY) || sent >= WHOLE_BYTES;
    let runs = if whole {
        // A manifest that can't be read any more costs bytes, and nothing else.
        let before = match position.whole {
            0 => None,
            at => chain::read(objects, at)?.and_then(|link| link.manifest.runs),
        };
        let shelf = There { objects, resumed: remote.uploading };
        remote.uploading = true;
        keep(remote)?;
        runs::make(&image, before.as_ref(), segments.is_none(), &shelf)?
    } else {
        None
    };
    let whole = runs.is_some();
    let first = position.lsn + 1;
    Ok(Some(Manifest {
        tideline: VERSION,
        number,
        lineage: position.lineage,
        writer: random_id()?,
        previous: position.hash,
        time: how.now,
        whole: if whole { number } else { position.whole },
        runs,
        part: Part {
            first: if segments.is_none() { 1 } else { first },
            last: state.lsn.get(),
            id: state.id,
            full: segments.is_none(),
            segments: segments.unwrap_or_default(),
        },
    }))
}

/// Segments of images at a remote.
struct There<'a> {
    objects: &'a Objects<'a>,
    /// Somebody may have put some of them there, and died before the manifest.
    resumed: bool,
}

impl Shelf for There<'_> {
    fn pages(&self, segment: &ImageSegment) -> Result<Vec<u32>> {
        Ok(fetch_index(self.objects, &Cache::none(), segment)?.pages().collect())
    }

    fn put(&self, segment: &ImageSegment, bytes: Vec<u8>) -> Result<()> {
        if self.resumed && self.objects.is_there(&segment.name(), segment.bytes)? {
            return Ok(());
        }
        self.objects.put(&segment.name(), Bytes::from(bytes))
    }
}
