//! The end of a journal, written as FORMAT.md says and apart from the library: entries whole and cut, what an earlier
//! life left, seals that lead anywhere, prepared entries, fields that make no sense under checksums that are right.

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use tideline_journal::page_hash;

use crate::layout::{
    CLAIMED, DURABLE, ENTRY_FIELDS, ENTRY_HEADER, EPOCH, FIRST, KIND, LAST, LEN, NOTES, PAGE_SIZE, PREV,
    RECORD, ROW, ROW_FIELDS, ROWS, SEGMENT_FIELDS, SEGMENT_HEADER, SLOT, SLOT_USED, TABLE, chain,
    newest_slot, sequence,
};
use crate::pages::{Change, Content, Files, PAGE, SIDE, image, is_marked};
use crate::reader::{Journal, segment_path};
use crate::value::{Value, edit, get, pick, put, seal};

/// Path of the super-journal that may be there, and of one that never is.
pub const SUPER_JOURNAL: &str = "/super";
const GONE: &str = "/gone";

/// Longest segment that is made, in bytes.
const LONGEST: usize = 64 << 10;

/// One thing behind the journal's end.
#[derive(Arbitrary, Debug)]
pub enum Piece {
    /// An entry.
    Entry(Entry),
    /// A seal, and the segment that it leads to.
    Seal(Seal),
    /// What follows, as far as nothing is written over it, is what another segment has there.
    Recycled(u8),
    /// Any bytes.
    Bytes(Vec<u8>),
    /// Zeros, as preallocated.
    Zeros(u16),
}

/// An entry that is written.
#[derive(Arbitrary, Debug)]
pub struct Entry {
    kind: Sort,
    /// LSNs beyond the first; a commit has none.
    span: u8,
    /// Pages, and what they are filled with; 0 is a page of zeros.
    fills: Vec<(u8, u8)>,
    grow: i8,
    /// Images in falling order, and a gap before them.
    falling: bool,
    gap: u8,
    epoch: u8,
    /// It says that this many LSNs before its own weren't on the disk yet; 0: nothing more than the superblock.
    behind: u8,
    prepared: Option<Prepared>,
    fault: Option<Fault>,
    /// The next piece is written over it.
    over: bool,
}

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Commit,
    Merged,
    Full,
}

/// Whether a super-journal decides.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
enum Prepared {
    There,
    Gone,
    Nameless,
}

/// What is wrong with an entry.
#[derive(Arbitrary, Debug)]
enum Fault {
    /// So many bytes reached the disk; behind is what was there.
    Cut(u16),
    /// A sector didn't reach the disk.
    Torn(u8),
    /// A byte of an image.
    Image(u8, u16, u8),
    /// A byte of the header, the table or the record.
    Byte(u16, u8),
    /// It goes on from another chain value, as one of an earlier life.
    Prev(Value),
    /// Other LSNs, with checksums that are right.
    Lsns(Value, Value),
    /// A field of the header, likewise; and a length that agrees.
    Header(u8, Value, bool),
    /// A field of a row, likewise; and the hash of what it names then.
    Row(u8, u8, Value, bool),
}

/// A seal that is written.
#[derive(Arbitrary, Debug)]
pub struct Seal {
    /// A new one where nothing is said.
    to: Option<Target>,
    /// Another chain value for the next segment.
    chain: Option<Value>,
    /// The new segment has what another one has.
    recycled: Option<u8>,
    /// Its header says that this many LSNs below the newest are on the disk.
    behind: Option<u8>,
    /// A field of its header; and a checksum that is right.
    header: Option<(u8, Value, bool)>,
    fault: Option<SealFault>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Target {
    /// A file that isn't there.
    Missing(u8),
    /// The segment that it is in.
    Itself,
    /// Any that is there.
    Any(u8),
    /// A new one of this number.
    Number(Value),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum SealFault {
    Prev(Value),
    Last(Value),
    Byte(u16, u8),
    /// It doesn't say where it leads.
    Nowhere,
    /// With a checksum that is right.
    Header(u8, Value),
}

/// Writes pieces behind the end of a journal.
pub struct Tail {
    /// The files with what was written.
    pub files: Files,
    /// LSN up to which everything written so far is as the library would have it.
    pub certain: u64,
    /// Something was written that no library writes, with right checksums.
    pub forged: bool,
    /// Where tails begin, by path.
    begun: BTreeMap<String, usize>,
    content: Content,
    path: String,
    offset: usize,
    chain: u64,
    lsn: u64,
    clean: bool,
    durable: u64,
    /// The base is. Where it is not, nobody has written since it was made or brought to rest, and nothing can be prepared.
    marked: bool,
}

impl Tail {
    /// At the end of `journal`, which is what `files` hold; `content` is that of its newest LSN.
    pub fn new(files: &Files, journal: &Journal, content: &Content) -> Tail {
        let path = segment_path(journal.end.number);
        let offset = journal.end.offset as usize;
        Tail {
            files: files.clone(),
            certain: journal.lsn,
            forged: false,
            begun: BTreeMap::from([(path.clone(), offset)]),
            content: content.clone(),
            path,
            offset,
            chain: journal.end.chain,
            lsn: journal.lsn,
            clean: true,
            durable: newest_slot(files).map_or(0, |slot| get(slot, DURABLE)),
            marked: is_marked(files),
        }
    }

    /// Writes one piece.
    pub fn piece(&mut self, piece: &Piece) {
        match piece {
            Piece::Entry(entry) => self.entry(entry),
            Piece::Seal(seal) => self.seal(seal),
            Piece::Recycled(other) => {
                let bytes = self.other(*other);
                let behind = bytes.get(self.offset..).unwrap_or_default().to_vec();
                self.write(&behind);
            }
            Piece::Bytes(bytes) => self.write(bytes),
            Piece::Zeros(count) => self.write(&vec![0; usize::from(*count % 4096)]),
        }
    }

    /// Says in the superblock that the LSN so far behind the journal's end is on the disk.
    pub fn harden(&mut self, more: u8) {
        let at = if sequence(&self.files).is_multiple_of(2) { 0 } else { SLOT };
        let store = self.files.get_mut(&format!("{SIDE}/store")).expect("the superblock is there");
        let slot = &mut store[at..at + SLOT_USED];
        let durable = get(slot, DURABLE) + u64::from(more);
        put(slot, DURABLE, durable);
        seal(slot, SLOT_USED - 4);
    }

    /// Changes a byte of what was written, or of what is behind it.
    pub fn scratch(&mut self, which: u8, at: u16, mask: u8) {
        let paths: Vec<_> = self.begun.iter().collect();
        let (path, &begin) = *pick(&paths, which);
        let Some(bytes) = self.files.get_mut(path).and_then(|bytes| bytes.get_mut(begin..)) else { return };
        let len = bytes.len().max(1);
        if let Some(byte) = bytes.get_mut(usize::from(at) % len) {
            *byte ^= mask;
        }
    }

    fn other(&self, n: u8) -> Vec<u8> {
        let segments: Vec<_> = self.files.iter().filter(|(path, _)| path.ends_with(".seg")).collect();
        pick(&segments, n).1.clone()
    }

    /// Writes where the next entry is looked for.
    fn write(&mut self, bytes: &[u8]) {
        let Some(segment) = self.files.get_mut(&self.path) else { return };
        let end = (self.offset + bytes.len()).min(LONGEST.max(segment.len()));
        let Some(len) = end.checked_sub(self.offset) else { return };
        if segment.len() < end {
            segment.resize(end, 0);
        }
        segment[self.offset..end].copy_from_slice(&bytes[..len]);
    }

    fn entry(&mut self, plan: &Entry) {
        let page_size = if self.content.page_size == 0 { PAGE } else { self.content.page_size };
        let now = self.content.pages.len() as u32;
        let size = now.saturating_add_signed(i32::from(plan.grow) % 4).clamp(1, 24);
        let mut change = Change { page_size, size, fills: Vec::new() };
        for &(page, fill) in plan.fills.iter().take(6) {
            change.fills.push((u32::from(page) % size + 1, u64::from(fill) * 0x0101_0203));
        }
        if now == 0 {
            change.fills.push((1, 1));
        }
        let after = change.applied(&self.content);
        let mut images = BTreeMap::new();
        for &(page, fill) in &change.fills {
            images.insert(page, image(page, fill, &change, self.lsn as u32 + 7));
        }
        let all = if plan.kind == Sort::Full { 1 } else { now + 1 };
        for page in all..=size {
            images.entry(page).or_insert_with(|| after.pages[page as usize - 1].clone());
        }
        let made = self.encode(plan, &change, &images);
        let faultless = plan.fault.is_none();
        let decided = match plan.prepared {
            None => true,
            Some(Prepared::Gone) => self.marked,
            Some(Prepared::There | Prepared::Nameless) => false,
        };
        self.forged |= matches!(plan.fault, Some(Fault::Lsns(..) | Fault::Header(..) | Fault::Row(..)));
        let whole = self.offset + made.bytes.len() <= LONGEST;
        self.write(&made.bytes);
        self.clean &= faultless && decided && !plan.over && whole;
        if plan.over {
            return;
        }
        self.offset = (self.offset + made.bytes.len()).next_multiple_of(64);
        self.chain = made.chain;
        self.lsn = made.last;
        self.content = after;
        if self.clean {
            self.certain = self.lsn;
        }
    }

    fn encode(&self, plan: &Entry, change: &Change, images: &BTreeMap<u32, Vec<u8>>) -> Made {
        let mut bytes = vec![0; ENTRY_HEADER + usize::from(plan.gap % 16) * 8];
        let mut places = BTreeMap::new();
        let mut ordered: Vec<_> =
            images.iter().filter(|(_, image)| image.iter().any(|&byte| byte != 0)).collect();
        if plan.falling {
            ordered.reverse();
        }
        for (page, image) in ordered {
            places.insert(*page, bytes.len());
            bytes.extend_from_slice(image);
        }
        let table = bytes.len();
        for (&page, image) in images {
            let mut row = [0; ROW];
            put(&mut row, (0, 4), page.into());
            put(&mut row, (8, 8), places.get(&page).map_or(0, |at| (self.offset + at) as u64));
            put(&mut row, (16, 8), page_hash(page, image));
            bytes.extend_from_slice(&row);
        }
        let notes = match plan.prepared {
            None => Vec::new(),
            Some(Prepared::There) => annotation(1, SUPER_JOURNAL.as_bytes()),
            Some(Prepared::Gone) => annotation(1, GONE.as_bytes()),
            Some(Prepared::Nameless) => annotation(9, b"?"),
        };
        bytes.extend_from_slice(&notes);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        let span = if plan.kind == Sort::Commit { 0 } else { u64::from(plan.span) };
        let (first, last) = (self.lsn + 1, self.lsn + 1 + span);
        let claimed =
            if plan.behind == 0 { self.durable } else { self.lsn.saturating_sub(plan.behind.into()) };
        let header = &mut bytes[..ENTRY_HEADER];
        header[..4].copy_from_slice(b"ENT1");
        put(header, KIND, plan.kind as u64 + 1);
        put(header, (6, 2), 1);
        put(header, FIRST, first);
        put(header, LAST, last);
        put(header, EPOCH, plan.epoch.into());
        put(header, PREV, self.chain);
        put(header, TABLE, table as u64);
        put(header, ROWS, images.len() as u64);
        put(header, PAGE_SIZE, change.page_size as u64);
        put(header, (64, 4), change.size.into());
        // Behind all that the shapes have.
        put(header, (72, 8), 1_700_000_000_000 + last);
        put(header, (80, 4), last + 7);
        put(header, (84, 4), last + 7);
        put(header, (96, 8), last << 8 | 5);
        put(header, NOTES, notes.len() as u64);
        put(header, CLAIMED, claimed);
        let len = bytes.len() + RECORD;
        put(&mut bytes, LEN, len as u64);
        let made = |bytes| Made { bytes, last, chain: 0 };
        self.spoil(plan, made(bytes), table, images.len())
    }

    /// Applies the fault, and puts the record behind.
    fn spoil(&self, plan: &Entry, mut made: Made, table: usize, rows: usize) -> Made {
        let bytes = &mut made.bytes;
        let row_at = |n: u8| table + usize::from(n) % rows.max(1) * ROW;
        match plan.fault {
            Some(Fault::Prev(value)) => edit(bytes, PREV, value),
            Some(Fault::Lsns(first, last)) => {
                edit(bytes, FIRST, first);
                edit(bytes, LAST, last);
            }
            Some(Fault::Header(field, value, fix)) => {
                edit(&mut bytes[..ENTRY_HEADER], *pick(&ENTRY_FIELDS, field), value);
                if fix {
                    crate::layout::Entry::fix_len(bytes, 0);
                }
            }
            Some(Fault::Row(n, field, value, fix)) if rows > 0 => {
                let (at, width) = *pick(&ROW_FIELDS, field);
                edit(bytes, (row_at(n) + at, width), value);
                let row = bytes[row_at(n)..row_at(n) + ROW].to_vec();
                let (page, offset) = (get(&row, (0, 4)) as u32, get(&row, (8, 8)) as usize);
                let page_size = get(bytes, PAGE_SIZE) as usize;
                let image = match offset.checked_sub(self.offset) {
                    _ if offset == 0 => Some(vec![0; page_size]),
                    Some(from) => bytes.get(from..from.saturating_add(page_size)).map(<[u8]>::to_vec),
                    None => None,
                };
                if let (true, Some(image)) = (fix, image) {
                    put(bytes, (row_at(n) + 16, 8), page_hash(page, &image));
                }
            }
            _ => {}
        }
        let header = bytes[..ENTRY_HEADER].to_vec();
        let table_len = rows * ROW + get(&header, NOTES) as usize;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&header);
        crc.update(bytes.get(table..table.saturating_add(table_len)).unwrap_or_default());
        let (crc, prev) = (crc.finalize(), get(&header, PREV));
        made.last = get(&header, LAST);
        made.chain = chain(prev, crc, made.last);
        let mut record = [0; RECORD];
        record[..4].copy_from_slice(if plan.prepared.is_some() { b"PRE1" } else { b"COM1" });
        put(&mut record, (4, 4), crc.into());
        put(&mut record, (8, 8), made.last);
        put(&mut record, (16, 8), prev);
        put(&mut record, (24, 8), made.chain);
        bytes.extend_from_slice(&record);
        match plan.fault {
            Some(Fault::Cut(at)) => {
                // What was there stays.
                let at = usize::from(at) % bytes.len();
                let old = self.files.get(&self.path).and_then(|segment| segment.get(self.offset + at..));
                let old = old.unwrap_or_default();
                for (n, byte) in bytes[at..].iter_mut().enumerate() {
                    *byte = old.get(n).copied().unwrap_or(0);
                }
            }
            Some(Fault::Torn(n)) => {
                let sectors = bytes.len().div_ceil(512);
                let from = usize::from(n) % sectors * 512;
                let to = (from + 512).min(bytes.len());
                bytes[from..to].fill(0);
            }
            Some(Fault::Image(n, at, mask)) if rows > 0 => {
                let offset = get(bytes, (row_at(n) + 8, 8)) as usize;
                let at = offset.wrapping_sub(self.offset).wrapping_add(usize::from(at) % PAGE);
                if let (true, Some(byte)) = (offset > 0, bytes.get_mut(at)) {
                    *byte ^= mask;
                }
            }
            Some(Fault::Byte(at, mask)) => {
                let meta: Vec<usize> = (0..ENTRY_HEADER).chain(table..bytes.len()).collect();
                bytes[meta[usize::from(at) % meta.len()]] ^= mask;
            }
            _ => {}
        }
        made
    }

    fn seal(&mut self, plan: &Seal) {
        let segments = self.files.keys().filter_map(|path| {
            let name = path.strip_prefix(SIDE)?.strip_prefix('/')?.strip_suffix(".seg")?;
            u32::from_str_radix(name, 16).ok()
        });
        let segments: Vec<u32> = segments.collect();
        let largest = segments.iter().copied().max().unwrap_or(0);
        let own = u32::from_str_radix(&self.path[SIDE.len() + 1..][..8], 16).unwrap_or(0);
        let number = match plan.to {
            None => largest.saturating_add(1),
            Some(Target::Missing(more)) => largest.saturating_add(1 + u32::from(more)),
            Some(Target::Itself) => own,
            Some(Target::Any(n)) => *pick(&segments, n),
            Some(Target::Number(value)) => value.of(largest.into()) as u32,
        };
        let next_chain = plan.chain.map_or(self.chain, |value| value.of(self.chain));
        let mut place = number.to_le_bytes().to_vec();
        place.extend_from_slice(&next_chain.to_le_bytes());
        let kind = if matches!(plan.fault, Some(SealFault::Nowhere)) { 7 } else { 2 };
        let notes = annotation(kind, &place);
        let mut bytes = vec![0; ENTRY_HEADER];
        bytes[..4].copy_from_slice(b"ENT1");
        for (field, value) in [
            (KIND, 64),
            ((6, 2), 1),
            (FIRST, self.lsn),
            (LAST, self.lsn),
            (PREV, self.chain),
            (LEN, (ENTRY_HEADER + notes.len() + RECORD) as u64),
            (TABLE, ENTRY_HEADER as u64),
            (PAGE_SIZE, self.content.page_size as u64),
            ((64, 4), self.content.pages.len() as u64),
            ((72, 8), 1_700_000_000_000 + self.lsn),
            (NOTES, notes.len() as u64),
            (CLAIMED, self.durable),
        ] {
            put(&mut bytes, field, value);
        }
        match plan.fault {
            Some(SealFault::Prev(value)) => edit(&mut bytes, PREV, value),
            Some(SealFault::Last(value)) => {
                edit(&mut bytes, FIRST, value);
                edit(&mut bytes, LAST, value);
            }
            Some(SealFault::Header(field, value)) => edit(&mut bytes, *pick(&ENTRY_FIELDS, field), value),
            _ => {}
        }
        bytes.extend_from_slice(&notes);
        let crc = crc32fast::hash(&bytes);
        let (prev, last) = (get(&bytes, PREV), get(&bytes, LAST));
        let mut record = [0; RECORD];
        record[..4].copy_from_slice(b"COM1");
        put(&mut record, (4, 4), crc.into());
        put(&mut record, (8, 8), last);
        put(&mut record, (16, 8), prev);
        put(&mut record, (24, 8), chain(prev, crc, last));
        bytes.extend_from_slice(&record);
        if let Some(SealFault::Byte(at, mask)) = plan.fault {
            let at = usize::from(at) % bytes.len();
            bytes[at] ^= mask;
        }
        let whole = self.offset + bytes.len() <= LONGEST;
        self.write(&bytes);
        let faultless = plan.fault.is_none() && whole;
        let is_new = plan.to.is_none() && !segments.contains(&number);
        self.clean &= faultless && is_new && number < u32::MAX;
        self.forged |=
            matches!(plan.fault, Some(SealFault::Last(_) | SealFault::Header(..) | SealFault::Nowhere));
        self.forged |= !is_new || plan.header.is_some_and(|(.., fix)| fix);
        if matches!(plan.to, Some(Target::Missing(_))) {
            return;
        }
        if segments.contains(&number) {
            // What is written there takes the place of what was.
            self.certain = 0;
        } else {
            self.begin(plan, number, next_chain);
        }
        self.path = segment_path(number);
        self.offset = SEGMENT_HEADER;
        self.chain = next_chain;
    }

    /// Makes the segment that a seal leads to.
    fn begin(&mut self, plan: &Seal, number: u32, next_chain: u64) {
        let first =
            self.files.values().find(|bytes| bytes.starts_with(b"TIDE-SEG")).cloned().unwrap_or_default();
        let mut bytes = plan.recycled.map_or_else(|| vec![0; 4096], |n| self.other(n));
        bytes.resize(bytes.len().max(4096), 0);
        let header = &mut bytes[..SEGMENT_HEADER];
        header.fill(0);
        header[..8].copy_from_slice(b"TIDE-SEG");
        put(header, (8, 4), 1);
        header[16..32].copy_from_slice(&first[16..32]);
        put(header, (32, 8), number.into());
        put(header, (40, 8), self.lsn + 1);
        put(header, (48, 8), next_chain);
        put(header, (56, 8), 1_700_000_000_000);
        let durable = plan.behind.map_or(self.durable, |behind| self.lsn.saturating_sub(behind.into()));
        put(header, (64, 8), durable);
        seal(header, SEGMENT_HEADER - 4);
        if let Some((field, value, fix)) = plan.header {
            edit(header, *pick(&SEGMENT_FIELDS, field), value);
            if fix {
                seal(header, SEGMENT_HEADER - 4);
            }
        }
        let path = segment_path(number);
        self.begun.insert(path.clone(), 0);
        self.files.insert(path, bytes);
    }
}

/// An entry's bytes, with what follows from them.
struct Made {
    bytes: Vec<u8>,
    last: u64,
    chain: u64,
}

fn annotation(kind: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 8];
    put(&mut out, (0, 2), kind);
    put(&mut out, (2, 2), 1);
    put(&mut out, (4, 4), bytes.len() as u64);
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(8), 0);
    out
}
