//! The stores that this process has open: the library's only global state.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::{Arc, LazyLock, Weak};

use parking_lot::RwLock;
use rustc_hash::FxHashMap;
use tideline_journal::disk::{RealDisk, path_from};
use tideline_journal::{Code, Error, Options, Result, Store};

/// By their names as SQLite has them; it asks at each commit, so looking must be quick.
static STORES: LazyLock<RwLock<FxHashMap<OsString, Weak<Store>>>> = LazyLock::new(RwLock::default);

fn known(name: &OsStr) -> Option<Weak<Store>> {
    STORES.read().get(name).cloned()
}

/// The store of the database at `path`, opened if this process hasn't got it.
pub(crate) fn open(path: &Path) -> Result<Arc<Store>> {
    let mut stores = STORES.write();
    if let Some(store) = stores.get(path.as_os_str()).and_then(Weak::upgrade) {
        if store.is_usable() {
            return Ok(store);
        }
    }
    stores.retain(|_, store| store.strong_count() > 0);
    if tideline_journal::disk::is_network(path.parent().unwrap_or(path)).unwrap_or(false) {
        return Err(Error::new(
            Code::Denied,
            format!(
                "{} is on a network file system, whose locks can't be relied on; put it on a local disk",
                path.display()
            ),
        ));
    }
    let store = Store::open(Arc::new(RealDisk::new()), path, Options::default())?;
    stores.insert(path.as_os_str().to_owned(), Arc::downgrade(&store));
    Ok(store)
}

/// True if `path` is that of a database that is open here, with `suffix` behind it.
pub(crate) fn belongs(path: &Path, suffix: &str) -> bool {
    without(path, suffix).and_then(known).is_some_and(|store| store.strong_count() > 0)
}

/// True if `path` is that of a database that is open here, with `suffix` behind it, and the database
/// has a prepared entry, with its marker.
pub(crate) fn is_prepared(path: &Path, suffix: &str) -> bool {
    without(path, suffix)
        .and_then(known)
        .and_then(|store| store.upgrade())
        .is_some_and(|store| store.is_prepared())
}

fn without<'a>(path: &'a Path, suffix: &str) -> Option<&'a OsStr> {
    let name = path.as_os_str().as_encoded_bytes().strip_suffix(suffix.as_bytes())?;
    path_from(name).map(Path::as_os_str)
}
