//! What a commit costs in bytes that go to the disk.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use anyhow::{Context, Result};
use rusqlite::Connection;

use super::{Arm, Bed, Metric, ON_DISK, Unit, Workload};
use crate::data::{self, Bodies, Rng};
use crate::engine::{Cache, Engine, Site, Sync, Tuning};

/// A round is long, so that it has its share of checkpoints.
const TIMES: u64 = 10;
const TIMES_SYNCED: u64 = 3;
/// Bytes that a disk at rest may write while it is watched.
const NOISE: u64 = 256 << 10;
/// How often it is watched before it counts as somebody else's.
const PATIENCE: u32 = 25;

struct Written {
    name: &'static str,
    title: &'static str,
    sync: Sync,
}

const ALL: [Written; 2] = [
    Written {
        name: "written-normal",
        title: "bytes to the disk for a commit of one random UPDATE, synchronous=NORMAL",
        sync: Sync::Normal,
    },
    Written {
        name: "written-full",
        title: "bytes to the disk for a commit of one random UPDATE, synchronous=FULL",
        sync: Sync::Full,
    },
];

/// At two levels of `synchronous`.
pub fn all() -> impl Iterator<Item = Box<dyn Workload>> {
    ALL.into_iter().map(|written| Box::new(written) as Box<dyn Workload>)
}

impl Workload for Written {
    fn name(&self) -> &str {
        self.name
    }

    fn about(&self) -> String {
        format!(
            "{}; with a sync at the end, as the disk counts them: nobody else may write to it",
            self.title
        )
    }

    fn metrics(&self) -> Vec<Metric> {
        vec![Metric::main(self.title, Unit::Bytes)]
    }

    fn engines(&self) -> &[Engine] {
        &ON_DISK
    }

    fn arm(&self, bed: &Bed, engine: Engine) -> Result<Box<dyn Arm>> {
        let tuning = Tuning { sync: self.sync, cache: Cache::Default };
        let (site, connection) = bed.built(engine, bed.scale.rows, tuning)?;
        data::warm(&connection)?;
        let commits = match self.sync {
            Sync::Full => bed.scale.synced_commits * TIMES_SYNCED,
            Sync::Off | Sync::Normal => bed.scale.commits * TIMES,
        };
        let arm = WrittenArm {
            name: self.name,
            site,
            connection,
            rows: bed.scale.rows,
            commits,
            rng: Rng::new(9),
            bodies: Bodies::new(),
        };
        if arm.disk_bytes()?.is_none() {
            eprintln!("bench: no disk is known for {}, so {} isn't either", bed.dir.display(), self.name);
        }
        Ok(Box::new(arm))
    }
}

struct WrittenArm {
    name: &'static str,
    site: Site,
    connection: Connection,
    rows: u64,
    commits: u64,
    rng: Rng,
    bodies: Bodies,
}

impl WrittenArm {
    /// Brings everything to the disk, and gives the bytes so far; none where that can't be known. What either journal
    /// holds stays there: in a long run it is as much in the end as in the beginning. Emptying it would be work that the
    /// run doesn't have, and of a store that keeps history more than that.
    fn settled(&self) -> Result<Option<u64>> {
        #[cfg(target_os = "linux")]
        nix::unistd::syncfs(fs::File::open(&self.site.path)?)?;
        let Some(mut bytes) = self.disk_bytes()? else { return Ok(None) };
        // A store may write in the background, which is its work too. Somebody else's isn't.
        for _ in 0..PATIENCE {
            std::thread::sleep(Duration::from_millis(200));
            let before = bytes;
            bytes = self.disk_bytes()?.context("the disk is gone")?;
            if bytes - before <= NOISE {
                return Ok(Some(bytes));
            }
        }
        eprintln!("bench: somebody else writes to the disk, so {} isn't known", self.name);
        Ok(None)
    }

    /// As the disk itself counts them. What the kernel charges to a process (`write_bytes`) is another thing: all of a
    /// large folio when a part of it is changed, though only that part is written.
    fn disk_bytes(&self) -> Result<Option<u64>> {
        let device = fs::metadata(&self.site.path)?.dev();
        let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xf_ff00));
        // Without one, as on tmpfs, nothing goes to a disk; some file systems have several.
        let Ok(stat) = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")) else {
            return Ok(None);
        };
        let sectors: u64 = stat.split_whitespace().nth(6).context("a disk's stat is too short")?.parse()?;
        Ok(Some(sectors * 512))
    }
}

impl Arm for WrittenArm {
    fn round(&mut self) -> Result<Vec<f64>> {
        let before = self.settled()?;
        {
            let Self { connection, rng, bodies, .. } = self;
            let mut update = connection.prepare_cached("UPDATE item SET body = ?2 WHERE id = 1 + ?1")?;
            for _ in 0..self.commits {
                update.raw_bind_parameter(1, rng.below(self.rows))?;
                update.raw_bind_parameter(2, bodies.pick(rng.next()))?;
                update.raw_execute()?;
            }
        }
        let bytes = before.zip(self.settled()?).map_or(f64::NAN, |(before, after)| (after - before) as f64);
        Ok(vec![bytes / self.commits as f64])
    }

    fn digest(&mut self) -> Result<Option<String>> {
        data::digest(&self.connection).map(Some)
    }
}
