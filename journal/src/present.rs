//! Which pages the base of a lazy clone has, as all processes see it: the file `present`.
//!
//! Invariants:
//! 1. A page with a tag is in the base, durably, as of the base's LSN or above.
//! 2. A page of the base without one hasn't changed since the image at the source was made.
//! 3. Tags are set under the fold lock, and never taken back.
//! 4. Once the header says that the base is whole it lacks nothing, whatever the tags say: whoever has the file open
//!    still, after it lost its name, looks there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::disk::{Disk, File, How};
use crate::error::{At, Code, Error, Result};
use crate::format::{Name, PRESENT_HEADER_LEN, PresentHeader, TAG_LEN, is_present, tag_of, tag_offset};
use crate::hashes::neighbours;
use crate::state::{State, lock_page};

/// What is to be done about a file that says nothing any more.
pub(crate) const REMEDY: &str = "clone it again, into another place";

/// Pages between two whose tags still go into one write.
const NEAR: u32 = RUN / 32;
/// Tags that are read or written at a time. Under miri few, as it interprets the test's way over all of them.
const RUN: u32 = if cfg!(miri) { 512 } else { 32768 };

/// The file.
pub(crate) struct Present {
    /// What is true of the image at the source.
    pub header: PresentHeader,
    file: Arc<dyn File>,
    path: PathBuf,
    whole: AtomicBool,
}

impl Present {
    /// Makes one in which no page has a tag, durable but for its name.
    ///
    /// # Errors
    /// `Io`, `Full`.
    pub fn create(disk: &dyn Disk, side: &Path, header: PresentHeader) -> Result<()> {
        let path = side.join(Name::Present.to_string());
        let here = || format!("writing {}", path.display());
        let file = disk.open(&path, How::Create).at(here)?;
        file.set_len(0)
            .and_then(|()| file.write_at(&header.encode(), 0))
            .and_then(|()| file.set_len(header.file_len()))
            .and_then(|()| file.sync())
            .at(here)
    }

    /// Opens it.
    ///
    /// # Errors
    /// `Missing` if it isn't there; `Damaged`, `Format`, `Io`.
    pub fn open(disk: &dyn Disk, side: &Path) -> Result<Present> {
        let path = side.join(Name::Present.to_string());
        let file = match disk.open(&path, How::Write) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(lost(&path)),
            Err(e) => return Err(e).at(|| format!("opening {}", path.display())),
        };
        let header = read_header(&*file, &path)?;
        if file.len().at(|| format!("reading {}", path.display()))? < header.file_len() {
            let text = format!("{} is cut short; {REMEDY}", path.display());
            return Err(Error::new(Code::Damaged, text));
        }
        let whole = AtomicBool::new(header.whole);
        Ok(Present { header, file, path, whole })
    }

    /// True if the base has `page`.
    ///
    /// # Errors
    /// `Damaged` where that can't be told, `Io`.
    pub fn has(&self, page: u32) -> Result<bool> {
        if self.whole.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let mut tag = [0; TAG_LEN];
        self.read(page, &mut tag)?;
        Ok(self.decide(page, tag)? || self.is_whole()?)
    }

    /// True once the base lacks nothing.
    pub fn is_whole(&self) -> Result<bool> {
        if !self.whole.load(Ordering::Relaxed) && read_header(&*self.file, &self.path)?.whole {
            self.whole.store(true, Ordering::Relaxed);
        }
        Ok(self.whole.load(Ordering::Relaxed))
    }

    /// Says so, for those who have it open; the superblock has said it before.
    pub fn set_whole(&self) -> Result<()> {
        let header = PresentHeader { whole: true, ..self.header };
        self.file.write_at(&header.encode(), 0).at(|| self.here())?;
        self.whole.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Notes that the base has these pages, which are in order; durable when it returns. Under the fold lock.
    pub fn set(&self, pages: &[u32]) -> Result<()> {
        for run in neighbours(pages, |&page| page, NEAR, RUN) {
            let (first, last) = (run[0], run[run.len() - 1]);
            let mut tags = vec![0; (last - first + 1) as usize * TAG_LEN];
            if run.len() * TAG_LEN < tags.len() {
                self.read(first, &mut tags)?;
            }
            for &page in run {
                let at = (page - first) as usize * TAG_LEN;
                tags[at..at + TAG_LEN].copy_from_slice(&tag_of(page));
            }
            self.file.write_at(&tags, tag_offset(first)).at(|| self.here())?;
        }
        // Also what another wrote that died before it synced.
        self.file.sync().at(|| self.here())
    }

    /// Up to `most` pages that a base at `state` lacks, from page `from` on, in order.
    ///
    /// # Errors
    /// As [`Present::has`].
    pub fn absent(&self, state: &State, from: u32, most: usize) -> Result<Vec<u32>> {
        let mut pages = Vec::new();
        let mut first = from;
        while first <= state.size && pages.len() < most && !self.is_whole()? {
            let count = RUN.min(state.size - first + 1);
            let mut tags = vec![0; count as usize * TAG_LEN];
            self.read(first, &mut tags)?;
            for (page, tag) in (first..).zip(tags.chunks_exact(TAG_LEN)) {
                let lock = page == lock_page(state.page_size as usize);
                if !lock && !self.decide(page, [tag[0], tag[1]])? {
                    pages.push(page);
                }
            }
            first = match first.checked_add(count) {
                Some(next) => next,
                None => break,
            };
        }
        pages.truncate(most);
        Ok(pages)
    }

    /// How many pages a base at `state` lacks.
    ///
    /// # Errors
    /// As [`Present::has`].
    pub fn count_absent(&self, state: &State) -> Result<u64> {
        let (mut count, mut from) = (0, 1);
        loop {
            let pages = self.absent(state, from, RUN as usize)?;
            let Some(&last) = pages.last() else { return Ok(count) };
            count += pages.len() as u64;
            from = last + 1;
        }
    }

    /// The pages up to `size` of which it can't be told whether the base has them.
    pub fn damaged(&self, size: u32) -> Result<Vec<u32>> {
        let mut pages = Vec::new();
        for first in (1..=size).step_by(RUN as usize) {
            let mut tags = vec![0; RUN.min(size - first + 1) as usize * TAG_LEN];
            self.read(first, &mut tags)?;
            let tags = (first..).zip(tags.chunks_exact(TAG_LEN));
            pages.extend(
                tags.filter(|(page, tag)| is_present(*page, [tag[0], tag[1]]).is_none()).map(|t| t.0),
            );
        }
        Ok(pages)
    }

    /// Tags from that of `page` on; those behind the file's end are 0.
    fn read(&self, page: u32, to: &mut [u8]) -> Result<()> {
        let got = self.file.read_at(to, tag_offset(page)).at(|| self.here())?;
        to[got..].fill(0);
        Ok(())
    }

    fn decide(&self, page: u32, tag: [u8; TAG_LEN]) -> Result<bool> {
        is_present(page, tag).ok_or_else(|| {
            let text = format!(
                "{} doesn't tell whether page {page} is here; run tide_verify, or {REMEDY}",
                self.path.display()
            );
            Error::new(Code::Damaged, text)
        })
    }

    fn here(&self) -> String {
        format!("using {}", self.path.display())
    }
}

/// What is said of a lazy clone without a file that it needs.
pub(crate) fn lost(path: &Path) -> Error {
    let text = format!("{}, which a lazy clone needs, is gone; put it back, or {REMEDY}", path.display());
    Error::new(Code::Missing, text)
}

fn read_header(file: &dyn File, path: &Path) -> Result<PresentHeader> {
    let mut bytes = [0; PRESENT_HEADER_LEN];
    file.read_at(&mut bytes, 0).at(|| format!("reading {}", path.display()))?;
    PresentHeader::decode(&bytes)
        .map_err(|e| Error::new(e.code(), format!("{}: {}; {REMEDY}", path.display(), e.text())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimDisk;
    use crate::lsn::Lsn;

    #[test]
    fn what_is_set_is_here_and_the_rest_is_not() -> Result<()> {
        let disk = SimDisk::new().process();
        let side = Path::new("/");
        let size = 2 * RUN + 100;
        let header = PresentHeader { lsn: Lsn::new(3), page_size: 512, size, checksum: None, whole: false };
        Present::create(&*disk, side, header)?;
        let present = Present::open(&*disk, side)?;
        let state = State { page_size: 512, size, ..State::default() };
        assert_eq!(present.count_absent(&state)?, u64::from(size));
        let far = [1, 2, 4, NEAR + 3, NEAR + 4, 3 * NEAR, RUN - 1, RUN, RUN + 1, 2 * RUN + 7];
        present.set(&far[..5])?;
        present.set(&far[3..])?;
        for page in 1..=size + 10 {
            assert_eq!(present.has(page)?, far.contains(&page), "page {page}");
        }
        assert_eq!(present.count_absent(&state)?, u64::from(size) - far.len() as u64);
        assert_eq!(present.absent(&state, 1, 3)?, [3, 5, 6]);
        assert_eq!(present.absent(&state, RUN - 2, 2)?, [RUN - 2, RUN + 2]);
        assert_eq!(present.absent(&state, size, 9)?, [size]);
        assert_eq!(present.absent(&state, size + 1, 9)?, []);

        // The file is as others see it, also without its name.
        let other = Present::open(&*disk, side)?;
        present.set_whole()?;
        disk.remove(&present.path)?;
        assert!(other.has(size + 10)? && other.count_absent(&state)? == 0);
        assert_eq!(Present::open(&*disk, side).err().map(|e| e.code()), Some(Code::Missing));
        Ok(())
    }
}
