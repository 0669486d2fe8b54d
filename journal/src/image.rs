//! The whole database at one LSN, for whoever copies it page by page.

use std::sync::Arc;

use crate::error::Result;
use crate::format::{Packing, ShippedHeader};
use crate::hash::page_hash;
use crate::lsn::Lsn;
use crate::session::Session;
use crate::ship::Batches;
use crate::state::{State, lock_page};
use crate::store::Store;

/// A snapshot of the newest commit that stays what it is for as long as this lives.
pub struct Image {
    pub(crate) session: Session,
}

impl Store {
    /// The database as it is now.
    ///
    /// # Errors
    /// As reading it.
    pub fn image(self: &Arc<Self>) -> Result<Image> {
        self.whole()?;
        let mut session = Session::new(Arc::clone(self))?;
        session.begin_read()?;
        Ok(Image { session })
    }
}

impl Image {
    /// What is true of it.
    ///
    /// # Errors
    /// None while it is pinned.
    pub fn state(&self) -> Result<State> {
        Ok(self.session.pinned()?.state)
    }

    /// True if pages of it may have to be fetched.
    ///
    /// # Errors
    /// `Damaged` where that can't be told, `Io`.
    pub fn is_lazy(&self) -> Result<bool> {
        self.session.store().is_lazy()
    }

    /// Makes it durable, as what leaves the machine must be.
    ///
    /// # Errors
    /// `Poisoned` if that fails.
    pub fn harden(&self) -> Result<()> {
        self.session.store().make_durable(self.session.pinned()?.state.lsn)
    }

    /// Its rolling checksum; a lazy clone may not know it. Where pages must be read for it, `go_on` is asked now and then.
    ///
    /// # Errors
    /// `Damaged`, `Io` while pages are read; of `go_on`.
    pub fn checksum(&self, go_on: &dyn Fn() -> Result<()>) -> Result<Option<u64>> {
        self.session.store().checksum_while(self.session.pinned()?, !self.is_lazy()?, go_on)
    }

    /// Fills `to` with the image of a page, which isn't above the size, and compares it with its hash each time.
    ///
    /// # Errors
    /// `Damaged`, `Io`.
    pub fn read(&self, page: u32, to: &mut [u8]) -> Result<()> {
        self.session.pinned()?.read_sound(self.session.store(), page, to).map(drop)
    }

    /// All of its pages, in order.
    ///
    /// # Errors
    /// None while it is pinned.
    pub fn pages(&self) -> Result<impl Iterator<Item = u32> + use<>> {
        let State { size, page_size, .. } = self.state()?;
        let lock = lock_page(page_size as usize);
        Ok((1..=size).filter(move |&page| page != lock))
    }

    /// Its pages that were written behind the commit `after`, in order; `None` where that isn't known any more.
    ///
    /// # Errors
    /// `Damaged`, `Io` while page tables are read.
    pub fn changed_since(&self, after: Lsn) -> Result<Option<Vec<u32>>> {
        let view = self.session.pinned()?;
        let index = &view.index;
        if after < self.session.store().control.horizon() || !index.is_end(after) {
            return Ok(None);
        }
        let mut pages = Vec::new();
        for entry in index.between(after, view.state.lsn) {
            pages.extend(index.rows(&entry?)?.map(|row| row.page));
        }
        // Page 1 has the counters, whether or not it was written.
        if view.state.size > 0 && view.state.lsn > after {
            pages.push(1);
        }
        let lock = lock_page(view.state.page_size as usize);
        pages.retain(|&page| page <= view.state.size && page != lock);
        pages.sort_unstable();
        pages.dedup();
        Ok(Some(pages))
    }

    /// What is shipped of it to somebody who has `after`, in pieces of about so many bytes.
    ///
    /// # Errors
    /// As [`Store::batches`].
    pub fn batches(self, after: Lsn, max_bytes: u64) -> Result<Batches> {
        Batches::of(self, after, max_bytes, max_bytes)
    }

    /// The same, each LSN by itself as far as it is one here, so that the receiver can tell them apart too.
    ///
    /// # Errors
    /// As [`Store::batches`].
    pub fn batches_of_each(self, after: Lsn, max_bytes: u64) -> Result<Batches> {
        Batches::of(self, after, 1, max_bytes)
    }
}

/// A piece of a shipped entry that holds a whole database.
pub struct WholePiece {
    packing: Packing,
}

impl WholePiece {
    /// A piece of the database at `state`, which has `rows` pages, `before` of them in earlier pieces. All pieces of it have
    /// the same `token`.
    pub fn new(
        lineage: [u8; 16],
        state: State,
        checksum: Option<u64>,
        token: u64,
        rows: u64,
        before: u64,
    ) -> WholePiece {
        let header = ShippedHeader::whole(lineage, state, checksum, token);
        let mut packing = Packing::new(header, &[]);
        packing.place(rows, before);
        WholePiece { packing }
    }

    /// Adds the next page.
    pub fn push(&mut self, page: u32, image: &[u8]) {
        self.packing.push(page, image, page_hash(page, image), None);
    }

    /// Its length so far, in bytes.
    pub fn bytes(&self) -> usize {
        self.packing.len()
    }

    /// The piece, as [`Store::receive`] takes it.
    pub fn finish(self) -> Vec<u8> {
        self.packing.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::disk::{Disk, How, SimDisk};
    use crate::error::{At, Code};
    use crate::sample::{commit, write};
    use crate::store::Options;

    /// Changes a byte of the page that was filled with `fill`, in the file at `path`.
    fn spoil(disk: &dyn Disk, path: &Path, fill: u8) -> Result<()> {
        let file = disk.open(path, How::Write).at(|| "opening".into())?;
        let mut bytes = vec![0; file.len().at(|| "measuring".into())? as usize];
        file.read_at(&mut bytes, 0).at(|| "reading".into())?;
        let at = bytes.windows(512).position(|window| window == [fill; 512]).expect("the page is there");
        file.write_at(&[!fill], at as u64 + 77).at(|| "writing".into())
    }

    #[test]
    fn what_rots_after_its_first_touch_is_not_copied() -> Result<()> {
        for folded in [false, true] {
            let disk: Arc<dyn Disk> = SimDisk::new().process();
            let options = Options { background: false, ..Options::default() };
            let store = Store::open(Arc::clone(&disk), Path::new("/app.db"), options)?;
            let mut session = Session::new(Arc::clone(&store))?;
            write(&mut session, 8)?;
            commit(&mut session)?;
            write(&mut session, 9)?;
            commit(&mut session)?;
            if folded {
                store.fold()?;
            }
            let image = store.image()?;
            let mut page = [0; 512];
            for number in 1..=3 {
                image.read(number, &mut page)?;
            }
            assert_eq!(page, [9; 512]);
            let path = if folded { "/app.db" } else { "/app.db-tide/00000001.seg" };
            spoil(&*disk, Path::new(path), 9)?;
            assert_eq!(image.read(2, &mut page).map_err(|e| e.code()), Err(Code::Damaged), "{folded}");
            image.read(3, &mut page)?;
            // Miri runs no C, and so no zstd.
            if !folded && !cfg!(miri) {
                let shipped: Result<Vec<_>> = store.batches(Lsn::new(1), None)?.collect();
                assert_eq!(shipped.map_err(|e| e.code()), Err(Code::Damaged));
            }
        }
        Ok(())
    }
}
