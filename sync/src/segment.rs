//! A segment in an object store: shipped entries, whole or in pieces, under the hash of their bytes.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tideline_journal::{Code, Durability, Error, Image, Lsn, Result, Store, shipped_state};

use crate::hex;
use crate::manifest::{Hash, SegmentName, VERSION, hash};
use crate::objects::Objects;
use crate::point::Point;

const MAGIC: &[u8; 8] = b"TIDEPACK";
pub(crate) const HEADER_LEN: usize = 24;
const LENGTH_LEN: usize = 8;

/// Where the header says how what is behind it is packed.
const PACKING: Range<usize> = 12..16;
/// As one frame of zstd.
const ZSTD: u32 = 1;
const LEVEL: i32 = 1;
/// It is packed if that saves so manieth part.
const WORTH: usize = 16;
/// No pieces are longer together, in bytes.
const PIECES_LIMIT: usize = 1 << 30;

/// About the length of a piece where nobody says otherwise, in bytes.
pub(crate) const PIECE_BYTES: u64 = 4 << 20;
/// A segment that has reached this length ends, in bytes.
const SEGMENT_BYTES: usize = 16 << 20;

fn name(segment: &SegmentName) -> String {
    name_of(&segment.hash)
}

/// Where the segment with this hash is.
pub(crate) fn name_of(hash: &Hash) -> String {
    let digits = hex::print(hash);
    format!("segment/{}/{digits}", &digits[..2])
}

/// What makes segments with the same content different ones.
pub(crate) type Salt = [u8; 8];

/// The header of a segment of the kind that `magic` tells.
pub(crate) fn header(magic: &[u8; 8], salt: Salt) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&salt);
    bytes
}

/// A segment that is being made.
struct Packing {
    bytes: Vec<u8>,
}

impl Packing {
    fn new() -> Packing {
        Packing { bytes: header(MAGIC, Salt::default()) }
    }

    fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(&(piece.len() as u64).to_le_bytes());
        self.bytes.extend_from_slice(piece);
    }

    fn is_empty(&self) -> bool {
        self.bytes.len() == HEADER_LEN
    }

    /// Puts it into the store.
    fn send(self, objects: &Objects<'_>) -> Result<SegmentName> {
        let bytes = packed(self.bytes);
        let segment = SegmentName { hash: hash(&bytes), bytes: bytes.len() as u64 };
        objects.put(&name(&segment), Bytes::from(bytes))?;
        Ok(segment)
    }
}

/// A segment whose pieces are compressed together, if that makes it shorter. Images in them are compressed already, but
/// where there are many small entries most of it is something else.
fn packed(bytes: Vec<u8>) -> Vec<u8> {
    let (header, pieces) = bytes.split_at(HEADER_LEN);
    let mut shorter = vec![0; HEADER_LEN + pieces.len() - pieces.len() / WORTH];
    match zstd_safe::compress(&mut shorter[HEADER_LEN..], pieces, LEVEL) {
        Ok(length) => {
            shorter.truncate(HEADER_LEN + length);
            shorter[..HEADER_LEN].copy_from_slice(header);
            shorter[PACKING].copy_from_slice(&ZSTD.to_le_bytes());
            shorter
        }
        // There is no room: it isn't shorter.
        Err(_) => bytes,
    }
}

/// The pieces of a segment, of which `bytes` are what is behind its header; `None` if they can't be had.
fn unpacked(packing: u32, bytes: &[u8]) -> Option<Cow<'_, [u8]>> {
    if packing != ZSTD {
        return (packing == 0).then_some(Cow::Borrowed(bytes));
    }
    let length = zstd_safe::get_frame_content_size(bytes).ok()??;
    let mut pieces = vec![0; usize::try_from(length).ok().filter(|&length| length <= PIECES_LIMIT)?];
    let unpacked = zstd_safe::decompress(&mut pieces[..], bytes).ok()?;
    (unpacked == pieces.len()).then_some(Cow::Owned(pieces))
}

/// Puts everything between `after` and a snapshot into the store, in pieces of about `piece` bytes, and `each` LSN by
/// itself, or all in few entries. Returns the snapshot, with the segments: `None` where history isn't there any more, or
/// `after` lies inside of what was merged, so that only the whole database helps.
pub(crate) fn send(
    store: &Arc<Store>,
    objects: &Objects<'_>,
    after: Lsn,
    piece: u64,
    each: bool,
) -> Result<(Image, Option<Vec<SegmentName>>)> {
    if after > Lsn::ZERO {
        match send_behind(store, objects, after, piece, each) {
            Ok((image, segments)) => return Ok((image, Some(segments))),
            // Also in the middle of it: a push holds nothing up, and so no history.
            Err(e) if matches!(e.code(), Code::Trimmed | Code::Argument) => {}
            Err(e) => return Err(e),
        }
    }
    let image = store.image()?;
    image.harden()?;
    Ok((image, None))
}

fn send_behind(
    store: &Arc<Store>,
    objects: &Objects<'_>,
    after: Lsn,
    piece: u64,
    each: bool,
) -> Result<(Image, Vec<SegmentName>)> {
    let image = store.image()?;
    let mut batches = match each {
        true => image.batches_of_each(after, piece)?,
        false => image.batches(after, piece)?,
    };
    let mut segments = Vec::new();
    let mut packing = Packing::new();
    for piece in &mut batches {
        objects.go_on()?;
        packing.push(&piece?);
        if packing.bytes.len() >= SEGMENT_BYTES {
            let whole = std::mem::replace(&mut packing, Packing::new());
            segments.push(whole.send(objects)?);
        }
    }
    if !packing.is_empty() {
        segments.push(packing.send(objects)?);
    }
    Ok((batches.into_image(), segments))
}

/// Applies what is in a segment up to a point, which goes on from the commit `known`: a power cut may take it back. False
/// if the point was reached.
///
/// # Errors
/// `Missing`, `Damaged`, `Format`; those of [`Store::receive`].
pub(crate) fn receive(
    store: &Arc<Store>,
    objects: &Objects<'_>,
    segment: &SegmentName,
    known: Option<(Lsn, u64)>,
    until: Point,
) -> Result<bool> {
    let name = name(segment);
    let wrong = |code, why: &str| {
        let text =
            format!("{name} of {} {why}; put it back as it was, or clone from another remote", objects.url());
        Error::new(code, text)
    };
    let bytes = objects.get(&name, segment.bytes)?.ok_or_else(|| wrong(Code::Missing, "is gone"))?;
    if bytes.len() as u64 != segment.bytes || hash(&bytes) != segment.hash {
        return Err(wrong(Code::Damaged, "isn't what its name says"));
    }
    let damaged = || wrong(Code::Damaged, "is no segment");
    let (header, rest) = bytes.split_at_checked(HEADER_LEN).ok_or_else(damaged)?;
    if &header[..8] != MAGIC {
        return Err(damaged());
    }
    if header[8..12] != VERSION.to_le_bytes() {
        return Err(Error::new(Code::Format, format!("{name} is of a newer format; use a newer version")));
    }
    let packing = u32::from_le_bytes([header[12], header[13], header[14], header[15]]);
    let pieces = unpacked(packing, rest).ok_or_else(damaged)?;
    let mut rest = &*pieces;
    while !rest.is_empty() {
        let (length, behind) = rest.split_first_chunk::<LENGTH_LEN>().ok_or_else(damaged)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| damaged())?;
        let (piece, behind) = behind.split_at_checked(length).ok_or_else(damaged)?;
        let state = shipped_state(piece)?;
        if !until.has(state.lsn.get(), state.time) {
            return Ok(false);
        }
        // Nobody else can commit while it is received.
        store.prefetch(&store.pages_wanted(piece)?)?;
        store.receive_behind(piece, known, Durability::Process)?;
        rest = behind;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(pieces: &[u8]) -> Vec<u8> {
        [header(MAGIC, Salt::default()), pieces.to_vec()].concat()
    }

    fn opened(bytes: &[u8]) -> Option<Vec<u8>> {
        let (header, rest) = bytes.split_at(HEADER_LEN);
        unpacked(u32::from_le_bytes(header[PACKING].try_into().unwrap()), rest).map(Cow::into_owned)
    }

    #[test]
    fn what_is_packed_is_what_it_was_and_never_longer() {
        let noise: Vec<u8> =
            (0..10_000u32).flat_map(|n| blake3::hash(&n.to_le_bytes()).as_bytes()[..8].to_vec()).collect();
        let alike: Vec<u8> = (0..10_000u32).flat_map(|n| (n / 100).to_le_bytes()).collect();
        for (pieces, shorter) in [(&noise[..], false), (&alike, true), (&noise[..3], false), (&[], false)] {
            let packed = packed(segment(pieces));
            assert_eq!(opened(&packed).as_deref(), Some(pieces));
            assert!(packed.len() <= HEADER_LEN + pieces.len());
            assert_eq!(packed.len() < HEADER_LEN + pieces.len() / 2, shorter);
        }
    }

    #[test]
    fn what_claims_to_be_long_takes_no_memory() {
        let mut bytes = packed(segment(&[7; 100_000]));
        for at in HEADER_LEN..bytes.len() {
            for bit in 0..8 {
                bytes[at] ^= 1 << bit;
                // Whoever wrote it knows its hash; nothing panics.
                drop(opened(&bytes));
                bytes[at] ^= 1 << bit;
            }
            assert_eq!(opened(&bytes[..at]), None, "cut at {at}");
        }
        bytes[12] = 2;
        assert_eq!(opened(&bytes), None);
    }
}
