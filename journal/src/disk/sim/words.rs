//! Words that simulated processes share.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::Life;
use crate::disk::Words;

/// Words a file's mapping has room for: it can't grow while others use it.
const ROOM: usize = if cfg!(miri) { 1 << 10 } else { 1 << 13 };

/// Longest sleep. A process that is killed while it sleeps isn't woken.
const NAP: Duration = Duration::from_millis(1);

/// The mapped first bytes of a file.
pub(super) struct SharedWords {
    words: Box<[AtomicU64]>,
    /// How many of them somebody has asked for.
    mapped: AtomicUsize,
    /// Held to sleep and to wake, so that nobody is woken between looking and sleeping.
    gate: Mutex<()>,
    changed: Condvar,
}

impl SharedWords {
    /// Words for a mapping of `count`, that begin as the file's `bytes`.
    pub(super) fn new(bytes: &[u8], count: usize) -> SharedWords {
        let words: Box<[AtomicU64]> = (0..count.max(ROOM)).map(|_| AtomicU64::new(0)).collect();
        let mapped = AtomicUsize::new(0);
        let shared = SharedWords { words, mapped, gate: Mutex::new(()), changed: Condvar::new() };
        shared.write(bytes, 0);
        shared
    }

    /// Counts on a mapping of `count` words; an error if there is no room for them.
    pub(super) fn map(&self, count: usize) -> io::Result<()> {
        if count > self.words.len() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.mapped.fetch_max(count, Ordering::SeqCst);
        Ok(())
    }

    /// Bytes that are mapped.
    pub(super) fn mapped(&self) -> usize {
        self.mapped.load(Ordering::SeqCst) * 8
    }

    /// Bytes of the file that are kept here.
    fn len(&self) -> u64 {
        self.words.len() as u64 * 8
    }

    /// Clears what is kept of the file behind `len`.
    pub(super) fn clear(&self, len: u64) {
        if len < self.len() {
            self.write(&vec![0; (self.len() - len) as usize], len);
        }
    }

    /// Replaces those of the bytes `offset..` that are kept here.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) {
        let parts =
            self.words[self.first(offset)..].iter().map(|word| word.load(Ordering::SeqCst).to_le_bytes());
        let bytes = parts.flatten().skip(offset as usize % 8);
        for (byte, kept) in buf.iter_mut().zip(bytes) {
            *byte = kept;
        }
    }

    /// Stores those of the bytes `offset..` that are kept here.
    pub(super) fn write(&self, buf: &[u8], offset: u64) {
        let words = &self.words[self.first(offset)..];
        // Of the first word, bytes may stay.
        let (head, rest) = buf.split_at(buf.len().min((8 - offset as usize % 8) % 8));
        let parts = if head.is_empty() { None } else { Some(head) };
        let mut at = offset as usize % 8;
        for (word, part) in words.iter().zip(parts.into_iter().chain(rest.chunks(8))) {
            if let Ok(whole) = part.try_into() {
                word.store(u64::from_le_bytes(whole), Ordering::SeqCst);
                continue;
            }
            let put = |old: u64| {
                let mut bytes = old.to_le_bytes();
                bytes[at..at + part.len()].copy_from_slice(part);
                Some(u64::from_le_bytes(bytes))
            };
            // Can't fail: `put` always has a new value.
            let _ = word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, put);
            at = 0;
        }
    }

    /// The word that holds the byte at `offset`, or the end.
    fn first(&self, offset: u64) -> usize {
        usize::try_from(offset / 8).map_or(self.words.len(), |word| word.min(self.words.len()))
    }
}

/// One process's view of [`SharedWords`].
pub(super) struct SimWords {
    shared: Arc<SharedWords>,
    count: usize,
    life: Life,
    /// What the process sees once it is dead: what it does to the words then isn't done.
    ghost: OnceLock<Box<[AtomicU64]>>,
}

impl SimWords {
    pub(super) fn new(shared: Arc<SharedWords>, count: usize, life: Life) -> SimWords {
        SimWords { shared, count, life, ghost: OnceLock::new() }
    }
}

impl Words for SimWords {
    fn words(&self) -> &[AtomicU64] {
        let words = &self.shared.words[..self.count];
        if self.life.check().is_ok() {
            return words;
        }
        let copy = |word: &AtomicU64| AtomicU64::new(word.load(Ordering::SeqCst));
        self.ghost.get_or_init(|| words.iter().map(copy).collect())
    }

    fn wait(&self, index: usize, expected: u64, timeout: Duration) {
        let word = &self.words()[index];
        if self.life.check().is_ok() {
            let mut gate = self.shared.gate.lock();
            if word.load(Ordering::SeqCst) as u32 == expected as u32 {
                self.shared.changed.wait_for(&mut gate, timeout.min(NAP));
            }
        }
    }

    fn wake(&self, _index: usize, count: u32) {
        // The dead wake nobody.
        if count > 0 && self.life.check().is_ok() {
            let _gate = self.shared.gate.lock();
            self.shared.changed.notify_all();
        }
    }
}
