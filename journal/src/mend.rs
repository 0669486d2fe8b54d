//! Mending: a page of the base that isn't what it was is written again from the journal, where that still has it, or as a
//! remote has it; and so is an image in the journal.
//!
//! It is safe while others have the database open. A page of the base that a snapshot reads doesn't change while the
//! base stays where it is, and the fold lock keeps it there: so whoever reads it meanwhile sees bytes that are right
//! already, or become so. What the page should be is said by the newest row for it up to the base's LSN, which is under
//! the checksum of a commit record. The sidecar's hash isn't under any; where the two differ, the row is right. An image from elsewhere is
//! taken if its hash is the one that is noted here, and so is never another version of the page.

use crate::control::Lock;
use crate::error::{At, Error, Result};
use crate::format::{Name, Row, Superblock};
use crate::hash::page_hash;
use crate::hashes::Hashes;
use crate::lsn::Lsn;
use crate::segment::Segment;
use crate::snapshot::hash_in_table;
use crate::store::{MARK_BYTE, Store};

/// What became of a page of the base.
pub(crate) enum Mended {
    /// It is as it was: it was written again, from this segment.
    Page(String),
    /// It was right, and the hash that is noted for it wasn't; now it is.
    Hash,
    /// Neither the journal nor anybody else has a sound image of it any more, or it isn't known what it was.
    Not,
    /// The journal hasn't, and this is why somebody else couldn't be asked.
    Unasked(Error),
    /// A fold is under way.
    Later,
}

impl Store {
    /// Makes the first page of the base what it should be, which whoever opens the database needs before anything can be
    /// asked for; true if that was done.
    ///
    /// # Errors
    /// As of the operating system, or as damaged as the page is.
    pub fn mend_first_page(&self) -> Result<bool> {
        Ok(matches!(self.mend(1)?, Mended::Page(_) | Mended::Hash))
    }

    /// Makes page `page` of the base what it should be, durably, if the journal says what that is, or a remote has it.
    ///
    /// # Errors
    /// Of the operating system.
    pub(crate) fn mend(&self, page: u32) -> Result<Mended> {
        match self.mending(|| self.mend_held(page))? {
            Mended::Not => self.mend_from_elsewhere(page),
            mended => Ok(mended),
        }
    }

    fn mend_from_elsewhere(&self, page: u32) -> Result<Mended> {
        let block = self.read_superblock()?;
        let size = block.base.page_size as usize;
        let Some(known) = self.known_hash(page, size)? else { return Ok(Mended::Not) };
        let here = page_hash(page, &self.base_image(page, size)?);
        // What is noted may be what is wrong.
        let right = |hash: u64| hash == known || hash == here;
        let (image, from) = match self.elsewhere(page, block.base.lsn, &right) {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(Mended::Not),
            Err(e) => return Ok(Mended::Unasked(e)),
        };
        self.mending(|| {
            let block = self.read_superblock()?;
            if self.control.fold_target() > block.base.lsn || page > block.base.size {
                return Ok(Mended::Later);
            }
            let hashes = Hashes::open(&*self.disk, &self.path, &self.side, block.base.page_size)?;
            let hash = page_hash(page, &image);
            if page_hash(page, &self.base_image(page, size)?) == hash {
                hashes.set(page, hash)?;
                hashes.sync()?;
                return Ok(Mended::Hash);
            }
            if hashes.get(page)? != Some(hash) {
                return Ok(Mended::Later);
            }
            self.write_base_again(&block, page, image)?;
            if let Some(lazy) = &self.lazy {
                lazy.present.set(&[page])?;
            }
            Ok(Mended::Page(from))
        })
    }

    /// The image of `page` at `at` that somebody else has and that has the right hash, and who that is.
    fn elsewhere(
        &self,
        page: u32,
        at: Lsn,
        right: &dyn Fn(u64) -> bool,
    ) -> Result<Option<(Vec<u8>, String)>> {
        let Some(sources) = &self.options.source else { return Ok(None) };
        let mut image = Vec::new();
        let found = sources.find(self, page, at, &mut |candidate| {
            let fits = right(page_hash(page, candidate));
            if fits {
                image = candidate.to_vec();
            }
            fits
        })?;
        Ok(found.map(|from| (image, from)))
    }

    /// A page of the base as it is there; zeros where it can't be read.
    fn base_image(&self, page: u32, size: usize) -> Result<Vec<u8>> {
        let mut image = vec![0; size];
        let read = self.base.read_at(&mut image, u64::from(page - 1) * size as u64);
        if read.is_err() {
            image.fill(0);
        }
        Ok(image)
    }

    /// Writes a page of the base, as it was there before. Under the fold lock.
    fn write_base_again(&self, block: &Superblock, page: u32, mut image: Vec<u8>) -> Result<()> {
        if page == 1 {
            block.base.counters.serve(&mut image, 0);
            if self.control.marked() {
                image[19] = MARK_BYTE;
                block.marked.put(&mut image);
            }
        }
        let offset = u64::from(page - 1) * image.len() as u64;
        let written = self.base.write_at(&image, offset).and_then(|()| self.base.sync());
        written.at(|| format!("writing {}", self.path.display()))
    }

    /// Writes the image of a row of the entry that ends with `lsn` again, where it is in `segment`, as somebody else has
    /// it.
    ///
    /// # Errors
    /// Of the operating system.
    pub(crate) fn mend_image(&self, segment: &Segment, row: &Row, lsn: Lsn) -> Result<Mended> {
        let (image, from) = match self.elsewhere(row.page, lsn, &|hash| hash == row.hash) {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(Mended::Not),
            Err(e) => return Ok(Mended::Unasked(e)),
        };
        self.mending(|| {
            // The file may be another segment by now; who makes it one has the fold lock.
            if self.control.horizon() >= lsn || self.segment_in_place(segment).is_err() {
                return Ok(Mended::Later);
            }
            let written = segment.file.write_at(&image, row.offset);
            written.at(|| format!("writing {}", segment.path.display()))?;
            segment.sync()?;
            Ok(Mended::Page(from))
        })
    }

    /// Does `work` under the fold lock, unless a fold is under way.
    fn mending(&self, work: impl FnOnce() -> Result<Mended>) -> Result<Mended> {
        let running = self.fold.lock();
        if running.is_some() || !self.control.file().try_lock(Lock::Fold)? {
            return Ok(Mended::Later);
        }
        let mended = work();
        self.control.file().unlock(Lock::Fold);
        mended
    }

    /// A page that a lazy clone lacks has a hash noted, as no page that isn't here has: if the base has the image that
    /// it is of, somebody died before it noted that the page is here, or that was lost, and is noted now; else the hash
    /// is forgotten.
    ///
    /// # Errors
    /// Of the operating system.
    pub(crate) fn mend_absent(&self, page: u32) -> Result<Mended> {
        self.mending(|| {
            let base = self.read_superblock()?.base;
            let Some(lazy) = self.lazy.as_ref().filter(|_| self.control.fold_target() <= base.lsn) else {
                return Ok(Mended::Later);
            };
            let hashes = Hashes::open(&*self.disk, &self.path, &self.side, base.page_size)?;
            let Some(known) = hashes.get(page)?.filter(|_| page <= base.size) else {
                return Ok(Mended::Later);
            };
            if lazy.present.has(page)? {
                return Ok(Mended::Later);
            }
            let mut image = vec![0; base.page_size as usize];
            let offset = u64::from(page - 1) * u64::from(base.page_size);
            let here = || format!("reading {}", self.path.display());
            let got = self.base.read_at(&mut image, offset).at(here)?;
            if got == image.len() && page_hash(page, &image) == known {
                self.base.sync().at(here)?;
                lazy.present.set(&[page])?;
                return Ok(Mended::Page(self.name_of(&self.path)));
            }
            hashes.set(page, 0)?;
            hashes.sync()?;
            Ok(Mended::Hash)
        })
    }

    /// The same, under the fold lock.
    fn mend_held(&self, page: u32) -> Result<Mended> {
        let block = self.read_superblock()?;
        let base = block.base;
        // What others have committed, and folded, counts: an older image of the page is in the journal as well.
        let index = self.current()?;
        if self.control.fold_target() > base.lsn || page > base.size {
            // One that died; the next fold writes its pages again.
            return Ok(Mended::Later);
        }
        let Some(found) = index.find(page, base.lsn).filter(|found| found.last > block.horizon.lsn) else {
            return Ok(Mended::Not);
        };
        let (size, hash) = (base.page_size as usize, hash_in_table(&index, page, &found)?);
        let offset = u64::from(page - 1) * size as u64;
        let segment = index.segment(found.place.segment);
        let mut image = vec![0; size];
        let read = self.base.read_at(&mut image, offset);
        let sound = read.is_ok_and(|got| got == size) && page_hash(page, &image) == hash;
        if !sound {
            if found.place.offset == 0 {
                image.fill(0);
            } else {
                segment.read(found.place.offset, &mut image)?;
            }
            if page_hash(page, &image) != hash {
                return Ok(Mended::Not);
            }
            self.write_base_again(&block, page, image)?;
        }
        let hashes = Hashes::open(&*self.disk, &self.path, &self.side, base.page_size)?;
        let known = hashes.get(page)?;
        if known != Some(hash) {
            hashes.set(page, hash)?;
            hashes.sync()?;
        }
        if let Some(lazy) = &self.lazy {
            lazy.present.set(&[page])?;
        }
        Ok(if sound { Mended::Hash } else { Mended::Page(self.name_of(&segment.path)) })
    }

    /// Name of the file of hashes, for those who are told of it.
    pub(crate) fn name_of_hashes(&self) -> String {
        self.name_of(&self.file_path(Name::Hashes))
    }
}
