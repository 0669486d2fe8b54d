//! Replicas of one database that commit, push, pull, are cloned, lose power and are made anew, in any order, over a
//! network that fails, with a remote that gives up history: what anybody reads at an LSN is the same, and what was
//! acknowledged is there.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::pages::{self, Model, Rng, read};
use common::{Fickle, Moved, URL, clone_until, commit, options, remotes};
use tideline_journal::disk::{Disk, SimDisk};
use tideline_journal::{Clock, Code, Error, Lsn, Retention, Store, SystemClock};
use tideline_sync::{Options, Point};

const HOUR: u64 = 3600 * 1000;
const KEPT_DAYS: u64 = 2;
const REPLICAS: usize = 4;

/// What a database may be at an LSN.
#[derive(Default)]
struct At {
    /// What all agree on, once anybody has seen it come from the remote, or was told that it is there.
    settled: Option<Model>,
    /// What somebody committed, which may or may not have got there.
    possible: Vec<Model>,
    time: u64,
}

struct Replica {
    disk: Arc<SimDisk>,
    store: Arc<Store>,
    /// When it last got through to the remote.
    used: u64,
}

#[derive(Default)]
struct Tried {
    actions: u64,
    pushes: u64,
    pulls: u64,
    clones: u64,
    restores: u64,
    trimmed: u64,
    diverged: u64,
    failures: u64,
    cuts: u64,
}

struct World {
    rng: Rng,
    clock: Arc<Moved>,
    fickle: Arc<Fickle>,
    replicas: Vec<Replica>,
    known: BTreeMap<u64, At>,
    acknowledged: Lsn,
    tried: Tried,
}

impl World {
    fn new(seed: u64) -> World {
        let fickle = Fickle::new();
        let clock = Arc::new(Moved(AtomicU64::new(SystemClock.now_ms())));
        let mut world = World {
            rng: Rng(seed),
            clock,
            fickle,
            replicas: Vec::new(),
            known: BTreeMap::new(),
            acknowledged: Lsn::ZERO,
            tried: Tried::default(),
        };
        let disk = SimDisk::new();
        let store = world.open(&disk).unwrap();
        world.replicas.push(Replica { disk, store, used: world.clock.now_ms() });
        world.commit(0);
        world.add(0);
        world.push(0);
        for _ in 1..REPLICAS {
            let made = world.cloned(Point::Newest).unwrap();
            world.replicas.push(made);
        }
        world
    }

    fn open(&self, disk: &Arc<SimDisk>) -> Result<Arc<Store>, Error> {
        let own = tideline_journal::Options { clock: Arc::clone(&self.clock) as _, ..options(&self.fickle) };
        Store::open(disk.process() as Arc<dyn Disk>, Path::new("/b.db"), own)
    }

    fn remote_options() -> Options {
        let options: [(&str, serde_json::Value); 2] =
            [("retain", format!("{KEPT_DAYS} days").into()), ("single_writer", true.into())];
        options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn add(&self, n: usize) {
        // Only the options are new, and nothing is asked for.
        remotes(&self.replicas[n].store, &self.fickle)
            .add("origin", URL, Some(&World::remote_options()))
            .unwrap();
    }

    /// A new replica, and what it has is what it should.
    fn cloned(&mut self, until: Point) -> Result<Replica, Error> {
        let disk = SimDisk::new();
        clone_until(&disk.process(), &self.fickle, "/b.db", World::remote_options(), until)?;
        let store = self.open(&disk)?;
        self.settle_as_read(&store)?;
        Ok(Replica { disk, store, used: self.clock.now_ms() })
    }

    /// Compares what a store has with what others had at that LSN. It came from the remote.
    fn settle_as_read(&mut self, store: &Arc<Store>) -> Result<(), Error> {
        let (lsn, model) = read(store)?;
        let at = self.known.entry(lsn.get()).or_default();
        match &at.settled {
            Some(settled) => assert_eq!(&model, settled, "LSN {lsn}"),
            None => {
                assert!(at.possible.contains(&model), "LSN {lsn} is nobody's");
                at.settled = Some(model);
            }
        }
        Ok(())
    }

    fn commit(&mut self, n: usize) {
        let store = Arc::clone(&self.replicas[n].store);
        match commit(&store, &mut self.rng) {
            Ok(_) => {}
            // A page that isn't here has to be read.
            Err(e) if e.code() == Code::Offline => return,
            Err(e) => return self.lapse(n, &e),
        }
        self.note(n);
    }

    /// Notes what a replica has committed.
    fn note(&mut self, n: usize) {
        self.fickle.fail_some(0, 0);
        let (lsn, model) = read(&self.replicas[n].store).unwrap();
        let now = self.clock.now_ms();
        let at = self.known.entry(lsn.get()).or_default();
        at.possible.push(model);
        at.time = at.time.max(now);
    }

    /// Has some requests fail from now on, or none.
    fn weather(&mut self) {
        let storm = self.rng.below(3) == 0;
        self.fickle.fail_some(if storm { 1 + self.rng.below(400) } else { 0 }, self.rng.next());
    }

    fn push(&mut self, n: usize) {
        let store = Arc::clone(&self.replicas[n].store);
        let pushed = remotes(&store, &self.fickle).push("origin");
        self.tried.pushes += 1;
        self.judge(n, pushed, true);
    }

    /// Takes note of what a push or a pull came to.
    fn judge(&mut self, n: usize, done: Result<Lsn, Error>, pushed: bool) {
        self.fickle.fail_some(0, 0);
        match done {
            Ok(lsn) => {
                self.replicas[n].used = self.clock.now_ms();
                let store = Arc::clone(&self.replicas[n].store);
                assert!(lsn >= store.head() || !pushed, "LSN {lsn} is said to be there of {}", store.head());
                if pushed {
                    self.acknowledged = self.acknowledged.max(lsn);
                }
                // What it has committed since isn't there yet.
                if remotes(&store, &self.fickle).list().unwrap()[0].ahead == 0 {
                    self.settle_as_read(&store).unwrap();
                } else {
                    assert!(!pushed);
                }
            }
            Err(e) if e.code() == Code::Diverged => {
                self.tried.diverged += 1;
                self.make_anew(n);
            }
            Err(e) if e.code() == Code::Offline => self.tried.failures += 1,
            Err(e) => self.lapse(n, &e),
        }
    }

    /// What a lazy clone needs may go when it wasn't used for long.
    fn lapse(&mut self, n: usize, e: &Error) {
        let unused = self.clock.now_ms() - self.replicas[n].used;
        assert!(e.code() == Code::Missing && unused > 30 * 24 * HOUR, "after {} hours: {e}", unused / HOUR);
        self.make_anew(n);
    }

    /// What it has of its own is given up.
    fn make_anew(&mut self, n: usize) {
        self.replicas[n] = self.cloned(Point::Newest).unwrap();
    }

    fn cut(&mut self, n: usize) {
        self.fickle.fail_some(0, 0);
        self.tried.cuts += 1;
        let disk = self.replicas[n].disk.reboot(self.rng.next());
        let store = self.open(&disk).unwrap();
        let (lsn, model) = match read(&store) {
            Ok(found) => found,
            Err(e) => return self.lapse(n, &e),
        };
        if lsn > Lsn::ZERO {
            let at = &self.known[&lsn.get()];
            assert!(at.possible.contains(&model) || at.settled.as_ref() == Some(&model), "LSN {lsn}");
        }
        self.replicas[n].disk = disk;
        self.replicas[n].store = store;
    }

    /// Clones the newest, or something of the past.
    fn clone_some(&mut self, n: usize) {
        self.tried.clones += 1;
        let newest = self.rng.below(2) == 0;
        let wanted = 1 + self.rng.below(self.acknowledged.get() + 2);
        let until = if newest { Point::Newest } else { Point::Lsn(Lsn::new(wanted)) };
        match self.cloned(until) {
            Ok(made) => {
                self.tried.restores += u64::from(!newest);
                if newest {
                    self.replicas[n] = made;
                } else {
                    assert_eq!(made.store.head(), Lsn::new(wanted));
                }
            }
            Err(e) if e.code() == Code::Offline => self.tried.failures += 1,
            Err(e) => {
                assert!(!newest, "{e}");
                let at = self.known.get(&wanted);
                let is_old =
                    at.is_some_and(|at| at.time + KEPT_DAYS * 24 * HOUR < self.clock.now_ms()) || wanted == 1;
                match e.code() {
                    Code::Trimmed => {
                        assert!(is_old, "LSN {wanted} should be there: {e}");
                        self.tried.trimmed += 1;
                    }
                    // It isn't there yet, or was merged, or came with a whole database.
                    Code::Argument => {}
                    _ => panic!("LSN {wanted}: {e}"),
                }
            }
        }
    }

    fn act(&mut self) {
        let n = self.rng.below(REPLICAS as u64) as usize;
        let store = Arc::clone(&self.replicas[n].store);
        self.tried.actions += 1;
        self.weather();
        match self.rng.below(23) {
            0..=5 => self.commit(n),
            6..=9 => self.push(n),
            10..=12 => {
                self.tried.pulls += 1;
                let pulled = remotes(&store, &self.fickle).pull("origin");
                self.judge(n, pulled, false);
            }
            13..=14 => {
                let synced = remotes(&store, &self.fickle).sync("origin");
                self.judge(n, synced, true);
            }
            15 => self.clone_some(n),
            16 => self.cut(n),
            17 => {
                let hours = if self.rng.below(30) == 0 { 24 * 9 } else { 1 + self.rng.below(30) };
                let before = self.clock.0.fetch_add(hours * HOUR, Ordering::SeqCst);
                self.fickle.set_clock(before + hours * HOUR);
            }
            18 => {
                let lsns = Retention::Lsns(1 + self.rng.below(12));
                let all = [Retention::None, Retention::Default, lsns];
                store.set_retention(all[self.rng.below(3) as usize]).unwrap();
                self.may_be_away(n, store.fold());
            }
            19 => self.may_be_away(n, store.compact(None)),
            20 => {
                store.close().unwrap();
                self.replicas[n].store = self.open(&self.replicas[n].disk).unwrap();
            }
            21 => self.work_elsewhere(n),
            _ => match store.hydrate(|_, _| true) {
                Ok(_) => {}
                Err(e) if e.code() == Code::Offline => {}
                Err(e) => self.lapse(n, &e),
            },
        }
        self.look(n);
    }

    /// Work in another process, which then closes it.
    fn work_elsewhere(&mut self, n: usize) {
        let disk = Arc::clone(&self.replicas[n].disk);
        let other = self.open(&disk).unwrap();
        let own = std::mem::replace(&mut self.replicas[n].store, Arc::clone(&other));
        match self.rng.below(3) {
            0 => self.commit(n),
            1 => self.push(n),
            _ => self.may_be_away(n, other.fold()),
        }
        // Unless it was made anew.
        if Arc::ptr_eq(&disk, &self.replicas[n].disk) {
            self.replicas[n].store = own;
            other.close().unwrap();
        }
    }

    /// What reads pages may have to fetch them.
    fn may_be_away<T>(&mut self, n: usize, done: Result<T, Error>) {
        match done {
            Ok(_) => {}
            Err(e) if matches!(e.code(), Code::Offline | Code::Busy) => {}
            Err(e) => self.lapse(n, &e),
        }
    }

    /// The checksums that a replica tells of its history are those of what somebody committed.
    fn look(&self, n: usize) {
        for row in self.replicas[n].store.log().unwrap() {
            let Some((told, at)) = row.checksum.zip(self.known.get(&row.range.last.get())) else { continue };
            let known = at.settled.iter().chain(&at.possible).any(|model| model.checksum() == told);
            assert!(known, "replica {n} has LSN {} with a checksum that nobody committed", row.range.last);
        }
    }

    /// All get to the same, and what was acknowledged is in it.
    fn end(mut self) -> Tried {
        self.fickle.fail_some(0, 0);
        for round in 0..3 {
            for n in 0..REPLICAS {
                let store = Arc::clone(&self.replicas[n].store);
                let synced = remotes(&store, &self.fickle).sync("origin");
                assert!(synced.is_ok() || round == 0, "{synced:?}");
                self.judge(n, synced, true);
            }
        }
        let there = self.cloned(Point::Newest).unwrap();
        let (lsn, model) = read(&there.store).unwrap();
        assert!(lsn >= self.acknowledged, "LSN {} was acknowledged, and {lsn} is there", self.acknowledged);
        for replica in &self.replicas {
            assert_eq!(read(&replica.store).unwrap(), (lsn, model.clone()));
            assert!(replica.store.verify().unwrap().is_empty());
        }
        self.tried
    }
}

fn play(seed: u64, actions: u64) -> Tried {
    let mut world = World::new(seed);
    for _ in 0..actions {
        world.act();
    }
    world.end()
}

fn tell(all: &[Tried]) {
    let sum = |of: fn(&Tried) -> u64| all.iter().map(of).sum::<u64>();
    println!(
        "tried: actions={} pushes={} pulls={} clones={} restores={} given_up={} diverged={} failures={} cuts={}",
        sum(|t| t.actions),
        sum(|t| t.pushes),
        sum(|t| t.pulls),
        sum(|t| t.clones),
        sum(|t| t.restores),
        sum(|t| t.trimmed),
        sum(|t| t.diverged),
        sum(|t| t.failures),
        sum(|t| t.cuts)
    );
}

#[test]
fn replicas_agree_whatever_happens() {
    let base = pages::setting("TIDELINE_SEED", 1);
    let all: Vec<Tried> = (0..6).map(|n| play(base * 1000 + n, 400)).collect();
    tell(&all);
}

#[test]
#[ignore = "cargo xtask soak replicas"]
fn soak() {
    let base = pages::setting("TIDELINE_SEED", 1);
    let all: Vec<Tried> = (0..40).map(|n| play(base * 1000 + n, 2000)).collect();
    tell(&all);
}
