//! A remote that was emptied, where somebody else has begun since, or that has lost a manifest.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::pages::{self, Change, Model, open, read};
use common::{Fickle, cloned, objects};
use tideline_journal::disk::SimDisk;
use tideline_journal::{Clock, Code, Durability, Lsn, Options, Result, Session, Store, SystemClock};
use tideline_sync::Remotes;

/// A place where each request is a request, and nothing is looked at twice within a minute.
const BUCKET: &str = "s3://bucket/app";
/// The same one, for a clone.
const URL: &str = common::URL;

/// Objects of a place are gone.
fn remove(fickle: &Fickle, which: impl Fn(&str) -> bool) {
    for (at, _) in objects(fickle).into_iter().filter(|(at, _)| which(at.as_ref())) {
        common::now(object_store::ObjectStoreExt::delete(&fickle.memory, &at)).unwrap();
    }
}

/// Sets pages of a database of 40.
fn put(store: &Arc<Store>, fills: Vec<(u32, u64)>) {
    let mut model = if store.head() == Lsn::ZERO { Model::default() } else { read(store).unwrap().1 };
    let mut session = Session::new(Arc::clone(store)).unwrap();
    pages::commit(&mut session, &mut model, &Change { fills, size: 40 }, Durability::Process).unwrap();
}

/// A database all of whose pages tell whose they are.
fn begun(whose: u64) -> Arc<Store> {
    let store = open(&SimDisk::new().process()).unwrap();
    put(&store, (1..=40).map(|page| (page, whose + u64::from(page))).collect());
    store
}

/// Begins there anew.
fn with_origin<'a>(store: &'a Arc<Store>, fickle: &Arc<Fickle>) -> Remotes<'a> {
    let there = Remotes::through(store, common::way(fickle));
    drop(there.remove("origin"));
    there.add("origin", BUCKET, None).unwrap();
    there
}

/// Pushes a commit as somebody does who isn't sure of anything.
fn push_anew(store: &Arc<Store>, fickle: &Arc<Fickle>, fill: u64) -> Result<Lsn> {
    put(store, vec![(2, fill)]);
    Remotes::through(store, common::way(fickle)).push("origin")
}

/// Who pushed once more within a minute of a place being emptied is refused there, where `other` has begun with so many
/// pushes.
fn refused_where_another_has_begun(
    store: &Arc<Store>,
    other: &Arc<Store>,
    fickle: &Arc<Fickle>,
    theirs: u64,
) {
    let there = Remotes::through(store, common::way(fickle));
    put(store, vec![(2, 1)]);
    there.push("origin").unwrap();
    remove(fickle, |_| true);
    put(store, vec![(2, 2)]);
    there.push("origin").unwrap();
    let others = with_origin(other, fickle);
    for n in 0..theirs {
        put(other, vec![(4, n)]);
        others.push("origin").unwrap();
    }
    let left = objects(fickle);
    for n in 0..20 {
        let refused = push_anew(store, fickle, 10 + n).unwrap_err();
        assert_eq!(refused.code(), Code::Missing, "{refused}");
        assert!(refused.to_string().contains("empty it"), "{refused}");
        assert!(objects(fickle) == left, "something was written");
    }
}

#[test]
fn nothing_is_built_upon_what_another_database_has_begun_with() {
    // Also as far as where the first one is.
    for (before, theirs) in [(3, 1), (30, 20), (30, 17), (3, 3), (18, 18)] {
        let fickle = Fickle::new();
        let (store, other) = (begun(1000), begun(9000));
        let there = with_origin(&store, &fickle);
        for n in 1..before {
            put(&store, vec![(2, n)]);
            there.push("origin").unwrap();
        }
        refused_where_another_has_begun(&store, &other, &fickle, theirs);
    }
}

#[test]
fn nothing_is_built_upon_what_a_replica_that_diverged_has_begun_with() {
    for (before, theirs) in [(4, 1), (4, 5), (20, 12)] {
        let fickle = Fickle::new();
        let store = begun(1000);
        let there = with_origin(&store, &fickle);
        there.push("origin").unwrap();
        let process = SimDisk::new().process();
        common::clone(&process, &fickle, "/x.db").unwrap();
        let replica = common::reopen(&process, &fickle, "/x.db").unwrap();
        replica.hydrate(|_, _| true).unwrap();
        put(&replica, vec![(3, 77)]);
        for n in 0..before {
            put(&store, vec![(2, n)]);
            there.push("origin").unwrap();
        }
        refused_where_another_has_begun(&store, &replica, &fickle, theirs);
    }
}

#[test]
fn a_lost_manifest_with_the_whole_database_costs_bytes_and_nothing_else() {
    for (before, lost) in [(3, 1), (16, 1), (17, 17), (20, 17), (34, 33)] {
        for hint in [true, false] {
            let fickle = Fickle::new();
            let store = begun(1000);
            let there = with_origin(&store, &fickle);
            for n in 0..before {
                put(&store, vec![(2, n)]);
                there.push("origin").unwrap();
            }
            let name = format!("manifest/{lost:020}");
            remove(&fickle, |at| at == name);
            for n in 0..20 {
                let pushed = push_anew(&store, &fickle, 100 + n);
                assert!(pushed.is_ok(), "{before} {lost}, push {n}: {pushed:?}");
            }
            remove(&fickle, |at| at == "hint" && !hint);
            assert_eq!(cloned(&fickle), read(&store).unwrap(), "{before} {lost} {hint}");
        }
    }
}

#[test]
fn a_lost_manifest_that_whoever_searches_asks_for_is_no_empty_place() {
    for at in [23, 24] {
        let fickle = Fickle::new();
        let store = begun(1000);
        store.set_retention(tideline_journal::Retention::None).unwrap();
        let there = Remotes::through(&store, common::way(&fickle));
        let little = tideline_sync::Options::from_iter([("spool_mib".to_owned(), 0.into())]);
        there.add("origin", BUCKET, Some(&little)).unwrap();
        for n in 1..at {
            put(&store, vec![(2, n)]);
            there.push("origin").unwrap();
        }
        // After so much the journal has given up what the remote hasn't got.
        for n in 0..400 {
            put(&store, vec![(3, n), (5, n), (6, n)]);
        }
        store.fold().unwrap();
        there.push("origin").unwrap();
        push_anew(&store, &fickle, 1).unwrap();
        let name = format!("manifest/{at:020}");
        let link = objects(&fickle).into_iter().find(|(path, _)| path.as_ref() == name).unwrap();
        assert!(String::from_utf8_lossy(&link.1).contains("\"runs\""), "it has the whole database");
        remove(&fickle, |path| path == name);
        for n in 0..20 {
            push_anew(&store, &fickle, 100 + n).unwrap();
        }
        assert_eq!(cloned(&fickle), read(&store).unwrap());
    }
}

#[test]
fn a_lazy_clone_leaves_no_lease_where_its_database_is_not() {
    let fickle = Fickle::new();
    let store = begun(1000);
    let there = common::remotes(&store, &fickle);
    there.add("origin", URL, None).unwrap();
    there.push("origin").unwrap();
    let process = SimDisk::new().process();
    common::clone(&process, &fickle, "/x.db").unwrap();
    // Three days later.
    let clock = Arc::new(common::Moved((SystemClock.now_ms() + 3 * 24 * 3_600_000).into()));
    let options = Options { clock, ..common::options(&fickle) };
    let replica = Store::open(process as _, Path::new("/x.db"), options).unwrap();
    let own = common::remotes(&replica, &fickle);
    remove(&fickle, |_| true);
    assert_eq!(own.pull("origin").unwrap_err().code(), Code::Missing);
    assert!(objects(&fickle).is_empty(), "a pull has written");
    let other = begun(9000);
    let others = common::remotes(&other, &fickle);
    others.add("origin", URL, None).unwrap();
    others.push("origin").unwrap();
    let left = objects(&fickle);
    assert_eq!(own.pull("origin").unwrap_err().code(), Code::Foreign);
    assert!(objects(&fickle) == left, "a pull has written where another database is");
}
