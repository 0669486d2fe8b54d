//! Files of the side folder that are read and written whole.

use std::path::Path;

use crate::disk::{Disk, How, appear};
use crate::error::{At, Error, Result};
use crate::format::{Name, Whole};

/// Writes a file of this `kind` with these bytes, durably: as the first name, and then the second. After a crash it is
/// this one, or the one before.
///
/// # Errors
/// `Io`, `Full`.
pub(crate) fn write_whole(
    disk: &dyn Disk,
    side: &Path,
    kind: Whole,
    names: [Name; 2],
    bytes: &[u8],
) -> Result<()> {
    let header = kind.header(bytes);
    let len = (header.len() + bytes.len()) as u64;
    let [fresh, path] = names.map(|name| side.join(name.to_string()));
    let written = appear(disk, side, [&fresh, &path], len, |file| {
        file.write_at(&header, 0)?;
        file.write_at(bytes, header.len() as u64)
    });
    written.at(|| format!("writing {}", fresh.display()))
}

/// The bytes in the file of this `kind` at `path`; `None` if there is none.
///
/// # Errors
/// `Damaged` and `Format`, with the `remedy`; `Io`.
pub(crate) fn read_whole(disk: &dyn Disk, path: &Path, kind: Whole, remedy: &str) -> Result<Option<Vec<u8>>> {
    let here = || format!("reading {}", path.display());
    let file = match disk.open(path, How::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).at(here),
    };
    let mut bytes = vec![0; usize::try_from(file.len().at(here)?).unwrap_or(usize::MAX)];
    let got = file.read_at(&mut bytes, 0).at(here)?;
    bytes.truncate(got);
    let body = kind
        .check(&bytes)
        .map_err(|e| Error::new(e.code(), format!("{}: {}; {remedy}", path.display(), e.text())))?;
    Ok(Some(body.to_vec()))
}
