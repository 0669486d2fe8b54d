//! Writing the database at a snapshot into a plain SQLite file.

use std::path::Path;
use std::sync::Arc;

use crate::disk::How;
use crate::error::{At, Code, Error, Result, making};
use crate::lsn::Lsn;
use crate::session::Session;
use crate::source::Ahead;
use crate::state::lock_page;
use crate::store::Store;

impl Store {
    /// Writes the database at the head into a new file at the absolute `path`, durably.
    ///
    /// # Errors
    /// `Argument` if something is there, `Full`, `Io`; of a lazy clone, those of its source. No file is left then.
    pub fn export(self: &Arc<Self>, path: &Path) -> Result<Lsn> {
        let mut session = Session::new(Arc::clone(self))?;
        session.begin_read()?;
        let view = session.pinned()?;
        let file = match self.disk.open(path, How::CreateNew) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(Error::new(
                    Code::Argument,
                    format!("{} exists; give a path where nothing is", path.display()),
                ));
            }
            Err(e) => return Err(making(e, path)),
        };
        let here = || format!("writing {}", path.display());
        let state = view.state;
        let size = state.page_size as usize;
        let mut image = vec![0; size];
        let mut ahead = Ahead::default();
        let written = (|| {
            file.set_len(state.bytes()).at(here)?;
            for page in (1..=state.size).filter(|&page| page != lock_page(size)) {
                ahead.reach(self, view, page)?;
                view.read(self, page, 0, &mut image)?;
                file.write_at(&image, u64::from(page - 1) * size as u64).at(here)?;
            }
            file.sync().at(here)?;
            if let Some(folder) = path.parent() {
                self.disk.sync_dir(folder).at(here)?;
            }
            Ok(())
        })();
        if let Err(e) = written {
            self.disk.remove(path).at(|| format!("removing {}", path.display()))?;
            return Err(e);
        }
        session.end_read()?;
        Ok(state.lsn)
    }
}
