//! Opening a store that nobody else has open: the recovery table of FORMAT.md. Each row is cited
//! where it is decided.

use std::sync::Arc;

use crate::control::ControlFile;
use crate::disk::How;
use crate::error::{At, Code, Error, Result};
use crate::format::{EntryHeader, HEADER_LEN, Mark, Name, Superblock};
use crate::hashes::Hashes;
use crate::lsn::Lsn;
use crate::segment::Segment;
use crate::state::{Counters, State, page_size_of, size_of};
use crate::store::{
    Images, Opening, Recovered, Tail, advance, base_header, has_mark, marked_header, read_superblock_slots,
    sync_name, write_superblock,
};

impl Opening<'_> {
    /// Recovers, adopts or begins the store.
    ///
    /// # Errors
    /// As the recovery table says. Nothing is changed then.
    pub fn recover(&self, control: &ControlFile) -> Result<Recovered> {
        let mut header = base_header(self.base)?;
        let mut marked = has_mark(&header);
        // R11, R12, R13: which slot of the superblock counts.
        let Some((mut block, torn)) = read_superblock_slots(self.disk, self.side)? else {
            if marked {
                // R2
                let what = match crate::replace::is_under_way(self.disk, self.path)? {
                    true => {
                        "was being replaced by a clone, which was interrupted; call tide_clone with 'replace' again to finish it"
                    }
                    false => {
                        "is marked as the base of a journal, but its side folder has no superblock; put the side folder back, or restore from a backup"
                    }
                };
                return Err(self.refuse(Code::Missing, what));
            }
            // Files that an interrupted removal left would be taken for this one's.
            self.drop_all()?;
            return self.adopt(None); // R1
        };
        let ours = block.marked.marks(&Mark::of(&header));
        if marked && !ours {
            return Err(self.refuse(Code::Foreign, "is the base of another journal than the one in its side folder; put the folder back that belongs to it")); // R3
        }

        let lazy = self.lazy(&block)?; // R23
        if let Some(lazy) = lazy.filter(|_| !marked) {
            let len = self.base.len().at(|| format!("reading {}", self.path.display()))?;
            let nothing = header.iter().all(|&b| b == 0) && len <= 512;
            if nothing && lazy.present.count_absent(&block.base)? == block.base.pages() {
                // R24: the clone was only just begun, and lacks nothing but its mark.
                header = marked_header(&block.marked);
                let written = self.base.write_at(&header, 0).and_then(|()| self.base.sync());
                written.at(|| format!("marking {}", self.path.display()))?;
                marked = true;
            }
        }
        if block.lazy && !marked {
            return Err(self.refuse(Code::Diverged, "was replaced while it was a lazy clone, of which pages lie elsewhere; put the file back that belongs to the side folder, or clone it again, into another place")); // R23
        }

        // R13, R14: segments that are missing, damaged or newer. R16: a seal with nothing behind.
        let here = || format!("reading {}", self.path.display());
        let mut len = self.base.len().at(here)?;
        let resting = !marked && is_at_rest(&block, len, &header);
        if resting && Mark::of(&header) != block.rest && !self.knows_first_page(&block)? {
            return Err(self.refuse(Code::Damaged, "has another size in its header, though no change counter has moved; restore from a backup, or move the side folder away to go on with this file alone")); // R6
        }
        let settled = !torn && control.settled() == block.stamp();
        let rest = if resting && settled { self.leave_history(&block)? } else { None };
        let (mut tail, left) = match rest {
            Some((tail, largest)) => (tail, Some(largest)),
            None => (self.start(&block)?, None),
        };
        let diverged = || {
            self.refuse(Code::Diverged, "was replaced while its journal was ahead of it; put the file back that belongs to the side folder, or move the side folder away to go on with this file alone")
        };
        let mut known_durable = block.durable;
        while tail.index.applied() < block.durable && advance(self.disk, self.side, &mut tail, Images::Trust)?
        {
        }
        if tail.index.segment(tail.segment).entry(tail.offset, tail.chain)?.is_some() {
            // What an entry says was on the disk before it must be whole, whatever the power did.
            let mut ahead = self.start(&block)?;
            loop {
                match advance(self.disk, self.side, &mut ahead, Images::Trust) {
                    Ok(true) => {}
                    Ok(false) => break,
                    // An entry that an earlier recovery found torn may go on in a segment that it removed.
                    Err(e) if e.code() == Code::Missing => break,
                    Err(e) => return Err(e),
                }
            }
            known_durable = known_durable.max(ahead.claimed.min(ahead.index.applied()));
        }
        loop {
            let known = tail.index.applied() < known_durable;
            if !advance(self.disk, self.side, &mut tail, if known { Images::Trust } else { Images::Check })? {
                // R8: what lies behind is an earlier life, or was torn; or it is R10: prepared.
                if !marked && tail.index.applied() > block.base.lsn {
                    return Err(diverged()); // R4, before anything is changed
                }
                // Whoever prepares has marked the base before, and whoever takes the mark off has decided.
                if !marked || !crate::prepared::resolve(self.disk, self.path, self.side, &mut tail)? {
                    break;
                }
            }
        }
        let head = tail.index.applied();
        // The base's entries were there before it, and those that history was given up for.
        let durable = block.durable.max(block.base.lsn).max(block.history);
        // What is said behind a damaged place counts as well.
        let durable = match marked {
            true => durable.max(self.claimed(&block)?).max(claimed_behind(&tail)?),
            // Who knows of something on the disk has marked the base before. Whatever life it is of: what the next one
            // commits would lie before it, and be taken for too little.
            false
                if !settled && tail.index.segment(tail.segment).claimed_behind(tail.offset, None)? > head =>
            {
                return Err(diverged()); // R4
            }
            false => durable,
        };
        if head < durable {
            return Err(Error::new(
                Code::Damaged,
                format!(
                    "the journal of {} ends at LSN {head}, but LSN {durable} was on the disk; restore from a backup",
                    self.path.display()
                ),
            )); // R7
        }

        if !marked {
            if block.rest_len == 0 && len > 0 && len <= 512 && header.iter().all(|&b| b == 0) {
                // R9: the mark of an empty base lengthened it, and the power went before its bytes.
                self.base.set_len(0).and_then(|()| self.base.sync()).at(here)?;
                (len, header) = (0, Vec::new());
            }
            let at_rest = is_at_rest(&block, len, &header);
            if head > block.base.lsn {
                return Err(diverged()); // R4
            }
            if !at_rest {
                return if len == 0 {
                    self.drop_all()?; // R5
                    self.adopt(None)
                } else {
                    self.adopt(Some((&block, head))) // R6
                };
            }
        }

        // R18 where the base is marked, else R20; then the caller does R21.
        crate::prepared::remove_left_marker(self.disk, self.path)?;
        let last = &tail.index.segment(tail.segment).header;
        let taken_over = head == Lsn::ZERO && last.lineage != block.lineage;
        if taken_over {
            // R22: an empty store was taking another lineage over. What leads to it may be in the page cache only.
            let segment = tail.index.segment(tail.segment);
            let written = segment.file.write_at(&last.encode(), 0);
            written.at(|| format!("writing {}", segment.path.display()))?;
            segment.sync()?;
            block.lineage = last.lineage;
            block.first_segment = last.number;
        }
        for segment in tail.index.segments() {
            segment.restore_header()?; // R14
        }
        self.harden(&mut block, settled && !taken_over, &tail)?; // R15, R25
        let largest = match left {
            Some(largest) => largest,
            None => self.clean(&block, &tail)?, // R16, R17
        };
        Ok(Recovered { block, tail, marked, largest })
    }

    /// The journal's end behind a base at rest, if everything is as the last process to close it leaves it: then
    /// nothing of history need be read. With it, the largest number that a segment has.
    fn leave_history(&self, block: &Superblock) -> Result<Option<(Tail, u32)>> {
        let Some(tail) = self.start_behind_base(block)? else { return Ok(None) };
        if tail.index.segment(tail.segment).entry(tail.offset, tail.chain)?.is_some() {
            return Ok(None);
        }
        let mut largest = 0;
        for name in self.names()? {
            match Name::parse(&name) {
                Some(
                    Name::Spare(..)
                    | Name::NewKept(_)
                    | Name::NewRemotes
                    | Name::Source
                    | Name::NewSource
                    | Name::Present,
                ) => return Ok(None),
                name => largest = largest.max(name.and_then(|name| name.segment()).unwrap_or(0)),
            }
        }
        Ok(Some((tail, largest)))
    }

    /// Names of the files in the side folder.
    fn names(&self) -> Result<Vec<String>> {
        self.disk.list(self.side).at(|| format!("listing {}", self.side.display()))
    }

    /// The largest number that a segment has.
    fn largest(&self) -> Result<u32> {
        Ok(self.names()?.iter().filter_map(|name| Name::parse(name)?.segment()).max().unwrap_or(0))
    }

    /// Newest LSN of which a segment's header says that it was on the disk.
    fn claimed(&self, block: &Superblock) -> Result<Lsn> {
        let mut claimed = Lsn::ZERO;
        for name in self.names()? {
            let Some(Name::Segment(number)) = Name::parse(&name) else { continue };
            match Segment::open(self.disk, self.side.join(&name), How::Read) {
                Ok(segment) if segment.header.number == number && segment.header.lineage == block.lineage => {
                    claimed = claimed.max(segment.header.durable);
                }
                Err(e) if !matches!(e.code(), Code::Damaged | Code::Format) => return Err(e),
                _ => {}
            }
        }
        Ok(claimed)
    }

    /// True if the first page of the base has a hash.
    fn knows_first_page(&self, block: &Superblock) -> Result<bool> {
        let hashes = Hashes::existing(self.disk, self.side, block.base.page_size)?;
        Ok(hashes.map(|hashes| hashes.get(1)).transpose()?.flatten().is_some())
    }

    fn refuse(&self, code: Code, what: &str) -> Error {
        Error::new(code, format!("{} {what}", self.path.display()))
    }

    /// Puts what lies behind the known durable point on the disk, and, unless it is `settled` there, all else that is
    /// built upon: whoever wrote it may have died before it was synced. It is rewritten first, because a failed fsync may
    /// have gone unseen.
    fn harden(&self, block: &mut Superblock, settled: bool, tail: &Tail) -> Result<()> {
        let head = tail.index.applied();
        if settled && head <= block.durable {
            return Ok(());
        }
        rewrite(tail, block.durable.min(head), head)?;
        block.durable = head.max(block.durable);
        let header = base_header(self.base)?;
        let written = self.base.write_at(&header, 0).and_then(|()| self.base.sync());
        written.at(|| format!("writing {}", self.path.display()))?;
        self.disk.sync_dir(self.side).at(|| format!("syncing {}", self.side.display()))?;
        sync_name(self.disk, self.side)?;
        write_superblock(self.disk, self.side, block)
    }

    /// Removes files that nothing needs: left by a process that died while it made or dropped them.
    /// Returns the largest number of a segment that was there.
    pub(crate) fn clean(&self, block: &Superblock, tail: &Tail) -> Result<u32> {
        let mut largest = 0;
        for name in self.names()? {
            let parsed = Name::parse(&name);
            largest = largest.max(parsed.as_ref().and_then(|name| name.segment()).unwrap_or(0));
            let needed = match parsed {
                Some(Name::Segment(n)) => {
                    n == block.first_segment || tail.index.segments().any(|s| s.header.number == n)
                }
                Some(Name::Kept(n)) => crate::kept::is_needed(self.disk, self.side, n, block)?,
                Some(Name::NewKept(_) | Name::Spare(..) | Name::NewRemotes | Name::NewSource) => false,
                Some(Name::Source | Name::Present) => block.lazy,
                _ => true,
            };
            if !needed {
                self.disk.remove(&self.side.join(&name)).at(|| format!("removing {name}"))?;
            }
        }
        Ok(largest)
    }

    /// Forgets the journal of a database that was deleted.
    fn drop_all(&self) -> Result<()> {
        // The superblock goes first: without it the rest means nothing.
        let superblock = Name::Superblock.to_string();
        if self.disk.exists(&self.side.join(&superblock)).at(|| format!("looking for {superblock}"))? {
            self.disk.remove(&self.side.join(&superblock)).at(|| format!("removing {superblock}"))?;
        }
        self.disk.sync_dir(self.side).at(|| format!("syncing {}", self.side.display()))?;
        for name in self.names()? {
            if matches!(
                Name::parse(&name),
                Some(
                    Name::Segment(_)
                        | Name::Kept(_)
                        | Name::NewKept(_)
                        | Name::Spare(..)
                        | Name::Hashes
                        | Name::Incoming
                        | Name::Remotes
                        | Name::NewRemotes
                        | Name::Source
                        | Name::NewSource
                        | Name::Present
                )
            ) {
                self.disk.remove(&self.side.join(&name)).at(|| format!("removing {name}"))?;
            }
        }
        Ok(())
    }

    /// State of the base as stock SQLite left it, as the first LSN of a store.
    ///
    /// # Errors
    /// `NotADatabase`; `Busy` while it is in WAL mode; `Denied` where SQLite could only read it; `Io`.
    pub fn left_by_stock(&self) -> Result<State> {
        let len = self.base.len().at(|| format!("reading {}", self.path.display()))?;
        if len == 0 {
            return Ok(State::default());
        }
        let header = base_header(self.base)?;
        let not_sqlite = || {
            self.refuse(Code::NotADatabase, "isn't a SQLite database; give the path of one, or of nothing")
        };
        if header.len() < 100 || &header[..16] != b"SQLite format 3\0" {
            return Err(not_sqlite()); // R19
        }
        if header[19] > 2 {
            return Err(not_sqlite());
        }
        if header[18] > 2 {
            let what = "is of a format that this SQLite can only read; write it with a newer one";
            return Err(self.refuse(Code::Denied, what));
        }
        if header[18] > 1 || header[19] > 1 {
            let what = "is in WAL mode; close it everywhere, or run PRAGMA journal_mode=DELETE on it in stock SQLite";
            return Err(self.refuse(Code::Busy, what));
        }
        let page_size = page_size_of(&header).ok_or_else(not_sqlite)?;
        let whole = len.div_ceil(page_size as u64);
        let size = size_of(&header).filter(|&size| u64::from(size) <= whole).map_or(whole, u64::from);
        Ok(State {
            lsn: Lsn::new(1),
            id: crate::store::random()?.max(1),
            page_size: page_size as u32,
            size: u32::try_from(size).map_err(|_| not_sqlite())?,
            counters: Counters::of(&header),
            time: self.options.clock.now_ms(),
        })
    }

    /// Makes the base as it is the first LSN of a store, or, if stock SQLite changed it, the next.
    fn adopt(&self, before: Option<(&Superblock, Lsn)>) -> Result<Recovered> {
        let mut state = self.left_by_stock()?;
        let Some((old, head)) = before else {
            return self.begin(self.block_at_rest(crate::store::random_id()?, state)?)?.cleaned(self);
        };
        state.lsn = head.next();
        let mut block = self.block_at_rest(old.lineage, state)?;
        block.sequence = old.sequence;
        block.retention = old.retention;
        // None that is there: until the new superblock is on the disk, the old one counts.
        block.first_segment = 1 + self.largest()?;
        let hashes = self.side.join(Name::Hashes.to_string());
        if self.disk.exists(&hashes).at(|| "looking for hashes".into())? {
            // They are those of the base as it was.
            self.disk.remove(&hashes).at(|| "removing hashes".into())?;
            self.disk.sync_dir(self.side).at(|| format!("syncing {}", self.side.display()))?;
        }
        self.begin(block)?.cleaned(self)
    }
}

/// Newest LSN of which an entry behind the end that the journal has says that it was on the disk. It was written under
/// the epoch of the last entry, or of the damaged one whose place the end is, as far as that can still be read.
fn claimed_behind(tail: &Tail) -> Result<Lsn> {
    let mut epochs = Vec::from_iter(damaged_at_end(tail)?.map(|header| EntryHeader::epoch_in(&header)));
    if let Some(last) = tail.index.entry_count().checked_sub(1) {
        let (segment, offset) = tail.index.header_of(last);
        let mut encoded = [0; HEADER_LEN];
        if tail.index.segment(segment).fill(offset, &mut encoded)? {
            epochs.push(EntryHeader::epoch_in(&encoded));
        }
    }
    tail.index.segment(tail.segment).claimed_behind(tail.offset, Some(&epochs))
}

/// What is in the place of a header at the journal's end, unless that is a whole entry that doesn't go on from the last one:
/// then it isn't one that was damaged, but one of an earlier life.
fn damaged_at_end(tail: &Tail) -> Result<Option<[u8; HEADER_LEN]>> {
    let segment = tail.index.segment(tail.segment);
    let mut encoded = [0; HEADER_LEN];
    if !segment.fill(tail.offset, &mut encoded)? {
        return Ok(None);
    }
    let whole = match EntryHeader::decode(&encoded) {
        // With this one only the images can be at fault.
        Some(header) if header.prev == tail.chain => false,
        Some(header) => segment.entry(tail.offset, header.prev)?.is_some(),
        None => false,
    };
    Ok((!whole).then_some(encoded))
}

/// True if a base that isn't marked is what it was when the last process closed it. Whoever changes it moves a counter;
/// a size that alone is another is damage, of which the page's hash tells.
pub(crate) fn is_at_rest(block: &Superblock, len: u64, header: &[u8]) -> bool {
    let format = header.get(18..20).is_none_or(|versions| versions.iter().all(|&version| version <= 1));
    len == block.rest_len && block.rest.marks(&Mark::of(header)) && format
}

impl Recovered {
    fn cleaned(self, opening: &Opening<'_>) -> Result<Recovered> {
        let largest = opening.clean(&self.block, &self.tail)?;
        Ok(Recovered { largest, ..self })
    }
}

/// Writes the entries behind `durable`, up to `head`, once more, with the seals and headers on the way to them and to where
/// the journal goes on, and syncs their segments.
pub(crate) fn rewrite(tail: &Tail, durable: Lsn, head: Lsn) -> Result<()> {
    let index = &tail.index;
    for entry in index.between(durable, head) {
        let entry = entry?;
        rewrite_bytes(index.segment(entry.segment), entry.offset, entry.len)?;
    }
    let mut unsynced = index.unsynced(durable, head);
    for (sealed, next) in index.seals().filter(|(_, next)| next.header.first > durable) {
        let (at, len) = index.seal_before(sealed, next)?;
        rewrite_bytes(sealed, at, len)?;
        let header = next.file.write_at(&next.header.encode(), 0);
        header.at(|| format!("writing {}", next.path.display()))?;
        for segment in [sealed, next] {
            if !unsynced.iter().any(|other| Arc::ptr_eq(other, segment)) {
                unsynced.push(Arc::clone(segment));
            }
        }
    }
    unsynced.iter().try_for_each(|segment| segment.sync())
}

fn rewrite_bytes(segment: &Segment, from: u64, len: u64) -> Result<()> {
    let (mut at, end) = (from, from + len);
    let mut bytes = vec![0; len.min(1 << 20) as usize];
    while at < end {
        let part = (end - at).min(bytes.len() as u64) as usize;
        segment.read(at, &mut bytes[..part])?;
        segment.file.write_at(&bytes[..part], at).at(|| format!("writing {}", segment.path.display()))?;
        at += part as u64;
    }
    Ok(())
}
