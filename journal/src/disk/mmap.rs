//! Shared file mappings, futexes and the fork hook: with [`warm`](super::warm) the only `unsafe` code of this crate.
//!
//! ```text
//!   Windows      a file's bytes, mapped piece by piece: File::slice
//!   SharedWords  an array of atomics that all processes see: Disk::words
//!   at_fork      registration of handlers with the C library
//! ```
//!
//! What no code can prevent: somebody else who shortens a file below a mapped byte that is then
//! touched, or a medium that fails to deliver it, ends the process with SIGBUS. The contracts of
//! [`File`](super::File) exclude the first. The invariants that the blocks below rely on:
//!
//! 1. A mapping lives, at one address, as long as the `Windows` or `SharedWords` that owns it.
//! 2. `known` never exceeds the file's length, unless others shorten it: it only grows from `fstat`
//!    and only under `resize`, and is lowered, under `resize`, before the file is.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use memmap2::{MmapOptions, MmapRaw};
use parking_lot::Mutex;

use super::SLICE_SLACK;

/// Granularity in bytes at which the end of a file is readable through a mapping. Some machines
/// have larger memory pages; the smallest is safe for all.
pub(super) const MEMORY_PAGE: u64 = 4096;

/// A window is mapped this many bytes into the next, so that a slice as long as the largest page
/// never falls between two.
const OVERLAP: u64 = 65536 + MEMORY_PAGE;

/// Windows in a group, and groups in a file: 64 GiB in windows of 16 MiB, 4 TiB in those of 1 GiB.
/// What lies beyond is read and written by system calls.
const FANOUT: usize = 64;

type Group = Box<[OnceLock<Option<MmapRaw>>; FANOUT]>;

/// The mapped windows of one file. Lookups take no lock and make no system call.
pub(super) struct Windows {
    /// Bytes from one window's start to the next's, a power of two; `None` if this file isn't to be
    /// mapped.
    size: Option<NonZeroU64>,
    /// Length of the file in bytes when it was last asked for (invariant 2).
    known: AtomicU64,
    /// Bytes from the start that are reserved. Held while the length changes or is learned.
    resize: Mutex<Reserved>,
    /// Empty until used; a window that couldn't be mapped stays `None`.
    groups: [OnceLock<Group>; FANOUT],
}

#[derive(Default)]
struct Reserved {
    /// Bytes from the start that `fallocate` has reserved for us.
    bytes: u64,
    /// True once the file system has said that it can't.
    unsupported: bool,
}

impl Windows {
    /// Windows of `size` bytes, a power of two of [`MEMORY_PAGE`] or more; with `None` nothing is
    /// ever mapped.
    pub(super) fn new(size: Option<NonZeroU64>) -> Windows {
        if let Some(size) = size {
            assert!(size.is_power_of_two() && size.get() >= MEMORY_PAGE, "windows start at memory pages");
        }
        Windows {
            size,
            known: AtomicU64::new(0),
            resize: Mutex::new(Reserved::default()),
            groups: [const { OnceLock::new() }; FANOUT],
        }
    }

    /// The bytes `offset..offset + len`, with [`SLICE_SLACK`] readable bytes behind. `None` if they
    /// or the slack reach past the memory page that holds the end of the file, if they don't fit
    /// in a window, or if there is none. The caller answers for what [`File::slice`] asks.
    ///
    /// [`File::slice`]: super::File::slice
    #[inline]
    pub(super) fn slice(&self, file: &File, offset: u64, len: usize) -> Option<&[u8]> {
        let size = self.size?;
        let end = offset.checked_add(len as u64)?.checked_add(SLICE_SLACK as u64)?;
        if end > readable(self.known.load(Ordering::Acquire)) && !self.learn(file, end) {
            return None;
        }
        let (map, at) = self.window(size, file, offset, end)?;
        // SAFETY: `window` has checked that `at + len + SLICE_SLACK` lies in the mapping, which
        // lives as long as `self` (1). All of it is in memory pages that the file reaches (2), so
        // it is readable. Nobody writes these bytes while the slice lives: the caller's promise.
        Some(unsafe { std::slice::from_raw_parts(map.as_ptr().add(at), len) })
    }

    /// Reserves space up to `len` bytes, and lengthens the file to that. On a file system that
    /// can't reserve it only lengthens.
    pub(super) fn allocate(&self, file: &File, len: u64) -> io::Result<()> {
        let mut reserved = self.resize.lock();
        if len <= reserved.bytes {
            return Ok(());
        }
        if !reserved.unsupported {
            if fallocate(file, reserved.bytes, len - reserved.bytes)? {
                reserved.bytes = len;
                return Ok(());
            }
            reserved.unsupported = true;
        }
        if file.metadata()?.len() < len {
            file.set_len(len)?;
        }
        Ok(())
    }

    /// True if the first `len` bytes, which are reserved for that, can be written through a mapping: on a
    /// file system that overwrites in place, no page of them can fail to find space.
    pub(super) fn can_be_written(&self, file: &File, len: u64) -> bool {
        let reserved =
            self.size.is_some() && self.allocate(file, len).is_ok() && len <= self.resize.lock().bytes;
        reserved && overwrites_in_place(file)
    }

    /// Sets the length of the file in bytes.
    pub(super) fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        let mut reserved = self.resize.lock();
        // The marks first: after the call they would promise pages that are gone.
        self.known.fetch_min(len, Ordering::AcqRel);
        reserved.bytes = reserved.bytes.min(len);
        file.set_len(len)
    }

    /// Asks for the length again; true if `end` is readable now.
    #[cold]
    fn learn(&self, file: &File, end: u64) -> bool {
        let _resize = self.resize.lock();
        let Ok(metadata) = file.metadata() else {
            return false;
        };
        self.known.store(metadata.len(), Ordering::Release);
        end <= readable(metadata.len())
    }

    /// The mapping that holds `offset..end`, and where in it `offset` is.
    #[inline]
    fn window(&self, size: NonZeroU64, file: &File, offset: u64, end: u64) -> Option<(&MmapRaw, usize)> {
        let index = offset >> size.trailing_zeros();
        let start = index << size.trailing_zeros();
        if end - start > size.get() + OVERLAP {
            return None;
        }
        let index = usize::try_from(index).ok()?;
        let group = self.groups.get(index / FANOUT)?;
        let group = group.get_or_init(|| Box::new([const { OnceLock::new() }; FANOUT]));
        let map = group[index % FANOUT].get_or_init(|| self.map(size, file, start)).as_ref()?;
        Some((map, (offset - start) as usize))
    }

    /// Maps one window in full, whatever the file's length: what is beyond its end becomes
    /// readable when the file grows.
    #[cold]
    fn map(&self, size: NonZeroU64, file: &File, start: u64) -> Option<MmapRaw> {
        let len = usize::try_from(size.get() + OVERLAP).ok()?;
        mapping::to_read(file, start, len).ok()
    }
}

#[cfg(not(miri))]
pub(super) mod mapping {
    use super::{File, MmapOptions, MmapRaw, io};

    /// The `len` bytes of a file from `start` on, whatever its length.
    pub(super) fn to_read(file: &File, start: u64, len: usize) -> io::Result<MmapRaw> {
        MmapOptions::new().offset(start).len(len).map_raw_read_only(file)
    }

    /// The same, to write as well.
    pub(in super::super) fn to_write(file: &File, start: u64, len: usize) -> io::Result<MmapRaw> {
        MmapOptions::new().offset(start).len(len).map_raw(file)
    }
}

/// Miri maps no files: what the file holds now, in memory of its own.
#[cfg(miri)]
pub(super) mod mapping {
    use std::os::unix::fs::FileExt;

    use super::{File, MmapOptions, MmapRaw, io};

    pub(super) fn to_read(file: &File, start: u64, len: usize) -> io::Result<MmapRaw> {
        let mut map = MmapOptions::new().len(len).map_anon()?;
        let mut done = 0;
        // Miri cuts reads short now and then, as systems may.
        loop {
            match file.read_at(&mut map[done..], start + done as u64)? {
                0 => return Ok(map.into()),
                count => done += count,
            }
        }
    }

    pub(in super::super) fn to_write(file: &File, start: u64, len: usize) -> io::Result<MmapRaw> {
        to_read(file, start, len)
    }
}

/// Bytes that can be read through a mapping of a file of `len` bytes.
#[inline]
fn readable(len: u64) -> u64 {
    len.checked_next_multiple_of(MEMORY_PAGE).unwrap_or(len)
}

/// Reserves `len` bytes at `offset`; false if the file system can't.
#[cfg(target_os = "linux")]
fn fallocate(file: &File, offset: u64, len: u64) -> io::Result<bool> {
    use nix::errno::Errno;
    use nix::fcntl::FallocateFlags;

    let too_big = |_| io::Error::from(io::ErrorKind::FileTooLarge);
    let (offset, len) =
        (libc::off_t::try_from(offset).map_err(too_big)?, libc::off_t::try_from(len).map_err(too_big)?);
    loop {
        match nix::fcntl::fallocate(file, FallocateFlags::empty(), offset, len) {
            Ok(()) => return Ok(true),
            Err(Errno::EINTR) => {}
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn fallocate(_file: &File, _offset: u64, _len: u64) -> io::Result<bool> {
    Ok(false)
}

/// Begins to write a file's bytes to the disk, without waiting for them.
#[cfg(target_os = "linux")]
pub(super) fn begin_sync(file: &File) {
    use std::os::fd::AsRawFd;

    // SAFETY: the descriptor is open for as long as `file` is borrowed; no memory is passed. A failure
    // is one that the sync later reports.
    unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
}

#[cfg(not(target_os = "linux"))]
pub(super) fn begin_sync(_file: &File) {}

/// True for file systems where a block, once reserved, is overwritten where it is. One that copies
/// on write may find the disk full at any page, which a mapping answers with SIGBUS; so may XFS
/// after a copy that shares extents, and nobody knows what is below an overlay.
#[cfg(target_os = "linux")]
fn overwrites_in_place(file: &File) -> bool {
    use nix::sys::statfs;

    statfs::fstatfs(file).is_ok_and(|fs| {
        // ext2, ext3 and ext4 share one number.
        let kind = fs.filesystem_type();
        kind == statfs::EXT4_SUPER_MAGIC || kind == statfs::TMPFS_MAGIC
    })
}

#[cfg(not(target_os = "linux"))]
fn overwrites_in_place(_file: &File) -> bool {
    false
}

/// Words at the start of a file, shared by all who map it, in the machine's own byte order.
pub(super) struct SharedWords {
    map: MmapRaw,
    count: usize,
}

impl SharedWords {
    /// Maps the first `count` words of `file`, which is opened for writing and holds them.
    pub(super) fn map(file: &File, count: usize) -> io::Result<SharedWords> {
        let bytes = count.checked_mul(size_of::<AtomicU64>());
        let bytes = bytes.ok_or(io::ErrorKind::InvalidInput)?;
        let map = mapping::to_write(file, 0, bytes)?;
        assert!(map.as_ptr().cast::<AtomicU64>().is_aligned(), "mappings start at memory pages");
        Ok(SharedWords { map, count })
    }

    /// The words.
    pub(super) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping holds `count` words (`map`), is aligned (asserted there), writable,
        // and lives as long as `self` (1). Everybody reaches these bytes through atomics only, and
        // any bytes are a valid u64. That nobody shortens the file is the contract of Disk::words.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast(), self.count) }
    }

    /// See [`Words::wait`](super::Words::wait).
    pub(super) fn wait(&self, index: usize, expected: u64, timeout: Duration) {
        futex::wait(&self.words()[index], expected, timeout);
    }

    /// See [`Words::wake`](super::Words::wake).
    pub(super) fn wake(&self, index: usize, count: u32) {
        futex::wake(&self.words()[index], count);
    }
}

#[cfg(target_os = "linux")]
mod futex {
    use super::{AtomicU64, Duration};
    use std::sync::atomic::AtomicU32;

    /// The half of a word that the kernel compares.
    fn low_half(word: &AtomicU64) -> *const AtomicU32 {
        let halves: *const AtomicU32 = std::ptr::from_ref(word).cast();
        // Only the pointer is computed: the low half is the second one on a big-endian machine.
        if cfg!(target_endian = "big") { halves.wrapping_add(1) } else { halves }
    }

    pub(super) fn wait(word: &AtomicU64, expected: u64, timeout: Duration) {
        let limit = libc::timespec {
            tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: timeout.subsec_nanos() as libc::c_long,
        };
        // SAFETY: the kernel reads four aligned bytes at an address inside `word`, which is
        // borrowed for the call, and `limit`; it writes to neither. Every outcome (woken, another
        // value, time over, a signal) is a return that the contract allows.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                low_half(word),
                // Not the private kind: sleepers are in other processes too.
                libc::FUTEX_WAIT,
                expected as u32,
                &raw const limit,
            );
        }
    }

    pub(super) fn wake(word: &AtomicU64, count: u32) {
        let count = count.min(i32::MAX as u32);
        // SAFETY: the kernel only uses the address to find the sleepers.
        unsafe { libc::syscall(libc::SYS_futex, low_half(word), libc::FUTEX_WAKE, count) };
    }
}

#[cfg(not(target_os = "linux"))]
mod futex {
    use super::{AtomicU64, Duration};
    use std::sync::atomic::Ordering;

    /// How long a sleeper that nobody can wake sleeps.
    const NAP: Duration = Duration::from_millis(1);

    pub(super) fn wait(word: &AtomicU64, expected: u64, timeout: Duration) {
        if word.load(Ordering::Acquire) as u32 == expected as u32 {
            std::thread::sleep(timeout.min(NAP));
        }
    }

    pub(super) fn wake(_word: &AtomicU64, _count: u32) {}
}

/// Has the C library call `prepare` before each `fork`, then `parent` or `child`. Handlers must not
/// panic, and `child` may do only what a signal handler may.
pub(super) fn at_fork(
    prepare: extern "C" fn(),
    parent: extern "C" fn(),
    child: extern "C" fn(),
) -> io::Result<()> {
    // SAFETY: the handlers are safe functions that live as long as this code is loaded; the C
    // library forgets them when a library that registered them is unloaded.
    match unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) } {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

#[cfg(test)]
mod tests;

/// Shared with the tests, which need to be two processes.
#[cfg(test)]
pub(super) mod testing {
    /// Forks; the child runs `child` and ends with what it returns, without unwinding, atexit
    /// handlers or destructors. The parent gets the child's number.
    pub(crate) fn fork(child: impl FnOnce() -> i32) -> i32 {
        // SAFETY: the child touches only what this thread owns and ends by _exit. glibc makes its
        // allocator usable in the child.
        unsafe {
            match libc::fork() {
                -1 => panic!("fork failed"),
                0 => libc::_exit(std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(99)),
                pid => pid,
            }
        }
    }

    /// Waits for the process `pid` and returns its exit code, or -1 if a signal ended it.
    pub(crate) fn wait(pid: i32) -> i32 {
        let mut status = 0;
        // SAFETY: `status` is ours and the call only writes it.
        let got = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        assert_eq!(got, pid);
        if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -1 }
    }
}
