//! Lazy clones of a database that is elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tideline_journal::disk::{Disk, SimDisk, SimProcess};
use tideline_journal::{
    Code, Durability, Error, Options, PageSource, Result, Session, Sources, State, Store,
};

use super::files::{SIDE, load};
use super::{Change, Model, PAGE, PATH, commit, image, open, options};

pub const DESCRIPTION: &[u8] = b"where it lies";

/// Where the pages lie. What was asked for once is found also when it is away.
#[derive(Default)]
pub struct Elsewhere {
    pub pages: BTreeMap<u32, Vec<u8>>,
    away: AtomicBool,
    requests: AtomicU64,
    cached: Mutex<BTreeSet<u32>>,
}

impl Elsewhere {
    fn get(&self, page: u32) -> Result<&[u8]> {
        if !self.cached.lock().unwrap().contains(&page) {
            if self.away.load(Ordering::SeqCst) {
                return Err(Error::new(Code::Offline, "it is away; try again later"));
            }
            self.requests.fetch_add(1, Ordering::SeqCst);
        }
        let image = self.pages.get(&page);
        image.map(Vec::as_slice).ok_or_else(|| Error::new(Code::Missing, format!("no page {page} there")))
    }

    /// The same pages elsewhere, but for one.
    pub fn but_for(&self, page: u32, image: Vec<u8>) -> Elsewhere {
        let mut other = Elsewhere { pages: self.pages.clone(), ..Elsewhere::default() };
        other.pages.insert(page, image);
        other
    }

    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    pub fn go(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }
}

impl PageSource for Elsewhere {
    fn read(&self, page: u32, to: &mut [u8]) -> Result<()> {
        to.copy_from_slice(self.get(page)?);
        Ok(())
    }

    fn prefetch(&self, pages: &[u32]) -> Result<()> {
        for &page in pages {
            self.get(page)?;
            self.cached.lock().unwrap().insert(page);
        }
        Ok(())
    }
}

/// What makes it of its description.
pub struct Known(Arc<Elsewhere>);

impl Sources for Known {
    fn open(&self, _store: &Store, description: &[u8]) -> Result<Arc<dyn PageSource>> {
        assert_eq!(description, DESCRIPTION);
        Ok(Arc::clone(&self.0) as Arc<dyn PageSource>)
    }
}

/// A database elsewhere, with what it was when it was cloned.
pub struct Origin {
    pub store: Arc<Store>,
    pub session: Session,
    pub model: Model,
    pub lineage: [u8; 16],
    pub state: State,
    pub checksum: u64,
    pub at: Arc<Elsewhere>,
}

impl Origin {
    /// One of `size` pages, after a few commits.
    pub fn new(size: u32) -> Origin {
        let store = open(&SimDisk::new().process()).unwrap();
        let mut session = Session::new(Arc::clone(&store)).unwrap();
        let mut model = Model::default();
        let all = (1..=size).map(|page| (page, u64::from(page) << 8)).collect();
        for change in [Change { fills: all, size }, Change { fills: vec![(2, 77), (3, 78)], size }] {
            commit(&mut session, &mut model, &change, Durability::Disk).unwrap();
        }
        let checksum = store.learn_checksum().unwrap();
        session.begin_read().unwrap();
        let state = *session.state().unwrap();
        let mut at = Elsewhere::default();
        for page in 1..=size {
            let mut image = vec![0; PAGE];
            session.read(u64::from(page - 1) * PAGE as u64, &mut image).unwrap();
            at.pages.insert(page, image);
        }
        session.end_read().unwrap();
        Origin { lineage: store.lineage(), store, session, model, state, checksum, at: Arc::new(at) }
    }

    pub fn commit(&mut self, change: &Change) {
        commit(&mut self.session, &mut self.model, change, Durability::Process).unwrap();
    }

    pub fn options(&self) -> Options {
        let source: Arc<dyn Sources> = Arc::new(Known(Arc::clone(&self.at)));
        Options { source: Some(source), fetch_bytes: 5 * PAGE, ..options() }
    }

    pub fn clone_at(&self, process: &Arc<SimProcess>) -> Result<Arc<Store>> {
        self.clone_to(process, Path::new(PATH))
    }

    pub fn clone_to(&self, process: &Arc<SimProcess>, path: &Path) -> Result<Arc<Store>> {
        let sum = Some(self.checksum);
        Store::begin_lazy(disk(process), path, self.options(), self.lineage, self.state, sum, DESCRIPTION)
    }

    pub fn open(&self, process: &Arc<SimProcess>) -> Result<Arc<Store>> {
        Store::open(disk(process), Path::new(PATH), self.options())
    }
}

pub fn disk(process: &Arc<SimProcess>) -> Arc<dyn Disk> {
    Arc::clone(process) as Arc<dyn Disk>
}

/// Everything is as stock SQLite wants it: the file alone is the database.
pub fn assert_plain(process: &SimProcess, model: &Model, what: &str) {
    let bytes = load(process, PATH);
    assert_eq!(bytes.len(), model.size as usize * PAGE, "{what}");
    assert_eq!(bytes[18..20], [1, 1], "{what}");
    let counter = u32::from_be_bytes(bytes[24..28].try_into().unwrap());
    for (page, found) in (1..).zip(bytes.chunks(PAGE)) {
        let mut expected = image(page, model.fills[&page], model.size, counter);
        if page == 1 {
            expected[92..100].copy_from_slice(&found[92..100]);
        }
        assert!(found == expected, "{what}: page {page}");
    }
    let inside = process.list(Path::new(SIDE)).unwrap();
    assert!(!inside.iter().any(|name| name.starts_with("source") || name == "present"), "{what}: {inside:?}");
}

/// Stock SQLite takes the base for no database.
pub fn assert_marked(process: &SimProcess) {
    assert_eq!(load(process, PATH)[19], 0x54);
}

pub fn sound(store: &Arc<Store>, what: &str) {
    let findings = store.verify().unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(findings.is_empty(), "{what}: {findings:?}");
}
