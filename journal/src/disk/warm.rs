//! Writing to a file without a system call.
//!
//! The first touch of a mapped page after its file was synced is a fault, which costs more than a `pwrite` does; so
//! whoever has the time takes these faults beforehand, in one call. Before a sync the mapping goes: the kernel protects
//! each page that it writes to the disk, and interrupts every processor for each that is mapped for writing.
#![allow(unsafe_code)]

use std::fs::File;
use std::ops::Range;
use std::ptr;

use memmap2::MmapRaw;
use parking_lot::RwLock;

use super::mmap::{MEMORY_PAGE, mapping};

/// A file's bytes while they are ready to be written; nothing else of the time.
///
/// Invariants: the file reaches as far as the mappings, and its blocks are reserved and overwritten in place, so that no
/// page of them can fail to find space. Whoever shortens the file cools it before.
#[derive(Default)]
pub(super) struct Warm(RwLock<Vec<Part>>);

/// A mapped part of the file; parts are in order, and don't overlap.
struct Part {
    start: u64,
    map: MmapRaw,
}

impl Part {
    fn end(&self) -> u64 {
        self.start + self.map.len() as u64
    }
}

impl Warm {
    /// Makes the bytes in `range` of `file` ready to be written; the caller knows that they are reserved, on a file system
    /// that overwrites in place. Where the kernel can't, nothing happens.
    pub(super) fn up(&self, file: &File, range: Range<u64>) {
        let mut parts = self.0.write();
        // What is mapped may have reached the disk by itself since it was written, and be protected again.
        for part in parts.iter().filter(|part| part.start < range.end && range.start < part.end()) {
            populate(&part.map);
        }
        let start = range.start.max(parts.last().map_or(0, Part::end)).next_multiple_of(MEMORY_PAGE);
        let Some(len) = range.end.checked_sub(start).filter(|&len| len > 0) else { return };
        let Ok(len) = usize::try_from(len) else { return };
        let Ok(map) = mapping::to_write(file, start, len) else { return };
        if populate(&map) {
            parts.push(Part { start, map });
        }
    }

    /// Makes writes go through system calls again.
    pub(super) fn cool(&self) {
        // Unmapping takes its time; nobody need wait for it.
        let parts = std::mem::take(&mut *self.0.write());
        drop(parts);
    }

    /// Copies `buf` to `offset`; false, with nothing done, where that isn't ready.
    #[inline]
    pub(super) fn write(&self, buf: &[u8], offset: u64) -> bool {
        let (Some(parts), Some(end)) = (self.0.try_read(), offset.checked_add(buf.len() as u64)) else {
            return false;
        };
        let behind = parts.partition_point(|part| part.start <= offset);
        let Some(part) = behind.checked_sub(1).map(|n| &parts[n]).filter(|part| end <= part.end()) else {
            return false;
        };
        // SAFETY: `offset..end` lies in the mapping, as was checked, and that lives as long as the lock is held. The file
        // has these bytes, and their blocks (invariants). `ptr::copy` allows `buf` to be a slice of the same file.
        unsafe {
            ptr::copy(buf.as_ptr(), part.map.as_mut_ptr().add((offset - part.start) as usize), buf.len());
        }
        true
    }
}

#[cfg(all(target_os = "linux", not(miri)))]
fn populate(map: &MmapRaw) -> bool {
    map.advise(memmap2::Advice::PopulateWrite).is_ok()
}

/// Miri's mappings are memory already.
#[cfg(miri)]
fn populate(_map: &MmapRaw) -> bool {
    true
}

#[cfg(not(target_os = "linux"))]
fn populate(_map: &MmapRaw) -> bool {
    false
}
