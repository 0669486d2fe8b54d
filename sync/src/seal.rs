//! Names and bytes of objects at a remote that is encrypted: nobody without its key can read one, change one, or take one
//! for another.
//!
//! ```text
//!   name    folder of its kind, keyed (16 digits) / its name, keyed (64 digits)
//!   object  header 48 │ chunk 4096 + 16 │ chunk 4096 + 16 │ … │ last chunk, of any length, + 16
//! ```
//! Each object has a key of its own, made from its header and its stored name, so that nothing else opens it. Chunks are
//! numbered, and the last is told from the others: what was cut, or put together in another order, doesn't open.

use std::ops::Range;

use bytes::Bytes;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, Tag, UnboundKey};
use tideline_journal::{Code, Error, Result, random_id};

use crate::hex;

const MAGIC: &[u8; 8] = b"TIDESEAL";
const VERSION: u32 = 1;
const SALT_LEN: usize = 32;
const HEADER_LEN: usize = 16 + SALT_LEN;
/// Plain bytes of a chunk.
const CHUNK: usize = 4096;
/// What sealing adds to a chunk.
const TAG_LEN: usize = 16;
const SEALED_CHUNK: usize = CHUNK + TAG_LEN;
/// Byte of a nonce that tells the last chunk from the others; its number is before.
const LAST_AT: usize = NONCE_LEN - 1;

/// What keys are derived for. Each is followed by the version of all this.
const FOLDERS: &str = "tideline remote 1: names of folders";
const NAMES: &str = "tideline remote 1: names of objects";
const OBJECTS: &str = "tideline remote 1: bytes of objects";
const CHECK: &str = "tideline remote 1: check of the key";

/// A master key.
pub(crate) type Master = [u8; 32];
/// What tells a remote from any other with the same key.
pub(crate) type Id = [u8; 16];

/// Why an object doesn't open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It isn't what was sealed under this name, with this key.
    Damaged,
    /// It says that it is of a newer format.
    Newer,
}

/// The names and keys of one remote. It doesn't print itself.
pub(crate) struct Seal {
    id: Id,
    check: [u8; 32],
    folders: [u8; 32],
    names: [u8; 32],
    objects: [u8; 32],
}

fn derive(context: &str, master: &Master, id: &Id) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(master).update(id);
    *hasher.finalize().as_bytes()
}

/// Length of an object whose plain bytes are so many.
pub(crate) fn sealed_len(plain: u64) -> u64 {
    let chunks = plain.div_ceil(CHUNK as u64).max(1);
    plain.saturating_add(chunks * TAG_LEN as u64).saturating_add(HEADER_LEN as u64)
}

/// The bytes of a sealed object of `len` plain bytes that a part of it is in: whole chunks.
pub(crate) fn covering(len: u64, part: &Range<u64>) -> Range<u64> {
    let end = part.end.min(len);
    if part.start >= end {
        return 0..0;
    }
    let place = |chunk: u64| chunk.saturating_mul(SEALED_CHUNK as u64).saturating_add(HEADER_LEN as u64);
    let chunks = part.start / CHUNK as u64..end.div_ceil(CHUNK as u64);
    place(chunks.start)..place(chunks.end).min(sealed_len(len))
}

/// An object whose name is the hash of its bytes. A key and a nonce seal one content there, whatever the salt.
fn is_named_by_content(name: &str) -> bool {
    name.starts_with("segment/")
}

fn header(salt: &[u8; SALT_LEN]) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[12..16].copy_from_slice(&(CHUNK as u32).to_le_bytes());
    header[16..].copy_from_slice(salt);
    header
}

fn nonce(chunk: u64, last: bool) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[..8].copy_from_slice(&chunk.to_le_bytes());
    nonce[LAST_AT] = u8::from(last);
    Nonce::assume_unique_for_key(nonce)
}

/// Opens chunks that lie one behind the other, from number `first` on; `ends` if the last of them is the object's.
fn open_chunks(key: &LessSafeKey, first: u64, ends: bool, sealed: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(sealed.len());
    let mut chunks = (first..).zip(sealed.chunks(SEALED_CHUNK)).peekable();
    while let Some((number, chunk)) = chunks.next() {
        let last = ends && chunks.peek().is_none();
        let (bytes, tag) = chunk.split_at_checked(chunk.len().checked_sub(TAG_LEN)?)?;
        let begin = plain.len();
        plain.extend_from_slice(bytes);
        let tag = Tag::try_from(tag).ok()?;
        let nonce = nonce(number, last);
        key.open_in_place_separate_tag(nonce, Aad::empty(), tag, &mut plain[begin..], 0..).ok()?;
    }
    Some(plain)
}

impl Seal {
    /// That of the remote `id`.
    pub fn new(master: &Master, id: Id) -> Seal {
        let derived = |context| derive(context, master, &id);
        Seal {
            id,
            check: derived(CHECK),
            folders: derived(FOLDERS),
            names: derived(NAMES),
            objects: derived(OBJECTS),
        }
    }

    /// The remote's.
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// What tells its key from others, and nothing else about it.
    pub fn check(&self) -> &[u8; 32] {
        &self.check
    }

    /// Where objects of the kind `dir` are.
    pub fn stored_folder(&self, dir: &str) -> String {
        hex::print(&blake3::keyed_hash(&self.folders, dir.as_bytes()).as_bytes()[..8])
    }

    /// Where the object `name` is.
    pub fn stored(&self, name: &str) -> String {
        let dir = name.split_once('/').map_or(name, |(dir, _)| dir);
        let keyed = blake3::keyed_hash(&self.names, name.as_bytes());
        format!("{}/{}", self.stored_folder(dir), hex::print(keyed.as_bytes()))
    }

    /// The key of an object. It depends on all that isn't sealed.
    fn key(&self, header: &[u8; HEADER_LEN], stored: &str) -> Option<LessSafeKey> {
        let mut hasher = blake3::Hasher::new_keyed(&self.objects);
        hasher.update(header).update(stored.as_bytes());
        Some(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, hasher.finalize().as_bytes()).ok()?))
    }

    /// The object `name` as it is stored.
    ///
    /// # Errors
    /// `Io` if the system has no random numbers.
    pub fn seal(&self, name: &str, plain: &[u8]) -> Result<Bytes> {
        let mut salt = [0; SALT_LEN];
        if !is_named_by_content(name) {
            salt[..16].copy_from_slice(&random_id()?);
            salt[16..].copy_from_slice(&random_id()?);
        }
        self.seal_with(&salt, name, plain).ok_or_else(|| {
            Error::new(Code::Limit, format!("{name} can't be encrypted; report this as a bug"))
        })
    }

    fn seal_with(&self, salt: &[u8; SALT_LEN], name: &str, plain: &[u8]) -> Option<Bytes> {
        let header = header(salt);
        let key = self.key(&header, &self.stored(name))?;
        let mut sealed = Vec::with_capacity(usize::try_from(sealed_len(plain.len() as u64)).ok()?);
        sealed.extend_from_slice(&header);
        // One that is empty has a chunk as well: else nothing would be told about it.
        let count = plain.len().div_ceil(CHUNK).max(1);
        for number in 0..count {
            let end = plain.len().min((number + 1) * CHUNK);
            let begin = sealed.len();
            sealed.extend_from_slice(&plain[number * CHUNK..end]);
            let nonce = nonce(number as u64, number + 1 == count);
            let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut sealed[begin..]).ok()?;
            sealed.extend_from_slice(tag.as_ref());
        }
        Some(sealed.into())
    }

    /// What was sealed, of an object that is found at `stored`.
    pub fn open(&self, stored: &str, sealed: &[u8]) -> std::result::Result<Vec<u8>, Fault> {
        let (found, chunks) = sealed.split_first_chunk::<HEADER_LEN>().ok_or(Fault::Damaged)?;
        let mut salt = [0; SALT_LEN];
        salt.copy_from_slice(&found[16..]);
        let version = u32::from_le_bytes([found[8], found[9], found[10], found[11]]);
        if &found[..8] == MAGIC && version > VERSION {
            return Err(Fault::Newer);
        }
        // One without a chunk has no end.
        if *found != header(&salt) || chunks.is_empty() {
            return Err(Fault::Damaged);
        }
        let key = self.key(found, stored).ok_or(Fault::Damaged)?;
        open_chunks(&key, 0, true, chunks).ok_or(Fault::Damaged)
    }

    /// A part of the object `name`, of `len` plain bytes, which its name tells: `sealed` is what was found at
    /// [`covering`]. `None` if it isn't what was sealed.
    pub fn open_part(&self, name: &str, len: u64, part: &Range<u64>, sealed: &[u8]) -> Option<Vec<u8>> {
        let place = covering(len, part);
        if sealed.len() as u64 != place.end - place.start {
            return None;
        }
        if sealed.is_empty() {
            return Some(Vec::new());
        }
        let key = self.key(&header(&[0; SALT_LEN]), &self.stored(name))?;
        let first = part.start / CHUNK as u64;
        let mut plain = open_chunks(&key, first, place.end == sealed_len(len), sealed)?;
        let begin = part.start - first * CHUNK as u64;
        plain.drain(..usize::try_from(begin).ok()?);
        plain.truncate(usize::try_from(part.end - part.start).ok()?);
        Some(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "manifest/00000000000000000001";
    const SEGMENT: &str = "segment/00/0011";
    const LENGTHS: [usize; 11] = [0, 1, 15, 16, 4095, 4096, 4097, 8191, 8192, 8193, 20_000];

    fn of(key: u8) -> Seal {
        Seal::new(&[key; 32], [9; 16])
    }

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|n| (n as u32).wrapping_mul(2_654_435_761) as u8).collect()
    }

    #[test]
    fn what_was_sealed_is_opened_and_has_the_length_that_was_told() {
        let seal = of(1);
        for len in LENGTHS {
            for name in [NAME, SEGMENT, "hint"] {
                let sealed = seal.seal(name, &bytes(len)).unwrap();
                assert_eq!(sealed.len() as u64, sealed_len(len as u64), "{len}");
                assert_eq!(seal.open(&seal.stored(name), &sealed), Ok(bytes(len)), "{len}");
            }
        }
    }

    #[test]
    fn every_byte_that_changes_is_noticed_and_every_cut() {
        let seal = of(1);
        for len in [0, 1, 100, 4096, 4097] {
            let sealed = seal.seal(NAME, &bytes(len)).unwrap().to_vec();
            let stored = seal.stored(NAME);
            for at in 0..sealed.len() {
                let mut changed = sealed.clone();
                changed[at] ^= 1 << (at % 8);
                assert!(seal.open(&stored, &changed).is_err(), "byte {at} of {len}");
            }
            for at in 0..sealed.len() {
                assert_eq!(seal.open(&stored, &sealed[..at]), Err(Fault::Damaged), "{len} cut at {at}");
            }
            let mut longer = sealed.clone();
            for _ in 0..2 * TAG_LEN {
                longer.push(0);
                assert_eq!(seal.open(&stored, &longer), Err(Fault::Damaged), "{len} grown");
            }
        }
        let mut newer = seal.seal(NAME, b"x").unwrap().to_vec();
        newer[8] = 2;
        assert_eq!(seal.open(&seal.stored(NAME), &newer), Err(Fault::Newer));
    }

    #[test]
    fn chunks_of_another_place_or_object_or_without_their_end_are_noticed() {
        let seal = of(1);
        let plain = bytes(3 * CHUNK);
        let sealed = seal.seal(NAME, &plain).unwrap().to_vec();
        let stored = seal.stored(NAME);
        let chunk = |n: usize| HEADER_LEN + n * SEALED_CHUNK..HEADER_LEN + (n + 1) * SEALED_CHUNK;
        let mut swapped = sealed.clone();
        swapped.copy_within(chunk(1), chunk(0).start);
        swapped[chunk(1)].copy_from_slice(&sealed[chunk(0)]);
        assert_eq!(seal.open(&stored, &swapped), Err(Fault::Damaged));
        assert_eq!(seal.open(&stored, &sealed[..chunk(1).end]), Err(Fault::Damaged));
        let twice = [&sealed[..], &sealed[chunk(2)]].concat();
        assert_eq!(seal.open(&stored, &twice), Err(Fault::Damaged));
        // The same content, sealed again.
        let again = seal.seal(NAME, &plain).unwrap().to_vec();
        let mut mixed = sealed.clone();
        mixed[chunk(1)].copy_from_slice(&again[chunk(1)]);
        assert_eq!(seal.open(&stored, &mixed), Err(Fault::Damaged));
        assert_ne!(sealed, again);
        assert_eq!(seal.open(&seal.stored("manifest/00000000000000000002"), &sealed), Err(Fault::Damaged));
    }

    #[test]
    fn another_key_or_remote_opens_nothing_and_has_other_names() {
        let seal = of(1);
        let others = [of(2), Seal::new(&[1; 32], [8; 16])];
        for name in [NAME, SEGMENT, "hint"] {
            let sealed = seal.seal(name, b"something").unwrap();
            for other in &others {
                assert_eq!(other.open(&seal.stored(name), &sealed), Err(Fault::Damaged));
                assert_eq!(other.open(&other.stored(name), &sealed), Err(Fault::Damaged));
                assert_ne!(other.stored(name), seal.stored(name));
                assert_ne!(other.stored_folder("manifest"), seal.stored_folder("manifest"));
                assert_ne!(other.check(), seal.check());
            }
        }
    }

    #[test]
    fn names_of_a_kind_are_in_one_folder_and_tell_nothing() {
        let seal = of(1);
        let stored = seal.stored(NAME);
        assert_eq!(stored.len(), 16 + 1 + 64);
        let (folder, rest) = stored.split_once('/').unwrap();
        assert_eq!(folder, seal.stored_folder("manifest"));
        assert!(stored.bytes().all(|b| b == b'/' || b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
        assert_ne!(&rest[..16], folder);
        assert!(seal.stored("manifest/2").starts_with(folder));
        assert!(!seal.stored(SEGMENT).starts_with(folder));
        assert!(seal.stored("hint").starts_with(&seal.stored_folder("hint")));
    }

    #[test]
    fn a_segment_is_sealed_the_same_again_and_nothing_else_is() {
        let seal = of(1);
        let twice = |name| (seal.seal(name, b"pages").unwrap(), seal.seal(name, b"pages").unwrap());
        let (one, other) = twice(SEGMENT);
        assert_eq!(one, other);
        for name in [NAME, "hint", "probe/1", "segments"] {
            let (one, other) = twice(name);
            assert_ne!(one, other, "{name}");
        }
    }

    #[test]
    fn parts_are_those_of_the_plain_bytes() {
        let seal = of(1);
        let edges = [0u64, 1, 15, 4095, 4096, 4097, 8191, 8192, 8193, 12_288, 19_999, 20_000];
        for len in LENGTHS {
            let plain = bytes(len);
            let sealed = seal.seal(SEGMENT, &plain).unwrap();
            for begin in edges {
                for end in edges.into_iter().filter(|&end| begin < end) {
                    let place = covering(len as u64, &(begin..end));
                    let got = &sealed[place.start as usize..place.end as usize];
                    let whole = begin as usize..(end as usize).min(len);
                    let expected = plain.get(whole).unwrap_or_default();
                    let opened = seal.open_part(SEGMENT, len as u64, &(begin..end), got).unwrap();
                    assert_eq!(opened, expected, "{begin} to {end} of {len}");
                    if got.is_empty() {
                        continue;
                    }
                    for at in [0, got.len() / 2, got.len() - 1] {
                        let mut changed = got.to_vec();
                        changed[at] ^= 0x10;
                        assert_eq!(seal.open_part(SEGMENT, len as u64, &(begin..end), &changed), None);
                    }
                    let cut = &got[..got.len() - 1];
                    assert_eq!(seal.open_part(SEGMENT, len as u64, &(begin..end), cut), None);
                }
            }
            assert_eq!(covering(len as u64, &(len as u64..u64::MAX)), 0..0);
            // Another length has another last chunk.
            if let Some(shorter) = (len as u64).checked_sub(CHUNK as u64).filter(|&shorter| shorter > 0) {
                let part = shorter - 1..shorter;
                let place = covering(shorter, &part);
                let got = &sealed[place.start as usize..place.end as usize];
                assert_eq!(seal.open_part(SEGMENT, shorter, &part, got), None, "{len}");
            }
        }
    }

    /// Another implementation, made from FORMAT.md alone, said so.
    #[test]
    fn the_format_is_what_it_was() {
        let seal = Seal::new(&[0x42; 32], [0x17; 16]);
        assert_eq!(
            hex::print(seal.check()),
            "3290431e8c404c242076c3372088e3b2700737037ddb31bdf5b87edaa18f78bd"
        );
        assert_eq!(seal.stored_folder("manifest"), "ed609a8d7aaf831b");
        assert_eq!(
            seal.stored("hint"),
            "539c4e2278250456/834e725f8b2e641bae17d9561104c5ccf7195856973f40d914270397cea5df54"
        );
        let (header, chunk) =
            (hex::print(&header(&[0; SALT_LEN])), "86017e53d34db90029fee2b90d65e9e837b2c764");
        assert_eq!(hex::print(&seal.seal(SEGMENT, b"tide").unwrap()), header + chunk);
        let long = seal.seal(SEGMENT, &[0x61; 5000]).unwrap();
        assert_eq!(
            blake3::hash(&long).to_hex().as_str(),
            "911823b48b4f517bf82c55d322571f597ff619ee9c9e737cccb8c24d74eae775"
        );
    }
}
