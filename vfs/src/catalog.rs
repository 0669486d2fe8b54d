//! The stores that this process has open: the library's only global state.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Weak};

use parking_lot::Mutex;
use tideline_journal::disk::{RealDisk, path_from};
use tideline_journal::{Code, Error, Options, Result, Store};

static STORES: LazyLock<Mutex<HashMap<PathBuf, Weak<Store>>>> = LazyLock::new(Mutex::default);

/// The store of the database at `path`, opened if this process hasn't got it.
pub(crate) fn open(path: &Path) -> Result<Arc<Store>> {
    let mut stores = STORES.lock();
    if let Some(store) = stores.get(path).and_then(Weak::upgrade) {
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
    stores.insert(path.to_owned(), Arc::downgrade(&store));
    Ok(store)
}

/// True if `path` is that of a database that is open here, with `suffix` behind it.
pub(crate) fn belongs(path: &Path, suffix: &str) -> bool {
    without(path, suffix)
        .is_some_and(|database| STORES.lock().get(database).is_some_and(|store| store.strong_count() > 0))
}

/// True if `path` is that of a database that is open here, with `suffix` behind it, and the database
/// has a prepared entry, with its marker.
pub(crate) fn is_prepared(path: &Path, suffix: &str) -> bool {
    without(path, suffix)
        .and_then(|database| STORES.lock().get(database).and_then(Weak::upgrade))
        .is_some_and(|store| store.is_prepared())
}

fn without<'a>(path: &'a Path, suffix: &str) -> Option<&'a Path> {
    path.as_os_str().as_encoded_bytes().strip_suffix(suffix.as_bytes()).and_then(path_from)
}
