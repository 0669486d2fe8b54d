//! Reading and staging pages, as the transaction sees them: bytes at offsets, as the pager has them.

use crate::error::{Code, Error, Result};
use crate::session::Session;
use crate::snapshot::Snapshot;

impl Session {
    /// Length of the database in bytes, as this transaction sees it.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> u64 {
        match (self.dirty_overlay(), &self.snapshot) {
            (Some(overlay), _) => overlay.len,
            (None, Some(snapshot)) => snapshot.state.bytes(),
            (None, None) => 0,
        }
    }

    /// Fills `to` from byte `offset`; returns how many bytes there were, the rest is zeroed.
    ///
    /// # Errors
    /// `Damaged` where an image isn't what it was; never zeros instead of a page.
    pub fn read(&self, offset: u64, to: &mut [u8]) -> Result<usize> {
        let available = self.len().saturating_sub(offset).min(to.len() as u64) as usize;
        let (data, rest) = to.split_at_mut(available);
        rest.fill(0);
        let snapshot = self.snapshot()?;
        // What the writer reads can't be taken back before its own commit, or its rollback, has waited.
        if self.unpublished && !self.writing && offset >= u64::from(snapshot.state.page_size) {
            self.store.make_durable(snapshot.state.lsn)?;
        }
        let Some(overlay) = self.dirty_overlay().filter(|overlay| overlay.block > 0) else {
            let limit = self.dirty_overlay().map_or(u64::MAX, |overlay| overlay.snapshot_len);
            self.read_snapshot(snapshot, limit, offset, data)?;
            return Ok(available);
        };
        let block = overlay.block as u64;
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let within = (at % block) as usize;
            let part = (overlay.block - within).min(data.len() - done);
            let to = &mut data[done..done + part];
            let number = u32::try_from(at / block + 1).unwrap_or(u32::MAX);
            if !overlay.read(number, within, to)? {
                self.read_snapshot(snapshot, overlay.snapshot_len, at, to)?;
            }
            done += part;
        }
        Ok(available)
    }

    /// Reads through the snapshot alone; what lies beyond `limit` or its end is zeros.
    fn read_snapshot(&self, snapshot: &Snapshot, limit: u64, offset: u64, to: &mut [u8]) -> Result<()> {
        let size = u64::from(snapshot.state.page_size);
        let end = snapshot.state.bytes().min(limit);
        let mut done = 0;
        while done < to.len() {
            let at = offset + done as u64;
            if at >= end {
                to[done..].fill(0);
                break;
            }
            let within = (at % size) as usize;
            let part = ((size as usize - within).min(to.len() - done)).min((end - at) as usize);
            snapshot.read(&self.store, (at / size + 1) as u32, within, &mut to[done..done + part])?;
            done += part;
        }
        Ok(())
    }

    /// The bytes of the page at `offset` without a copy, with `disk::SLICE_SLACK` readable bytes
    /// behind; `None` where they must be read. Valid until the transaction changes or ends.
    ///
    /// # Errors
    /// As [`Session::read`].
    pub fn slice(&self, offset: u64, len: usize) -> Result<Option<&[u8]>> {
        let Some(snapshot) = &self.snapshot else { return Ok(None) };
        // No division: this is where a query spends its time.
        if !len.is_power_of_two() || offset & (len as u64 - 1) != 0 {
            return Ok(None);
        }
        let Ok(page) = u32::try_from((offset >> len.trailing_zeros()) + 1) else { return Ok(None) };
        if let Some(overlay) = self.dirty_overlay() {
            if overlay.block != 0 && overlay.block != len {
                return Ok(None);
            }
            if overlay.block == len && overlay.has(page) {
                return Ok(overlay.slice(page));
            }
            if offset + len as u64 > overlay.snapshot_len {
                return Ok(None);
            }
        }
        if len != snapshot.state.page_size as usize {
            return Ok(None);
        }
        if self.unpublished && !self.writing {
            self.store.make_durable(snapshot.state.lsn)?;
        }
        snapshot.slice(&self.store, page)
    }

    /// True if `image` is what the snapshot, without this transaction's changes, has for `page`.
    pub fn is_snapshot_image(&self, page: u32, image: &[u8]) -> bool {
        let Some(snapshot) = &self.snapshot else { return false };
        if page == 0 || page > snapshot.state.size || image.len() != snapshot.state.page_size as usize {
            return false;
        }
        snapshot.has(&self.store, page, 0, image).unwrap_or(false)
    }

    /// Copies bytes of the snapshot's image of `page`, without this transaction's changes.
    ///
    /// # Errors
    /// As [`Session::read`].
    pub fn read_snapshot_image(&self, page: u32, at: usize, to: &mut [u8]) -> Result<()> {
        let snapshot = self.snapshot()?;
        if page == 0 || page > snapshot.state.size || at + to.len() > snapshot.state.page_size as usize {
            return Err(Error::new(
                Code::Io,
                format!("the snapshot has no page {page}; report this as a bug"),
            ));
        }
        snapshot.read(&self.store, page, at, to)
    }

    /// Stages bytes at `offset`, of any length.
    ///
    /// # Errors
    /// `Full`, `Io`; and those of [`Session::begin_write`] where the writer's place was given up.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let overlay = self.overlay()?;
        if overlay.block == 0 {
            let natural =
                crate::state::is_page_size(bytes.len()) && offset.is_multiple_of(bytes.len() as u64);
            overlay.block = if natural { bytes.len() } else { 512 };
        }
        let block = overlay.block;
        if bytes.len() == block && offset.is_multiple_of(block as u64) {
            return overlay.put(block_number(offset, block)?, bytes);
        }
        let mut done = 0;
        let mut image = vec![0; block];
        while done < bytes.len() {
            let at = offset + done as u64;
            let within = (at % block as u64) as usize;
            let part = (block - within).min(bytes.len() - done);
            if part < block {
                self.read(at - within as u64, &mut image)?;
            }
            image[within..within + part].copy_from_slice(&bytes[done..done + part]);
            let end = at + part as u64;
            let overlay = self.overlay()?;
            let len = overlay.len.max(end);
            overlay.put(block_number(at, block)?, &image)?;
            overlay.len = len;
            done += part;
        }
        Ok(())
    }

    /// Sets the length of the database in bytes.
    ///
    /// # Errors
    /// As [`Session::write`].
    pub fn truncate(&mut self, len: u64) -> Result<()> {
        if self.len() == len {
            return Ok(());
        }
        if self.dirty_overlay().is_none() && self.prepared.is_none() && !self.writing {
            // Late, after the commit was published: it must agree with what was.
            return Err(Error::new(Code::Io, "a truncation outside a transaction; report this as a bug"));
        }
        // Behind FCNTL_SYNC the pager cuts the file to the size that the entry already has.
        if let Some(prepared) = &self.prepared {
            if prepared.header.state.bytes() == len {
                if let Some(overlay) = &mut self.overlay {
                    overlay.truncate(len);
                }
                return Ok(());
            }
        }
        self.overlay()?.truncate(len);
        Ok(())
    }
}

fn block_number(offset: u64, block: usize) -> Result<u32> {
    u32::try_from(offset / block as u64 + 1).map_err(|_| {
        Error::new(Code::Limit, "the database would have more than 2^32 pages; use larger pages")
    })
}
