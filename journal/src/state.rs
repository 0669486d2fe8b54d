//! What is true of a database at one LSN.

use crate::hash::{HEADER_LEN, SERVED};
use crate::lsn::Lsn;

/// The bytes of page 1 that are served instead of stored. `counter` is bytes 24..28, `valid_for`
/// 92..96, `version` 96..100 and `cookie` 40..44.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// File change counter.
    pub counter: u32,
    /// Change counter for which the size at 28..32 is right.
    pub valid_for: u32,
    /// SQLite version that wrote `valid_for`.
    pub version: u32,
    /// Schema cookie.
    pub cookie: u32,
}

/// Size of a valid page, in bytes.
pub(crate) fn is_page_size(size: usize) -> bool {
    (512..=65536).contains(&size) && size.is_power_of_two()
}

/// Number of the page that holds byte 2^30, which SQLite never uses.
pub const fn lock_page(page_size: usize) -> u32 {
    (0x4000_0000 / page_size) as u32 + 1
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The later of two change counters, which count round.
pub(crate) fn later(one: u32, other: u32) -> u32 {
    if other.wrapping_sub(one) < 1 << 31 { other } else { one }
}

impl Counters {
    /// Reads them from the first [`HEADER_LEN`] bytes of page 1.
    pub fn of(header: &[u8]) -> Counters {
        Counters {
            counter: be32(header, 24),
            valid_for: be32(header, 92),
            version: be32(header, 96),
            cookie: be32(header, 40),
        }
    }

    /// Puts them, and the 1s of bytes 18 and 19, into an image of page 1 or the part of it that
    /// begins at byte `at`.
    pub fn serve(&self, image: &mut [u8], at: usize) {
        if at >= HEADER_LEN {
            return;
        }
        let mut header = [0; HEADER_LEN];
        header[18..20].fill(1);
        header[24..28].copy_from_slice(&self.counter.to_be_bytes());
        header[40..44].copy_from_slice(&self.cookie.to_be_bytes());
        header[92..96].copy_from_slice(&self.valid_for.to_be_bytes());
        header[96..100].copy_from_slice(&self.version.to_be_bytes());
        for (from, to) in SERVED {
            let (from, to) = (from.max(at), to.min(at + image.len()));
            if from < to {
                image[from - at..to - at].copy_from_slice(&header[from..to]);
            }
        }
    }
}

/// Page size that the header of page 1 names, in bytes; `None` if it isn't one.
pub fn page_size_of(header: &[u8]) -> Option<usize> {
    let size = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65536,
        size => usize::from(size),
    };
    is_page_size(size).then_some(size)
}

/// Size in pages that the header of page 1 names; `None` where it can't be trusted, because an old
/// SQLite wrote the file last.
pub fn size_of(header: &[u8]) -> Option<u32> {
    let size = be32(header, 28);
    (size > 0 && be32(header, 24) == be32(header, 92)).then_some(size)
}

/// Most pages that SQLite has in a database.
const MAX_SIZE: u32 = 0xffff_fffe;

/// A database at one LSN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The LSN.
    pub lsn: Lsn,
    /// Identity of the commit: equal on two replicas only if they have the same history.
    pub id: u64,
    /// Page size in bytes; 0 while there is no page.
    pub page_size: u32,
    /// Size in pages.
    pub size: u32,
    /// Served bytes of page 1.
    pub counters: Counters,
    /// Time of the commit in milliseconds since 1970.
    pub time: u64,
}

impl State {
    /// How many pages it has, without the one that is never used.
    pub(crate) fn pages(&self) -> u64 {
        let lock = self.size > 0 && self.size >= lock_page(self.page_size as usize);
        u64::from(self.size) - u64::from(lock)
    }

    /// False for an LSN that nobody gets to, and sizes that no database has.
    pub(crate) fn is_possible(&self) -> bool {
        let pages = is_page_size(self.page_size as usize) && self.size <= MAX_SIZE;
        self.lsn < Lsn::new(1 << 62) && (pages || (self.page_size == 0 && self.size == 0))
    }

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        u64::from(self.page_size) * u64::from(self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serving_in_parts_is_serving_whole() {
        let counters = Counters { counter: 0x01020304, valid_for: 0x05060708, version: 9, cookie: 10 };
        let mut whole = [0xaa; 512];
        counters.serve(&mut whole, 0);
        assert_eq!(Counters::of(&whole), counters);
        assert_eq!(&whole[17..21], &[0xaa, 1, 1, 0xaa]);
        for cut in 1..512 {
            let mut parts = [0xaa; 512];
            let (a, b) = parts.split_at_mut(cut);
            counters.serve(a, 0);
            counters.serve(b, cut);
            assert_eq!(parts, whole, "cut at {cut}");
        }
    }

    #[test]
    fn page_sizes() {
        let mut header = [0; 100];
        for (value, size) in
            [(1u16, Some(65536)), (512, Some(512)), (4096, Some(4096)), (0, None), (1000, None)]
        {
            header[16..18].copy_from_slice(&value.to_be_bytes());
            assert_eq!(page_size_of(&header), size);
        }
        assert_eq!(lock_page(4096), 262145);
    }
}
