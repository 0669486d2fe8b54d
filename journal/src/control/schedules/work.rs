//! What the processes do.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use shuttle::rand::{Rng, thread_rng};

use super::Trouble;
use super::ledger::{Ledger, PAGES, Pages};
use super::turns::{Machine, Turns, TurnsDisk};
use crate::clock::Clock;
use crate::disk::{Disk, FaultKind};
use crate::error::{Code, Error, Result};
use crate::session::{Durability, Session};
use crate::store::{Options, Store};

const PAGE: usize = 512;
const WORKERS: usize = 3;
/// Attempts of a writer to have its turn.
const TRIES: u32 = 6;

struct Stopped;

impl Clock for Stopped {
    fn now_ms(&self) -> u64 {
        1_700_000_000_000
    }
}

fn open(turns: &Arc<Turns>) -> Result<Arc<Store>> {
    let disk: Arc<dyn Disk> = Arc::new(TurnsDisk(Arc::clone(turns)));
    let options = Options {
        segment_bytes: 8 << 10,
        fold_step: 2,
        background: false,
        clock: Arc::new(Stopped),
        ..Options::default()
    };
    let store = Store::open(disk, Path::new("/app.db"), options)?;
    turns.machine.watch.lock().joined(turns.id, &store.control);
    Ok(store)
}

/// One connection of a process.
struct Worker {
    turns: Arc<Turns>,
    ledger: Arc<Mutex<Ledger>>,
    session: Session,
    /// Its turn was kept while it slept.
    kept: bool,
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The snapshot goes with the session, whatever came between.
        self.turns.machine.watch.lock().pinned(self.turns.id, None);
    }
}

/// Takes part in one schedule.
pub(super) fn play(trouble: Trouble) {
    let machine = Machine::new(trouble);
    let ledger: Arc<Mutex<Ledger>> = Arc::default();
    let keeper = Turns::new(&machine, 0, u64::MAX);
    let store = open(&keeper).expect("a new store");
    let mut first = Worker::new(&keeper, &ledger, &store).expect("a connection");
    first.commit(Durability::Disk, true).expect("the first commit");
    machine.watch.lock().begin();
    let mut random = thread_rng();
    let begun = machine.steps();
    match trouble {
        Trouble::Power => {
            machine.cut.store(begun + random.gen_range(0..1500), std::sync::atomic::Ordering::Relaxed)
        }
        Trouble::Fault => {
            machine.watch.lock().faulty = true;
            let kind = if random.gen_bool(0.7) { FaultKind::Sync } else { FaultKind::Io };
            machine.disk.fail(machine.disk.steps() + random.gen_range(0..60), kind);
        }
        Trouble::None | Trouble::Kills | Trouble::Deafness | Trouble::Slander => {}
    }
    let workers: Vec<_> = (1..=WORKERS)
        .map(|id| {
            let mortal = matches!(trouble, Trouble::Kills | Trouble::Power) && random.gen_bool(0.6);
            let dies = if mortal { random.gen_range(0..700) } else { u64::MAX };
            let turns = Turns::new(&machine, id, dies);
            let ledger = Arc::clone(&ledger);
            shuttle::thread::spawn(move || {
                let worked = work(&turns, &ledger);
                if let Err(error) = worked {
                    assert!(turns.is_gone() || trouble == Trouble::Fault, "process {id}: {error}");
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().expect("a worker that doesn't panic");
    }
    let last = first.finish();
    machine.watch.lock().end();
    drop(first);
    if let Err(error) = last.and_then(|()| store.close()) {
        assert!(matches!(trouble, Trouble::Power | Trouble::Fault), "the keeper: {error}");
    }
    drop(store);
    settle(&machine, &ledger, random.r#gen());
}

/// What is there in the end.
fn settle(machine: &Arc<Machine>, ledger: &Arc<Mutex<Ledger>>, seed: u64) {
    let after = match machine.trouble {
        // After a failed fsync the disk hasn't what the page cache has.
        Trouble::Power | Trouble::Fault => machine.disk.reboot(seed),
        _ => Arc::clone(&machine.disk),
    };
    let disk: Arc<dyn Disk> = after.process();
    let options = Options { segment_bytes: 8 << 10, background: false, ..Options::default() };
    let store = Store::open(disk, Path::new("/app.db"), options).expect("the store opened again");
    let mut session = Session::new(Arc::clone(&store)).expect("a connection");
    session.begin_read().expect("a snapshot");
    let lsn = session.state().expect("a snapshot").lsn;
    ledger.lock().found(lsn);
    ledger.lock().read(lsn, pages(&session).expect("pages"), true);
    session.end_read().expect("the end of a read");
    let findings = store.verify().expect("it can be verified");
    assert!(findings.is_empty(), "{findings:?}");
    drop(session);
    store.close().expect("a store at rest");
}

fn pages(session: &Session) -> Result<Pages> {
    let mut pages = Pages::default();
    let mut image = [0; PAGE];
    for (at, page) in pages.iter_mut().enumerate() {
        assert_eq!(session.read((at + 1) as u64 * PAGE as u64, &mut image)?, PAGE);
        *page = u64::from_le_bytes(image[..8].try_into().expect("8 bytes"));
        assert!(image.chunks(8).all(|chunk| chunk == &image[..8]), "page {} isn't one image", at + 2);
    }
    Ok(pages)
}

fn work(turns: &Arc<Turns>, ledger: &Arc<Mutex<Ledger>>) -> Result<()> {
    let store = open(turns)?;
    let mut worker = Worker::new(turns, ledger, &store)?;
    for _ in 0..thread_rng().gen_range(2..5) {
        match thread_rng().gen_range(0..12) {
            0..5 => worker.commit(Durability::Disk, true)?,
            5..7 => worker.commit(Durability::Process, true)?,
            7 => worker.commit(Durability::Disk, false)?,
            8 => match store.fold() {
                Err(e) if e.code() != Code::Busy => return Err(e),
                _ => {}
            },
            _ => worker.read()?,
        }
    }
    drop(worker);
    store.close()
}

impl Worker {
    fn new(turns: &Arc<Turns>, ledger: &Arc<Mutex<Ledger>>, store: &Arc<Store>) -> Result<Worker> {
        let session = Session::new(Arc::clone(store))?;
        Ok(Worker { turns: Arc::clone(turns), ledger: Arc::clone(ledger), session, kept: false })
    }

    fn begin_read(&mut self, writer: bool) -> Result<()> {
        let least = self.ledger.lock().least();
        self.session.begin_read_as(writer)?;
        let lsn = self.session.state().expect("a snapshot").lsn;
        if !self.turns.is_gone() {
            self.turns.machine.watch.lock().pinned(self.turns.id, Some(lsn));
            assert!(lsn >= least, "LSN {lsn} is read, {least} was known");
        }
        Ok(())
    }

    fn end_read(&mut self) -> Result<()> {
        self.turns.machine.watch.lock().pinned(self.turns.id, None);
        self.session.end_read()
    }

    /// What the snapshot holds, as the ledger has it.
    fn look(&self, writer: bool) -> Result<Pages> {
        let lsn = self.session.state().expect("a snapshot").lsn;
        let pages = pages(&self.session)?;
        if !self.turns.is_gone() {
            self.ledger.lock().read(lsn, pages, writer);
        }
        Ok(pages)
    }

    fn read(&mut self) -> Result<()> {
        self.begin_read(false)?;
        for _ in 0..thread_rng().gen_range(1..4) {
            self.look(false)?;
        }
        self.end_read()
    }

    /// Becomes the writer, as SQLite does through the VFS; false if others always were before.
    fn begin_write(&mut self) -> Result<bool> {
        for _ in 0..TRIES {
            self.begin_read(self.kept)?;
            let begun = if std::mem::take(&mut self.kept) {
                self.session.begin_write_in_turn()
            } else {
                self.session.begin_write()
            };
            match begun {
                Ok(()) => return Ok(true),
                Err(e) if matches!(e.code(), Code::Busy | Code::Stale) => {}
                Err(e) => return Err(e),
            }
            self.end_read()?;
            if thread_rng().gen_bool(0.8) {
                self.kept = self.session.store().wait_for_turn(Duration::from_millis(20))?;
            }
        }
        if std::mem::take(&mut self.kept) {
            self.session.store().give_turn_up();
        }
        Ok(false)
    }

    /// A transaction, which is committed or rolled back.
    fn commit(&mut self, durability: Durability, commits: bool) -> Result<()> {
        if !self.begin_write()? {
            return Ok(());
        }
        let state = *self.session.state().expect("a snapshot");
        let mut pages = if state.size == 0 { Pages::default() } else { self.look(true)? };
        let name = self.ledger.lock().name();
        pages[0] = name;
        let other = thread_rng().gen_range(1..PAGES);
        pages[other] = name;
        let mut header = [0; PAGE];
        header[..24].copy_from_slice(b"SQLite format 3\0\x02\x00\x01\x01\x00\x40\x20\x20");
        header[28..32].copy_from_slice(&(PAGES as u32 + 1).to_be_bytes());
        self.session.write(0, &header)?;
        for (at, page) in pages.iter().enumerate() {
            if at == 0 || at == other || state.size == 0 {
                let image: Vec<u8> = page.to_le_bytes().iter().copied().cycle().take(PAGE).collect();
                self.session.write((at + 1) as u64 * PAGE as u64, &image)?;
            }
        }
        self.session.truncate((PAGES as u64 + 1) * PAGE as u64)?;
        self.session.prepare(None)?;
        if !commits {
            self.session.rollback()?;
            return self.end_read();
        }
        self.ledger.lock().ask(name, state.lsn.next(), pages);
        let lsn = self.session.publish(durability, false)?;
        if !self.turns.is_gone() {
            self.ledger.lock().acknowledge(name, lsn, durability == Durability::Disk);
        }
        self.end_read()
    }

    /// Goes on alone when the others have gone: everything of theirs is decided.
    fn finish(&mut self) -> Result<()> {
        self.read()?;
        self.commit(Durability::Disk, true)?;
        self.read()?;
        let store = self.session.store();
        let (appended, visible) = (store.control.appended(), store.control.visible());
        if appended != visible || store.durable() != appended {
            return Err(Error::new(Code::Io, format!("{visible} is visible of {appended}")));
        }
        Ok(())
    }
}
