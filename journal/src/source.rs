//! Pages that a lazy clone doesn't have: they come from a source when they are read.
//!
//! ```text
//!   Snapshot ── a page of the base ──► Touched ──► Present: does the base have it? ──yes──► base
//!                                                    └──no──► PageSource: the image at the LSN of the clone
//! ```
//! The base of a lazy clone is that image, as far as pages of it are there, and what folds have written over it. A page
//! that it lacks hasn't changed since (invariant 2 of `present`), so the source has it as it is.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::error::{Code, Error, Result};
use crate::format::{Name, Superblock, Whole};
use crate::hash::page_hash;
use crate::lsn::Lsn;
use crate::present::{Present, REMEDY, lost};
use crate::snapshot::Snapshot;
use crate::state::lock_page;
use crate::store::{Opening, Store, read_superblock};
use crate::whole::read_whole;

/// The pages of one database at one LSN, which lie elsewhere.
pub trait PageSource: Send + Sync {
    /// Fills `to`, which is as long as a page, with the image of `page`, and has made sure that it is that. May block,
    /// until it is [`crate::interrupted`]. Of page 1, the bytes that are served mean nothing.
    ///
    /// # Errors
    /// Whatever it is, such as `Offline`: whoever reads the page gets it as it is. Asked again, it may do better.
    fn read(&self, page: u32, to: &mut [u8]) -> Result<()>;

    /// These pages will be read soon: gets them to where [`PageSource::read`] finds them quickly. May block; no lock of
    /// the store is held meanwhile.
    ///
    /// # Errors
    /// As [`PageSource::read`].
    fn prefetch(&self, pages: &[u32]) -> Result<()>;

    /// Fills `images`, one behind the other, with those of these pages, which rise. All are had together, and nobody is
    /// going to ask for them again. May block, as above.
    ///
    /// # Errors
    /// As [`PageSource::read`].
    fn read_many(&self, pages: &[u32], images: &mut [u8]) -> Result<()> {
        self.prefetch(pages)?;
        let size = images.len() / pages.len().max(1);
        pages.iter().zip(images.chunks_exact_mut(size.max(1))).try_for_each(|(&page, to)| self.read(page, to))
    }

    /// It is needed still, so that nothing of it may go. Given up once `stop` says so.
    ///
    /// # Errors
    /// As [`PageSource::read`].
    fn keep(&self, stop: &dyn Fn() -> bool) -> Result<()> {
        let _ = stop;
        Ok(())
    }

    /// Nothing of it is needed any more. What that comes to is its own affair.
    fn end(&self) {}
}

/// Makes sources of what a store keeps about its own.
pub trait Sources: Send + Sync {
    /// The source of `store` that `description` describes: the bytes that [`Store::begin_lazy`] was given. Asks nobody for
    /// anything yet.
    ///
    /// # Errors
    /// Whoever reads a page gets it; it is tried again then.
    fn open(&self, store: &Store, description: &[u8]) -> Result<Arc<dyn PageSource>>;

    /// Looks for the image that `page` of `store` had at `at`, with whoever has a copy of the same database: `fits` is
    /// asked about each image that there is, until it is the one. Returns who has that. May block; no lock of the store is
    /// held meanwhile. Of page 1, the bytes that are served mean nothing.
    ///
    /// # Errors
    /// Why somebody couldn't be asked, if nobody else has it.
    fn find(
        &self,
        store: &Store,
        page: u32,
        at: Lsn,
        fits: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<Option<String>> {
        let _ = (store, page, at, fits);
        Ok(None)
    }
}

/// What an open store has of a lazy clone.
pub(crate) struct Lazy {
    pub present: Present,
    description: Vec<u8>,
    sources: Option<Arc<dyn Sources>>,
    source: Mutex<Option<Arc<dyn PageSource>>>,
    /// Page 1, which every transaction looks at.
    first: OnceLock<Vec<u8>>,
}

impl Opening<'_> {
    /// What there is of a lazy clone; `None` of any other store.
    ///
    /// # Errors
    /// `Missing`, `Damaged` and `Format`, if its files aren't what they should be.
    pub fn lazy(&self, block: &Superblock) -> Result<Option<Lazy>> {
        if !block.lazy {
            return Ok(None);
        }
        match self.open_lazy() {
            // Another process has fetched the rest meanwhile, and removed them.
            Err(e) if e.code() == Code::Missing => match read_superblock(self.disk, self.side)? {
                Some(block) if !block.lazy => Ok(None),
                _ => Err(e),
            },
            opened => opened.map(Some),
        }
    }

    fn open_lazy(&self) -> Result<Lazy> {
        let path = self.side.join(Name::Source.to_string());
        let description = read_whole(self.disk, &path, Whole::SOURCE, REMEDY)?.ok_or_else(|| lost(&path))?;
        Ok(Lazy {
            present: Present::open(self.disk, self.side)?,
            description,
            sources: self.options.source.clone(),
            source: Mutex::default(),
            first: OnceLock::new(),
        })
    }
}

impl Lazy {
    /// The source, opened when it is first needed.
    pub fn source(&self, store: &Store) -> Result<Arc<dyn PageSource>> {
        let mut source = self.source.lock();
        if let Some(source) = &*source {
            return Ok(Arc::clone(source));
        }
        let sources = self.sources.as_ref().ok_or_else(|| {
            Error::new(
                Code::Denied,
                "a page of this lazy clone isn't here, and was to be read by who fetches none; open the database \
                 with the extension, or run tide_hydrate() there first",
            )
        })?;
        let opened = sources.open(store, &self.description)?;
        *source = Some(Arc::clone(&opened));
        Ok(opened)
    }
}

impl Store {
    /// These pages will be read soon: has those that the base lacks fetched to where they are found quickly.
    ///
    /// # Errors
    /// Those of the source.
    pub fn prefetch(&self, pages: &[u32]) -> Result<()> {
        match &self.lazy {
            Some(lazy) if !pages.is_empty() => lazy.source(self)?.prefetch(pages),
            _ => Ok(()),
        }
    }

    /// Tells the source of a lazy clone, if this is one, that it is needed still.
    ///
    /// # Errors
    /// Those of the source.
    pub fn keep_source(&self, stop: &dyn Fn() -> bool) -> Result<()> {
        match &self.lazy {
            Some(lazy) if self.is_lazy()? => lazy.source(self)?.keep(stop),
            _ => Ok(()),
        }
    }

    /// Pages of this size that are fetched at a time where all are asked for.
    pub(crate) fn fetched_at_once(&self, page_size: usize) -> usize {
        (self.options.fetch_bytes / page_size).max(1)
    }

    /// True if the base is that of a lazy clone, and lacks `page`.
    ///
    /// # Errors
    /// `Damaged` where that can't be told, `Io`.
    pub(crate) fn lacks(&self, page: u32) -> Result<bool> {
        match &self.lazy {
            None => Ok(false),
            Some(lazy) => lazy.present.has(page).map(|has| !has),
        }
    }

    /// True of a store that was opened as a lazy clone, whatever it lacks by now: reading it may take long.
    pub fn is_clone(&self) -> bool {
        self.lazy.is_some()
    }

    /// True if pages may have to come from a source.
    ///
    /// # Errors
    /// `Damaged` where that can't be told, `Io`.
    pub(crate) fn is_lazy(&self) -> Result<bool> {
        match &self.lazy {
            None => Ok(false),
            Some(lazy) => lazy.present.is_whole().map(|whole| !whole),
        }
    }

    /// Copies bytes of the image of `page`, from byte `at`, which the base lacks.
    ///
    /// # Errors
    /// Those of the source; `Damaged` if it can't be the one that the base should have.
    #[cold]
    pub(crate) fn read_absent(&self, page: u32, page_size: usize, at: usize, to: &mut [u8]) -> Result<()> {
        let Some(lazy) = &self.lazy else {
            return Err(Error::new(Code::Io, "no lazy clone, and a page is absent; report this as a bug"));
        };
        if let Some(first) = lazy.first.get().filter(|_| page == 1) {
            to.copy_from_slice(&first[at..at + to.len()]);
            return Ok(());
        }
        if page != 1 && at == 0 && to.len() == page_size {
            return self.fetch(lazy, page, to);
        }
        let mut image = vec![0; page_size];
        self.fetch(lazy, page, &mut image)?;
        to.copy_from_slice(&image[at..at + to.len()]);
        if page == 1 {
            lazy.first.get_or_init(|| image);
        }
        Ok(())
    }

    /// Fills `image` with a page that the base lacks.
    fn fetch(&self, lazy: &Lazy, page: u32, image: &mut [u8]) -> Result<()> {
        let header = &lazy.present.header;
        if page > header.size || image.len() != header.page_size as usize {
            let text = format!(
                "page {page} of {} is neither here nor at the source of this lazy clone; {REMEDY}",
                self.path.display()
            );
            return Err(Error::new(Code::Damaged, text));
        }
        lazy.source(self)?.read(page, image)?;
        self.compare_absent(lazy, page, image)
    }

    /// The images of these pages, one behind the other; they rise, and the base lacks them.
    pub(crate) fn fetch_many(&self, lazy: &Lazy, pages: &[u32]) -> Result<Vec<u8>> {
        let size = lazy.present.header.page_size as usize;
        let mut images = vec![0; pages.len() * size];
        if !pages.is_empty() {
            lazy.source(self)?.read_many(pages, &mut images)?;
        }
        for (&page, image) in pages.iter().zip(images.chunks_exact(size)) {
            self.compare_absent(lazy, page, image)?;
        }
        Ok(images)
    }

    /// Makes sure that an image from the source is what is known of a page that the base lacks.
    fn compare_absent(&self, lazy: &Lazy, page: u32, image: &[u8]) -> Result<()> {
        // What is known of the base is true of the image as well, as long as the page isn't in the base.
        if self.known_hash(page, image.len())?.is_some_and(|known| known != page_hash(page, image)) {
            // A fold notes the hash of what it brings before it says that the page is here.
            if self.control.fold_target() > self.control.base() || lazy.present.has(page)? {
                return Ok(());
            }
            let text = format!(
                "page {page} of {}, as its source has it, isn't what it was; run tide_verify, or {REMEDY}",
                self.path.display()
            );
            return Err(Error::new(Code::Damaged, text));
        }
        Ok(())
    }
}

/// Asks for pages ahead of whoever reads them all, in order.
#[derive(Default)]
pub(crate) struct Ahead {
    /// Pages below this were asked for.
    until: u64,
}

impl Ahead {
    /// Before `page` is read through `view`.
    ///
    /// # Errors
    /// Those of the source.
    pub fn reach(&mut self, store: &Store, view: &Snapshot, page: u32) -> Result<()> {
        let Some(lazy) = store.lazy.as_ref().filter(|_| u64::from(page) >= self.until) else { return Ok(()) };
        let size = view.state.page_size as usize;
        let last = view.state.size.min(page.saturating_add(store.fetched_at_once(size) as u32 - 1));
        self.until = u64::from(last) + 1;
        let mut wanted = Vec::new();
        for page in (page..=last).filter(|&page| page != lock_page(size)) {
            if view.is_in_base(page) && store.lacks(page)? {
                wanted.push(page);
            }
        }
        if wanted.is_empty() { Ok(()) } else { lazy.source(store)?.prefetch(&wanted) }
    }
}

/// The rolling checksum that a lazy clone knows from the beginning, with its LSN.
pub(crate) fn known_checksum(lazy: Option<&Lazy>) -> Option<(Lsn, u64)> {
    let header = &lazy?.present.header;
    header.checksum.map(|sum| (header.lsn, sum))
}
