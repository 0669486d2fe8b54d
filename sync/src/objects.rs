//! Requests to an object store, one after another, in the thread that asks.

use std::cell::Cell;
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use tideline_journal::{Code, Error, Result, Traffic};
use tokio::runtime::{Builder, Runtime};

use crate::address::Address;

/// Whether an object that was to be created is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Created {
    /// It is, as it was given.
    New,
    /// There was one before, or another was faster. What is there isn't known.
    Taken,
    /// No answer came: it may be there, or come to be there.
    Unclear,
}

/// More than a probe has, in bytes.
const PROBE_LIMIT: u64 = 1 << 10;

/// The objects of one remote.
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    url: String,
    runtime: Runtime,
    traffic: Cell<Traffic>,
}

impl Objects {
    /// Those of `store`, which messages call by `url`.
    ///
    /// # Errors
    /// `Io` without the means to wait for answers.
    pub fn new(store: Arc<dyn ObjectStore>, url: &str) -> Result<Objects> {
        let runtime = Builder::new_current_thread().build().map_err(|e| {
            Error::new(Code::Io, format!("no runtime for requests: {e}; look at the system's limits"))
        })?;
        Ok(Objects { store, url: url.to_owned(), runtime, traffic: Cell::default() })
    }

    /// Those at an address.
    ///
    /// # Errors
    /// `Offline` if it isn't there; as [`Objects::new`].
    pub fn at(address: &Address) -> Result<Objects> {
        Objects::new(address.open()?, address.url())
    }

    /// What messages call the remote.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// What was asked so far.
    pub(crate) fn traffic(&self) -> Traffic {
        self.traffic.get()
    }

    fn count(&self, bytes: usize) {
        let Traffic { requests, bytes: before } = self.traffic.get();
        self.traffic.set(Traffic { requests: requests + 1, bytes: before + bytes as u64 });
    }

    fn failed(&self, what: &str, name: &str, error: &object_store::Error) -> Error {
        use object_store::Error as E;
        let (code, remedy) = match error {
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => {
                (Code::Denied, "see to its permissions, then try again")
            }
            E::NotFound { .. } => (Code::Missing, "put it back, or clone from another remote"),
            _ => (Code::Offline, "try again when the remote can be reached"),
        };
        Error::new(code, format!("{what} {name} of {}: {error}; {remedy}", self.url))
    }

    /// The object `name`, of up to `most` bytes; `None` if there is none.
    pub(crate) fn get(&self, name: &str, most: u64) -> Result<Option<Bytes>> {
        let path = Path::from(name);
        let got = self.runtime.block_on(async {
            let found = self.store.get(&path).await?;
            let size = found.meta.size;
            Ok(if size > most { Err(size) } else { Ok(found.bytes().await?) })
        });
        self.count(if let Ok(Ok(bytes)) = &got { bytes.len() } else { 0 });
        match got {
            Ok(Ok(bytes)) => Ok(Some(bytes)),
            Ok(Err(size)) => {
                let text = format!(
                    "{name} of {} has {size} bytes, and not at most {most}; put it back as it was, or clone from another remote",
                    self.url
                );
                Err(Error::new(Code::Damaged, text))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.failed("reading", name, &e)),
        }
    }

    /// Puts `bytes` where nothing else ever is: under their own hash, or where nobody relies on them.
    pub(crate) fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.count(bytes.len());
        let path = Path::from(name);
        let put = self.runtime.block_on(self.store.put(&path, PutPayload::from_bytes(bytes)));
        put.map(drop).map_err(|e| self.failed("writing", name, &e))
    }

    /// Puts `bytes` there unless something is there already.
    pub(crate) fn create(&self, name: &str, bytes: Bytes) -> Result<Created> {
        self.count(bytes.len());
        let path = Path::from(name);
        let options = PutOptions::from(PutMode::Create);
        let put = self.runtime.block_on(self.store.put_opts(&path, PutPayload::from_bytes(bytes), options));
        match put {
            Ok(_) => Ok(Created::New),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Ok(Created::Taken)
            }
            Err(
                e @ (object_store::Error::PermissionDenied { .. }
                | object_store::Error::Unauthenticated { .. }
                | object_store::Error::NotImplemented { .. }
                | object_store::Error::NotSupported { .. }),
            ) => Err(self.failed("creating", name, &e)),
            Err(_) => Ok(Created::Unclear),
        }
    }

    /// Removes the object, if it is there.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        self.count(0);
        let path = Path::from(name);
        match self.runtime.block_on(self.store.delete(&path)) {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(self.failed("removing", name, &e)),
        }
    }

    /// Creates the same object in so many ways at once; how many say that theirs is new, and what is there then.
    pub(crate) fn race(&self, name: &str, contents: &[Bytes]) -> Result<(Vec<usize>, Option<Bytes>)> {
        let path = Path::from(name);
        let won = self.runtime.block_on(async {
            let tasks: Vec<_> = contents
                .iter()
                .map(|content| {
                    let (store, path, content) = (Arc::clone(&self.store), path.clone(), content.clone());
                    self.runtime.spawn(async move {
                        let options = PutOptions::from(PutMode::Create);
                        store.put_opts(&path, PutPayload::from_bytes(content), options).await.is_ok()
                    })
                })
                .collect();
            let mut won = Vec::new();
            for (n, task) in tasks.into_iter().enumerate() {
                if task.await.unwrap_or(false) {
                    won.push(n);
                }
            }
            won
        });
        contents.iter().for_each(|content| self.count(content.len()));
        Ok((won, self.get(name, PROBE_LIMIT)?))
    }
}
