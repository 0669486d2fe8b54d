//! Header of a segment file.

use super::{VERSION, bytes, put, u16_at, u32_at, u64_at};
use crate::error::{Code, Error, Result};
use crate::lsn::Lsn;

/// Length of a segment's header in bytes; the first entry begins there.
pub const SEGMENT_HEADER_LEN: usize = 128;

const MAGIC: &[u8; 8] = b"TIDE-SEG";

/// What a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum SegmentKind {
    /// Entries of the journal.
    Journal = 0,
    /// Images that entries of the journal address from elsewhere.
    Staged = 1,
    /// Images that folds replaced.
    Kept = 2,
}

/// The header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// What it holds.
    pub kind: SegmentKind,
    /// Lineage that it belongs to.
    pub lineage: [u8; 16],
    /// Its number, as in its name.
    pub number: u32,
    /// LSN of the first entry.
    pub first: Lsn,
    /// Chain value of the entry before the first.
    pub chain: u64,
    /// Time of its creation in milliseconds since 1970.
    pub time: u64,
    /// Newest LSN that was known to be on the disk then.
    pub durable: Lsn,
}

impl SegmentHeader {
    /// Its bytes.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_LEN] {
        let mut out = [0; SEGMENT_HEADER_LEN];
        put(&mut out, 0, MAGIC);
        put(&mut out, 8, &VERSION.to_le_bytes());
        put(&mut out, 12, &(self.kind as u16).to_le_bytes());
        put(&mut out, 16, &self.lineage);
        put(&mut out, 32, &u64::from(self.number).to_le_bytes());
        put(&mut out, 40, &self.first.get().to_le_bytes());
        put(&mut out, 48, &self.chain.to_le_bytes());
        put(&mut out, 56, &self.time.to_le_bytes());
        put(&mut out, 64, &self.durable.get().to_le_bytes());
        let crc = crc32fast::hash(&out[..124]);
        put(&mut out, 124, &crc.to_le_bytes());
        out
    }

    /// True if it is what a seal leads to that asks for `expected`, whose times aren't known.
    pub fn continues_as(&self, expected: &SegmentHeader) -> bool {
        (self.kind, self.number, self.first, self.chain)
            == (expected.kind, expected.number, expected.first, expected.chain)
    }

    /// Reads it back.
    ///
    /// # Errors
    /// `Damaged` if it isn't whole, `Format` if a newer version wrote it.
    pub fn decode(from: &[u8]) -> Result<SegmentHeader> {
        let damaged = || Error::new(Code::Damaged, "a segment's header is damaged; restore from a backup");
        if from.len() < SEGMENT_HEADER_LEN || &from[..8] != MAGIC {
            return Err(damaged());
        }
        if crc32fast::hash(&from[..124]) != u32_at(from, 124) {
            return Err(damaged());
        }
        if u32_at(from, 8) != VERSION {
            let found = u32_at(from, 8);
            return Err(Error::new(
                Code::Format,
                format!("a segment has format {found}, this library reads {VERSION}; use a newer library"),
            ));
        }
        let kind = match u16_at(from, 12) {
            0 => SegmentKind::Journal,
            1 => SegmentKind::Staged,
            2 => SegmentKind::Kept,
            _ => return Err(damaged()),
        };
        Ok(SegmentHeader {
            kind,
            lineage: bytes(from, 16),
            // There must be room for a next one.
            number: u32::try_from(u64_at(from, 32)).ok().filter(|&n| n < u32::MAX).ok_or_else(damaged)?,
            first: Lsn::new(u64_at(from, 40)),
            chain: u64_at(from, 48),
            time: u64_at(from, 56),
            durable: Lsn::new(u64_at(from, 64)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_flipped_byte_is_found() {
        let header = SegmentHeader {
            kind: SegmentKind::Journal,
            lineage: [3; 16],
            number: 9,
            first: Lsn::new(77),
            chain: 5,
            time: 1,
            durable: Lsn::new(70),
        };
        let good = header.encode();
        assert_eq!(SegmentHeader::decode(&good).unwrap(), header);
        for at in 0..good.len() {
            let mut bad = good;
            bad[at] ^= 0x10;
            assert!(SegmentHeader::decode(&bad).is_err(), "byte {at}");
        }
    }
}
