//! A disk in memory that loses its power.
//!
//! ```text
//!   SimDisk ──process()──► SimProcess: Disk ──open──► files, with locks of their own
//!      │  steps(), cut_at(step), fail(step, kind)         kill(): locks go, the page cache stays
//!      └──reboot(seed)──► SimDisk: what the medium held, chosen by the seed
//! ```
//!
//! Every call that changes something, or makes it durable, is one step: `write_at`, `set_len`,
//! `allocate`, `sync`, `sync_dir`, `create_dir`, `remove_dir`, `remove`, `rename`, an `open` that
//! creates, and `words` where it lengthens the file. Steps are counted from 0. With one thread,
//! equal calls and seeds give equal disks.
//!
//! What a power loss leaves (`survival.rs` has the rules that a seed chooses from):
//!
//! - of each sector of 512 bytes, what it held at the last sync of its file, or after any write
//!   since then;
//! - of the lengths, one that the file had since then; bytes that are inside of it but were never
//!   written on the medium are zeros;
//! - of the names, each creation, renaming and removal since the last `sync_dir` or not;
//! - of mapped words, random numbers.

mod content;
mod file;
mod locks;
mod names;
mod random;
mod survival;
#[cfg(test)]
mod tests;
mod words;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use self::content::Content;
use self::file::SimFile;
use self::locks::Locks;
use self::names::{Entry, Names, Node, Tree};
use self::random::Random;
use self::survival::{Loss, Survival};
use self::words::{SharedWords, SimWords};
use super::{Disk, File, How, Words};

/// What goes wrong at one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// EIO. Of a write, some of the first sectors may have been written. A sync fails like
    /// [`FaultKind::Sync`].
    Io,
    /// ENOSPC, with the same effect.
    NoSpace,
    /// EIO from a sync; the disk then holds some of what should have been synced, and none of it
    /// counts as dirty any more, so that another sync succeeds without having done anything. At
    /// another step, like [`FaultKind::Io`].
    Sync,
    /// Like [`FaultKind::Sync`], and the page cache forgets what it couldn't write: reads show
    /// what is on the disk.
    SyncForgets,
    /// The process that takes the step is killed in it. Of a write, some of the first bytes may
    /// have been written.
    Kill,
}

/// A disk, with the machine around it. It begins with an empty folder `/`.
pub struct SimDisk {
    state: Mutex<State>,
    off: Arc<AtomicBool>,
}

struct State {
    names: Names,
    locks: Locks,
    steps: u64,
    cut: Option<u64>,
    /// The step during which the power went.
    during: Option<u64>,
    faults: BTreeMap<u64, FaultKind>,
    log: Vec<Step>,
    /// Grows with everything that happens, and goes on after a reboot: numbers for files, opens and
    /// processes, and the time.
    clock: u64,
}

/// A step, for messages.
struct Step {
    call: &'static str,
    path: Arc<Path>,
    offset: u64,
    len: u64,
    /// Makes other steps durable, and does nothing if the power goes meanwhile.
    settles: bool,
}

impl Step {
    fn change(call: &'static str, path: &Path) -> Step {
        Step { call, path: path.into(), offset: 0, len: 0, settles: false }
    }

    fn settle(call: &'static str, path: &Path) -> Step {
        Step { settles: true, ..Step::change(call, path) }
    }
}

/// What becomes of a step.
enum Turn {
    /// It is done.
    Done(u64),
    /// It is under way when the power goes, and may be found done in part.
    Cut(u64),
    /// It fails in this way.
    Fault(u64, FaultKind),
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> Arc<SimDisk> {
        SimDisk::found(Tree::from([("/".into(), Entry::Dir)]), 1)
    }

    fn found(tree: Tree, clock: u64) -> Arc<SimDisk> {
        let state = State {
            names: Names::found(tree),
            locks: Locks::default(),
            steps: 0,
            cut: None,
            during: None,
            faults: BTreeMap::new(),
            log: Vec::new(),
            clock,
        };
        Arc::new(SimDisk { state: Mutex::new(state), off: Arc::new(AtomicBool::new(false)) })
    }

    /// Starts a process on this machine.
    pub fn process(self: &Arc<Self>) -> Arc<SimProcess> {
        let id = self.state.lock().tick();
        let life = Life { dead: Arc::new(AtomicBool::new(false)), off: self.off.clone() };
        Arc::new(SimProcess { disk: self.clone(), id, life })
    }

    /// Number of steps taken, and of the next one.
    pub fn steps(&self) -> u64 {
        self.state.lock().steps
    }

    /// Says what a step was, such as `"write_at /a.db 0..4096"`; `None` if it hasn't been taken.
    pub fn describe(&self, step: u64) -> Option<String> {
        let state = self.state.lock();
        let Step { call, path, offset, len, .. } = state.log.get(usize::try_from(step).ok()?)?;
        let range = if *len > 0 { format!(" {offset}..{}", offset + len) } else { String::new() };
        Some(format!("{call} {}{range}", path.display()))
    }

    /// Takes the power away during `step`: it fails, though it may have been done in part, and so
    /// does everything later, reads too. A step that is over already cuts the power at once.
    pub fn cut_at(&self, step: u64) {
        let mut state = self.state.lock();
        state.cut = Some(step);
        if step < state.steps {
            self.off.store(true, Ordering::SeqCst);
        }
    }

    /// Takes the power away now, between two steps.
    pub fn cut(&self) {
        let _state = self.state.lock();
        self.off.store(true, Ordering::SeqCst);
    }

    /// Makes one step fail.
    pub fn fail(&self, step: u64, kind: FaultKind) {
        self.state.lock().faults.insert(step, kind);
    }

    /// The disk as it is found after the power was lost, with no process, lock or step yet. The
    /// power goes now if it hasn't gone before. This disk stays as it is, so that one moment can
    /// be tried with many seeds.
    pub fn reboot(&self, seed: u64) -> Arc<SimDisk> {
        let state = self.state.lock();
        self.off.store(true, Ordering::SeqCst);
        let mut random = Random::new(seed);
        let loss = Loss {
            survival: Survival::draw(&mut random, state.oldest_pending(), state.steps),
            during: state.during,
        };
        // A file may have survived under two names.
        let mut nodes: HashMap<u64, Arc<Node>> = HashMap::new();
        let mut tree = state.names.survivor(loss, &mut random);
        for entry in tree.values_mut() {
            if let Entry::File(node) = entry {
                *node = nodes.entry(node.id).or_insert_with(|| node.survivor(loss, &mut random)).clone();
            }
        }
        SimDisk::found(tree, state.clock)
    }
}

impl Node {
    fn survivor(&self, loss: Loss, random: &mut Random) -> Arc<Node> {
        let content = self.content.lock();
        let mut bytes = content.survivor(loss, random);
        if let Some(words) = &*self.words.lock() {
            let mapped = bytes.len().min(words.mapped());
            for chunk in bytes[..mapped].chunks_mut(8) {
                chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
            }
        }
        let modified = self.modified.load(Ordering::SeqCst);
        Arc::new(Node::new(self.id, modified, Content::found(bytes)))
    }
}

impl State {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn oldest_pending(&self) -> u64 {
        // Files that have lost their name don't survive anyhow.
        let files = self.names.files().filter_map(|node| node.content.lock().oldest_pending());
        files.chain(self.names.oldest_pending()).min().unwrap_or(self.steps)
    }
}

/// Whether a process can still do anything.
#[derive(Clone)]
struct Life {
    dead: Arc<AtomicBool>,
    off: Arc<AtomicBool>,
}

impl Life {
    fn check(&self) -> io::Result<()> {
        if self.off.load(Ordering::SeqCst) {
            return Err(io::Error::other("power is off"));
        }
        if self.dead.load(Ordering::SeqCst) {
            return Err(io::Error::other("process was killed"));
        }
        Ok(())
    }
}

/// One process of the machine that a [`SimDisk`] is in.
pub struct SimProcess {
    disk: Arc<SimDisk>,
    id: u64,
    life: Life,
}

impl SimProcess {
    /// Ends the process, as by SIGKILL: its locks go, all that it does later fails (what it does
    /// to words is done to a copy), and what it has written stays, as the page cache has it.
    pub fn kill(&self) {
        let mut state = self.disk.state.lock();
        self.die(&mut state);
    }

    fn die(&self, state: &mut State) {
        self.life.dead.store(true, Ordering::SeqCst);
        state.locks.release_process(self.id);
    }

    /// Takes a step. `done` does it, and is given its number; `partly` does as much of it as is
    /// done when it fails in the given way.
    fn step(
        &self,
        state: &mut State,
        step: Step,
        done: impl FnOnce(&mut State, u64) -> io::Result<()>,
        partly: impl FnOnce(&mut State, u64, FaultKind, &mut Random),
    ) -> io::Result<()> {
        let settles = step.settles;
        match self.turn(state, step)? {
            Turn::Done(number) => done(state, number),
            Turn::Cut(number) => {
                if !settles {
                    // How much of it is found, reboot decides. Its own errors are nobody's now.
                    let _ = done(state, number);
                }
                self.life.check()
            }
            Turn::Fault(number, kind) => {
                partly(state, number, kind, &mut Random::new(number));
                match kind {
                    FaultKind::NoSpace => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
                    FaultKind::Io | FaultKind::Sync | FaultKind::SyncForgets => {
                        Err(io::Error::from_raw_os_error(libc::EIO))
                    }
                    FaultKind::Kill => {
                        self.die(state);
                        self.life.check()
                    }
                }
            }
        }
    }

    fn turn(&self, state: &mut State, step: Step) -> io::Result<Turn> {
        self.life.check()?;
        let number = state.steps;
        state.steps += 1;
        state.tick();
        state.log.push(step);
        if state.cut == Some(number) {
            state.during = Some(number);
            self.disk.off.store(true, Ordering::SeqCst);
            return Ok(Turn::Cut(number));
        }
        Ok(match state.faults.remove(&number) {
            Some(kind) => Turn::Fault(number, kind),
            None => Turn::Done(number),
        })
    }
}

/// For a step that is done whole or not at all.
fn nothing(_: &mut State, _: u64, _: FaultKind, _: &mut Random) {}

impl SimProcess {
    fn open_file(&self, path: &Path, how: How) -> io::Result<Arc<dyn File>> {
        let mut state = self.disk.state.lock();
        self.life.check()?;
        if how == How::CreateNew || how == How::Create && state.names.get(path).is_none() {
            state.names.vacant(path)?;
            let id = state.tick();
            let node = Arc::new(Node::new(id, id, Content::default()));
            let step = Step::change("create", path);
            self.step(&mut state, step, |s, n| s.names.put(n, path, Entry::File(node)), nothing)?;
        }
        let node = state.names.file(path)?.clone();
        Ok(Arc::new(SimFile {
            process: SimProcess { disk: self.disk.clone(), id: self.id, life: self.life.clone() },
            path: path.into(),
            node,
            owner: state.tick(),
            writable: how != How::Read,
            mapped: path.extension().is_some_and(|extension| extension == "seg"),
        }))
    }
}

impl Disk for SimProcess {
    fn open(&self, path: &Path, how: How) -> io::Result<Arc<dyn File>> {
        self.open_file(path, how)
    }

    fn open_kept(&self, path: &Path, how: How) -> io::Result<Arc<dyn File>> {
        if how == How::CreateNew {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.open_file(path, how)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.disk.state.lock();
        self.life.check()?;
        state.names.list(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.disk.state.lock();
        self.life.check()?;
        Ok(state.names.get(path).is_some())
    }

    fn identity(&self, path: &Path) -> io::Result<Option<(u64, u64)>> {
        let state = self.disk.state.lock();
        self.life.check()?;
        Ok(state.names.file(path).ok().map(|node| (file::DEVICE, node.id)))
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        self.life.check()?;
        state.names.vacant(dir)?;
        let step = Step::change("create_dir", dir);
        self.step(&mut state, step, |s, n| s.names.put(n, dir, Entry::Dir), nothing)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        self.life.check()?;
        if !state.names.list(dir)?.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        self.step(&mut state, Step::change("remove_dir", dir), |s, n| s.names.remove(n, dir), nothing)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        self.life.check()?;
        state.names.file(path)?;
        self.step(&mut state, Step::change("remove", path), |s, n| s.names.remove(n, path), nothing)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        self.life.check()?;
        let moved = state.names.file(from)?.id;
        match state.names.file(to) {
            // Two names of one file both stay, says POSIX.
            Ok(node) if node.id == moved => return Ok(()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => state.names.dir(names::parent(to)?)?,
        }
        self.step(&mut state, Step::change("rename", to), |s, n| s.names.rename(n, from, to), nothing)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        self.life.check()?;
        state.names.dir(dir)?;
        self.step(
            &mut state,
            Step::settle("sync_dir", dir),
            |state, _| {
                state.names.sync(dir);
                Ok(())
            },
            |state, _, kind, random| {
                if kind != FaultKind::Kill {
                    state.names.fail_sync(dir, random);
                }
            },
        )
    }

    fn words(&self, path: &Path, count: usize) -> io::Result<Arc<dyn Words>> {
        let mut state = self.disk.state.lock();
        self.life.check()?;
        let node = state.names.file(path)?.clone();
        let len = count as u64 * 8;
        if node.content.lock().len() < len {
            let step = Step { len, ..Step::change("words", path) };
            self.step(&mut state, step, |s, n| node.set_len(n, s.clock, len), nothing)?;
        }
        let mut words = node.words.lock();
        let shared = words.get_or_insert_with(|| {
            let content = node.content.lock();
            let mut bytes = vec![0; content.len() as usize];
            content.read(&mut bytes, 0);
            Arc::new(SharedWords::new(&bytes, count))
        });
        shared.map(count)?;
        Ok(Arc::new(SimWords::new(shared.clone(), count, self.life.clone())))
    }

    fn copy_owner(&self, _from: &Path, to: &Path) -> io::Result<()> {
        let state = self.disk.state.lock();
        self.life.check()?;
        if state.names.get(to).is_some() { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}
