//! Encrypted remotes: what is seen of them without the key, what a wrong key does, and what becomes of objects that were
//! changed.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use common::pages::{Model, Rng, open, read};
use common::{Failing, Fickle, Honesty, URL, clone_until, commit, objects, over, remotes, reopen};
use object_store::memory::InMemory;
use object_store::path::Path;
use tempfile::TempDir;
use tideline_journal::disk::{Disk, SimDisk, SimProcess};
use tideline_journal::{Code, Lsn, Result, Store};
use tideline_sync::{Options, Point};

/// Files with keys.
struct Keys(TempDir);

impl Keys {
    fn new() -> Keys {
        Keys(tempfile::tempdir().unwrap())
    }

    fn path(&self, number: u8) -> String {
        self.0.path().join(number.to_string()).to_str().unwrap().to_owned()
    }

    /// Options of a remote with this key.
    fn of(&self, number: u8) -> Options {
        let path = self.path(number);
        std::fs::write(&path, format!("{}\n", format!("{number:02x}").repeat(32))).unwrap();
        Options::from_iter([("key_file".to_owned(), path.into())])
    }
}

/// The same, and nobody else pushes there.
fn alone(mut options: Options) -> Options {
    options.insert("single_writer".to_owned(), true.into());
    options
}

fn filled(commits: u64) -> Arc<Store> {
    let store = open(&SimDisk::new().process()).unwrap();
    let mut rng = Rng(5);
    for _ in 0..commits {
        commit(&store, &mut rng).unwrap();
    }
    store
}

fn clone_with(process: &Arc<SimProcess>, fickle: &Arc<Fickle>, remote: Options) -> Result<Lsn> {
    clone_until(process, fickle, "/b.db", remote, Point::Newest)
}

fn cloned(fickle: &Arc<Fickle>, remote: &Options) -> Arc<Store> {
    let process = SimDisk::new().process();
    clone_with(&process, fickle, remote.clone()).unwrap();
    reopen(&process, fickle, "/b.db").unwrap()
}

fn has(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

/// What nobody without the key may see: content of pages, and words of the format.
fn told(objects: &[(Path, Vec<u8>)], model: &Model, lineage: [u8; 16]) -> Vec<String> {
    let mut found = Vec::new();
    let digits: String = lineage.iter().map(|byte| format!("{byte:02x}")).collect();
    let words =
        ["manifest", "lineage", "segment", "previous", "TIDEPACK", "TIDEIMGS", "SQLite format", &digits];
    for (at, bytes) in objects {
        let word = |word: &&&str| has(bytes, word.as_bytes());
        found.extend(words.iter().filter(word).map(|word| format!("{word} in {at}")));
        let fill = |fill: &&u64| has(bytes, &fill.to_le_bytes());
        let fills = model.fills.values().filter(|&&fill| fill != 0).filter(fill);
        found.extend(fills.map(|fill| format!("{fill} in {at}")));
    }
    found
}

#[test]
fn it_is_pushed_pulled_cloned_and_read_and_the_store_sees_nothing_of_it() {
    let (keys, fickle) = (Keys::new(), Fickle::new());
    let key = keys.of(1);
    let first = filled(3);
    let there = remotes(&first, &fickle);
    there.add("origin", URL, Some(&key)).unwrap();
    assert_eq!(there.pull("origin").unwrap(), Lsn::new(3));
    there.push("origin").unwrap();
    let second = cloned(&fickle, &key);
    let back = remotes(&second, &fickle);
    let mut rng = Rng(9);
    for _ in 0..20 {
        commit(&first, &mut rng).unwrap();
        let before = fickle.requests();
        there.push("origin").unwrap();
        let asked = fickle.requests() - before;
        // Four, and which key it has. Every 16th brings more.
        assert!(asked == 5 || first.head() >= Lsn::new(16), "{asked}");
        assert_eq!(back.pull("origin").unwrap(), first.head());
        assert_eq!(read(&second).unwrap(), read(&first).unwrap());
    }
    commit(&second, &mut rng).unwrap();
    assert_eq!(back.sync("origin").unwrap(), second.head());
    assert_eq!(there.pull("origin").unwrap(), second.head());
    // From runs as well: page by page, and all of it.
    let third = cloned(&fickle, &key);
    assert_eq!(read(&third).unwrap(), read(&first).unwrap());
    let fourth = cloned(&fickle, &key);
    fourth.hydrate(|_, _| true).unwrap();
    assert_eq!(read(&fourth).unwrap(), read(&first).unwrap());
    assert!(fourth.verify().unwrap().is_empty());
    let empty = open(&SimDisk::new().process()).unwrap();
    remotes(&empty, &fickle).add("origin", URL, Some(&key)).unwrap();
    remotes(&empty, &fickle).pull("origin").unwrap();
    assert_eq!(read(&empty).unwrap(), read(&first).unwrap());

    let stored = objects(&fickle);
    let (_, model) = read(&first).unwrap();
    assert_eq!(told(&stored, &model, first.lineage()), [""; 0]);
    let mut folders = BTreeSet::new();
    for (at, _) in &stored {
        match at.as_ref().split_once('/') {
            None => assert_eq!(at.as_ref(), "key"),
            Some((folder, name)) => {
                assert!((folder.len(), name.len()) == (16, 64), "{at}");
                assert!(!at.as_ref().contains(|c: char| c != '/' && !c.is_ascii_hexdigit()), "{at}");
                folders.insert(folder);
            }
        }
    }
    // Manifests, segments, leases and the hint.
    assert_eq!(folders.len(), 4, "{folders:?}");
    let line = stored.iter().find(|(at, _)| at.as_ref() == "key").unwrap();
    assert!(!has(&line.1, "01".repeat(32).as_bytes()));
    // The same in the clear is found by the same test.
    let clear = Fickle::new();
    remotes(&first, &clear).add("clear", URL, None).unwrap();
    remotes(&first, &clear).push("clear").unwrap();
    let seen = told(&objects(&clear), &model, first.lineage());
    assert!(seen.len() > 10, "{seen:?}");
}

#[test]
fn without_its_key_or_with_another_nothing_is_read_and_nothing_changed() {
    let (keys, fickle) = (Keys::new(), Fickle::new());
    let store = filled(3);
    remotes(&store, &fickle).add("origin", URL, Some(&keys.of(1))).unwrap();
    // Before anything was pushed, and behind.
    for _ in 0..2 {
        let stored = objects(&fickle);
        for wrong in [keys.of(2), alone(keys.of(2)), Options::new()] {
            let what = format!("{wrong:?}");
            let process = SimDisk::new().process();
            let refused = clone_with(&process, &fickle, wrong.clone()).unwrap_err();
            assert_eq!(refused.code(), Code::Denied, "{what}: {refused}");
            assert!(refused.to_string().contains("key_file"), "{refused}");
            assert!(!process.exists("/b.db".as_ref()).unwrap(), "{what}");
            let other = filled(2);
            let refused = remotes(&other, &fickle).add("origin", URL, Some(&wrong)).unwrap_err();
            assert_eq!(refused.code(), Code::Denied, "{what}: {refused}");
            assert!(remotes(&other, &fickle).list().unwrap().is_empty());
            assert!(objects(&fickle) == stored, "{what}");
        }
        remotes(&store, &fickle).push("origin").unwrap();
    }
    // Who has been there, and says now that there is no key: a position is none for other names.
    let stored = objects(&fickle);
    let own = read(&store).unwrap();
    let none = Options::from_iter([("key_file".to_owned(), serde_json::Value::Null)]);
    remotes(&store, &fickle).add("origin", URL, Some(&alone(none))).unwrap();
    commit(&store, &mut Rng(4)).unwrap();
    for ask in [tideline_sync::Remotes::push, tideline_sync::Remotes::pull, tideline_sync::Remotes::sync] {
        let refused = ask(&remotes(&store, &fickle), "origin").unwrap_err();
        assert_eq!(refused.code(), Code::Denied, "{refused}");
    }
    assert!(objects(&fickle) == stored);
    assert_ne!(read(&store).unwrap(), own);
    // The file has another key by now, none, or is gone. Nothing of it is told or kept.
    let key = keys.of(1);
    remotes(&store, &fickle).add("origin", URL, Some(&key)).unwrap();
    let stored = objects(&fickle);
    for (text, code) in [
        (Some("77".repeat(32)), Code::Denied),
        (Some("88".repeat(31)), Code::Argument),
        (None, Code::Missing),
    ] {
        match &text {
            Some(text) => std::fs::write(keys.path(1), text).unwrap(),
            None => std::fs::remove_file(keys.path(1)).unwrap(),
        }
        let refused = remotes(&store, &fickle).push("origin").unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
        let error = remotes(&store, &fickle).list().unwrap()[0].last_error.clone().unwrap();
        assert!(!error.contains("7777") && !error.contains("8888"), "{error}");
        assert!(objects(&fickle) == stored);
    }
    keys.of(1);
    assert_eq!(remotes(&store, &fickle).push("origin").unwrap(), store.head());
}

#[test]
fn a_place_that_is_not_encrypted_takes_no_key() {
    let (keys, fickle) = (Keys::new(), Fickle::new());
    let store = filled(3);
    remotes(&store, &fickle).add("origin", URL, None).unwrap();
    remotes(&store, &fickle).push("origin").unwrap();
    let stored = objects(&fickle);
    for key in [keys.of(1), alone(keys.of(1))] {
        let refused = remotes(&store, &fickle).add("origin", URL, Some(&key)).unwrap_err();
        assert_eq!(refused.code(), Code::Argument, "{refused}");
        let refused = clone_with(&SimDisk::new().process(), &fickle, key).unwrap_err();
        assert_eq!(refused.code(), Code::Argument, "{refused}");
    }
    assert!(objects(&fickle) == stored);
    // What was refused changed nothing.
    commit(&store, &mut Rng(4)).unwrap();
    assert_eq!(remotes(&store, &fickle).push("origin").unwrap(), store.head());
    // Nothing is there: that isn't a database, and no place is made one by reading.
    let empty = Fickle::new();
    let refused = clone_with(&SimDisk::new().process(), &empty, keys.of(1)).unwrap_err();
    assert_eq!(refused.code(), Code::Missing, "{refused}");
    assert!(objects(&empty).is_empty());
}

#[test]
fn a_key_that_is_gone_from_its_place_is_missed_and_a_place_is_begun_anew_when_that_is_said() {
    let (keys, fickle) = (Keys::new(), Fickle::new());
    let key = keys.of(1);
    let store = filled(3);
    remotes(&store, &fickle).add("origin", URL, Some(&key)).unwrap();
    remotes(&store, &fickle).push("origin").unwrap();
    let lost: Vec<_> = objects(&fickle).into_iter().filter(|(at, _)| at.as_ref() != "key").collect();
    let lost = over(&lost);
    commit(&store, &mut Rng(4)).unwrap();
    for ask in [tideline_sync::Remotes::push, tideline_sync::Remotes::pull] {
        let refused = ask(&remotes(&store, &lost), "origin").unwrap_err();
        assert_eq!(refused.code(), Code::Missing, "{refused}");
    }
    let refused = remotes(&store, &lost).add("origin", URL, Some(&key)).unwrap_err();
    assert_eq!(refused.code(), Code::Missing, "{refused}");
    remotes(&store, &lost).remove("origin").unwrap();
    remotes(&store, &lost).add("origin", URL, Some(&key)).unwrap();
    assert_eq!(remotes(&store, &lost).push("origin").unwrap(), store.head());
    assert_eq!(read(&cloned(&lost, &key)).unwrap(), read(&store).unwrap());
    // And where all of it was there before, with the first.
    assert_eq!(remotes(&store, &fickle).push("origin").unwrap(), store.head());
    assert_eq!(read(&cloned(&fickle, &key)).unwrap(), read(&store).unwrap());
}

#[test]
fn a_lazy_clone_finds_its_key_where_it_was_and_where_it_is_said_to_be() {
    let (keys, fickle) = (Keys::new(), Fickle::new());
    let store = filled(20);
    remotes(&store, &fickle).add("origin", URL, Some(&keys.of(1))).unwrap();
    remotes(&store, &fickle).push("origin").unwrap();
    let process = SimDisk::new().process();
    clone_with(&process, &fickle, keys.of(1)).unwrap();
    let moved = keys.0.path().join("moved").to_str().unwrap().to_owned();
    std::fs::rename(keys.path(1), &moved).unwrap();
    let copy = reopen(&process, &fickle, "/b.db").unwrap();
    let refused = read(&copy).unwrap_err();
    assert_eq!(refused.code(), Code::Missing, "{refused}");
    assert!(refused.to_string().contains(&keys.path(1)), "{refused}");
    // A wrong one is an error as well, and no page.
    std::fs::write(keys.path(1), "99".repeat(32)).unwrap();
    assert_eq!(read(&copy).unwrap_err().code(), Code::Denied);
    let now_there = Options::from_iter([("key_file".to_owned(), moved.into())]);
    remotes(&copy, &fickle).add("origin", URL, Some(&now_there)).unwrap();
    copy.close().unwrap();
    let copy = reopen(&process, &fickle, "/b.db").unwrap();
    assert_eq!(read(&copy).unwrap(), read(&store).unwrap());
}

/// What a clone of `first`, which is sound, comes to that follows what is in `fickle`, or, without `first`, a clone of
/// that: its pages, all of them, or an error.
fn tried(first: Option<&Arc<Fickle>>, fickle: &Arc<Fickle>, key: &Options) -> Result<(Lsn, Model)> {
    let process = SimDisk::new().process();
    clone_with(&process, first.unwrap_or(fickle), key.clone())?;
    let store = reopen(&process, fickle, "/b.db")?;
    if first.is_some() {
        remotes(&store, fickle).pull("origin")?;
    }
    read(&store)
}

#[test]
fn an_object_that_was_changed_cut_or_swapped_is_never_taken_for_what_it_was() {
    let (keys, fickle) = (Keys::new(), Fickle::new());
    let key = keys.of(1);
    let source = filled(4);
    let there = remotes(&source, &fickle);
    there.add("origin", URL, Some(&key)).unwrap();
    // Manifests with runs and without, and the hint.
    let mut states = Vec::new();
    let mut first = None;
    for lsn in 0..18 {
        commit(&source, &mut Rng(lsn)).unwrap();
        there.push("origin").unwrap();
        states.push(read(&source).unwrap());
        first.get_or_insert_with(|| over(&objects(&fickle)));
    }
    let own = states.last().unwrap();
    let sound = objects(&fickle);
    let mut rng = Rng(7);
    let (mut errors, mut sames) = ([0; 2], [0; 2]);
    for (n, (at, bytes)) in sound.iter().enumerate() {
        for trial in 0..18 {
            let mut damaged = sound.clone();
            let what = match trial {
                0 => {
                    damaged.remove(n);
                    format!("{at} is lost")
                }
                1..=3 => {
                    damaged[n].1.truncate(rng.below(bytes.len() as u64) as usize);
                    format!("{at} is cut short")
                }
                4..=11 => {
                    let byte = rng.below(bytes.len() as u64) as usize;
                    damaged[n].1[byte] ^= 1 << rng.below(8);
                    format!("byte {byte} of {at}")
                }
                // The next ones are of its own kind, mostly.
                12..=14 => {
                    let (other, bytes) = sound[(n + trial - 11) % sound.len()].clone();
                    damaged[n].1 = bytes;
                    format!("{other} is at {at}")
                }
                _ => {
                    let other = (n + 1 + rng.below(sound.len() as u64 - 1) as usize) % sound.len();
                    damaged[n].1 = sound[other].1.clone();
                    format!("{} is at {at}", sound[other].0)
                }
            };
            let damaged = over(&damaged);
            for (follows, first) in [None, first.as_ref()].into_iter().enumerate() {
                match tried(first, &damaged, &key) {
                    Err(e) => {
                        let denied = e.code() == Code::Denied && at.as_ref() == "key";
                        let known = matches!(e.code(), Code::Damaged | Code::Missing | Code::Format);
                        assert!(known || denied, "{what}: {e}");
                        assert!(e.to_string().contains(';'), "{e}");
                        errors[follows] += 1;
                    }
                    Ok(found) if found == *own => sames[follows] += 1,
                    // A chain of which a manifest is lost ends before it.
                    Ok(found) => assert!(trial == 0 && states.contains(&found), "{what}: LSN {}", found.0),
                }
            }
        }
    }
    println!("tried: objects={} errors={errors:?} same={sames:?}", sound.len());
    // A clone reads the runs of one manifest, and nothing that was before.
    assert!(errors[0] > 80 && errors[1] > 500 && sames[0] > 0, "{errors:?}");
}

#[test]
fn a_pull_of_what_was_changed_is_an_error_and_goes_on_when_it_is_put_back() {
    let (keys, fickle) = (Keys::new(), Fickle::new());
    let key = keys.of(1);
    let source = filled(3);
    let there = remotes(&source, &fickle);
    there.add("origin", URL, Some(&key)).unwrap();
    there.push("origin").unwrap();
    let follower = cloned(&fickle, &key);
    follower.hydrate(|_, _| true).unwrap();
    let own = read(&follower).unwrap();
    let before = objects(&fickle);
    commit(&source, &mut Rng(4)).unwrap();
    there.push("origin").unwrap();
    let sound = objects(&fickle);
    let new: Vec<usize> = (0..sound.len()).filter(|&n| !before.contains(&sound[n])).collect();
    assert_eq!(new.len(), 2, "a manifest and a segment");
    for n in new {
        for byte in 0..sound[n].1.len() {
            let mut damaged = sound.clone();
            damaged[n].1[byte] ^= 0x20;
            let refused = remotes(&follower, &over(&damaged)).pull("origin").unwrap_err();
            assert!(matches!(refused.code(), Code::Damaged | Code::Format), "byte {byte}: {refused}");
            assert_eq!(read(&follower).unwrap(), own, "byte {byte}");
        }
    }
    remotes(&follower, &fickle).pull("origin").unwrap();
    assert_eq!(read(&follower).unwrap(), read(&source).unwrap());
}

#[test]
fn of_all_who_begin_at_once_one_makes_the_key() {
    for _ in 0..10 {
        let (keys, fickle) = (Keys::new(), Fickle::new());
        let key = keys.of(1);
        let stores: Vec<_> = (0..6).map(|_| open(&SimDisk::new().process()).unwrap()).collect();
        std::thread::scope(|scope| {
            for store in &stores {
                scope.spawn(|| remotes(store, &fickle).add("origin", URL, Some(&key)).unwrap());
            }
        });
        commit(&stores[0], &mut Rng(1)).unwrap();
        remotes(&stores[0], &fickle).push("origin").unwrap();
        for store in &stores[1..] {
            remotes(store, &fickle).pull("origin").unwrap();
            assert_eq!(read(store).unwrap(), read(&stores[0]).unwrap());
        }
    }
}

#[test]
fn a_store_that_lets_two_create_one_object_is_refused_through_its_key_as_well() {
    for honesty in [Honesty::Overwrites, Honesty::Races, Honesty::Lies] {
        let (keys, fickle) = (Keys::new(), Fickle::that(honesty));
        let store = filled(2);
        let there = remotes(&store, &fickle);
        let refused = there.add("origin", URL, Some(&keys.of(1))).unwrap_err();
        assert_eq!(refused.code(), Code::Denied, "{honesty:?}: {refused}");
        assert!(refused.to_string().contains("single_writer"), "{refused}");
        let left: Vec<_> = objects(&fickle).into_iter().map(|(at, _)| at.to_string()).collect();
        assert_eq!(left, ["key"], "{honesty:?}");
        there.add("origin", URL, Some(&alone(keys.of(1)))).unwrap();
        there.push("origin").unwrap();
        assert_eq!(read(&cloned(&fickle, &keys.of(1))).unwrap(), read(&store).unwrap());
    }
}

#[test]
fn any_request_may_fail_and_any_answer_get_lost() {
    let keys = Keys::new();
    let key = keys.of(1);
    let work = |store: &Arc<Store>, fickle: &Arc<Fickle>, acknowledged: &mut Lsn| -> Result<()> {
        let there = remotes(store, fickle);
        there.add("origin", URL, Some(&key))?;
        for seed in 0..2 {
            commit(store, &mut Rng(seed))?;
            *acknowledged = there.push("origin")?;
        }
        Ok(())
    };
    let whole = Fickle::new();
    work(&filled(1), &whole, &mut Lsn::default()).unwrap();
    let count = whole.requests();
    for failing in [Failing::Refused, Failing::Unanswered, Failing::Dead, Failing::DeadAfter] {
        for n in 1..=count {
            let what = format!("request {n} {failing:?}");
            let fickle = Fickle::failing_at(InMemory::new(), n, failing);
            let store = filled(1);
            let mut acknowledged = Lsn::ZERO;
            if let Err(e) = work(&store, &fickle, &mut acknowledged) {
                assert_eq!(e.code(), Code::Offline, "{what}: {e}");
            }
            let sound = Fickle::over(fickle.memory.fork());
            if acknowledged > Lsn::ZERO {
                assert!(read(&cloned(&sound, &key)).unwrap().0 >= acknowledged, "{what}");
            }
            let there = remotes(&store, &sound);
            there.add("origin", URL, Some(&key)).unwrap_or_else(|e| panic!("{what}: {e}"));
            commit(&store, &mut Rng(23)).unwrap();
            assert_eq!(there.push("origin").unwrap(), store.head(), "{what}");
            assert_eq!(read(&cloned(&sound, &key)).unwrap(), read(&store).unwrap(), "{what}");
        }
    }
    println!("tried: requests={}", 4 * count);
}

#[test]
fn what_was_seen_with_the_key_a_moment_ago_is_nothing_without_it() {
    let (keys, fickle, store) = (Keys::new(), Fickle::new(), filled(2));
    let another = || tideline_sync::Remotes::through(&store, common::way(&fickle));
    let (own, url) = (another(), "s3://bucket/app");
    own.add("origin", url, Some(&keys.of(1))).unwrap();
    own.push("origin").unwrap();
    let stored = objects(&fickle);
    // Another process says so, of one and the same place.
    let none = Options::from_iter([("key_file".to_owned(), serde_json::Value::Null)]);
    another().add("origin", url, Some(&alone(none))).unwrap();
    commit(&store, &mut Rng(4)).unwrap();
    assert_eq!(own.push("origin").unwrap_err().code(), Code::Denied);
    assert!(objects(&fickle) == stored);
    another().add("origin", url, Some(&keys.of(1))).unwrap();
    assert_eq!(own.push("origin").unwrap(), store.head());
}
