//! Beginning a lazy clone: a database of which no page is here yet.
//!
//! The base is made first, empty, so that of two who make it one does. Files that the superblock stands for are durable
//! before it; the mark on the base is, too, so that nobody takes what is half made for a database: until it is there the
//! base is empty.

use std::path::Path;
use std::sync::Arc;

use crate::control::{ControlFile, Lock};
use crate::disk::{Disk, How, LockKind};
use crate::error::{At, Code, Error, Result, making};
use crate::format::{Mark, Name, Origin, PresentHeader, Superblock, Whole};
use crate::hashes::Hashes;
use crate::present::Present;
use crate::state::State;
use crate::store::mark::{OPEN_BYTE, SHARED_FIRST, bare_header, put_mark};
use crate::store::{Opening, Options, Store, remove, remove_side, side_folder, sync_name};
use crate::whole::write_whole;

impl Store {
    /// Makes a lazy clone at the absolute `path`, where nothing is, and opens it: a database of `lineage`, at `state`,
    /// with the rolling `checksum` if that is known, whose pages come from the source that `source` describes to
    /// [`Options::source`]. Nobody is asked for anything.
    ///
    /// # Errors
    /// `Argument` if something is there, or `state` is that of no database; `Busy` if another process opens it
    /// meanwhile; `Full`, `Io`. What was made is removed then.
    pub fn begin_lazy(
        disk: Arc<dyn Disk>,
        path: &Path,
        options: Options,
        lineage: [u8; 16],
        state: State,
        checksum: Option<u64>,
        source: &[u8],
    ) -> Result<Arc<Store>> {
        if !state.is_possible() || state.size == 0 || state.lsn.get() == 0 {
            return Err(Error::new(
                Code::Argument,
                format!(
                    "a database of {} pages at LSN {} can't be cloned lazily; clone it whole",
                    state.size, state.lsn
                ),
            ));
        }
        let side = side_folder(path);
        let taken = |there: &Path| {
            let text = format!("{} exists already; give the path of a new database", there.display());
            Error::new(Code::Argument, text)
        };
        if disk.exists(&side).at(|| format!("looking for {}", side.display()))? {
            return Err(taken(&side));
        }
        match disk.open(path, How::CreateNew) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return Err(taken(path)),
            created => created.map(drop).map_err(|e| making(e, path))?,
        }
        let base = disk.open_kept(path, How::Write).at(|| format!("opening {}", path.display()))?;
        let opening = Opening { disk: &*disk, path, side: &side, base: &*base, options: &options };
        let locked = || -> std::io::Result<bool> {
            Ok(base.lock(OPEN_BYTE, 1, LockKind::Write)? && base.lock(SHARED_FIRST, 1, LockKind::Read)?)
        };
        let header = PresentHeader {
            lsn: state.lsn,
            page_size: state.page_size,
            size: state.size,
            checksum,
            whole: false,
        };
        let made = match locked() {
            Ok(true) => opening.make_all(lineage, state, header, source),
            Ok(false) => Err(opening.taken()),
            Err(e) => Err(e).at(|| format!("locking {}", path.display())),
        };
        drop(base.unlock(OPEN_BYTE, 1));
        drop(base.unlock(SHARED_FIRST, 1));
        made?;
        Store::open(disk, path, options)
    }
}

impl Opening<'_> {
    fn taken(&self) -> Error {
        let path = self.path.display();
        Error::new(Code::Busy, format!("another process is opening {path}; give the path of a new database"))
    }

    /// Makes the side folder and everything in it, beside a base that is empty and locked. What was made is removed if
    /// that fails.
    fn make_all(&self, lineage: [u8; 16], state: State, present: PresentHeader, source: &[u8]) -> Result<()> {
        self.base_in_place()?;
        match self.disk.create_dir(self.side) {
            // Whoever opens the empty base at this moment has made it: it is theirs.
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => return Err(self.taken()),
            created => {
                created.at(|| format!("creating {}", self.side.display())).inspect_err(|_| self.unmake())?
            }
        }
        let control = self.new_side().inspect_err(|_| self.unmake())?;
        self.make_lazy(lineage, state, present, source).inspect_err(|_| self.unmake())?;
        // In this order: who waits for the one takes the other then.
        drop(self.base.unlock(OPEN_BYTE, 1));
        control.unlock(Lock::Open);
        Ok(())
    }

    /// The control file of a side folder that was just made, locked: whoever opens it meanwhile waits, and finds all of it.
    fn new_side(&self) -> Result<ControlFile> {
        let Opening { disk, path, side, .. } = *self;
        disk.copy_owner(path, side).at(|| format!("setting the owner of {}", side.display()))?;
        sync_name(disk, side)?;
        let control = ControlFile::open(disk, &side.join(Name::Control.to_string()))?;
        control.lock(Lock::Open)?;
        Ok(control)
    }

    /// Makes everything in the side folder, durably, the superblock last; then it marks the base, which is empty and
    /// locked. Until there is a superblock it is an empty database.
    fn make_lazy(
        &self,
        lineage: [u8; 16],
        state: State,
        present: PresentHeader,
        source: &[u8],
    ) -> Result<()> {
        let Opening { disk, path, side, base, .. } = *self;
        Present::create(disk, side, present)?;
        drop(Hashes::open(disk, path, side, state.page_size)?);
        write_whole(disk, side, Whole::SOURCE, [Name::NewSource, Name::Source], source)?;
        for name in [Name::Present, Name::Source] {
            let file = side.join(name.to_string());
            disk.copy_owner(path, &file).at(|| format!("setting the owner of {}", file.display()))?;
        }
        let mut header = bare_header();
        put_mark(&mut header, state.counters.counter)?;
        let block = Superblock {
            horizon_origin: Origin::Received as u16,
            base_checksum: None,
            rest: Mark::default(),
            rest_len: 0,
            marked: Mark::of(&header),
            lazy: true,
            ..self.block_at_rest(lineage, state)?
        };
        self.begin(block)?;
        // Whoever finds it without has nothing more to do than this.
        base.write_at(&header, 0).and_then(|()| base.sync()).at(|| format!("writing {}", path.display()))
    }

    /// Removes what was made. With the open lock, if there is one by then: who waits for it begins anew. What can't be
    /// removed is no database, and may be removed by hand.
    fn unmake(&self) {
        let names = self.disk.list(self.side).unwrap_or_default();
        if remove_side(self.disk, self.side, names, || {}).is_ok() {
            drop(remove(self.disk, self.path));
        }
    }
}
