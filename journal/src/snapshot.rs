//! A read-only view of the database at one LSN.

use std::borrow::Cow;
use std::sync::Arc;

use crate::error::{At, Code, Error, Result};
use crate::hash::{HEADER_LEN, page_hash};
use crate::index::{Found, Index};
use crate::lsn::Lsn;
use crate::state::State;
use crate::store::Store;

/// A snapshot. Whoever makes one has pinned its LSN.
///
/// Where a page is: its newest version at or below the LSN, unless that one is at or below the
/// floor, in which case the base has the same image. The base never moves past a pinned LSN, so a
/// page without a version in `floor..=lsn` doesn't change there while the pin lasts.
#[derive(Clone)]
pub(crate) struct Snapshot {
    pub index: Arc<Index>,
    pub state: State,
    /// LSN of the base when the snapshot was pinned.
    pub floor: Lsn,
    /// Pages are read by system calls alone: a medium that fails is an error then, and no signal.
    pub copies: bool,
}

/// Where the image of a page is.
enum Source {
    Zeros,
    Journal(Found),
    Base,
}

impl Snapshot {
    fn source(&self, page: u32) -> Source {
        match self.index.find(page, self.state.lsn) {
            Some(found) if found.last > self.floor => {
                if found.place.offset == 0 {
                    Source::Zeros
                } else {
                    Source::Journal(found)
                }
            }
            _ => Source::Base,
        }
    }

    /// Copies bytes of the image of `page`, from byte `at`. The page is not above the size.
    pub fn read(&self, store: &Store, page: u32, at: usize, to: &mut [u8]) -> Result<()> {
        match self.source(page) {
            Source::Zeros => to.fill(0),
            Source::Journal(found) => {
                if !found.verified {
                    self.verify(page, &found)?;
                }
                let segment = self.index.segment(found.place.segment);
                let offset = found.place.offset + at as u64;
                if self.copies { segment.read(offset, to)? } else { segment.copy(offset, to)? }
            }
            Source::Base => {
                let size = self.state.page_size as usize;
                if !store.check_base_page(page, size, self.copies)? {
                    store.read_absent(page, size, at, to)?;
                    self.serve(page, at, to);
                    return Ok(());
                }
                let offset = u64::from(page - 1) * u64::from(self.state.page_size) + at as u64;
                match store.base.slice(offset, to.len()).filter(|_| !self.copies) {
                    Some(bytes) => to.copy_from_slice(bytes),
                    None => {
                        let got = store
                            .base
                            .read_at(to, offset)
                            .at(|| format!("reading page {page} of {}", store.path.display()))?;
                        if got < to.len() {
                            return Err(store.ends_before(page));
                        }
                    }
                }
            }
        }
        self.serve(page, at, to);
        Ok(())
    }

    /// Fills `to` with the image of `page`, and compares it with its hash, where that is known, however often that was done:
    /// what leaves the machine must be what was committed. Returns the hash.
    pub fn read_sound(&self, store: &Store, page: u32, to: &mut [u8]) -> Result<u64> {
        self.read(store, page, 0, to)?;
        let hash = page_hash(page, to);
        let (known, path) = match self.source(page) {
            Source::Zeros => (None, &store.path),
            Source::Journal(found) => {
                (Some(self.hash_of(page, &found)?), &self.index.segment(found.place.segment).path)
            }
            Source::Base => (store.known_hash(page, to.len())?, &store.path),
        };
        if known.is_some_and(|known| known != hash) {
            return Err(not_sound(page, &format!("of {}", path.display())));
        }
        Ok(hash)
    }

    /// Puts served bytes where they belong in those of `page` from byte `at` on.
    fn serve(&self, page: u32, at: usize, to: &mut [u8]) {
        if page == 1 {
            self.state.counters.serve(to, at);
        }
    }

    /// True if the base has `page` for this snapshot, or should have it.
    pub fn is_in_base(&self, page: u32) -> bool {
        matches!(self.source(page), Source::Base)
    }

    /// The image of `page` without a copy. Never page 1, whose served bytes aren't stored.
    pub fn slice<'a>(&'a self, store: &'a Store, page: u32) -> Result<Option<&'a [u8]>> {
        if page == 1 { Ok(None) } else { self.stored(store, page) }
    }

    /// True if `bytes` are those of the image of `page` from byte `at` on.
    pub fn has(&self, store: &Store, page: u32, at: usize, bytes: &[u8]) -> Result<bool> {
        // Of page 1 the first bytes are served.
        let served = if page == 1 { HEADER_LEN.saturating_sub(at).min(bytes.len()) } else { 0 };
        let mut own = [0; HEADER_LEN];
        if served > 0 {
            self.read(store, page, at, &mut own[..served])?;
        }
        let (head, rest) = bytes.split_at(served);
        if own[..served] != *head {
            return Ok(false);
        }
        let at = at + served;
        if let Some(stored) = self.stored(store, page)? {
            return Ok(stored.get(at..at + rest.len()) == Some(rest));
        }
        let mut own = vec![0; rest.len()];
        self.read(store, page, at, &mut own)?;
        Ok(own == rest)
    }

    /// The image of `page` as it is stored, without a copy.
    fn stored<'a>(&'a self, store: &'a Store, page: u32) -> Result<Option<&'a [u8]>> {
        if page > self.state.size || self.copies {
            return Ok(None);
        }
        let size = self.state.page_size as usize;
        Ok(match self.source(page) {
            Source::Zeros => None,
            Source::Journal(found) => {
                if !found.verified {
                    self.verify(page, &found)?;
                }
                self.index.segment(found.place.segment).file.slice(found.place.offset, size)
            }
            Source::Base => {
                let here = store.check_base_page(page, size, self.copies)?;
                if here { store.base.slice(u64::from(page - 1) * size as u64, size) } else { None }
            }
        })
    }

    /// Compares the hash of a version that is touched for the first time.
    fn verify(&self, page: u32, found: &Found) -> Result<()> {
        let segment = self.index.segment(found.place.segment);
        let size = self.state.page_size as usize;
        let image = if self.copies {
            let mut image = vec![0; size];
            segment.read(found.place.offset, &mut image)?;
            Cow::Owned(image)
        } else {
            segment.bytes(found.place.offset, size)?
        };
        let expected = self.hash_of(page, found)?;
        if page_hash(page, &image) != expected {
            let place = format!("at byte {} of {}", found.place.offset, segment.path.display());
            return Err(not_sound(page, &place));
        }
        self.index.set_verified(found);
        Ok(())
    }

    /// Hash of a version, from its entry's page table.
    pub fn hash_of(&self, page: u32, found: &Found) -> Result<u64> {
        hash_in_table(&self.index, page, found)
    }
}

/// What is said of an image that isn't what its hash says.
fn not_sound(page: u32, place: &str) -> Error {
    let text = format!("page {page} {place} fails its checksum; run tide_verify, and restore from a backup");
    Error::new(Code::Damaged, text)
}

/// Hash of a version, from its entry's page table, whose rows are in order of their pages.
pub(crate) fn hash_in_table(index: &Index, page: u32, found: &Found) -> Result<u64> {
    use crate::format::{ROW_LEN, Row};
    let entry = index.entry(found.entry)?;
    let segment = index.segment(entry.segment);
    let (mut low, mut high) = (0, u64::from(entry.rows));
    while low < high {
        let middle = low + (high - low) / 2;
        let row = Row::decode(&segment.bytes(entry.table + middle * ROW_LEN as u64, ROW_LEN)?);
        match row.page.cmp(&page) {
            std::cmp::Ordering::Equal => return Ok(row.hash),
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
        }
    }
    Err(Error::new(
        Code::Damaged,
        format!("{} has lost page {page} from a page table; restore from a backup", segment.path.display()),
    ))
}
