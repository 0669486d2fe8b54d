//! The chain of manifests: of all who create the next number, one does.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tideline_journal::{Clock, Code, Error, Result, SystemClock};

use crate::book::Position;
use crate::key;
use crate::manifest::{Hash, LAST, Manifest, Part, hash, name};
use crate::objects::{Created, Objects};
use crate::trim::GRACE;

/// Where the number of a late manifest is. It may be behind, or gone: only a hint.
pub(crate) const HINT: &str = "hint";
/// Every so manieth push moves the hint; a newcomer looks for what is behind it.
const HINT_EVERY: u64 = 16;
/// No manifest is longer, in bytes.
const MANIFEST_LIMIT: u64 = 1 << 28;
/// How long a manifest that was the newest counts as being there; much shorter than what is given up stays.
const SURE_FOR: Duration = Duration::from_secs(60);
/// What is in a waymark.
const SEEN: &[u8] = b"seen\n";
/// How often an object is created again whose fate isn't clear.
const TRIES: usize = 3;

/// A manifest, and the hash of its bytes.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub manifest: Manifest,
    pub hash: Hash,
}

/// Who created the next manifest.
pub(crate) enum Appended {
    /// The caller.
    Ours(Hash),
    /// Somebody else.
    Other(Box<Link>),
}

/// The manifest `number`, if there is one yet.
pub(crate) fn read(objects: &Objects<'_>, number: u64) -> Result<Option<Link>> {
    let Some(bytes) = objects.get(&name(number), MANIFEST_LIMIT)? else { return Ok(None) };
    let manifest = Manifest::decode(&bytes, number)?;
    Ok(Some(Link { manifest, hash: hash(&bytes) }))
}

/// The newest manifest; `None` where nothing was pushed. Numbers have no gaps but at their beginning, where what was
/// given up has left some waymarks, so that few requests find it.
///
/// # Errors
/// `Denied` where something was, with a key that isn't known here.
pub(crate) fn head(objects: &Objects<'_>) -> Result<Option<Link>> {
    let hint = match objects.get(HINT, 64) {
        // It was tampered with. Nobody needs it.
        Err(e) if e.code() == Code::Damaged => None,
        got => got?,
    };
    let hint = hint.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.trim().parse().ok());
    let hint: Option<u64> = hint.filter(|number| (1..=LAST).contains(number));
    // Where one is, all later ones are.
    let newest = match hint {
        Some(number) if objects.exists(&name(number))? => furthest(objects, number)?,
        _ => search(objects)?,
    };
    if newest == 0 {
        return key::nothing_hidden(objects).map(|()| None);
    }
    read(objects, newest)?.ok_or_else(|| gone(objects, newest)).map(Some)
}

/// The number of the newest manifest, from one that is there.
fn furthest(objects: &Objects<'_>, there: u64) -> Result<u64> {
    let (mut newest, mut step) = (there, 1);
    let mut missing = loop {
        let asked = newest + step;
        if !objects.exists(&name(asked))? {
            break asked;
        }
        newest = asked;
        step *= 2;
    };
    while missing - newest > 1 {
        let middle = newest + (missing - newest) / 2;
        if objects.exists(&name(middle))? {
            newest = middle;
        } else {
            missing = middle;
        }
    }
    Ok(newest)
}

/// The number of the newest manifest, of which nothing is known; 0 where there is none.
fn search(objects: &Objects<'_>) -> Result<u64> {
    search_by(&|number| was_there(objects, number))
}

/// The largest number that was there, as all before it were: found digit by digit, in binary, from the first on.
fn search_by(was_there: &dyn Fn(u64) -> Result<bool>) -> Result<u64> {
    if !was_there(1)? {
        return Ok(0);
    }
    let mut digit = 1;
    while digit < LAST && was_there(digit * 2)? {
        digit *= 2;
    }
    let mut newest = digit;
    while digit > 1 {
        digit /= 2;
        if was_there(newest | digit)? {
            newest |= digit;
        }
    }
    Ok(newest)
}

/// Whether the manifest `number` is there, or a waymark says that it was. Of the first, one of both holds for ever.
fn was_there(objects: &Objects<'_>, number: u64) -> Result<bool> {
    Ok(objects.exists(&name(number))? || objects.exists(&waymark(number))?)
}

/// Where it says that there was a manifest of that number.
pub(crate) fn waymark(number: u64) -> String {
    format!("seen/{number:020}")
}

/// Numbers below `bound` that whoever searches asks for: where the newest is `bound` or behind it, each answers that there
/// was a manifest.
fn waymarks(bound: u64) -> BTreeSet<u64> {
    let begins = (0..64).map(|digits| bound >> digits << digits);
    let powers = (0..63).map(|digits| 1 << digits);
    begins.chain(powers).filter(|number| (1..bound).contains(number)).collect()
}

/// Leaves the waymarks that are needed once manifests below `bound` are gone, but for those that are left for `before`.
pub(crate) fn mark(objects: &Objects<'_>, before: u64, bound: u64) -> Result<()> {
    let there = waymarks(before);
    for number in waymarks(bound).difference(&there) {
        objects.put(&waymark(*number), Bytes::from_static(SEEN))?;
    }
    Ok(())
}

/// Leaves a waymark for the manifest with the whole database up to a position, which is lost.
pub(crate) fn mark_lost(objects: &Objects<'_>, position: &Position) -> Result<()> {
    objects.put(&waymark(position.whole), Bytes::from_static(SEEN))
}

/// The newest manifest from `first` to `last` that `is_so`, as all those before it are.
pub(crate) fn newest(
    objects: &Objects<'_>,
    first: u64,
    last: u64,
    is_so: &dyn Fn(&Part) -> bool,
) -> Result<Option<Link>> {
    newest_by(objects, first, last, &|manifest| Ok(is_so(&manifest.part)))
}

/// The same, where more than its part tells.
pub(crate) fn newest_by(
    objects: &Objects<'_>,
    first: u64,
    last: u64,
    is_so: &dyn Fn(&Manifest) -> Result<bool>,
) -> Result<Option<Link>> {
    let (mut low, mut high, mut found) = (first, last, None);
    while low <= high {
        let middle = low + (high - low) / 2;
        let link = read(objects, middle)?.ok_or_else(|| gone(objects, middle))?;
        if is_so(&link.manifest)? {
            (found, low) = (Some(link), middle + 1);
        } else {
            high = middle - 1;
        }
    }
    Ok(found)
}

/// The number of the oldest manifest that is there, up to `last`, which is.
pub(crate) fn oldest(objects: &Objects<'_>, last: u64) -> Result<u64> {
    let (mut low, mut high) = (1, last);
    while low < high {
        let middle = low + (high - low) / 2;
        if objects.exists(&name(middle))? {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(low)
}

/// When a manifest was written, by the object store's clock, in milliseconds since 1970; `None` if it isn't there.
pub(crate) fn written(objects: &Objects<'_>, number: u64) -> Result<Option<u64>> {
    objects.written(&name(number))
}

/// Removes a manifest; those before it are gone already.
pub(crate) fn remove(objects: &Objects<'_>, number: u64) -> Result<()> {
    objects.remove(&name(number))
}

/// What is behind a position.
pub(crate) enum Behind {
    /// Nothing: it is the newest.
    Nothing,
    /// The manifest that goes on from there.
    Next(Box<Link>),
    /// It isn't where it was: it was given up, or something else is there now.
    Gone,
}

/// Looks what is behind a position, of which it may be `known` that it is still there.
pub(crate) fn behind(objects: &Objects<'_>, position: &Position, sure: &Sure, known: bool) -> Result<Behind> {
    // In this order: the oldest are removed first. So if the position is there after it was seen that the next isn't, there
    // was none yet.
    if let Some(next) = read(objects, position.number + 1)? {
        let Manifest { number, previous, lineage, time, .. } = next.manifest;
        if previous != position.hash || lineage != position.lineage {
            // Who creates the next looks at the one before: what doesn't go on from one that is there is from elsewhere.
            let stays = position.number > 0 && is_at(objects, position)?;
            return if stays { Err(broken(objects, number)) } else { Ok(Behind::Gone) };
        }
        if u128::from(SystemClock.now_ms().abs_diff(time)) < GRACE.as_millis() / 2 {
            sure.note(number, false);
        }
        return Ok(Behind::Next(Box::new(next)));
    }
    if known {
        return Ok(Behind::Nothing);
    }
    let there = match position.number {
        0 => head(objects)?.is_none(),
        _ => is_at(objects, position)?,
    };
    if there {
        sure.note(position.number, true);
    }
    Ok(if there { Behind::Nothing } else { Behind::Gone })
}

/// Whether the manifest of a position is there, and that one.
fn is_at(objects: &Objects<'_>, position: &Position) -> Result<bool> {
    Ok(read(objects, position.number)?.is_some_and(|link| link.hash == position.hash))
}

/// Whether whoever begins with the first manifest comes as far as a position. That the one with the whole database is lost is
/// one thing: it may be one that is asked for. But if it was all that there was before, everything is gone.
pub(crate) fn leads_to(objects: &Objects<'_>, position: &Position) -> Result<bool> {
    let passed_over = position.whole.max(2) < position.number;
    let asked = |number| Ok(passed_over && number == position.whole || was_there(objects, number)?);
    Ok(search_by(&asked)? >= position.number)
}

/// Whether the manifest that was created behind `position` goes on from there: the position is there, so that nothing
/// behind it was removed, and the number was never taken before.
pub(crate) fn went_on(objects: &Objects<'_>, position: &Position) -> Result<bool> {
    match position.number {
        0 => objects.exists(&waymark(1)).map(|was_there| !was_there),
        number => objects.exists(&name(number)),
    }
}

/// When something was seen, by both clocks: one stands still while a machine sleeps, the other is set.
#[derive(Clone, Copy, Debug)]
struct Seen(Instant, SystemTime);

impl Seen {
    fn now() -> Seen {
        Seen(Instant::now(), SystemTime::now())
    }

    fn is_fresh(&self) -> bool {
        // A clock that was set back says nothing.
        self.0.elapsed() < SURE_FOR && self.1.elapsed().is_ok_and(|elapsed| elapsed < SURE_FOR)
    }
}

/// What is noted of a chain.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Noted {
    /// A manifest's number, and whether it was the newest.
    manifest: Option<(u64, bool, Seen)>,
    /// When what is before it was seen.
    root: Option<Seen>,
}

/// A manifest that was there a moment ago.
#[derive(Debug, Default)]
pub(crate) struct Sure(Cell<Noted>);

impl Sure {
    /// What was noted before.
    pub fn since(noted: Noted) -> Sure {
        Sure(Cell::new(noted))
    }

    /// Of a folder, which is looked at each time: so nothing is created there but behind what is there.
    pub fn of_folder() -> Sure {
        let sure = Sure::default();
        sure.note_root();
        sure
    }

    fn fresh(&self, number: u64) -> Option<bool> {
        let (_, newest, _) =
            self.0.get().manifest.filter(|(noted, _, seen)| *noted == number && seen.is_fresh())?;
        Some(newest)
    }

    /// Whether `number` was the newest: nothing behind it can have been given up since.
    pub fn newest(&self, number: u64) -> bool {
        self.fresh(number) == Some(true)
    }

    /// Whether it was there, and young by this machine's clock. That is enough for who only follows.
    pub fn there(&self, number: u64) -> bool {
        self.fresh(number).is_some()
    }

    /// Notes that it was there, or made, and whether it was the newest.
    pub fn note(&self, number: u64, newest: bool) {
        self.0.set(Noted { manifest: Some((number, newest, Seen::now())), ..self.0.get() });
    }

    /// Whether what is before it was seen.
    pub fn rooted(&self) -> bool {
        self.0.get().root.is_some_and(|seen| seen.is_fresh())
    }

    /// Notes that what is before it was seen.
    pub fn note_root(&self) {
        self.0.set(Noted { root: Some(Seen::now()), ..self.0.get() });
    }

    /// Knows nothing any more.
    pub fn forget(&self) {
        self.0.take();
    }

    /// What is noted.
    pub fn noted(&self) -> Noted {
        self.0.get()
    }
}

/// The manifest before `link`; `None` before the first.
///
/// # Errors
/// `Missing`; `Damaged` if it isn't the one that `link` goes on from.
pub(crate) fn before(objects: &Objects<'_>, link: &Link) -> Result<Option<Link>> {
    let number = link.manifest.number - 1;
    if number == 0 {
        return Ok(None);
    }
    let found = read(objects, number)?.ok_or_else(|| gone(objects, number))?;
    if found.hash != link.manifest.previous {
        return Err(broken(objects, link.manifest.number));
    }
    Ok(Some(found))
}

fn gone(objects: &Objects<'_>, number: u64) -> Error {
    let text =
        format!("{} of {} is gone; put it back, or clone from another remote", name(number), objects.url());
    Error::new(Code::Missing, text)
}

/// What is said of a manifest that doesn't go on from the one before it.
pub(crate) fn broken(objects: &Objects<'_>, number: u64) -> Error {
    Error::new(
        Code::Damaged,
        format!(
            "{} of {} doesn't go on from the one before it: objects were replaced, or left from before; put them back, clone from another remote, or empty the place and begin anew with tide_remote(name, NULL), then tide_remote(name, url, options)",
            name(number),
            objects.url()
        ),
    )
}

/// The newest manifest that has the whole database, up to `link`.
///
/// # Errors
/// `Missing`, `Damaged`.
pub(crate) fn whole(objects: &Objects<'_>, link: &Link) -> Result<Link> {
    let number = link.manifest.whole;
    if number == link.manifest.number {
        return Ok(link.clone());
    }
    let found = read(objects, number)?.ok_or_else(|| gone(objects, number))?;
    if found.manifest.lineage == link.manifest.lineage && found.manifest.runs.is_some() {
        Ok(found)
    } else {
        Err(broken(objects, link.manifest.number))
    }
}

/// Creates the next manifest, or finds out who did.
///
/// # Errors
/// `Offline` if that doesn't get clear; it may be there then.
pub(crate) fn append(objects: &Objects<'_>, manifest: &Manifest) -> Result<Appended> {
    let bytes: Bytes = manifest.encode()?;
    let mut reason = String::new();
    for _ in 0..TRIES {
        match objects.create(&name(manifest.number), bytes.clone())? {
            Created::New => return Ok(Appended::Ours(hash(&bytes))),
            Created::Taken => {
                reason = format!("{} is said to be there, and not to be", name(manifest.number))
            }
            Created::Unclear(why) => reason = why,
        }
        // Whatever the answer was: what is there decides.
        if let Some(found) = read(objects, manifest.number)? {
            return Ok(match found.manifest.writer == manifest.writer {
                true => Appended::Ours(found.hash),
                false => Appended::Other(Box::new(found)),
            });
        }
    }
    let text = format!(
        "{} gives no clear answer to a push ({reason}); try again when it can be reached",
        objects.url()
    );
    Err(Error::new(Code::Offline, text))
}

/// Moves the hint if it is time. That it fails costs a newcomer some requests, and nothing else.
pub(crate) fn hint(objects: &Objects<'_>, number: u64) {
    if number.is_multiple_of(HINT_EVERY) {
        drop(objects.put(HINT, Bytes::from(number.to_string())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waymarks_lead_to_the_newest_wherever_what_is_there_begins() {
        for begins in 1..=130u64 {
            let marks = waymarks(begins);
            assert!(marks.len() <= 2 * 8, "{begins}: {marks:?}");
            for newest in begins..=140 {
                let found = search_by(&|n| Ok((begins..=newest).contains(&n) || marks.contains(&n)));
                assert_eq!(found.unwrap(), newest, "from {begins} on");
            }
        }
    }

    #[test]
    fn what_was_seen_before_a_machine_slept_is_not_sure() {
        let sure = Sure::default();
        assert!(!sure.newest(7) && !sure.there(7));
        sure.note(7, false);
        assert!(!sure.newest(7) && sure.there(7));
        sure.note(7, true);
        assert!(sure.newest(7) && !sure.newest(8));
        let seen = |wall| {
            let seen = Seen(Instant::now(), wall);
            Sure::since(Noted { manifest: Some((7, true, seen)), root: Some(seen) })
        };
        let now = SystemTime::now();
        assert!(seen(now).newest(7) && seen(now).rooted());
        assert!(!seen(now - SURE_FOR).newest(7), "the clock that goes on says that it was long ago");
        assert!(!seen(now - SURE_FOR).rooted());
        assert!(!seen(now + SURE_FOR).newest(7), "a clock that was set back says nothing");
    }

    #[test]
    fn marks_that_were_left_before_need_not_be_left_again() {
        for before in 1..80 {
            for bound in before..100 {
                let missing: Vec<_> = waymarks(bound).difference(&waymarks(before)).copied().collect();
                // Those that are missing are manifests that are still there then.
                assert!(missing.iter().all(|&number| number >= before), "{before} {bound}: {missing:?}");
            }
        }
    }
}
