//! A segment file that is open.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use crate::disk::{Disk, File, How};
use crate::error::{At, Code, Error, Result};
use crate::format::{
    COMMIT_RECORD_LEN, CommitRecord, EntryHeader, HEADER_LEN, ROW_LEN, Row, SEGMENT_HEADER_LEN,
    SegmentHeader, SegmentKind, find_annotation,
};
use crate::hash::page_hash;

/// Largest page table and annotations that are read, in bytes: a damaged length asks for no more.
const TABLE_LIMIT: u64 = 1 << 37;

/// Bytes of a new segment that are written at a time.
const FILL: usize = 256 << 10;

/// An open segment.
pub(crate) struct Segment {
    pub header: SegmentHeader,
    pub file: Arc<dyn File>,
    pub path: PathBuf,
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

impl Segment {
    /// Creates the file with its header and `capacity` bytes, durably.
    pub fn create(disk: &dyn Disk, path: PathBuf, header: SegmentHeader, capacity: u64) -> Result<Segment> {
        let file = disk.open(&path, How::Create).at(|| format!("creating {}", path.display()))?;
        // What an interrupted creation may have left isn't worth keeping.
        let made = file
            .set_len(0)
            .and_then(|()| file.allocate(capacity))
            .and_then(|()| file.write_at(&header.encode(), 0))
            .and_then(|()| file.sync());
        made.at(|| format!("writing {}", path.display()))?;
        if let Some(folder) = path.parent() {
            disk.sync_dir(folder).at(|| format!("syncing {}", folder.display()))?;
        }
        // A commit that overwrites what is there is cheaper than one that extends it: no block is
        // allocated, and an fsync has no metadata to write. It needn't be durable.
        let zeros = vec![0; FILL];
        let mut at = SEGMENT_HEADER_LEN as u64;
        while header.kind == SegmentKind::Journal && at < capacity {
            let part = (capacity - at).min(FILL as u64) as usize;
            file.write_at(&zeros[..part], at).at(|| format!("writing {}", path.display()))?;
            at += part as u64;
        }
        Ok(Segment { header, file, path })
    }

    /// Opens one that exists.
    pub fn open(disk: &dyn Disk, path: PathBuf, how: How) -> Result<Segment> {
        let file = disk.open(&path, how).at(|| format!("opening {}", path.display()))?;
        let mut bytes = [0; SEGMENT_HEADER_LEN];
        file.read_at(&mut bytes, 0).at(|| format!("reading {}", path.display()))?;
        let header = SegmentHeader::decode(&bytes)
            .map_err(|e| Error::new(e.code(), format!("{}: {}", path.display(), e.text())))?;
        Ok(Segment { header, file, path })
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
        Ok((encode(&expected) == record).then_some(Checked { header, record: expected, table }))
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
