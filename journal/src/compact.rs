//! Compaction: neighbouring entries become one whose range covers them all, with each page's newest
//! image.
//!
//! Copy-on-write: the sealed segments up to the range's end are written anew into one segment, whose
//! seal leads on to the first that stays; the superblock then names the new one as the first, and
//! the old ones go. Whoever has them open goes on reading them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::control::Lock;
use crate::error::{At, Code, Error, Result};
use crate::format::{
    COMMIT_RECORD_LEN, CommitRecord, ENTRY_ALIGN, EntryHeader, HEADER_LEN, Kind, Name, ROW_LEN, Row,
    SEGMENT_HEADER_LEN, SegmentHeader, SegmentKind, round_up, seal,
};
use crate::index::{Entry, Index};
use crate::lsn::{Lsn, LsnRange};
use crate::segment::Segment;
use crate::store::{Store, random};

/// How long a compaction waits for the writer's place.
const PATIENCE: Duration = Duration::from_secs(5);

impl Store {
    /// Merges the entries of `range`, or all of them, into one; returns by how many bytes the journal
    /// is smaller. What is merged is folded first.
    ///
    /// # Errors
    /// `Argument` where the range's ends aren't those of entries, `Busy` while a reader holds the
    /// fold back or another process folds.
    pub fn compact(self: &Arc<Self>, range: Option<LsnRange>) -> Result<u64> {
        let base = self.fold()?;
        let _running = self.fold.lock();
        self.control.file().lock(Lock::Fold)?;
        let result = self.compact_locked(range, base);
        self.control.file().unlock(Lock::Fold);
        result
    }

    fn compact_locked(&self, range: Option<LsnRange>, base: Lsn) -> Result<u64> {
        let block = self.read_superblock()?;
        let oldest = block.history.max(block.horizon.lsn).next();
        let range = range.unwrap_or(LsnRange { first: oldest, last: base });
        if range.first > range.last {
            return Ok(0);
        }
        if range.last > base {
            return Err(Error::new(
                Code::Busy,
                format!(
                    "only what is folded can be merged, and that ends at LSN {base}, where a reader or the head is; give a lower end, or end that transaction"
                ),
            ));
        }
        let index = self.whole()?;
        let ends = |lsn: Lsn| index.state(lsn).is_some();
        if range.first < oldest || !ends(Lsn::new(range.first.get() - 1)) || !ends(range.last) {
            return Err(Error::new(
                Code::Argument,
                format!(
                    "{}..={} isn't a range of whole entries above the horizon; tide_log lists their ends",
                    range.first, range.last
                ),
            ));
        }
        self.seal_through(range.last)?;
        let index = Arc::clone(&self.tail.lock().index);
        let merged: Vec<u32> = (0..index.entry_count()).filter(|&n| inside(index.entry(n), range)).collect();
        if merged.len() < 2 {
            return Ok(0);
        }
        self.rewrite_merged(&index, range, block.first_segment)
    }

    /// Makes sure that the segment which holds `last` is sealed.
    fn seal_through(&self, last: Lsn) -> Result<()> {
        let end = std::time::Instant::now() + PATIENCE;
        loop {
            match self.take_writer() {
                Ok(()) => break,
                Err(e) if e.code() == Code::Busy && std::time::Instant::now() < end => {
                    if self.wait_for_turn(Duration::from_millis(50))? && self.control.take_turn() {
                        break;
                    }
                }
                Err(e) => return Err(e),
            }
        }
        let sealed = (|| {
            let mut tail = self.tail.lock();
            self.settle_tail(&mut tail)?;
            let segment = Arc::clone(tail.index.segment(tail.segment));
            if segment.header.first <= last {
                self.roll(&mut tail, segment.header.lineage)?;
            }
            Ok(())
        })();
        self.control.release(crate::control::Word::Writer);
        sealed
    }

    /// Writes the segments up to the one that holds the range's end into a new one.
    fn rewrite_merged(&self, index: &Arc<Index>, range: LsnRange, first_segment: u32) -> Result<u64> {
        let old: Vec<&Arc<Segment>> = index
            .segments()
            .skip_while(|s| s.header.number != first_segment)
            .filter(|s| s.header.kind == SegmentKind::Journal)
            .collect();
        let split = old.iter().position(|s| s.header.first > range.last).ok_or_else(|| {
            Error::new(Code::Io, "the range's last segment isn't sealed; report this as a bug")
        })?;
        let (old, next) = (&old[..split], old[split]);
        let number = self.control.next_segment()?;
        let header = SegmentHeader {
            kind: SegmentKind::Journal,
            lineage: old[0].header.lineage,
            number,
            first: old[0].header.first,
            chain: random()?,
            time: self.options.clock.now_ms(),
            durable: self.control.durable(),
        };
        let path = self.file_path(Name::Segment(number));
        let segment = Segment::create(&*self.disk, path, header, SEGMENT_HEADER_LEN as u64)?;
        self.disk.copy_owner(&self.path, &segment.path).at(|| "setting a segment's owner".into())?;
        let written = Rewrite {
            store: self,
            index,
            segment: &segment,
            at: SEGMENT_HEADER_LEN as u64,
            chain: header.chain,
        }
        .run(range, next);
        if let Err(e) = written {
            self.disk.remove(&segment.path).at(|| "removing an unfinished segment".into())?;
            return Err(e);
        }
        {
            let _guard = self.lock_superblock()?;
            let mut block = self.read_superblock()?;
            block.first_segment = number;
            block.behind = None;
            self.write_superblock(&mut block)?;
        }
        let len = |segment: &Segment| segment.file.len().at(|| format!("reading {}", segment.path.display()));
        let mut before = 0;
        for segment in old {
            before += len(segment)?;
            self.disk.remove(&segment.path).at(|| format!("removing {}", segment.path.display()))?;
        }
        let freed = before.saturating_sub(len(&segment)?);
        self.read_anew(&mut self.tail.lock())?;
        Ok(freed)
    }
}

fn inside(entry: &Entry, range: LsnRange) -> bool {
    entry.range.first >= range.first && entry.range.last <= range.last
}

/// A segment that is being written from others.
struct Rewrite<'a> {
    store: &'a Store,
    index: &'a Index,
    segment: &'a Segment,
    at: u64,
    chain: u64,
}

impl Rewrite<'_> {
    fn run(mut self, range: LsnRange, next: &Segment) -> Result<()> {
        let mut merged: Vec<&Entry> = Vec::new();
        let mut last = self.index.origin;
        for ordinal in 0..self.index.entry_count() {
            let entry = self.index.entry(ordinal);
            if entry.range.last >= next.header.first {
                break;
            }
            if entry.range.first < self.segment.header.first {
                continue;
            }
            last = entry.state;
            if inside(entry, range) {
                merged.push(entry);
                if entry.range.last == range.last {
                    self.merge(&merged, range)?;
                }
            } else {
                self.entry(&[entry], entry.range, entry.kind)?;
            }
        }
        let durable = self.store.control.durable();
        let epoch = self.store.control.epoch();
        let seal = seal(last, epoch, self.chain, durable, next.header.number, next.header.chain);
        self.write(self.at, &seal)?;
        self.segment.file.sync().at(|| self.here())
    }

    fn merge(&mut self, merged: &[&Entry], range: LsnRange) -> Result<()> {
        let kind =
            if merged.iter().any(|entry| entry.kind == Kind::Full) { Kind::Full } else { Kind::Merged };
        self.entry(merged, range, kind)
    }

    fn here(&self) -> String {
        format!("writing {}", self.segment.path.display())
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        self.segment.file.write_at(bytes, at).at(|| self.here())
    }

    /// Writes one entry with the newest image of each page of `from`.
    fn entry(&mut self, from: &[&Entry], range: LsnRange, kind: Kind) -> Result<()> {
        let newest = from[from.len() - 1];
        let mut pages: BTreeMap<u32, (u32, Row)> = BTreeMap::new();
        for entry in from {
            let table =
                self.index.segment(entry.segment).bytes(entry.table, entry.rows as usize * ROW_LEN)?;
            for row in crate::segment::rows(&table, entry.rows).filter(|row| row.page <= newest.state.size) {
                pages.insert(row.page, (entry.segment, row));
            }
        }
        let mut rows = Vec::with_capacity(pages.len());
        let mut next = self.at + HEADER_LEN as u64;
        for (page, (held, row)) in pages {
            let mut offset = 0;
            if row.offset != 0 {
                let held = if row.segment == 0 {
                    Arc::clone(self.index.segment(held))
                } else {
                    let found = self.index.segments().find(|s| s.header.number == row.segment);
                    Arc::clone(found.ok_or_else(|| {
                        Error::new(
                            Code::Missing,
                            format!("segment {} is gone; restore from a backup", row.segment),
                        )
                    })?)
                };
                if !held.image_is_sound(&row, newest.state.page_size as usize)? {
                    return Err(Error::new(
                        Code::Damaged,
                        format!(
                            "page {page} of {} fails its checksum, so it isn't merged; run tide_verify",
                            held.path.display()
                        ),
                    ));
                }
                self.write(next, &held.bytes(row.offset, newest.state.page_size as usize)?)?;
                offset = next;
                next += u64::from(newest.state.page_size);
            }
            rows.push(Row { page, segment: 0, offset, hash: row.hash });
        }
        let mut table = vec![0; rows.len() * ROW_LEN];
        for (row, out) in rows.iter().zip(table.chunks_exact_mut(ROW_LEN)) {
            row.encode(out);
        }
        let table_at = next - self.at;
        let header = EntryHeader {
            kind,
            origin: newest.origin,
            range,
            epoch: self.store.control.epoch(),
            prev: self.chain,
            len: round_up(table_at + table.len() as u64, 8) + COMMIT_RECORD_LEN as u64,
            table: table_at,
            rows: rows.len() as u32,
            state: newest.state,
            checksum: newest.checksum,
            notes: 0,
            durable: newest.range.last,
        };
        let encoded = header.encode();
        let record = CommitRecord::of(&header, &encoded, &table);
        self.write(self.at, &encoded)?;
        self.write(self.at + table_at, &table)?;
        self.write(self.at + header.record(), &record.encode())?;
        self.at = round_up(self.at + header.len, ENTRY_ALIGN);
        self.chain = record.chain;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::disk::{Disk, SimDisk};
    use crate::session::{Durability, Session};
    use crate::store::Options;

    const PAGE: usize = 512;

    fn write(session: &mut Session, fill: u8) -> Result<()> {
        session.begin_read()?;
        session.begin_write()?;
        let mut header = [0; PAGE];
        header[..24].copy_from_slice(b"SQLite format 3\0\x02\x00\x01\x01\x00\x40\x20\x20");
        header[28..32].copy_from_slice(&2u32.to_be_bytes());
        session.write(0, &header)?;
        session.write(PAGE as u64, &[fill; PAGE])?;
        session.truncate(2 * PAGE as u64)
    }

    fn commit(session: &mut Session) -> Result<()> {
        session.prepare(None)?;
        session.publish(Durability::Process, false)?;
        session.end_read()
    }

    #[test]
    fn a_commit_under_way_ends_where_it_began() -> Result<()> {
        let disk: Arc<dyn Disk> = SimDisk::new().process();
        let options = Options { background: false, ..Options::default() };
        let store = Store::open(disk, Path::new("/app.db"), options)?;
        let mut session = Session::new(Arc::clone(&store))?;
        for fill in 1..=3 {
            write(&mut session, fill)?;
            commit(&mut session)?;
        }
        let base = store.fold()?;
        // As compact_locked does, with another connection's transaction between its two steps.
        store.seal_through(base)?;
        let index = store.whole()?;
        write(&mut session, 4)?;
        store.rewrite_merged(
            &index,
            LsnRange { first: Lsn::new(1), last: base },
            store.read_superblock()?.first_segment,
        )?;
        commit(&mut session)?;
        session.begin_read()?;
        let mut image = [0; PAGE];
        session.read(PAGE as u64, &mut image)?;
        assert_eq!(image, [4; PAGE]);
        assert!(store.verify()?.is_empty());
        Ok(())
    }
}
