//! What a remote gives up of its history, in two steps.
//!
//! A push that brings the whole database says below which manifest nobody is to begin any more: that is part of the chain,
//! so all agree on it. A day later the next such push says that those may be removed. Then they are, the oldest first, a
//! few with each push: so whoever was in the middle of something has had a day to finish, and where a manifest is, all
//! later ones are.

use std::collections::HashSet;
use std::time::Duration;

use tideline_journal::{Result, Retention};

use crate::book::{Position, Remote};
use crate::chain;
use crate::lease::{self, Leases};
use crate::manifest::{Hash, Manifest, Part, Trimmed};
use crate::objects::Objects;
use crate::push::{How, Keep};
use crate::segment::name_of;

/// How long what is given up stays: a day.
pub(crate) const GRACE: Duration = Duration::from_secs(24 * 3600);
/// A commit that is so far ahead, in milliseconds, was made by a clock that was wrong: a day.
const WRONG_BY: u64 = 24 * 3600 * 1000;
/// How many manifests are removed at a time.
const AT_ONCE: u64 = 32;

/// What is given up with the manifest `number`, which has the whole database behind `part`, and goes on from `position`.
pub(crate) fn declare(
    objects: &Objects<'_>,
    retain: Option<Retention>,
    position: &Position,
    number: u64,
    part: &Part,
    How { now, grace, .. }: How<'_>,
) -> Result<Option<Trimmed>> {
    let before = position.trimmed;
    let Some(retain) = retain else { return Ok(before) };
    let grace = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    // Clocks of machines differ; the object store has one.
    let newest_written = chain::written(objects, position.number)?;
    if let Some(before) = before {
        let said = chain::written(objects, before.by)?;
        if newest_written.zip(said).is_none_or(|(newest, said)| newest < said.saturating_add(grace)) {
            return Ok(Some(before));
        }
    }
    let now = newest_written.map_or(now, |newest| newest.min(now));
    let old = before.map_or(1, |before| before.below);
    let newest = |is_so: &dyn Fn(&Manifest) -> Result<bool>| -> Result<u64> {
        let link = chain::newest_by(objects, old, position.number, is_so)?;
        Ok(link.map_or(old, |link| link.manifest.whole))
    };
    let below = match retain {
        Retention::None => number,
        Retention::Lsns(lsns) => newest(&|older| Ok(older.part.last <= part.last.saturating_sub(lsns)))?,
        Retention::Seconds(seconds) => {
            let since = now.saturating_sub(seconds.saturating_mul(1000));
            newest(&|older| Ok(made(objects, older, now)? <= since))?
        }
        // Settings allow no others.
        Retention::Default | Retention::Bytes(_) => old,
    };
    if below > old {
        return Ok(Some(Trimmed { below, by: number, removed: old }));
    }
    Ok(before.map(|before| Trimmed { removed: before.below, ..before }))
}

/// When what a manifest brought was committed, as far as that is known `now`, in milliseconds since 1970. A clock that was
/// far ahead says so of all that was committed later, too: then it is when that was pushed, by the later of two clocks.
fn made(objects: &Objects<'_>, manifest: &Manifest, now: u64) -> Result<u64> {
    let time = manifest.part.time;
    if time <= now.saturating_add(WRONG_BY) {
        return Ok(time);
    }
    let written = chain::written(objects, manifest.number)?;
    Ok(written.map_or(manifest.time, |written| written.max(manifest.time)).min(time))
}

/// Removes some of what was given up long enough ago: manifests, and the segments that only they name.
///
/// # Errors
/// `Offline`, `Denied`, `Damaged`: it goes on from there the next time.
pub(crate) fn sweep(objects: &Objects<'_>, remote: &mut Remote, now: u64, keep: &mut Keep<'_>) -> Result<()> {
    let Some(Trimmed { removed: end, .. }) = remote.position.as_ref().and_then(|p| p.trimmed) else {
        return Ok(());
    };
    if remote.swept >= end {
        return Ok(());
    }
    // Somebody else has come further.
    let Some(first) = chain::read(objects, end)? else { return Ok(()) };
    if remote.marked < end {
        chain::mark(objects, remote.marked, end)?;
        remote.marked = end;
        keep(remote)?;
    }
    let begin = match remote.swept {
        0 => chain::oldest(objects, end)?,
        swept => swept,
    };
    // By the object store's clock, which wrote the leases.
    let newest = remote.position.as_ref().map_or(end, |position| position.number);
    let now = chain::written(objects, newest)?.map_or(now, |newest| newest.min(now));
    let Leases { held: mut needed, over } = lease::all(objects, now)?;
    // What isn't in these runs is in no later ones: a segment that is made again has another salt.
    needed.extend(first.manifest.runs.iter().flat_map(|runs| runs.segments()).map(|segment| segment.hash));
    for (listed, lease) in over {
        // What newer manifests name goes with them.
        if lease.number < end {
            objects.remove_all(&names(lease.segments(), &needed))?;
        }
        objects.remove_listed(&listed.stored)?;
    }
    for number in begin..end.min(begin + AT_ONCE) {
        // The manifest goes last: it says what else is to go.
        if let Some(link) = chain::read(objects, number)? {
            let runs = link.manifest.runs.iter().flat_map(|runs| runs.segments()).map(|s| s.hash);
            let parts = link.manifest.part.segments.iter().map(|segment| segment.hash);
            objects.remove_all(&names(runs.chain(parts), &needed))?;
            chain::remove(objects, number)?;
        }
        remote.swept = number + 1;
    }
    keep(remote)
}

/// The names of those segments that aren't needed.
fn names(segments: impl Iterator<Item = Hash>, needed: &HashSet<Hash>) -> Vec<String> {
    segments.filter(|hash| !needed.contains(hash)).map(|hash| name_of(&hash)).collect()
}
