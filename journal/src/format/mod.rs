//! Bytes of the store's files, as FORMAT.md specifies them: little-endian, each with magic,
//! version and checksum. Nothing here reads or writes a file.

mod entry;
mod names;
mod present;
mod rows;
mod segment;
mod shipped;
mod spool;
mod squeeze;
mod superblock;
mod whole;

pub use entry::{
    COMMIT_RECORD_LEN, CommitRecord, ENTRY_ALIGN, EntryHeader, HEADER_LEN, Kind, LONGEST, Origin, ROW_LEN,
    Row, SUPER_JOURNAL, annotation, find_annotation, seal, sealed_to,
};
pub use names::{Name, SIDE_SUFFIX};
pub use present::{PRESENT_HEADER_LEN, PresentHeader, TAG_LEN, is_present, tag_of, tag_offset};
pub use rows::{PackedRows, ShippedRow, Unpacking, unpack_rows};
pub use segment::{SEGMENT_HEADER_LEN, SegmentHeader, SegmentKind};
pub use shipped::{Packing, SHIPPED_HEADER_LEN, Shipped, ShippedHeader};
pub use spool::{Unsent, join_unsent, split_unsent};
pub use superblock::{Mark, Position, Retention, SLOT_LEN, SUPERBLOCK_LEN, Superblock};
pub use whole::Whole;

/// Version of every file format here.
pub const VERSION: u32 = 1;

/// Reads `N` bytes at `at`; the caller has checked the length.
fn bytes<const N: usize>(from: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&from[at..at + N]);
    out
}

fn u16_at(from: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes(from, at))
}

fn u32_at(from: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes(from, at))
}

fn u64_at(from: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes(from, at))
}

/// Writes `value` at `at`; the caller has checked the length.
fn put(to: &mut [u8], at: usize, value: &[u8]) {
    to[at..at + value.len()].copy_from_slice(value);
}

/// Rounds up to a multiple of `unit`, a power of two.
pub const fn round_up(n: u64, unit: u64) -> u64 {
    (n + unit - 1) & !(unit - 1)
}
