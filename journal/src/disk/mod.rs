//! The disk: everything the store asks of the place where its files live.
//!
//! ```text
//!            Disk ──open──► File   bytes, fsync, mapped views, byte-range locks
//!              └──words──► Words   64-bit words shared by every process (the control file)
//! ```
//!
//! [`RealDisk`] is the operating system's; [`SimDisk`] is memory that can lose its power at any
//! write or fsync. Nothing else in this crate touches a file.

mod mmap;
mod real;
mod sim;
mod warm;

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

pub use real::{RealDisk, fork_generation, is_network};
pub use sim::{FaultKind, SimDisk, SimProcess};

/// Bytes that are always readable behind a slice that [`File::slice`] returns: SQLite may read
/// that far past a page of a damaged database.
pub const SLICE_SLACK: usize = 256;

/// How [`Disk::open`] opens a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Must exist; opened for reading only.
    Read,
    /// Must exist; opened for reading and writing.
    Write,
    /// Opened for reading and writing, and created empty if it isn't there.
    Create,
    /// Created empty; an existing file is an [`io::ErrorKind::AlreadyExists`].
    CreateNew,
}

/// What identifies a file beside its path. `device` and `inode` are 0 where a disk has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Number of the device that holds the file.
    pub device: u64,
    /// Number of the file on that device.
    pub inode: u64,
    /// Time of the last change, in nanoseconds since 1970.
    pub modified_ns: u64,
    /// Length in bytes.
    pub len: u64,
}

/// Strength of a byte-range lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Excludes [`LockKind::Write`] of others.
    Read,
    /// Excludes every lock of others.
    Write,
}

/// A place for files. Paths are absolute. Errors are those of the operating system.
///
/// A created, renamed or removed name is durable after [`Disk::sync_dir`] of its folder; the bytes
/// of a file after [`File::sync`].
///
/// After `fork`, the child has none of its parent's files: whatever it does with them is an error
/// (and changes no lock), until it opens them again. [`fork_generation`] tells.
pub trait Disk: Send + Sync {
    /// Opens the file at `path`.
    fn open(&self, path: &Path, how: How) -> io::Result<Arc<dyn File>>;

    /// Opens a file that the host process may itself hold open through stock SQLite. POSIX locks
    /// vanish when *any* descriptor of the file is closed, so the descriptor is kept and used
    /// again instead of being closed. `how` may be anything but `CreateNew`.
    fn open_kept(&self, path: &Path, how: How) -> io::Result<Arc<dyn File>>;

    /// Names (not paths) of what is in the folder `dir`, in no particular order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// True if something is at `path`.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Device and inode of the file at `path`, which isn't opened for it; `None` if nothing is there.
    fn identity(&self, path: &Path) -> io::Result<Option<(u64, u64)>>;

    /// Creates the folder `dir`, whose parent exists. One that exists is `AlreadyExists`.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;

    /// Removes the empty folder `dir`.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;

    /// Removes the file at `path`; files that have it open keep their bytes.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Renames a file, replacing what is at `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes names created, renamed and removed in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Maps the first `count` words of the file at `path`, which exists and is lengthened with
    /// zeros as needed, so that all processes see one another's changes. Their content means
    /// nothing after a power loss. Nobody may shorten the file while it is mapped.
    fn words(&self, path: &Path, count: usize) -> io::Result<Arc<dyn Words>>;

    /// Gives the file or folder `to` the owner and mode of the file `from` (a folder gets the
    /// search bits that go with it). Without the right to do so it is left as it is, and where `from`
    /// is gone, too.
    fn copy_owner(&self, from: &Path, to: &Path) -> io::Result<()>;
}

/// An open file.
// Nobody asks whether a file is empty.
#[allow(clippy::len_without_is_empty)]
pub trait File: Send + Sync {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Fills `buf` from `offset`; returns how many bytes there were (fewer only at the end of the
    /// file). Interrupted and short reads are retried.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `buf` at `offset`, lengthening the file as needed.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;

    /// Makes sure that the file is at least `len` bytes long and that writing them can't run out
    /// of space; new bytes read as zero. Never shortens. The caller promises that nobody else
    /// shortens the file below `len` while it writes there, which may go through a mapping.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Sets the length; new bytes read as zero.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes every byte written before, by whomever, and the length, durable.
    fn sync(&self) -> io::Result<()>;

    /// Begins to put what was written on the disk, so that a [`File::sync`] later has less to wait for.
    /// Promises nothing.
    fn begin_sync(&self) {}

    /// Makes writes to these bytes cheap, until the next [`File::sync`], and those to bytes before them that
    /// are cheap already stay so. The caller promises what [`File::allocate`] asks. Takes its time, and
    /// promises nothing.
    fn warm(&self, _range: Range<u64>) {}

    /// The bytes `offset..offset + len` without copying them, with [`SLICE_SLACK`] readable bytes
    /// behind; `None` where this disk can't (the caller reads instead). The caller promises that
    /// the file has these bytes, as far as another process could have cut them off, and that nobody
    /// changes them, nor shortens the file below them, while it holds the slice.
    fn slice(&self, offset: u64, len: usize) -> Option<&[u8]>;

    /// What identifies the file.
    fn identity(&self) -> io::Result<Identity>;

    /// Takes a lock on `len` bytes at `offset`, owned by this open file and not by the process;
    /// false if somebody else's lock is in the way. A second call changes the strength. `len` is
    /// at least 1. Locks end with the file, or with the process.
    fn lock(&self, offset: u64, len: u64, kind: LockKind) -> io::Result<bool>;

    /// Gives up this file's lock on `len` bytes at `offset`.
    fn unlock(&self, offset: u64, len: u64) -> io::Result<()>;

    /// True if another open file holds a lock that a write lock on these bytes would wait for.
    fn locked_by_other(&self, offset: u64, len: u64) -> io::Result<bool>;
}

/// 64-bit words that all processes share.
pub trait Words: Send + Sync {
    /// The words.
    fn words(&self) -> &[AtomicU64];

    /// Sleeps until [`Words::wake`] of the same word or until `timeout`, but not if the low 32 bits
    /// of the word differ from those of `expected` already. May return early.
    fn wait(&self, index: usize, expected: u64, timeout: Duration);

    /// Wakes up to `count` sleepers on a word.
    fn wake(&self, index: usize, count: u32);

    /// Time since a moment that is the same for all processes, for those who wait for a word.
    fn now(&self) -> Duration {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
        now.map_or(Duration::ZERO, Duration::from)
    }

    /// Lets others run for about `time`, before a word or a lock is looked at again.
    fn pause(&self, time: Duration) {
        if time.is_zero() { std::thread::yield_now() } else { std::thread::sleep(time) }
    }
}

/// True if `file` is the one at `path`.
pub(crate) fn is_at(disk: &dyn Disk, file: &dyn File, path: &Path) -> io::Result<bool> {
    let own = file.identity()?;
    Ok(disk.identity(path)? == Some((own.device, own.inode)))
}

/// Makes a file in `folder` durable, of `len` bytes, as `fresh`; it becomes `path` when it is whole. After a crash there is
/// all of it, or what was there before.
pub(crate) fn appear(
    disk: &dyn Disk,
    folder: &Path,
    [fresh, path]: [&Path; 2],
    len: u64,
    fill: impl FnOnce(&dyn File) -> io::Result<()>,
) -> io::Result<()> {
    let file = disk.open(fresh, How::Create)?;
    // What an interrupted one may have left isn't worth keeping.
    file.set_len(0)?;
    file.allocate(len)?;
    fill(&*file)?;
    file.sync()?;
    disk.rename(fresh, path)?;
    disk.sync_dir(folder)
}

/// The path that the bytes of a name stand for; `None` where the system has no such path.
pub fn path_from(bytes: &[u8]) -> Option<&Path> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        Some(Path::new(std::ffi::OsStr::from_bytes(bytes)))
    }
    #[cfg(not(unix))]
    {
        std::str::from_utf8(bytes).ok().map(Path::new)
    }
}
