//! What recovery must find, read from a store's files as FORMAT.md says and apart from the library.
//!
//! Only the journal is looked at. That the superblock is whole, and that a marked base is the one it names, is taken
//! for granted.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use tideline_journal::{Code, lock_page, page_hash};

use crate::layout::{
    CLAIMED, DURABLE, ENTRY_HEADER, EPOCH, FIRST, KIND, LAST, LEN, NOTES, PAGE_SIZE, PREV, RECORD, ROW,
    ROW_HASH, ROWS, SEGMENT_HEADER, TABLE, bounds, chain, newest_slot,
};
use crate::pages::{Content, Files, SIDE, canonical, is_marked};
use crate::value::{Field, get};

/// Kinds of entries.
const COMMIT: u64 = 1;
const FULL: u64 = 3;
const SEAL: u64 = 64;
const KEPT: u64 = 65;

/// Annotations: path of a super-journal, and where a seal leads.
const SUPER_JOURNAL: u64 = 1;
const NEXT_SEGMENT: u64 = 2;

/// No entry is as long, in bytes, and no image as far into its segment.
const LONGEST: u64 = 1 << 43;

/// Fields of a segment's header.
const VERSION: Field = (8, 4);
const SEGMENT_KIND: Field = (12, 2);
const NUMBER: Field = (32, 8);
const SEGMENT_CHAIN: Field = (48, 8);
const SEGMENT_DURABLE: Field = (64, 8);

/// An image, as far as the files tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    /// It is this.
    Image(Vec<u8>),
    /// It hasn't its hash any more.
    Damaged,
    /// No entry says: the page came into being without a row.
    Unknown,
}

/// What is found where a store isn't refused.
#[derive(Clone, Debug)]
pub struct Journal {
    /// Its newest LSN.
    pub lsn: u64,
    /// Page size there, in bytes.
    pub page_size: usize,
    /// Pages there, from 1 on.
    pub pages: Vec<Page>,
    /// Every image of an entry that is retained has its hash.
    pub sound: bool,
    /// Last LSNs of the entries above the horizon.
    pub ends: Vec<u64>,
    /// Where the next entry goes.
    pub end: Place,
}

impl Journal {
    /// The content, if all of it is known and sound.
    pub fn content(&self) -> Option<Content> {
        let image = |page: &Page| match page {
            Page::Image(image) => Some(image.clone()),
            _ => None,
        };
        let pages = self.pages.iter().map(image).collect::<Option<Vec<_>>>()?;
        let page_size = if pages.is_empty() { 0 } else { self.page_size };
        Some(Content { page_size, pages })
    }
}

/// A place in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the segment.
    pub number: u32,
    /// Byte offset in it.
    pub offset: u64,
    /// Chain value of the entry before.
    pub chain: u64,
}

/// Path of a segment.
pub fn segment_path(number: u32) -> String {
    format!("{SIDE}/{number:08x}.seg")
}

/// An entry whose record is right.
struct Entry {
    header: Vec<u8>,
    /// Page table, then annotations.
    table: Vec<u8>,
    /// Of its header.
    start: u64,
    chain: u64,
}

impl Entry {
    fn get(&self, field: Field) -> u64 {
        get(&self.header, field)
    }

    fn rows(&self) -> impl Iterator<Item = &[u8]> {
        self.table.chunks_exact(ROW).take(self.get(ROWS) as usize)
    }

    fn note(&self, kind: u64) -> Option<&[u8]> {
        let mut notes = &self.table[self.get(ROWS) as usize * ROW..];
        while notes.len() >= 8 {
            let len = get(notes, (4, 4)) as usize;
            let bytes = notes.get(8..8 + len)?;
            if get(notes, (0, 2)) == kind {
                return Some(bytes);
            }
            notes = notes.get((8 + len).next_multiple_of(8)..)?;
        }
        None
    }

    fn has_lsn(&self) -> bool {
        self.get(KIND) < 64
    }
}

/// The entry at `place`, with this magic in its record.
fn entry_at(files: &Files, place: Place, magic: &[u8; 4]) -> Option<Entry> {
    let segment = files.get(&segment_path(place.number))?;
    let part = |from: u64, len: u64| -> Option<&[u8]> {
        let from = usize::try_from(from).ok()?;
        segment.get(from..from.checked_add(usize::try_from(len).ok()?)?)
    };
    let header = part(place.offset, ENTRY_HEADER as u64)?;
    let field = |field| get(header, field);
    let table_len = field(ROWS) * ROW as u64 + field(NOTES);
    let body = field(TABLE).checked_add(table_len).filter(|&body| body < LONGEST)?;
    let page_size = field(PAGE_SIZE);
    let pages =
        page_size.is_power_of_two() && (512..=65536).contains(&page_size) && field((64, 4)) < 0xffff_ffff;
    let right = header.starts_with(b"ENT1")
        && matches!(field(KIND), COMMIT..=FULL | SEAL | KEPT)
        && field((68, 2)) <= 5
        && field(FIRST) <= field(LAST)
        && field(LAST) < 1 << 62
        && field(TABLE) >= ENTRY_HEADER as u64
        && field(LEN) == body.next_multiple_of(8) + RECORD as u64
        && field(PREV) == place.chain
        && (pages || page_size == 0 && field((64, 4)) == 0);
    if !right {
        return None;
    }
    let record = part(place.offset.checked_add(field(LEN) - RECORD as u64)?, RECORD as u64)?;
    let table = part(place.offset + field(TABLE), table_len)?;
    let crc = crc32fast::hash(&[header, table].concat());
    let chain = chain(place.chain, crc, field(LAST));
    let expected = [
        &magic[..],
        &crc.to_le_bytes(),
        &field(LAST).to_le_bytes(),
        &place.chain.to_le_bytes(),
        &chain.to_le_bytes(),
    ];
    let entry = Entry { header: header.to_vec(), table: table.to_vec(), start: place.offset, chain };
    (record == expected.concat() && rows_are_right(&entry)).then_some(entry)
}

fn rows_are_right(entry: &Entry) -> bool {
    let page_size = entry.get(PAGE_SIZE) as usize;
    let mut last = 0;
    entry.rows().all(|row| {
        let (page, offset) = (get(row, (0, 4)), get(row, (8, 8)));
        let right = page_size > 0
            && page > last
            && page <= entry.get((64, 4))
            && page != u64::from(lock_page(page_size))
            && offset % 8 == 0
            && offset < LONGEST;
        last = page;
        right
    })
}

/// A segment's header that is whole.
fn header_of(bytes: &[u8]) -> Result<&[u8], Code> {
    let header = bytes.get(..SEGMENT_HEADER).filter(|header| header.starts_with(b"TIDE-SEG"));
    let header = header.ok_or(Code::Damaged)?;
    let crc = crc32fast::hash(&header[..SEGMENT_HEADER - 4]);
    if u64::from(crc) != get(header, (SEGMENT_HEADER - 4, 4)) {
        return Err(Code::Damaged);
    }
    if get(header, VERSION) != 1 {
        return Err(Code::Format);
    }
    let right = get(header, SEGMENT_KIND) <= 2 && get(header, NUMBER) < u64::from(u32::MAX);
    if right { Ok(header) } else { Err(Code::Damaged) }
}

/// A reader on its way through the journal.
struct Walk<'a> {
    files: &'a Files,
    place: Place,
    lsn: u64,
    /// Newest LSN of which an entry says that it was on the disk.
    claimed: u64,
    /// Segments that it went through, or has to do with.
    segments: BTreeSet<u32>,
    /// Entries so far, and whether each one's images were looked at.
    entries: Vec<(u32, Entry)>,
}

impl<'a> Walk<'a> {
    /// At the first entry behind the horizon.
    fn start(files: &'a Files) -> Walk<'a> {
        let number = newest_slot(files).map_or(0, |slot| get(slot, (88, 4))) as u32;
        let chain = files.get(&segment_path(number)).map_or(0, |segment| get(segment, SEGMENT_CHAIN));
        Walk {
            files,
            place: Place { number, offset: SEGMENT_HEADER as u64, chain },
            lsn: bounds(files).0,
            claimed: 0,
            segments: BTreeSet::from([number]),
            entries: Vec::new(),
        }
    }

    /// Goes over one entry; false at the end. `known` says that it was on the disk: then its images count for nothing.
    fn advance(&mut self, known: bool) -> Result<bool, Code> {
        loop {
            let Some(entry) = entry_at(self.files, self.place, b"COM1") else { return Ok(false) };
            if entry.get(KIND) == SEAL {
                if !self.follow(&entry)? {
                    return Ok(false);
                }
                continue;
            }
            if !entry.has_lsn() || entry.get(FIRST) != self.lsn + 1 {
                return Ok(false);
            }
            self.address(&entry)?;
            if !known && !self.is_sound(&entry) {
                return Ok(false);
            }
            self.lsn = entry.get(LAST);
            self.claimed = self.claimed.max(entry.get(CLAIMED));
            self.place.chain = entry.chain;
            self.place.offset = (self.place.offset + entry.get(LEN)).next_multiple_of(64);
            self.entries.push((self.place.number, entry));
            return Ok(true);
        }
    }

    /// Goes where a seal leads.
    fn follow(&mut self, seal: &Entry) -> Result<bool, Code> {
        let Some(note) = seal.note(NEXT_SEGMENT).filter(|note| note.len() == 12) else { return Ok(false) };
        if seal.get(LAST) != self.lsn {
            return Ok(false);
        }
        let (number, chain) = (get(note, (0, 4)) as u32, get(note, (4, 8)));
        if self.segments.contains(&number) {
            return Ok(false);
        }
        let bytes = self.files.get(&segment_path(number)).ok_or(Code::Missing)?;
        if header_of(bytes).is_err_and(|code| code != Code::Damaged) {
            return Err(Code::Format);
        }
        self.segments.insert(number);
        self.place = Place { number, offset: SEGMENT_HEADER as u64, chain };
        Ok(true)
    }

    /// Opens the segments that rows name.
    fn address(&mut self, entry: &Entry) -> Result<(), Code> {
        for row in entry.rows() {
            let number = get(row, (4, 4)) as u32;
            if number != 0 && !self.segments.contains(&number) {
                let bytes = self.files.get(&segment_path(number)).ok_or(Code::Missing)?;
                header_of(bytes)?;
                self.segments.insert(number);
            }
        }
        Ok(())
    }

    /// The image that a row of an entry in segment `own` names; `None` if it hasn't its hash.
    fn image(&self, own: u32, row: &[u8], page_size: usize) -> Option<Vec<u8>> {
        let (page, segment, offset) =
            (get(row, (0, 4)) as u32, get(row, (4, 4)) as u32, get(row, (8, 8)) as usize);
        let image = if offset == 0 {
            vec![0; page_size]
        } else {
            let segment = self.files.get(&segment_path(if segment == 0 { own } else { segment }))?;
            segment.get(offset..offset + page_size)?.to_vec()
        };
        (page_hash(page, &image) == get(row, ROW_HASH)).then_some(image)
    }

    /// What is in the place of a header at the end, unless that is a whole entry that doesn't go on from the last one, and
    /// hence of an earlier life.
    fn damaged_at_end(&self) -> Option<&[u8]> {
        let Place { number, offset, chain } = self.place;
        let header = self.files.get(&segment_path(number))?.get(offset as usize..)?.get(..ENTRY_HEADER)?;
        let earlier = self.whole_at(offset).is_some_and(|entry| entry.get(PREV) != chain);
        (!earlier).then_some(header)
    }

    /// The whole entry there, whatever it continues.
    fn whole_at(&self, at: u64) -> Option<Entry> {
        let number = self.place.number;
        let header = self.files.get(&segment_path(number))?.get(at as usize..)?.get(..ENTRY_HEADER)?;
        entry_at(self.files, Place { number, offset: at, chain: get(header, PREV) }, b"COM1")
    }

    /// Newest LSN of which a whole entry behind the end says that it was on the disk: one in the same segment, of the
    /// epoch of the last entry or of a damaged one at the end.
    fn claimed_behind(&self) -> u64 {
        let last = self.entries.last().map(|(_, entry)| get(&entry.header, EPOCH));
        let damaged = self.damaged_at_end().map(|header| get(header, EPOCH));
        let epochs: Vec<u64> = damaged.into_iter().chain(last).collect();
        self.claimed_by(|entry| epochs.contains(&entry.get(EPOCH)))
    }

    /// The same, of those whole entries behind the end that count.
    fn claimed_by(&self, counts: impl Fn(&Entry) -> bool) -> u64 {
        let Place { number, offset, .. } = self.place;
        let Some(segment) = self.files.get(&segment_path(number)) else { return 0 };
        let behind = (offset.next_multiple_of(64)..segment.len() as u64).step_by(64);
        let entries = behind.filter_map(|at| self.whole_at(at)).filter(counts);
        entries.map(|entry| entry.get(CLAIMED)).max().unwrap_or(0)
    }

    fn is_sound(&self, entry: &Entry) -> bool {
        let page_size = entry.get(PAGE_SIZE) as usize;
        entry.rows().all(|row| self.image(self.place.number, row, page_size).is_some())
    }
}

/// What an opener must find in these files: a journal, or why it refuses. `states` are the contents that the base may
/// have, by LSN.
pub fn recover(files: &Files, states: &BTreeMap<u64, Content>) -> Result<Journal, Code> {
    let mut files = files.clone();
    let slot = newest_slot(&files).expect("the superblock is whole").to_vec();
    let lineage = get(&slot, (24, 8));
    let (durable, base) = (get(&slot, DURABLE), get(&slot, (96, 8)));
    let history = get(&slot, (320, 8));
    let marked = is_marked(&files);
    let mut ahead = Walk::start(&files);
    loop {
        match ahead.advance(true) {
            Ok(true) => {}
            // Behind an entry that an earlier recovery found torn, there may have been a segment that it removed.
            Ok(false) | Err(Code::Missing) => break,
            Err(code) => return Err(code),
        }
    }
    let known = durable.max(ahead.claimed.min(ahead.lsn));
    // A prepared entry whose super-journal is gone becomes one that counts, and there may be more behind it.
    let walk = loop {
        let mut walk = Walk::start(&files);
        while walk.advance(walk.lsn < known)? {}
        if !marked && walk.lsn > base {
            return Err(Code::Diverged);
        }
        if !marked {
            // Nothing can be prepared at rest.
            break walk;
        }
        let (place, Some(record)) = (walk.place, decide(&mut walk)?) else { break walk };
        let segment = files.get_mut(&segment_path(place.number)).expect("it was read");
        segment[record..record + 4].copy_from_slice(b"COM1");
    };
    let mut least = durable.max(base).max(history);
    if marked {
        let segments = files.iter().filter(|(path, _)| path.ends_with(".seg"));
        let claims = segments.filter_map(|(path, bytes)| {
            let header = header_of(bytes).ok()?;
            let own = *path == segment_path(get(header, NUMBER) as u32) && get(header, (16, 8)) == lineage;
            own.then(|| get(header, SEGMENT_DURABLE))
        });
        least = claims.fold(least, u64::max).max(walk.claimed_behind());
    }
    if !marked && walk.claimed_by(|_| true) > walk.lsn {
        return Err(Code::Diverged);
    }
    if walk.lsn < least {
        return Err(Code::Damaged);
    }
    Ok(read(&walk, base, states))
}

/// Decides about a prepared entry at the end. Returns the byte offset of its record if it is a commit.
fn decide(walk: &mut Walk<'_>) -> Result<Option<usize>, Code> {
    let Some(entry) = entry_at(walk.files, walk.place, b"PRE1") else { return Ok(None) };
    let Some(path) = entry.note(SUPER_JOURNAL) else { return Ok(None) };
    if entry.get(FIRST) != walk.lsn + 1 {
        return Ok(None);
    }
    if std::str::from_utf8(path).is_ok_and(|path| walk.files.contains_key(path)) {
        return Ok(None);
    }
    walk.address(&entry)?;
    if !walk.is_sound(&entry) {
        return Err(Code::Damaged);
    }
    Ok(Some((entry.start + entry.get(LEN)) as usize - RECORD))
}

/// What the entries of a walk say, above the base.
fn read(walk: &Walk<'_>, base: u64, states: &BTreeMap<u64, Content>) -> Journal {
    let content = states.get(&base).expect("the base has a state");
    let mut journal = Journal {
        lsn: walk.lsn,
        page_size: content.page_size,
        pages: content.pages.iter().cloned().map(Page::Image).collect(),
        sound: true,
        ends: walk.entries.iter().map(|(_, entry)| entry.get(LAST)).collect(),
        end: walk.place,
    };
    for (number, entry) in &walk.entries {
        let page_size = entry.get(PAGE_SIZE) as usize;
        let above = entry.get(LAST) > base;
        if above {
            if page_size != journal.page_size {
                journal.pages.clear();
            }
            journal.page_size = page_size;
            // Nobody reads on behind the first that isn't known, so there need not be many.
            let size = entry.get((64, 4)) as usize;
            journal.pages.resize(size.min(journal.pages.len().max(1 << 12)), Page::Unknown);
        }
        for row in entry.rows() {
            let page = get(row, (0, 4)) as u32;
            let image = walk.image(*number, row, page_size);
            journal.sound &= image.is_some();
            if let (true, Some(place)) = (above, journal.pages.get_mut(page as usize - 1)) {
                *place = image.map_or(Page::Damaged, |image| Page::Image(canonical(page, &image)));
            }
        }
    }
    journal
}
