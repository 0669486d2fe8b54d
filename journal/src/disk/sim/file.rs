//! An open file of a simulated process.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::locks::{Owner, Range};
use super::names::Node;
use super::{FaultKind, SimProcess, State, Step, nothing};
use crate::disk::{File, Identity, LockKind};

/// Device number of every simulated file.
pub(super) const DEVICE: u64 = 1;

/// Bytes up to which a write that fails for want of a good disk gets: whole sectors.
const SECTOR: u64 = 512;

pub(super) struct SimFile {
    pub(super) process: SimProcess,
    pub(super) path: Arc<Path>,
    pub(super) node: Arc<Node>,
    pub(super) owner: Owner,
    pub(super) writable: bool,
    /// Writes may be copies into a mapping ([`File::warm`]), as those of segments are; others are system calls.
    pub(super) mapped: bool,
}

impl SimFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }

    fn step(&self, call: &'static str, offset: u64, len: u64) -> Step {
        Step { offset, len, path: self.path.clone(), call, settles: call == "sync" }
    }

    fn range(&self, offset: u64, len: u64) -> io::Result<Range> {
        let end = offset.checked_add(len).filter(|end| len > 0 && i64::try_from(*end - 1).is_ok());
        let end = end.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Range { node: self.node.id, owner: self.owner, process: self.process.id, start: offset, end })
    }

    /// Runs `work` with the disk locked, if the process can still do anything.
    fn alive<T>(&self, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.process.disk.state.lock();
        self.process.life.check()?;
        work(&mut state)
    }
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.alive(|_| Ok(self.node.content.lock().len()))
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.alive(|_| Ok(self.node.read(buf, offset)))
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        let write =
            |state: &State, step, len: u64| self.node.write(step, state.clock, &buf[..len as usize], offset);
        let len = buf.len() as u64;
        self.alive(|state| {
            self.process.step(
                state,
                self.step("write_at", offset, len),
                |state, step| write(state, step, len),
                |state, step, kind, random| {
                    let end = offset + random.below(len + 1);
                    // A signal stops a copy at any byte, a system call between pages at most.
                    let end =
                        if kind == FaultKind::Kill && self.mapped { end } else { end / SECTOR * SECTOR };
                    // The error that it ends with is the fault's.
                    let _ = write(state, step, end.saturating_sub(offset));
                },
            )
        })
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        self.alive(|state| {
            let grow = |state: &mut State, step| {
                let longer = self.node.content.lock().len() < len;
                if longer { self.node.set_len(step, state.clock, len) } else { Ok(()) }
            };
            self.process.step(state, self.step("allocate", 0, len), grow, nothing)
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        self.alive(|state| {
            let set = |state: &mut State, step| self.node.set_len(step, state.clock, len);
            self.process.step(state, self.step("set_len", 0, len), set, nothing)
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.alive(|state| {
            self.process.step(
                state,
                self.step("sync", 0, 0),
                |_, _| {
                    self.node.content.lock().sync();
                    Ok(())
                },
                |_, _, kind, random| {
                    if kind != FaultKind::Kill {
                        let forget = kind == FaultKind::SyncForgets;
                        self.node.content.lock().fail_sync(random, forget);
                    }
                },
            )
        })
    }

    /// Always `None`: what other processes write in place can't be borrowed.
    fn slice(&self, _offset: u64, _len: usize) -> Option<&[u8]> {
        None
    }

    fn identity(&self) -> io::Result<Identity> {
        self.alive(|_| {
            Ok(Identity {
                device: DEVICE,
                inode: self.node.id,
                modified_ns: self.node.modified.load(Ordering::SeqCst),
                len: self.node.content.lock().len(),
            })
        })
    }

    fn lock(&self, offset: u64, len: u64, kind: LockKind) -> io::Result<bool> {
        if kind == LockKind::Write {
            self.check_writable()?;
        }
        let range = self.range(offset, len)?;
        self.alive(|state| Ok(state.locks.take(range, kind)))
    }

    fn unlock(&self, offset: u64, len: u64) -> io::Result<()> {
        let range = self.range(offset, len)?;
        self.alive(|state| {
            state.locks.release(range);
            Ok(())
        })
    }

    fn locked_by_other(&self, offset: u64, len: u64) -> io::Result<bool> {
        let range = self.range(offset, len)?;
        self.alive(|state| Ok(state.locks.taken(range, LockKind::Write)))
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.process.disk.state.lock().locks.release_owner(self.owner);
    }
}
