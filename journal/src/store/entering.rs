//! The side folder of a database that is being opened, and its control file: whoever opens or leaves waits for the others
//! there.

use std::io::ErrorKind;
use std::path::Path;

use crate::control::{ControlFile, Lock};
use crate::disk::{Disk, File, LockKind};
use crate::error::{At, Code, Error, Result};
use crate::format::Name;
use crate::store::mark::SHARED_FIRST;
use crate::store::{Opening, base_header, has_mark, missing_side};

impl Opening<'_> {
    /// The control file, in a side folder that is made if there is none, with the open lock.
    ///
    /// # Errors
    /// `Missing` where a marked base has none, and as [`Opening::left_by_stock`] where there is no store and can be none;
    /// `Busy`, `Io`.
    pub(super) fn enter(&self) -> Result<ControlFile> {
        /// How often it may be removed meanwhile.
        const PATIENCE: u32 = 100;
        let path = self.side.join(Name::Control.to_string());
        for _ in 0..PATIENCE {
            self.make_side()?;
            let control = match ControlFile::open(self.disk, &path) {
                Err(e) if e.code() == Code::Missing => continue,
                control => control?,
            };
            control.lock(Lock::Open)?;
            let there = self.disk.identity(&path).at(|| format!("looking for {}", path.display()))?;
            if there == Some(control.inode()?) {
                self.base_in_place()?;
                return Ok(control);
            }
            // Whoever had the lock has detached, and has removed it.
        }
        Err(Error::new(Code::Busy, "other processes are opening and closing this database; try again"))
    }

    /// Makes sure that what the folder belongs to is the base that is open: it may have been removed, and another one made in
    /// its place, while others were waited for.
    pub(super) fn base_in_place(&self) -> Result<()> {
        let here = || format!("looking for {}", self.path.display());
        let own = self.base.identity().at(here)?;
        if self.disk.identity(self.path).at(here)? == Some((own.device, own.inode)) {
            return Ok(());
        }
        let text = format!(
            "{} was removed or replaced while it was being opened; open it again",
            self.path.display()
        );
        Err(Error::new(Code::Busy, text))
    }

    /// Makes the side folder, if there is none. Whoever begins the store makes its name durable.
    fn make_side(&self) -> Result<()> {
        let Opening { disk, path, side, base, .. } = *self;
        if self.has_side()? {
            return Ok(());
        }
        // Before anything is created: a marked base can't be read without what it belongs to, and what is no database
        // keeps nothing of ours.
        let refused = match has_mark(&base_header(base)?) {
            true => Err(missing_side(path, side)),
            false => self.left_by_stock().map(drop),
        };
        if let Err(e) = refused {
            // Somebody else may have begun the store, and marked it, at this moment.
            return if self.side_exists()? { Ok(()) } else { Err(e) };
        }
        match disk.create_dir(side) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => {
                return Err(e).at(|| format!("creating {}", side.display()));
            }
            _ => {}
        }
        match disk.copy_owner(path, side) {
            // Somebody has removed it already, which opening the control file will tell.
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            owned => owned.at(|| format!("setting the owner of {}", side.display())),
        }
    }
}

/// Removes an empty base that was made to be opened, and couldn't be, unless somebody else has it open: it is theirs by
/// then, and what they commit lies beside it. Where nobody has, the next one makes it again as it was.
///
/// # Errors
/// `Io`; it stays then, and is an empty database.
pub(super) fn take_back(disk: &dyn Disk, path: &Path, base: &dyn File) -> std::io::Result<()> {
    // Whoever opens it has this before he looks whether it is in its place.
    let alone = base.lock(SHARED_FIRST, 1, LockKind::Write)?;
    if alone && base.len()? == 0 {
        disk.remove(path)?;
    }
    Ok(())
}

/// Removes a side folder with the files that are named, durably one by one, and calls `gone` after each. The superblock goes
/// first: without it the rest means nothing. The control file goes last: whoever opens the database waits there, and then
/// begins anew in the folder, which then stays.
pub(crate) fn remove_side(
    disk: &dyn Disk,
    side: &Path,
    mut names: Vec<String>,
    mut gone: impl FnMut(),
) -> Result<()> {
    names.sort_by_key(|name| match Name::parse(name) {
        Some(Name::Superblock) => 0,
        Some(Name::Control) => 2,
        _ => 1,
    });
    for name in names {
        let path = side.join(&name);
        disk.remove(&path).at(|| format!("removing {}", path.display()))?;
        gone();
        disk.sync_dir(side).at(|| format!("syncing {}", side.display()))?;
    }
    match disk.remove_dir(side) {
        // Or has gone away again, and taken it along.
        Err(e) if matches!(e.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::NotFound) => Ok(()),
        removed => removed.at(|| format!("removing {}", side.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{How, SimDisk};

    #[test]
    fn a_base_that_somebody_else_has_opened_meanwhile_stays() -> Result<()> {
        let disk = SimDisk::new();
        let (own, other, path) = (disk.process(), disk.process(), Path::new("/app.db"));
        let at = || "trying".to_owned();
        let make = || own.open_kept(path, How::Create).at(at);
        let try_it = |base: &dyn File| take_back(&*own, path, base).at(at);
        let base = make()?;
        let theirs = other.open_kept(path, How::Write).at(at)?;
        assert!(theirs.lock(SHARED_FIRST, 1, LockKind::Read).at(at)?);
        try_it(&*base)?;
        assert!(own.exists(path).at(at)?);
        theirs.unlock(SHARED_FIRST, 1).at(at)?;
        try_it(&*base)?;
        assert!(!own.exists(path).at(at)?);
        Ok(())
    }
}
