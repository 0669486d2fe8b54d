//! What is said of a remote again, what keeps on meanwhile, and a place that is suddenly empty.

mod common;

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use common::pages::{Rng, open, read};
use common::{Fickle, URL, cloned, commit, objects, remotes};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tideline_journal::disk::SimDisk;
use tideline_journal::{Clock, Code, Lsn, Retention, Session, Store, SystemClock};
use tideline_sync::{Address, Options, Remotes, Task};

/// Another spelling of the URL.
const RESPELLED: &str = "file:///tmp/";
const SELDOM: Option<Duration> = Some(Duration::from_secs(3600));
const OFTEN: Option<Duration> = Some(Duration::from_millis(5));

fn with(pairs: &[(&str, serde_json::Value)]) -> Options {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

/// A store whose commits are at its remote `origin`.
fn pushed(fickle: &Arc<Fickle>, commits: u64, options: Option<&Options>) -> Arc<Store> {
    let store = open(&SimDisk::new().process()).unwrap();
    for seed in 1..=commits {
        commit(&store, &mut Rng(seed)).unwrap();
    }
    remotes(&store, fickle).add("origin", URL, options).unwrap();
    assert_eq!(remotes(&store, fickle).push("origin").unwrap(), Lsn::new(commits));
    store
}

/// Waits for what another thread does; a minute is for ever.
fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{what} didn't come");
}

#[test]
fn who_begins_to_keep_on_pushing_is_told_what_the_remote_has() {
    let fickle = Fickle::new();
    let store = pushed(&fickle, 2, None);
    commit(&store, &mut Rng(3)).unwrap();
    remotes(&store, &fickle).add("far", URL, None).unwrap();
    let _connection = Session::new(Arc::clone(&store)).unwrap();
    // It is away for now. The second was never pushed to.
    fickle.fail_some(1000, 1);
    for (name, every, there) in
        [("origin", SELDOM, 2), ("far", SELDOM, 0), ("origin", None, 2), ("far", None, 0)]
    {
        let there_all = remotes(&store, &fickle);
        let tell = |task| there_all.keep_on(name, task, every).unwrap();
        assert_eq!(tell(Task::Push), Lsn::new(there), "{name}");
        assert_eq!(tell(Task::Sync), Lsn::new(there), "{name}");
        assert_eq!(tell(Task::Pull), Lsn::new(3), "{name}: what is here");
    }
    fickle.fail_some(0, 0);
    assert_eq!(remotes(&store, &fickle).keep_on("origin", Task::Push, SELDOM).unwrap(), Lsn::new(3));
}

#[test]
fn who_keeps_on_does_so_until_another_begins() {
    let fickle = Fickle::new();
    let store = pushed(&fickle, 2, None);
    let _connection = Session::new(Arc::clone(&store)).unwrap();
    let stopped = Cell::new(false);
    let stop = || stopped.get();
    let there = remotes(&store, &fickle).until(&stop);
    let next_try = || there.list().unwrap()[0].next_try;
    there.keep_on("origin", Task::Push, SELDOM).unwrap();
    wait_for("the first try", || next_try().is_some());
    // What won't pass is told, and changes nothing.
    let first = next_try();
    stopped.set(true);
    fickle.stall(true);
    assert_eq!(there.keep_on("origin", Task::Pull, OFTEN).unwrap_err().code(), Code::Interrupted);
    stopped.set(false);
    fickle.stall(false);
    assert_eq!(next_try(), first);
    // Somebody else talks to it: that passes, and another begins.
    commit(&store, &mut Rng(7)).unwrap();
    let turn = store.remote_turn("origin").unwrap();
    assert_eq!(there.keep_on("origin", Task::Push, SELDOM).unwrap(), Lsn::new(2));
    drop(turn);
    // It pushes soon, though it isn't to do so often.
    wait_for("the push", || there.list().unwrap()[0].ahead == 0);
    let in_a_minute = SystemClock.now_ms() + 60_000;
    wait_for("its next try", || next_try().is_some_and(|time| time > in_a_minute));
    let second = next_try();
    push_elsewhere(&fickle);
    commit(&store, &mut Rng(8)).unwrap();
    assert_eq!(there.keep_on("origin", Task::Push, OFTEN).unwrap_err().code(), Code::Diverged);
    assert_eq!(next_try(), second);
}

/// Has a clone push what nobody else has got.
fn push_elsewhere(fickle: &Arc<Fickle>) {
    let disk = SimDisk::new();
    let process = disk.process();
    common::clone(&process, fickle, "/b.db").unwrap();
    let store = common::reopen(&process, fickle, "/b.db").unwrap();
    commit(&store, &mut Rng(99)).unwrap();
    remotes(&store, fickle).push("origin").unwrap();
}

#[test]
fn another_spelling_of_its_url_or_place_of_its_key_changes_nothing_that_is_known() {
    let keys = tempfile::tempdir().unwrap();
    let key = |name: &str| {
        let path = keys.path().join(name);
        std::fs::write(&path, "ab".repeat(32)).unwrap();
        ("key_file", path.to_str().unwrap().into())
    };
    let spool = ("spool_mib", serde_json::Value::from(0));
    for (before, url, after) in [
        (vec![spool.clone()], RESPELLED, None),
        (vec![spool.clone()], RESPELLED, Some(vec![("cache_mib", 7.into())])),
        (vec![spool.clone(), key("one")], URL, Some(vec![key("two")])),
        (vec![spool.clone(), key("one")], RESPELLED, Some(vec![key("two"), spool.clone()])),
    ] {
        let fickle = Fickle::new();
        let before = with(&before);
        let store = pushed(&fickle, 3, Some(&before));
        // What is there isn't in the journal any more, so that nothing but the position tells that it is the same.
        store.set_retention(Retention::None).unwrap();
        let mut rng = Rng(5);
        while store.identity(Lsn::new(3)).unwrap().is_some() {
            commit(&store, &mut rng).unwrap();
        }
        let there = remotes(&store, &fickle);
        let after = after.map(|after| with(&after));
        there.add("origin", url, after.as_ref()).unwrap();
        let listed = &there.list().unwrap()[0];
        assert_eq!((listed.url.as_str(), listed.head), (url, Some(Lsn::new(3))));
        assert_eq!(there.push("origin").unwrap(), store.head(), "{url} {after:?}");
    }
}

#[test]
fn what_a_remote_that_is_said_again_has_not_got_stays() {
    let fickle = Fickle::new();
    let store = pushed(&fickle, 3, None);
    store.set_retention(Retention::None).unwrap();
    remotes(&store, &fickle).add("origin", RESPELLED, None).unwrap();
    let mut rng = Rng(5);
    for _ in 0..1000 {
        commit(&store, &mut rng).unwrap();
    }
    assert!(store.identity(Lsn::new(3)).unwrap().is_some());
    // Another place is another remote.
    remotes(&store, &fickle).add("origin", "file:///tmp/other", None).unwrap();
    assert_eq!(remotes(&store, &fickle).list().unwrap()[0].head, None);
}

#[test]
fn options_that_are_not_named_stay() {
    let fickle = Fickle::that(common::Honesty::Overwrites);
    let single = with(&[("single_writer", true.into())]);
    let store = pushed(&fickle, 1, Some(&single));
    let there = remotes(&store, &fickle);
    // Were it not said to be the only writer, this would be refused.
    there.add("origin", URL, Some(&with(&[("cache_mib", 7.into())]))).unwrap();
    there.add("origin", URL, Some(&with(&[]))).unwrap();
    there.add("origin", URL, None).unwrap();
    let null = with(&[("single_writer", serde_json::Value::Null)]);
    assert_eq!(there.add("origin", URL, Some(&null)).unwrap_err().code(), Code::Denied);
    // At another place, they are to be said.
    let refused = there.add("origin", "file:///tmp/other", Some(&with(&[]))).unwrap_err();
    assert_eq!(refused.code(), Code::Denied);
}

#[test]
fn a_place_that_is_suddenly_empty_is_missed_until_it_is_begun_anew() {
    let fickle = Fickle::new();
    let store = pushed(&fickle, 2, None);
    commit(&store, &mut Rng(4)).unwrap();
    let empty = Fickle::over(InMemory::new());
    // Saying the same of it again doesn't say that nothing is there.
    for again in [false, true] {
        if again {
            remotes(&store, &empty).add("origin", URL, None).unwrap();
        }
        for ask in [Remotes::push, Remotes::pull, Remotes::sync] {
            let refused = ask(&remotes(&store, &empty), "origin").unwrap_err();
            assert_eq!(refused.code(), Code::Missing, "{refused}");
            let text = refused.to_string();
            assert!(text.contains("up to LSN 2") && text.contains("tide_remote('origin', NULL)"), "{text}");
            assert!(objects(&empty).is_empty());
        }
    }
    assert!(remotes(&store, &empty).list().unwrap()[0].last_error.is_some());
    // It is back.
    assert_eq!(remotes(&store, &fickle).push("origin").unwrap(), Lsn::new(3));
    // Or it begins anew, as that says.
    remotes(&store, &empty).remove("origin").unwrap();
    remotes(&store, &empty).add("origin", URL, None).unwrap();
    assert_eq!(remotes(&store, &empty).push("origin").unwrap(), Lsn::new(3));
    assert_eq!(cloned(&empty), read(&store).unwrap());
}

#[test]
fn who_pushes_all_the_time_misses_what_is_gone_before_it_is_needed() {
    let fickle = Fickle::new();
    // A bucket, where it isn't looked again at what was there a moment ago.
    let way = common::way(&fickle);
    let store = open(&SimDisk::new().process()).unwrap();
    let there = Remotes::through(&store, way);
    there.add("origin", "s3://bucket/app", None).unwrap();
    let push = |seed| {
        commit(&store, &mut Rng(seed)).unwrap();
        there.push("origin")
    };
    for seed in 1..=3 {
        push(seed).unwrap();
    }
    clear(&fickle);
    let refused = (4..40).find_map(|seed| push(seed).err()).expect("a refusal");
    assert_eq!(refused.code(), Code::Missing, "{refused}");
    assert_eq!(push(40).unwrap_err().code(), Code::Missing);
}

/// Removes all objects.
fn clear(fickle: &Fickle) {
    for (at, _) in objects(fickle) {
        common::now(object_store::ObjectStoreExt::delete(&fickle.memory, &at)).unwrap();
    }
}

#[test]
fn what_was_pushed_to_a_place_that_had_just_been_emptied_is_missed_by_the_next_who_looks() {
    // Within one minute, before there are runs and behind, and across the sixteenth.
    for (before, within) in [(1, 1), (3, 1), (3, 4), (20, 1), (20, 12), (30, 1)] {
        let fickle = Fickle::new();
        let store = open(&SimDisk::new().process()).unwrap();
        // Who opens the database anew, or comes a minute later, isn't sure of anything.
        let another = || Remotes::through(&store, common::way(&fickle));
        let there = another();
        there.add("origin", "s3://bucket/app", None).unwrap();
        let mut seeds = 1..;
        let mut push = |there: &Remotes<'_>| {
            commit(&store, &mut Rng(seeds.next().unwrap())).unwrap();
            there.push("origin")
        };
        for _ in 0..before {
            push(&there).unwrap();
        }
        clear(&fickle);
        for _ in 0..within {
            // He may have looked.
            if let Err(e) = push(&there) {
                assert_eq!(e.code(), Code::Missing, "{e}");
            }
        }
        let left = objects(&fickle);
        for _ in 0..2 {
            let refused = push(&another()).unwrap_err();
            assert_eq!(refused.code(), Code::Missing, "{before} {within}: {refused}");
            assert!(refused.to_string().contains("empty it"), "{refused}");
            assert!(objects(&fickle) == left, "{before} {within}: something was written");
        }
        // As that says.
        clear(&fickle);
        another().remove("origin").unwrap();
        another().add("origin", "s3://bucket/app", None).unwrap();
        push(&another()).unwrap();
        assert_eq!(cloned(&fickle), read(&store).unwrap());
    }
}

#[test]
fn what_was_left_from_before_is_not_taken_for_what_comes_next() {
    let fickle = Fickle::new();
    let store = pushed(&fickle, 1, None);
    for seed in 2..=9 {
        commit(&store, &mut Rng(seed)).unwrap();
        remotes(&store, &fickle).push("origin").unwrap();
    }
    // Somebody empties it, but not all of it.
    for (at, _) in objects(&fickle) {
        if at.as_ref() == "hint" || at.as_ref().ends_with("00001") {
            common::now(object_store::ObjectStoreExt::delete(&fickle.memory, &at)).unwrap();
        }
    }
    // The same process, and one that is sure of what it did a moment ago.
    for url in [URL, "s3://bucket/app"] {
        let rest = Fickle::over(fickle.memory.fork());
        let there = Remotes::through(&store, common::way(&rest));
        there.remove("origin").unwrap();
        there.add("origin", url, None).unwrap();
        there.push("origin").unwrap();
        commit(&store, &mut Rng(77)).unwrap();
        for _ in 0..3 {
            let refused = there.push("origin").unwrap_err();
            assert_eq!(refused.code(), Code::Damaged, "{refused}");
            assert!(refused.to_string().contains("empty the place"), "{refused}");
        }
        clear(&rest);
        there.remove("origin").unwrap();
        there.add("origin", url, None).unwrap();
        there.push("origin").unwrap();
        assert_eq!(cloned(&rest), read(&store).unwrap());
    }
}

#[test]
fn a_removal_that_has_to_wait_stops_nobody() {
    let fickle = Fickle::new();
    let store = pushed(&fickle, 1, None);
    let _connection = Session::new(Arc::clone(&store)).unwrap();
    let there = remotes(&store, &fickle);
    there.keep_on("origin", Task::Push, OFTEN).unwrap();
    // Another process talks to it.
    let turn = loop {
        if let Ok(turn) = store.remote_turn("origin") {
            break turn;
        }
    };
    assert_eq!(there.remove("origin").unwrap_err().code(), Code::Busy);
    drop(turn);
    commit(&store, &mut Rng(2)).unwrap();
    wait_for("the push", || there.list().unwrap()[0].head == Some(Lsn::new(2)));
    // One that is at work ends first.
    fickle.stall(true);
    commit(&store, &mut Rng(3)).unwrap();
    wait_for("a request", || fickle.stalled() > 0);
    there.remove("origin").unwrap();
    assert!(there.list().unwrap().is_empty());
}

#[test]
fn who_keeps_on_can_be_stopped_also_where_the_remote_is_gone() {
    let fickle = Fickle::new();
    let store = pushed(&fickle, 1, None);
    let _connection = Session::new(Arc::clone(&store)).unwrap();
    let there = remotes(&store, &fickle);
    there.keep_on("origin", Task::Push, SELDOM).unwrap();
    wait_for("the first try", || there.list().unwrap()[0].next_try.is_some());
    // Another process removes it, and adds it again.
    let other = remotes(&store, &fickle);
    other.remove("origin").unwrap();
    assert_eq!(there.keep_on("origin", Task::Push, None).unwrap_err().code(), Code::Argument);
    other.add("origin", URL, None).unwrap();
    assert_eq!(there.list().unwrap()[0].next_try, None);
}

#[test]
fn a_part_of_what_is_gone_again_is_no_part() {
    let fickle = Fickle::new();
    let store = pushed(&fickle, 2, None);
    let older = Fickle::over(fickle.memory.fork());
    for seed in 3..=5 {
        commit(&store, &mut Rng(seed)).unwrap();
    }
    remotes(&store, &fickle).push("origin").unwrap();
    for pulls in [true, false] {
        let process = SimDisk::new().process();
        let until = tideline_sync::Point::Lsn(Lsn::new(4));
        common::clone_until(&process, &fickle, "/b.db", Options::new(), until).unwrap();
        let clone = common::reopen(&process, &fickle, "/b.db").unwrap();
        let ahead = |clone: &Arc<Store>| remotes(clone, &older).list().unwrap()[0].ahead;
        assert_eq!(ahead(&clone), 0);
        // An older copy was put back there: it hasn't what the clone has.
        let before = Fickle::over(older.memory.fork());
        if pulls {
            remotes(&clone, &before).pull("origin").unwrap();
            assert_eq!(ahead(&clone), 2);
        }
        assert_eq!(remotes(&clone, &before).push("origin").unwrap(), Lsn::new(4));
        assert_eq!(ahead(&clone), 0);
        assert_eq!(cloned(&before).0, Lsn::new(4));
    }
}

#[test]
fn a_lease_that_is_not_answered_holds_up_nobody_who_removes_a_remote() {
    let (from, to) = (Fickle::new(), Fickle::new());
    pushed(&from, 1, None);
    let process = SimDisk::new().process();
    common::clone(&process, &from, "/x.db").unwrap();
    let way = {
        let (from, to) = (Arc::clone(&from), Arc::clone(&to));
        move |address: &Address| -> tideline_journal::Result<Arc<dyn ObjectStore>> {
            Ok(if address.url() == URL { Arc::clone(&from) as _ } else { Arc::clone(&to) as _ })
        }
    };
    let clock = Arc::new(common::Moved(SystemClock.now_ms().into()));
    let source = tideline_sync::RemotePages::through(way.clone());
    let options = tideline_journal::Options {
        clock: Arc::clone(&clock) as _,
        source: Some(Arc::new(source)),
        ..common::pages::options()
    };
    let replica = Store::open(process as _, std::path::Path::new("/x.db"), options).unwrap();
    let _session = Session::new(Arc::clone(&replica)).unwrap();
    let own = Remotes::through(&replica, way);
    own.add("origin", "s3://elsewhere/app", None).unwrap();
    own.keep_on("origin", Task::Push, OFTEN).unwrap();
    // Where it was cloned from nobody answers, and the lease is due.
    from.stall(true);
    clock.0.fetch_add(3 * 24 * 3_600_000, std::sync::atomic::Ordering::SeqCst);
    wait_for("a lease that hangs", || from.stalled() > 0);
    let removed = own.remove("origin");
    from.stall(false);
    removed.unwrap();
}
