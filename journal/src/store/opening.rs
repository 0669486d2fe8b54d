//! What opening a store takes, whether it is recovered or joined.

use std::path::Path;
use std::sync::Arc;

use crate::control::ControlFile;
use crate::disk::{Disk, File, How};
use crate::error::{At, Code, Error, Result};
use crate::format::{
    Mark, Name, Origin, Retention, SEGMENT_HEADER_LEN, SegmentHeader, SegmentKind, Superblock,
};
use crate::index::Index;
use crate::lsn::Lsn;
use crate::recover::is_at_rest;
use crate::segment::Segment;
use crate::store::superblock::read_durable;
use crate::store::{Options, Tail, base_header, has_mark, random, sync_name, write_superblock};

/// What is known while a store is being opened.
pub(crate) struct Opening<'a> {
    pub disk: &'a dyn Disk,
    pub path: &'a Path,
    pub side: &'a Path,
    pub base: &'a dyn File,
    pub options: &'a Options,
}

/// A store that nobody else has open, recovered.
pub(crate) struct Recovered {
    pub block: Superblock,
    pub tail: Tail,
    pub marked: bool,
    /// The largest number that a segment has had.
    pub largest: u32,
}

impl Recovered {
    /// LSN of the base, and the one up to which it may hold images of a fold that didn't get to its end.
    pub fn folded(&self) -> [Lsn; 2] {
        let base = self.block.base.lsn;
        let target = match self.marked {
            false => base,
            // Before any fold of a lazy clone the superblock says how far.
            true if self.block.lazy => base.max(self.block.history),
            true => base.max(self.tail.index.applied()),
        };
        [base, target]
    }
}

impl Opening<'_> {
    /// The tail at the first entry behind the horizon.
    pub fn start(&self, block: &Superblock) -> Result<Tail> {
        let path = self.side.join(Name::Segment(block.first_segment).to_string());
        let segment = Segment::open(self.disk, path, How::Write)?;
        let header = &segment.header;
        if header.lineage != block.lineage
            || header.number != block.first_segment
            || header.first != block.horizon.lsn.next()
        {
            return Err(Error::new(
                Code::Damaged,
                format!(
                    "{} isn't the segment that the superblock names; restore from a backup",
                    segment.path.display()
                ),
            ));
        }
        let origin = Origin::from_number(block.horizon_origin).unwrap_or(Origin::External);
        let index = Index::new(block.horizon, origin, block.base);
        let chain = segment.header.chain;
        let ordinal = index.push_segment(Arc::new(segment));
        Ok(Tail {
            index: Arc::new(index),
            segment: ordinal,
            offset: SEGMENT_HEADER_LEN as u64,
            chain,
            claimed: Lsn::ZERO,
        })
    }

    /// The tail at the first entry behind the base, without what is before; `None` where that isn't known, or isn't
    /// worth it.
    pub fn start_behind_base(&self, block: &Superblock) -> Result<Option<Tail>> {
        let Some(behind) = block.behind.filter(|behind| behind.lsn == block.base.lsn) else {
            return Ok(None);
        };
        if block.base.lsn == block.horizon.lsn || block.history != block.horizon.lsn {
            return Ok(None);
        }
        let path = self.side.join(Name::Segment(behind.segment).to_string());
        // Whatever is wrong with it, who starts at the horizon finds out.
        let Ok(segment) = Segment::open(self.disk, path, How::Write) else { return Ok(None) };
        let header = &segment.header;
        if header.kind != SegmentKind::Journal
            || header.lineage != block.lineage
            || header.number != behind.segment
            || header.first > behind.lsn.next()
        {
            return Ok(None);
        }
        let index = Index::without_history(block.base);
        let ordinal = index.push_segment(Arc::new(segment));
        Ok(Some(Tail {
            index: Arc::new(index),
            segment: ordinal,
            offset: behind.offset,
            chain: behind.chain,
            claimed: Lsn::ZERO,
        }))
    }

    /// Joins the processes that have the store open: from the base on if that can be, or `whole`.
    pub fn attach(&self, control: &ControlFile, whole: bool) -> Result<(Superblock, Tail)> {
        let mut last = None;
        for _ in 0..16 {
            let block = self.read_superblock(control)?;
            if let Some(tail) = if whole { None } else { self.start_behind_base(&block)? } {
                return Ok((block, tail));
            }
            // A fold may drop the first segment between the two reads; then the superblock moved.
            match self.start(&block) {
                Ok(tail) => return Ok((block, tail)),
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or_else(|| missing_side(self.path, self.side)))
    }

    /// Makes sure that the base is the one that other processes have open. Under the superblock lock.
    ///
    /// # Errors
    /// `Foreign` if it was replaced meanwhile.
    pub fn check_base(&self, control: &ControlFile) -> Result<()> {
        let block = self.read_superblock(control)?;
        let header = base_header(self.base)?;
        let len = self.base.len().at(|| format!("reading {}", self.path.display()))?;
        let is_marked = has_mark(&header) && block.marked.marks(&Mark::of(&header));
        // Whoever marked it may have died before it said so.
        if is_marked || !control.marked() && is_at_rest(&block, len, &header) {
            return Ok(());
        }
        Err(Error::new(
            Code::Foreign,
            format!(
                "{} was moved or replaced while other processes have the database open that was there; close it in them first",
                self.path.display()
            ),
        ))
    }

    fn read_superblock(&self, control: &ControlFile) -> Result<Superblock> {
        read_durable(self.disk, self.side, control)?.ok_or_else(|| missing_side(self.path, self.side))
    }

    /// Makes a new, empty segment and a superblock for a base at LSN `base.lsn` with nothing behind.
    pub fn begin(&self, mut block: Superblock) -> Result<Recovered> {
        let header = SegmentHeader {
            kind: SegmentKind::Journal,
            lineage: block.lineage,
            number: block.first_segment,
            first: block.horizon.lsn.next(),
            chain: random()?,
            time: self.options.clock.now_ms(),
            durable: block.durable,
        };
        let path = self.side.join(Name::Segment(header.number).to_string());
        let segment = Segment::create(self.disk, path, header, self.options.segment_bytes)?;
        self.disk.copy_owner(self.path, &segment.path).at(|| "setting a segment's owner".into())?;
        // The base and the folder may be new, and whoever has made them may be somebody else, or dead.
        sync_name(self.disk, self.side)?;
        write_superblock(self.disk, self.side, &mut block)?;
        let superblock = self.side.join(Name::Superblock.to_string());
        self.disk.copy_owner(self.path, &superblock).at(|| "setting the superblock's owner".into())?;
        let control = self.side.join(Name::Control.to_string());
        self.disk.copy_owner(self.path, &control).at(|| "setting the control file's owner".into())?;
        let tail = self.start(&block)?;
        Ok(Recovered { largest: block.first_segment, block, tail, marked: false })
    }

    /// A superblock for a base of `lineage` that is at rest with `state`.
    pub fn block_at_rest(&self, lineage: [u8; 16], state: crate::state::State) -> Result<Superblock> {
        let header = base_header(self.base)?;
        Ok(Superblock {
            sequence: 0,
            lineage,
            horizon: state,
            horizon_origin: Origin::External as u16,
            first_segment: 1,
            base: state,
            behind: None,
            base_checksum: (state.size == 0).then_some(0),
            rest: Mark::of(&header),
            rest_len: self.base.len().at(|| format!("reading {}", self.path.display()))?,
            marked: Mark::default(),
            durable: state.lsn,
            retention: Retention::Default,
            history: state.lsn,
            lazy: false,
        })
    }
}

pub(super) fn missing_side(path: &Path, side: &Path) -> Error {
    Error::new(
        Code::Missing,
        format!(
            "{} is the base of a journal in {}, which is gone; put that folder back beside it, or restore from a backup",
            path.display(),
            side.display()
        ),
    )
}
