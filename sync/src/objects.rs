//! Requests to an object store, one after another. Where a remote is encrypted, names and bytes are plain above this.

use std::cell::Cell;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use tideline_journal::{Code, Error, Result, Traffic};

use crate::address::{asks_the_machine, disk_refused, lacks_bucket, printed, refuses_credentials};
use crate::seal::{Fault, Seal, covering, sealed_len};
use crate::wire::Wire;

/// Whether an object that was to be created is new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Created {
    /// It is, as it was given.
    New,
    /// There was one before, or another was faster. What is there isn't known.
    Taken,
    /// No answer came, for this reason: it may be there, or come to be there.
    Unclear(String),
}

/// Requests at once for parts of objects.
const AT_ONCE: usize = 8;

/// What came of an object that several created.
pub(crate) struct Raced {
    /// Who were told that theirs is new.
    pub won: Vec<usize>,
    /// Why somebody wasn't told anything.
    pub unclear: Option<String>,
    /// What is there then.
    pub left: Option<Bytes>,
}

/// An object that is there, as a store lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// What the store calls it; at an encrypted remote that isn't its name.
    pub stored: String,
    /// When it was put there by the store's clock, in milliseconds since 1970.
    pub last_modified: u64,
}

/// A part of an object.
#[derive(Clone, Debug)]
pub(crate) struct Stretch {
    pub name: String,
    /// Length of the whole object.
    pub len: u64,
    pub range: Range<u64>,
}

/// A way to an object store.
#[derive(Clone)]
pub(crate) struct Reach {
    pub store: Arc<dyn ObjectStore>,
    /// What messages call it.
    pub url: String,
    pub wire: Arc<Wire>,
    /// Of one that is encrypted.
    pub seal: Option<Arc<Seal>>,
}

/// The objects of one remote, for one task.
pub(crate) struct Objects<'a> {
    reach: Arc<Reach>,
    stop: &'a dyn Fn() -> bool,
    traffic: Cell<Traffic>,
}

impl<'a> Objects<'a> {
    /// Those reached by `reach`, until `stop` says so.
    pub fn new(reach: Arc<Reach>, stop: &'a dyn Fn() -> bool) -> Objects<'a> {
        Objects { reach, stop, traffic: Cell::default() }
    }

    /// What messages call the remote.
    pub fn url(&self) -> &str {
        &self.reach.url
    }

    /// Its names and keys, if it is encrypted.
    pub fn seal(&self) -> Option<&Seal> {
        self.reach.seal.as_deref()
    }

    /// What the store calls the object `name`.
    fn stored(&self, name: &str) -> String {
        self.seal().map_or_else(|| name.to_owned(), |seal| seal.stored(name))
    }

    fn path(&self, name: &str) -> Path {
        Path::from(self.stored(name))
    }

    /// What is stored of an object with these bytes.
    fn sealed(&self, name: &str, bytes: Bytes) -> Result<Bytes> {
        match self.seal() {
            Some(seal) => seal.seal(name, &bytes),
            None => Ok(bytes),
        }
    }

    /// How long an object with so many bytes is as it is stored.
    fn stored_len(&self, len: u64) -> u64 {
        if self.seal().is_some() { sealed_len(len) } else { len }
    }

    /// What was asked since this was last asked.
    pub fn take_traffic(&self) -> Traffic {
        self.traffic.take()
    }

    /// For work between requests that takes its time.
    ///
    /// # Errors
    /// `Interrupted` if it is to be given up.
    pub fn go_on(&self) -> Result<()> {
        if !(self.stop)() {
            return Ok(());
        }
        let text = format!("what was to go to {} was interrupted; try again", self.url());
        Err(Error::new(Code::Interrupted, text))
    }

    fn count(&self, bytes: usize) {
        let mut traffic = self.traffic.get();
        traffic += Traffic { requests: 1, bytes: bytes as u64 };
        self.traffic.set(traffic);
    }

    fn failed(&self, what: &str, name: &str, error: &object_store::Error) -> Error {
        use object_store::Error as E;
        let cause = printed(error);
        let (code, remedy) = disk_refused(error).unwrap_or_else(|| match error {
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => {
                (Code::Denied, "see to its permissions and credentials, then try again")
            }
            E::NotFound { .. } => (Code::Missing, "make the bucket or folder, or give another URL"),
            _ if refuses_credentials(&cause) => {
                (Code::Denied, "see to its permissions and credentials, then try again")
            }
            _ if asks_the_machine(&cause) => (
                Code::Offline,
                "no credentials were given, and those of this machine can't be had: give them with tide_remote(name, url, options) or in the environment, then try again",
            ),
            _ => (Code::Offline, "try again when the remote can be reached"),
        });
        Error::new(code, format!("{what} {name} of {}: {cause}; {remedy}", self.url()))
    }

    /// What a request comes to.
    fn ask<T: Send + 'static>(
        &self,
        what: &str,
        name: &str,
        request: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        self.reach.wire.wait(self.stop, request).ok_or_else(|| {
            let text = format!("{what} {name} of {} was interrupted; try again", self.url());
            Error::new(Code::Interrupted, text)
        })
    }

    /// The object `name`, of up to `most` bytes; `None` if there is none.
    ///
    /// # Errors
    /// `Damaged` of a longer one, and of one that isn't what was encrypted; `Offline`, `Denied`, `Missing`.
    pub fn get(&self, name: &str, most: u64) -> Result<Option<Bytes>> {
        self.get_stored(&self.stored(name), name, most)
    }

    /// One that was found by [`Objects::list`].
    ///
    /// # Errors
    /// As [`Objects::get`].
    pub fn get_listed(&self, stored: &str, most: u64) -> Result<Option<Bytes>> {
        self.get_stored(stored, stored, most)
    }

    /// One that isn't encrypted, whatever the others are.
    ///
    /// # Errors
    /// As [`Objects::get`].
    pub fn get_bare(&self, name: &str, most: u64) -> Result<Option<Bytes>> {
        self.fetch(name, name, most)
    }

    fn get_stored(&self, stored: &str, name: &str, most: u64) -> Result<Option<Bytes>> {
        let Some(bytes) = self.fetch(stored, name, self.stored_len(most))? else { return Ok(None) };
        let Some(seal) = self.seal() else { return Ok(Some(bytes)) };
        seal.open(stored, &bytes).map(|plain| Some(plain.into())).map_err(|fault| match fault {
            Fault::Damaged => {
                let text = format!(
                    "{name} of {} isn't what was encrypted there; put it back as it was, or clone from another remote",
                    self.url()
                );
                Error::new(Code::Damaged, text)
            }
            Fault::Newer => {
                let text = format!("{name} of {} is of a newer format; use a newer version", self.url());
                Error::new(Code::Format, text)
            }
        })
    }

    /// What is stored, of up to `most` bytes.
    fn fetch(&self, stored: &str, name: &str, most: u64) -> Result<Option<Bytes>> {
        let (store, path) = (Arc::clone(&self.reach.store), Path::from(stored));
        let got = self.ask("reading", name, async move {
            let found = store.get(&path).await?;
            let size = found.meta.size;
            Ok(if size > most { Err(size) } else { Ok(found.bytes().await?) })
        })?;
        self.count(if let Ok(Ok(bytes)) = &got { bytes.len() } else { 0 });
        match got {
            Ok(Ok(bytes)) => Ok(Some(bytes)),
            Ok(Err(size)) => {
                let text = format!(
                    "{name} of {} has {size} bytes, and not at most {most}; put it back as it was, or clone from another remote",
                    self.url()
                );
                Err(Error::new(Code::Damaged, text))
            }
            Err(e @ object_store::Error::NotFound { .. }) if !lacks_bucket(&printed(&e)) => Ok(None),
            Err(e) => Err(self.failed("reading", name, &e)),
        }
    }

    /// Parts of objects, each shown with its number as it comes; some are asked for at once. Of an encrypted one that
    /// isn't what it was nothing is shown. Their names are the hashes of what is in them: so nothing is needed but the
    /// parts.
    ///
    /// # Errors
    /// `Missing` of an object that isn't there, `Damaged` of one that has another length; `Offline`, `Denied`; those of
    /// `take`.
    pub fn get_ranges(
        &self,
        wanted: &[Stretch],
        take: &mut dyn FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        for (begin, some) in wanted.chunks(AT_ONCE).enumerate().map(|(n, some)| (n * AT_ONCE, some)) {
            let store = Arc::clone(&self.reach.store);
            let parts = some.iter().map(|Stretch { name, len, range }| {
                let range = if self.seal().is_some() { covering(*len, range) } else { range.clone() };
                (self.path(name), range)
            });
            let all: Vec<(Path, Range<u64>)> = parts.collect();
            let answers = self.ask("reading", &some[0].name, async move {
                let ask = |(path, range)| {
                    let store = Arc::clone(&store);
                    tokio::spawn(async move { store.get_range(&path, range).await })
                };
                let tasks: Vec<_> = all.into_iter().map(ask).collect();
                let mut answers = Vec::new();
                for task in tasks {
                    answers.push(task.await);
                }
                answers
            })?;
            for (n, (Stretch { name, len, range }, answer)) in some.iter().zip(answers).enumerate() {
                let broken = || Error::new(Code::Io, "a request ended in a panic; report this as a bug");
                let answer = answer.map_err(|_| broken())?;
                self.count(answer.as_ref().map_or(0, Bytes::len));
                match answer {
                    Ok(bytes) => match self.seal() {
                        None => take(begin + n, &bytes)?,
                        // What doesn't open is shown as nothing, which has no hash that anybody expects.
                        Some(seal) => {
                            let opened = seal.open_part(name, *len, range, &bytes).unwrap_or_default();
                            take(begin + n, &opened)?;
                        }
                    },
                    Err(object_store::Error::NotFound { .. }) => {
                        let text = format!(
                            "{name} of {} is gone; put it back, or clone from another remote",
                            self.url()
                        );
                        return Err(Error::new(Code::Missing, text));
                    }
                    // Some say so that there is nothing behind its end.
                    Err(e @ object_store::Error::Generic { .. }) if !self.is_there(name, *len)? => {
                        let text = format!(
                            "{name} of {} hasn't {len} bytes any more ({}); put it back as it was, or clone from another remote",
                            self.url(),
                            printed(&e)
                        );
                        return Err(Error::new(Code::Damaged, text));
                    }
                    Err(e) => return Err(self.failed("reading", name, &e)),
                }
            }
        }
        Ok(())
    }

    /// True if there is an object of this length.
    pub fn is_there(&self, name: &str, len: u64) -> Result<bool> {
        Ok(self.length(name)? == Some(self.stored_len(len)))
    }

    /// How long an object is as it is stored; `None` if there is none.
    pub fn length(&self, name: &str) -> Result<Option<u64>> {
        Ok(self.look(name)?.map(|found| found.size))
    }

    /// When it was written, by the store's clock, in milliseconds since 1970; `None` if there is none.
    pub fn written(&self, name: &str) -> Result<Option<u64>> {
        let found = self.look(name)?;
        Ok(found.map(|found| u64::try_from(found.last_modified.timestamp_millis()).unwrap_or(0)))
    }

    fn look(&self, name: &str) -> Result<Option<object_store::ObjectMeta>> {
        let (store, path) = (Arc::clone(&self.reach.store), self.path(name));
        self.count(0);
        match self.ask("looking for", name, async move { store.head(&path).await })? {
            Ok(found) => Ok(Some(found)),
            Err(e @ object_store::Error::NotFound { .. }) if !lacks_bucket(&printed(&e)) => Ok(None),
            Err(e) => Err(self.failed("looking for", name, &e)),
        }
    }

    /// True if there is such an object.
    pub fn exists(&self, name: &str) -> Result<bool> {
        Ok(self.length(name)?.is_some())
    }

    /// Puts `bytes` where nothing else ever is: under their own hash, or where nobody relies on them.
    pub fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        let bytes = self.sealed(name, bytes)?;
        self.count(bytes.len());
        let (store, path) = (Arc::clone(&self.reach.store), self.path(name));
        let put = async move { store.put(&path, PutPayload::from_bytes(bytes)).await.map(drop) };
        self.ask("writing", name, put)?.map_err(|e| self.failed("writing", name, &e))
    }

    /// Puts `bytes` there unless something is there already.
    pub fn create(&self, name: &str, bytes: Bytes) -> Result<Created> {
        let bytes = self.sealed(name, bytes)?;
        self.count(bytes.len());
        let put = create(Arc::clone(&self.reach.store), self.path(name), bytes);
        match self.ask("creating", name, put)? {
            Ok(()) => Ok(Created::New),
            Err(e) if is_taken(&e) => Ok(Created::Taken),
            Err(
                e @ (object_store::Error::NotFound { .. }
                | object_store::Error::PermissionDenied { .. }
                | object_store::Error::Unauthenticated { .. }
                | object_store::Error::NotImplemented { .. }
                | object_store::Error::NotSupported { .. }),
            ) => Err(self.failed("creating", name, &e)),
            // Nothing was asked of the store, or it says why it did nothing.
            Err(e)
                if asks_the_machine(&printed(&e))
                    || refuses_credentials(&printed(&e))
                    || disk_refused(&e).is_some() =>
            {
                Err(self.failed("creating", name, &e))
            }
            Err(e) => Ok(Created::Unclear(printed(&e))),
        }
    }

    /// Removes the object, if it is there.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.remove_stored(&self.stored(name), name)
    }

    /// Removes one that was found by [`Objects::list`].
    pub fn remove_listed(&self, stored: &str) -> Result<()> {
        self.remove_stored(stored, stored)
    }

    fn remove_stored(&self, stored: &str, name: &str) -> Result<()> {
        self.count(0);
        let (store, path) = (Arc::clone(&self.reach.store), Path::from(stored));
        match self.ask("removing", name, async move { store.delete(&path).await })? {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(self.failed("removing", name, &e)),
        }
    }

    /// Removes these objects, as far as they are there; some stores do so many by one request.
    pub fn remove_all(&self, names: &[String]) -> Result<()> {
        let Some(first) = names.first() else { return Ok(()) };
        self.count(0);
        let store = Arc::clone(&self.reach.store);
        let paths: Vec<_> = names.iter().map(|name| Ok(self.path(name))).collect();
        let removed = self.ask("removing", first, async move {
            let mut removed = store.delete_stream(stream::iter(paths).boxed());
            let mut failed = None;
            while let Some(one) = removed.next().await {
                match one {
                    Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(e) => failed = Some(e),
                }
            }
            failed.map_or(Ok(()), Err)
        })?;
        removed.map_err(|e| self.failed("removing", first, &e))
    }

    /// The objects whose names begin with `folder` and a slash, in no order. It is counted as one request, whatever the
    /// store makes of it.
    pub fn list(&self, folder: &str) -> Result<Vec<Listed>> {
        self.count(0);
        let stored = self.seal().map_or_else(|| folder.to_owned(), |seal| seal.stored_folder(folder));
        let (store, path) = (Arc::clone(&self.reach.store), Path::from(stored));
        let listed = self
            .ask("listing", folder, async move { store.list(Some(&path)).try_collect::<Vec<_>>().await })?;
        let found = match listed {
            Ok(found) => found,
            // A folder of a disk is made with the first object in it.
            Err(e @ object_store::Error::NotFound { .. }) if !lacks_bucket(&printed(&e)) => Vec::new(),
            Err(e) => return Err(self.failed("listing", folder, &e)),
        };
        let listed = |object: object_store::ObjectMeta| Listed {
            stored: object.location.into(),
            last_modified: u64::try_from(object.last_modified.timestamp_millis()).unwrap_or(0),
        };
        Ok(found.into_iter().map(listed).collect())
    }

    /// Creates the same object in so many ways at once.
    pub fn race(&self, name: &str, contents: &[Bytes]) -> Result<Raced> {
        let (store, path) = (Arc::clone(&self.reach.store), self.path(name));
        let all =
            contents.iter().map(|content| self.sealed(name, content.clone())).collect::<Result<Vec<_>>>()?;
        all.iter().for_each(|content| self.count(content.len()));
        let (won, unclear) = self.ask("creating", name, async move {
            let begin = |content| tokio::spawn(create(Arc::clone(&store), path.clone(), content));
            let tasks: Vec<_> = all.into_iter().map(begin).collect();
            let (mut won, mut unclear) = (Vec::new(), None);
            for (n, task) in tasks.into_iter().enumerate() {
                match task.await {
                    Ok(Ok(())) => won.push(n),
                    Ok(Err(e)) if !is_taken(&e) => unclear = Some(printed(&e)),
                    _ => {}
                }
            }
            (won, unclear)
        })?;
        let longest = contents.iter().map(Bytes::len).max().unwrap_or(0);
        Ok(Raced { won, unclear, left: self.get(name, longest as u64)? })
    }
}

/// Whether it says that the object was there.
fn is_taken(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. })
}

async fn create(store: Arc<dyn ObjectStore>, path: Path, bytes: Bytes) -> object_store::Result<()> {
    let options = PutOptions::from(PutMode::Create);
    store.put_opts(&path, PutPayload::from_bytes(bytes), options).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;

    const SEGMENT: &str = "segment/00/0011";

    /// Ways to the same store: as it is, and encrypted.
    fn reaches() -> (Arc<InMemory>, [Arc<Reach>; 2]) {
        let store = Arc::new(InMemory::new());
        let url = "file:///tmp".to_owned();
        let bare = Reach { store: Arc::clone(&store) as _, url, wire: Wire::new().unwrap(), seal: None };
        let seal = Some(Arc::new(Seal::new(&[1; 32], [2; 16])));
        let sealed = Reach { seal, ..bare.clone() };
        (store, [Arc::new(bare), Arc::new(sealed)])
    }

    #[test]
    fn what_is_listed_is_read_and_removed_encrypted_or_not() {
        let (_, reaches) = reaches();
        for reach in &reaches {
            let objects = Objects::new(Arc::clone(reach), &|| false);
            objects.put("manifest/1", Bytes::from_static(b"one")).unwrap();
            assert_eq!(objects.create("manifest/2", Bytes::from_static(b"two")).unwrap(), Created::New);
            objects.put(SEGMENT, Bytes::from_static(b"pages")).unwrap();
        }
        for reach in reaches {
            let objects = Objects::new(reach, &|| false);
            assert_eq!(objects.list("nothing").unwrap(), []);
            let segments = objects.list("segment").unwrap();
            assert_eq!(segments.len(), 1);
            assert!(segments[0].last_modified > 1_700_000_000_000);
            let mut listed = objects.list("manifest").unwrap();
            let read = |listed: &Listed| objects.get_listed(&listed.stored, 3).unwrap().unwrap();
            listed.sort_by_key(read);
            assert_eq!(listed.iter().map(read).collect::<Vec<_>>(), [&b"one"[..], b"two"]);
            objects.remove_listed(&listed[0].stored).unwrap();
            assert_eq!(objects.get("manifest/1", 3).unwrap(), None);
            assert_eq!(objects.list("manifest").unwrap(), listed[1..]);
            // As somebody who looks by its name.
            objects.remove("manifest/2").unwrap();
            assert_eq!(objects.get_listed(&listed[1].stored, 3).unwrap(), None);
        }
    }

    #[test]
    fn lengths_are_those_of_what_is_stored() {
        let (_, reaches) = reaches();
        for reach in reaches {
            let objects = Objects::new(reach, &|| false);
            objects.put(SEGMENT, Bytes::from(vec![7; 5000])).unwrap();
            assert!(objects.is_there(SEGMENT, 5000).unwrap());
            for other in [0, 4999, 5001] {
                assert!(!objects.is_there(SEGMENT, other).unwrap(), "{other}");
            }
            assert_eq!(objects.get(SEGMENT, 5000).unwrap(), Some(vec![7; 5000].into()));
            assert_eq!(objects.get(SEGMENT, 4999).unwrap_err().code(), Code::Damaged);
            assert!(!objects.is_there("segment/00/other", 5000).unwrap());
        }
    }

    #[test]
    fn a_part_that_was_changed_is_shown_as_nothing_and_a_whole_is_refused() {
        let (store, [_, reach]) = reaches();
        let objects = Objects::new(Arc::clone(&reach), &|| false);
        let plain: Vec<u8> = (0..10_000u32).map(|n| n.wrapping_mul(2_654_435_761) as u8).collect();
        objects.put(SEGMENT, plain.clone().into()).unwrap();
        let stretch = |range| Stretch { name: SEGMENT.to_owned(), len: 10_000, range };
        let wanted = [stretch(10..5000), stretch(9000..10_000)];
        let read = || {
            let mut got = vec![Vec::new(); 2];
            let mut take = |n: usize, bytes: &[u8]| {
                got[n] = bytes.to_vec();
                Ok(())
            };
            objects.get_ranges(&wanted, &mut take).map(|()| got)
        };
        assert!(read().unwrap() == [&plain[10..5000], &plain[9000..]]);
        let path = objects.path(SEGMENT);
        let put = |bytes: Vec<u8>| {
            let (store, path) = (Arc::clone(&store), path.clone());
            reach.wire.wait(&|| false, async move { store.put(&path, bytes.into()).await }).unwrap().unwrap();
        };
        let sealed = objects.fetch(path.as_ref(), SEGMENT, 1 << 20).unwrap().unwrap().to_vec();
        let mut changed = sealed.clone();
        changed[100] ^= 1;
        put(changed);
        assert!(read().unwrap() == [&b""[..], &plain[9000..]]);
        let refused = objects.get(SEGMENT, 10_000).unwrap_err();
        assert_eq!(refused.code(), Code::Damaged);
        assert!(refused.to_string().contains(SEGMENT) && refused.to_string().contains(objects.url()));
        put(sealed[..9000].to_vec());
        assert!(read().unwrap() == [&plain[10..5000], b""]);
        put(Vec::new());
        assert_eq!(read().unwrap_err().code(), Code::Damaged);
        objects.remove(SEGMENT).unwrap();
        assert_eq!(read().unwrap_err().code(), Code::Missing);
        let newer = [&b"TIDESEAL\x02\0\0\0"[..], &sealed[12..]].concat();
        put(newer);
        assert_eq!(objects.get(SEGMENT, 10_000).unwrap_err().code(), Code::Format);
    }
}
