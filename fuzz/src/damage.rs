//! What may happen to the files of a store while nobody has it open.

use std::collections::BTreeSet;

use arbitrary::Arbitrary;

use crate::layout::{
    ENTRY_FIELDS, ENTRY_HEADER, Entry, HASHES_HEADER, Kind, ROW_FIELDS, SEGMENT_FIELDS, SEGMENT_HEADER, SLOT,
    SLOT_FIELDS, SLOT_USED, entries, reseal,
};
use crate::pages::{BASE, Files, SIDE};
use crate::shapes::Shape;
use crate::value::{Field, Value, edit, pick, put, seal};

/// Names that a file may get.
const NAMES: [&str; 10] = [
    "store",
    "store.new",
    "control",
    "hashes",
    "incoming",
    "00000001.seg",
    "00000002.seg",
    "00000003.seg",
    "00000001.kept",
    "other",
];

/// Fields of the header of a piece in `incoming`, behind its length.
const PIECE_FIELDS: [Field; 12] = [
    (0, 8),
    (20, 4),
    (24, 8),
    (40, 8),
    (48, 8),
    (72, 8),
    (80, 4),
    (84, 4),
    (128, 8),
    (136, 8),
    (144, 4),
    (152, 8),
];

/// One damage. Files are named by their place in the list of all, others by their place among
/// those of their kind.
#[derive(Arbitrary, Clone, Debug)]
pub enum Damage {
    /// Other bits in a byte.
    Flip(u8, u16, u8),
    /// A sector that was lost, or is of something else.
    Sector(u8, u8, u8),
    /// A number.
    Number(u8, u16, u8, Value),
    /// A part of the file is where another should be.
    Move(u8, u16, u16, u16),
    /// The end is missing.
    Cut(u8, u16),
    /// More bytes follow.
    Grow(u8, u16, u8),
    /// A file is missing.
    Remove(u8),
    /// Two files have each other's names.
    Swap(u8, u8),
    /// A file has the content of another.
    Copy(u8, u8),
    /// A file has another name.
    Rename(u8, u8),
    /// A file is as it was at another moment, or that of another store.
    Stale(u8, u8),
    /// The side folder is missing.
    NoFolder,
    /// A field of the superblock, with the checksum made right.
    Slot(bool, u8, Value),
    /// A field of a segment's header, with checksums and chains made right.
    Segment(u8, u8, Value),
    /// A field of an entry's header, likewise; and lengths that agree.
    Entry(u8, u8, u8, Value, bool),
    /// A field of a row of a page table, likewise; and the hash of what it names then.
    Row(u8, u8, u8, u8, Value, bool),
    /// An image, likewise.
    Image(u8, u8, u8, u16, u8),
    /// The same of a kept segment.
    Kept(u8, u8, u8, Value),
    /// A field of the header of the hashes, with the checksum made right.
    Hashes(u8, Value),
    /// A field of a piece that waits for others, with the checksums made right.
    Piece(u8, Value),
    /// A counter, size or mark in the base.
    Base(u8, Value),
}

/// Files of a store that something happened to.
pub struct Damaged<'a> {
    /// As they were.
    pub sound: &'a Files,
    /// As they are.
    pub files: Files,
    /// Somebody made checksums right again.
    pub forged: bool,
    /// Something is of another moment, or another store.
    pub stale: bool,
}

impl<'a> Damaged<'a> {
    /// Applies what happened to the files of `shape`; `shapes` are what to take from.
    pub fn new(shape: &'a Shape, shapes: &[Shape], damages: &[Damage]) -> Damaged<'a> {
        let sound = &shape.files;
        let mut damaged = Damaged { sound, files: sound.clone(), forged: false, stale: false };
        for damage in damages {
            damaged.apply(damage, shapes);
        }
        damaged
    }

    /// Kinds of the files that aren't as they were.
    pub fn changed(&self) -> BTreeSet<Kind> {
        let paths = self.sound.keys().chain(self.files.keys());
        paths
            .filter(|path| self.sound.get(*path) != self.files.get(*path))
            .map(|path| Kind::of(path))
            .collect()
    }

    /// Number of files that aren't as they were.
    pub fn changed_files(&self) -> usize {
        let paths: BTreeSet<_> = self.sound.keys().chain(self.files.keys()).collect();
        paths.into_iter().filter(|path| self.sound.get(*path) != self.files.get(*path)).count()
    }

    fn path(&self, n: u8) -> Option<String> {
        let paths: Vec<_> = self.files.keys().collect();
        (!paths.is_empty()).then(|| (*pick(&paths, n)).clone())
    }

    /// Path of the nth file of a kind.
    fn of_kind(&self, kind: Kind, n: u8) -> Option<String> {
        let paths: Vec<_> = self.files.keys().filter(|path| Kind::of(path) == kind).collect();
        (!paths.is_empty()).then(|| (*pick(&paths, n)).clone())
    }

    fn bytes(&mut self, n: u8) -> Option<&mut Vec<u8>> {
        let path = self.path(n)?;
        self.files.get_mut(&path)
    }

    fn apply(&mut self, damage: &Damage, shapes: &[Shape]) {
        // `None` where there is nothing of the kind.
        let _ = match *damage {
            Damage::Slot(..)
            | Damage::Segment(..)
            | Damage::Entry(..)
            | Damage::Row(..)
            | Damage::Image(..)
            | Damage::Kept(..)
            | Damage::Hashes(..)
            | Damage::Piece(..) => {
                let before = self.files.clone();
                let done = self.forge(damage);
                self.forged |= self.files != before;
                done
            }
            Damage::Swap(..) | Damage::Copy(..) | Damage::Rename(..) | Damage::Stale(..) => {
                self.misplace(damage, shapes)
            }
            Damage::NoFolder => {
                self.files.retain(|path, _| !path.starts_with(SIDE));
                Some(())
            }
            Damage::Remove(file) => {
                let path = self.path(file);
                path.and_then(|path| self.files.remove(&path)).map(drop)
            }
            _ => self.scratch(damage),
        };
    }

    /// Changes bytes of one file.
    fn scratch(&mut self, damage: &Damage) -> Option<()> {
        match *damage {
            Damage::Flip(file, at, mask) => {
                let bytes = self.bytes(file)?;
                let at = place(bytes, at);
                *bytes.get_mut(at)? ^= mask;
            }
            Damage::Sector(file, n, fill) => {
                let bytes = self.bytes(file)?;
                let sectors = used(bytes).div_ceil(512).max(1);
                let from = (usize::from(n) % sectors * 512).min(bytes.len());
                let to = (from + 512).min(bytes.len());
                bytes[from..to].fill(fill);
            }
            Damage::Number(file, at, width, value) => {
                let bytes = self.bytes(file)?;
                let at = place(bytes, at) & !3;
                edit(bytes, (at, [1, 2, 4, 8][usize::from(width) % 4]), value);
            }
            Damage::Move(file, from, to, len) => {
                let bytes = self.bytes(file)?;
                let (from, to) = (place(bytes, from), place(bytes, to));
                let len = usize::from(len % 2048).min(bytes.len() - from.max(to));
                bytes.copy_within(from..from + len, to);
            }
            Damage::Cut(file, keep) => {
                let bytes = self.bytes(file)?;
                let keep = place(bytes, keep);
                bytes.truncate(keep);
            }
            Damage::Grow(file, more, fill) => {
                let bytes = self.bytes(file)?;
                bytes.resize(bytes.len() + usize::from(more % 4096), fill);
            }
            Damage::Base(field, value) => {
                let fields = [(16, 2), (18, 2), (24, 4), (28, 4), (92, 4), (96, 4)];
                edit(self.files.get_mut(BASE)?, *pick(&fields, field), value);
            }
            _ => {}
        }
        Some(())
    }

    /// Moves whole files about.
    fn misplace(&mut self, damage: &Damage, shapes: &[Shape]) -> Option<()> {
        match *damage {
            Damage::Swap(one, other) => {
                let (one, other) = (self.path(one)?, self.path(other)?);
                let taken = self.files.remove(&one)?;
                if let Some(moved) = self.files.insert(other, taken.clone()) {
                    self.files.insert(one, moved);
                } else {
                    self.files.insert(one, taken);
                }
            }
            Damage::Copy(from, to) => {
                let (from, to) = (self.path(from)?, self.path(to)?);
                self.files.insert(to, self.files.get(&from)?.clone());
            }
            Damage::Rename(file, name) => {
                let path = self.path(file)?;
                let taken = self.files.remove(&path)?;
                self.files.insert(format!("{SIDE}/{}", pick(&NAMES, name)), taken);
            }
            Damage::Stale(file, shape) => {
                let path = self.path(file)?;
                self.stale = true;
                match pick(shapes, shape).files.get(&path) {
                    Some(bytes) => self.files.insert(path, bytes.clone()),
                    None => self.files.remove(&path),
                };
            }
            _ => {}
        }
        Some(())
    }

    /// Changes something and makes the checksums over it right.
    fn forge(&mut self, damage: &Damage) -> Option<()> {
        match *damage {
            Damage::Slot(second, field, value) => {
                let slot = self.files.get_mut(&format!("{SIDE}/store"))?;
                let slot = slot.get_mut(usize::from(second) * SLOT..)?.get_mut(..SLOT_USED)?;
                edit(slot, *pick(&SLOT_FIELDS, field), value);
                seal(slot, SLOT_USED - 4);
            }
            Damage::Segment(file, field, value) => {
                let path = self.of_kind(Kind::Segment, file)?;
                let header = self.files.get_mut(&path)?.get_mut(..SEGMENT_HEADER)?;
                edit(header, *pick(&SEGMENT_FIELDS, field), value);
                reseal(&mut self.files, self.sound, &path);
            }
            Damage::Kept(file, field, part, value) => {
                let path = self.of_kind(Kind::Kept, file)?;
                let segment = self.files.get_mut(&path)?;
                let entry = *entries(self.sound.get(&path)?).first()?;
                let (at, fields) = match part % 3 {
                    0 => (0, &SEGMENT_FIELDS[..]),
                    1 => (entry.start, &ENTRY_FIELDS[..]),
                    _ => (entry.row(field.into()), &ROW_FIELDS[..]),
                };
                edit(segment.get_mut(at..)?, *pick(fields, field), value);
                reseal(&mut self.files, self.sound, &path);
            }
            Damage::Entry(file, n, field, value, fix) => {
                let (path, entry) = self.entry(file, n)?;
                let segment = self.files.get_mut(&path)?;
                edit(
                    segment.get_mut(entry.start..entry.start + ENTRY_HEADER)?,
                    *pick(&ENTRY_FIELDS, field),
                    value,
                );
                if fix {
                    Entry::fix_len(segment, entry.start);
                }
                reseal(&mut self.files, self.sound, &path);
            }
            Damage::Row(file, n, row, field, value, fix) => {
                let (path, entry) = self.entry(file, n)?;
                let segment = self.files.get_mut(&path)?;
                edit(segment.get_mut(entry.row(row.into())..)?, *pick(&ROW_FIELDS, field), value);
                if fix {
                    entry.fix_hash(segment, row.into());
                }
                reseal(&mut self.files, self.sound, &path);
            }
            Damage::Image(file, n, row, at, mask) => {
                let (path, entry) = self.entry(file, n)?;
                let segment = self.files.get_mut(&path)?;
                let offset = crate::value::get(segment.get(entry.row(row.into())..)?, (8, 8));
                let at =
                    usize::try_from(offset).ok()?.checked_add(usize::from(at) % entry.page_size.max(1))?;
                *segment.get_mut(at)? ^= mask;
                entry.fix_hash(segment, row.into());
                reseal(&mut self.files, self.sound, &path);
            }
            Damage::Hashes(field, value) => {
                let header = self.files.get_mut(&format!("{SIDE}/hashes"))?.get_mut(..HASHES_HEADER)?;
                edit(header, *pick(&[(8, 4), (12, 4), (16, 8)], field), value);
                seal(header, HASHES_HEADER - 4);
            }
            Damage::Piece(field, value) => {
                let bytes = self.files.get_mut(&format!("{SIDE}/incoming"))?;
                edit(bytes, *pick(&PIECE_FIELDS, field), value);
                let piece = bytes.get_mut(8..)?;
                seal(piece.get_mut(..crate::blob::HEADER)?, crate::blob::HEADER - 4);
                let body = crate::value::get(piece, crate::blob::field::BODY);
                let end = crate::blob::HEADER.checked_add(usize::try_from(body).ok()?)?;
                let covered = piece.get_mut(crate::blob::HEADER..end)?;
                let crc_at = covered.len().checked_sub(4)?;
                let crc = crc32fast::hash(&covered[..crc_at]);
                put(covered, (crc_at, 4), crc.into());
            }
            _ => {}
        }
        Some(())
    }

    /// The nth entry of a segment, as it was when it was sound.
    fn entry(&self, file: u8, n: u8) -> Option<(String, Entry)> {
        let path = self.of_kind(Kind::Segment, file)?;
        let entries = entries(self.sound.get(&path)?);
        let fits = |entry: &&Entry| entry.start + entry.len <= self.files[&path].len();
        let entries: Vec<_> = entries.iter().filter(fits).collect();
        (!entries.is_empty()).then(|| (path, **pick(&entries, n)))
    }
}

/// Length without the zeros at the end.
fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1)
}

/// A byte offset in the used part, or a little behind; not beyond the end.
fn place(bytes: &[u8], at: u16) -> usize {
    (usize::from(at) % (used(bytes) + 64)).min(bytes.len().saturating_sub(1))
}
