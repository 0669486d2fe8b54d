//! The stores that this process has open: with the database that each thread has locked last, the library's only global
//! state.

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::{Arc, LazyLock, OnceLock, Weak};

use parking_lot::RwLock;
use rustc_hash::FxHashMap;
use tideline_journal::disk::{RealDisk, path_from};
use tideline_journal::{Code, Error, Options, Result, Store};

/// By their names as SQLite has them; it asks at each commit, so looking must be quick.
static STORES: LazyLock<RwLock<FxHashMap<OsString, Weak<Store>>>> = LazyLock::new(RwLock::default);

/// How stores are opened; the usual way until somebody says otherwise.
static OPTIONS: OnceLock<fn() -> Options> = OnceLock::new();

/// Has stores opened with these options. The first to say so is heard.
pub fn open_with(options: fn() -> Options) {
    OPTIONS.get_or_init(|| options);
}

/// The store of the database at `path`, opened if this process hasn't got it.
pub(crate) fn open(path: &Path) -> Result<Arc<Store>> {
    let mut stores = STORES.write();
    if let Some(store) = stores.get(path.as_os_str()).and_then(Weak::upgrade) {
        if store.is_usable() {
            if store.has_moved()? {
                return Err(Error::new(
                    Code::Foreign,
                    format!(
                        "{} was moved or replaced while this process has the database open that was there; \
                         close its connections first",
                        path.display()
                    ),
                ));
            }
            store.wholly_in_place()?;
            return Ok(store);
        }
        store.give_way()?;
    }
    stores.retain(|_, store| store.strong_count() > 0);
    if is_remote(path) {
        return Err(Error::new(
            Code::Denied,
            format!(
                "{} is on a network file system, whose locks can't be relied on; put it on a local disk",
                path.display()
            ),
        ));
    }
    let store = Store::open(
        Arc::new(RealDisk::new()),
        path,
        OPTIONS.get().map_or_else(Options::default, |make| make()),
    )?;
    stores.insert(path.as_os_str().to_owned(), Arc::downgrade(&store));
    Ok(store)
}

/// True if a database is on a network file system.
pub(crate) fn is_remote(path: &Path) -> bool {
    tideline_journal::disk::is_network(path.parent().unwrap_or(path)).unwrap_or(false)
}

/// What a file is that SQLite asks for as a journal or a WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Journal {
    /// None of a database that is open here.
    Foreign,
    /// That of one. No such file exists.
    Virtual,
    /// The marker of a transaction over several databases, which is real.
    Marker,
}

/// The database that a thread has locked last.
struct Locked {
    name: Arc<Path>,
    store: Weak<Store>,
    prepared: bool,
}

thread_local! {
    static LOCKED: RefCell<Option<Locked>> = const { RefCell::new(None) };
}

/// Notes that this thread has just locked the database `name`. SQLite goes on to ask for its journal and its WAL, each
/// time; threads that read at once should share nothing that is written then, not even a count.
pub(crate) fn locked(name: &Arc<Path>, store: &Arc<Store>) {
    let prepared = store.is_prepared();
    // A thread that is ending looks in the map.
    let _ = LOCKED.try_with(|locked| match &mut *locked.borrow_mut() {
        Some(locked) if Arc::ptr_eq(&locked.name, name) => locked.prepared = prepared,
        locked => *locked = Some(Locked { name: Arc::clone(name), store: Arc::downgrade(store), prepared }),
    });
}

/// What the file at `path` is.
pub(crate) fn journal(path: &Path) -> Journal {
    let (name, is_wal) = match (without(path, "-journal"), without(path, "-wal")) {
        (Some(name), _) => (name, false),
        (None, Some(name)) => (name, true),
        (None, None) => return Journal::Foreign,
    };
    let of = |store: &Weak<Store>, prepared: &dyn Fn() -> bool| match store.strong_count() {
        0 => Journal::Foreign,
        _ if !is_wal && prepared() => Journal::Marker,
        _ => Journal::Virtual,
    };
    let locked = LOCKED.try_with(|locked| match &*locked.borrow() {
        Some(locked) if locked.name.as_os_str() == name && locked.store.strong_count() > 0 => {
            Some(of(&locked.store, &|| locked.prepared))
        }
        _ => None,
    });
    if let Ok(Some(journal)) = locked {
        return journal;
    }
    let Some(store) = STORES.read().get(name).cloned() else { return Journal::Foreign };
    of(&store, &|| store.upgrade().is_some_and(|store| store.is_prepared()))
}

fn without<'a>(path: &'a Path, suffix: &str) -> Option<&'a OsStr> {
    let name = path.as_os_str().as_encoded_bytes().strip_suffix(suffix.as_bytes())?;
    path_from(name).map(Path::as_os_str)
}
