//! A tenant with very many runs in the queue beside one with a few: what the few have to wait for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use windlass_core::ids::RunId;
use windlass_core::run::TenantScope;
use windlass_core::value::Value;
use windlass_runtime::{Engine, Silent};
use windlass_spec::Loaded;

use super::crew::{Crew, until_ended};
use super::field::Field;
use super::load::{self, Shape};
use super::meter::{Meter, sorted_between};
use super::{Measured, percentile_ms, rounded};
use crate::app::App;
use crate::args::BenchFairness;
use crate::exit::Problem;
use crate::outcome;

/// Submissions that wait for the store at the same time.
const SUBMITTERS: usize = 256;
/// Submissions between two looks at the clock.
const PART: usize = 1_000;
/// Time between two notes.
const PROGRESS: Duration = Duration::from_secs(5);
/// Runs of the large tenant that end before the small one comes: its work is in full swing then.
const FIRST: u64 = 20;

/// Fills the queue for one tenant, and measures the runs of another one that come later.
pub(crate) async fn fairness(app: &App, field: &Field, args: &BenchFairness) -> Result<Measured, Problem> {
    let (loaded, data) = (Arc::new(load::stepper(args.steps)?), load::data(0));
    let caller = load::engine(field.open().await?, Arc::new(Silent), &Shape::default());
    fill(app, &caller, &loaded, &data, args.runs as usize).await?;
    let meter = Arc::new(Meter::new(Arc::new(Semaphore::new(0))));
    let shape = Shape {
        call_slots: Some(args.slots as usize),
        step_time: Duration::from_millis(args.step_time.0),
        ..Shape::default()
    };
    let crew = Crew::start(field, args.workers, |store| load::engine(store, meter.clone(), &shape)).await?;
    until_ended(&meter, FIRST.min(u64::from(args.runs))).await?;
    let (before, begun) = (meter.ended(), Instant::now());
    let mut submitting = JoinSet::new();
    for _ in 0..args.few {
        let run = RunId::stored(&uuid::Uuid::now_v7().to_string());
        meter.arrives(run.clone(), Instant::now());
        let mut submission = load::submission(&loaded, &data, Some(run));
        submission.scope = TenantScope { tenant: "few".into(), user: None };
        let caller = caller.clone();
        submitting.spawn(async move { caller.submit(submission).await.map_err(outcome::submit_problem) });
    }
    while let Some(submitted) = submitting.join_next().await {
        submitted.map_err(|error| Problem::bug(format!("a submission ended: {error}")))??;
    }
    until_all_ended(&meter, &crew).await?;
    let (seconds, ended) = (begun.elapsed().as_secs_f64(), meter.ended() - before);
    let arrivals = meter.arrivals();
    crew.end().await?;
    caller.leave().await;
    let whole = sorted_between(&arrivals, |run| Some(run.wanted), |run| run.ended);
    Ok(Measured {
        p50_ms: percentile_ms(&whole, 0.5),
        p99_ms: percentile_ms(&whole, 0.99),
        ..Measured::new("fairness", field.kind())
    }
    .with("runs_of_many", args.runs)
    .with("runs_of_few", args.few)
    .with("workers", args.workers)
    .with("slots", args.slots)
    .with("alone_ms", u64::from(args.steps) * args.step_time.0)
    .with("of_many_meanwhile", ended.saturating_sub(u64::from(args.few)))
    .with("seconds", rounded(seconds)))
}

/// Puts the runs of the large tenant into the queue.
async fn fill(app: &App, caller: &Engine, loaded: &Arc<Loaded>, data: &Value, runs: usize) -> Result<(), Problem> {
    let (mut submitting, mut told) = (JoinSet::new(), Instant::now());
    for number in 0..runs {
        if submitting.len() >= SUBMITTERS
            && let Some(done) = submitting.join_next().await
        {
            done.map_err(|error| Problem::bug(format!("a submission ended: {error}")))??;
        }
        let mut submission = load::submission(loaded, data, None);
        submission.scope = TenantScope { tenant: "many".into(), user: None };
        let caller = caller.clone();
        submitting.spawn(async move { caller.submit(submission).await.map_err(outcome::submit_problem).map(drop) });
        if number % PART == 0 && told.elapsed() >= PROGRESS {
            told = Instant::now();
            app.output.note(&format!("{number} of {runs} runs are in the queue"));
        }
    }
    while let Some(done) = submitting.join_next().await {
        done.map_err(|error| Problem::bug(format!("a submission ended: {error}")))??;
    }
    Ok(())
}

/// Waits until every run that arrived has ended.
async fn until_all_ended(meter: &Meter, crew: &Crew) -> Result<(), Problem> {
    let since = Instant::now();
    while meter.arrivals().iter().any(|run| run.ended.is_none()) {
        if since.elapsed() > super::crew::PATIENCE {
            let queued = crew.stats().await?.queue.iter().map(|depth| depth.runs).sum::<u64>();
            return Err(Problem::bug(format!("runs of the small tenant did not end; {queued} are in the queue")));
        }
        tokio::time::sleep(super::crew::LOOK).await;
    }
    Ok(())
}
