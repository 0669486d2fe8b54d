//! Remotes in a bucket, behind a bad network: every request of every call meets every fault.
//!
//! A call does what it was asked to, or says that the remote is away and why. Once the fault is gone it does, and a fresh
//! clone has what was acknowledged.

use std::time::Instant;

use rusqlite::Connection;
use tideline_tests::proxy::{Fault, Proxy};
use tideline_tests::site::{Site, ask, lsn};
use tideline_tests::{Bucket, bundled, refusal};

/// A fault, and one of which words tells of it if it stays.
type Trouble<'t> = (Fault, &'t [&'t str]);

/// What becomes of a connection and of an answer.
const TROUBLES: &[Trouble<'_>] = &[
    (Fault::Refuse, CLOSED),
    // In the middle of the head.
    (Fault::CutRequest(60), CLOSED),
    // Behind it, where there is more.
    (Fault::CutRequest(1500), CLOSED),
    (Fault::CutAnswer(20), CLOSED),
    (Fault::Truncate(10), CLOSED),
    (Fault::LoseAnswer, CLOSED),
    (Fault::Error, &["InternalError", "500 Internal Server Error"]),
    (Fault::SpoilAnswer, &["InternalError", "500 Internal Server Error"]),
    (Fault::SlowDown, &["SlowDown", "503 Service Unavailable"]),
];
const CLOSED: &[&str] = &["connection closed", "reset", "end of file", "message"];
/// No answer, for as long as a request may take.
const SILENCE: Trouble<'_> = (Fault::Stall, &["timed out", "timeout"]);

/// How often a fault comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Often {
    /// For one request. What can be asked again is, and the call does well.
    Once,
    /// For that request and all behind it.
    FromThenOn,
}

/// A call, and what is needed for it to be made again and again.
trait Call {
    /// How many of its requests meet a fault.
    const MOST: usize = usize::MAX;

    /// Prepares it, and gives what it is to answer.
    fn prepare(&mut self) -> i64;
    /// Makes it.
    fn make(&mut self) -> Result<i64, String>;
    /// Looks at what is there after it failed.
    fn failed(&mut self) {}
    /// Looks at what is there after it did well.
    fn check(&mut self);
}

/// Makes a call for each of its requests, which meets this fault; and again, with the fault gone.
#[track_caller]
fn at_each_request<C: Call>(proxy: &Proxy, call: &mut C, (fault, says): Trouble<'_>, often: Often) {
    let (begun, mut well) = (Instant::now(), 0);
    for nth in 1..=C::MOST {
        let expected = call.prepare();
        let times = if often == Often::Once { 1 } else { usize::MAX };
        let rule = proxy.from_nth(nth, times, fault);
        let answer = call.make();
        proxy.clear();
        let context = format!("request {nth}, {fault:?} {often:?}: {answer:?}");
        match &answer {
            Ok(lsn) => assert_eq!(*lsn, expected, "{context}"),
            Err(text) => {
                let reason = refusal(text, "OFFLINE");
                assert!(says.iter().any(|word| reason.contains(word)), "no reason: {context}");
                call.failed();
            }
        }
        well += usize::from(answer.is_ok());
        assert_eq!(call.make(), Ok(expected), "again, after {context}");
        call.check();
        if rule.applied() == 0 || nth == C::MOST {
            println!("{fault:?} {often:?}: {well} of {nth} did well, {:.1?}", begun.elapsed());
            return;
        }
    }
}

/// Adding a remote, which tries the store out.
struct Adding<'p>(Site, &'p Proxy);

impl Call for Adding<'_> {
    // All that are there once, and a race. The other races are the same.
    const MOST: usize = 12;

    fn prepare(&mut self) -> i64 {
        self.0.url = self.0.bucket.new_place();
        0
    }

    fn make(&mut self) -> Result<i64, String> {
        let Adding(site, proxy) = self;
        let options = site.bucket.options(&proxy.url());
        ask(&site.source, "SELECT tide_remote('another', ?, ?) <> 'another'", (&site.url, options))
    }

    fn check(&mut self) {}
}

struct Pushing(Site);

impl Call for Pushing {
    fn prepare(&mut self) -> i64 {
        self.0.commit()
    }

    fn make(&mut self) -> Result<i64, String> {
        ask(&self.0.source, "SELECT tide_push()", ())
    }

    fn check(&mut self) {
        let copy = self.0.fresh();
        self.0.same(&copy);
    }
}

struct Pulling {
    site: Site,
    copy: Connection,
}

impl Pulling {
    fn new(bucket: &'static Bucket, proxy: &Proxy) -> Pulling {
        let mut site = Site::new(bucket, bucket.endpoint());
        let copy = site.fresh();
        site.add(&copy, &proxy.url());
        Pulling { site, copy }
    }
}

impl Call for Pulling {
    fn prepare(&mut self) -> i64 {
        self.site.push();
        let lsn = self.site.commit();
        self.site.push();
        lsn
    }

    fn make(&mut self) -> Result<i64, String> {
        ask(&self.copy, "SELECT tide_pull()", ())
    }

    fn check(&mut self) {
        self.site.same(&self.copy);
    }
}

struct Cloning<'p> {
    site: Site,
    proxy: &'p Proxy,
    rounds: usize,
    name: String,
    made: bool,
}

impl Call for Cloning<'_> {
    fn prepare(&mut self) -> i64 {
        self.rounds += 1;
        self.name = format!("clone{}.db", self.rounds);
        self.made = false;
        lsn(&self.site.source)
    }

    fn make(&mut self) -> Result<i64, String> {
        if self.made {
            // There is no other.
            return Ok(lsn(&bundled(&self.site.scratch, &self.name)));
        }
        let answer = self.site.clone_to(&self.name, &self.proxy.url());
        self.made = answer.is_ok();
        answer
    }

    fn failed(&mut self) {
        assert!(!self.site.scratch.path(&self.name).exists() && !self.site.scratch.side(&self.name).exists());
    }

    fn check(&mut self) {
        self.site.same(&self.site.open(&self.name, self.site.bucket.endpoint()));
    }
}

fn all_troubles(often: Often, mut each: impl FnMut(&Proxy, Trouble<'_>, Often)) {
    let Some(bucket) = Bucket::get() else { return };
    let proxy = Proxy::start(bucket.endpoint());
    for (fault, says) in TROUBLES {
        // Where a fault stays, what becomes of the rest of a message matters less, and each call takes its time.
        let rare = matches!(fault, Fault::CutRequest(_) | Fault::CutAnswer(_) | Fault::Error);
        if often == Often::Once || !rare {
            each(&proxy, (*fault, says), often);
        }
    }
    if often == Often::Once {
        each(&proxy, SILENCE, often);
    }
}

fn push_through(proxy: &Proxy, trouble: Trouble<'_>, often: Often) {
    let bucket = Bucket::get().expect("it was there");
    at_each_request(proxy, &mut Pushing(Site::new(bucket, &proxy.url())), trouble, often);
}

fn pull_through(proxy: &Proxy, trouble: Trouble<'_>, often: Often) {
    let bucket = Bucket::get().expect("it was there");
    at_each_request(proxy, &mut Pulling::new(bucket, proxy), trouble, often);
}

fn clone_through(proxy: &Proxy, trouble: Trouble<'_>, often: Often) {
    let bucket = Bucket::get().expect("it was there");
    let site = Site::new(bucket, bucket.endpoint());
    at_each_request(
        proxy,
        &mut Cloning { site, proxy, rounds: 0, name: String::new(), made: false },
        trouble,
        often,
    );
}

#[test]
fn a_push_outlives_a_fault_of_any_request() {
    all_troubles(Often::Once, push_through);
}

#[test]
fn a_push_outlives_faults_that_stay() {
    all_troubles(Often::FromThenOn, push_through);
}

#[test]
fn a_pull_outlives_a_fault_of_any_request() {
    all_troubles(Often::Once, pull_through);
}

#[test]
fn a_pull_outlives_faults_that_stay() {
    all_troubles(Often::FromThenOn, pull_through);
}

#[test]
fn a_clone_outlives_a_fault_of_any_request() {
    all_troubles(Often::Once, clone_through);
}

#[test]
fn a_clone_outlives_faults_that_stay() {
    all_troubles(Often::FromThenOn, clone_through);
}

#[test]
fn a_remote_is_added_or_away_whatever_request_meets_a_fault() {
    let Some(bucket) = Bucket::get() else { return };
    let proxy = Proxy::start(bucket.endpoint());
    let mut call = Adding(Site::new(bucket, bucket.endpoint()), &proxy);
    // What creates an object, and isn't told so, is the trouble here.
    // The one who was first, of several, asks again, and is told that somebody was before it.
    let says = &[CLOSED, &["InternalError", "500 Internal Server Error", "none was told"]].concat();
    for fault in [Fault::LoseAnswer, Fault::SpoilAnswer] {
        at_each_request(&proxy, &mut call, (fault, says), Often::Once);
    }
}

#[test]
#[ignore = "half a minute: cargo test -p tideline-tests --test s3_faults -- --ignored"]
fn silence_that_stays_ends_every_call() {
    let Some(bucket) = Bucket::get() else { return };
    for each in [push_through, pull_through, clone_through] {
        let proxy = Proxy::start(bucket.endpoint());
        each(&proxy, SILENCE, Often::FromThenOn);
    }
}

#[test]
fn manifests_that_are_not_seen_yet_mislead_nobody() {
    let Some(bucket) = Bucket::get() else { return };
    let proxy = Proxy::start(bucket.endpoint());
    let mut site = Site::new(bucket, &proxy.url());
    let copy = site.fresh();
    site.add(&copy, &proxy.url());
    let other = site.fresh();
    // What isn't there is asked for, so that it can be answered again.
    let here = lsn(&site.source);
    assert_eq!(ask(&copy, "SELECT tide_pull()", ()), Ok(here));
    site.commit();
    site.push();
    let stale = |proxy: &Proxy| proxy.all(|request| request.is("GET", "/manifest/"), Fault::Stale);

    // Who follows is late, and not astray.
    stale(&proxy);
    assert_eq!(ask(&copy, "SELECT tide_pull()", ()), Ok(here));
    proxy.clear();
    assert_eq!(ask(&copy, "SELECT tide_pull()", ()), Ok(here + 1));
    site.same(&copy);

    // Who pushed what isn't seen doesn't push it anew.
    assert_eq!(ask(&site.source, "SELECT tide_push()", ()), Ok(here + 1));
    site.commit();
    site.push();
    site.commit();
    stale(&proxy);
    // It knows what it did last, and what is refused was there before.
    match ask::<i64>(&site.source, "SELECT tide_push()", ()) {
        Ok(there) => assert_eq!(there, lsn(&site.source)),
        Err(refused) => {
            let reason = refusal(&refused, "OFFLINE");
            assert!(reason.contains("manifest/") && !reason.contains("()"), "{reason}");
        }
    }
    proxy.clear();
    site.push();
    let fresh = site.fresh();
    site.same(&fresh);

    // Who has something else is never the one who wins.
    other.execute_batch("INSERT INTO t(v) VALUES ('elsewhere')").expect("a commit");
    site.add(&other, &proxy.url());
    stale(&proxy);
    let refused = ask::<i64>(&other, "SELECT tide_push()", ()).expect_err("somebody else was there");
    assert!(["OFFLINE", "DIVERGED"].iter().any(|code| refused.contains(code)), "{refused}");
    proxy.clear();
    let refused = ask::<i64>(&other, "SELECT tide_push()", ()).expect_err("somebody else was there");
    refusal(&refused, "DIVERGED");
    let fresh = site.fresh();
    site.same(&fresh);
}
