//! What is kept with a store about its remotes: bytes that are written whole, and whose turn it is to change them.
//!
//! What they mean is the affair of whoever talks to remotes. FORMAT.md has the file.

use std::any::Any;
use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::path::PathBuf;
use std::sync::Arc;

use crate::control::Lock;
use crate::disk::Disk;
use crate::error::{Code, Error, Result};
use crate::format::{Name, Origin, Unsent, Whole, join_unsent, split_unsent};
use crate::index::Index;
use crate::lsn::Lsn;
use crate::store::Store;
use crate::whole::{read_whole, write_whole};

/// What a process has asked of a remote since it opened the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests, failed ones too.
    pub requests: u64,
    /// Bytes of what was sent and received.
    pub bytes: u64,
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, more: Traffic) {
        self.requests += more.requests;
        self.bytes += more.bytes;
    }
}

/// Where what is kept about remotes lies, also for those who must not keep the store open.
pub struct RemotesFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

impl RemotesFile {
    /// What was kept last, by whatever process; `None` if nothing ever was.
    ///
    /// # Errors
    /// `Damaged`, `Format`, `Io`.
    pub fn read(&self) -> Result<Option<Vec<u8>>> {
        Ok(self.parts()?.map(|(_, bytes)| bytes))
    }

    /// The same, with what remotes haven't got yet.
    fn parts(&self) -> Result<Option<(Vec<Unsent>, Vec<u8>)>> {
        let remedy = "move it away, and add the remotes anew";
        let Some(kept) = read_whole(&*self.disk, &self.path, Whole::REMOTES, remedy)? else {
            return Ok(None);
        };
        let (unsent, bytes) = split_unsent(&kept).ok_or_else(|| {
            Error::new(Code::Damaged, format!("{} contradicts itself; {remedy}", self.path.display()))
        })?;
        Ok(Some((unsent, bytes.to_vec())))
    }
}

/// Held by the one, of all processes, who talks to a remote of a store.
pub struct RemoteTurn<'a> {
    store: &'a Store,
    lane: u32,
}

impl Drop for RemoteTurn<'_> {
    fn drop(&mut self) {
        let mut lanes = self.store.lanes.lock();
        self.store.control.file().unlock(Lock::Remote(self.lane));
        lanes.remove(&self.lane);
    }
}

impl Store {
    /// Whoever has this is alone in talking to the store's remote `name`.
    ///
    /// # Errors
    /// `Busy` while somebody else does.
    pub fn remote_turn(&self, name: &str) -> Result<RemoteTurn<'_>> {
        let busy = || {
            Error::new(
                Code::Busy,
                "another connection is talking to a remote of this database; try again when it is done",
            )
        };
        // All of it: of two remotes, none is to wait for the other.
        let lane = crc32fast::hash(name.as_bytes());
        let mut lanes = self.lanes.lock();
        if lanes.contains(&lane) || !self.control.file().try_lock(Lock::Remote(lane))? {
            return Err(busy());
        }
        lanes.insert(lane);
        Ok(RemoteTurn { store: self, lane })
    }

    /// Keeps what `change` makes of what was kept before, durably, with what remotes haven't got yet: retention leaves that
    /// to them. After a crash it is one or the other. Of all processes, one does so at a time.
    ///
    /// # Errors
    /// Of `change`: nothing is kept then. `Io`, `Full`; as [`Store::remotes_kept`].
    pub fn change_remotes<T>(
        &self,
        change: impl FnOnce(Option<Vec<u8>>) -> Result<(Vec<u8>, Vec<Unsent>, T)>,
    ) -> Result<T> {
        let _guard = self.remotes.lock();
        self.control.file().lock(Lock::Remotes)?;
        let changed = (|| {
            let (bytes, unsent, made) = change(self.remotes_kept()?)?;
            self.keep_remotes(&join_unsent(&unsent, &bytes))?;
            Ok(made)
        })();
        self.control.file().unlock(Lock::Remotes);
        changed
    }

    fn keep_remotes(&self, bytes: &[u8]) -> Result<()> {
        write_whole(&*self.disk, &self.side, Whole::REMOTES, [Name::NewRemotes, Name::Remotes], bytes)
    }

    /// What whoever talks to remotes keeps with the open store in memory; made when it is first asked for.
    pub fn companion<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Arc<T> {
        let kept = self.companion.get_or_init(|| Arc::new(make()));
        // There is one who asks.
        Arc::clone(kept).downcast().expect("a store has one companion, of one type")
    }

    /// What was kept last; `None` if nothing ever was.
    ///
    /// # Errors
    /// `Damaged`, `Format`, `Io`.
    pub fn remotes_kept(&self) -> Result<Option<Vec<u8>>> {
        self.remotes_file().read()
    }

    /// Where that lies.
    pub fn remotes_file(&self) -> RemotesFile {
        RemotesFile { disk: Arc::clone(&self.disk), path: self.file_path(Name::Remotes) }
    }

    /// What was kept last, with what remotes haven't got yet.
    pub(crate) fn read_remotes(&self) -> Result<Option<(Vec<Unsent>, Vec<u8>)>> {
        self.remotes_file().parts()
    }

    /// Adds to what this process has asked of the remote `name`.
    pub fn count_traffic(&self, name: &str, more: Traffic) {
        *self.traffic.lock().entry(name.to_owned()).or_default() += more;
    }

    /// What this process has asked of its remotes, by name.
    pub fn traffic(&self) -> BTreeMap<String, Traffic> {
        self.traffic.lock().clone()
    }

    /// The index of everything that is retained, others' commits as well.
    fn history(&self) -> Result<Arc<Index>> {
        self.catch_up(self.control.appended())?;
        self.whole()
    }

    /// True if a commit above `lsn` may be nobody else's: it wasn't received, but made here. Of what was above and is below
    /// the horizon by now, the last commit tells: if that was received, its sender had all before it.
    ///
    /// # Errors
    /// `Damaged`, `Io` while history is read.
    pub fn has_own_since(&self, lsn: Lsn) -> Result<bool> {
        let index = self.history()?;
        // What is below another process's horizon may be gone.
        let horizon = self.control.horizon();
        if lsn < horizon && index.origin_at(horizon) != Origin::Received {
            return Ok(true);
        }
        let known = lsn.max(horizon);
        let mut above = index.first_above(known)..index.entry_count();
        Ok(above.any(|ordinal| index.origin_of(ordinal) != Origin::Received))
    }

    /// Identity of the commit `lsn`; `None` where that isn't known: below the horizon, above the head, and inside a
    /// merged entry. Two stores with the same identity at one LSN have the same history up to there.
    ///
    /// # Errors
    /// `Damaged`, `Io` while history is read.
    pub fn identity(&self, lsn: Lsn) -> Result<Option<u64>> {
        let index = self.history()?;
        Ok(self.retained_state(&index, lsn)?.map(|state| state.id))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::disk::{RealDisk, SimDisk, SimProcess};
    use crate::error::At;
    use crate::format::Retention;
    use crate::sample::{commit, write};
    use crate::session::Session;
    use crate::store::Options;

    /// Turns of many remotes, held by two who have the same store open.
    fn turns(one: Arc<dyn Disk>, other: Arc<dyn Disk>, path: &Path) -> Result<()> {
        let open = |disk| Store::open(disk, path, Options { background: false, ..Options::default() });
        let stores = [open(one)?, open(other)?];
        let names: Vec<String> = (0..40).map(|n| format!("remote-{n}")).collect();
        let mut held = Vec::new();
        for (n, name) in names.iter().enumerate() {
            held.push(stores[n % 2].remote_turn(name)?);
            for store in &stores {
                assert_eq!(store.remote_turn(name).err().map(|e| e.code()), Some(Code::Busy), "{name}");
            }
        }
        // Nothing else waits for them.
        stores[0].change_remotes(|_| Ok((Vec::new(), Vec::new(), ())))?;
        held.remove(0);
        drop(stores[1].remote_turn(&names[0])?);
        drop(held);
        for store in stores {
            store.close()?;
        }
        Ok(())
    }

    #[test]
    fn of_many_remotes_none_waits_for_another() -> Result<()> {
        let disk = SimDisk::new();
        turns(disk.process(), disk.process(), Path::new("/app.db"))
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri runs no C, and so no zstd")]
    fn what_was_committed_here_is_own_also_where_history_is_gone() -> Result<()> {
        let (disk, other) = (SimDisk::new().process(), SimDisk::new().process());
        let open = |disk: &Arc<SimProcess>| {
            let disk = Arc::clone(disk) as Arc<dyn Disk>;
            Store::open(disk, Path::new("/app.db"), Options { background: false, ..Options::default() })
        };
        let mut store = open(&disk)?;
        let mut session = Session::new(Arc::clone(&store))?;
        for fill in 1..=5 {
            write(&mut session, fill)?;
            commit(&mut session)?;
        }
        drop(session);
        let mut replica = open(&other)?;
        for piece in store.batches(Lsn::ZERO, None)? {
            replica.receive(&piece?)?;
        }
        let is_own = |store: &Store, lsn| store.has_own_since(Lsn::new(lsn));
        assert!(is_own(&store, 2)? && !is_own(&store, 5)? && !is_own(&replica, 0)?);
        for (store, disk) in [(&mut store, &disk), (&mut replica, &other)] {
            store.set_retention(Retention::None)?;
            store.close()?;
            *store = open(disk)?;
            assert_eq!(store.status()?.horizon, Lsn::new(5));
        }
        assert!(is_own(&store, 2)? && is_own(&store, 4)? && !is_own(&store, 5)?);
        assert!(!is_own(&replica, 0)? && !is_own(&replica, 2)?, "a plain replica has none");
        let mut session = Session::new(Arc::clone(&replica))?;
        write(&mut session, 6)?;
        commit(&mut session)?;
        assert!(is_own(&replica, 2)? && is_own(&replica, 5)?);
        Ok(())
    }

    #[test]
    #[cfg_attr(miri, ignore = "it needs a file system")]
    fn nor_on_a_real_disk() -> Result<()> {
        let folder = tempfile::tempdir().at(|| "making a folder".into())?;
        turns(Arc::new(RealDisk::new()), Arc::new(RealDisk::new()), &folder.path().join("app.db"))
    }
}
