//! A disk on which another process may go on at every call.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use shuttle::rand::Rng;
use shuttle::thread::Thread;

use super::super::{LOCK_OPEN, LOCK_SLOTS};
use super::Trouble;
use super::watch::Watch;
use crate::disk::{Disk, File, How, Identity, LockKind, SimDisk, SimProcess, Words};

/// What the processes of a machine share besides its disk.
pub(super) struct Machine {
    pub disk: Arc<SimDisk>,
    pub trouble: Trouble,
    pub watch: Mutex<Watch>,
    /// Time in microseconds. Only waiting takes any.
    clock: AtomicU64,
    sleepers: Mutex<Vec<Sleeper>>,
    steps: AtomicU64,
    /// The step before which the power goes.
    pub cut: AtomicU64,
    pub off: AtomicBool,
}

struct Sleeper {
    word: usize,
    thread: Thread,
    woken: Arc<AtomicBool>,
}

/// How much time passes while a process lets others run.
const MOMENT: u64 = 20;

impl Machine {
    pub fn new(trouble: Trouble) -> Arc<Machine> {
        Arc::new(Machine {
            disk: SimDisk::new(),
            trouble,
            watch: Mutex::new(Watch::default()),
            clock: AtomicU64::new(1),
            sleepers: Mutex::default(),
            steps: AtomicU64::new(0),
            cut: AtomicU64::new(u64::MAX),
            off: AtomicBool::new(false),
        })
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    fn pass(&self, time: u64) {
        self.clock.fetch_add(time, Ordering::Relaxed);
    }

    /// Whether the sleepers of a machine may wake before somebody wakes them.
    fn hurries(&self) -> bool {
        !matches!(self.trouble, Trouble::None | Trouble::Deafness)
    }
}

/// What one process does, a step at a time.
pub(super) struct Turns {
    pub machine: Arc<Machine>,
    /// Number of the process, for the watch.
    pub id: usize,
    pub process: Arc<SimProcess>,
    pub dead: AtomicBool,
    taken: AtomicU64,
    /// The step before which it is killed.
    dies: AtomicU64,
}

impl Turns {
    /// A process, which is killed before the step `dies` of its own.
    pub fn new(machine: &Arc<Machine>, id: usize, dies: u64) -> Arc<Turns> {
        Arc::new(Turns {
            machine: Arc::clone(machine),
            id,
            process: machine.disk.process(),
            dead: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            dies: AtomicU64::new(dies),
        })
    }

    /// True once the process can't do anything any more.
    pub fn is_gone(&self) -> bool {
        self.dead.load(Ordering::Relaxed) || self.machine.off.load(Ordering::Relaxed)
    }

    /// Between two steps: others go on. What this process did in the one before is looked at first.
    fn point(&self) {
        self.point_as(shuttle::thread::sleep);
    }

    fn point_as(&self, others: fn(Duration)) {
        if self.is_gone() {
            return;
        }
        self.machine.watch.lock().look(self.id);
        others(Duration::ZERO);
        if self.is_gone() {
            return;
        }
        if self.machine.steps.fetch_add(1, Ordering::Relaxed) >= self.machine.cut.load(Ordering::Relaxed) {
            self.machine.off.store(true, Ordering::Relaxed);
            self.machine.disk.cut();
        }
        if self.taken.fetch_add(1, Ordering::Relaxed) >= self.dies.load(Ordering::Relaxed) {
            self.dead.store(true, Ordering::Relaxed);
            self.process.kill();
            self.machine.watch.lock().died(self.id);
        }
    }

    /// The same, for one who has nothing to do but wait.
    fn yield_now(&self) {
        self.point_as(|_| shuttle::thread::yield_now());
    }
}

/// A process as a disk.
pub(super) struct TurnsDisk(pub Arc<Turns>);

impl TurnsDisk {
    fn disk(&self) -> &SimProcess {
        self.0.point();
        &self.0.process
    }

    fn file(&self, file: io::Result<Arc<dyn File>>) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(TurnsFile { turns: Arc::clone(&self.0), file: file? }))
    }
}

impl Disk for TurnsDisk {
    fn open(&self, path: &Path, how: How) -> io::Result<Arc<dyn File>> {
        self.file(self.disk().open(path, how))
    }

    fn open_kept(&self, path: &Path, how: How) -> io::Result<Arc<dyn File>> {
        self.file(self.disk().open_kept(path, how))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk().list(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk().exists(path)
    }

    fn identity(&self, path: &Path) -> io::Result<Option<(u64, u64)>> {
        self.disk().identity(path)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk().create_dir(dir)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk().remove_dir(dir)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk().remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk().rename(from, to)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk().sync_dir(dir)
    }

    fn words(&self, path: &Path, count: usize) -> io::Result<Arc<dyn Words>> {
        let words = self.disk().words(path, count)?;
        self.0.machine.watch.lock().see(&words);
        Ok(Arc::new(TurnsWords { turns: Arc::clone(&self.0), words }))
    }

    fn copy_owner(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk().copy_owner(from, to)
    }
}

struct TurnsFile {
    turns: Arc<Turns>,
    file: Arc<dyn File>,
}

impl TurnsFile {
    fn file(&self) -> &dyn File {
        self.turns.point();
        &*self.file
    }
}

impl File for TurnsFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file().read_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file().write_at(buf, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file().allocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file().set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.file().sync()
    }

    fn slice(&self, offset: u64, len: usize) -> Option<&[u8]> {
        self.file.slice(offset, len)
    }

    fn identity(&self) -> io::Result<Identity> {
        self.file.identity()
    }

    fn lock(&self, offset: u64, len: u64, kind: LockKind) -> io::Result<bool> {
        self.file().lock(offset, len, kind)
    }

    fn unlock(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file().unlock(offset, len)
    }

    fn locked_by_other(&self, offset: u64, len: u64) -> io::Result<bool> {
        let locked = self.file().locked_by_other(offset, len)?;
        // Only of a single process.
        let slot = len == 1 && (LOCK_SLOTS..LOCK_OPEN).contains(&offset);
        let lie = slot && self.turns.machine.trouble == Trouble::Slander;
        Ok(locked && !lie)
    }
}

struct TurnsWords {
    turns: Arc<Turns>,
    words: Arc<dyn Words>,
}

impl Words for TurnsWords {
    fn words(&self) -> &[AtomicU64] {
        self.turns.point();
        self.words.words()
    }

    fn wait(&self, index: usize, expected: u64, timeout: Duration) {
        self.turns.point();
        let machine = &self.turns.machine;
        if self.turns.is_gone() {
            // So that the dead come to an end.
            machine.pass(timeout.as_micros() as u64);
            return;
        }
        if self.words.words()[index].load(Ordering::SeqCst) as u32 != expected as u32 {
            return;
        }
        let woken = Arc::new(AtomicBool::new(false));
        let thread = shuttle::thread::current();
        machine.sleepers.lock().push(Sleeper { word: index, thread, woken: Arc::clone(&woken) });
        while !woken.load(Ordering::SeqCst) {
            if !machine.hurries() {
                shuttle::thread::park();
                continue;
            }
            if self.turns.is_gone() || shuttle::rand::thread_rng().gen_range(0..8) == 0 {
                machine.sleepers.lock().retain(|sleeper| !Arc::ptr_eq(&sleeper.woken, &woken));
                machine.pass(timeout.as_micros() as u64);
                return;
            }
            self.turns.yield_now();
        }
    }

    fn wake(&self, index: usize, count: u32) {
        self.turns.point();
        if self.turns.is_gone() || self.turns.machine.trouble == Trouble::Deafness {
            return;
        }
        let mut sleepers = self.turns.machine.sleepers.lock();
        let (mut woken, mut left) = (Vec::new(), Vec::new());
        for sleeper in sleepers.drain(..) {
            let chosen = sleeper.word == index && woken.len() < count as usize;
            if chosen { woken.push(sleeper) } else { left.push(sleeper) }
        }
        *sleepers = left;
        // Others may go on while one is woken.
        drop(sleepers);
        for sleeper in woken {
            sleeper.woken.store(true, Ordering::SeqCst);
            sleeper.thread.unpark();
        }
    }

    fn now(&self) -> Duration {
        Duration::from_micros(self.turns.machine.clock.load(Ordering::Relaxed))
    }

    fn pause(&self, time: Duration) {
        self.turns.machine.pass(MOMENT.max(time.as_micros() as u64));
        self.turns.yield_now();
    }
}
