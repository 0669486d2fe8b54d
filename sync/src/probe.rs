//! Whether an object store does what commits rely on: of all who create an object, one does.

use bytes::Bytes;
use tideline_journal::{Code, Error, Result, random_id};

use crate::hex;
use crate::objects::{Created, Objects, Raced};

/// Who create one object at once.
const RACERS: u8 = 8;

/// How many objects they create. The first time, their connections are only being made, and they may come one after the
/// other.
const RACES: usize = 4;
/// How long their objects are, in bytes. A store that looks whether there is one, and writes it when all of it has come,
/// is found out by few bytes three times of four, and by these nearly always.
const RACED_BYTES: usize = 16 << 10;

/// Puts an object there twice, and others in several ways at once. All are removed.
///
/// # Errors
/// `Denied` of a store that overwrites what it was asked to create; `Offline`.
pub(crate) fn probe(objects: &Objects<'_>) -> Result<()> {
    let id = random_id()?;
    let names: Vec<String> = (0..=RACES).map(|n| format!("probe/{}-{n}", hex::print(&id))).collect();
    let mut used = 0;
    let probed = probe_with(objects, names.iter().inspect(|_| used += 1));
    for name in &names[..used] {
        match objects.remove(name) {
            Err(e) if e.code() == Code::Interrupted => return Err(e),
            // Where nothing may be removed, they stay, and harm nobody.
            _ => {}
        }
    }
    probed
}

fn probe_with<'n>(objects: &Objects<'_>, mut names: impl Iterator<Item = &'n String>) -> Result<()> {
    let unsafe_store = |what: &str| {
        Error::new(
            Code::Denied,
            format!(
                "{} {what}, so two writers could both believe that they committed; use a store that honours create-if-absent, or say that nobody else will ever push there with json_object('single_writer', 1)",
                objects.url()
            ),
        )
    };
    let unclear = |why: &str| {
        let text =
            format!("{} didn't answer a probe ({why}); try again when it can be reached", objects.url());
        Error::new(Code::Offline, text)
    };
    let body = |n: u8, length: usize| Bytes::from(vec![n; length]);
    let Some(twice) = names.next() else { return Ok(()) };
    match objects.create(twice, body(1, 64))? {
        Created::New => {}
        // Nobody else has this name: it was created, and asked for once more after an answer that said otherwise.
        Created::Taken if objects.get(twice, 64)? == Some(body(1, 64)) => {}
        Created::Taken => return Err(unsafe_store("says that an object is there that isn't")),
        Created::Unclear(why) => return Err(unclear(&why)),
    }
    match objects.create(twice, body(2, 64))? {
        Created::Taken => {}
        Created::New => return Err(unsafe_store("overwrites an object that it was asked to create")),
        Created::Unclear(why) => return Err(unclear(&why)),
    }
    if objects.get(twice, 64)? != Some(body(1, 64)) {
        return Err(unsafe_store(
            "overwrites an object that it was asked to create, and says that it didn't",
        ));
    }
    let contents: Vec<Bytes> = (1..=RACERS).map(|n| body(n, RACED_BYTES)).collect();
    for raced in names {
        let Raced { won, unclear: why, left } = objects.race(raced, &contents)?;
        match won[..] {
            [winner] if left.as_ref() == Some(&contents[winner]) => {}
            [] => {
                return Err(unclear(
                    why.as_deref().unwrap_or("of several who created an object none was told so"),
                ));
            }
            _ => return Err(unsafe_store("lets several create one object at once")),
        }
    }
    Ok(())
}
