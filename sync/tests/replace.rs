//! What has diverged is given up for what a remote has: on a simulated disk whose power goes, with a network that fails.

mod common;

use std::sync::Arc;

use common::pages::{self, Model, Rng, read};
use common::{Failing, Fickle, URL, clone, cloned, commit, remotes, reopen, replace};
use tideline_journal::disk::{SimDisk, SimProcess};
use tideline_journal::{Code, Lsn};

/// A clone that somebody has committed to, while others have pushed; closed.
fn diverged(disk: &Arc<SimDisk>, early: &Arc<Fickle>) -> (Lsn, Model) {
    let process = disk.process();
    clone(&process, early, "/b.db").unwrap();
    let store = reopen(&process, early, "/b.db").unwrap();
    commit(&store, &mut Rng(77)).unwrap();
    commit(&store, &mut Rng(78)).unwrap();
    let own = read(&store).unwrap();
    store.close().unwrap();
    own
}

#[test]
fn what_diverged_can_be_given_up_at_any_step_and_nothing_else() {
    let fickle = Fickle::new();
    let source = pages::open(&SimDisk::new().process()).unwrap();
    for seed in 1..=4 {
        commit(&source, &mut Rng(seed)).unwrap();
    }
    remotes(&source, &fickle).add("origin", URL, None).unwrap();
    remotes(&source, &fickle).push("origin").unwrap();
    let early = Fickle::over(fickle.memory.fork());
    commit(&source, &mut Rng(9)).unwrap();
    remotes(&source, &fickle).push("origin").unwrap();
    let theirs = read(&source).unwrap();

    let open = |process: &Arc<SimProcess>| reopen(process, &Fickle::over(fickle.memory.fork()), "/b.db");
    // It is the one or the other, or it is finished; then it goes on.
    let check = |process: &Arc<SimProcess>, own: &(Lsn, Model), done: bool, what: &str| {
        match open(process) {
            Ok(store) => {
                let found = read(&store).unwrap_or_else(|e| panic!("{what}: {e}"));
                assert!(found == theirs || found == *own && !done, "{what}: LSN {}", found.0);
                store.close().unwrap_or_else(|e| panic!("{what}: {e}"));
            }
            Err(e) => assert!(!done && e.to_string().contains("'replace' again"), "{what}: {e}"),
        }
        let sound = Fickle::over(fickle.memory.fork());
        let reached = replace(process, &sound, "/b.db").unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(reached, theirs.0, "{what}");
        let store = reopen(process, &sound, "/b.db").unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(read(&store).unwrap(), theirs, "{what}");
        commit(&store, &mut Rng(5)).unwrap();
        let pushed = remotes(&store, &sound).push("origin").unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!((pushed, cloned(&sound)), (theirs.0.next(), read(&store).unwrap()), "{what}");
    };

    let whole = SimDisk::new();
    let own = diverged(&whole, &early);
    let first = whole.steps();
    assert_eq!(own.0, theirs.0.next());
    {
        let store = open(&whole.process()).unwrap();
        assert_eq!(remotes(&store, &fickle).pull("origin").unwrap_err().code(), Code::Diverged);
        store.close().unwrap();
    }
    replace(&whole.process(), &Fickle::over(fickle.memory.fork()), "/b.db").unwrap();
    check(&whole.process(), &own, true, "replaced");

    let mut cuts = 0;
    for step in first.. {
        let disk = SimDisk::new();
        let own = diverged(&disk, &early);
        disk.cut_at(step);
        if replace(&disk.process(), &Fickle::over(fickle.memory.fork()), "/b.db").is_ok() {
            break;
        }
        for seed in 0..2 {
            let what = format!("cut at step {step} ({:?}), seed {seed}", disk.describe(step));
            check(&disk.reboot(seed).process(), &own, false, &what);
        }
        cuts += 1;
    }
    assert!(cuts > 60, "{cuts}");
    // The network goes at each request: nothing has happened.
    for (request, failing) in (1..).flat_map(|n| [(n, Failing::Dead), (n, Failing::Refused)]) {
        let disk = SimDisk::new();
        let own = diverged(&disk, &early);
        let failed = Fickle::failing_at(fickle.memory.fork(), request, failing);
        let process = disk.process();
        let replaced = replace(&process, &failed, "/b.db");
        check(&process, &own, replaced.is_ok(), &format!("request {request}, {failing:?}"));
        if replaced.is_ok() && failed.requests() < request {
            break;
        }
    }
}
