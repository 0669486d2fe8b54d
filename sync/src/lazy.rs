//! The pages that a lazy clone lacks, from the remote that it was cloned from.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use object_store::ObjectStore;
use serde::{Deserialize, Serialize};
use tideline_journal::{
    Clock, Code, Error, Lsn, Options, PageSource, RemotesFile, Result, Sources, Store, SystemClock,
    interrupted,
};

use crate::address::Address;
use crate::book::Book;
use crate::cache::Cache;
use crate::copies;
use crate::desk::{Desk, Open};
use crate::lease;
use crate::library::Library;
use crate::objects::Objects;
use crate::remotes::ORIGIN;
use crate::runs::Runs;
use crate::settings::Settings;

/// What a lazy clone keeps about its source.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Description {
    pub url: String,
    pub settings: Settings,
    pub runs: Runs,
    /// Number of the manifest whose runs they are.
    pub number: u64,
    /// What its lease is called, unless it doesn't stay.
    pub lease: Option<String>,
}

impl Description {
    pub fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|e| {
            Error::new(Code::Io, format!("a clone's source can't be written: {e}; report this as a bug"))
        })
    }

    fn decode(bytes: &[u8]) -> Result<Description> {
        let read: Description = serde_json::from_slice(bytes).map_err(|e| {
            let text =
                format!("the source of this clone can't be read ({e}); use a newer version, or clone anew");
            Error::new(Code::Format, text)
        })?;
        if read.runs.is_possible() {
            Ok(read)
        } else {
            Err(Error::new(Code::Damaged, "the source of this clone contradicts itself; clone anew"))
        }
    }
}

/// Finds the sources of lazy clones at their remotes.
pub struct RemotePages {
    open: Option<Arc<Open>>,
}

impl RemotePages {
    /// As remotes are usually reached.
    pub fn usual() -> RemotePages {
        RemotePages { open: None }
    }

    /// As somebody else reaches them, and nothing kept of what was fetched.
    pub(crate) fn by(open: Arc<Open>) -> RemotePages {
        RemotePages { open: Some(open) }
    }

    /// With object stores reached in another way, and nothing kept of what was fetched.
    pub fn through(
        open: impl Fn(&Address) -> Result<Arc<dyn ObjectStore>> + Send + Sync + 'static,
    ) -> RemotePages {
        RemotePages::by(Arc::new(move |address, _| open(address)))
    }

    /// The desk of a store; one that reaches remotes as this does, if it hasn't got one yet.
    fn desk(&self, store: &Store) -> Arc<Desk> {
        store.companion(|| self.open.clone().map_or_else(Desk::usual, Desk::new))
    }
}

impl Sources for RemotePages {
    fn open(&self, store: &Store, description: &[u8]) -> Result<Arc<dyn PageSource>> {
        let Description { url, settings, runs, number, lease } = Description::decode(description)?;
        let desk = self.desk(store);
        // The remote may be somewhere else by now. What is there is named by its hash, so it is the same.
        let mut leased = 0;
        if let Some(remote) = Book::load(store)?.remotes.iter().find(|remote| remote.name == ORIGIN) {
            leased = remote.leased;
            if desk.placed(ORIGIN).is_none() {
                desk.place(ORIGIN, &Address::parse(&remote.url)?, &remote.settings);
            }
        }
        let address = Address::parse(&url)?;
        let cache = if self.open.is_none() { cache(&settings) } else { Cache::none() };
        let (library, leased) = (Library::new(runs, cache), AtomicU64::new(leased));
        let book = store.remotes_file();
        Ok(Arc::new(Source { desk, book, address, settings, library, number, lease, leased }))
    }

    fn find(
        &self,
        store: &Store,
        page: u32,
        at: Lsn,
        fits: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<Option<String>> {
        copies::find(store, &self.desk(store), page, at, fits)
    }
}

/// How stores are opened whose pages may be at remotes.
pub fn store_options() -> Options {
    Options { source: Some(Arc::new(RemotePages::usual())), ..Options::default() }
}

/// The cache that a remote's settings ask for.
pub(crate) fn cache(settings: &Settings) -> Cache {
    Cache::new(settings.text("cache").map(PathBuf::from), settings.cache_limit())
}

/// A lazy clone's.
struct Source {
    desk: Arc<Desk>,
    /// Where it says where `origin` is.
    book: RemotesFile,
    address: Address,
    settings: Settings,
    library: Library,
    number: u64,
    /// What its lease is called, if it has one.
    lease: Option<String>,
    /// When that was last written, as far as this process knows, in milliseconds since 1970.
    leased: AtomicU64,
}

impl Source {
    /// Asks at one place.
    fn ask(
        &self,
        address: &Address,
        settings: &Settings,
        stop: &dyn Fn() -> bool,
        work: &mut dyn FnMut(&Objects<'_>) -> Result<()>,
    ) -> Result<()> {
        let objects = self.desk.objects(ORIGIN, address, settings, false, stop)?;
        let done = work(&objects);
        self.desk.count(ORIGIN, objects.take_traffic());
        // Credentials may be others by now.
        if done.as_ref().is_err_and(|e| e.code() == Code::Denied) {
            self.desk.lose(ORIGIN);
        }
        done
    }

    /// Where `origin` is now, if that isn't where it was when it was cloned from.
    fn moved(&self) -> Option<(Address, Settings)> {
        // Its key may be in another file by now, though it is where it was.
        let moved = |(address, settings): &(Address, Settings)| {
            !self.is_at(address, settings) || settings.key_at() != self.settings.key_at()
        };
        self.desk.placed(ORIGIN).filter(moved)
    }

    /// True if that is where it was cloned from.
    fn is_at(&self, address: &Address, settings: &Settings) -> bool {
        *address == self.address && settings.place() == self.settings.place()
    }

    /// Asks where `origin` is now, and where it was when it was cloned from, if only that has it.
    fn with(&self, mut work: impl FnMut(&Objects<'_>) -> Result<()>) -> Result<()> {
        let mut work = |objects: &Objects<'_>| {
            work(objects)?;
            // That it can't be written is no reason not to read.
            drop(self.renew(objects));
            Ok(())
        };
        match self.ask_around(&mut work) {
            // Another process may have moved it.
            Err(e) if is_elsewhere(&e) && self.look_up() => self.ask_around(&mut work),
            done => done,
        }
    }

    fn ask_around(&self, work: &mut dyn FnMut(&Objects<'_>) -> Result<()>) -> Result<()> {
        let Some((address, settings)) = self.moved() else {
            return self.ask(&self.address, &self.settings, &interrupted, work);
        };
        match self.ask(&address, &settings, &interrupted, work) {
            // Somebody pushes to another place than he cloned from.
            Err(e) if is_elsewhere(&e) => {
                self.ask(&self.address, &self.settings, &interrupted, work).map_err(|_| e)
            }
            done => done,
        }
    }

    /// Looks where `origin` is; true if it is somewhere else than was known.
    fn look_up(&self) -> bool {
        let Ok(mut book) = Book::load_from(&self.book) else { return false };
        let Ok(remote) = book.find(ORIGIN) else { return false };
        let Ok(address) = Address::parse(&remote.url) else { return false };
        let place = (address, remote.settings.clone());
        let known = self.desk.placed(ORIGIN);
        self.desk.place(ORIGIN, &place.0, &place.1);
        known.as_ref() != Some(&place)
    }

    /// Writes the lease where pages may be read from. One of both places is enough: they are had there.
    fn lease_everywhere(&self, ended: bool, stop: &dyn Fn() -> bool) -> Result<()> {
        let mut work = |objects: &Objects<'_>| self.lease(objects, ended);
        let Some((address, settings)) = self.moved() else {
            return self.ask(&self.address, &self.settings, stop, &mut work);
        };
        let there = self.ask(&address, &settings, stop, &mut work);
        // The same place, and its key elsewhere.
        if self.is_at(&address, &settings) {
            return there;
        }
        let here = self.ask(&self.address, &self.settings, stop, &mut work);
        if here.is_ok() { here } else { there }
    }

    fn lease(&self, objects: &Objects<'_>, ended: bool) -> Result<()> {
        match &self.lease {
            Some(lease) => lease::write(objects, lease, self.number, self.library.runs(), ended),
            None => Ok(()),
        }
    }

    /// Writes the lease again, if it is time.
    fn renew(&self, objects: &Objects<'_>) -> Result<()> {
        let (now, last) = (SystemClock.now_ms(), self.leased.load(Ordering::Relaxed));
        if now.abs_diff(last) >= lease::RENEWED_EVERY
            && self.leased.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            return self.lease(objects, false);
        }
        Ok(())
    }
}

/// Whether what was asked for may be had at another place.
fn is_elsewhere(e: &Error) -> bool {
    matches!(e.code(), Code::Missing | Code::Offline)
}

impl PageSource for Source {
    fn read(&self, page: u32, to: &mut [u8]) -> Result<()> {
        // What is here needs no remote.
        if self.library.read_cached(page, to)? {
            return Ok(());
        }
        self.with(|objects| self.library.read(objects, page, to))
    }

    fn prefetch(&self, pages: &[u32]) -> Result<()> {
        if self.library.has_all(pages) {
            return Ok(());
        }
        self.with(|objects| self.library.prefetch(objects, pages))
    }

    fn read_many(&self, pages: &[u32], images: &mut [u8]) -> Result<()> {
        let size = images.len() / pages.len().max(1);
        self.with(|objects| {
            let mut to = images.chunks_exact_mut(size.max(1));
            self.library.read_many(objects, pages, &mut |page, image| match to.next() {
                Some(to) if to.len() == image.len() => {
                    to.copy_from_slice(image);
                    Ok(())
                }
                _ => {
                    let text = format!("page {page} isn't as long as the others; report this as a bug");
                    Err(Error::new(Code::Io, text))
                }
            })
        })
    }

    fn keep(&self, stop: &dyn Fn() -> bool) -> Result<()> {
        self.lease_everywhere(false, stop)
    }

    fn end(&self) {
        self.leased.store(SystemClock.now_ms(), Ordering::Relaxed);
        // One that stays counts for a while, and no longer.
        drop(self.lease_everywhere(true, &interrupted));
    }
}
