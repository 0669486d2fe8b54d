//! Kept images: what history needs and neither base nor journal has any more.
//!
//! A kept segment says from which LSN on its images hold, and up to which LSN the base was moved when
//! it was written: it is needed while the horizon is below that. Of several images of a page, the one
//! that holds from the newest LSN at or below the one that is read counts; so whoever drops entries
//! keeps their images of a page also where an older image of it was kept.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use crate::disk::{Disk, How};
use crate::error::{At, Code, Error, Result};
use crate::format::{
    COMMIT_RECORD_LEN, CommitRecord, EntryHeader, HEADER_LEN, Kind, Name, Origin, ROW_LEN, Row,
    SEGMENT_HEADER_LEN, SegmentHeader, SegmentKind, Superblock, round_up,
};
use crate::hash::page_hash;
use crate::hashes::Hashes;
use crate::index::Index;
use crate::lsn::{Lsn, LsnRange};
use crate::segment::{Checked, Segment};
use crate::snapshot::Snapshot;
use crate::state::{State, lock_page};
use crate::store::Store;

/// True if the kept segment `number` holds what history needs, or what a fold that didn't get to its
/// end replaced. One that is damaged stays for tide_verify to report.
pub(crate) fn is_needed(disk: &dyn Disk, side: &Path, number: u32, block: &Superblock) -> Result<bool> {
    match Segment::open(disk, side.join(Name::Kept(number).to_string()), How::Read) {
        Ok(segment) => Ok(segment.header.first > block.horizon.lsn),
        Err(_) => Ok(true),
    }
}

/// A kept segment that is whole.
pub(crate) struct Kept {
    /// From when on its images hold.
    pub from: Lsn,
    /// Up to where the base was moved.
    pub target: Lsn,
    entry: Checked,
}

impl Kept {
    /// The pages that it has images of.
    fn pages(&self) -> impl Iterator<Item = u32> + '_ {
        self.entry.rows().map(|row| row.page)
    }

    /// Hash of its image of `page`, if it has one.
    pub fn hash(&self, page: u32) -> Option<u64> {
        let row = |n: usize| Row::decode(&self.entry.table[n * ROW_LEN..][..ROW_LEN]);
        let (mut low, mut high) = (0, self.entry.header.rows as usize);
        while low < high {
            let middle = low + (high - low) / 2;
            let found = row(middle);
            match found.page.cmp(&page) {
                std::cmp::Ordering::Equal => return Some(found.hash),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }
}

/// What a new kept segment holds.
struct Keeping<'a> {
    /// The database that the images are of.
    state: &'a State,
    from: Lsn,
    target: Lsn,
    pages: &'a [u32],
}

impl Store {
    /// The kept segments that are whole, and the largest number of any.
    pub(crate) fn kept(&self) -> Result<(Vec<Kept>, u32)> {
        self.side_in_place()?;
        let mut found = Vec::new();
        let mut last = 0;
        for name in self.disk.list(&self.side).at(|| format!("listing {}", self.side.display()))? {
            let Some(Name::Kept(number)) = Name::parse(&name) else { continue };
            last = last.max(number);
            // Another process may drop it meanwhile; then nobody needs it.
            let Ok(segment) = Segment::open(&*self.disk, self.side.join(&name), How::Read) else { continue };
            if let Some(checked) = segment.entry(SEGMENT_HEADER_LEN as u64, 0)? {
                let LsnRange { first: from, last: target } = checked.header.range;
                found.push(Kept { from, target, entry: checked });
            }
        }
        Ok((found, last))
    }

    /// Pages of the base whose images a fold of the pages `folded` to `target` replaces, or cuts off,
    /// and history needs; in order.
    pub(crate) fn replaced(
        &self,
        block: &Superblock,
        target: &State,
        folded: &[u32],
        index: &Index,
    ) -> Result<Vec<u32>> {
        let base = &block.base;
        let from = block.history.max(block.horizon.lsn);
        if base.size == 0 || from >= target.lsn || target.lsn <= base.lsn {
            return Ok(Vec::new());
        }
        let (kept, _) = self.kept()?;
        // A fold that didn't get to its end may have replaced some of these pages already.
        let already: HashSet<u32> =
            kept.iter().filter(|k| k.target > base.lsn).flat_map(Kept::pages).collect();
        if !already.is_empty() {
            // Whoever gave it its name may have died before that was on the disk.
            self.sync_side()?;
        }
        let resized = base.page_size != target.page_size;
        let cut = if resized { 1 } else { target.size + 1 };
        let size = base.page_size as usize;
        let needs = |page: u32| {
            page <= base.size
                && page != lock_page(size)
                && !already.contains(&page)
                && index.find(page, base.lsn).is_none_or(|found| found.last <= block.horizon.lsn)
        };
        // The file bounds what is collected, whatever size the superblock says.
        let there = self.base.len().at(|| format!("reading {}", self.path.display()))? / size as u64;
        let mut pages = Vec::new();
        for page in folded.iter().copied().filter(|&p| p < cut).chain(cut..=base.size) {
            if needs(page) {
                if u64::from(page) > there {
                    return Err(self.ends_before(page));
                }
                pages.push(page);
            }
        }
        Ok(pages)
    }

    /// Keeps the base's images that a fold to `target` replaces, or cuts off, and history needs.
    pub(crate) fn keep_replaced(&self, target: &State, folded: &[u32], index: &Index) -> Result<()> {
        let block = self.read_superblock()?;
        let base = block.base;
        let pages = self.replaced(&block, target, folded, index)?;
        let from = block.history.max(block.horizon.lsn);
        let hashes = Hashes::existing(&*self.disk, &self.side, base.page_size)?;
        let keeping = Keeping { state: &base, from, target: target.lsn, pages: &pages };
        let (_, last) = self.kept()?;
        self.write_kept(last + 1, block.lineage, &keeping, |page, image| {
            let offset = u64::from(page - 1) * image.len() as u64;
            let got = self.base.read_at(image, offset).at(|| format!("reading {}", self.path.display()))?;
            if got < image.len() {
                return Err(self.ends_before(page));
            }
            if page == 1 {
                base.counters.serve(image, 0);
            }
            // A damaged image must not get a hash that says it is right.
            match &hashes {
                Some(hashes) => hashes.get(page),
                None => Ok(None),
            }
        })
    }

    /// What is said of a base that hasn't `page`, and should have.
    pub(crate) fn ends_before(&self, page: u32) -> Error {
        let message = format!("{} ends before page {page}; restore from a backup", self.path.display());
        Error::new(Code::Damaged, message)
    }

    /// Keeps the images of entries that go when the horizon moves to `horizon`, below the base, where
    /// the base has newer ones.
    pub(crate) fn keep_dropped(&self, block: &Superblock, index: &Arc<Index>, horizon: Lsn) -> Result<()> {
        let base = block.base;
        // What is below the base may be given up already, as it is in a lazy clone.
        if horizon.max(block.history) >= base.lsn {
            return Ok(());
        }
        let state = index.state(horizon)?.ok_or_else(|| {
            Error::new(Code::Io, format!("LSN {horizon} is no boundary; report this as a bug"))
        })?;
        let (kept, last) = self.kept()?;
        let older: HashSet<u32> = kept.iter().flat_map(Kept::pages).collect();
        let mut changed: HashSet<u32> = HashSet::new();
        let mut smallest = base.size;
        for entry in index.between(block.horizon.lsn, horizon) {
            changed.extend(index.rows(&entry?)?.map(|row| row.page));
        }
        for entry in index.between(horizon, base.lsn) {
            smallest = smallest.min(entry?.state.size);
        }
        let replaced = |page: u32| {
            page > smallest
                || older.contains(&page)
                || index.find(page, base.lsn).is_some_and(|found| found.last > horizon)
        };
        let mut pages: Vec<u32> =
            changed.into_iter().filter(|&page| page <= state.size && replaced(page)).collect();
        pages.sort_unstable();
        let view = Snapshot { index: Arc::clone(index), state, floor: block.horizon.lsn, copies: true };
        let keeping = Keeping { state: &state, from: horizon, target: base.lsn, pages: &pages };
        self.write_kept(last + 1, block.lineage, &keeping, |page, image| {
            view.read(self, page, 0, image)?;
            Ok(None)
        })
    }

    /// Writes a kept segment, durably. It gets its name when it is whole. `read` gets the image of a
    /// page, and its hash where that is known.
    fn write_kept(
        &self,
        number: u32,
        lineage: [u8; 16],
        keeping: &Keeping<'_>,
        read: impl Fn(u32, &mut [u8]) -> Result<Option<u64>>,
    ) -> Result<()> {
        let Keeping { state, from, target, pages } = *keeping;
        if pages.is_empty() {
            return Ok(());
        }
        let size = state.page_size as usize;
        let start = SEGMENT_HEADER_LEN as u64;
        let table_at = HEADER_LEN as u64 + pages.len() as u64 * size as u64;
        let header = SegmentHeader {
            kind: SegmentKind::Kept,
            lineage,
            number,
            first: target,
            chain: 0,
            time: self.options.clock.now_ms(),
            durable: self.control.durable(),
        };
        let entry = EntryHeader {
            kind: Kind::Kept,
            origin: Origin::Local,
            range: LsnRange { first: from, last: target },
            epoch: 0,
            prev: 0,
            len: round_up(table_at + (pages.len() * ROW_LEN) as u64, 8) + COMMIT_RECORD_LEN as u64,
            table: table_at,
            rows: pages.len() as u32,
            state: State { lsn: target, ..*state },
            checksum: None,
            notes: 0,
            durable: target,
        };
        let path = self.file_path(Name::NewKept(number));
        let segment = Segment::create(&*self.disk, path, header, start + entry.len)?;
        self.disk.copy_owner(&self.path, &segment.path).at(|| "setting a segment's owner".into())?;
        let here = || format!("writing {}", segment.path.display());
        let mut table = vec![0; pages.len() * ROW_LEN];
        let mut image = vec![0; size];
        for (n, (&page, out)) in pages.iter().zip(table.chunks_exact_mut(ROW_LEN)).enumerate() {
            let known = read(page, &mut image)?;
            let hash = known.unwrap_or_else(|| page_hash(page, &image));
            let offset = start + (HEADER_LEN + n * size) as u64;
            segment.file.write_at(&image, offset).at(here)?;
            Row { page, segment: 0, offset, hash }.encode(out);
        }
        let encoded = entry.encode();
        let record = CommitRecord::of(&entry, &encoded, &table).encode();
        segment.file.write_at(&encoded, start).at(here)?;
        segment.file.write_at(&table, start + table_at).at(here)?;
        segment.file.write_at(&record, start + entry.record()).at(here)?;
        segment.file.sync().at(here)?;
        let renamed = self.disk.rename(&segment.path, &self.file_path(Name::Kept(number)));
        renamed.at(here)?;
        self.sync_side()
    }
}
