//! Lazy clones: the base's pages lie elsewhere, and come when they are read.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::elsewhere::{DESCRIPTION, Origin, assert_marked, assert_plain, disk, sound};
use common::files::{SIDE, load};
use common::{Change, Model, PAGE, PATH, Rng, commit, image, open, read, setting};
use tideline_journal::disk::{Disk, SimDisk};
use tideline_journal::{Code, Durability, Lsn, Options, PageSource, Retention, Session, Store, Unsent};

#[test]
fn a_clone_reads_as_what_it_was_cloned_from() {
    let origin = Origin::new(23);
    let machine = SimDisk::new();
    let process = machine.process();
    let store = origin.clone_at(&process).unwrap();
    assert_eq!(store.absent().unwrap(), Some((23, 23)));
    assert_eq!((store.head(), store.lineage()), (origin.state.lsn, origin.lineage));
    sound(&store, "begun");
    assert_eq!(origin.at.requests(), 0, "nothing was asked for");
    assert_eq!(load(&process, PATH).len(), 512);
    assert_marked(&process);

    assert_eq!(read(&store).unwrap(), (origin.state.lsn, origin.model.clone()));
    assert_eq!(origin.at.requests(), 23, "page 1 is looked at twice, and fetched once");
    let log = store.log().unwrap();
    assert_eq!((log.len(), log[0].checksum, log[0].origin), (1, Some(origin.checksum), "received"));
    store.export(Path::new("/copy.db")).unwrap();
    assert_eq!(load(&process, "/copy.db").len(), 23 * PAGE);
    assert_eq!(store.absent().unwrap(), Some((23, 23)), "reading brings nothing into the base");
    sound(&store, "read");

    // All pages, for somebody else.
    let whole = store.prepare(Lsn::ZERO, None).unwrap().unwrap();
    let other = open(&SimDisk::new().process()).unwrap();
    other.receive(&whole).unwrap();
    assert_eq!(read(&other).unwrap(), (origin.state.lsn, origin.model.clone()));
    assert_eq!(other.learn_checksum().unwrap(), origin.checksum);

    store.close().unwrap();
    assert_marked(&process);
    let taken = origin.clone_at(&process).err().expect("something is there");
    assert_eq!(taken.code(), Code::Argument);
    let before = origin.at.requests();
    let store = origin.open(&process).unwrap();
    assert_eq!(origin.at.requests(), before);
    assert_eq!(read(&store).unwrap().1, origin.model);
}

#[test]
fn a_source_that_is_away_is_an_error_and_never_zeros() {
    let origin = Origin::new(9);
    let process = SimDisk::new().process();
    let store = origin.clone_at(&process).unwrap();
    origin.at.go(true);
    assert_eq!(read(&store).unwrap_err().code(), Code::Offline);
    let mut session = Session::new(Arc::clone(&store)).unwrap();
    session.begin_read().unwrap();
    let mut page = [7; PAGE];
    assert_eq!(session.read(4 * PAGE as u64, &mut page).unwrap_err().code(), Code::Offline);
    assert_eq!(session.slice(4 * PAGE as u64, PAGE).unwrap(), None, "nothing is handed out by mapping");
    assert_eq!(store.hydrate(|_, _| true).unwrap_err().code(), Code::Offline);
    assert_eq!(store.export(Path::new("/copy.db")).unwrap_err().code(), Code::Offline);
    assert!(!process.exists(Path::new("/copy.db")).unwrap());
    sound(&store, "away");
    origin.at.go(false);
    assert_eq!(session.read(4 * PAGE as u64, &mut page).unwrap(), PAGE);
    assert_eq!(page[..], origin.at.pages[&5]);
    session.end_read().unwrap();
    assert_eq!(read(&store).unwrap().1, origin.model);
    drop(session);
    store.close().unwrap();

    // Without anybody to ask, the same.
    let store = open(&process).unwrap();
    let refused = read(&store).unwrap_err();
    assert_eq!(refused.code(), Code::Denied);
    assert!(refused.text().contains("; "), "{refused}");
}

#[test]
fn commits_and_folds_go_on_top_and_ask_for_nothing() {
    let origin = Origin::new(12);
    let machine = SimDisk::new();
    let process = machine.process();
    let mut store = origin.clone_at(&process).unwrap();
    let mut session = Session::new(Arc::clone(&store)).unwrap();
    let (mut model, mut rng) = (origin.model.clone(), Rng(3));
    // Page 1 is looked at by whoever writes.
    read(&store).unwrap();
    origin.at.go(true);
    let mut folded = 0;
    for round in 0..60 {
        // Whoever writes a page whole needs no earlier image of it, but page 1 is looked at.
        let mut change = model.change(&mut rng);
        change.fills.push((1, rng.next() | 1));
        commit(&mut session, &mut model, &change, Durability::Process).unwrap();
        if round % 7 == 3 {
            folded += 1;
            assert_eq!(store.fold().unwrap(), store.head());
            assert_eq!(store.status().unwrap().horizon, store.head(), "what is below was given up");
        }
        if round % 11 == 10 {
            drop(session);
            store.close().unwrap();
            assert_marked(&process);
            store = origin.open(&process).unwrap();
            session = Session::new(Arc::clone(&store)).unwrap();
        }
    }
    assert!(folded > 5);
    assert!(!process.list(Path::new(SIDE)).unwrap().iter().any(|name| name.ends_with(".kept")));
    let (absent, of) = store.absent().unwrap().unwrap();
    assert!(absent < of && of > 0, "{absent} of {of}");
    origin.at.go(false);
    assert_eq!(read(&store).unwrap().1, model);
    sound(&store, "folded");
    store.set_retention(Retention::None).unwrap();
    for _ in 0..20 {
        let change = model.change(&mut rng);
        commit(&mut session, &mut model, &change, Durability::Process).unwrap();
    }
    assert_eq!(read(&store).unwrap().1, model);
    sound(&store, "with no history");
    let refused = store.detach().unwrap_err();
    assert_eq!(refused.code(), Code::Denied, "{refused}");
}

#[test]
fn what_is_committed_here_is_shipped_while_the_source_is_away() {
    let origin = Origin::new(9);
    let store = origin.clone_at(&SimDisk::new().process()).unwrap();
    let mut session = Session::new(Arc::clone(&store)).unwrap();
    let mut model = origin.model.clone();
    commit(&mut session, &mut model, &Change { fills: vec![(4, 1)], size: 9 }, Durability::Process).unwrap();
    let before = origin.at.requests();
    origin.at.go(true);
    let blob = store.prepare(origin.state.lsn, None).unwrap().unwrap();
    let batches: Vec<Vec<u8>> =
        store.batches(origin.state.lsn, Some(9)).unwrap().map(Result::unwrap).collect();
    assert_eq!((origin.at.requests(), batches.len()), (before, 1));
    assert_eq!(origin.store.receive(&blob).unwrap(), store.head());
    assert_eq!(read(&origin.store).unwrap().1, model);
}

#[test]
fn a_page_that_was_cut_off_and_came_back_is_not_the_old_one() {
    for folds in 0..8 {
        let origin = Origin::new(9);
        let process = SimDisk::new().process();
        let store = origin.clone_at(&process).unwrap();
        let mut session = Session::new(Arc::clone(&store)).unwrap();
        let mut model = origin.model.clone();
        let changes = [
            Change { fills: vec![(1, 3), (2, 4)], size: 4 },
            // Pages that come into being without being written are zeros.
            Change { fills: vec![(1, 5), (8, 6)], size: 9 },
            Change { fills: vec![(1, 7)], size: 11 },
        ];
        for (n, change) in changes.iter().enumerate() {
            commit(&mut session, &mut model, change, Durability::Process).unwrap();
            if folds & (1 << n) != 0 {
                store.fold().unwrap();
            }
            assert_eq!(read(&store).unwrap().1, model, "folds {folds:b}, change {n}");
        }
        drop(session);
        store.close().unwrap();
        let store = origin.open(&process).unwrap();
        assert_eq!(read(&store).unwrap().1, model, "folds {folds:b}");
        store.hydrate(|_, _| true).unwrap();
        assert_eq!(read(&store).unwrap().1, model, "folds {folds:b}");
        store.close().unwrap();
        assert_plain(&process, &model, &format!("folds {folds:b}"));
    }
}

/// Pages of another size are all others.
#[test]
fn a_page_size_that_changes_leaves_nothing_to_fetch() {
    let origin = Origin::new(9);
    let machine = SimDisk::new();
    let process = machine.process();
    let store = origin.clone_at(&process).unwrap();
    let mut session = Session::new(Arc::clone(&store)).unwrap();
    let mut held = Session::new(Arc::clone(&store)).unwrap();
    held.begin_read().unwrap();
    session.begin_read().unwrap();
    session.begin_write().unwrap();
    let mut pages: Vec<Vec<u8>> = (1..=3u8).map(|fill| vec![fill; 2 * PAGE]).collect();
    pages[0][..PAGE].copy_from_slice(&image(1, 5, 3, 90));
    pages[0][16..18].copy_from_slice(&(2 * PAGE as u16).to_be_bytes());
    for (n, page) in pages.iter().enumerate() {
        session.write((n * 2 * PAGE) as u64, page).unwrap();
    }
    session.truncate(6 * PAGE as u64).unwrap();
    session.prepare(None).unwrap();
    session.publish(Durability::Process, false).unwrap();
    session.end_read().unwrap();
    // Whoever has the one before sees it, with pages that come from elsewhere.
    assert_eq!(store.fold().unwrap(), origin.state.lsn);
    assert_eq!(common::read_at(&held).unwrap(), origin.model);
    held.end_read().unwrap();
    origin.at.go(true);
    let same = |store: &Arc<Store>| {
        let mut session = Session::new(Arc::clone(store)).unwrap();
        session.begin_read().unwrap();
        let mut found = vec![0; 4 * PAGE];
        session.read(2 * PAGE as u64, &mut found).unwrap();
        assert_eq!((session.len(), found), (6 * PAGE as u64, pages[1..].concat()));
    };
    same(&store);
    assert_eq!(store.fold().unwrap(), store.head());
    same(&store);
    assert_eq!(store.absent().unwrap(), Some((0, 3)));
    drop((session, held));
    store.close().unwrap();
    let store = origin.open(&process).unwrap();
    same(&store);
    assert_eq!(store.hydrate(|_, _| true).unwrap(), 0);
    sound(&store, "folded");
    store.close().unwrap();
    assert_eq!(load(&process, PATH).len(), 6 * PAGE);
    same(&open(&process).unwrap());
}

#[test]
fn what_is_received_is_made_of_pages_that_are_fetched_before() {
    let mut origin = Origin::new(30);
    let process = SimDisk::new().process();
    let store = origin.clone_at(&process).unwrap();
    let mut rng = Rng(9);
    let (mut wanted_in_all, mut at) = (0, origin.state.lsn);
    for round in 0..12 {
        for _ in 0..2 {
            // A little of a page changes, so that it is shipped as a difference.
            let mut change = origin.model.change(&mut rng);
            change
                .fills
                .extend([(5 + round, 9), (6 + round, 10)].map(|(page, fill)| (page.min(change.size), fill)));
            origin.commit(&change);
        }
        let blobs: Vec<Vec<u8>> = origin.store.batches(at, Some(600)).unwrap().map(Result::unwrap).collect();
        for blob in &blobs {
            let wanted = store.pages_wanted(blob).unwrap();
            wanted_in_all += wanted.len();
            if !wanted.is_empty() && round % 3 == 0 {
                origin.at.go(true);
                let before = store.head();
                assert_eq!(origin.at.prefetch(&wanted).map_err(|e| e.code()), Err(Code::Offline));
                origin.at.go(false);
                assert_eq!(store.head(), before);
            }
            origin.at.prefetch(&wanted).unwrap();
            origin.at.go(true);
            store.receive(blob).unwrap();
            origin.at.go(false);
        }
        at = store.head();
        assert_eq!(at, origin.store.head());
        assert_eq!(read(&store).unwrap(), (at, origin.model.clone()));
        if round % 4 == 2 {
            store.fold().unwrap();
        }
    }
    assert!(wanted_in_all > 5, "{wanted_in_all} pages were wanted");
    sound(&store, "received");
}

#[test]
fn a_blob_that_needs_what_is_away_changes_nothing() {
    let mut origin = Origin::new(9);
    let process = SimDisk::new().process();
    let store = origin.clone_at(&process).unwrap();
    origin.commit(&Change { fills: vec![(4, 4 << 8 | 1)], size: 9 });
    let blob = origin.store.prepare(origin.state.lsn, None).unwrap().unwrap();
    assert_eq!(store.pages_wanted(&blob).unwrap(), [4]);
    origin.at.go(true);
    assert_eq!(store.receive(&blob).unwrap_err().code(), Code::Offline);
    assert_eq!(store.head(), origin.state.lsn);
    origin.at.go(false);
    store.receive(&blob).unwrap();
    assert!(store.pages_wanted(&blob).unwrap().is_empty());
    assert_eq!(read(&store).unwrap().1, origin.model);
}

#[test]
fn pages_that_are_not_of_one_database_never_make_one() {
    let mut origin = Origin::new(23);
    // A page that is as sound as any other, but of another time.
    let mixed = origin.at.but_for(9, image(9, 5, 23, 0));
    let sound_one = std::mem::replace(&mut origin.at, Arc::new(mixed));
    let process = SimDisk::new().process();
    let store = origin.clone_at(&process).unwrap();
    for _ in 0..2 {
        let refused = store.hydrate(|_, _| true).unwrap_err();
        assert_eq!(refused.code(), Code::Damaged, "{refused}");
        assert!(refused.to_string().contains("earlier LSN"), "{refused}");
        assert_eq!(store.absent().unwrap(), Some((0, 23)));
    }
    sound(&store, "each page is what was fetched");
    store.close().unwrap();
    assert_marked(&process);

    origin.at = sound_one;
    let process = SimDisk::new().process();
    let store = origin.clone_at(&process).unwrap();
    store.hydrate(|_, _| true).unwrap();
    assert_eq!(store.absent().unwrap(), None);
}

#[test]
fn once_nothing_is_lacking_it_is_a_database_like_any_other() {
    let origin = Origin::new(23);
    let process = SimDisk::new().process();
    let store = origin.clone_at(&process).unwrap();
    let mut told = Vec::new();
    let brought = store
        .hydrate(|here, of| {
            told.push((here, of));
            told.len() < 2
        })
        .unwrap();
    // The third part was under way.
    assert_eq!((brought, told), (15, vec![(5, 23), (10, 23)]));
    assert_eq!(store.absent().unwrap(), Some((8, 23)));
    origin.at.go(true);
    assert_eq!(store.hydrate(|_, _| true).unwrap_err().code(), Code::Offline);
    store.close().unwrap();
    assert_marked(&process);
    origin.at.go(false);

    let store = origin.open(&process).unwrap();
    assert_eq!(store.absent().unwrap(), Some((8, 23)));
    assert_eq!(store.hydrate(|_, _| true).unwrap(), 8);
    assert_eq!((store.absent().unwrap(), store.hydrate(|_, _| true).unwrap()), (None, 0));
    origin.at.go(true);
    assert_eq!(read(&store).unwrap(), (origin.state.lsn, origin.model.clone()));
    sound(&store, "hydrated");
    assert_eq!(store.learn_checksum().unwrap(), origin.checksum);
    let mut model = origin.model.clone();
    let mut session = Session::new(Arc::clone(&store)).unwrap();
    commit(&mut session, &mut model, &Change { fills: vec![(7, 8)], size: 23 }, Durability::Process).unwrap();
    // What it replaces can be kept now.
    store.fold().unwrap();
    assert_eq!(store.status().unwrap().horizon, origin.state.lsn);
    drop(session);
    store.close().unwrap();
    assert_plain(&process, &model, "hydrated");

    let store = open(&process).unwrap();
    assert_eq!(read(&store).unwrap().1, model);
    sound(&store, "opened by who knows of no source");
    store.detach().unwrap();
    assert!(!process.exists(Path::new(SIDE)).unwrap());
}

#[test]
fn a_fold_stops_where_a_remote_is() {
    let origin = Origin::new(12);
    let machine = SimDisk::new();
    let process = machine.process();
    let mut store = origin.clone_at(&process).unwrap();
    read(&store).unwrap();
    let begun = origin.state.lsn;
    let say = |store: &Store, behind, most| {
        store.change_remotes(|_| Ok((Vec::new(), vec![Unsent { behind, most }], ()))).unwrap();
    };
    let (mut model, mut rng) = (origin.model.clone(), Rng(5));
    let mut commits = |store: &Arc<Store>, count: u64| {
        let mut session = Session::new(Arc::clone(store)).unwrap();
        for _ in 0..count {
            let change = model.change(&mut rng);
            commit(&mut session, &mut model, &change, Durability::Process).unwrap();
        }
        model.clone()
    };
    let can_send = |store: &Arc<Store>, lsn| {
        store.batches(lsn, None).is_ok_and(|mut batches| batches.all(|piece| piece.is_ok()))
    };
    store.set_retention(Retention::None).unwrap();
    say(&store, begun, u64::MAX);
    commits(&store, 30);
    assert_eq!(store.fold().unwrap(), begun, "nothing was sent yet");
    assert!(can_send(&store, begun));
    store.close().unwrap();
    store = origin.open(&process).unwrap();
    assert_eq!(store.fold().unwrap(), begun);
    let sent = Lsn::new(begun.get() + 10);
    say(&store, sent, u64::MAX);
    assert_eq!(store.fold().unwrap(), sent, "what was sent is folded");
    assert!(can_send(&store, sent) && !can_send(&store, begun));
    sound(&store, "folded up to there");
    say(&store, sent, 1 << 10);
    let model = commits(&store, 30);
    assert_eq!(store.fold().unwrap(), store.head(), "it may hold no more");
    assert!(!can_send(&store, sent));
    assert_eq!(read(&store).unwrap().1, model);
    // Once it lacks nothing, folds give nothing up.
    let sent = store.head();
    say(&store, sent, u64::MAX);
    store.hydrate(|_, _| true).unwrap();
    commits(&store, 5);
    assert_eq!(store.fold().unwrap(), store.head());
    assert!(can_send(&store, sent));
    sound(&store, "hydrated");
}

#[test]
fn what_somebody_has_committed_to_is_not_removed() {
    let origin = Origin::new(9);
    for folded in [false, true] {
        let process = SimDisk::new().process();
        let store = origin.clone_at(&process).unwrap();
        let mut model = read(&store).unwrap().1;
        let mut session = Session::new(Arc::clone(&store)).unwrap();
        let change = Change { fills: vec![(2, 5)], size: 9 };
        commit(&mut session, &mut model, &change, Durability::Process).unwrap();
        drop(session);
        if folded {
            store.set_retention(Retention::None).unwrap();
            store.fold().unwrap();
        }
        assert_eq!(store.discard().unwrap_err().code(), Code::Denied, "{folded}");
        store.close().unwrap();
        assert_eq!(read(&origin.open(&process).unwrap()).unwrap().1, model, "{folded}");
    }
}

#[test]
fn a_clone_that_nobody_wants_is_removed() {
    let origin = Origin::new(9);
    let process = SimDisk::new().process();
    let store = origin.clone_at(&process).unwrap();
    let other = Session::new(Arc::clone(&store)).unwrap();
    let second = Session::new(Arc::clone(&store)).unwrap();
    assert_eq!(store.discard().unwrap_err().code(), Code::Busy);
    drop((other, second));
    store.discard().unwrap();
    assert_eq!(process.list(Path::new("/")).unwrap(), [""; 0]);
    let store = origin.clone_at(&process).unwrap();
    store.hydrate(|_, _| true).unwrap();
    assert_eq!(store.discard().unwrap_err().code(), Code::Denied);
    assert_eq!(read(&store).unwrap().1, origin.model);
}

/// On the operating system's disk, with mappings, and the thread that folds.
#[test]
#[cfg_attr(miri, ignore = "miri has no files that are mapped")]
fn threads_read_and_commit_while_another_fetches() {
    let origin = Origin::new(3000);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let real: Arc<dyn Disk> = Arc::new(tideline_journal::disk::RealDisk::new());
    let options =
        Options { background: true, segment_bytes: 64 << 10, fetch_bytes: 64 << 10, ..origin.options() };
    let (lineage, state) = (origin.lineage, origin.state);
    let store =
        Store::begin_lazy(Arc::clone(&real), &path, options, lineage, state, None, DESCRIPTION).unwrap();
    store.set_retention(Retention::Lsns(50)).unwrap();
    let mut model = origin.model.clone();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (store, done, state) = (&store, &done, &state);
            scope.spawn(move || {
                let mut session = Session::new(Arc::clone(store)).unwrap();
                let (mut rng, mut copied) = (Rng(thread), vec![0; PAGE]);
                while !done.load(Ordering::SeqCst) {
                    session.begin_read().unwrap();
                    for _ in 0..50 {
                        let page = 2 + rng.below(u64::from(state.size) - 2) as u32;
                        let at = u64::from(page - 1) * PAGE as u64;
                        session.read(at, &mut copied).unwrap();
                        if let Some(mapped) = session.slice(at, PAGE).unwrap() {
                            assert!(mapped == copied, "page {page} has two images in one snapshot");
                        }
                        let fill: [u8; 8] = copied[..8].try_into().unwrap();
                        assert!(copied == fill.repeat(PAGE / 8) && fill != [0; 8], "page {page}");
                    }
                    session.end_read().unwrap();
                }
            });
        }
        scope.spawn(|| {
            store
                .hydrate(|_, _| {
                    std::thread::sleep(std::time::Duration::from_millis(2));
                    true
                })
                .unwrap();
            done.store(true, Ordering::SeqCst);
        });
        let mut session = Session::new(Arc::clone(&store)).unwrap();
        let mut rng = Rng(7);
        let mut commits = 0;
        while !done.load(Ordering::SeqCst) || commits < 300 {
            let fills = (0..3).map(|_| (2 + rng.below(2998) as u32, rng.next() | 1)).collect();
            let change = Change { fills, size: 3000 };
            commit(&mut session, &mut model, &change, Durability::Process).unwrap();
            commits += 1;
        }
    });
    assert_eq!(store.absent().unwrap(), None);
    assert_eq!(read(&store).unwrap().1, model);
    sound(&store, "hydrated");
    let held = tideline_journal::Held::new(store);
    held.close().unwrap();
    drop(held);
    let store = Store::open(real, &path, common::options()).unwrap();
    assert_eq!(read(&store).unwrap().1, model);
}

/// Two processes, of which one fetches while the other goes on.
#[test]
fn one_process_fetches_while_another_reads_and_commits() {
    for seed in 0..setting("TIDELINE_SCRIPTS", 12) {
        let origin = Origin::new(40);
        let machine = SimDisk::new();
        let [one, other] = [machine.process(), machine.process()];
        let fetching = origin.clone_at(&one).unwrap();
        let whole_steps = Options { fold_step: usize::MAX, ..origin.options() };
        let store = Store::open(disk(&other), Path::new(PATH), whole_steps.clone()).unwrap();
        let mut session = Session::new(Arc::clone(&store)).unwrap();
        let (mut model, mut rng) = (origin.model.clone(), Rng(seed));
        let mut held: Option<(Session, Model)> = None;
        let mut late = None;
        let mut work = |rng: &mut Rng| {
            for _ in 0..3 {
                let change = model.change(rng);
                commit(&mut session, &mut model, &change, Durability::Process).unwrap();
                if rng.below(3) == 0 {
                    store.fold().unwrap();
                }
            }
            assert_eq!(read(&store).unwrap().1, model, "seed {seed}");
            assert_eq!(read(&fetching).unwrap().1, model, "seed {seed}");
            match held.take() {
                Some((mut reader, seen)) => {
                    assert_eq!(common::read_at(&reader).unwrap(), seen, "seed {seed}: a snapshot changed");
                    reader.end_read().unwrap();
                }
                None => {
                    let mut reader = Session::new(Arc::clone(&store)).unwrap();
                    reader.begin_read().unwrap();
                    held = Some((reader, model.clone()));
                }
            }
        };
        fetching
            .hydrate(|_, _| {
                work(&mut rng);
                true
            })
            .unwrap();
        assert_eq!(store.absent().unwrap(), None);
        // The other one was opened as a lazy clone, and goes on with pages that come into being now; a third was not.
        for round in 0..6 {
            work(&mut rng);
            if round == 2 {
                late = Some(
                    Store::open(disk(&machine.process()), Path::new(PATH), whole_steps.clone()).unwrap(),
                );
            }
            if let Some(late) = &late {
                late.fold().unwrap();
            }
        }
        drop((held, session));
        sound(&store, "both");
        store.close().unwrap();
        fetching.close().unwrap();
        late.unwrap().close().unwrap();
        assert_plain(&machine.process(), &model, &format!("seed {seed}"));
    }
}

#[test]
fn checksums_of_history_are_right_behind_what_was_given_up() {
    // Folds of a lazy clone give up what is below, and its entries stay for a while; kept images are older than those.
    let mut told = 0;
    for seed in 0..setting("TIDELINE_SCRIPTS", 60) {
        let origin = Origin::new(9);
        let process = SimDisk::new().process();
        let mut store = origin.clone_at(&process).unwrap();
        let (mut model, mut rng) = (origin.model.clone(), Rng(seed));
        let mut sums = BTreeMap::from([(origin.state.lsn, model.checksum())]);
        for step in 0..60 {
            match rng.below(20) {
                0..=10 => {
                    let mut session = Session::new(Arc::clone(&store)).unwrap();
                    let change = model.change(&mut rng);
                    let lsn = commit(&mut session, &mut model, &change, Durability::Process).unwrap();
                    sums.insert(lsn, model.checksum());
                }
                11..=13 => drop(store.fold().unwrap()),
                14 => drop(store.compact(None).unwrap()),
                15..=16 => {
                    let lsns = Retention::Lsns(1 + rng.below(12));
                    let all = [Retention::Default, Retention::None, lsns, lsns];
                    store.set_retention(all[rng.below(4) as usize]).unwrap();
                }
                17 => {
                    store.close().unwrap();
                    store = origin.open(&process).unwrap();
                }
                _ if step > 20 => drop(store.hydrate(|_, _| true).unwrap()),
                _ => {}
            }
            for row in store.log().unwrap() {
                if let Some(found) = row.checksum {
                    told += 1;
                    let lsn = row.range.last;
                    assert_eq!(sums.get(&lsn), Some(&found), "seed {seed}, step {step}: LSN {lsn}");
                }
            }
        }
        sound(&store, "afterwards");
        assert_eq!(read(&store).unwrap().1, model);
    }
    assert!(told > 10_000, "{told} were told");
}
