//! An entry: header, images, page table, annotations, commit record.

use super::{put, round_up, u16_at, u32_at, u64_at};
use crate::hash::mix;
use crate::lsn::{Lsn, LsnRange};
use crate::state::{Counters, State};

/// Length of an entry's header in bytes.
pub const HEADER_LEN: usize = 128;
/// Length of a row of the page table in bytes.
pub const ROW_LEN: usize = 24;
/// Length of a commit record in bytes.
pub const COMMIT_RECORD_LEN: usize = 32;
/// Entries begin at multiples of this many bytes.
pub const ENTRY_ALIGN: u64 = 64;

/// No entry is as long, in bytes, and no image as far into its segment: the index has so many bits for an offset.
pub const LONGEST: u64 = 1 << 43;

const MAGIC: u32 = u32::from_le_bytes(*b"ENT1");
const RECORD_MAGIC: u32 = u32::from_le_bytes(*b"COM1");
const PREPARED_MAGIC: u32 = u32::from_le_bytes(*b"PRE1");

/// Annotation: path of the super-journal that decides whether a prepared entry counts.
pub const SUPER_JOURNAL: u16 = 1;
/// Annotation of a seal: number of the next segment (4 bytes) and the chain value that it begins
/// with (8 bytes).
pub const NEXT_SEGMENT: u16 = 2;
const ANNOTATION_HEADER_LEN: usize = 8;

const CRITICAL: u16 = 1;
const HAS_CHECKSUM: u16 = 2;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// One commit.
    Commit = 1,
    /// Several merged into one.
    Merged = 2,
    /// All pages of the database.
    Full = 3,
    /// No LSN: the journal goes on in the next segment.
    Seal = 64,
    /// No LSN: images that a fold replaced, in a kept segment.
    Kept = 65,
}

impl Kind {
    /// The word for it in `tide_log`.
    pub const fn word(self) -> &'static str {
        match self {
            Kind::Commit => "commit",
            Kind::Merged => "merged",
            Kind::Full => "full",
            Kind::Seal => "seal",
            Kind::Kept => "kept",
        }
    }

    /// True if it stands for LSNs.
    pub const fn has_lsn(self) -> bool {
        (self as u16) < 64
    }
}

/// Where an entry came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Origin {
    /// Committed here.
    Local = 0,
    /// Shipped from elsewhere.
    Received = 1,
    /// Stock SQLite changed the base, or it was adopted.
    External = 2,
    /// A restore.
    Restore = 3,
    /// A merge of a branch.
    Merge = 4,
    /// A rebase.
    Rebase = 5,
}

impl Origin {
    /// The word for it in `tide_log`.
    pub const fn word(self) -> &'static str {
        match self {
            Origin::Local => "local",
            Origin::Received => "received",
            Origin::External => "external",
            Origin::Restore => "restore",
            Origin::Merge => "merge",
            Origin::Rebase => "rebase",
        }
    }

    /// The origin with this number.
    pub fn from_number(number: u16) -> Option<Origin> {
        Some(match number {
            0 => Origin::Local,
            1 => Origin::Received,
            2 => Origin::External,
            3 => Origin::Restore,
            4 => Origin::Merge,
            5 => Origin::Rebase,
            _ => return None,
        })
    }
}

/// A row of the page table: where the image of a page is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Number of the page, from 1.
    pub page: u32,
    /// Number of the segment that holds the image; 0 is the entry's own.
    pub segment: u32,
    /// Byte offset of the image in that segment; 0 stands for a page of zeros.
    pub offset: u64,
    /// Hash of the image.
    pub hash: u64,
}

impl Row {
    /// Its bytes.
    pub fn encode(&self, out: &mut [u8]) {
        put(out, 0, &self.page.to_le_bytes());
        put(out, 4, &self.segment.to_le_bytes());
        put(out, 8, &self.offset.to_le_bytes());
        put(out, 16, &self.hash.to_le_bytes());
    }

    /// Reads it back from [`ROW_LEN`] bytes.
    pub fn decode(from: &[u8]) -> Row {
        Row {
            page: u32_at(from, 0),
            segment: u32_at(from, 4),
            offset: u64_at(from, 8),
            hash: u64_at(from, 16),
        }
    }
}

/// The header of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHeader {
    /// What it is.
    pub kind: Kind,
    /// Where it came from.
    pub origin: Origin,
    /// LSNs that it covers. Of a kind without LSN: both the newest before it.
    pub range: LsnRange,
    /// Epoch of the control file under which it was written.
    pub epoch: u64,
    /// Chain value of the entry before.
    pub prev: u64,
    /// Length from the header's first byte to the record's last.
    pub len: u64,
    /// Offset of the page table from the header's first byte.
    pub table: u64,
    /// Rows of the page table.
    pub rows: u32,
    /// The database after it; `lsn` is the range's last.
    pub state: State,
    /// Rolling checksum of the database after it, where its writer knew.
    pub checksum: Option<u64>,
    /// Length of the annotations behind the table, in bytes.
    pub notes: u32,
    /// Newest LSN that was known to be on the disk when this was written: if it is damaged, that
    /// was no power cut.
    pub durable: Lsn,
}

impl EntryHeader {
    /// Its bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        let flags = CRITICAL | if self.checksum.is_some() { HAS_CHECKSUM } else { 0 };
        put(&mut out, 0, &MAGIC.to_le_bytes());
        put(&mut out, 4, &(self.kind as u16).to_le_bytes());
        put(&mut out, 6, &flags.to_le_bytes());
        put(&mut out, 8, &self.range.first.get().to_le_bytes());
        put(&mut out, 16, &self.range.last.get().to_le_bytes());
        put(&mut out, 24, &self.epoch.to_le_bytes());
        put(&mut out, 32, &self.prev.to_le_bytes());
        put(&mut out, 40, &self.len.to_le_bytes());
        put(&mut out, 48, &self.table.to_le_bytes());
        put(&mut out, 56, &self.rows.to_le_bytes());
        put(&mut out, 60, &self.state.page_size.to_le_bytes());
        put(&mut out, 64, &self.state.size.to_le_bytes());
        put(&mut out, 68, &(self.origin as u16).to_le_bytes());
        put(&mut out, 72, &self.state.time.to_le_bytes());
        put(&mut out, 80, &self.state.counters.counter.to_le_bytes());
        put(&mut out, 84, &self.state.counters.valid_for.to_le_bytes());
        put(&mut out, 88, &self.state.counters.version.to_le_bytes());
        put(&mut out, 92, &self.state.counters.cookie.to_le_bytes());
        put(&mut out, 96, &self.state.id.to_le_bytes());
        put(&mut out, 104, &self.checksum.unwrap_or(0).to_le_bytes());
        put(&mut out, 112, &self.notes.to_le_bytes());
        put(&mut out, 120, &self.durable.get().to_le_bytes());
        out
    }

    /// True if these bytes begin as a header does.
    pub fn begins(bytes: &[u8]) -> bool {
        bytes.starts_with(&MAGIC.to_le_bytes())
    }

    /// The epoch in the bytes of a header that may be damaged otherwise.
    pub fn epoch_in(bytes: &[u8; HEADER_LEN]) -> u64 {
        u64_at(bytes, 24)
    }

    /// Reads a header whose checksum isn't known to be right yet; `None` if it can't be one. What it
    /// returns has consistent lengths, and nothing else may be trusted before the commit record.
    pub fn decode(from: &[u8]) -> Option<EntryHeader> {
        if from.len() < HEADER_LEN || u32_at(from, 0) != MAGIC {
            return None;
        }
        let kind = match u16_at(from, 4) {
            1 => Kind::Commit,
            2 => Kind::Merged,
            3 => Kind::Full,
            64 => Kind::Seal,
            65 => Kind::Kept,
            _ => return None,
        };
        let flags = u16_at(from, 6);
        let last = Lsn::new(u64_at(from, 16));
        let header = EntryHeader {
            kind,
            origin: Origin::from_number(u16_at(from, 68))?,
            range: LsnRange { first: Lsn::new(u64_at(from, 8)), last },
            epoch: u64_at(from, 24),
            prev: u64_at(from, 32),
            len: u64_at(from, 40),
            table: u64_at(from, 48),
            rows: u32_at(from, 56),
            state: State {
                lsn: last,
                id: u64_at(from, 96),
                page_size: u32_at(from, 60),
                size: u32_at(from, 64),
                counters: Counters {
                    counter: u32_at(from, 80),
                    valid_for: u32_at(from, 84),
                    version: u32_at(from, 88),
                    cookie: u32_at(from, 92),
                },
                time: u64_at(from, 72),
            },
            checksum: (flags & HAS_CHECKSUM != 0).then(|| u64_at(from, 104)),
            notes: u32_at(from, 112),
            durable: Lsn::new(u64_at(from, 120)),
        };
        let body = header.table.checked_add(header.table_len()).filter(|&body| body < LONGEST)?;
        (header.range.first <= last
            && header.table >= HEADER_LEN as u64
            && header.len == round_up(body, 8) + COMMIT_RECORD_LEN as u64
            && header.state.is_possible())
        .then_some(header)
    }

    /// Length of page table and annotations in bytes.
    pub fn table_len(&self) -> u64 {
        u64::from(self.rows) * ROW_LEN as u64 + u64::from(self.notes)
    }

    /// Offset of the commit record from the header's first byte.
    pub fn record(&self) -> u64 {
        self.len - COMMIT_RECORD_LEN as u64
    }
}

/// Chain value of an entry: from that of the entry before and its record's CRC.
pub fn chain(prev: u64, crc: u32, last: Lsn) -> u64 {
    mix(mix(prev ^ 0x5449_4445).wrapping_add(u64::from(crc)) ^ last.get().rotate_left(32))
}

/// A seal: it has no LSN of its own and leads to segment `next`, which begins with chain value
/// `next_chain`. Returns its bytes, all of them.
pub fn seal(state: State, epoch: u64, prev: u64, durable: Lsn, next: u32, next_chain: u64) -> Vec<u8> {
    let mut place = next.to_le_bytes().to_vec();
    place.extend_from_slice(&next_chain.to_le_bytes());
    let notes = annotation(NEXT_SEGMENT, true, &place);
    let body = HEADER_LEN + notes.len();
    let header = EntryHeader {
        kind: Kind::Seal,
        origin: Origin::Local,
        range: LsnRange::one(state.lsn),
        epoch,
        prev,
        len: (body + COMMIT_RECORD_LEN) as u64,
        table: HEADER_LEN as u64,
        rows: 0,
        state,
        checksum: None,
        notes: notes.len() as u32,
        durable,
    };
    let encoded = header.encode();
    let record = CommitRecord::of(&header, &encoded, &notes);
    let mut out = encoded.to_vec();
    out.extend_from_slice(&notes);
    out.extend_from_slice(&record.encode());
    out
}

/// Number and chain value of the segment that a seal leads to.
pub fn sealed_to(notes: &[u8]) -> Option<(u32, u64)> {
    let place = find_annotation(notes, NEXT_SEGMENT)?;
    (place.len() == 12).then(|| (u32_at(place, 0), u64_at(place, 4)))
}

/// The record that makes an entry count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitRecord {
    /// CRC-32 over header, page table and annotations.
    pub crc: u32,
    /// Last LSN of the entry.
    pub last: Lsn,
    /// Chain value of the entry before.
    pub prev: u64,
    /// Chain value of this entry.
    pub chain: u64,
}

impl CommitRecord {
    /// The record for an entry with this header and these bytes of table and annotations.
    pub fn of(header: &EntryHeader, encoded: &[u8], table: &[u8]) -> CommitRecord {
        let mut crc = crc32fast::Hasher::new();
        crc.update(encoded);
        crc.update(table);
        let crc = crc.finalize();
        let last = header.range.last;
        CommitRecord { crc, last, prev: header.prev, chain: chain(header.prev, crc, last) }
    }

    /// Its bytes.
    pub fn encode(&self) -> [u8; COMMIT_RECORD_LEN] {
        self.encode_as(RECORD_MAGIC)
    }

    /// True if these are its bytes.
    pub fn is(&self, bytes: &[u8; COMMIT_RECORD_LEN]) -> bool {
        *bytes == self.encode()
    }

    /// True if these are its bytes while a super-journal decides, or were on the way from there to those of a commit
    /// when their writer died: of each byte that differs, one or the other.
    pub fn is_prepared(&self, bytes: &[u8; COMMIT_RECORD_LEN]) -> bool {
        let (prepared, committed) = (self.encode_prepared(), self.encode());
        *bytes != committed
            && bytes
                .iter()
                .zip(prepared)
                .zip(committed)
                .all(|((&byte, one), other)| byte == one || byte == other)
    }

    /// Its bytes while a super-journal decides: they differ in the magic alone, so that a torn
    /// change of one into the other is one of the two.
    pub fn encode_prepared(&self) -> [u8; COMMIT_RECORD_LEN] {
        self.encode_as(PREPARED_MAGIC)
    }

    fn encode_as(&self, magic: u32) -> [u8; COMMIT_RECORD_LEN] {
        let mut out = [0; COMMIT_RECORD_LEN];
        put(&mut out, 0, &magic.to_le_bytes());
        put(&mut out, 4, &self.crc.to_le_bytes());
        put(&mut out, 8, &self.last.get().to_le_bytes());
        put(&mut out, 16, &self.prev.to_le_bytes());
        put(&mut out, 24, &self.chain.to_le_bytes());
        out
    }
}

/// One annotation: kind, a bit that says that a reader must know it, length, bytes.
pub fn annotation(kind: u16, critical: bool, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0; round_up((ANNOTATION_HEADER_LEN + bytes.len()) as u64, 8) as usize];
    put(&mut out, 0, &kind.to_le_bytes());
    put(&mut out, 2, &u16::from(critical).to_le_bytes());
    put(&mut out, 4, &(bytes.len() as u32).to_le_bytes());
    put(&mut out, ANNOTATION_HEADER_LEN, bytes);
    out
}

/// The bytes of the first annotation of `kind`, among those of an entry.
pub fn find_annotation(mut notes: &[u8], kind: u16) -> Option<&[u8]> {
    while notes.len() >= ANNOTATION_HEADER_LEN {
        let len = u32_at(notes, 4) as usize;
        let bytes = notes.get(ANNOTATION_HEADER_LEN..ANNOTATION_HEADER_LEN.checked_add(len)?)?;
        if u16_at(notes, 0) == kind {
            return Some(bytes);
        }
        notes = notes.get(round_up((ANNOTATION_HEADER_LEN + len) as u64, 8) as usize..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_round_trip() {
        let header = EntryHeader {
            kind: Kind::Merged,
            origin: Origin::Received,
            range: LsnRange { first: Lsn::new(3), last: Lsn::new(9) },
            epoch: 11,
            prev: 12,
            len: 128 + 2 * 4096 + 2 * 24 + 8 + 32,
            table: 128 + 2 * 4096,
            rows: 2,
            state: State {
                lsn: Lsn::new(9),
                id: 13,
                page_size: 4096,
                size: 14,
                counters: Counters { counter: 15, valid_for: 16, version: 17, cookie: 18 },
                time: 19,
            },
            checksum: Some(20),
            notes: 3,
            durable: Lsn::new(2),
        };
        assert_eq!(EntryHeader::decode(&header.encode()), Some(header));
        let mut long = header;
        long.rows = u32::MAX;
        assert_eq!(EntryHeader::decode(&long.encode()), None, "lengths must agree");
    }

    #[test]
    fn annotations_are_found() {
        let mut notes = annotation(7, false, b"first");
        notes.extend(annotation(SUPER_JOURNAL, true, b"/a/b-mj12"));
        assert_eq!(find_annotation(&notes, SUPER_JOURNAL), Some(&b"/a/b-mj12"[..]));
        assert_eq!(find_annotation(&notes, 7), Some(&b"first"[..]));
        assert_eq!(find_annotation(&notes, 8), None);
        for cut in 0..notes.len() {
            find_annotation(&notes[..cut], 8);
        }
    }

    #[test]
    fn rows_round_trip() {
        let row = Row { page: 1, segment: 2, offset: 3, hash: 4 };
        let mut out = [0; ROW_LEN];
        row.encode(&mut out);
        assert_eq!(Row::decode(&out), row);
    }
}
