//! A segment file that is open.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::disk::{Disk, File, How};
use crate::error::{At, Code, Error, Result};
use crate::format::{
    COMMIT_RECORD_LEN, CommitRecord, EntryHeader, HEADER_LEN, ROW_LEN, Row, SEGMENT_HEADER_LEN,
    SegmentHeader, SegmentKind, find_annotation,
};
use crate::hash::page_hash;
use crate::state::lock_page;

/// Largest page table and annotations that are read, in bytes: a damaged length asks for no more.
const TABLE_LIMIT: u64 = 1 << 37;

/// Images begin at multiples of this many bytes.
const IMAGE_ALIGN: u64 = 8;

/// Bytes of a new segment that are written at a time.
const FILL: usize = 256 << 10;

/// An open segment.
pub(crate) struct Segment {
    pub header: SegmentHeader,
    pub file: Arc<dyn File>,
    pub path: PathBuf,
    /// True once its header and its name are known to be on the disk.
    anchored: AtomicBool,
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

/// Lengthens `file` to `capacity` and writes zeros to it from `at` on. A commit that overwrites what is
/// there is cheaper than one that extends it: no block is allocated, and an fsync has no metadata to
/// write.
pub(crate) fn fill(file: &dyn File, mut at: u64, capacity: u64) -> std::io::Result<()> {
    file.allocate(capacity)?;
    let zeros = vec![0; FILL];
    while at < capacity {
        let part = (capacity - at).min(FILL as u64) as usize;
        file.write_at(&zeros[..part], at)?;
        at += part as u64;
    }
    Ok(())
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
            && row.offset < 1 << 43;
        last = row.page;
        right
    })
}

impl Segment {
    /// Creates the file with its header and `capacity` bytes, durably.
    pub fn create(disk: &dyn Disk, path: PathBuf, header: SegmentHeader, capacity: u64) -> Result<Segment> {
        let segment = Segment::create_loose(disk, path, header, capacity)?;
        segment.anchor(disk)?;
        Ok(segment)
    }

    /// The same, but not on the disk before it is anchored.
    pub fn create_loose(
        disk: &dyn Disk,
        path: PathBuf,
        header: SegmentHeader,
        capacity: u64,
    ) -> Result<Segment> {
        let file = disk.open(&path, How::Create).at(|| format!("creating {}", path.display()))?;
        // What an interrupted creation may have left isn't worth keeping.
        let made = file.set_len(0).and_then(|()| {
            if header.kind == SegmentKind::Journal {
                fill(&*file, SEGMENT_HEADER_LEN as u64, capacity)?;
            } else {
                file.allocate(capacity)?;
            }
            file.write_at(&header.encode(), 0)
        });
        made.at(|| format!("writing {}", path.display()))?;
        Ok(Segment { header, file, path, anchored: AtomicBool::new(false) })
    }

    /// Makes a file that a segment was in before into this one, which isn't on the disk before it is
    /// anchored. `None` if somebody else took the file.
    pub fn reuse(
        disk: &dyn Disk,
        file: Arc<dyn File>,
        from: &Path,
        path: PathBuf,
        header: SegmentHeader,
    ) -> Result<Option<Segment>> {
        match disk.rename(from, &path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.at(|| format!("renaming {}", from.display()))?,
        }
        file.write_at(&header.encode(), 0).at(|| format!("writing {}", path.display()))?;
        Ok(Some(Segment { header, file, path, anchored: AtomicBool::new(false) }))
    }

    /// Makes sure that what the file holds by now is on the disk, under its name.
    pub fn anchor(&self, disk: &dyn Disk) -> Result<()> {
        if self.anchored.load(Ordering::Acquire) {
            return Ok(());
        }
        self.file.sync().at(|| format!("syncing {}", self.path.display()))?;
        if let Some(folder) = self.path.parent() {
            disk.sync_dir(folder).at(|| format!("syncing {}", folder.display()))?;
        }
        self.anchored.store(true, Ordering::Release);
        Ok(())
    }

    /// Makes everything in it durable.
    pub fn sync(&self, disk: &dyn Disk) -> Result<()> {
        if self.anchored.load(Ordering::Acquire) {
            self.file.sync().at(|| format!("syncing {}", self.path.display()))
        } else {
            self.anchor(disk)
        }
    }

    /// Opens one that exists.
    pub fn open(disk: &dyn Disk, path: PathBuf, how: How) -> Result<Segment> {
        let file = disk.open(&path, how).at(|| format!("opening {}", path.display()))?;
        let mut bytes = [0; SEGMENT_HEADER_LEN];
        file.read_at(&mut bytes, 0).at(|| format!("reading {}", path.display()))?;
        let header = SegmentHeader::decode(&bytes)
            .map_err(|e| Error::new(e.code(), format!("{}: {}", path.display(), e.text())))?;
        Ok(Segment { header, file, path, anchored: AtomicBool::new(false) })
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
        self.entry_with(offset, prev, CommitRecord::encode)
    }

    /// The same, of an entry for which a super-journal decides whether it counts.
    pub fn prepared(&self, offset: u64, prev: u64) -> Result<Option<Checked>> {
        self.entry_with(offset, prev, CommitRecord::encode_prepared)
    }

    /// Fills `to` from `offset`; false if the file ends before.
    fn fill(&self, offset: u64, to: &mut [u8]) -> Result<bool> {
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
        encode: fn(&CommitRecord) -> [u8; COMMIT_RECORD_LEN],
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
        let whole = encode(&expected) == record && rows_are_right(&header, &table);
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
