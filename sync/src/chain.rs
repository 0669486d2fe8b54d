//! The chain of manifests: of all who create the next number, one does.

use bytes::Bytes;
use tideline_journal::{Code, Error, Result};

use crate::manifest::{Hash, LAST, Manifest, hash, name};
use crate::objects::{Created, Objects};

/// Where the number of a late manifest is. It may be behind, or gone: only a hint.
const HINT: &str = "hint";
/// Every so manieth push moves the hint; a newcomer looks for what is behind it.
const HINT_EVERY: u64 = 16;
/// No manifest is longer, in bytes.
const MANIFEST_LIMIT: u64 = 1 << 28;
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

/// The newest manifest; `None` where nothing was pushed. Numbers have no gaps, so that few requests find it.
pub(crate) fn head(objects: &Objects<'_>) -> Result<Option<Link>> {
    let hint = objects.get(HINT, 64)?;
    let hint = hint.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.trim().parse().ok());
    let hint = hint.filter(|&number: &u64| number <= LAST).unwrap_or(0);
    let mut newest = if hint > 0 { read(objects, hint)? } else { None };
    let number = |link: &Option<Link>| link.as_ref().map_or(0, |link| link.manifest.number);
    let mut step = 1;
    let mut missing = loop {
        let asked = number(&newest) + step;
        match read(objects, asked)? {
            Some(found) => newest = Some(found),
            None => break asked,
        }
        step *= 2;
    };
    while missing - number(&newest) > 1 {
        let middle = number(&newest) + (missing - number(&newest)) / 2;
        match read(objects, middle)? {
            Some(found) => newest = Some(found),
            None => missing = middle,
        }
    }
    Ok(newest)
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
            "{} of {} doesn't go on from the one before it: objects were replaced; put them back, or clone from another remote",
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
