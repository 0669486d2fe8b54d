//! A main database that SQLite has open through this VFS.
//!
//! ```text
//!   xLock(SHARED)    begin_read        FCNTL_SYNC      prepare
//!   xLock(RESERVED)  begin_write       PHASETWO        publish
//!   xUnlock(SHARED)  rollback          xUnlock(NONE)   end_read
//! ```

use std::os::raw::c_int;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libsqlite3_sys as ffi;
use tideline_journal::{Code, Durability, Error, Interrupt, Lsn, Result, Session, Store};

use crate::catalog;
use crate::failure::note;
use crate::rollback::{Before, Level, RollbackJournal};
use crate::turn::Turn;

/// Where the pager looks to see whether its cache is still good: its copy of the counters.
const VERSION_AT: u64 = 24;
const VERSION_LEN: usize = 16;

/// How long names are taken for those of the files that they were.
const MOMENT: Duration = Duration::from_millis(10);

/// What the SQL functions see of a connection's database.
pub struct Handle {
    /// Its store.
    pub store: Arc<Store>,
    /// LSN of the connection's snapshot; `None` outside a transaction.
    pub snapshot: Option<Lsn>,
    /// True inside a write transaction.
    pub writing: bool,
}

/// A main database; refused ones fail every call with the reason.
pub(crate) struct Database {
    open: std::result::Result<Open, Error>,
}

/// One that could be opened.
pub(crate) struct Open {
    name: Arc<Path>,
    /// When the files were last found at their names.
    looked: Instant,
    /// The last commit waited for the disk.
    waits: bool,
    /// What SQLite has locked.
    level: c_int,
    turn: Arc<Turn>,
    journal: RollbackJournal,
    read_only: bool,
    /// Whether the snapshot stays whatever SQLite locks (immutable=1).
    pinned: bool,
    /// xSync was called on the database in this transaction.
    synced: bool,
    /// Value of `PRAGMA mmap_size`, in bytes.
    mmap_size: i64,
    /// It was told at least once.
    mmap_size_known: bool,
    doom: Doom,
    /// Whether the connection was interrupted.
    interrupt: Option<Interrupt>,
    /// What the pager was last told of its copy of the counters, and of which LSN.
    version: (Lsn, [u8; VERSION_LEN]),
    /// Last: the store is closed when it is dropped, if nobody else holds it.
    session: Session,
}

/// What becomes of a transaction on a snapshot that isn't the newest. Only a pager that never unlocks
/// (EXCLUSIVE mode) comes so far; it must drop its cache, and does so after an I/O error alone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doom {
    /// It may be committed.
    None,
    /// A write was refused as stale. The pager rolls back; the first page that it restores is refused,
    /// too.
    Stale,
    /// So it dropped its cache. It rolls back once more before it goes on, which changes nothing here.
    Dropped,
}

/// The snapshot, for the virtual rollback journal.
struct Unchanged<'a>(&'a Session);

impl Before for Unchanged<'_> {
    type Error = Error;

    fn same(&self, page: u32, image: &[u8]) -> bool {
        self.0.is_snapshot_image(page, image)
    }

    fn read(&self, page: u32, at: usize, buf: &mut [u8]) -> Result<()> {
        self.0.read_snapshot_image(page, at, buf)
    }
}

impl Database {
    /// A database whose store is open.
    pub fn new(name: &Path, store: Arc<Store>, read_only: bool, immutable: bool) -> Result<Database> {
        let mut session = Session::new(Arc::clone(&store))?;
        if immutable {
            session.begin_read()?;
        }
        Ok(Database {
            open: Ok(Open {
                name: name.into(),
                level: ffi::SQLITE_LOCK_NONE,
                looked: Instant::now(),
                waits: true,
                session,
                turn: Turn::new(store),
                journal: RollbackJournal::new(),
                read_only,
                pinned: immutable,
                synced: false,
                mmap_size: 0,
                mmap_size_known: false,
                doom: Doom::None,
                interrupt: None,
                version: (Lsn::ZERO, [0; VERSION_LEN]),
            }),
        })
    }

    /// One that can't be used, so that the reason reaches the user.
    pub fn refused(reason: Error) -> Database {
        Database { open: Err(reason) }
    }

    /// Why it can't be used.
    pub fn refusal(&self) -> Option<&Error> {
        self.open.as_ref().err()
    }

    /// The database itself.
    pub fn open(&mut self) -> Result<&mut Open> {
        self.open.as_mut().map_err(|reason| reason.clone())
    }

    /// What the SQL functions see of it.
    pub fn handle(&self) -> Result<Handle> {
        let open = self.open.as_ref().map_err(Clone::clone)?;
        Ok(Handle {
            store: Arc::clone(open.session.store()),
            snapshot: open.session.state().map(|state| state.lsn),
            writing: open.session.is_writing(),
        })
    }
}

impl Open {
    /// `FCNTL_PDB`: what tells whether the connection was interrupted.
    pub fn interrupted_as(&mut self, interrupt: Interrupt) {
        self.interrupt = Some(interrupt);
    }

    /// `xRead`: true if there were bytes enough.
    pub fn read(&mut self, to: &mut [u8], offset: u64) -> Result<bool> {
        match self.interrupt {
            Some(interrupt) if self.store().is_clone() => interrupt.over(|| self.read_on(to, offset)),
            _ => self.read_on(to, offset),
        }
    }

    fn read_on(&mut self, to: &mut [u8], offset: u64) -> Result<bool> {
        if offset == VERSION_AT && to.len() == VERSION_LEN && !self.pinned && !self.session.is_writing() {
            // The pager holds no page, and compares what it has cached. It may have come here without
            // unlocking.
            self.doom = Doom::None;
            self.session.refresh()?;
            return self.read_version(to);
        }
        self.read_pages(to, offset)
    }

    fn read_pages(&mut self, to: &mut [u8], offset: u64) -> Result<bool> {
        if self.session.state().is_some() {
            return Ok(self.session.read(offset, to)? == to.len());
        }
        // The pager reads 100 bytes before it takes any lock.
        self.session.begin_read()?;
        let mut got = self.session.read(offset, to);
        if got
            .as_ref()
            .is_err_and(|e| e.code() == Code::Damaged && self.store().mend_first_page().unwrap_or(false))
        {
            got = self.session.read(offset, to);
        }
        self.session.end_read()?;
        Ok(got? == to.len())
    }

    /// The pager's copy of the counters, outside of a write. It asks at the start of each transaction.
    fn read_version(&mut self, to: &mut [u8]) -> Result<bool> {
        let lsn = self.session.state().map(|state| state.lsn);
        if self.version.0 > Lsn::ZERO && lsn == Some(self.version.0) {
            to.copy_from_slice(&self.version.1);
            return Ok(true);
        }
        let whole = self.read_pages(to, VERSION_AT)?;
        if let Some(lsn) = lsn.filter(|_| whole) {
            self.version.0 = lsn;
            self.version.1.copy_from_slice(to);
        }
        Ok(whole)
    }

    /// `xWrite`.
    pub fn write(&mut self, bytes: &[u8], offset: u64) -> Result<()> {
        self.refuse_read_only()?;
        self.unless_doomed(|session| session.write(offset, bytes))
    }

    /// `xTruncate`.
    pub fn truncate(&mut self, len: u64) -> Result<()> {
        self.refuse_read_only()?;
        self.unless_doomed(|session| session.truncate(len))
    }

    /// Changes the database; see [`Doom`].
    fn unless_doomed(&mut self, change: impl FnOnce(&mut Session) -> Result<()>) -> Result<()> {
        match self.doom {
            Doom::None => {
                let changed = change(&mut self.session);
                if changed.as_ref().is_err_and(|e| e.code() == Code::Stale) {
                    self.doom = Doom::Stale;
                }
                changed
            }
            Doom::Stale => {
                self.doom = Doom::Dropped;
                Err(doomed())
            }
            Doom::Dropped => Ok(()),
        }
    }

    fn refuse_read_only(&self) -> Result<()> {
        if self.read_only {
            return Err(Error::new(
                Code::Denied,
                "the database was opened for reading only; open it for writing",
            ));
        }
        Ok(())
    }

    /// `xFileSize`, in bytes.
    pub fn len(&mut self) -> Result<u64> {
        if self.session.state().is_some() {
            return Ok(self.session.len());
        }
        self.session.begin_read()?;
        let len = self.session.len();
        self.session.end_read()?;
        Ok(len)
    }

    /// `xSync` on the database: durability comes with the commit, unless a super-journal decides
    /// about it.
    pub fn sync(&mut self) -> Result<()> {
        self.synced = true;
        self.session.sync_prepared()
    }

    /// `xLock`.
    pub fn lock(&mut self, level: c_int) -> Result<()> {
        self.take_lock(level)?;
        self.level = self.level.max(level);
        Ok(())
    }

    fn take_lock(&mut self, level: c_int) -> Result<()> {
        if level == ffi::SQLITE_LOCK_SHARED {
            self.session.begin_read_as(self.turn.is_kept())?;
            catalog::locked(&self.name, self.session.store());
            return Ok(());
        }
        if self.session.is_writing() {
            return Ok(());
        }
        self.refuse_read_only()?;
        self.synced = false;
        self.journal.begin();
        let begun =
            if self.turn.take() { self.session.begin_write_in_turn() } else { self.session.begin_write() };
        // A transaction that has read nothing yet is begun anew if its snapshot is stale, after a sleep, too.
        if begun.as_ref().is_err_and(|e| matches!(e.code(), Code::Busy | Code::Stale)) {
            self.turn.wait_next();
        }
        begun
    }

    /// `xUnlock`. An error is logged; it comes too late for SQLite.
    pub fn unlock(&mut self, level: c_int) -> Result<()> {
        self.turn.give_up();
        self.level = self.level.min(level);
        if level == ffi::SQLITE_LOCK_SHARED {
            return self.session.rollback();
        }
        if self.pinned {
            return self.session.rollback();
        }
        self.doom = Doom::None;
        self.session.end_read()
    }

    /// `xCheckReservedLock`.
    pub fn is_reserved(&self) -> bool {
        self.session.somebody_writes()
    }

    /// `FCNTL_SYNC`, with the super-journal's path where several databases are written.
    pub fn prepare(&mut self, super_journal: Option<&Path>) -> Result<()> {
        if !self.journal.is_live() {
            self.journal.begin();
        }
        self.synced = false;
        if self.doom == Doom::Stale {
            return Err(doomed());
        }
        // What went while the transaction lasted.
        if self.session.has_changed() && self.looked.elapsed() >= MOMENT {
            self.look()?;
        }
        self.session.prepare(super_journal)
    }

    /// `FCNTL_COMMIT_PHASETWO`.
    pub fn publish(&mut self) -> Result<()> {
        let durability = match self.journal.level() {
            // A journal in memory, or none, shows nothing but whether the database was synced.
            Level::Full | Level::Extra if self.synced => Durability::Disk,
            _ => Durability::Process,
        };
        self.synced = false;
        self.waits = durability == Durability::Disk;
        if self.doom != Doom::None {
            return Err(doomed());
        }
        let published = self.session.publish(durability, false);
        self.journal.begin();
        published.map(drop)
    }

    /// `FCNTL_HAS_MOVED`: true if the files that are open aren't at their names any more. SQLite asks at each write; who
    /// writes all the time is told within a moment, and at once of the base and the folder if he waits for the disk.
    pub fn has_moved(&mut self) -> bool {
        let looked = if self.looked.elapsed() >= MOMENT {
            self.look()
        } else if self.waits {
            self.store().in_place()
        } else {
            Ok(())
        };
        match looked {
            Err(e) if matches!(e.code(), Code::Foreign | Code::Missing) => {
                note(&e);
                true
            }
            // Where that can't be found out, the write will tell.
            _ => false,
        }
    }

    /// Makes sure that all files are at their names.
    fn look(&mut self) -> Result<()> {
        self.store().wholly_in_place()?;
        self.looked = Instant::now();
        Ok(())
    }

    /// `FCNTL_LOCKSTATE`.
    pub fn level(&self) -> c_int {
        self.level
    }

    /// `FCNTL_MMAP_SIZE`: sets it unless negative; returns what it was.
    pub fn set_mmap_size(&mut self, size: i64) -> i64 {
        let before = self.mmap_size;
        if size >= 0 {
            self.mmap_size = size;
            // The first is the pager's own, when it opens the file, and says nothing of what the application wants.
            let asked = std::mem::replace(&mut self.mmap_size_known, true);
            self.session.read_by_calls(asked && size == 0);
        }
        before
    }

    /// `xFetch`.
    pub fn fetch(&self, offset: u64, len: usize) -> Result<Option<*const u8>> {
        if self.mmap_size <= 0 {
            return Ok(None);
        }
        Ok(self.session.slice(offset, len)?.map(<[u8]>::as_ptr))
    }

    /// `xRead` on the rollback journal: true if there were bytes enough.
    pub fn read_journal(&self, to: &mut [u8], offset: u64) -> Result<bool> {
        Ok(self.journal.read(&Unchanged(&self.session), to, offset)? == to.len())
    }

    /// `xWrite` on the rollback journal.
    pub fn write_journal(&mut self, bytes: &[u8], offset: u64) {
        self.journal.write(&Unchanged(&self.session), bytes, offset);
    }

    /// The rollback journal, for what doesn't touch the snapshot.
    pub fn journal(&mut self) -> &mut RollbackJournal {
        &mut self.journal
    }

    /// The store.
    pub fn store(&self) -> &Arc<Store> {
        self.session.store()
    }

    /// True while a snapshot is pinned.
    pub fn in_transaction(&self) -> bool {
        self.session.state().is_some()
    }
}

fn doomed() -> Error {
    Error::new(
        Code::Io,
        "another connection has committed since this one, in EXCLUSIVE mode, has read; begin again",
    )
}
