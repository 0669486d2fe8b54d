//! The store on a simulated disk that keeps its power.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{Change, Model, PAGE, PATH, Rng, commit, open, read};
use tideline_journal::disk::{Disk, FaultKind, How, SimDisk};
use tideline_journal::{Code, Durability, Lsn, Retention, Session};

#[test]
fn commits_are_read_back_after_closing_and_opening() {
    let disk = SimDisk::new();
    let mut model = Model::default();
    let mut rng = Rng(7);
    for round in 0..8 {
        let store = open(&disk.process()).unwrap();
        assert_eq!(read(&store).unwrap().1, model, "round {round}");
        let mut session = Session::new(Arc::clone(&store)).unwrap();
        for _ in 0..20 {
            let change = model.change(&mut rng);
            commit(&mut session, &mut model, &change, Durability::Process).unwrap();
            assert_eq!(read(&store).unwrap().1, model);
        }
        drop(session);
        store.close().unwrap();
    }
    let store = open(&disk.process()).unwrap();
    assert_eq!(read(&store).unwrap(), (Lsn::new(160), model));
    assert!(store.verify().unwrap().is_empty(), "{:?}", store.verify().unwrap());
}

#[test]
fn what_a_killed_process_committed_is_there() {
    let disk = SimDisk::new();
    let mut model = Model::default();
    let mut rng = Rng(8);
    for round in 0..8 {
        let process = disk.process();
        let store = open(&process).unwrap();
        assert_eq!(read(&store).unwrap().1, model, "round {round}");
        let mut session = Session::new(Arc::clone(&store)).unwrap();
        for _ in 0..15 {
            let change = model.change(&mut rng);
            commit(&mut session, &mut model, &change, Durability::Process).unwrap();
        }
        let change = model.change(&mut rng);
        common::write(&mut session, &model, &change).unwrap();
        process.kill();
    }
    let store = open(&disk.process()).unwrap();
    assert_eq!(read(&store).unwrap().1, model);
}

#[test]
fn two_processes_see_each_other_and_keep_their_snapshots() {
    let disk = SimDisk::new();
    let (a, b) = (open(&disk.process()).unwrap(), open(&disk.process()).unwrap());
    let mut sessions = [Session::new(a).unwrap(), Session::new(b).unwrap()];
    let mut model = Model::default();
    let mut rng = Rng(9);
    let mut held: Vec<(Session, Model)> = Vec::new();
    for n in 0..200 {
        let change = model.change(&mut rng);
        commit(&mut sessions[n % 2], &mut model, &change, Durability::Process).unwrap();
        assert_eq!(read(sessions[(n + 1) % 2].store()).unwrap().1, model);
        if n % 10 == 3 {
            let mut reader = Session::new(Arc::clone(sessions[n % 2].store())).unwrap();
            reader.begin_read().unwrap();
            held.push((reader, model.clone()));
        }
        if n % 50 == 49 {
            sessions[n % 2].store().fold().unwrap();
        }
        for (reader, then) in &held {
            assert_eq!(&common::read_at(reader).unwrap(), then);
        }
        if held.len() > 5 {
            held.remove(rng.below(5) as usize);
        }
    }
}

#[test]
fn one_writer_at_a_time_and_none_on_an_old_snapshot() {
    let disk = SimDisk::new();
    let store = open(&disk.process()).unwrap();
    let mut one = Session::new(Arc::clone(&store)).unwrap();
    let mut two = Session::new(Arc::clone(&store)).unwrap();
    one.begin_read().unwrap();
    two.begin_read().unwrap();
    one.begin_write().unwrap();
    assert_eq!(two.begin_write().unwrap_err().code(), Code::Busy);
    one.rollback().unwrap();
    one.end_read().unwrap();
    let mut model = Model::default();
    let change = Change { fills: vec![(1, 3), (2, 5)], size: 2 };
    commit(&mut one, &mut model, &change, Durability::Disk).unwrap();
    assert_eq!(two.begin_write().unwrap_err().code(), Code::Stale);
    two.end_read().unwrap();
    two.begin_read().unwrap();
    two.begin_write().unwrap();
}

#[test]
fn shipped_entries_make_an_equal_replica() {
    let (disk, elsewhere) = (SimDisk::new(), SimDisk::new());
    let source = open(&disk.process()).unwrap();
    let replica = open(&elsewhere.process()).unwrap();
    let mut session = Session::new(Arc::clone(&source)).unwrap();
    let mut model = Model::default();
    let mut rng = Rng(11);
    let mut at = Lsn::ZERO;
    for n in 0..60 {
        for _ in 0..=rng.below(4) {
            let change = model.change(&mut rng);
            commit(&mut session, &mut model, &change, Durability::Process).unwrap();
        }
        if n % 3 == 0 {
            for piece in source.batches(at, Some(2000)).unwrap() {
                replica.receive(&piece.unwrap()).unwrap();
            }
            at = replica.head();
        } else {
            let blob = source.prepare(at, None).unwrap().unwrap();
            at = replica.receive(&blob).unwrap();
            assert_eq!(replica.receive(&blob).unwrap(), at, "twice is harmless");
        }
        assert_eq!(at, source.head());
        assert_eq!(read(&replica).unwrap().1, model);
        let sums = |store: &Arc<tideline_journal::Store>| store.log().unwrap().last().unwrap().checksum;
        assert!(sums(&source).is_some());
        assert_eq!(sums(&source), sums(&replica));
        assert_eq!(source.learn_checksum().unwrap(), replica.learn_checksum().unwrap());
    }
    assert!(source.prepare(at, None).unwrap().is_none());
    assert_eq!(source.prepare(Lsn::new(10_000), None).unwrap_err().code(), Code::Argument);
    let empty = open(&SimDisk::new().process()).unwrap();
    let change = model.change(&mut rng);
    commit(&mut session, &mut model, &change, Durability::Process).unwrap();
    let blob = source.prepare(at, None).unwrap().unwrap();
    assert_eq!(empty.receive(&blob).unwrap_err().code(), Code::Gap);
    let stranger = open(&SimDisk::new().process()).unwrap();
    let mut strange = Model::default();
    let first = Change { fills: vec![(1, 3)], size: 2 };
    commit(&mut Session::new(Arc::clone(&stranger)).unwrap(), &mut strange, &first, Durability::Process)
        .unwrap();
    assert_eq!(stranger.receive(&blob).unwrap_err().code(), Code::Foreign);
    let mut own = Session::new(Arc::clone(&replica)).unwrap();
    let mut other = read(&replica).unwrap().1;
    let change = other.change(&mut rng);
    commit(&mut own, &mut other, &change, Durability::Process).unwrap();
    assert_eq!(replica.receive(&blob).unwrap_err().code(), Code::Diverged);
    assert_eq!(read(&replica).unwrap().1, other);
}

#[test]
fn a_full_image_that_is_wrong_leaves_an_empty_store_as_it_was() {
    let source = open(&SimDisk::new().process()).unwrap();
    let mut session = Session::new(Arc::clone(&source)).unwrap();
    let (mut model, mut rng) = (Model::default(), Rng(14));
    for _ in 0..30 {
        let change = model.change(&mut rng);
        commit(&mut session, &mut model, &change, Durability::Process).unwrap();
    }
    let blob = source.prepare(Lsn::ZERO, None).unwrap().unwrap();
    // Its last page is another one, and its checksum that of all bytes.
    let mut wrong = blob.clone();
    let end = wrong.len() - 4;
    wrong[end - 1] ^= 1;
    let crc = crc32fast::hash(&wrong[192..end]);
    wrong[end..].copy_from_slice(&crc.to_le_bytes());

    let process = SimDisk::new().process();
    let replica = open(&process).unwrap();
    let segments = || {
        let names = process.list(Path::new(&format!("{PATH}-tide"))).unwrap();
        let mut names: Vec<String> = names.into_iter().filter(|name| name.ends_with(".seg")).collect();
        names.sort();
        names
    };
    let (lineage, before) = (replica.lineage(), segments());
    assert_eq!(replica.receive(&wrong).unwrap_err().code(), Code::Damaged);
    assert_eq!((replica.lineage(), segments(), replica.head()), (lineage, before, Lsn::ZERO));
    assert_eq!(replica.receive(&blob).unwrap(), Lsn::new(30));
    assert_eq!((replica.lineage(), read(&replica).unwrap().1), (source.lineage(), model));
}

#[test]
fn compaction_changes_no_content() {
    let disk = SimDisk::new();
    let store = open(&disk.process()).unwrap();
    let other = open(&disk.process()).unwrap();
    let mut session = Session::new(Arc::clone(&store)).unwrap();
    let mut model = Model::default();
    let mut rng = Rng(13);
    for round in 0..6 {
        for _ in 0..40 {
            let change = model.change(&mut rng);
            commit(&mut session, &mut model, &change, Durability::Process).unwrap();
        }
        let log = store.log().unwrap();
        let (first, last) = (log[log.len() / 3].range.first, log[log.len() / 2].range.last);
        let range = (round % 2 == 0).then_some(tideline_journal::LsnRange { first, last });
        let freed = store.compact(range).unwrap();
        assert!(freed > 0, "round {round}");
        if let Some(range) = range {
            assert!(store.log().unwrap().iter().any(|row| row.range == range && row.kind == "merged"));
        }
        for store in [&store, &other] {
            assert_eq!(read(store).unwrap().1, model, "round {round}");
            assert!(store.verify().unwrap().is_empty());
        }
        let change = model.change(&mut rng);
        commit(&mut Session::new(Arc::clone(&other)).unwrap(), &mut model, &change, Durability::Process)
            .unwrap();
        assert_eq!(read(&store).unwrap().1, model, "round {round}");
    }
    drop(session);
    store.close().unwrap();
    other.close().unwrap();
    let store = open(&disk.process()).unwrap();
    assert_eq!(read(&store).unwrap().1, model);
    assert_eq!(store.head(), Lsn::new(246));
    assert!(store.verify().unwrap().is_empty());
}

#[test]
fn a_process_that_has_read_nothing_of_what_another_one_folded_drops_history() {
    let disk = SimDisk::new();
    let store = open(&disk.process()).unwrap();
    let other = open(&disk.process()).unwrap();
    let mut session = Session::new(Arc::clone(&store)).unwrap();
    let (mut model, mut rng) = (Model::default(), Rng(30));
    for count in [40, 10] {
        for _ in 0..count {
            let change = model.change(&mut rng);
            commit(&mut session, &mut model, &change, Durability::Process).unwrap();
        }
        store.fold().unwrap();
        // The first time it reads all there is, some segments.
        assert!(count < 40 || other.log().unwrap().len() == 40);
    }
    other.set_retention(Retention::None).unwrap();
    for store in [&store, &other, &open(&disk.process()).unwrap()] {
        assert_eq!(read(store).unwrap(), (Lsn::new(50), model.clone()));
        assert!(store.verify().unwrap().is_empty());
    }
}

#[test]
fn the_horizon_of_one_process_minds_what_another_one_compacted() {
    let disk = SimDisk::new();
    let store = open(&disk.process()).unwrap();
    let other = open(&disk.process()).unwrap();
    let mut session = Session::new(Arc::clone(&store)).unwrap();
    let mut model = Model::default();
    let mut rng = Rng(29);
    for _ in 0..60 {
        let change = model.change(&mut rng);
        commit(&mut session, &mut model, &change, Durability::Process).unwrap();
    }
    assert_eq!(store.log().unwrap().len(), 60);
    // Its segments go; the first process knows them still.
    assert!(other.compact(None).unwrap() > 0);
    store.set_retention(Retention::Lsns(30)).unwrap();
    let third = open(&disk.process()).unwrap();
    for store in [&third, &store, &other] {
        assert_eq!(read(store).unwrap().1, model);
        assert_eq!(store.log().unwrap().iter().map(|row| row.range.last).max(), Some(Lsn::new(60)));
        assert!(store.verify().unwrap().is_empty());
    }
    // And so may the second one, when the first has compacted again.
    for _ in 0..40 {
        let change = model.change(&mut rng);
        commit(&mut session, &mut model, &change, Durability::Process).unwrap();
    }
    assert!(store.compact(None).unwrap() > 0);
    assert_eq!(other.compact(None).unwrap(), 0);
    assert_eq!(read(&open(&disk.process()).unwrap()).unwrap().1, model);
}

#[test]
fn checksums_of_the_past_are_those_that_were() {
    use std::collections::HashMap;
    for seed in 0..12 {
        let disk = SimDisk::new();
        let mut rng = Rng(100 + seed);
        let mut model = Model::default();
        let mut sums: HashMap<Lsn, u64> = HashMap::new();
        for _ in 0..8 {
            let store = open(&disk.process()).unwrap();
            store.set_retention(tideline_journal::Retention::Lsns(4 + rng.below(20))).unwrap();
            let mut session = Session::new(Arc::clone(&store)).unwrap();
            for _ in 0..rng.below(25) {
                let change = model.change(&mut rng);
                let lsn = commit(&mut session, &mut model, &change, Durability::Process).unwrap();
                sums.insert(lsn, store.learn_checksum().unwrap());
                if rng.below(9) == 0 {
                    store.fold().unwrap();
                }
            }
            for row in store.log().unwrap() {
                if let Some(sum) = row.checksum {
                    assert_eq!(Some(&sum), sums.get(&row.range.last), "seed {seed}, LSN {}", row.range.last);
                }
            }
            assert!(store.verify().unwrap().is_empty());
            drop(session);
            store.close().unwrap();
        }
    }
}

#[test]
fn snapshots_stay_while_segments_are_written_again() {
    let mut again = 0;
    for seed in 0..20 {
        let disk = SimDisk::new();
        let mut rng = Rng(4000 + seed);
        let mut model = Model::default();
        let stores = [open(&disk.process()).unwrap(), open(&disk.process()).unwrap()];
        stores[0].set_retention(tideline_journal::Retention::None).unwrap();
        let mut writers = stores.each_ref().map(|store| Session::new(Arc::clone(store)).unwrap());
        let mut readers: Vec<(Session, Option<Model>)> =
            (0..5).map(|n: usize| (Session::new(Arc::clone(&stores[n % 2])).unwrap(), None)).collect();
        for _ in 0..200 {
            let change = model.change(&mut rng);
            let writer = &mut writers[rng.below(2) as usize];
            commit(writer, &mut model, &change, Durability::Process).unwrap();
            let reader = rng.below(5) as usize;
            let (session, pinned) = &mut readers[reader];
            match pinned.take() {
                // Some stay for long, others come and go.
                Some(kept) if reader < 2 && rng.below(6) > 0 => *pinned = Some(kept),
                Some(kept) => {
                    assert_eq!(common::read_at(session).unwrap(), kept, "seed {seed}");
                    session.end_read().unwrap();
                }
                None => {
                    session.begin_read().unwrap();
                    *pinned = Some(model.clone());
                }
            }
            for (session, pinned) in &readers {
                if let Some(kept) = pinned {
                    assert_eq!(&common::read_at(session).unwrap(), kept, "seed {seed}");
                }
            }
        }
        let renamed = |step: u64| {
            disk.describe(step).is_some_and(|step| step.starts_with("rename ") && step.ends_with(".seg"))
        };
        again += (0..disk.steps()).filter(|&step| renamed(step)).count();
        assert!(stores[0].verify().unwrap().is_empty());
    }
    assert!(again > 20, "segments were written again {again} times");
}

#[test]
fn what_is_shipped_during_folds_is_what_the_receiver_takes_it_for() {
    // While a fold is under way the horizon is ahead of the base, on either side.
    let (disk, elsewhere) = (SimDisk::new(), SimDisk::new());
    let (source, replica) = (open(&disk.process()).unwrap(), open(&elsewhere.process()).unwrap());
    for store in [&source, &replica] {
        store.set_retention(Retention::Lsns(4)).unwrap();
    }
    let (mut model, mut rng) = (Model::default(), Rng(33));
    let mut session = Session::new(Arc::clone(&source)).unwrap();
    let mut differences = 0;
    for round in 0..400 {
        let change = model.change(&mut rng);
        commit(&mut session, &mut model, &change, Durability::Process).unwrap();
        if rng.below(3) > 0 {
            continue;
        }
        let after = replica.head();
        let blob = match source.prepare(after, None) {
            Ok(blob) => blob.expect("there are new commits"),
            Err(e) if e.code() == Code::Trimmed => source.prepare(Lsn::ZERO, None).unwrap().unwrap(),
            Err(e) => panic!("{e}"),
        };
        differences += u32::from(after > Lsn::ZERO && blob.len() < PAGE);
        assert_eq!(replica.receive(&blob).unwrap(), source.head(), "round {round}");
        assert_eq!(read(&replica).unwrap().1, model, "round {round}");
    }
    assert!(differences > 20, "{differences} small blobs");
}

#[test]
fn a_size_that_cannot_be_is_not_believed() {
    let disk = SimDisk::new();
    let store = open(&disk.process()).unwrap();
    let (mut model, mut session) = (Model::default(), Session::new(Arc::clone(&store)).unwrap());
    let change = Change { fills: vec![(1, 1), (2, 2), (3, 3)], size: 3 };
    commit(&mut session, &mut model, &change, Durability::Process).unwrap();
    // As `UPDATE sqlite_dbpage` can write it: the counters agree, as the pager sets them.
    for size in [u32::MAX, 1 << 31, 4] {
        session.begin_read().unwrap();
        session.begin_write().unwrap();
        let counter = session.state().unwrap().counters.counter + 1;
        session.write(0, &common::image(1, 9, size, counter)).unwrap();
        session.prepare(None).unwrap();
        session.publish(Durability::Process, false).unwrap();
        assert_eq!(session.state().unwrap().size, 3);
        session.end_read().unwrap();
    }
}

#[test]
fn a_base_that_was_replaced_under_another_process_is_not_joined() {
    let disk = SimDisk::new();
    let (first, second) = (disk.process(), disk.process());
    let store = open(&first).unwrap();
    let mut model = Model::default();
    let mut session = Session::new(Arc::clone(&store)).unwrap();
    for written in [false, true] {
        if written {
            let change = Change { fills: vec![(1, 1), (2, 2)], size: 2 };
            commit(&mut session, &mut model, &change, Durability::Process).unwrap();
        }
        drop(open(&second).unwrap());
        second.rename(Path::new(PATH), Path::new("/moved.db")).unwrap();
        let other = second.open(Path::new(PATH), How::Create).unwrap();
        other.write_at(&common::image(1, 5, 1, 3), 0).unwrap();
        assert_eq!(open(&second).err().map(|e| e.code()), Some(Code::Foreign));
        second.rename(Path::new("/moved.db"), Path::new(PATH)).unwrap();
        assert_eq!(read(&open(&second).unwrap()).unwrap().1, model);
    }
}

#[test]
fn who_has_no_words_in_common_with_those_who_have_the_base_open_is_refused() {
    let disk = SimDisk::new();
    let (first, second) = (disk.process(), disk.process());
    let control = Path::new("/app.db-tide/control");
    let mut model = Model::default();
    for written in [false, true] {
        let store = open(&first).unwrap();
        let mut session = Session::new(Arc::clone(&store)).unwrap();
        if written {
            let change = Change { fills: vec![(1, 1), (2, 2)], size: 2 };
            commit(&mut session, &mut model, &change, Durability::Process).unwrap();
        }
        second.remove(control).unwrap();
        assert_eq!(open(&second).err().map(|e| e.code()), Some(Code::Foreign));
        // The one who was refused has made another one.
        assert_eq!(store.in_place().err().map(|e| e.code()), Some(Code::Missing));
        assert_eq!(store.fold().err().map(|e| e.code()), Some(Code::Missing));
        assert_eq!(read(&store).unwrap().1, model);
        drop(session);
        // It leaves everything to whoever opens next.
        assert_eq!(store.close().err().map(|e| e.code()), Some(Code::Missing));
        drop(store);
        assert_eq!(read(&open(&second).unwrap()).unwrap().1, model);
    }
}

#[test]
fn a_transaction_that_goes_on_after_it_was_prepared_keeps_its_images() {
    // In EXCLUSIVE mode a pager syncs when it rolls back, and writes its next transaction behind that. The first one
    // ends where the memory that collects it is nearly full; its page table is behind the last image then.
    for pages in 490..520 {
        let disk = SimDisk::new();
        let store = open(&disk.process()).unwrap();
        let mut session = Session::new(Arc::clone(&store)).unwrap();
        let mut model = Model::default();
        let fills = |from: u32, to: u32| (from..=to).map(|page| (page, u64::from(page) << 8 | 1)).collect();
        common::write(&mut session, &model, &Change { fills: fills(1, pages), size: pages }).unwrap();
        let change = Change { fills: fills(1, pages + 60), size: pages + 60 };
        for page in pages + 1..=change.size {
            let bytes = common::image(page, u64::from(page) << 8 | 1, change.size, 1);
            session.write(u64::from(page - 1) * PAGE as u64, &bytes).unwrap();
        }
        session.write(0, &common::image(1, 257, change.size, 1)).unwrap();
        session.prepare(None).unwrap();
        session.publish(Durability::Process, false).unwrap();
        session.end_read().unwrap();
        model.apply(&change);
        assert_eq!(read(&store).unwrap().1, model, "{pages} pages");
        assert!(store.verify().unwrap().is_empty(), "{pages} pages");
    }
}

#[test]
fn a_counter_that_was_served_at_rest_is_not_served_again_with_another_state() {
    // LESSONS.md 14. Marking moves the counter, so at rest it is beyond that of the last commit; who writes first has
    // history read then, in which the last commit has its own.
    let disk = SimDisk::new();
    let mut model = Model::default();
    let mut rng = Rng(11);
    let store = open(&disk.process()).unwrap();
    for _ in 0..3 {
        let change = model.change(&mut rng);
        let mut session = Session::new(Arc::clone(&store)).unwrap();
        commit(&mut session, &mut model, &change, Durability::Process).unwrap();
    }
    store.close().unwrap();
    for round in 0..5 {
        let store = open(&disk.process()).unwrap();
        let mut first = Session::new(Arc::clone(&store)).unwrap();
        first.begin_read().unwrap();
        let served = first.state().unwrap().counters.counter;
        first.begin_write().unwrap();
        first.rollback().unwrap();
        first.end_read().unwrap();
        let mut other = Session::new(Arc::clone(&store)).unwrap();
        other.begin_read().unwrap();
        let again = other.state().unwrap().counters.counter;
        other.end_read().unwrap();
        assert_eq!(again, served, "round {round}");
        if round == 4 {
            let change = model.change(&mut rng);
            commit(&mut other, &mut model, &change, Durability::Process).unwrap();
            first.begin_read().unwrap();
            assert!(first.state().unwrap().counters.counter > served);
            first.end_read().unwrap();
        }
        drop((first, other));
        store.close().unwrap();
    }
}

#[test]
fn a_process_that_others_have_overtaken_finds_its_files_in_place() {
    // What it takes for the journal's end has been written again as another segment since.
    let disk = SimDisk::new();
    let (idle, busy) = (open(&disk.process()).unwrap(), open(&disk.process()).unwrap());
    busy.set_retention(Retention::None).unwrap();
    let mut model = Model::default();
    let mut rng = Rng(2);
    let mut session = Session::new(Arc::clone(&busy)).unwrap();
    for round in 0..8 {
        for _ in 0..20 {
            let change = model.change(&mut rng);
            commit(&mut session, &mut model, &change, Durability::Process).unwrap();
        }
        idle.wholly_in_place().unwrap_or_else(|e| panic!("round {round}: {e}"));
    }
    assert_eq!(read(&idle).unwrap().1, model);
}

#[test]
fn history_is_not_dropped_under_a_fold_that_failed() {
    // The base then has images that are newer than it says.
    let prepared = || {
        let disk = SimDisk::new();
        let store = open(&disk.process()).unwrap();
        let mut model = Model::default();
        let mut session = Session::new(Arc::clone(&store)).unwrap();
        let mut put = |fills: Vec<(u32, u64)>| {
            let change = Change { fills, size: 30 };
            commit(&mut session, &mut model, &change, Durability::Disk).unwrap();
        };
        for fill in 1..=20 {
            put((1..=30).map(|page| (page, fill)).collect());
        }
        store.fold().unwrap();
        put(vec![(3, 100), (25, 100)]);
        put(vec![(3, 200), (25, 200)]);
        (disk, store)
    };
    let (whole, store) = prepared();
    let begun = whole.steps();
    store.fold().unwrap();
    let steps = whole.steps() - begun;
    let mut failed = 0;
    for n in 0..steps {
        let (disk, store) = prepared();
        disk.fail(disk.steps() + n, FaultKind::Io);
        failed += u64::from(store.fold().is_err());
        let mut store = store;
        if store.set_retention(Retention::Lsns(1)).is_err() || store.fold().is_err() {
            // An fsync failed: it is finished by whoever opens it next.
            drop(store.close());
            store = open(&disk.process()).unwrap();
            store.set_retention(Retention::Lsns(1)).unwrap();
            store.fold().unwrap();
        }
        let findings = store.verify().unwrap();
        assert!(findings.is_empty(), "step {n} ({:?}): {findings:?}", disk.describe(begun + n));
    }
    assert!(failed > 5, "{failed} of {steps}");
}
