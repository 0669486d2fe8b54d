//! The bytes of one simulated file: what the page cache shows, what is on the medium, and the
//! changes between the two.

use std::collections::BTreeMap;
use std::io;

use super::random::Random;
use super::survival::{Loss, Survival};

/// Bytes that a medium writes whole or not at all.
const SECTOR: usize = 512;

/// Longest file in bytes. Memory is what this disk is made of.
const LEN_MAX: u64 = 1 << 31;

/// Bytes of a file.
#[derive(Default)]
pub(super) struct Content {
    /// What every process reads.
    cached: Vec<u8>,
    /// What survives for certain.
    synced: Vec<u8>,
    /// Changes since the last sync, oldest first.
    pending: Vec<Pending>,
}

struct Pending {
    step: u64,
    /// Length of the file after it.
    len: usize,
    change: Change,
}

enum Change {
    /// Bytes written, widened to the borders of sectors (or the end of the file), as they were in
    /// the cache after it: that is what the medium gets.
    Write {
        offset: usize,
        bytes: Vec<u8>,
    },
    Length,
}

/// What one sector may hold after a power loss: indexes of changes with the content after each,
/// the first being what was there before any.
struct Versions {
    all: Vec<(Option<usize>, [u8; SECTOR])>,
    /// True once a shrinking took this sector away without surviving itself: what was written
    /// here later went to blocks that nothing refers to.
    orphaned: bool,
}

impl Content {
    /// A file found after a power loss.
    pub(super) fn found(bytes: Vec<u8>) -> Content {
        Content { cached: bytes.clone(), synced: bytes, pending: Vec::new() }
    }

    pub(super) fn len(&self) -> u64 {
        self.cached.len() as u64
    }

    /// Step of the oldest change that isn't synced.
    pub(super) fn oldest_pending(&self) -> Option<u64> {
        self.pending.first().map(|pending| pending.step)
    }

    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let rest = usize::try_from(offset).ok().and_then(|at| self.cached.get(at..)).unwrap_or(&[]);
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        count
    }

    pub(super) fn write(&mut self, step: u64, buf: &[u8], offset: u64) -> io::Result<()> {
        let end = checked_len(offset.saturating_add(buf.len() as u64))?;
        if buf.is_empty() {
            return Ok(());
        }
        let offset = end - buf.len();
        if self.cached.len() < end {
            resize(&mut self.cached, end);
        }
        self.cached[offset..end].copy_from_slice(buf);
        let (start, end) = (sector_start(offset), sector_end(end).min(self.cached.len()));
        let bytes = self.cached[start..end].to_vec();
        self.push(step, Change::Write { offset: start, bytes });
        Ok(())
    }

    pub(super) fn set_len(&mut self, step: u64, len: u64) -> io::Result<()> {
        let len = checked_len(len)?;
        if len != self.cached.len() {
            resize(&mut self.cached, len);
            self.push(step, Change::Length);
        }
        Ok(())
    }

    fn push(&mut self, step: u64, change: Change) {
        self.pending.push(Pending { step, len: self.cached.len(), change });
    }

    /// Everything that is dirty reaches the medium. What an earlier, failed sync has dropped isn't
    /// dirty any more, and doesn't.
    pub(super) fn sync(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let shortest = self.pending.iter().map(|pending| pending.len).min().unwrap_or(usize::MAX);
        let cut = shortest < self.synced.len();
        self.synced.truncate(shortest);
        resize(&mut self.synced, self.cached.len());
        if cut {
            self.clean(shortest, shortest);
        }
        for pending in std::mem::take(&mut self.pending) {
            if let Change::Write { offset, bytes } = pending.change {
                self.clean(offset, offset + bytes.len());
            }
        }
    }

    /// Copies the sectors that hold `start..end` (that of `start`, if that is empty) to the medium.
    fn clean(&mut self, start: usize, end: usize) {
        let start = sector_start(start);
        let end = sector_end(end.max(start + 1)).min(self.cached.len());
        if start < end {
            self.synced[start..end].copy_from_slice(&self.cached[start..end]);
        }
    }

    /// A sync fails: some of what was dirty has reached the medium and some hasn't, and none of it
    /// is dirty any more, so that the next sync finds nothing to do. With `forget` the page cache
    /// drops what it couldn't write.
    pub(super) fn fail_sync(&mut self, random: &mut Random, forget: bool) {
        let loss = Loss { survival: Survival::Mixed.of_file(random), during: None };
        self.synced = self.survivor(loss, random);
        self.pending.clear();
        if forget {
            // The length is kept in memory apart from the pages.
            let len = self.cached.len();
            self.cached.clone_from(&self.synced);
            resize(&mut self.cached, len);
        }
    }

    /// What is on the medium after `loss`.
    pub(super) fn survivor(&self, loss: Loss, random: &mut Random) -> Vec<u8> {
        let survival = loss.survival.of_file(random);
        let torn = self.pending.iter().rposition(|pending| loss.during == Some(pending.step));

        // Lengths are kept by a file system's journal, in order: the first `lengths` changes'.
        let count = self.pending.len();
        let lengths = match survival {
            Survival::Nothing => 0,
            Survival::Everything => count,
            Survival::Scattered | Survival::Mixed => random.below(count as u64 + 1) as usize,
            Survival::Before(end) => self.pending.iter().filter(|pending| pending.step < end).count(),
        };
        // What is under way when the power goes is never certain to survive.
        let lengths = match torn {
            Some(torn) if lengths > torn && random.coin() => torn,
            _ => lengths,
        };
        let (sectors, len) = self.versions(lengths);

        // A torn write leaves its beginning, or any of its sectors.
        let reached = torn.filter(|_| random.coin()).map(|torn| match &self.pending[torn].change {
            Change::Write { offset, bytes } => {
                (offset + random.below(bytes.len() as u64 + 1) as usize) / SECTOR
            }
            Change::Length => 0,
        });
        let mut bytes = self.synced.clone();
        resize(&mut bytes, len);
        for (sector, versions) in sectors {
            let all = &versions.all;
            let newest = all.len() - 1;
            let mut chosen = match survival {
                Survival::Nothing => 0,
                Survival::Everything => newest,
                Survival::Scattered | Survival::Mixed => random.below(all.len() as u64) as usize,
                Survival::Before(end) => {
                    let before = |index: Option<usize>| index.is_none_or(|i| self.pending[i].step < end);
                    all.iter().rposition(|(index, _)| before(*index)).unwrap_or(0)
                }
            };
            if chosen > 0 && torn.is_some() && all[chosen].0 == torn {
                let kept = reached.map_or_else(|| random.coin(), |reached| sector < reached);
                chosen -= usize::from(!kept);
            }
            let start = sector * SECTOR;
            let end = (start + SECTOR).min(len);
            if start < end {
                bytes[start..end].copy_from_slice(&all[chosen].1[..end - start]);
            }
        }
        bytes
    }

    /// The versions of every changed sector, and the file's length, if the lengths that the first
    /// `lengths` changes set survive.
    fn versions(&self, lengths: usize) -> (BTreeMap<usize, Versions>, usize) {
        let mut sectors: BTreeMap<usize, Versions> = BTreeMap::new();
        let mut len = self.synced.len();
        for (index, pending) in self.pending.iter().enumerate() {
            match &pending.change {
                Change::Write { offset, bytes } => {
                    for (nth, piece) in bytes.chunks(SECTOR).enumerate() {
                        let versions = self.sector(&mut sectors, offset / SECTOR + nth);
                        if !versions.orphaned {
                            let mut next = [0; SECTOR];
                            next[..piece.len()].copy_from_slice(piece);
                            versions.all.push((Some(index), next));
                        }
                    }
                }
                Change::Length => {
                    for sector in pending.len / SECTOR..len.div_ceil(SECTOR) {
                        let versions = self.sector(&mut sectors, sector);
                        if index >= lengths {
                            versions.orphaned = true;
                            continue;
                        }
                        // Cut off: whatever is there later starts as zeros.
                        let keep = pending.len.saturating_sub(sector * SECTOR).min(SECTOR);
                        versions.all.iter_mut().for_each(|(_, bytes)| bytes[keep..].fill(0));
                        if keep == 0 {
                            versions.all.drain(1..);
                        }
                    }
                }
            }
            len = pending.len;
        }
        let surviving = lengths.checked_sub(1).map_or(self.synced.len(), |last| self.pending[last].len);
        (sectors, surviving)
    }

    fn sector<'a>(&self, sectors: &'a mut BTreeMap<usize, Versions>, sector: usize) -> &'a mut Versions {
        sectors.entry(sector).or_insert_with(|| {
            let mut synced = [0; SECTOR];
            let start = (sector * SECTOR).min(self.synced.len());
            let end = (start + SECTOR).min(self.synced.len());
            synced[..end - start].copy_from_slice(&self.synced[start..end]);
            Versions { all: vec![(None, synced)], orphaned: false }
        })
    }
}

/// Gives the bytes this length, with zeros behind. As copies, and not byte by byte: miri interprets each.
fn resize(bytes: &mut Vec<u8>, len: usize) {
    match len.checked_sub(bytes.len()) {
        Some(more) => bytes.extend_from_slice(&vec![0; more]),
        None => bytes.truncate(len),
    }
}

fn sector_start(offset: usize) -> usize {
    offset / SECTOR * SECTOR
}

fn sector_end(offset: usize) -> usize {
    offset.next_multiple_of(SECTOR)
}

fn checked_len(len: u64) -> io::Result<usize> {
    if len > LEN_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge.into())
}
