//! The index: from a page number to the places of its images, newest first.
//!
//! Readers take no lock: everything is appended by one thread at a time (under the store's tail
//! lock) and published by atomics. An index only grows; when segments have been dropped, a new one
//! is made beside it from what stays, and swapped in.
//!
//! It is kept small, since a long history has many entries: of each it holds what a reader needs to find an image, and
//! reads the rest from the segment when somebody asks.
//!
//! Invariants:
//! 1. Entries are in order of their LSNs, without gaps, from the origin's LSN on.
//! 2. `newest[p]` leads to a chain of versions of p with falling LSNs.
//! 3. An entry is pushed before its versions, and `applied` moves after both.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bytemuck::Zeroable;
use bytemuck::allocation::zeroed_slice_box;
use parking_lot::Mutex;

use crate::error::{Code, Error, Result, trimmed};
use crate::format::{
    ENTRY_ALIGN, EntryHeader, HEADER_LEN, Kind, LONGEST, Origin, ROW_LEN, Row, SEGMENT_HEADER_LEN,
    SegmentKind, round_up,
};
use crate::lsn::{Lsn, LsnRange};
use crate::segment::Segment;
use crate::state::State;

mod appended;
mod shrunk;

use appended::Appended;
pub(crate) use shrunk::Shrunk;

/// An entry, as its header says it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub kind: Kind,
    pub origin: Origin,
    pub range: LsnRange,
    pub state: State,
    /// Rolling checksum that came with it.
    pub checksum: Option<u64>,
    /// Ordinal of its segment in the index.
    pub segment: u32,
    /// Where its header is in the segment.
    pub offset: u64,
    /// Where its page table is in the segment.
    pub table: u64,
    pub rows: u32,
    /// Its length in bytes.
    pub len: u64,
}

impl Entry {
    fn of(header: &EntryHeader, segment: u32, offset: u64) -> Entry {
        Entry {
            kind: header.kind,
            origin: header.origin,
            range: header.range,
            state: header.state,
            checksum: header.checksum,
            segment,
            offset,
            table: offset + header.table,
            rows: header.rows,
            len: header.len,
        }
    }

    /// True if all its LSNs are in `range`.
    pub fn is_inside(&self, range: LsnRange) -> bool {
        self.range.first >= range.first && self.range.last <= range.last
    }
}

/// An entry, as the index holds it.
#[derive(Zeroable)]
struct Slim {
    /// Its last LSN.
    last: AtomicU64,
    /// Its origin, the ordinal of its segment, and where its header is there.
    place: AtomicU64,
}

/// Bits of [`Slim::place`] for the header's offset, in units of [`ENTRY_ALIGN`].
const HEADER_BITS: u32 = (LONGEST / ENTRY_ALIGN).ilog2();

/// A segment, and the state behind what the index had when it was pushed.
struct Held {
    segment: Arc<Segment>,
    before: State,
}

/// One image of a page.
#[derive(Zeroable)]
struct Version {
    /// Ordinal of the version before + 1 in the high half, of the entry in the low.
    link: AtomicU64,
    /// See [`Place`].
    place: AtomicU64,
}

const VERIFIED: u64 = 1 << 63;
const SEGMENT_BITS: u32 = 23;
const OFFSET_BITS: u32 = 40;

/// Where an image is: ordinal of the segment and byte offset; offset 0 stands for a page of zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub segment: u32,
    pub offset: u64,
}

/// A version that was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub version: u32,
    pub entry: u32,
    /// Last LSN of its entry.
    pub last: Lsn,
    pub place: Place,
    /// True once its hash has been compared.
    pub verified: bool,
}

const LEAF: usize = 1024;
type Leaf = Box<[AtomicU32]>;
type Branch = Box<[OnceLock<Leaf>]>;
/// Branches below one place of the top, and places there.
const BRANCHES: usize = 64;
const TOP: usize = (1usize << 32) / LEAF / LEAF / BRANCHES;

/// The first of `0..count` for which this is true, or `count`; once it is, it stays so.
fn first(count: u32, is: impl Fn(u32) -> bool) -> u32 {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if is(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

/// The index of one store.
pub(crate) struct Index {
    /// The state before the first entry.
    pub origin: State,
    /// How the origin came to be, for the log.
    pub origin_origin: Origin,
    /// The state of the base when the index was begun. Where the base was at rest since, its counters are beyond those
    /// of its entry, and were served.
    base: State,
    /// It begins at the horizon. One that begins at the base knows nothing of history.
    pub whole: bool,
    entries: Appended<Slim>,
    /// CRC-32 of each entry's header: what is read again must be what was checked.
    headers: Appended<AtomicU32>,
    entry_count: AtomicU32,
    /// State after the last entry, for whoever appends.
    last: Mutex<State>,
    versions: Appended<Version>,
    version_count: AtomicU32,
    newest: [OnceLock<Box<[OnceLock<Branch>]>>; TOP],
    segments: Appended<OnceLock<Held>>,
    segment_count: AtomicU32,
    applied: AtomicU64,
}

impl Index {
    pub fn new(origin: State, origin_origin: Origin, base: State) -> Index {
        Index::of(origin, origin_origin, base, true)
    }

    /// One that begins at the base, which `origin` is the state of.
    pub fn without_history(origin: State) -> Index {
        Index::of(origin, Origin::Local, origin, false)
    }

    fn of(origin: State, origin_origin: Origin, base: State, whole: bool) -> Index {
        Index {
            origin,
            origin_origin,
            base,
            whole,
            entries: Appended::zeroed(),
            headers: Appended::zeroed(),
            entry_count: AtomicU32::new(0),
            last: Mutex::new(origin),
            versions: Appended::zeroed(),
            version_count: AtomicU32::new(0),
            newest: [const { OnceLock::new() }; TOP],
            segments: Appended::new(),
            segment_count: AtomicU32::new(0),
            applied: AtomicU64::new(origin.lsn.get()),
        }
    }

    /// Newest LSN in the index.
    pub fn applied(&self) -> Lsn {
        Lsn::new(self.applied.load(Ordering::Acquire))
    }

    fn held(&self, ordinal: u32) -> &Held {
        let held = self.segments.get(ordinal as usize).and_then(OnceLock::get);
        held.expect("versions name segments of the index")
    }

    pub fn segment(&self, ordinal: u32) -> &Arc<Segment> {
        &self.held(ordinal).segment
    }

    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &Arc<Segment>> {
        (0..self.segment_count.load(Ordering::Acquire)).map(|n| self.segment(n))
    }

    /// The segments that entries above `horizon` are in, or will be; not those that were dropped and are here still.
    pub fn retained(&self, horizon: Lsn) -> impl Iterator<Item = &Arc<Segment>> {
        self.segments().skip(self.dropped(horizon))
    }

    /// Those of [`Index::retained`] that are the journal's own, and not kept for what was dropped from it.
    pub fn retained_journal(&self, horizon: Lsn) -> Vec<&Arc<Segment>> {
        self.retained(horizon).filter(|segment| segment.header.kind == SegmentKind::Journal).collect()
    }

    /// How many segments before those of [`Index::retained`] there are.
    pub fn dropped(&self, horizon: Lsn) -> usize {
        let begins = |s: &Segment| s.header.kind == SegmentKind::Journal && s.header.first <= horizon.next();
        // Their number is looked at once: others begin segments meanwhile.
        let mut ordinals = (0..self.segment_count.load(Ordering::Acquire)).rev();
        ordinals.find(|&n| begins(self.segment(n))).unwrap_or(0) as usize
    }

    /// Adds a segment; returns its ordinal. Under the tail lock.
    pub fn push_segment(&self, segment: Arc<Segment>) -> u32 {
        let before = *self.last.lock();
        self.push_held(Held { segment, before })
    }

    fn push_held(&self, held: Held) -> u32 {
        let ordinal = self.segment_count.load(Ordering::Relaxed);
        assert!(ordinal < 1 << SEGMENT_BITS, "a store has fewer segments than this");
        assert!(self.segments.slot(ordinal as usize).set(held).is_ok(), "one thread appends");
        self.segment_count.store(ordinal + 1, Ordering::Release);
        ordinal
    }

    /// True if the segment with this number is in the index.
    pub fn has_segment(&self, number: u32) -> bool {
        self.segments().any(|segment| segment.header.number == number)
    }

    pub fn entry_count(&self) -> u32 {
        self.entry_count.load(Ordering::Acquire)
    }

    pub fn version_count(&self) -> u32 {
        self.version_count.load(Ordering::Acquire)
    }

    fn slim(&self, ordinal: u32) -> &Slim {
        self.entries.get(ordinal as usize).expect("versions name entries of the index")
    }

    /// Last LSN of an entry.
    pub fn last(&self, ordinal: u32) -> Lsn {
        Lsn::new(self.slim(ordinal).last.load(Ordering::Relaxed))
    }

    /// LSNs of an entry.
    pub fn range(&self, ordinal: u32) -> LsnRange {
        let before = if ordinal == 0 { self.origin.lsn } else { self.last(ordinal - 1) };
        LsnRange { first: before.next(), last: self.last(ordinal) }
    }

    /// Where an entry came from.
    pub fn origin_of(&self, ordinal: u32) -> Origin {
        let place = self.slim(ordinal).place.load(Ordering::Relaxed);
        Origin::from_number((place >> (HEADER_BITS + SEGMENT_BITS)) as u16).expect("it was one")
    }

    /// Ordinal of an entry's segment, and where its header is there.
    pub fn header_of(&self, ordinal: u32) -> (u32, u64) {
        let place = self.slim(ordinal).place.load(Ordering::Relaxed);
        let segment = (place >> HEADER_BITS) & ((1 << SEGMENT_BITS) - 1);
        (segment as u32, (place & ((1 << HEADER_BITS) - 1)) * ENTRY_ALIGN)
    }

    /// An entry. Whoever asks for one at or below the horizon must expect that it isn't there any more.
    ///
    /// # Errors
    /// `Trimmed` if its segment is another's by now, `Damaged` if its header isn't what it was, `Io`.
    pub fn entry(&self, ordinal: u32) -> Result<Entry> {
        let (segment, offset) = self.header_of(ordinal);
        let held = self.segment(segment);
        let mut encoded = [0; HEADER_LEN];
        held.fill(offset, &mut encoded)?;
        let same = |header: &EntryHeader| crc32fast::hash(&header.encode()) == self.header_crc(ordinal);
        match EntryHeader::decode(&encoded).filter(same) {
            Some(header) => Ok(Entry::of(&header, segment, offset)),
            None if !held.is_itself() => Err(trimmed(self.last(ordinal))),
            None => Err(Error::new(
                Code::Damaged,
                format!(
                    "the entry at byte {offset} of {} isn't what it was; run tide_verify, and restore from a backup",
                    held.path.display()
                ),
            )),
        }
    }

    fn header_crc(&self, ordinal: u32) -> u32 {
        self.headers.get(ordinal as usize).map_or(0, |crc| crc.load(Ordering::Relaxed))
    }

    /// The page table of an entry.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn rows<'a>(&'a self, entry: &Entry) -> Result<impl Iterator<Item = Row> + use<'a>> {
        let (count, segment) = (entry.rows as usize, self.segment(entry.segment));
        let table = segment.bytes(entry.table, count * ROW_LEN)?;
        Ok((0..count).map(move |n| Row::decode(&table[n * ROW_LEN..])))
    }

    /// The entries that end above `after` and not above `to`, in order.
    pub fn between(&self, after: Lsn, to: Lsn) -> impl Iterator<Item = Result<Entry>> {
        let (from, to) = (self.first_above(after), self.first_above(to));
        (from..to).map(|ordinal| self.entry(ordinal))
    }

    /// Ordinal of the first entry that ends above `lsn`, or how many there are.
    pub fn first_above(&self, lsn: Lsn) -> u32 {
        first(self.entry_count(), |ordinal| self.last(ordinal) > lsn)
    }

    /// Ordinal of the first version of the entry `ordinal`, or of those behind it.
    pub fn first_version(&self, ordinal: u32) -> u32 {
        first(self.version_count(), |number| self.found(number + 1).0.entry >= ordinal)
    }

    /// Ordinal of the entry whose range holds `lsn`; `None` at or below the origin and above the head.
    pub fn entry_at(&self, lsn: Lsn) -> Option<u32> {
        let count = self.entry_count();
        if lsn <= self.origin.lsn || count == 0 {
            return None;
        }
        // Without merged entries the ordinal is the distance from the origin.
        let guess = lsn.get() - self.origin.lsn.get() - 1;
        if guess < u64::from(count) && self.range(guess as u32) == LsnRange::one(lsn) {
            return Some(guess as u32);
        }
        let ordinal = self.first_above(Lsn::new(lsn.get() - 1));
        (ordinal < count).then_some(ordinal)
    }

    /// Where what is at `lsn` came from: the origin, or the entry that holds it.
    pub fn origin_at(&self, lsn: Lsn) -> Origin {
        self.entry_at(lsn).map_or(self.origin_origin, |ordinal| self.origin_of(ordinal))
    }

    /// Ordinal of the entry that ends at `lsn`.
    fn ending_at(&self, lsn: Lsn) -> Option<u32> {
        self.entry_at(lsn).filter(|&ordinal| self.last(ordinal) == lsn)
    }

    /// The state at `lsn`, if no entry need be read for it.
    fn noted(&self, lsn: Lsn) -> Option<State> {
        if lsn == self.base.lsn && lsn >= self.origin.lsn {
            return Some(self.base);
        }
        (lsn == self.origin.lsn).then_some(self.origin)
    }

    /// True if an entry ends at `lsn`, or the index begins there.
    pub fn is_end(&self, lsn: Lsn) -> bool {
        self.noted(lsn).is_some() || self.ending_at(lsn).is_some()
    }

    /// The state at `lsn`, which is the origin or the last LSN of an entry. Known at the horizon and above.
    ///
    /// # Errors
    /// As [`Index::entry`].
    pub fn state(&self, lsn: Lsn) -> Result<Option<State>> {
        if let Some(state) = self.noted(lsn) {
            return Ok(Some(state));
        }
        let Some(ordinal) = self.ending_at(lsn) else { return Ok(None) };
        match self.entry(ordinal) {
            // The horizon is where a segment ends, which itself is dropped then.
            Err(e) => {
                let count = self.segment_count.load(Ordering::Acquire);
                let before = (0..count).map(|n| self.held(n).before).find(|before| before.lsn == lsn);
                before.map(Some).ok_or(e)
            }
            Ok(entry) => Ok(Some(entry.state)),
        }
    }

    /// The state at the newest LSN, for whoever appends.
    pub fn last_state(&self) -> State {
        let last = *self.last.lock();
        if last.lsn == self.base.lsn { self.base } else { last }
    }

    /// The segment whose seal leads to an entry at `offset` of `segment`, if it is the first there.
    pub fn predecessor(&self, segment: &Segment, offset: u64) -> Option<&Arc<Segment>> {
        if offset != SEGMENT_HEADER_LEN as u64 {
            return None;
        }
        // Segments are opened in the order in which the journal goes through them.
        let at = self.segments().position(|s| std::ptr::eq(&raw const **s, segment))?;
        self.segments().take(at).filter(|s| s.header.kind == SegmentKind::Journal).last()
    }

    /// Segments of the journal that have a seal, each with the one that it leads to.
    pub fn seals(&self) -> impl Iterator<Item = (&Arc<Segment>, &Arc<Segment>)> {
        let journal = || self.segments().filter(|s| s.header.kind == SegmentKind::Journal);
        journal().zip(journal().skip(1))
    }

    /// Place and length of the seal in `sealed` that leads to `next`.
    ///
    /// # Errors
    /// `Damaged` if it isn't there.
    pub fn seal_before(&self, sealed: &Arc<Segment>, next: &Segment) -> Result<(u64, u64)> {
        let before = self.first_above(Lsn::new(next.header.first.get() - 1));
        let last = before.checked_sub(1).map(|ordinal| self.entry(ordinal)).transpose()?;
        let at = last
            .filter(|last| Arc::ptr_eq(self.segment(last.segment), sealed))
            .map_or(SEGMENT_HEADER_LEN as u64, |last| round_up(last.offset + last.len, ENTRY_ALIGN));
        let mut encoded = [0; HEADER_LEN];
        let header = if sealed.fill(at, &mut encoded)? { EntryHeader::decode(&encoded) } else { None };
        let len =
            header.filter(|header| header.kind == Kind::Seal).map(|header| header.len).ok_or_else(|| {
                let path = sealed.path.display();
                Error::new(Code::Damaged, format!("{path} has no seal at byte {at}; restore from a backup"))
            })?;
        Ok((at, len))
    }

    /// Segments that must be synced for the entries in `durable + 1..=head` to be on the disk, oldest first: those that
    /// hold them, and those whose seals lead to one that does.
    pub fn unsynced(&self, durable: Lsn, head: Lsn) -> Vec<Arc<Segment>> {
        let journal: Vec<_> = self.segments().filter(|s| s.header.kind == SegmentKind::Journal).collect();
        let wanted = |lsn: Lsn| lsn > durable && lsn <= head;
        let needed = |n: &usize| {
            let next = journal.get(n + 1).map(|next| next.header.first);
            let first = journal[*n].header.first.max(durable.next());
            first <= head && next.is_none_or(|next| first < next) || next.is_some_and(wanted)
        };
        (0..journal.len()).filter(needed).map(|n| Arc::clone(journal[n])).collect()
    }

    /// Adds an entry with its page table. `segment_of` turns a row's segment number into an ordinal;
    /// `verified` says that the images were hashed just now. Under the tail lock.
    pub fn push(
        &self,
        header: &EntryHeader,
        segment: u32,
        offset: u64,
        rows: impl Iterator<Item = Row>,
        segment_of: impl Fn(u32) -> u32,
        verified: bool,
    ) {
        self.push_entry(segment, offset, header.origin, header.range.last, crc32fast::hash(&header.encode()));
        *self.last.lock() = header.state;
        for row in rows {
            let held = if row.segment == 0 { segment } else { segment_of(row.segment) };
            let verified = if verified || row.offset == 0 { VERIFIED } else { 0 };
            self.push_version(row.page, (u64::from(held) << OFFSET_BITS) | (row.offset >> 3) | verified);
        }
        self.applied.store(header.range.last.get(), Ordering::Release);
    }

    fn push_entry(&self, segment: u32, offset: u64, origin: Origin, last: Lsn, crc: u32) {
        let ordinal = self.entry_count.load(Ordering::Relaxed);
        let slim = self.entries.slot(ordinal as usize);
        let place = (u64::from(origin as u16) << SEGMENT_BITS | u64::from(segment)) << HEADER_BITS;
        slim.place.store(place | (offset / ENTRY_ALIGN), Ordering::Relaxed);
        slim.last.store(last.get(), Ordering::Relaxed);
        self.headers.slot(ordinal as usize).store(crc, Ordering::Relaxed);
        self.entry_count.store(ordinal + 1, Ordering::Release);
    }

    /// Adds a version of `page` to the last entry.
    fn push_version(&self, page: u32, place: u64) {
        let entry = self.entry_count.load(Ordering::Relaxed) - 1;
        let number = self.version_count.load(Ordering::Relaxed);
        let newest = self.newest_slot(page);
        let before = newest.load(Ordering::Relaxed);
        let version = self.versions.slot(number as usize);
        version.link.store((u64::from(before) << 32) | u64::from(entry), Ordering::Relaxed);
        version.place.store(place, Ordering::Relaxed);
        self.version_count.store(number + 1, Ordering::Release);
        newest.store(number + 1, Ordering::Release);
    }

    fn newest_slot(&self, page: u32) -> &AtomicU32 {
        let page = page as usize;
        let number = page / LEAF / LEAF;
        let branches =
            self.newest[number / BRANCHES].get_or_init(|| (0..BRANCHES).map(|_| OnceLock::new()).collect());
        let branch = branches[number % BRANCHES].get_or_init(|| (0..LEAF).map(|_| OnceLock::new()).collect());
        let leaf = branch[page / LEAF % LEAF].get_or_init(|| zeroed_slice_box(LEAF));
        &leaf[page % LEAF]
    }

    fn newest(&self, page: u32) -> u32 {
        let page = page as usize;
        let number = page / LEAF / LEAF;
        self.newest[number / BRANCHES]
            .get()
            .and_then(|branches| branches[number % BRANCHES].get())
            .and_then(|branch| branch[page / LEAF % LEAF].get())
            .map_or(0, |leaf| leaf[page % LEAF].load(Ordering::Acquire))
    }

    fn found(&self, number: u32) -> (Found, u32) {
        let version = self.versions.get(number as usize - 1).expect("chains lead to versions");
        let link = version.link.load(Ordering::Relaxed);
        let place = version.place.load(Ordering::Relaxed);
        let found = Found {
            version: number,
            entry: link as u32,
            last: self.last(link as u32),
            place: Place {
                segment: ((place & !VERIFIED) >> OFFSET_BITS) as u32,
                offset: (place & ((1 << OFFSET_BITS) - 1)) << 3,
            },
            verified: place & VERIFIED != 0,
        };
        (found, (link >> 32) as u32)
    }

    /// The newest version of `page` at or below `lsn`.
    pub fn find(&self, page: u32, lsn: Lsn) -> Option<Found> {
        let mut number = self.newest(page);
        while number != 0 {
            let (found, before) = self.found(number);
            if found.last <= lsn {
                return Some(found);
            }
            number = before;
        }
        None
    }

    /// Notes that a version's hash was compared.
    pub fn set_verified(&self, found: &Found) {
        if let Some(version) = self.versions.get(found.version as usize - 1) {
            version.place.fetch_or(VERIFIED, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Barrier};

    use super::Index;
    use crate::disk::{Disk, File, How, SimDisk};
    use crate::error::{Code, Result};
    use crate::format::{
        COMMIT_RECORD_LEN, ENTRY_ALIGN, EntryHeader, HEADER_LEN, Kind, Origin, SEGMENT_HEADER_LEN,
        SegmentHeader, SegmentKind,
    };
    use crate::lsn::{Lsn, LsnRange};
    use crate::segment::Segment;
    use crate::state::State;

    /// Segments that are begun: the journal of a busy day.
    const MANY: u32 = if cfg!(miri) { 20 } else { 10_000 };

    fn begin(file: &Arc<dyn File>, number: u32) -> Result<Arc<Segment>> {
        let header = SegmentHeader {
            kind: SegmentKind::Journal,
            lineage: [7; 16],
            number,
            first: Lsn::new(u64::from(number)),
            chain: 0,
            time: 0,
            durable: Lsn::ZERO,
        };
        Segment::begin(Arc::clone(file), "/some.seg".into(), header).map(Arc::new)
    }

    fn some_file() -> Arc<dyn File> {
        SimDisk::new().process().open(Path::new("/some.seg"), How::Create).expect("a file")
    }

    fn commit(lsn: u64) -> EntryHeader {
        EntryHeader {
            kind: Kind::Commit,
            origin: Origin::Received,
            range: LsnRange::one(Lsn::new(lsn)),
            epoch: 1,
            prev: 2,
            len: (HEADER_LEN + COMMIT_RECORD_LEN) as u64,
            table: HEADER_LEN as u64,
            rows: 0,
            state: State { lsn: Lsn::new(lsn), id: lsn, page_size: 512, size: 3, ..State::default() },
            checksum: None,
            notes: 0,
            durable: Lsn::ZERO,
        }
    }

    #[test]
    fn what_is_read_again_is_what_was_checked() -> Result<()> {
        let file = some_file();
        let index = Index::new(State::default(), Origin::Local, State::default());
        let own = index.push_segment(begin(&file, 1)?);
        let places = [SEGMENT_HEADER_LEN as u64, SEGMENT_HEADER_LEN as u64 + 4 * ENTRY_ALIGN];
        for (lsn, place) in (1..).zip(places) {
            file.write_at(&commit(lsn).encode(), place)?;
            index.push(&commit(lsn), own, place, std::iter::empty(), |_| own, true);
        }
        assert_eq!((index.range(1), index.origin_of(1)), (LsnRange::one(Lsn::new(2)), Origin::Received));
        for ordinal in 0..2 {
            let entry = index.entry(ordinal)?;
            assert_eq!((entry.offset, entry.state.id), (places[ordinal as usize], u64::from(ordinal) + 1));
        }
        // A header that could be one, and isn't the one that was there.
        file.write_at(&EntryHeader { state: commit(3).state, ..commit(1) }.encode(), places[0])?;
        assert_eq!(index.entry(0).map(|entry| entry.range).unwrap_err().code(), Code::Damaged);
        assert_eq!(index.state(Lsn::new(1)).unwrap_err().code(), Code::Damaged);
        // What was dropped is written again; the state where it ended is known.
        index.push_segment(begin(&some_file(), 2)?);
        begin(&file, 3)?;
        file.write_at(&commit(7).encode(), places[1])?;
        assert_eq!(index.entry(0).map(|entry| entry.range).unwrap_err().code(), Code::Trimmed);
        assert_eq!(index.entry(1).map(|entry| entry.range).unwrap_err().code(), Code::Trimmed);
        assert_eq!(index.state(Lsn::new(2))?, Some(commit(2).state));
        Ok(())
    }

    #[test]
    fn what_is_retained_stays_while_segments_are_begun() -> Result<()> {
        let file = some_file();
        let index = Index::new(State::default(), Origin::Local, State::default());
        index.push_segment(begin(&file, 1)?);
        let (done, both) = (AtomicBool::new(false), Barrier::new(2));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                both.wait();
                let begun = (2..=MANY).try_for_each(|n| begin(&file, n).map(|s| _ = index.push_segment(s)));
                done.store(true, Ordering::SeqCst);
                begun.expect("segments");
            });
            both.wait();
            while !done.load(Ordering::SeqCst) {
                let first = index.retained(Lsn::ZERO).next().map(|s| s.header.number);
                assert_eq!(first, Some(1), "the horizon hasn't moved");
            }
        });
        assert_eq!(index.dropped(Lsn::new(u64::from(MANY) / 2)), MANY as usize / 2);
        Ok(())
    }
}
