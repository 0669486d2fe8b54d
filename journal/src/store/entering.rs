//! The side folder of a database that is being opened, and its control file: whoever opens or leaves waits for the others
//! there.

use crate::control::{ControlFile, Lock};
use crate::error::{At, Code, Error, Result};
use crate::format::Name;
use crate::store::{Opening, base_header, has_mark, missing_side, sync_name};

impl Opening<'_> {
    /// The control file, in a side folder that is made if there is none, with the open lock.
    ///
    /// # Errors
    /// `Missing` where a marked base has none; `Busy`, `Io`.
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
                return Ok(control);
            }
            // Whoever had the lock was refused, or has detached, and has removed it.
        }
        Err(Error::new(Code::Busy, "other processes are opening and closing this database; try again"))
    }

    /// Makes the side folder, if there is none.
    fn make_side(&self) -> Result<()> {
        let Opening { disk, path, side, base, .. } = *self;
        if self.has_side()? {
            return Ok(());
        }
        // Before anything is created: a marked base can't be read without what it belongs to.
        if has_mark(&base_header(base)?) {
            return Err(missing_side(path, side));
        }
        match disk.create_dir(side) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(e).at(|| format!("creating {}", side.display()));
            }
            _ => {}
        }
        disk.copy_owner(path, side).at(|| format!("setting the owner of {}", side.display()))?;
        sync_name(disk, side)
    }

    /// Removes a side folder in which nothing is but the control file, of what is no database after all. With the open lock,
    /// and nobody else there.
    pub(super) fn leave_nothing(&self) {
        let control = Name::Control.to_string();
        let is_all = || self.disk.list(self.side).is_ok_and(|names| names == [control.as_str()]);
        // Beneath a marked base a replacement may be going on.
        let is_plain = base_header(self.base).is_ok_and(|header| !has_mark(&header));
        if is_plain && is_all() {
            drop(self.disk.remove(&self.side.join(&control)));
            drop(self.disk.remove_dir(self.side));
        }
    }
}
