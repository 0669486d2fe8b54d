//! From the steps that led to a difference to fewer that do.

use std::fmt::Write;
use std::time::{Duration, Instant};

use super::play::{Difference, Play};
use super::step::{Setting, Step};

/// How long it goes on.
const MOST: Duration = Duration::from_secs(90);

/// Plays all steps on new databases: the number of the one that the sides differ in, and how.
pub(super) fn replay(setting: &Setting, steps: &[Step]) -> Option<(usize, Difference)> {
    let mut play = match Play::new(setting) {
        Ok(play) => play,
        Err(difference) => return Some((0, difference)),
    };
    steps.iter().enumerate().find_map(|(at, step)| Some((at, play.step(step).err()?)))
}

/// Leaves out steps for as long as the sides still differ in the last one, and tells what is left.
pub(super) fn shrink(setting: &Setting, steps: &[Step]) -> String {
    let begun = Instant::now();
    let Some((last, mut difference)) = replay(setting, steps) else {
        return "the steps alone, played again, don't show it".to_owned();
    };
    // Another difference may be an honest one: what is left out makes scripts that no author writes.
    let kind = |steps: &[Step], last: usize, difference: &Difference| {
        (steps.get(last).map(std::mem::discriminant), difference.kind.clone())
    };
    let sought = kind(steps, last, &difference);
    let mut steps = steps[..steps.len().min(last + 1)].to_vec();
    let mut piece = steps.len().div_ceil(2);
    while piece > 0 {
        let mut smaller = false;
        let mut end = steps.len().saturating_sub(1);
        while end > 0 && begun.elapsed() < MOST {
            let start = end.saturating_sub(piece);
            let rest = [&steps[..start], &steps[end..]].concat();
            let found = replay(setting, &rest).filter(|(last, found)| kind(&rest, *last, found) == sought);
            if let Some((last, found)) = found {
                smaller = true;
                difference = found;
                steps = rest[..rest.len().min(last + 1)].to_vec();
                end = start.min(steps.len().saturating_sub(1));
            } else {
                end = start;
            }
        }
        if begun.elapsed() >= MOST {
            break;
        }
        if piece > 1 || !smaller {
            piece /= 2;
        }
    }
    let mut text = format!("{setting}\n");
    for step in &steps {
        writeln!(text, "{step}").expect("a string");
    }
    format!("{text}  {}", difference.text)
}
