//! The chain of manifests: of all who create the next number, one does.

use bytes::Bytes;
use tideline_journal::{Code, Error, Result};

use crate::manifest::{Hash, LAST, Manifest, Part, hash, name};
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
    Other(Link),
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
    let Some(found) = read(objects, number)? else {
        let text = format!(
            "{} of {} is gone; put it back, or clone from another remote",
            name(number),
            objects.url()
        );
        return Err(Error::new(Code::Missing, text));
    };
    if found.hash != link.manifest.previous {
        return Err(broken(objects, link.manifest.number));
    }
    Ok(Some(found))
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

/// What somebody who has nothing needs to get to `head`, in order.
pub(crate) fn parts(objects: &Objects<'_>, head: &Link) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    let mut link = head.clone();
    loop {
        let full = link.manifest.part.full;
        parts.push(link.manifest.part.clone());
        if full {
            break;
        }
        if let Some(earlier) = &link.manifest.earlier {
            parts.extend(earlier.iter().rev().cloned());
            break;
        }
        match before(objects, &link)? {
            Some(found) => link = found,
            None => break,
        }
    }
    parts.reverse();
    match parts.first() {
        Some(part) if part.full => Ok(parts),
        _ => Err(broken(objects, head.manifest.number)),
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
            Created::Taken => {}
            Created::Unclear(why) => reason = why,
        }
        // Whatever the answer was: what is there decides.
        if let Some(found) = read(objects, manifest.number)? {
            return Ok(match found.manifest.writer == manifest.writer {
                true => Appended::Ours(found.hash),
                false => Appended::Other(found),
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
