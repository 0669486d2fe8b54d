//! What remotes keep of their history, on the object stores themselves: folders, and a bucket.

#[path = "../../journal/tests/common/mod.rs"]
mod pages;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pages::{Model, Rng, read};
use tideline_journal::disk::{RealDisk, SimDisk};
use tideline_journal::{Clock, Code, Durability, Lsn, Session, Store, SystemClock};
use tideline_sync::{Cloning, Options, Point, Remotes, store_options};
use tideline_tests::{Bucket, Scratch};

const DAY: u64 = 24 * 3600 * 1000;

struct Moved(AtomicU64);

impl Clock for Moved {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Commits and pushes for nine days, twenty times a day, and clones what is kept, and what isn't.
fn nine_days(url: &str, mut options: Options) {
    let clock = Arc::new(Moved(AtomicU64::new(SystemClock.now_ms())));
    let own = tideline_journal::Options { clock: Arc::clone(&clock) as _, ..pages::options() };
    let store = Store::open(SimDisk::new().process(), Path::new("/a.db"), own).unwrap();
    let mut rng = Rng(3);
    let mut past: Vec<(Lsn, Model)> = Vec::new();
    let clone_options = options.clone();
    options.insert("retain".into(), "2 days".into());
    for push in 0..9 * 20 {
        clock.0.fetch_add(DAY / 20, Ordering::SeqCst);
        let mut model = read(&store).unwrap().1;
        let change = model.change(&mut rng);
        let mut session = Session::new(Arc::clone(&store)).unwrap();
        pages::commit(&mut session, &mut model, &change, Durability::Process).unwrap();
        let there = Remotes::of(&store);
        if push == 0 {
            there.add("origin", url, Some(&options)).unwrap();
        }
        past.push((there.push("origin").unwrap(), model));
        assert_eq!(there.list().unwrap()[0].last_error, None);
    }
    let scratch = Scratch::new();
    let clone = |n: usize, lsn: Lsn| {
        let path = scratch.path(&format!("clone-{n}.db"));
        let until = Point::Lsn(lsn);
        let remote = clone_options.clone();
        let cloning = Cloning { url, remote, until, options: store_options(), stop: &|| false };
        cloning.make(Arc::new(RealDisk::new()), &path).map(|_| path)
    };
    for (n, (lsn, model)) in past.iter().enumerate().rev().step_by(13).filter(|(n, _)| *n >= 7 * 20) {
        let path = clone(n, *lsn).unwrap();
        let store = Store::open(Arc::new(RealDisk::new()), &path, store_options()).unwrap();
        assert_eq!(read(&store).unwrap(), (*lsn, model.clone()));
        store.hydrate(|_, _| true).unwrap();
        assert!(store.verify().unwrap().is_empty());
        store.close().unwrap();
    }
    let refused = clone(0, past[0].0).unwrap_err();
    assert_eq!(refused.code(), Code::Trimmed, "{refused}");
}

#[test]
fn a_folder_keeps_what_is_retained() {
    let scratch = Scratch::new();
    let folder = scratch.path("there");
    nine_days(&format!("file://{}", folder.display()), Options::new());
    let manifests = std::fs::read_dir(folder.join("manifest")).unwrap().count();
    assert!(manifests < 6 * 20, "{manifests} manifests are left");
}

#[test]
fn a_bucket_keeps_what_is_retained() {
    let Some(bucket) = Bucket::get() else { return };
    let options: serde_json::Value = serde_json::from_str(&bucket.options(bucket.endpoint())).unwrap();
    nine_days(&bucket.new_place(), options.as_object().unwrap().clone());
}
