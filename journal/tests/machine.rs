//! Two processes work on two databases, and something happens at every step of the disk in turn: the power goes, a
//! process is killed, a call fails. What is found afterwards is what was promised.
//!
//! The settings are those of `power.rs`: `TIDELINE_FIRST`, `TIDELINE_SCRIPTS`, `TIDELINE_SEEDS`.

mod common;

use std::sync::Arc;

use common::machine::{Books, Machine, PATHS};
use common::{Model, Rng, go_on_with, open_at, read, setting};
use tideline_journal::disk::{FaultKind, SimDisk};
use tideline_journal::{Code, Lsn, Result};

/// Things that a script does.
const WORK: u64 = 36;

/// What goes wrong where a call fails.
const FAULTS: [FaultKind; 4] = [FaultKind::Io, FaultKind::NoSpace, FaultKind::Sync, FaultKind::SyncForgets];

fn scripts() -> std::ops::Range<u64> {
    let first = setting("TIDELINE_FIRST", 0);
    first..first + setting("TIDELINE_SCRIPTS", 4)
}

/// Says where it was when something panics.
struct Here(String);

impl Drop for Here {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in {}", self.0);
        }
    }
}

/// Plays a script, which an error ends.
fn play(disk: &Arc<SimDisk>, script: u64) -> (Books, Result<()>) {
    let mut machine = Machine::new(disk, script);
    let ended = machine.play(WORK, |_, e| Err(e));
    (machine.books, ended)
}

/// Whole, as it is without anything that happens: how many steps it has, and which of them aren't ours.
fn undisturbed(script: u64) -> (u64, Books) {
    let disk = SimDisk::new();
    let (books, ended) = play(&disk, script);
    ended.unwrap_or_else(|e| panic!("script {script}: {e}"));
    (disk.steps(), books)
}

/// Opens both databases, compares, and goes on with them. `certain` is what each must have at least.
fn check(disk: &Arc<SimDisk>, books: &Books, certain: [usize; 2], what: &str) {
    let process = disk.process();
    let open = |path: &str| open_at(&process, path).unwrap_or_else(|e| panic!("{what}: {path}: {e}"));
    let stores = PATHS.map(open);
    let mut found = [(0, Model::default()), (0, Model::default())];
    for which in 0..2 {
        let (lsn, model) = read(&stores[which]).unwrap_or_else(|e| panic!("{what}: {e}"));
        let (lsn, models) = (lsn.get() as usize, &books.books[which].models);
        assert!(
            lsn >= certain[which] && lsn < models.len(),
            "{what}: {}: LSN {lsn}, where {} is certain and {} was tried",
            PATHS[which],
            certain[which],
            models.len() - 1
        );
        assert_eq!(model, models[lsn], "{what}: {}: LSN {lsn}", PATHS[which]);
        found[which] = (lsn, model);
    }
    books.pairs_are_whole([found[0].0, found[1].0]);
    for (store, (lsn, model)) in stores.into_iter().zip(found) {
        go_on_with(&process, store, Lsn::new(lsn as u64), model, what);
    }
}

#[test]
fn a_power_cut_anywhere_leaves_what_was_durable() {
    let (mut cuts, mut scripts_done) = (0u64, 0u64);
    let seeds = setting("TIDELINE_SEEDS", 2);
    for script in scripts() {
        let (steps, whole) = undisturbed(script);
        scripts_done += 1;
        for step in (0..steps).filter(|step| !whole.foreign.iter().any(|range| range.contains(step))) {
            let disk = SimDisk::new();
            disk.cut_at(step);
            let (books, _) = play(&disk, script);
            let certain = [0, 1].map(|which: usize| books.books[which].durable);
            for seed in 0..seeds {
                let what =
                    format!("script {script}, cut at step {step} ({:?}), seed {seed}", disk.describe(step));
                let mut after = disk.reboot(seed);
                if seed % 2 == 1 {
                    // The power goes again while both are recovered.
                    let process = after.process();
                    after.cut_at((script + step) % 23);
                    for path in PATHS {
                        if let Ok(store) = open_at(&process, path) {
                            drop(store.close());
                        }
                    }
                    after = after.reboot(step);
                }
                check(&after, &books, certain, &what);
                cuts += 1;
            }
        }
    }
    println!("tried: machine_scripts={scripts_done} machine_cuts={cuts}");
    assert!(cuts > 500);
}

#[test]
fn a_kill_anywhere_leaves_what_was_committed() {
    let mut kills = 0u64;
    for script in scripts() {
        let (steps, whole) = undisturbed(script);
        for step in (0..steps).filter(|step| !whole.foreign.iter().any(|range| range.contains(step))) {
            let disk = SimDisk::new();
            disk.fail(step, FaultKind::Kill);
            let what = format!("script {script}, killed at step {step}");
            let _here = Here(what.clone());
            let mut machine = Machine::new(&disk, script);
            // The other process goes on.
            let ended = machine.play(WORK, |machine, _| machine.recover());
            ended.unwrap_or_else(|e| panic!("{what} ({:?}): {e}", disk.describe(step)));
            let certain = [0, 1].map(|which: usize| machine.books.books[which].committed);
            check(&disk, &machine.books, certain, &format!("{what} ({:?})", disk.describe(step)));
            kills += 1;
        }
    }
    println!("tried: machine_kills={kills}");
    assert!(kills > 500);
}

/// What a process has written that was killed, or couldn't sync it, may be in the page cache alone: who finds it there must
/// not build upon it as if it were on the disk.
#[test]
fn a_power_cut_after_a_kill_or_an_error_leaves_what_was_durable() {
    const FIRST: [FaultKind; 5] =
        [FaultKind::Kill, FaultKind::Sync, FaultKind::Kill, FaultKind::SyncForgets, FaultKind::Io];
    let mut cuts = 0u64;
    let seeds = setting("TIDELINE_SEEDS", 2);
    for script in scripts() {
        let (steps, whole) = undisturbed(script);
        for step in (0..steps).filter(|step| !whole.foreign.iter().any(|range| range.contains(step))) {
            for seed in 0..seeds {
                let mut rng = Rng(script ^ step << 16 ^ seed << 40);
                let disk = SimDisk::new();
                let kind = FIRST[((step + seed) % FIRST.len() as u64) as usize];
                disk.fail(step, kind);
                let cut = step + 1 + rng.below(if seed % 2 == 0 { 40 } else { 200 });
                disk.cut_at(cut);
                let what =
                    format!("script {script}, {kind:?} at step {step}, cut at step {cut}, seed {seed}");
                let _here = Here(what.clone());
                let mut machine = Machine::new(&disk, script);
                let ended = machine.play(WORK, |machine, _| {
                    if kind == FaultKind::SyncForgets {
                        machine.forgets();
                    }
                    machine.recover()
                });
                ended.unwrap_or_else(|e| panic!("{what} ({:?}): {e}", disk.describe(step)));
                // A folder that couldn't be synced can't be written again, as a file can.
                let folder = kind != FaultKind::Kill
                    && disk.describe(step).is_some_and(|what| what.starts_with("sync_dir"));
                if folder || machine.books.foreign.iter().any(|range| range.contains(&cut)) {
                    continue;
                }
                let certain = [0, 1].map(|which: usize| machine.books.books[which].durable);
                let what = format!("{what} ({:?}, {:?})", disk.describe(step), disk.describe(cut));
                check(&disk.reboot(rng.next()), &machine.books, certain, &what);
                cuts += 1;
            }
        }
    }
    println!("tried: machine_cuts_after_kills={cuts}");
    assert!(cuts > 500);
}

#[test]
fn a_call_that_fails_loses_nothing_and_work_goes_on() {
    let mut faults = 0u64;
    for script in scripts() {
        let (steps, whole) = undisturbed(script);
        for step in (0..steps).filter(|step| !whole.foreign.iter().any(|range| range.contains(step))) {
            let kind = FAULTS[((script + step) % FAULTS.len() as u64) as usize];
            let _here = Here(format!("script {script}, {kind:?} at step {step}"));
            let disk = SimDisk::new();
            disk.fail(step, kind);
            let mut machine = Machine::new(&disk, script);
            // What was forgotten is noticed where it is read.
            let told = |e: &tideline_journal::Error| {
                e.code() == Code::Damaged && kind == FaultKind::SyncForgets
                    || matches!(e.code(), Code::Io | Code::Full | Code::Poisoned | Code::Busy)
            };
            let ended = machine.play(WORK, |machine, e| {
                let what =
                    format!("script {script}, {kind:?} at step {step} ({:?}): {e}", disk.describe(step));
                assert!(told(&e), "{what}");
                if kind == FaultKind::SyncForgets {
                    machine.forgets();
                }
                machine.recover()
            });
            let what = format!("script {script}, {kind:?} at step {step} ({:?})", disk.describe(step));
            ended.unwrap_or_else(|e| panic!("{what}: {e}"));
            let certain = [0, 1].map(|which: usize| machine.books.books[which].committed);
            check(&disk, &machine.books, certain, &what);
            faults += 1;
        }
    }
    println!("tried: machine_faults={faults}");
    assert!(faults > 500);
}
