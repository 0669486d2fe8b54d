//! Folding: journal pages move into the base, in steps; what nobody needs any more is dropped.
//!
//! Order of a fold from base B to target T, each step durable before the next:
//! 1. the entries up to T; T is announced, so that no reader pins less, and lowered to what readers
//!    have pinned;
//! 2. the superblock, which says that they are on the disk; in a kept segment, images that step 3
//!    replaces and history needs;
//! 3. the base's pages, in order;
//! 4. the pages' hashes; of a lazy clone, then that the pages are here;
//! 5. the superblock: the base is at T. Until then the journal still has every page that 3 wrote.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::control::Lock;
use crate::error::{At, Code, Error, Result};
use crate::format::{Mark, Name, Retention, SegmentKind, Superblock};
use crate::hashes::Hashes;
use crate::index::{Index, Shrunk};
use crate::lsn::Lsn;
use crate::retention::retained_from;
use crate::snapshot::{Snapshot, hash_in_table};
use crate::state::{State, lock_page};
use crate::store::{MARK_BYTE, Store, base_header};

/// Bytes of neighbouring pages that a fold writes at a time.
const RUN: usize = 256 << 10;

/// Bytes of the base that a fold writes before it sends them on their way to the disk.
const AHEAD: usize = 256 << 10;

/// A fold under way.
pub(crate) struct FoldJob {
    /// The base as it will be.
    pub target: State,
    /// What the target's pages are read through.
    view: Snapshot,
    /// Pages to write, in order.
    pages: Vec<u32>,
    next: usize,
    /// Bytes written since they were last sent on their way to the disk.
    written: usize,
    /// The horizon afterwards, if it moves.
    horizon: Option<Lsn>,
    /// Number of the segment that the journal begins with afterwards, if its entries were merged ahead.
    pub way: Option<u32>,
}

impl Store {
    /// The fold that retention asks for, if any. Under the fold lock.
    pub(crate) fn due(&self) -> Result<Option<FoldJob>> {
        let block = self.read_superblock()?;
        let head = self.control.appended();
        self.catch_up(head)?;
        let index = self.current()?;
        if let Some(job) = self.unfinished(&block, &index)? {
            return Ok(Some(job));
        }
        if self.control.fold_target() > block.base.lsn {
            return Ok(None);
        }
        // What a reader needs stays; the next segment asks again.
        let limit = self.control.oldest_pin(head)?;
        let Some(horizon) = self.given_up(&index, &block, head, limit)? else {
            return Ok(None);
        };
        if horizon < block.base.lsn {
            self.trim_to(&block, &index, horizon)?;
            return Ok(None);
        }
        let allowed = self.control.announce_fold(horizon)?;
        if allowed < horizon {
            return Ok(None);
        }
        let mut job = self.job(&block, &index, horizon, Some(horizon))?;
        job.way = self.merge_ahead(&block, &index, &job.target, job.pages.len())?;
        if job.way.is_none() {
            self.make_just_durable(horizon)?;
            self.make_seal_durable(&index, horizon)?;
            self.promise(horizon, Some(horizon), None)?;
        }
        Ok(Some(job))
    }

    /// Makes the seal behind `horizon` durable: the journal is to begin where it leads. The entries before it may have
    /// been on the disk before it was written.
    fn make_seal_durable(&self, index: &Index, horizon: Lsn) -> Result<()> {
        let journal = || index.segments().filter(|s| s.header.kind == SegmentKind::Journal);
        let sealed = journal().zip(journal().skip(1)).find(|(_, next)| next.header.first == horizon.next());
        match sealed {
            Some((sealed, _)) => self.sync_segment(sealed),
            None => Ok(()),
        }
    }

    /// The fold that must be finished before anything is dropped: one was begun and died, so the base
    /// may hold newer images than it says, and only the journal has the others.
    fn unfinished(&self, block: &Superblock, index: &Arc<Index>) -> Result<Option<FoldJob>> {
        let target = self.control.fold_target();
        if target <= block.base.lsn {
            return Ok(None);
        }
        // One that gives history up keeps no images, and is done as such.
        let given_up = (block.history > block.base.lsn).then_some(block.history);
        let target = given_up.unwrap_or(target);
        self.make_durable(target)?;
        if self.control.announce_fold(target)? < target {
            return Ok(None);
        }
        if block.lazy {
            self.promise(target, Some(target), None)?;
        }
        // A lazy clone gives history up wherever it is folded to; the journal begins where a segment does.
        let begins = |lsn: &Lsn| !block.lazy || index.segments().any(|s| s.header.first == lsn.next());
        self.job(block, index, target, given_up.filter(begins)).map(Some)
    }

    /// Finishes a fold that was begun and isn't under way; false if readers don't allow it. Under the fold lock.
    pub(crate) fn finish_begun(&self, index: &Arc<Index>) -> Result<bool> {
        while let Some(mut job) = self.unfinished(&self.read_superblock()?, index)? {
            while !self.fold_step(&mut job, usize::MAX)? {}
        }
        Ok(self.control.fold_target() <= self.read_superblock()?.base.lsn)
    }

    /// Says in the superblock, durably, that entries up to `target` are on the disk, and gives up what
    /// is below `history`. Both come before images are replaced: with the journal cut off below the
    /// target, the base would hold pages of LSNs that nobody has; and what is below `history` would
    /// need the images. `first` is the segment that the journal begins with, where that is another one now.
    pub(crate) fn promise(&self, target: Lsn, history: Option<Lsn>, first: Option<u32>) -> Result<()> {
        let _guard = self.lock_superblock()?;
        let mut block = self.read_superblock()?;
        let history = history.map_or(block.history, |history| history.max(block.history));
        if block.durable < target || block.history < history || first.is_some() {
            block.durable = block.durable.max(target);
            block.history = history;
            if let Some(first) = first {
                block.first_segment = first;
                block.behind = None;
                self.first_segment.store(first, Ordering::Relaxed);
            }
            self.write_superblock(&mut block)?;
            self.control.set_horizon(history.max(block.horizon.lsn));
        }
        Ok(())
    }

    /// A fold to `target`, which is announced. Its entries must be durable before the first step.
    fn job(
        &self,
        block: &Superblock,
        index: &Arc<Index>,
        target: Lsn,
        horizon: Option<Lsn>,
    ) -> Result<FoldJob> {
        let state = index.state(target)?.ok_or_else(|| {
            Error::new(Code::Io, format!("LSN {target} is no boundary to fold to; report this as a bug"))
        })?;
        let view = Snapshot { index: Arc::clone(index), state, floor: block.base.lsn, copies: true };
        let pages = self.folded_pages(block, index, &state)?;
        Ok(FoldJob { target: state, view, pages, next: 0, written: 0, horizon, way: None })
    }

    /// Pages that a fold to `target` writes, in order.
    pub(crate) fn folded_pages(&self, block: &Superblock, index: &Index, target: &State) -> Result<Vec<u32>> {
        let mut pages = Vec::new();
        if target.lsn > block.base.lsn {
            for entry in index.between(block.base.lsn, target.lsn) {
                pages.extend(index.rows(&entry?)?.map(|row| row.page));
            }
            pages.sort_unstable();
            pages.dedup();
            // Of another page size it was a page like any other.
            pages.retain(|&page| page != lock_page(target.page_size as usize));
            // Page 1 carries the counters, whether or not its image changed; unless it isn't here.
            if target.size > 0 && pages.first() != Some(&1) && !self.lacks(1)? {
                pages.insert(0, 1);
            }
        }
        Ok(pages)
    }

    /// Writes up to `count` pages; true when the fold is complete.
    pub(crate) fn fold_step(&self, job: &mut FoldJob, count: usize) -> Result<bool> {
        if job.next == 0 {
            self.promise(job.target.lsn, None, None)?;
            if job.horizon.is_none() {
                self.keep_replaced(&job.target, &job.pages, &job.view.index)?;
            }
        }
        let size = job.target.page_size as usize;
        let end = job.pages.len().min(job.next.saturating_add(count));
        let pages = &job.pages[job.next..end];
        // Neighbours go in one write.
        let mut run = Vec::new();
        for (n, &page) in pages.iter().enumerate().take_while(|(_, page)| **page <= job.target.size) {
            let at = run.len();
            run.resize(at + size, 0);
            let image = &mut run[at..];
            job.view.read(self, page, 0, image)?;
            if page == 1 {
                // While the base is behind it stays marked.
                let mark = Mark::of(&base_header(&*self.base)?);
                image[19] = MARK_BYTE;
                mark.put(image);
            }
            let next = pages.get(n + 1).copied();
            if next != Some(page + 1) || page == job.target.size || run.len() >= RUN {
                let first = u64::from(page) * size as u64 - run.len() as u64;
                self.base.write_at(&run, first).at(|| format!("writing {}", self.path.display()))?;
                job.written += run.len();
                run.clear();
            }
        }
        job.next = end;
        if job.written >= AHEAD {
            self.base.begin_sync();
            job.written = 0;
        }
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
            let (len, wanted) = (self.base.len().at(here)?, job.target.bytes());
            if len < wanted && !block.lazy {
                // Every page behind the old end has a row, and so has been written: none is made up.
                return Err(self.ends_before((len / u64::from(job.target.page_size)) as u32 + 1));
            }
            if job.target.size > 0 && len > wanted {
                self.base.set_len(wanted).at(here)?;
            }
            self.base.sync().at(here)?;
            let hashes = Hashes::open(&*self.disk, &self.path, &self.side, job.target.page_size)?;
            let mut moved = Vec::with_capacity(job.pages.len());
            for &page in job.pages.iter().filter(|&&page| page <= job.target.size) {
                if let Some(found) = job.view.index.find(page, job.target.lsn) {
                    if found.last > block.base.lsn {
                        moved.push((page, hash_in_table(&job.view.index, page, &found)?));
                    }
                }
            }
            hashes.set_many(&moved)?;
            hashes.sync()?;
            if let Some(lazy) = self.lazy.as_ref().filter(|_| block.lazy) {
                let there = job.pages.partition_point(|&page| page <= job.target.size);
                lazy.present.set(&job.pages[..there])?;
            }
        }
        if let (Some(lazy), false) = (&self.lazy, block.lazy) {
            // Whoever fetched the last of it died before it said so.
            lazy.present.set_whole()?;
        }
        let first_before = block.first_segment;
        let first = {
            let _guard = self.lock_superblock()?;
            let mut block = self.read_superblock()?;
            block.base = if job.target.lsn > block.base.lsn { job.target } else { block.base };
            block.durable = block.durable.max(job.target.lsn);
            if let Some(horizon) = job.horizon.filter(|&horizon| horizon > block.horizon.lsn) {
                let index = &job.view.index;
                block.horizon = index.state(horizon)?.ok_or_else(|| {
                    Error::new(Code::Io, format!("LSN {horizon} is no boundary; report this as a bug"))
                })?;
                if let Some(entry) = index.entry_at(horizon) {
                    block.horizon_origin = index.origin_of(entry) as u16;
                }
                if let Some(way) = job.way {
                    block.first_segment = way;
                } else if let Some(first) = index.retained(horizon).next() {
                    // Its header, and the seal that leads on from it.
                    self.sync_segment(first)?;
                    block.first_segment = first.header.number;
                }
            }
            self.first_segment.store(block.first_segment, Ordering::Relaxed);
            self.write_superblock(&mut block)?;
            self.control.set_base(block.base.lsn);
            self.control.set_horizon(block.history.max(block.horizon.lsn));
            block.first_segment
        };
        if job.horizon.is_some() {
            self.drop_given_up(&job.view.index)?;
            // It may be one that no index has.
            if first_before != first {
                self.remove_segment(first_before)?;
            }
        }
        Ok(())
    }

    /// Removes the segments, and kept ones, that the horizon has passed.
    fn drop_given_up(&self, index: &Index) -> Result<()> {
        let block = self.read_superblock()?;
        for segment in index.segments().take(index.dropped(block.horizon.lsn)) {
            let gone = match self.retire(segment)? {
                true => Ok(()),
                false => self.disk.remove(&segment.path),
            };
            match gone {
                // Dropped before, and in the index still.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                other => other.at(|| format!("removing {}", segment.path.display()))?,
            }
        }
        for name in self.disk.list(&self.side).at(|| format!("listing {}", self.side.display()))? {
            if let Some(Name::Kept(n)) = Name::parse(&name) {
                if !crate::kept::is_needed(&*self.disk, &self.side, n, &block)? {
                    self.disk.remove(&self.side.join(&name)).at(|| format!("removing {name}"))?;
                }
            }
        }
        self.shrink_index()
    }

    /// Makes a smaller index once most of the present one describes what was dropped.
    fn shrink_index(&self) -> Result<()> {
        let (old, _) = self.index();
        let horizon = self.control.horizon();
        let dead = u64::from(old.first_version(old.first_above(horizon)));
        if dead * 2 < u64::from(old.version_count()).max(4096) {
            return Ok(());
        }
        // Nearly all of it is copied while writers go on.
        let Some(mut shrunk) = Shrunk::begin(&old, horizon)? else { return Ok(()) };
        if shrunk.copy(&old)?.is_none() {
            return Ok(());
        }
        let mut tail = self.tail.lock();
        if Arc::ptr_eq(&tail.index, &old) && shrunk.copy(&old)?.is_some() {
            tail.segment -= shrunk.segments_from;
            tail.index = Arc::new(shrunk.index);
            self.swap_index(&tail);
        }
        Ok(())
    }

    /// Folds as far as readers allow; returns the LSN of the base afterwards.
    ///
    /// # Errors
    /// `Busy` while another process folds.
    pub fn fold(&self) -> Result<Lsn> {
        self.alone_folding(|| self.fold_now())
    }

    /// Does `work` under the fold lock, with no fold under way in this process either.
    ///
    /// # Errors
    /// `Busy` while another process folds; those of `work`, and of the fold that was under way.
    pub(crate) fn alone_folding<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let mut running = self.fold.lock();
        // Whoever began in this process has the lock; its work is finished first.
        if let Some(mut job) = running.take() {
            let done = self.fold_step(&mut job, usize::MAX);
            self.control.file().unlock(Lock::Fold);
            done?;
        }
        self.control.file().lock(Lock::Fold)?;
        let result = work();
        self.control.file().unlock(Lock::Fold);
        result
    }

    /// Folds as far as readers allow. Under the fold lock.
    pub(crate) fn fold_now(&self) -> Result<Lsn> {
        let head = self.control.appended();
        self.make_durable(head)?;
        self.catch_up(head)?;
        let index = self.current()?;
        self.finish_begun(&index)?;
        let block = self.read_superblock()?;
        // Each fold of a lazy clone gives up what is below it.
        let held = if block.lazy { self.held_for_remotes(&index, &block)? } else { None };
        let target = self.control.announce_fold(held.map_or(head, |held| held.min(head)))?;
        if target > block.base.lsn {
            if block.lazy {
                // Images that it would keep for history may not be here.
                self.promise(target, Some(target), None)?;
            }
            let mut job = self.job(&block, &index, target, None)?;
            while !self.fold_step(&mut job, usize::MAX)? {}
        }
        Ok(self.control.base())
    }

    /// Drops what retention doesn't ask for. Nothing is folded for it, but what a fold that failed or died has begun: the
    /// base may have newer images than it says, and those that it should have are in what would be dropped.
    pub(crate) fn trim(&self) -> Result<()> {
        let index = self.current()?;
        if !self.finish_begun(&index)? {
            return Ok(());
        }
        let block = self.read_superblock()?;
        let head = index.applied();
        let horizon = self.given_up(&index, &block, head, head)?;
        match horizon.filter(|&horizon| horizon <= block.base.lsn) {
            Some(horizon) => self.trim_to(&block, &index, horizon),
            None => Ok(()),
        }
    }

    /// The horizon that retention asks for, up to `limit`, and no further than remotes allow; `None` if it needn't move.
    fn given_up(&self, index: &Index, block: &Superblock, head: Lsn, limit: Lsn) -> Result<Option<Lsn>> {
        let now = self.options.clock.now_ms();
        let Some(horizon) = retained_from(index, block, head, limit, now)? else { return Ok(None) };
        // Only now: what is kept about remotes is in a file.
        match self.held_for_remotes(index, block)? {
            Some(held) if held < horizon => retained_from(index, block, head, limit.min(held), now),
            _ => Ok(Some(horizon)),
        }
    }

    /// Moves the horizon to `horizon`, which the base has reached, unless a reader needs more.
    fn trim_to(&self, block: &Superblock, index: &Arc<Index>, horizon: Lsn) -> Result<()> {
        if self.control.oldest_pin(horizon)? < horizon {
            return Ok(());
        }
        self.keep_dropped(block, index, horizon)?;
        self.promise(horizon, Some(horizon), None)?;
        let job = self.job(block, index, block.base.lsn, Some(horizon))?;
        self.finish(&job)
    }

    /// Folds everything and takes the mark off, for the last process that closes the store.
    pub(crate) fn rest(&self) -> Result<()> {
        self.fold.lock().take();
        self.side_in_place()?;
        self.adopt_orphans()?;
        let head = self.control.appended();
        let block = self.read_superblock()?;
        if block.lazy {
            return self.leave_lazy(head);
        }
        // What has changed since the last rest is dropped then; of age alone, that can wait.
        let forgets = block.retention == Retention::None
            && block.horizon.lsn < block.base.lsn
            && !self.may_be_held(&block)?;
        let given_up = block.history > block.horizon.lsn;
        let folded = head == block.base.lsn && !self.control.marked();
        if folded && head == self.found && !forgets && !given_up {
            return self.drop_spares();
        }
        if head > block.base.lsn {
            self.fold_now()?;
        }
        self.trim()?;
        if self.control.marked() {
            self.unmark()?;
        }
        self.forget_history()?;
        self.drop_spares()?;
        self.leave_settled()
    }

    /// Leaves a lazy clone as it is, but for what the next opening would have to do: it can't come to rest.
    fn leave_lazy(&self, head: Lsn) -> Result<()> {
        self.make_durable(head)?;
        self.promise(head, None, None)?;
        self.drop_spares()?;
        self.leave_settled()
    }

    /// Removes what processes that died had ready or to spare, and tells the next one to open the store that everything is
    /// on the disk.
    fn leave_settled(&self) -> Result<()> {
        let tail = self.tail.lock();
        let block = self.read_superblock()?;
        self.opening().clean(&block, &tail)?;
        self.control.file().set_settled(block.stamp());
        Ok(())
    }

    /// Begins the journal anew behind the base, where retention asks for no history at all, nobody is
    /// left to read it, and no remote is to get it.
    fn forget_history(&self) -> Result<()> {
        let mut block = self.read_superblock()?;
        if block.retention != Retention::None || block.horizon.lsn == block.base.lsn {
            return Ok(());
        }
        let index = self.current()?;
        if self.held_for_remotes(&index, &block)?.is_some_and(|held| held < block.base.lsn) {
            return Ok(());
        }
        if let Some(entry) = index.entry_at(block.base.lsn) {
            block.horizon_origin = index.origin_of(entry) as u16;
        }
        block.horizon = block.base;
        block.history = block.base.lsn;
        block.first_segment = self.control.next_segment()?;
        self.first_segment.store(block.first_segment, Ordering::Relaxed);
        let recovered = self.opening().begin(block)?;
        *self.tail.lock() = recovered.tail;
        Ok(())
    }
}
