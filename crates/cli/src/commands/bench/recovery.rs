//! A worker process is killed while it has runs in flight: how soon another one has done them all, and whether anything
//! was done twice.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use windlass::wire::{self, Wiring};
use windlass_core::ids::{EffectId, RunId};
use windlass_core::journal::Entry;
use windlass_core::run::Status;
use windlass_core::value::Value;
use windlass_ports::store::Store;
use windlass_spec::Loaded;

use super::crew::PATIENCE;
use super::field::{Field, until_ended};
use super::load;
use super::naps::{Calls, Naps};
use super::worker::Worker;
use super::{Measured, micros, milliseconds, percentile_ms, rounded};
use crate::app::App;
use crate::args::BenchRecovery;
use crate::exit::Problem;
use crate::journal::Reader;
use crate::{outcome, session};

/// Time between two looks how far the runs are.
const LOOK: Duration = Duration::from_millis(1);
/// Time between two notes about many kills.
const PROGRESS: Duration = Duration::from_secs(5);
/// Rows of a journal that are read at a time.
const ROWS: usize = 1_000;

/// What a kill led to.
#[derive(Debug, Default)]
struct Round {
    /// From the kill to the first call of the next worker.
    taken_over: Duration,
    /// From the kill to the end of the last run.
    complete: Duration,
    /// What the slowest run had left to do at the kill.
    remaining: Duration,
    /// Runs that had not ended at the kill.
    in_flight: u64,
    /// Of those, runs that completed.
    recovered: u64,
    /// Calls that were out at the kill and were made again.
    again: u64,
    /// Calls that were made again although their result was in the journal.
    repeated: u64,
}

struct Play<'a> {
    field: &'a Field,
    args: &'a BenchRecovery,
    naps: Naps,
    store: Arc<dyn Store>,
    engine: windlass_runtime::Engine,
    loaded: Loaded,
}

/// Kills workers, and looks at what becomes of their runs.
pub(crate) async fn recovery(app: &App, field: &Field, args: &BenchRecovery) -> Result<Measured, Problem> {
    let naps = Naps::start(Duration::from_millis(args.step_time.0)).await?;
    let loaded = machine(&naps, args)?;
    let store = field.open().await?;
    let engine = session::observer(Arc::clone(&store));
    let play = Play { field, args, naps, store, engine, loaded };
    let mut worker = play.worker(0)?;
    worker.up().await?;
    let mut rounds = Vec::new();
    let mut told = Instant::now();
    for number in 0..args.kills {
        let round;
        (worker, round) = play.round(number, worker).await?;
        rounds.push(round);
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            app.output.note(&format!("{} of {} kills", number + 1, args.kills));
        }
    }
    let rss = worker.rss_mb();
    worker.kill().await?;
    Ok(report(field, args, &rounds).with("worker_rss_mb", rss))
}

fn report(field: &Field, args: &BenchRecovery, rounds: &[Round]) -> Measured {
    let sorted = |time: fn(&Round) -> Duration| {
        let mut times: Vec<u32> = rounds.iter().map(|round| micros(time(round))).collect();
        times.sort_unstable();
        times
    };
    let sum = |count: fn(&Round) -> u64| rounds.iter().map(count).sum::<u64>();
    let complete = sorted(|round| round.complete);
    let overhead = sorted(|round| round.complete.saturating_sub(round.remaining));
    let taken_over = sorted(|round| round.taken_over);
    let (in_flight, recovered) = (sum(|round| round.in_flight), sum(|round| round.recovered));
    let measured = Measured {
        p50_ms: percentile_ms(&complete, 0.5),
        p99_ms: percentile_ms(&complete, 0.99),
        ..Measured::new("recovery", field.kind())
    };
    measured
        .with_ms("kill_to_complete_max_ms", &complete, 1.0)
        .with_ms("remaining_work_max_ms", &sorted(|round| round.remaining), 1.0)
        .with_ms("overhead_p50_ms", &overhead, 0.5)
        .with_ms("overhead_max_ms", &overhead, 1.0)
        .with_ms("kill_to_first_call_p50_ms", &taken_over, 0.5)
        .with_ms("kill_to_first_call_max_ms", &taken_over, 1.0)
        .with("lease_ms", field.lease().map(milliseconds))
        .with("kills", args.kills)
        .with("runs", args.runs)
        .with("steps", args.steps)
        .with("step_time_ms", args.step_time.0)
        .with("in_flight", in_flight)
        .with("recovered", recovered)
        .with("recovered_percent", rounded(recovered as f64 * 100.0 / in_flight.max(1) as f64))
        .with("calls_made_again", sum(|round| round.again))
        .with("settled_steps_repeated", sum(|round| round.repeated))
}

/// The machine, with the contract of the action as the workers have it.
fn machine(naps: &Naps, args: &BenchRecovery) -> Result<Loaded, Problem> {
    let invalid = |error: &dyn std::fmt::Display| Problem::bug(format!("the action of the measurement: {error}"));
    let text = naps.configuration(0, args.runs);
    let config: crate::config::Config = toml::from_str(&text).map_err(|error| invalid(&error))?;
    let catalog = windlass_tools::CatalogConfig { actions: config.actions, ..Default::default() };
    let catalog = Wiring { catalog, ..Wiring::default() }.catalog().map_err(|error| invalid(&error))?;
    load::stepper_with(args.steps, wire::contracts(&catalog))
}

/// The share of all steps that are done at a kill: half at the first, spread out at further ones.
fn share(number: u32) -> f64 {
    match number {
        0 => 0.5,
        n => 0.05 + 0.9 * (f64::from(n) * 0.618_034).fract(),
    }
}

impl Play<'_> {
    fn worker(&self, number: u32) -> Result<Worker, Problem> {
        let config = self.field.path(&format!("worker-{number}.toml"));
        std::fs::write(&config, self.naps.configuration(number, self.args.runs)).map_err(|error| {
            Problem::new(
                crate::exit::Exit::Unreachable,
                "cli.io",
                format!("cannot write `{}`: {error}", config.display()),
            )
        })?;
        Worker::start(self.field, &config)
    }

    /// Submits runs, kills the worker when some of their steps are done, and lets another one do the rest.
    async fn round(&self, number: u32, worker: Worker) -> Result<(Worker, Round), Problem> {
        let mut runs = Vec::new();
        let answered_before = self.naps.answered();
        for _ in 0..self.args.runs {
            let submission = load::submission(&self.loaded, &Value::Null, None);
            runs.push(self.engine.submit(submission).await.map_err(outcome::submit_problem)?.run_id);
        }
        let all = f64::from(self.args.runs) * f64::from(self.args.steps);
        let wanted = (all * share(number)) as u64;
        let begun = Instant::now();
        while self.naps.answered() - answered_before < wanted {
            tokio::time::sleep(LOOK).await;
            if begun.elapsed() > PATIENCE {
                return Err(Problem::bug("the worker of the measurement does not go on"));
            }
        }
        let killed_at = Instant::now();
        worker.kill().await?;
        let next = self.worker(number + 1)?;
        until_ended(&*self.store, PATIENCE + self.field.lease().unwrap_or_default()).await?;
        let complete = killed_at.elapsed();
        let taken_over = self.naps.first(number + 1).map_or(complete, |first| first.duration_since(killed_at));
        let round = Round { complete, taken_over, ..Round::default() };
        Ok((next, self.look(round, killed_at, &runs).await?))
    }

    /// Compares the journals with the calls that came in.
    async fn look(&self, mut round: Round, killed_at: Instant, runs: &[RunId]) -> Result<Round, Problem> {
        let calls = self.naps.take();
        for run in runs {
            let seen = self.seen(run).await?;
            let head = self.store.load(run.clone()).await?.map(|stored| stored.head);
            let has_completed = head.is_some_and(|head| head.status == Status::Completed);
            let done = seen.values().filter(|seen| seen.was_answered_before(&calls, killed_at)).count();
            let left = self.args.steps.saturating_sub(u32::try_from(done).unwrap_or(u32::MAX));
            round.remaining = round.remaining.max(Duration::from_millis(self.args.step_time.0) * left);
            if left > 0 {
                round.in_flight += 1;
                round.recovered += u64::from(has_completed);
            }
            for seen in seen.values() {
                let made = u64::from(calls.get(&seen.key).map_or(0, |calls| calls.made));
                round.again += made.saturating_sub(1);
                round.repeated += made.saturating_sub(seen.attempts) + seen.settled.saturating_sub(1);
            }
        }
        Ok(round)
    }

    /// What the journal of a run says about its calls.
    async fn seen(&self, run: &RunId) -> Result<BTreeMap<EffectId, Seen>, Problem> {
        let mut reader = Reader::new(Arc::clone(&self.store), run.clone(), 0);
        let mut seen: BTreeMap<EffectId, Seen> = BTreeMap::new();
        loop {
            let records = reader.next(ROWS).await?;
            if records.is_empty() {
                return Ok(seen);
            }
            for entry in records.into_iter().flat_map(|record| record.entries) {
                match entry {
                    Entry::CallIntended { effect, .. } => {
                        seen.insert(effect, Seen { key: effect.key(run), attempts: 1, settled: 0 });
                    }
                    Entry::AttemptFailed { effect, .. } => seen.entry(effect).or_default().attempts += 1,
                    Entry::CallSettled { effect, .. } => seen.entry(effect).or_default().settled += 1,
                    _ => {}
                }
            }
        }
    }
}

/// A call as a journal has it.
#[derive(Debug, Default)]
struct Seen {
    key: String,
    /// How often it may have left.
    attempts: u64,
    /// How often it has a result.
    settled: u64,
}

impl Seen {
    fn was_answered_before(&self, calls: &HashMap<String, Calls>, moment: Instant) -> bool {
        calls.get(&self.key).and_then(|calls| calls.answered).is_some_and(|answered| answered <= moment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_come_early_and_late() {
        let shares: Vec<f64> = (0..100).map(share).collect();
        assert_eq!(shares.first(), Some(&0.5));
        assert!(shares.iter().all(|share| (0.05..0.95).contains(share)));
        assert!(shares.iter().any(|share| *share < 0.15) && shares.iter().any(|share| *share > 0.85));
    }
}
