//! A segment of images: frames of pages, and an index behind them, in an object store under the hash of its bytes.
//!
//! ```text
//!   header 24 │ frame │ frame │ … │ index: head 8, places of 40, lists of pages
//! ```
//! Whoever wants a page reads the index, then the one frame. The manifest has the index's hash, the index those of the
//! frames: so each part is checked without the rest.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use tideline_journal::{Code, Error, Result};

use crate::frame::{Making, Place, pages_of_frame};
use crate::hex;
use crate::manifest::{Hash, hash};
use crate::objects::Stretch;
use crate::segment::{HEADER_LEN, Salt, header, name_of};

const MAGIC: &[u8; 8] = b"TIDEIMGS";
const INDEX_HEAD: usize = 8;
const PLACE_LEN: usize = 40;
/// Bytes of a row before its image, and of a frame behind its rows, at most.
const ROW_HEAD: u64 = 24;
const FRAME_END: u64 = 4;

/// Bytes of images in a segment, about.
const SEGMENT_BYTES: u32 = 16 << 20;

/// Pages of a segment whose pages have this size.
pub(crate) fn pages_of_segment(page_size: u32) -> u32 {
    (SEGMENT_BYTES / page_size).max(1)
}

/// Most bytes that frames with so many pages have together.
fn longest_frames(rows: u32, page_size: u32) -> u64 {
    u64::from(rows) * (u64::from(page_size) + ROW_HEAD + FRAME_END)
}

/// A segment of images, as manifests name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImageSegment {
    #[serde(with = "hex")]
    pub hash: Hash,
    /// Its length.
    pub bytes: u64,
    /// First page in it.
    pub first: u32,
    /// Last page in it.
    pub last: u32,
    /// Pages in it.
    pub rows: u32,
    /// Length of its index, at its end, in bytes.
    pub index: u32,
    /// Hash of its index.
    #[serde(with = "hex")]
    pub index_hash: Hash,
}

impl ImageSegment {
    /// Its object.
    pub fn name(&self) -> String {
        name_of(&self.hash)
    }

    /// A part of it.
    pub fn stretch(&self, range: Range<u64>) -> Stretch {
        Stretch { name: self.name(), len: self.bytes, range }
    }

    /// True if it can be of pages of this size.
    pub fn is_possible(&self, page_size: u32) -> bool {
        let frames = u64::from(self.rows.div_ceil(pages_of_frame(page_size)));
        let longest = INDEX_HEAD as u64 + frames * PLACE_LEN as u64 + u64::from(self.rows) * 4;
        self.first >= 1
            && self.first <= self.last
            && (1..=pages_of_segment(page_size)).contains(&self.rows)
            && self.rows - 1 <= self.last - self.first
            && u64::from(self.index) <= longest
            && self.bytes <= HEADER_LEN as u64 + longest + longest_frames(self.rows, page_size)
            && self.bytes >= HEADER_LEN as u64 + u64::from(self.index)
    }

    /// Whether both have the same pages, with the same images.
    pub fn has_the_same(&self, other: &ImageSegment) -> bool {
        // What an index says of its frames are their hashes.
        (self.rows, self.index_hash) == (other.rows, other.index_hash)
    }

    /// Where its index is.
    pub fn index_range(&self) -> Range<u64> {
        self.bytes - u64::from(self.index)..self.bytes
    }
}

/// A segment that is being made.
pub(crate) struct Segment {
    page_size: u32,
    bytes: Vec<u8>,
    places: Vec<Place>,
    lists: Vec<u8>,
    making: Making,
    pages: Vec<u32>,
    rows: u32,
}

impl Segment {
    /// One for pages of this size. No other that has the same pages has the same `salt`, unless it was never named by a
    /// manifest: so a segment that isn't in the newest runs any more never is again.
    pub fn new(page_size: u32, salt: Salt) -> Segment {
        Segment {
            page_size,
            bytes: header(MAGIC, salt),
            places: Vec::new(),
            lists: Vec::new(),
            making: Making::new(),
            pages: Vec::new(),
            rows: 0,
        }
    }

    /// Adds a page, behind those before it.
    pub fn push(&mut self, page: u32, image: &[u8]) {
        self.making.push(page, image);
        self.pages.push(page);
        self.rows += 1;
        if self.making.count() == pages_of_frame(self.page_size) {
            self.end_frame();
        }
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    pub fn is_full(&self) -> bool {
        self.rows == pages_of_segment(self.page_size)
    }

    fn end_frame(&mut self) {
        let making = std::mem::replace(&mut self.making, Making::new());
        let (bytes, place) = making.finish(self.bytes.len() as u64);
        self.bytes.extend_from_slice(&bytes);
        if !place.is_dense() {
            self.lists.extend(self.pages.iter().flat_map(|page| page.to_le_bytes()));
        }
        self.pages.clear();
        self.places.push(place);
    }

    /// Its bytes, and what manifests say of it. It has pages.
    pub fn finish(mut self) -> (ImageSegment, Vec<u8>) {
        if self.making.count() > 0 {
            self.end_frame();
        }
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(&(self.places.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        for place in &self.places {
            self.bytes.extend_from_slice(&place.first.to_le_bytes());
            self.bytes.extend_from_slice(&place.last.to_le_bytes());
            self.bytes.extend_from_slice(&place.rows.to_le_bytes());
            self.bytes.extend_from_slice(&place.len.to_le_bytes());
            self.bytes.extend_from_slice(&place.offset.to_le_bytes());
            self.bytes.extend_from_slice(&place.hash);
        }
        self.bytes.extend_from_slice(&self.lists);
        let index = &self.bytes[begin..];
        let segment = ImageSegment {
            hash: hash(&self.bytes),
            bytes: self.bytes.len() as u64,
            first: self.places.first().map_or(0, |place| place.first),
            last: self.places.last().map_or(0, |place| place.last),
            rows: self.rows,
            index: index.len() as u32,
            index_hash: hash(index),
        };
        (segment, self.bytes)
    }
}

/// The index of a segment.
pub(crate) struct Index {
    places: Vec<Place>,
    /// Pages of each frame that lacks some between its ends; empty for the others.
    lists: Vec<Vec<u32>>,
}

impl Index {
    /// Reads the index of a segment.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn decode(bytes: &[u8], segment: &ImageSegment) -> Result<Index> {
        let damaged = || {
            let text = format!(
                "the index of {} isn't what its manifest says; clone from another remote",
                segment.name()
            );
            Error::new(Code::Damaged, text)
        };
        if bytes.len() != segment.index as usize || hash(bytes) != segment.index_hash {
            return Err(damaged());
        }
        let number =
            |at: usize| -> Option<u32> { Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?)) };
        let count = number(0).ok_or_else(damaged)? as usize;
        let lists_at =
            count.checked_mul(PLACE_LEN).and_then(|len| len.checked_add(INDEX_HEAD)).ok_or_else(damaged)?;
        let mut rest = bytes.get(lists_at..).ok_or_else(damaged)?;
        let mut index = Index { places: Vec::new(), lists: Vec::new() };
        let (mut last, mut rows) = (0, 0u32);
        let end = segment.index_range().start;
        for row in bytes[INDEX_HEAD..lists_at].chunks_exact(PLACE_LEN) {
            let word = |at: usize| u32::from_le_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]]);
            let mut hash = [0; 16];
            hash.copy_from_slice(&row[24..]);
            let offset = u64::from(word(16)) | u64::from(word(20)) << 32;
            let place = Place { first: word(0), last: word(4), rows: word(8), len: word(12), offset, hash };
            let behind = place.offset.checked_add(place.len.into()).is_some_and(|behind| behind <= end);
            let possible = place.first > last && place.first <= place.last && place.rows >= 1;
            if !behind || !possible || place.rows - 1 > place.last - place.first {
                return Err(damaged());
            }
            let mut list = Vec::new();
            if !place.is_dense() {
                let (own, others) = rest.split_at_checked(place.rows as usize * 4).ok_or_else(damaged)?;
                list = own.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
                rest = others;
                let ends = list.first() == Some(&place.first) && list.last() == Some(&place.last);
                if !ends || !list.is_sorted_by(|a, b| a < b) {
                    return Err(damaged());
                }
            }
            last = place.last;
            rows = rows.saturating_add(place.rows);
            index.places.push(place);
            index.lists.push(list);
        }
        let ends =
            index.places.first().map(|place| place.first) == Some(segment.first) && last == segment.last;
        if ends && rows == segment.rows && rest.is_empty() { Ok(index) } else { Err(damaged()) }
    }

    /// The frame that has a page, by its number.
    pub fn find(&self, page: u32) -> Option<usize> {
        let at = self.places.partition_point(|place| place.last < page);
        let place = self.places.get(at).filter(|place| place.first <= page)?;
        (place.is_dense() || self.lists[at].binary_search(&page).is_ok()).then_some(at)
    }

    /// Its frames.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// All of its pages, in order.
    pub fn pages(&self) -> impl Iterator<Item = u32> {
        self.places.iter().zip(&self.lists).flat_map(|(place, list)| {
            let dense = if place.is_dense() { place.first..place.last + 1 } else { 0..0 };
            dense.chain(list.iter().copied())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Frame, frame_hash};

    fn image(page: u32) -> Vec<u8> {
        (0..512u32).map(|n| (n ^ page.wrapping_mul(2_654_435_761)) as u8).collect()
    }

    fn made(pages: &[u32]) -> (ImageSegment, Vec<u8>) {
        let mut segment = Segment::new(512, [3; 8]);
        for &page in pages {
            segment.push(page, &image(page));
        }
        segment.finish()
    }

    fn index_of(segment: &ImageSegment, bytes: &[u8]) -> Index {
        let range = segment.index_range();
        Index::decode(&bytes[range.start as usize..range.end as usize], segment).unwrap()
    }

    #[test]
    fn each_page_is_found_and_no_other() {
        // Dense, with gaps, one alone; more than a frame.
        let pages: Vec<u32> = (1..=200).chain((300..900).step_by(3)).chain([5000]).collect();
        let (segment, bytes) = made(&pages);
        assert!(segment.is_possible(512));
        assert_eq!((segment.first, segment.last, segment.rows as usize), (1, 5000, pages.len()));
        let index = index_of(&segment, &bytes);
        assert_eq!(index.pages().collect::<Vec<_>>(), pages);
        for page in 1..=5001 {
            let found = index.find(page);
            assert_eq!(found.is_some(), pages.contains(&page), "page {page}");
            let Some(place) = found.map(|at| &index.places()[at]) else { continue };
            let frame = &bytes[place.offset as usize..][..place.len as usize];
            assert_eq!(frame_hash(frame), place.hash);
            assert_eq!(Frame::unpack(frame, place, 512).unwrap().image(page).unwrap(), image(page));
        }
        // The same pages are the same segment, but for its salt.
        assert_eq!(made(&pages).0, segment);
        let mut other = Segment::new(512, [4; 8]);
        pages.iter().for_each(|&page| other.push(page, &image(page)));
        let (other, _) = other.finish();
        assert!(other.hash != segment.hash && other.has_the_same(&segment));
        assert!(!made(&pages[1..]).0.has_the_same(&segment));
    }

    #[test]
    fn an_index_that_changed_is_noticed_and_one_that_was_made_up_does_no_harm() {
        let (segment, bytes) = made(&(1..=300).step_by(7).collect::<Vec<_>>());
        let index = bytes[segment.index_range().start as usize..].to_vec();
        for at in 0..index.len() {
            let mut bad = index.clone();
            bad[at] ^= 0x81;
            assert!(Index::decode(&bad, &segment).is_err(), "byte {at}");
            // With the hash that follows: whoever wrote that owns the remote; nothing panics.
            let forged = ImageSegment { index_hash: hash(&bad), ..segment.clone() };
            drop(Index::decode(&bad, &forged));
            let cut = ImageSegment { index_hash: hash(&index[..at]), index: at as u32, ..segment.clone() };
            drop(Index::decode(&index[..at], &cut));
        }
    }
}
