//! Remotes in a bucket: requests that come late, remotes that are away for a while, and processes that are killed at any
//! request.

use std::time::{Duration, Instant};

use tideline_tests::proxy::{Fault, Proxy, Rule};
use tideline_tests::site::{Site, ask, lsn, rows};
use tideline_tests::{Bucket, bundled_at, patience, python_start, refusal};

/// Waits until something holds.
#[track_caller]
fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < patience(), "{what}: not within {:?}", patience());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_commit_that_comes_late_is_known_again() {
    let Some(bucket) = Bucket::get() else { return };
    let proxy = Proxy::start(bucket.endpoint());
    let mut site = Site::new(bucket, &proxy.url());
    let copy = site.fresh();
    site.add(&copy, bucket.endpoint());
    let push = |site: &Site| ask::<i64>(&site.source, "SELECT tide_push()", ());
    let pull = || ask::<i64>(&copy, "SELECT tide_pull()", ());
    let hold = || proxy.all(|request| request.is("PUT", "/manifest/"), Fault::Hold);

    // It arrives after all, when nobody waits for it any more.
    let late = site.commit();
    let held = hold();
    refusal(&push(&site).expect_err("no answer"), "OFFLINE");
    assert_eq!(pull(), Ok(late - 1));
    held.lift();
    held.release();
    wait_for("it is there", || pull() == Ok(late));
    site.same(&copy);
    site.commit();
    site.push();
    assert_eq!(pull(), Ok(late + 1));
    site.same(&copy);

    // Somebody else was there before it arrived.
    site.commit();
    let held = hold();
    refusal(&push(&site).expect_err("no answer"), "OFFLINE");
    copy.execute_batch("INSERT INTO t(v) VALUES ('elsewhere')").expect("a commit");
    assert_eq!(ask(&copy, "SELECT tide_push()", ()), Ok(late + 2));
    held.lift();
    held.release();
    let refused = push(&site).expect_err("somebody else was there");
    refusal(&refused, "DIVERGED");
    let fresh = site.fresh();
    assert_eq!((lsn(&fresh), rows(&fresh)), (late + 2, rows(&copy)));
}

#[test]
fn what_goes_on_by_itself_goes_on_when_the_remote_is_back() {
    let Some(bucket) = Bucket::get() else { return };
    let proxy = Proxy::start(bucket.endpoint());
    let mut site = Site::new(bucket, &proxy.url());
    let every = "SELECT tide_push('origin', json_object('every', '20ms'))";
    assert_eq!(ask(&site.source, every, ()), Ok(lsn(&site.source)));
    for _ in 0..2 {
        proxy.away();
        site.commit();
        let error = "SELECT coalesce(last_error, '') FROM tide_remotes";
        wait_for("it is away", || ask::<String>(&site.source, error, ()).expect("a row").contains("OFFLINE"));
        // Nobody waits for it.
        site.commit();
        proxy.back();
        let done = "SELECT ahead = 0 AND last_error IS NULL FROM tide_remotes";
        wait_for("it is back", || ask(&site.source, done, ()) == Ok(true));
        let copy = site.fresh();
        site.same(&copy);
    }
}

/// A call in a process of its own.
const DOOMED: &str = r#"
from tide import *
what, name, url, options = sys.argv[1:]
load()
if what == "clone":
    one(sqlite3.connect(":memory:"), "SELECT tide_clone(?, ?, ?)", url, os.path.abspath(name), options)
else:
    one(connect(name), f"SELECT tide_{what}()")
"#;

/// What becomes of the request at which a process is killed.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// It never comes.
    Lost,
    /// It comes when somebody else has gone on.
    Late,
    /// It was answered, but for the process that isn't there to hear it.
    Done,
}

/// Makes a call on the database of this name, in a process that is killed at its nth request. The rule is released
/// for a late one to come. False if it didn't make so many.
fn killed(site: &Site, proxy: &Proxy, (what, name): (&str, &str), fate: Fate, nth: usize) -> (bool, Rule) {
    let fault = match fate {
        Fate::Lost => Fault::Stall,
        Fate::Late => Fault::Hold,
        Fate::Done => Fault::HoldAnswer,
    };
    let rule = proxy.from_nth(nth, 1, fault);
    let options = site.options(&proxy.url());
    let mut process = python_start(&site.scratch, DOOMED, &[what, name, &site.url, &options]);
    while rule.applied() == 0 {
        if !process.running() {
            process.finish().ok();
            rule.lift();
            return (false, rule);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    process.kill().killed();
    (true, rule)
}

/// Has processes killed at each request, with each fate of that, until one isn't. What a late request does is seen in
/// the round behind it.
fn at_each_death(what: &str, mut round: impl FnMut(Fate, usize) -> bool) {
    for fate in [Fate::Lost, Fate::Late, Fate::Done] {
        let begun = Instant::now();
        let survived = (1..).find(|&nth| !round(fate, nth)).expect("an end");
        println!("{what}: killed at {} requests, {fate:?}, {:.1?}", survived - 1, begun.elapsed());
        assert!(survived > 2);
    }
}

#[test]
fn a_push_that_is_killed_at_any_request_is_made_once() {
    let Some(bucket) = Bucket::get() else { return };
    let proxy = Proxy::start(bucket.endpoint());
    let mut site = Site::new(bucket, bucket.endpoint());
    at_each_death("push", |fate, nth| {
        site.add(&site.source, &proxy.url());
        site.commit();
        // The process has it alone.
        site.source = bundled_at(":memory:").expect("a connection");
        let (killed, rule) = killed(&site, &proxy, ("push", "source.db"), fate, nth);
        site.source = site.open("source.db", bucket.endpoint());
        site.push();
        rule.release();
        let copy = site.fresh();
        site.same(&copy);
        killed
    });
}

#[test]
fn a_pull_that_is_killed_at_any_request_goes_on() {
    let Some(bucket) = Bucket::get() else { return };
    let proxy = Proxy::start(bucket.endpoint());
    let mut site = Site::new(bucket, bucket.endpoint());
    drop(site.fresh());
    at_each_death("pull", |fate, nth| {
        for _ in 0..2 {
            site.commit();
            site.push();
        }
        drop(site.open("fresh1.db", &proxy.url()));
        let (killed, rule) = killed(&site, &proxy, ("pull", "fresh1.db"), fate, nth);
        let copy = site.open("fresh1.db", bucket.endpoint());
        assert_eq!(ask(&copy, "SELECT tide_pull()", ()), Ok(lsn(&site.source)));
        rule.release();
        site.same(&copy);
        killed
    });
}

#[test]
fn a_clone_that_is_killed_at_any_request_is_made_all_the_same() {
    let Some(bucket) = Bucket::get() else { return };
    let proxy = Proxy::start(bucket.endpoint());
    let site = Site::new(bucket, bucket.endpoint());
    site.commit();
    site.push();
    let mut rounds = 0;
    at_each_death("clone", |fate, nth| {
        rounds += 1;
        let name = format!("clone{rounds}.db");
        let (killed, rule) = killed(&site, &proxy, ("clone", &name), fate, nth);
        if !site.scratch.path(&name).exists() {
            site.clone_to(&name, bucket.endpoint()).expect("a clone");
        }
        let copy = site.open(&name, bucket.endpoint());
        assert_eq!(ask(&copy, "SELECT tide_pull()", ()), Ok(lsn(&site.source)));
        rule.release();
        site.same(&copy);
        killed
    });
}
