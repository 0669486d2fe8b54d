//! Which pages of the base were compared with their hash already.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::error::{At, Code, Error, Result};
use crate::hash::page_hash;
use crate::hashes::Hashes;
use crate::store::Store;

/// Pages of the first leaf: a gigabyte of the usual ones.
const FIRST: usize = if cfg!(miri) { 1 << 15 } else { 1 << 18 };
/// Pages of one leaf.
const LEAF: usize = 1 << 15;
/// Leaves of one branch.
const BRANCH: usize = 1 << 9;

type Leaf = Box<[AtomicU64]>;
type Branch = Box<[OnceLock<Leaf>]>;

/// A bit for each page, made as pages are touched.
pub(crate) struct Touched {
    /// Of the first pages, which most databases have no others than.
    first: OnceLock<Leaf>,
    branches: Box<[OnceLock<Branch>]>,
    /// The sidecar, once somebody asked; with the page size that it was asked for.
    hashes: Mutex<Option<(usize, Option<Arc<Hashes>>)>>,
}

impl Default for Touched {
    fn default() -> Self {
        let branches = (0..(1usize << 32) / LEAF / BRANCH).map(|_| OnceLock::new()).collect();
        Touched { first: OnceLock::new(), branches, hashes: Mutex::new(None) }
    }
}

impl Touched {
    #[inline]
    fn word(&self, page: u32) -> (&AtomicU64, u64) {
        let bits = |count: usize| (0..count / 64).map(|_| AtomicU64::new(0)).collect::<Vec<_>>().into();
        let page = page as usize;
        if page < FIRST {
            return (&self.first.get_or_init(|| bits(FIRST))[page / 64], 1 << (page % 64));
        }
        let branch = self.branches[page / LEAF / BRANCH]
            .get_or_init(|| (0..BRANCH).map(|_| OnceLock::new()).collect());
        let leaf = branch[page / LEAF % BRANCH].get_or_init(|| bits(LEAF));
        (&leaf[page % LEAF / 64], 1 << (page % 64))
    }
}

impl Store {
    /// Compares a page of the base with its hash when it is touched for the first time, where the
    /// hash is known; by a system call where it `copies`. False if the base lacks it.
    #[inline]
    pub(crate) fn check_base_page(&self, page: u32, size: usize, copies: bool) -> Result<bool> {
        let (word, bit) = self.touched.word(page);
        if word.load(Ordering::Relaxed) & bit != 0 { Ok(true) } else { self.first_touch(page, size, copies) }
    }

    #[cold]
    fn first_touch(&self, page: u32, size: usize, copies: bool) -> Result<bool> {
        if self.lacks(page)? {
            return Ok(false);
        }
        let (word, bit) = self.touched.word(page);
        // This page is compared when the folder is back.
        let Some(hashes) = self.sidecar(size)? else { return Ok(true) };
        let Some(known) = hashes.map(|hashes| hashes.get(page)).transpose()?.flatten() else {
            // Nothing is known of it; what a fold writes later is known to be right.
            word.fetch_or(bit, Ordering::Relaxed);
            return Ok(true);
        };
        let offset = u64::from(page - 1) * size as u64;
        let hash = match self.base.slice(offset, size).filter(|_| !copies) {
            Some(image) => page_hash(page, image),
            None => {
                let mut image = vec![0; size];
                self.base.read_at(&mut image, offset).at(|| format!("reading {}", self.path.display()))?;
                page_hash(page, &image)
            }
        };
        if hash != known {
            if self.forget_lost_hashes()? {
                return self.first_touch(page, size, copies);
            }
            return Err(Error::new(
                Code::Damaged,
                format!(
                    "page {page} at byte {offset} of {} fails its checksum; run tide_verify, and restore from a backup",
                    self.path.display()
                ),
            ));
        }
        word.fetch_or(bit, Ordering::Relaxed);
        Ok(true)
    }

    /// The sidecar, if it has hashes of pages of this size; `None` where it can't be reached, as those at the name are
    /// another's, or none.
    fn sidecar(&self, size: usize) -> Result<Option<Option<Arc<Hashes>>>> {
        let mut cached = self.touched.hashes.lock();
        match &*cached {
            Some((of, hashes)) if *of == size => Ok(Some(hashes.clone())),
            _ if self.side_in_place().is_err() => Ok(None),
            _ => {
                let hashes = Hashes::existing(&*self.disk, &self.side, size as u32)?.map(Arc::new);
                *cached = Some((size, hashes.clone()));
                Ok(Some(hashes))
            }
        }
    }

    /// Hash of `page` of the base, where it is known.
    pub(crate) fn known_hash(&self, page: u32, size: usize) -> Result<Option<u64>> {
        let hashes = self.sidecar(size)?.flatten();
        Ok(hashes.map(|hashes| hashes.get(page)).transpose()?.flatten())
    }

    /// Forgets the sidecar if it isn't at its name any more: folds have noted what they wrote in another one since.
    fn forget_lost_hashes(&self) -> Result<bool> {
        let mut cached = self.touched.hashes.lock();
        let lost = match &*cached {
            Some((_, Some(hashes))) => hashes.is_lost(&*self.disk)?,
            _ => false,
        };
        if lost {
            *cached = None;
        }
        Ok(lost)
    }
}
