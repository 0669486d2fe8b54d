//! Folding: journal pages move into the base, in steps; what nobody needs any more is dropped.
//!
//! Order of a fold from base B to target T, each step durable before the next:
//! 1. the entries up to T; T is announced, so that no reader pins less, and lowered to what readers
//!    have pinned;
//! 2. images that step 3 replaces and history needs, in a kept segment;
//! 3. the base's pages, in order;
//! 4. the pages' hashes;
//! 5. the superblock: the base is at T. Until then the journal still has every page that 3 wrote.

use std::sync::Arc;

use crate::control::Lock;
use crate::error::{At, Code, Error, Result};
use crate::format::{Mark, Name, ROW_LEN, Retention, SegmentKind, Superblock};
use crate::hashes::Hashes;
use crate::index::Index;
use crate::lsn::Lsn;
use crate::segment::Segment;
use crate::snapshot::{Snapshot, hash_in_table};
use crate::state::State;
use crate::store::{MARK_BYTE, Store, base_header};

/// History kept when nobody said otherwise.
const DEFAULT_BYTES: u64 = 64 << 20;
const DEFAULT_LSNS: u64 = 10_000;

/// A fold under way.
pub(crate) struct FoldJob {
    /// The base as it will be.
    target: State,
    /// What the target's pages are read through.
    view: Snapshot,
    /// Pages to write, in order.
    pages: Vec<u32>,
    next: usize,
    /// The horizon afterwards, if it moves.
    horizon: Option<Lsn>,
}

impl Store {
    /// Goes on with a fold, or begins one if the journal has grown beyond what is retained. Called
    /// after commits; does a bounded part of the work.
    pub(crate) fn maintain(&self) -> Result<()> {
        let Some(mut job) = self.fold.try_lock() else { return Ok(()) };
        if job.is_none() {
            let sealed = self.tail.lock().segment;
            if self.maintained.swap(sealed, std::sync::atomic::Ordering::Relaxed) == sealed
                || !self.control.file().try_lock(Lock::Fold)?
            {
                return Ok(());
            }
            match self.due() {
                Ok(Some(begun)) => *job = Some(begun),
                other => {
                    self.control.file().unlock(Lock::Fold);
                    return other.map(drop);
                }
            }
        }
        let done = match job.as_mut() {
            Some(job) => self.fold_step(job, self.options.fold_step),
            None => return Ok(()),
        };
        if !matches!(done, Ok(false)) {
            *job = None;
            self.control.file().unlock(Lock::Fold);
        }
        done.map(drop)
    }

    /// The fold that retention asks for, if any. Under the fold lock.
    fn due(&self) -> Result<Option<FoldJob>> {
        let block = self.read_superblock()?;
        let head = self.control.appended();
        self.catch_up(head)?;
        let index = Arc::clone(&self.tail.lock().index);
        let Some(horizon) = retained_from(&index, &block, head, self.options.clock.now_ms())? else {
            return Ok(None);
        };
        if horizon < block.base.lsn {
            self.trim_to(&block, &index, horizon)?;
            return Ok(None);
        }
        self.make_durable(horizon)?;
        let allowed = self.control.announce_fold(horizon)?;
        if allowed < horizon {
            // A reader needs more; the next segment asks again.
            return Ok(None);
        }
        self.move_history(horizon)?;
        self.job(&block, &index, horizon, Some(horizon)).map(Some)
    }

    /// Gives up what is below `horizon`, durably, before a fold replaces images that it would need.
    fn move_history(&self, horizon: Lsn) -> Result<()> {
        let _guard = self.lock_superblock()?;
        let mut block = self.read_superblock()?;
        if block.history < horizon {
            block.history = horizon;
            self.write_superblock(&mut block)?;
            self.control.set_horizon(horizon);
        }
        Ok(())
    }

    /// A fold to `target`, whose entries are durable and announced.
    fn job(
        &self,
        block: &Superblock,
        index: &Arc<Index>,
        target: Lsn,
        horizon: Option<Lsn>,
    ) -> Result<FoldJob> {
        let state = index.state(target).ok_or_else(|| {
            Error::new(Code::Io, format!("LSN {target} is no boundary to fold to; report this as a bug"))
        })?;
        let view = Snapshot { index: Arc::clone(index), state, floor: block.base.lsn };
        let mut pages = Vec::new();
        if target > block.base.lsn {
            for ordinal in 0..index.entry_count() {
                let entry = index.entry(ordinal);
                if entry.range.last > block.base.lsn && entry.range.last <= target {
                    let table =
                        index.segment(entry.segment).bytes(entry.table, entry.rows as usize * ROW_LEN)?;
                    pages.extend(crate::segment::rows(&table, entry.rows).map(|row| row.page));
                }
            }
            pages.sort_unstable();
            pages.dedup();
            // Page 1 carries the counters, whether or not its image changed.
            if state.size > 0 && pages.first() != Some(&1) {
                pages.insert(0, 1);
            }
        }
        Ok(FoldJob { target: state, view, pages, next: 0, horizon })
    }

    /// Writes up to `count` pages; true when the fold is complete.
    fn fold_step(&self, job: &mut FoldJob, count: usize) -> Result<bool> {
        if job.next == 0 && job.horizon.is_none() {
            self.keep_replaced(&job.target, &job.pages, &job.view.index)?;
        }
        let size = job.target.page_size as usize;
        let mut image = vec![0; size];
        let end = job.pages.len().min(job.next.saturating_add(count));
        let here = || format!("writing {}", self.path.display());
        for &page in &job.pages[job.next..end] {
            if page > job.target.size {
                continue;
            }
            job.view.read(self, page, 0, &mut image)?;
            if page == 1 {
                // While the base is behind it stays marked.
                let mark = Mark::of(&base_header(&*self.base)?);
                image[19] = MARK_BYTE;
                mark.put(&mut image);
            }
            self.base.write_at(&image, u64::from(page - 1) * size as u64).at(here)?;
        }
        job.next = end;
        if end < job.pages.len() {
            return Ok(false);
        }
        self.finish(job)?;
        Ok(true)
    }

    /// Steps 4 and 5, and the dropping of what the horizon leaves behind.
    fn finish(&self, job: &FoldJob) -> Result<()> {
        let here = || format!("writing {}", self.path.display());
        let block = self.read_superblock()?;
        if job.target.lsn > block.base.lsn {
            if job.target.size > 0 && self.base.len().at(here)? != job.target.bytes() {
                self.base.set_len(job.target.bytes()).at(here)?;
            }
            self.base.sync().at(here)?;
            let hashes = Hashes::open(&*self.disk, &self.path, &self.side, job.target.page_size)?;
            for &page in job.pages.iter().filter(|&&page| page <= job.target.size) {
                if let Some(found) = job.view.index.find(page, job.target.lsn) {
                    if job.view.index.entry(found.entry).range.last > block.base.lsn {
                        hashes.set(page, hash_in_table(&job.view.index, page, &found)?)?;
                    }
                }
            }
            hashes.sync()?;
        }
        let mut first_segment = block.first_segment;
        {
            let _guard = self.lock_superblock()?;
            let mut block = self.read_superblock()?;
            block.base = if job.target.lsn > block.base.lsn { job.target } else { block.base };
            block.durable = block.durable.max(job.target.lsn);
            if let Some(horizon) = job.horizon.filter(|&horizon| horizon > block.horizon.lsn) {
                let index = &job.view.index;
                block.horizon = index.state(horizon).ok_or_else(|| {
                    Error::new(Code::Io, format!("LSN {horizon} is no boundary; report this as a bug"))
                })?;
                if let Some(entry) = index.entry_at(horizon) {
                    block.horizon_origin = index.entry(entry).origin as u16;
                }
                first_segment = index
                    .segments()
                    .rfind(|s| s.header.kind == SegmentKind::Journal && s.header.first <= horizon.next())
                    .map_or(first_segment, |s| s.header.number);
                block.first_segment = first_segment;
            }
            self.write_superblock(&mut block)?;
            self.control.set_base(block.base.lsn);
            self.control.set_horizon(block.history.max(block.horizon.lsn));
        }
        if job.horizon.is_some() {
            self.drop_before(&job.view.index, first_segment)?;
        }
        Ok(())
    }

    /// Removes the segments that the journal went through before `first`, and kept ones that the
    /// horizon has passed.
    pub(crate) fn drop_before(&self, index: &Index, first: u32) -> Result<()> {
        let block = self.read_superblock()?;
        let dropped: Vec<u32> =
            index.segments().map(|s| s.header.number).take_while(|&n| n != first).collect();
        for name in self.disk.list(&self.side).at(|| format!("listing {}", self.side.display()))? {
            let drop = match Name::parse(&name) {
                Some(Name::Segment(n)) => dropped.contains(&n),
                Some(Name::Kept(n)) => !crate::kept::is_needed(&*self.disk, &self.side, n, &block)?,
                _ => false,
            };
            if drop {
                self.disk.remove(&self.side.join(&name)).at(|| format!("removing {name}"))?;
            }
        }
        self.shrink_index()
    }

    /// Builds a smaller index once most of the present one describes what was dropped.
    fn shrink_index(&self) -> Result<()> {
        let mut tail = self.tail.lock();
        let horizon = self.control.horizon();
        let index = &tail.index;
        let dead = (0..index.entry_count())
            .take_while(|&n| index.entry(n).range.last <= horizon)
            .map(|n| u64::from(index.entry(n).rows))
            .sum::<u64>();
        if dead * 2 < u64::from(index.version_count()).max(4096) {
            return Ok(());
        }
        let applied = index.applied();
        let (_, mut fresh) = self.opening().attach()?;
        self.catch_up_from(&mut fresh, applied)?;
        *tail = fresh;
        self.swap_index(&tail);
        Ok(())
    }

    /// Folds as far as readers allow; returns the LSN of the base afterwards.
    ///
    /// # Errors
    /// `Busy` while another process folds.
    pub fn fold(&self) -> Result<Lsn> {
        let mut running = self.fold.lock();
        // Whoever began in this process has the lock; its work is finished first.
        if let Some(mut job) = running.take() {
            let done = self.fold_step(&mut job, usize::MAX);
            self.control.file().unlock(Lock::Fold);
            done?;
        }
        self.control.file().lock(Lock::Fold)?;
        let result = self.fold_now();
        self.control.file().unlock(Lock::Fold);
        result
    }

    fn fold_now(&self) -> Result<Lsn> {
        let head = self.control.appended();
        self.make_durable(head)?;
        let block = self.read_superblock()?;
        self.catch_up(head)?;
        let index = Arc::clone(&self.tail.lock().index);
        if block.history > block.base.lsn {
            // A fold that gives history up was begun and didn't get to its end.
            let target = self.control.announce_fold(block.history)?;
            if target < block.history {
                return Ok(block.base.lsn);
            }
            let mut job = self.job(&block, &index, target, Some(target))?;
            while !self.fold_step(&mut job, usize::MAX)? {}
        }
        let block = self.read_superblock()?;
        let target = self.control.announce_fold(head)?;
        if target > block.base.lsn {
            let mut job = self.job(&block, &index, target, None)?;
            while !self.fold_step(&mut job, usize::MAX)? {}
        }
        Ok(self.control.base())
    }

    /// Drops what retention doesn't ask for. Nothing is folded for it.
    pub(crate) fn trim(&self) -> Result<()> {
        let block = self.read_superblock()?;
        let index = Arc::clone(&self.tail.lock().index);
        let head = index.applied();
        let horizon = retained_from(&index, &block, head, self.options.clock.now_ms())?;
        match horizon.filter(|&horizon| horizon <= block.base.lsn) {
            Some(horizon) => self.trim_to(&block, &index, horizon),
            None => Ok(()),
        }
    }

    /// Moves the horizon to `horizon`, which the base has reached, unless a reader needs more.
    fn trim_to(&self, block: &Superblock, index: &Arc<Index>, horizon: Lsn) -> Result<()> {
        if self.control.oldest_pin(horizon)? < horizon {
            return Ok(());
        }
        self.keep_dropped(block, index, horizon)?;
        self.move_history(horizon)?;
        let job = self.job(block, index, block.base.lsn, Some(horizon))?;
        self.finish(&job)
    }

    /// Folds everything and takes the mark off, for the last process that closes the store.
    pub(crate) fn rest(&self) -> Result<()> {
        self.fold.lock().take();
        self.adopt_orphans()?;
        let head = self.control.appended();
        if head > self.read_superblock()?.base.lsn {
            self.fold_now()?;
        }
        self.trim()?;
        if self.control.marked() {
            self.unmark()?;
        }
        self.forget_history()
    }

    /// Begins the journal anew behind the base, where retention asks for no history at all and
    /// nobody is left to read it.
    fn forget_history(&self) -> Result<()> {
        let mut block = self.read_superblock()?;
        if block.retention != Retention::None || block.horizon.lsn == block.base.lsn {
            return Ok(());
        }
        let index = Arc::clone(&self.tail.lock().index);
        if let Some(entry) = index.entry_at(block.base.lsn) {
            block.horizon_origin = index.entry(entry).origin as u16;
        }
        block.horizon = block.base;
        block.history = block.base.lsn;
        let used = self.disk.list(&self.side).at(|| format!("listing {}", self.side.display()))?;
        let last = used.iter().filter_map(|name| Name::parse(name)?.segment()).max().unwrap_or(0);
        block.first_segment = last + 1;
        let opening = self.opening();
        let recovered = opening.begin(block)?;
        opening.clean(&recovered.block, &recovered.tail)
    }
}

/// The horizon that retention asks for, if it is above the present one: always the last LSN of a
/// sealed segment.
fn retained_from(index: &Index, block: &Superblock, head: Lsn, now: u64) -> Result<Option<Lsn>> {
    let segments: Vec<&Arc<Segment>> = index
        .segments()
        .skip_while(|s| s.header.number != block.first_segment)
        .filter(|s| s.header.kind == SegmentKind::Journal)
        .collect();
    let lens: Vec<u64> = segments
        .iter()
        .map(|s| s.file.len().at(|| format!("reading {}", s.path.display())))
        .collect::<Result<_>>()?;
    let mut behind: u64 = lens.iter().sum();
    let mut horizon = None;
    let mut dropped = 0;
    for (pair, len) in segments.windows(2).zip(&lens) {
        behind -= len;
        let last = Lsn::new(pair[1].header.first.get() - 1);
        let lsns = head.get() - last.get();
        let droppable = match block.retention {
            Retention::Default => behind >= DEFAULT_BYTES || lsns >= DEFAULT_LSNS,
            Retention::None => true,
            Retention::Bytes(bytes) => behind >= bytes,
            Retention::Lsns(count) => lsns >= count,
            Retention::Seconds(seconds) => {
                index.state(last).is_some_and(|state| now.saturating_sub(state.time) / 1000 >= seconds)
            }
        };
        if !droppable {
            break;
        }
        if last > block.horizon.lsn {
            dropped += len;
            horizon = Some(last);
        }
    }
    // Few folds of much cost less than many of little: each has its fsyncs.
    let lsns = horizon.map_or(0, |horizon| horizon.get() - block.horizon.lsn.get());
    let enough = match block.retention {
        Retention::Default => dropped >= DEFAULT_BYTES / 4 || lsns >= DEFAULT_LSNS / 4,
        Retention::Bytes(bytes) => dropped >= bytes.min(DEFAULT_BYTES) / 4,
        Retention::Lsns(count) => lsns >= count.min(DEFAULT_LSNS) / 4,
        Retention::None | Retention::Seconds(_) => true,
    };
    Ok(horizon.filter(|_| enough))
}
