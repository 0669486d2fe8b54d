use std::time::Duration;

use super::*;
use crate::disk::LockKind;

const DB: &str = "/a.db";

fn open(disk: &Arc<SimDisk>, path: &str, how: How) -> Arc<dyn File> {
    disk.process().open(path.as_ref(), how).unwrap()
}

fn contents(disk: &Arc<SimDisk>, path: &str) -> Vec<u8> {
    let file = open(disk, path, How::Read);
    let mut bytes = vec![0; file.len().unwrap() as usize];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    bytes
}

/// A disk with one durable file of `len` bytes `byte`, open.
fn durable_at(path: &str, byte: u8, len: usize) -> (Arc<SimDisk>, Arc<dyn File>) {
    let disk = SimDisk::new();
    let process = disk.process();
    let file = process.open(path.as_ref(), How::CreateNew).unwrap();
    process.sync_dir("/".as_ref()).unwrap();
    file.write_at(&vec![byte; len], 0).unwrap();
    file.sync().unwrap();
    (disk, file)
}

fn durable(byte: u8, len: usize) -> (Arc<SimDisk>, Arc<dyn File>) {
    durable_at(DB, byte, len)
}

/// What is found at [`DB`] after each of many reboots.
fn outcomes(disk: &Arc<SimDisk>) -> Vec<Vec<u8>> {
    (0..300).map(|seed| contents(&disk.reboot(seed), DB)).collect()
}

fn seen(outcomes: &[Vec<u8>], wanted: impl Fn(&[u8]) -> bool) -> bool {
    outcomes.iter().any(|bytes| wanted(bytes))
}

#[test]
fn what_was_synced_stays_and_sectors_of_the_rest_are_old_or_new() {
    let (disk, file) = durable(1, 4096);
    file.write_at(&[2; 2048], 0).unwrap();
    file.write_at(&[3; 1024], 512).unwrap();
    let outcomes = outcomes(&disk);
    for bytes in &outcomes {
        assert_eq!(bytes.len(), 4096);
        for (index, sector) in bytes.chunks(512).enumerate() {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "sectors don't tear");
            let possible: &[u8] = match index {
                0 | 3 => &[1, 2],
                1 | 2 => &[1, 2, 3],
                _ => &[1],
            };
            assert!(possible.contains(&sector[0]), "sector {index} has {}", sector[0]);
        }
    }
    assert!(seen(&outcomes, |b| b == [1; 4096]));
    assert!(seen(&outcomes, |b| b[..512] == [2; 512] && b[512..1536] == [3; 1024] && b[1536] == 2));
    // The second without the first, one half of a write, and an intermediate version.
    assert!(seen(&outcomes, |b| b[0] == 1 && b[512] == 3));
    assert!(seen(&outcomes, |b| b[512] == 3 && b[1024] == 1));
    assert!(seen(&outcomes, |b| b[512] == 2 && b[1024] == 3));
}

#[test]
fn equal_seeds_give_equal_disks() {
    let run = |seed| {
        let (disk, file) = durable(1, 2000);
        for step in 0..20 {
            file.write_at(&[step; 700], u64::from(step) * 300).unwrap();
        }
        disk.process().rename(DB.as_ref(), "/b.db".as_ref()).unwrap();
        let found = disk.reboot(seed);
        let names = found.process().list("/".as_ref()).unwrap();
        let bytes: Vec<_> = names.iter().map(|name| contents(&found, &format!("/{name}"))).collect();
        (names, bytes)
    };
    let all: Vec<_> = (0..50).map(run).collect();
    assert_eq!(all, (0..50).map(run).collect::<Vec<_>>());
    assert!(all.iter().any(|one| *one != all[0]));
}

#[test]
fn lengths_are_old_or_new_and_what_was_never_written_is_zero() {
    let (disk, file) = durable(1, 1000);
    file.write_at(&[2; 1000], 2000).unwrap();
    file.allocate(5000).unwrap();
    let outcomes = outcomes(&disk);
    for bytes in &outcomes {
        assert!([1000, 3000, 5000].contains(&bytes.len()));
        assert_eq!(bytes[..1000], [1; 1000]);
        for (at, byte) in bytes.iter().enumerate().skip(1000) {
            assert!(*byte == 0 || (*byte == 2 && (2000..3000).contains(&at)));
        }
    }
    for len in [1000, 3000, 5000] {
        assert!(seen(&outcomes, |b| b.len() == len));
    }
    assert!(seen(&outcomes, |b| b.len() == 3000 && b[2000..] == [0; 1000]), "length without the bytes");
}

#[test]
fn a_file_cut_off_and_written_again_never_mixes() {
    let cut_off = || {
        let (disk, file) = durable(1, 2048);
        file.set_len(512).unwrap();
        file.write_at(&[2; 512], 1024).unwrap();
        (disk, file)
    };
    let outcomes = outcomes(&cut_off().0);
    for bytes in &outcomes {
        assert_eq!(bytes[..512], [1; 512]);
        match bytes.len() {
            512 => {}
            1536 => {
                assert_eq!(bytes[512..1024], [0; 512], "what was cut off doesn't come back");
                assert!(bytes[1024..] == [0; 512] || bytes[1024..] == [2; 512]);
            }
            2048 => assert_eq!(bytes[512..], [1; 1536]),
            len => panic!("length {len}"),
        }
    }
    for len in [512, 1536, 2048] {
        assert!(seen(&outcomes, |b| b.len() == len));
    }
    let (disk, file) = cut_off();
    file.sync().unwrap();
    for seed in 0..50 {
        let bytes = contents(&disk.reboot(seed), DB);
        assert_eq!(bytes, [vec![1; 512], vec![0; 512], vec![2; 512]].concat());
    }
}

#[test]
fn names_are_durable_with_their_folder_only() {
    let disk = SimDisk::new();
    let process = disk.process();
    let path = |name: &str| Path::new("/d").join(name);
    let create = |name: &str| {
        let file = process.open(&path(name), How::CreateNew).unwrap();
        file.write_at(name.as_bytes(), 0).unwrap();
        file.sync().unwrap();
    };
    process.create_dir("/d".as_ref()).unwrap();
    process.sync_dir("/".as_ref()).unwrap();
    ["old", "target", "gone"].into_iter().for_each(create);
    process.sync_dir("/d".as_ref()).unwrap();
    create("fresh");
    process.rename(&path("old"), &path("target")).unwrap();
    process.remove(&path("gone")).unwrap();
    assert!(process.remove_dir("/d".as_ref()).is_err());

    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..300 {
        let found = disk.reboot(seed);
        let mut files = Vec::new();
        for name in found.process().list("/d".as_ref()).unwrap() {
            let bytes = contents(&found, &format!("/d/{name}"));
            files.push((name, String::from_utf8(bytes).unwrap()));
        }
        seen.insert(files);
    }
    let pair = |name: &str, bytes: &str| (name.to_owned(), bytes.to_owned());
    let mut expected = std::collections::BTreeSet::new();
    for outcome in 0..8 {
        let mut files = Vec::new();
        if outcome & 1 != 0 {
            files.push(pair("fresh", "fresh"));
        }
        if outcome & 2 != 0 {
            files.push(pair("gone", "gone"));
        }
        if outcome & 4 != 0 {
            files.extend([pair("old", "old"), pair("target", "target")]);
        } else {
            files.push(pair("target", "old"));
        }
        expected.insert(files);
    }
    assert_eq!(seen, expected);
}

#[test]
fn a_lost_folder_takes_its_files_along() {
    let disk = SimDisk::new();
    let process = disk.process();
    process.create_dir("/d".as_ref()).unwrap();
    process.open("/d/f".as_ref(), How::Create).unwrap();
    process.sync_dir("/d".as_ref()).unwrap();
    let found: Vec<_> = (0..50)
        .map(|seed| {
            let process = disk.reboot(seed).process();
            (process.exists("/d".as_ref()).unwrap(), process.exists("/d/f".as_ref()).unwrap())
        })
        .collect();
    assert!(found.contains(&(true, true)) && found.contains(&(false, false)));
    assert!(!found.contains(&(false, true)) && !found.contains(&(true, false)));
}

#[test]
fn the_power_goes_in_a_step() {
    let mut torn = false;
    for cut in 0..4 {
        let (disk, file) = durable(1, 2048);
        let first = disk.steps();
        disk.cut_at(first + cut);
        let results = [
            file.write_at(&[2; 2048], 0).is_ok(),
            file.sync().is_ok(),
            file.write_at(&[3; 2048], 0).is_ok(),
            file.sync().is_ok(),
        ];
        assert_eq!(results.map(usize::from).iter().sum::<usize>() as u64, cut);
        let error = file.read_at(&mut [0], 0).unwrap_err();
        assert_eq!(error.to_string(), "power is off");
        assert!(disk.process().open(DB.as_ref(), How::Read).is_err());
        assert_eq!(disk.steps(), first + cut + 1, "what fails at once is no step");
        for bytes in outcomes(&disk) {
            let (least, most) = ([1, 1, 2, 2][cut as usize], [2, 2, 3, 3][cut as usize]);
            assert!(bytes.iter().all(|byte| *byte == least || *byte == most));
            torn |= bytes[0] != bytes[2047];
        }
    }
    assert!(torn);
    let (disk, file) = durable(1, 10);
    disk.cut_at(0);
    assert!(file.len().is_err(), "a step that is over cuts at once");
}

#[test]
fn steps_are_counted_and_described() {
    let (disk, file) = durable(1, 10);
    let process = disk.process();
    let before = disk.steps();
    file.read_at(&mut [0], 0).unwrap();
    process.open(DB.as_ref(), How::Create).unwrap();
    assert!(process.create_dir("/".as_ref()).is_err());
    assert_eq!(disk.steps(), before);
    file.set_len(20).unwrap();
    file.write_at(b"xy", 3).unwrap();
    process.words(DB.as_ref(), 1).unwrap();
    assert_eq!(disk.steps(), before + 2);
    process.words(DB.as_ref(), 10).unwrap();
    assert_eq!(disk.steps(), before + 3);
    assert_eq!(disk.describe(0).unwrap(), "create /a.db");
    assert_eq!(disk.describe(before + 1).unwrap(), "write_at /a.db 3..5");
    assert_eq!(disk.describe(before + 3), None);
}

#[test]
fn killing_a_process_frees_its_locks_and_keeps_its_bytes() {
    let (disk, keeper) = durable(1, 10);
    let process = disk.process();
    let file = process.open(DB.as_ref(), How::Write).unwrap();
    let words = process.words(DB.as_ref(), 4).unwrap();
    assert!(file.lock(5, 10, LockKind::Write).unwrap());
    assert!(keeper.locked_by_other(14, 1).unwrap());
    assert!(!keeper.lock(0, 6, LockKind::Read).unwrap());
    file.write_at(&[2; 4], 32).unwrap();
    words.words()[0].store(77, Ordering::SeqCst);
    process.kill();
    assert!(file.write_at(&[3; 4], 32).is_err());
    assert!(file.unlock(5, 10).is_err());
    words.words()[0].store(88, Ordering::SeqCst);
    assert!(keeper.lock(0, 20, LockKind::Write).unwrap());
    let mut bytes = [0; 4];
    keeper.read_at(&mut bytes, 32).unwrap();
    assert_eq!(bytes, [2; 4]);
    let others = disk.process().words(DB.as_ref(), 4).unwrap();
    assert_eq!(others.words()[0].load(Ordering::SeqCst), 77, "what the dead do isn't done");
}

#[test]
fn locks_split_and_change() {
    let (disk, one) = durable(1, 10);
    let two = open(&disk, DB, How::Write);
    assert!(one.lock(0, 100, LockKind::Write).unwrap());
    one.unlock(40, 20).unwrap();
    assert!(two.lock(40, 20, LockKind::Write).unwrap());
    assert!(!two.lock(39, 1, LockKind::Read).unwrap() && !two.lock(60, 1, LockKind::Read).unwrap());
    assert!(one.lock(60, 40, LockKind::Read).unwrap());
    assert!(two.lock(60, 1, LockKind::Read).unwrap());
    assert!(!two.lock(60, 1, LockKind::Write).unwrap());
    assert!(one.lock(99, 0, LockKind::Read).is_err());
    drop(one);
    assert!(two.lock(0, i64::MAX as u64, LockKind::Write).unwrap());
}

#[test]
fn words_are_shared_wake_and_are_garbage_after_a_reboot() {
    let (disk, file) = durable(1, 16);
    file.write_at(&7_u64.to_le_bytes(), 8).unwrap();
    let words = disk.process().words(DB.as_ref(), 4).unwrap();
    assert_eq!(words.words().len(), 4);
    assert_eq!(words.words()[1].load(Ordering::SeqCst), 7);
    let other = disk.process().words(DB.as_ref(), 4).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            other.words()[1].store(0x0102, Ordering::SeqCst);
            other.wake(1, 1);
        });
        while words.words()[1].load(Ordering::SeqCst) == 7 {
            words.wait(1, 7, Duration::from_secs(60));
        }
    });
    let mut bytes = [0; 3];
    file.read_at(&mut bytes, 8).unwrap();
    assert_eq!(bytes, [2, 1, 0], "the file shows what the words hold");
    file.write_at(&[5], 9).unwrap();
    assert_eq!(words.words()[1].load(Ordering::SeqCst), 0x0502);
    file.sync().unwrap();
    let found: Vec<_> = (0..2).map(|seed| contents(&disk.reboot(seed), DB)).collect();
    assert_ne!(found[0], found[1]);
    assert_eq!(found[0].len(), 32);
}

#[test]
fn failed_writes_may_have_begun() {
    // Those of a segment may be copies into a mapping, which a signal ends anywhere.
    const SEGMENT: &str = "/00000001.seg";
    let mut reached = std::collections::BTreeSet::new();
    for (kind, path) in [
        (FaultKind::Io, SEGMENT),
        (FaultKind::NoSpace, SEGMENT),
        (FaultKind::Kill, SEGMENT),
        (FaultKind::Kill, DB),
    ] {
        for salt in 0..40 {
            let (disk, file) = durable_at(path, 1, 2048);
            for _ in 0..salt {
                file.sync().unwrap();
            }
            disk.fail(disk.steps(), kind);
            let error = file.write_at(&[2; 2048], 0).unwrap_err();
            match kind {
                FaultKind::NoSpace => assert_eq!(error.kind(), io::ErrorKind::StorageFull),
                FaultKind::Kill => assert_eq!(error.to_string(), "process was killed"),
                _ => assert_eq!(error.raw_os_error(), Some(libc::EIO)),
            }
            assert_eq!(file.write_at(&[1; 0], 0).is_ok(), kind != FaultKind::Kill);
            let bytes = contents(&disk, path);
            let end = bytes.iter().position(|byte| *byte == 1).unwrap_or(2048);
            assert!(bytes[end..].iter().all(|byte| *byte == 1));
            reached.insert((kind == FaultKind::Kill && path == SEGMENT, end));
        }
    }
    assert!(reached.contains(&(false, 0)) && reached.contains(&(false, 1024)));
    assert!(reached.iter().all(|(killed, end)| *killed || end % 512 == 0));
    assert!(reached.iter().any(|(killed, end)| *killed && end % 512 != 0));
}

#[test]
fn a_failed_sync_can_not_be_made_good_by_another() {
    for kind in [FaultKind::Sync, FaultKind::SyncForgets] {
        let (mut lost, mut kept) = (false, false);
        for salt in 0..40 {
            let (disk, file) = durable(1, 1024);
            for _ in 0..salt {
                file.sync().unwrap();
            }
            file.write_at(&[2; 1024], 0).unwrap();
            disk.fail(disk.steps(), kind);
            assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(libc::EIO));
            let cached = contents(&disk, DB);
            file.sync().unwrap();
            file.write_at(&[3; 512], 512).unwrap();
            file.sync().unwrap();
            let found = contents(&disk.reboot(salt), DB);
            assert_eq!(found[512..], [3; 512], "what was written again is synced again");
            lost |= found[0] == 1;
            kept |= found[0] == 2;
            match kind {
                FaultKind::Sync => assert_eq!(cached, [2; 1024]),
                _ => assert_eq!(cached[0], found[0]),
            }
        }
        assert!(lost && kept);
    }
    let mut names = (false, false);
    for salt in 0..40 {
        let (disk, file) = durable(1, 1);
        for _ in 0..salt {
            file.sync().unwrap();
        }
        let process = disk.process();
        process.open("/b".as_ref(), How::Create).unwrap();
        disk.fail(disk.steps(), FaultKind::Io);
        assert!(process.sync_dir("/".as_ref()).is_err());
        process.sync_dir("/".as_ref()).unwrap();
        let there = disk.reboot(1).process().exists("/b".as_ref()).unwrap();
        assert!(process.exists("/b".as_ref()).is_err(), "this machine is off");
        names = (names.0 | there, names.1 | !there);
    }
    assert_eq!(names, (true, true));
}

#[test]
fn removed_files_live_while_they_are_open() {
    let (disk, file) = durable(1, 10);
    let process = disk.process();
    process.remove(DB.as_ref()).unwrap();
    assert!(process.open(DB.as_ref(), How::Write).is_err());
    file.write_at(b"still", 0).unwrap();
    let new = process.open(DB.as_ref(), How::Create).unwrap();
    assert_ne!(new.identity().unwrap().inode, file.identity().unwrap().inode);
    assert_eq!((new.len().unwrap(), file.len().unwrap()), (0, 10));
    assert!(process.open("/no/such".as_ref(), How::Create).is_err());
    assert!(process.open("relative".as_ref(), How::Create).is_err());
    assert!(process.open_kept(DB.as_ref(), How::CreateNew).is_err());
}

/// Random calls, against a plain list of everything that each sector has held since the last sync.
#[test]
fn a_random_history_leaves_only_what_it_wrote() {
    const SECTORS: usize = 12;
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let (disk, file) = durable(1, SECTORS * 512);
        let mut cached = vec![1_u8; SECTORS * 512];
        let mut versions: Vec<Vec<Vec<u8>>> = cached.chunks(512).map(|s| vec![s.to_vec()]).collect();
        for call in 0..30 {
            if random.below(8) == 0 {
                file.sync().unwrap();
                versions.iter_mut().for_each(|all| drop(all.drain(..all.len() - 1)));
                continue;
            }
            let at = random.below(cached.len() as u64) as usize;
            let len = random.below((cached.len() - at) as u64 + 1) as usize;
            cached[at..at + len].fill(call + 2);
            file.write_at(&cached[at..at + len], at as u64).unwrap();
            for (all, now) in versions.iter_mut().zip(cached.chunks(512)) {
                if all.last().unwrap() != now {
                    all.push(now.to_vec());
                }
            }
        }
        assert_eq!(contents(&disk, DB), cached);
        for reboot in 0..20 {
            let found = contents(&disk.reboot(reboot), DB);
            for (all, now) in versions.iter().zip(found.chunks(512)) {
                assert!(all.iter().any(|version| version == now), "seed {seed}, reboot {reboot}");
            }
        }
    }
}
