//! How much history stays readable.

use std::sync::Arc;

use crate::control::Lock;
use crate::error::Result;
use crate::format::{Retention, Superblock};
use crate::index::Index;
use crate::lsn::Lsn;
use crate::segment::Segment;
use crate::state::State;
use crate::store::Store;

/// History kept when nobody said otherwise.
const DEFAULT_BYTES: u64 = 64 << 20;
const DEFAULT_LSNS: u64 = 10_000;

/// A commit that is so far ahead of this machine's clock, in milliseconds, was made by a clock that was wrong: a day.
const WRONG_BY: u64 = 24 * 3600 * 1000;

impl Store {
    /// What is in force.
    ///
    /// # Errors
    /// `Io`, `Damaged`.
    pub fn retention(&self) -> Result<Retention> {
        Ok(self.read_superblock()?.retention)
    }

    /// Sets it, durably; what it no longer asks for goes as commits and closes come by.
    ///
    /// # Errors
    /// `Io`, `Busy`.
    pub fn set_retention(&self, retention: Retention) -> Result<()> {
        {
            let _guard = self.lock_superblock()?;
            let mut block = self.read_superblock()?;
            block.retention = retention;
            self.write_superblock(&mut block)?;
        }
        self.rolled.store(true, std::sync::atomic::Ordering::Relaxed);
        let running = self.fold.lock();
        if running.is_none() && self.control.file().try_lock(Lock::Fold)? {
            let trimmed = self.trim();
            self.control.file().unlock(Lock::Fold);
            trimmed?;
        }
        Ok(())
    }
}

/// The horizon that retention asks for, up to `limit`, which isn't above `head`, if it is above the present one: always
/// the last LSN of a sealed segment.
pub(crate) fn retained_from(
    index: &Index,
    block: &Superblock,
    head: Lsn,
    limit: Lsn,
    now: u64,
) -> Result<Option<Lsn>> {
    let segments = index.retained_journal(block.horizon.lsn);
    let lens: Vec<u64> = segments.iter().map(|segment| segment.len()).collect::<Result<_>>()?;
    let mut behind: u64 = lens.iter().sum();
    let mut horizon = None;
    let mut dropped = 0;
    for (n, (pair, len)) in segments.windows(2).zip(&lens).enumerate() {
        behind -= len;
        let last = Lsn::new(pair[1].header.first.get() - 1);
        // Others go on meanwhile: a segment may have begun behind the head that was looked at.
        if last > limit {
            break;
        }
        let lsns = head.get() - last.get();
        let droppable = match block.retention {
            Retention::Default => behind >= DEFAULT_BYTES || lsns >= DEFAULT_LSNS,
            Retention::None => true,
            Retention::Bytes(bytes) => behind >= bytes,
            Retention::Lsns(count) => lsns >= count,
            Retention::Seconds(seconds) => match index.state(last)? {
                Some(state) => now.saturating_sub(made(&state, &segments[n + 1..], now)) / 1000 >= seconds,
                None => false,
            },
        };
        if !droppable {
            break;
        }
        if last > block.horizon.lsn {
            dropped += len;
            horizon = Some(last);
        }
    }
    // Few folds of much cost less than many of little: each has its fsyncs.
    let lsns = horizon.map_or(0, |horizon| horizon.get() - block.horizon.lsn.get());
    let enough = match block.retention {
        Retention::Default => dropped >= DEFAULT_BYTES || lsns >= DEFAULT_LSNS,
        Retention::Bytes(bytes) => dropped >= bytes.min(DEFAULT_BYTES) / 2,
        Retention::Lsns(count) => lsns >= count.min(DEFAULT_LSNS) / 2,
        Retention::None | Retention::Seconds(_) => true,
    };
    Ok(horizon.filter(|_| enough))
}

/// When the commit that led to `state` was made, in milliseconds since 1970, as far as that is known `now`. By a clock that
/// was far ahead it would be young for as long, and so would all behind it, whose times are never lower. It is older than
/// the segments that were begun behind it.
fn made(state: &State, behind: &[&Arc<Segment>], now: u64) -> u64 {
    let is_wrong = |time: u64| time > now.saturating_add(WRONG_BY);
    if !is_wrong(state.time) {
        return state.time;
    }
    behind.iter().map(|segment| segment.header.time).find(|&time| !is_wrong(time)).unwrap_or(state.time)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::clock::Clock;
    use crate::disk::{Disk, SimDisk};
    use crate::sample::{commit, write};
    use crate::session::Session;
    use crate::store::Options;

    #[test]
    fn segments_that_others_have_begun_meanwhile_are_not_asked_for() -> Result<()> {
        let disk: Arc<dyn Disk> = SimDisk::new().process();
        let options = Options { background: false, segment_bytes: 8 << 10, ..Options::default() };
        let store = Store::open(disk, Path::new("/app.db"), options)?;
        let mut session = Session::new(Arc::clone(&store))?;
        for fill in 1..=20 {
            write(&mut session, fill)?;
            commit(&mut session)?;
        }
        let (index, mut block) = (store.whole()?, store.read_superblock()?);
        assert!(index.segments().count() > 2);
        for retention in [Retention::Default, Retention::Lsns(1), Retention::None] {
            block.retention = retention;
            assert_eq!(retained_from(&index, &block, Lsn::new(1), Lsn::new(1), 0)?, None);
        }
        Ok(())
    }

    /// A clock that somebody sets.
    struct Set(AtomicU64);

    impl Clock for Set {
        fn now_ms(&self) -> u64 {
            self.0.load(Ordering::SeqCst)
        }
    }

    #[test]
    fn a_commit_of_a_clock_that_was_far_ahead_does_not_keep_history_for_ever() -> Result<()> {
        const DAY: u64 = 24 * 3600 * 1000;
        let clock = Arc::new(Set(AtomicU64::new(1_700_000_000_000)));
        let disk: Arc<dyn Disk> = SimDisk::new().process();
        let options = Options {
            background: false,
            segment_bytes: 8 << 10,
            clock: Arc::clone(&clock) as _,
            ..Options::default()
        };
        let store = Store::open(disk, Path::new("/app.db"), options)?;
        let mut session = Session::new(Arc::clone(&store))?;
        let mut commits = |count| {
            for fill in 1..=count {
                write(&mut session, fill)?;
                commit(&mut session)?;
            }
            Ok::<_, crate::error::Error>(store.head())
        };
        let kept = |seconds| {
            let (index, mut block) = (store.whole()?, store.read_superblock()?);
            block.retention = Retention::Seconds(seconds);
            retained_from(&index, &block, store.head(), store.head(), clock.now_ms())
        };
        commits(1)?;
        clock.0.fetch_add(300 * DAY, Ordering::SeqCst);
        let ahead = commits(20)?;
        assert_eq!(kept(7 * 24 * 3600)?, None);
        clock.0.fetch_sub(300 * DAY, Ordering::SeqCst);
        commits(20)?;
        clock.0.fetch_add(5 * DAY, Ordering::SeqCst);
        let young = commits(20)?;
        assert_eq!(kept(7 * 24 * 3600)?, None, "nothing is as old as that");
        clock.0.fetch_add(3 * DAY, Ordering::SeqCst);
        let horizon = kept(7 * 24 * 3600)?.expect("what is older isn't retained");
        assert!(horizon > ahead && horizon < young, "{ahead} {horizon} {young}");
        Ok(())
    }
}
