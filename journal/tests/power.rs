//! The power is cut at every step of scripted workloads. What is found afterwards must be a prefix
//! of the commits, whole ones only, with every commit that was acknowledged as durable.
//!
//! `TIDELINE_SEEDS=N` tries N outcomes of each cut instead of a few, and `TIDELINE_SCRIPTS=N` that
//! many workloads, from number `TIDELINE_FIRST` on; what was tried is printed.

mod common;

use std::sync::Arc;

use common::{Change, Model, Rng, commit, go_on_with, open, read, setting};
use tideline_journal::disk::{FaultKind, SimDisk, SimProcess};
use tideline_journal::{Durability, Lsn, Result, Retention, Session, Unsent};

/// What happened before the power went.
#[derive(Default)]
struct History {
    /// The database after each LSN, from 0 on, whether or not its commit was acknowledged.
    models: Vec<Model>,
    /// Newest LSN that was acknowledged as durable.
    durable: usize,
    /// Newest LSN for which horizon and base may have moved.
    done: bool,
    /// A remote has got no more than this, and is to get the rest.
    sent: Option<Lsn>,
}

/// Runs a workload until it ends or the power goes. Every other one changes the same two pages again and again, and
/// keeps little of it: what a fold then needs on the disk is merged before. Of the others half add pages and wait for
/// nothing: a fold finds more segments that aren't on the disk than are synced for another reason, and nothing to merge.
/// Every fourth keeps what a remote hasn't got.
fn run(process: &Arc<SimProcess>, seed: u64, history: &mut History) -> Result<()> {
    let mut rng = Rng(seed);
    let hot = seed % 2 == 1;
    let growing = seed % 4 == 2;
    history.models.push(Model::default());
    let other = process;
    for round in 0..3 {
        let store = open(other)?;
        if round == 1 {
            let retention =
                [Retention::Default, Retention::None, Retention::Bytes(20_000), Retention::Lsns(5)];
            store.set_retention(retention[rng.below(4) as usize])?;
        }
        if hot && round != 1 {
            store.set_retention(Retention::Lsns(2 + rng.below(4)))?;
        }
        if growing {
            store.set_retention(Retention::Lsns(6))?;
        }
        if seed % 4 == 3 && round > 0 {
            let unsent = Unsent { behind: store.head(), most: u64::MAX };
            // Of two positions either may be found while the one takes the other's place.
            history.sent = None;
            store.change_remotes(|_| Ok((Vec::new(), vec![unsent], ())))?;
            history.sent = Some(unsent.behind);
        }
        let mut session = Session::new(Arc::clone(&store))?;
        let mut model = read(&store)?.1;
        let commits = match (hot, growing) {
            (true, _) => 24,
            (_, true) => 13,
            _ => 4 + rng.below(10),
        };
        for _ in 0..commits {
            let mut change: Change = model.change(&mut rng);
            if hot && model.size > 2 {
                change = Change { fills: vec![(2 + rng.below(2) as u32, rng.next())], size: model.size };
            }
            if growing {
                let size = model.size.max(1) + 14;
                change = Change { fills: (size - 13..=size).map(|page| (page, rng.next())).collect(), size };
            }
            match rng.below(if hot || growing { 40 } else { 10 }) {
                0 => {
                    // Rolled back after it was prepared: it must never appear.
                    common::write(&mut session, &model, &change)?;
                    session.rollback()?;
                    session.end_read()?;
                    continue;
                }
                1 => {
                    store.fold()?;
                }
                2 if round > 0 => {
                    store.compact(None)?;
                }
                _ => {}
            }
            let durability = if !growing && rng.below(if hot { 30 } else { 3 }) == 0 {
                Durability::Disk
            } else {
                Durability::Process
            };
            let mut after = model.clone();
            after.apply(&change);
            history.models.push(after);
            commit(&mut session, &mut model, &change, durability)?;
            if durability == Durability::Disk {
                history.durable = history.models.len() - 1;
            }
        }
        drop(session);
        store.close()?;
        history.durable = history.models.len() - 1;
    }
    history.done = true;
    Ok(())
}

/// Opens what is left and compares; then goes on with it.
fn check(disk: &Arc<SimDisk>, history: &History, what: &str) {
    let process = disk.process();
    let store = open(&process).unwrap_or_else(|e| panic!("{what}: {e}"));
    let (lsn, model) = read(&store).unwrap_or_else(|e| panic!("{what}: {e}"));
    let found = lsn.get() as usize;
    assert!(
        found >= history.durable && found < history.models.len(),
        "{what}: LSN {found} of {} acknowledged and {} tried",
        history.durable,
        history.models.len() - 1
    );
    assert_eq!(model, history.models[found], "{what}: LSN {found}");
    if let Some(sent) = history.sent {
        let horizon = store.status().unwrap_or_else(|e| panic!("{what}: {e}")).horizon;
        assert!(horizon <= sent, "{what}: the horizon is {horizon}, and a remote has got LSN {sent}");
    }
    go_on_with(&process, store, lsn, model, what);
}

#[test]
fn a_cut_anywhere_leaves_a_prefix_of_the_commits() {
    let (first, scripts) = (setting("TIDELINE_FIRST", 0), setting("TIDELINE_SCRIPTS", 4));
    let seeds = setting("TIDELINE_SEEDS", 3);
    let mut cuts = 0u64;
    for script in first..first + scripts {
        let whole = SimDisk::new();
        let mut history = History::default();
        run(&whole.process(), script, &mut history).unwrap();
        assert!(history.done);
        for step in 0..whole.steps() {
            let disk = SimDisk::new();
            disk.cut_at(step);
            let mut history = History::default();
            assert!(run(&disk.process(), script, &mut history).is_err(), "script {script} step {step}");
            for seed in 0..seeds {
                let what =
                    format!("script {script}, cut at step {step} ({:?}), seed {seed}", disk.describe(step));
                let after = disk.reboot(seed);
                cuts += 1;
                if seed == 0 {
                    // The power goes again while it recovers.
                    let process = after.process();
                    after.cut_at(script % 7 + step % 11);
                    if let Ok(store) = open(&process) {
                        drop(store.close());
                    }
                    check(&after.reboot(step), &history, &format!("{what}, cut again"));
                } else {
                    check(&after, &history, &what);
                }
            }
        }
    }
    println!("tried: scripts={scripts} cuts={cuts}");
    assert!(cuts > 500);
}

#[test]
fn a_kill_anywhere_loses_nothing_that_was_acknowledged() {
    let (first, scripts) = (setting("TIDELINE_FIRST", 0), setting("TIDELINE_SCRIPTS", 4));
    let mut kills = 0u64;
    for script in first..first + scripts {
        let whole = SimDisk::new();
        run(&whole.process(), script, &mut History::default()).unwrap();
        for step in 0..whole.steps() {
            let disk = SimDisk::new();
            disk.fail(step, FaultKind::Kill);
            let mut history = History::default();
            let process = disk.process();
            assert!(run(&process, script, &mut history).is_err(), "script {script} step {step}");
            process.kill();
            // Everything acknowledged survives a kill, whatever its durability; the last one may
            // have been committed without being acknowledged.
            let tried = history.models.len() - 1;
            history.durable = history.durable.max(tried.saturating_sub(1));
            kills += 1;
            check(
                &disk,
                &history,
                &format!("script {script}, killed at step {step} ({:?})", disk.describe(step)),
            );
        }
    }
    println!("tried: kills={kills}");
    assert!(kills > 200);
}

/// Goes on with what a killed process left, in one that its successor kills at no step: commits, and by seed folds, gives
/// up history and closes.
fn go_on(process: &Arc<SimProcess>, seed: u64, history: &mut History) -> Result<()> {
    let mut rng = Rng(seed);
    let store = open(process)?;
    let (lsn, mut model) = read(&store)?;
    history.models.truncate(lsn.get() as usize + 1);
    let mut session = Session::new(Arc::clone(&store))?;
    for _ in 0..1 + rng.below(4) {
        match rng.below(6) {
            0 => drop(store.fold()?),
            1 => drop(store.compact(None)?),
            2 => store.set_retention(Retention::Lsns(1))?,
            _ => {}
        }
        let durability = if rng.below(2) == 0 { Durability::Disk } else { Durability::Process };
        let change = model.change(&mut rng);
        let mut after = model.clone();
        after.apply(&change);
        history.models.push(after);
        commit(&mut session, &mut model, &change, durability)?;
        if durability == Durability::Disk {
            history.durable = history.models.len() - 1;
        }
    }
    drop(session);
    if rng.below(2) == 0 {
        store.close()?;
        history.durable = history.models.len() - 1;
    }
    Ok(())
}

/// What a killed process had written was only in the page cache: who finds it there must not build upon it as if it were
/// on the disk.
#[test]
fn a_cut_after_a_kill_loses_nothing_that_was_acknowledged_since() {
    let (first, scripts) = (setting("TIDELINE_FIRST", 0), setting("TIDELINE_SCRIPTS", 4));
    let seeds = setting("TIDELINE_SEEDS", 3);
    let mut cuts = 0u64;
    for script in first..first + scripts {
        let whole = SimDisk::new();
        run(&whole.process(), script, &mut History::default()).unwrap();
        for step in 0..whole.steps() {
            for seed in 0..seeds {
                let mut rng = Rng(script ^ step << 16 ^ seed << 40);
                let disk = SimDisk::new();
                disk.fail(step, FaultKind::Kill);
                let mut history = History::default();
                let process = disk.process();
                assert!(run(&process, script, &mut history).is_err(), "script {script} step {step}");
                process.kill();
                let after = disk.steps();
                if seed % 3 != 0 {
                    disk.cut_at(after + rng.below(60));
                }
                let gone_on = go_on(&disk.process(), rng.next(), &mut history);
                let what = format!(
                    "script {script}, killed at step {step} ({:?}), cut at step {}, seed {seed}",
                    disk.describe(step),
                    disk.steps()
                );
                assert!(gone_on.is_ok() || seed % 3 != 0, "{what}: {gone_on:?}");
                check(&disk.reboot(rng.next()), &history, &what);
                cuts += 1;
            }
        }
    }
    println!("tried: cuts_after_kills={cuts}");
    assert!(cuts > 500);
}

#[test]
fn shipped_entries_arrive_whole_or_not_at_all() {
    let (script, seeds) = (Rng(5 + setting("TIDELINE_FIRST", 0)).next(), setting("TIDELINE_SEEDS", 3));
    let source_disk = SimDisk::new();
    let source = open(&source_disk.process()).unwrap();
    let mut session = Session::new(Arc::clone(&source)).unwrap();
    let (mut model, mut rng) = (Model::default(), Rng(script));
    let mut blobs: Vec<Vec<u8>> = Vec::new();
    let mut models = vec![(Lsn::ZERO, Model::default())];
    for _ in 0..6 {
        let at = source.head();
        for _ in 0..3 {
            let change = model.change(&mut rng);
            commit(&mut session, &mut model, &change, Durability::Process).unwrap();
        }
        blobs.extend(source.batches(at, Some(1500)).unwrap().map(Result::unwrap));
        models.push((source.head(), model.clone()));
        for lsn in source.log().unwrap() {
            assert!(lsn.range.count() == 1);
        }
    }
    let play = |process: &Arc<SimProcess>, reached: &mut Lsn| -> Result<()> {
        let store = open(process)?;
        for blob in &blobs {
            *reached = store.receive(blob)?;
        }
        store.close()
    };
    let whole = SimDisk::new();
    let mut end = Lsn::ZERO;
    play(&whole.process(), &mut end).unwrap();
    assert_eq!(end, source.head());
    let mut cuts = 0;
    for step in 0..whole.steps() {
        let disk = SimDisk::new();
        disk.cut_at(step);
        let mut reached = Lsn::ZERO;
        assert!(play(&disk.process(), &mut reached).is_err());
        for seed in 0..seeds {
            let after = disk.reboot(seed);
            let store = open(&after.process()).unwrap();
            let (lsn, model) = read(&store).unwrap();
            assert!(lsn >= reached, "step {step} seed {seed}: {lsn} of {reached}");
            if let Some((_, expected)) = models.iter().find(|(at, _)| *at == lsn) {
                assert_eq!(&model, expected, "step {step} seed {seed}");
            }
            // Sending everything again brings it to the end.
            for blob in &blobs {
                store.receive(blob).unwrap_or_else(|e| panic!("step {step} seed {seed}: {e}"));
            }
            assert_eq!(read(&store).unwrap(), (source.head(), models.last().unwrap().1.clone()));
            cuts += 1;
        }
    }
    println!("tried: cuts_receiving={cuts}");
}
