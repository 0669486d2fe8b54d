//! What a remote keeps of its history, restoring any of it, and giving up the rest.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::pages::{self, Model, Rng, read};
use common::{Failing, Fickle, Moved, URL, clone_until, commit, now, objects, options, remotes, reopen};
use object_store::{ObjectStore, ObjectStoreExt};
use tideline_journal::disk::{Disk, SimDisk, SimProcess};
use tideline_journal::{Clock, Code, Lsn, Result, Retention, Store, SystemClock};
use tideline_sync::{Address, Listed, Options, Point, RemotePages, Remotes};

const DAY: u64 = 24 * 3600 * 1000;

/// A store with a remote, and what it was at each LSN.
struct World {
    clock: Arc<Moved>,
    fickle: Arc<Fickle>,
    disk: Arc<SimDisk>,
    store: Arc<Store>,
    rng: Rng,
    /// By LSN: when it was committed, and what there was.
    past: BTreeMap<u64, (u64, Model)>,
    /// Options of a clone.
    key: Options,
}

fn with(pairs: &[(&str, serde_json::Value)]) -> Options {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

/// Options of a remote that keeps so much history.
fn keeping(what: &str) -> Options {
    with(&[("retain", what.into()), ("single_writer", true.into())])
}

fn open(disk: &Arc<SimDisk>, clock: &Arc<Moved>) -> Arc<Store> {
    let own = tideline_journal::Options { clock: Arc::clone(clock) as _, ..pages::options() };
    Store::open(disk.process() as Arc<dyn Disk>, Path::new("/a.db"), own).unwrap()
}

impl World {
    fn new(options_of_remote: &Options) -> World {
        World::on(Fickle::new(), options_of_remote)
    }

    fn on(fickle: Arc<Fickle>, options_of_remote: &Options) -> World {
        let clock = Arc::new(Moved(AtomicU64::new(SystemClock.now_ms())));
        let disk = SimDisk::new();
        let store = open(&disk, &clock);
        let key = options_of_remote.clone().into_iter().filter(|(name, _)| name == "key_file").collect();
        let mut world = World { clock, fickle, disk, store, rng: Rng(7), past: BTreeMap::new(), key };
        world.commit();
        world.commit();
        remotes(&world.store, &world.fickle).add("origin", URL, Some(options_of_remote)).unwrap();
        world.push().unwrap();
        // What was before the first push was never there.
        world.past.remove(&1);
        world
    }

    /// The power goes, and comes back. What is gone then was never pushed.
    fn lose_power(&mut self, seed: u64) {
        self.disk = self.disk.reboot(seed);
        self.store = open(&self.disk, &self.clock);
        let head = self.store.head().get();
        self.past.retain(|&lsn, _| lsn <= head);
    }

    fn pass(&self, ms: u64) {
        let before = self.clock.0.fetch_add(ms, Ordering::SeqCst);
        self.fickle.set_clock(before + ms);
    }

    fn commit(&mut self) {
        commit(&self.store, &mut self.rng).unwrap();
        let (lsn, model) = read(&self.store).unwrap();
        self.past.insert(lsn.get(), (self.clock.now_ms(), model));
    }

    fn push(&self) -> Result<Lsn> {
        remotes(&self.store, &self.fickle).push("origin")
    }

    /// Days of twenty pushes, each of two commits.
    fn days(&mut self, days: u64) {
        for _ in 0..days * 20 {
            self.pass(DAY / 20);
            self.commit();
            self.commit();
            self.push().unwrap();
        }
    }

    /// A clone, of all or of a part of its past, and what is in it.
    fn cloned(&self, until: Point) -> Result<(Lsn, Model)> {
        let process = SimDisk::new().process();
        self.clone_to(&process, until)?;
        let store = reopen(&process, &self.fickle, "/b.db")?;
        assert!(store.verify()?.is_empty());
        read(&store)
    }

    fn clone_to(&self, process: &Arc<SimProcess>, until: Point) -> Result<Lsn> {
        clone_until(process, &self.fickle, "/b.db", self.key.clone(), until)
    }

    fn names(&self) -> Vec<String> {
        objects(&self.fickle).into_iter().map(|(at, _)| at.to_string()).collect()
    }

    /// Segments that no manifest names.
    fn segments_nobody_names(&self) -> Vec<String> {
        let all = objects(&self.fickle);
        let manifests = all.iter().filter(|(at, _)| at.as_ref().starts_with("manifest/"));
        let named: String = manifests.map(|(_, bytes)| std::str::from_utf8(bytes).unwrap()).collect();
        let is_named = |name: &String| named.contains(name.rsplit('/').next().unwrap());
        self.names().into_iter().filter(|name| name.starts_with("segment/") && !is_named(name)).collect()
    }

    /// Clones every LSN that was pushed. Those since `since` are there as they were; the others are refused, or as they were.
    /// Returns how many are there.
    fn check_past(&self, since: u64) -> u64 {
        let mut there = 0;
        for (&lsn, (time, model)) in &self.past {
            match self.cloned(Point::Lsn(Lsn::new(lsn))) {
                Ok(found) => {
                    assert_eq!(found, (Lsn::new(lsn), model.clone()), "LSN {lsn}");
                    there += 1;
                }
                Err(e) => {
                    assert_eq!(e.code(), Code::Trimmed, "LSN {lsn}: {e}");
                    assert!(*time < since, "LSN {lsn} should be there: {e}");
                }
            }
        }
        there
    }
}

#[test]
fn every_lsn_of_a_push_can_be_restored_and_every_time() {
    let mut world = World::new(&Options::new());
    world.days(2);
    assert_eq!(world.check_past(0), world.past.len() as u64);
    // The newest commit that isn't later.
    for (&lsn, (time, _)) in &world.past {
        for (at, expected) in [(time - 1, lsn - 1), (time + 1, lsn)] {
            let newest = world.past.iter().rfind(|(_, (time, _))| *time <= at).map(|(lsn, _)| *lsn);
            let Some(newest) = newest.filter(|newest| *newest == expected) else { continue };
            let (found, model) = world.cloned(Point::Time(at)).unwrap();
            assert_eq!((found.get(), &model), (newest, &world.past[&newest].1));
        }
    }
    let head = world.store.head();
    let refused = world.cloned(Point::Lsn(head.next())).unwrap_err();
    assert_eq!(refused.code(), Code::Argument, "{refused}");
    let refused = world.cloned(Point::Time(world.past[&2].0 - 1)).unwrap_err();
    assert_eq!(refused.code(), Code::Trimmed, "{refused}");
}

#[test]
fn a_clone_of_the_past_catches_up_when_it_pulls() {
    let mut world = World::new(&Options::new());
    world.days(1);
    for lsn in [2, 3, 4, 20, 42] {
        let process = SimDisk::new().process();
        assert_eq!(world.clone_to(&process, Point::Lsn(Lsn::new(lsn))).unwrap(), Lsn::new(lsn));
        let store = reopen(&process, &world.fickle, "/b.db").unwrap();
        // What it has came from there, also where it is a part of what one push brought.
        let listed = |store| remotes(store, &world.fickle).list().unwrap().remove(0);
        let Listed { head, ahead, needs_full, .. } = listed(&store);
        assert_eq!((head, ahead, needs_full), (Some(Lsn::new(lsn)), 0, false));
        assert_eq!(remotes(&store, &world.fickle).pull("origin").unwrap(), world.store.head(), "{lsn}");
        assert_eq!(listed(&store).ahead, 0);
        assert_eq!(read(&store).unwrap(), read(&world.store).unwrap());
    }
}

#[test]
fn what_is_not_retained_is_removed_and_the_rest_can_be_restored() {
    for (what, kept_for) in [("3 days", 3 * DAY), ("120 lsns", 3 * DAY), ("none", 0)] {
        let mut world = World::new(&keeping(what));
        world.days(9);
        let merged = what == "none";
        let since = world.clock.now_ms() - kept_for;
        if merged {
            assert_eq!(world.cloned(Point::Newest).unwrap(), read(&world.store).unwrap());
        } else {
            let there = world.check_past(since);
            assert!(there < world.past.len() as u64 * 3 / 4, "{what}: {there} of {}", world.past.len());
        }
        let names = world.names();
        let manifests = names.iter().filter(|name| name.starts_with("manifest/")).count() as u64;
        // What isn't retained any more stays for a day, until it is said to go, and then until the next push says so.
        let pushes = (kept_for / DAY + 4) * 20;
        assert!(manifests <= pushes, "{what}: {manifests} manifests are left of {}", 9 * 20 + 1);
        // Each manifest has a part; few have runs.
        let segments = names.iter().filter(|name| name.starts_with("segment/")).count() as u64;
        assert!(segments <= manifests * 2 + 8, "{what}: {segments} segments of {manifests} manifests");
        // A newcomer finds the newest also without a hint.
        drop(now(world.fickle.memory.delete(&"hint".into())));
        assert_eq!(world.cloned(Point::Newest).unwrap(), read(&world.store).unwrap());
    }
}

#[test]
fn an_encrypted_remote_gives_up_history_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, "07".repeat(32)).unwrap();
    let mut remote = keeping("2 days");
    remote.insert("key_file".into(), file.to_str().unwrap().into());
    let mut world = World::new(&remote);
    world.days(2);
    let process = SimDisk::new().process();
    world.clone_to(&process, Point::Newest).unwrap();
    let leased = reopen(&process, &world.fickle, "/b.db").unwrap();
    let before = world.names().len();
    world.days(9);
    world.check_past(world.clock.now_ms() - 2 * DAY);
    assert!(
        world.names().len() < before * 5,
        "{} objects, and {before} of the first two days",
        world.names().len()
    );
    assert!(leased.verify().is_ok());
    read(&leased).unwrap();
}

#[test]
fn a_clock_that_is_ahead_gives_up_nothing_early() {
    let mut world = World::new(&keeping("1 day"));
    world.days(1);
    let right = world.clock.now_ms();
    // This machine's, not the object store's.
    world.clock.0.fetch_add(9 * DAY, Ordering::SeqCst);
    for n in 0..60 {
        world.fickle.set_clock(right + n * 1000);
        world.commit();
        world.push().unwrap();
    }
    assert!(world.names().iter().any(|name| name.ends_with("manifest/00000000000000000001")));
    assert_eq!(world.check_past(0), world.past.len() as u64);
}

#[test]
fn a_commit_of_a_clock_that_was_far_ahead_does_not_keep_history_for_ever() {
    let mut world = World::new(&keeping("1 day"));
    world.clock.0.fetch_add(300 * DAY, Ordering::SeqCst);
    world.commit();
    world.clock.0.fetch_sub(300 * DAY, Ordering::SeqCst);
    for (time, _) in world.past.values_mut() {
        *time = (*time).min(world.clock.now_ms());
    }
    world.days(6);
    assert!(world.names().iter().all(|name| !name.ends_with("manifest/00000000000000000001")));
    assert!(world.check_past(world.clock.now_ms() - DAY) > 40);
}

#[test]
fn who_was_away_for_too_long_gets_all_of_it_unless_he_has_commits_of_his_own() {
    let mut world = World::new(&keeping("1 day"));
    world.days(1);
    let (idle, busy) = (SimDisk::new().process(), SimDisk::new().process());
    for process in [&idle, &busy] {
        world.clone_to(process, Point::Newest).unwrap();
    }
    let busy = reopen(&busy, &world.fickle, "/b.db").unwrap();
    commit(&busy, &mut Rng(99)).unwrap();
    let own = read(&busy).unwrap();
    // One that has forgotten what it committed.
    let process = SimDisk::new().process();
    world.clone_to(&process, Point::Newest).unwrap();
    let open = || reopen(&process, &world.fickle, "/b.db").unwrap();
    let forgetful = open();
    let options = with(&[("single_writer", true.into()), ("spool_mib", 0.into())]);
    remotes(&forgetful, &world.fickle).add("origin", URL, Some(&options)).unwrap();
    forgetful.hydrate(|_, _| true).unwrap();
    commit(&forgetful, &mut Rng(98)).unwrap();
    forgetful.set_retention(Retention::None).unwrap();
    forgetful.close().unwrap();
    let forgetful = open();
    assert_eq!(forgetful.status().unwrap().horizon, forgetful.head());
    world.days(9);
    let before = world.names();
    let there = read(&world.store).unwrap();

    let idle = reopen(&idle, &world.fickle, "/b.db").unwrap();
    let back = remotes(&idle, &world.fickle);
    back.add("origin", URL, Some(&with(&[("single_writer", true.into())]))).unwrap();
    assert_eq!(back.push("origin").unwrap_err().code(), Code::Diverged);
    assert_eq!(back.pull("origin").unwrap(), world.store.head());
    assert_eq!(read(&idle).unwrap(), there);
    // It goes on from there.
    commit(&idle, &mut Rng(5)).unwrap();
    assert_eq!(back.push("origin").unwrap(), idle.head());
    assert_eq!(world.cloned(Point::Newest).unwrap(), read(&idle).unwrap());

    let (left, back) = (read(&forgetful).unwrap(), remotes(&forgetful, &world.fickle));
    for refused in [back.push("origin"), back.pull("origin"), back.sync("origin")] {
        assert_eq!(refused.unwrap_err().code(), Code::Diverged);
        assert_eq!(read(&forgetful).unwrap(), left);
    }

    let after = world.names();
    for what in ["push", "pull", "sync"] {
        let back = remotes(&busy, &world.fickle);
        back.add("origin", URL, Some(&with(&[("single_writer", true.into())]))).unwrap();
        let refused = match what {
            "push" => back.push("origin"),
            "pull" => back.pull("origin"),
            _ => back.sync("origin"),
        };
        assert_eq!(refused.unwrap_err().code(), Code::Diverged, "{what}");
        assert_eq!(read(&busy).unwrap(), own, "{what}");
        assert_eq!(world.names(), after, "{what}");
    }
    // Nobody has begun anew where the beginning is gone.
    assert!(before.iter().all(|name| !name.ends_with("manifest/00000000000000000001")));
}

#[test]
fn what_a_lazy_clone_needs_stays_for_as_long_as_it_says_so() {
    for (days, lapsed) in [(12, false), (45, true)] {
        let mut world = World::new(&keeping("none"));
        let process = SimDisk::new().process();
        // Nothing but the whole database: what is pulled behind it is here.
        world.clone_to(&process, Point::Newest).unwrap();
        let expected = read(&world.store).unwrap();
        world.days(days);
        let store = reopen(&process, &world.fickle, "/b.db").unwrap();
        match read(&store) {
            Ok(found) => {
                assert!(!lapsed, "the lease has no end");
                assert_eq!(found, expected);
                // Hydrated, it needs none.
                store.hydrate(|_, _| true).unwrap();
                world.days(6);
                assert!(world.names().iter().all(|name| !name.starts_with("lease/")));
                assert_eq!(world.segments_nobody_names(), Vec::<String>::new());
            }
            Err(e) => {
                assert!(lapsed, "after {days} days: {e}");
                assert_eq!(e.code(), Code::Missing, "{e}");
            }
        }
    }
}

#[test]
fn a_clone_that_only_keeps_on_pushing_says_that_it_is_there() {
    let world = World::new(&keeping("none"));
    let process = SimDisk::new().process();
    world.clone_to(&process, Point::Newest).unwrap();
    let own =
        tideline_journal::Options { clock: Arc::clone(&world.clock) as _, ..common::options(&world.fickle) };
    let store = Store::open(process as Arc<dyn Disk>, Path::new("/b.db"), own).unwrap();
    let _connection = tideline_journal::Session::new(Arc::clone(&store)).unwrap();
    let there = remotes(&store, &world.fickle);
    let often = Some(std::time::Duration::from_millis(5));
    there.keep_on("origin", tideline_sync::Task::Push, often).unwrap();
    for _ in 0..2 {
        let later = world.clock.now_ms() + 3 * DAY;
        world.fickle.set_clock(later);
        world.clock.0.store(later, Ordering::SeqCst);
        let begun = std::time::Instant::now();
        while world.fickle.written_in("lease") != [later] {
            assert!(begun.elapsed().as_secs() < 60, "nothing is said");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

#[test]
fn a_lease_is_kept_where_the_pages_are_also_when_origin_is_elsewhere() {
    let (from, to) = (Fickle::new(), Fickle::new());
    let world = World::on(Arc::clone(&from), &keeping("none"));
    let process = SimDisk::new().process();
    world.clone_to(&process, Point::Newest).unwrap();
    // Another place from now on, as its URL tells.
    let elsewhere = "file:///var";
    let open = {
        let (from, to) = (Arc::clone(&from), Arc::clone(&to));
        move |address: &Address| -> Result<Arc<dyn ObjectStore>> {
            Ok(if address.url() == URL { Arc::clone(&from) as _ } else { Arc::clone(&to) as _ })
        }
    };
    let own = tideline_journal::Options {
        clock: Arc::clone(&world.clock) as _,
        source: Some(Arc::new(RemotePages::through(open.clone()))),
        ..pages::options()
    };
    let store = Store::open(process as Arc<dyn Disk>, Path::new("/b.db"), own).unwrap();
    let there = Remotes::through(&store, open);
    there.add("origin", elsewhere, Some(&keeping("none"))).unwrap();
    let later = world.clock.now_ms() + 3 * DAY;
    world.clock.0.store(later, Ordering::SeqCst);
    from.set_clock(later);
    there.push("origin").unwrap();
    assert_eq!(from.written_in("lease"), [later]);
}

#[test]
fn a_clone_that_is_refused_says_that_it_is_there_all_the_same() {
    let mut world = World::new(&keeping("none"));
    let process = SimDisk::new().process();
    world.clone_to(&process, Point::Newest).unwrap();
    let own =
        tideline_journal::Options { clock: Arc::clone(&world.clock) as _, ..common::options(&world.fickle) };
    let store = Store::open(process as Arc<dyn Disk>, Path::new("/b.db"), own).unwrap();
    commit(&store, &mut Rng(3)).unwrap();
    world.commit();
    world.push().unwrap();
    let there = remotes(&store, &world.fickle);
    for ask in [Remotes::push, Remotes::pull, Remotes::sync] {
        world.pass(3 * DAY);
        assert_eq!(ask(&there, "origin").unwrap_err().code(), Code::Diverged);
        assert_eq!(world.fickle.written_in("lease"), [world.clock.now_ms()]);
    }
}

#[test]
fn a_lease_that_cannot_be_written_holds_nothing_up() {
    let (from, to) = (Fickle::new(), Fickle::new());
    let world = World::on(Arc::clone(&from), &keeping("none"));
    let process = SimDisk::new().process();
    world.clone_to(&process, Point::Newest).unwrap();
    let open = {
        let (from, to) = (Arc::clone(&from), Arc::clone(&to));
        move |address: &Address| -> Result<Arc<dyn ObjectStore>> {
            Ok(if address.url() == URL { Arc::clone(&from) as _ } else { Arc::clone(&to) as _ })
        }
    };
    let own = tideline_journal::Options {
        clock: Arc::clone(&world.clock) as _,
        source: Some(Arc::new(RemotePages::through(open.clone()))),
        ..pages::options()
    };
    let store = Store::open(process as Arc<dyn Disk>, Path::new("/b.db"), own).unwrap();
    let there = Remotes::through(&store, open);
    there.add("origin", "file:///var", Some(&keeping("none"))).unwrap();
    there.push("origin").unwrap();
    // Where it was cloned from nobody answers. The lease where it pushes to is enough.
    from.dies();
    let mut later = world.clock.now_ms();
    for _ in 0..2 {
        later += 3 * DAY;
        world.clock.0.store(later, Ordering::SeqCst);
        to.set_clock(later);
        there.push("origin").unwrap();
        assert_eq!(to.written_in("lease"), [later]);
    }
    // Nor here. It is tried again a while later, and not with each push.
    world.clock.0.store(later + 3 * DAY, Ordering::SeqCst);
    to.refuse_in("lease");
    let requests = || {
        let before = to.requests() + from.requests();
        there.push("origin").unwrap();
        to.requests() + from.requests() - before
    };
    let (first, second) = (requests(), requests());
    assert!(second < first, "{second} requests, {first} before");
    world.clock.0.fetch_add(3_600_000, Ordering::SeqCst);
    assert_eq!((requests(), requests()), (first, second));
}

#[test]
fn a_commit_far_ahead_that_is_pushed_by_a_clock_that_is_behind_is_as_old_as_its_object() {
    let mut world = World::new(&keeping("3 days"));
    world.clock.0.fetch_add(300 * DAY, Ordering::SeqCst);
    world.commit();
    world.clock.0.fetch_sub(300 * DAY, Ordering::SeqCst);
    // A push each hour, for two days, by a clock that is ten days behind: the object store's isn't.
    let mut right = world.clock.now_ms();
    for n in 0..72 {
        right += DAY / 24;
        // In the end it is set.
        let shown = if n < 48 { right - 10 * DAY } else { right };
        world.clock.0.store(shown, Ordering::SeqCst);
        world.fickle.set_clock(right);
        world.commit();
        world.push().unwrap();
    }
    world.past.values_mut().for_each(|(time, _)| *time = right);
    assert_eq!(world.check_past(right - 3 * DAY), world.past.len() as u64);
}

#[test]
fn removing_may_fail_at_any_request_and_goes_on() {
    let kept = keeping("1 day");
    let run = |fickle: Arc<Fickle>, from: u64, failing: Failing| -> (World, u64) {
        let mut world = World::on(fickle, &kept);
        world.days(4);
        // From here on something is removed with each push.
        let begun = world.fickle.requests();
        let broken = match from {
            0 => Arc::clone(&world.fickle),
            n => world.fickle.forked(Some((n, failing))),
        };
        let sound = std::mem::replace(&mut world.fickle, broken);
        for _ in 0..20 {
            world.pass(DAY / 20);
            world.commit();
            drop(world.push());
        }
        let asked = sound.requests() - begun;
        world.fickle = world.fickle.forked(None);
        (world, asked)
    };
    let (_, count) = run(Fickle::new(), 0, Failing::Refused);
    assert!(count > 40, "only {count} requests");
    let mut tried = 0;
    for failing in [Failing::Refused, Failing::Unanswered, Failing::Dead, Failing::DeadAfter] {
        let step = if failing == Failing::Refused { 5 } else { 17 };
        for n in (1..=count).step_by(step) {
            let (mut world, _) = run(Fickle::new(), n, failing);
            // Whoever pushed is dead, and goes on with what it knew.
            if n % 4 != 0 {
                world.lose_power(n);
            }
            world.days(1);
            // A few of those that should be there; all would take long.
            let since = world.clock.now_ms() - DAY;
            let mut checked = 0;
            for (&lsn, (_, model)) in world.past.iter().filter(|(_, (time, _))| *time >= since).step_by(9) {
                let found = world.cloned(Point::Lsn(Lsn::new(lsn)));
                let found = found.unwrap_or_else(|e| panic!("request {n} {failing:?}, LSN {lsn}: {e}"));
                assert_eq!(found, (Lsn::new(lsn), model.clone()), "request {n} {failing:?}");
                checked += 1;
            }
            assert!(checked > 0);
            world.days(3);
            // What was put there for a push that failed may stay.
            assert!(world.segments_nobody_names().len() <= 2, "request {n} {failing:?}");
            tried += 1;
        }
    }
    println!("tried: requests={tried}");
}

#[test]
fn two_may_remove_at_once() {
    let mut world = World::new(&keeping("none"));
    world.days(3);
    let process = SimDisk::new().process();
    world.clone_to(&process, Point::Newest).unwrap();
    let own = tideline_journal::Options { clock: Arc::clone(&world.clock) as _, ..options(&world.fickle) };
    let other = Store::open(process as Arc<dyn Disk>, Path::new("/b.db"), own).unwrap();
    remotes(&other, &world.fickle).add("origin", URL, Some(&keeping("none"))).unwrap();
    for _ in 0..40 {
        world.pass(DAY / 10);
        std::thread::scope(|scope| {
            for store in [&world.store, &other] {
                let fickle = &world.fickle;
                scope.spawn(move || {
                    let there = remotes(store, fickle);
                    let _ = there.pull("origin").and_then(|_| {
                        commit(store, &mut Rng(store.head().get()))?;
                        there.push("origin")
                    });
                });
            }
        });
        // Of two who committed one was first; the other is made anew.
        let heads: Vec<_> =
            [&world.store, &other].map(|store| remotes(store, &world.fickle).pull("origin")).into();
        if heads.iter().any(|head| head.as_ref().is_err_and(|e| e.code() == Code::Diverged)) {
            break;
        }
    }
    let (lsn, _) = world.cloned(Point::Newest).unwrap();
    assert!(lsn >= Lsn::new(100));
}
