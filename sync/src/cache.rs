//! Frames that were fetched, in a folder that all processes and databases of a user share.
//!
//! A frame is a file under the hash of its bytes, so it is never wrong for being old, and is looked at by its hash each
//! time it is read. What was used least recently goes when there is too much.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tideline_journal::random_id;

use crate::frame::{FrameHash, frame_hash};
use crate::hex;

/// Most bytes, where nobody says otherwise.
const LIMIT: u64 = 1 << 30;
/// What is left when some had to go: so many eighths.
const LEFT: u64 = 7;
/// Bytes that are added before it is looked how many there are.
const LOOK_EVERY: u64 = 16 << 20;
/// A frame that was used is marked so no more often.
const MARK_EVERY: Duration = Duration::from_secs(600);

/// The folder. That it can't be used costs requests, and nothing else.
pub(crate) struct Cache {
    folder: Option<PathBuf>,
    limit: u64,
    added: AtomicU64,
}

impl Cache {
    /// The one in `folder`, or the user's own.
    pub fn new(folder: Option<PathBuf>, limit: Option<u64>) -> Cache {
        let folder = folder.or_else(usual);
        // The first that is added looks.
        Cache { folder, limit: limit.unwrap_or(LIMIT), added: AtomicU64::new(LOOK_EVERY) }
    }

    /// One that keeps nothing.
    pub fn none() -> Cache {
        Cache { folder: None, limit: 0, added: AtomicU64::new(0) }
    }

    fn path(&self, hash: &FrameHash) -> Option<PathBuf> {
        let digits = hex::print(hash);
        Some(self.folder.as_ref()?.join(&digits[..2]).join(&digits[2..]))
    }

    /// A frame of this length, if it is there.
    pub fn get(&self, hash: &FrameHash, len: u32) -> Option<Vec<u8>> {
        let path = self.path(hash)?;
        let bytes = fs::read(&path).ok()?;
        if bytes.len() != len as usize || frame_hash(&bytes) != *hash {
            // Cut short by a power cut, or changed.
            drop(fs::remove_file(&path));
            return None;
        }
        self.mark_used(&path);
        Some(bytes)
    }

    /// True if it is there.
    pub fn has(&self, hash: &FrameHash, len: u32) -> bool {
        self.path(hash)
            .is_some_and(|path| fs::metadata(path).is_ok_and(|found| found.len() == u64::from(len)))
    }

    fn mark_used(&self, path: &Path) {
        let Ok(file) = fs::File::open(path) else { return };
        let old =
            file.metadata().and_then(|found| found.modified()).map(|time| time.elapsed().unwrap_or_default());
        if old.is_ok_and(|age| age > MARK_EVERY) {
            drop(file.set_modified(SystemTime::now()));
        }
    }

    /// Keeps a frame whose hash was compared.
    pub fn put(&self, hash: &FrameHash, bytes: &[u8]) {
        let Some(path) = self.path(hash) else { return };
        if self.write(&path, bytes).is_none() {
            return;
        }
        let added = self.added.fetch_add(bytes.len() as u64, Ordering::Relaxed) + bytes.len() as u64;
        if added >= LOOK_EVERY {
            self.added.store(0, Ordering::Relaxed);
            self.shrink();
        }
    }

    /// Whole, or not at all; who reads it compares its hash, so nothing is synced.
    fn write(&self, path: &Path, bytes: &[u8]) -> Option<()> {
        let folder = path.parent()?;
        private(self.folder.as_ref()?).and_then(|()| private(folder)).ok()?;
        let fresh = folder.join(format!("{}.new", hex::print(&random_id().ok()?)));
        let written = fs::File::create_new(&fresh).and_then(|mut file| file.write_all(bytes));
        let kept = written.and_then(|()| fs::rename(&fresh, path));
        kept.inspect_err(|_| drop(fs::remove_file(&fresh))).ok()
    }

    /// Removes what was used least recently, if there is too much.
    fn shrink(&self) {
        let Some(folder) = &self.folder else { return };
        let mut files = Vec::new();
        for inner in fs::read_dir(folder).into_iter().flatten().flatten() {
            for file in fs::read_dir(inner.path()).into_iter().flatten().flatten() {
                if let Ok(found) = file.metadata() {
                    let used = found.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    files.push((used, found.len(), file.path()));
                }
            }
        }
        let mut bytes: u64 = files.iter().map(|(_, len, _)| len).sum();
        if bytes <= self.limit {
            return;
        }
        files.sort();
        for (_, len, path) in files {
            if bytes <= self.limit / 8 * LEFT {
                break;
            }
            // Somebody else may remove it as well.
            drop(fs::remove_file(path));
            bytes -= len;
        }
    }
}

/// A folder that others can't look into: what is cached are pages of a database.
fn private(folder: &Path) -> std::io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(folder)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// The user's own, if he has a home.
fn usual() -> Option<PathBuf> {
    let named = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = named("XDG_CACHE_HOME")
        .or_else(|| named("HOME").map(|home| home.join(".cache")))
        .or_else(|| named("LOCALAPPDATA"));
    Some(caches?.join("tideline"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_there_and_what_changed_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(Some(folder.path().join("deep/cache")), None);
        let (bytes, hash) = (b"some pages".to_vec(), frame_hash(b"some pages"));
        assert_eq!(cache.get(&hash, 10), None);
        cache.put(&hash, &bytes);
        assert!(cache.has(&hash, 10) && !cache.has(&hash, 11));
        assert_eq!(cache.get(&hash, 10), Some(bytes.clone()));
        fs::write(cache.path(&hash).unwrap(), b"some mages").unwrap();
        assert_eq!(cache.get(&hash, 10), None);
        assert!(!cache.has(&hash, 10), "it is gone");
        // One that can't be used.
        fs::write(folder.path().join("file"), b"").unwrap();
        let none = Cache::new(Some(folder.path().join("file/cache")), None);
        none.put(&hash, &bytes);
        assert_eq!(none.get(&hash, 10), None);
    }

    #[test]
    fn what_was_used_least_recently_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(Some(folder.path().join("cache")), Some(40 << 10));
        let frames: Vec<Vec<u8>> = (0..8u8).map(|n| vec![n; 10 << 10]).collect();
        let hashes: Vec<FrameHash> = frames.iter().map(|frame| frame_hash(frame)).collect();
        for (n, (hash, frame)) in hashes.iter().zip(&frames).enumerate() {
            cache.put(hash, frame);
            let file = fs::File::open(cache.path(hash).unwrap()).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(n as u64)).unwrap();
        }
        // It was used since.
        assert!(cache.get(&hashes[1], 10 << 10).is_some());
        cache.shrink();
        let left: Vec<bool> = hashes.iter().map(|hash| cache.has(hash, 10 << 10)).collect();
        assert_eq!(left, [false, true, false, false, false, false, true, true]);
    }
}
