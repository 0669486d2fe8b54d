//! The pages of a transaction that isn't published: staged behind the tail of the journal.
//!
//! ```text
//!   start        images, in order of arrival              next
//!   │ header │ page │ page │ page │ …                      │
//! ```
//! Nobody looks there before the commit record, so a rollback only forgets them.

use std::sync::Arc;

use crate::error::{At, Result};
use crate::format::{HEADER_LEN, Row};
use crate::hash::page_hash;
use crate::segment::Segment;

/// Bytes that a transaction collects in memory before it writes them behind the tail.
const BUFFER: usize = 256 << 10;

/// Bytes that are written from where they are, as there are so many.
const DIRECT: usize = 64 << 10;

/// Bytes of a long transaction that are made ready to be written once more, when there are so many: the pager's cache
/// gives the same pages up again and again.
const REWRITTEN: u64 = 4 << 20;

/// Number of a segment that stands for a hash that isn't known yet.
const UNHASHED: u32 = u32::MAX;

/// Map from block number to position in the list of staged blocks, with no allocation once warm.
#[derive(Default)]
struct BlockMap {
    /// (block, position + 1); position 0 is a free place. Length is a power of two or 0.
    places: Vec<(u32, u32)>,
    used: usize,
}

impl BlockMap {
    fn start(&self, block: u32) -> usize {
        (u64::from(block).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & (self.places.len() - 1)
    }

    fn get(&self, block: u32) -> Option<usize> {
        if self.used == 0 {
            return None;
        }
        let mut at = self.start(block);
        loop {
            match self.places[at] {
                (_, 0) => return None,
                (b, position) if b == block => return Some(position as usize - 1),
                _ => at = (at + 1) & (self.places.len() - 1),
            }
        }
    }

    /// Adds a block that isn't there.
    fn insert(&mut self, block: u32, position: usize) {
        if (self.used + 1) * 4 > self.places.len() * 3 {
            let old = std::mem::take(&mut self.places);
            self.places = vec![(0, 0); (old.len() * 2).max(16)];
            self.used = 0;
            for (b, p) in old.into_iter().filter(|&(_, p)| p != 0) {
                self.insert(b, p as usize - 1);
            }
        }
        let mut at = self.start(block);
        while self.places[at].1 != 0 {
            at = (at + 1) & (self.places.len() - 1);
        }
        self.places[at] = (block, position as u32 + 1);
        self.used += 1;
    }

    fn clear(&mut self) {
        if self.places.len() > 1024 {
            self.places = Vec::new();
        } else {
            self.places.fill((0, 0));
        }
        self.used = 0;
    }
}

/// The overlay.
pub(crate) struct Overlay {
    pub segment: Arc<Segment>,
    /// Where the entry's header will be.
    pub start: u64,
    /// Where the next image goes.
    pub next: u64,
    /// Length that is surely there in the segment.
    allocated: u64,
    /// Up to where what was written can be written again cheaply.
    warm: u64,
    /// What isn't in the segment yet, from `buffered` on: one write for a short transaction.
    buffer: Vec<u8>,
    buffered: u64,
    /// Length of a block in bytes: that of the first write. 0 before it.
    pub block: usize,
    /// Staged blocks: number from 1, place, hash.
    rows: Vec<Row>,
    map: BlockMap,
    /// Block 1 stays in memory until it is known whether it must be stored.
    first: Vec<u8>,
    /// Bytes of the snapshot that a truncation left visible.
    pub snapshot_len: u64,
    /// Length of the database in bytes.
    pub len: u64,
    /// True once anything was written or truncated.
    pub dirty: bool,
}

impl Overlay {
    /// An overlay with nothing on it. `len` is the length of the snapshot in bytes.
    pub fn new(segment: Arc<Segment>, start: u64, len: u64) -> Overlay {
        let mut overlay = Overlay {
            segment,
            start,
            next: 0,
            allocated: 0,
            warm: 0,
            buffer: Vec::new(),
            buffered: 0,
            block: 0,
            rows: Vec::new(),
            map: BlockMap::default(),
            first: Vec::new(),
            snapshot_len: len,
            len,
            dirty: false,
        };
        overlay.rewind();
        overlay
    }

    /// Begins anew at the place given, keeping the buffers.
    pub fn reset(&mut self, segment: Arc<Segment>, start: u64, len: u64) {
        if !Arc::ptr_eq(&self.segment, &segment) {
            self.allocated = 0;
            self.segment = segment;
        }
        self.start = start;
        self.snapshot_len = len;
        self.len = len;
        self.block = 0;
        self.dirty = false;
        if self.rows.capacity() > 1024 {
            self.rows = Vec::new();
        }
        self.rows.clear();
        self.map.clear();
        self.first.clear();
        self.rewind();
    }

    fn rewind(&mut self) {
        self.next = self.start + HEADER_LEN as u64;
        self.buffered = self.start;
        self.warm = self.start;
        if self.buffer.capacity() > BUFFER {
            self.buffer = Vec::new();
        }
        self.buffer.clear();
        self.buffer.resize(HEADER_LEN, 0);
    }

    /// Makes sure that the segment has room for `len` more bytes behind `at`.
    pub fn room(&mut self, at: u64, len: u64) -> Result<()> {
        let end = at + len;
        if end > self.allocated {
            let file = &self.segment.file;
            let here = || format!("making room in {}", self.segment.path.display());
            let have = file.len().at(here)?;
            // A long transaction asks for more at a time, so that it asks seldom.
            let want = end + ((end - self.start) / 2).clamp(64 << 10, 64 << 20);
            if end > have {
                file.allocate(want).at(here)?;
                self.allocated = want;
            } else {
                self.allocated = have;
            }
        }
        Ok(())
    }

    /// The staged block, as its row; block 1 has its image in [`Overlay::first`].
    fn row(&self, block: u32) -> Option<&Row> {
        self.map.get(block).map(|position| &self.rows[position])
    }

    /// True if block `block` is on the overlay.
    pub fn has(&self, block: u32) -> bool {
        if block == 1 { !self.first.is_empty() } else { self.row(block).is_some() }
    }

    /// Image of block 1, if it was written.
    pub fn first(&self) -> Option<&[u8]> {
        (!self.first.is_empty()).then_some(&self.first[..])
    }

    /// Stages a whole block.
    pub fn put(&mut self, block: u32, image: &[u8]) -> Result<()> {
        self.dirty = true;
        self.len = self.len.max(u64::from(block) * self.block as u64);
        if block == 1 {
            self.first.clear();
            self.first.extend_from_slice(image);
            return Ok(());
        }
        let offset = match self.map.get(block) {
            Some(position) => {
                let row = &mut self.rows[position];
                if row.offset < self.buffered {
                    // It may well be written once more.
                    row.segment = UNHASHED;
                } else {
                    row.hash = page_hash(block, image);
                }
                row.offset
            }
            None => {
                let offset = self.stage(image.len())?;
                self.map.insert(block, self.rows.len());
                let hash = page_hash(block, image);
                self.rows.push(Row { page: block, segment: 0, offset, hash });
                offset
            }
        };
        self.write(offset, image)
    }

    /// Stages whole blocks, in order of their numbers, whose hashes are known. Unlike a pager with a small cache, who has
    /// them writes none of them once more.
    pub fn put_all(&mut self, blocks: impl Iterator<Item = (u32, u64)> + Clone, images: &[u8]) -> Result<()> {
        let length = self.block;
        if blocks.clone().any(|(block, _)| block == 1 || self.row(block).is_some()) {
            let each = blocks.zip(images.chunks_exact(length));
            return each.into_iter().try_for_each(|((block, _), image)| self.put(block, image));
        }
        self.dirty = true;
        let offset = self.stage(images.len())?;
        for ((block, hash), n) in blocks.zip(0..) {
            self.len = self.len.max(u64::from(block) * length as u64);
            self.map.insert(block, self.rows.len());
            self.rows.push(Row { page: block, segment: 0, offset: offset + n * length as u64, hash });
        }
        if offset > self.buffered || !self.buffer.is_empty() || images.len() < DIRECT {
            return self.write(offset, images);
        }
        self.room(offset, images.len() as u64)?;
        self.write_through(offset, images)?;
        self.buffered = self.next;
        if self.buffered - self.warm >= REWRITTEN {
            // The disk writes while more is made ready.
            self.segment.file.begin_sync();
            self.warm = self.buffered;
        }
        Ok(())
    }

    /// Room for `len` more bytes of images; where they go.
    pub fn stage(&mut self, len: usize) -> Result<u64> {
        self.unprepare();
        if self.buffer.len() + len > BUFFER {
            self.flush()?;
        }
        let offset = self.next;
        self.next += len as u64;
        Ok(offset)
    }

    /// Forgets what is behind the last image: the page table of an entry that was prepared and isn't any more, as the
    /// transaction goes on. Images take its place, so nothing may be collected, or be taken as written, behind them.
    fn unprepare(&mut self) {
        match self.next.checked_sub(self.buffered) {
            Some(staged) => self.buffer.truncate(staged as usize),
            None => {
                self.buffer.clear();
                self.buffered = self.next;
                self.warm = self.warm.min(self.next);
            }
        }
    }

    /// Writes where something was staged, or behind it.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let Some(at) = offset.checked_sub(self.buffered) else { return self.write_through(offset, bytes) };
        let at = at as usize;
        if at == self.buffer.len() {
            self.buffer.extend_from_slice(bytes);
        } else {
            if self.buffer.len() < at + bytes.len() {
                self.buffer.resize(at + bytes.len(), 0);
            }
            self.buffer[at..at + bytes.len()].copy_from_slice(bytes);
        }
        Ok(())
    }

    /// Writes into the segment itself, where there is room and nothing is buffered.
    pub fn write_through(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.segment.file.write_at(bytes, offset).at(|| format!("writing {}", self.segment.path.display()))
    }

    /// Puts what is buffered into the segment.
    pub fn flush(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.room(self.buffered, self.buffer.len() as u64)?;
        self.write_through(self.buffered, &self.buffer)?;
        self.buffered += self.buffer.len() as u64;
        self.buffer.clear();
        if self.buffered - self.warm >= REWRITTEN {
            self.segment.file.warm(self.warm..self.buffered);
            self.warm = self.buffered;
        }
        Ok(())
    }

    /// Copies bytes of a staged block, from `at` in it; false if it isn't staged.
    pub fn read(&self, block: u32, at: usize, to: &mut [u8]) -> Result<bool> {
        if block == 1 {
            if self.first.is_empty() {
                return Ok(false);
            }
            to.copy_from_slice(&self.first[at..at + to.len()]);
            return Ok(true);
        }
        let Some(row) = self.row(block) else { return Ok(false) };
        let offset = row.offset + at as u64;
        if let Some(at) = offset.checked_sub(self.buffered) {
            let at = at as usize;
            to.copy_from_slice(&self.buffer[at..at + to.len()]);
            return Ok(true);
        }
        self.segment.copy(offset, to).map(|()| true)
    }

    /// The staged block without a copy, where the disk can.
    pub fn slice(&self, block: u32) -> Option<&[u8]> {
        let row = self.row(block).filter(|row| block != 1 && row.offset < self.buffered)?;
        self.segment.file.slice(row.offset, self.block)
    }

    /// Shortens, or lengthens, the database to `len` bytes.
    pub fn truncate(&mut self, len: u64) {
        self.dirty = true;
        self.snapshot_len = self.snapshot_len.min(len);
        self.len = len;
        if self.block == 0 {
            return;
        }
        let blocks = len.div_ceil(self.block as u64);
        if blocks == 0 {
            self.first.clear();
        }
        if self.rows.iter().any(|row| u64::from(row.page) > blocks) {
            self.rows.retain(|row| u64::from(row.page) <= blocks);
            self.map.clear();
            for (position, row) in self.rows.iter().enumerate() {
                self.map.insert(row.page, position);
            }
        }
    }

    /// The staged blocks but the first.
    pub fn rows(&mut self) -> Result<&[Row]> {
        let mut image = Vec::new();
        for position in 0..self.rows.len() {
            let Row { page, segment: UNHASHED, .. } = self.rows[position] else { continue };
            image.resize(self.block, 0);
            self.read(page, 0, &mut image)?;
            let row = &mut self.rows[position];
            (row.segment, row.hash) = (0, page_hash(page, &image));
        }
        Ok(&self.rows)
    }
}

#[cfg(test)]
mod tests {
    use super::BlockMap;

    #[test]
    fn map_holds_what_was_put() {
        let mut map = BlockMap::default();
        let count: u32 = if cfg!(miri) { 300 } else { 5000 };
        for round in 0..2 {
            for n in 0..count {
                assert_eq!(map.get(n * 7 + round), None);
                map.insert(n * 7 + round, n as usize);
            }
            for n in 0..count {
                assert_eq!(map.get(n * 7 + round), Some(n as usize));
            }
            map.clear();
        }
    }
}
