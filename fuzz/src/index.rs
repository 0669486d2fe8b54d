//! The `index` target: the index finds what was pushed, also while it is made anew.
//!
//! An input is a plan: segments that are begun, entries that are pushed with their page tables, hashes that are
//! compared, and indexes that are made anew without what lies below a horizon. A model, which keeps all versions in a
//! map, goes along.
//!
//! 1. Every page is found at every LSN as the model has it: entry, segment, byte offset, and whether its hash was
//!    compared. That note may be lost only where it was made while the index was made anew.
//! 2. The entry at an LSN, the size there, and the segments that are retained or need an fsync are the model's.
//! 3. An index that is made anew has what lies above its horizon; it isn't made where that is no end of an entry, or
//!    where a row names a segment that is left out.
//! 4. Threads that read meanwhile find what was there when they looked up to where the index is.
//!
//! Pages and offsets are of any size. There are no footers in this format, so nothing here reads one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use arbitrary::{Arbitrary, Unstructured};
use tideline_journal::probe::{Probe, Pushed, Reading, Shrinking, Version};

use crate::budget::within;
use crate::value::{self, Value, pick};

/// Steps of a plan, and rows of an entry.
const STEPS: usize = 48;
const ROWS: usize = 8;
/// Most memory in bytes: each row may need a branch of the index of its own.
const LIMIT: usize = STEPS * ROWS * (40 << 10) + (8 << 20);
/// Furthest byte offset of an image, and its unit.
const FURTHEST: u64 = (1 << 43) - UNIT;
const UNIT: u64 = 8;

#[derive(Arbitrary, Debug)]
struct Plan {
    origin: Value,
    readers: bool,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// A new segment; its number is so much above the last.
    Roll(u8),
    Push(Entry),
    /// The hash of a page at an LSN was compared.
    Verify(u8, u8),
    /// The index is made anew; the next steps come between its two copies.
    Shrink(u8, u8),
}

#[derive(Arbitrary, Debug)]
struct Entry {
    span: u8,
    size: u8,
    verified: bool,
    rows: Vec<(Value, Option<u8>, Value)>,
}

/// The plan that an input stands for, for reading.
pub fn describe(data: &[u8]) -> String {
    value::describe::<Plan>(data)
}

/// Runs one input; returns what happened, in short.
///
/// # Panics
/// Where the index isn't the model's.
pub fn run(data: &[u8]) -> String {
    let Ok(plan) = Plan::arbitrary_take_rest(Unstructured::new(data)) else { return String::new() };
    let origin = plan.origin.of(1) >> 3;
    let moves = Moves::of(&plan, origin);
    within(LIMIT, || {
        let probe = Probe::new(origin);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let look = || {
                while !done.load(Ordering::Relaxed) {
                    moves.look(&probe.reading());
                }
            };
            let readers: Vec<_> = (0..u8::from(plan.readers)).map(|_| scope.spawn(look)).collect();
            /// Lets the readers end also where this panics.
            struct End<'a>(&'a AtomicBool);
            impl Drop for End<'_> {
                fn drop(&mut self) {
                    self.0.store(true, Ordering::Relaxed);
                }
            }
            let end = End(&done);
            let played = moves.play(&probe, Model::new(origin));
            drop(end);
            // A scope waits for what they do, and not until they are gone: what is left of one looks like a leak.
            for reader in readers {
                reader.join().expect("a reader");
            }
            played
        })
    })
}

/// A row: page, number of the segment (0: the entry's own), byte offset.
type Row = (u32, u32, u64);

/// What is done, with all numbers known.
enum Move {
    Roll(u32),
    Push { first: u64, last: u64, size: u32, rows: Vec<Row>, verified: bool },
    Verify(u32, u64),
    Begin(u64),
    End,
}

/// All of it, and what readers may find.
struct Moves {
    moves: Vec<Move>,
    /// Versions of each page that there ever are: LSN, segment, offset.
    ever: BTreeMap<u32, Vec<(u64, u32, u64)>>,
}

impl Moves {
    fn of(plan: &Plan, origin: u64) -> Moves {
        let mut moves = Moves { moves: Vec::new(), ever: BTreeMap::new() };
        let mut model = Model::new(origin);
        let mut shrinking = 0u8;
        moves.add(&mut model, Move::Roll(1));
        for step in plan.steps.iter().take(STEPS) {
            let next = match step {
                Step::Roll(more) => Move::Roll(model.largest + 1 + u32::from(*more)),
                Step::Push(entry) => model.entry(entry),
                Step::Verify(page, lsn) => {
                    match model.pages.keys().nth(usize::from(*page) % model.pages.len().max(1)) {
                        Some(&page) => Move::Verify(page, model.lsn(*lsn)),
                        None => continue,
                    }
                }
                Step::Shrink(lsn, steps) if shrinking == 0 => {
                    shrinking = steps % 4 + 1;
                    Move::Begin(model.lsn(*lsn))
                }
                Step::Shrink(..) => continue,
            };
            let begins = matches!(next, Move::Begin(_));
            moves.add(&mut model, next);
            if shrinking > 0 && !begins {
                shrinking -= 1;
                if shrinking == 0 {
                    moves.add(&mut model, Move::End);
                }
            }
        }
        if shrinking > 0 {
            moves.add(&mut model, Move::End);
        }
        moves
    }

    fn add(&mut self, model: &mut Model, next: Move) {
        if let Move::Push { last, rows, .. } = &next {
            for &(page, segment, offset) in rows {
                let held = if segment == 0 { model.own() } else { segment };
                self.ever.entry(page).or_default().push((*last, held, offset));
            }
        }
        model.apply(&next);
        self.moves.push(next);
    }

    /// Reads what is there.
    fn look(&self, reading: &Reading) {
        let (origin, applied) = (reading.origin(), reading.applied());
        for (&page, versions) in &self.ever {
            for lsn in versions.iter().map(|version| version.0).chain([applied]).filter(|&lsn| lsn <= applied)
            {
                let newest = versions.iter().rev().find(|version| version.0 <= lsn && version.0 > origin);
                let found = reading.find(page, lsn).map(|found| (found.lsn, found.segment, found.offset));
                assert_eq!(found.as_ref(), newest, "page {page} at LSN {lsn}, while the index is written");
            }
        }
    }

    /// Does everything, and compares.
    fn play(&self, probe: &Probe, mut model: Model) -> String {
        const SOUND: &str = "the disk is sound";
        let mut shrinking: Option<(Shrinking, bool)> = None;
        let mut swaps = 0;
        for step in &self.moves {
            match step {
                Move::Roll(number) => probe.roll(*number).expect(SOUND),
                Move::Push { first, last, size, rows, verified } => {
                    let pushed =
                        Pushed { first: *first, last: *last, size: *size, rows, verified: *verified };
                    probe.push(&pushed).expect(SOUND);
                }
                Move::Verify(page, lsn) => probe.reading().verify(*page, *lsn),
                Move::Begin(horizon) => {
                    let new = probe.shrink(*horizon);
                    let may = model.size_at(*horizon).is_some();
                    assert_eq!(new.is_some(), may, "LSN {horizon} is the end of an entry, or isn't");
                    shrinking = new.map(|mut new| {
                        let copied = probe.copy(&mut new).expect(SOUND);
                        (new, copied)
                    });
                }
                Move::End => {
                    if let Some((mut new, copied)) = shrinking.take() {
                        let whole = copied && probe.copy(&mut new).expect(SOUND);
                        assert_eq!(
                            whole,
                            model.shrinks(),
                            "all segments that rows name are there, or aren't"
                        );
                        if whole {
                            probe.swap(new);
                            swaps += 1;
                        }
                    }
                }
            }
            model.apply(step);
            model.compare(&probe.reading(), matches!(step, Move::End));
        }
        format!("{} pages, {} entries, {swaps} times anew", model.pages.len(), model.entries.len())
    }
}

/// An entry: first and last LSN, size, number of its segment.
struct Held {
    first: u64,
    last: u64,
    size: u32,
    segment: u32,
}

/// What the index should have.
struct Model {
    origin: u64,
    origin_size: u32,
    entries: Vec<Held>,
    pages: BTreeMap<u32, Vec<Version>>,
    /// Number and first LSN.
    segments: Vec<(u32, u64)>,
    largest: u32,
    /// Horizon of the index that is being made, and how many segments are left out.
    begun: Option<(u64, usize)>,
}

impl Model {
    fn new(origin: u64) -> Model {
        Model {
            origin,
            origin_size: 0,
            entries: Vec::new(),
            pages: BTreeMap::new(),
            segments: Vec::new(),
            largest: 0,
            begun: None,
        }
    }

    fn applied(&self) -> u64 {
        self.entries.last().map_or(self.origin, |entry| entry.last)
    }

    fn own(&self) -> u32 {
        self.segments.last().expect("there is a segment").0
    }

    /// An LSN, from the origin up to a little above the newest, the ends of entries first.
    fn lsn(&self, n: u8) -> u64 {
        match self.entries.get(usize::from(n) / 2) {
            Some(entry) => entry.last - u64::from(n % 2),
            None => (self.origin + u64::from(n)).min(self.applied() + 1),
        }
    }

    fn entry(&self, entry: &Entry) -> Move {
        let first = self.applied() + 1;
        let mut rows = BTreeMap::new();
        for (page, segment, offset) in entry.rows.iter().take(ROWS) {
            let page = page.of(0).clamp(1, u64::from(u32::MAX - 1)) as u32;
            let segment = segment.map_or(0, |n| pick(&self.segments, n).0);
            rows.insert(page, (segment, (offset.of(0) % (FURTHEST + UNIT)) & !(UNIT - 1)));
        }
        Move::Push {
            first,
            last: first + u64::from(entry.span),
            size: entry.size.into(),
            rows: rows.into_iter().map(|(page, (segment, offset))| (page, segment, offset)).collect(),
            verified: entry.verified,
        }
    }

    fn apply(&mut self, step: &Move) {
        match step {
            Move::Roll(number) => {
                self.segments.push((*number, self.applied() + 1));
                self.largest = *number;
            }
            Move::Push { first, last, size, rows, verified } => {
                let own = self.own();
                self.entries.push(Held { first: *first, last: *last, size: *size, segment: own });
                for &(page, segment, offset) in rows {
                    let segment = if segment == 0 { own } else { segment };
                    let verified = *verified || offset == 0;
                    self.pages.entry(page).or_default().push(Version {
                        lsn: *last,
                        segment,
                        offset,
                        verified,
                    });
                }
            }
            Move::Verify(page, lsn) => {
                if let Some(version) = self.find_mut(*page, *lsn) {
                    version.verified = true;
                }
            }
            Move::Begin(horizon) => {
                self.begun = self.size_at(*horizon).map(|_| (*horizon, self.left_out(*horizon)));
            }
            Move::End => {
                if self.shrinks() {
                    self.shrink();
                }
                self.begun = None;
            }
        }
    }

    fn find_mut(&mut self, page: u32, lsn: u64) -> Option<&mut Version> {
        self.pages.get_mut(&page)?.iter_mut().rev().find(|version| version.lsn <= lsn)
    }

    /// Number of segments that are left out above `horizon`.
    fn left_out(&self, horizon: u64) -> usize {
        let ordinal = |segment| self.segments.iter().position(|s| s.0 == segment).expect("it is there");
        let above = self.entries.iter().find(|entry| entry.first > horizon);
        let entry = above.or_else(|| self.entries.iter().rfind(|entry| entry.last <= horizon));
        entry.map_or(0, |entry| ordinal(entry.segment))
    }

    /// True if the index that was begun can have everything.
    fn shrinks(&self) -> bool {
        let Some((horizon, out)) = self.begun else { return false };
        let out = &self.segments[..out];
        let stays = |version: &&Version| version.lsn > horizon;
        !self.pages.values().flatten().filter(stays).any(|version| out.iter().any(|s| s.0 == version.segment))
    }

    fn shrink(&mut self) {
        let (horizon, out) = self.begun.expect("it was begun");
        self.origin_size = self.size_at(horizon).expect("it is an end");
        self.origin = horizon;
        self.segments.drain(..out);
        self.entries.retain(|entry| entry.last > horizon);
        for versions in self.pages.values_mut() {
            versions.retain(|version| version.lsn > horizon);
        }
        self.pages.retain(|_, versions| !versions.is_empty());
    }

    fn size_at(&self, lsn: u64) -> Option<u32> {
        if lsn == self.origin {
            return Some(self.origin_size);
        }
        self.entries.iter().find(|entry| entry.last == lsn).map(|entry| entry.size)
    }

    /// Compares the index with this; `anew` says that notes of compared hashes may have been lost.
    fn compare(&mut self, index: &Reading, anew: bool) {
        assert_eq!(index.applied(), self.applied());
        let numbers: Vec<u32> = self.segments.iter().map(|segment| segment.0).collect();
        assert_eq!(index.segments(), numbers);
        assert!(numbers.iter().all(|&number| index.has_segment(number)));
        assert!(!index.has_segment(0) && !index.has_segment(self.largest + 1));
        let mut lsns: Vec<u64> = self.entries.iter().flat_map(|entry| [entry.first, entry.last]).collect();
        lsns.extend([0, self.origin, self.origin.saturating_sub(1), self.applied() + 1]);
        for &lsn in &lsns {
            let entry = self.entries.iter().find(|entry| (entry.first..=entry.last).contains(&lsn));
            assert_eq!(
                index.entry_at(lsn),
                entry.map(|entry| (entry.first, entry.last)),
                "entry at LSN {lsn}"
            );
            assert_eq!(index.size_at(lsn), self.size_at(lsn), "size at LSN {lsn}");
            assert_eq!(index.retained(lsn), self.retained(lsn), "segments above LSN {lsn}");
            for durable in [self.origin, lsns[lsns.len() / 2], lsns[0]] {
                assert_eq!(index.unsynced(durable, lsn), self.unsynced(durable, lsn), "{durable}..={lsn}");
            }
        }
        for (page, versions) in &mut self.pages {
            assert_eq!(index.find(*page, versions[0].lsn - 1), None, "page {page} before its first version");
            for n in 0..versions.len() {
                let until = versions.get(n + 1).map_or(u64::MAX, |next| next.lsn - 1);
                let version = &mut versions[n];
                for lsn in [version.lsn, until] {
                    let found = index.find(*page, lsn).expect("a version that was pushed is found");
                    if anew && version.verified && !found.verified {
                        version.verified = false;
                    }
                    assert_eq!(found, *version, "page {page} at LSN {lsn}");
                }
            }
            for other in [page.wrapping_sub(1), page.wrapping_add(1), page ^ 1 << 31, page ^ 1 << 20] {
                let _ = index.find(other, u64::MAX);
            }
        }
    }

    fn retained(&self, horizon: u64) -> Vec<u32> {
        let from =
            self.segments.iter().rposition(|segment| segment.1 <= horizon.saturating_add(1)).unwrap_or(0);
        self.segments[from..].iter().map(|segment| segment.0).collect()
    }

    fn unsynced(&self, durable: u64, head: u64) -> Vec<u32> {
        let wanted = |lsn: u64| lsn > durable && lsn <= head;
        let needed = |n: &usize| {
            let next = self.segments.get(n + 1).map(|segment| segment.1);
            let held = self.segments[*n].1..next.unwrap_or(u64::MAX);
            // It holds one of them, or its seal leads to the first of a segment.
            held.start.max(durable + 1) < held.end.min(head + 1) || next.is_some_and(wanted)
        };
        (0..self.segments.len()).filter(needed).map(|n| self.segments[n].0).collect()
    }
}
