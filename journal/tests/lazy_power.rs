//! Lazy clones that are interrupted, or damaged: the power is cut, a process dies, or the disk fails at every step of
//! their lives; and bytes of their files change.
//!
//! `TIDELINE_SEEDS=N` tries N outcomes of each cut instead of a few, `TIDELINE_SCRIPTS=N` that many lives, from number
//! `TIDELINE_FIRST` on, and `TIDELINE_FLIPS=N` that many bytes; what was tried is printed.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::elsewhere::{Origin, assert_plain, sound};
use common::files::{Files, SIDE, disk_with, save};
use common::{Change, Model, Rng, commit, open, read, setting};
use tideline_journal::disk::{FaultKind, SimDisk, SimProcess};
use tideline_journal::{Code, Durability, Lsn, Result, Retention, Session, Unsent};

/// What happened before the power went.
#[derive(Default)]
struct History {
    /// The clone was made.
    begun: bool,
    /// The database at each LSN from that of the clone on, whether or not its commit was acknowledged.
    models: Vec<Model>,
    /// How many of them a power cut, or the death of the process, can't take.
    durable: usize,
    committed: usize,
    /// A remote is to get everything behind the clone's beginning.
    unsent: bool,
}

/// A life of a clone: from its making until it is hydrated and closed.
fn life(process: &Arc<SimProcess>, origin: &Origin, seed: u64, history: &mut History) -> Result<()> {
    let mut rng = Rng(seed);
    history.models.push(origin.model.clone());
    (history.durable, history.committed) = (1, 1);
    let mut store = Some(origin.clone_at(process)?);
    history.begun = true;
    if seed % 4 == 1 {
        let unsent = Unsent { behind: origin.state.lsn, most: u64::MAX };
        store.iter().try_for_each(|store| store.change_remotes(|_| Ok((Vec::new(), vec![unsent], ()))))?;
        history.unsent = true;
    }
    for round in 0..4 {
        let open = match store.take() {
            Some(store) => store,
            None => origin.open(process)?,
        };
        if rng.below(3) == 0 {
            open.set_retention([Retention::None, Retention::Lsns(3)][rng.below(2) as usize])?;
        }
        let mut session = Session::new(Arc::clone(&open))?;
        let mut model = read(&open)?.1;
        for _ in 0..3 + rng.below(4) {
            match rng.below(5) {
                0 => {
                    open.fold()?;
                }
                1 => {
                    open.hydrate(|_, _| false)?;
                }
                _ => {}
            }
            let change = model.change(&mut rng);
            let mut after = model.clone();
            after.apply(&change);
            history.models.push(after);
            let durability = if rng.below(3) == 0 { Durability::Disk } else { Durability::Process };
            commit(&mut session, &mut model, &change, durability)?;
            history.committed = history.models.len();
            if durability == Durability::Disk {
                history.durable = history.models.len();
            }
        }
        drop(session);
        if round == 3 || round == 2 && seed.is_multiple_of(3) {
            open.hydrate(|_, _| true)?;
        }
        open.close()?;
        history.durable = history.models.len();
    }
    Ok(())
}

/// Opens what is left and compares; then goes on with it to the end.
fn check(machine: &Arc<SimDisk>, origin: &Origin, history: &History, durable: usize, what: &str) {
    let process = machine.process();
    let store = match origin.open(&process) {
        Ok(store) => store,
        Err(e) => {
            let clear = matches!(e.code(), Code::Missing | Code::NotADatabase | Code::Diverged);
            assert!(!history.begun && clear, "{what}: {e}");
            return;
        }
    };
    let (lsn, mut model) = read(&store).unwrap_or_else(|e| panic!("{what}: {e}"));
    if !history.begun && lsn == Lsn::ZERO {
        assert_eq!(model.size, 0, "{what}");
        return;
    }
    let found = (lsn.get() - origin.state.lsn.get()) as usize;
    assert!(
        found < history.models.len() && found + 1 >= durable,
        "{what}: {found} of {durable} durable and {} tried",
        history.models.len()
    );
    assert_eq!(model, history.models[found], "{what}");
    sound(&store, what);
    if history.unsent {
        let shipped = store.batches(origin.state.lsn, None).map(|mut all| all.all(|piece| piece.is_ok()));
        assert!(shipped.unwrap_or_else(|e| panic!("{what}: {e}")), "{what}");
    }
    let mut session = Session::new(Arc::clone(&store)).unwrap();
    let change = model.change(&mut Rng(lsn.get()));
    let next = commit(&mut session, &mut model, &change, Durability::Process);
    assert_eq!(next.unwrap_or_else(|e| panic!("{what}: {e}")), lsn.next(), "{what}");
    drop(session);
    if lsn.get() % 2 == 0 {
        store.fold().unwrap_or_else(|e| panic!("{what}: {e}"));
    }
    store.hydrate(|_, _| true).unwrap_or_else(|e| panic!("{what}: {e}"));
    store.close().unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_plain(&process, &model, what);
    let again = open(&process).unwrap_or_else(|e| panic!("{what}, after closing: {e}"));
    assert_eq!(read(&again).unwrap(), (lsn.next(), model), "{what}, after closing");
}

#[test]
fn a_cut_anywhere_leaves_a_clone_with_a_prefix_of_the_commits() {
    let (first, scripts) = (setting("TIDELINE_FIRST", 0), setting("TIDELINE_SCRIPTS", 4));
    let seeds = setting("TIDELINE_SEEDS", 3);
    let origin = Origin::new(14);
    let mut cuts = 0u64;
    for script in first..first + scripts {
        let whole = SimDisk::new();
        life(&whole.process(), &origin, script, &mut History::default()).unwrap();
        for step in 0..whole.steps() {
            let machine = SimDisk::new();
            machine.cut_at(step);
            let mut history = History::default();
            assert!(life(&machine.process(), &origin, script, &mut history).is_err());
            for seed in 0..seeds {
                let what = format!(
                    "script {script}, cut at step {step} ({:?}), seed {seed}",
                    machine.describe(step)
                );
                let after = machine.reboot(seed);
                cuts += 1;
                if seed == 0 {
                    // The power goes again while it recovers, or fetches.
                    let process = after.process();
                    after.cut_at(step % 13);
                    if let Ok(store) = origin.open(&process) {
                        drop(store.hydrate(|_, _| true));
                        drop(store.close());
                    }
                    let what = format!("{what}, cut again");
                    check(&after.reboot(step), &origin, &history, history.durable, &what);
                } else {
                    check(&after, &origin, &history, history.durable, &what);
                }
            }
        }
    }
    println!("tried: lazy_scripts={scripts} lazy_cuts={cuts}");
    assert!(cuts > 500);
}

#[test]
fn a_kill_anywhere_leaves_a_clone_with_all_commits() {
    let (first, scripts) = (setting("TIDELINE_FIRST", 0), setting("TIDELINE_SCRIPTS", 4));
    let origin = Origin::new(14);
    let mut kills = 0u64;
    for script in first..first + scripts {
        let whole = SimDisk::new();
        life(&whole.process(), &origin, script, &mut History::default()).unwrap();
        for step in 0..whole.steps() {
            let machine = SimDisk::new();
            machine.fail(step, FaultKind::Kill);
            let (process, mut history) = (machine.process(), History::default());
            assert!(life(&process, &origin, script, &mut history).is_err());
            process.kill();
            kills += 1;
            let what = format!("script {script}, killed at step {step} ({:?})", machine.describe(step));
            check(&machine, &origin, &history, history.committed, &what);
        }
    }
    println!("tried: lazy_kills={kills}");
    assert!(kills > 200);
}

/// Goes on with what a killed process left: commits, and by seed folds, fetches and closes.
fn go_on(process: &Arc<SimProcess>, origin: &Origin, seed: u64, history: &mut History) -> Result<()> {
    let mut rng = Rng(seed);
    let store = origin.open(process)?;
    let (lsn, mut model) = read(&store)?;
    let Some(found) = lsn.get().checked_sub(origin.state.lsn.get()) else { return Ok(()) };
    history.models.truncate(found as usize + 1);
    let mut session = Session::new(Arc::clone(&store))?;
    for _ in 0..1 + rng.below(3) {
        match rng.below(5) {
            0 => drop(store.fold()?),
            1 => drop(store.hydrate(|_, _| false)?),
            2 => drop(store.hydrate(|_, _| true)?),
            _ => {}
        }
        let change = model.change(&mut rng);
        let mut after = model.clone();
        after.apply(&change);
        history.models.push(after);
        let durability = if rng.below(2) == 0 { Durability::Disk } else { Durability::Process };
        commit(&mut session, &mut model, &change, durability)?;
        if durability == Durability::Disk {
            history.durable = history.models.len();
        }
    }
    drop(session);
    if rng.below(2) == 0 {
        store.close()?;
        history.durable = history.models.len();
    }
    Ok(())
}

/// What a killed process had written was only in the page cache: who finds it there must not build upon it as if it were
/// on the disk.
#[test]
fn a_cut_after_a_kill_leaves_a_clone_with_what_was_acknowledged_since() {
    let (first, scripts) = (setting("TIDELINE_FIRST", 0), setting("TIDELINE_SCRIPTS", 4));
    let seeds = setting("TIDELINE_SEEDS", 3);
    let origin = Origin::new(14);
    let mut cuts = 0u64;
    for script in first..first + scripts {
        let whole = SimDisk::new();
        life(&whole.process(), &origin, script, &mut History::default()).unwrap();
        for step in 0..whole.steps() {
            for seed in 0..seeds {
                let mut rng = Rng(script ^ step << 16 ^ seed << 40);
                let machine = SimDisk::new();
                machine.fail(step, FaultKind::Kill);
                let (process, mut history) = (machine.process(), History::default());
                assert!(life(&process, &origin, script, &mut history).is_err());
                process.kill();
                if seed % 3 != 0 {
                    machine.cut_at(machine.steps() + rng.below(60));
                }
                let what = format!(
                    "script {script}, killed at step {step} ({:?}), seed {seed}",
                    machine.describe(step)
                );
                let gone_on = match history.begun {
                    true => go_on(&machine.process(), &origin, rng.next(), &mut history),
                    false => Ok(()),
                };
                assert!(gone_on.is_ok() || seed % 3 != 0, "{what}: {gone_on:?}");
                let what = format!("{what}, cut at step {}", machine.steps());
                check(&machine.reboot(rng.next()), &origin, &history, history.durable, &what);
                cuts += 1;
            }
        }
    }
    println!("tried: lazy_cuts_after_kills={cuts}");
    assert!(cuts > 500);
}

/// One process folds, and fetches, and dies at any step of it; another has the database open, and goes on.
#[test]
fn who_dies_while_it_folds_or_fetches_leaves_it_to_the_others() {
    let origin = Origin::new(14);
    let mut kills = 0u64;
    for holds in [false, true] {
        let mut step = None;
        loop {
            let machine = SimDisk::new();
            let [dying, living] = [machine.process(), machine.process()];
            let one = origin.clone_at(&dying).unwrap();
            let other = origin.open(&living).unwrap();
            let mut models = vec![origin.model.clone()];
            let mut session = Session::new(Arc::clone(&one)).unwrap();
            let mut reader = Session::new(Arc::clone(&other)).unwrap();
            if holds {
                reader.begin_read().unwrap();
            }
            let first = machine.steps();
            let step_now = *step.get_or_insert(first);
            machine.fail(step_now, FaultKind::Kill);
            let mut work = || -> Result<()> {
                for fills in [vec![(4, 5), (9, 6)], vec![(1, 3), (4, 8)]] {
                    let (mut model, size) = (models.last().unwrap().clone(), 14 + models.len() as u32);
                    let change = Change { fills, size };
                    let before = model.clone();
                    model.apply(&change);
                    models.push(model);
                    commit(&mut session, &mut before.clone(), &change, Durability::Process)?;
                    one.fold()?;
                    one.hydrate(|_, _| false)?;
                }
                one.hydrate(|_, _| true).map(drop)
            };
            if work().is_ok() {
                break;
            }
            let what = format!("holds {holds}, killed at step {step_now} ({:?})", machine.describe(step_now));
            dying.kill();
            drop((session, one));
            if holds {
                assert_eq!(common::read_at(&reader).unwrap(), models[0], "{what}");
                reader.end_read().unwrap();
            }
            let (lsn, mut model) = read(&other).unwrap_or_else(|e| panic!("{what}: {e}"));
            let found = (lsn.get() - origin.state.lsn.get()) as usize;
            assert!(
                found + 2 >= models.len() && model == models[found],
                "{what}: {found} of {}",
                models.len() - 1
            );
            sound(&other, &what);
            let mut session = Session::new(Arc::clone(&other)).unwrap();
            let change = Change { fills: vec![(4, 9), (2, 11)], size: 13 };
            commit(&mut session, &mut model, &change, Durability::Process).unwrap();
            if step_now % 2 == 0 {
                other.fold().unwrap_or_else(|e| panic!("{what}: {e}"));
            }
            other.hydrate(|_, _| true).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(read(&other).unwrap().1, model, "{what}");
            drop((session, reader));
            other.close().unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_plain(&machine.process(), &model, &what);
            step = Some(step_now + 1);
            kills += 1;
        }
    }
    println!("tried: lazy_kills_of_one={kills}");
    assert!(kills > 80, "{kills}");
}

/// An error of the disk in the middle of anything leaves a database that goes on, or is refused; never a wrong page.
#[test]
fn an_error_anywhere_leaves_a_clone_that_goes_on() {
    let (first, scripts) = (setting("TIDELINE_FIRST", 0), setting("TIDELINE_SCRIPTS", 2));
    let origin = Origin::new(14);
    let mut errors = 0u64;
    for script in first..first + scripts {
        let whole = SimDisk::new();
        life(&whole.process(), &origin, script, &mut History::default()).unwrap();
        for step in 0..whole.steps() {
            for kind in [FaultKind::Io, FaultKind::NoSpace, FaultKind::Sync] {
                let machine = SimDisk::new();
                machine.fail(step, kind);
                let (process, mut history) = (machine.process(), History::default());
                let ended = life(&process, &origin, script, &mut history);
                let what = format!("script {script}, {kind:?} at step {step} ({:?})", machine.describe(step));
                if ended.is_err() && !history.begun {
                    // What can be removed was, and the place is free again, or it is told what is there.
                    match origin.clone_at(&machine.process()) {
                        Ok(store) => assert_eq!(read(&store).unwrap().1, origin.model, "{what}"),
                        Err(e) => assert_eq!(e.code(), Code::Argument, "{what}: {e}"),
                    }
                } else if ended.is_err() {
                    process.kill();
                    check(&machine, &origin, &history, history.durable, &what);
                }
                errors += 1;
            }
        }
    }
    println!("tried: lazy_errors={errors}");
}

/// A clone that was lived with, some of whose pages are here: its files, and what it holds.
fn lived_with(origin: &Origin) -> (Files, Lsn, Model) {
    let process = SimDisk::new().process();
    let store = origin.clone_at(&process).unwrap();
    let mut session = Session::new(Arc::clone(&store)).unwrap();
    let mut model = origin.model.clone();
    for (fills, folds) in [(vec![(4, 5), (9, 6)], true), (vec![(4, 7)], true), (vec![(11, 8)], false)] {
        commit(&mut session, &mut model, &Change { fills, size: 14 }, Durability::Process).unwrap();
        if folds {
            store.fold().unwrap();
        }
    }
    store.hydrate(|_, _| false).unwrap();
    drop(session);
    let head = store.head();
    store.close().unwrap();
    (save(&process), head, model)
}

/// All tags of a disk's sector are lost, as if none of the pages were here. What was folded isn't what the source has.
#[test]
fn tags_that_are_lost_show_no_page_as_it_was() {
    let origin = Origin::new(14);
    let (mut files, head, model) = lived_with(&origin);
    files.get_mut(&format!("{SIDE}/present")).unwrap()[64..].fill(0);
    let store = origin.open(&disk_with(&files).process()).unwrap();
    assert_eq!(read(&store).unwrap_err().code(), Code::Damaged);
    assert_eq!(store.hydrate(|_, _| true).unwrap_err().code(), Code::Damaged);
    // The base has what the hashes say.
    sound(&store, "mended");
    assert_eq!(read(&store).unwrap(), (head, model.clone()));
    // Of page 11 there is a newer image, so nobody looks at what the base has.
    assert_eq!(store.absent().unwrap(), Some((3, 14)));
    store.hydrate(|_, _| true).unwrap();
    assert_eq!(read(&store).unwrap(), (head, model));
}

#[test]
fn a_byte_that_changes_is_found_or_means_nothing() {
    let origin = Origin::new(14);
    let (files, head, model) = lived_with(&origin);
    let mut rng = Rng(setting("TIDELINE_SEED", 5));
    let all = |name: &str| {
        let path = format!("{SIDE}/{name}");
        (0..files[&path].len()).map(move |at| (path.clone(), at)).collect::<Vec<_>>()
    };
    let mut places: Vec<(String, usize)> = [all("source"), all("present")].concat();
    for _ in 0..setting("TIDELINE_FLIPS", 1500) {
        let (path, bytes) = files.iter().nth(rng.below(files.len() as u64) as usize).unwrap();
        places.push((path.clone(), rng.below(bytes.len() as u64) as usize));
    }
    let mut tally: BTreeMap<&str, u64> = BTreeMap::new();
    for (path, at) in places {
        for mask in [1 << rng.below(8), 1 + rng.below(255) as u8] {
            let mut changed = files.clone();
            changed.get_mut(&path).unwrap()[at] ^= mask;
            let what = format!("byte {at} of {path} ^ {mask:#04x}");
            let machine = disk_with(&changed);
            let became = match origin.open(&machine.process()) {
                Err(e) => {
                    let clear = [
                        Code::Damaged,
                        Code::Missing,
                        Code::Foreign,
                        Code::Diverged,
                        Code::Format,
                        Code::NotADatabase,
                    ];
                    assert!(clear.contains(&e.code()), "{what}: {e}");
                    assert!(e.text().contains("; "), "{what}: {e}");
                    "refused"
                }
                Ok(store) => {
                    let found = read(&store);
                    let told = !store.verify().unwrap().is_empty();
                    match found {
                        Err(e) => {
                            assert_eq!(e.code(), Code::Damaged, "{what}: {e}");
                            assert!(told, "{what}: {e}, and verify finds nothing");
                            "touched"
                        }
                        Ok((lsn, found)) if lsn < head => {
                            assert!(path.ends_with(".seg"), "{what}: commits are gone");
                            assert!(found != model, "{what}");
                            "shortened"
                        }
                        Ok((_, found)) => {
                            assert_eq!(found, model, "{what}: a wrong page is served");
                            if told { "verified" } else { "harmless" }
                        }
                    }
                }
            };
            let ours = path.ends_with("/source") || path.ends_with("/present");
            let tags = path.ends_with("/present") && at >= 64;
            assert!(!ours || became == "refused" || tags && became != "harmless", "{what}: {became}");
            *tally.entry(became).or_default() += 1;
        }
    }
    println!("{tally:?}");
    println!("tried: lazy_flips={}", tally.values().sum::<u64>());
    assert!(["refused", "touched", "verified"].iter().all(|class| tally.contains_key(class)), "{tally:?}");
}
