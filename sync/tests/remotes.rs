//! Pushing, pulling and cloning, on a simulated disk and an object store that fails when it is told to.

mod common;

use std::sync::Arc;

use common::pages::{self, Change, Rng, open, read};
use common::{Failing, Fickle, Honesty, URL, clone, cloned, commit, objects, over, remotes, reopen};
use object_store::memory::InMemory;
use tideline_journal::disk::{Disk, SimDisk, SimProcess};
use tideline_journal::{Code, Durability, Lsn, Retention, Session, Store};
use tideline_sync::{Options, Task};

/// A store with some commits.
fn filled(disk: &Arc<SimDisk>, commits: usize) -> Arc<Store> {
    let store = open(&disk.process()).unwrap();
    let mut rng = Rng(3);
    for _ in 0..commits {
        commit(&store, &mut rng).unwrap();
    }
    store
}

/// A store whose commits are at its remote `origin`.
fn pushed(disk: &Arc<SimDisk>, fickle: &Arc<Fickle>, commits: usize) -> Arc<Store> {
    let store = filled(disk, commits);
    remotes(&store, fickle).add("origin", URL, None).unwrap();
    assert_eq!(remotes(&store, fickle).push("origin").unwrap(), Lsn::new(commits as u64));
    store
}

/// Options of a remote that nobody else pushes to.
fn alone() -> Options {
    Options::from_iter([("single_writer".to_owned(), true.into())])
}

/// Options of a remote that the journal isn't kept for.
fn unspooled() -> Options {
    Options::from_iter([("spool_mib".to_owned(), 0.into())])
}

/// The newest manifest's part: its LSNs, whether it is full, and the bytes of its segments.
fn newest_part(fickle: &Fickle) -> (u64, u64, bool, u64) {
    let all = objects(fickle).into_iter().filter(|(at, _)| at.as_ref().starts_with("manifest/"));
    let (_, bytes) = all.max_by_key(|(at, _)| at.to_string()).expect("a manifest");
    let line = bytes.split(|&byte| byte == b'\n').next().unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(line).unwrap();
    let part = &manifest["part"];
    let sizes = part["segments"].as_array().unwrap().iter().map(|segment| segment["bytes"].as_u64().unwrap());
    let number = |name: &str| part[name].as_u64().unwrap();
    (number("first"), number("last"), part["full"].as_bool().unwrap(), sizes.sum())
}

/// Commits small changes; returns the head.
fn commit_many(store: &Arc<Store>, count: u64) -> Lsn {
    let mut model = read(store).unwrap().1;
    let mut session = Session::new(Arc::clone(store)).unwrap();
    for n in 1..=count {
        let page = 2 + (n % u64::from(model.size - 1)) as u32;
        let change = Change { fills: vec![(page, n | 1)], size: model.size };
        pages::commit(&mut session, &mut model, &change, Durability::Process).unwrap();
    }
    store.head()
}

/// A clone of what is there.
fn second(disk: &Arc<SimDisk>, fickle: &Arc<Fickle>) -> Arc<Store> {
    let process = disk.process();
    clone(&process, fickle, "/b.db").unwrap();
    reopen(&process, fickle, "/b.db").unwrap()
}

#[test]
fn a_clone_has_what_was_pushed_and_both_sides_follow_each_other() {
    let (disk, fickle) = (SimDisk::new(), Fickle::new());
    let first = pushed(&disk, &fickle, 5);
    let there = remotes(&first, &fickle);
    let before = fickle.requests();
    assert_eq!(there.push("origin").unwrap(), Lsn::new(5));
    assert_eq!(fickle.requests() - before, 2, "nothing to push is two small requests");
    let process = disk.process();
    assert_eq!(clone(&process, &fickle, "/b.db").unwrap(), Lsn::new(5));
    let second = reopen(&process, &fickle, "/b.db").unwrap();
    assert_eq!(read(&second).unwrap(), read(&first).unwrap());
    let back = remotes(&second, &fickle);
    let mut rng = Rng(9);
    for round in 0..8 {
        let (from, to, pushing, pulling) =
            if round % 2 == 0 { (&first, &second, &there, &back) } else { (&second, &first, &back, &there) };
        for _ in 0..=round {
            commit(from, &mut rng).unwrap();
        }
        let before = fickle.requests();
        let head = pushing.push("origin").unwrap();

        assert!(fickle.requests() - before == 4 || round == 1, "a push is four requests at most");
        assert_eq!(head, from.head());
        assert_eq!(pulling.pull("origin").unwrap(), head);
        assert_eq!(read(to).unwrap(), read(from).unwrap());
        let listed = pulling.list().unwrap();
        assert_eq!((listed[0].head, listed[0].ahead, listed[0].behind), (Some(head), 0, 0));
    }
}

#[test]
fn who_was_overtaken_is_told_and_nothing_is_changed() {
    let (disk, fickle) = (SimDisk::new(), Fickle::new());
    let first = pushed(&disk, &fickle, 3);
    let second = second(&disk, &fickle);
    commit(&first, &mut Rng(1)).unwrap();
    commit(&second, &mut Rng(2)).unwrap();
    remotes(&first, &fickle).push("origin").unwrap();
    let (own, there) = (read(&second).unwrap(), cloned(&fickle));
    for what in ["push", "pull", "sync"] {
        let back = remotes(&second, &fickle);
        let asked = match what {
            "push" => back.push("origin"),
            "pull" => back.pull("origin"),
            _ => back.sync("origin"),
        };
        let refused = asked.unwrap_err();
        assert_eq!(refused.code(), Code::Diverged, "{what}: {refused}");
        assert_eq!(read(&second).unwrap(), own, "{what}");
        assert_eq!(cloned(&fickle), there, "{what}");
    }
    let listed = &remotes(&second, &fickle).list().unwrap()[0];
    assert!(listed.last_error.as_deref().is_some_and(|e| e.contains("DIVERGED")), "{listed:?}");
    assert_eq!(listed.ahead, 1);
}

#[test]
fn what_is_not_there_any_more_is_pushed_as_a_whole() {
    let (disk, fickle) = (SimDisk::new(), Fickle::new());
    let store = filled(&disk, 3);
    store.set_retention(Retention::None).unwrap();
    let there = remotes(&store, &fickle);
    there.add("origin", URL, Some(&unspooled())).unwrap();
    there.push("origin").unwrap();
    let process = disk.process();
    clone(&process, &fickle, "/b.db").unwrap();
    let mut rng = Rng(5);
    for _ in 0..40 {
        commit(&store, &mut rng).unwrap();
    }
    assert!(store.status().unwrap().horizon > Lsn::new(3));
    assert!(there.list().unwrap()[0].needs_full);
    there.push("origin").unwrap();
    assert!(newest_part(&fickle).2);
    assert!(!there.list().unwrap()[0].needs_full);
    let own = read(&store).unwrap();
    assert_eq!(cloned(&fickle), own);
    // Who only follows gets there as well.
    let second = reopen(&process, &fickle, "/b.db").unwrap();
    remotes(&second, &fickle).pull("origin").unwrap();
    assert_eq!(read(&second).unwrap(), own);
}

#[test]
fn what_a_remote_that_is_away_has_not_got_stays_in_the_journal() {
    for (retention, folded) in [(Retention::None, false), (Retention::Lsns(1), true)] {
        let (disk, fickle) = (SimDisk::new(), Fickle::new());
        let process = disk.process();
        let mut store = open(&process).unwrap();
        store.set_retention(retention).unwrap();
        let mut rng = Rng(3);
        for _ in 0..3 {
            commit(&store, &mut rng).unwrap();
        }
        remotes(&store, &fickle).add("origin", URL, None).unwrap();
        remotes(&store, &fickle).push("origin").unwrap();
        let away = Fickle::failing_at(fickle.memory.fork(), 1, Failing::Dead);
        for _ in 0..4 {
            commit_many(&store, 750);
            assert_eq!(remotes(&store, &away).push("origin").unwrap_err().code(), Code::Offline);
            if folded {
                store.fold().unwrap();
            }
            store.close().unwrap();
            store = open(&process).unwrap();
        }
        assert!(!remotes(&store, &fickle).list().unwrap()[0].needs_full);
        remotes(&store, &fickle).push("origin").unwrap();
        let (first, last, full, bytes) = newest_part(&fickle);
        assert_eq!((first, last, full), (4, 3003, false), "{retention:?}");
        // Each commit has an entry, of some 250 bytes.
        assert!(bytes < 800_000, "{bytes} bytes");
        assert_eq!(cloned(&fickle), read(&store).unwrap());
        // Nobody needs it any more.
        commit_many(&store, 20);
        assert!(store.status().unwrap().segments < 16, "{:?}", store.status().unwrap());
    }
}

#[test]
fn remotes_have_positions_of_their_own_and_one_that_is_away_holds_no_more_than_it_may() {
    let (disk, near, far) = (SimDisk::new(), Fickle::new(), Fickle::new());
    let store = filled(&disk, 3);
    store.set_retention(Retention::None).unwrap();
    let little = Options::from_iter([("spool_mib".to_owned(), 1.into())]);
    remotes(&store, &near).add("near", URL, None).unwrap();
    remotes(&store, &far).add("far", URL, Some(&little)).unwrap();
    remotes(&store, &far).add("followed", URL, None).unwrap();
    remotes(&store, &near).push("near").unwrap();
    remotes(&store, &far).push("far").unwrap();
    // What is only pulled from needs nothing.
    remotes(&store, &far).pull("followed").unwrap();
    let needs_full = || -> Vec<bool> {
        remotes(&store, &near).list().unwrap().iter().map(|remote| remote.needs_full).collect()
    };
    let horizon = || store.status().unwrap().horizon;
    for _ in 0..5 {
        commit_many(&store, 10);
        remotes(&store, &near).push("near").unwrap();
        assert!(horizon() <= Lsn::new(3));
    }
    assert_eq!(needs_full(), [false; 3]);
    remotes(&store, &far).push("far").unwrap();
    assert_eq!(newest_part(&far), (4, 53, false, newest_part(&far).3));
    commit_many(&store, 1);
    assert!(horizon() <= Lsn::new(53));
    for _ in 0..5 {
        commit_many(&store, 400);
        remotes(&store, &near).push("near").unwrap();
        assert!(!newest_part(&near).2);
    }
    assert!(horizon() > Lsn::new(53), "more than a MiB");
    assert_eq!(needs_full(), [false, true, true]);
    remotes(&store, &far).push("far").unwrap();
    assert!(newest_part(&far).2);
    assert_eq!(cloned(&far), read(&store).unwrap());
    assert_eq!(cloned(&near), cloned(&far));
}

#[test]
fn a_lazy_clone_that_folds_pushes_what_it_has_committed_and_no_more() {
    let (disk, fickle) = (SimDisk::new(), Fickle::new());
    let first = pushed(&disk, &fickle, 30);
    let second = second(&disk, &fickle);
    second.set_retention(Retention::None).unwrap();
    let back = remotes(&second, &fickle);
    for pushes in 1..=3 {
        let before = second.head();
        commit(&second, &mut Rng(pushes)).unwrap();
        commit(&second, &mut Rng(10 + pushes)).unwrap();
        assert!(second.fold().unwrap() <= before);
        back.push("origin").unwrap();
        let head = second.head();
        let (from, to, full, _) = newest_part(&fickle);
        assert_eq!((from, to, full), (before.next().get(), head.get(), false));
        assert_eq!(second.fold().unwrap(), head, "what is there is folded");
    }
    remotes(&first, &fickle).pull("origin").unwrap();
    assert_eq!(read(&first).unwrap(), read(&second).unwrap());
    // Who only follows holds nothing.
    commit(&first, &mut Rng(9)).unwrap();
    remotes(&first, &fickle).push("origin").unwrap();
    back.pull("origin").unwrap();
    assert_eq!(second.fold().unwrap(), second.head());
}

#[test]
fn who_is_told_to_stop_stops_between_requests_as_well() {
    use std::cell::Cell;
    let (disk, fickle) = (SimDisk::new(), Fickle::new());
    let store = filled(&disk, 1);
    let change = |size: u32, fill: u64| Change { fills: (1..=size).map(|page| (page, fill)).collect(), size };
    let commit_all = |fill| {
        let mut model = read(&store).unwrap().1;
        let mut session = Session::new(Arc::clone(&store)).unwrap();
        pages::commit(&mut session, &mut model, &change(5000, fill), Durability::Process).unwrap();
    };
    commit_all(5);
    remotes(&store, &fickle).add("origin", URL, None).unwrap();
    for fill in [7, 9] {
        // It is asked so often in no request: each takes a moment.
        let (requests, looks) = (Cell::new(0), Cell::new(0));
        let stop = || {
            let same = requests.replace(fickle.requests()) == fickle.requests();
            looks.set(if same { looks.get() + 1 } else { 0 });
            looks.get() >= 30
        };
        let stopped = remotes(&store, &fickle).in_pieces(2000).until(&stop).push("origin").unwrap_err();
        assert_eq!(stopped.code(), Code::Interrupted, "{stopped}");
        remotes(&store, &fickle).push("origin").unwrap();
        assert_eq!(cloned(&fickle), read(&store).unwrap());
        commit_all(fill);
    }
}

#[test]
fn credentials_that_are_too_old_are_no_remote_that_is_away() {
    let sound = Fickle::new();
    let store = pushed(&SimDisk::new(), &sound, 2);
    for request in 1..=3 {
        commit(&store, &mut Rng(request)).unwrap();
        let expired = Fickle::failing_at(sound.memory.fork(), request, Failing::Expired);
        let refused = remotes(&store, &expired).push("origin").unwrap_err();
        assert_eq!(refused.code(), Code::Denied, "{request}: {refused}");
        remotes(&store, &sound).push("origin").unwrap();
        assert_eq!(cloned(&sound), read(&store).unwrap());
    }
}

#[test]
fn a_clone_that_fails_leaves_what_somebody_has_committed_to() {
    let fickle = Fickle::new();
    pushed(&SimDisk::new(), &fickle, 3);
    let disk = SimDisk::new();
    let sound = Fickle::over(fickle.memory.fork());
    let (other, theirs) = (disk.process(), Arc::clone(&sound));
    fickle.meanwhile(move || {
        let store = reopen(&other, &theirs, "/b.db").unwrap();
        commit(&store, &mut Rng(6)).unwrap();
        store.close().unwrap();
    });
    let process = disk.process();
    assert_eq!(clone(&process, &fickle, "/b.db").unwrap_err().code(), Code::Offline);
    let store = reopen(&disk.process(), &sound, "/b.db").unwrap();
    assert_eq!(read(&store).unwrap().0, Lsn::new(4));
}

/// What somebody does with a remote; returns the newest LSN that was acknowledged as pushed.
fn work(store: &Arc<Store>, fickle: &Arc<Fickle>, acknowledged: &mut Lsn) -> tideline_journal::Result<()> {
    let there = remotes(store, fickle);
    there.add("origin", URL, None)?;
    let mut rng = Rng(17);
    for _ in 0..3 {
        for _ in 0..2 {
            commit(store, &mut rng)?;
        }
        *acknowledged = there.push("origin")?;
    }
    Ok(())
}

/// A store may have failed in any way: it pushes on, and a clone has what it has.
fn goes_on(store: &Arc<Store>, memory: InMemory, acknowledged: Lsn, what: &str) {
    let sound = Fickle::over(memory);
    let there = remotes(store, &sound);
    if store.head() > Lsn::ZERO && acknowledged > Lsn::ZERO {
        let (lsn, _) = cloned(&sound);
        assert!(lsn >= acknowledged, "{what}: LSN {lsn} of {acknowledged} acknowledged is there");
    }
    there.add("origin", URL, None).unwrap_or_else(|e| panic!("{what}: {e}"));
    commit(store, &mut Rng(23)).unwrap_or_else(|e| panic!("{what}: {e}"));
    let pushed = there.push("origin").unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(pushed, store.head(), "{what}");
    assert_eq!(cloned(&sound), read(store).unwrap(), "{what}");
}

#[test]
fn any_request_may_fail_and_any_answer_get_lost() {
    let whole = Fickle::new();
    let store = filled(&SimDisk::new(), 1);
    work(&store, &whole, &mut Lsn::default()).unwrap();
    let count = whole.requests();
    assert!(count >= 20, "{count}");
    let mut tried = 0;
    for failing in [Failing::Refused, Failing::Unanswered, Failing::Dead, Failing::DeadAfter] {
        for n in 1..=count {
            let what = format!("request {n} {failing:?}");
            let fickle = Fickle::failing_at(InMemory::new(), n, failing);
            let disk = SimDisk::new();
            let store = filled(&disk, 1);
            let mut acknowledged = Lsn::ZERO;
            if let Err(e) = work(&store, &fickle, &mut acknowledged) {
                assert_eq!(e.code(), Code::Offline, "{what}: {e}");
            }
            goes_on(&store, fickle.memory.fork(), acknowledged, &what);
            tried += 1;
        }
    }
    println!("tried: requests={tried}");
}

#[test]
fn the_power_may_go_at_any_step_of_a_push() {
    let disk = SimDisk::new();
    let store = filled(&disk, 1);
    let begun = disk.steps();
    work(&store, &Fickle::new(), &mut Lsn::default()).unwrap();
    let steps = disk.steps();
    for step in begun..steps {
        let fickle = Fickle::new();
        let disk = SimDisk::new();
        let store = filled(&disk, 1);
        disk.cut_at(step);
        let mut acknowledged = Lsn::ZERO;
        work(&store, &fickle, &mut acknowledged).unwrap_err();
        drop(store);
        for seed in 0..2 {
            let what = format!("cut at step {step} ({:?}), seed {seed}", disk.describe(step));
            let process = disk.reboot(seed).process();
            let store = open(&process).unwrap_or_else(|e| panic!("{what}: {e}"));
            // What isn't durable isn't pushed.
            assert!(store.head() >= acknowledged, "{what}");
            goes_on(&store, fickle.memory.fork(), acknowledged, &what);
        }
    }
    println!("tried: cuts={}", 2 * (steps - begun));
}

/// Removes, by hand, what was left of a clone that had hardly begun; false where there is a store.
fn begun_alone(process: &Arc<SimProcess>, path: &str) -> bool {
    let side = format!("{path}-tide");
    if process.exists(format!("{side}/store").as_ref()).unwrap() {
        return false;
    }
    if process.exists(side.as_ref()).unwrap() {
        for name in process.list(side.as_ref()).unwrap() {
            process.remove(format!("{side}/{name}").as_ref()).unwrap();
        }
        process.remove_dir(side.as_ref()).unwrap();
    }
    if process.exists(path.as_ref()).unwrap() {
        process.remove(path.as_ref()).unwrap();
    }
    true
}

#[test]
fn the_power_may_go_at_any_step_of_a_clone_and_of_a_pull() {
    let fickle = Fickle::new();
    let source = filled(&SimDisk::new(), 6);
    // Several pieces to the first entry, and several entries to the second push.
    let there = remotes(&source, &fickle).in_pieces(700);
    there.add("origin", URL, None).unwrap();
    there.push("origin").unwrap();
    let early = Fickle::over(fickle.memory.fork());
    let mut rng = Rng(31);
    for _ in 0..5 {
        commit(&source, &mut rng).unwrap();
    }
    there.push("origin").unwrap();
    let own = read(&source).unwrap();
    let follow = |disk: &Arc<SimDisk>, retention| -> tideline_journal::Result<()> {
        let process = disk.process();
        clone(&process, &early, "/b.db")?;
        let store = reopen(&process, &fickle, "/b.db")?;
        store.set_retention(retention)?;
        remotes(&store, &fickle).pull("origin")?;
        store.close()
    };
    let (mut parts, mut cuts) = (0, 0);
    for retention in [Retention::Default, Retention::None] {
        let whole = SimDisk::new();
        follow(&whole, retention).unwrap();
        cuts += 2 * whole.steps();
        for step in 0..whole.steps() {
            let disk = SimDisk::new();
            disk.cut_at(step);
            follow(&disk, retention).unwrap_err();
            for seed in 0..2 {
                let what =
                    format!("cut at step {step} ({:?}), seed {seed}, {retention:?}", disk.describe(step));
                let process = disk.reboot(seed).process();
                // A database that isn't there yet is cloned; one that is, is empty or follows.
                match clone(&process, &fickle, "/b.db") {
                    Ok(_) => {}
                    Err(e) => {
                        assert_eq!(e.code(), Code::Argument, "{what}: {e}");
                        if begun_alone(&process, "/b.db") {
                            clone(&process, &fickle, "/b.db").unwrap_or_else(|e| panic!("{what}: {e}"));
                        }
                        let open =
                            || reopen(&process, &fickle, "/b.db").unwrap_or_else(|e| panic!("{what}: {e}"));
                        // Opened from rest, it doesn't know its history yet.
                        open().close().unwrap_or_else(|e| panic!("{what}: {e}"));
                        let store = open();
                        let back = remotes(&store, &fickle);
                        if back.list().unwrap_or_else(|e| panic!("{what}: {e}")).is_empty() {
                            back.add("origin", URL, None).unwrap_or_else(|e| panic!("{what}: {e}"));
                        }
                        // A pull that died between two entries goes on.
                        let there = back.list().unwrap()[0].head.unwrap_or_default();
                        parts += u64::from(store.head() > there && there > Lsn::ZERO);
                        back.pull("origin").unwrap_or_else(|e| panic!("{what}: {e}"));
                        store.close().unwrap_or_else(|e| panic!("{what}: {e}"));
                    }
                }
                let store = reopen(&process, &fickle, "/b.db").unwrap();
                assert_eq!(read(&store).unwrap(), own, "{what}");
            }
        }
    }
    println!("tried: cuts={cuts} between_entries={parts}");
    assert!(parts > 0);
}

#[test]
fn an_object_that_was_damaged_or_lost_is_never_taken_for_what_it_was() {
    let fickle = Fickle::new();
    let source = filled(&SimDisk::new(), 4);
    let there = remotes(&source, &fickle);
    there.add("origin", URL, None).unwrap();
    for lsn in 5..8 {
        there.push("origin").unwrap();
        commit(&source, &mut Rng(lsn)).unwrap();
    }
    there.push("origin").unwrap();
    let sound = objects(&fickle);
    let mut rng = Rng(7);
    for (n, (at, bytes)) in sound.iter().enumerate() {
        for trial in 0..40 {
            let mut damaged = sound.clone();
            let what = match trial {
                0 => {
                    damaged.remove(n);
                    format!("{at} is lost")
                }
                1 => {
                    damaged[n].1.truncate(rng.below(bytes.len() as u64) as usize);
                    format!("{at} is cut short")
                }
                _ => {
                    let byte = rng.below(bytes.len() as u64) as usize;
                    damaged[n].1[byte] ^= 1 << rng.below(8);
                    format!("byte {byte} of {at}")
                }
            };
            let fickle = over(&damaged);
            let disk = SimDisk::new();
            let process = disk.process();
            match clone(&process, &fickle, "/b.db") {
                Err(e) => {
                    assert!(matches!(e.code(), Code::Damaged | Code::Missing | Code::Format), "{what}: {e}");
                    assert!(e.to_string().contains(';'), "{e}");
                    assert!(!process.exists("/b.db".as_ref()).unwrap(), "{what}");
                }
                // Without its last manifest a chain ends before, and one whose number is gone has others behind it that
                // nobody gets to: what is there is a prefix.
                Ok(lsn) if lsn < source.head() => {
                    assert!(at.as_ref().starts_with("manifest/") && trial == 0, "{what}");
                }
                // Nobody reads the first bytes of a segment who knows where its frames are.
                Ok(_) => {
                    assert!(at.as_ref().starts_with("segment/"), "{what}");
                    let copy = reopen(&process, &fickle, "/b.db").unwrap();
                    assert_eq!(read(&copy).unwrap(), read(&source).unwrap(), "{what}");
                }
            }
        }
    }
}

#[test]
fn an_object_store_that_lets_two_create_one_object_is_refused() {
    for honesty in [Honesty::Overwrites, Honesty::Races, Honesty::Lies] {
        let fickle = Fickle::that(honesty);
        let store = filled(&SimDisk::new(), 2);
        let there = remotes(&store, &fickle);
        let refused = there.add("origin", URL, None).unwrap_err();
        assert_eq!(refused.code(), Code::Denied, "{honesty:?}: {refused}");
        assert!(there.list().unwrap().is_empty());
        assert!(objects(&fickle).is_empty(), "{honesty:?}: what was tried is gone");
        // One writer needs nobody to tell it from others.
        there.add("origin", URL, Some(&alone())).unwrap();
        there.push("origin").unwrap();
        assert_eq!(cloned(&fickle), read(&store).unwrap());
    }
}

#[test]
fn of_eight_writers_each_acknowledged_push_is_in_the_chain() {
    const WRITERS: u64 = 8;
    const EACH: usize = 6;
    let fickle = Fickle::new();
    let source = filled(&SimDisk::new(), 2);
    remotes(&source, &fickle).add("origin", URL, None).unwrap();
    remotes(&source, &fickle).push("origin").unwrap();
    let acknowledged: Vec<(Lsn, pages::Model)> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| {
                let fickle = Arc::clone(&fickle);
                scope.spawn(move || {
                    let mut rng = Rng(100 + number);
                    let mut acknowledged = Vec::new();
                    while acknowledged.len() < EACH {
                        // Whoever was overtaken begins anew.
                        let process = SimDisk::new().process();
                        clone(&process, &fickle, "/w.db").unwrap();
                        let store = reopen(&process, &fickle, "/w.db").unwrap();
                        let there = remotes(&store, &fickle);
                        while acknowledged.len() < EACH {
                            commit(&store, &mut rng).unwrap();
                            match there.push("origin") {
                                Ok(lsn) => {
                                    let (head, model) = read(&store).unwrap();
                                    assert_eq!(lsn, head);
                                    acknowledged.push((lsn, model));
                                }
                                Err(e) => {
                                    assert_eq!(e.code(), Code::Diverged, "{e}");
                                    break;
                                }
                            }
                        }
                    }
                    acknowledged
                })
            })
            .collect();
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    let mut lsns: Vec<_> = acknowledged.iter().map(|(lsn, _)| lsn.get()).collect();
    lsns.sort_unstable();
    let all: Vec<u64> = (3..3 + WRITERS * EACH as u64).collect();
    assert_eq!(lsns, all, "each LSN was acknowledged to one writer");
    let newest = acknowledged.into_iter().max_by_key(|(lsn, _)| *lsn).unwrap();
    assert_eq!(cloned(&fickle), newest);
}

#[test]
fn a_newcomer_asks_for_little_however_many_pushes_there_were() {
    let fickle = Fickle::new();
    let source = filled(&SimDisk::new(), 2);
    let there = remotes(&source, &fickle);
    there.add("origin", URL, None).unwrap();
    let mut rng = Rng(12);
    for pushed in 1..=200u64 {
        commit(&source, &mut rng).unwrap();
        there.push("origin").unwrap();
        if [1, 15, 16, 17, 31, 130, 200].contains(&pushed) {
            let before = fickle.requests();
            assert_eq!(cloned(&fickle), read(&source).unwrap());
            let requests = fickle.requests() - before;
            assert!(requests < 64, "{requests} requests after {pushed} pushes");
        }
    }
}

#[test]
fn a_push_goes_on_from_what_is_there_and_not_from_what_was() {
    let (disk, fickle) = (SimDisk::new(), Fickle::new());
    let store = pushed(&disk, &fickle, 2);
    let older = fickle.memory.fork();
    let mut rng = Rng(4);
    commit(&store, &mut rng).unwrap();
    remotes(&store, &fickle).push("origin").unwrap();
    commit(&store, &mut rng).unwrap();
    // Another disk is mounted by now, with an older copy.
    let other = Fickle::over(older);
    assert_eq!(remotes(&store, &other).push("origin").unwrap(), Lsn::new(4));
    assert_eq!(cloned(&other), read(&store).unwrap());
    // And the first one again.
    commit(&store, &mut rng).unwrap();
    assert_eq!(remotes(&store, &fickle).push("origin").unwrap(), Lsn::new(5));
    assert_eq!(cloned(&fickle), read(&store).unwrap());
}

#[test]
fn a_full_image_goes_on_also_from_a_commit_that_was_made_here() {
    let (disk, fickle) = (SimDisk::new(), Fickle::new());
    let first = pushed(&disk, &fickle, 3);
    let second = second(&disk, &fickle);
    let mut rng = Rng(8);
    commit(&second, &mut rng).unwrap();
    remotes(&second, &fickle).push("origin").unwrap();
    remotes(&first, &fickle).pull("origin").unwrap();
    // Its history goes, so the whole database is pushed; the newest common commit is the second's own.
    first.set_retention(Retention::None).unwrap();
    remotes(&first, &fickle).add("origin", URL, Some(&unspooled())).unwrap();
    for _ in 0..40 {
        commit(&first, &mut rng).unwrap();
    }
    remotes(&first, &fickle).push("origin").unwrap();
    remotes(&second, &fickle).pull("origin").unwrap();
    assert_eq!(read(&second).unwrap(), read(&first).unwrap());
    // One that has committed meanwhile is told so all the same.
    commit(&second, &mut rng).unwrap();
    commit(&first, &mut rng).unwrap();
    remotes(&first, &fickle).push("origin").unwrap();
    assert_eq!(remotes(&second, &fickle).pull("origin").unwrap_err().code(), Code::Diverged);
}

#[test]
fn who_begins_first_decides_what_an_empty_place_holds() {
    let fickle = Fickle::new();
    let stores = [0, 1].map(|_| open(&SimDisk::new().process()).unwrap());
    for store in &stores {
        remotes(store, &fickle).add("origin", URL, None).unwrap();
        assert_eq!(remotes(store, &fickle).sync("origin").unwrap(), Lsn::ZERO);
    }
    let [first, second] = &stores;
    commit(first, &mut Rng(1)).unwrap();
    remotes(first, &fickle).sync("origin").unwrap();
    assert_eq!(remotes(second, &fickle).sync("origin").unwrap(), Lsn::new(1));
    assert_eq!(read(second).unwrap(), read(first).unwrap());
    let third = filled(&SimDisk::new(), 2);
    remotes(&third, &fickle).add("origin", URL, None).unwrap();
    assert_eq!(remotes(&third, &fickle).push("origin").unwrap_err().code(), Code::Foreign);
    assert_eq!(remotes(&third, &fickle).pull("origin").unwrap_err().code(), Code::Foreign);
}

#[test]
fn a_clone_that_fails_leaves_nothing_and_takes_nothing() {
    let fickle = Fickle::new();
    pushed(&SimDisk::new(), &fickle, 3);
    let lost = objects(&fickle).into_iter().filter(|(at, _)| !at.as_ref().starts_with("segment/"));
    let broken = over(&lost.collect::<Vec<_>>());
    let disk = SimDisk::new();
    let process = disk.process();
    // Nobody else: nothing is left.
    assert_eq!(clone(&process, &broken, "/b.db").unwrap_err().code(), Code::Missing);
    assert!(!process.exists("/b.db".as_ref()).unwrap());
    // Somebody's database is there by now.
    let theirs = reopen(&disk.process(), &fickle, "/b.db").unwrap();
    commit(&theirs, &mut Rng(6)).unwrap();
    assert_eq!(clone(&process, &broken, "/b.db").unwrap_err().code(), Code::Argument);
    assert_eq!(read(&theirs).unwrap().0, Lsn::new(1));
}

#[test]
fn a_position_outlives_a_remote_that_is_away() {
    let fickle = Fickle::new();
    let store = pushed(&SimDisk::new(), &fickle, 2);
    let away = Fickle::failing_at(fickle.memory.fork(), 1, Failing::Dead);
    for ask in [tideline_sync::Remotes::push, tideline_sync::Remotes::pull] {
        assert_eq!(ask(&remotes(&store, &away), "origin").unwrap_err().code(), Code::Offline);
        assert_eq!(remotes(&store, &away).list().unwrap()[0].head, Some(Lsn::new(2)));
    }
}

/// Waits for what another thread does; a minute is for ever.
fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if is_so() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{what} didn't come");
}

const OFTEN: Option<std::time::Duration> = Some(std::time::Duration::from_millis(5));

#[test]
fn what_is_kept_on_with_goes_on_by_itself() {
    let (disk, fickle) = (SimDisk::new(), Fickle::new());
    let first = pushed(&disk, &fickle, 3);
    let second = second(&disk, &fickle);
    let (connection, other) =
        (Session::new(Arc::clone(&first)).unwrap(), Session::new(Arc::clone(&second)).unwrap());
    let (there, back) = (remotes(&first, &fickle), remotes(&second, &fickle));
    there.keep_on("origin", Task::Push, OFTEN).unwrap();
    back.keep_on("origin", Task::Pull, OFTEN).unwrap();
    let mut rng = Rng(4);
    for _ in 0..5 {
        let lsn = commit(&first, &mut rng).unwrap();
        wait_for("the commit", || second.head() == lsn);
        assert_eq!(read(&second).unwrap(), read(&first).unwrap());
    }
    wait_for("the next try", || there.list().unwrap()[0].next_try.is_some());
    // Nothing to push costs nothing; nothing new there is one request.
    back.keep_on("origin", Task::Pull, None).unwrap();
    let try_again = || {
        let tries = there.list().unwrap()[0].next_try;
        wait_for("another try", || there.list().unwrap()[0].next_try.is_some_and(|time| Some(time) > tries));
    };
    // The last push may be pulled before it is over.
    try_again();
    let before = fickle.requests();
    try_again();
    assert_eq!(fickle.requests(), before);
    // Stopped, it stays so.
    there.keep_on("origin", Task::Push, None).unwrap();
    assert_eq!(there.list().unwrap()[0].next_try, None);
    drop((connection, other));
}

#[test]
fn who_keeps_on_pushing_is_gone_with_the_last_connection() {
    let (disk, fickle) = (SimDisk::new(), Fickle::new());
    let process = disk.process();
    let store = open(&process).unwrap();
    let there = remotes(&store, &fickle);
    there.add("origin", URL, None).unwrap();
    let connection = Session::new(Arc::clone(&store)).unwrap();
    commit(&store, &mut Rng(1)).unwrap();
    // From now on no request is ever answered.
    fickle.stall(true);
    let stop = || true;
    let refused = remotes(&store, &fickle).until(&stop).push("origin").unwrap_err();
    assert_eq!(refused.code(), Code::Interrupted);
    fickle.stall(false);
    there.keep_on("origin", Task::Push, OFTEN).unwrap();
    fickle.stall(true);
    let head = commit(&store, &mut Rng(2)).unwrap();
    wait_for("a push that hangs", || fickle.stalled() > 0);
    // Commits go on; closing waits for nothing but what is local.
    assert_eq!(commit(&store, &mut Rng(3)).unwrap(), head.next());
    drop(connection);
    // It has let go of the store, and so of its turn.
    drop(store.remote_turn("origin").unwrap());
    drop(there);
    assert_eq!(Arc::strong_count(&store), 1);
    drop(store);
    let reopened = open(&process).unwrap();
    assert_eq!(reopened.head(), head.next());
    fickle.stall(false);
    assert_eq!(remotes(&reopened, &fickle).push("origin").unwrap(), head.next());
}

#[test]
fn two_remotes_are_talked_to_at_once_and_one_that_is_away_holds_nothing_up() {
    let (disk, near, far) = (SimDisk::new(), Fickle::new(), Fickle::new());
    let store = filled(&disk, 2);
    remotes(&store, &near).add("near", URL, None).unwrap();
    remotes(&store, &far).add("far", URL, None).unwrap();
    far.stall(true);
    std::thread::scope(|scope| {
        let stuck = scope.spawn(|| {
            assert_eq!(remotes(&store, &far).push("far").unwrap(), Lsn::new(2));
        });
        wait_for("a push that hangs", || far.stalled() > 0);
        assert_eq!(remotes(&store, &near).push("near").unwrap(), Lsn::new(2));
        // Who talks to the same one is told.
        assert_eq!(remotes(&store, &far).push("far").unwrap_err().code(), Code::Busy);
        far.stall(false);
        stuck.join().unwrap();
    });
    let listed = remotes(&store, &near).list().unwrap();
    assert!(listed.iter().all(|remote| remote.head == Some(Lsn::new(2))), "{listed:?}");
}
