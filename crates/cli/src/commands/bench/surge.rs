//! Many times more runs than the workers can do, with a bounded queue: what is refused, and what becomes of the rest.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use windlass_ports::store::Store;
use windlass_runtime::Silent;

use super::crew::{Crew, arrive, capacity, until_ended};
use super::field::{self, Field};
use super::load::{self, Shape};
use super::meter::{Meter, sorted_between};
use super::{Measured, percentile_ms, rounded};
use crate::app::App;
use crate::args::BenchSurge;
use crate::exit::Problem;

/// How long it is measured what the workers can do, at most.
const CAPACITY: Duration = Duration::from_secs(5);
/// Time between two looks at the queue.
const LOOK: Duration = Duration::from_millis(250);

/// Measures a surge and its end.
pub(crate) async fn surge(app: &App, field: &Field, args: &BenchSurge) -> Result<Measured, Problem> {
    let duration = Duration::from_millis(args.duration.0);
    let room = Arc::new(Semaphore::new(0));
    let meter = Arc::new(Meter::new(Arc::clone(&room)));
    let shape = Shape {
        call_slots: Some(args.slots as usize),
        step_time: Duration::from_millis(args.step_time.0),
        ..Shape::default()
    };
    let crew = Crew::start(field, args.workers, |store| load::engine(store, meter.clone(), &shape)).await?;
    let (loaded, data) = (Arc::new(load::stepper(args.steps)?), load::data(0));
    let at_once = (args.slots as usize) * (args.workers as usize) * 2;
    let most = capacity(&crew, (&meter, &room), (&loaded, &data), (at_once, duration.min(CAPACITY))).await?;
    let rate = most * f64::from(args.factor);
    app.output
        .note(&format!("the workers do {most:.0} runs a second; {rate:.0} come for {:.0} s", duration.as_secs_f64()));
    let before = meter.ended();
    let store = field.open().await?;
    let bounded = Shape { queued_max: Some(args.queue), ..Shape::default() };
    let caller = load::engine(Arc::clone(&store), Arc::new(Silent), &bounded);
    let (deepest, watching) = watch(Arc::clone(&store));
    let offered = arrive(&caller, &meter, (&loaded, &data), (rate, duration)).await?;
    let over = Instant::now();
    until_ended(&meter, before + offered.accepted).await?;
    field::until_ended(&*store, super::crew::PATIENCE).await?;
    let drained = over.elapsed().as_secs_f64();
    watching.abort();
    let (ended, arrivals) = (meter.ended() - before, meter.arrivals());
    let completed = completed(&*store).await?.saturating_sub(before);
    crew.end().await?;
    let whole = sorted_between(&arrivals, |run| Some(run.wanted), |run| run.ended);
    let waited = sorted_between(&arrivals, |run| run.accepted, |run| run.started);
    Ok(Measured {
        p50_ms: percentile_ms(&whole, 0.5),
        p99_ms: percentile_ms(&whole, 0.99),
        ..Measured::new("surge", field.kind())
    }
    .with_ms("queued_p50_ms", &waited, 0.5)
    .with_ms("queued_p99_ms", &waited, 0.99)
    .with("workers", args.workers)
    .with("capacity_runs_per_second", rounded(most))
    .with("wanted_runs_per_second", rounded(rate))
    .with("offered_runs_per_second", rounded(offered.offered as f64 / offered.seconds))
    .with("offered", offered.offered)
    .with("accepted", offered.accepted)
    .with("shed", offered.shed)
    .with("completed", completed)
    .with("lost", offered.accepted.saturating_sub(completed))
    .with("ended_twice", ended.saturating_sub(offered.accepted))
    .with("queue_max", args.queue)
    .with("queue_deepest", deepest.load(Ordering::Relaxed))
    .with("drain_seconds", rounded(drained))
    .with("seconds", rounded(offered.seconds)))
}

/// Looks at the queue from time to time.
fn watch(store: Arc<dyn Store>) -> (Arc<AtomicU64>, tokio::task::JoinHandle<()>) {
    let deepest = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&deepest);
    let watching = tokio::spawn(async move {
        loop {
            // A look that fails is followed by the next; a store that fails for good is seen by those who submit.
            if let Ok(stats) = store.stats().await {
                let depth = stats.queue.iter().map(|depth| depth.runs).sum();
                seen.fetch_max(depth, Ordering::Relaxed);
            }
            tokio::time::sleep(LOOK).await;
        }
    });
    (deepest, watching)
}

/// Runs that have completed, as the store has them.
async fn completed(store: &dyn Store) -> Result<u64, Problem> {
    let runs = store.stats().await?.runs;
    Ok(runs.iter().filter(|(status, _)| status == "completed").map(|(_, count)| *count).sum())
}
