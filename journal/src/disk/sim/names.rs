//! The folders of a simulated disk: what processes see, what is durable, and the changes between.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::content::Content;
use super::random::Random;
use super::survival::Loss;
use super::words::SharedWords;

/// A file, with or without a name.
pub(super) struct Node {
    /// Its inode number.
    pub(super) id: u64,
    /// When it was last changed.
    pub(super) modified: AtomicU64,
    pub(super) content: Mutex<Content>,
    /// Its first bytes, once somebody has mapped them as words. Locked before `content`.
    pub(super) words: Mutex<Option<Arc<SharedWords>>>,
}

impl Node {
    pub(super) fn new(id: u64, modified: u64, content: Content) -> Node {
        let (modified, content) = (AtomicU64::new(modified), Mutex::new(content));
        Node { id, modified, content, words: Mutex::new(None) }
    }

    /// Reads through the page cache, which mapped words are part of.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let words = self.words.lock();
        let count = self.content.lock().read(buf, offset);
        if let Some(words) = &*words {
            words.read(&mut buf[..count], offset);
        }
        count
    }

    /// Writes in step `step` at the time `now`.
    pub(super) fn write(&self, step: u64, now: u64, buf: &[u8], offset: u64) -> io::Result<()> {
        let words = self.words.lock();
        self.content.lock().write(step, buf, offset)?;
        if let Some(words) = &*words {
            words.write(buf, offset);
        }
        self.modified.store(now, Ordering::SeqCst);
        Ok(())
    }

    /// Sets the length in step `step` at the time `now`.
    pub(super) fn set_len(&self, step: u64, now: u64, len: u64) -> io::Result<()> {
        let words = self.words.lock();
        self.content.lock().set_len(step, len)?;
        if let Some(words) = &*words {
            words.clear(len);
        }
        self.modified.store(now, Ordering::SeqCst);
        Ok(())
    }
}

#[derive(Clone)]
pub(super) enum Entry {
    Dir,
    File(Arc<Node>),
}

impl Entry {
    fn is(&self, other: &Entry) -> bool {
        match (self, other) {
            (Entry::Dir, Entry::Dir) => true,
            (Entry::File(a), Entry::File(b)) => a.id == b.id,
            _ => false,
        }
    }
}

/// What is at each path. Parents sort before what they hold.
pub(super) type Tree = BTreeMap<PathBuf, Entry>;

#[derive(Clone)]
enum Change {
    Put(PathBuf, Entry),
    Gone(PathBuf, Entry),
    Moved(PathBuf, PathBuf, Entry),
}

struct Pending {
    step: u64,
    /// The folder whose sync makes it durable.
    dir: PathBuf,
    change: Change,
}

pub(super) struct Names {
    now: Tree,
    synced: Tree,
    /// Oldest first.
    pending: Vec<Pending>,
}

impl Names {
    /// A disk on which `tree` is durable.
    pub(super) fn found(tree: Tree) -> Names {
        Names { now: tree.clone(), synced: tree, pending: Vec::new() }
    }

    pub(super) fn get(&self, path: &Path) -> Option<&Entry> {
        self.now.get(path)
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<&Arc<Node>> {
        match self.get(path) {
            Some(Entry::File(node)) => Ok(node),
            Some(Entry::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The files that may be found after a power loss.
    pub(super) fn files(&self) -> impl Iterator<Item = &Arc<Node>> {
        let pending = self.pending.iter().map(|pending| match &pending.change {
            Change::Put(_, entry) | Change::Gone(_, entry) | Change::Moved(_, _, entry) => entry,
        });
        self.synced.values().chain(pending).filter_map(|entry| match entry {
            Entry::File(node) => Some(node),
            Entry::Dir => None,
        })
    }

    pub(super) fn dir(&self, path: &Path) -> io::Result<()> {
        match self.get(path) {
            Some(Entry::Dir) => Ok(()),
            Some(Entry::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// An error if nothing can be created at `path`.
    pub(super) fn vacant(&self, path: &Path) -> io::Result<()> {
        self.dir(parent(path)?)?;
        if self.get(path).is_some() { Err(io::ErrorKind::AlreadyExists.into()) } else { Ok(()) }
    }

    /// What is in the folder `dir`.
    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.dir(dir)?;
        let inside = self.now.keys().filter(|path| path.parent() == Some(dir));
        let name = |path: &PathBuf| Some(path.file_name()?.to_string_lossy().into_owned());
        Ok(inside.filter_map(name).collect())
    }

    /// Puts a file or folder at `path`, which is vacant.
    pub(super) fn put(&mut self, step: u64, path: &Path, entry: Entry) -> io::Result<()> {
        self.change(step, path, Change::Put(path.to_owned(), entry))
    }

    pub(super) fn remove(&mut self, step: u64, path: &Path) -> io::Result<()> {
        let entry = self.get(path).cloned().ok_or(io::ErrorKind::NotFound)?;
        self.change(step, path, Change::Gone(path.to_owned(), entry))
    }

    pub(super) fn rename(&mut self, step: u64, from: &Path, to: &Path) -> io::Result<()> {
        let entry = self.get(from).cloned().ok_or(io::ErrorKind::NotFound)?;
        self.change(step, to, Change::Moved(from.to_owned(), to.to_owned(), entry))
    }

    fn change(&mut self, step: u64, path: &Path, change: Change) -> io::Result<()> {
        let dir = parent(path)?.to_owned();
        apply(&mut self.now, &change);
        self.pending.push(Pending { step, dir, change });
        Ok(())
    }

    /// Step of the oldest change that isn't durable.
    pub(super) fn oldest_pending(&self) -> Option<u64> {
        self.pending.first().map(|pending| pending.step)
    }

    /// Makes the changes in `dir` durable.
    pub(super) fn sync(&mut self, dir: &Path) {
        self.settle(dir, |_| true);
    }

    /// The sync of `dir` fails: some of its changes are durable, and the others never will be.
    pub(super) fn fail_sync(&mut self, dir: &Path, random: &mut Random) {
        self.settle(dir, |_| random.coin());
    }

    fn settle(&mut self, dir: &Path, mut durable: impl FnMut(&Pending) -> bool) {
        let (settled, rest) = std::mem::take(&mut self.pending).into_iter().partition(|p| p.dir == dir);
        self.pending = rest;
        let settled: Vec<Pending> = settled;
        for pending in settled {
            if !durable(&pending) {
                continue;
            }
            apply(&mut self.synced, &pending.change);
            if let Change::Moved(from, _, entry) = &pending.change {
                // Its creation elsewhere, if that wasn't durable, never comes back.
                self.pending.retain(
                    |older| !matches!(&older.change, Change::Put(path, put) if path == from && put.is(entry)),
                );
            }
        }
    }

    /// What is there after `loss`.
    pub(super) fn survivor(&self, loss: Loss, random: &mut Random) -> Tree {
        let mut tree = self.synced.clone();
        for pending in &self.pending {
            if loss.spares(pending.step, random) {
                apply(&mut tree, &pending.change);
            }
        }
        let mut whole = Tree::new();
        for (path, entry) in tree {
            // Nothing is left of a folder whose own name is lost.
            let held = path.parent().is_none_or(|dir| matches!(whole.get(dir), Some(Entry::Dir)));
            if held {
                whole.insert(path, entry);
            }
        }
        whole
    }
}

/// Does `change` as far as `tree`, where an earlier one may have been lost, allows it.
fn apply(tree: &mut Tree, change: &Change) {
    let take = |tree: &mut Tree, path: &Path, entry: &Entry| {
        if tree.get(path).is_some_and(|there| there.is(entry)) {
            tree.remove(path);
        }
    };
    match change {
        Change::Put(path, entry) => {
            tree.insert(path.clone(), entry.clone());
        }
        Change::Gone(path, entry) => {
            take(tree, path, entry);
            if matches!(entry, Entry::Dir) {
                // It was empty.
                tree.retain(|inside, _| inside.parent() != Some(path));
            }
        }
        Change::Moved(from, to, entry) => {
            take(tree, from, entry);
            tree.insert(to.clone(), entry.clone());
        }
    }
}

pub(super) fn parent(path: &Path) -> io::Result<&Path> {
    if !path.is_absolute() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "paths are absolute"));
    }
    path.parent().ok_or_else(|| io::ErrorKind::InvalidInput.into())
}
