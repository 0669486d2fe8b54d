//! Whether an object store does what commits rely on: of all who create an object, one does.

use bytes::Bytes;
use tideline_journal::{Code, Error, Result, random_id};

use crate::hex;
use crate::objects::{Created, Objects};

/// Who create one object at once.
const RACERS: u8 = 8;

/// Puts an object there twice, and another one in several ways at once. Both are removed.
///
/// # Errors
/// `Denied` of a store that overwrites what it was asked to create; `Offline`.
pub(crate) fn probe(objects: &Objects<'_>) -> Result<()> {
    let id = random_id()?;
    let names = [1, 2].map(|n| format!("probe/{}-{n}", hex::print(&id)));
    let probed = probe_with(objects, &names);
    for name in &names {
        match objects.remove(name) {
            Err(e) if e.code() == Code::Interrupted => return Err(e),
            // Where nothing may be removed, they stay, and harm nobody.
            _ => {}
        }
    }
    probed
}

fn probe_with(objects: &Objects<'_>, names: &[String; 2]) -> Result<()> {
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
    let body = |n: u8| Bytes::from(vec![n; 64]);
    let [twice, raced] = names;
    match objects.create(twice, body(1))? {
        Created::New => {}
        Created::Taken => return Err(unsafe_store("says that an object is there that isn't")),
        Created::Unclear(why) => return Err(unclear(&why)),
    }
    match objects.create(twice, body(2))? {
        Created::Taken => {}
        Created::New => return Err(unsafe_store("overwrites an object that it was asked to create")),
        Created::Unclear(why) => return Err(unclear(&why)),
    }
    if objects.get(twice, 64)? != Some(body(1)) {
        return Err(unsafe_store(
            "overwrites an object that it was asked to create, and says that it didn't",
        ));
    }
    let contents: Vec<Bytes> = (1..=RACERS).map(body).collect();
    let (won, left) = objects.race(raced, &contents)?;
    match won[..] {
        [winner] if left.as_ref() == Some(&contents[winner]) => Ok(()),
        [] => Err(unclear("nobody created an object")),
        _ => Err(unsafe_store("lets several create one object at once")),
    }
}
