//! An index that takes the place of one that is mostly about what was dropped.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Held, Index, OFFSET_BITS, VERIFIED};
use crate::error::Result;
use crate::lsn::Lsn;

/// An index that is made from another, without what lies at or below a horizon.
pub(crate) struct Shrunk {
    pub index: Index,
    /// Ordinal, in the other, of the first segment that is in this one.
    pub segments_from: u32,
    /// What is copied next: ordinals of an entry and of its first version.
    entry: u32,
    version: u32,
}

impl Shrunk {
    /// Begins with nothing behind `horizon`, an end of an entry; `None` if `old` hasn't got that.
    ///
    /// # Errors
    /// As [`Index::entry`].
    pub fn begin(old: &Index, horizon: Lsn) -> Result<Option<Shrunk>> {
        let Some(origin) = old.state(horizon)? else { return Ok(None) };
        let entry = old.first_above(horizon);
        let version = old.first_version(entry);
        let segments_from = if entry < old.entry_count() {
            old.header_of(entry).0
        } else {
            entry.checked_sub(1).map_or(0, |last| old.header_of(last).0)
        };
        Ok(Some(Shrunk {
            index: Index::new(origin, old.origin_at(horizon), old.base),
            segments_from,
            entry,
            version,
        }))
    }

    /// Copies what `old` has got since; `None` if it can't be, because a row names a segment that was
    /// left out.
    pub fn copy(&mut self, old: &Index) -> Result<Option<()>> {
        let have = self.index.segment_count.load(Ordering::Relaxed);
        for ordinal in self.segments_from + have..old.segment_count.load(Ordering::Acquire) {
            let Held { segment, before } = old.held(ordinal);
            self.index.push_held(Held { segment: Arc::clone(segment), before: *before });
        }
        for ordinal in self.entry..old.entry_count() {
            if old.last(ordinal) > old.applied() {
                break;
            }
            let entry = old.entry(ordinal)?;
            let Some(segment) = entry.segment.checked_sub(self.segments_from) else { return Ok(None) };
            let mut pages = old.rows(&entry)?.map(|row| row.page);
            let last = entry.range.last;
            self.index.push_entry(segment, entry.offset, entry.origin, last, old.header_crc(ordinal));
            for (number, page) in (self.version..).zip(&mut pages) {
                let version = old.versions.get(number as usize).expect("each row has a version");
                let place = version.place.load(Ordering::Relaxed);
                let held = ((place & !VERIFIED) >> OFFSET_BITS) as u32;
                let Some(held) = held.checked_sub(self.segments_from) else { return Ok(None) };
                let rest = place & (VERIFIED | ((1 << OFFSET_BITS) - 1));
                self.index.push_version(page, (u64::from(held) << OFFSET_BITS) | rest);
            }
            *self.index.last.lock() = entry.state;
            self.index.applied.store(last.get(), Ordering::Release);
            self.version += entry.rows;
            self.entry = ordinal + 1;
        }
        Ok(Some(()))
    }
}
