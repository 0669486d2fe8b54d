//! The superblock: what the store must know before it reads a segment. Two slots, written in turn.

use super::{VERSION, bytes, put, u32_at, u64_at};
use crate::error::{Code, Error, Result};
use crate::hash::HEADER_LEN;
use crate::lsn::Lsn;
use crate::state::{Counters, State};

/// Length of one slot in bytes.
pub const SLOT_LEN: usize = 4096;
/// Length of the file in bytes: two slots.
pub const SUPERBLOCK_LEN: usize = 2 * SLOT_LEN;

const MAGIC: &[u8; 8] = b"TIDESTOR";
const CRC_AT: usize = 508;

/// How much history stays readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// 64 MiB of journal or 10,000 LSNs, whichever is less.
    Default,
    /// Only what readers need.
    None,
    /// So many bytes of journal.
    Bytes(u64),
    /// So many LSNs.
    Lsns(u64),
    /// So many seconds.
    Seconds(u64),
}

/// The bytes of page 1 that tell a base from another: 24..32 and 92..100.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark(pub [u8; 16]);

impl Mark {
    /// Of a page 1, or of the nothing that an empty base has.
    pub fn of(header: &[u8]) -> Mark {
        let mut mark = [0; 16];
        if header.len() >= HEADER_LEN {
            mark[..8].copy_from_slice(&header[24..32]);
            mark[8..].copy_from_slice(&header[92..100]);
        }
        Mark(mark)
    }

    /// Puts the bytes that a marked base keeps into its header: all but the size at 28..32, which
    /// folds move.
    pub fn put(&self, header: &mut [u8]) {
        header[24..28].copy_from_slice(&self.0[..4]);
        header[92..100].copy_from_slice(&self.0[8..]);
    }

    /// True if a header with `other` was marked with this.
    pub fn marks(&self, other: &Mark) -> bool {
        self.0[..4] == other.0[..4] && self.0[8..] == other.0[8..]
    }
}

/// A place in the journal: where the entry behind an LSN begins, or will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The LSN before.
    pub lsn: Lsn,
    /// Number of the segment.
    pub segment: u32,
    /// Byte offset in it.
    pub offset: u64,
    /// Chain value of the entry before.
    pub chain: u64,
}

/// The superblock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Grows with every write; the valid slot with the larger one counts.
    pub sequence: u64,
    /// The lineage.
    pub lineage: [u8; 16],
    /// State at the horizon, the oldest LSN still readable.
    pub horizon: State,
    /// Number (of `format::Origin`) that the LSN at the horizon came with.
    pub horizon_origin: u16,
    /// Oldest segment of the journal.
    pub first_segment: u32,
    /// State of the base.
    pub base: State,
    /// Where the journal goes on behind the base, as of when that last came to rest.
    pub behind: Option<Position>,
    /// Rolling checksum of the base, where it is known.
    pub base_checksum: Option<u64>,
    /// What tells the base from another while it is plain SQLite...
    pub rest: Mark,
    /// ...with its length in bytes...
    pub rest_len: u64,
    /// ...and while it is marked.
    pub marked: Mark,
    /// Every entry up to here is on the disk.
    pub durable: Lsn,
    /// How much history stays readable.
    pub retention: Retention,
    /// Oldest LSN still readable: the horizon, or above it while a fold moves it, and in a lazy clone.
    pub history: Lsn,
    /// The base may lack pages, which come from a source.
    pub lazy: bool,
}

pub(super) fn put_state(out: &mut [u8], at: usize, state: &State) {
    put(out, at, &state.lsn.get().to_le_bytes());
    put(out, at + 8, &state.id.to_le_bytes());
    put(out, at + 16, &state.page_size.to_le_bytes());
    put(out, at + 20, &state.size.to_le_bytes());
    put(out, at + 24, &state.counters.counter.to_le_bytes());
    put(out, at + 28, &state.counters.valid_for.to_le_bytes());
    put(out, at + 32, &state.counters.version.to_le_bytes());
    put(out, at + 36, &state.counters.cookie.to_le_bytes());
    put(out, at + 40, &state.time.to_le_bytes());
}

pub(super) fn state_at(from: &[u8], at: usize) -> State {
    State {
        lsn: Lsn::new(u64_at(from, at)),
        id: u64_at(from, at + 8),
        page_size: u32_at(from, at + 16),
        size: u32_at(from, at + 20),
        counters: Counters {
            counter: u32_at(from, at + 24),
            valid_for: u32_at(from, at + 28),
            version: u32_at(from, at + 32),
            cookie: u32_at(from, at + 36),
        },
        time: u64_at(from, at + 40),
    }
}

impl Superblock {
    /// Bytes of its slot (the first 512; the rest of the slot is zero).
    pub fn encode(&self) -> [u8; 512] {
        let mut out = [0; 512];
        put(&mut out, 0, MAGIC);
        put(&mut out, 8, &VERSION.to_le_bytes());
        put(&mut out, 16, &self.sequence.to_le_bytes());
        put(&mut out, 24, &self.lineage);
        put_state(&mut out, 40, &self.horizon);
        put(&mut out, 88, &self.first_segment.to_le_bytes());
        put(&mut out, 92, &u32::from(self.horizon_origin).to_le_bytes());
        put_state(&mut out, 96, &self.base);
        if let Some(behind) = &self.behind {
            put(&mut out, 144, &behind.lsn.get().to_le_bytes());
            put(&mut out, 152, &behind.segment.to_le_bytes());
            put(&mut out, 160, &behind.offset.to_le_bytes());
            put(&mut out, 168, &behind.chain.to_le_bytes());
        }
        put(&mut out, 176, &u32::from(self.lazy).to_le_bytes());
        put(&mut out, 244, &u32::from(self.base_checksum.is_some()).to_le_bytes());
        put(&mut out, 248, &self.base_checksum.unwrap_or(0).to_le_bytes());
        put(&mut out, 256, &self.rest.0);
        put(&mut out, 272, &self.rest_len.to_le_bytes());
        put(&mut out, 280, &self.marked.0);
        put(&mut out, 296, &self.durable.get().to_le_bytes());
        let (kind, amount) = match self.retention {
            Retention::Default => (0u32, 0),
            Retention::None => (1, 0),
            Retention::Bytes(n) => (2, n),
            Retention::Lsns(n) => (3, n),
            Retention::Seconds(n) => (4, n),
        };
        put(&mut out, 304, &kind.to_le_bytes());
        put(&mut out, 312, &amount.to_le_bytes());
        put(&mut out, 320, &self.history.get().to_le_bytes());
        let crc = crc32fast::hash(&out[..CRC_AT]);
        put(&mut out, CRC_AT, &crc.to_le_bytes());
        out
    }

    /// Reads one slot.
    ///
    /// # Errors
    /// `Damaged` if it isn't whole, `Format` if a newer version wrote it.
    pub fn decode(from: &[u8]) -> Result<Superblock> {
        let damaged = || Error::new(Code::Damaged, "the superblock is damaged; restore from a backup");
        if from.len() < 512 || &from[..8] != MAGIC || crc32fast::hash(&from[..CRC_AT]) != u32_at(from, CRC_AT)
        {
            return Err(damaged());
        }
        let version = u32_at(from, 8);
        if version != VERSION {
            return Err(Error::new(
                Code::Format,
                format!("the store has format {version}, this library reads {VERSION}; use a newer library"),
            ));
        }
        let amount = u64_at(from, 312);
        let (horizon, base) = (state_at(from, 40), state_at(from, 96));
        let sequence = u64_at(from, 16);
        // There must be room for a next write.
        if !horizon.is_possible() || !base.is_possible() || sequence == u64::MAX {
            return Err(damaged());
        }
        Ok(Superblock {
            sequence,
            lineage: bytes(from, 24),
            horizon,
            horizon_origin: u16::try_from(u32_at(from, 92)).map_err(|_| damaged())?,
            first_segment: u32_at(from, 88),
            base,
            behind: (u32_at(from, 152) != 0).then(|| Position {
                lsn: Lsn::new(u64_at(from, 144)),
                segment: u32_at(from, 152),
                offset: u64_at(from, 160),
                chain: u64_at(from, 168),
            }),
            lazy: match u32_at(from, 176) {
                0 => false,
                1 => true,
                _ => return Err(damaged()),
            },
            base_checksum: (u32_at(from, 244) != 0).then(|| u64_at(from, 248)),
            rest: Mark(bytes(from, 256)),
            rest_len: u64_at(from, 272),
            marked: Mark(bytes(from, 280)),
            durable: Lsn::new(u64_at(from, 296)),
            history: Lsn::new(u64_at(from, 320)),
            retention: match u32_at(from, 304) {
                0 => Retention::Default,
                1 => Retention::None,
                2 => Retention::Bytes(amount),
                3 => Retention::Lsns(amount),
                4 => Retention::Seconds(amount),
                _ => return Err(damaged()),
            },
        })
    }

    /// The newer valid slot of the file's bytes.
    ///
    /// # Errors
    /// As [`Superblock::decode`], if neither slot is valid.
    pub fn newest(file: &[u8]) -> Result<Superblock> {
        let slot = |n: usize| Superblock::decode(file.get(n * SLOT_LEN..).unwrap_or(&[]));
        match (slot(0), slot(1)) {
            (Ok(a), Ok(b)) => Ok(if a.sequence > b.sequence { a } else { b }),
            // A newer format in either slot means that a newer library was here.
            (Err(e), _) | (_, Err(e)) if e.code() == Code::Format => Err(e),
            (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(one),
            (Err(e), Err(_)) => Err(e),
        }
    }

    /// Tells it from every other that the store has had: the low half of its sequence number, and its checksum.
    pub fn stamp(&self) -> u64 {
        self.sequence << 32 | u64::from(u32_at(&self.encode(), CRC_AT))
    }

    /// Byte offset of the slot that this one is written to.
    pub fn slot(&self) -> u64 {
        (self.sequence % 2) * SLOT_LEN as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(sequence: u64) -> Superblock {
        Superblock {
            sequence,
            lineage: [1; 16],
            horizon: State { lsn: Lsn::new(2), page_size: 512, ..State::default() },
            horizon_origin: 2,
            first_segment: 3,
            base: State { lsn: Lsn::new(4), page_size: 512, size: 5, ..State::default() },
            behind: Some(Position { lsn: Lsn::new(4), segment: 14, offset: 15, chain: 16 }),
            base_checksum: Some(7),
            rest: Mark([8; 16]),
            rest_len: 9,
            marked: Mark([10; 16]),
            durable: Lsn::new(11),
            retention: Retention::Lsns(12),
            history: Lsn::new(13),
            lazy: true,
        }
    }

    #[test]
    fn any_flipped_byte_is_found() {
        let good = example(1).encode();
        assert_eq!(Superblock::decode(&good).unwrap(), example(1));
        for at in 0..good.len() {
            let mut bad = good;
            bad[at] ^= 4;
            assert!(Superblock::decode(&bad).is_err(), "byte {at}");
        }
    }

    #[test]
    fn newer_valid_slot_counts() {
        let mut file = vec![0; SUPERBLOCK_LEN];
        for sequence in [4, 5] {
            let block = example(sequence);
            let at = block.slot() as usize;
            file[at..at + 512].copy_from_slice(&block.encode());
        }
        assert_eq!(Superblock::newest(&file).unwrap().sequence, 5);
        file[SLOT_LEN + 100] ^= 1;
        assert_eq!(Superblock::newest(&file).unwrap().sequence, 4);
        file[100] ^= 1;
        assert_eq!(Superblock::newest(&file).unwrap_err().code(), Code::Damaged);
    }
}
