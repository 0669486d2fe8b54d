//! Files whose descriptors outlive their use.
//!
//! POSIX drops every lock that a process has on a file when the process closes *any* descriptor of
//! it. The host may have our base open through stock SQLite, which locks that way, so a descriptor
//! of the base isn't closed while there may be another one. It is parked, and used again.
//!
//! ```text
//!   open_kept ──► in use ──drop──► parked ──open_kept──► in use
//!                                    └── removed, or more than 64; and no other descriptor: closed
//! ```

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use nix::unistd::AccessFlags;
use parking_lot::Mutex;

use super::descriptor::fork_generation;
use super::handle::Handle;
use crate::disk::How;

/// Files that may stay parked although nothing would be lost by closing them.
const PARKED_MAX: usize = 64;

/// A file by device and inode.
type Key = (u64, u64);

struct Kept {
    key: Key,
    handle: Arc<Handle>,
    /// When it was parked, as a count of parkings; `None` while it is used.
    parked: Option<u64>,
}

struct Registry {
    kept: Vec<Kept>,
    parkings: u64,
}

/// One for each generation of forks, because a child may find its parent's locked for good. Whoever
/// is deeper in a chain of forks shares the last.
static REGISTRIES: [Mutex<Registry>; 64] =
    [const { Mutex::new(Registry { kept: Vec::new(), parkings: 0 }) }; 64];

fn registry() -> &'static Mutex<Registry> {
    let generation = usize::try_from(fork_generation()).unwrap_or(usize::MAX);
    &REGISTRIES[generation.min(REGISTRIES.len() - 1)]
}

/// Opens `path` through a parked descriptor if there is one that can do what `how` asks.
pub(super) fn open(path: &Path, how: How) -> io::Result<Arc<Handle>> {
    if how == How::CreateNew {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a new file has no other descriptors"));
    }
    let mut registry = registry().lock();
    if let Ok(metadata) = fs::metadata(path) {
        let key = (metadata.dev(), metadata.ino());
        let idle = registry.kept.iter_mut().find(|kept| {
            kept.parked.is_some()
                && kept.key == key
                && kept.handle.is_ours()
                && (kept.handle.is_writable() || how == How::Read)
        });
        if let Some(kept) = idle {
            // As if it were opened: rights may have been taken away meanwhile.
            let rights =
                if how == How::Read { AccessFlags::R_OK } else { AccessFlags::R_OK | AccessFlags::W_OK };
            nix::unistd::eaccess(path, rights)?;
            kept.parked = None;
            return Ok(kept.handle.clone());
        }
    }
    let handle = Arc::new(Handle::open(path, how, true)?);
    let key = handle.key()?;
    registry.trim();
    registry.kept.push(Kept { key, handle: handle.clone(), parked: None });
    Ok(handle)
}

/// Takes back what [`open`] gave, without any lock on it.
pub(super) fn park(handle: &Arc<Handle>) {
    handle.unlock_all();
    let mut registry = registry().lock();
    registry.parkings += 1;
    let now = registry.parkings;
    if let Some(kept) = registry.kept.iter_mut().find(|kept| Arc::ptr_eq(&kept.handle, handle)) {
        kept.parked = Some(now);
    }
    registry.trim();
}

impl Registry {
    /// Closes, as far as it is safe, what is parked of files that were removed, whose space is free then, and the oldest
    /// beyond [`PARKED_MAX`].
    fn trim(&mut self) {
        // What came down from before a fork holds no descriptor.
        self.kept.retain(|kept| kept.handle.is_ours());
        let mut idle: Vec<(bool, u64, Key)> = self
            .kept
            .iter()
            .filter_map(|kept| {
                let parked = kept.parked?;
                Some((!kept.handle.is_removed(), parked, kept.key))
            })
            .collect();
        let mut excess = idle.len().saturating_sub(PARKED_MAX);
        idle.sort_unstable();
        if excess == 0 && idle.first().is_none_or(|(there, ..)| *there) {
            return;
        }
        let Ok(open) = descriptors_by_file() else {
            return;
        };
        for (there, _, key) in idle {
            if there && excess == 0 {
                return;
            }
            let parked = self.kept.iter().filter(|kept| kept.key == key && kept.parked.is_some());
            let ours: usize = parked.map(|kept| kept.handle.descriptors()).sum();
            if open.get(&key).copied().unwrap_or(0) == ours {
                let before = self.kept.len();
                self.kept.retain(|kept| kept.key != key);
                excess = excess.saturating_sub(before - self.kept.len());
            }
        }
    }
}

/// How many descriptors this process has of each file that it has open.
fn descriptors_by_file() -> io::Result<HashMap<Key, usize>> {
    let mut open = HashMap::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        // A descriptor may go away meanwhile.
        if let Ok(metadata) = fs::metadata(entry?.path()) {
            *open.entry((metadata.dev(), metadata.ino())).or_insert(0) += 1;
        }
    }
    Ok(open)
}
