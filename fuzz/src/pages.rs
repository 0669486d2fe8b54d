//! Databases made of numbered pages, without SQLite, on simulated disks.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tideline_journal::disk::{Disk, How, SimDisk, SimProcess};
use tideline_journal::{Clock, Durability, Lsn, Options, Result, Session, Store};

/// Path of the base.
pub const BASE: &str = "/app.db";
/// Path of the side folder.
pub const SIDE: &str = "/app.db-tide";
/// Page size of most databases here, in bytes.
pub const PAGE: usize = 512;
/// Bytes of page 1 that the store serves instead of storing them.
pub const SERVED: [(usize, usize); 4] = [(18, 20), (24, 28), (40, 44), (92, 100)];

/// Time that stands still.
struct Stopped;

impl Clock for Stopped {
    fn now_ms(&self) -> u64 {
        1_700_000_000_000
    }
}

/// splitmix64.
pub struct Rng(pub u64);

impl Rng {
    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which isn't 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next_u64() % n
    }
}

/// Opens the database, with segments that a few commits fill.
///
/// # Errors
/// Those of [`Store::open`].
pub fn open(process: &Arc<SimProcess>) -> Result<Arc<Store>> {
    let disk: Arc<dyn Disk> = Arc::clone(process) as Arc<dyn Disk>;
    let options = Options {
        segment_bytes: 4 << 10,
        fold_step: 3,
        background: false,
        clock: Arc::new(Stopped),
        ..Options::default()
    };
    Store::open(disk, Path::new(BASE), options)
}

/// All pages of a database; bytes that are served are zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Page size in bytes; 0 while there is no page.
    pub page_size: usize,
    /// Images, from page 1.
    pub pages: Vec<Vec<u8>>,
}

/// An image of `page` as [`Content`] has it.
pub fn canonical(page: u32, image: &[u8]) -> Vec<u8> {
    let mut image = image.to_vec();
    if page == 1 {
        for (from, to) in SERVED {
            image[from..to].fill(0);
        }
    }
    image
}

/// What the store holds at its head.
///
/// # Errors
/// Those of reading any page.
pub fn content(store: &Arc<Store>) -> Result<(Lsn, Content)> {
    let mut session = Session::new(Arc::clone(store))?;
    session.begin_read()?;
    let state = session.state().copied().unwrap_or_default();
    let mut content = Content::default();
    if state.size > 0 {
        content.page_size = state.page_size as usize;
        for page in 1..=state.size {
            let mut image = vec![0; content.page_size];
            let got = session.read(u64::from(page - 1) * content.page_size as u64, &mut image)?;
            assert_eq!(got, image.len(), "page {page} of {} is there", state.size);
            assert!(page > 1 || image[18..20] == [1, 1], "page 1 says that this is no WAL database");
            content.pages.push(canonical(page, &image));
        }
    }
    session.end_read()?;
    Ok((state.lsn, content))
}

/// One transaction.
#[derive(Clone, Debug)]
pub struct Change {
    /// Page size after it, in bytes.
    pub page_size: usize,
    /// Size in pages after it; at least 1.
    pub size: u32,
    /// Pages that are written: number and what they are filled with.
    pub fills: Vec<(u32, u64)>,
}

impl Change {
    /// What a database of `before` holds after it, if its page size stays.
    pub fn applied(&self, before: &Content) -> Content {
        let mut pages = before.pages.clone();
        pages.resize(self.size as usize, vec![0; self.page_size]);
        for &(page, fill) in &self.fills {
            pages[page as usize - 1] = canonical(page, &image(page, fill, self, 0));
        }
        Content { page_size: self.page_size, pages }
    }
}

/// Image of a page that is filled with `fill`; page 1 has SQLite's header.
pub fn image(page: u32, fill: u64, change: &Change, counter: u32) -> Vec<u8> {
    let mut image: Vec<u8> = fill.to_le_bytes().iter().copied().cycle().take(change.page_size).collect();
    if page == 1 {
        image[..100].fill(0);
        image[..16].copy_from_slice(b"SQLite format 3\0");
        image[16..18].copy_from_slice(&(change.page_size as u16).to_be_bytes());
        image[18..24].copy_from_slice(&[1, 1, 0, 64, 32, 32]);
        image[24..28].copy_from_slice(&counter.to_be_bytes());
        image[28..32].copy_from_slice(&change.size.to_be_bytes());
        image[92..96].copy_from_slice(&counter.to_be_bytes());
    }
    image
}

/// Random changes to a database like `content`.
pub fn random_change(rng: &mut Rng, content: &Content) -> Change {
    let now = content.pages.len() as u32;
    let size = match rng.below(6) {
        0 if now > 4 => now - 1 - rng.below(2) as u32,
        1 | 2 => now + 1 + rng.below(2) as u32,
        _ => now.max(2),
    };
    let page_size = if content.page_size == 0 { PAGE } else { content.page_size };
    let mut change = Change { page_size, size: size.max(2), fills: Vec::new() };
    for _ in 0..rng.below(3) + 1 {
        let fill = if rng.below(8) == 0 { 0 } else { rng.next_u64() };
        change.fills.push((2 + rng.below(u64::from(change.size) - 1) as u32, fill));
    }
    if rng.below(3) == 0 || now != change.size {
        change.fills.push((1, rng.next_u64()));
    }
    change
}

/// Commits a change the way SQLite's pager does; a page that comes into being without being written
/// is zeros. Returns its LSN.
///
/// # Errors
/// Those of the session. Something is committed all the same where only the work after it failed.
pub fn commit(store: &Arc<Store>, change: &Change, durability: Durability) -> Result<Lsn> {
    let mut session = Session::new(Arc::clone(store))?;
    session.begin_read()?;
    session.begin_write()?;
    let counter = session.state().map_or(0, |state| state.counters.counter).wrapping_add(1);
    for &(page, fill) in &change.fills {
        let offset = u64::from(page - 1) * change.page_size as u64;
        session.write(offset, &image(page, fill, change, counter))?;
    }
    session.truncate(u64::from(change.size) * change.page_size as u64)?;
    session.prepare(None)?;
    let lsn = session.publish(durability, false)?;
    session.end_read()?;
    Ok(lsn)
}

/// Files by their absolute paths.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Bytes of all files on `disk`.
pub fn save(disk: &Arc<SimDisk>) -> Files {
    let process = disk.process();
    let list = |folder: &str| process.list(folder.as_ref()).unwrap_or_default();
    let beside = list("/").into_iter().map(|name| format!("/{name}"));
    let inside = list(SIDE).into_iter().map(|name| format!("{SIDE}/{name}"));
    let mut files = Files::new();
    for path in beside.chain(inside) {
        // The side folder itself is no file.
        let Ok(file) = process.open(path.as_ref(), How::Read) else { continue };
        let mut bytes = vec![0; file.len().expect("it is open") as usize];
        file.read_at(&mut bytes, 0).expect("it is open");
        files.insert(path, bytes);
    }
    files
}

/// True if the base among these files is at rest.
pub fn is_at_rest(files: &Files) -> bool {
    files.get(BASE).is_some_and(|base| base.get(19) == Some(&1))
}

/// True if the base is marked: its store is being worked on.
pub fn is_marked(files: &Files) -> bool {
    files.get(BASE).is_some_and(|base| base.get(19) == Some(&0x54))
}

/// A disk with these files.
pub fn load(files: &Files) -> Arc<SimDisk> {
    let disk = SimDisk::new();
    let process = disk.process();
    if files.keys().any(|path| path.starts_with(SIDE)) {
        process.create_dir(SIDE.as_ref()).expect("nothing is there");
    }
    for (path, bytes) in files {
        let file = process.open(path.as_ref(), How::Create).expect("its folder is there");
        file.write_at(bytes, 0).and_then(|()| file.sync()).expect("the disk is sound");
    }
    for folder in ["/", SIDE] {
        // Names are on the disk as well; the second may not be there.
        drop(process.sync_dir(folder.as_ref()));
    }
    disk
}

/// Length of all files together, in bytes.
pub fn total(files: &Files) -> usize {
    files.values().map(Vec::len).sum()
}
