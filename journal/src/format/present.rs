//! Which pages the base of a lazy clone has: a header, and a tag of two bytes for each page.
//!
//! A tag is one value, which depends on the page's number, or 0. Neither byte of the value is 0, so that no change of
//! one byte makes one of the other; and two bytes at an even offset are written together or not at all, so that whoever
//! writes one changes nothing of another.

use super::{VERSION, put, u32_at, u64_at};
use crate::error::{Code, Error, Result};
use crate::hash::mix;
use crate::lsn::Lsn;
use crate::state::is_page_size;

/// Length of the header in bytes.
pub const PRESENT_HEADER_LEN: usize = 64;
/// Length of a tag in bytes.
pub const TAG_LEN: usize = 2;

const MAGIC: &[u8; 8] = b"TIDEPRES";
const CRC_AT: usize = 60;
/// Flags: the checksum is known; the base is whole.
const SUMMED: u32 = 1;
const WHOLE: u32 = 2;

/// The header: what is true of the image at the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PresentHeader {
    /// LSN that the image is of.
    pub lsn: Lsn,
    /// Size of its pages, in bytes.
    pub page_size: u32,
    /// Its size, in pages.
    pub size: u32,
    /// Its rolling checksum, where that is known.
    pub checksum: Option<u64>,
    /// The base lacks no page any more.
    pub whole: bool,
}

impl PresentHeader {
    /// Its bytes.
    pub fn encode(&self) -> [u8; PRESENT_HEADER_LEN] {
        let mut out = [0; PRESENT_HEADER_LEN];
        put(&mut out, 0, MAGIC);
        put(&mut out, 8, &VERSION.to_le_bytes());
        put(&mut out, 12, &self.page_size.to_le_bytes());
        put(&mut out, 16, &self.lsn.get().to_le_bytes());
        put(&mut out, 24, &self.size.to_le_bytes());
        let summed = if self.checksum.is_some() { SUMMED } else { 0 };
        let flags = summed | if self.whole { WHOLE } else { 0 };
        put(&mut out, 28, &flags.to_le_bytes());
        put(&mut out, 32, &self.checksum.unwrap_or(0).to_le_bytes());
        let crc = crc32fast::hash(&out[..CRC_AT]);
        put(&mut out, CRC_AT, &crc.to_le_bytes());
        out
    }

    /// Reads it.
    ///
    /// # Errors
    /// `Damaged`; `Format` of a newer one.
    pub fn decode(from: &[u8]) -> Result<PresentHeader> {
        let damaged = || Error::new(Code::Damaged, "the list of present pages is damaged");
        if from.len() < PRESENT_HEADER_LEN
            || &from[..8] != MAGIC
            || crc32fast::hash(&from[..CRC_AT]) != u32_at(from, CRC_AT)
        {
            return Err(damaged());
        }
        let version = u32_at(from, 8);
        if version > VERSION {
            let text = format!("the list of present pages is of format {version}, newer than this version");
            return Err(Error::new(Code::Format, text));
        }
        let page_size = u32_at(from, 12);
        if !is_page_size(page_size as usize) {
            return Err(damaged());
        }
        Ok(PresentHeader {
            lsn: Lsn::new(u64_at(from, 16)),
            page_size,
            size: u32_at(from, 24),
            checksum: (u32_at(from, 28) & SUMMED != 0).then(|| u64_at(from, 32)),
            whole: u32_at(from, 28) & WHOLE != 0,
        })
    }

    /// Length of a file with the tags of all its pages.
    pub fn file_len(&self) -> u64 {
        tag_offset(self.size) + TAG_LEN as u64
    }
}

/// Where the tag of `page` is.
pub const fn tag_offset(page: u32) -> u64 {
    PRESENT_HEADER_LEN as u64 + TAG_LEN as u64 * (page as u64 - 1)
}

/// The tag of a page that is present.
pub fn tag_of(page: u32) -> [u8; TAG_LEN] {
    ((mix(u64::from(page)) as u16) | 0x0101).to_le_bytes()
}

/// True if a tag says that its page is present, false if it says that it isn't; `None` if it is damaged.
pub fn is_present(page: u32, tag: [u8; TAG_LEN]) -> Option<bool> {
    if tag == [0; TAG_LEN] {
        return Some(false);
    }
    (tag == tag_of(page)).then_some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_byte_is_found() {
        let header =
            PresentHeader { lsn: Lsn::new(7), page_size: 512, size: 9, checksum: Some(5), whole: true };
        let good = header.encode();
        assert_eq!(PresentHeader::decode(&good).unwrap(), header);
        for at in 0..good.len() {
            let mut bad = good;
            bad[at] ^= 4;
            assert!(PresentHeader::decode(&bad).is_err(), "byte {at}");
        }
    }

    #[test]
    fn no_changed_byte_makes_a_page_present_or_absent() {
        for page in [1, 2, 77, 0x1_0000, u32::MAX] {
            for tag in [[0; 2], tag_of(page)] {
                for (byte, mask) in (0..2).flat_map(|byte| (1..=255).map(move |mask| (byte, mask))) {
                    let mut bad = tag;
                    bad[byte] ^= mask;
                    assert_eq!(is_present(page, bad), None, "page {page}: {tag:?} {bad:?}");
                }
            }
        }
    }
}
