//! The index, for the fuzz target that compares it with a model. Not part of the library: behind the feature `fuzz`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::disk::{Disk, SimDisk};
use crate::error::Result;
use crate::format::{
    COMMIT_RECORD_LEN, ENTRY_ALIGN, EntryHeader, HEADER_LEN, Kind, Origin, ROW_LEN, Row, SegmentHeader,
    SegmentKind, round_up,
};
use crate::index::{Index, Shrunk};
use crate::lsn::{Lsn, LsnRange};
use crate::segment::Segment;
use crate::state::State;

/// One version, as the index has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Last LSN of its entry.
    pub lsn: u64,
    /// Number of the segment that holds the image.
    pub segment: u32,
    /// Byte offset there; 0 is a page of zeros.
    pub offset: u64,
    /// Whether its hash was compared.
    pub verified: bool,
}

/// An entry that is pushed.
pub struct Pushed<'a> {
    /// First LSN.
    pub first: u64,
    /// Last LSN.
    pub last: u64,
    /// Size in pages after it.
    pub size: u32,
    /// Page, number of the segment that holds the image (0: the entry's own), byte offset; in order of pages.
    pub rows: &'a [(u32, u32, u64)],
    /// The images were hashed just now.
    pub verified: bool,
}

/// An index over segments in memory: what a store has of it.
pub struct Probe {
    disk: Arc<dyn Disk>,
    index: RwLock<Arc<Index>>,
    /// Where the next entry goes, in the last segment.
    offset: AtomicU64,
}

fn state(lsn: u64, size: u32) -> State {
    let page_size = if size == 0 { 0 } else { 512 };
    State { lsn: Lsn::new(lsn), id: lsn, page_size, size, ..State::default() }
}

impl Probe {
    /// One that begins at an LSN.
    pub fn new(origin: u64) -> Probe {
        Probe {
            disk: SimDisk::new().process(),
            index: RwLock::new(Arc::new(Index::new(state(origin, 0), Origin::External, state(origin, 0)))),
            offset: AtomicU64::new(0),
        }
    }

    /// The index as it is now, which stays as it is for whoever has it when it is replaced.
    pub fn reading(&self) -> Reading {
        Reading(Arc::clone(&self.index.read()))
    }

    /// Goes on in a new segment of this number.
    ///
    /// # Errors
    /// None; the disk is sound.
    pub fn roll(&self, number: u32) -> Result<()> {
        let header = SegmentHeader {
            kind: SegmentKind::Journal,
            lineage: [1; 16],
            number,
            first: self.reading().0.applied().next(),
            chain: 0,
            time: 0,
            durable: Lsn::ZERO,
        };
        let path = Path::new("/").join(format!("{number:08x}"));
        self.reading().0.push_segment(Arc::new(Segment::create(&*self.disk, path, header, 0)?));
        self.offset.store(crate::format::SEGMENT_HEADER_LEN as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Writes an entry without images, and pushes it.
    ///
    /// # Errors
    /// None; the disk is sound.
    pub fn push(&self, pushed: &Pushed<'_>) -> Result<()> {
        let rows = pushed.rows.iter().map(|&(page, segment, offset)| Row { page, segment, offset, hash: 1 });
        let mut table = vec![0; pushed.rows.len() * ROW_LEN];
        for (row, out) in rows.clone().zip(table.chunks_exact_mut(ROW_LEN)) {
            row.encode(out);
        }
        let header = EntryHeader {
            kind: if pushed.first == pushed.last { Kind::Commit } else { Kind::Merged },
            origin: Origin::Local,
            range: LsnRange { first: Lsn::new(pushed.first), last: Lsn::new(pushed.last) },
            epoch: 0,
            prev: 0,
            len: round_up((HEADER_LEN + table.len()) as u64, 8) + COMMIT_RECORD_LEN as u64,
            table: HEADER_LEN as u64,
            rows: pushed.rows.len() as u32,
            state: state(pushed.last, pushed.size),
            checksum: None,
            notes: 0,
            durable: Lsn::ZERO,
        };
        let index = self.reading().0;
        let offset = self.offset.fetch_add(round_up(header.len, ENTRY_ALIGN), Ordering::Relaxed);
        let own = index.segments().count() as u32 - 1;
        let written = [&header.encode()[..], &table, &[0; COMMIT_RECORD_LEN]].concat();
        index.segment(own).file.write_at(&written, offset)?;
        let ordinal = |number| index.segments().position(|s| s.header.number == number);
        let ordinal = |number| ordinal(number).expect("rows name segments that are there") as u32;
        index.push(&header, own, offset, rows, ordinal, pushed.verified);
        Ok(())
    }

    /// Begins to make the index anew without what is at or below an LSN; `None` if that is no end of an entry.
    pub fn shrink(&self, horizon: u64) -> Option<Shrinking> {
        Shrunk::begin(&self.reading().0, Lsn::new(horizon)).expect("the disk is sound").map(Shrinking)
    }

    /// Copies what the index has got since; false if a row names a segment that was left out.
    ///
    /// # Errors
    /// None; the disk is sound.
    pub fn copy(&self, shrinking: &mut Shrinking) -> Result<bool> {
        Ok(shrinking.0.copy(&self.reading().0)?.is_some())
    }

    /// Takes the new one, once it has everything.
    pub fn swap(&self, shrinking: Shrinking) {
        *self.index.write() = Arc::new(shrinking.0.index);
    }
}

/// An index that is made from another.
pub struct Shrinking(Shrunk);

/// An index, for those who read.
pub struct Reading(Arc<Index>);

impl Reading {
    /// The LSN that it begins behind.
    pub fn origin(&self) -> u64 {
        self.0.origin.lsn.get()
    }

    /// The newest version of a page at or below an LSN.
    pub fn find(&self, page: u32, lsn: u64) -> Option<Version> {
        let found = self.0.find(page, Lsn::new(lsn))?;
        Some(Version {
            lsn: found.last.get(),
            segment: self.0.segment(found.place.segment).header.number,
            offset: found.place.offset,
            verified: found.verified,
        })
    }

    /// Notes that the hash of that version was compared.
    pub fn verify(&self, page: u32, lsn: u64) {
        if let Some(found) = self.0.find(page, Lsn::new(lsn)) {
            self.0.set_verified(&found);
        }
    }

    /// First and last LSN of the entry that holds an LSN.
    pub fn entry_at(&self, lsn: u64) -> Option<(u64, u64)> {
        let range = self.0.range(self.0.entry_at(Lsn::new(lsn))?);
        Some((range.first.get(), range.last.get()))
    }

    /// Size in pages at an LSN, if it is the origin or the end of an entry.
    pub fn size_at(&self, lsn: u64) -> Option<u32> {
        self.0.state(Lsn::new(lsn)).expect("the disk is sound").map(|state| state.size)
    }

    /// The newest LSN.
    pub fn applied(&self) -> u64 {
        self.0.applied().get()
    }

    /// Numbers of the segments.
    pub fn segments(&self) -> Vec<u32> {
        self.0.segments().map(|segment| segment.header.number).collect()
    }

    /// Numbers of the segments that entries above an LSN are in, or will be.
    pub fn retained(&self, horizon: u64) -> Vec<u32> {
        self.0.retained(Lsn::new(horizon)).map(|segment| segment.header.number).collect()
    }

    /// Numbers of the segments that must be synced for what is between two LSNs.
    pub fn unsynced(&self, durable: u64, head: u64) -> Vec<u32> {
        let segments = self.0.unsynced(Lsn::new(durable), Lsn::new(head));
        segments.iter().map(|segment| segment.header.number).collect()
    }

    /// True if the segment with this number is in the index.
    pub fn has_segment(&self, number: u32) -> bool {
        self.0.has_segment(number)
    }
}
