//! Databases made of numbered pages, without SQLite.
#![allow(dead_code, reason = "each test uses its part")]

pub mod elsewhere;
pub mod files;
pub mod machine;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tideline_journal::disk::{Disk, How, SimProcess};
use tideline_journal::{Clock, Durability, Lsn, Options, Result, Session, Store, page_hash};

/// Size of the pages in these tests, in bytes.
pub const PAGE: usize = 512;
/// Where the database is on a simulated disk.
pub const PATH: &str = "/app.db";

/// Time that stands still.
pub struct Stopped;

impl Clock for Stopped {
    fn now_ms(&self) -> u64 {
        1_700_000_000_000
    }
}

/// Small segments, so that a few commits fill one.
pub fn options() -> Options {
    Options {
        segment_bytes: 8 << 10,
        fold_step: 3,
        background: false,
        clock: Arc::new(Stopped),
        ..Options::default()
    }
}

pub fn open(disk: &Arc<SimProcess>) -> Result<Arc<Store>> {
    open_at(disk, PATH)
}

pub fn open_at(disk: &Arc<SimProcess>, path: &str) -> Result<Arc<Store>> {
    let disk: Arc<dyn Disk> = Arc::clone(disk) as Arc<dyn Disk>;
    Store::open(disk, Path::new(path), options())
}

/// Goes on with a store that was found sound, at `lsn` and with `model`: checks it, commits, closes, and opens it again.
pub fn go_on_with(process: &Arc<SimProcess>, store: Arc<Store>, lsn: Lsn, mut model: Model, what: &str) {
    let findings = store.verify().unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(findings.is_empty(), "{what}: {findings:?}");
    let mut session = Session::new(Arc::clone(&store)).unwrap();
    let change = model.change(&mut Rng(lsn.get()));
    let next = commit(&mut session, &mut model, &change, Durability::Process);
    let next = next.unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(next, lsn.next(), "{what}");
    drop(session);
    store.close().unwrap_or_else(|e| panic!("{what}: {e}"));
    let path = store.path().to_str().unwrap();
    let again = open_at(process, path).unwrap_or_else(|e| panic!("{what}, after closing: {e}"));
    let found = read(&again).unwrap_or_else(|e| panic!("{what}, after closing: {e}"));
    assert_eq!(found, (next, model), "{what}: after closing");
}

/// A database of so many pages that nobody of ours has written.
pub fn plain(size: u32) -> Model {
    Model { size, fills: (1..=size).map(|page| (page, u64::from(page) * 11)).collect() }
}

/// Writes a database as stock SQLite leaves it, durably.
pub fn put_plain(process: &SimProcess, path: &str, model: &Model, counter: u32) -> std::io::Result<()> {
    let file = process.open(Path::new(path), How::Create)?;
    let mut bytes = Vec::new();
    for page in 1..=model.size {
        bytes.extend(image(page, model.fills[&page], model.size, counter));
    }
    file.set_len(bytes.len() as u64)?;
    file.write_at(&bytes, 0)?;
    file.sync()?;
    process.sync_dir(Path::new("/"))
}

/// What the environment says of a number, or the default.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// splitmix64.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// What a database should hold: number of pages, and each one's fill.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    pub size: u32,
    pub fills: BTreeMap<u32, u64>,
}

/// The image of a page: page 1 has SQLite's header.
pub fn image(page: u32, fill: u64, size: u32, counter: u32) -> Vec<u8> {
    let mut image = fill.to_le_bytes().repeat(PAGE / 8);
    if page == 1 {
        image[..100].fill(0);
        image[..16].copy_from_slice(b"SQLite format 3\0");
        image[16..18].copy_from_slice(&(PAGE as u16).to_be_bytes());
        image[18..24].copy_from_slice(&[1, 1, 0, 64, 32, 32]);
        image[24..28].copy_from_slice(&counter.to_be_bytes());
        image[28..32].copy_from_slice(&size.to_be_bytes());
        image[92..96].copy_from_slice(&counter.to_be_bytes());
    }
    image
}

/// One transaction's changes: pages to fill, and the size afterwards.
#[derive(Clone, Debug)]
pub struct Change {
    pub fills: Vec<(u32, u64)>,
    pub size: u32,
}

impl Model {
    /// Rolling checksum of a database with these pages. The counters in page 1 don't count.
    pub fn checksum(&self) -> u64 {
        let hash = |(&page, &fill): (&u32, &u64)| page_hash(page, &image(page, fill, self.size, 7));
        self.fills.iter().map(hash).fold(0, u64::wrapping_add)
    }

    pub fn apply(&mut self, change: &Change) {
        for &(page, fill) in &change.fills {
            self.fills.insert(page, fill);
        }
        // A page that comes into being without being written is zeros.
        for page in self.size + 1..=change.size {
            self.fills.entry(page).or_insert(0);
        }
        self.size = change.size;
        self.fills.retain(|&page, _| page <= change.size);
    }

    /// Random changes of a database like this one.
    pub fn change(&self, rng: &mut Rng) -> Change {
        let size = match rng.below(6) {
            0 if self.size > 4 => self.size - 1 - rng.below(3) as u32,
            1 | 2 => self.size + 1 + rng.below(4) as u32,
            _ => self.size.max(2),
        };
        let size = size.max(2);
        let mut fills = Vec::new();
        for _ in 0..rng.below(5) {
            fills.push((2 + rng.below(u64::from(size) - 1) as u32, rng.next() | 1));
        }
        if rng.below(4) == 0 || self.size == 0 {
            fills.push((1, rng.next() | 1));
        }
        Change { fills, size }
    }
}

/// Writes a change the way SQLite's pager does, up to the point where it could still roll back.
pub fn stage(session: &mut Session, model: &Model, change: &Change) -> Result<()> {
    let mut after = model.clone();
    after.apply(change);
    session.begin_read()?;
    session.begin_write()?;
    let counter = session.state().unwrap().counters.counter + 1;
    for (&page, &fill) in &after.fills {
        let written = change.fills.iter().any(|f| f.0 == page);
        if page == 1 || written {
            let bytes = image(page, fill, after.size, counter);
            session.write(u64::from(page - 1) * PAGE as u64, &bytes)?;
        }
    }
    session.truncate(u64::from(after.size) * PAGE as u64)
}

/// As [`stage`], and prepares the entry.
pub fn write(session: &mut Session, model: &Model, change: &Change) -> Result<()> {
    stage(session, model, change)?;
    session.prepare(None)
}

pub fn commit(
    session: &mut Session,
    model: &mut Model,
    change: &Change,
    durability: Durability,
) -> Result<Lsn> {
    let done = write(session, model, change).and_then(|()| session.publish(durability, false));
    match &done {
        Ok(_) => model.apply(change),
        Err(_) => session.rollback()?,
    }
    session.end_read()?;
    done
}

/// What the store holds at its head.
pub fn read(store: &Arc<Store>) -> Result<(Lsn, Model)> {
    let mut session = Session::new(Arc::clone(store))?;
    session.begin_read()?;
    let state = *session.state().unwrap();
    let model = read_at(&session)?;
    session.end_read()?;
    Ok((state.lsn, model))
}

/// What a session's snapshot holds.
pub fn read_at(session: &Session) -> Result<Model> {
    let state = *session.state().unwrap();
    let mut model = Model { size: state.size, ..Model::default() };
    let mut page = vec![0; PAGE];
    for number in 1..=state.size {
        assert_eq!(session.read(u64::from(number - 1) * PAGE as u64, &mut page)?, PAGE);
        let at = if number == 1 { 104 } else { 0 };
        let mut fill = [0; 8];
        fill.copy_from_slice(&page[at..at + 8]);
        let fill = u64::from_le_bytes(fill);
        if number == 1 {
            assert_eq!(page[18..20], [1, 1]);
            assert_eq!(page[28..32], state.size.to_be_bytes(), "size in page 1");
        }
        let whole = image(number, fill, state.size, state.counters.counter);
        assert_eq!(page[at..], whole[at..], "page {number} isn't one image");
        model.fills.insert(number, fill);
    }
    Ok(model)
}
