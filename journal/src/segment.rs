//! A segment file that is open.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::disk::{Disk, File, How};
use crate::error::{At, Code, Error, Result};
use crate::format::{
    COMMIT_RECORD_LEN, CommitRecord, ENTRY_ALIGN, EntryHeader, HEADER_LEN, LONGEST, ROW_LEN, Row,
    SEGMENT_HEADER_LEN, SegmentHeader, find_annotation, round_up,
};
use crate::hash::page_hash;
use crate::lsn::Lsn;
use crate::state::lock_page;
use crate::store::sync_name;

/// Largest page table and annotations that are read, in bytes: a damaged length asks for no more.
const TABLE_LIMIT: u64 = 1 << 37;

/// Images begin at multiples of this many bytes.
const IMAGE_ALIGN: u64 = 8;

/// Bytes in which entries are looked for at a time.
const SCANNED: u64 = 1 << 20;

/// An open segment.
pub(crate) struct Segment {
    pub header: SegmentHeader,
    pub file: Arc<dyn File>,
    pub path: PathBuf,
    /// The header isn't in the file.
    assumed: bool,
    /// Its bytes are on their way to the disk.
    pub under_way: AtomicBool,
    /// Device and inode, once somebody asked.
    inode: OnceLock<(u64, u64)>,
    /// The journal doesn't go through it any more, and this process has seen to its file.
    pub gone: AtomicBool,
    /// A sync of it has failed.
    unsynced: Mutex<bool>,
}

/// An entry whose record was found and whose checksum is right.
pub(crate) struct Checked {
    pub header: EntryHeader,
    pub record: CommitRecord,
    /// Page table, then annotations.
    pub table: Vec<u8>,
}

impl Checked {
    /// Its annotation of `kind`.
    pub fn annotation(&self, kind: u16) -> Option<&[u8]> {
        find_annotation(&self.table[self.header.rows as usize * ROW_LEN..], kind)
    }

    /// The rows of its page table.
    pub fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        rows(&self.table, self.header.rows)
    }
}

/// The first `count` rows in the bytes of a page table.
pub(crate) fn rows(table: &[u8], count: u32) -> impl Iterator<Item = Row> + '_ {
    table.chunks_exact(ROW_LEN).take(count as usize).map(Row::decode)
}

fn read_header(file: &dyn File, path: &Path) -> Result<SegmentHeader> {
    let mut bytes = [0; SEGMENT_HEADER_LEN];
    file.read_at(&mut bytes, 0).at(|| format!("reading {}", path.display()))?;
    SegmentHeader::decode(&bytes)
        .map_err(|e| Error::new(e.code(), format!("{}: {}", path.display(), e.text())))
}

/// True if the rows are in order of their pages, each page once, none above the size and none of
/// the lock page, and if each image is where one may be.
fn rows_are_right(header: &EntryHeader, table: &[u8]) -> bool {
    let lock = match header.state.page_size {
        0 => return header.rows == 0,
        size => lock_page(size as usize),
    };
    let mut last = 0;
    rows(table, header.rows).all(|row| {
        let right = row.page > last
            && row.page <= header.state.size
            && row.page != lock
            && row.offset % IMAGE_ALIGN == 0
            && row.offset < LONGEST;
        last = row.page;
        right
    })
}

impl Segment {
    fn of(header: SegmentHeader, file: Arc<dyn File>, path: PathBuf, assumed: bool) -> Segment {
        let (under_way, gone) = (AtomicBool::default(), AtomicBool::default());
        let unsynced = Mutex::default();
        Segment { header, file, path, assumed, under_way, inode: OnceLock::new(), gone, unsynced }
    }

    /// False once its file has become a later segment. The header of an earlier one is there where the disk has
    /// forgotten what was written.
    pub fn is_itself(&self) -> bool {
        let there = read_header(&*self.file, &self.path);
        there.map_or(true, |header| header.number <= self.header.number)
    }

    /// Length of its file, in bytes.
    ///
    /// # Errors
    /// `Io`.
    pub fn len(&self) -> Result<u64> {
        self.file.len().at(|| format!("reading {}", self.path.display()))
    }

    /// Creates the file with its header and `capacity` bytes, durably.
    pub fn create(disk: &dyn Disk, path: PathBuf, header: SegmentHeader, capacity: u64) -> Result<Segment> {
        let file = disk.open(&path, How::Create).at(|| format!("creating {}", path.display()))?;
        // What an interrupted creation may have left isn't worth keeping.
        let made = file.set_len(0).and_then(|()| {
            file.allocate(capacity)?;
            file.write_at(&header.encode(), 0)?;
            file.sync()
        });
        made.at(|| format!("writing {}", path.display()))?;
        sync_name(disk, &path)?;
        Ok(Segment::of(header, file, path, false))
    }

    /// Makes a file, whose name is durable, into the segment that goes on from another. The header need
    /// not reach the disk before what is behind it does.
    pub fn begin(file: Arc<dyn File>, path: PathBuf, header: SegmentHeader) -> Result<Segment> {
        file.write_at(&header.encode(), 0).at(|| format!("writing {}", path.display()))?;
        Ok(Segment::of(header, file, path, false))
    }

    /// Device and inode of the file that is open.
    pub fn inode(&self) -> Result<(u64, u64)> {
        if let Some(&inode) = self.inode.get() {
            return Ok(inode);
        }
        let found = self.file.identity().at(|| format!("reading {}", self.path.display()))?;
        Ok(*self.inode.get_or_init(|| (found.device, found.inode)))
    }

    /// Makes everything in it durable.
    ///
    /// # Errors
    /// `Io`, also if it has failed before: the system tells of what it couldn't write once, and forgets it.
    pub fn sync(&self) -> Result<()> {
        let mut unsynced = self.unsynced.lock();
        if *unsynced {
            let path = self.path.display();
            let text = format!(
                "an fsync of {path} has failed, and another would prove nothing; close the database everywhere and open it again"
            );
            return Err(Error::new(Code::Io, text));
        }
        let synced = self.file.sync().at(|| format!("syncing {}", self.path.display()));
        *unsynced = synced.is_err();
        synced
    }

    /// Opens one that exists.
    pub fn open(disk: &dyn Disk, path: PathBuf, how: How) -> Result<Segment> {
        let file = disk.open(&path, how).at(|| format!("opening {}", path.display()))?;
        let header = read_header(&*file, &path)?;
        Ok(Segment::of(header, file, path, false))
    }

    /// Opens the one that a seal leads to. What is to be in its header follows from that; where the file
    /// says something else, it never reached the disk, or was damaged.
    pub fn open_next(disk: &dyn Disk, path: PathBuf, expected: SegmentHeader) -> Result<Segment> {
        let file = disk.open(&path, How::Write).at(|| format!("opening {}", path.display()))?;
        match read_header(&*file, &path) {
            Ok(header) if header.continues_as(&expected) => Ok(Segment::of(header, file, path, false)),
            Err(e) if e.code() != Code::Damaged => Err(e),
            _ => Ok(Segment::of(expected, file, path, true)),
        }
    }

    /// Writes its header if it isn't in the file.
    pub fn restore_header(&self) -> Result<()> {
        if !self.assumed {
            return Ok(());
        }
        self.file.write_at(&self.header.encode(), 0).at(|| format!("writing {}", self.path.display()))
    }

    /// `len` bytes at `offset`, copied only where the disk can't map.
    pub fn bytes(&self, offset: u64, len: usize) -> Result<Cow<'_, [u8]>> {
        if let Some(slice) = self.file.slice(offset, len) {
            return Ok(Cow::Borrowed(slice));
        }
        let mut copy = vec![0; len];
        self.read(offset, &mut copy)?;
        Ok(Cow::Owned(copy))
    }

    /// Fills `to` from `offset`, without a system call where the disk can.
    pub fn copy(&self, offset: u64, to: &mut [u8]) -> Result<()> {
        match self.file.slice(offset, to.len()) {
            Some(bytes) => to.copy_from_slice(bytes),
            None => self.read(offset, to)?,
        }
        Ok(())
    }

    /// Fills `to` from `offset`.
    pub fn read(&self, offset: u64, to: &mut [u8]) -> Result<()> {
        let got = self.file.read_at(to, offset).at(|| format!("reading {}", self.path.display()))?;
        if got < to.len() {
            return Err(Error::new(
                Code::Damaged,
                format!(
                    "{} ends before byte {}; restore from a backup",
                    self.path.display(),
                    offset + to.len() as u64
                ),
            ));
        }
        Ok(())
    }

    /// The entry at `offset`, if there is a whole one that continues the chain value `prev`. Its
    /// images aren't looked at. Bytes that are no such entry are `None`: garbage of an earlier life.
    pub fn entry(&self, offset: u64, prev: u64) -> Result<Option<Checked>> {
        self.entry_with(offset, prev, CommitRecord::is)
    }

    /// The same, of an entry for which a super-journal decides whether it counts.
    pub fn prepared(&self, offset: u64, prev: u64) -> Result<Option<Checked>> {
        self.entry_with(offset, prev, CommitRecord::is_prepared)
    }

    /// Newest LSN of which an entry says that it was on the disk: one that is whole, lies anywhere at or behind `offset`
    /// and has one of these epochs, if any are given. What an earlier life left has another, or knew of less.
    pub fn claimed_behind(&self, offset: u64, epochs: Option<&[u64]>) -> Result<Lsn> {
        let len = self.len()?;
        let mut claimed = Lsn::ZERO;
        let mut at = round_up(offset, ENTRY_ALIGN);
        // Bytes that only look like entries may ask for each other's again and again.
        let mut patience = len;
        while at + HEADER_LEN as u64 <= len {
            let part = self.bytes(at, (len - at).min(SCANNED) as usize)?;
            for (n, bytes) in part.chunks(ENTRY_ALIGN as usize).enumerate() {
                let here = at + n as u64 * ENTRY_ALIGN;
                if !EntryHeader::begins(bytes) {
                    continue;
                }
                let mut encoded = [0; HEADER_LEN];
                let header = match self.fill(here, &mut encoded)? {
                    true => EntryHeader::decode(&encoded),
                    false => None,
                };
                let counts = |epoch| epochs.is_none_or(|epochs| epochs.contains(&epoch));
                let news = |header: &EntryHeader| counts(header.epoch) && header.durable > claimed;
                let Some(header) = header.filter(news) else { continue };
                if here.saturating_add(header.len) > len {
                    continue;
                }
                let Some(left) = patience.checked_sub(header.table_len()) else { return Ok(claimed) };
                patience = left;
                if self.entry(here, header.prev)?.is_some() {
                    claimed = header.durable;
                }
            }
            at += part.len() as u64;
        }
        Ok(claimed)
    }

    /// Fills `to` from `offset`; false if the file ends before.
    pub fn fill(&self, offset: u64, to: &mut [u8]) -> Result<bool> {
        if let Some(slice) = self.file.slice(offset, to.len()) {
            to.copy_from_slice(slice);
            return Ok(true);
        }
        let got = self.file.read_at(to, offset).at(|| format!("reading {}", self.path.display()))?;
        Ok(got == to.len())
    }

    fn entry_with(
        &self,
        offset: u64,
        prev: u64,
        is: fn(&CommitRecord, &[u8; COMMIT_RECORD_LEN]) -> bool,
    ) -> Result<Option<Checked>> {
        let mut encoded = [0; HEADER_LEN];
        if !self.fill(offset, &mut encoded)? {
            return Ok(None);
        }
        let Some(header) = EntryHeader::decode(&encoded) else { return Ok(None) };
        if header.prev != prev || header.table_len() > TABLE_LIMIT {
            return Ok(None);
        }
        // The record first: a length that isn't true must not ask for memory.
        let mut record = [0; COMMIT_RECORD_LEN];
        if !self.fill(offset.saturating_add(header.record()), &mut record)? {
            return Ok(None);
        }
        let mut table = vec![0; header.table_len() as usize];
        if !self.fill(offset + header.table, &mut table)? {
            return Ok(None);
        }
        let expected = CommitRecord::of(&header, &encoded, &table);
        let whole = is(&expected, &record) && rows_are_right(&header, &table);
        Ok(whole.then_some(Checked { header, record: expected, table }))
    }

    /// True if the image that `row` names has the row's hash.
    pub fn image_is_sound(&self, row: &Row, page_size: usize) -> Result<bool> {
        if row.offset == 0 {
            return Ok(row.hash == crate::hash::zero_hash(row.page, page_size));
        }
        let mut image = vec![0; page_size];
        let got =
            self.file.read_at(&mut image, row.offset).at(|| format!("reading {}", self.path.display()))?;
        Ok(got == page_size && page_hash(row.page, &image) == row.hash)
    }
}
