//! What the `receive` target starts from: shipped entries of a small source, and replicas that have
//! received some of them.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use tideline_journal::disk::SimDisk;
use tideline_journal::{Durability, Lsn, Store};

use crate::blob::{Blob, field};
use crate::pages::{Change, Content, Files, PAGE, Rng, commit, content, load, open, random_change, save};

const SEED: u64 = 0x7469_6465;
/// About two pages.
const PIECE: u64 = 1200;

/// A shipped entry, or its pieces in order.
pub struct Given {
    /// Each piece, at least one.
    pub pieces: Vec<Vec<u8>>,
    /// True if it is the source's, false if another lineage's.
    pub ours: bool,
    /// Its first LSN.
    pub first: u64,
    /// Its last LSN.
    pub last: u64,
    /// True if it holds all pages.
    pub full: bool,
    /// LSNs that a replica may be at to receive it, beside 0 for a full one.
    pub from: Vec<u64>,
}

/// A replica, at rest or left by a process that was killed.
pub struct Replica {
    /// Its files.
    pub files: Files,
    /// Its LSN.
    pub lsn: u64,
    /// True if it has what the source has at that LSN.
    pub pristine: bool,
}

/// All of it.
pub struct Fixture {
    /// What is shipped.
    pub given: Vec<Given>,
    /// The same, piece by piece.
    pub blobs: Vec<Blob>,
    /// Replicas; the first is an empty one.
    pub replicas: Vec<Replica>,
    /// Content of the source at each LSN.
    pub contents: BTreeMap<u64, Content>,
}

/// The one fixture, which is the same in every run.
pub fn fixture() -> &'static Fixture {
    static FIXTURE: LazyLock<Fixture> = LazyLock::new(build);
    &FIXTURE
}

struct Source {
    store: Arc<Store>,
    rng: Rng,
    contents: BTreeMap<u64, Content>,
    given: Vec<Given>,
    ours: bool,
}

impl Source {
    fn new(seed: u64, ours: bool) -> Source {
        let store = open(&SimDisk::new().process()).expect("an empty disk is sound");
        let contents = BTreeMap::from([(0, Content::default())]);
        Source { store, rng: Rng(seed), contents, given: Vec::new(), ours }
    }

    fn commit(&mut self, change: &Change) {
        let lsn = commit(&self.store, change, Durability::Process).expect("the disk is sound");
        let (head, now) = content(&self.store).expect("the disk is sound");
        assert_eq!(head, lsn);
        self.contents.insert(lsn.get(), now);
    }

    fn commits(&mut self, count: usize) {
        for _ in 0..count {
            let last = self.contents.values().next_back().expect("the empty content is there");
            let change = random_change(&mut self.rng, last);
            self.commit(&change);
        }
    }

    /// Ships what lies behind `after`, up to the first boundary behind `max` bytes.
    fn prepare(&mut self, after: u64, max: Option<u64>) {
        let blob = self.store.prepare(Lsn::new(after), max).expect("it is retained").expect("there is more");
        self.add(vec![blob]);
    }

    /// Ships the same in pieces.
    fn batches(&mut self, after: u64) {
        let mut pieces: Vec<Vec<u8>> = Vec::new();
        let batches = self.store.batches(Lsn::new(after), Some(PIECE)).expect("it is retained");
        for piece in batches {
            let piece = piece.expect("the disk is sound");
            let token = |bytes: &[u8]| Blob::parse(bytes).map(|blob| blob.get(field::TOKEN));
            if pieces.first().is_some_and(|first| token(first) != token(&piece)) {
                self.add(std::mem::take(&mut pieces));
            }
            pieces.push(piece);
        }
        self.add(pieces);
    }

    fn add(&mut self, pieces: Vec<Vec<u8>>) {
        let head = Blob::parse(&pieces[0]).expect("the library wrote it");
        let (first, last) = (head.get(field::FIRST), head.get(field::LAST));
        let mut from = vec![first - 1];
        from.extend(head.identities.iter().map(|id| crate::value::get(id, (0, 8))));
        self.given.push(Given { pieces, ours: self.ours, first, last, full: head.is_full(), from });
    }
}

fn build() -> Fixture {
    getrandom::reset(SEED);
    let mut source = Source::new(SEED, true);
    source.commits(3);
    source.prepare(0, None);
    source.prepare(1, None);
    source.prepare(2, None);
    source.commits(3);
    source.prepare(0, None);
    source.batches(0);
    source.prepare(3, None);
    source.prepare(3, Some(1));
    source.prepare(5, None);
    source.batches(3);
    source.store.fold().expect("the disk is sound");
    source.commits(2);
    // Longer, then shorter than before.
    let size = source.contents[&8].pages.len() as u32;
    source.commit(&Change { page_size: PAGE, size: size + 6, fills: vec![(1, 5), (size + 2, 9)] });
    source.prepare(8, None);
    source.commit(&Change { page_size: PAGE, size: 3, fills: vec![(1, 6), (3, 0)] });
    source.prepare(9, None);
    source.prepare(6, None);
    source.batches(6);
    // Another page size, as VACUUM makes it.
    let fills = (1..=4).map(|page| (page, u64::from(page) * 77)).collect();
    source.commit(&Change { page_size: 2 * PAGE, size: 4, fills });
    source.prepare(10, None);
    source.commits(1);
    source.prepare(6, None);
    source.prepare(11, None);
    source.prepare(0, None);
    source.batches(10);
    source.batches(0);

    let mut other = Source::new(SEED + 1, false);
    other.commits(2);
    other.prepare(0, None);
    other.prepare(1, None);

    let mut fixture = Fixture {
        given: source.given,
        blobs: Vec::new(),
        replicas: vec![Replica { files: Files::new(), lsn: 0, pristine: true }],
        contents: source.contents,
    };
    let foreign = fixture.given.len();
    fixture.given.extend(other.given);
    let pieces = fixture.given.iter().flat_map(|given| &given.pieces);
    fixture.blobs = pieces.filter_map(|piece| Blob::parse(piece)).collect();

    let path = |stops: &[u64]| -> Vec<usize> {
        stops
            .windows(2)
            .map(|pair| {
                let fits = |g: &Given| {
                    g.ours && g.last == pair[1] && (g.from.contains(&pair[0]) || g.full && pair[0] == 0)
                };
                fixture.given.iter().position(fits).expect("the source shipped it")
            })
            .collect()
    };
    let paths = [
        path(&[0, 3]),
        path(&[0, 3, 6]),
        path(&[0, 6]),
        path(&[0, 6, 10]),
        path(&[0, 6, 10, 11]),
        path(&[0, 12]),
        vec![foreign],
    ];
    for (n, path) in paths.iter().enumerate() {
        for killed in [false, true] {
            let pristine = n + 1 < paths.len();
            fixture.replicas.push(replica(&fixture, path, pristine, killed));
        }
    }
    let diverged = diverge(&fixture.replicas[3].files);
    fixture.replicas.push(diverged);
    let begun = begin_pieces(&fixture, &fixture.replicas[3]);
    fixture.replicas.push(begun);
    fixture
}

fn replica(fixture: &Fixture, path: &[usize], pristine: bool, killed: bool) -> Replica {
    let disk = SimDisk::new();
    let process = disk.process();
    let store = open(&process).expect("an empty disk is sound");
    for &given in path {
        for piece in &fixture.given[given].pieces {
            store.receive(piece).expect("it continues the replica");
        }
    }
    let lsn = store.head().get();
    if killed {
        process.kill();
    }
    drop(store);
    Replica { files: save(&disk), lsn, pristine }
}

/// A replica that commits by itself.
fn diverge(files: &Files) -> Replica {
    let disk = load(files);
    let store = open(&disk.process()).expect("the replica is sound");
    let own = content(&store).expect("the replica is sound").1;
    let change = random_change(&mut Rng(3), &own);
    let lsn = commit(&store, &change, Durability::Disk).expect("the disk is sound").get();
    drop(store);
    Replica { files: save(&disk), lsn, pristine: false }
}

/// A replica that has received some pieces of an entry, but not all.
fn begin_pieces(fixture: &Fixture, from: &Replica) -> Replica {
    let disk = load(&from.files);
    let store = open(&disk.process()).expect("the replica is sound");
    let fits = |given: &&Given| given.pieces.len() > 1 && given.from.contains(&from.lsn) && !given.full;
    if let Some(given) = fixture.given.iter().find(fits) {
        for piece in &given.pieces[..given.pieces.len() - 1] {
            store.receive(piece).expect("it continues the replica");
        }
    }
    drop(store);
    Replica { files: save(&disk), lsn: from.lsn, pristine: true }
}
