//! What is open for one file: a descriptor for its bytes and, once it locks, another for its locks.
//!
//! Two, because a mapping keeps the open file that it was made from, and with it that file's locks,
//! for as long as it is mapped anywhere, a forked child included (`descriptor.rs`).

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use parking_lot::Mutex;

use super::descriptor::Descriptor;
use crate::disk::{How, LockKind};

/// Mode of a new file before [`Disk::copy_owner`](crate::disk::Disk::copy_owner): SQLite's.
const NEW_FILE_MODE: u32 = 0o644;

/// An open file's descriptors.
pub(super) struct Handle {
    data: Descriptor,
    lock: OnceLock<Descriptor>,
    /// Held while `lock` is opened.
    locking: Mutex<()>,
    path: PathBuf,
    writable: bool,
    kept: bool,
}

impl Handle {
    /// Opens `path`. A `kept` one never closes a descriptor of its own accord.
    pub(super) fn open(path: &Path, how: How, kept: bool) -> io::Result<Handle> {
        let writable = how != How::Read;
        let mut options = OpenOptions::new();
        options.read(true).write(writable).mode(NEW_FILE_MODE);
        options.create(how == How::Create).create_new(how == How::CreateNew);
        let data = Descriptor::open(&options, path)?;
        // The system itself opens no folder for writing.
        if !writable && data.file()?.metadata()?.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Ok(Handle {
            data,
            lock: OnceLock::new(),
            locking: Mutex::new(()),
            path: path.to_owned(),
            writable,
            kept,
        })
    }

    /// The file, for its bytes; an error in a forked child.
    #[inline]
    pub(super) fn data(&self) -> io::Result<&File> {
        self.data.file()
    }

    /// False in a child of the process that opened it.
    #[inline]
    pub(super) fn is_ours(&self) -> bool {
        self.data.is_ours()
    }

    /// True if it was opened for writing.
    pub(super) fn is_writable(&self) -> bool {
        self.writable
    }

    /// Device and inode numbers.
    pub(super) fn key(&self) -> io::Result<(u64, u64)> {
        let metadata = self.data()?.metadata()?;
        Ok((metadata.dev(), metadata.ino()))
    }

    /// True if it has no name any more.
    pub(super) fn is_removed(&self) -> bool {
        self.data().and_then(File::metadata).is_ok_and(|metadata| metadata.nlink() == 0)
    }

    /// How many descriptors of the process this is.
    pub(super) fn descriptors(&self) -> usize {
        1 + usize::from(self.lock.get().is_some())
    }

    /// See [`File::lock`](crate::disk::File::lock).
    pub(super) fn lock(&self, offset: u64, len: u64, kind: LockKind) -> io::Result<bool> {
        ofd::set(self.lock_file()?, range(offset, len)?, kind)
    }

    /// See [`File::unlock`](crate::disk::File::unlock).
    pub(super) fn unlock(&self, offset: u64, len: u64) -> io::Result<()> {
        let range = range(offset, len)?;
        match self.lock.get() {
            Some(lock) => ofd::clear(lock.file()?, range),
            // It can't have a lock.
            None => self.data().map(drop),
        }
    }

    /// See [`File::locked_by_other`](crate::disk::File::locked_by_other).
    pub(super) fn locked_by_other(&self, offset: u64, len: u64) -> io::Result<bool> {
        let range = range(offset, len)?;
        // Asked through the descriptor that has our own locks, which don't count.
        let asking = self.lock.get().unwrap_or(&self.data);
        ofd::is_taken(asking.file()?, range)
    }

    /// Gives up every lock. Closing wouldn't do it while a process that is about to exec still has
    /// a copy of the descriptor.
    pub(super) fn unlock_all(&self) {
        if let Some(lock) = self.lock.get()
            && let Ok(file) = lock.file()
        {
            // Nothing to be done about a failure; there is no documented one.
            let _ = ofd::clear(file, (0, 0));
        }
    }

    fn lock_file(&self) -> io::Result<&File> {
        if let Some(lock) = self.lock.get() {
            return lock.file();
        }
        // Not in the child: the mutex may have been copied locked.
        let data = self.data()?;
        let _locking = self.locking.lock();
        if self.lock.get().is_none() {
            let again = self.open_again(data)?;
            // `locking` makes this the only one.
            let _ = self.lock.set(again);
        }
        self.lock.get().map_or_else(|| self.data(), Descriptor::file)
    }

    /// Opens the same file, not necessarily at the same path, a second time.
    fn open_again(&self, data: &File) -> io::Result<Descriptor> {
        let mut options = OpenOptions::new();
        options.read(true).write(self.writable);
        let discard = |descriptor| {
            if self.kept {
                std::mem::forget(descriptor);
            }
        };
        if cfg!(target_os = "linux") {
            let link = format!("/proc/self/fd/{}", data.as_raw_fd());
            if let Ok(again) = Descriptor::open_alone(&options, Path::new(&link), discard) {
                return Ok(again);
            }
        }
        // Without /proc only the path is left, which may lead elsewhere by now.
        let again = Descriptor::open_alone(&options, &self.path, discard)?;
        let (old, new) = (data.metadata()?, again.file()?.metadata()?);
        if (old.dev(), old.ino()) != (new.dev(), new.ino()) {
            discard(again);
            return Err(io::Error::other("another file has taken the path of the one to be locked"));
        }
        Ok(again)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.unlock_all();
    }
}

/// Start and length for the kernel, which reads a length of 0 as "without end".
type Range = (libc::off_t, libc::off_t);

/// The range to lock, which has an end.
fn range(offset: u64, len: u64) -> io::Result<Range> {
    let start = libc::off_t::try_from(offset).ok();
    let len = libc::off_t::try_from(len).ok().filter(|len| *len > 0);
    match (start, len) {
        (Some(start), Some(len)) if start.checked_add(len - 1).is_some() => Ok((start, len)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a range of bytes that can be locked")),
    }
}

#[cfg(target_os = "linux")]
mod ofd {
    use super::{File, LockKind, Range, io};
    use nix::errno::Errno;
    use nix::fcntl::{FcntlArg, fcntl};

    fn request(kind: i32, (start, len): Range) -> libc::flock {
        libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: start,
            l_len: len,
            // Has to be 0 for this kind of lock.
            l_pid: 0,
        }
    }

    pub(super) fn set(file: &File, range: Range, kind: LockKind) -> io::Result<bool> {
        let kind = match kind {
            LockKind::Read => libc::F_RDLCK,
            LockKind::Write => libc::F_WRLCK,
        };
        match fcntl(file, FcntlArg::F_OFD_SETLK(&request(kind, range))) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    pub(super) fn clear(file: &File, range: Range) -> io::Result<()> {
        fcntl(file, FcntlArg::F_OFD_SETLK(&request(libc::F_UNLCK, range)))?;
        Ok(())
    }

    pub(super) fn is_taken(file: &File, range: Range) -> io::Result<bool> {
        let mut request = request(libc::F_WRLCK, range);
        fcntl(file, FcntlArg::F_OFD_GETLK(&mut request))?;
        Ok(request.l_type != libc::F_UNLCK as libc::c_short)
    }
}

/// Elsewhere there is no such lock that belongs to an open file; nothing is promised that isn't so.
#[cfg(not(target_os = "linux"))]
mod ofd {
    use super::{File, LockKind, Range, io};

    pub(super) fn set(_: &File, _: Range, _: LockKind) -> io::Result<bool> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn clear(_: &File, _: Range) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn is_taken(_: &File, _: Range) -> io::Result<bool> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
