//! Whether the files that this process has open are still those at their names.
//!
//! Somebody may move, remove or replace them. What is written to a file that has no name any more is lost with the last
//! process that has it open; and at their names there may be those of another store by then. So nothing is written by
//! name, and no commit is begun, unless the control file is the one that this process has mapped: it stands for its
//! folder, and for all that share its words.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::control::{Control, ControlFile};
use crate::disk::{Disk, File, LockKind};
use crate::error::{At, Code, Error, Result};
use crate::format::Name;
use crate::index::Index;
use crate::lsn::Lsn;
use crate::segment::Segment;
use crate::store::mark::OPEN_BYTE;
use crate::store::{Opening, Store};

/// How long a process that dies, or detaches, may take to give up all its locks.
const LETTING_GO: Duration = Duration::from_millis(100);
const STEP: Duration = Duration::from_millis(2);

/// Device and inode of a file.
pub(super) type Inode = (u64, u64);

/// What this process has open, as it was found when the store was opened.
pub(super) struct Inodes {
    pub base: Inode,
    pub control: Inode,
    pub superblock: Option<Inode>,
}

impl Store {
    /// True if the file that is open as the base isn't at its path any more: moved, removed or replaced.
    ///
    /// # Errors
    /// `Io`.
    pub fn has_moved(&self) -> Result<bool> {
        let found = self.disk.identity(&self.path).at(|| format!("reading {}", self.path.display()))?;
        Ok(found != Some(self.inodes.base))
    }

    /// Makes sure that base and side folder are where they were.
    ///
    /// # Errors
    /// `Foreign` if the base isn't, `Missing` if the side folder isn't; `Io`.
    pub fn in_place(&self) -> Result<()> {
        if self.has_moved()? {
            return Err(Error::new(
                Code::Foreign,
                format!(
                    "{} was moved, removed or replaced while it is open; put it back, or close it everywhere",
                    self.path.display()
                ),
            ));
        }
        self.side_in_place()
    }

    /// Makes sure that what is committed next will be found: that the superblock and the segment that is appended to are
    /// where they were, too.
    ///
    /// # Errors
    /// As [`Store::in_place`]; `Missing` if one of these isn't.
    pub fn wholly_in_place(&self) -> Result<()> {
        self.in_place()?;
        let superblock = self.file_path(Name::Superblock);
        if self.inodes.superblock.is_some() && self.inode(&superblock)? != self.inodes.superblock {
            return Err(gone(&superblock));
        }
        if self.end_in_place().is_ok() {
            return Ok(());
        }
        // What is the end here may have been written again as another segment, if others have committed since.
        self.catch_up(self.control.appended())?;
        self.end_in_place()
    }

    /// Makes sure that the segment that is appended to is where it was.
    fn end_in_place(&self) -> Result<()> {
        let (segment, offset, chain) = {
            let tail = self.tail.lock();
            (Arc::clone(tail.index.segment(tail.segment)), tail.offset, tail.chain)
        };
        let found = self.segment_in_place(&segment);
        // Others may have gone on in the next one, and merged this one with those before.
        if found.is_err() && segment.entry(offset, chain)?.is_some() { Ok(()) } else { found }
    }

    /// Makes sure that the side folder is the one that was opened, before anything in it is reached by name.
    ///
    /// # Errors
    /// `Missing` if it isn't; `Io`.
    pub(crate) fn side_in_place(&self) -> Result<()> {
        let control = self.file_path(Name::Control);
        if self.inode(&control)? == Some(self.inodes.control) { Ok(()) } else { Err(gone(&control)) }
    }

    /// A segment with entries above the LSN that `above` tells that isn't at its name any more.
    ///
    /// # Errors
    /// `Missing` if the side folder isn't there either; `Io`.
    pub(crate) fn misplaced(
        &self,
        index: &Index,
        above: impl Fn(&Control) -> Lsn,
    ) -> Result<Option<(Arc<Segment>, Error)>> {
        loop {
            let lsn = above(&self.control);
            let missed = index.retained(lsn).find_map(|s| Some((s, self.segment_in_place(s).err()?)));
            let Some((segment, e)) = missed else { return Ok(None) };
            if e.code() != Code::Missing {
                return Err(e);
            }
            // What nobody needs is dropped all the time.
            if above(&self.control) != lsn {
                continue;
            }
            // Others may have merged them; then this index isn't that of the journal any more.
            let current = self.read_superblock()?.first_segment == self.first_segment.load(Ordering::Relaxed);
            return Ok(current.then(|| (Arc::clone(segment), e)));
        }
    }

    /// Makes sure that a segment is at its name still, and not something else by now.
    ///
    /// # Errors
    /// `Missing`, `Io`.
    pub(crate) fn segment_in_place(&self, segment: &Segment) -> Result<()> {
        let own = segment.inode()?;
        if self.inode(&segment.path)? == Some(own) { Ok(()) } else { Err(gone(&segment.path)) }
    }

    fn inode(&self, path: &Path) -> Result<Option<Inode>> {
        self.disk.identity(path).at(|| format!("looking for {}", path.display()))
    }
}

impl Opening<'_> {
    /// True if there is a side folder, false if one may be created.
    ///
    /// # Errors
    /// `Missing` if the base is open with one that isn't there.
    pub fn has_side(&self) -> Result<bool> {
        let mut waited = Duration::ZERO;
        loop {
            // In this order: whoever has the base open has made the folder before.
            let open = is_open(self.base).at(|| format!("locking {}", self.path.display()))?;
            if self.side_exists()? {
                return Ok(true);
            }
            if !open {
                return Ok(false);
            }
            // Whoever detaches removes it, and lets go of the base when its connection is closed.
            if waited >= LETTING_GO {
                return Err(Error::new(
                    Code::Missing,
                    format!(
                        "{} was moved or removed, or tide_detach() called, while {} is open elsewhere; close the \
                         database everywhere, or put the folder back",
                        self.side.display(),
                        self.path.display()
                    ),
                ));
            }
            std::thread::sleep(STEP);
            waited += STEP;
        }
    }

    pub(super) fn side_exists(&self) -> Result<bool> {
        self.disk.exists(self.side).at(|| format!("looking for {}", self.side.display()))
    }

    /// Whether others have the store open, whom this process joins; the base is locked as theirs, or as its own. Under
    /// the open lock.
    ///
    /// Those who share a control file see one another. Whoever has the base open through another one, or another base
    /// through this one, would be of a second life of the database; a byte of the base tells.
    ///
    /// # Errors
    /// `Foreign` if that is so.
    pub fn joins(&self, control: &ControlFile) -> Result<bool> {
        let here = || format!("locking {}", self.path.display());
        let mut waited = Duration::ZERO;
        loop {
            let alone = control.alone()?;
            let agreed = if alone {
                self.base.lock(OPEN_BYTE, 1, LockKind::Write).at(here)?
            } else {
                is_open(self.base).at(here)? && self.base.lock(OPEN_BYTE, 1, LockKind::Read).at(here)?
            };
            if agreed {
                return Ok(!alone);
            }
            // Locks of a process that dies go one by one.
            if waited >= LETTING_GO {
                let what = if alone {
                    "is open in other processes, or under another name, with another side folder than the one that is \
                     there now; put theirs back, or close the database everywhere"
                } else {
                    "was moved or replaced while other processes have the database open that was there; close it in \
                     them first"
                };
                return Err(Error::new(Code::Foreign, format!("{} {what}", self.path.display())));
            }
            control.pause(STEP);
            waited += STEP;
        }
    }
}

/// True if some store has the base open.
pub(super) fn is_open(base: &dyn File) -> std::io::Result<bool> {
    base.locked_by_other(OPEN_BYTE, 1)
}

/// What is open, by inode: the superblock as it is at its name.
pub(super) fn inodes(
    disk: &dyn Disk,
    base: &dyn File,
    control: &ControlFile,
    superblock: &Path,
) -> Result<Inodes> {
    let here = || format!("looking for {}", superblock.display());
    let base = base.identity().at(here)?;
    Ok(Inodes {
        base: (base.device, base.inode),
        control: control.inode()?,
        superblock: disk.identity(superblock).at(here)?,
    })
}

fn gone(path: &Path) -> Error {
    Error::new(
        Code::Missing,
        format!(
            "{} was moved, removed or replaced while the database is open, so nothing more is written; put back what \
             was there, or close the database everywhere",
            path.display()
        ),
    )
}
