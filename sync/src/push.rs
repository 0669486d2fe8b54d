//! Pushing: what a remote doesn't have is put there, and becomes its next manifest.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tideline_journal::{Code, Error, Lsn, Result, Retention, Store, random_id};

use crate::book::{Position, Remote, quoted};
use crate::cache::Cache;
use crate::chain::{self, Appended, Behind, Link, Sure};
use crate::hex;
use crate::images::ImageSegment;
use crate::library::fetch_index;
use crate::manifest::{Manifest, Part, VERSION, WHOLE_AT_LAST, WHOLE_EVERY};
use crate::objects::Objects;
use crate::probe::probe;
use crate::runs::{self, Shelf};
use crate::segment::{self, Salt};
use crate::trim;

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
            "{} has LSN {} to {} from somebody else, and this database has LSN {} to {head} of its own; keep these with tide_export(path), then give them up with tide_clone(url, path, json_object('replace', 1)), or push to another place",
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
    let ours = remote.had(store.lineage()).filter(|position| position.lsn() <= store.head());
    let Some(position) = ours else { return Ok(None) };
    Ok(may_have(store, position.lsn(), position.id)?.then(|| position.clone()))
}

/// Refuses to begin at a place that is empty, and wasn't: what was kept there is gone, and somebody relies on it.
///
/// # Errors
/// `Missing`.
pub(crate) fn nothing_missed(store: &Store, objects: &Objects<'_>, remote: &Remote) -> Result<()> {
    remote.had(store.lineage()).map_or(Ok(()), |position| Err(missed(objects, remote, position)))
}

fn missed(objects: &Objects<'_>, remote: &Remote, position: &Position) -> Error {
    let (url, name) = (objects.url(), quoted(&remote.name));
    let text = format!(
        "{url} had this database up to LSN {}, and hasn't it any more: it was made anew, isn't mounted, or something removes objects there; put them back, or empty it and begin anew with tide_remote({name}, NULL), then tide_remote({name}, url, options)",
        position.lsn
    );
    Error::new(Code::Missing, text)
}

/// Where a store is at a remote of which it knows no position, or an old one.
pub(crate) enum Found {
    /// Nothing was pushed there.
    Nothing,
    /// The newest manifest whose commits the store has as well.
    At(Box<Link>),
    /// The newest manifest: what the store would go on from was given up there, and it has no commits of its own since.
    Ahead(Box<Link>),
}

/// Looks where a store is at a remote, of which it may know the position `known`.
///
/// # Errors
/// `Foreign` where another database is there; `Diverged`.
pub(crate) fn locate(store: &Store, objects: &Objects<'_>, known: Option<&Position>) -> Result<Found> {
    let Some(head) = chain::head(objects)? else { return Ok(Found::Nothing) };
    if head.manifest.lineage != store.lineage() {
        return Err(foreign(objects));
    }
    let (own, oldest) = (store.head(), head.manifest.oldest());
    let horizon = store.status()?.horizon;
    let is_older = |part: &Part| part.last <= own.get();
    let mut next = chain::newest(objects, oldest, head.manifest.number, &is_older)?;
    while let Some(link) = next {
        let part = &link.manifest.part;
        if has(store, part)? {
            return Ok(Found::At(Box::new(link)));
        }
        // Nothing is known here of what is below.
        next = match link.manifest.number > oldest && part.last >= horizon.get() {
            true => chain::before(objects, &link)?,
            false => None,
        };
    }
    let at = known.map_or(Lsn::ZERO, Position::lsn);
    let given_up = known.is_some_and(|known| known.number > 0 && known.number < oldest);
    if given_up && head.manifest.part.last > own.get() && !store.has_own_since(at)? {
        return Ok(Found::Ahead(Box::new(head)));
    }
    Err(diverged(objects, &head.manifest.part, at, own))
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
            remote.moved(&link);
        }
    }
    remote.attempt = None;
    // It may come to be there yet, and name what was made with this salt.
    remote.uploading = None;
    keep(remote)
}

/// How it is pushed.
#[derive(Clone, Copy)]
pub(crate) struct How<'a> {
    /// The time, in milliseconds since 1970.
    pub now: u64,
    /// About the length of a piece, in bytes.
    pub piece: u64,
    /// How long what is given up stays.
    pub grace: Duration,
    /// Which manifest is known to be the newest.
    pub sure: &'a Sure,
    /// What didn't work, beside what was asked for.
    pub trouble: &'a Cell<Option<Error>>,
}

/// Keeps what is known of a remote.
pub(crate) type Keep<'a> = dyn FnMut(&Remote) -> Result<()> + 'a;

/// Pushes what the remote doesn't have; returns the LSN that it has then.
///
/// # Errors
/// `Diverged` if somebody else was faster, `Foreign`, `Offline`, `Denied`; `Missing` where nothing is any more.
pub(crate) fn push(
    store: &Arc<Store>,
    objects: &Objects<'_>,
    remote: &mut Remote,
    how: How<'_>,
    keep: &mut Keep<'_>,
) -> Result<Lsn> {
    if !remote.single_writer && !remote.probed {
        probe(objects)?;
        remote.probed = true;
    }
    settle(store, objects, remote, keep)?;
    for _ in 0..TRIES {
        let lineage = store.lineage();
        let look = |position: &Position| {
            chain::behind(objects, position, how.sure, how.sure.newest(position.number))
        };
        let (position, seen) = standing(store, objects, remote, how)?;
        if let Some(Behind::Nothing) = seen {
            remote.part = 0;
        }
        remote.position = Some(position.clone());
        let taken = match seen {
            Some(Behind::Next(taken)) => *taken,
            seen => match next(store, objects, remote, &position, how, keep)? {
                None => match seen.map_or_else(|| look(&position), Ok)? {
                    Behind::Nothing => return Ok(position.lsn()),
                    Behind::Next(taken) => *taken,
                    Behind::Gone => continue,
                },
                Some(manifest) => {
                    // What was put there may have taken long.
                    if !how.sure.newest(position.number) {
                        match look(&position)? {
                            Behind::Nothing => {}
                            Behind::Next(_) | Behind::Gone => continue,
                        }
                    }
                    // If it dies now, or the answer gets lost, it knows its own again.
                    remote.attempt = Some(hex::print(&manifest.writer));
                    keep(remote)?;
                    let appended = chain::append(objects, &manifest)?;
                    remote.attempt = None;
                    match appended {
                        Appended::Ours(hash) => {
                            // The machine may have slept meanwhile, or an answer been late.
                            if !how.sure.newest(position.number) && !chain::went_on(objects, &position)? {
                                chain::remove(objects, manifest.number)?;
                                continue;
                            }
                            let link = Link { manifest, hash };
                            remote.moved(&link);
                            keep(remote)?;
                            how.sure.note(link.manifest.number, true);
                            chain::hint(objects, link.manifest.number);
                            return Ok(link.manifest.part.range().last);
                        }
                        Appended::Other(taken) if taken.manifest.previous == position.hash => *taken,
                        // What was sure isn't so.
                        Appended::Other(_) => {
                            how.sure.forget();
                            continue;
                        }
                    }
                }
            },
        };
        keep(remote)?;
        let (theirs, head) = (&taken.manifest.part, store.head());
        if taken.manifest.lineage == lineage && has(store, theirs)? {
            store.harden()?;
            remote.position = Some(position.and(&taken));
            continue;
        }
        return Err(if taken.manifest.lineage != lineage && head > Lsn::ZERO {
            foreign(objects)
        } else if position.lsn() == head || !store.has_own_since(position.lsn())? {
            overtaken(objects, theirs)
        } else {
            diverged(objects, theirs, position.lsn(), head)
        });
    }
    let text = format!("others push to {} all the time; try again", objects.url());
    Err(Error::new(Code::Busy, text))
}

/// The newest manifest known whose commits the store has as well, and what is behind it, if that was seen. It must be
/// there still: another disk may be mounted by now, or an older copy.
fn standing(
    store: &Store,
    objects: &Objects<'_>,
    remote: &mut Remote,
    how: How<'_>,
) -> Result<(Position, Option<Behind>)> {
    let holding = holding(store, remote)?;
    if let Some(position) = holding {
        if how.sure.newest(position.number) {
            return Ok((position, None));
        }
        match chain::behind(objects, &position, how.sure, false)? {
            Behind::Gone => {}
            seen => return Ok((position, Some(seen))),
        }
    }
    let found = locate(store, objects, remote.position.as_ref())?;
    if matches!(found, Found::Nothing) {
        nothing_missed(store, objects, remote)?;
    }
    remote.stand_elsewhere();
    match found {
        Found::Nothing => {
            how.sure.note(0, true);
            Ok((Position::start(store.lineage()), None))
        }
        Found::At(link) => Ok((Position::behind(&link), None)),
        Found::Ahead(link) => Err(overtaken(objects, &link.manifest.part)),
    }
}

/// The newest manifest with the whole database, up to a position.
enum Root {
    /// It is where it was: surely, if its hash was known.
    There { link: Box<Link>, surely: bool },
    /// It isn't there any more, or can't be read. That costs bytes, as all pages are put there anew, and nothing else.
    Lost,
    /// Another one is there.
    Anothers,
}

/// What is there of what a position builds upon.
fn root(store: &Store, objects: &Objects<'_>, position: &Position) -> Result<Root> {
    let link = match position.whole {
        0 => None,
        number => match chain::read(objects, number) {
            Err(e) if matches!(e.code(), Code::Damaged | Code::Format) => None,
            found => found?,
        },
    };
    let Some(link) = link else { return Ok(Root::Lost) };
    let surely = position.root != [0; 32];
    let part = &link.manifest.part;
    let own = match surely {
        true => link.hash == position.root,
        false => link.manifest.lineage == position.lineage && may_have(store, part.range().last, part.id)?,
    };
    Ok(if own { Root::There { link: Box::new(link), surely } } else { Root::Anothers })
}

/// Whether what is before a position is there, too: who was sure of his own newest manifest may have created it where
/// everything had just been removed, and would find it there ever after; and somebody else may have begun there since. A
/// newcomer begins with the newest runs, or with the first manifest.
fn is_rooted(store: &Store, objects: &Objects<'_>, position: &Position, sure: &Sure) -> Result<bool> {
    if sure.rooted() {
        return Ok(true);
    }
    let rooted = match position.number {
        // What comes is the root.
        0 => true,
        _ => match root(store, objects, position)? {
            // Who made it looked at what was before.
            Root::There { surely: true, .. } => true,
            Root::There { .. } | Root::Lost => chain::leads_to(objects, position)?,
            Root::Anothers => false,
        },
    };
    if rooted {
        sure.note_root();
    }
    Ok(rooted)
}

/// The manifest that comes behind a position, with what it names in the object store; `None` if there is nothing new.
fn next(
    store: &Arc<Store>,
    objects: &Objects<'_>,
    remote: &mut Remote,
    position: &Position,
    how: How<'_>,
    keep: &mut Keep<'_>,
) -> Result<Option<Manifest>> {
    if store.head() == position.lsn() {
        return Ok(None);
    }
    if !is_rooted(store, objects, position, how.sure)? {
        return Err(missed(objects, remote, position));
    }
    let number = position.number + 1;
    let retain = remote.settings.retention();
    // What isn't retained needn't be told apart.
    let each = retain != Some(Retention::None);
    let (image, segments) = segment::send(store, objects, position.lsn(), how.piece, each)?;
    let state = image.state()?;
    let sent: u64 = segments.iter().flatten().map(|segment| segment.bytes).sum();
    let (due, overdue) = (number - position.whole >= WHOLE_EVERY, number - position.whole >= WHOLE_AT_LAST);
    let whole = segments.is_none() || due || sent >= WHOLE_BYTES;
    let runs = if whole {
        // A manifest that can't be read any more costs bytes, and nothing else.
        let before = match root(store, objects, position)? {
            Root::There { link, .. } => link.manifest.runs,
            Root::Lost if position.number == 0 => None,
            Root::Lost if chain::leads_to(objects, position)? => {
                // A newcomer may ask for it.
                chain::mark_lost(objects, position)?;
                None
            }
            Root::Lost | Root::Anothers => return Err(missed(objects, remote, position)),
        };
        let begun = remote.uploading.as_deref().and_then(hex::parse);
        let salt = match begun {
            Some(salt) => salt,
            None => salt()?,
        };
        remote.uploading = Some(hex::print(&salt));
        keep(remote)?;
        let shelf = There { objects, resumed: begun.is_some() };
        runs::make(&image, before.as_ref(), segments.is_none() || overdue, salt, &shelf)?
    } else {
        None
    };
    let whole = runs.is_some();
    let part = Part {
        first: if segments.is_none() { 1 } else { position.lsn + 1 },
        last: state.lsn.get(),
        id: state.id,
        time: state.time,
        full: segments.is_none(),
        segments: segments.unwrap_or_default(),
    };
    let trimmed = match whole {
        // An old manifest that can't be read holds up what is given up, and no push.
        true => match trim::declare(objects, retain, position, number, &part, how) {
            Err(e) if matches!(e.code(), Code::Damaged | Code::Missing | Code::Denied | Code::Format) => {
                how.trouble.set(Some(e));
                position.trimmed
            }
            declared => declared?,
        },
        false => position.trimmed,
    };
    Ok(Some(Manifest {
        tideline: VERSION,
        number,
        lineage: position.lineage,
        writer: random_id()?,
        previous: position.hash,
        time: how.now,
        part,
        whole: if whole { number } else { position.whole },
        trimmed,
        runs,
    }))
}

/// A new one for segments of images.
fn salt() -> Result<Salt> {
    let mut salt = Salt::default();
    salt.copy_from_slice(&random_id()?[..8]);
    Ok(salt)
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

    fn go_on(&self) -> Result<()> {
        self.objects.go_on()
    }
}
