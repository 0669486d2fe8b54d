//! The superblock's file: its slots are read and written here alone.

use std::path::Path;

use parking_lot::MutexGuard;

use crate::control::{ControlFile, Lock};
use crate::disk::{Disk, How, appear};
use crate::error::{At, Error, Result};
use crate::format::{Name, SLOT_LEN, SUPERBLOCK_LEN, Superblock};
use crate::store::{Store, missing_side};

impl Store {
    /// Serialises changes of the superblock between threads and processes.
    pub(crate) fn lock_superblock(&self) -> Result<SuperblockGuard<'_>> {
        let guard = self.superblock.lock();
        self.control.file().lock(Lock::Superblock)?;
        Ok(SuperblockGuard { store: self, _guard: guard })
    }

    pub(crate) fn read_superblock(&self) -> Result<Superblock> {
        self.side_in_place()?;
        read_durable(&*self.disk, &self.side, self.control.file())?
            .ok_or_else(|| missing_side(&self.path, &self.side))
    }

    /// Writes `block` into the older slot, durably. Under the superblock lock.
    pub(crate) fn write_superblock(&self, block: &mut Superblock) -> Result<()> {
        // Others may have read it, and a sync of theirs would prove nothing.
        put(&*self.disk, &self.side, block, || self.control.poison())?;
        self.control.file().set_written(block.sequence);
        Ok(())
    }
}

/// Held while the superblock is changed.
pub(crate) struct SuperblockGuard<'a> {
    store: &'a Store,
    _guard: MutexGuard<'a, ()>,
}

impl Drop for SuperblockGuard<'_> {
    fn drop(&mut self) {
        self.store.control.file().unlock(Lock::Superblock);
    }
}

/// Reads the superblock; `None` if there is none at all.
pub(crate) fn read_superblock(disk: &dyn Disk, side: &Path) -> Result<Option<Superblock>> {
    Ok(read_superblock_slots(disk, side)?.map(|(block, _)| block))
}

/// Reads the superblock beside others who write it, and makes sure that it is on the disk, as whoever reads it builds upon
/// it: its writer may still be syncing it, or have died before. `None` if there is none at all.
pub(crate) fn read_durable(
    disk: &dyn Disk,
    side: &Path,
    control: &ControlFile,
) -> Result<Option<Superblock>> {
    let block = read_superblock(disk, side)?;
    if let Some(block) = block.as_ref().filter(|block| block.sequence != control.written()) {
        let path = side.join(Name::Superblock.to_string());
        let synced = disk.open(&path, How::Write).and_then(|file| file.sync());
        synced.at(|| format!("syncing {}", path.display()))?;
        control.set_written(block.sequence);
    }
    Ok(block)
}

/// Reads the superblock, and whether its other slot was torn while it was written.
pub(crate) fn read_superblock_slots(disk: &dyn Disk, side: &Path) -> Result<Option<(Superblock, bool)>> {
    let path = side.join(Name::Superblock.to_string());
    let file = match disk.open(&path, How::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).at(|| format!("opening {}", path.display())),
    };
    let mut bytes = vec![0; SUPERBLOCK_LEN];
    file.read_at(&mut bytes, 0).at(|| format!("reading {}", path.display()))?;
    let torn =
        bytes.chunks(SLOT_LEN).any(|slot| slot.iter().any(|&b| b != 0) && Superblock::decode(slot).is_err());
    Superblock::newest(&bytes)
        .map(|block| Some((block, torn)))
        .map_err(|e| Error::new(e.code(), format!("{}: {}", path.display(), e.text())))
}

/// Writes `block` with the next sequence number into the older slot, durably.
pub(crate) fn write_superblock(disk: &dyn Disk, side: &Path, block: &mut Superblock) -> Result<()> {
    put(disk, side, block, || {})
}

fn put(disk: &dyn Disk, side: &Path, block: &mut Superblock, unsynced: impl FnOnce()) -> Result<()> {
    let path = side.join(Name::Superblock.to_string());
    block.sequence += 1;
    let written = (|| {
        if disk.exists(&path)? {
            let file = disk.open(&path, How::Write)?;
            file.write_at(&block.encode(), block.slot())?;
            return file.sync().inspect_err(|_| unsynced());
        }
        // The first one appears whole: what is there but not valid is damage.
        let fresh = side.join(Name::NewSuperblock.to_string());
        appear(disk, side, [&fresh, &path], SUPERBLOCK_LEN as u64, |file| {
            file.write_at(&block.encode(), block.slot())
        })
    })();
    written.at(|| format!("writing {}", path.display()))
}
