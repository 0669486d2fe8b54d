//! Runs: a whole database at one LSN, as images of pages in an object store.
//!
//! The first run has all pages as they were at some LSN, each further one those that changed since the one before. So a
//! page is in the newest run that has it. A new run takes those before it in that aren't much larger: there are few, and
//! each page is written again a few times.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use tideline_journal::{Counters, Image, Lsn, Result, State};

use crate::hex;
use crate::images::{ImageSegment, Segment};
use crate::manifest::Hash;
use crate::segment::Salt;

/// A run is taken in by a new one that has more than so manieth part of its pages.
const LARGER: u64 = 4;
/// Pages that are read before it is asked whether to go on.
const ASK_EVERY: usize = 64;
/// Most runs that a manifest may list.
const MOST: usize = 64;

/// What is true of a database at one LSN, as manifests have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StateText {
    pub lsn: u64,
    #[serde(with = "hex::number")]
    pub id: u64,
    pub page_size: u32,
    pub size: u32,
    pub counter: u32,
    pub valid_for: u32,
    pub version: u32,
    pub cookie: u32,
    pub time: u64,
}

impl From<State> for StateText {
    fn from(state: State) -> StateText {
        let Counters { counter, valid_for, version, cookie } = state.counters;
        let State { lsn, id, page_size, size, time, .. } = state;
        StateText { lsn: lsn.get(), id, page_size, size, counter, valid_for, version, cookie, time }
    }
}

impl From<&StateText> for State {
    fn from(text: &StateText) -> State {
        let &StateText { lsn, id, page_size, size, counter, valid_for, version, cookie, time } = text;
        let counters = Counters { counter, valid_for, version, cookie };
        State { lsn: Lsn::new(lsn), id, page_size, size, counters, time }
    }
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Run {
    /// First LSN whose changes are in it; 1 for the one with all pages.
    pub first: u64,
    /// Last LSN whose changes are in it.
    pub last: u64,
    /// In order of their pages.
    pub segments: Vec<ImageSegment>,
}

impl Run {
    fn rows(&self) -> u64 {
        self.segments.iter().map(|segment| u64::from(segment.rows)).sum()
    }
}

/// A whole database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Runs {
    pub state: StateText,
    /// Its rolling checksum, where that is known.
    #[serde(default, with = "hex::optional_number", skip_serializing_if = "Option::is_none")]
    pub checksum: Option<u64>,
    /// The oldest first.
    pub runs: Vec<Run>,
}

impl Runs {
    /// True if they can be those of a database.
    pub fn is_possible(&self) -> bool {
        let state = &self.state;
        let sizes = state.page_size.is_power_of_two() && (512..=65536).contains(&state.page_size);
        let mut next = 1;
        let follow = self.runs.iter().all(|run| {
            let begins = run.first == next && run.last >= run.first;
            next = run.last.saturating_add(1);
            let ordered = run.segments.is_sorted_by(|a, b| a.last < b.first);
            begins && ordered && run.segments.iter().all(|segment| segment.is_possible(state.page_size))
        });
        sizes && state.size > 0 && follow && next == state.lsn.saturating_add(1) && self.runs.len() <= MOST
    }

    /// The segments that may have a page, of the newest run first.
    pub fn segments_of(&self, page: u32) -> impl Iterator<Item = &ImageSegment> {
        self.runs.iter().rev().filter_map(move |run| {
            let at = run.segments.partition_point(|segment| segment.last < page);
            run.segments.get(at).filter(|segment| segment.first <= page)
        })
    }

    /// All of their segments.
    pub fn segments(&self) -> impl Iterator<Item = &ImageSegment> {
        self.runs.iter().flat_map(|run| &run.segments)
    }
}

/// What making runs asks of an object store.
pub(crate) trait Shelf {
    /// The pages of a segment.
    fn pages(&self, segment: &ImageSegment) -> Result<Vec<u32>>;
    /// Puts a segment there.
    fn put(&self, segment: &ImageSegment, bytes: Vec<u8>) -> Result<()>;
    /// An error if it is to be given up.
    fn go_on(&self) -> Result<()>;
}

/// The runs for a database, from those that the remote has, if any. What is there already isn't put there again. `None` of
/// a lazy clone that doesn't know what changed, and would fetch all of it, unless they are `needed`.
///
/// # Errors
/// Of reading the image, and of the shelf.
pub(crate) fn make(
    image: &Image,
    before: Option<&Runs>,
    needed: bool,
    salt: Salt,
    shelf: &dyn Shelf,
) -> Result<Option<Runs>> {
    let state = image.state()?;
    let usable = before.filter(|runs| runs.state.page_size == state.page_size);
    let changed = match before {
        Some(runs) => image.changed_since(Lsn::new(runs.state.lsn))?,
        None => None,
    };
    if changed.is_none() && !needed && image.is_lazy()? {
        return Ok(None);
    }
    let changed = changed.filter(|_| usable.is_some());
    let known = usable.iter().flat_map(|runs| runs.segments()).map(|s| (s.index_hash, s)).collect();
    let making = Making { image, page_size: state.page_size, salt, known, shelf };
    let mut runs = usable.map(|runs| runs.runs.clone()).unwrap_or_default();
    let mut first = usable.map_or(1, |runs| runs.state.lsn + 1);
    let pages = match changed {
        None => {
            runs.clear();
            None
        }
        Some(mut pages) => {
            while let Some(last) = runs.last() {
                if last.rows() >= pages.len() as u64 * LARGER {
                    break;
                }
                first = last.first;
                // With all pages, which they are needn't be known.
                if runs.len() > 1 {
                    for segment in &last.segments {
                        pages.extend(shelf.pages(segment)?);
                    }
                    pages.sort_unstable();
                    pages.dedup();
                }
                runs.pop();
            }
            Some(pages).filter(|_| !runs.is_empty())
        }
    };
    let segments = match pages {
        Some(pages) => {
            let there = pages.into_iter().filter(|&page| page <= state.size);
            making.write(there)?
        }
        None => {
            first = 1;
            making.write(image.pages()?)?
        }
    };
    runs.push(Run { first, last: state.lsn.get(), segments });
    Ok(Some(Runs { state: state.into(), checksum: image.checksum(&|| shelf.go_on())?, runs }))
}

/// What segments are made from.
struct Making<'a> {
    image: &'a Image,
    page_size: u32,
    salt: Salt,
    /// Those that are there, by the hash of their index.
    known: HashMap<Hash, &'a ImageSegment>,
    shelf: &'a dyn Shelf,
}

impl Making<'_> {
    /// The segments that have these pages. Where the same pages are in one that is there, it is that one.
    fn write(&self, pages: impl Iterator<Item = u32>) -> Result<Vec<ImageSegment>> {
        let mut segments = Vec::new();
        let begin = || Segment::new(self.page_size, self.salt);
        let mut making = begin();
        let mut bytes = vec![0; self.page_size as usize];
        let mut end = |making: Segment| -> Result<()> {
            let (segment, bytes) = making.finish();
            match self.known.get(&segment.index_hash).filter(|known| known.has_the_same(&segment)) {
                Some(&known) => segments.push(known.clone()),
                None => {
                    self.shelf.put(&segment, bytes)?;
                    segments.push(segment);
                }
            }
            Ok(())
        };
        for (n, page) in pages.enumerate() {
            if n.is_multiple_of(ASK_EVERY) {
                self.shelf.go_on()?;
            }
            self.image.read(page, &mut bytes)?;
            making.push(page, &bytes);
            if making.is_full() {
                end(std::mem::replace(&mut making, begin()))?;
            }
        }
        if !making.is_empty() {
            end(making)?;
        }
        Ok(segments)
    }
}
