//! The images in a piece, in order, on as many processors as that takes.
//!
//! ```text
//!   runs of rows   0 │ 1 │ 2 │ 3 │ …      each begins with a row that takes no other row's image
//!   a thread each  0   1   0   1          ──► batches of images ──► whoever asked, in order
//! ```
//! Undoing the compression takes several times as long as hashing and writing do. Buffers go round, so that there are
//! few; whoever asked writes meanwhile.

use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, ScopedJoinHandle};

use crate::error::{Code, Error, Result};
use crate::format::{Shipped, ShippedRow, Unpacking};

/// Bytes of images that are handed on at a time; at least a page.
const BATCH: usize = 256 << 10;

/// Batches that a thread is ahead of whoever takes them: as many as a run has, so that the other threads have something
/// to do meanwhile.
const AHEAD: usize = 4;

/// Bytes of images, and of what they are made of, that are worth threads: the buffers stay a small multiple of what
/// was given.
const WORTH: usize = 4 << 20;
const WORTH_ENCODED: u64 = 512 << 10;

/// Threads, at most.
const MOST: usize = 3;

/// What is asked of each row.
pub(crate) trait Source: Sync {
    /// Fills in the image that the page had before the range.
    fn before(&self, row: &ShippedRow<'_>, to: &mut [u8]) -> Result<()>;

    /// Decides whether this is the row's image.
    fn check(&self, row: &ShippedRow<'_>, image: &[u8]) -> Result<()>;
}

/// What is done with rows and their images.
type Take<'a> = dyn FnMut(&[ShippedRow<'_>], &[u8]) -> Result<()> + 'a;

/// Hands rows and their images, some at a time, to `take`, in order. Nothing that wasn't checked is handed on.
///
/// # Errors
/// `Damaged`, and those of `source` and `take`.
pub(crate) fn each_batch(piece: &Shipped<'_>, source: &impl Source, take: &mut Take<'_>) -> Result<()> {
    let size = piece.header.state.page_size as usize;
    let rows: Vec<ShippedRow<'_>> = piece.rows().collect();
    let worth = rows.len() * size >= WORTH && piece.header.body >= WORTH_ENCODED;
    let threads = if worth { thread::available_parallelism().map_or(1, usize::from).min(MOST) } else { 1 };
    let work = Work { rows: &rows, runs: runs(&rows, size), size, source };
    if threads > 1 { work.by_threads(threads, take) } else { work.here(take) }
}

/// Rows of a batch.
fn per_batch(size: usize) -> usize {
    (BATCH / size).max(1)
}

/// Ranges of rows that don't take each other's images; each is a batch or more.
fn runs(rows: &[ShippedRow<'_>], size: usize) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let mut begun = 0;
    for (n, row) in rows.iter().enumerate() {
        if n - begun >= per_batch(size) && !row.is_chained() {
            runs.push(begun..n);
            begun = n;
        }
    }
    runs.push(begun..rows.len());
    runs
}

struct Work<'a, S> {
    rows: &'a [ShippedRow<'a>],
    runs: Vec<Range<usize>>,
    size: usize,
    source: &'a S,
}

impl<S: Source> Work<'_, S> {
    fn batches(&self, run: &Range<usize>) -> impl Iterator<Item = &[ShippedRow<'_>]> {
        self.rows[run.clone()].chunks(per_batch(self.size))
    }

    fn unpack(&self, unpacking: &mut Unpacking, rows: &[ShippedRow<'_>], images: &mut Vec<u8>) -> Result<()> {
        let source = self.source;
        unpacking.images(
            rows,
            images,
            |row, to| source.before(row, to),
            |row, image| source.check(row, image),
        )
    }

    /// All of it on this thread.
    fn here(&self, take: &mut Take<'_>) -> Result<()> {
        let (mut unpacking, mut images) = (Unpacking::new(self.size), Vec::new());
        for rows in self.rows.chunks(per_batch(self.size)) {
            self.unpack(&mut unpacking, rows, &mut images)?;
            take(rows, &images)?;
        }
        Ok(())
    }

    fn by_threads(&self, count: usize, take: &mut Take<'_>) -> Result<()> {
        let count = count.min(self.runs.len());
        let outcome = thread::scope(|scope| {
            let mut lanes = Vec::new();
            for n in 0..count {
                let (full, batches) = sync_channel(AHEAD);
                let (empty, used) = channel();
                let lane = move || self.lane(n, count, &full, &used);
                let builder = thread::Builder::new().name("tideline-unpack".into());
                let Ok(thread) = builder.spawn_scoped(scope, lane) else { return None };
                lanes.push(Lane { batches, empty, thread });
            }
            let taken = self.take_all(&lanes, take);
            // Whoever isn't done finds that nobody listens.
            let threads: Vec<_> = lanes.into_iter().map(|lane| lane.thread).collect();
            let ended = threads.into_iter().all(|thread| thread.join().is_ok());
            Some(if ended { taken } else { Err(lost()) })
        });
        // The system has no thread to give; nothing was taken yet.
        outcome.unwrap_or_else(|| self.here(take))
    }

    /// What a thread does: every `count`th run, from the `n`th on.
    fn lane(&self, n: usize, count: usize, full: &SyncSender<Result<Vec<u8>>>, used: &Receiver<Vec<u8>>) {
        #[cfg(unix)]
        {
            // Signals are for the host's own threads.
            nix::sys::signal::SigSet::all().thread_block().ok();
        }
        let mut unpacking = Unpacking::new(self.size);
        for run in self.runs.iter().skip(n).step_by(count) {
            unpacking.reset();
            for rows in self.batches(run) {
                let mut images = used.try_recv().unwrap_or_default();
                let batch = self.unpack(&mut unpacking, rows, &mut images).map(|()| images);
                let failed = batch.is_err();
                if full.send(batch).is_err() || failed {
                    return;
                }
            }
        }
    }

    fn take_all(&self, lanes: &[Lane<'_>], take: &mut Take<'_>) -> Result<()> {
        for (run, lane) in self.runs.iter().zip(lanes.iter().cycle()) {
            for rows in self.batches(run) {
                let images = lane.batches.recv().map_err(|_| lost())??;
                take(rows, &images)?;
                // A thread that is done needs no buffer.
                lane.empty.send(images).ok();
            }
        }
        Ok(())
    }
}

/// A thread, as whoever takes its batches sees it.
struct Lane<'scope> {
    batches: Receiver<Result<Vec<u8>>>,
    empty: Sender<Vec<u8>>,
    thread: ScopedJoinHandle<'scope, ()>,
}

fn lost() -> Error {
    Error::new(Code::Io, "internal error while unpacking; report this as a bug")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{Packing, ShippedHeader};
    use crate::hash::page_hash;
    use crate::lsn::{Lsn, LsnRange};
    use crate::state::State;

    const SIZE: usize = 512;

    /// All differences are from this.
    const BEFORE: [u8; SIZE] = [3; SIZE];

    struct Sample {
        /// It has no earlier image of this page.
        lacks: u32,
    }

    impl Source for Sample {
        fn before(&self, row: &ShippedRow<'_>, to: &mut [u8]) -> Result<()> {
            if row.page == self.lacks {
                return Err(Error::new(Code::Gap, "lacked"));
            }
            to.copy_from_slice(&BEFORE);
            Ok(())
        }

        fn check(&self, row: &ShippedRow<'_>, image: &[u8]) -> Result<()> {
            assert_eq!(page_hash(row.page, image), row.hash, "page {}", row.page);
            Ok(())
        }
    }

    fn image(page: u32) -> Vec<u8> {
        let mut image = vec![page as u8; SIZE];
        image[..4].copy_from_slice(&page.to_le_bytes());
        image
    }

    /// Many rows, of which those of some stretches are differences.
    fn blob(count: u32) -> Vec<u8> {
        let header = ShippedHeader {
            lineage: [1; 16],
            range: LsnRange { first: Lsn::new(2), last: Lsn::new(2) },
            full: false,
            before: 3,
            state: State {
                lsn: Lsn::new(2),
                id: 6,
                page_size: SIZE as u32,
                size: count + 1,
                ..State::default()
            },
            checksum_before: None,
            checksum_after: None,
            rows: u64::from(count),
            rows_before: 0,
            rows_here: 0,
            identities: 0,
            token: 4,
            body: 0,
        };
        let mut packing = Packing::new(header, &[]);
        for page in 2..count + 2 {
            let image = image(page);
            let before = (page / 700 % 2 == 1).then_some(&BEFORE[..]);
            packing.push(page, &image, page_hash(page, &image), before);
        }
        packing.finish()
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri runs no C, and so no zstd")]
    fn however_many_threads_all_comes_in_order() {
        let blob = blob(20_000);
        let piece = Shipped::check(&blob).unwrap();
        let rows: Vec<ShippedRow<'_>> = piece.rows().collect();
        for threads in [1, 2, 3, 7] {
            let source = &Sample { lacks: 0 };
            let work = Work { rows: &rows, runs: runs(&rows, SIZE), size: SIZE, source };
            assert!(work.runs.len() > 7);
            let mut next = 2;
            let mut take = |rows: &[ShippedRow<'_>], images: &[u8]| {
                for (row, found) in rows.iter().zip(images.chunks(SIZE)) {
                    assert_eq!(row.page, next);
                    assert_eq!(found, image(next));
                    next += 1;
                }
                Ok(())
            };
            if threads == 1 { work.here(&mut take) } else { work.by_threads(threads, &mut take) }.unwrap();
            assert_eq!(next, 20_002);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "miri runs no C, and so no zstd")]
    fn what_fails_on_a_thread_or_where_it_is_taken_ends_it() {
        let blob = blob(20_000);
        let piece = Shipped::check(&blob).unwrap();
        let rows: Vec<ShippedRow<'_>> = piece.rows().collect();
        let lacks = rows.iter().filter(|row| row.is_difference()).nth(1000).unwrap().page;
        let source = &Sample { lacks };
        let work = Work { rows: &rows, runs: runs(&rows, SIZE), size: SIZE, source };
        let mut taken = 0;
        let failed = work.by_threads(2, &mut |rows, _| {
            taken += rows.len() as u32;
            Ok(())
        });
        assert_eq!(failed.unwrap_err().code(), Code::Gap);
        assert!(taken + 2 <= lacks);
        let refused = work.by_threads(2, &mut |_, _| Err(Error::new(Code::Full, "refused")));
        assert_eq!(refused.unwrap_err().code(), Code::Full);
    }
}
