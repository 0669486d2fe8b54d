//! Requests to an object store, one after another.

use std::cell::Cell;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use tideline_journal::{Code, Error, Result, Traffic};

use crate::address::{asks_the_machine, lacks_bucket, printed};
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

/// A part of an object.
#[derive(Clone, Debug)]
pub(crate) struct Stretch {
    pub name: String,
    /// Length of the whole object.
    pub len: u64,
    pub range: Range<u64>,
}

/// An object that was listed.
pub(crate) struct Listed {
    /// Where the store has it.
    pub place: String,
    /// When it was written, in milliseconds since 1970, by the store's clock.
    pub written: u64,
}

/// A way to an object store.
pub(crate) struct Reach {
    pub store: Arc<dyn ObjectStore>,
    /// What messages call it.
    pub url: String,
    pub wire: Arc<Wire>,
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

    /// What was asked since this was last asked.
    pub fn take_traffic(&self) -> Traffic {
        self.traffic.take()
    }

    fn count(&self, bytes: usize) {
        let mut traffic = self.traffic.get();
        traffic += Traffic { requests: 1, bytes: bytes as u64 };
        self.traffic.set(traffic);
    }

    fn failed(&self, what: &str, name: &str, error: &object_store::Error) -> Error {
        use object_store::Error as E;
        let cause = printed(error);
        let (code, remedy) = match error {
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => {
                (Code::Denied, "see to its permissions and credentials, then try again")
            }
            E::NotFound { .. } => (Code::Missing, "make the bucket or folder, or give another URL"),
            _ if asks_the_machine(&cause) => (
                Code::Offline,
                "no credentials were given, and those of this machine can't be had: give them with tide_remote(name, url, options) or in the environment, then try again",
            ),
            _ => (Code::Offline, "try again when the remote can be reached"),
        };
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
    pub fn get(&self, name: &str, most: u64) -> Result<Option<Bytes>> {
        let (store, path) = (Arc::clone(&self.reach.store), Path::from(name));
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

    /// Parts of objects, each shown with its number as it comes; some are asked for at once.
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
            let all = some.to_vec();
            let answers = self.ask("reading", &some[0].name, async move {
                let ask = |Stretch { name, range, .. }: Stretch| {
                    let store = Arc::clone(&store);
                    tokio::spawn(async move { store.get_range(&Path::from(name), range).await })
                };
                let tasks: Vec<_> = all.into_iter().map(ask).collect();
                let mut answers = Vec::new();
                for task in tasks {
                    answers.push(task.await);
                }
                answers
            })?;
            for (n, (Stretch { name, len, .. }, answer)) in some.iter().zip(answers).enumerate() {
                let broken = || Error::new(Code::Io, "a request ended in a panic; report this as a bug");
                let answer = answer.map_err(|_| broken())?;
                self.count(answer.as_ref().map_or(0, Bytes::len));
                match answer {
                    Ok(bytes) => take(begin + n, &bytes)?,
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
        Ok(self.length(name)? == Some(len))
    }

    fn length(&self, name: &str) -> Result<Option<u64>> {
        let (store, path) = (Arc::clone(&self.reach.store), Path::from(name));
        self.count(0);
        match self.ask("looking for", name, async move { store.head(&path).await })? {
            Ok(found) => Ok(Some(found.size)),
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
        self.count(bytes.len());
        let (store, path) = (Arc::clone(&self.reach.store), Path::from(name));
        let put = async move { store.put(&path, PutPayload::from_bytes(bytes)).await.map(drop) };
        self.ask("writing", name, put)?.map_err(|e| self.failed("writing", name, &e))
    }

    /// Puts `bytes` there unless something is there already.
    pub fn create(&self, name: &str, bytes: Bytes) -> Result<Created> {
        self.count(bytes.len());
        let put = create(Arc::clone(&self.reach.store), Path::from(name), bytes);
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
            // Nothing was asked of the store.
            Err(e) if asks_the_machine(&printed(&e)) => Err(self.failed("creating", name, &e)),
            Err(e) => Ok(Created::Unclear(printed(&e))),
        }
    }

    /// Removes the object, if it is there.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.count(0);
        let (store, path) = (Arc::clone(&self.reach.store), Path::from(name));
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
        let paths: Vec<_> = names.iter().map(|name| Ok(Path::from(name.as_str()))).collect();
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

    /// What is in a folder.
    pub fn list(&self, folder: &str) -> Result<Vec<Listed>> {
        let (store, path) = (Arc::clone(&self.reach.store), Path::from(folder));
        self.count(0);
        let listed: object_store::Result<Vec<_>> =
            self.ask("listing", folder, async move { store.list(Some(&path)).try_collect().await })?;
        let listed = listed.map_err(|e| self.failed("listing", folder, &e))?;
        let shown = |meta: object_store::ObjectMeta| {
            let written = u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or(0);
            Listed { place: meta.location.to_string(), written }
        };
        Ok(listed.into_iter().map(shown).collect())
    }

    /// An object that was listed, of up to `most` bytes; `None` if it is gone.
    pub fn get_listed(&self, listed: &Listed, most: u64) -> Result<Option<Bytes>> {
        self.get(&listed.place, most)
    }

    /// Removes an object that was listed.
    pub fn remove_listed(&self, listed: &Listed) -> Result<()> {
        self.remove(&listed.place)
    }

    /// Creates the same object in so many ways at once.
    pub fn race(&self, name: &str, contents: &[Bytes]) -> Result<Raced> {
        let (store, path) = (Arc::clone(&self.reach.store), Path::from(name));
        let all = contents.to_vec();
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
        contents.iter().for_each(|content| self.count(content.len()));
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
