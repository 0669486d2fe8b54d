//! What remotes keep of their history, on the object stores themselves: folders, and a bucket.

#[path = "../../journal/tests/common/mod.rs"]
mod pages;

use std::sync::Arc;
use std::time::Duration;

use pages::{Model, Rng, read};
use tideline_journal::disk::{RealDisk, SimDisk};
use tideline_journal::{Code, Durability, Lsn, Session, Store};
use tideline_sync::{Cloning, Options, Point, Remotes, store_options};
use tideline_tests::{Bucket, Scratch};

const PUSHES: usize = 180;

/// Commits and pushes many times, and clones what is kept, and what isn't. It is given up at once, but in two steps.
fn many_pushes(url: &str, mut options: Options) {
    let store = pages::open(&SimDisk::new().process()).unwrap();
    let mut rng = Rng(3);
    let mut past: Vec<(Lsn, Model)> = Vec::new();
    let clone_options = options.clone();
    options.insert("retain".into(), "40 lsns".into());
    for push in 0..PUSHES {
        let mut model = read(&store).unwrap().1;
        let change = model.change(&mut rng);
        let mut session = Session::new(Arc::clone(&store)).unwrap();
        pages::commit(&mut session, &mut model, &change, Durability::Process).unwrap();
        let there = Remotes::of(&store).giving_up_after(Duration::from_millis(1));
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
        let cloning =
            Cloning { url, remote, until, replace: false, options: store_options(), stop: &|| false };
        cloning.make(Arc::new(RealDisk::new()), &path).map(|_| path)
    };
    for (n, (lsn, model)) in past.iter().enumerate().rev().step_by(13).filter(|(n, _)| *n >= PUSHES - 40) {
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
    many_pushes(&format!("file://{}", folder.display()), Options::new());
    let manifests = std::fs::read_dir(folder.join("manifest")).unwrap().count();
    assert!(manifests < 40 + 4 * 16, "{manifests} manifests are left of {PUSHES}");
}

#[test]
fn a_bucket_keeps_what_is_retained() {
    let Some(bucket) = Bucket::get() else { return };
    let options: serde_json::Value = serde_json::from_str(&bucket.options(bucket.endpoint())).unwrap();
    many_pushes(&bucket.new_place(), options.as_object().unwrap().clone());
}
