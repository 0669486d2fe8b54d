//! A frame: some neighbouring pages, compressed together, that can be had and checked without the rest of a segment.

use tideline_journal::{Code, Error, PackedRows, Result, page_hash, unpack_rows};

/// Bytes of images in a frame, about.
pub(crate) const FRAME_BYTES: u32 = 64 << 10;

/// First bytes of the hash of a frame's bytes.
pub(crate) type FrameHash = [u8; 16];

/// Hash of a frame.
pub(crate) fn frame_hash(bytes: &[u8]) -> FrameHash {
    let mut short = [0; 16];
    short.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    short
}

/// Pages of a frame whose pages have this size.
pub(crate) fn pages_of_frame(page_size: u32) -> u32 {
    (FRAME_BYTES / page_size).max(1)
}

/// Where a frame is, and what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// First page in it.
    pub first: u32,
    /// Last page in it.
    pub last: u32,
    /// Pages in it.
    pub rows: u32,
    /// Its length in bytes.
    pub len: u32,
    /// Where it begins in its segment.
    pub offset: u64,
    pub hash: FrameHash,
}

impl Place {
    /// True if it has every page between its first and its last.
    pub fn is_dense(&self) -> bool {
        self.last - self.first + 1 == self.rows
    }
}

/// The images of a frame, unpacked.
pub(crate) struct Frame {
    pages: Vec<u32>,
    images: Vec<u8>,
}

impl Frame {
    /// Unpacks a frame whose hash was right; each image is compared with its hash as well.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn unpack(bytes: &[u8], place: &Place, page_size: u32) -> Result<Frame> {
        let mut pages = Vec::new();
        let mut images = Vec::new();
        unpack_rows(bytes, page_size as usize, place.rows as usize, |page, image| {
            pages.push(page);
            images.extend_from_slice(image);
        })?;
        let ends = (pages.first().copied(), pages.last().copied());
        if ends == (Some(place.first), Some(place.last)) && pages.len() == place.rows as usize {
            Ok(Frame { pages, images })
        } else {
            Err(Error::new(Code::Damaged, "a frame isn't what its index says; clone from another remote"))
        }
    }

    /// The image of a page, if it is in it.
    pub fn image(&self, page: u32) -> Option<&[u8]> {
        let at = self.pages.binary_search(&page).ok()?;
        self.images.chunks_exact(self.images.len() / self.pages.len()).nth(at)
    }
}

/// A frame that is being made.
pub(crate) struct Making {
    rows: PackedRows,
    first: u32,
    last: u32,
    count: u32,
}

impl Making {
    pub fn new() -> Making {
        Making { rows: PackedRows::default(), first: 0, last: 0, count: 0 }
    }

    /// Adds a page, behind those before it.
    pub fn push(&mut self, page: u32, image: &[u8]) {
        self.rows.push(page, image, page_hash(page, image), None);
        self.first = if self.count == 0 { page } else { self.first };
        self.last = page;
        self.count += 1;
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    /// Its bytes, and its place at `offset`.
    pub fn finish(self, offset: u64) -> (Vec<u8>, Place) {
        let bytes = self.rows.finish(0);
        let len = bytes.len() as u32;
        let hash = frame_hash(&bytes);
        let place = Place { first: self.first, last: self.last, rows: self.count, len, offset, hash };
        (bytes, place)
    }
}
