//! The file in which remotes are kept.

use super::{VERSION, put, u32_at, u64_at};
use crate::error::{Code, Error, Result};

/// Length of the header in bytes.
const REMOTES_HEADER_LEN: usize = 32;
const MAGIC: &[u8; 8] = b"TIDERMTS";

/// The header, before the bytes that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemotesHeader {
    /// Length of what follows, in bytes.
    pub len: u64,
    /// CRC-32 of what follows.
    pub body: u32,
}

impl RemotesHeader {
    /// The header of `bytes`.
    pub fn of(bytes: &[u8]) -> RemotesHeader {
        RemotesHeader { len: bytes.len() as u64, body: crc32fast::hash(bytes) }
    }

    /// Its bytes.
    pub fn encode(&self) -> [u8; REMOTES_HEADER_LEN] {
        let mut out = [0; REMOTES_HEADER_LEN];
        put(&mut out, 0, MAGIC);
        put(&mut out, 8, &VERSION.to_le_bytes());
        put(&mut out, 16, &self.len.to_le_bytes());
        put(&mut out, 24, &self.body.to_le_bytes());
        let crc = crc32fast::hash(&out[..28]);
        put(&mut out, 28, &crc.to_le_bytes());
        out
    }

    /// What follows the header of a whole file.
    ///
    /// # Errors
    /// `Damaged`; `Format` of a newer one.
    pub fn check(file: &[u8]) -> Result<&[u8]> {
        let damaged = || Error::new(Code::Damaged, "the list of remotes is damaged");
        if file.len() < REMOTES_HEADER_LEN || &file[..8] != MAGIC {
            return Err(damaged());
        }
        let (header, body) = file.split_at(REMOTES_HEADER_LEN);
        if crc32fast::hash(&header[..28]) != u32_at(header, 28) {
            return Err(damaged());
        }
        if u32_at(header, 8) > VERSION {
            let text =
                format!("the list of remotes is of format {}, newer than this version", u32_at(header, 8));
            return Err(Error::new(Code::Format, text));
        }
        let found = RemotesHeader { len: u64_at(header, 16), body: u32_at(header, 24) };
        if found == RemotesHeader::of(body) { Ok(body) } else { Err(damaged()) }
    }
}
