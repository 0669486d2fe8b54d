//! The end of the journal: reading entries behind it, going on in the next segment.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::control::Control;
use crate::disk::{Disk, How};
use crate::error::{At, Code, Error, Result};
use crate::format::{Kind, Name, SEGMENT_HEADER_LEN, SegmentHeader, SegmentKind, round_up, seal, sealed_to};
use crate::index::Index;
use crate::lsn::Lsn;
use crate::segment::{Checked, Segment};
use crate::store::Store;

/// Fsyncs of a segment while it is written that are few: the next one is warmed.
pub(crate) const FEW: u32 = 4;

/// Where the next entry goes.
pub(crate) struct Tail {
    pub index: Arc<Index>,
    /// Ordinal of the segment in `index`.
    pub segment: u32,
    pub offset: u64,
    /// Chain value of the last entry.
    pub chain: u64,
    /// Newest LSN of which an entry that was read says that it was on the disk.
    pub claimed: Lsn,
}

/// Whether images are looked at while entries are read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Images {
    /// The entry is known to be whole.
    Trust,
    /// It may have been torn.
    Check,
}

impl Store {
    pub(crate) fn catch_up_tail(&self, tail: &mut Tail, to: Lsn) -> Result<()> {
        while tail.index.applied() < to {
            match advance(&*self.disk, &self.side, tail, Images::Trust) {
                Ok(true) => {}
                failed => {
                    // Segments that this process never opened may have been dropped meanwhile.
                    let started = tail.index.segments().next().map(|s| s.header.number);
                    if self.read_superblock().is_ok_and(|block| Some(block.first_segment) != started) {
                        let (_, fresh) = self.opening().attach(self.control.file(), true)?;
                        *tail = fresh;
                        self.swap_index(tail);
                        continue;
                    }
                    failed?;
                    return Err(self.torn(tail));
                }
            }
        }
        Ok(())
    }

    /// The index from the horizon on. A store that was at rest is opened without history, which most never look at.
    ///
    /// # Errors
    /// `Damaged`, `Missing` where history isn't what it was.
    pub(crate) fn whole(&self) -> Result<Arc<Index>> {
        let mut tail = self.tail.lock();
        if !tail.index.whole {
            self.read_anew(&mut tail)?;
        }
        Ok(Arc::clone(&tail.index))
    }

    /// The index from the horizon on of the journal as it is now, for whoever changes that. Under the fold lock.
    ///
    /// Another process may have merged or dropped what this one read, and put other segments in its place. Readers go on
    /// with what they have, but whoever moved the horizon by it would let the journal begin where nothing is.
    ///
    /// # Errors
    /// As [`Store::whole`].
    pub(crate) fn current(&self) -> Result<Arc<Index>> {
        let mut tail = self.tail.lock();
        self.catch_up_tail(&mut tail, self.control.appended())?;
        let first = self.read_superblock()?.first_segment;
        if !tail.index.whole || self.first_segment.load(Ordering::Relaxed) != first {
            self.read_anew(&mut tail)?;
        }
        Ok(Arc::clone(&tail.index))
    }

    /// Makes the index anew from the segments that the journal goes through now.
    pub(crate) fn read_anew(&self, tail: &mut Tail) -> Result<()> {
        self.side_in_place()?;
        let mut tries = 0;
        let fresh = loop {
            let (block, mut fresh) = self.opening().attach(self.control.file(), true)?;
            match self.catch_up_from(&mut fresh, tail) {
                Ok(()) => {
                    self.first_segment.store(block.first_segment, Ordering::Relaxed);
                    break fresh;
                }
                // Another process may have dropped what was to be read next.
                Err(e) => {
                    tries += 1;
                    if tries == 16 || self.read_superblock()?.first_segment == block.first_segment {
                        return Err(e);
                    }
                }
            }
        };
        for segment in fresh.index.segments() {
            segment.restore_header()?; // R14
        }
        *tail = fresh;
        self.swap_index(tail);
        Ok(())
    }

    /// Reads entries into a tail that isn't the store's yet, up to where the store's is. A commit may be under way
    /// there, also in a segment that nothing was committed to so far.
    fn catch_up_from(&self, fresh: &mut Tail, tail: &Tail) -> Result<()> {
        let number = |tail: &Tail| tail.index.segment(tail.segment).header.number;
        while fresh.index.applied() < tail.index.applied() {
            if !advance(&*self.disk, &self.side, fresh, Images::Trust)? {
                return Err(self.torn(fresh));
            }
        }
        while fresh.index.applied() == tail.index.applied() && number(fresh) != number(tail) {
            if !follow_seal(&*self.disk, &self.side, fresh)? {
                // The store's may be behind: somebody else has sealed its segment, and put another in its place.
                let own = tail.index.segment(tail.segment).entry(tail.offset, tail.chain)?;
                if own.is_some_and(|checked| checked.header.kind == Kind::Seal) {
                    break;
                }
                return Err(self.torn(fresh));
            }
        }
        Ok(())
    }

    fn torn(&self, tail: &Tail) -> Error {
        let segment = tail.index.segment(tail.segment);
        Error::new(
            Code::Damaged,
            format!(
                "{} has no entry for LSN {} at byte {}, which was committed; close the database everywhere and run tide_verify, or restore from a backup",
                segment.path.display(),
                tail.index.applied().next(),
                tail.offset
            ),
        )
    }

    /// Makes the tail the true end of the journal, in a segment that has room. Holding the writer
    /// word, with the index caught up.
    pub(crate) fn settle_tail(&self, tail: &mut Tail) -> Result<()> {
        self.catch_up_tail(tail, self.control.appended())?;
        // A dead or rolled-back writer may have sealed the segment without a commit.
        while follow_seal(&*self.disk, &self.side, tail)? {}
        if tail.offset < self.options.segment_bytes {
            return Ok(());
        }
        let lineage = tail.index.segment(tail.segment).header.lineage;
        self.roll(tail, lineage)
    }

    /// Goes on in a new segment. Holding the writer word.
    pub(crate) fn roll(&self, tail: &mut Tail, lineage: [u8; 16]) -> Result<()> {
        // What goes on behind a segment that is gone would never be found.
        if let Some((_, e)) = self.misplaced(&tail.index, Control::base)? {
            return Err(e);
        }
        let next = self.segment_behind(tail, lineage)?;
        self.roll_to(tail, next)
    }

    /// A segment that the journal can go on in behind the tail. Holding the writer word.
    fn segment_behind(&self, tail: &Tail, lineage: [u8; 16]) -> Result<Arc<Segment>> {
        let next = self.next_segment(|number| SegmentHeader {
            kind: SegmentKind::Journal,
            lineage,
            number,
            first: tail.index.applied().next(),
            chain: tail.chain,
            time: self.options.clock.now_ms(),
            durable: self.control.durable(),
        })?;
        Ok(Arc::new(next))
    }

    /// Goes on in that segment.
    fn roll_to(&self, tail: &mut Tail, next: Arc<Segment>) -> Result<()> {
        let segment = Arc::clone(tail.index.segment(tail.segment));
        let number = next.header.number;
        let state = tail.index.last_state();
        let seal = seal(state, self.control.epoch(), tail.chain, self.control.durable(), number, tail.chain);
        let here = || format!("writing {}", segment.path.display());
        segment.file.allocate(tail.offset + seal.len() as u64).at(here)?;
        segment.file.write_at(&seal, tail.offset).at(here)?;
        let ordinal = tail.index.push_segment(next);
        tail.segment = ordinal;
        tail.offset = SEGMENT_HEADER_LEN as u64;
        let flushes = self.flushes.swap(0, Ordering::Relaxed);
        self.seldom_synced.store(flushes <= FEW, Ordering::Relaxed);
        if !self.options.background {
            self.rolled.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// A segment for the journal of an empty store that is to go on as that of another lineage. Nothing leads to it
    /// before [`Store::take_over`]. Holding the writer word, until then.
    pub(crate) fn begin_take_over(&self, lineage: [u8; 16]) -> Result<Arc<Segment>> {
        let mut tail = self.tail.lock();
        while follow_seal(&*self.disk, &self.side, &mut tail)? {}
        self.segment_behind(&tail, lineage)
    }

    /// Lets the journal go on in that segment, and the store be of its lineage.
    pub(crate) fn take_over(&self, segment: Arc<Segment>) -> Result<()> {
        let _guard = self.lock_superblock()?;
        let mut tail = self.tail.lock();
        self.roll_to(&mut tail, segment)?;
        self.finish_take_over(&tail)
    }

    /// Removes that segment, to which nothing leads.
    pub(crate) fn give_take_over_up(&self, segment: &Segment) -> Result<()> {
        self.remove_all(vec![segment.path.clone()])
    }

    /// Lets an empty store be of the lineage that its last segment has. Holding the writer word.
    fn finish_take_over(&self, tail: &Tail) -> Result<()> {
        let segment = tail.index.segment(tail.segment);
        let finished = segment.sync().and_then(|()| {
            let mut block = self.read_superblock()?;
            block.lineage = segment.header.lineage;
            block.first_segment = segment.header.number;
            self.first_segment.store(block.first_segment, Ordering::Relaxed);
            self.write_superblock(&mut block)
        });
        // Nobody must commit to a journal that is of two lineages; whoever opens it next finishes this (R22).
        finished.inspect_err(|_| self.control.poison())
    }

    /// Finishes what whoever was taking another lineage over has left. Holding the writer word.
    pub(crate) fn adopt_take_over(&self, tail: &Tail) -> Result<()> {
        if tail.index.applied() > Lsn::ZERO {
            return Ok(());
        }
        let _guard = self.lock_superblock()?;
        let lineage = tail.index.segment(tail.segment).header.lineage;
        if self.read_superblock()?.lineage == lineage { Ok(()) } else { self.finish_take_over(tail) }
    }
}

/// Reads the next entry at the tail into the index; false if there is none.
pub(crate) fn advance(disk: &dyn Disk, side: &Path, tail: &mut Tail, images: Images) -> Result<bool> {
    loop {
        let segment = Arc::clone(tail.index.segment(tail.segment));
        let Some(checked) = segment.entry(tail.offset, tail.chain)? else { return Ok(false) };
        let header = &checked.header;
        if header.kind == Kind::Seal {
            if enter_next(disk, side, tail, &checked)? {
                continue;
            }
            return Ok(false);
        }
        if !header.kind.has_lsn() || header.range.first != tail.index.applied().next() {
            return Ok(false);
        }
        let others = open_addressed(disk, side, &tail.index, &checked)?;
        if images == Images::Check && !images_are_sound(tail, &checked, &others)? {
            return Ok(false);
        }
        tail.index.push(
            header,
            tail.segment,
            tail.offset,
            checked.rows(),
            |number| others.iter().find(|o| o.0 == number).map_or(tail.segment, |o| o.1),
            images == Images::Check,
        );
        tail.offset = round_up(tail.offset + header.len, crate::format::ENTRY_ALIGN);
        tail.claimed = tail.claimed.max(header.durable);
        tail.chain = checked.record.chain;
        return Ok(true);
    }
}

/// Opens the segments that an entry's rows address beside its own: (number, ordinal).
pub(crate) fn open_addressed(
    disk: &dyn Disk,
    side: &Path,
    index: &Index,
    checked: &Checked,
) -> Result<Vec<(u32, u32)>> {
    let mut opened: Vec<(u32, u32)> = Vec::new();
    for row in checked.rows().filter(|row| row.segment != 0) {
        if opened.iter().any(|o| o.0 == row.segment) {
            continue;
        }
        let known = index.segments().position(|s| s.header.number == row.segment);
        let ordinal = match known {
            Some(ordinal) => ordinal as u32,
            None => {
                let path = side.join(Name::Segment(row.segment).to_string());
                index.push_segment(Arc::new(Segment::open(disk, path, How::Write)?))
            }
        };
        opened.push((row.segment, ordinal));
    }
    Ok(opened)
}

pub(crate) fn images_are_sound(tail: &Tail, checked: &Checked, others: &[(u32, u32)]) -> Result<bool> {
    let page_size = checked.header.state.page_size as usize;
    for row in checked.rows() {
        let ordinal = others.iter().find(|o| o.0 == row.segment).map_or(tail.segment, |o| o.1);
        if !tail.index.segment(ordinal).image_is_sound(&row, page_size)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Moves the tail into the next segment if the present one is sealed here.
pub(crate) fn follow_seal(disk: &dyn Disk, side: &Path, tail: &mut Tail) -> Result<bool> {
    let segment = Arc::clone(tail.index.segment(tail.segment));
    let Some(checked) = segment.entry(tail.offset, tail.chain)? else { return Ok(false) };
    if checked.header.kind == Kind::Seal { enter_next(disk, side, tail, &checked) } else { Ok(false) }
}

/// Moves the tail to where a seal leads; false if it isn't the seal of what was read so far.
///
/// # Errors
/// `Missing` if the segment isn't there.
fn enter_next(disk: &dyn Disk, side: &Path, tail: &mut Tail, checked: &Checked) -> Result<bool> {
    if checked.header.kind != Kind::Seal || checked.header.range.last != tail.index.applied() {
        return Ok(false);
    }
    let Some((number, chain)) = sealed_to(&checked.table) else { return Ok(false) };
    // Each segment gets a number of its own, so a seal that leads back is none of this journal's; whoever followed it
    // would go round for ever.
    if tail.index.has_segment(number) {
        return Ok(false);
    }
    let expected = SegmentHeader {
        kind: SegmentKind::Journal,
        lineage: tail.index.segment(tail.segment).header.lineage,
        number,
        first: tail.index.applied().next(),
        chain,
        time: checked.header.state.time,
        durable: Lsn::ZERO,
    };
    let next = Segment::open_next(disk, side.join(Name::Segment(number).to_string()), expected)?;
    tail.chain = next.header.chain;
    tail.segment = tail.index.push_segment(Arc::new(next));
    tail.offset = SEGMENT_HEADER_LEN as u64;
    Ok(true)
}
