//! The pages of a whole database at a remote, read one by one: of each the frame that has it is fetched, and kept.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tideline_journal::{Code, Error, Result};

use crate::cache::Cache;
use crate::frame::{Frame, FrameHash, Place, frame_hash};
use crate::images::{ImageSegment, Index};
use crate::manifest::Hash;
use crate::objects::{Objects, Stretch};
use crate::runs::Runs;

/// Frames that are kept unpacked.
const UNPACKED: usize = 96;
/// Frames that are fetched ahead of somebody who reads one after the other, at most.
const AHEAD: usize = 64;
/// Bytes between two frames that are fetched along, where that saves a request.
const ALONG: u64 = 64 << 10;
/// Bytes that are fetched by one request, about.
const REQUEST_BYTES: u64 = 1 << 20;
/// How long a frame that was wrong isn't asked for again.
const WRONG_FOR: Duration = Duration::from_secs(60);

/// A frame of a segment.
#[derive(Clone)]
struct Wanted {
    segment: ImageSegment,
    place: Place,
}

/// Who reads one frame after the other.
#[derive(Default)]
struct Course {
    segment: Option<Hash>,
    next: usize,
    ahead: usize,
}

/// A whole database at a remote.
pub(crate) struct Library {
    runs: Runs,
    cache: Cache,
    indexes: Mutex<HashMap<Hash, Arc<Index>>>,
    unpacked: Mutex<VecDeque<(FrameHash, Arc<Frame>)>>,
    course: Mutex<Course>,
    wrong: Mutex<HashMap<FrameHash, Instant>>,
}

impl Library {
    pub fn new(runs: Runs, cache: Cache) -> Library {
        Library {
            runs,
            cache,
            indexes: Mutex::default(),
            unpacked: Mutex::default(),
            course: Mutex::default(),
            wrong: Mutex::default(),
        }
    }

    /// What it has.
    pub fn runs(&self) -> &Runs {
        &self.runs
    }

    fn page_size(&self) -> u32 {
        self.runs.state.page_size
    }

    /// The index of a segment, if that can be had without asking anybody.
    fn index_known(&self, segment: &ImageSegment) -> Option<Arc<Index>> {
        if let Some(index) = self.indexes.lock().get(&segment.hash) {
            return Some(Arc::clone(index));
        }
        let kept = self.cache.get(&index_key(segment), segment.index)?;
        Some(self.keep(segment, Index::decode(&kept, segment).ok()?))
    }

    /// The index of a segment, fetched if need be.
    fn index(&self, objects: &Objects<'_>, segment: &ImageSegment) -> Result<Arc<Index>> {
        match self.index_known(segment) {
            Some(index) => Ok(index),
            None => Ok(self.keep(segment, fetch_index(objects, &self.cache, segment)?)),
        }
    }

    fn keep(&self, segment: &ImageSegment, index: Index) -> Arc<Index> {
        let index = Arc::new(index);
        self.indexes.lock().insert(segment.hash, Arc::clone(&index));
        index
    }

    /// The frame that has a page: its segment, and its number there.
    fn find(&self, objects: &Objects<'_>, page: u32) -> Result<(ImageSegment, Arc<Index>, usize)> {
        for segment in self.runs.segments_of(page) {
            let index = self.index(objects, segment)?;
            if let Some(at) = index.find(page) {
                return Ok((segment.clone(), index, at));
            }
        }
        let text = format!("{} has no page {page}; clone from another remote", objects.url());
        Err(Error::new(Code::Damaged, text))
    }

    /// The frame of a page, as far as that is known without asking anybody.
    fn place_known(&self, page: u32) -> Option<Place> {
        for segment in self.runs.segments_of(page) {
            let index = self.index_known(segment)?;
            if let Some(at) = index.find(page) {
                return Some(index.places()[at]);
            }
        }
        None
    }

    /// True if all these pages can be read without asking anybody.
    pub fn has_all(&self, pages: &[u32]) -> bool {
        pages
            .iter()
            .all(|&page| self.place_known(page).is_some_and(|place| self.cache.has(&place.hash, place.len)))
    }

    /// Fills `to` with the image of a page, if that can be had without asking anybody.
    ///
    /// # Errors
    /// `Damaged`.
    pub fn read_cached(&self, page: u32, to: &mut [u8]) -> Result<bool> {
        let Some(place) = self.place_known(page) else { return Ok(false) };
        let frame = match self.recent(&place.hash) {
            Some(frame) => frame,
            None => match self.cache.get(&place.hash, place.len) {
                Some(bytes) => self.unpack(&bytes, &place)?,
                None => return Ok(false),
            },
        };
        Ok(fill(&frame, page, to))
    }

    /// Fills `to` with the image of a page that [`Library::read_cached`] didn't have.
    ///
    /// # Errors
    /// `Offline`, `Missing`, `Damaged`.
    pub fn read(&self, objects: &Objects<'_>, page: u32, to: &mut [u8]) -> Result<()> {
        let (segment, index, at) = self.find(objects, page)?;
        let place = index.places()[at];
        let bytes = self.fetch_with_those_behind(objects, &segment, &index, at)?;
        if fill(&*self.unpack(&bytes, &place)?, page, to) {
            Ok(())
        } else {
            Err(wrong(objects, &segment, &place))
        }
    }

    fn recent(&self, hash: &FrameHash) -> Option<Arc<Frame>> {
        let mut unpacked = self.unpacked.lock();
        let at = unpacked.iter().position(|(own, _)| own == hash)?;
        let found = unpacked.remove(at)?;
        let frame = Arc::clone(&found.1);
        unpacked.push_front(found);
        Some(frame)
    }

    fn unpack(&self, bytes: &[u8], place: &Place) -> Result<Arc<Frame>> {
        let frame = Arc::new(Frame::unpack(bytes, place, self.page_size())?);
        let mut unpacked = self.unpacked.lock();
        unpacked.push_front((place.hash, Arc::clone(&frame)));
        unpacked.truncate(UNPACKED);
        Ok(frame)
    }

    /// Fetches a frame. Who reads one after the other gets those behind it as well, more and more of them.
    fn fetch_with_those_behind(
        &self,
        objects: &Objects<'_>,
        segment: &ImageSegment,
        index: &Index,
        at: usize,
    ) -> Result<Vec<u8>> {
        let ahead = {
            let mut course = self.course.lock();
            let goes_on = course.segment == Some(segment.hash) && course.next == at;
            course.ahead = if goes_on { (course.ahead * 2).clamp(1, AHEAD) } else { 0 };
            course.segment = Some(segment.hash);
            course.next = at + 1 + course.ahead;
            course.ahead
        };
        let places = index.places();
        let end = places.len().min(at + 1 + ahead);
        let wanted: Vec<Wanted> = places[at..end]
            .iter()
            .enumerate()
            .filter(|(n, place)| *n == 0 || !self.cache.has(&place.hash, place.len))
            .map(|(_, place)| Wanted { segment: segment.clone(), place: *place })
            .collect();
        let mut first = None;
        self.fetch(objects, &wanted, true, &mut |place, bytes| {
            if place.hash == places[at].hash {
                first = Some(bytes.to_vec());
            }
            Ok(())
        })?;
        first.ok_or_else(|| wrong(objects, segment, &places[at]))
    }

    /// Fetches the frames of these pages that aren't kept yet.
    ///
    /// # Errors
    /// As [`Library::read`].
    pub fn prefetch(&self, objects: &Objects<'_>, pages: &[u32]) -> Result<()> {
        let wanted = self.frames_of(objects, pages)?;
        let absent: Vec<Wanted> =
            wanted.into_iter().filter(|one| !self.cache.has(&one.place.hash, one.place.len)).collect();
        // Where nothing can be kept, they are at hand for a while all the same.
        self.fetch(objects, &absent, true, &mut |place, bytes| self.unpack(bytes, place).map(drop))
    }

    /// Shows each of these pages, which rise, with its image; frames are fetched together. They aren't kept: what others
    /// read page by page would have to go for them.
    ///
    /// # Errors
    /// As [`Library::read`], and of `take`.
    pub fn read_many(
        &self,
        objects: &Objects<'_>,
        pages: &[u32],
        take: &mut dyn FnMut(u32, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let wanted = self.frames_of(objects, pages)?;
        let mut got: HashMap<FrameHash, Arc<Frame>> = HashMap::new();
        let mut absent = Vec::new();
        for one in wanted {
            match self.cache.get(&one.place.hash, one.place.len) {
                Some(bytes) => {
                    let frame = Frame::unpack(&bytes, &one.place, self.page_size())?;
                    got.insert(one.place.hash, Arc::new(frame));
                }
                None => absent.push(one),
            }
        }
        self.fetch(objects, &absent, false, &mut |place, bytes| {
            got.insert(place.hash, Arc::new(Frame::unpack(bytes, place, self.page_size())?));
            Ok(())
        })?;
        for &page in pages {
            let (segment, index, at) = self.find(objects, page)?;
            let place = &index.places()[at];
            let image = got.get(&place.hash).and_then(|frame| frame.image(page));
            take(page, image.ok_or_else(|| wrong(objects, &segment, place))?)?;
        }
        Ok(())
    }

    /// The frames that have these pages, in order of where they are, each once.
    fn frames_of(&self, objects: &Objects<'_>, pages: &[u32]) -> Result<Vec<Wanted>> {
        let mut seen = HashSet::new();
        let mut wanted: Vec<Wanted> = Vec::new();
        for &page in pages {
            let (segment, index, at) = self.find(objects, page)?;
            let place = index.places()[at];
            if seen.insert((segment.hash, place.offset)) {
                wanted.push(Wanted { segment, place });
            }
        }
        wanted.sort_by_key(|one| (one.segment.first, one.segment.hash, one.place.offset));
        Ok(wanted)
    }

    /// Fetches frames, which are in order of where they are: neighbours by one request. They are kept if that `keeps`.
    fn fetch(
        &self,
        objects: &Objects<'_>,
        wanted: &[Wanted],
        keeps: bool,
        take: &mut dyn FnMut(&Place, &[u8]) -> Result<()>,
    ) -> Result<()> {
        for one in wanted {
            self.not_known_wrong(objects, one)?;
        }
        let requests: Vec<&[Wanted]> = wanted.chunk_by(goes_along).flat_map(split).collect();
        let asked: Vec<Stretch> = requests.iter().map(|all| all[0].segment.stretch(span(all))).collect();
        let mut again = Vec::new();
        let keep = |one: &Wanted, bytes: &[u8]| {
            if keeps {
                self.cache.put(&one.place.hash, bytes);
            }
        };
        objects.get_ranges(&asked, &mut |n, answer| {
            let all = requests[n];
            let begin = span(all).start;
            for one in all {
                let at = (one.place.offset - begin) as usize;
                let bytes = answer.get(at..at + one.place.len as usize).unwrap_or_default();
                if frame_hash(bytes) == one.place.hash {
                    keep(one, bytes);
                    take(&one.place, bytes)?;
                } else {
                    again.push(one.clone());
                }
            }
            Ok(())
        })?;
        // Once more, alone: what came may have been spoilt on its way.
        for one in again {
            let range = span(std::slice::from_ref(&one));
            let mut right = false;
            objects.get_ranges(&[one.segment.stretch(range)], &mut |_, bytes| {
                right = frame_hash(bytes) == one.place.hash;
                if right {
                    keep(&one, bytes);
                    take(&one.place, bytes)?;
                }
                Ok(())
            })?;
            if !right {
                self.wrong.lock().insert(one.place.hash, Instant::now());
                return Err(wrong(objects, &one.segment, &one.place));
            }
        }
        Ok(())
    }

    fn not_known_wrong(&self, objects: &Objects<'_>, one: &Wanted) -> Result<()> {
        let mut known = self.wrong.lock();
        known.retain(|_, since| since.elapsed() < WRONG_FOR);
        if known.contains_key(&one.place.hash) {
            return Err(wrong(objects, &one.segment, &one.place));
        }
        Ok(())
    }
}

/// Fills `to` with the image of a page, if it is in the frame.
fn fill(frame: &Frame, page: u32, to: &mut [u8]) -> bool {
    let image = frame.image(page).filter(|image| image.len() == to.len());
    image.map(|image| to.copy_from_slice(image)).is_some()
}

/// An index is kept as a frame is, under the beginning of its hash.
fn index_key(segment: &ImageSegment) -> FrameHash {
    let mut short = [0; 16];
    short.copy_from_slice(&segment.index_hash[..16]);
    short
}

/// The index of a segment, by a request; it is kept.
pub(crate) fn fetch_index(objects: &Objects<'_>, cache: &Cache, segment: &ImageSegment) -> Result<Index> {
    let mut index = None;
    objects.get_ranges(&[segment.stretch(segment.index_range())], &mut |_, bytes| {
        index = Some(Index::decode(bytes, segment)?);
        cache.put(&index_key(segment), bytes);
        Ok(())
    })?;
    index.ok_or_else(|| Error::new(Code::Offline, "no answer came; try again"))
}

fn wrong(objects: &Objects<'_>, segment: &ImageSegment, place: &Place) -> Error {
    let text = format!(
        "bytes {} to {} of {} of {} aren't what they were; put the object back as it was, or clone from another remote",
        place.offset,
        place.offset + u64::from(place.len),
        segment.name(),
        objects.url()
    );
    Error::new(Code::Damaged, text)
}

/// Whether two frames, one behind the other, are had by one request.
fn goes_along(one: &Wanted, other: &Wanted) -> bool {
    let end = one.place.offset + u64::from(one.place.len);
    one.segment.hash == other.segment.hash && other.place.offset >= end && other.place.offset - end <= ALONG
}

/// Cuts what is too long for one request.
fn split(mut all: &[Wanted]) -> Vec<&[Wanted]> {
    let mut parts = Vec::new();
    while let Some(first) = all.first() {
        let fits =
            |one: &&Wanted| one.place.offset + u64::from(one.place.len) - first.place.offset <= REQUEST_BYTES;
        let count = all.iter().take_while(fits).count().max(1);
        let (part, rest) = all.split_at(count);
        parts.push(part);
        all = rest;
    }
    parts
}

fn span(all: &[Wanted]) -> Range<u64> {
    let last = &all[all.len() - 1].place;
    all[0].place.offset..last.offset + u64::from(last.len)
}
