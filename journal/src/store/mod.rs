//! The store: one database's base and journal, open in this process.
//!
//! ```text
//!   app.db                base: the whole database at one LSN
//!   app.db-tide/store     superblock          (superblock lock)
//!   app.db-tide/*.seg     journal             (writer word)
//!   app.db-tide/*.kept    what folds replaced (fold lock)
//!   app.db-tide/present   which pages of a lazy clone are in the base (fold lock)
//!   app.db-tide/control   words of all processes
//! ```
//! Locks are taken in this order: open, fold, superblock, tail.

mod begin;
mod entering;
mod mark;
mod opening;
mod place;
mod superblock;
mod tail;
mod writer;

use std::any::Any;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};

use crate::clock::{Clock, SystemClock};
use crate::control::{Control, Lock};
use crate::disk::{Disk, File, How, LockKind, fork_generation};
use crate::error::{At, Code, Error, Result, making};
use crate::fold::FoldJob;
use crate::format::{Name, SIDE_SUFFIX};
use crate::index::Index;
use crate::lsn::Lsn;
use crate::maintenance::Maintenance;
use crate::receive::Collected;
use crate::remotes::Traffic;
use crate::source::{Lazy, Sources, known_checksum};
use crate::spare::{Ready, Spare};
use crate::touched::Touched;

pub(crate) use entering::remove_side;
use entering::take_back;
pub(crate) use mark::OPEN_BYTE;
use mark::SHARED_FIRST;
pub(crate) use mark::{MARK_BYTE, base_header, has_mark, marked_header};
use opening::missing_side;
pub(crate) use opening::{Opening, Recovered};
use place::{Inodes, inodes};
pub(crate) use superblock::{read_superblock, read_superblock_slots, write_superblock};
pub(crate) use tail::{FEW, Images, Tail, advance, follow_seal, images_are_sound, open_addressed};

/// How a store is opened.
#[derive(Clone)]
pub struct Options {
    /// Length of a new segment in bytes. A transaction that is longer lengthens its segment.
    pub segment_bytes: u64,
    /// Pages that a fold writes into the base each time that a commit makes it go on.
    pub fold_step: usize,
    /// Whether a thread folds; else commits do, a step each.
    pub background: bool,
    /// Source of the time of commits.
    pub clock: Arc<dyn Clock>,
    /// Where a lazy clone gets the pages from that it doesn't have.
    pub source: Option<Arc<dyn Sources>>,
    /// Bytes of pages that are fetched at a time where all of a lazy clone is asked for.
    pub fetch_bytes: usize,
}

impl Default for Options {
    fn default() -> Options {
        // Miri takes its time for each byte.
        let segment_bytes = if cfg!(miri) { 32 << 10 } else { 4 << 20 };
        Options {
            segment_bytes,
            fold_step: 64,
            background: true,
            clock: Arc::new(SystemClock),
            source: None,
            fetch_bytes: 16 << 20,
        }
    }
}

/// A store that is open.
pub struct Store {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) path: PathBuf,
    pub(crate) side: PathBuf,
    pub(crate) base: Arc<dyn File>,
    pub(crate) control: Arc<Control>,
    pub(crate) options: Options,
    index: RwLock<Arc<Index>>,
    index_generation: AtomicU64,
    /// Number of the segment that the journal began with when the index was made, or with which this process let it
    /// begin since.
    pub(crate) first_segment: AtomicU32,
    pub(crate) tail: Mutex<Tail>,
    /// The fold under way in this process, which then holds [`Lock::Fold`].
    pub(crate) fold: Mutex<Option<FoldJob>>,
    superblock: Mutex<()>,
    /// Segments to be written again.
    pub(crate) spares: Mutex<Vec<Spare>>,
    /// Segments that the journal goes on in next.
    pub(crate) ready: Mutex<VecDeque<Ready>>,
    /// Fsyncs of the journal since its segment was begun, and whether those of the one before were few.
    pub(crate) flushes: AtomicU32,
    pub(crate) seldom_synced: AtomicBool,
    /// How long the last fsync of the journal took, in microseconds.
    pub(crate) sync_time: AtomicU64,
    /// True if the journal grew by half a segment or more since it was last asked what is to be done.
    pub(crate) rolled: AtomicBool,
    pub(crate) maintenance: Arc<Maintenance>,
    /// Pages of the base whose hash was compared.
    pub(crate) touched: Touched,
    /// What there is of a lazy clone, if it was one when it was opened.
    pub(crate) lazy: Option<Lazy>,
    /// Pieces received so far.
    pub(crate) collected: Mutex<Option<Collected>>,
    /// Rolling checksum last computed.
    pub(crate) known_checksum: Mutex<Option<(Lsn, u64)>>,
    /// Held by the thread that has [`Lock::Remotes`]; the hashes of [`Lock::Remote`] that a thread has.
    pub(crate) remotes: Mutex<()>,
    pub(crate) lanes: Mutex<HashSet<u32>>,
    pub(crate) companion: OnceLock<Arc<dyn Any + Send + Sync>>,
    pub(crate) traffic: Mutex<BTreeMap<String, Traffic>>,
    /// Appended head when this process opened the store.
    pub(crate) found: Lsn,
    inodes: Inodes,
    born: u64,
    pub(crate) closed: Mutex<bool>,
    /// Nothing is read any more through what was detached: see [`Store::give_way`].
    pub(crate) given_way: AtomicBool,
}

/// Random 64 bits.
pub(crate) fn random() -> Result<u64> {
    getrandom::u64()
        .map_err(|e| Error::new(Code::Io, format!("no random numbers: {e}; look at the system's log")))
}

/// 16 random bytes: a name that nobody else makes.
///
/// # Errors
/// `Io` where the system has no random numbers.
pub fn random_id() -> Result<[u8; 16]> {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&random()?.to_le_bytes());
    id[8..].copy_from_slice(&random()?.to_le_bytes());
    Ok(id)
}

/// The side folder of the database at `path`.
pub fn side_folder(path: &Path) -> PathBuf {
    let mut side = path.as_os_str().to_owned();
    side.push(SIDE_SUFFIX);
    PathBuf::from(side)
}

/// Makes the name of a file or folder durable, or that it is gone.
pub(crate) fn sync_name(disk: &dyn Disk, path: &Path) -> Result<()> {
    match path.parent() {
        Some(folder) => disk.sync_dir(folder).at(|| format!("syncing {}", folder.display())),
        None => Ok(()),
    }
}

/// Removes a file, which somebody else may have done before.
pub(crate) fn remove(disk: &dyn Disk, path: &Path) -> Result<()> {
    match disk.remove(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other.at(|| format!("removing {}", path.display())),
    }
}

impl Store {
    /// Opens the database at the absolute `path`, creating it if nothing is there; recovers it if
    /// the last process that had it open didn't close it.
    ///
    /// # Errors
    /// `Busy` while another process opens, closes or (through stock SQLite) writes it; `Damaged`,
    /// `Missing`, `Format` and `Diverged` as the recovery table in FORMAT.md says.
    pub fn open(disk: Arc<dyn Disk>, path: &Path, options: Options) -> Result<Arc<Store>> {
        let here = || format!("opening {}", path.display());
        let existed = disk.exists(path).at(here)?;
        let opened = disk.open_kept(path, How::Create);
        let base = if existed { opened.at(here)? } else { opened.map_err(|e| making(e, path))? };
        if !base.lock(SHARED_FIRST, 1, LockKind::Read).at(|| format!("locking {}", path.display()))? {
            return Err(Error::new(
                Code::Busy,
                "stock SQLite is writing this database; try again when it is done",
            ));
        }
        let side = side_folder(path);
        let opened = Store::open_locked(Arc::clone(&disk), path, side, Arc::clone(&base), options);
        if opened.is_err() {
            drop(base.unlock(OPEN_BYTE, 1));
            // What was refused is left as it was found.
            if !existed {
                drop(take_back(&*disk, path, &*base));
            }
            drop(base.unlock(SHARED_FIRST, 1));
        }
        opened
    }

    fn open_locked(
        disk: Arc<dyn Disk>,
        path: &Path,
        side: PathBuf,
        base: Arc<dyn File>,
        options: Options,
    ) -> Result<Arc<Store>> {
        let opening = Opening { disk: &*disk, path, side: &side, base: &*base, options: &options };
        let control = opening.enter()?;
        let (tail, block) = if opening.joins(&control)? {
            control.lock(Lock::Superblock)?;
            let same = opening.check_base(&control);
            control.unlock(Lock::Superblock);
            same?;
            let (block, tail) = opening.attach(&control, false)?;
            (tail, block)
        } else {
            let recovered = opening.recover(&control)?;
            let block = &recovered.block;
            control.rebuild(
                random()?,
                recovered.tail.index.applied(),
                recovered.folded(),
                block.history.max(block.horizon.lsn),
                recovered.marked,
                recovered.largest,
            );
            control.set_written(block.sequence);
            // Beneath a marked base commits follow that change no superblock.
            if !recovered.marked {
                control.set_settled(block.stamp());
            }
            (recovered.tail, recovered.block)
        };
        let control = control.claim()?;
        // Whoever is alone has it for itself so far.
        base.lock(OPEN_BYTE, 1, LockKind::Read).at(|| format!("locking {}", path.display()))?;
        let lazy = opening.lazy(&block)?;
        let superblock = side.join(Name::Superblock.to_string());
        let inodes = inodes(&*disk, &*base, control.file(), &superblock)?;
        let due = !options.background || tail.offset >= options.segment_bytes / 2;
        control.file().unlock(Lock::Open);
        let mut store = Store {
            index: RwLock::new(Arc::clone(&tail.index)),
            index_generation: AtomicU64::new(1),
            first_segment: AtomicU32::new(block.first_segment),
            tail: Mutex::new(tail),
            disk,
            path: path.to_owned(),
            side,
            base,
            control: Arc::new(control),
            options,
            fold: Mutex::new(None),
            superblock: Mutex::new(()),
            ready: Mutex::default(),
            flushes: AtomicU32::new(0),
            seldom_synced: AtomicBool::new(true),
            sync_time: AtomicU64::new(0),
            spares: Mutex::default(),
            rolled: AtomicBool::new(due),
            maintenance: Arc::default(),
            touched: Touched::default(),
            collected: Mutex::new(None),
            known_checksum: Mutex::new(known_checksum(lazy.as_ref())),
            lazy,
            remotes: Mutex::new(()),
            lanes: Mutex::default(),
            companion: OnceLock::new(),
            traffic: Mutex::default(),
            found: Lsn::ZERO,
            inodes,
            born: fork_generation(),
            closed: Mutex::new(false),
            given_way: AtomicBool::new(false),
        };
        store.found = store.control.appended();
        store.catch_up(store.found)?;
        Ok(Arc::new(store))
    }

    /// Path of the base.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// # Errors
    /// `Poisoned`-like refusal in a forked child: its parent's stores aren't its own.
    pub(crate) fn check_process(&self) -> Result<()> {
        if self.born == fork_generation() {
            return Ok(());
        }
        Err(Error::new(
            Code::Denied,
            "this connection belongs to the parent process; open the database again after fork",
        ))
    }

    pub(crate) fn file_path(&self, name: Name) -> PathBuf {
        self.side.join(name.to_string())
    }

    /// The lineage.
    pub fn lineage(&self) -> [u8; 16] {
        let tail = self.tail.lock();
        tail.index.segment(tail.segment).header.lineage
    }

    /// The time by its clock, in milliseconds since 1970.
    pub fn now(&self) -> u64 {
        self.options.clock.now_ms()
    }

    /// The newest LSN that readers see.
    pub fn head(&self) -> Lsn {
        self.control.visible()
    }

    /// The newest LSN known to be on the disk.
    pub fn durable(&self) -> Lsn {
        self.control.durable()
    }

    /// The index that is current, and its generation.
    pub(crate) fn index(&self) -> (Arc<Index>, u64) {
        let index = self.index.read();
        (Arc::clone(&index), self.index_generation.load(Ordering::Acquire))
    }

    pub(crate) fn index_generation(&self) -> u64 {
        self.index_generation.load(Ordering::Acquire)
    }

    /// Replaces the index; `tail` is locked by the caller and describes the new one.
    pub(crate) fn swap_index(&self, tail: &Tail) {
        let mut index = self.index.write();
        *index = Arc::clone(&tail.index);
        self.index_generation.fetch_add(1, Ordering::Release);
    }

    /// Reads entries that other processes appended, up to `to`.
    pub(crate) fn catch_up(&self, to: Lsn) -> Result<()> {
        let mut tail = self.tail.lock();
        self.catch_up_tail(&mut tail, to)
    }

    /// What opening a store takes, from one that is open.
    pub(crate) fn opening(&self) -> Opening<'_> {
        Opening {
            disk: &*self.disk,
            path: &self.path,
            side: &self.side,
            base: &*self.base,
            options: &self.options,
        }
    }

    /// True while a transaction over several databases is between its two phases here.
    pub fn is_prepared(&self) -> bool {
        self.control.pending()
    }

    /// False once it is closed, poisoned or belongs to a parent process.
    pub fn is_usable(&self) -> bool {
        !*self.closed.lock() && self.check_process().is_ok()
    }

    /// Has nothing more to do with the base: another store may.
    pub(crate) fn leave_base(&self) {
        // It goes with the descriptor.
        drop(self.base.unlock(OPEN_BYTE, 1));
    }

    /// Closes the store in this process. The last process folds everything, so that the base is a
    /// plain SQLite database again; what can't be folded now is at the next opening.
    ///
    /// # Errors
    /// Of that fold. The store is closed all the same, and nothing is lost.
    pub fn close(&self) -> Result<()> {
        let mut closed = self.closed.lock();
        if *closed {
            return Ok(());
        }
        *closed = true;
        if self.check_process().is_err() {
            return Ok(());
        }
        let result = (|| {
            self.control.file().lock(Lock::Open)?;
            if !self.control.file().alone()? || self.control.poisoned() {
                return self.drop_spares();
            }
            self.rest()
        })();
        // Before whoever opens next finds nobody else.
        self.leave_base();
        self.control.file().leave();
        drop(self.base.unlock(SHARED_FIRST, 1));
        result
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Err(e) = self.close() {
            // Nobody is left to be told; the next opening recovers.
            crate::report(&e);
        }
    }
}
