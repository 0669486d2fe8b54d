//! Shipped entries, read and written apart from the library, so that they can be wrong in any way.

use arbitrary::Arbitrary;
use tideline_journal::page_hash;

use crate::value::{Field, Value, edit, get, pick, put, seal};

/// Length of the header in bytes.
pub const HEADER: usize = 192;
/// What a blob begins with.
pub const MAGIC: &[u8] = b"TIDESHIP";

/// Fields of the header.
pub mod field {
    use crate::value::Field;

    /// Flags.
    pub const FLAGS: Field = (12, 4);
    /// First LSN.
    pub const FIRST: Field = (32, 8);
    /// Last LSN.
    pub const LAST: Field = (40, 8);
    /// Page size in bytes.
    pub const PAGE_SIZE: Field = (72, 4);
    /// Size in pages.
    pub const SIZE: Field = (76, 4);
    /// Checksum after it.
    pub const AFTER: Field = (112, 8);
    /// Rows of the whole entry.
    pub const ROWS: Field = (120, 8);
    /// Rows of the pieces before.
    pub const ROWS_BEFORE: Field = (128, 8);
    /// Rows of this piece.
    pub const ROWS_HERE: Field = (136, 4);
    /// Number of identities.
    pub const IDENTITIES: Field = (140, 4);
    /// What pieces of one entry share.
    pub const TOKEN: Field = (144, 8);
    /// Length of what follows, in bytes.
    pub const BODY: Field = (152, 8);
}

/// Bit of [`field::FLAGS`]: all pages of the database.
pub const FULL: u64 = 1;
/// Bits of [`field::FLAGS`]: checksums before and after.
pub const CHECKSUMS: u64 = 6;
/// Bit of [`field::FLAGS`]: the checksum after.
const HAS_AFTER: u64 = 4;

const FIELDS: [Field; 24] = [
    (8, 4),
    field::FLAGS,
    (16, 8),
    field::FIRST,
    field::LAST,
    (48, 8),
    (56, 8),
    (64, 8),
    field::PAGE_SIZE,
    field::SIZE,
    (80, 4),
    (84, 4),
    (88, 4),
    (92, 4),
    (96, 8),
    (104, 8),
    field::AFTER,
    field::ROWS,
    field::ROWS_BEFORE,
    field::ROWS_HERE,
    field::IDENTITIES,
    field::TOKEN,
    field::BODY,
    (160, 8),
];

/// One page.
#[derive(Clone, Debug)]
pub struct Row {
    /// Number, encoding, length and hash as they are written.
    pub header: [u8; 24],
    /// What follows.
    pub image: Vec<u8>,
}

impl Row {
    const PAGE: Field = (0, 4);
    const ENCODING: Field = (4, 1);
    const LEN: Field = (8, 4);
    const HASH: Field = (16, 8);

    fn new(page: u32, image: Vec<u8>) -> Row {
        let mut row = Row { header: [0; 24], image };
        put(&mut row.header, Row::PAGE, u64::from(page));
        row.measure();
        row
    }

    /// Number of the page.
    pub fn page(&self) -> u32 {
        get(&self.header, Row::PAGE) as u32
    }

    /// Hash of the image.
    pub fn hash(&self) -> u64 {
        get(&self.header, Row::HASH)
    }

    /// True if what follows is the image itself, or nothing, which stands for zeros; else it is compressed.
    fn is_plain(&self) -> bool {
        get(&self.header, Row::ENCODING) < 2
    }

    /// Makes encoding and length those of what follows.
    fn measure(&mut self) {
        if self.is_plain() {
            put(&mut self.header, Row::ENCODING, u64::from(self.image.is_empty()));
        }
        put(&mut self.header, Row::LEN, self.image.len() as u64);
    }

    /// Makes the hash that of the image, where that is known.
    fn repair_hash(&mut self, size: usize) {
        if self.is_plain() {
            let zeros = vec![0; size];
            let image = if self.image.is_empty() { &zeros } else { &self.image };
            let hash = page_hash(self.page(), image);
            put(&mut self.header, Row::HASH, hash);
        }
    }
}

/// A shipped entry or a piece of one.
#[derive(Clone, Debug)]
pub struct Blob {
    /// Its header.
    pub header: [u8; HEADER],
    /// LSN and identity of commits in it.
    pub identities: Vec<[u8; 16]>,
    /// Its pages.
    pub rows: Vec<Row>,
}

impl Blob {
    /// Reads what is whole in `bytes`; `None` if not even the header is.
    pub fn parse(bytes: &[u8]) -> Option<Blob> {
        let mut blob =
            Blob { header: bytes.get(..HEADER)?.try_into().ok()?, identities: Vec::new(), rows: Vec::new() };
        let end = bytes.len().saturating_sub(4).max(HEADER);
        let mut rest = bytes.get(HEADER..end)?;
        for _ in 0..blob.get(field::IDENTITIES) {
            let Some((identity, behind)) = rest.split_first_chunk::<16>() else { return Some(blob) };
            blob.identities.push(*identity);
            rest = behind;
        }
        while let Some((header, behind)) = rest.split_first_chunk::<24>() {
            let len = (get(header, Row::LEN) as usize).min(behind.len());
            blob.rows.push(Row { header: *header, image: behind[..len].to_vec() });
            rest = &behind[len..];
        }
        Some(blob)
    }

    /// A number of its header.
    pub fn get(&self, field: Field) -> u64 {
        get(&self.header, field)
    }

    fn put(&mut self, field: Field, value: u64) {
        put(&mut self.header, field, value);
    }

    /// True if it is no piece of something longer.
    pub fn is_whole(&self) -> bool {
        self.get(field::ROWS_BEFORE) == 0 && self.get(field::ROWS_HERE) == self.get(field::ROWS)
    }

    /// True if it says to hold all pages.
    pub fn is_full(&self) -> bool {
        self.get(field::FLAGS) & FULL != 0
    }

    /// Its bytes, with what `repair` names made right.
    pub fn encode(&mut self, repair: Repair) -> Vec<u8> {
        if repair.lengths {
            self.rows.iter_mut().for_each(Row::measure);
            self.put(field::ROWS_HERE, self.rows.len() as u64);
            self.put(field::IDENTITIES, self.identities.len() as u64);
        }
        if repair.whole {
            self.rows.sort_by_key(Row::page);
            self.put(field::ROWS, self.rows.len() as u64);
            self.put(field::ROWS_BEFORE, 0);
        }
        let size = (self.get(field::PAGE_SIZE) as usize).min(1 << 16);
        if repair.hashes {
            self.rows.iter_mut().for_each(|row| row.repair_hash(size));
        }
        let flags = self.get(field::FLAGS);
        if repair.checksums && flags & FULL != 0 {
            let sum = self.rows.iter().fold(0u64, |sum, row| sum.wrapping_add(row.hash()));
            self.put(field::AFTER, sum);
            self.put(field::FLAGS, flags | HAS_AFTER);
        } else if repair.checksums {
            self.put(field::FLAGS, flags & !CHECKSUMS);
        }
        let mut body = Vec::new();
        self.identities.iter().for_each(|identity| body.extend_from_slice(identity));
        for row in &self.rows {
            body.extend_from_slice(&row.header);
            body.extend_from_slice(&row.image);
        }
        if repair.lengths {
            self.put(field::BODY, body.len() as u64 + 4);
        }
        if repair.crcs {
            seal(&mut self.header, HEADER - 4);
        }
        let mut bytes = self.header.to_vec();
        bytes.extend_from_slice(&body);
        let crc = if repair.crcs { crc32fast::hash(&body) } else { 0 };
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }
}

/// What is made right again after a blob was changed.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Repair {
    /// Counts, and lengths of rows and body.
    pub lengths: bool,
    /// It is no piece any more, and its rows are in order.
    pub whole: bool,
    /// Hashes of images.
    pub hashes: bool,
    /// The checksum of a full image; those of other entries are left out.
    pub checksums: bool,
    /// The CRCs.
    pub crcs: bool,
}

impl Repair {
    /// Everything, as a blob that nobody changed has it.
    pub const NONE: Repair =
        Repair { lengths: false, whole: false, hashes: false, checksums: false, crcs: true };
}

/// One change of a blob.
#[derive(Arbitrary, Clone, Debug)]
pub enum Edit {
    /// Of a number in the header.
    Header(u8, Value),
    /// The header of another blob, but for its magic.
    HeaderOf(u8),
    /// Of an identity's LSN or number.
    Identity(u8, bool, Value),
    /// An identity is left out.
    DropIdentity(u8),
    /// An identity is added.
    AddIdentity(u8, u64),
    /// Another page number.
    Page(u8, Value),
    /// Another encoding, length or hash.
    RowHeader(u8, u8, Value),
    /// Other bytes in the image.
    Image(u8, u16, u8),
    /// An image of zeros.
    Zeros(u8),
    /// A row is left out.
    DropRow(u8),
    /// A row appears again elsewhere.
    CopyRow(u8, u8),
    /// A row of another blob is added.
    RowOf(u8, u8, u8),
    /// A new row.
    NewRow(u8, u32, u8),
    /// Another page size, with images that fit.
    Resize(u8),
}

impl Edit {
    /// Applies it; `others` are blobs to take from.
    pub fn apply(&self, blob: &mut Blob, others: &[Blob]) {
        let row = |blob: &Blob, n: u8| usize::from(n) % blob.rows.len().max(1);
        match *self {
            Edit::Header(field, value) => edit(&mut blob.header, *pick(&FIELDS, field), value),
            Edit::HeaderOf(other) => blob.header = pick(others, other).header,
            Edit::Identity(n, lsn, value) if !blob.identities.is_empty() => {
                let n = usize::from(n) % blob.identities.len();
                edit(&mut blob.identities[n], if lsn { (0, 8) } else { (8, 8) }, value);
            }
            Edit::DropIdentity(n) if !blob.identities.is_empty() => {
                let n = usize::from(n) % blob.identities.len();
                blob.identities.remove(n);
            }
            Edit::AddIdentity(lsn, id) => {
                let mut identity = [0; 16];
                put(&mut identity, (0, 8), u64::from(lsn));
                put(&mut identity, (8, 8), id);
                blob.identities.push(identity);
            }
            Edit::RowOf(other, n, at) => {
                let other = pick(others, other);
                if let Some(taken) = other.rows.get(row(other, n)) {
                    blob.rows.insert(usize::from(at) % (blob.rows.len() + 1), taken.clone());
                }
            }
            Edit::NewRow(at, page, fill) => {
                let size = (blob.get(field::PAGE_SIZE) as usize).min(1 << 16);
                let image = if fill == 0 { Vec::new() } else { vec![fill; size] };
                blob.rows.insert(usize::from(at) % (blob.rows.len() + 1), Row::new(page, image));
            }
            Edit::Resize(power) => {
                let size = 512 << (power % 8);
                blob.put(field::PAGE_SIZE, size as u64);
                for row in blob.rows.iter_mut().filter(|row| !row.image.is_empty()) {
                    row.image.resize(size, 7);
                }
            }
            _ if blob.rows.is_empty() => {}
            Edit::Page(n, value) => {
                let n = row(blob, n);
                edit(&mut blob.rows[n].header, Row::PAGE, value);
            }
            Edit::RowHeader(n, field, value) => {
                let n = row(blob, n);
                let fields = [Row::ENCODING, (5, 1), Row::LEN, (12, 4), Row::HASH];
                edit(&mut blob.rows[n].header, *pick(&fields, field), value);
            }
            Edit::Image(n, at, mask) => {
                let n = row(blob, n);
                let image = &mut blob.rows[n].image;
                let len = image.len().max(1);
                if let Some(byte) = image.get_mut(usize::from(at) % len) {
                    *byte ^= mask;
                }
            }
            Edit::Zeros(n) => {
                let n = row(blob, n);
                blob.rows[n].image.clear();
            }
            Edit::DropRow(n) => {
                let n = row(blob, n);
                blob.rows.remove(n);
            }
            Edit::CopyRow(from, to) => {
                let copy = blob.rows[row(blob, from)].clone();
                blob.rows.insert(usize::from(to) % (blob.rows.len() + 1), copy);
            }
            Edit::Identity(..) | Edit::DropIdentity(_) => {}
        }
    }
}

/// One change of a blob's bytes.
#[derive(Arbitrary, Clone, Debug)]
pub enum Scratch {
    /// Other bits in a byte.
    Flip(u16, u8),
    /// The end is missing.
    Cut(u16),
    /// More bytes follow.
    Grow(u8, u8),
}

impl Scratch {
    /// Applies it.
    pub fn apply(&self, bytes: &mut Vec<u8>) {
        let len = bytes.len().max(1);
        match *self {
            Scratch::Flip(at, mask) => {
                if let Some(byte) = bytes.get_mut(usize::from(at) % len) {
                    *byte ^= mask;
                }
            }
            Scratch::Cut(keep) => bytes.truncate(usize::from(keep) % len),
            Scratch::Grow(more, fill) => bytes.resize(bytes.len() + usize::from(more), fill),
        }
    }
}
