//! A shipped entry, whole or in pieces: what `tide_prepare` gives and `tide_receive` takes.
//!
//! ```text
//!   header (192) │ identities: (LSN, id)… │ rows: page, encoding, length, hash, image… │ CRC-32
//! ```
//! An image is compressed: against the image that the page had before the range, if the receiver surely has it, or else
//! against the image in the row before.

use super::rows::{PackedRows, ShippedRow, walk};
use super::superblock::{put_state, state_at};
use super::{VERSION, bytes, put, u32_at, u64_at};
use crate::error::{Code, Error, Result};
use crate::lsn::{Lsn, LsnRange};
use crate::state::{State, lock_page};

/// Length of the header in bytes.
pub const SHIPPED_HEADER_LEN: usize = 192;
const IDENTITY_LEN: usize = 16;
const TRAILER_LEN: usize = 4;
const MAGIC: &[u8; 8] = b"TIDESHIP";

const FULL: u32 = 1;
const HAS_BEFORE: u32 = 2;
const HAS_AFTER: u32 = 4;

/// Header of a shipped entry or of a piece of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShippedHeader {
    /// Lineage that it belongs to.
    pub lineage: [u8; 16],
    /// LSNs that it covers.
    pub range: LsnRange,
    /// It holds all pages of the database.
    pub full: bool,
    /// Identity of the commit before the first.
    pub before: u64,
    /// The database after it.
    pub state: State,
    /// Rolling checksum of the database before it, where the sender knows.
    pub checksum_before: Option<u64>,
    /// Rolling checksum of the database after it, where the sender knows.
    pub checksum_after: Option<u64>,
    /// Rows of the whole entry.
    pub rows: u64,
    /// Rows of the pieces before this one.
    pub rows_before: u64,
    /// Rows of this piece.
    pub rows_here: u32,
    /// Identities that follow.
    pub identities: u32,
    /// The same in all pieces of one entry, and in no other's.
    pub token: u64,
    /// Length of what follows the header, in bytes.
    pub body: u64,
}

fn damaged(what: &str) -> Error {
    Error::new(Code::Damaged, format!("the blob {what}; ship it again"))
}

impl ShippedHeader {
    /// That of all pages of a database; how many there are is said when they are packed.
    pub fn whole(lineage: [u8; 16], state: State, checksum: Option<u64>, token: u64) -> ShippedHeader {
        ShippedHeader {
            lineage,
            range: LsnRange { first: Lsn::new(1), last: state.lsn },
            full: true,
            before: 0,
            state,
            checksum_before: None,
            checksum_after: checksum,
            rows: 0,
            rows_before: 0,
            rows_here: 0,
            identities: 0,
            token,
            body: 0,
        }
    }

    /// Its bytes.
    pub fn encode(&self) -> [u8; SHIPPED_HEADER_LEN] {
        let mut out = [0; SHIPPED_HEADER_LEN];
        let flags = if self.full { FULL } else { 0 }
            | if self.checksum_before.is_some() { HAS_BEFORE } else { 0 }
            | if self.checksum_after.is_some() { HAS_AFTER } else { 0 };
        put(&mut out, 0, MAGIC);
        put(&mut out, 8, &VERSION.to_le_bytes());
        put(&mut out, 12, &flags.to_le_bytes());
        put(&mut out, 16, &self.lineage);
        put(&mut out, 32, &self.range.first.get().to_le_bytes());
        put(&mut out, 40, &self.range.last.get().to_le_bytes());
        put(&mut out, 48, &self.before.to_le_bytes());
        put_state(&mut out, 56, &self.state);
        put(&mut out, 104, &self.checksum_before.unwrap_or(0).to_le_bytes());
        put(&mut out, 112, &self.checksum_after.unwrap_or(0).to_le_bytes());
        put(&mut out, 120, &self.rows.to_le_bytes());
        put(&mut out, 128, &self.rows_before.to_le_bytes());
        put(&mut out, 136, &self.rows_here.to_le_bytes());
        put(&mut out, 140, &self.identities.to_le_bytes());
        put(&mut out, 144, &self.token.to_le_bytes());
        put(&mut out, 152, &self.body.to_le_bytes());
        let crc = crc32fast::hash(&out[..188]);
        put(&mut out, 188, &crc.to_le_bytes());
        out
    }

    /// Reads it back.
    ///
    /// # Errors
    /// `Damaged`, or `Format` if a newer version wrote it.
    pub fn decode(from: &[u8]) -> Result<ShippedHeader> {
        if from.len() < SHIPPED_HEADER_LEN || &from[..8] != MAGIC {
            return Err(damaged("is no shipped entry"));
        }
        if crc32fast::hash(&from[..188]) != u32_at(from, 188) {
            return Err(damaged("has a damaged header"));
        }
        let version = u32_at(from, 8);
        if version != VERSION {
            return Err(Error::new(
                Code::Format,
                format!("the blob has format {version}, this library reads {VERSION}; use a newer library"),
            ));
        }
        let flags = u32_at(from, 12);
        let header = ShippedHeader {
            lineage: bytes(from, 16),
            range: LsnRange { first: Lsn::new(u64_at(from, 32)), last: Lsn::new(u64_at(from, 40)) },
            full: flags & FULL != 0,
            before: u64_at(from, 48),
            state: state_at(from, 56),
            checksum_before: (flags & HAS_BEFORE != 0).then(|| u64_at(from, 104)),
            checksum_after: (flags & HAS_AFTER != 0).then(|| u64_at(from, 112)),
            rows: u64_at(from, 120),
            rows_before: u64_at(from, 128),
            rows_here: u32_at(from, 136),
            identities: u32_at(from, 140),
            token: u64_at(from, 144),
            body: u64_at(from, 152),
        };
        let state = &header.state;
        let sound = header.range.first > Lsn::ZERO
            && header.range.first <= header.range.last
            && state.lsn == header.range.last
            && state.size > 0
            // Whoever commits gives one that has none a new one.
            && state.id != 0
            && state.is_possible()
            && header.rows <= u64::from(state.size)
            && header.rows_before.checked_add(u64::from(header.rows_here)).is_some_and(|n| n <= header.rows);
        if sound { Ok(header) } else { Err(damaged("has a header that contradicts itself")) }
    }
}

/// A piece that is being put together.
pub struct Packing {
    header: ShippedHeader,
    rows: PackedRows,
}

impl Packing {
    /// Begins a piece; the header's counts and length are filled in at the end.
    pub fn new(header: ShippedHeader, identities: &[(Lsn, u64)]) -> Packing {
        let mut out = vec![0; SHIPPED_HEADER_LEN];
        for (lsn, id) in identities {
            out.extend_from_slice(&lsn.get().to_le_bytes());
            out.extend_from_slice(&id.to_le_bytes());
        }
        let header = ShippedHeader { rows_here: 0, identities: identities.len() as u32, ..header };
        Packing { header, rows: PackedRows::behind(out) }
    }

    /// Adds a page; `before` is its image at the LSN before the range, if every receiver that may take the
    /// piece has that.
    pub fn push(&mut self, page: u32, image: &[u8], hash: u64, before: Option<&[u8]>) {
        self.rows.push(page, image, hash, before);
        self.header.rows_here += 1;
    }

    /// Length so far, in bytes.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The piece.
    pub fn finish(self) -> Vec<u8> {
        let mut out = self.rows.finish(SHIPPED_HEADER_LEN);
        let body = (out.len() - SHIPPED_HEADER_LEN) as u64;
        let header = ShippedHeader { body, ..self.header }.encode();
        out[..SHIPPED_HEADER_LEN].copy_from_slice(&header);
        out
    }

    /// Says how many rows the whole entry has, and how many came in earlier pieces.
    pub fn place(&mut self, rows: u64, rows_before: u64) {
        self.header.rows = rows;
        self.header.rows_before = rows_before;
    }
}

/// A piece whose checksum and bounds are right. Whether its images are is known when they are unpacked.
pub struct Shipped<'a> {
    /// Its header.
    pub header: ShippedHeader,
    identities: &'a [u8],
    rows: &'a [u8],
}

impl<'a> Shipped<'a> {
    /// Checks a piece.
    ///
    /// # Errors
    /// `Damaged`, `Format`. Nothing is allocated in proportion to what the bytes claim.
    pub fn check(from: &'a [u8]) -> Result<Shipped<'a>> {
        let header = ShippedHeader::decode(from)?;
        let body = &from[SHIPPED_HEADER_LEN..];
        let identities_len = u64::from(header.identities) * IDENTITY_LEN as u64;
        if header.body != body.len() as u64 || identities_len + TRAILER_LEN as u64 > header.body {
            return Err(damaged("is cut short"));
        }
        let (covered, trailer) = body.split_at(body.len() - TRAILER_LEN);
        if crc32fast::hash(covered) != u32_at(trailer, 0) {
            return Err(damaged("fails its checksum"));
        }
        let (identities, rows) = covered.split_at(identities_len as usize);
        let shipped = Shipped { header, identities, rows };
        let mut count = 0;
        let mut last = 0;
        for row in walk(shipped.rows, header.state.page_size as usize) {
            let row = row?;
            let size = header.state.page_size as usize;
            let possible = row.page > last && row.page <= header.state.size && row.page != lock_page(size);
            // Of page 1 each side serves bytes of its own.
            if !possible || row.is_difference() && (header.full || row.page == 1) {
                return Err(damaged("holds a page that can't be there"));
            }
            last = row.page;
            count += 1;
        }
        if count != header.rows_here { Err(damaged("lacks pages")) } else { Ok(shipped) }
    }

    /// Its pages, in order.
    pub fn rows(&self) -> impl Iterator<Item = ShippedRow<'a>> + use<'a> {
        walk(self.rows, self.header.state.page_size as usize).filter_map(Result::ok)
    }

    /// Identity of the commit `lsn`, if the sender knew.
    pub fn identity(&self, lsn: Lsn) -> Option<u64> {
        if lsn == self.header.range.last {
            return Some(self.header.state.id);
        }
        if lsn.next() == self.header.range.first && !self.header.full {
            return Some(self.header.before);
        }
        self.identities
            .chunks_exact(IDENTITY_LEN)
            .find(|chunk| u64_at(chunk, 0) == lsn.get())
            .map(|chunk| u64_at(chunk, 8))
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::{CHAIN, COMPRESSED, DIFFERENCE, RAW, Unpacking, ZEROS};
    use super::*;
    use crate::hash::page_hash;

    fn example() -> Vec<u8> {
        let header = ShippedHeader {
            lineage: [1; 16],
            range: LsnRange { first: Lsn::new(2), last: Lsn::new(5) },
            full: false,
            before: 3,
            state: State { lsn: Lsn::new(5), id: 9, page_size: 512, size: 10, ..State::default() },
            checksum_before: Some(1),
            checksum_after: None,
            rows: 4,
            rows_before: 0,
            rows_here: 0,
            identities: 0,
            token: 4,
            body: 0,
        };
        let mut packing = Packing::new(header, &[(Lsn::new(3), 33)]);
        let noise: Vec<u8> = (0..512u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 7) as u8).collect();
        let mut changed = noise.clone();
        changed[300..310].fill(1);
        for (page, image, before) in [
            (2, &noise, None),
            (4, &changed, Some(&noise[..])),
            (5, &changed, None),
            (7, &vec![0; 512], None),
        ] {
            packing.push(page, image, page_hash(page, image), before);
        }
        packing.finish()
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri runs no C, and so no zstd")]
    fn an_entry_has_an_identity() {
        let mut blob = example();
        blob[64..72].fill(0);
        let crc = crc32fast::hash(&blob[..188]);
        blob[188..192].copy_from_slice(&crc.to_le_bytes());
        assert!(ShippedHeader::decode(&blob).unwrap_err().text().contains("contradicts itself"));
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri runs no C, and so no zstd")]
    fn round_trip() {
        let blob = example();
        let shipped = Shipped::check(&blob).unwrap();
        let rows: Vec<ShippedRow<'_>> = shipped.rows().collect();
        let encodings = [(2, RAW), (4, DIFFERENCE), (5, COMPRESSED), (7, ZEROS)];
        for (row, expected) in rows.iter().zip(encodings) {
            assert_eq!((row.page, row.encoding), expected);
            assert_eq!(row.encoded.len() < 64, row.encoding != RAW, "{} bytes", row.encoded.len());
        }
        let noise = rows[0].encoded;
        let before = |row: &ShippedRow<'_>, to: &mut [u8]| {
            assert_eq!(row.page, 4);
            to.copy_from_slice(noise);
            Ok(())
        };
        let check = |row: &ShippedRow<'_>, image: &[u8]| {
            assert_eq!(page_hash(row.page, image), row.hash, "page {}", row.page);
            Ok(())
        };
        // All at once, and each by itself.
        for at_once in [4, 1] {
            let (mut unpacking, mut images) = (Unpacking::new(512), Vec::new());
            for rows in rows.chunks(at_once) {
                unpacking.images(rows, &mut images, before, check).unwrap();
                assert_eq!(images.len(), rows.len() * 512);
            }
        }
        assert_eq!(shipped.rows().count(), 4);
        assert_eq!(shipped.identity(Lsn::new(1)), Some(3));
        assert_eq!(shipped.identity(Lsn::new(3)), Some(33));
        assert_eq!(shipped.identity(Lsn::new(5)), Some(9));
        assert_eq!(shipped.identity(Lsn::new(4)), None);
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri runs no C, and so no zstd")]
    fn chains_end() {
        let header = ShippedHeader::decode(&example()).unwrap();
        let size = 3 * CHAIN as u32;
        let state = State { size, ..header.state };
        let mut packing = Packing::new(ShippedHeader { state, full: true, ..header }, &[]);
        packing.place(u64::from(size), 0);
        for page in 1..=size {
            packing.push(page, &[7; 512], page_hash(page, &[7; 512]), None);
        }
        let blob = packing.finish();
        let shipped = Shipped::check(&blob).unwrap();
        let alone: Vec<u32> = shipped.rows().filter(|row| !row.is_chained()).map(|row| row.page).collect();
        assert_eq!(alone, [256, 512]);
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri runs no C, and so no zstd")]
    fn any_flipped_byte_and_any_cut_is_found() {
        let blob = example();
        for at in 0..blob.len() {
            let mut bad = blob.clone();
            bad[at] ^= 0x40;
            assert!(Shipped::check(&bad).is_err(), "byte {at}");
            assert!(Shipped::check(&blob[..at]).is_err(), "cut at {at}");
        }
    }
}
