//! Making a new database from what is at a remote: all of it, or what there was at an earlier LSN or time.

use std::path::Path;
use std::sync::Arc;

use object_store::ObjectStore;
use tideline_journal::disk::Disk;
use tideline_journal::{
    Clock, Code, Error, Lsn, Options as StoreOptions, Result, State, Store, SystemClock, incoming, random_id,
    side_folder,
};

use crate::address::Address;
use crate::book::{Book, Position, Remote};
use crate::chain::{self, Link, Sure};
use crate::desk::Desk;
use crate::lazy::Description;
use crate::manifest::Part;
use crate::objects::Objects;
use crate::options::Options;
use crate::point::Point;
use crate::remotes::ORIGIN;
use crate::runs::Runs;
use crate::settings::Given;
use crate::{hex, lease, pull};

/// Where a database is cloned from, and how.
pub struct Cloning<'a> {
    /// The URL of a remote.
    pub url: &'a str,
    /// Options of the remote.
    pub remote: Options,
    /// How far it is to go.
    pub until: Point,
    /// A database of the same lineage that is there is given up for it, with whatever was committed to it alone.
    pub replace: bool,
    /// How the store is opened.
    pub options: StoreOptions,
    /// It is given up when this says so.
    pub stop: &'a dyn Fn() -> bool,
}

impl Cloning<'_> {
    /// Makes a new database at the absolute `path`; what it was cloned from becomes its remote `origin`. Returns its LSN.
    ///
    /// # Errors
    /// `Argument` if something is at `path` that isn't to be replaced; `Missing` if nothing was pushed to the URL; as
    /// [`crate::Remotes::pull`] and [`Store::replace`]. What was at `path` is there then, and nothing else.
    pub fn make(&self, disk: Arc<dyn Disk>, path: &Path) -> Result<Lsn> {
        self.make_through(Desk::usual(), disk, path)
    }

    /// The same, with object stores reached in another way.
    ///
    /// # Errors
    /// As [`Cloning::make`].
    pub fn through(
        &self,
        open: impl Fn(&Address) -> Result<Arc<dyn ObjectStore>> + Send + Sync + 'static,
        disk: Arc<dyn Disk>,
        path: &Path,
    ) -> Result<Lsn> {
        self.make_through(Desk::new(Arc::new(move |address, _| open(address))), disk, path)
    }

    fn make_through(&self, desk: Desk, disk: Arc<dyn Disk>, path: &Path) -> Result<Lsn> {
        let address = Address::parse(self.url)?;
        let given = Given::read(&self.remote, address.kind())?;
        if !self.replace || !exists(&*disk, path)? {
            let (store, lsn) = self.begin(desk, &address, given, true, disk, path)?;
            return store.close().map(|()| lsn);
        }
        if Store::finish_replacing(&*disk, path)? {
            let store = Store::open(disk, path, self.options.clone())?;
            let lsn = store.head();
            return store.close().map(|()| lsn);
        }
        Store::check_replaceable(&*disk, path)?;
        Store::clear_incoming(&disk, path, self.options.clone())?;
        let (clone, lsn) = self.begin(desk, &address, given, true, Arc::clone(&disk), &incoming(path))?;
        clone.close()?;
        let replaced =
            Store::open(Arc::clone(&disk), path, self.options.clone()).and_then(|old| old.replace());
        if replaced.is_err() {
            // If it is in the way still, that is said next time.
            drop(Store::clear_incoming(&disk, path, self.options.clone()));
        }
        replaced.map(|()| lsn)
    }

    /// The same, left open; with a lease where it is to stay. Of the options of the remote, those that are `given` count.
    pub(crate) fn begin(
        &self,
        desk: Desk,
        address: &Address,
        Given { settings, secrets }: Given,
        stays: bool,
        disk: Arc<dyn Disk>,
        path: &Path,
    ) -> Result<(Arc<Store>, Lsn)> {
        desk.tell(ORIGIN, self.url, &settings, secrets);
        nothing_at(&*disk, path)?;
        let objects = desk.objects(ORIGIN, address, &settings, false, self.stop)?;
        let Some(head) = chain::head(&objects)? else {
            let text = format!("{} holds no database yet; push one there first", self.url);
            return Err(Error::new(Code::Missing, text));
        };
        let link = chain::whole(&objects, &self.newest(&objects, head)?)?;
        let Some(runs) = link.manifest.runs.clone() else {
            return Err(chain::broken(&objects, link.manifest.number));
        };
        let number = link.manifest.number;
        let (lease, leased) = match stays {
            true => leased(&objects, number, &runs)?,
            false => (None, 0),
        };
        let (state, checksum, lineage) = (State::from(&runs.state), runs.checksum, link.manifest.lineage);
        let mut remote = Remote {
            single_writer: settings.flag("single_writer"),
            last_success: Some(SystemClock.now_ms()),
            settings: settings.clone(),
            position: Some(Position::behind(&link)),
            leased,
            // What is committed here goes back there; who only follows is never behind its position.
            pushes: true,
            ..Remote::new(ORIGIN, self.url)
        };
        let source = Description { url: self.url.to_owned(), settings, runs, number, lease }.encode()?;
        let store = Store::begin_lazy(disk, path, self.options.clone(), lineage, state, checksum, &source)?;
        // Whoever reads pages of it meanwhile talks to the same place, with the same secrets.
        let desk = store.companion(|| desk);
        let cloned = (|| {
            // SQLite reads it to open the database at all, and can say little if that fails.
            store.fetch_here(&[1])?;
            let sure = Sure::default();
            let lsn = pull::pull(&store, &objects, &mut remote, &sure, self.until, &mut |_| Ok(()))?;
            self.reached(&objects, lsn)?;
            desk.count(ORIGIN, objects.take_traffic());
            Book::change(&store, |book| {
                book.remotes = vec![remote];
                Ok(())
            })?;
            Ok(lsn)
        })();
        match cloned {
            Ok(lsn) => Ok((store, lsn)),
            Err(e) => {
                // What stays is refused next time, with its name; so does what somebody has committed to by now.
                drop(store.discard());
                Err(e)
            }
        }
    }

    /// The newest manifest that doesn't go too far.
    fn newest(&self, objects: &Objects<'_>, head: Link) -> Result<Link> {
        let newest = &head.manifest.part;
        if self.until.has(newest.last, newest.time) {
            return match self.until {
                Point::Lsn(wanted) if wanted.get() > newest.last => {
                    let text = format!(
                        "{} has no LSN {wanted} yet, its newest is {}; give one at or below it",
                        objects.url(),
                        newest.last
                    );
                    Err(Error::new(Code::Argument, text))
                }
                _ => Ok(head),
            };
        }
        let oldest = head.manifest.oldest();
        let is_so = |part: &Part| self.until.has(part.last, part.time);
        let found = chain::newest(objects, oldest, head.manifest.number, &is_so)?;
        found.ok_or_else(|| {
            let text = format!(
                "{} has given up, or never had, what was before manifest {oldest}; give a later LSN or time",
                objects.url()
            );
            Error::new(Code::Trimmed, text)
        })
    }

    /// Makes sure that the LSN that was wanted is the one that was reached.
    fn reached(&self, objects: &Objects<'_>, lsn: Lsn) -> Result<()> {
        match self.until {
            Point::Lsn(wanted) if wanted != lsn => {
                let text = format!(
                    "{} can't tell LSN {wanted} from those around it, as they were merged before they were pushed; the one before it that it can is {lsn}",
                    objects.url()
                );
                Err(Error::new(Code::Argument, text))
            }
            _ => Ok(()),
        }
    }
}

/// What a new lease of the runs of the manifest `number` is called, and when it was written, in milliseconds since 1970.
fn leased(objects: &Objects<'_>, number: u64, runs: &Runs) -> Result<(Option<String>, u64)> {
    let lease = hex::print(&random_id()?);
    // Who may only read does without, and else it is tried again soon.
    let leased = match lease::write(objects, &lease, number, runs, false) {
        Err(e) if e.code() == Code::Interrupted => return Err(e),
        Err(_) => 0,
        Ok(()) => SystemClock.now_ms(),
    };
    Ok((Some(lease), leased))
}

fn exists(disk: &dyn Disk, path: &Path) -> Result<bool> {
    disk.exists(path)
        .map_err(|e| Error::new(Code::Io, format!("looking for {}: {e}; give another path", path.display())))
}

/// Refuses a path where there is something.
fn nothing_at(disk: &dyn Disk, path: &Path) -> Result<()> {
    let side = side_folder(path);
    for there in [path, &side] {
        if exists(disk, there)? {
            let text = format!("{} exists already; give the path of a new database", there.display());
            return Err(Error::new(Code::Argument, text));
        }
    }
    Ok(())
}
