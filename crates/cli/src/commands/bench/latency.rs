//! How long a submitted run waits until its first step starts, at a load below what the workers can do.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use windlass_runtime::Silent;

use super::crew::{Crew, arrive, capacity, until_ended};
use super::field::Field;
use super::load::{self, Shape};
use super::meter::{Meter, sorted_between};
use super::{Measured, percentile_ms, rounded};
use crate::app::App;
use crate::args::BenchLatency;
use crate::exit::Problem;

/// The share of what the workers can do that is asked of them.
const LOAD: f64 = 0.5;
/// How long it is measured what they can do, at most.
const CAPACITY: Duration = Duration::from_secs(5);

/// Measures the times from submissions to starts.
pub(crate) async fn latency(app: &App, field: &Field, args: &BenchLatency) -> Result<Measured, Problem> {
    let (concurrency, duration) = (args.load.concurrency as usize, Duration::from_millis(args.load.duration.0));
    let room = Arc::new(Semaphore::new(0));
    let meter = Arc::new(Meter::new(Arc::clone(&room)));
    let shape = Shape { concurrency, meter: Some(meter.clone()), ..Shape::default() };
    let crew = Crew::start(field, args.workers, |store| load::engine(store, meter.clone(), &shape)).await?;
    let (loaded, data) = (Arc::new(load::stepper(args.steps)?), load::data(args.context.0));
    let mut able = None;
    let rate = match args.rate {
        Some(rate) => f64::from(rate),
        None => {
            let measured = (concurrency, duration.min(CAPACITY));
            let most = capacity(&crew, (&meter, &room), (&loaded, &data), measured).await?;
            able = Some(rounded(most));
            most * LOAD
        }
    };
    app.output.note(&format!("{rate:.0} runs a second for {:.0} s", duration.as_secs_f64()));
    meter.reset();
    let before = meter.ended();
    let caller = load::engine(field.open().await?, Arc::new(Silent), &Shape::default());
    let offered = arrive(&caller, &meter, (&loaded, &data), (rate, duration)).await?;
    until_ended(&meter, before + offered.accepted).await?;
    let arrivals = meter.arrivals();
    let claims = meter.sorted_claims();
    crew.end().await?;
    let waited = sorted_between(&arrivals, |run| run.accepted, |run| run.started);
    let since_wanted = sorted_between(&arrivals, |run| Some(run.wanted), |run| run.started);
    Ok(Measured {
        p50_ms: percentile_ms(&waited, 0.5),
        p99_ms: percentile_ms(&waited, 0.99),
        ..Measured::new("latency", field.kind())
    }
    .with_ms("max_ms", &waited, 1.0)
    .with_ms("with_submission_p50_ms", &since_wanted, 0.5)
    .with_ms("with_submission_p99_ms", &since_wanted, 0.99)
    .with_ms("claim_to_decision_p50_ms", &claims, 0.5)
    .with_ms("claim_to_decision_p99_ms", &claims, 0.99)
    .with("capacity_runs_per_second", able)
    .with("runs_per_second", rounded(offered.offered as f64 / offered.seconds))
    .with("runs", offered.accepted)
    .with("steps", args.steps)
    .with("workers", args.workers)
    .with("seconds", rounded(offered.seconds)))
}
