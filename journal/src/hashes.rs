//! Hashes of the base's pages: one 64-bit number a page, 0 where it isn't known.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, File, How, is_at};
use crate::error::{At, Code, Error, Result};
use crate::format::{Name, VERSION};
use crate::state::{State, lock_page};

const MAGIC: &[u8; 8] = b"TIDEHASH";
const HEADER: u64 = 64;

/// Pages between two whose hashes still go into one write, and pages of one write.
const NEAR: u32 = 256;
const RUN: u32 = 8192;

/// Header of the file, for pages of this size.
fn header(page_size: u32) -> [u8; HEADER as usize] {
    let mut header = [0; HEADER as usize];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&page_size.to_le_bytes());
    let crc = crc32fast::hash(&header[..60]);
    header[60..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// The file that holds them.
pub(crate) struct Hashes {
    file: Arc<dyn File>,
    path: PathBuf,
}

impl Hashes {
    /// Opens it for a base with pages of `page_size` bytes. Hashes of another page size are dropped.
    pub fn open(disk: &dyn Disk, base: &Path, side: &Path, page_size: u32) -> Result<Hashes> {
        let path = side.join(Name::Hashes.to_string());
        let file = disk.open(&path, How::Create).at(|| format!("opening {}", path.display()))?;
        let hashes = Hashes { file, path };
        let wanted = header(page_size);
        let mut found = [0; HEADER as usize];
        let got = hashes.file.read_at(&mut found, 0).at(|| hashes.here())?;
        let whole = got == found.len()
            && &found[..8] == MAGIC
            && found[60..] == crc32fast::hash(&found[..60]).to_le_bytes();
        if whole && found[8..12] != VERSION.to_le_bytes() {
            return Err(Error::new(
                Code::Format,
                format!(
                    "{} has another format than this library reads; use a newer library",
                    hashes.path.display()
                ),
            ));
        }
        if got < found.len() || found != wanted {
            hashes
                .file
                .set_len(0)
                .and_then(|()| hashes.file.write_at(&wanted, 0))
                .and_then(|()| hashes.file.sync())
                .and_then(|()| disk.copy_owner(base, &hashes.path))
                .and_then(|()| disk.sync_dir(side))
                .at(|| hashes.here())?;
        }
        Ok(hashes)
    }

    /// True if the file isn't at its name any more.
    pub fn is_lost(&self, disk: &dyn Disk) -> Result<bool> {
        Ok(!is_at(disk, &*self.file, &self.path).at(|| self.here())?)
    }

    /// Opens it for reading alone, if it is there and has hashes of pages of this size.
    pub fn existing(disk: &dyn Disk, side: &Path, page_size: u32) -> Result<Option<Hashes>> {
        let path = side.join(Name::Hashes.to_string());
        if !disk.exists(&path).at(|| format!("looking for {}", path.display()))? {
            return Ok(None);
        }
        let file = disk.open(&path, How::Read).at(|| format!("opening {}", path.display()))?;
        let hashes = Hashes { file, path };
        let mut found = [0; HEADER as usize];
        let got = hashes.file.read_at(&mut found, 0).at(|| hashes.here())?;
        let ours = got == found.len() && found == header(page_size);
        Ok(ours.then_some(hashes))
    }

    fn here(&self) -> String {
        format!("using {}", self.path.display())
    }

    /// Hash of `page`, if it is known.
    pub fn get(&self, page: u32) -> Result<Option<u64>> {
        if let Some(slice) = self.file.slice(HEADER + 8 * u64::from(page - 1), 8) {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(slice);
            let hash = u64::from_le_bytes(bytes);
            return Ok((hash != 0).then_some(hash));
        }
        let mut bytes = [0; 8];
        let got = self.file.read_at(&mut bytes, HEADER + 8 * u64::from(page - 1)).at(|| self.here())?;
        let hash = u64::from_le_bytes(bytes);
        Ok((got == 8 && hash != 0).then_some(hash))
    }

    /// Hashes of pages from `page` on, as many as `to` holds; 0 where one isn't known.
    pub fn get_many(&self, page: u32, to: &mut [u64]) -> Result<()> {
        let mut bytes = vec![0; to.len() * 8];
        let got = self.file.read_at(&mut bytes, HEADER + 8 * u64::from(page - 1)).at(|| self.here())?;
        bytes[got..].fill(0);
        for (out, chunk) in to.iter_mut().zip(bytes.chunks_exact(8)) {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            *out = u64::from_le_bytes(word);
        }
        Ok(())
    }

    /// The sum of the hashes of all pages at `state`, which is the rolling checksum; `None` if one isn't known.
    pub fn sum(&self, state: &State) -> Result<Option<u64>> {
        let mut known = vec![0; RUN as usize];
        let (mut sum, mut from) = (0u64, 1);
        while from <= state.size {
            let count = RUN.min(state.size - from + 1) as usize;
            self.get_many(from, &mut known[..count])?;
            for (page, &hash) in (from..).zip(&known[..count]) {
                if page == lock_page(state.page_size as usize) {
                    continue;
                }
                if hash == 0 {
                    return Ok(None);
                }
                sum = sum.wrapping_add(hash);
            }
            from += count as u32;
        }
        Ok(Some(sum))
    }

    /// Notes the hash of `page`.
    pub fn set(&self, page: u32, hash: u64) -> Result<()> {
        self.file.write_at(&hash.to_le_bytes(), HEADER + 8 * u64::from(page - 1)).at(|| self.here())
    }

    /// Notes the hashes of many pages, in order of their numbers: neighbours in one write. Those between
    /// them may become unknown if somebody else learns them meanwhile.
    pub fn set_many(&self, hashes: &[(u32, u64)]) -> Result<()> {
        for run in neighbours(hashes, |&(page, _)| page, NEAR, RUN) {
            let (first, last) = (run[0].0, run[run.len() - 1].0);
            let mut known = vec![0; (last - first + 1) as usize];
            if run.len() < known.len() {
                self.get_many(first, &mut known)?;
            }
            for &(page, hash) in run {
                known[(page - first) as usize] = hash;
            }
            let bytes: Vec<u8> = known.iter().flat_map(|hash| hash.to_le_bytes()).collect();
            self.file.write_at(&bytes, HEADER + 8 * u64::from(first - 1)).at(|| self.here())?;
        }
        Ok(())
    }

    /// Makes them durable.
    pub fn sync(&self) -> Result<()> {
        self.file.sync().at(|| self.here())
    }
}

/// Cuts rows, which are in order of their pages, into those that are written at once: neighbours are at most `near` pages
/// apart, and all lie within `most` pages.
pub(crate) fn neighbours<T>(
    mut rows: &[T],
    page: impl Fn(&T) -> u32,
    near: u32,
    most: u32,
) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let first = page(rows.first()?);
        let is_near = |pair: &&[T]| page(&pair[1]) - page(&pair[0]) <= near && page(&pair[1]) - first < most;
        let (run, behind) = rows.split_at(rows.windows(2).take_while(is_near).count() + 1);
        rows = behind;
        Some(run)
    })
}
