//! Transactions over several databases. SQLite decides them by deleting a super-journal; until then
//! each database has a prepared entry and a marker journal that names the super-journal.
//!
//! The marker is a real file where stock SQLite looks for this database's rollback journal. Whoever
//! recovers another database of the transaction finds the super-journal named there and leaves it
//! alone, so "it is gone" means "committed" and nothing else. Its first byte is 0, by which SQLite
//! tells that there is nothing in it to roll back.

use std::path::{Path, PathBuf};

use crate::disk::{Disk, How, path_from};
use crate::error::{At, Code, Error, Result};
use crate::format::SUPER_JOURNAL;
use crate::store::{Tail, follow_seal, images_are_sound, open_addressed};

/// End of a journal that names a super-journal.
const JOURNAL_MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
/// Bytes before the name: as many as a journal's header has.
const BEFORE: usize = 512;

fn marker_path(path: &Path) -> PathBuf {
    let mut marker = path.as_os_str().to_owned();
    marker.push("-journal");
    PathBuf::from(marker)
}

/// Puts the marker of the database at `path`, durably.
pub(crate) fn put_marker(disk: &dyn Disk, path: &Path, super_journal: &Path) -> Result<()> {
    let marker = marker_path(path);
    let name = super_journal.as_os_str().as_encoded_bytes();
    // As `writeSuperJournal` sums it: C's `char` is signed here and unsigned there.
    let sum = name.iter().fold(0u32, |sum, &byte| sum.wrapping_add((byte as std::ffi::c_char) as u32));
    let mut content = vec![0; BEFORE];
    content.extend_from_slice(name);
    content.extend_from_slice(&(name.len() as u32).to_be_bytes());
    content.extend_from_slice(&sum.to_be_bytes());
    content.extend_from_slice(&JOURNAL_MAGIC);
    let written = (|| {
        let file = disk.open(&marker, How::Create)?;
        file.set_len(0)?;
        file.write_at(&content, 0)?;
        file.sync()?;
        disk.copy_owner(path, &marker)?;
        match marker.parent() {
            Some(folder) => disk.sync_dir(folder),
            None => Ok(()),
        }
    })();
    written.at(|| format!("writing {}", marker.display()))
}

/// Removes the marker of the database at `path` if one was left by somebody who died before there
/// was, or after there had been, anything to decide.
pub(crate) fn remove_left_marker(disk: &dyn Disk, path: &Path) -> Result<()> {
    let marker = marker_path(path);
    let here = || format!("reading {}", marker.display());
    if !disk.exists(&marker).at(here)? {
        return Ok(());
    }
    // A journal of stock SQLite's is none of ours, and a marker may be cut short.
    let file = disk.open(&marker, How::Read).at(here)?;
    let mut start = [0; BEFORE];
    file.read_at(&mut start, 0).at(here)?;
    let ours = start.iter().all(|&byte| byte == 0) && file.len().at(here)? < BEFORE as u64 + 65536;
    if ours { remove_marker(disk, path) } else { Ok(()) }
}

/// Removes the marker of the database at `path`, durably, if there is one.
pub(crate) fn remove_marker(disk: &dyn Disk, path: &Path) -> Result<()> {
    let marker = marker_path(path);
    let here = || format!("removing {}", marker.display());
    match disk.remove(&marker) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.at(here)?,
    }
    match marker.parent() {
        Some(folder) => disk.sync_dir(folder).at(here),
        None => Ok(()),
    }
}

/// Decides about a prepared entry at the tail that nobody is working on any more: it becomes a
/// commit if its super-journal is gone, else it is erased. True if it became a commit.
///
/// # Errors
/// `Damaged` if it should count and isn't whole.
pub(crate) fn resolve(disk: &dyn Disk, path: &Path, side: &Path, tail: &mut Tail) -> Result<bool> {
    while follow_seal(disk, side, tail)? {}
    let segment = std::sync::Arc::clone(tail.index.segment(tail.segment));
    let Some(checked) = segment.prepared(tail.offset, tail.chain)? else { return Ok(false) };
    let Some(super_journal) = checked.annotation(SUPER_JOURNAL).and_then(path_from) else {
        return Ok(false);
    };
    if checked.header.range.first != tail.index.applied().next() {
        return Ok(false);
    }
    let here = || format!("writing {}", segment.path.display());
    let at = tail.offset + checked.header.record();
    let committed = !disk.exists(super_journal).at(|| format!("looking for {}", super_journal.display()))?;
    if committed {
        // Whoever removed it may have died before that was on the disk, and the other databases have yet to look.
        let folder = super_journal.parent().map_or(Ok(()), |folder| disk.sync_dir(folder));
        match folder {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            synced => synced.at(|| format!("syncing the folder of {}", super_journal.display()))?,
        }
        let others = open_addressed(disk, side, &tail.index, &checked)?;
        if !images_are_sound(tail, &checked, &others)? {
            return Err(Error::new(
                Code::Damaged,
                format!(
                    "{}: a transaction over several databases was committed, and its part here isn't whole; restore from a backup",
                    path.display()
                ),
            ));
        }
        segment.file.write_at(&checked.record.encode(), at).at(here)?;
    } else {
        segment.file.write_at(&[0; crate::format::COMMIT_RECORD_LEN], at).at(here)?;
    }
    // The outcome is on the disk before the marker goes.
    segment.sync()?;
    remove_marker(disk, path)?;
    Ok(committed)
}
