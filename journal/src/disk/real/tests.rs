use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::*;
use crate::disk::SLICE_SLACK;
use crate::disk::mmap::testing;

/// Bytes in the small windows that these tests use.
const SMALL: u64 = 4096;

/// Bytes that a window of [`SMALL`] bytes maps beyond its own.
const OVERLAP: u64 = 65536 + 4096;

/// A disk whose files cross windows soon.
fn small() -> RealDisk {
    RealDisk { mapping: true, window: SMALL, kept_window: SMALL }
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// `len` bytes that differ from their neighbours and from those of another `salt`.
fn noise(salt: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ salt).collect()
}

/// How many descriptors of this process refer to files below `path`.
fn descriptors(path: &Path) -> usize {
    let links = fs::read_dir("/proc/self/fd").unwrap();
    let targets = links.filter_map(|link| fs::read_link(link.ok()?.path()).ok());
    targets.filter(|target| target.starts_with(path)).count()
}

#[test]
fn slices_mapped_writes_and_calls_agree() {
    let dir = dir();
    let (path, len) = (dir.path().join("a"), 40 * SMALL);
    let (mapped, plain) = (small(), RealDisk::with_mapping(false));
    let file = mapped.open(&path, How::CreateNew).unwrap();
    file.allocate(len).unwrap();
    assert_eq!(file.len().unwrap(), len);
    file.warm(0..len / 2);
    let other = plain.open(&path, How::Write).unwrap();
    assert!(other.slice(0, 1).is_none());
    for (turn, (offset, size)) in
        [(0, 100), (4000, 200), (8192, 4096), (3 * SMALL - 1, 65536), (5, 100_000)].into_iter().enumerate()
    {
        let bytes = noise(turn as u8, size);
        let (writer, reader) = if turn % 2 == 0 { (&file, &other) } else { (&other, &file) };
        writer.write_at(&bytes, offset).unwrap();
        let mut found = vec![0; size];
        assert_eq!(reader.read_at(&mut found, offset).unwrap(), size);
        assert!(found == bytes, "turn {turn}");
        if let Some(slice) = file.slice(offset, size) {
            assert!(slice == bytes, "turn {turn}");
        } else {
            assert!(size > 65536);
        }
    }
    file.sync().unwrap();
}

#[test]
fn a_file_is_warm_until_it_is_synced_or_shortened() {
    let dir = dir();
    let path = dir.path().join("a");
    let handle = Arc::new(Handle::open(&path, How::CreateNew, false).unwrap());
    let file = RealDisk::new().file(handle.clone(), How::CreateNew, false);
    assert!(!file.warm.write(b"x", 0));
    file.set_len(3 * SMALL).unwrap();
    file.allocate(2 * SMALL).unwrap();
    assert_eq!(file.len().unwrap(), 3 * SMALL, "never shortens");
    file.warm(0..2 * SMALL);
    // In parts, the end of one being the start of the next.
    file.warm(SMALL..3 * SMALL);
    if !file.warm.write(b"x", 0) {
        return; // The file system isn't one to map for writing.
    }
    assert!(file.warm.write(b"x", 3 * SMALL - 1));
    assert!(!file.warm.write(b"xy", 3 * SMALL - 1));
    assert!(!file.warm.write(b"x", u64::MAX));
    assert!(file.warm.write(b"x", 2 * SMALL - 1) && !file.warm.write(b"xy", 2 * SMALL - 1));
    // What doesn't fit goes the other way.
    file.write_at(&noise(9, SMALL as usize), 3 * SMALL - 100).unwrap();
    file.write_at(&noise(8, 200), 100).unwrap();
    let mut found = vec![0; 200];
    assert_eq!(file.read_at(&mut found, 100).unwrap(), 200);
    assert_eq!(found, noise(8, 200));
    file.sync().unwrap();
    assert!(!file.warm.write(b"x", 0));
    for cool in [|file: &RealFile| file.set_len(SMALL).unwrap(), |file: &RealFile| file.begin_sync()] {
        file.warm(0..SMALL);
        assert!(file.warm.write(b"x", SMALL - 1));
        cool(&file);
        assert!(!file.warm.write(b"x", SMALL - 1));
    }
    let plain = RealDisk::with_mapping(false).file(handle, How::Write, false);
    plain.warm(0..SMALL);
    assert!(!plain.warm.write(b"x", 0));
}

#[test]
fn a_slice_needs_its_slack_within_the_last_memory_page_and_one_window() {
    let dir = dir();
    let file = small().open(&dir.path().join("a"), How::CreateNew).unwrap();
    let slack = SLICE_SLACK as u64;
    assert!(file.slice(0, 1).is_none(), "an empty file has no readable page");
    file.write_at(&noise(1, 5000), 0).unwrap();
    // Readable up to 8192.
    assert_eq!(file.slice(0, 5000).unwrap(), noise(1, 5000));
    assert!(file.slice(8192 - slack - 10, 10).is_some());
    assert!(file.slice(8192 - slack - 10, 11).is_none());
    assert!(file.slice(u64::MAX, 10).is_none());
    assert!(file.slice(0, usize::MAX).is_none());
    // Growth is noticed, shrinking forgotten at once.
    file.set_len(100 * SMALL).unwrap();
    assert!(file.slice(8192 - slack - 10, 11).is_some());
    let window = (SMALL + OVERLAP - slack) as usize;
    assert!(file.slice(SMALL, window).is_some());
    assert!(file.slice(SMALL, window + 1).is_none());
    file.set_len(SMALL).unwrap();
    assert!(file.slice(SMALL, 10).is_none());
    assert!(file.slice(0, 10).is_some());
    file.set_len(100 * SMALL).unwrap();
    assert_eq!(file.slice(SMALL, 10).unwrap(), [0; 10]);
}

#[test]
fn reading_past_the_end_is_short() {
    let dir = dir();
    let path = dir.path().join("a");
    let disk = RealDisk::new();
    assert_eq!(disk.open(&path, How::Write).err().unwrap().kind(), io::ErrorKind::NotFound);
    let file = disk.open(&path, How::Create).unwrap();
    assert_eq!(disk.open(&path, How::CreateNew).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
    file.write_at(b"hello", 3).unwrap();
    let mut buf = [9; 10];
    assert_eq!(file.read_at(&mut buf, 0).unwrap(), 8);
    assert_eq!(buf, *b"\0\0\0hello\x09\x09");
    assert_eq!(file.read_at(&mut buf, 8).unwrap(), 0);
    let readonly = disk.open(&path, How::Read).unwrap();
    assert!(readonly.write_at(b"x", 0).is_err());
    assert!(readonly.set_len(0).is_err());
    assert!(readonly.allocate(1).is_err());
    let identity = readonly.identity().unwrap();
    assert_eq!(identity, file.identity().unwrap());
    assert_eq!(identity.len, 8);
    assert!(identity.inode != 0 && identity.modified_ns != 0);
}

#[test]
fn folders() {
    let dir = dir();
    let (disk, base) = (RealDisk::new(), dir.path().join("app.db"));
    let side = dir.path().join("app.db-tide");
    disk.open(&base, How::Create).unwrap();
    fs::set_permissions(&base, fs::Permissions::from_mode(0o640)).unwrap();
    disk.create_dir(&side).unwrap();
    assert_eq!(disk.create_dir(&side).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::metadata(&side).unwrap().mode() & 0o777, 0o700);
    disk.copy_owner(&base, &side).unwrap();
    assert_eq!(fs::metadata(&side).unwrap().mode() & 0o777, 0o750);
    let (one, two) = (side.join("1"), side.join("2"));
    disk.open(&one, How::CreateNew).unwrap();
    disk.copy_owner(&base, &one).unwrap();
    assert_eq!(fs::metadata(&one).unwrap().mode() & 0o777, 0o640);
    assert_eq!(disk.list(&side).unwrap(), ["1"]);
    disk.rename(&one, &two).unwrap();
    assert!(!disk.exists(&one).unwrap() && disk.exists(&two).unwrap());
    disk.sync_dir(&side).unwrap();
    assert!(disk.remove_dir(&side).is_err());
    disk.remove(&two).unwrap();
    disk.remove_dir(&side).unwrap();
    assert!(!disk.exists(&side).unwrap());
    assert!(!is_network(dir.path()).unwrap());
    assert!(is_network(&side).is_err());
}

#[test]
fn locks_belong_to_the_open_file() {
    let dir = dir();
    let (disk, path) = (RealDisk::new(), dir.path().join("a"));
    let one = disk.open(&path, How::Create).unwrap();
    let two = disk.open(&path, How::Write).unwrap();
    assert!(one.lock(0x4000_0002, 1, LockKind::Read).unwrap());
    assert!(!one.locked_by_other(0, 1 << 40).unwrap());
    assert!(two.locked_by_other(0, 1 << 40).unwrap());
    assert!(!two.locked_by_other(0, 0x4000_0002).unwrap());
    assert!(two.lock(0x4000_0002, 1, LockKind::Read).unwrap());
    assert!(!one.lock(0x4000_0002, 1, LockKind::Write).unwrap());
    two.unlock(0x4000_0002, 1).unwrap();
    assert!(one.lock(0x4000_0002, 1, LockKind::Write).unwrap());
    assert!(!two.lock(0x4000_0002, 1, LockKind::Read).unwrap());
    assert!(one.lock(0x4000_0002, 1, LockKind::Read).unwrap());
    assert!(two.lock(0x4000_0002, 1, LockKind::Read).unwrap());
    drop(two);
    assert!(!one.locked_by_other(0, i64::MAX as u64).unwrap());
    for (offset, len) in [(0, 0), (u64::MAX, 1), (i64::MAX as u64, 2)] {
        assert_eq!(one.lock(offset, len, LockKind::Read).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
    assert!(one.lock(i64::MAX as u64, 1, LockKind::Write).unwrap());
}

/// Tries, as another process, for a POSIX write lock on the first byte of `path`.
fn posix_locked(path: &Path) -> bool {
    let pid = testing::fork(|| {
        let file = fs::OpenOptions::new().read(true).write(true).open(path);
        file.map_or(2, |file| i32::from(!posix_lock(&file)))
    });
    match testing::wait(pid) {
        0 => false,
        1 => true,
        code => panic!("child said {code}"),
    }
}

fn posix_lock(file: &fs::File) -> bool {
    let request = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 1,
        l_pid: 0,
    };
    nix::fcntl::fcntl(file, nix::fcntl::FcntlArg::F_SETLK(&request)).is_ok()
}

#[test]
fn a_kept_file_never_drops_the_hosts_posix_locks() {
    let dir = dir();
    let (disk, path) = (small(), dir.path().join("app.db"));
    let host =
        fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
    host.set_len(2 * SMALL).unwrap();
    assert!(posix_lock(&host));
    assert!(posix_locked(&path));
    for how in [How::Write, How::Read, How::Create] {
        let file = disk.open_kept(&path, how).unwrap();
        assert!(file.lock(0x4000_0002, 1, LockKind::Read).unwrap());
        assert!(file.slice(0, 10).is_some());
        drop(file);
        assert!(posix_locked(&path));
        // One for the bytes, one for the locks, and the host's.
        assert_eq!(descriptors(&path), 3);
    }
    // In use twice at a time, with locks of their own.
    let (one, two) = (disk.open_kept(&path, How::Write).unwrap(), disk.open_kept(&path, How::Read).unwrap());
    assert!(one.lock(7, 1, LockKind::Write).unwrap());
    assert!(!two.lock(7, 1, LockKind::Read).unwrap());
    assert!(two.write_at(b"x", 0).is_err());
    drop(one);
    assert!(two.lock(7, 1, LockKind::Read).unwrap());
    drop(two);
    assert!(posix_locked(&path));
    assert!(disk.open_kept(&path, How::CreateNew).is_err());
    // The canary: what any other file does to them.
    drop(disk.open(&path, How::Read).unwrap());
    assert!(!posix_locked(&path));
}

#[test]
fn what_is_parked_of_a_removed_file_is_closed_unless_the_host_has_it_open() {
    let dir = tempfile::tempdir().unwrap();
    let disk = RealDisk::default();
    let [gone, host, other] = ["gone", "host", "other"].map(|name| dir.path().join(name));
    let own = fs::File::create(&host).unwrap();
    for path in [&gone, &host] {
        let file = disk.open_kept(path, How::Create).unwrap();
        assert!(file.lock(0, 1, LockKind::Write).unwrap());
    }
    let descriptors = |path: &Path| {
        let removed = format!("{} (deleted)", path.display());
        let open =
            fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        open.filter(|link| link.as_os_str() == removed.as_str()).count()
    };
    fs::remove_file(&gone).unwrap();
    fs::remove_file(&host).unwrap();
    let with_locks = descriptors(&gone);
    assert!(with_locks > 0 && descriptors(&host) == with_locks + 1);
    drop(disk.open_kept(&other, How::Create).unwrap());
    assert_eq!(descriptors(&gone), 0);
    assert_eq!(descriptors(&host), with_locks + 1);
    drop(own);
    drop(disk.open_kept(&other, How::Create).unwrap());
    assert_eq!(descriptors(&host), 0);
}

#[test]
fn what_is_parked_is_closed_in_the_end_unless_the_host_has_it_open() {
    let dir = dir();
    let disk = RealDisk::new();
    let host = dir.path().join("host");
    let kept = fs::File::create(&host).unwrap();
    drop(disk.open_kept(&host, How::Write).unwrap());
    let busy = disk.open_kept(&dir.path().join("busy"), How::Create).unwrap();
    assert!(busy.lock(0, 1, LockKind::Write).unwrap());
    for number in 0..100 {
        let file = disk.open_kept(&dir.path().join(number.to_string()), How::Create).unwrap();
        assert!(file.lock(0, 1, LockKind::Write).unwrap());
    }
    assert_eq!(descriptors(&host), 2);
    assert_eq!(descriptors(&dir.path().join("busy")), 2);
    // The oldest are gone; each that is left has two descriptors.
    assert_eq!(descriptors(&dir.path().join("0")), 0);
    assert_eq!(descriptors(&dir.path().join("99")), 2);
    assert!(descriptors(dir.path()) <= 2 * 64 + 4);
    drop(kept);
}

#[test]
fn a_child_has_none_of_its_parents_files() {
    let dir = dir();
    let (disk, path) = (small(), dir.path().join("a"));
    let file = disk.open(&path, How::Create).unwrap();
    let kept = disk.open_kept(&path, How::Write).unwrap();
    file.set_len(8192).unwrap();
    assert!(file.lock(0, 1, LockKind::Write).unwrap());
    assert!(file.slice(0, 10).is_some());
    let generation = fork_generation();
    // The parent's stay open until the child is over.
    let mut files = Some((file, kept));
    let pid = testing::fork(|| {
        let Some((file, kept)) = files.take() else {
            return 9;
        };
        if fork_generation() != generation + 1 {
            return 1;
        }
        let mut buf = [0];
        let refused = file.len().is_err()
            && file.read_at(&mut buf, 0).is_err()
            && file.write_at(b"x", 0).is_err()
            && file.sync().is_err()
            && file.slice(0, 10).is_none()
            && file.lock(5, 1, LockKind::Read).is_err()
            && file.unlock(0, 1).is_err()
            && file.locked_by_other(0, 1).is_err()
            && kept.unlock(0, 1).is_err()
            && kept.identity().is_err();
        if !refused || descriptors(&path) != 0 {
            return 2;
        }
        // These take the numbers that were closed, and keep them.
        let own: Vec<_> = (0..8).map(|_| fs::File::open(&path)).collect();
        drop((file, kept));
        if !own.iter().all(|file| file.as_ref().is_ok_and(|file| file.metadata().is_ok())) {
            return 3;
        }
        // The parent's locks stand, and the disk is usable anew.
        let Ok(file) = disk.open_kept(&path, How::Write) else {
            return 4;
        };
        match (file.lock(0, 1, LockKind::Read), file.lock(1, 1, LockKind::Write)) {
            (Ok(false), Ok(true)) => 0,
            _ => 5,
        }
    });
    assert_eq!(testing::wait(pid), 0);
}

#[test]
fn a_child_keeps_no_lock_of_a_dead_parent() {
    let dir = dir();
    let (disk, path) = (small(), dir.path().join("a"));
    disk.open(&path, How::Create).unwrap().set_len(4 * SMALL).unwrap();
    let (mut released, release) = io::pipe().unwrap();
    let (mut ready, ready_end) = io::pipe().unwrap();
    let pid = testing::fork(|| {
        // So that the grandchild ends with the test, whatever becomes of it.
        let _ = nix::unistd::close(release.as_raw_fd());
        let kept = disk.open_kept(&path, How::Write).unwrap();
        let slot = disk.open(&path, How::Write).unwrap();
        // Mapped, in use, and inherited by the grandchild, mappings and all.
        let _ = (kept.slice(0, 100).unwrap(), slot.slice(0, 100).unwrap());
        if !kept.lock(1, 1, LockKind::Write).unwrap() || !slot.lock(2, 1, LockKind::Write).unwrap() {
            return 1;
        }
        let mut ready_end = ready_end;
        testing::fork(move || {
            ready_end.write_all(b"born").unwrap();
            let _ = released.read(&mut [0]);
            ready_end.write_all(b"alive").unwrap();
            0
        });
        // Ends without a destructor, like a killed process.
        std::mem::forget((kept, slot));
        0
    });
    let mut born = [0; 4];
    ready.read_exact(&mut born).unwrap();
    assert_eq!(testing::wait(pid), 0);
    let file = disk.open(&path, How::Write).unwrap();
    assert!(!file.locked_by_other(0, 100).unwrap());
    drop(release);
    let mut last = String::new();
    ready.read_to_string(&mut last).unwrap();
    assert_eq!(last, "alive");
}

#[test]
fn standard_streams_numbers_are_left_alone() {
    let dir = dir();
    let path = dir.path().join("a");
    let pid = testing::fork(|| {
        for number in 0..3 {
            let _ = nix::unistd::close(number);
        }
        match Handle::open(&path, How::Create, false) {
            Ok(handle) => i32::from(handle.data().unwrap().as_raw_fd() <= 2),
            Err(_) => 2,
        }
    });
    assert_eq!(testing::wait(pid), 0);
}

#[test]
fn words_are_shared_and_wake_other_processes() {
    let dir = dir();
    let (disk, path) = (RealDisk::with_mapping(false), dir.path().join("control"));
    disk.open(&path, How::Create).unwrap().write_at(&7_u64.to_le_bytes(), 8).unwrap();
    let words = disk.words(&path, 1000).unwrap();
    assert_eq!(words.words().len(), 1000);
    assert_eq!(fs::metadata(&path).unwrap().len(), 8000);
    assert_eq!(words.words()[1].load(Ordering::SeqCst), 7);
    let again = disk.words(&path, 10).unwrap();
    again.words()[9].store(5, Ordering::SeqCst);
    assert_eq!(words.words()[9].load(Ordering::SeqCst), 5);
    assert_eq!(fs::metadata(&path).unwrap().len(), 8000, "never shortened");

    // Only the low half is compared.
    let start = Instant::now();
    words.wait(1, 8, Duration::from_secs(60));
    words.wait(1, 7 + (1 << 32), Duration::from_millis(30));
    assert!(start.elapsed() >= Duration::from_millis(25) && start.elapsed() < Duration::from_secs(30));

    let pid = testing::fork(|| {
        std::thread::sleep(Duration::from_millis(20));
        let Ok(words) = disk.words(&path, 1000) else {
            return 1;
        };
        words.words()[1].store(9, Ordering::SeqCst);
        words.wake(1, 1);
        0
    });
    while words.words()[1].load(Ordering::SeqCst) == 7 {
        words.wait(1, 7, Duration::from_secs(60));
    }
    assert!(start.elapsed() < Duration::from_secs(30));
    assert_eq!(testing::wait(pid), 0);
}
