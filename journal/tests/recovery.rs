//! The recovery table of FORMAT.md, a test for each row: files are brought into the row's condition,
//! and opening the store does what the row says.

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use common::{Change, Model, PAGE, PATH, Rng, commit, open, read};
use tideline_journal::disk::{Disk, FaultKind, How, SimDisk, SimProcess};
use tideline_journal::{
    Code, Durability, Error, Lsn, Options, PageSource, Retention, Session, Sources, State, Store,
};

const SIDE: &str = "/app.db-tide";
const MARKER: &str = "/app.db-journal";

fn load(disk: &SimProcess, path: &str) -> Vec<u8> {
    let file = disk.open(Path::new(path), How::Read).unwrap_or_else(|e| panic!("{path}: {e}"));
    let mut bytes = vec![0; file.len().unwrap() as usize];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    bytes
}

fn put(disk: &SimProcess, path: &str, bytes: &[u8]) {
    let file = disk.open(Path::new(path), How::Create).unwrap();
    file.set_len(0).unwrap();
    file.write_at(bytes, 0).unwrap();
    file.sync().unwrap();
}

fn change(disk: &SimProcess, path: &str, change: impl FnOnce(&mut [u8])) {
    let mut bytes = load(disk, path);
    change(&mut bytes);
    put(disk, path, &bytes);
}

fn remove(disk: &SimProcess, path: &str) {
    disk.remove(Path::new(path)).unwrap();
}

fn exists(disk: &SimProcess, path: &str) -> bool {
    disk.exists(Path::new(path)).unwrap()
}

fn inside(disk: &SimProcess) -> BTreeSet<String> {
    disk.list(Path::new(SIDE)).unwrap().into_iter().collect()
}

fn segments(disk: &SimProcess) -> Vec<String> {
    inside(disk).into_iter().filter(|name| name.ends_with(".seg")).collect()
}

fn segment(number: u32) -> String {
    format!("{SIDE}/{number:08x}.seg")
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc)))
}

/// Where the newer slot of the superblock begins.
fn newer_slot(store: &[u8]) -> usize {
    let sequence = |at: usize| u64::from_le_bytes(store[at + 16..at + 24].try_into().unwrap());
    if sequence(4096) > sequence(0) { 4096 } else { 0 }
}

/// A plain database where the base belongs, made without Tideline.
fn plain(process: &SimProcess, size: u32, counter: u32) -> Model {
    let model = common::plain(size);
    common::put_plain(process, PATH, &model, counter).unwrap();
    model
}

fn go_on(store: &Arc<Store>, model: &mut Model, count: usize, seed: u64) {
    let mut session = Session::new(Arc::clone(store)).unwrap();
    let mut rng = Rng(seed);
    for _ in 0..count {
        let change = model.change(&mut rng);
        commit(&mut session, model, &change, Durability::Process).unwrap();
    }
}

/// A store whose process was killed behind its last commit: the base is marked, the journal ahead.
fn left_behind(count: usize) -> (Arc<SimDisk>, Model) {
    let disk = SimDisk::new();
    let process = disk.process();
    let mut model = Model::default();
    let store = open(&process).unwrap();
    go_on(&store, &mut model, count, 1);
    process.kill();
    (disk, model)
}

/// A store that was closed, over a database that was plain before.
fn at_rest(count: usize) -> (Arc<SimDisk>, Model) {
    let disk = SimDisk::new();
    let process = disk.process();
    let mut model = plain(&process, 6, 7);
    let store = open(&process).unwrap();
    go_on(&store, &mut model, count, 2);
    store.learn_checksum().unwrap();
    store.close().unwrap();
    (disk, model)
}

/// Opens, compares, commits once more, closes, and compares again.
#[track_caller]
fn sound(disk: &Arc<SimDisk>, lsn: u64, model: &Model) {
    let mut model = model.clone();
    let store = open(&disk.process()).unwrap();
    assert_eq!(read(&store).unwrap(), (Lsn::new(lsn), model.clone()));
    let findings = store.verify().unwrap();
    assert!(findings.is_empty(), "{findings:?}");
    go_on(&store, &mut model, 1, lsn);
    store.close().unwrap();
    let bytes = load(&disk.process(), PATH);
    assert_eq!((bytes[18..20].to_vec(), bytes.len()), (vec![1, 1], model.size as usize * PAGE));
    let store = open(&disk.process()).unwrap();
    assert_eq!(read(&store).unwrap(), (Lsn::new(lsn + 1), model));
}

/// The opening is refused, and every file stays as it was.
#[track_caller]
fn refused(disk: &Arc<SimDisk>, code: Code) {
    let process = disk.process();
    let files = |process: &SimProcess| -> Vec<(String, Option<Vec<u8>>)> {
        let names = if exists(process, SIDE) { inside(process) } else { BTreeSet::new() };
        let names = names.into_iter().filter(|name| name != "control");
        let paths = names.map(|name| format!("{SIDE}/{name}")).chain([PATH.to_owned(), MARKER.to_owned()]);
        paths.map(|path| (path.clone(), exists(process, &path).then(|| load(process, &path)))).collect()
    };
    let before = files(&process);
    let error = open(&process).err().expect("a refusal");
    assert_eq!(error.code(), code, "{error}");
    let text = error.text();
    assert!(
        text.split_once("; ").is_some_and(|(cause, remedy)| !cause.is_empty() && !remedy.is_empty()),
        "{text}"
    );
    assert!(before == files(&disk.process()), "nothing is changed");
}

#[test]
fn each_row_has_its_test_and_its_place_in_the_code() {
    let format = include_str!("../../FORMAT.md");
    let (_, recovery) = format.split_once("\n## Recovery\n").expect("the table");
    let (recovery, _) = recovery.split_once("\n## ").expect("its end");
    let own = include_str!("recovery.rs");
    let mut rows = BTreeSet::new();
    for line in recovery.lines().filter(|line| line.starts_with("| R")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let (row, test) = (cells[0], cells[3].trim_matches('`'));
        let number: u32 = row[1..].parse().expect("a number");
        assert!(test.starts_with(&format!("r{number:02}_")), "{row} is shown by {test}");
        assert!(own.contains(&format!("\n#[test]\nfn {test}() {{")), "{test} isn't there");
        rows.insert(number);
    }
    assert_eq!(rows, (1..=rows.len() as u32).collect(), "rows are numbered from 1");
    let mut cited = BTreeSet::new();
    for part in include_str!("../src/recover.rs").split(|c: char| !c.is_ascii_alphanumeric()) {
        cited.extend(part.strip_prefix('R').and_then(|number| number.parse::<u32>().ok()));
    }
    assert_eq!(cited, rows, "rows that recover.rs cites, and those of the table");
}

#[test]
fn r01_without_a_superblock_a_plain_base_is_adopted() {
    let disk = SimDisk::new();
    sound(&disk, 0, &Model::default());

    let disk = SimDisk::new();
    let process = disk.process();
    let model = plain(&process, 6, 7);
    let before = load(&process, PATH);
    let store = open(&process).unwrap();
    let log = store.log().unwrap();
    assert_eq!((log.len(), log[0].origin, log[0].kind, log[0].pages), (1, "external", "full", 6));
    drop(store);
    assert_eq!(load(&process, PATH), before);
    sound(&disk, 1, &model);

    // What a creation that was interrupted leaves means nothing.
    let disk = SimDisk::new();
    let process = disk.process();
    let model = plain(&process, 6, 7);
    process.create_dir(Path::new(SIDE)).unwrap();
    put(&process, &format!("{SIDE}/store.new"), &[7; 100]);
    put(&process, &segment(1), &[8; 5000]);
    sound(&disk, 1, &model);
}

#[test]
fn r02_a_marked_base_without_its_superblock_is_refused() {
    let (disk, _) = left_behind(4);
    let process = disk.process();
    remove(&process, &format!("{SIDE}/store"));
    refused(&disk, Code::Missing);
    for name in inside(&process) {
        remove(&process, &format!("{SIDE}/{name}"));
    }
    process.remove_dir(Path::new(SIDE)).unwrap();
    refused(&disk, Code::Missing);
    assert!(!exists(&process, SIDE), "nothing is created");
}

#[test]
fn r03_a_base_with_the_mark_of_another_is_refused() {
    let marked = |counter: u32| {
        let disk = SimDisk::new();
        let process = disk.process();
        let mut model = plain(&process, 6, counter);
        let store = open(&process).unwrap();
        go_on(&store, &mut model, 3, 1);
        process.kill();
        disk
    };
    let (disk, other) = (marked(7), marked(8));
    put(&disk.process(), PATH, &load(&other.process(), PATH));
    refused(&disk, Code::Foreign);
}

#[test]
fn r04_a_plain_base_under_a_journal_that_is_ahead_is_refused() {
    let (disk, model) = left_behind(4);
    let process = disk.process();
    let own = load(&process, PATH);
    plain(&process, 6, 7);
    refused(&disk, Code::Diverged);
    put(&process, PATH, &[]);
    refused(&disk, Code::Diverged);
    put(&process, PATH, &own);
    sound(&disk, 4, &model);
}

#[test]
fn r04_a_journal_whose_beginning_is_damaged_may_still_say_that_it_is_ahead() {
    let disk = SimDisk::new();
    let process = disk.process();
    let mut session = Session::new(open(&process).unwrap()).unwrap();
    let mut model = Model::default();
    for fill in 1..=6 {
        let change = Change { fills: vec![(1, fill), (2, fill)], size: 2 };
        commit(&mut session, &mut model, &change, Durability::Disk).unwrap();
    }
    process.kill();
    drop(session);
    let process = disk.process();
    let own = load(&process, &segment(1));
    let entries: Vec<_> = (0..own.len()).step_by(64).filter(|&at| own[at..].starts_with(b"ENT1")).collect();
    let first = entries[0];
    // As a mark leaves an empty base that was torn.
    put(&process, PATH, &[0; 512]);
    // Magic, kind, epoch, chain value, length, place of the table, time, durable LSN.
    for at in [0, 4, 24, 32, 40, 48, 72, 120] {
        change(&process, &segment(1), |bytes| bytes[first + at] ^= 1);
        refused(&disk, Code::Diverged);
        change(&process, &segment(1), |bytes| bytes[first + at] ^= 1);
    }
    // Also of the next one only the epoch is left: it would tell of another life once something is committed before it.
    change(&process, &segment(1), |bytes| {
        bytes[first..first + 512].fill(0);
        bytes[entries[1]] ^= 1;
    });
    refused(&disk, Code::Diverged);
    // Where nothing is left that looks like an entry, it is taken for the end, and what is behind is of an earlier life.
    change(&process, &segment(1), |bytes| entries[2..].iter().for_each(|&at| bytes[at] ^= 1));
    let process = disk.process();
    let mut session = Session::new(open(&process).unwrap()).unwrap();
    let mut model = Model::default();
    let change = Change { fills: vec![(1, 7), (2, 7)], size: 2 };
    commit(&mut session, &mut model, &change, Durability::Disk).unwrap();
    process.kill();
    sound(&disk, 1, &model);
}

#[test]
fn r05_a_base_deleted_at_rest_takes_its_history_along() {
    let (disk, _) = at_rest(12);
    let process = disk.process();
    let names = inside(&process);
    assert!(names.contains("hashes") && names.iter().any(|name| name.ends_with(".kept")));
    put(&process, &format!("{SIDE}/incoming"), &[1; 90]);
    let lineage = |disk: &Arc<SimDisk>| open(&disk.process()).unwrap().lineage();
    let before = {
        let (disk, _) = at_rest(12);
        lineage(&disk)
    };
    remove(&process, PATH);
    assert_ne!(lineage(&disk), before);
    assert_eq!(inside(&process), ["00000001.seg", "control", "store"].map(String::from).into());
    sound(&disk, 0, &Model::default());
}

#[test]
fn r06_a_base_changed_at_rest_is_one_external_lsn() {
    let (disk, _) = at_rest(12);
    let process = disk.process();
    let lineage = open(&process).unwrap().lineage();
    let model = plain(&process, 8, 1000);
    let store = open(&process).unwrap();
    let log = store.log().unwrap();
    assert_eq!((log.len(), log[0].origin, log[0].range.last), (1, "external", Lsn::new(14)));
    assert_eq!((store.lineage(), store.status().unwrap().horizon), (lineage, Lsn::new(14)));
    assert_eq!(store.prepare(Lsn::new(13), None).unwrap_err().code(), Code::Trimmed);
    drop(store);
    assert_eq!(segments(&process).len(), 1);
    assert!(!inside(&process).iter().any(|name| name.ends_with(".kept")));
    sound(&disk, 14, &model);
}

#[test]
fn r06_a_base_changed_at_rest_is_taken_over_also_by_the_second_attempt() {
    // The last segment has a number below another's: merged entries are in a newer one before it.
    let merged = || {
        let (disk, _) = at_rest(12);
        let process = disk.process();
        let store = open(&process).unwrap();
        store.compact(None).unwrap();
        store.close().unwrap();
        let numbers = segments(&process);
        assert!(numbers.len() > 1, "{numbers:?}");
        let model = plain(&process, 8, 1000);
        (disk, model)
    };
    let (disk, model) = merged();
    let before = disk.steps();
    drop(open(&disk.process()).unwrap());
    let steps = disk.steps() - before;
    sound(&disk, 14, &model);
    assert!(steps > 5, "{steps}");
    for step in 0..steps {
        let (disk, model) = merged();
        assert_eq!(disk.steps(), before);
        disk.fail(before + step, FaultKind::Kill);
        assert!(open(&disk.process()).is_err(), "step {step}");
        sound(&disk, 14, &model);
    }
}

#[test]
fn r06_a_size_that_alone_is_another_is_damage() {
    let (disk, model) = at_rest(12);
    change(&disk.process(), PATH, |bytes| bytes[31] ^= 1);
    // The hash of page 1 tells, and the journal has the page.
    let process = disk.process();
    let store = open(&process).unwrap();
    assert_eq!(read(&store).unwrap_err().code(), Code::Damaged);
    assert!(store.mend_first_page().unwrap());
    assert_eq!(read(&store).unwrap().1, model);
    drop(store);
    sound(&disk, 13, &model);

    let (disk, _) = at_rest(12);
    change(&disk.process(), PATH, |bytes| bytes[31] ^= 1);
    remove(&disk.process(), &format!("{SIDE}/hashes"));
    refused(&disk, Code::Damaged);
}

#[test]
fn r07_a_journal_that_lost_what_was_durable_is_refused() {
    let (disk, model) = left_behind(4);
    let process = disk.process();
    let store = open(&process).unwrap();
    assert_eq!(read(&store).unwrap(), (Lsn::new(4), model));
    process.kill();
    // The superblock knows now that LSN 4 is on the disk.
    let process = disk.process();
    let whole = load(&process, &segment(1));
    let record = whole.windows(4).rposition(|bytes| bytes == b"COM1").unwrap();
    change(&process, &segment(1), |bytes| bytes[record + 9] ^= 1);
    refused(&disk, Code::Damaged);
}

#[test]
fn r07_segments_behind_a_damaged_place_say_what_was_durable() {
    let disk = SimDisk::new();
    let process = disk.process();
    let store = open(&process).unwrap();
    let mut session = Session::new(store).unwrap();
    let (mut model, mut rng) = (Model::default(), Rng(7));
    while segments(&process).len() < 4 {
        let change = model.change(&mut rng);
        commit(&mut session, &mut model, &change, Durability::Disk).unwrap();
    }
    process.kill();
    drop(session);
    for number in [1, 2] {
        let process = disk.process();
        let own = load(&process, &segment(number));
        let record = own.windows(4).position(|bytes| bytes == b"COM1").unwrap();
        change(&process, &segment(number), |bytes| bytes[record + 9] ^= 1);
        refused(&disk, Code::Damaged);
        put(&process, &segment(number), &own);
    }
    let head = open(&disk.process()).unwrap();
    assert_eq!(read(&head).unwrap().1, model);
}

#[test]
fn r07_entries_behind_a_damaged_place_say_what_was_durable() {
    let disk = SimDisk::new();
    let process = disk.process();
    let store = open(&process).unwrap();
    let mut session = Session::new(store).unwrap();
    let mut model = Model::default();
    for fill in 1..=6 {
        let change = Change { fills: vec![(1, fill), (2, fill)], size: 2 };
        commit(&mut session, &mut model, &change, Durability::Disk).unwrap();
    }
    process.kill();
    drop(session);
    let own = load(&disk.process(), &segment(1));
    let headers: Vec<_> = (0..own.len()).step_by(64).filter(|&at| own[at..].starts_with(b"ENT1")).collect();
    assert_eq!(headers.len(), 6);
    for (n, &header) in headers.iter().enumerate() {
        // Magic, kind, epoch, chain value, length, place of the table, time, durable LSN.
        for at in [0, 4, 24, 32, 40, 48, 72, 120] {
            let process = disk.process();
            change(&process, &segment(1), |bytes| bytes[header + at] ^= 1);
            match n {
                // Nothing behind it says that it was there.
                5 => assert_eq!(read(&open(&process).unwrap()).unwrap().0, Lsn::new(5)),
                // It is the first, and its epoch is another now.
                0 if at == 24 => {}
                _ => refused(&disk, Code::Damaged),
            }
            process.kill();
            put(&disk.process(), &segment(1), &own);
        }
    }
}

#[test]
fn r07_an_image_that_is_damaged_is_not_the_end_where_more_was_durable() {
    let disk = SimDisk::new();
    let process = disk.process();
    let mut session = Session::new(open(&process).unwrap()).unwrap();
    let mut model = Model::default();
    for fill in 1..=6 {
        let change = Change { fills: vec![(1, fill), (2, fill)], size: 2 };
        commit(&mut session, &mut model, &change, Durability::Disk).unwrap();
    }
    process.kill();
    drop(session);
    let process = disk.process();
    let own = load(&process, &segment(1));
    let entries: Vec<_> = (0..own.len()).step_by(64).filter(|&at| own[at..].starts_with(b"ENT1")).collect();
    // Of the first its last image; of the second so much that the way to the third is lost.
    let record = own.windows(4).position(|bytes| bytes == b"COM1").unwrap();
    for image in [entries[0] + 300, record - 300] {
        for next in [entries[1], entries[1] + 32, entries[1] + 40] {
            change(&process, &segment(1), |bytes| {
                bytes[image] ^= 1;
                bytes[next] ^= 1;
            });
            refused(&disk, Code::Damaged);
            put(&process, &segment(1), &own);
        }
    }
}

#[test]
fn r07_a_journal_that_ends_before_what_a_fold_has_begun_to_write_is_refused() {
    let prepared = |disk: &Arc<SimDisk>| {
        let process = disk.process();
        let mut model = plain(&process, 6, 7);
        let store = open(&process).unwrap();
        go_on(&store, &mut model, 4, 2);
        (process, store)
    };
    let whole = SimDisk::new();
    let (_process, store) = prepared(&whole);
    let from = whole.steps();
    store.fold().unwrap();
    let mut begun = 0;
    for step in from..whole.steps() {
        let disk = SimDisk::new();
        let (process, store) = prepared(&disk);
        disk.fail(step, FaultKind::Kill);
        let base = load(&process, PATH);
        store.fold().unwrap_err();
        drop(store);
        process.kill();
        let process = disk.process();
        if load(&process, PATH) == base {
            continue;
        }
        begun += 1;
        // The base has images of the last commit, which the journal has lost.
        let own = load(&process, &segment(1));
        let record = own.windows(4).rposition(|bytes| bytes == b"COM1").unwrap();
        change(&process, &segment(1), |bytes| bytes[record + 9] ^= 1);
        refused(&disk, Code::Damaged);
    }
    assert!(begun > 3, "the base was changed in part");
}

#[test]
fn r08_what_was_torn_or_never_finished_is_passed_over() {
    let torn: [fn(&[u8]) -> usize; 3] = [
        |bytes| bytes.windows(4).rposition(|bytes| bytes == b"COM1").unwrap() + 20,
        |bytes| bytes.windows(4).rposition(|bytes| bytes == b"ENT1").unwrap() + 24,
        // An image, which the record doesn't cover.
        |bytes| bytes.windows(4).rposition(|bytes| bytes == b"ENT1").unwrap() + 128 + 300,
    ];
    for place in torn {
        let disk = SimDisk::new();
        let process = disk.process();
        let store = open(&process).unwrap();
        let mut session = Session::new(Arc::clone(&store)).unwrap();
        let (mut model, mut before) = (Model::default(), Model::default());
        for fill in 1..4 {
            before = model.clone();
            let change = Change { fills: vec![(1, 3), (2, fill)], size: 2 };
            commit(&mut session, &mut model, &change, Durability::Process).unwrap();
        }
        process.kill();
        let at = place(&load(&disk.process(), &segment(1)));
        change(&disk.process(), &segment(1), |bytes| bytes[at] ^= 1);
        sound(&disk, 2, &before);
    }

    // A body without its record.
    let disk = SimDisk::new();
    let process = disk.process();
    let store = open(&process).unwrap();
    let mut model = Model::default();
    go_on(&store, &mut model, 3, 1);
    let mut session = Session::new(store).unwrap();
    common::write(&mut session, &model, &Change { fills: vec![(2, 9)], size: model.size }).unwrap();
    process.kill();
    sound(&disk, 3, &model);
}

#[test]
fn r09_an_empty_base_whose_mark_was_torn_is_empty_again() {
    for len in [1, 100, 512] {
        let disk = SimDisk::new();
        let process = disk.process();
        drop(open(&process).unwrap());
        put(&process, PATH, &vec![0; len]);
        let store = open(&process).unwrap();
        assert_eq!(load(&process, PATH), []);
        drop(store);
        sound(&disk, 0, &Model::default());
    }
}

#[test]
fn r10_a_prepared_entry_counts_if_its_super_journal_is_gone() {
    const SUPER: &str = "/other.db-mj01234567";
    let prepared = || {
        let disk = SimDisk::new();
        let process = disk.process();
        let store = open(&process).unwrap();
        let mut model = Model::default();
        go_on(&store, &mut model, 4, 1);
        let mut session = Session::new(store).unwrap();
        put(&process, SUPER, &[]);
        let change = Change { fills: vec![(2, 0x5555)], size: model.size };
        common::write(&mut session, &model, &change).unwrap();
        session.prepare(Some(Path::new(SUPER))).unwrap();
        session.sync_prepared().unwrap();
        process.kill();
        let mut after = model.clone();
        after.apply(&change);
        (disk, model, after)
    };
    let (disk, before, _) = prepared();
    assert!(exists(&disk.process(), MARKER));
    drop(open(&disk.process()).unwrap());
    assert!(!exists(&disk.process(), MARKER));
    // It is decided: that the super-journal goes later means nothing any more.
    remove(&disk.process(), SUPER);
    sound(&disk, 4, &before);

    let (disk, _, after) = prepared();
    remove(&disk.process(), SUPER);
    let store = open(&disk.process()).unwrap();
    assert!(!exists(&disk.process(), MARKER));
    drop(store);
    sound(&disk, 5, &after);

    let (disk, ..) = prepared();
    remove(&disk.process(), SUPER);
    let bytes = load(&disk.process(), &segment(1));
    let at = bytes.windows(8).rposition(|bytes| bytes == 0x5555u64.to_le_bytes()).unwrap();
    change(&disk.process(), &segment(1), |bytes| bytes[at] ^= 1);
    refused(&disk, Code::Damaged);
}

#[test]
fn r10_that_a_super_journal_is_gone_is_on_the_disk_before_anybody_builds_upon_it() {
    const SUPER: &str = "/app.db-mj01234567";
    let paths = |other: &'static str| [PATH, other];
    // Both are prepared, and who removes the super-journal dies before its folder is synced.
    let decided = |other: &'static str| {
        let disk = SimDisk::new();
        let process = disk.process();
        let folder = Path::new(other).parent().unwrap();
        if folder != Path::new("/") {
            process.create_dir(folder).unwrap();
        }
        let stores = paths(other).map(|path| common::open_at(&process, path).unwrap());
        process.sync_dir(Path::new("/")).unwrap();
        let mut model = Model::default();
        go_on(&stores[0], &mut model, 4, 1);
        go_on(&stores[1], &mut Model::default(), 4, 1);
        put(&process, SUPER, &[]);
        process.sync_dir(Path::new("/")).unwrap();
        let change = Change { fills: vec![(2, 0x5555)], size: model.size };
        let mut sessions = stores.map(|store| Session::new(store).unwrap());
        for session in &mut sessions {
            common::write(session, &model, &change).unwrap();
            session.prepare(Some(Path::new(SUPER))).unwrap();
            session.sync_prepared().unwrap();
        }
        remove(&process, SUPER);
        process.kill();
        let mut after = model.clone();
        after.apply(&change);
        (disk, [(Lsn::new(4), model), (Lsn::new(5), after)])
    };
    for other in ["/other.db", "/other/app.db"] {
        let (disk, _) = decided(other);
        let from = disk.steps();
        drop(common::open_at(&disk.process(), other).unwrap());
        let mut outcomes = [0; 2];
        // The power goes in each step of whoever opens one of them, and once behind that.
        for cut in from..=disk.steps() {
            for seed in 0..20 {
                let (disk, states) = decided(other);
                disk.cut_at(cut);
                let opened = common::open_at(&disk.process(), other).is_ok();
                disk.cut();
                let disk = disk.reboot(seed);
                let found =
                    paths(other).map(|path| read(&common::open_at(&disk.process(), path).unwrap()).unwrap());
                assert_eq!(found[0], found[1], "{other}, cut at {cut}, seed {seed}");
                let which = states.iter().position(|state| *state == found[0]).unwrap();
                assert!(which == 1 || !opened, "{other}, cut at {cut}, seed {seed}: it was committed");
                outcomes[which] += 1;
            }
        }
        assert!(outcomes.iter().all(|&count| count > 0), "{other}: {outcomes:?}");
    }
}

#[test]
fn r11_the_other_slot_of_the_superblock_counts() {
    let disk = SimDisk::new();
    let process = disk.process();
    let store = open(&process).unwrap();
    let mut model = Model::default();
    go_on(&store, &mut model, 4, 1);
    store.set_retention(Retention::Lsns(77)).unwrap();
    process.kill();
    let path = format!("{SIDE}/store");
    change(&disk.process(), &path, |bytes| bytes[newer_slot(bytes) + 30] ^= 1);
    let store = open(&disk.process()).unwrap();
    assert_eq!(store.retention().unwrap(), Retention::Default, "what the other slot says");
    let bytes = load(&disk.process(), &path);
    for slot in bytes.chunks(4096) {
        assert_eq!(slot[508..512], crc32(&slot[..508]).to_le_bytes(), "both are valid again");
    }
    drop(store);
    sound(&disk, 4, &model);
}

#[test]
fn r12_a_superblock_without_a_valid_slot_is_refused() {
    let path = format!("{SIDE}/store");
    let (disk, _) = left_behind(4);
    change(&disk.process(), &path, |bytes| (bytes[30], bytes[4096 + 30]) = (1, 1));
    refused(&disk, Code::Damaged);
    for bytes in [vec![], vec![0; 8192], vec![3; 600]] {
        let (disk, _) = at_rest(3);
        put(&disk.process(), &path, &bytes);
        refused(&disk, Code::Damaged);
    }
}

#[test]
fn r13_a_newer_format_is_refused() {
    let newer = |bytes: &mut [u8], crc_at: usize| {
        bytes[8..12].copy_from_slice(&2u32.to_le_bytes());
        let crc = crc32(&bytes[..crc_at]);
        bytes[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
    };
    let (disk, _) = left_behind(40);
    let process = disk.process();
    assert!(segments(&process).len() > 2);
    for (path, slots, crc_at) in [
        (format!("{SIDE}/store"), vec![0, 4096], 508),
        (segment(1), vec![0], 124),
        (segment(2), vec![0], 124),
    ] {
        let own = load(&process, &path);
        for at in slots {
            change(&process, &path, |bytes| newer(&mut bytes[at..], crc_at));
            refused(&disk, Code::Format);
            put(&process, &path, &own);
        }
    }
    open(&process).unwrap();
}

#[test]
fn r14_a_segment_that_is_needed_and_is_not_there_is_refused() {
    let (disk, model) = left_behind(40);
    let process = disk.process();
    for number in [1, 2, segments(&process).len() as u32] {
        let own = load(&process, &segment(number));
        remove(&process, &segment(number));
        refused(&disk, Code::Missing);
        put(&process, &segment(number), &own);
    }
    let own = load(&process, &segment(1));
    change(&process, &segment(1), |bytes| bytes[20] ^= 1);
    refused(&disk, Code::Damaged);
    put(&process, &segment(1), &load(&process, &segment(3)));
    refused(&disk, Code::Damaged);
    put(&process, &segment(1), &own);
    sound(&disk, 40, &model);
}

#[test]
fn r14_a_header_that_never_reached_the_disk_follows_from_the_seal() {
    let count = segments(&left_behind(40).0.process()).len() as u32;
    assert!(count >= 4, "{count} segments");
    for number in 2..=count {
        let (disk, model) = left_behind(40);
        let process = disk.process();
        let own = load(&process, &segment(number));
        // Nothing was there before, or another segment was.
        let other = load(&process, &segment(number - 1));
        for earlier in [&[0; 128][..], &other[..128]] {
            change(&process, &segment(number), |bytes| bytes[..128].copy_from_slice(earlier));
            let opened = disk.process();
            let store = open(&opened).unwrap();
            assert_eq!(read(&store).unwrap(), (Lsn::new(40), model.clone()), "{number}");
            assert_eq!(store.log().unwrap().len(), 40, "{number}");
            drop(store);
            let header = load(&process, &segment(number))[..64].to_vec();
            assert_eq!(header[..56], own[..56], "all but the time");
        }
        sound(&disk, 40, &model);
    }
}

#[test]
fn r15_what_is_not_known_to_be_durable_is_made_so() {
    let (disk, model) = left_behind(40);
    let from = disk.steps();
    let process = disk.process();
    let store = open(&process).unwrap();
    assert_eq!(store.durable(), Lsn::new(40));
    let steps: Vec<String> = (from..disk.steps()).map(|step| disk.describe(step).unwrap()).collect();
    let first = |start: &str| steps.iter().position(|step| step.starts_with(start)).expect("a step");
    for number in 1..=segments(&process).len() as u32 {
        let name = segment(number);
        assert!(first(&format!("write_at {name}")) < first(&format!("sync {name}")), "written once more");
        assert!(first(&format!("sync {name}")) < first("write_at /app.db-tide/store"), "then it is known");
    }
    disk.cut();
    for seed in 0..20 {
        sound(&disk.reboot(seed), 40, &model);
    }
}

/// Commits until the next one begins a segment; that one is written and not committed. The LSN, and what is there.
fn begin_segment(disk: &Arc<SimDisk>) -> (u64, Model) {
    let process = disk.process();
    let store = open(&process).unwrap();
    let mut session = Session::new(store).unwrap();
    let (mut model, mut rng) = (Model::default(), Rng(1));
    loop {
        let change = model.change(&mut rng);
        let written = common::write(&mut session, &model, &change);
        if written.is_err() || segments(&process).len() > 1 {
            process.kill();
            return (session.state().map_or(0, |state| state.lsn.get()), model);
        }
        session.publish(Durability::Process, false).unwrap();
        session.end_read().unwrap();
        model.apply(&change);
    }
}

#[test]
fn r16_a_writer_that_died_between_segments_left_a_usable_journal() {
    let disk = SimDisk::new();
    let (lsn, model) = begin_segment(&disk);
    let process = disk.process();
    let behind = load(&process, &segment(2));
    assert!(!behind.windows(4).any(|bytes| bytes == b"COM1"), "a seal with no entry behind");
    let writes = |to: u32, from: u64| {
        let start = format!("write_at {}", segment(to));
        (from..disk.steps()).find(|&step| disk.describe(step).unwrap().starts_with(&start)).expect("a step")
    };
    let sealed = writes(1, writes(2, 0));
    sound(&disk, lsn, &model);

    // The same, but for the seal.
    let disk = SimDisk::new();
    disk.fail(sealed, FaultKind::Kill);
    let (_, model) = begin_segment(&disk);
    let process = disk.process();
    assert!(exists(&process, &segment(2)), "{:?}", disk.describe(sealed));
    drop(open(&process).unwrap());
    assert_eq!(segments(&process).len(), 1, "no seal led to it");
    sound(&disk, lsn, &model);
}

// Found by the fuzz target `recover`: whoever followed such a seal went round for ever.
#[test]
fn r16_a_seal_that_leads_back_is_none() {
    let disk = SimDisk::new();
    let (lsn, model) = begin_segment(&disk);
    let process = disk.process();
    // Behind the seal there is that same seal, as if it were of the segment's earlier life.
    let sealed = load(&process, &segment(1));
    let is_seal = |at: &usize| sealed[*at..].starts_with(b"ENT1") && sealed[*at + 4] == 64;
    let at = (128..sealed.len()).step_by(64).rfind(is_seal).expect("it is sealed");
    let len = u64::from_le_bytes(sealed[at + 40..at + 48].try_into().unwrap()) as usize;
    let mut next = load(&process, &segment(2));
    next[128..128 + len].copy_from_slice(&sealed[at..at + len]);
    put(&process, &segment(2), &next);
    sound(&disk, lsn, &model);
}

#[test]
fn r17_files_that_nothing_needs_are_removed() {
    let (disk, _) = at_rest(40);
    let process = disk.process();
    let names = inside(&process);
    assert!(names.iter().any(|name| name.ends_with(".kept")));
    let spare = load(&process, &segment(1));
    put(&process, &segment(0xff), &spare);
    put(&process, &format!("{SIDE}/0000000f.kept.new"), &[1; 700]);
    put(&process, &format!("{SIDE}/notes.txt"), b"not ours");
    put(&process, MARKER, &[&[0; 512], &b"/other.db-mj01234567"[..]].concat());
    drop(open(&process).unwrap());
    let mut expected = names.clone();
    expected.insert("notes.txt".to_owned());
    assert_eq!(inside(&process), expected);
    assert!(!exists(&process, MARKER));

    // The horizon moves on at the last close, and the process dies before it drops what that leaves.
    let dying = |fault: Option<u64>| {
        let (disk, mut model) = at_rest(40);
        let process = disk.process();
        let store = open(&process).unwrap();
        store.set_retention(Retention::None).unwrap();
        go_on(&store, &mut model, 2, 3);
        let from = disk.steps();
        if let Some(step) = fault {
            disk.fail(step, FaultKind::Kill);
        }
        let closed = store.close();
        assert_eq!(closed.is_err(), fault.is_some());
        process.kill();
        (disk, model, from)
    };
    let (disk, _, from) = dying(None);
    let dropping = |step: &u64| disk.describe(*step).unwrap().starts_with("remove ");
    let step = (from..disk.steps()).find(dropping).expect("something is dropped");
    let expected = inside(&disk.process());
    let (disk, model, _) = dying(Some(step));
    assert!(inside(&disk.process()).len() > expected.len() + 1);
    let store = open(&disk.process()).unwrap();
    assert_eq!(inside(&disk.process()), expected);
    drop(store);
    sound(&disk, 43, &model);
}

#[test]
fn r18_a_fold_that_was_interrupted_is_done_again() {
    let prepared = |disk: &Arc<SimDisk>| {
        let process = disk.process();
        let mut model = plain(&process, 6, 7);
        let store = open(&process).unwrap();
        go_on(&store, &mut model, 12, 2);
        (process, store, model)
    };
    let whole = SimDisk::new();
    let (_process, store, _) = prepared(&whole);
    let from = whole.steps();
    store.fold().unwrap();
    let mut torn = 0;
    for step in from..whole.steps() {
        let disk = SimDisk::new();
        let (process, store, model) = prepared(&disk);
        disk.fail(step, FaultKind::Kill);
        let base = load(&process, PATH);
        store.fold().unwrap_err();
        drop(store);
        process.kill();
        torn += usize::from(load(&disk.process(), PATH) != base);
        let store = open(&disk.process()).unwrap();
        assert_eq!(load(&disk.process(), PATH)[19], 0x54, "it stays marked");
        assert_eq!(read(&store).unwrap(), (Lsn::new(13), model.clone()));
        let other = disk.process();
        other.kill();
        drop(store);
        sound(&disk, 13, &model);
    }
    assert!(torn > 3, "the base was changed in part");
}

#[test]
fn r18_history_is_given_up_only_behind_a_way_that_is_on_the_disk() {
    // A database that grows by so many commits that are on the disk, and one more that isn't: with the last but one the
    // first segment is full, so that a seal is written, and a fold comes.
    let grown = |disk: &Arc<SimDisk>, durable: usize| -> (Vec<Model>, u64) {
        let store = open(&disk.process()).unwrap();
        store.set_retention(Retention::Lsns(1)).unwrap();
        let mut session = Session::new(store).unwrap();
        let (mut models, mut model, mut before) = (vec![Model::default()], Model::default(), 0);
        for n in 1..=durable + 1 {
            let durability = if n <= durable { Durability::Disk } else { Durability::Process };
            let first = model.size + 1;
            let fills =
                (first..first + 3).map(|page| (page, u64::from(page) * 13)).chain([(1, n as u64)]).collect();
            before = disk.steps();
            if commit(&mut session, &mut model, &Change { fills, size: first + 2 }, durability).is_err() {
                break;
            }
            models.push(model.clone());
        }
        (models, before)
    };
    let durable = (1..100).find(|&n| {
        let disk = SimDisk::new();
        grown(&disk, n);
        segments(&disk.process()) != ["00000001.seg"]
    });
    let durable = durable.unwrap();
    let whole = SimDisk::new();
    let (models, from) = grown(&whole, durable);
    let mut given_up = 0;
    for step in from..whole.steps() {
        for seed in 0..20 {
            let disk = SimDisk::new();
            disk.cut_at(step);
            grown(&disk, durable);
            let disk = disk.reboot(seed);
            let store = open(&disk.process()).unwrap();
            let head = store.head();
            given_up += usize::from(store.status().unwrap().horizon > Lsn::ZERO);
            drop(store);
            assert!(head.get() as usize >= durable, "step {step}, seed {seed}: {head}");
            sound(&disk, head.get(), &models[head.get() as usize]);
        }
    }
    assert!(given_up > 10, "{given_up}");
}

#[test]
fn r19_what_is_no_plain_database_is_refused() {
    let disk = SimDisk::new();
    let process = disk.process();
    put(&process, PATH, "this is a letter, not a database. ".repeat(50).as_bytes());
    refused(&disk, Code::NotADatabase);
    for (at, value, code) in [
        (16, 3, Code::NotADatabase),
        (18, 2, Code::Busy),
        (18, 3, Code::Denied),
        (19, 2, Code::Busy),
        (19, 3, Code::NotADatabase),
    ] {
        plain(&process, 6, 7);
        change(&process, PATH, |bytes| bytes[at] = value);
        refused(&disk, code);
    }
    let model = plain(&process, 6, 7);
    sound(&disk, 1, &model);
}

#[test]
fn r20_a_store_at_rest_is_opened_as_it_is() {
    let (disk, model) = at_rest(12);
    let process = disk.process();
    let (base, store) = (load(&process, PATH), load(&process, &format!("{SIDE}/store")));
    let log = |store: &Arc<Store>| store.log().unwrap().iter().map(|row| row.range.last).collect::<Vec<_>>();
    let opened = open(&process).unwrap();
    assert_eq!(log(&opened), (1..14).map(Lsn::new).collect::<Vec<_>>());
    drop(opened);
    assert_eq!((load(&process, PATH), load(&process, &format!("{SIDE}/store"))), (base.clone(), store));

    // Killed between the superblock that knows the mark and the mark.
    let opened = open(&process).unwrap();
    let mut session = Session::new(Arc::clone(&opened)).unwrap();
    session.begin_read().unwrap();
    let marked = disk.steps() + 2;
    disk.fail(marked, FaultKind::Kill);
    session.begin_write().unwrap_err();
    assert!(disk.describe(marked).unwrap().starts_with("write_at /app.db "));
    process.kill();
    assert_eq!(load(&disk.process(), PATH), base);
    sound(&disk, 13, &model);
}

#[test]
fn r20_history_is_looked_at_when_somebody_asks_for_it() {
    let (disk, model) = at_rest(40);
    let process = disk.process();
    let names = segments(&process);
    assert!(names.len() > 4);
    for (name, code) in [(&names[0], Code::Damaged), (&names[2], Code::Damaged), (&names[1], Code::Missing)] {
        let path = format!("{SIDE}/{name}");
        let own = load(&process, &path);
        match code {
            Code::Missing => remove(&process, &path),
            _ => {
                let record = own.windows(4).rposition(|bytes| bytes == b"COM1").unwrap();
                change(&process, &path, |bytes| bytes[record + 9] ^= 1);
            }
        }
        // What the base has can be read; nothing is written, which would need history when it is folded.
        let store = open(&process).unwrap();
        assert_eq!(read(&store).unwrap(), (Lsn::new(41), model.clone()));
        assert_eq!(store.log().unwrap_err().code(), code);
        assert_eq!(store.prepare(Lsn::new(40), None).unwrap_err().code(), code);
        let mut session = Session::new(Arc::clone(&store)).unwrap();
        session.begin_read().unwrap();
        assert_eq!(session.begin_write().unwrap_err().code(), code);
        drop(session);
        store.close().unwrap();
        assert_ne!(load(&process, PATH)[19], 0x54, "it isn't marked");
        put(&process, &path, &own);
    }
    let log = open(&process).unwrap().log().unwrap();
    assert_eq!(log.iter().map(|row| row.range.last.get()).collect::<Vec<_>>(), (1..=41).collect::<Vec<_>>());

    // A segment that nobody needs isn't recognised before, and goes then.
    put(&process, &segment(0xff), &load(&process, &segment(1)));
    drop(open(&process).unwrap());
    assert!(exists(&process, &segment(0xff)));
    sound(&disk, 41, &model);
    assert!(!exists(&process, &segment(0xff)));
}

#[test]
fn r20_a_store_is_opened_where_its_base_came_to_rest() {
    let (disk, model) = at_rest(40);
    // Two processes, of which the second joins, and both see what either commits.
    let (one, other) = (open(&disk.process()).unwrap(), open(&disk.process()).unwrap());
    let mut model = model;
    for (round, store) in [&one, &other, &one].into_iter().enumerate() {
        go_on(store, &mut model, 9, round as u64);
        for store in [&one, &other] {
            assert_eq!(read(store).unwrap().1, model);
        }
    }
    assert_eq!(other.log().unwrap().len(), one.log().unwrap().len());
    drop((one, other));
    sound(&disk, 68, &model);
    // Where the superblock has been told nothing, or something that isn't so, the horizon is where it begins.
    let process = disk.process();
    let store = format!("{SIDE}/store");
    for (at, bytes) in [(144, &[9u8; 8][..]), (152, &[0; 4]), (152, &[77, 0, 0, 0]), (152, &[1, 0, 0, 0])] {
        let own = load(&process, &store);
        change(&process, &store, |file| {
            let slot = newer_slot(file);
            file[slot + at..slot + at + bytes.len()].copy_from_slice(bytes);
            let crc = crc32(&file[slot..slot + 508]);
            file[slot + 508..slot + 512].copy_from_slice(&crc.to_le_bytes());
        });
        assert_eq!(read(&open(&disk.process()).unwrap()).unwrap().0, Lsn::new(69));
        put(&process, &store, &own);
    }
}

#[test]
fn r20_the_way_to_where_a_base_came_to_rest_is_on_the_disk() {
    let mut rolled = 0;
    for count in 1..24 {
        let disk = SimDisk::new();
        let process = disk.process();
        let store = open(&process).unwrap();
        let mut model = Model::default();
        let (mut session, mut rng) = (Session::new(Arc::clone(&store)).unwrap(), Rng(4));
        for _ in 0..count {
            let change = model.change(&mut rng);
            commit(&mut session, &mut model, &change, Durability::Disk).unwrap();
        }
        // A writer that finds the segment full goes on in the next, and commits nothing there.
        let before = segments(&process).len();
        common::write(&mut session, &model, &model.change(&mut Rng(5))).unwrap();
        rolled += segments(&process).len() - before;
        session.rollback().unwrap();
        session.end_read().unwrap();
        drop(session);
        store.close().unwrap();
        for seed in 0..8 {
            sound(&disk.reboot(seed), count as u64, &model);
        }
    }
    assert!(rolled > 1, "{rolled} of them");
}

#[test]
fn r21_the_control_file_is_filled_anew() {
    let control = format!("{SIDE}/control");
    for seed in 0..4 {
        let (disk, model) = left_behind(6);
        let process = disk.process();
        let len = load(&process, &control).len();
        let mut rng = Rng(seed);
        match seed {
            0 => remove(&process, &control),
            _ => put(&process, &control, &(0..len).map(|_| rng.next() as u8).collect::<Vec<u8>>()),
        }
        sound(&disk, 6, &model);
    }
}

#[test]
fn r22_a_lineage_that_was_being_taken_over_is_taken() {
    let source = open(&SimDisk::new().process()).unwrap();
    let mut model = Model::default();
    let mut session = Session::new(Arc::clone(&source)).unwrap();
    let mut rng = Rng(22);
    for _ in 0..3 {
        let change = model.change(&mut rng);
        commit(&mut session, &mut model, &change, Durability::Process).unwrap();
    }
    let blob = source.prepare(Lsn::ZERO, None).unwrap().unwrap();
    for step in 0.. {
        let disk = SimDisk::new();
        let process = disk.process();
        let replica = open(&process).unwrap();
        let before = disk.steps();
        disk.fail(before + step, FaultKind::Kill);
        if replica.receive(&blob).is_ok() {
            assert!(disk.steps() <= before + step && step > 9, "every step was tried");
            break;
        }
        process.kill();
        drop(replica);
        let process = disk.process();
        let replica = open(&process).unwrap();
        assert_eq!(replica.receive(&blob).unwrap(), Lsn::new(3), "step {step}");
        replica.set_retention(Retention::None).unwrap();
        let mut model = model.clone();
        let mut session = Session::new(Arc::clone(&replica)).unwrap();
        for _ in 0..40 {
            let change = model.change(&mut rng);
            commit(&mut session, &mut model, &change, Durability::Process).unwrap();
        }
        drop(session);
        process.kill();
        drop(replica);
        let replica = open(&disk.process()).unwrap();
        assert_eq!(replica.lineage(), source.lineage(), "step {step}");
        assert_eq!(common::read(&replica).unwrap().1, model, "step {step}");
    }
}

/// A lazy clone of a database with 9 pages at LSN 5, which was closed; nobody asks for a page.
fn lazy_clone() -> Arc<SimDisk> {
    let disk = SimDisk::new();
    let on: Arc<dyn Disk> = disk.process();
    let state = State { lsn: Lsn::new(5), id: 6, page_size: PAGE as u32, size: 9, ..State::default() };
    let store =
        Store::begin_lazy(on, Path::new(PATH), common::options(), [7; 16], state, None, b"there").unwrap();
    store.close().unwrap();
    disk
}

/// Has a page fetched, from a source whose pages are all sevens.
fn fetch_one(disk: &Arc<SimDisk>) {
    struct Sevens;
    impl PageSource for Sevens {
        fn read(&self, _page: u32, to: &mut [u8]) -> tideline_journal::Result<()> {
            to.fill(7);
            Ok(())
        }

        fn prefetch(&self, _pages: &[u32]) -> tideline_journal::Result<()> {
            Ok(())
        }
    }
    impl Sources for Sevens {
        fn open(&self, _: &Store, _: &[u8]) -> tideline_journal::Result<Arc<dyn PageSource>> {
            Ok(Arc::new(Sevens))
        }
    }
    let on = disk.process() as Arc<dyn Disk>;
    let options = Options { source: Some(Arc::new(Sevens)), ..common::options() };
    let store = Store::open(on, Path::new(PATH), options).unwrap();
    store.fetch_here(&[2]).unwrap();
    assert_eq!(store.absent().unwrap(), Some((8, 9)));
    store.close().unwrap();
}

#[test]
fn r24_a_lazy_clone_that_was_only_just_begun_gets_its_mark() {
    for len in [0, 512] {
        let disk = lazy_clone();
        let marked = load(&disk.process(), PATH);
        let base = disk.process().open(Path::new(PATH), How::Write).unwrap();
        base.set_len(0).unwrap();
        base.set_len(len).unwrap();
        drop(base);
        let store = open(&disk.process()).unwrap();
        assert_eq!((store.head(), store.absent().unwrap()), (Lsn::new(5), Some((9, 9))));
        assert_eq!(load(&disk.process(), PATH), marked);
    }
}

#[test]
fn r23_a_lazy_clone_is_opened_with_all_that_it_needs() {
    let store = open(&lazy_clone().process()).unwrap();
    assert_eq!((store.head(), store.absent().unwrap()), (Lsn::new(5), Some((9, 9))));

    for name in ["source", "present"] {
        let path = format!("{SIDE}/{name}");
        let disk = lazy_clone();
        remove(&disk.process(), &path);
        refused(&disk, Code::Missing);
        let disk = lazy_clone();
        change(&disk.process(), &path, |bytes| bytes[20] ^= 1);
        refused(&disk, Code::Damaged);
        let disk = lazy_clone();
        let bytes = load(&disk.process(), &path);
        remove(&disk.process(), &path);
        put(&disk.process(), &path, &bytes[..bytes.len() - 2]);
        refused(&disk, Code::Damaged);
        let disk = lazy_clone();
        let crc_at = if name == "source" { 28 } else { 60 };
        change(&disk.process(), &path, |bytes| {
            bytes[8] += 1;
            let crc = crc32(&bytes[..crc_at]);
            bytes[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
        });
        refused(&disk, Code::Format);
    }

    // A base that isn't marked is none of a lazy clone's, also an empty one, and one that is gone.
    let disk = lazy_clone();
    plain(&disk.process(), 6, 7);
    refused(&disk, Code::Diverged);
    let disk = lazy_clone();
    fetch_one(&disk);
    disk.process().open(Path::new(PATH), How::Write).unwrap().set_len(0).unwrap();
    refused(&disk, Code::Diverged);
    let disk = lazy_clone();
    fetch_one(&disk);
    remove(&disk.process(), PATH);
    refused(&disk, Code::Diverged);
    assert!(!exists(&disk.process(), PATH), "nothing is created");

    // What was left when it became a store like any other goes.
    let (disk, model) = left_behind(4);
    let process = disk.process();
    for name in ["source", "source.new", "present"] {
        put(&process, &format!("{SIDE}/{name}"), b"left");
    }
    let store = open(&process).unwrap();
    assert!(!inside(&process).iter().any(|name| name.starts_with("source") || name == "present"));
    drop(store);
    sound(&disk, 4, &model);
}

#[test]
fn r25_what_a_dead_process_has_not_synced_is_synced_before_it_is_built_upon() {
    let (disk, _) = at_rest(12);
    let opening = || {
        let first = disk.steps();
        drop(open(&disk.process()).unwrap());
        let steps = (first..disk.steps()).filter_map(|step| disk.describe(step));
        Vec::from_iter(steps.filter(|step| step.contains("sync")))
    };
    assert_eq!(opening(), [""; 0], "the last to close it has told that all is on the disk");
    change(&disk.process(), &format!("{SIDE}/control"), |bytes| bytes[4 * 8] ^= 1);
    let [base, side, folder, store] = [PATH, SIDE, "/", &format!("{SIDE}/store")];
    let all = [
        format!("sync {base}"),
        format!("sync_dir {side}"),
        format!("sync_dir {folder}"),
        format!("sync {store}"),
    ];
    assert_eq!(opening(), all);
    assert_eq!(opening(), [""; 0], "now it is");

    // Somebody dies while he begins the store, and another goes on; then the power goes.
    let whole = SimDisk::new();
    open(&whole.process()).unwrap();
    for step in 0..whole.steps() {
        let disk = SimDisk::new();
        disk.fail(step, FaultKind::Kill);
        assert!(open(&disk.process()).is_err());
        let (mut session, mut model) =
            (Session::new(open(&disk.process()).unwrap()).unwrap(), Model::default());
        let change = model.change(&mut Rng(step));
        let lsn = commit(&mut session, &mut model, &change, Durability::Disk).unwrap();
        for seed in 0..20 {
            sound(&disk.reboot(seed), lsn.get(), &model);
        }
    }
}

#[test]
fn r25_a_mark_of_a_dead_process_is_made_durable_by_the_others() {
    let (before, model) = at_rest(12);
    // Of the steps of whoever marks it after that, the power goes in each, and once behind the commit.
    let marks = [Some(0), Some(1), Some(2), Some(3), Some(4), None];
    for (others, marks) in [false, true].into_iter().flat_map(|others| marks.map(|step| (others, step))) {
        for seed in 0..20 {
            let disk = before.reboot(seed);
            let (process, other) = (disk.process(), disk.process());
            let mut session = Session::new(open(&process).unwrap()).unwrap();
            let joined = others.then(|| open(&other).unwrap());
            session.begin_read().unwrap();
            let sync = disk.steps() + 3;
            disk.fail(sync, FaultKind::Kill);
            session.begin_write().unwrap_err();
            assert_eq!(disk.describe(sync).unwrap(), format!("sync {PATH}"));
            process.kill();

            let from = disk.steps();
            if let Some(step) = marks {
                disk.fail(from + step, FaultKind::Kill);
            }
            let after = (|| {
                let store = joined.map_or_else(|| open(&other), Ok)?;
                let (mut session, mut model) = (Session::new(store)?, model.clone());
                let change = model.change(&mut Rng(seed));
                let lsn = commit(&mut session, &mut model, &change, Durability::Disk)?;
                Ok::<_, Error>((lsn, model))
            })();
            assert!(after.is_ok() || marks.is_some());
            other.kill();
            let disk = disk.reboot(seed);
            let Ok((lsn, after)) = after else {
                // What wasn't acknowledged may be there.
                let store = open(&disk.process()).unwrap();
                let (lsn, found) = read(&store).unwrap();
                assert!(lsn == Lsn::new(14) || (lsn, &found) == (Lsn::new(13), &model), "{lsn}");
                assert!(store.verify().unwrap().is_empty());
                continue;
            };
            sound(&disk, lsn.get(), &after);
        }
    }
}
