//! Entries written anew, merged into one: for compaction, and for a fold of what isn't on the disk yet.
//!
//! Commits that nobody waits for change the same pages again and again: the last leaf of a table, the busy ones of an
//! index. Before a fold overwrites the base, the entries that it folds must be on the disk; but what matters of them is
//! each page's newest image. So where that is much less, it is written into a segment of its own, which the journal
//! begins with from then on, and the segments that it replaces never reach the disk: they are written again before.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::disk::How;
use crate::error::{At, Code, Error, Result};
use crate::format::{
    COMMIT_RECORD_LEN, CommitRecord, ENTRY_ALIGN, EntryHeader, HEADER_LEN, Kind, Name, ROW_LEN, Row,
    SEGMENT_HEADER_LEN, SegmentHeader, SegmentKind, Superblock, round_up, seal,
};
use crate::index::{Entry, Index};
use crate::lsn::{Lsn, LsnRange};
use crate::segment::Segment;
use crate::state::State;
use crate::store::{Store, random};

/// Bytes that are written at a time.
const RUN: usize = 256 << 10;

impl Store {
    /// Makes the entries behind the base up to `target` durable as one, if that is much less than all of them, and gives
    /// up what is below; the superblock says so then. Whoever does this goes on to fold that far, and lets the journal
    /// begin with the segment whose number this returns, which is nothing but the way to the next. The fold to `target`
    /// is announced.
    pub(crate) fn merge_ahead(
        &self,
        block: &Superblock,
        index: &Arc<Index>,
        target: &State,
        pages: usize,
    ) -> Result<Option<u32>> {
        let range = LsnRange { first: block.base.lsn.next(), last: target.lsn };
        let whole = block.base.lsn == block.horizon.lsn && block.history <= block.horizon.lsn;
        if !whole || self.control.durable() >= target.lsn || range.first > range.last {
            return Ok(None);
        }
        let mut long = 0;
        for entry in index.between(block.base.lsn, target.lsn) {
            long += entry?.len;
        }
        if pages as u64 * u64::from(target.page_size) > long / 2 {
            return Ok(None);
        }
        let behind =
            |s: &&Arc<Segment>| s.header.kind == SegmentKind::Journal && s.header.first == range.last.next();
        let Some(next) = index.segments().find(behind) else { return Ok(None) };
        let merged = self.merged_segment(index, range.first, range, next)?;
        let way = self.way_to(target, next)?;
        self.sync_side()?;
        self.promise(target.lsn, Some(target.lsn), Some(merged.header.number))?;
        // One that an earlier fold left is in no index.
        if index.segments().all(|s| s.header.number != block.first_segment) {
            self.remove_segment(block.first_segment)?;
        }
        // Only now: what an entry says was durable must be found from the superblock on.
        self.control.set_durable(target.lsn);
        Ok(Some(way.header.number))
    }

    /// A segment with the entries from `first` on up to `next`, durable but for its name: those of `range` as one, with
    /// each page's newest image.
    pub(crate) fn merged_segment(
        &self,
        index: &Index,
        first: Lsn,
        range: LsnRange,
        next: &Segment,
    ) -> Result<Segment> {
        let segment = self.new_segment(first, next.header.lineage)?;
        let at = SEGMENT_HEADER_LEN as u64;
        let chain = segment.header.chain;
        let rewrite =
            Rewrite { store: self, index, segment: &segment, at, chain, run: Vec::new(), run_at: at };
        if let Err(e) = rewrite.run(range, next) {
            self.disk.remove(&segment.path).at(|| "removing an unfinished segment".into())?;
            return Err(e);
        }
        Ok(segment)
    }

    /// A segment with nothing but a seal behind `state` that leads to `next`, durable but for its name.
    fn way_to(&self, state: &State, next: &Segment) -> Result<Segment> {
        let segment = self.new_segment(state.lsn.next(), next.header.lineage)?;
        let SegmentHeader { number, chain, .. } = next.header;
        let epoch = self.control.epoch();
        let seal = seal(*state, epoch, segment.header.chain, self.control.durable(), number, chain);
        let here = || format!("writing {}", segment.path.display());
        segment.file.write_at(&seal, SEGMENT_HEADER_LEN as u64).at(here)?;
        segment.sync()?;
        Ok(segment)
    }

    /// A new file with the header of a segment.
    fn new_segment(&self, first: Lsn, lineage: [u8; 16]) -> Result<Segment> {
        let header = SegmentHeader {
            kind: SegmentKind::Journal,
            lineage,
            number: self.control.next_segment()?,
            first,
            chain: random()?,
            time: self.options.clock.now_ms(),
            durable: self.control.durable(),
        };
        let path = self.file_path(Name::Segment(header.number));
        let file = self.disk.open(&path, How::CreateNew).at(|| format!("creating {}", path.display()))?;
        self.disk.copy_owner(&self.path, &path).at(|| "setting a segment's owner".into())?;
        Segment::begin(file, path, header)
    }

    /// Removes a segment that the journal doesn't go through any more, if it is there still.
    pub(crate) fn remove_segment(&self, number: u32) -> Result<()> {
        self.remove_all(vec![self.file_path(Name::Segment(number))])
    }
}

/// Entries that are to become one.
#[derive(Default)]
struct Merging {
    /// Of each page the ordinal of the segment that its newest image is said in, and the row.
    pages: BTreeMap<u32, (u32, Row)>,
    newest: Option<Entry>,
    /// One of them has all pages.
    full: bool,
}

impl Merging {
    fn add(&mut self, index: &Index, entry: &Entry) -> Result<()> {
        self.pages.extend(index.rows(entry)?.map(|row| (row.page, (entry.segment, row))));
        self.full |= entry.kind == Kind::Full;
        self.newest = Some(*entry);
        Ok(())
    }
}

/// A segment that is being written from others.
struct Rewrite<'a> {
    store: &'a Store,
    index: &'a Index,
    segment: &'a Segment,
    /// Where the next entry begins, and the chain value before it.
    at: u64,
    chain: u64,
    /// Bytes that aren't written yet, and their place.
    run: Vec<u8>,
    run_at: u64,
}

impl Rewrite<'_> {
    fn run(mut self, range: LsnRange, next: &Segment) -> Result<()> {
        let before = |first: Lsn| Lsn::new(first.get() - 1);
        let index = self.index;
        let mut last = index.origin;
        let mut merged = Merging::default();
        for entry in index.between(before(self.segment.header.first), before(next.header.first)) {
            let entry = entry?;
            last = entry.state;
            if !entry.is_inside(range) {
                let mut alone = Merging::default();
                alone.add(index, &entry)?;
                self.entry(alone, entry.range, entry.kind)?;
                continue;
            }
            merged.add(index, &entry)?;
            if entry.range.last == range.last {
                let merged = std::mem::take(&mut merged);
                let kind = if merged.full { Kind::Full } else { Kind::Merged };
                self.entry(merged, range, kind)?;
            }
        }
        let durable = self.store.control.durable();
        let epoch = self.store.control.epoch();
        let seal = seal(last, epoch, self.chain, durable, next.header.number, next.header.chain);
        self.write(self.at, &seal)?;
        self.flush()?;
        self.segment.sync()
    }

    fn here(&self) -> String {
        format!("writing {}", self.segment.path.display())
    }

    /// Writes `bytes` at `at`; neighbours go in one piece.
    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        if at != self.run_at + self.run.len() as u64 || self.run.len() >= RUN {
            self.flush()?;
            self.run_at = at;
        }
        self.run.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.segment.file.write_at(&self.run, self.run_at).at(|| self.here())?;
        self.run.clear();
        Ok(())
    }

    /// Writes one entry with the newest image of each page of those merged.
    fn entry(&mut self, merged: Merging, range: LsnRange, kind: Kind) -> Result<()> {
        let Merging { pages, newest, .. } = merged;
        let newest = newest.expect("an entry is made of some");
        let mut rows = Vec::with_capacity(pages.len());
        let mut next = self.at + HEADER_LEN as u64;
        for (page, (held, row)) in pages.into_iter().filter(|(page, _)| *page <= newest.state.size) {
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

    use super::*;
    use crate::disk::{Disk, SimDisk};
    use crate::format::Retention;
    use crate::sample::{commit, last, write};
    use crate::session::Session;
    use crate::store::Options;

    #[test]
    #[cfg_attr(miri, ignore = "miri takes too long for so many commits")]
    fn what_is_folded_is_merged_before_where_that_is_less() -> Result<()> {
        let disk = SimDisk::new();
        let open = |process: &Arc<crate::disk::SimProcess>| {
            let disk: Arc<dyn Disk> = Arc::clone(process) as Arc<dyn Disk>;
            let options =
                Options { background: false, segment_bytes: 8 << 10, fold_step: 1, ..Options::default() };
            Store::open(disk, Path::new("/app.db"), options)
        };
        let (process, joining) = (disk.process(), disk.process());
        let store = open(&process)?;
        store.set_retention(Retention::Lsns(4))?;
        let mut session = Session::new(Arc::clone(&store))?;
        let mut merged = 0;
        for fill in 1..=200u8 {
            write(&mut session, fill)?;
            commit(&mut session)?;
            // The commit has begun it, and written a page.
            let Some(mut job) = store.fold.lock().take() else { continue };
            if let Some(way) = job.way {
                merged += 1;
                assert!(store.durable() >= job.target.lsn, "it is on the disk, as one");
                let first = store.read_superblock()?.first_segment;
                assert_ne!(first, way);
                assert!(
                    store.whole()?.segments().all(|s| s.header.number != first),
                    "it is a segment of its own"
                );
                // Whoever joins now begins with the merged entry.
                let other = open(&joining)?;
                let index = other.whole()?;
                assert_eq!(index.segment(0).header.number, first);
                let entry = index.entry(0)?;
                assert_eq!((entry.kind, entry.range.last), (Kind::Merged, job.target.lsn));
                assert_eq!(last(&other)?, fill);
                assert!(other.verify()?.is_empty());
            }
            while !store.fold_step(&mut job, 1)? {
                assert_eq!(last(&store)?, fill);
            }
            if let Some(way) = job.way {
                assert_eq!(store.read_superblock()?.first_segment, way);
            }
            store.control.file().unlock(crate::control::Lock::Fold);
            assert_eq!(last(&open(&joining)?)?, fill);
            assert!(store.verify()?.is_empty());
        }
        assert!(merged > 5, "{merged} folds were merged before");
        let log = store.log()?;
        assert_eq!(log.last().map(|row| row.range.last), Some(Lsn::new(200)));
        let segments = store.status()?.segments as usize;
        drop(session);
        store.close()?;
        let names = process.list(Path::new("/app.db-tide")).expect("the side folder");
        let there = names.iter().filter(|name| name.ends_with(".seg")).count();
        assert!(there <= segments + 1, "{there} segments of {segments}, and the way to them");
        let store = open(&process)?;
        assert_eq!(last(&store)?, 200);
        assert_eq!(store.log()?.len(), log.len());
        Ok(())
    }
}
