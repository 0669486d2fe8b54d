//! Bit rot: one byte changes in a file of a store that nobody has open. Whatever it is, a wrong page is never taken for a
//! right one: the store is refused, or the page is when it is touched, or `verify` finds it, or the byte means nothing.
//!
//! `TIDELINE_FLIPS=N` tries N bytes instead of a few, and `TIDELINE_SEED=N` others; what was tried is printed.
//!
//! What no checksum can tell, and what is said of it here:
//! - The newest entries of a killed process may never have reached the disk. One of them that isn't whole is the journal's
//!   end, and with it those behind go, as far as nothing says that they were on the disk (`shortened`).
//! - Stock SQLite may change a base at rest, which is told by its counters and its length. A counter that isn't what it
//!   was is such a change: pages are what they were, and history goes (`external`). So it is where the newer slot of the
//!   superblock, which knows the counters, is lost.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use common::files::{Files, SIDE, disk_with, save};
use common::{Change, Model, PATH, Rng, commit, image, open, setting};
use tideline_journal::disk::{Disk, How, SimDisk, SimProcess};
use tideline_journal::{Code, Durability, Lsn, Result, Retention, Session, Store};

/// A database's pages, without the bytes of page 1 that are served.
type Pages = Vec<Vec<u8>>;

/// All pages at the head.
fn pages(store: &Arc<Store>) -> Result<(Lsn, Pages)> {
    let mut session = Session::new(Arc::clone(store))?;
    session.begin_read()?;
    let state = *session.state().unwrap();
    let mut pages = Pages::new();
    for page in 0..u64::from(state.size) {
        let mut image = vec![0; state.page_size as usize];
        session.read(page * u64::from(state.page_size), &mut image)?;
        pages.push(image);
    }
    if let Some(first) = pages.first_mut() {
        for served in [18..20, 24..28, 40..44, 92..100] {
            first[served].fill(0);
        }
    }
    session.end_read()?;
    Ok((state.lsn, pages))
}

/// A store at one moment.
struct Moment {
    name: &'static str,
    files: Files,
    head: Lsn,
    /// Known to be on the disk, whatever is lost of the rest.
    durable: Lsn,
    /// How many entries the log has.
    entries: usize,
}

/// A store that is lived with, and what it had at each LSN.
struct Life {
    disk: Arc<SimDisk>,
    process: Arc<SimProcess>,
    store: Arc<Store>,
    session: Option<Session>,
    rng: Rng,
    model: Model,
    at: BTreeMap<Lsn, Pages>,
    moments: Vec<Moment>,
}

impl Life {
    /// Adopts a plain database.
    fn begin(seed: u64) -> Life {
        let (disk, mut model) = (SimDisk::new(), Model::default());
        model.apply(&Change { fills: (1..=9).map(|page| (page, u64::from(page) << 20)).collect(), size: 9 });
        let plain: Vec<u8> = model.fills.iter().flat_map(|(&page, &fill)| image(page, fill, 9, 3)).collect();
        disk.process().open(PATH.as_ref(), How::Create).unwrap().write_at(&plain, 0).unwrap();
        let process = disk.process();
        let store = open(&process).unwrap();
        let (at, moments) = (BTreeMap::new(), Vec::new());
        let mut life = Life { disk, process, store, session: None, rng: Rng(seed), model, at, moments };
        // It gets hashes by this.
        assert!(life.store.verify().unwrap().is_empty());
        life.note();
        life
    }

    fn note(&mut self) {
        let (lsn, pages) = pages(&self.store).unwrap();
        self.at.insert(lsn, pages);
    }

    fn commits(&mut self, count: usize) {
        for _ in 0..count {
            let store = Arc::clone(&self.store);
            let session = self.session.get_or_insert_with(|| Session::new(store).unwrap());
            let change = self.model.change(&mut self.rng);
            let durability = if self.rng.below(3) == 0 { Durability::Disk } else { Durability::Process };
            commit(session, &mut self.model, &change, durability).unwrap();
            self.note();
        }
    }

    /// Notes the files as they are when everybody has closed the store, or was killed; and opens it again.
    fn moment(&mut self, name: &'static str, closed: bool) {
        let head = self.store.head();
        if closed {
            self.session = None;
            self.store.close().unwrap();
        } else {
            self.process.kill();
            self.session = None;
        }
        let files = save(&self.disk.process());
        let durable = if closed { head } else { durable(&files) };
        self.process = self.disk.process();
        self.store = open(&self.process).unwrap();
        let entries = self.store.log().unwrap().len();
        self.moments.push(Moment { name, files, head, durable, entries });
    }
}

/// The newest LSN that a superblock says to be on the disk. (The entries say more, as long as they are whole.)
fn durable(files: &Files) -> Lsn {
    let store = &files[&format!("{SIDE}/store")];
    let number = |at: usize| u64::from_le_bytes(store[at..at + 8].try_into().unwrap());
    // The slot with the smaller sequence number is what is left without the other; 0 was never written.
    let slots = [0, 4096].map(|at| (number(at + 16), number(at + 296)));
    Lsn::new(slots.iter().filter(|slot| slot.0 > 0).map(|slot| slot.1).min().unwrap())
}

fn life(seed: u64) -> Life {
    let mut life = Life::begin(seed);
    life.moment("adopted", true);
    life.commits(6);
    life.store.change_remotes(|_| Ok((vec![7; 300], Vec::new(), ()))).unwrap();
    life.moment("left behind", false);
    life.commits(5);
    life.store.fold().unwrap();
    life.commits(2);
    life.moment("left behind a fold", false);
    life.commits(2);
    life.moment("at rest, with history", true);
    life.commits(4);
    life.store.compact(None).unwrap();
    life.commits(3);
    life.moment("left behind a compaction", false);
    life.commits(1);
    life.moment("at rest, compacted", true);
    life.store.set_retention(Retention::Lsns(4)).unwrap();
    life.commits(12);
    life.moment("left behind, with little history", false);
    life.store.set_retention(Retention::None).unwrap();
    life.commits(3);
    life.moment("at rest, without history", true);
    life
}

/// How often each thing came of a byte that changed.
#[derive(Default)]
struct Tally(BTreeMap<&'static str, u64>);

impl Tally {
    fn add(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }
}

/// What comes of a byte that changed.
fn trial(life: &Life, moment: &Moment, files: &Files, path: &str, what: &str) -> &'static str {
    let disk = disk_with(files);
    let process = disk.process();
    let store = match open(&process) {
        Ok(store) => store,
        Err(e) => {
            let busy = e.code() == Code::Busy && path == PATH;
            let clear = matches!(
                e.code(),
                Code::Damaged
                    | Code::Missing
                    | Code::Foreign
                    | Code::Diverged
                    | Code::Format
                    | Code::NotADatabase
                    // Byte 18 of the base says which formats may write it.
                    | Code::Denied
            );
            assert!(clear || busy, "{what}: {e}");
            return "refused";
        }
    };
    let read = pages(&store);
    let findings = store.verify().unwrap_or_else(|e| {
        assert_eq!(e.code(), Code::Damaged, "{what}: {e}");
        Vec::new()
    });
    let told = !findings.is_empty() || store.verify().is_err();
    let (lsn, now) = match read {
        Ok(read) => read,
        Err(e) => {
            assert_eq!(e.code(), Code::Damaged, "{what}: {e}");
            assert!(told, "{what}: {e}, and verify finds nothing");
            return touched(life, moment, &store, what);
        }
    };
    let log = store.log();
    let external = lsn == moment.head.next()
        && log.as_ref().is_ok_and(|log| log.last().is_some_and(|row| row.origin == "external"));
    if external {
        assert!(path == PATH || path.ends_with("/store"), "{what}: an external LSN");
        assert!(now == life.at[&moment.head], "{what}: a wrong page was taken over");
        return "external";
    }
    assert!(lsn <= moment.head && lsn >= moment.durable, "{what}: LSN {lsn} of {}", moment.head);
    if now != life.at[&lsn] {
        panic!("{what}: a wrong page is served, and verify finds {findings:?}");
    }
    if path.ends_with("/remotes") {
        assert!(told, "{what}: nobody is told");
    }
    if lsn < moment.head {
        assert!(path.ends_with(".seg") || path.ends_with("/store"), "{what}: commits are gone");
        return "shortened";
    }
    if told {
        return "verified";
    }
    assert_eq!(log.unwrap().len(), moment.entries, "{what}: history is gone");
    "harmless"
}

/// A page was refused. If it was mended, all is as it was; else it is an error for good.
fn touched(life: &Life, moment: &Moment, store: &Arc<Store>, what: &str) -> &'static str {
    match pages(store) {
        Ok((lsn, now)) => {
            assert!(now == life.at[&lsn] && lsn == moment.head, "{what}: mended wrongly");
            assert!(store.verify().unwrap().is_empty(), "{what}: mended, but not sound");
            "mended"
        }
        Err(_) => "touched",
    }
}

#[test]
fn a_byte_that_changes_is_found_or_means_nothing() {
    let (seed, flips) = (setting("TIDELINE_SEED", 0), setting("TIDELINE_FLIPS", 3000));
    let life = life(Rng(seed).next());
    let mut rng = Rng(!seed);
    let (mut tally, mut harmless) = (Tally::default(), BTreeMap::<String, u64>::new());
    for _ in 0..flips {
        let moment = &life.moments[rng.below(life.moments.len() as u64) as usize];
        let path = moment.files.keys().nth(rng.below(moment.files.len() as u64) as usize).unwrap();
        let mut files = moment.files.clone();
        let bytes = files.get_mut(path).unwrap();
        if bytes.is_empty() {
            continue;
        }
        let at = rng.below(bytes.len() as u64) as usize;
        let mask = if rng.below(2) == 0 { 1 << rng.below(8) } else { 1 + rng.below(255) as u8 };
        bytes[at] ^= mask;
        let what = format!("seed {seed}, {}, byte {at} of {path} ^ {mask:#04x}", moment.name);
        let became = trial(&life, moment, &files, path, &what);
        tally.add("flips");
        tally.add(became);
        if became == "harmless" {
            let kind = Path::new(path).extension().or(Path::new(path).file_name()).unwrap();
            *harmless.entry(kind.to_string_lossy().into_owned()).or_default() += 1;
        }
    }
    println!("harmless in {harmless:?}");
    let tried: Vec<String> = tally.0.iter().map(|(what, count)| format!("{what}={count}")).collect();
    println!("tried: {}", tried.join(" "));
    for class in ["refused", "touched", "mended", "verified", "harmless"] {
        assert!(tally.0.contains_key(class), "none was {class}");
    }
}
