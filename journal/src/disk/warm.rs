//! Writing to a file without a system call.
//!
//! The first touch of a mapped page after its file was synced is a fault, which costs more than a `pwrite` does; so
//! whoever has the time takes these faults beforehand, in one call. Before a sync the mapping goes: the kernel protects
//! each page that it writes to the disk, and interrupts every processor for each that is mapped for writing.
#![allow(unsafe_code)]

use std::fs::File;
use std::ptr;

use memmap2::{Advice, MmapOptions, MmapRaw};
use parking_lot::RwLock;

/// A file's bytes while they are ready to be written; nothing else of the time.
///
/// Invariants: the file reaches as far as the mapping, and its blocks are reserved and overwritten in place, so that no
/// page of it can fail to find space. Whoever shortens the file cools it before.
#[derive(Default)]
pub(super) struct Warm(RwLock<Option<MmapRaw>>);

impl Warm {
    /// Makes the first `len` bytes of `file` ready to be written; the caller knows that they are reserved, on a file
    /// system that overwrites in place. Where the kernel can't, nothing happens.
    pub(super) fn up(&self, file: &File, len: u64) {
        let Ok(len) = usize::try_from(len) else { return };
        let Ok(map) = MmapOptions::new().len(len).map_raw(file) else { return };
        if populate(&map) {
            *self.0.write() = Some(map);
        }
    }

    /// Makes writes go through system calls again.
    pub(super) fn cool(&self) {
        // Unmapping takes its time; nobody need wait for it.
        let map = self.0.write().take();
        drop(map);
    }

    /// Copies `buf` to `offset`; false, with nothing done, where that isn't ready.
    #[inline]
    pub(super) fn write(&self, buf: &[u8], offset: u64) -> bool {
        let Some(map) = self.0.try_read() else { return false };
        let Some(map) = &*map else { return false };
        let room = usize::try_from(offset).ok().and_then(|at| Some((at, map.len().checked_sub(at)?)));
        let Some((at, _)) = room.filter(|(_, room)| *room >= buf.len()) else { return false };
        // SAFETY: `at + buf.len()` lies in the mapping, as was checked, and that lives as long as the lock is held. The
        // file has these bytes, and their blocks (invariants). `ptr::copy` allows `buf` to be a slice of the same file.
        unsafe { ptr::copy(buf.as_ptr(), map.as_mut_ptr().add(at), buf.len()) };
        true
    }
}

#[cfg(target_os = "linux")]
fn populate(map: &MmapRaw) -> bool {
    map.advise(Advice::PopulateWrite).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn populate(_map: &MmapRaw) -> bool {
    false
}
