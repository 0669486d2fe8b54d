//! Files that are written whole: a header, and behind it bytes that mean something to others.

use super::{VERSION, put, u32_at, u64_at};
use crate::error::{Code, Error, Result};

/// Length of the header in bytes.
const HEADER_LEN: usize = 32;

/// A kind of such a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    magic: &'static [u8; 8],
    /// What is in it, for messages.
    what: &'static str,
}

impl Whole {
    /// What is kept about remotes.
    pub const REMOTES: Whole = Whole { magic: b"TIDERMTS", what: "the list of remotes" };
    /// Where the pages come from that a lazy clone doesn't have.
    pub const SOURCE: Whole = Whole { magic: b"TIDESRCE", what: "the description of a lazy clone's source" };

    /// The header of `bytes`.
    pub fn header(&self, bytes: &[u8]) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        put(&mut out, 0, self.magic);
        put(&mut out, 8, &VERSION.to_le_bytes());
        put(&mut out, 16, &(bytes.len() as u64).to_le_bytes());
        put(&mut out, 24, &crc32fast::hash(bytes).to_le_bytes());
        let crc = crc32fast::hash(&out[..28]);
        put(&mut out, 28, &crc.to_le_bytes());
        out
    }

    /// What follows the header of a whole file.
    ///
    /// # Errors
    /// `Damaged`; `Format` of a newer one.
    pub fn check<'a>(&self, file: &'a [u8]) -> Result<&'a [u8]> {
        let damaged = || Error::new(Code::Damaged, format!("{} is damaged", self.what));
        if file.len() < HEADER_LEN || &file[..8] != self.magic {
            return Err(damaged());
        }
        let (header, body) = file.split_at(HEADER_LEN);
        if crc32fast::hash(&header[..28]) != u32_at(header, 28) {
            return Err(damaged());
        }
        let version = u32_at(header, 8);
        if version > VERSION {
            let text = format!("{} is of format {version}, newer than this version", self.what);
            return Err(Error::new(Code::Format, text));
        }
        if u64_at(header, 16) == body.len() as u64 && u32_at(header, 24) == crc32fast::hash(body) {
            Ok(body)
        } else {
            Err(damaged())
        }
    }
}
