//! A database whose own commits are given up for a new clone: interrupted at every step it is the one or the other, or is
//! refused until the clone has taken its place.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::elsewhere::{Origin, assert_plain, disk, sound};
use common::{Change, Model, PATH, commit, read};
use tideline_journal::disk::{Disk, FaultKind, SimDisk, SimProcess};
use tideline_journal::{Code, Durability, Result, Retention, Session, Store, incoming, side_folder};

/// A database elsewhere, and what somebody has committed to a clone of it.
struct Sides {
    origin: Origin,
    own: Model,
    /// It was hydrated, and closed: a plain file at rest.
    whole: bool,
}

impl Sides {
    fn new(process: &Arc<SimProcess>, whole: bool) -> Sides {
        let origin = Origin::new(14);
        let store = origin.clone_at(process).unwrap();
        store.set_retention(Retention::Lsns(5)).unwrap();
        let mut session = Session::new(Arc::clone(&store)).unwrap();
        let mut own = origin.model.clone();
        for (page, fill) in [(4, 5), (9, 6), (4, 8)] {
            let change = Change { fills: vec![(page, fill)], size: 14 };
            commit(&mut session, &mut own, &change, Durability::Disk).unwrap();
        }
        drop(session);
        if whole {
            store.hydrate(|_, _| true).unwrap();
        }
        store.close().unwrap();
        Sides { origin, own, whole }
    }

    /// As whoever replaces it does.
    fn replace(&self, process: &Arc<SimProcess>) -> Result<()> {
        let path = Path::new(PATH);
        if Store::finish_replacing(&**process, path)? {
            return Ok(());
        }
        Store::clear_incoming(&disk(process), path, self.origin.options())?;
        self.origin.clone_to(process, &incoming(path))?.close()?;
        let replaced = self.origin.open(process)?.replace();
        if replaced.is_err() {
            drop(Store::clear_incoming(&disk(process), path, self.origin.options()));
        }
        replaced
    }

    /// Opens what is left. It is what it was, or the clone; or it is refused, and finished then. Either way it can be
    /// replaced, and gone on with.
    fn check(&self, process: &Arc<SimProcess>, done: bool, what: &str) {
        match self.origin.open(process) {
            Ok(store) => {
                let (_, model) = read(&store).unwrap_or_else(|e| panic!("{what}: {e}"));
                assert!(model == self.origin.model || model == self.own && !done, "{what}");
                store.close().unwrap_or_else(|e| panic!("{what}: {e}"));
            }
            Err(e) => {
                assert!(!done && e.code() == Code::Missing, "{what}: {e}");
                assert!(e.to_string().contains("call tide_clone with 'replace' again"), "{what}: {e}");
                let finished = Store::finish_replacing(&**process, Path::new(PATH));
                assert!(finished.unwrap_or_else(|e| panic!("{what}: {e}")), "{what}");
                let store = self.origin.open(process).unwrap_or_else(|e| panic!("{what}: {e}"));
                assert_eq!(read(&store).unwrap().1, self.origin.model, "{what}");
                store.close().unwrap_or_else(|e| panic!("{what}: {e}"));
            }
        }
        self.replace(process).unwrap_or_else(|e| panic!("{what}, again: {e}"));
        let store = self.origin.open(process).unwrap_or_else(|e| panic!("{what}: {e}"));
        let (lsn, mut model) = read(&store).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!((lsn, &model), (self.origin.state.lsn, &self.origin.model), "{what}");
        sound(&store, what);
        let mut session = Session::new(Arc::clone(&store)).unwrap();
        let change = Change { fills: vec![(3, 70)], size: 14 };
        commit(&mut session, &mut model, &change, Durability::Process).unwrap();
        drop(session);
        store.hydrate(|_, _| true).unwrap();
        store.close().unwrap();
        assert_plain(process, &model, what);
        let beside = side_folder(&incoming(Path::new(PATH)));
        assert!(!process.exists(&beside).unwrap(), "{what}: {} is left", beside.display());
    }
}

#[test]
fn a_clone_takes_the_place_of_what_was_committed_here() {
    for whole in [false, true] {
        let machine = SimDisk::new();
        let process = machine.process();
        let sides = Sides::new(&process, whole);
        assert!(!Store::finish_replacing(&*process, Path::new(PATH)).unwrap());
        sides.replace(&process).unwrap();
        sides.check(&process, true, "replaced");
    }
}

#[test]
fn a_cut_a_kill_or_an_error_anywhere_leaves_the_one_or_the_other() {
    let mut tried = 0u64;
    for whole in [false, true] {
        let lived = || {
            let machine = SimDisk::new();
            let sides = Sides::new(&machine.process(), whole);
            let first = machine.steps();
            (machine, sides, first)
        };
        let (machine, sides, first) = lived();
        sides.replace(&machine.process()).unwrap();
        for step in first..machine.steps() {
            for kind in [None, Some(FaultKind::Kill), Some(FaultKind::Io), Some(FaultKind::Sync)] {
                let (machine, sides, _) = lived();
                match kind {
                    Some(kind) => machine.fail(step, kind),
                    None => machine.cut_at(step),
                }
                let process = machine.process();
                let done = sides.replace(&process).is_ok();
                let what = format!(
                    "{} base, {kind:?} at step {step} ({:?})",
                    if sides.whole { "plain" } else { "lazy" },
                    machine.describe(step)
                );
                if kind == Some(FaultKind::Kill) {
                    // Another one finishes what is in the page cache alone, and the power goes meanwhile.
                    for seed in 0..6 {
                        let (machine, sides, _) = lived();
                        machine.fail(step, FaultKind::Kill);
                        let process = machine.process();
                        drop(sides.replace(&process));
                        process.kill();
                        let first = machine.steps();
                        machine.cut_at(first + (seed * 7 + step * 3) % 53);
                        let again = sides.replace(&machine.process()).is_ok();
                        let what = format!("{what}, cut at step {}", machine.steps());
                        sides.check(&machine.reboot(seed).process(), again, &what);
                        tried += 1;
                    }
                }
                if kind.is_some() {
                    process.kill();
                    sides.check(&machine.process(), done, &what);
                    tried += 1;
                    continue;
                }
                for seed in 0..4 {
                    let after = machine.reboot(seed);
                    if seed % 2 == 1 {
                        // The power goes again while it is finished.
                        after.cut_at(seed + step % 17);
                        let process = after.process();
                        let again = sides.replace(&process).is_ok();
                        sides.check(&after.reboot(step).process(), again, &format!("{what}, cut again"));
                    } else {
                        sides.check(&after.process(), done, &what);
                    }
                    tried += 1;
                }
            }
        }
    }
    println!("tried: replacements={tried}");
    assert!(tried > 500, "{tried}");
}

#[test]
fn what_is_open_or_another_database_is_not_replaced() {
    let machine = SimDisk::new();
    let [process, other] = [machine.process(), machine.process()];
    let sides = Sides::new(&process, false);
    let path = Path::new(PATH);
    let clone = || sides.origin.clone_to(&process, &incoming(path)).unwrap().close().unwrap();

    let refused = |code: Code| {
        let store = sides.origin.open(&process).unwrap();
        assert_eq!(store.replace().unwrap_err().code(), code);
        assert_eq!(read(&store).unwrap().1, sides.own);
        store.close().unwrap();
    };
    refused(Code::Missing);
    clone();
    let elsewhere = sides.origin.open(&other).unwrap();
    refused(Code::Busy);
    elsewhere.close().unwrap();
    let store = sides.origin.open(&process).unwrap();
    let session = Session::new(Arc::clone(&store)).unwrap();
    assert_eq!(store.replace().unwrap_err().code(), Code::Busy);
    drop(session);
    store.close().unwrap();
    let used = Store::open(disk(&other), &incoming(path), sides.origin.options()).unwrap();
    refused(Code::Busy);
    let cleared = Store::clear_incoming(&disk(&process), path, sides.origin.options());
    assert_eq!(cleared.unwrap_err().code(), Code::Busy);
    used.close().unwrap();

    Store::clear_incoming(&disk(&process), path, sides.origin.options()).unwrap();
    let stranger = Origin::new(14);
    stranger.clone_to(&process, &incoming(path)).unwrap().close().unwrap();
    refused(Code::Foreign);
    Store::clear_incoming(&disk(&process), path, stranger.options()).unwrap();

    // Somebody's own database of that name stays.
    let own = common::open_at(&process, &format!("{PATH}-incoming")).unwrap();
    let mut session = Session::new(Arc::clone(&own)).unwrap();
    let change = Change { fills: vec![(1, 1), (2, 2)], size: 2 };
    commit(&mut session, &mut Model::default(), &change, Durability::Disk).unwrap();
    drop(session);
    own.close().unwrap();
    let cleared = Store::clear_incoming(&disk(&process), path, sides.origin.options());
    assert_eq!(cleared.unwrap_err().code(), Code::Argument);
}
