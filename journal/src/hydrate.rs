//! Fetching what a lazy clone lacks, until it is a database like any other.
//!
//! Some pages at a time:
//! 1. they are fetched, into memory, with no lock held, while those before are written;
//! 2. under the fold lock, those that are still lacking are written into the base; the base is synced; their hashes are
//!    noted, and then that they are here (invariant 1 of `present`).
//!
//! When none is lacking, also under the fold lock: the rolling checksum is compared, if the base is what was cloned; the
//! superblock says that this is no lazy clone, which decides it; `present` says that the base is whole, for those who have
//! it open; both files go, and recovery removes them again.

use std::thread::ScopedJoinHandle;

use crate::error::{At, Code, Error, Result};
use crate::format::{Mark, Name};
use crate::hash::page_hash;
use crate::hashes::Hashes;
use crate::maintenance::block_signals;
use crate::source::Lazy;
use crate::state::State;
use crate::store::{MARK_BYTE, Store, base_header};

/// Fetches after which what is still lacking is counted anew, as others may fetch as well.
const RECOUNT: u64 = 64;

/// What writes pages that were fetched.
type Bringing<'scope> = ScopedJoinHandle<'scope, Result<u64>>;

/// How many it brought, when it is through.
fn brought_by(bringing: Bringing<'_>) -> Result<u64> {
    bringing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

impl Store {
    /// How many pages a lazy clone's base lacks, and of how many; `None` of any other store. As all processes see it.
    ///
    /// # Errors
    /// `Io`; `Damaged` where it can't be told.
    pub fn absent(&self) -> Result<Option<(u64, u64)>> {
        let Some(lazy) = &self.lazy else { return Ok(None) };
        let block = self.read_superblock()?;
        if !block.lazy {
            return Ok(None);
        }
        let base = block.base;
        Ok(Some((lazy.present.count_absent(&base)?, base.pages())))
    }

    /// Fetches what a lazy clone lacks, some MiB at a time, until nothing is lacking and it is a database like any
    /// other; of one that is already, nothing. After each time `go_on` is told how many pages of how many are here, and
    /// says whether to go on; what was fetched stays, and what is fetched by then is brought, too. Others may read, write,
    /// and do the same, meanwhile. Returns how many pages were brought.
    ///
    /// # Errors
    /// Those of the source; `Busy` while another process folds, or a reader holds up a fold that somebody has left;
    /// `Damaged`, `Full`, `Io`. What was fetched before stays.
    pub fn hydrate(&self, mut go_on: impl FnMut(u64, u64) -> bool) -> Result<u64> {
        self.check_process()?;
        let Some(lazy) = &self.lazy else { return Ok(0) };
        std::thread::scope(|scope| {
            // What was fetched is written while the next is fetched.
            let bring = |pages: Vec<u32>, images: Vec<u8>| -> Result<Bringing<'_>> {
                let thread = std::thread::Builder::new().name("tideline-hydrate".to_owned());
                let bringing = move || {
                    block_signals();
                    self.alone_folding(|| self.bring(lazy, &pages, &images))
                };
                thread.spawn_scoped(scope, bringing).at(|| "a thread to write what was fetched".to_owned())
            };
            self.hydrate_by(lazy, &bring, &mut go_on)
        })
    }

    /// The same; `bring` begins to write pages with their images.
    fn hydrate_by<'scope>(
        &self,
        lazy: &Lazy,
        bring: &dyn Fn(Vec<u32>, Vec<u8>) -> Result<Bringing<'scope>>,
        go_on: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<u64> {
        let most = self.fetched_at_once(lazy.present.header.page_size as usize);
        let (mut brought, mut from, mut rounds) = (0, 1, 0);
        let (mut here, mut of) = (0, 0);
        let mut under_way: Option<(u64, Bringing<'scope>)> = None;
        loop {
            let block = self.read_superblock()?;
            let pages = if block.lazy { lazy.present.absent(&block.base, from, most)? } else { Vec::new() };
            let images = self.fetch_many(lazy, &pages)?;
            if let Some((count, bringing)) = under_way.take() {
                brought += brought_by(bringing)?;
                here = of.min(here + count);
                if !go_on(here, of) {
                    return Ok(brought + brought_by(bring(pages, images)?)?);
                }
            }
            let block = self.read_superblock()?;
            if !block.lazy {
                return Ok(brought);
            }
            if self.control.fold_target() > block.base.lsn {
                // One that somebody has left may have noted hashes of pages that it didn't get to bring.
                self.alone_folding(|| self.wholly_folded())?;
            }
            if rounds % RECOUNT == 0 {
                let Some((absent, all)) = self.absent()? else { return Ok(brought) };
                (here, of) = (all - absent, all);
            }
            rounds += 1;
            let Some(&last) = pages.last() else {
                // Nothing is lacking from there on; if others have cut pages off meanwhile, nor before.
                if self.alone_folding(|| self.become_ordinary(lazy))? {
                    if let Ok(source) = lazy.source(self) {
                        source.end();
                    }
                    return Ok(brought);
                }
                (from, rounds) = (1, 0);
                continue;
            };
            from = last.saturating_add(1);
            under_way = Some((pages.len() as u64, bring(pages, images)?));
        }
    }

    /// Fetches these pages of a lazy clone, so that they are here from now on.
    ///
    /// # Errors
    /// As [`Store::hydrate`].
    pub fn fetch_here(&self, pages: &[u32]) -> Result<()> {
        self.check_process()?;
        let Some(lazy) = &self.lazy else { return Ok(()) };
        let size = lazy.present.header.page_size as usize;
        let mut images = vec![0; pages.len() * size];
        // What comes along is going to be read as well.
        lazy.source(self)?.prefetch(pages)?;
        for (&page, image) in pages.iter().zip(images.chunks_exact_mut(size)) {
            self.read_absent(page, size, 0, image)?;
        }
        self.alone_folding(|| self.bring(lazy, pages, &images)).map(drop)
    }

    /// Makes sure that no fold is half done. Under the fold lock.
    fn wholly_folded(&self) -> Result<()> {
        let index = self.current()?;
        if self.finish_begun(&index)? {
            return Ok(());
        }
        Err(Error::new(
            Code::Busy,
            "a reader holds up a fold that another process began; end its transaction, then try again",
        ))
    }

    /// Writes those of these pages into the base that it still lacks. Under the fold lock.
    fn bring(&self, lazy: &Lazy, pages: &[u32], images: &[u8]) -> Result<u64> {
        self.wholly_folded()?;
        let block = self.read_superblock()?;
        let base = block.base;
        let size = lazy.present.header.page_size as usize;
        if !block.lazy || base.page_size as usize != size {
            return Ok(0);
        }
        let here = || format!("writing {}", self.path.display());
        let mut written = Vec::new();
        let mut run: Vec<u8> = Vec::new();
        let flush = |next: u32, run: &mut Vec<u8>| {
            let at = u64::from(next - 1) * size as u64 - run.len() as u64;
            let done = self.base.write_at(run, at).at(here);
            run.clear();
            done
        };
        for (&page, image) in pages.iter().zip(images.chunks_exact(size)) {
            if page > base.size || lazy.present.has(page)? {
                continue;
            }
            if let Some(&(before, _)) = written.last() {
                if before + 1 != page {
                    flush(before + 1, &mut run)?;
                }
            }
            written.push((page, page_hash(page, image)));
            let at = run.len();
            run.extend_from_slice(image);
            if page == 1 {
                // While it lacks others it stays marked.
                let mark = Mark::of(&base_header(&*self.base)?);
                base.counters.serve(&mut run[at..], 0);
                run[at + 19] = MARK_BYTE;
                mark.put(&mut run[at..]);
            }
        }
        let Some(&(last, _)) = written.last() else { return Ok(0) };
        flush(last + 1, &mut run)?;
        self.base.sync().at(here)?;
        let hashes = Hashes::open(&*self.disk, &self.path, &self.side, base.page_size)?;
        hashes.set_many(&written)?;
        hashes.sync()?;
        let there: Vec<u32> = written.iter().map(|&(page, _)| page).collect();
        lazy.present.set(&there)?;
        Ok(there.len() as u64)
    }

    /// Compares what was fetched, all together, with the rolling checksum of what was cloned: each page may be sound, and
    /// one of another time or database among them all the same. Once the base has moved on, or while a hash of it isn't
    /// known, it can't be told.
    fn compare_with_source(&self, lazy: &Lazy, base: &State) -> Result<()> {
        let header = &lazy.present.header;
        let Some(stated) = header.checksum.filter(|_| header.lsn == base.lsn) else { return Ok(()) };
        let hashes = Hashes::open(&*self.disk, &self.path, &self.side, base.page_size)?;
        let Some(sum) = hashes.sum(base)? else { return Ok(()) };
        if sum == stated {
            return Ok(());
        }
        Err(Error::new(
            Code::Damaged,
            format!(
                "the pages fetched for {} aren't together what was cloned at LSN {} (rolling checksum {sum:016x} instead of \
                 {stated:016x}); run tide_verify(): if it has no finding, they are so at the source, and an earlier LSN is \
                 to be cloned, into another place",
                self.path.display(),
                base.lsn
            ),
        ))
    }

    /// Makes a lazy clone that lacks nothing a store like any other; false if it lacks something. Under the fold lock.
    fn become_ordinary(&self, lazy: &Lazy) -> Result<bool> {
        self.wholly_folded()?;
        let here = || format!("writing {}", self.path.display());
        {
            let _guard = self.lock_superblock()?;
            let mut block = self.read_superblock()?;
            if !block.lazy {
                return Ok(true);
            }
            if lazy.present.count_absent(&block.base)? > 0 {
                return Ok(false);
            }
            self.compare_with_source(lazy, &block.base)?;
            // The page that SQLite never uses may be the last.
            if self.base.len().at(here)? < block.base.bytes() {
                self.base.set_len(block.base.bytes()).at(here)?;
            }
            self.base.sync().at(here)?;
            block.lazy = false;
            self.write_superblock(&mut block)?;
            // In both slots: the other must not ask for files that are gone.
            self.write_superblock(&mut block)?;
            lazy.present.set_whole()?;
        }
        let gone = [Name::Source, Name::Present].map(|name| self.file_path(name));
        self.remove_all(gone.to_vec())?;
        Ok(true)
    }
}
