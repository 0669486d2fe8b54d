//! Making a database plain SQLite again for good.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::control::Lock;
use crate::error::{At, Code, Error, Result};
use crate::format::{Name, Origin};
use crate::lsn::Lsn;
use crate::store::{Store, remove_side, sync_name};

impl Store {
    /// Folds everything, takes the mark off and removes the side folder. The connection that is open goes on reading what
    /// it read; nothing can be written through it, and nobody else opens the database as a store until it is closed, or
    /// has [given way](Store::give_way).
    ///
    /// # Errors
    /// `Busy`, naming who still needs it: other processes or connections; `Denied` while it is a lazy clone.
    pub fn detach(self: &Arc<Self>) -> Result<()> {
        self.take_apart(false)
    }

    /// Removes a lazy clone, with its side folder and its base.
    ///
    /// # Errors
    /// `Busy`, as [`Store::detach`]; `Denied` if it is none, or somebody has committed to it.
    pub fn discard(self: &Arc<Self>) -> Result<()> {
        self.take_apart(true)
    }

    fn take_apart(&self, discards: bool) -> Result<()> {
        self.end(|| self.take_apart_alone(discards)).map(drop)
    }

    /// Ends reading through a store that was detached, so that this process may open the database anew. False, with
    /// nothing done, if it wasn't detached, or while its connection is in a transaction.
    ///
    /// # Errors
    /// `Io`.
    pub fn give_way(&self) -> Result<bool> {
        if !self.control.detached() || self.check_process().is_err() {
            return Ok(false);
        }
        // Whoever reads pins its snapshot and then looks; here it is the other way round, so one of the two sees the other.
        self.given_way.store(true, Ordering::SeqCst);
        let newest = Lsn::new(u64::MAX);
        if self.control.oldest_pin(newest)? < newest {
            self.given_way.store(false, Ordering::SeqCst);
            return Ok(false);
        }
        self.leave_base();
        Ok(true)
    }

    /// Does the last that is done with the store: closes it if `work` has detached it. Nobody opens it meanwhile. False,
    /// with nothing done, if it is closed.
    pub(crate) fn end(&self, work: impl FnOnce() -> Result<()>) -> Result<bool> {
        // The thread makes files.
        let _step = self.maintenance.step();
        let mut closed = self.closed.lock();
        if *closed {
            return Ok(false);
        }
        self.control.file().lock(Lock::Open)?;
        let result = work();
        *closed = self.control.detached();
        self.control.file().unlock(Lock::Open);
        result.map(|()| true)
    }

    fn take_apart_alone(&self, discards: bool) -> Result<()> {
        let busy = |who: String| Error::new(Code::Busy, format!("{who}; close it there, then detach again"));
        if !self.control.file().alone()? {
            return Err(busy("another process has this database open".into()));
        }
        let connections = self.control.connections();
        if connections > 1 {
            return Err(busy(format!(
                "{} other connections of this process have this database open",
                connections - 1
            )));
        }
        if self.control.poisoned() {
            return Err(crate::session::poisoned());
        }
        self.side_in_place()?;
        match (discards, self.read_superblock()?.lazy) {
            (true, true) => {
                self.in_place()?;
                self.nobody_committed()?;
            }
            (true, false) => {
                let text = "the database is no lazy clone, but whole; detach it, and remove it";
                return Err(Error::new(Code::Denied, text));
            }
            (false, true) => {
                let text =
                    "the database is a lazy clone; fetch the rest with tide_hydrate(), then detach again";
                return Err(Error::new(Code::Denied, text));
            }
            (false, false) => {
                self.only_ours()?;
                self.rest()?;
            }
        }
        // A stale write must find nothing to publish to.
        remove_side(&*self.disk, &self.side, self.only_ours()?, || self.control.set_detached())?;
        if discards {
            // It is marked: nobody takes it for a database until it is gone, too.
            self.disk.remove(&self.path).at(|| format!("removing {}", self.path.display()))?;
        }
        sync_name(&*self.disk, &self.side)?;
        if discards {
            self.leave_base();
        }
        Ok(())
    }

    /// Names of the files in the side folder.
    ///
    /// # Errors
    /// `Denied` if one isn't ours.
    fn only_ours(&self) -> Result<Vec<String>> {
        let names = self.disk.list(&self.side).at(|| format!("listing {}", self.side.display()))?;
        match names.iter().find(|name| Name::parse(name).is_none()) {
            None => Ok(names),
            Some(name) => {
                let path = self.side.join(name);
                let text = format!("{} isn't ours; move it away, then detach again", path.display());
                Err(Error::new(Code::Denied, text))
            }
        }
    }

    /// Refuses where there is what nobody else has, or may have been.
    fn nobody_committed(&self) -> Result<()> {
        self.catch_up(self.control.appended())?;
        let index = self.whole()?;
        let received = |origin| origin == Origin::Received;
        let all = received(index.origin_origin)
            && (0..index.entry_count()).all(|ordinal| received(index.origin_of(ordinal)));
        if all {
            return Ok(());
        }
        let text = format!(
            "somebody has committed to {} since it was cloned, so it isn't removed; go on with it, or remove it with its side folder",
            self.path.display()
        );
        Err(Error::new(Code::Denied, text))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::disk::{Disk, SimDisk};
    use crate::session::Session;
    use crate::store::Options;

    #[test]
    fn nobody_begins_while_the_last_connection_detaches() {
        let disk: Arc<dyn Disk> = SimDisk::new().process();
        let store = Store::open(disk, Path::new("/app.db"), Options::default()).unwrap();
        let begin = || {
            let store = Arc::clone(&store);
            std::thread::spawn(move || Session::new(store).map(drop).map_err(|e| e.code()))
        };
        let mut late = None;
        // It may be detached: whoever begins waits until that is known.
        let refused = store.end(|| {
            late = Some(begin());
            Err(Error::new(Code::Busy, "another one has it open"))
        });
        assert!(refused.is_err());
        assert_eq!(late.unwrap().join().unwrap(), Ok(()));
        let mut late = None;
        let detached = store.end(|| {
            late = Some(begin());
            store.take_apart_alone(false)
        });
        assert!(detached.unwrap());
        assert_eq!(late.unwrap().join().unwrap(), Err(Code::Busy));
        assert!(!store.is_usable());
    }
}
