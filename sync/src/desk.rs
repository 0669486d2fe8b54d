//! What a process has at hand for the remotes of a store: ways to them, secrets, and who keeps on pushing and pulling.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use object_store::ObjectStore;
use parking_lot::Mutex;
use tideline_journal::{Result, Traffic};

use crate::address::{Address, Kind};
use crate::chain::Sure;
use crate::keeper::Keeper;
use crate::objects::Reach;
use crate::settings::{Given, Secrets, Settings};
use crate::wire::Wire;

/// How an object store is reached.
pub(crate) type Open = dyn Fn(&Address, &Given) -> Result<Arc<dyn ObjectStore>> + Send + Sync;

/// A way that was found, and with what.
struct Found {
    url: String,
    given: Given,
    reach: Arc<Reach>,
}

/// One for each open store; it is gone with it.
pub(crate) struct Desk {
    open: Box<Open>,
    wire: Mutex<Option<Arc<Wire>>>,
    found: Mutex<HashMap<String, Found>>,
    secrets: Mutex<HashMap<String, Secrets>>,
    keepers: Mutex<BTreeMap<String, Keeper>>,
    /// Of each remote, a manifest that was there, and when: see [`Sure`].
    sure: Mutex<HashMap<String, (u64, Instant)>>,
    /// Where remotes are, and how they are reached, by what was said last.
    places: Mutex<HashMap<String, (Address, Settings)>>,
    /// What reading pages has asked.
    read: Mutex<HashMap<String, Traffic>>,
}

impl Desk {
    /// One that reaches object stores by `open`.
    pub fn new(
        open: impl Fn(&Address, &Given) -> Result<Arc<dyn ObjectStore>> + Send + Sync + 'static,
    ) -> Desk {
        Desk {
            open: Box::new(open),
            wire: Mutex::default(),
            found: Mutex::default(),
            secrets: Mutex::default(),
            keepers: Mutex::default(),
            sure: Mutex::default(),
            places: Mutex::default(),
            read: Mutex::default(),
        }
    }

    /// The usual one.
    pub fn usual() -> Desk {
        Desk::new(Address::open)
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

    /// The way to the remote `name`. Its connections stay open from one task to the next.
    ///
    /// # Errors
    /// `Argument`, `Offline`, `Io`.
    pub fn reach(&self, name: &str, address: &Address, settings: &Settings) -> Result<Arc<Reach>> {
        let secrets = self.secrets.lock().get(name).cloned().unwrap_or_default();
        let given = Given { settings: settings.clone(), secrets };
        let wire = self.wire()?;
        let mut found = self.found.lock();
        if let Some(known) = found.get(name) {
            let same = known.url == address.url() && known.given == given;
            // Whether a folder is there is looked at each time.
            if same && Arc::ptr_eq(&known.reach.wire, &wire) && address.kind() != Kind::File {
                return Ok(Arc::clone(&known.reach));
            }
        }
        let store = (self.open)(address, &given)?;
        let reach = Arc::new(Reach { store, url: address.url().to_owned(), wire });
        let url = address.url().to_owned();
        found.insert(name.to_owned(), Found { url, given, reach: Arc::clone(&reach) });
        Ok(reach)
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
        self.found.lock().remove(name);
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
    pub fn be_sure(&self, name: &str, noted: Option<(u64, Instant)>) {
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
        self.found.lock().remove(name);
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
