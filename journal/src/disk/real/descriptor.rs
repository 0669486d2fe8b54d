//! Descriptors that a forked child doesn't have.
//!
//! An OFD lock lives as long as *any* descriptor, of any process, that refers to the open file it
//! was taken on. A child of `fork` that did nothing about it would keep the locks of a dead parent
//! alive, and with them its slot, its place as the writer, its hold on the base. So every
//! descriptor of this disk is listed, and the child closes them all before `fork` returns in it:
//!
//! ```text
//!   parent   prepare: BEGUN += 1 ── fork ── parent: ENDED += 1
//!   child                              └─── child:  close all that is listed, GENERATION += 1
//! ```
//!
//! Whatever was opened under an older generation is dead in the child: using it is an error, and
//! dropping it must not close a number that means another file by now.
//!
//! A mapping refers to the open file as well, and the child inherits those. Nothing is therefore
//! ever locked through a descriptor that is mapped: see `Handle` in `real.rs`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use crate::disk::mmap;

/// How many times this process is the child of a fork since the disk was first used.
static GENERATION: AtomicU64 = AtomicU64::new(0);
/// Forks that have begun, and those that are over, in this process.
static BEGUN: AtomicU64 = AtomicU64::new(0);
static ENDED: AtomicU64 = AtomicU64::new(0);

/// A slot that lists no descriptor.
const FREE: i32 = -1;

/// Part of the list of open descriptors. Parts are only ever appended, and none is freed, so that
/// the child, where another thread may have been stopped anywhere, can walk them without a lock.
struct Listing {
    slots: [AtomicI32; 256],
    next: OnceLock<Box<Listing>>,
}

impl Listing {
    const fn new() -> Listing {
        Listing { slots: [const { AtomicI32::new(FREE) }; 256], next: OnceLock::new() }
    }
}

static LISTING: Listing = Listing::new();

extern "C" fn prepare() {
    BEGUN.fetch_add(1, Ordering::SeqCst);
}

extern "C" fn parent() {
    ENDED.fetch_add(1, Ordering::SeqCst);
}

/// Runs in the child before `fork` returns there: only atomics and `close` are allowed. The child
/// has no POSIX locks yet that closing could drop.
extern "C" fn child() {
    GENERATION.fetch_add(1, Ordering::SeqCst);
    let mut part = Some(&LISTING);
    while let Some(listing) = part {
        for slot in &listing.slots {
            let number = slot.swap(FREE, Ordering::SeqCst);
            if number != FREE {
                // An error can only mean that it is closed already.
                let _ = nix::unistd::close(number);
            }
        }
        // `get` never waits, also not for a thread that was stopped while it appended.
        part = listing.next.get().map(|next| &**next);
    }
    ENDED.store(BEGUN.load(Ordering::SeqCst), Ordering::SeqCst);
}

/// Number that is one higher in a child of `fork` than in its parent. What was opened under one
/// number can't be used under another.
#[inline]
pub fn fork_generation() -> u64 {
    static HOOK: OnceLock<bool> = OnceLock::new();
    // Without memory for the hook a child would be dangerous, but there can hardly be one.
    HOOK.get_or_init(|| mmap::at_fork(prepare, parent, child).is_ok());
    GENERATION.load(Ordering::SeqCst)
}

/// The error of everything that a child does with its parent's files.
pub(super) fn foreign() -> io::Error {
    io::Error::other("this file belongs to the parent process: after fork it has to be opened again")
}

/// Opens something harmless under the numbers 0, 1 and 2 where they are free; it stays open.
fn occupy_low_numbers() {
    while File::open("/dev/null").is_ok_and(|null| {
        let low = null.as_raw_fd() <= 2;
        if low {
            std::mem::forget(null);
        }
        low
    }) {}
}

/// An open, listed descriptor.
pub(super) struct Descriptor {
    /// `None` only while it is dropped.
    file: Option<File>,
    generation: u64,
    slot: &'static AtomicI32,
}

impl Descriptor {
    /// Opens `path`. The number is never 0, 1 or 2, where a host that has closed its standard
    /// streams would print into it.
    pub(super) fn open(options: &OpenOptions, path: &Path) -> io::Result<Descriptor> {
        let generation = fork_generation();
        let mut file = options.open(path)?;
        if file.as_raw_fd() <= 2 {
            // The copy's number is above these.
            file = file.try_clone()?;
            occupy_low_numbers();
        }
        let slot = list(file.as_raw_fd());
        Ok(Descriptor { file: Some(file), generation, slot })
    }

    /// Opens like [`Descriptor::open`], certain that no fork ran between opening and listing, so
    /// that no child can have the descriptor. The files that had one are given to `spoiled`.
    pub(super) fn open_alone(
        options: &OpenOptions,
        path: &Path,
        mut spoiled: impl FnMut(Descriptor),
    ) -> io::Result<Descriptor> {
        // A host that forks without pause doesn't get the certainty.
        for _ in 0..100 {
            let begun = BEGUN.load(Ordering::SeqCst);
            if begun != ENDED.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_micros(100));
                continue;
            }
            let opened = Descriptor::open(options, path)?;
            if begun == BEGUN.load(Ordering::SeqCst) {
                return Ok(opened);
            }
            spoiled(opened);
        }
        Descriptor::open(options, path)
    }

    /// The file, unless this process is a child of the one that opened it.
    #[inline]
    pub(super) fn file(&self) -> io::Result<&File> {
        self.file.as_ref().filter(|_| self.is_ours()).ok_or_else(foreign)
    }

    /// False in a child of the process that opened it.
    #[inline]
    pub(super) fn is_ours(&self) -> bool {
        self.generation == fork_generation()
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        let file = self.file.take();
        if self.is_ours() {
            // Off the list first: once it is closed the number may be another file's.
            self.slot.store(FREE, Ordering::SeqCst);
            drop(file);
        } else {
            // Closed when this process came to be.
            std::mem::forget(file);
        }
    }
}

/// Puts `number` on the list.
fn list(number: i32) -> &'static AtomicI32 {
    let mut listing = &LISTING;
    loop {
        let free = listing
            .slots
            .iter()
            .find(|slot| slot.compare_exchange(FREE, number, Ordering::SeqCst, Ordering::Relaxed).is_ok());
        match free {
            Some(slot) => return slot,
            None => listing = listing.next.get_or_init(|| Box::new(Listing::new())),
        }
    }
}
