//! What a process has at hand for the remotes of a store: ways to them, secrets, and who keeps on pushing and pulling.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use object_store::ObjectStore;
use parking_lot::Mutex;
use tideline_journal::{Result, Traffic};

use crate::address::{Address, Kind};
use crate::chain::{Noted, Sure};
use crate::copies::Copies;
use crate::keeper::Keeper;
use crate::key;
use crate::objects::{Objects, Reach};
use crate::settings::{Given, Secrets, Settings};
use crate::wire::Wire;

/// How an object store is reached.
pub(crate) type Open = dyn Fn(&Address, &Given) -> Result<Arc<dyn ObjectStore>> + Send + Sync;

/// A way that was found, to which remote, and with what.
struct Found {
    name: String,
    url: String,
    given: Given,
    reach: Arc<Reach>,
}

/// One for each open store; it is gone with it.
pub(crate) struct Desk {
    open: Arc<Open>,
    wire: Mutex<Option<Arc<Wire>>>,
    /// A lazy clone's origin may have two: where it is now, and where it was when it was cloned.
    found: Mutex<Vec<Found>>,
    secrets: Mutex<HashMap<String, Secrets>>,
    keepers: Mutex<BTreeMap<String, Keeper>>,
    /// Of each remote, a manifest that was there, and when: see [`Sure`].
    sure: Mutex<HashMap<String, Noted>>,
    /// Where remotes are, and how they are reached, by what was said last.
    places: Mutex<HashMap<String, (Address, Settings)>>,
    /// What reading pages has asked.
    read: Mutex<HashMap<String, Traffic>>,
    /// Of databases as remotes have them, to mend with.
    copies: Copies,
}

impl Desk {
    /// One that reaches object stores by `open`.
    pub fn new(open: Arc<Open>) -> Desk {
        Desk {
            open,
            wire: Mutex::default(),
            found: Mutex::default(),
            secrets: Mutex::default(),
            keepers: Mutex::default(),
            sure: Mutex::default(),
            places: Mutex::default(),
            read: Mutex::default(),
            copies: Copies::default(),
        }
    }

    /// The usual one.
    pub fn usual() -> Desk {
        Desk::new(Arc::new(Address::open))
    }

    /// How it reaches object stores.
    pub fn open(&self) -> Arc<Open> {
        Arc::clone(&self.open)
    }

    /// Databases as remotes have them, to mend with.
    pub fn copies(&self) -> &Copies {
        &self.copies
    }

    fn wire(&self) -> Result<Arc<Wire>> {
        let mut kept = self.wire.lock();
        if let Some(wire) = kept.as_ref().filter(|wire| wire.is_alive()) {
            return Ok(Arc::clone(wire));
        }
        let wire = Wire::new()?;
        *kept = Some(Arc::clone(&wire));
        Ok(wire)
    }

    /// The objects of the remote `name`, until `stop` says so. With a key in its settings they are encrypted; where there
    /// is nothing yet, they will be if `begin` says so. What is asked to find that out is counted here.
    ///
    /// # Errors
    /// `Argument`, `Offline`, `Io`; those of [`key::master`] and [`key::unlock`].
    pub fn objects<'s>(
        &self,
        name: &str,
        address: &Address,
        settings: &Settings,
        begin: bool,
        stop: &'s dyn Fn() -> bool,
    ) -> Result<Objects<'s>> {
        let given = Given { settings: settings.clone(), secrets: self.told(name) };
        let wire = self.wire()?;
        let same = |found: &Found| found.name == name && found.url == address.url() && found.given == given;
        // Whether a folder is there is looked at each time.
        if address.kind() != Kind::File {
            let known = self.found.lock();
            let alive = |found: &&Found| same(found) && Arc::ptr_eq(&found.reach.wire, &wire);
            if let Some(known) = known.iter().find(alive) {
                return Ok(Objects::new(Arc::clone(&known.reach), stop));
            }
        }
        let master = key::master(settings)?;
        let store = (self.open)(address, &given)?;
        let mut reach = Reach { store, url: address.url().to_owned(), wire, seal: None };
        if let Some(master) = master {
            let bare = Objects::new(Arc::new(reach.clone()), stop);
            let unlocked = key::unlock(&bare, &master, begin);
            self.count(name, bare.take_traffic());
            reach.seal = Some(Arc::new(unlocked?));
        }
        let reach = Arc::new(reach);
        if address.kind() != Kind::File {
            let mut found = self.found.lock();
            found.retain(|found| !same(found));
            let (name, url) = (name.to_owned(), address.url().to_owned());
            found.push(Found { name, url, given: given.clone(), reach: Arc::clone(&reach) });
        }
        Ok(Objects::new(reach, stop))
    }

    /// Notes where a remote is.
    pub fn place(&self, name: &str, address: &Address, settings: &Settings) {
        self.places.lock().insert(name.to_owned(), (address.clone(), settings.clone()));
    }

    /// Where a remote is, if that was noted.
    pub fn placed(&self, name: &str) -> Option<(Address, Settings)> {
        self.places.lock().get(name).cloned()
    }

    /// Looks for the way to a remote anew, next time: credentials in files and in the environment may be others by now.
    pub fn lose(&self, name: &str) {
        self.found.lock().retain(|found| found.name != name);
    }

    /// Secrets of a remote from now on, in this process.
    pub fn tell(&self, name: &str, secrets: Secrets) {
        self.secrets.lock().insert(name.to_owned(), secrets);
    }

    /// Those of a remote.
    pub fn told(&self, name: &str) -> Secrets {
        self.secrets.lock().get(name).cloned().unwrap_or_default()
    }

    /// What is known of its newest manifests.
    pub fn sure(&self, name: &str) -> Sure {
        Sure::since(self.sure.lock().get(name).copied())
    }

    /// Notes what is known of it now.
    pub fn be_sure(&self, name: &str, noted: Option<Noted>) {
        let mut sure = self.sure.lock();
        match noted {
            Some(noted) => drop(sure.insert(name.to_owned(), noted)),
            None => drop(sure.remove(name)),
        }
    }

    /// Notes what reading pages has asked of a remote.
    pub fn count(&self, name: &str, more: Traffic) {
        *self.read.lock().entry(name.to_owned()).or_default() += more;
    }

    /// What reading pages has asked of a remote.
    pub fn counted(&self, name: &str) -> Traffic {
        self.read.lock().get(name).copied().unwrap_or_default()
    }

    /// Forgets all about a remote.
    pub fn forget(&self, name: &str) {
        self.be_sure(name, None);
        self.secrets.lock().remove(name);
        self.found.lock().retain(|found| found.name != name);
        self.stop_keeping(name);
    }

    /// Lets `keeper` take care of a remote, instead of who did before.
    pub fn keep(&self, name: &str, keeper: Keeper) {
        // The one before is stopped as it is dropped.
        self.keepers.lock().insert(name.to_owned(), keeper);
    }

    /// Lets nobody.
    pub fn stop_keeping(&self, name: &str) {
        self.keepers.lock().remove(name);
    }

    /// When something is next tried with a remote by itself, in milliseconds since 1970.
    pub fn next_try(&self, name: &str) -> Option<u64> {
        self.keepers.lock().get(name)?.next_try()
    }
}
