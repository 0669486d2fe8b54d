//! The store: one database's base and journal, open in this process.
//!
//! ```text
//!   app.db                base: the whole database at one LSN
//!   app.db-tide/store     superblock          (superblock lock)
//!   app.db-tide/*.seg     journal             (writer word)
//!   app.db-tide/*.kept    what folds replaced (fold lock)
//!   app.db-tide/control   words of all processes
//! ```
//! Locks are taken in this order: open, fold, superblock, tail.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::control::{Control, ControlFile, Lock, Word};
use crate::disk::{Disk, File, How, LockKind, fork_generation};
use crate::error::{At, Code, Error, Result};
use crate::fold::FoldJob;
use crate::format::{
    Kind, Mark, Name, Origin, Retention, SEGMENT_HEADER_LEN, SIDE_SUFFIX, SLOT_LEN, SUPERBLOCK_LEN,
    SegmentHeader, SegmentKind, Superblock, round_up, seal, sealed_to,
};
use crate::index::Index;
use crate::lsn::Lsn;
use crate::segment::{Checked, Segment};
use crate::touched::Touched;

/// Bytes of the base that stock SQLite locks.
const PENDING_BYTE: u64 = 0x4000_0000;
const RESERVED_BYTE: u64 = PENDING_BYTE + 1;
const SHARED_FIRST: u64 = PENDING_BYTE + 2;
const SHARED_SIZE: u64 = 510;

/// Value of byte 19 that keeps stock SQLite away.
pub(crate) const MARK_BYTE: u8 = 0x54;

/// Source of the time.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64;
}

/// The machine's clock.
#[derive(Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
    }
}

/// How a store is opened.
#[derive(Clone)]
pub struct Options {
    /// Length of a new segment in bytes. A transaction that is longer lengthens its segment.
    pub segment_bytes: u64,
    /// Pages that a fold writes into the base each time that a commit makes it go on.
    pub fold_step: usize,
    /// Source of the time of commits.
    pub clock: Arc<dyn Clock>,
}

impl Default for Options {
    fn default() -> Options {
        Options { segment_bytes: 4 << 20, fold_step: 64, clock: Arc::new(SystemClock) }
    }
}

/// Where the next entry goes.
pub(crate) struct Tail {
    pub index: Arc<Index>,
    /// Ordinal of the segment in `index`.
    pub segment: u32,
    pub offset: u64,
    /// Chain value of the last entry.
    pub chain: u64,
    /// Newest LSN of which an entry that was read says that it was on the disk.
    pub claimed: Lsn,
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
    pub(crate) tail: Mutex<Tail>,
    /// The fold under way in this process, which then holds [`Lock::Fold`].
    pub(crate) fold: Mutex<Option<FoldJob>>,
    superblock: Mutex<()>,
    /// Segment of the tail when it was last asked whether a fold is due.
    pub(crate) maintained: std::sync::atomic::AtomicU32,
    /// Pages of the base whose hash was compared.
    pub(crate) touched: Touched,
    /// Rolling checksum last computed.
    pub(crate) known_checksum: Mutex<Option<(Lsn, u64)>>,
    born: u64,
    pub(crate) closed: Mutex<bool>,
}

/// Random 64 bits.
pub(crate) fn random() -> Result<u64> {
    getrandom::u64()
        .map_err(|e| Error::new(Code::Io, format!("no random numbers: {e}; look at the system's log")))
}

fn random_lineage() -> Result<[u8; 16]> {
    let mut lineage = [0; 16];
    lineage[..8].copy_from_slice(&random()?.to_le_bytes());
    lineage[8..].copy_from_slice(&random()?.to_le_bytes());
    Ok(lineage)
}

/// The side folder of the database at `path`.
pub fn side_folder(path: &Path) -> PathBuf {
    let mut side = path.as_os_str().to_owned();
    side.push(SIDE_SUFFIX);
    PathBuf::from(side)
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
        let base = disk.open_kept(path, How::Create).at(here)?;
        if !base.lock(SHARED_FIRST, 1, LockKind::Read).at(|| format!("locking {}", path.display()))? {
            return Err(Error::new(
                Code::Busy,
                "stock SQLite is writing this database; try again when it is done",
            ));
        }
        let side = side_folder(path);
        let opened = Store::open_locked(Arc::clone(&disk), path, side, Arc::clone(&base), options);
        if opened.is_err() {
            drop(base.unlock(SHARED_FIRST, 1));
            // What was refused is left as it was found.
            if !existed && base.len().is_ok_and(|len| len == 0) {
                drop(disk.remove(path));
            }
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
        if !disk.exists(&side).at(|| format!("looking for {}", side.display()))? {
            // Before anything is created: a marked base can't be read without what it belongs to.
            let header = base_header(&*base)?;
            if header.get(19) == Some(&MARK_BYTE) {
                return Err(missing_side(path, &side));
            }
            match disk.create_dir(&side) {
                Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(e).at(|| format!("creating {}", side.display()));
                }
                _ => {}
            }
            disk.copy_owner(path, &side).at(|| format!("setting the owner of {}", side.display()))?;
            if let Some(folder) = side.parent() {
                disk.sync_dir(folder).at(|| format!("syncing {}", folder.display()))?;
            }
        }
        let control = ControlFile::open(&*disk, &side.join(Name::Control.to_string()))?;
        control.lock(Lock::Open)?;
        let opening = Opening { disk: &*disk, path, side: &side, base: &*base, options: &options };
        let built: Result<(Tail, Control)> = (|| {
            if control.alone()? {
                let recovered = opening.recover()?;
                let block = &recovered.block;
                control.rebuild(
                    random()?,
                    recovered.tail.index.applied(),
                    block.base.lsn,
                    block.history.max(block.horizon.lsn),
                    recovered.marked,
                );
                Ok((recovered.tail, control.claim()?))
            } else {
                let (_, tail) = opening.attach()?;
                Ok((tail, control.claim()?))
            }
        })();
        let (tail, control) = built?;
        control.file().unlock(Lock::Open);
        let store = Store {
            index: RwLock::new(Arc::clone(&tail.index)),
            index_generation: AtomicU64::new(1),
            tail: Mutex::new(tail),
            disk,
            path: path.to_owned(),
            side,
            base,
            control: Arc::new(control),
            options,
            fold: Mutex::new(None),
            superblock: Mutex::new(()),
            maintained: std::sync::atomic::AtomicU32::new(u32::MAX),
            touched: Touched::default(),
            known_checksum: Mutex::new(None),
            born: fork_generation(),
            closed: Mutex::new(false),
        };
        let head = store.control.appended();
        store.catch_up(head)?;
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

    pub(crate) fn catch_up_tail(&self, tail: &mut Tail, to: Lsn) -> Result<()> {
        while tail.index.applied() < to {
            match advance(&*self.disk, &self.side, tail, Images::Trust) {
                Ok(true) => {}
                failed => {
                    // Segments that this process never opened may have been dropped meanwhile.
                    let started = tail.index.segments().next().map(|s| s.header.number);
                    if self.read_superblock().is_ok_and(|block| Some(block.first_segment) != started) {
                        let (_, fresh) = self.opening().attach()?;
                        *tail = fresh;
                        self.swap_index(tail);
                        continue;
                    }
                    failed?;
                    return Err(self.torn(tail));
                }
            }
        }
        Ok(())
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

    /// Reads entries into a tail that isn't the store's yet.
    pub(crate) fn catch_up_from(&self, tail: &mut Tail, to: Lsn) -> Result<()> {
        while tail.index.applied() < to {
            if !advance(&*self.disk, &self.side, tail, Images::Trust)? {
                return Err(self.torn(tail));
            }
        }
        Ok(())
    }

    fn torn(&self, tail: &Tail) -> Error {
        let segment = tail.index.segment(tail.segment);
        Error::new(
            Code::Damaged,
            format!(
                "{} has no entry for LSN {} at byte {}, which was committed; close the database everywhere and run tide_verify, or restore from a backup",
                segment.path.display(),
                tail.index.applied().next(),
                tail.offset
            ),
        )
    }

    /// Takes the writer word. Nothing is known about the snapshot yet.
    ///
    /// # Errors
    /// `Busy` if a living process or another connection has it.
    pub(crate) fn take_writer(&self) -> Result<()> {
        match self.control.take(Word::Writer) {
            Ok(()) => Ok(()),
            Err(holder) => {
                if self.control.alive(holder)? || !self.control.steal(Word::Writer, holder) {
                    return Err(Error::new(Code::Busy, "another connection is writing; try again"));
                }
                self.adopt_orphans().inspect_err(|_| self.control.release(Word::Writer))
            }
        }
    }

    /// Waits until the writer's place is free, and takes it; false if it isn't within `patience`, or
    /// its holder died and the next [`crate::Session::begin_write`] must clean up.
    ///
    /// # Errors
    /// `Denied` in a forked child.
    pub fn wait_for_writer(&self, patience: std::time::Duration) -> Result<bool> {
        self.check_process()?;
        match self.control.take(Word::Writer) {
            Ok(()) => Ok(true),
            Err(holder) => {
                self.control.wait_word(Word::Writer, holder, patience);
                Ok(self.control.take(Word::Writer).is_ok())
            }
        }
    }

    /// Gives up the place that [`Store::wait_for_writer`] got.
    pub fn release_writer(&self) {
        self.control.release(Word::Writer);
    }

    /// True while a transaction over several databases is between its two phases here.
    pub fn is_prepared(&self) -> bool {
        self.control.pending()
    }

    /// False once it is closed, poisoned or belongs to a parent process.
    pub fn is_usable(&self) -> bool {
        !*self.closed.lock() && self.check_process().is_ok()
    }

    /// Finishes what the dead holder of the writer word may have appended. Holding the word.
    pub(crate) fn adopt_orphans(&self) -> Result<()> {
        let mut tail = self.tail.lock();
        self.catch_up_tail(&mut tail, self.control.appended())?;
        loop {
            while advance(&*self.disk, &self.side, &mut tail, Images::Check)? {
                let lsn = tail.index.applied();
                if lsn > self.control.appended() {
                    self.control.set_appended_for_dead(lsn);
                }
            }
            if !crate::prepared::resolve(&*self.disk, &self.path, &self.side, &mut tail)? {
                break;
            }
        }
        crate::prepared::remove_left_marker(&*self.disk, &self.path)?;
        self.control.set_pending(false);
        Ok(())
    }

    /// Decides about the prepared entry of a writer that died.
    pub(crate) fn finish_dead_writer(&self) -> Result<()> {
        let Some(holder) = self.control.holder(Word::Writer) else { return Ok(()) };
        if self.control.alive(holder)? || !self.control.steal(Word::Writer, holder) {
            return Ok(());
        }
        let adopted = self.adopt_orphans();
        self.control.release(Word::Writer);
        adopted
    }

    /// Makes the tail the true end of the journal, in a segment that has room. Holding the writer
    /// word, with the index caught up.
    pub(crate) fn settle_tail(&self, tail: &mut Tail) -> Result<()> {
        self.catch_up_tail(tail, self.control.appended())?;
        // A dead or rolled-back writer may have sealed the segment without a commit.
        while follow_seal(&*self.disk, &self.side, tail)? {}
        if tail.offset < self.options.segment_bytes {
            return Ok(());
        }
        let lineage = tail.index.segment(tail.segment).header.lineage;
        self.roll(tail, lineage)
    }

    /// Goes on in a new segment. Holding the writer word.
    pub(crate) fn roll(&self, tail: &mut Tail, lineage: [u8; 16]) -> Result<()> {
        let segment = Arc::clone(tail.index.segment(tail.segment));
        let used = self.disk.list(&self.side).at(|| format!("listing {}", self.side.display()))?;
        let last = used.iter().filter_map(|name| Name::parse(name)?.segment()).max();
        let number = last.unwrap_or(0).max(segment.header.number).checked_add(1).ok_or_else(|| {
            Error::new(
                Code::Limit,
                "the journal has used up its segment numbers; detach the database and adopt it again",
            )
        })?;
        let lsn = tail.index.applied();
        let header = SegmentHeader {
            kind: SegmentKind::Journal,
            lineage,
            number,
            first: lsn.next(),
            chain: tail.chain,
            time: self.options.clock.now_ms(),
        };
        let path = self.file_path(Name::Segment(number));
        let next = Segment::create(&*self.disk, path, header, self.options.segment_bytes)?;
        self.disk.copy_owner(&self.path, &next.path).at(|| "setting a segment's owner".into())?;
        // The new segment is durable before the seal that leads to it.
        let state = tail.index.state(lsn).unwrap_or_default();
        let seal = seal(state, self.control.epoch(), tail.chain, self.control.durable(), number, tail.chain);
        let here = || format!("writing {}", segment.path.display());
        segment.file.allocate(tail.offset + seal.len() as u64).at(here)?;
        segment.file.write_at(&seal, tail.offset).at(here)?;
        let ordinal = tail.index.push_segment(Arc::new(next));
        tail.segment = ordinal;
        tail.offset = SEGMENT_HEADER_LEN as u64;
        Ok(())
    }

    /// Lets the journal of an empty store go on as that of another lineage. Holding the writer word.
    pub(crate) fn take_over(&self, lineage: [u8; 16]) -> Result<()> {
        let _guard = self.lock_superblock()?;
        let mut tail = self.tail.lock();
        while follow_seal(&*self.disk, &self.side, &mut tail)? {}
        self.roll(&mut tail, lineage)?;
        let mut block = self.read_superblock()?;
        block.lineage = lineage;
        block.first_segment = tail.index.segment(tail.segment).header.number;
        self.write_superblock(&mut block)
    }

    /// Marks the base, so that stock SQLite refuses it while the journal is ahead. Durable when it
    /// returns.
    ///
    /// # Errors
    /// `Busy` while stock SQLite has a transaction on it.
    pub(crate) fn mark(&self) -> Result<()> {
        if self.control.marked() {
            return Ok(());
        }
        let _guard = self.lock_superblock()?;
        if self.control.marked() {
            return Ok(());
        }
        let mut block = self.read_superblock()?;
        let mut header = base_header(&*self.base)?;
        let empty = header.len() < 100;
        if empty {
            // Stock SQLite would take an empty file for an empty database and write to it.
            header = vec![0; 512];
            header[..16].copy_from_slice(b"SQLite format 3\0");
            header[16..24].copy_from_slice(&[16, 0, 1, 1, 0, 64, 32, 32]);
        }
        let found = crate::state::Counters::of(&header);
        let moved = found.counter.max(found.valid_for).max(block.base.counters.counter).wrapping_add(1);
        header[24..28].copy_from_slice(&moved.to_be_bytes());
        // Two stores that both began empty must not take each other's base for their own.
        header[92..96].copy_from_slice(&(random()? as u32).to_be_bytes());
        header[19] = MARK_BYTE;
        block.marked = Mark::of(&header);
        // First what recognises the mark, then the mark.
        self.write_superblock(&mut block)?;
        self.lock_out_stock()?;
        let written = self.base.write_at(&header, 0).and_then(|()| self.base.sync());
        self.let_stock_in();
        written.at(|| format!("marking {}", self.path.display()))?;
        self.control.set_marked(true);
        Ok(())
    }

    /// Makes sure that no stock transaction is under way and none begins.
    pub(crate) fn lock_out_stock(&self) -> Result<()> {
        for (at, len) in [(PENDING_BYTE, 1), (RESERVED_BYTE, 1), (SHARED_FIRST + 1, SHARED_SIZE - 1)] {
            let taken = self
                .base
                .lock(at, len, LockKind::Write)
                .at(|| format!("locking {}", self.path.display()))
                .inspect_err(|_| self.let_stock_in())?;
            if !taken {
                self.let_stock_in();
                return Err(Error::new(
                    Code::Busy,
                    "stock SQLite has a transaction on this database; try again when it is done",
                ));
            }
        }
        Ok(())
    }

    pub(crate) fn let_stock_in(&self) {
        // A failure leaves stock SQLite locked out until the store is closed.
        drop(self.base.unlock(PENDING_BYTE, 2));
        drop(self.base.unlock(SHARED_FIRST + 1, SHARED_SIZE - 1));
    }

    /// Serialises changes of the superblock between threads and processes.
    pub(crate) fn lock_superblock(&self) -> Result<SuperblockGuard<'_>> {
        let guard = self.superblock.lock();
        self.control.file().lock(Lock::Superblock)?;
        Ok(SuperblockGuard { store: self, _guard: guard })
    }

    pub(crate) fn read_superblock(&self) -> Result<Superblock> {
        read_superblock(&*self.disk, &self.side)?.ok_or_else(|| missing_side(&self.path, &self.side))
    }

    /// Writes `block` into the older slot, durably. Under the superblock lock.
    pub(crate) fn write_superblock(&self, block: &mut Superblock) -> Result<()> {
        write_superblock(&*self.disk, &self.side, block)
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
                return Ok(());
            }
            self.rest()
        })();
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

/// Held while the superblock is changed.
pub(crate) struct SuperblockGuard<'a> {
    store: &'a Store,
    _guard: MutexGuard<'a, ()>,
}

impl Drop for SuperblockGuard<'_> {
    fn drop(&mut self) {
        self.store.control.file().unlock(Lock::Superblock);
    }
}

/// The first bytes of the base: 100, or fewer if it is shorter.
pub(crate) fn base_header(base: &dyn File) -> Result<Vec<u8>> {
    let mut header = vec![0; 100];
    let got = base.read_at(&mut header, 0).at(|| "reading the base".into())?;
    header.truncate(got);
    Ok(header)
}

fn missing_side(path: &Path, side: &Path) -> Error {
    Error::new(
        Code::Missing,
        format!(
            "{} is the base of a journal in {}, which is gone; put that folder back beside it, or restore from a backup",
            path.display(),
            side.display()
        ),
    )
}

/// Reads the superblock; `None` if there is none at all.
pub(crate) fn read_superblock(disk: &dyn Disk, side: &Path) -> Result<Option<Superblock>> {
    Ok(read_superblock_slots(disk, side)?.map(|(block, _)| block))
}

/// Reads the superblock, and whether its other slot was torn while it was written.
pub(crate) fn read_superblock_slots(disk: &dyn Disk, side: &Path) -> Result<Option<(Superblock, bool)>> {
    let path = side.join(Name::Superblock.to_string());
    let file = match disk.open(&path, How::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).at(|| format!("opening {}", path.display())),
    };
    let mut bytes = vec![0; SUPERBLOCK_LEN];
    file.read_at(&mut bytes, 0).at(|| format!("reading {}", path.display()))?;
    let torn =
        bytes.chunks(SLOT_LEN).any(|slot| slot.iter().any(|&b| b != 0) && Superblock::decode(slot).is_err());
    Superblock::newest(&bytes)
        .map(|block| Some((block, torn)))
        .map_err(|e| Error::new(e.code(), format!("{}: {}", path.display(), e.text())))
}

/// Writes `block` with the next sequence number into the older slot, durably.
pub(crate) fn write_superblock(disk: &dyn Disk, side: &Path, block: &mut Superblock) -> Result<()> {
    let path = side.join(Name::Superblock.to_string());
    block.sequence += 1;
    let written = (|| {
        if disk.exists(&path)? {
            let file = disk.open(&path, How::Write)?;
            file.write_at(&block.encode(), block.slot())?;
            return file.sync();
        }
        // The first one appears whole: what is there but not valid is damage.
        let fresh = side.join(Name::NewSuperblock.to_string());
        let file = disk.open(&fresh, How::Create)?;
        file.set_len(0)?;
        file.allocate(SUPERBLOCK_LEN as u64)?;
        file.write_at(&block.encode(), block.slot())?;
        file.sync()?;
        disk.rename(&fresh, &path)?;
        disk.sync_dir(side)
    })();
    written.at(|| format!("writing {}", path.display()))
}

/// Whether images are looked at while entries are read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Images {
    /// The entry is known to be whole.
    Trust,
    /// It may have been torn.
    Check,
}

/// Reads the next entry at the tail into the index; false if there is none.
pub(crate) fn advance(disk: &dyn Disk, side: &Path, tail: &mut Tail, images: Images) -> Result<bool> {
    loop {
        let segment = Arc::clone(tail.index.segment(tail.segment));
        let Some(checked) = segment.entry(tail.offset, tail.chain)? else { return Ok(false) };
        let header = &checked.header;
        if header.kind == Kind::Seal {
            if enter_next(disk, side, tail, &checked)? {
                continue;
            }
            return Ok(false);
        }
        if !header.kind.has_lsn() || header.range.first != tail.index.applied().next() {
            return Ok(false);
        }
        let others = open_addressed(disk, side, &tail.index, &checked)?;
        if images == Images::Check && !images_are_sound(tail, &checked, &others)? {
            return Ok(false);
        }
        tail.index.push(
            header,
            tail.segment,
            tail.offset,
            checked.rows(),
            |number| others.iter().find(|o| o.0 == number).map_or(tail.segment, |o| o.1),
            images == Images::Check,
        );
        tail.offset = round_up(tail.offset + header.len, crate::format::ENTRY_ALIGN);
        tail.claimed = tail.claimed.max(header.durable);
        tail.chain = checked.record.chain;
        return Ok(true);
    }
}

/// Opens the segments that an entry's rows address beside its own: (number, ordinal).
pub(crate) fn open_addressed(
    disk: &dyn Disk,
    side: &Path,
    index: &Index,
    checked: &Checked,
) -> Result<Vec<(u32, u32)>> {
    let mut opened: Vec<(u32, u32)> = Vec::new();
    for row in checked.rows().filter(|row| row.segment != 0) {
        if opened.iter().any(|o| o.0 == row.segment) {
            continue;
        }
        let known = index.segments().position(|s| s.header.number == row.segment);
        let ordinal = match known {
            Some(ordinal) => ordinal as u32,
            None => {
                let path = side.join(Name::Segment(row.segment).to_string());
                index.push_segment(Arc::new(Segment::open(disk, path, How::Write)?))
            }
        };
        opened.push((row.segment, ordinal));
    }
    Ok(opened)
}

pub(crate) fn images_are_sound(tail: &Tail, checked: &Checked, others: &[(u32, u32)]) -> Result<bool> {
    let page_size = checked.header.state.page_size as usize;
    for row in checked.rows() {
        let ordinal = others.iter().find(|o| o.0 == row.segment).map_or(tail.segment, |o| o.1);
        if !tail.index.segment(ordinal).image_is_sound(&row, page_size)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Moves the tail into the next segment if the present one is sealed here.
pub(crate) fn follow_seal(disk: &dyn Disk, side: &Path, tail: &mut Tail) -> Result<bool> {
    let segment = Arc::clone(tail.index.segment(tail.segment));
    let Some(checked) = segment.entry(tail.offset, tail.chain)? else { return Ok(false) };
    if checked.header.kind == Kind::Seal { enter_next(disk, side, tail, &checked) } else { Ok(false) }
}

/// Moves the tail to where a seal leads; false if it isn't the seal of what was read so far.
fn enter_next(disk: &dyn Disk, side: &Path, tail: &mut Tail, checked: &Checked) -> Result<bool> {
    if checked.header.range.last != tail.index.applied() {
        return Ok(false);
    }
    let segment = Arc::clone(tail.index.segment(tail.segment));
    let broken = |what: &Path| {
        Error::new(
            Code::Damaged,
            format!("{} doesn't continue the segment before it; restore from a backup", what.display()),
        )
    };
    let Some((number, chain)) = sealed_to(&checked.table) else { return Err(broken(&segment.path)) };
    let next = Segment::open(disk, side.join(Name::Segment(number).to_string()), How::Write)?;
    if next.header.chain != chain || next.header.first != tail.index.applied().next() {
        return Err(broken(&next.path));
    }
    tail.chain = chain;
    tail.segment = tail.index.push_segment(Arc::new(next));
    tail.offset = SEGMENT_HEADER_LEN as u64;
    Ok(true)
}

/// What is known while a store is being opened.
pub(crate) struct Opening<'a> {
    pub disk: &'a dyn Disk,
    pub path: &'a Path,
    pub side: &'a Path,
    pub base: &'a dyn File,
    pub options: &'a Options,
}

/// A store that nobody else has open, recovered.
pub(crate) struct Recovered {
    pub block: Superblock,
    pub tail: Tail,
    pub marked: bool,
}

impl Opening<'_> {
    /// The tail at the first entry behind the horizon.
    pub fn start(&self, block: &Superblock) -> Result<Tail> {
        let path = self.side.join(Name::Segment(block.first_segment).to_string());
        let segment = Segment::open(self.disk, path, How::Write)?;
        if segment.header.lineage != block.lineage || segment.header.first != block.horizon.lsn.next() {
            return Err(Error::new(
                Code::Damaged,
                format!(
                    "{} isn't the segment that the superblock names; restore from a backup",
                    segment.path.display()
                ),
            ));
        }
        let origin = Origin::from_number(block.horizon_origin).unwrap_or(Origin::External);
        let index = Index::new(block.horizon, origin);
        let chain = segment.header.chain;
        let ordinal = index.push_segment(Arc::new(segment));
        Ok(Tail {
            index: Arc::new(index),
            segment: ordinal,
            offset: SEGMENT_HEADER_LEN as u64,
            chain,
            claimed: Lsn::ZERO,
        })
    }

    /// Joins the processes that have the store open.
    pub fn attach(&self) -> Result<(Superblock, Tail)> {
        let mut last = None;
        for _ in 0..16 {
            let block =
                read_superblock(self.disk, self.side)?.ok_or_else(|| missing_side(self.path, self.side))?;
            // A fold may drop the first segment between the two reads; then the superblock moved.
            match self.start(&block) {
                Ok(tail) => return Ok((block, tail)),
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or_else(|| missing_side(self.path, self.side)))
    }

    /// Makes a new, empty segment and a superblock for a base at LSN `base.lsn` with nothing behind.
    pub fn begin(&self, mut block: Superblock) -> Result<Recovered> {
        let header = SegmentHeader {
            kind: SegmentKind::Journal,
            lineage: block.lineage,
            number: block.first_segment,
            first: block.horizon.lsn.next(),
            chain: random()?,
            time: self.options.clock.now_ms(),
        };
        let path = self.side.join(Name::Segment(header.number).to_string());
        let segment = Segment::create(self.disk, path, header, self.options.segment_bytes)?;
        self.disk.copy_owner(self.path, &segment.path).at(|| "setting a segment's owner".into())?;
        write_superblock(self.disk, self.side, &mut block)?;
        let superblock = self.side.join(Name::Superblock.to_string());
        self.disk.copy_owner(self.path, &superblock).at(|| "setting the superblock's owner".into())?;
        let control = self.side.join(Name::Control.to_string());
        self.disk.copy_owner(self.path, &control).at(|| "setting the control file's owner".into())?;
        let tail = self.start(&block)?;
        Ok(Recovered { block, tail, marked: false })
    }

    /// A superblock for a base of `lineage` that is at rest with `state`.
    pub fn block_at_rest(&self, lineage: [u8; 16], state: crate::state::State) -> Result<Superblock> {
        let header = base_header(self.base)?;
        Ok(Superblock {
            sequence: 0,
            lineage,
            horizon: state,
            horizon_origin: Origin::External as u16,
            first_segment: 1,
            base: state,
            base_checksum: (state.size == 0).then_some(0),
            rest: Mark::of(&header),
            rest_len: self.base.len().at(|| format!("reading {}", self.path.display()))?,
            marked: Mark::default(),
            durable: state.lsn,
            retention: Retention::Default,
            history: state.lsn,
        })
    }

    /// A lineage for a database that has none.
    pub fn new_lineage(&self) -> Result<[u8; 16]> {
        random_lineage()
    }
}
