//! The mark on the base: while the journal is ahead, stock SQLite must refuse the file.

use crate::disk::{File, LockKind};
use crate::error::{At, Code, Error, Result};
use crate::format::{Mark, Position, SEGMENT_HEADER_LEN};
use crate::lsn::Lsn;
use crate::state::later;
use crate::store::{Store, random};

/// Bytes of the base that stock SQLite locks.
const PENDING_BYTE: u64 = 0x4000_0000;
const RESERVED_BYTE: u64 = PENDING_BYTE + 1;
pub(super) const SHARED_FIRST: u64 = PENDING_BYTE + 2;
const SHARED_SIZE: u64 = 510;

/// Byte of the base, behind those, on which every process with the store open holds a read lock: whoever opens it for
/// the first time finds out that nobody else has it, whatever control file they share.
pub(crate) const OPEN_BYTE: u64 = SHARED_FIRST + SHARED_SIZE;

/// Value of byte 19 that keeps stock SQLite away.
pub(crate) const MARK_BYTE: u8 = 0x54;

impl Store {
    /// Marks the base, so that stock SQLite refuses it while the journal is ahead. Durable when it
    /// returns.
    ///
    /// # Errors
    /// `Busy` while stock SQLite has a transaction on it.
    pub(crate) fn mark(&self) -> Result<()> {
        if self.control.marked() {
            return Ok(());
        }
        // A journal that can't be read must not be gone on with: the next opening would need it.
        self.whole()?;
        let _guard = self.lock_superblock()?;
        if self.control.marked() {
            return Ok(());
        }
        let mut block = self.read_superblock()?;
        let mut header = base_header(&*self.base)?;
        // Somebody may have died on the way; then it is only to be made durable.
        if !(has_mark(&header) && block.marked.marks(&Mark::of(&header))) {
            if header.len() < 100 {
                header = bare_header();
            }
            put_mark(&mut header, block.base.counters.counter)?;
            block.marked = Mark::of(&header);
            // First what recognises the mark, then the mark.
            self.write_superblock(&mut block)?;
        }
        self.lock_out_stock()?;
        let written = self.base.write_at(&header, 0).and_then(|()| self.base.sync());
        self.let_stock_in();
        written.at(|| format!("marking {}", self.path.display()))?;
        self.control.set_marked(true);
        Ok(())
    }

    /// Makes the base a plain SQLite file. Everything is folded.
    pub(crate) fn unmark(&self) -> Result<()> {
        let here = || format!("writing {}", self.path.display());
        if !self.has_moved()? {
            // While the base is marked no journal of stock SQLite's is valid; at rest it would be played back.
            crate::prepared::remove_marker(&*self.disk, &self.path)?;
        }
        let _guard = self.lock_superblock()?;
        let mut block = self.read_superblock()?;
        let mut header = base_header(&*self.base)?;
        if block.base.size == 0 {
            block.rest = Mark::default();
            block.rest_len = 0;
            self.write_superblock(&mut block)?;
            self.base.set_len(0).and_then(|()| self.base.sync()).at(here)?;
        } else {
            // Stock SQLite may have seen the mark's counter; it must see another now.
            let marked = crate::state::Counters::of(&header).counter;
            let counters = &mut block.base.counters;
            let agreed = counters.counter == counters.valid_for;
            counters.counter = later(counters.counter, marked.wrapping_add(1));
            if agreed {
                counters.valid_for = counters.counter;
            }
            counters.serve(&mut header, 0);
            if block.horizon.lsn == block.base.lsn {
                block.horizon.counters = block.base.counters;
            }
            block.rest = Mark::of(&header);
            block.rest_len = self.base.len().at(here)?;
            block.behind = self.behind(block.base.lsn)?;
            // First what recognises the base at rest, then the mark goes.
            self.write_superblock(&mut block)?;
            self.base.write_at(&header, 0).and_then(|()| self.base.sync()).at(here)?;
            if self.has_moved()? {
                // A copy in its place would be taken for this one still.
                block.marked = Mark::default();
                self.write_superblock(&mut block)?;
            }
        }
        self.control.set_marked(false);
        Ok(())
    }

    /// Where the journal goes on, if that is behind the base; durable.
    fn behind(&self, base: Lsn) -> Result<Option<Position>> {
        let tail = self.tail.lock();
        let segment = tail.index.segment(tail.segment);
        if tail.index.applied() != base {
            return Ok(None);
        }
        // No entry in it has made its header durable, nor the seal that leads to it: from the horizon on it must be
        // found, too.
        if let Some(before) = tail.index.predecessor(segment, tail.offset) {
            self.sync_segment(before)?;
        }
        if tail.offset == SEGMENT_HEADER_LEN as u64 {
            self.sync_segment(segment)?;
        }
        let number = segment.header.number;
        Ok(Some(Position { lsn: base, segment: number, offset: tail.offset, chain: tail.chain }))
    }

    /// Makes sure that no stock transaction is under way and none begins.
    pub(crate) fn lock_out_stock(&self) -> Result<()> {
        for (at, len) in [(PENDING_BYTE, 1), (RESERVED_BYTE, 1), (SHARED_FIRST + 1, SHARED_SIZE - 1)] {
            let taken = self
                .base
                .lock(at, len, LockKind::Write)
                .at(|| format!("locking {}", self.path.display()))
                .inspect_err(|_| self.let_stock_in())?;
            if !taken {
                self.let_stock_in();
                return Err(Error::new(
                    Code::Busy,
                    "stock SQLite has a transaction on this database; try again when it is done",
                ));
            }
        }
        Ok(())
    }

    pub(crate) fn let_stock_in(&self) {
        // A failure leaves stock SQLite locked out until the store is closed.
        drop(self.base.unlock(PENDING_BYTE, 2));
        drop(self.base.unlock(SHARED_FIRST + 1, SHARED_SIZE - 1));
    }
}

/// The header of a base that has no page 1. Stock SQLite would take an empty file for an empty database and write to it.
pub(super) fn bare_header() -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..16].copy_from_slice(b"SQLite format 3\0");
    header[16..24].copy_from_slice(&[16, 0, 1, 1, 0, 64, 32, 32]);
    header
}

/// Marks the header of a base whose state has this change counter.
pub(super) fn put_mark(header: &mut [u8], counter: u32) -> Result<()> {
    let found = crate::state::Counters::of(header);
    let moved = later(later(found.counter, found.valid_for), counter).wrapping_add(1);
    header[24..28].copy_from_slice(&moved.to_be_bytes());
    // Two stores that both began empty must not take each other's base for their own.
    header[92..96].copy_from_slice(&(random()? as u32).to_be_bytes());
    header[19] = MARK_BYTE;
    Ok(())
}

/// The header of a base that has nothing but its mark.
pub(crate) fn marked_header(mark: &Mark) -> Vec<u8> {
    let mut header = bare_header();
    header[19] = MARK_BYTE;
    mark.put(&mut header);
    header
}

/// True if these first bytes of a base have the mark.
pub(crate) fn has_mark(header: &[u8]) -> bool {
    header.get(19) == Some(&MARK_BYTE)
}

/// The first bytes of the base: 100, or fewer if it is shorter.
pub(crate) fn base_header(base: &dyn File) -> Result<Vec<u8>> {
    let mut header = vec![0; 100];
    let got = base.read_at(&mut header, 0).at(|| "reading the base".into())?;
    header.truncate(got);
    Ok(header)
}
