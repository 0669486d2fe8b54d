//! The `recover` target: whatever is behind the journal's end, recovery finds the entries that count, and no others.
//!
//! An input is a plan: a store at some moment of its life, and what is written behind the end of its journal, apart from
//! the library. A reader of its own (`reader.rs`), made from FORMAT.md, says which entries count and what is in the
//! database then.
//!
//! 1. Nothing panics or runs forever, and no more memory is used than a small multiple of the files.
//! 2. The store opens at the LSN that the reader says, with the content that it says, or is refused with the code that
//!    it says. What was written as the library writes it is found.
//! 3. `verify` finds nothing where every image has its hash, and something where one hasn't.
//! 4. Recovery that is cut short by a power cut at any step, and done again, comes to the same; so does a second one
//!    behind a whole one.
//! 5. A commit afterwards has the next LSN, and is there after another recovery, and after a fold.
//!
//! Where somebody made checksums right over fields that no library writes, 3 and 5 say only that nothing panics.

use std::sync::Arc;

use arbitrary::{Arbitrary, Unstructured};
use tideline_journal::disk::{Disk, SimDisk};
use tideline_journal::{Code, Durability, Lsn, Store};

use crate::budget::within;
use crate::pages::{Change, Content, Files, PAGE, SIDE, commit, content, is_at_rest, load, open, total};
use crate::reader::{self, Journal};
use crate::shapes::{Life, Shape, shapes};
use crate::tail::{Piece, SUPER_JOURNAL, Tail};
use crate::value::pick;

const SEED: u64 = 5;
/// Pieces and scratches of a plan that are written.
const PIECES: usize = 8;
const SCRATCHES: usize = 4;
/// Most memory: so many times what is there, and so many bytes.
const TIMES: usize = 16;
const MORE: usize = 8 << 20;

#[derive(Arbitrary, Debug)]
struct Plan {
    shape: u8,
    /// The super-journal is there.
    undecided: bool,
    /// So many LSNs more are on the disk, says the superblock.
    harder: u8,
    pieces: Vec<Piece>,
    scratches: Vec<(u8, u16, u8)>,
    /// Step of the recovery at which the power is cut, and what is left then.
    cut: (u16, u8),
}

impl Plan {
    fn of(data: &[u8]) -> arbitrary::Result<Plan> {
        Plan::arbitrary_take_rest(Unstructured::new(data)).map(|mut plan| {
            plan.pieces.truncate(PIECES);
            plan.scratches.truncate(SCRATCHES);
            plan
        })
    }
}

/// The plan that an input stands for, for reading.
pub fn describe(data: &[u8]) -> String {
    match Plan::of(data) {
        Ok(plan) => format!("{}\n{plan:#?}", pick(&shapes().shapes, plan.shape).name),
        Err(e) => format!("nothing: {e}"),
    }
}

/// Runs one input; returns what happened, in short.
///
/// # Panics
/// Where the store doesn't do what it should.
pub fn run(data: &[u8]) -> String {
    let shapes = shapes();
    getrandom::reset(SEED);
    let Ok(plan) = Plan::of(data) else { return String::new() };
    let shape = pick(&shapes.shapes, plan.shape);
    let life = &shapes.lives[shape.life];
    let tail = written(&plan, shape, life);
    let expected = reader::recover(&tail.files, &life.states);
    if let Ok(journal) = &expected {
        let (found, certain) = (journal.lsn, tail.certain);
        // A byte that was changed, and what a super-journal decides about, isn't certain.
        let sure = plan.scratches.is_empty() && plan.harder == 0 && !plan.undecided;
        assert!(!sure || found >= certain, "the reader ends at LSN {found}, and {certain} was written");
    }
    let limit = TIMES * total(&tail.files) + MORE;
    let trial = Trial { plan: &plan, files: &tail.files, expected, forged: tail.forged };
    let outcome = within(limit, || trial.run());
    format!("{}: {outcome}", shape.name)
}

/// The files with what the plan writes.
fn written(plan: &Plan, shape: &Shape, life: &Life) -> Tail {
    let mut files = shape.files.clone();
    files.remove(SUPER_JOURNAL);
    // The reader must agree with the library about a store that nothing happened to; one that is at rest, with a
    // journal that goes on, is refused, and the content is known all the same.
    let journal = match reader::recover(&files, &life.states) {
        Ok(journal) => journal,
        Err(code) => panic!("{}: the reader says {code:?}", shape.name),
    };
    let content = &life.states[&journal.lsn];
    assert_eq!(
        journal.content().as_ref(),
        Some(content),
        "{}: the reader reads what was committed",
        shape.name
    );
    let mut tail = Tail::new(&files, &journal, content);
    for piece in &plan.pieces {
        tail.piece(piece);
    }
    for &(which, at, mask) in &plan.scratches {
        tail.scratch(which, at, mask);
    }
    if plan.harder > 0 {
        tail.harden(plan.harder % 8);
    }
    if plan.undecided {
        tail.files.insert(SUPER_JOURNAL.to_owned(), b"/app.db-journal\0".to_vec());
    }
    // It means nothing when a store is recovered, and is long.
    tail.files.remove(&format!("{SIDE}/control"));
    tail
}

struct Trial<'a> {
    plan: &'a Plan,
    files: &'a Files,
    expected: Result<Journal, Code>,
    forged: bool,
}

impl Trial<'_> {
    fn run(&self) -> String {
        let disk = load(self.files);
        let begun = disk.steps();
        let process = disk.process();
        let opened = open(&process);
        let steps = disk.steps() - begun;
        let store = self.open(&disk, opened);
        self.cut(begun, steps);
        let Some(store) = store else {
            let code = self.expected.as_ref().err().map_or("opened", |code| code.word());
            return format!("{code}, {steps} steps");
        };
        let lsn = store.head();
        let known = self.expected.as_ref().ok().and_then(Journal::content);
        // Killed, and recovered once more.
        process.kill();
        drop(store);
        let process = disk.process();
        let Some(store) = self.open(&disk, open(&process)) else { panic!("it was opened before") };
        let Some(content) = known else { return format!("{lsn}, damaged, {steps} steps") };
        let after = self.write(&store, lsn, &content);
        process.kill();
        drop(store);
        let process = disk.process();
        let again = open(&process).and_then(|store| Ok((crate::pages::content(&store)?, store)));
        if !self.strict() {
            return format!("{lsn}, forged, {steps} steps");
        }
        let ((head, now), store) = again.unwrap_or_else(|e| panic!("{e}: it was committed to"));
        assert_eq!(head, lsn.next(), "a commit is there after another recovery");
        assert!(now == after, "a commit is there after another recovery");
        assert_eq!(store.fold().ok(), Some(head), "all of it can be folded");
        store.close().unwrap_or_else(|e| panic!("{e}: it is sound"));
        format!("{lsn}, written, {steps} steps")
    }

    /// True if everything about the store is as the library would have it.
    fn strict(&self) -> bool {
        // Nobody writes behind a prepared entry before it is decided; what is there would outlive its being erased.
        let impossible = self.plan.undecided && !self.plan.pieces.is_empty();
        !self.forged && !impossible && self.expected.as_ref().is_ok_and(|journal| journal.sound)
    }

    /// Compares what was opened with what the reader says.
    fn open(&self, disk: &Arc<SimDisk>, opened: tideline_journal::Result<Arc<Store>>) -> Option<Arc<Store>> {
        let journal = match (&self.expected, &opened) {
            (Err(code), Err(e)) => {
                // At rest the last entry isn't read, whose epoch may tell that those behind the end count (R4).
                let unread = is_at_rest(self.files) && *code == Code::Diverged && e.code() == Code::Damaged;
                assert!(unread || e.code() == *code, "{e} instead of {code:?}");
                return None;
            }
            (Ok(journal), Ok(_)) => journal,
            // At rest, history is read by those who ask for it.
            (Err(code), Ok(store)) if is_at_rest(self.files) => {
                let asked = store.log().map(|rows| rows.len());
                assert_eq!(asked.as_ref().err().map(tideline_journal::Error::code), Some(*code), "{asked:?}");
                return None;
            }
            (Err(code), Ok(store)) => panic!("opened at LSN {} instead of {code:?}", store.head()),
            (Ok(journal), Err(e)) => panic!("{e} instead of LSN {}", journal.lsn),
        };
        let store = opened.ok()?;
        assert_eq!(store.head().get(), journal.lsn, "the reader says where the journal ends");
        assert_eq!(store.durable().get(), journal.lsn, "what was recovered is on the disk");
        match (content(&store), journal.content()) {
            (Ok((lsn, found)), Some(expected)) => {
                assert_eq!(lsn.get(), journal.lsn);
                assert!(found == expected, "the content at LSN {lsn} is as the reader says");
            }
            (Err(e), Some(_)) => panic!("{e}: the reader reads all of it"),
            (Ok(_), None) => assert!(self.forged, "a page that the reader can't read was read"),
            (Err(e), None) => assert!(e.code() == Code::Damaged || self.forged, "{e}"),
        }
        let found = store.verify();
        if !self.forged {
            let found = found.unwrap_or_else(|e| panic!("{e}: verify says what it finds"));
            assert_eq!(found.is_empty(), journal.sound, "{found:?}");
            let log = store.log().unwrap_or_else(|e| panic!("{e}: every entry is there"));
            let ends: Vec<u64> = log.iter().map(|row| row.range.last.get()).collect();
            // The first row is the horizon's own, where there is one.
            assert!(ends.ends_with(&journal.ends), "{ends:?} instead of {:?}", journal.ends);
            let needless = disk.process().exists("/app.db-journal".as_ref());
            assert!(needless.is_ok_and(|there| !there), "no marker is left");
        }
        Some(store)
    }

    /// Cuts the power in the middle of recovery, and recovers from what is left.
    fn cut(&self, begun: u64, steps: u64) {
        if steps == 0 {
            return;
        }
        let (step, seed) = self.plan.cut;
        let disk = load(self.files);
        disk.cut_at(begun + u64::from(step) % steps);
        drop(open(&disk.process()));
        let disk = disk.reboot(seed.into());
        self.open(&disk, open(&disk.process()));
    }

    /// Commits something; returns what should be there then.
    fn write(&self, store: &Arc<Store>, lsn: Lsn, content: &Content) -> Content {
        let size = (content.pages.len() as u32).max(2);
        let page_size = if content.page_size == 0 { PAGE } else { content.page_size };
        let change = Change { page_size, size, fills: vec![(1, 0xfeed), (2, 0xbeef)] };
        let written = commit(store, &change, Durability::Disk);
        if self.strict() {
            assert_eq!(written.ok(), Some(lsn.next()), "a commit has the next LSN");
        }
        change.applied(content)
    }
}
