//! Rows: pages with their images, each compressed, in shipped entries and in frames of remote segments.

use super::squeeze::{Squeezer, Stretcher};
use super::{put, u32_at, u64_at};
use crate::error::{Code, Error, Result};
use crate::hash::page_hash;

/// Length of a row before its image, in bytes.
const ROW_HEADER_LEN: usize = 24;
const TRAILER_LEN: usize = 4;

/// The image follows as it is.
pub(super) const RAW: u8 = 0;
/// The image is all zeros and doesn't follow.
pub(super) const ZEROS: u8 = 1;
/// It is compressed against the image of the same page at the LSN before the range.
pub(super) const DIFFERENCE: u8 = 2;
/// It is compressed against the image in the row before; the first of a piece against nothing.
pub(super) const COMPRESSED: u8 = 3;

/// Rows after which one takes no other row's image, so that a receiver can take several such runs at a time.
pub(super) const CHAIN: usize = 255;

/// One page of a shipped entry.
#[derive(Clone, Copy, Debug)]
pub struct ShippedRow<'a> {
    /// Its number.
    pub page: u32,
    /// Its hash.
    pub hash: u64,
    pub(super) encoding: u8,
    pub(super) encoded: &'a [u8],
}

impl ShippedRow<'_> {
    /// True if it takes the image that the page had before the range.
    pub fn is_difference(&self) -> bool {
        self.encoding == DIFFERENCE
    }

    /// True if it takes the image of the row before.
    pub fn is_chained(&self) -> bool {
        self.encoding == COMPRESSED
    }
}

/// Turns rows into images, one after the other.
pub struct Unpacking {
    stretcher: Stretcher,
    page_size: usize,
    /// Image of the row before; empty for the first of a piece.
    previous: Vec<u8>,
    /// What the page had before the range.
    before: Vec<u8>,
}

impl Unpacking {
    /// For rows of pages of this size, of which the first takes no other row's image, or is a piece's first.
    pub fn new(page_size: usize) -> Unpacking {
        Unpacking { stretcher: Stretcher::new(), page_size, previous: Vec::new(), before: Vec::new() }
    }

    /// Begins anew.
    pub fn reset(&mut self) {
        self.previous.clear();
    }

    /// Fills `images` with those of the next rows; `before` fills in the one that a page had before the range, where
    /// [`ShippedRow::is_difference`]; `check` is shown each, with its row.
    ///
    /// # Errors
    /// `Damaged`, and those of `before` and `check`.
    pub fn images(
        &mut self,
        rows: &[ShippedRow<'_>],
        images: &mut Vec<u8>,
        before: impl Fn(&ShippedRow<'_>, &mut [u8]) -> Result<()>,
        check: impl Fn(&ShippedRow<'_>, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let size = self.page_size;
        images.resize(rows.len() * size, 0);
        for (n, row) in rows.iter().enumerate() {
            let (done, rest) = images.split_at_mut(n * size);
            let image = &mut rest[..size];
            let previous = if n == 0 { &self.previous[..] } else { &done[(n - 1) * size..] };
            let right = match row.encoding {
                RAW => {
                    image.copy_from_slice(row.encoded);
                    true
                }
                ZEROS => {
                    image.fill(0);
                    true
                }
                DIFFERENCE => {
                    self.before.resize(size, 0);
                    before(row, &mut self.before)?;
                    self.stretcher.stretch(row.encoded, &self.before, image)
                }
                _ => self.stretcher.stretch(row.encoded, previous, image),
            };
            if !right {
                return Err(damaged("holds a damaged page"));
            }
            check(row, image)?;
        }
        if let Some(last) = images.chunks_exact(size).next_back() {
            self.previous.clear();
            self.previous.extend_from_slice(last);
        }
        Ok(())
    }
}

fn damaged(what: &str) -> Error {
    Error::new(Code::Damaged, format!("the blob {what}; ship it again"))
}

/// The rows in some bytes, in order. Only their bounds are checked.
pub fn walk(rows: &[u8], page_size: usize) -> impl Iterator<Item = Result<ShippedRow<'_>>> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if rest.len() < ROW_HEADER_LEN {
            rest = &[];
            return Some(Err(damaged("is cut short")));
        }
        let (row, behind) = rest.split_at(ROW_HEADER_LEN);
        let len = u32_at(row, 8) as usize;
        let possible = match row[4] {
            RAW => len == page_size,
            ZEROS => len == 0,
            DIFFERENCE | COMPRESSED => len < page_size,
            _ => false,
        };
        if !possible || behind.len() < len {
            rest = &[];
            return Some(Err(damaged("holds a page of another length")));
        }
        let (encoded, behind) = behind.split_at(len);
        rest = behind;
        Some(Ok(ShippedRow { page: u32_at(row, 0), hash: u64_at(row, 16), encoding: row[4], encoded }))
    })
}

/// Rows that are being put together.
pub struct PackedRows {
    out: Vec<u8>,
    /// Where they begin.
    begin: usize,
    squeezer: Squeezer,
    /// The image in the row before.
    previous: Vec<u8>,
    /// The image of the row, encoded.
    encoded: Vec<u8>,
    /// Rows since one that takes no other row's image.
    chained: usize,
}

impl Default for PackedRows {
    fn default() -> PackedRows {
        PackedRows::behind(Vec::new())
    }
}

impl PackedRows {
    /// Rows behind what is there already.
    pub fn behind(out: Vec<u8>) -> PackedRows {
        PackedRows {
            begin: out.len(),
            out,
            squeezer: Squeezer::new(),
            previous: Vec::new(),
            encoded: Vec::new(),
            chained: 0,
        }
    }

    /// Length so far, in bytes, with what they are behind.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.out.len() == self.begin
    }

    /// Adds a page; `before` is its image at the LSN before the range, if every receiver that may take the
    /// piece has that.
    pub fn push(&mut self, page: u32, image: &[u8], hash: u64, before: Option<&[u8]>) {
        let encoding = self.encode(image, before);
        let encoded = &self.encoded;
        let mut row = [0; ROW_HEADER_LEN];
        put(&mut row, 0, &page.to_le_bytes());
        row[4] = encoding;
        put(&mut row, 8, &(encoded.len() as u32).to_le_bytes());
        put(&mut row, 16, &hash.to_le_bytes());
        self.out.extend_from_slice(&row);
        self.out.extend_from_slice(encoded);
        self.chained = if encoding == COMPRESSED { self.chained + 1 } else { 0 };
        self.previous.clear();
        self.previous.extend_from_slice(image);
    }

    /// Encodes an image in the shortest way; returns which.
    fn encode(&mut self, image: &[u8], before: Option<&[u8]>) -> u8 {
        let mut encoding = RAW;
        self.encoded.clear();
        if image.iter().all(|&b| b == 0) {
            return ZEROS;
        }
        // What saves less than an eighth isn't worth undoing.
        let limit = image.len() - image.len() / 8;
        if let Some(short) = before.and_then(|before| self.squeezer.squeeze(image, before, true, limit)) {
            self.encoded.extend_from_slice(short);
            encoding = DIFFERENCE;
        }
        let chain = self.chained < CHAIN;
        if chain && (encoding == RAW || self.encoded.len() > image.len() / 4) {
            let limit = if encoding == RAW { limit } else { self.encoded.len() };
            if let Some(short) = self.squeezer.squeeze(image, &self.previous, false, limit) {
                self.encoded.clear();
                self.encoded.extend_from_slice(short);
                encoding = COMPRESSED;
            }
        }
        if encoding == RAW {
            self.encoded.extend_from_slice(image);
        }
        encoding
    }

    /// All of it, with the CRC-32 over what is behind `from`.
    pub fn finish(mut self, from: usize) -> Vec<u8> {
        let crc = crc32fast::hash(&self.out[from..]);
        self.out.extend_from_slice(&crc.to_le_bytes());
        self.out
    }
}

/// Hands on the pages in rows that stand by themselves, with their CRC-32 behind them, and each with its image, which is
/// compared with its hash; up to `most` of them.
///
/// # Errors
/// `Damaged`.
pub fn unpack_rows(
    from: &[u8],
    page_size: usize,
    most: usize,
    mut take: impl FnMut(u32, &[u8]),
) -> Result<()> {
    let at = from.len().checked_sub(TRAILER_LEN).ok_or_else(|| damaged("is cut short"))?;
    let (covered, trailer) = from.split_at(at);
    if crc32fast::hash(covered) != u32_at(trailer, 0) {
        return Err(damaged("fails its checksum"));
    }
    let mut unpacking = Unpacking::new(page_size);
    let mut image = Vec::new();
    let mut last = 0;
    for (n, row) in walk(covered, page_size).enumerate() {
        let row = row?;
        if row.page <= last || row.is_difference() || n >= most {
            return Err(damaged("holds a page that can't be there"));
        }
        last = row.page;
        let none = |_: &ShippedRow<'_>, _: &mut [u8]| Ok(());
        unpacking.images(&[row], &mut image, none, |row, image| {
            match page_hash(row.page, image) == row.hash {
                true => Ok(()),
                false => Err(damaged("holds a damaged page")),
            }
        })?;
        take(row.page, &image);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three pages: noise, much the same, nothing.
    fn example() -> (Vec<(u32, Vec<u8>)>, Vec<u8>) {
        let noise: Vec<u8> = (0..512u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 7) as u8).collect();
        let mut changed = noise.clone();
        changed[300..310].fill(1);
        let pages = vec![(2, noise), (3, changed), (9, vec![0; 512])];
        let mut rows = PackedRows::default();
        assert!(rows.is_empty());
        for (page, image) in &pages {
            rows.push(*page, image, page_hash(*page, image), None);
        }
        assert!(!rows.is_empty() && rows.len() < 700);
        (pages, rows.finish(0))
    }

    fn unpacked(bytes: &[u8], most: usize) -> Result<Vec<(u32, Vec<u8>)>> {
        let mut pages = Vec::new();
        unpack_rows(bytes, 512, most, |page, image| pages.push((page, image.to_vec())))?;
        Ok(pages)
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri runs no C, and so no zstd")]
    fn rows_that_stand_by_themselves_are_what_they_were() {
        let (pages, bytes) = example();
        assert_eq!(unpacked(&bytes, 3).unwrap(), pages);
        assert!(unpacked(&bytes, 2).is_err(), "more than was asked for");
        assert_eq!(unpacked(&PackedRows::default().finish(0), 0).unwrap(), []);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x40;
            assert!(unpacked(&bad, 3).is_err(), "byte {at}");
            assert!(unpacked(&bytes[..at], 3).is_err(), "cut at {at}");
        }
        let mut difference = PackedRows::default();
        difference.push(2, &pages[0].1, page_hash(2, &pages[0].1), Some(&pages[1].1));
        assert!(unpacked(&difference.finish(0), 1).is_err(), "against an image that isn't here");
    }
}
