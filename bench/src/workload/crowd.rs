//! Connections of several threads at once, for a fixed time.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// What one thread does.
pub trait Member: Send {
    /// Works until then, and counts what it has finished by then.
    fn work(&mut self, until: Instant) -> Result<u64>;
}

/// Lets all work at once; gives their counts in their order.
pub fn at_once<'a>(
    members: impl ExactSizeIterator<Item = &'a mut dyn Member>,
    seconds: f64,
) -> Result<Vec<u64>> {
    let ready = Barrier::new(members.len());
    std::thread::scope(|scope| {
        let threads: Vec<_> = members
            .map(|member| {
                let ready = &ready;
                scope.spawn(move || {
                    ready.wait();
                    member.work(Instant::now() + Duration::from_secs_f64(seconds))
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked"))))
            .collect()
    })
}

/// Repeats `step` until then, and counts how many were over by then. The last one isn't, and doesn't count.
pub fn repeat(until: Instant, mut step: impl FnMut() -> Result<()>) -> Result<u64> {
    let mut finished = 0;
    loop {
        step()?;
        if Instant::now() >= until {
            return Ok(finished);
        }
        finished += 1;
    }
}
