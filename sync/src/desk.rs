//! What a process has at hand for the remotes of a store: ways to them, secrets, and who keeps on pushing and pulling.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use object_store::ObjectStore;
use parking_lot::Mutex;
use tideline_journal::{Result, Traffic};

use crate::address::{Address, Kind};
use crate::chain::{Noted, Sure};
use crate::copies::Copies;
use crate::keeper::{Keeper, Pause};
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

/// Whom secrets were given for, or what was seen where. A remote of the same name somewhere else doesn't get them: another
/// process may have moved it, and a lazy clone reads from where it was, too.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    name: String,
    url: String,
    /// See [`Settings::place`].
    more: [Option<String>; 3],
}

impl Place {
    fn of(name: &str, url: &str, settings: &Settings) -> Place {
        let more = settings.place().map(|text| text.map(str::to_owned));
        Place { name: name.to_owned(), url: url.to_owned(), more }
    }
}

/// At which place something was seen, and by what names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Names {
    place: Place,
    /// See [`Settings::key_at`].
    key_at: [Option<String>; 2],
}

impl Names {
    fn of(name: &str, url: &str, settings: &Settings) -> Names {
        let key_at = settings.key_at().map(|text| text.map(str::to_owned));
        Names { place: Place::of(name, url, settings), key_at }
    }
}

/// One for each open store; it is gone with it.
pub(crate) struct Desk {
    open: Arc<Open>,
    wire: Mutex<Option<Arc<Wire>>>,
    /// A lazy clone's origin may have two: where it is now, and where it was when it was cloned.
    found: Mutex<Vec<Found>>,
    secrets: Mutex<HashMap<Place, Secrets>>,
    keepers: Mutex<BTreeMap<String, Keeper>>,
    /// Of each remote, a manifest that was there, and when: see [`Sure`].
    sure: Mutex<HashMap<Names, Noted>>,
    /// Where remotes are, and how they are reached, by what was said last.
    places: Mutex<HashMap<String, (Address, Settings)>>,
    /// When a lazy clone's lease was last to be written, in milliseconds since 1970.
    leased: Mutex<Option<u64>>,
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
            leased: Mutex::default(),
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
        let given = Given { settings: settings.clone(), secrets: self.told(name, address.url(), settings) };
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

    /// Secrets of a remote, as long as it is there, from now on, in this process.
    pub fn tell(&self, name: &str, url: &str, settings: &Settings, secrets: Secrets) {
        self.secrets.lock().insert(Place::of(name, url, settings), secrets);
    }

    /// Those that were given for a remote there.
    pub fn told(&self, name: &str, url: &str, settings: &Settings) -> Secrets {
        self.secrets.lock().get(&Place::of(name, url, settings)).cloned().unwrap_or_default()
    }

    /// What is known of its newest manifests there.
    pub fn sure(&self, name: &str, url: &str, settings: &Settings) -> Sure {
        let noted = self.sure.lock().get(&Names::of(name, url, settings)).copied();
        Sure::since(noted.unwrap_or_default())
    }

    /// Notes what is known of them now.
    pub fn be_sure(&self, name: &str, url: &str, settings: &Settings, noted: Noted) {
        let mut sure = self.sure.lock();
        sure.retain(|at, _| at.place.name != name);
        sure.insert(Names::of(name, url, settings), noted);
    }

    /// Knows nothing of them any more.
    pub fn be_unsure(&self, name: &str) {
        self.sure.lock().retain(|at, _| at.place.name != name);
    }

    /// When a lazy clone's lease was last to be written, in milliseconds since 1970, if this process did so.
    pub fn leased(&self) -> Option<u64> {
        *self.leased.lock()
    }

    /// Notes that it is to be written now.
    pub fn note_lease(&self, now: u64) {
        *self.leased.lock() = Some(now);
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
        self.be_unsure(name);
        self.secrets.lock().retain(|place, _| place.name != name);
        self.found.lock().retain(|found| found.name != name);
        self.stop_keeping(name);
    }

    /// Lets `keeper` take care of a remote, instead of who did before.
    pub fn keep(&self, name: &str, keeper: Keeper) {
        // The one before is stopped as it is dropped.
        self.keepers.lock().insert(name.to_owned(), keeper);
    }

    /// Has whoever takes care of it pause, if somebody does.
    pub fn pause_keeping(&self, name: &str) -> Option<Pause> {
        self.keepers.lock().get(name).map(Keeper::pause)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloning::Cloning;
    use crate::lazy::RemotePages;
    use crate::options::Options;
    use crate::point::Point;
    use crate::remotes::{ORIGIN, Remotes};
    use futures_util::TryStreamExt;
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;
    use serde_json::json;
    use std::collections::HashSet;
    use std::path::Path;
    use tideline_journal::disk::{Disk, SimDisk};
    use tideline_journal::{Durability, Options as StoreOptions, Session, Sources, Store};

    /// Where somebody was talked to, and with which secret.
    type Seen = Arc<Mutex<Vec<(String, Option<String>, Option<String>)>>>;

    /// A way to remotes that all have the same objects, and what they see.
    fn watched() -> (Arc<Open>, Seen) {
        let (seen, store) = (Seen::default(), Arc::new(InMemory::new()));
        let notes = Arc::clone(&seen);
        let open = move |address: &Address, given: &Given| {
            let text = |text: Option<&str>| text.map(str::to_owned);
            let endpoint = text(given.settings.text("endpoint"));
            let secret = given.secrets.text("access_key_id").or(given.secrets.text("sas"));
            let note = (address.url().to_owned(), endpoint, text(secret));
            notes.lock().push(note);
            Ok(Arc::clone(&store) as Arc<dyn ObjectStore>)
        };
        (Arc::new(open), seen)
    }

    fn open(disk: &Arc<SimDisk>) -> Arc<Store> {
        let options = StoreOptions { background: false, ..StoreOptions::default() };
        Store::open(disk.process() as Arc<dyn Disk>, Path::new("/app.db"), options).unwrap()
    }

    fn options(endpoint: &str, key: Option<&str>) -> Options {
        let options = json!({"endpoint": endpoint, "access_key_id": key, "secret_access_key": key});
        options.as_object().unwrap().clone()
    }

    #[test]
    fn secrets_go_where_they_were_given_for_and_nowhere_else() {
        let disk = SimDisk::new();
        let stores = [open(&disk), open(&disk)];
        let [(way, seen), (other, _)] = [watched(), watched()];
        let desk = Arc::new(Desk::new(way));
        let here = Remotes::at(&stores[0], Arc::clone(&desk));
        let there = Remotes::at(&stores[1], Arc::new(Desk::new(other)));
        let (one, two) = ("https://one.example", "https://two.example");
        here.add(ORIGIN, "s3://bucket/a", Some(&options(one, Some("K")))).unwrap();
        here.push(ORIGIN).unwrap();
        // Another process moves it, by its endpoint or its URL.
        for (url, endpoint) in [("s3://bucket/a", two), ("s3://other/a", one)] {
            there.add(ORIGIN, url, Some(&options(endpoint, None))).unwrap();
            here.push(ORIGIN).unwrap();
            let last = (url.to_owned(), Some(endpoint.to_owned()), None);
            assert_eq!(seen.lock().last(), Some(&last));
        }
        // And back.
        there.add(ORIGIN, "s3://bucket/a", Some(&options(one, None))).unwrap();
        here.push(ORIGIN).unwrap();
        let keyed = |note: &&(String, Option<String>, Option<String>)| note.2.is_some();
        for (url, endpoint, key) in seen.lock().iter().filter(keyed) {
            assert_eq!(
                (&url[..], endpoint.as_deref(), key.as_deref()),
                ("s3://bucket/a", Some(one), Some("K"))
            );
        }
        here.remove(ORIGIN).unwrap();
        let settings = Given::read(&options(one, None), Kind::S3).unwrap().settings;
        assert_eq!(desk.told(ORIGIN, "s3://bucket/a", &settings), Secrets::default());
    }

    #[test]
    fn an_account_that_nobody_named_may_be_another() {
        let disk = SimDisk::new();
        let store = open(&disk);
        let (way, seen) = watched();
        let here = Remotes::at(&store, Arc::new(Desk::new(way)));
        let sas = json!({"sas": "K"});
        let (bare, named) = ("az://box/app", "abfss://box@account.dfs.core.windows.net/app");
        for (from, to) in [(bare, named), (named, bare)] {
            here.add(ORIGIN, from, sas.as_object()).unwrap();
            here.add(ORIGIN, &format!("{from}/"), None).unwrap();
            here.add(ORIGIN, to, None).unwrap();
            let last: Vec<_> = seen.lock().iter().rev().take(2).map(|note| note.2.clone()).collect();
            assert_eq!(last, [None, Some("K".to_owned())], "{from} {to}");
            here.remove(ORIGIN).unwrap();
        }
    }

    #[test]
    fn what_was_seen_at_a_place_or_by_other_names_is_known_of_no_other() {
        let desk = Desk::usual();
        let given = |options: serde_json::Value| {
            Given::read(options.as_object().unwrap(), Kind::S3).unwrap().settings
        };
        let (url, plain, keyed) = ("s3://bucket/a", given(json!({})), given(json!({"key_env": "K"})));
        let sure = Sure::default();
        sure.note(3, true);
        desk.be_sure(ORIGIN, url, &keyed, sure.noted());
        assert!(desk.sure(ORIGIN, url, &keyed).newest(3));
        let elsewhere = given(json!({"key_env": "K", "endpoint": "http://b"}));
        for (url, settings) in [(url, plain), ("s3://bucket/b", keyed), (url, elsewhere)] {
            assert!(!desk.sure(ORIGIN, url, &settings).newest(3), "{url} {settings:?}");
        }
    }

    #[test]
    fn pages_are_read_where_another_process_has_moved_their_remote_to() {
        let disk = SimDisk::new();
        let [from, to] = [Arc::new(InMemory::new()), Arc::new(InMemory::new())];
        let way: Arc<Open> = {
            let (from, to) = (Arc::clone(&from), Arc::clone(&to));
            Arc::new(move |address: &Address, _: &Given| {
                let store = if address.url() == "s3://bucket/a" { &from } else { &to };
                Ok(Arc::clone(store) as Arc<dyn ObjectStore>)
            })
        };
        let first = open(&disk);
        commit(&first).unwrap();
        let there = Remotes::at(&first, Arc::new(Desk::new(Arc::clone(&way))));
        there.add(ORIGIN, "s3://bucket/a", None).unwrap();
        there.push(ORIGIN).unwrap();
        let stop = || false;
        let clone = || {
            let source: Option<Arc<dyn Sources>> = Some(Arc::new(RemotePages::by(Arc::clone(&way))));
            StoreOptions { background: false, source, ..StoreOptions::default() }
        };
        let cloning = Cloning {
            url: "s3://bucket/a",
            remote: Options::new(),
            until: Point::Newest,
            replace: false,
            options: clone(),
            stop: &stop,
        };
        let (address, path) = (Address::parse("s3://bucket/a").unwrap(), Path::new("/clone.db"));
        let given = Given::default();
        let desk = Desk::new(Arc::clone(&way));
        let (own, _) = cloning.begin(desk, &address, given, true, disk.process(), path).unwrap();
        let other = Store::open(disk.process() as Arc<dyn Disk>, path, clone()).unwrap();
        own.keep_source(&|| false).unwrap();
        move_all(&from, &to);
        let others = Remotes::at(&other, Arc::new(Desk::new(Arc::clone(&way))));
        others.add(ORIGIN, "s3://bucket/b", None).unwrap();
        own.hydrate(|_, _| true).unwrap();
    }

    #[test]
    fn a_lazy_clone_reads_where_it_is_told_to_with_what_it_was_given_for_that() {
        let (disk, (way, seen)) = (SimDisk::new(), watched());
        let (one, two, url) = ("https://one.example", "https://two.example", "s3://bucket/a");
        let first = open(&disk);
        commit(&first).unwrap();
        let there = Remotes::at(&first, Arc::new(Desk::new(Arc::clone(&way))));
        there.add(ORIGIN, url, Some(&options(one, Some("K")))).unwrap();
        there.push(ORIGIN).unwrap();
        let source: Option<Arc<dyn Sources>> = Some(Arc::new(RemotePages::by(Arc::clone(&way))));
        let store_options = StoreOptions { background: false, source, ..StoreOptions::default() };
        let stop = || false;
        let cloning = Cloning {
            url,
            remote: Options::new(),
            until: Point::Newest,
            replace: false,
            options: store_options,
            stop: &stop,
        };
        let given = Given::read(&options(one, Some("K")), Kind::S3).unwrap();
        let (address, path) = (Address::parse(url).unwrap(), Path::new("/clone.db"));
        let (clone, _) = cloning.begin(Desk::new(way), &address, given, true, disk.process(), path).unwrap();
        // It is somewhere else from now on, and has other keys there.
        Remotes::of(&clone).add(ORIGIN, url, Some(&options(two, Some("L")))).unwrap();
        clone.hydrate(|_, _| true).unwrap();
        clone.keep_source(&|| false).unwrap();
        let keys: HashSet<_> = seen.lock().iter().map(|(_, at, key)| (at.clone(), key.clone())).collect();
        let pair = |at: &str, key: &str| (Some(at.to_owned()), Some(key.to_owned()));
        assert_eq!(keys, HashSet::from([pair(one, "K"), pair(two, "L")]));
    }

    /// Moves all objects.
    fn move_all(from: &InMemory, to: &InMemory) {
        let moved = async {
            for found in from.list(None).try_collect::<Vec<_>>().await? {
                let bytes = from.get(&found.location).await?.bytes().await?;
                to.put(&found.location, bytes.into()).await?;
                from.delete(&found.location).await?;
            }
            Ok::<_, object_store::Error>(())
        };
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(moved).unwrap();
    }

    /// Fills a database of three pages.
    fn commit(store: &Arc<Store>) -> Result<()> {
        let mut session = Session::new(Arc::clone(store))?;
        session.begin_read()?;
        session.begin_write()?;
        let mut header = [0; 512];
        header[..24].copy_from_slice(b"SQLite format 3\0\x02\x00\x01\x01\x00\x40\x20\x20");
        header[28..32].copy_from_slice(&3u32.to_be_bytes());
        session.write(0, &header)?;
        session.write(512, &[7; 512])?;
        session.write(1024, &[8; 512])?;
        session.truncate(3 * 512)?;
        session.prepare(None)?;
        session.publish(Durability::Process, false)?;
        session.end_read()
    }
}
