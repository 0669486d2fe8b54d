//! The store's files, read and written apart from the library, as FORMAT.md has them.

use tideline_journal::page_hash;

use crate::pages::{Files, SERVED, SIDE};
use crate::value::{Field, get, put, seal};

/// Length of a segment's header in bytes.
pub const SEGMENT_HEADER: usize = 128;
/// Length of an entry's header in bytes.
pub const ENTRY_HEADER: usize = 128;
/// Length of a row of a page table in bytes.
pub const ROW: usize = 24;
/// Length of a commit record in bytes.
pub const RECORD: usize = 32;
/// Length of a slot of the superblock in bytes.
pub const SLOT: usize = 4096;
/// Bytes of a slot that are in use, its CRC-32 last.
pub const SLOT_USED: usize = 512;
/// Length of the header of the hashes in bytes.
pub const HASHES_HEADER: usize = 64;

/// Fields of a slot of the superblock.
pub const SLOT_FIELDS: [Field; 30] = [
    (8, 4),
    SEQUENCE,
    (24, 8),
    HORIZON,
    (48, 8),
    (56, 4),
    (60, 4),
    (64, 4),
    (68, 4),
    (72, 4),
    (76, 4),
    (80, 8),
    (88, 4),
    (92, 4),
    (96, 8),
    (104, 8),
    (112, 4),
    (116, 4),
    (120, 4),
    (136, 8),
    (244, 4),
    (248, 8),
    (256, 8),
    (264, 8),
    (272, 8),
    (280, 8),
    (288, 8),
    DURABLE,
    (304, 4),
    (312, 8),
];
const SEQUENCE: Field = (16, 8);
const HORIZON: Field = (40, 8);
/// Of the superblock: newest LSN that is on the disk for certain.
pub const DURABLE: Field = (296, 8);

/// Fields of a segment's header.
pub const SEGMENT_FIELDS: [Field; 8] =
    [(8, 4), (12, 2), (16, 8), (24, 8), (32, 8), (40, 8), (48, 8), (56, 8)];

/// Fields of an entry's header.
pub const ENTRY_FIELDS: [Field; 21] = [
    KIND,
    (6, 2),
    FIRST,
    LAST,
    EPOCH,
    PREV,
    LEN,
    TABLE,
    ROWS,
    PAGE_SIZE,
    (64, 4),
    (68, 2),
    (72, 8),
    (80, 4),
    (84, 4),
    (88, 4),
    (92, 4),
    (96, 8),
    (104, 8),
    NOTES,
    (120, 8),
];
/// Of an entry: the epoch that it was written under.
pub const EPOCH: Field = (24, 8);
/// Of an entry: what it is.
pub const KIND: Field = (4, 2);
/// Of an entry: first LSN.
pub const FIRST: Field = (8, 8);
/// Of an entry: last LSN.
pub const LAST: Field = (16, 8);
/// Of an entry: chain value of the entry before.
pub const PREV: Field = (32, 8);
/// Of an entry: length in bytes.
pub const LEN: Field = (40, 8);
/// Of an entry: offset of the page table.
pub const TABLE: Field = (48, 8);
/// Of an entry: rows of the page table.
pub const ROWS: Field = (56, 4);
/// Of an entry: page size in bytes.
pub const PAGE_SIZE: Field = (60, 4);
/// Of an entry: length of the annotations.
pub const NOTES: Field = (112, 4);

/// Of an entry: newest LSN that was known to be on the disk when it was written.
pub const CLAIMED: Field = (120, 8);

/// Fields of a row of a page table.
pub const ROW_FIELDS: [Field; 4] = [(0, 4), (4, 4), (8, 8), ROW_HASH];
/// Of a row: hash of the image.
pub const ROW_HASH: Field = (16, 8);

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The base.
    Base,
    /// The superblock.
    Store,
    /// A segment of the journal.
    Segment,
    /// Kept images.
    Kept,
    /// Hashes of the base.
    Hashes,
    /// The control file.
    Control,
    /// Pieces.
    Incoming,
    /// A super-journal, or a marker that names one.
    Super,
    /// None of ours.
    Other,
}

impl Kind {
    /// What the file at `path` is.
    pub fn of(path: &str) -> Kind {
        match path.strip_prefix(SIDE) {
            None if path == crate::pages::BASE => Kind::Base,
            None => Kind::Super,
            Some("/store") => Kind::Store,
            Some("/hashes") => Kind::Hashes,
            Some("/control") => Kind::Control,
            Some("/incoming") => Kind::Incoming,
            Some(name) if name.ends_with(".seg") => Kind::Segment,
            Some(name) if name.ends_with(".kept") => Kind::Kept,
            Some(_) => Kind::Other,
        }
    }
}

/// Murmur3's finaliser.
fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

/// Chain value of an entry: from that of the one before, its CRC and its last LSN.
pub fn chain(prev: u64, crc: u32, last: u64) -> u64 {
    mix(mix(prev ^ 0x5449_4445).wrapping_add(u64::from(crc)) ^ last.rotate_left(32))
}

/// Where an entry is in its segment: byte offsets and lengths.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Of its header.
    pub start: usize,
    /// From the header's first byte to the record's last.
    pub len: usize,
    /// Of its page table.
    pub table: usize,
    /// Rows of the table.
    pub rows: usize,
    /// Table and annotations.
    pub table_len: usize,
    /// Page size in bytes.
    pub page_size: usize,
    /// Last LSN.
    pub last: u64,
    /// True if it is a seal.
    pub seal: bool,
}

impl Entry {
    /// The entry at `start`, if its lengths make sense.
    fn at(segment: &[u8], start: usize) -> Option<Entry> {
        let header = segment.get(start..start + ENTRY_HEADER)?;
        let number = |field| usize::try_from(get(header, field)).ok().filter(|&n| n < 1 << 40);
        let (len, table) = (number(LEN)?, number(TABLE)?);
        let rows = number(ROWS)?;
        let table_len = rows * ROW + number(NOTES)?;
        let fits = header.starts_with(b"ENT1")
            && table >= ENTRY_HEADER
            && table + table_len + RECORD <= len
            && start + len <= segment.len();
        fits.then(|| Entry {
            start,
            len,
            table: start + table,
            rows,
            table_len,
            page_size: get(header, PAGE_SIZE) as usize,
            last: get(header, LAST),
            seal: get(header, KIND) == 64,
        })
    }

    /// Byte offset of its record.
    pub fn record(&self) -> usize {
        self.start + self.len - RECORD
    }

    fn next(&self) -> usize {
        (self.start + self.len).next_multiple_of(64)
    }

    /// The record that it should have behind the chain value `prev`, and its own chain value.
    fn record_of(&self, segment: &[u8], prev: u64) -> ([u8; RECORD], u64) {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&segment[self.start..self.start + ENTRY_HEADER]);
        crc.update(&segment[self.table..self.table + self.table_len]);
        let crc = crc.finalize();
        let chain = chain(prev, crc, self.last);
        let mut record = [0; RECORD];
        record[..4].copy_from_slice(b"COM1");
        put(&mut record, (4, 4), crc.into());
        put(&mut record, (8, 8), self.last);
        put(&mut record, (16, 8), prev);
        put(&mut record, (24, 8), chain);
        (record, chain)
    }

    /// Byte offset of row `n` of its page table.
    pub fn row(&self, n: usize) -> usize {
        self.table + n % self.rows.max(1) * ROW
    }

    /// Pages whose image in this segment isn't the same in `now`; bytes that are served don't count.
    fn changed_images(&self, segment: &[u8], now: &[u8]) -> bool {
        (0..self.rows).any(|n| {
            let row = &segment[self.row(n)..];
            let (page, offset) = (get(row, (0, 4)) as u32, get(row, (8, 8)) as usize);
            if get(row, (4, 4)) != 0 || offset == 0 {
                return false;
            }
            let image = segment.get(offset..offset + self.page_size);
            let found = now.get(offset..offset + self.page_size);
            match (image, found) {
                (Some(image), Some(found)) => differ(page, image, found),
                _ => true,
            }
        })
    }

    /// Makes `length` agree with the other lengths of the header at `start`.
    pub fn fix_len(segment: &mut [u8], start: usize) {
        let Some(header) = segment.get_mut(start..start + ENTRY_HEADER) else { return };
        let body = get(header, TABLE)
            .wrapping_add(get(header, ROWS).wrapping_mul(ROW as u64))
            .wrapping_add(get(header, NOTES));
        put(header, LEN, (body.wrapping_add(7) & !7).wrapping_add(RECORD as u64));
    }

    /// Makes the hash of a row that of the bytes it names.
    pub fn fix_hash(&self, segment: &mut [u8], n: usize) {
        let at = self.row(n);
        let Some(row) = segment.get(at..at + ROW) else { return };
        let (page, offset) = (get(row, (0, 4)) as u32, get(row, (8, 8)) as usize);
        let end = offset.saturating_add(self.page_size);
        if let Some(image) = segment.get(offset..end) {
            let hash = page_hash(page, image);
            put(&mut segment[at..], ROW_HASH, hash);
        }
    }
}

/// True if two images of a page differ where it counts.
pub fn differ(page: u32, one: &[u8], other: &[u8]) -> bool {
    let served = |at: usize| page == 1 && SERVED.iter().any(|&(from, to)| (from..to).contains(&at));
    one.len() != other.len() || (0..one.len()).any(|at| one[at] != other[at] && !served(at))
}

/// The entries of a sound segment, prepared ones too.
pub fn entries(segment: &[u8]) -> Vec<Entry> {
    let mut chain = get(segment, (48, 8));
    let mut start = SEGMENT_HEADER;
    let mut found = Vec::new();
    while let Some(entry) = Entry::at(segment, start) {
        if get(&segment[start..], PREV) != chain {
            break;
        }
        let (record, next) = entry.record_of(segment, chain);
        if record[4..] != segment[entry.record() + 4..entry.start + entry.len] {
            break;
        }
        chain = next;
        start = entry.next();
        found.push(entry);
    }
    found
}

/// Makes the checksums and the chain of the first `count` entries right, and that of the header;
/// `chain` is that of the segment before, where one leads here. Returns the last chain value, if the
/// last entry is a seal.
fn reseal_segment(segment: &mut [u8], count: usize, chain: Option<u64>) -> Option<u64> {
    if let Some(chain) = chain {
        put(segment, (48, 8), chain);
    }
    if let Some(header) = segment.get_mut(..SEGMENT_HEADER) {
        seal(header, SEGMENT_HEADER - 4);
    }
    let mut chain = get(segment, (48, 8));
    let mut start = SEGMENT_HEADER;
    let mut sealed = false;
    for _ in 0..count {
        let entry = Entry::at(segment, start)?;
        put(&mut segment[start..], PREV, chain);
        let (record, next) = entry.record_of(segment, chain);
        segment[entry.record()..entry.start + entry.len].copy_from_slice(&record);
        chain = next;
        start = entry.next();
        sealed = entry.seal;
    }
    sealed.then_some(chain)
}

/// Makes the checksums and chains of all segments right, from the one at `path` on. `sound` are the
/// files before anything was done to them.
pub fn reseal(files: &mut Files, sound: &Files, path: &str) {
    let paths: Vec<String> = files.keys().filter(|p| Kind::of(p) == Kind::of(path)).cloned().collect();
    let mut chain = None;
    for other in paths.iter().skip_while(|p| *p != path) {
        let (Some(segment), Some(before)) = (files.get_mut(other), sound.get(other)) else { return };
        chain = reseal_segment(segment, entries(before).len(), chain);
        if chain.is_none() || Kind::of(path) == Kind::Kept {
            return;
        }
    }
}

/// The slot of the superblock that counts.
pub fn newest_slot(files: &Files) -> Option<&[u8]> {
    let store = files.get(&format!("{SIDE}/store"))?;
    let slots = [0, SLOT].into_iter().filter_map(|at| store.get(at..at + SLOT_USED));
    let whole = |slot: &&[u8]| {
        let crc = crc32fast::hash(&slot[..SLOT_USED - 4]);
        slot.iter().any(|&byte| byte != 0) && u64::from(crc) == get(slot, (SLOT_USED - 4, 4))
    };
    slots.filter(whole).max_by_key(|slot| get(slot, SEQUENCE))
}

/// Number of the superblock's newest write; 0 if it isn't whole.
pub fn sequence(files: &Files) -> u64 {
    newest_slot(files).map_or(0, |slot| get(slot, SEQUENCE))
}

/// What the newest slot of a sound superblock says: LSN of the horizon, and the durable one.
pub fn bounds(files: &Files) -> (u64, u64) {
    newest_slot(files).map_or((0, 0), |slot| (get(slot, HORIZON), get(slot, DURABLE)))
}

/// True if a retained image of an entry up to `head` isn't in `now` what it is in `sound`.
pub fn lost_images(sound: &Files, now: &Files, head: u64) -> bool {
    let (horizon, _) = bounds(sound);
    let segments = sound.iter().filter(|(path, _)| Kind::of(path) == Kind::Segment);
    segments.filter(|(path, bytes)| now.get(*path) != Some(bytes)).any(|(path, bytes)| {
        let found = now.get(path).map_or(&[][..], Vec::as_slice);
        let retained = entries(bytes).into_iter().filter(|e| e.last > horizon && e.last <= head);
        retained.filter(|e| !e.seal).any(|e| e.changed_images(bytes, found))
    })
}

/// True if an image in a kept segment, whose header is whole, isn't what it was.
pub fn lost_kept(sound: &Files, now: &Files) -> bool {
    let (horizon, durable) = bounds(sound);
    let kept = sound.iter().filter(|(path, _)| Kind::of(path) == Kind::Kept);
    kept.filter(|(path, _)| now.contains_key(*path)).any(|(path, bytes)| {
        let found = &now[path];
        let target = get(bytes, (40, 8));
        // A fold that didn't get to its end may not have written all of it.
        let needed = target > horizon && target <= durable && found.get(..128) == bytes.get(..128);
        needed
            && entries(bytes).iter().any(|entry| {
                let whole = |range: std::ops::Range<usize>| found.get(range.clone()) == bytes.get(range);
                entry.changed_images(bytes, found)
                    || !whole(entry.start..entry.start + ENTRY_HEADER)
                    || !whole(entry.table..entry.table + entry.table_len)
                    || !whole(entry.record()..entry.start + entry.len)
            })
    })
}

/// True if the hashes of `sound` still count in `now`, whatever they are: their header is the same.
pub fn hashes_count(sound: &Files, now: &Files) -> bool {
    let header =
        |files: &Files| files.get(&format!("{SIDE}/hashes"))?.get(..HASHES_HEADER).map(<[u8]>::to_vec);
    header(sound).is_some_and(|sound| header(now) == Some(sound))
}

/// True if the hash of `page` of the base is known.
pub fn is_hashed(files: &Files, page: usize, page_size: usize) -> bool {
    let Some(hashes) = files.get(&format!("{SIDE}/hashes")) else { return false };
    get(hashes, (12, 4)) == page_size as u64 && get(hashes, (HASHES_HEADER + 8 * (page - 1), 8)) != 0
}
