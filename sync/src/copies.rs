//! A database as a remote has it, to mend a damaged one with.
//!
//! It is a lazy clone in a temporary folder, at the LSN at which a page is wanted; so what is fetched are the manifests and
//! the page, with what it is a difference from.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tempfile::TempDir;
use tideline_journal::disk::RealDisk;
use tideline_journal::{Code, Error, Lsn, Options as StoreOptions, Result, Session, Store, interrupted};

use crate::address::Address;
use crate::book::{Book, Position, Remote};
use crate::cloning::Cloning;
use crate::desk::Desk;
use crate::lazy::{RemotePages, store_options};
use crate::options::Options;
use crate::point::Point;
use crate::settings::Given;

/// Copies that are kept: pages that are damaged together are often of one LSN.
const MOST: usize = 4;
/// A remote of which it took longer to find out that it is away isn't asked again for a while: a thousand pages may be
/// damaged.
const LONG: Duration = Duration::from_secs(1);
/// So many times as long as that took.
const PATIENCE: u32 = 10;

/// One of them.
struct Copy {
    /// What it is of: the name of the remote, and the point.
    of: (String, Point),
    store: Arc<Store>,
    /// Behind the store, which is in it.
    _folder: TempDir,
}

impl Drop for Copy {
    fn drop(&mut self) {
        // It goes with its folder.
        drop(self.store.discard());
    }
}

/// Those that were made.
#[derive(Default)]
pub(crate) struct Copies {
    /// The newest first.
    made: Mutex<VecDeque<Arc<Copy>>>,
    /// Remotes that are away, why, and until when they aren't asked again.
    away: Mutex<HashMap<String, (Instant, Error)>>,
}

/// Looks for the image that a page had at an LSN, at each remote; see [`tideline_journal::Sources::find`]. Where a remote
/// can't tell that LSN from others it is asked for the newest: most pages seldom change.
pub(crate) fn find(
    store: &Store,
    desk: &Desk,
    page: u32,
    at: Lsn,
    fits: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<Option<String>> {
    let mut trouble = None;
    for remote in Book::load(store)?.remotes {
        let knows = |position: &Position| position.lineage == store.lineage();
        if !remote.position.as_ref().is_some_and(knows) {
            continue;
        }
        for point in [Point::Lsn(at), Point::Newest] {
            match desk.copies().get(desk, &remote, point).and_then(|copy| image(&copy.store, page)) {
                Ok(Some(image)) if fits(&image) => return Ok(Some(format!("the remote {}", remote.name))),
                Ok(_) => {}
                Err(e) if matches!(e.code(), Code::Argument | Code::Trimmed) => {}
                Err(e) if e.code() == Code::Interrupted => return Err(e),
                Err(e) => trouble = Some(e),
            }
        }
    }
    trouble.map_or(Ok(None), Err)
}

impl Copies {
    /// What a remote has at a point.
    fn get(&self, desk: &Desk, remote: &Remote, point: Point) -> Result<Arc<Copy>> {
        let of = (remote.name.clone(), point);
        if let Some(known) = self.made.lock().iter().find(|copy| copy.of == of) {
            return Ok(Arc::clone(known));
        }
        let begun = Instant::now();
        if let Some((_, e)) = self.away.lock().get(&remote.name).filter(|(until, _)| begun < *until) {
            return Err(e.clone());
        }
        let made = make(desk, remote, of);
        if let Err(e) = &made {
            let took = begun.elapsed();
            if e.code() == Code::Offline && took > LONG {
                let until = Instant::now() + took * PATIENCE;
                self.away.lock().insert(remote.name.clone(), (until, e.clone()));
            }
        }
        let copy = Arc::new(made?);
        let mut copies = self.made.lock();
        copies.push_front(Arc::clone(&copy));
        copies.truncate(MOST);
        Ok(copy)
    }
}

/// Makes one of what a remote has at a point.
fn make(desk: &Desk, remote: &Remote, of: (String, Point)) -> Result<Copy> {
    let folder = tempfile::tempdir().map_err(|e| {
        let text = format!("no temporary folder for what a remote has: {e}; look at the system's limits");
        Error::new(Code::Io, text)
    })?;
    let options = StoreOptions { source: Some(Arc::new(RemotePages::by(desk.open()))), ..store_options() };
    let (url, until) = (remote.url.as_str(), of.1);
    let cloning = Cloning { url, remote: Options::new(), until, replace: false, options, stop: &interrupted };
    let given = Given {
        settings: remote.settings.clone(),
        secrets: desk.told(&remote.name, &remote.url, &remote.settings),
    };
    let (disk, path) = (Arc::new(RealDisk::new()), folder.path().join("copy.db"));
    let own = Desk::new(desk.open());
    let (store, _) = cloning.begin(own, &Address::parse(url)?, given, false, disk, &path)?;
    Ok(Copy { of, store, _folder: folder })
}

/// The image of a page; `None` if there is no such page.
fn image(store: &Arc<Store>, page: u32) -> Result<Option<Vec<u8>>> {
    let mut session = Session::new(Arc::clone(store))?;
    session.begin_read()?;
    let state = session.state().copied().unwrap_or_default();
    if page > state.size {
        return Ok(None);
    }
    let mut image = vec![0; state.page_size as usize];
    session.read(u64::from(page - 1) * image.len() as u64, &mut image)?;
    Ok(Some(image))
}
