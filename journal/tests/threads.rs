//! Threads of two processes on one database: they write, roll back, read, look again, fold, compact, check and ship at
//! once, and what a snapshot holds follows from its LSN. Miri and the thread sanitizer look at it, too
//! (`cargo xtask sanitize`), and find what only happened to go well. `TIDELINE_COMMITS=N` lets them go on until LSN N.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use common::{Model, PAGE, PATH, Rng, image, options, read_at, setting};
use tideline_journal::disk::{Disk, RealDisk, SimDisk};
use tideline_journal::{Code, Durability, Lsn, Options, Result, Retention, Session, Store};

/// Pages of the database.
const PAGES: u32 = 8;

/// LSN at which they stop. Miri takes its time.
fn end() -> Lsn {
    Lsn::new(setting("TIDELINE_COMMITS", if cfg!(miri) { 6 } else { 600 }))
}

/// The commit that wrote a page last, as it is at `lsn`: each writes pages 1 and 2 and one of the others in turn, the
/// first one all.
fn written_by(page: u32, lsn: u64) -> u64 {
    let turn = |commit: u64| page < 3 || commit % u64::from(PAGES - 2) == u64::from(page - 3);
    (2..=lsn).rev().find(|&commit| turn(commit)).unwrap_or(1)
}

fn expected(lsn: Lsn) -> Model {
    if lsn == Lsn::ZERO {
        return Model::default();
    }
    let fills: BTreeMap<u32, u64> = (1..=PAGES).map(|page| (page, written_by(page, lsn.get()))).collect();
    Model { size: PAGES, fills }
}

/// A thread, and what it draws from.
struct Client {
    session: Session,
    rng: Rng,
}

impl Client {
    fn new(store: &Arc<Store>, seed: u64) -> Client {
        Client { session: Session::new(Arc::clone(store)).unwrap(), rng: Rng(seed) }
    }

    /// Commits, or rolls back, on what is newest.
    fn transaction(&mut self) -> Result<()> {
        let as_writer = self.rng.below(2) == 0;
        self.session.begin_read_as(as_writer)?;
        self.session.begin_write()?;
        let state = *self.session.state().unwrap();
        let lsn = state.lsn.next().get();
        for page in (1..=PAGES).filter(|&page| written_by(page, lsn) == lsn) {
            let bytes = image(page, lsn, PAGES, state.counters.counter + 1);
            self.session.write(u64::from(page - 1) * PAGE as u64, &bytes)?;
        }
        self.session.truncate(u64::from(PAGES) * PAGE as u64)?;
        self.session.prepare(None)?;
        match self.rng.below(5) {
            0 => self.session.rollback()?,
            1 => assert_eq!(self.session.publish(Durability::Disk, false)?.get(), lsn),
            _ => assert_eq!(self.session.publish(Durability::Process, false)?.get(), lsn),
        }
        Ok(())
    }

    fn write(&mut self) {
        let done = self.transaction();
        // Another one was faster.
        let beaten = |error: &tideline_journal::Error| matches!(error.code(), Code::Busy | Code::Stale);
        assert!(done.as_ref().err().is_none_or(beaten), "{done:?}");
        self.session.end_read().unwrap();
    }

    /// Reads all pages of a snapshot twice, while others go on.
    fn read(&mut self) {
        self.session.read_by_calls(self.rng.below(2) == 0);
        self.session.begin_read().unwrap();
        let lsn = self.session.state().unwrap().lsn;
        for _ in 0..2 {
            assert_eq!(read_at(&self.session).unwrap(), expected(lsn), "at {lsn}");
            std::thread::yield_now();
        }
        if lsn > Lsn::ZERO {
            let page = 2 + self.rng.below(u64::from(PAGES) - 1) as u32;
            let wanted = image(page, written_by(page, lsn.get()), PAGES, 0);
            let found = self.session.slice(u64::from(page - 1) * PAGE as u64, PAGE).unwrap();
            assert!(found.is_none_or(|found| found == wanted), "page {page} at {lsn}");
        }
        self.session.end_read().unwrap();
    }

    /// Does one of the things that the store's keeper does now and then.
    fn keep(&mut self, replica: Option<&Arc<Store>>) {
        let store = Arc::clone(self.session.store());
        let done = match self.rng.below(7) {
            0 => store.fold().map(drop),
            1 => store.compact(None).map(drop),
            2 => store.set_retention(Retention::Lsns(1 + self.rng.below(20))),
            3 => store.set_retention(Retention::Default),
            4 => store.verify().map(|findings| assert!(findings.is_empty(), "{findings:?}")),
            5 => store.learn_checksum().map(drop),
            _ => replica.map_or_else(|| store.log().map(drop), |replica| ship(&store, replica)),
        };
        // The other process does the same.
        assert!(done.as_ref().err().is_none_or(|error| error.code() == Code::Busy), "{done:?}");
    }
}

/// Stops the others when its thread panics.
struct Alarm<'a>(&'a AtomicBool);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        self.0.fetch_or(std::thread::panicking(), Ordering::Relaxed);
    }
}

/// Brings a replica up to date.
fn ship(store: &Arc<Store>, replica: &Arc<Store>) -> Result<()> {
    let blob = match store.prepare(replica.head(), None) {
        // What it would begin with is gone, or merged into one with what the replica has.
        Err(error) if matches!(error.code(), Code::Trimmed | Code::Argument) => {
            store.prepare(Lsn::ZERO, None)?
        }
        other => other?,
    };
    let Some(blob) = blob else { return Ok(()) };
    let lsn = replica.receive(&blob)?;
    assert_eq!(common::read(replica)?, (lsn, expected(lsn)));
    Ok(())
}

/// Lets them all work on the database at `path`, as it is opened on each of these disks.
fn work(disks: [Arc<dyn Disk>; 2], path: &Path, options: &Options) {
    let stores = disks.map(|disk| Store::open(disk, path, options.clone()).unwrap());
    // Miri has no zstd.
    let replica = (!cfg!(miri)).then(|| common::open(&SimDisk::new().process()).unwrap());
    let (reads, failed, end) = (AtomicU32::new(0), AtomicBool::new(false), end());
    let goes_on = |client: &Client| client.session.store().head() < end && !failed.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        let (replica, reads, failed, goes_on) = (replica.as_ref(), &reads, &failed, &goes_on);
        for (n, store) in (0..).zip(&stores) {
            for seed in 0..2 {
                let mut client = Client::new(store, 10 * n + seed);
                scope.spawn(move || {
                    let _alarm = Alarm(failed);
                    while goes_on(&client) {
                        client.write();
                    }
                });
            }
            let mut client = Client::new(store, 10 * n + 2);
            scope.spawn(move || {
                let _alarm = Alarm(failed);
                while goes_on(&client) {
                    client.read();
                    reads.fetch_add(1, Ordering::Relaxed);
                }
                client.read();
            });
        }
        let mut client = Client::new(&stores[0], 30);
        scope.spawn(move || {
            let _alarm = Alarm(failed);
            while goes_on(&client) {
                client.keep(replica);
            }
        });
    });
    for store in &stores {
        assert!(store.verify().unwrap().is_empty());
        let (lsn, model) = common::read(store).unwrap();
        assert!(lsn >= end && model == expected(lsn), "{lsn}");
        store.close().unwrap();
    }
    println!("{} reads", reads.into_inner());
}

#[test]
fn threads_of_two_processes_share_a_database_in_memory() {
    let disk = SimDisk::new();
    work([disk.process(), disk.process()], Path::new(PATH), &options());
}

#[test]
#[cfg_attr(miri, ignore = "miri maps no files and has no locks of open files")]
fn threads_of_two_processes_share_a_database_on_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { background: true, ..options() };
    work([Arc::new(RealDisk::new()), Arc::new(RealDisk::new())], &folder.path().join("app.db"), &options);
}
