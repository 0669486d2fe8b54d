//! How long single commits take: the usual one, and the rare slow ones.

use std::time::Instant;

use anyhow::{Result, ensure};
use rusqlite::Connection;

use super::{Arm, Bed, Metric, ON_DISK, Unit, Workload};
use crate::data::{self, Bodies, KEYS, Rng};
use crate::engine::{Cache, Engine, Site, Sync, Tuning};

const TUNING: Tuning = Tuning { sync: Sync::Normal, cache: Cache::Whole };
/// More commits in a second than any engine does.
const COMMITS_PER_SECOND: f64 = 300_000.0;
/// So many make a 99.9th percentile that isn't the maximum.
const FEWEST: usize = 2_000;

/// The latencies.
pub struct Tail;

impl Workload for Tail {
    fn name(&self) -> &str {
        "tail"
    }

    fn about(&self) -> String {
        "autocommit INSERT, one index, synchronous=NORMAL, one after the other for a fixed time (a minute at scale large), \
         into a new database each round: percentiles of a commit's time"
            .to_owned()
    }

    fn metrics(&self) -> Vec<Metric> {
        let title = "autocommit INSERT for a time";
        vec![
            Metric::main(format!("{title}: median"), Unit::Seconds),
            Metric::named("p99", format!("{title}: 99th percentile"), Unit::Seconds),
            Metric::named("p999", format!("{title}: 99.9th percentile"), Unit::Seconds),
            Metric::named("max", format!("{title}: maximum"), Unit::Seconds),
            Metric::named("spread", format!("{title}: 99.9th percentile ÷ median"), Unit::Times),
        ]
    }

    fn engines(&self) -> &[Engine] {
        &ON_DISK
    }

    fn arm(&self, bed: &Bed, engine: Engine) -> Result<Box<dyn Arm>> {
        let seconds = bed.scale.tail_seconds;
        Ok(Box::new(TailArm {
            site: bed.site(engine, "round-0")?,
            prefill: bed.scale.prefill,
            seconds,
            rounds: 0,
            bodies: Bodies::new(),
            // Touched here: a page fault in the loop would look like a slow commit.
            times: vec![1.0; (seconds * COMMITS_PER_SECOND) as usize],
            last: None,
        }))
    }
}

struct TailArm {
    site: Site,
    prefill: u64,
    seconds: f64,
    rounds: u64,
    bodies: Bodies,
    /// Seconds of each commit, in as few bytes as will do.
    times: Vec<f32>,
    last: Option<Connection>,
}

impl Arm for TailArm {
    fn round(&mut self) -> Result<Vec<f64>> {
        if let Some(last) = self.last.take() {
            last.close().map_err(|(_, error)| error)?;
            std::fs::remove_dir_all(self.site.folder()?)?;
        }
        self.rounds += 1;
        // A database that the faster engine has made larger would be another workload.
        self.site = self.site.sibling(&format!("round-{}", self.rounds))?;
        let connection = self.site.create(TUNING)?;
        data::build(&connection, self.prefill)?;
        let connection = self.last.insert(self.site.reopen(connection, TUNING)?);
        data::warm(connection)?;

        let Self { times, bodies, .. } = self;
        times.clear();
        let mut rng = Rng::new(8);
        let mut insert = connection.prepare_cached("INSERT INTO item(key, body) VALUES(?1, ?2)")?;
        let start = Instant::now();
        let mut before = start;
        while (before - start).as_secs_f64() < self.seconds {
            insert.raw_bind_parameter(1, rng.below(KEYS))?;
            insert.raw_bind_parameter(2, bodies.pick(rng.next()))?;
            insert.raw_execute()?;
            let now = Instant::now();
            times.push((now - before).as_secs_f32());
            before = now;
        }
        percentiles(times)
    }

    fn digest(&mut self) -> Result<Option<String>> {
        if let Some(last) = &self.last {
            data::digest(last)?;
        }
        Ok(None)
    }
}

/// The values of [`Tail::metrics`].
fn percentiles(times: &mut [f32]) -> Result<Vec<f64>> {
    ensure!(times.len() >= FEWEST, "only {} commits, too few for a 99.9th percentile", times.len());
    times.sort_by(f32::total_cmp);
    let at = |part: f64| f64::from(times[((times.len() - 1) as f64 * part).round() as usize]);
    let (median, p999) = (at(0.5), at(0.999));
    Ok(vec![median, at(0.99), p999, at(1.0), p999 / median])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_ramp() {
        let mut ramp: Vec<f32> = (0..=10_000_u16).rev().map(f32::from).collect();
        assert_eq!(percentiles(&mut ramp).unwrap(), [5000.0, 9900.0, 9990.0, 10000.0, 1.998]);
        assert!(percentiles(&mut ramp[..100]).is_err());
    }
}
