//! What the `open` target starts from: the files of stores at many moments of their lives, and what
//! was committed in them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use tideline_journal::disk::{FaultKind, SimDisk, SimProcess};
use tideline_journal::{Durability, Retention, Session, Store};

use crate::pages::{
    BASE, Change, Content, Files, PAGE, Rng, commit, content, image, load, open, random_change, save,
};

const SEED: u64 = 0x6f70_656e;
const SUPER_JOURNAL: &str = "/super";

/// A store at one moment.
pub struct Shape {
    /// What is special about it.
    pub name: &'static str,
    /// Its files.
    pub files: Files,
    /// LSN that it is opened at.
    pub head: u64,
    /// Which of [`Shapes::lives`] it is a moment of.
    pub life: usize,
}

/// What was committed in the life of a store.
pub struct Life {
    /// Its lineage.
    pub lineage: [u8; 16],
    /// Content at each LSN.
    pub states: BTreeMap<u64, Content>,
}

/// All of it.
pub struct Shapes {
    /// The moments.
    pub shapes: Vec<Shape>,
    /// The stores that they are moments of.
    pub lives: Vec<Life>,
}

/// The shapes, which are the same in every run.
pub fn shapes() -> &'static Shapes {
    static SHAPES: LazyLock<Shapes> = LazyLock::new(|| {
        getrandom::reset(SEED);
        let mut shapes = Shapes { shapes: Vec::new(), lives: Vec::new() };
        long_life(&mut shapes);
        adopted_life(&mut shapes);
        shapes
    });
    &SHAPES
}

const SOUND: &str = "the disk is sound";

/// A store that is being lived with.
struct Living {
    disk: Arc<SimDisk>,
    process: Arc<SimProcess>,
    store: Arc<Store>,
    rng: Rng,
    states: BTreeMap<u64, Content>,
    life: usize,
}

impl Living {
    fn begin(disk: Arc<SimDisk>, life: usize) -> Living {
        let process = disk.process();
        let store = open(&process).expect(SOUND);
        let (head, now) = content(&store).expect(SOUND);
        let states = BTreeMap::from([(0, Content::default()), (head.get(), now)]);
        Living { disk, process, store, rng: Rng(SEED), states, life }
    }

    fn last(&self) -> (u64, &Content) {
        self.states.last_key_value().map(|(&lsn, content)| (lsn, content)).expect("LSN 0 is there")
    }

    fn note(&mut self) {
        let (head, now) = content(&self.store).expect(SOUND);
        self.states.insert(head.get(), now);
    }

    fn commit(&mut self, change: &Change, durability: Durability) {
        commit(&self.store, change, durability).expect(SOUND);
        self.note();
    }

    fn commits(&mut self, count: usize) {
        for n in 0..count {
            let last = self.states.values().next_back().expect("LSN 0 is there");
            let change = random_change(&mut self.rng, last);
            self.commit(&change, if n == 1 { Durability::Disk } else { Durability::Process });
        }
    }

    /// The files as they are once the last process has closed the store.
    fn close(&mut self, name: &'static str, shapes: &mut Shapes) {
        self.store.close().expect(SOUND);
        self.shape(name, shapes);
    }

    /// The files as they are when the process is killed.
    fn kill(&mut self, name: &'static str, shapes: &mut Shapes) {
        self.process.kill();
        self.shape(name, shapes);
    }

    /// Notes the files, and opens the store again.
    fn shape(&mut self, name: &'static str, shapes: &mut Shapes) {
        let files = save(&self.disk);
        self.process = self.disk.process();
        self.store = open(&self.process).expect(SOUND);
        let (head, now) = content(&self.store).expect(SOUND);
        let head = head.get();
        assert!(self.states.get(&head) == Some(&now), "{name}: what was committed is there");
        shapes.shapes.push(Shape { name, files, head, life: self.life });
    }

    /// Steps of the disk that a fold takes now.
    fn fold_steps(&self) -> u64 {
        let copy = load(&save(&self.disk));
        let store = open(&copy.process()).expect(SOUND);
        let before = copy.steps();
        store.fold().expect(SOUND);
        copy.steps() - before
    }

    fn end(self, shapes: &mut Shapes) {
        shapes.lives.push(Life { lineage: self.store.lineage(), states: self.states });
    }

    /// Prepares a transaction that a super-journal decides about, and is killed.
    fn prepare(&mut self, shapes: &mut Shapes) {
        use tideline_journal::disk::{Disk, How};
        self.process.open(SUPER_JOURNAL.as_ref(), How::Create).expect(SOUND);
        let (head, last) = self.last();
        let (page_size, size) = (last.page_size, last.pages.len() as u32);
        let change = Change { page_size, size, fills: vec![(1, 1), (2, 0x77)] };
        let mut session = Session::new(Arc::clone(&self.store)).expect(SOUND);
        session.begin_read().expect(SOUND);
        session.begin_write().expect(SOUND);
        for &(page, fill) in &change.fills {
            let bytes = image(page, fill, &change, 1000);
            session.write(u64::from(page - 1) * page_size as u64, &bytes).expect(SOUND);
        }
        session.prepare(Some(Path::new(SUPER_JOURNAL))).expect(SOUND);
        session.sync_prepared().expect(SOUND);
        self.process.kill();
        drop(session);
        let files = save(&self.disk);
        shapes.shapes.push(Shape { name: "undecided", files, head, life: self.life });
        let gone = |path: &Path| self.disk.process().remove(path).expect(SOUND);
        gone(SUPER_JOURNAL.as_ref());
        let files = save(&self.disk);
        shapes.shapes.push(Shape { name: "decided", files, head: head + 1, life: self.life });
        self.process = self.disk.process();
        self.store = open(&self.process).expect(SOUND);
        self.note();
        assert_eq!(self.last().0, head + 1, "a prepared entry whose super-journal is gone is a commit");
    }
}

fn long_life(shapes: &mut Shapes) {
    let mut living = Living::begin(SimDisk::new(), 0);
    living.close("new", shapes);
    living.commits(3);
    living.kill("first commits", shapes);
    living.commits(4);
    assert!(living.store.verify().expect(SOUND).is_empty());
    living.close("at rest", shapes);
    living.commits(2);
    living.prepare(shapes);
    living.commits(3);
    living.store.fold().expect(SOUND);
    living.commits(2);
    living.kill("folded", shapes);
    incoming(&living, shapes);
    let size = living.last().1.pages.len() as u32;
    let longer = Change { page_size: PAGE, size: size + 4, fills: vec![(1, 8), (size + 3, 5)] };
    living.commit(&longer, Durability::Disk);
    living.commit(&Change { page_size: PAGE, size: 3, fills: vec![(1, 9)] }, Durability::Process);
    living.kill("longer and shorter", shapes);
    for (name, quarters) in [("fold begun", 1), ("fold half done", 2), ("fold nearly done", 3)] {
        living.commits(2);
        let step = living.disk.steps() + living.fold_steps() * quarters / 4;
        living.disk.fail(step, FaultKind::Kill);
        assert!(living.store.fold().is_err(), "it was killed");
        living.kill(name, shapes);
    }
    let fills = (1..=4).map(|page| (page, u64::from(page) * 77)).collect();
    living.commit(&Change { page_size: 2 * PAGE, size: 4, fills }, Durability::Process);
    living.kill("other pages", shapes);
    living.commits(2);
    living.close("at rest with other pages", shapes);
    living.store.set_retention(Retention::None).expect(SOUND);
    living.commits(5);
    living.close("trimmed", shapes);
    living.commits(1);
    living.kill("trimmed and ahead", shapes);
    living.end(shapes);
}

/// A replica that lacks the last piece of an entry.
fn incoming(living: &Living, shapes: &mut Shapes) {
    let files = &shapes.shapes.last().expect("there is a shape").files;
    let (replica, source) = (load(files), load(files));
    let store = open(&source.process()).expect(SOUND);
    let after = store.head();
    let size = living.last().1.pages.len() as u32;
    let fills = (1..=size).map(|page| (page, u64::from(page) * 3)).collect();
    commit(&store, &Change { page_size: PAGE, size, fills }, Durability::Disk).expect(SOUND);
    let batches = store.batches(after, Some(2 * PAGE as u64)).expect(SOUND);
    let pieces: Vec<_> = batches.map(|piece| piece.expect(SOUND)).collect();
    assert!(pieces.len() > 1, "it is shipped in pieces");
    let process = replica.process();
    let store = open(&process).expect(SOUND);
    for piece in &pieces[..pieces.len() - 1] {
        store.receive(piece).expect(SOUND);
    }
    process.kill();
    let head = after.get();
    shapes.shapes.push(Shape { name: "incoming", files: save(&replica), head, life: living.life });
}

/// A database that stock SQLite made.
fn adopted_life(shapes: &mut Shapes) {
    let plain = Change { page_size: PAGE, size: 5, fills: Vec::new() };
    let base: Vec<u8> = (1..=5).flat_map(|page| image(page, u64::from(page) << 9, &plain, 3)).collect();
    let mut living = Living::begin(load(&Files::from([(BASE.to_owned(), base)])), 1);
    assert!(living.store.verify().expect(SOUND).is_empty());
    living.close("adopted", shapes);
    living.commits(2);
    living.kill("adopted and ahead", shapes);
    living.commits(3);
    living.close("adopted, at rest", shapes);
    living.end(shapes);
}
