//! Putting a new lazy clone in the place of a database whose own commits are given up.
//!
//! The clone is made beside the database, and takes its place file by file, its superblock last. From the removal of the
//! old superblock on, the base, old or new, is marked and there is none, so whoever opens it is refused (R2) until all
//! is in place; what was interrupted is finished by whoever replaces it again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::control::{ControlFile, Lock};
use crate::disk::{Disk, File, How, LockKind};
use crate::error::{At, Code, Error, Result};
use crate::format::Name;
use crate::store::{
    OPEN_BYTE, Options, Store, base_header, has_mark, read_superblock_slots, remove, side_folder, sync_name,
};

/// What is put behind the path of a database to name the clone that is to take its place.
const SUFFIX: &str = "-incoming";

/// The path of the clone that is to take the place of the database at `path`.
pub fn incoming(path: &Path) -> PathBuf {
    let mut incoming = path.as_os_str().to_owned();
    incoming.push(SUFFIX);
    PathBuf::from(incoming)
}

fn is_there(disk: &dyn Disk, path: &Path) -> Result<bool> {
    disk.exists(path).at(|| format!("looking for {}", path.display()))
}

/// True if the file at `path` is the base of a journal that is ahead of it, or of a clone.
fn is_marked(disk: &dyn Disk, path: &Path) -> Result<bool> {
    if !is_there(disk, path)? {
        return Ok(false);
    }
    // Closing it mustn't drop locks that the host has on it.
    let base = disk.open_kept(path, How::Read).at(|| format!("opening {}", path.display()))?;
    Ok(has_mark(&base_header(&*base)?))
}

/// True if a clone was about to take the place of the database at `path`.
pub(crate) fn is_under_way(disk: &dyn Disk, path: &Path) -> Result<bool> {
    let superblock = |path: &Path| is_there(disk, &side_folder(path).join(Name::Superblock.to_string()));
    Ok(superblock(&incoming(path))? && !superblock(path)? && is_marked(disk, path)?)
}

/// The base of a clone that nobody is making, held so that nobody begins to.
struct Unmade(Arc<dyn File>);

impl Unmade {
    /// # Errors
    /// `Busy` while somebody makes it; `Io`.
    fn of(disk: &dyn Disk, from: &Path) -> Result<Unmade> {
        let base = disk.open_kept(from, How::Write).at(|| format!("opening {}", from.display()))?;
        if base.lock(OPEN_BYTE, 1, LockKind::Write).at(|| format!("locking {}", from.display()))? {
            return Ok(Unmade(base));
        }
        let text =
            format!("another process is making or opening {}; try again when it is done", from.display());
        Err(Error::new(Code::Busy, text))
    }
}

impl Drop for Unmade {
    fn drop(&mut self) {
        drop(self.0.unlock(OPEN_BYTE, 1));
    }
}

fn another(path: &Path) -> Error {
    let text = format!(
        "{} is another database than the one that was to replace it; delete it, and clone that one, if it isn't needed",
        path.display()
    );
    Error::new(Code::Foreign, text)
}

impl Store {
    /// Refuses to replace what isn't a store. Whoever opened that to find out would adopt it, and leave a folder beside it.
    ///
    /// # Errors
    /// `Foreign`; `Io`.
    pub fn check_replaceable(disk: &dyn Disk, path: &Path) -> Result<()> {
        let superblock = side_folder(path).join(Name::Superblock.to_string());
        if is_there(disk, &superblock)? { Ok(()) } else { Err(another(path)) }
    }

    /// Puts the lazy clone at [`incoming`] in the place of this database, which is closed then: its commits, its history
    /// and what is kept about its remotes are gone. Nobody has either of them open.
    ///
    /// # Errors
    /// `Busy`, naming what is open; `Argument` if the store is closed; `Missing` without such a clone; `Foreign` if that is of another lineage: nothing is
    /// changed. `Io`, perhaps in the middle: [`Store::finish_replacing`] goes on.
    pub fn replace(self: &Arc<Self>) -> Result<()> {
        if self.end(|| self.replace_alone())? {
            return Ok(());
        }
        let text = format!("{} is closed already; open it, then replace it", self.path.display());
        Err(Error::new(Code::Argument, text))
    }

    fn replace_alone(&self) -> Result<()> {
        let busy = |path: &Path| {
            let text = format!(
                "{} is open, here or in another process; close it everywhere, then replace it again",
                path.display()
            );
            Err(Error::new(Code::Busy, text))
        };
        if !self.control.file().alone()? || self.control.connections() > 0 {
            return busy(&self.path);
        }
        self.in_place()?;
        if self.control.pending() {
            self.finish_prepared()?;
        }
        let from = incoming(&self.path);
        let from_side = side_folder(&from);
        if !is_there(&*self.disk, &from_side.join(Name::Superblock.to_string()))? {
            let text = format!("there is no lazy clone at {}; make one there", from.display());
            return Err(Error::new(Code::Missing, text));
        }
        // Nobody else removes it, or works with it, until this is let go of.
        let theirs = ControlFile::open(&*self.disk, &from_side.join(Name::Control.to_string()))?;
        theirs.lock(Lock::Open)?;
        if !theirs.alone()? {
            return busy(&from);
        }
        match read_superblock_slots(&*self.disk, &from_side)? {
            Some((block, _)) if block.lazy && block.lineage == self.lineage() => {}
            _ => return Err(another(&self.path)),
        }
        let own = |path: &Path| {
            self.disk.copy_owner(&self.path, path).at(|| format!("setting the owner of {}", path.display()))
        };
        own(&from)?;
        for name in self.disk.list(&from_side).at(|| format!("listing {}", from_side.display()))? {
            own(&from_side.join(name))?;
        }
        // Without its superblock it is to be refused, and not to be adopted.
        self.mark()?;
        self.control.set_detached();
        self.leave_base();
        for name in [Name::Superblock, Name::NewSuperblock] {
            remove(&*self.disk, &self.file_path(name))?;
        }
        self.sync_side()?;
        finish(&*self.disk, &self.path)
    }

    /// Goes on where the replacement of the database at `path` by another was interrupted; false if there was none.
    ///
    /// # Errors
    /// `Busy` while somebody else does; `Io`.
    pub fn finish_replacing(disk: &dyn Disk, path: &Path) -> Result<bool> {
        if !is_under_way(disk, path)? {
            return Ok(false);
        }
        let control = ControlFile::open(disk, &side_folder(path).join(Name::Control.to_string()))?;
        control.lock(Lock::Open)?;
        let still = is_under_way(disk, path)?;
        if still {
            finish(disk, path)?;
        }
        Ok(still)
    }

    /// Removes what an attempt to replace the database at `path` has left beside it, before it came to that.
    ///
    /// # Errors
    /// `Argument` if what is there isn't a clone, or somebody has committed to it; `Busy` while it is open, and where it
    /// has come to that.
    pub fn clear_incoming(disk: &Arc<dyn Disk>, path: &Path, options: Options) -> Result<()> {
        if is_under_way(&**disk, path)? {
            let text = format!("{} is being replaced; finish that first", path.display());
            return Err(Error::new(Code::Busy, text));
        }
        let from = incoming(path);
        let side = side_folder(&from);
        let in_the_way = |there: &Path| {
            let text = format!("{} is in the way; move it away, then replace again", there.display());
            Error::new(Code::Argument, text)
        };
        let superblock = side.join(Name::Superblock.to_string());
        // Whoever makes a clone there holds its base until there is a superblock.
        let unmade = match is_there(&**disk, &from)? && !is_there(&**disk, &superblock)? {
            true => Some(Unmade::of(&**disk, &from)?),
            false => None,
        };
        if is_there(&**disk, &superblock)? {
            // It was made meanwhile, and whoever opens it needs the lock.
            drop(unmade);
            let discarded = Store::open(Arc::clone(disk), &from, options).and_then(|store| store.discard());
            return match discarded {
                Err(e) if e.code() != Code::Busy => Err(in_the_way(&from)),
                other => other,
            };
        }
        // Half made, or half removed.
        if is_there(&**disk, &side)? {
            let own = side_folder(path);
            if is_there(&**disk, &own)? {
                // Whoever took files from here may have died before they were on the disk there.
                disk.sync_dir(&own).at(|| format!("syncing {}", own.display()))?;
            }
            for name in disk.list(&side).at(|| format!("listing {}", side.display()))? {
                let file = side.join(&name);
                if Name::parse(&name).is_none() {
                    return Err(in_the_way(&file));
                }
                remove(&**disk, &file)?;
            }
            disk.remove_dir(&side).at(|| format!("removing {}", side.display()))?;
        }
        if is_there(&**disk, &from)? {
            let base = disk.open_kept(&from, How::Read).at(|| format!("opening {}", from.display()))?;
            let empty = base.len().at(|| format!("reading {}", from.display()))? == 0;
            if !empty && !is_marked(&**disk, &from)? {
                return Err(in_the_way(&from));
            }
            remove(&**disk, &from)?;
        }
        sync_name(&**disk, path)
    }
}

/// Lets the clone take its place, from wherever that has got to. Holding the lock for opening; the old superblock is gone.
fn finish(disk: &dyn Disk, path: &Path) -> Result<()> {
    let from = incoming(path);
    let [side, from_side] = [path, from.as_path()].map(side_folder);
    let names =
        |side: &Path| -> Result<Vec<String>> { disk.list(side).at(|| format!("listing {}", side.display())) };
    let sync = |side: &Path| disk.sync_dir(side).at(|| format!("syncing {}", side.display()));
    let take = |name: &str| -> Result<()> {
        let file = from_side.join(name);
        disk.rename(&file, &side.join(name)).at(|| format!("renaming {}", file.display()))
    };
    // Whoever has got so far may have died before that was on the disk.
    sync(&side)?;
    sync(&from_side)?;
    sync_name(disk, path)?;
    let source = Name::Source.to_string();
    // It goes first, and alone: while it is at its old place, everything at the new one is the old database's.
    if is_there(disk, &from_side.join(&source))? {
        for name in names(&side)? {
            match Name::parse(&name) {
                Some(Name::Control) => {}
                Some(_) => remove(disk, &side.join(&name))?,
                None => {
                    let text = format!(
                        "{} isn't ours; move it away, then replace again",
                        side.join(&name).display()
                    );
                    return Err(Error::new(Code::Denied, text));
                }
            }
        }
        sync(&side)?;
        take(&source)?;
        sync(&side)?;
        sync(&from_side)?;
    }
    for name in names(&from_side)? {
        if !matches!(Name::parse(&name), None | Some(Name::Control | Name::Superblock)) {
            take(&name)?;
        }
    }
    sync(&side)?;
    sync(&from_side)?;
    if is_there(disk, &from)? {
        disk.rename(&from, path).at(|| format!("renaming {}", from.display()))?;
        sync_name(disk, path)?;
    }
    take(&Name::Superblock.to_string())?;
    sync(&side)?;
    // It is done; what is left is removed when the next one is made.
    drop(remove(disk, &from_side.join(Name::Control.to_string())));
    drop(disk.remove_dir(&from_side));
    drop(sync_name(disk, path));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::SimDisk;

    #[test]
    fn what_another_process_is_making_is_not_taken_for_what_was_left() -> Result<()> {
        let disk = SimDisk::new();
        let (own, other) = (disk.process() as Arc<dyn Disk>, disk.process());
        let (path, at) = (Path::new("/app.db"), || "trying".to_owned());
        let from = incoming(path);
        let theirs = other.open_kept(&from, How::Create).at(at)?;
        assert!(theirs.lock(OPEN_BYTE, 1, LockKind::Write).at(at)?);
        other.create_dir(&side_folder(&from)).at(at)?;
        let clear = || Store::clear_incoming(&own, path, Options::default());
        assert_eq!(clear().map_err(|e| e.code()), Err(Code::Busy));
        assert!(own.exists(&from).at(at)? && own.exists(&side_folder(&from)).at(at)?);
        // It has died.
        theirs.unlock(OPEN_BYTE, 1).at(at)?;
        clear()?;
        assert!(!own.exists(&from).at(at)? && !own.exists(&side_folder(&from)).at(at)?);
        Ok(())
    }
}
