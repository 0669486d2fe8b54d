//! Names that nobody else makes.

use tideline_journal::{Code, Error, Result};

/// 16 random bytes.
pub(crate) fn id() -> Result<[u8; 16]> {
    let half = || {
        getrandom::u64()
            .map_err(|e| Error::new(Code::Io, format!("no random numbers: {e}; look at the system's log")))
    };
    let mut id = [0; 16];
    id[..8].copy_from_slice(&half()?.to_le_bytes());
    id[8..].copy_from_slice(&half()?.to_le_bytes());
    Ok(id)
}
