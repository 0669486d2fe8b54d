//! The `receive` target: whatever is received, a replica stays a sound database.
//!
//! An input that begins like a blob is given as it is to an empty replica and to one that isn't. Any
//! other is a plan: a replica, and steps that give it blobs of the source, changed at will and with
//! checksums that may be made right again. After each step:
//!
//! 1. An error left the head, the content and the lineage as they were.
//! 2. After a success, every page is one that was given or one that was there before.
//! 3. A blob that nobody changed does what it should, on a replica that has what the source had.
//! 4. `verify` finds nothing, and log and status can be read.
//! 5. No more memory was used than a small multiple of what was given and of what is there.

use std::sync::Arc;

use arbitrary::{Arbitrary, Unstructured};
use tideline_journal::disk::{SimDisk, SimProcess};
use tideline_journal::{Code, Durability, Lsn, Store, page_hash};

use crate::blob::{Blob, Edit, MAGIC, Repair, Scratch, field};
use crate::budget::within;
use crate::pages::{Content, Rng, commit, content, load, open, random_change, total};
use crate::replicas::{Fixture, Given, Replica, fixture};
use crate::value::{self, pick};

const SEED: u64 = 2;
/// Steps of a plan that are done.
const STEPS: usize = 6;
/// Most memory: so many times what was given and what is there, and so many bytes.
const TIMES: usize = 8;
const MORE: usize = 2 << 20;

#[derive(Arbitrary, Debug)]
struct Plan {
    replica: u8,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// A piece, changed.
    Blob(u8, Vec<Edit>, Repair, Vec<Scratch>),
    /// All pieces of an entry in order; one of them may be changed.
    All(u8, u8, Vec<Edit>, Repair),
    /// A commit of the replica's own.
    Commit(u8),
    /// A fold.
    Fold,
    /// Closed, or killed, and opened again.
    Reopen(bool),
    /// Any bytes.
    Raw(Vec<u8>),
}

/// The plan that an input stands for, for reading.
pub fn describe(data: &[u8]) -> String {
    if data.starts_with(MAGIC) {
        return format!("{} bytes that begin like a blob", data.len());
    }
    value::describe::<Plan>(data)
}

/// Runs one input; returns what happened, in short.
///
/// # Panics
/// Where the store doesn't do what it should.
pub fn run(data: &[u8]) -> String {
    let fixture = fixture();
    getrandom::reset(SEED);
    if data.starts_with(MAGIC) {
        let mut trail = String::new();
        for replica in [&fixture.replicas[0], &fixture.replicas[3]] {
            let mut run = Run::start(fixture, replica);
            run.give(data, None);
            trail += &run.finish();
        }
        return trail;
    }
    let Ok(plan) = Plan::arbitrary_take_rest(Unstructured::new(data)) else { return String::new() };
    let mut run = Run::start(fixture, pick(&fixture.replicas, plan.replica));
    for step in plan.steps.into_iter().take(STEPS) {
        run.step(step);
    }
    run.finish()
}

struct Run {
    fixture: &'static Fixture,
    disk: Arc<SimDisk>,
    process: Arc<SimProcess>,
    store: Arc<Store>,
    head: Lsn,
    content: Content,
    /// It has what the source has at its LSN.
    pristine: bool,
    /// Everything that was given, but for what can't be read.
    seen: Vec<Blob>,
    /// Bytes that were there and that were given.
    weight: usize,
    trail: String,
}

impl Run {
    fn start(fixture: &'static Fixture, replica: &Replica) -> Run {
        let disk = load(&replica.files);
        let process = disk.process();
        let store = open(&process).expect("the replica is sound");
        let (head, content) = content(&store).expect("the replica is sound");
        assert_eq!(head.get(), replica.lsn);
        Run {
            fixture,
            disk,
            process,
            store,
            head,
            content,
            pristine: replica.pristine,
            seen: Vec::new(),
            weight: total(&replica.files),
            trail: format!("{}:", replica.lsn),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Raw(bytes) => self.give(&bytes, None),
            Step::Blob(which, edits, repair, scratches) => {
                let piece = usize::from(which) % self.fixture.blobs.len();
                let given = self.of_piece(piece);
                let blob = &self.fixture.blobs[piece];
                let bytes = self.change(blob, &edits, repair, &scratches);
                let pristine = edits.is_empty() && scratches.is_empty();
                self.give(&bytes, given.filter(|given| pristine && given.pieces.len() == 1));
            }
            Step::All(which, changed, edits, repair) => self.give_all(which, changed, &edits, repair),
            Step::Commit(seed) => {
                let change = random_change(&mut Rng(seed.into()), &self.content);
                let lsn = commit(&self.store, &change, Durability::Process).expect("the disk is sound");
                assert_eq!(lsn, self.head.next(), "a commit has the next LSN");
                (self.head, self.content) = content(&self.store).expect("the disk is sound");
                self.pristine = false;
                self.trail.push('c');
            }
            Step::Fold => {
                self.store.fold().expect("the disk is sound");
                self.trail.push('f');
            }
            Step::Reopen(killed) => self.reopen(killed),
        }
        self.check();
    }

    fn change(&self, blob: &Blob, edits: &[Edit], repair: Repair, scratches: &[Scratch]) -> Vec<u8> {
        let mut blob = blob.clone();
        for edit in edits.iter().take(8) {
            edit.apply(&mut blob, &self.fixture.blobs);
        }
        let mut bytes = blob.encode(if edits.is_empty() { Repair::NONE } else { repair });
        scratches.iter().take(4).for_each(|scratch| scratch.apply(&mut bytes));
        bytes
    }

    /// The entry that a piece of the fixture belongs to.
    fn of_piece(&self, piece: usize) -> Option<&'static Given> {
        let mut before = 0;
        self.fixture.given.iter().find(|given| {
            before += given.pieces.len();
            piece < before
        })
    }

    fn give_all(&mut self, which: u8, changed: u8, edits: &[Edit], repair: Repair) {
        let given = pick(&self.fixture.given, which);
        let changed = usize::from(changed) % given.pieces.len();
        let expected = if edits.is_empty() { self.expect(given) } else { None };
        for (n, piece) in given.pieces.iter().enumerate() {
            match Blob::parse(piece) {
                Some(blob) if n == changed => {
                    let bytes = self.change(&blob, edits, repair, &[]);
                    self.give(&bytes, None);
                }
                _ => self.give(piece, None),
            }
        }
        if let Some(Ok(lsn)) = expected {
            assert_eq!(self.head.get(), lsn, "all pieces were given");
            if self.pristine {
                self.as_source(lsn);
            }
        }
    }

    /// What an entry that nobody changed does here; `None` if that isn't known.
    fn expect(&self, given: &Given) -> Option<Result<u64, Code>> {
        let head = self.head.get();
        if !self.pristine {
            return None;
        }
        let differs = !given.full && given.first <= head;
        if given.ours && given.last > head && differs && given.from.contains(&head) {
            // It depends on what the replica still has.
            return None;
        }
        Some(if head == 0 {
            if given.full { Ok(given.last) } else { Err(Code::Gap) }
        } else if !given.ours {
            Err(Code::Foreign)
        } else if given.last <= head {
            Ok(head)
        } else if given.full || given.from.contains(&head) {
            Ok(given.last)
        } else {
            Err(Code::Gap)
        })
    }

    /// Checks that the replica is as the source was at `lsn`.
    fn as_source(&self, lsn: u64) {
        assert!(self.content == self.fixture.contents[&lsn], "the replica is as the source at LSN {lsn}");
    }

    /// Gives a blob to the replica. `given` says which entry of the fixture it is, if nobody changed it.
    fn give(&mut self, bytes: &[u8], given: Option<&Given>) {
        let lineage = self.store.lineage();
        let expected = given.and_then(|given| self.expect(given));
        let blob = Blob::parse(bytes);
        self.weight += bytes.len();
        let store = Arc::clone(&self.store);
        let received = within(TIMES * self.weight + MORE, || store.receive(bytes));
        let now = content(&self.store).expect("what was received can be read");
        self.seen.extend(blob.clone());
        // Of pieces that were changed, some may wait for the others.
        let whole = blob.as_ref().is_none_or(Blob::is_whole);
        self.pristine &= whole && received.is_err() || self.is_original(bytes);
        match &received {
            Err(e) => {
                self.trail += e.code().word();
                assert_eq!(now.0, self.head, "{e}, but the head moved");
                assert!(now.1 == self.content, "{e}, but the content changed");
                assert_eq!(self.store.lineage(), lineage, "{e}, but the lineage changed");
            }
            Ok(lsn) if *lsn == self.head => {
                self.trail += "same";
                assert_eq!(now.0, self.head, "the head moved");
                assert!(now.1 == self.content, "the content changed, but not the head");
            }
            Ok(lsn) => {
                self.trail += &format!("{}", lsn.get().min(99));
                assert_eq!(now.0, *lsn, "it says where it is");
                let blob = blob.expect("only a blob is received");
                self.check_pages(&blob, &now.1);
                (self.head, self.content) = now;
                if blob.is_whole() {
                    let again = self.store.receive(bytes);
                    assert!(again.as_ref().is_ok_and(|at| *at == self.head), "{again:?}: twice is harmless");
                }
            }
        }
        match (expected, received) {
            (Some(Ok(lsn)), Ok(at)) => {
                assert_eq!(at.get(), lsn, "it was the next entry");
                if given.is_some_and(|given| given.ours) {
                    self.as_source(lsn);
                }
            }
            (Some(Err(code)), Err(e)) => assert_eq!(e.code(), code, "{e}"),
            (Some(expected), received) => panic!("{received:?} instead of {expected:?}"),
            (None, _) => {}
        }
        self.trail.push(' ');
    }

    /// True if the source made these bytes.
    fn is_original(&self, bytes: &[u8]) -> bool {
        let ours = self.fixture.given.iter().filter(|given| given.ours);
        ours.flat_map(|given| &given.pieces).any(|piece| piece == bytes)
    }

    /// Every page is one of the entry that `blob` completed, or one that was there before.
    fn check_pages(&self, blob: &Blob, now: &Content) {
        let token = blob.get(field::TOKEN);
        let pieces: Vec<&Blob> = if blob.is_whole() {
            vec![blob]
        } else {
            let given = self.fixture.blobs.iter().chain(&self.seen);
            given.filter(|piece| piece.get(field::TOKEN) == token).collect()
        };
        let holds = |page: u32, image: &Vec<u8>| {
            pieces
                .iter()
                .flat_map(|piece| &piece.rows)
                .any(|row| row.page() == page && row.hash() == page_hash(page, image))
        };
        for (page, image) in (1..).zip(&now.pages) {
            let kept = now.page_size == self.content.page_size
                && !blob.is_full()
                && self.content.pages.get(page as usize - 1) == Some(image)
                && (!blob.is_whole() || blob.rows.iter().all(|row| row.page() != page));
            assert!(kept || holds(page, image), "page {page} was neither given nor there");
        }
    }

    /// What is true of every sound store.
    fn check(&self) {
        let findings = self.store.verify().expect("the disk is sound");
        assert!(findings.is_empty(), "{findings:?}");
        let status = self.store.status().expect("the disk is sound");
        assert_eq!(status.head, self.head);
        let log = self.store.log().expect("the disk is sound");
        assert_eq!(log.last().map_or(Lsn::ZERO, |row| row.range.last), self.head, "the log ends at the head");
    }

    fn reopen(&mut self, killed: bool) {
        let process = self.disk.process();
        if killed {
            self.process.kill();
            self.trail.push('k');
        } else {
            self.store.close().expect("the disk is sound");
            self.trail.push('r');
        }
        self.process = process;
        let lineage = self.store.lineage();
        self.store = open(&self.process).expect("the replica is sound");
        let (head, content) = content(&self.store).expect("the replica is sound");
        assert_eq!(head, self.head, "nothing is lost");
        assert!(content == self.content, "the content is as it was");
        assert_eq!(self.store.lineage(), lineage, "the lineage is as it was");
    }

    fn finish(mut self) -> String {
        self.reopen(false);
        self.check();
        self.trail
    }
}
