//! Compaction: merging neighbouring entries, always copy-on-write.

use std::sync::Arc;

use crate::error::{Code, Error, Result};
use crate::lsn::LsnRange;
use crate::store::Store;

impl Store {
    /// Merges the entries of `range`, or of all that may be merged; returns how many bytes the
    /// journal is smaller by.
    ///
    /// # Errors
    /// `Argument`.
    pub fn compact(self: &Arc<Self>, _range: Option<LsnRange>) -> Result<u64> {
        Err(Error::new(Code::Argument, "tide_compact isn't built yet; tide_retain bounds the journal"))
    }
}
