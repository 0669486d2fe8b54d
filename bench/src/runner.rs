//! Runs the workloads, engine by engine within each round.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::Path;

use anyhow::{Context, Result};

use crate::config::Plan;
use crate::engine::Engine;
use crate::stats::Summary;
use crate::worker::{Task, Worker};
use crate::workload::{Bed, Metric, Unit, Workload};

/// To the line's beginning, and erase it.
const CLEAR: &str = "\r\x1b[K";

/// What became of one workload.
pub struct Outcome {
    /// Its name.
    pub workload: String,
    /// What was measured.
    pub metrics: Vec<Metric>,
    /// Who can do it at all.
    pub able: Vec<Engine>,
    /// For each round and engine, a value for each metric.
    pub rounds: Vec<BTreeMap<Engine, Vec<f64>>>,
    /// Who failed, and why. What they measured before is dropped.
    pub failures: BTreeMap<Engine, String>,
}

impl Outcome {
    /// The values of an engine, round by round.
    pub fn summary(&self, metric: usize, engine: Engine) -> Option<Summary> {
        let values = self.rounds.iter().filter_map(|round| Some(round.get(&engine)?[metric]));
        Summary::of(values.filter(|value| value.is_finite()))
    }

    /// How many times as good as `peer` the `engine` is: above 1 it is better. Computed within each round. None of a
    /// share, which can be nothing, and where a round divides by nothing.
    pub fn gain(&self, metric: usize, engine: Engine, peer: Engine) -> Option<Summary> {
        let unit = self.metrics[metric].unit;
        if unit == Unit::Share {
            return None;
        }
        let known = self.rounds.iter().filter_map(|round| {
            let (ours, theirs) = (round.get(&engine)?[metric], round.get(&peer)?[metric]);
            (ours.is_finite() && theirs.is_finite()).then_some((ours, theirs))
        });
        let gains: Vec<f64> = known
            .map(|(ours, theirs)| if unit.more_is_better() { ours / theirs } else { theirs / ours })
            .collect();
        if gains.iter().all(|gain| gain.is_finite()) { Summary::of(gains) } else { None }
    }
}

/// Runs all workloads of the plan.
pub fn run(plan: &Plan) -> Result<Vec<Outcome>> {
    let folder = tempfile::Builder::new()
        .prefix("tideline-bench-")
        .tempdir_in(&plan.dir)
        .with_context(|| format!("a temporary folder in {}", plan.dir.display()))?;
    plan.workloads.iter().map(|workload| run_one(plan, workload.as_ref(), folder.path())).collect()
}

fn run_one(plan: &Plan, workload: &dyn Workload, folder: &Path) -> Result<Outcome> {
    let templates = &folder.join("templates");
    let folder = folder.join(workload.name());
    let mut outcome = Outcome {
        workload: workload.name().to_owned(),
        metrics: workload.metrics(),
        able: workload.engines().to_vec(),
        rounds: Vec::new(),
        failures: BTreeMap::new(),
    };
    let mut workers = Vec::new();
    for &engine in plan.engines.iter().filter(|engine| workload.engines().contains(engine)) {
        progress(workload, &format!("set up {}", engine.key()));
        let dir = folder.join(engine.key());
        std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let templates = plan.copies.then(|| templates.to_path_buf());
        let bed = Bed { dir, scale: plan.scale, settings: plan.settings.clone(), templates };
        let task = Task::Arm { workload: workload.name().to_owned(), engine, bed };
        match Worker::start(&task, plan.timeout) {
            Ok(worker) => workers.push((engine, worker)),
            Err(error) => fail(&mut outcome, engine, &error),
        }
    }

    for round in 0..plan.warmup + plan.rounds {
        progress(workload, &format!("round {} of {}", round + 1, plan.warmup + plan.rounds));
        let mut values = BTreeMap::new();
        reorder(&mut workers, round);
        workers.retain_mut(|(engine, worker)| {
            settle(&folder);
            match worker.round() {
                Ok(measured) => {
                    debug_assert_eq!(measured.len(), outcome.metrics.len());
                    values.insert(*engine, measured);
                    true
                }
                Err(error) => {
                    fail(&mut outcome, *engine, &error);
                    false
                }
            }
        });
        if round >= plan.warmup {
            outcome.rounds.push(values);
        }
    }

    workers.sort_by_key(|(engine, _)| *engine);
    let mut agreed: Option<(Engine, String)> = None;
    for (engine, worker) in &mut workers {
        progress(workload, &format!("check {}", engine.key()));
        match (worker.digest(), &agreed) {
            (Err(error), _) => fail(&mut outcome, *engine, &error),
            (Ok(Some(digest)), Some((other, expected))) if digest != *expected => {
                let error = anyhow::anyhow!("it has {digest} at the end, {} has {expected}", other.title());
                fail(&mut outcome, *engine, &error);
            }
            (Ok(Some(digest)), None) => agreed = Some((*engine, digest)),
            (Ok(_), _) => {}
        }
    }
    drop(workers);
    std::fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    clear_progress();
    Ok(outcome)
}

/// Gives a round its order, so that over the rounds everyone is at each place, and behind each other one, about equally
/// often: the rows of a Williams square, every second one backwards. With a mere rotation an engine that always comes
/// behind the same one gains or loses several percent, as two engines that were in fact the same one showed.
fn reorder<T>(workers: &mut [(Engine, T)], round: usize) {
    let count = workers.len();
    let place = |engine_index: usize| {
        let position = (0..count).position(|at| {
            let first_row = if at % 2 == 1 { at.div_ceil(2) } else { (count - at / 2) % count };
            (first_row + round / 2) % count == engine_index
        });
        let position = position.unwrap_or(engine_index);
        if round % 2 == 1 { count - 1 - position } else { position }
    };
    let mut engines: Vec<Engine> = workers.iter().map(|(engine, _)| *engine).collect();
    engines.sort();
    workers.sort_by_key(|(engine, _)| engines.binary_search(engine).map_or(count, place));
}

fn fail(outcome: &mut Outcome, engine: Engine, error: &anyhow::Error) {
    let text = format!("{error:#}");
    clear_progress();
    eprintln!("{}: {} failed: {text}", outcome.workload, engine.key());
    for round in &mut outcome.rounds {
        round.remove(&engine);
    }
    outcome.failures.insert(engine, text);
}

/// Lets the disk finish what an earlier round left in the system's memory, so that nobody pays for another's writes.
fn settle(folder: &Path) {
    #[cfg(target_os = "linux")]
    if let Ok(folder) = std::fs::File::open(folder) {
        // A failure only leaves more noise.
        let _ = nix::unistd::syncfs(folder);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = folder;
}

/// Says on a terminal, in one line, what is going on.
fn progress(workload: &dyn Workload, what: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("{CLEAR}{}: {what}", workload.name());
    }
}

/// Takes that line away.
fn clear_progress() {
    if std::io::stderr().is_terminal() {
        eprint!("{CLEAR}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(unit: Unit, pairs: &[(f64, f64)]) -> Outcome {
        let round = |&(stock, tideline): &(f64, f64)| {
            BTreeMap::from([(Engine::Stock, vec![stock]), (Engine::Tideline, vec![tideline])])
        };
        Outcome {
            workload: String::new(),
            metrics: vec![Metric::main("", unit)],
            able: Engine::ALL.to_vec(),
            rounds: pairs.iter().map(round).collect(),
            failures: BTreeMap::new(),
        }
    }

    #[test]
    fn a_gain_is_above_one_where_tideline_is_better_and_knows_nothing_of_what_is_not_known() {
        let median = |unit, pairs: &[_]| {
            outcome(unit, pairs).gain(0, Engine::Tideline, Engine::Stock).map(|gain| gain.median)
        };
        assert_eq!(median(Unit::Bytes, &[(6.0, 2.0), (f64::NAN, 2.0)]), Some(3.0));
        assert_eq!(median(Unit::PerSecond, &[(2.0, 6.0)]), Some(3.0));
        assert_eq!(median(Unit::Bytes, &[(6.0, 2.0), (1.0, 0.0)]), None);
        assert_eq!(median(Unit::Share, &[(0.5, 1.0)]), None);
    }

    #[test]
    fn three_engines_take_all_six_orders() {
        let mut workers = [Engine::Stock, Engine::Tideline, Engine::Memory].map(|engine| (engine, ()));
        let mut orders = std::collections::BTreeSet::new();
        for round in 0..6 {
            reorder(&mut workers, round);
            orders.insert(workers.map(|(engine, ())| engine));
        }
        assert_eq!(orders.len(), 6);
    }
}
