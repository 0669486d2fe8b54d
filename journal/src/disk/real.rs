//! The operating system's disk.
//!
//! ```text
//!   RealDisk ─► RealFile ─┬─ Handle    descriptors, OFD locks; forgotten by a forked child
//!                │        ├─ Windows   mappings to read
//!                │        └─ Warm      a mapping to write (both unsafe inside)
//!                └─ open_kept ─► kept: descriptors that are parked instead of closed
//! ```
//!
//! Reads are slices of mapped windows. Writes to a file that was warmed, and not synced since, are
//! copies into memory; the others are system calls.

mod descriptor;
mod handle;
mod kept;
#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use self::handle::Handle;
use super::mmap::{SharedWords, Windows};
use super::warm::Warm;
use super::{Disk, File, How, Identity, LockKind, Words};

pub use self::descriptor::fork_generation;

/// Bytes of a window of a segment, and of the base.
const WINDOW: u64 = 16 << 20;
const KEPT_WINDOW: u64 = 1 << 30;

/// The files of this machine. All disks are the same one, whatever their settings.
///
/// Folders are created for their owner alone, and files with SQLite's mode, until
/// [`Disk::copy_owner`] says more.
#[derive(Clone, Debug)]
pub struct RealDisk {
    mapping: bool,
    window: u64,
    kept_window: u64,
}

impl RealDisk {
    /// A disk that reads, and where it can writes, through mappings.
    pub fn new() -> RealDisk {
        RealDisk::with_mapping(true)
    }

    /// A disk that, without `mapping`, copies every byte through system calls: [`File::slice`] is
    /// always `None`. [`Disk::words`] are mapped all the same.
    pub fn with_mapping(mapping: bool) -> RealDisk {
        RealDisk { mapping, window: WINDOW, kept_window: KEPT_WINDOW }
    }

    fn file(&self, handle: Arc<Handle>, how: How, kept: bool) -> RealFile {
        let window = if kept { self.kept_window } else { self.window };
        let writable = how != How::Read;
        RealFile {
            windows: Windows::new(NonZeroU64::new(window).filter(|_| self.mapping)),
            handle,
            kept,
            writable,
            warm: Warm::default(),
        }
    }
}

impl Default for RealDisk {
    fn default() -> RealDisk {
        RealDisk::new()
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, how: How) -> io::Result<Arc<dyn File>> {
        let handle = Arc::new(Handle::open(path, how, false)?);
        Ok(Arc::new(self.file(handle, how, false)))
    }

    fn open_kept(&self, path: &Path, how: How) -> io::Result<Arc<dyn File>> {
        let handle = kept::open(path, how)?;
        Ok(Arc::new(self.file(handle, how, true)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn identity(&self, path: &Path) -> io::Result<Option<(u64, u64)>> {
        match fs::metadata(path) {
            Ok(found) => Ok(Some((found.dev(), found.ino()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o700).create(dir)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir(dir)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        match fs::File::open(dir)?.sync_all() {
            // The file system has nothing to sync in a folder.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            result => result,
        }
    }

    fn words(&self, path: &Path, count: usize) -> io::Result<Arc<dyn Words>> {
        let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
        let len = (count as u64).checked_mul(8).ok_or(io::ErrorKind::InvalidInput)?;
        // Reserved, so that storing a word can't find the disk full.
        Windows::new(None).allocate(&file, len)?;
        // The mapping outlives the descriptor. Nobody locks through it.
        Ok(Arc::new(SharedWords::map(&file, count)?))
    }

    fn copy_owner(&self, from: &Path, to: &Path) -> io::Result<()> {
        let copy = fs::metadata(to)?;
        let model = match fs::metadata(from) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            model => model?,
        };
        if (model.uid(), model.gid()) != (copy.uid(), copy.gid()) {
            // Without the right to give it away the group may still be ours to set.
            let given = std::os::unix::fs::chown(to, Some(model.uid()), Some(model.gid()));
            permitted(given.or_else(|_| std::os::unix::fs::chown(to, None, Some(model.gid()))))?;
        }
        let mut mode = model.mode() & 0o777;
        if copy.is_dir() {
            mode |= (mode & 0o444) >> 2;
        }
        if copy.mode() & 0o777 != mode {
            permitted(fs::set_permissions(to, fs::Permissions::from_mode(mode)))?;
        }
        Ok(())
    }
}

/// Success also where the right is missing.
fn permitted(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        result => result,
    }
}

/// True if `path`, which exists, is on a file system that other machines write to as well: they
/// share neither our mapped words nor our locks. (What FUSE mounts can't be told.)
#[cfg(target_os = "linux")]
pub fn is_network(path: &Path) -> io::Result<bool> {
    /// Numbers that statfs(2) gives as `f_type`.
    const NETWORK: [u32; 12] = [
        0x0000_6969, // NFS
        0x0000_517b, // SMB
        0xff53_4d42, // CIFS
        0xfe53_4d42, // SMB 2 and 3
        0x5346_414f, // AFS
        0x6b41_4653, // AFS in the kernel
        0x00c3_6400, // Ceph
        0x7375_7245, // Coda
        0x0000_564c, // NCP
        0x0bd0_0bd0, // Lustre
        0x4750_4653, // GPFS
        0x1983_0326, // BeeGFS
    ];
    let kind = nix::sys::statfs::statfs(path)?.filesystem_type().0 as u32;
    Ok(NETWORK.contains(&kind))
}

/// Elsewhere they aren't told apart yet.
#[cfg(not(target_os = "linux"))]
pub fn is_network(path: &Path) -> io::Result<bool> {
    fs::metadata(path).map(|_| false)
}

/// A file of [`RealDisk`].
struct RealFile {
    windows: Windows,
    handle: Arc<Handle>,
    kept: bool,
    /// False for [`How::Read`], although a parked descriptor may be able to do more.
    writable: bool,
    warm: Warm,
}

impl RealFile {
    /// The file, if it may be written.
    fn writable(&self) -> io::Result<&fs::File> {
        let file = self.handle.data()?;
        if self.writable { Ok(file) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

impl File for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.handle.data()?.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let file = self.handle.data()?;
        let mut done = 0;
        while done < buf.len() {
            match file.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let file = self.writable()?;
        if self.warm.write(buf, offset) { Ok(()) } else { file.write_all_at(buf, offset) }
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.windows.allocate(self.writable()?, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.warm.cool();
        self.windows.set_len(self.writable()?, len)
    }

    fn sync(&self) -> io::Result<()> {
        let file = self.handle.data()?;
        self.warm.cool();
        // Covers what was written through mappings, also those of other processes.
        file.sync_data()
    }

    fn begin_sync(&self) {
        if let Ok(file) = self.handle.data() {
            self.warm.cool();
            super::mmap::begin_sync(file);
        }
    }

    fn warm(&self, range: Range<u64>) {
        let Ok(file) = self.writable() else { return };
        // Reserved by whoever made the file, but not by this process, perhaps.
        if self.windows.can_be_written(file, range.end) {
            self.warm.up(file, range);
        }
    }

    #[inline]
    fn slice(&self, offset: u64, len: usize) -> Option<&[u8]> {
        self.windows.slice(self.handle.data().ok()?, offset, len)
    }

    fn identity(&self) -> io::Result<Identity> {
        let metadata = self.handle.data()?.metadata()?;
        let seconds = u64::try_from(metadata.mtime()).unwrap_or(0);
        Ok(Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
            modified_ns: seconds
                .saturating_mul(1_000_000_000)
                .saturating_add(metadata.mtime_nsec().unsigned_abs()),
            len: metadata.len(),
        })
    }

    fn lock(&self, offset: u64, len: u64, kind: LockKind) -> io::Result<bool> {
        self.handle.lock(offset, len, kind)
    }

    fn unlock(&self, offset: u64, len: u64) -> io::Result<()> {
        self.handle.unlock(offset, len)
    }

    fn locked_by_other(&self, offset: u64, len: u64) -> io::Result<bool> {
        self.handle.locked_by_other(offset, len)
    }
}

impl Drop for RealFile {
    fn drop(&mut self) {
        if self.kept && self.handle.is_ours() {
            kept::park(&self.handle);
        }
    }
}

impl Words for SharedWords {
    fn words(&self) -> &[AtomicU64] {
        SharedWords::words(self)
    }

    fn wait(&self, index: usize, expected: u64, timeout: Duration) {
        SharedWords::wait(self, index, expected, timeout);
    }

    fn wake(&self, index: usize, count: u32) {
        SharedWords::wake(self, index, count);
    }
}
