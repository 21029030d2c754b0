//! Steps per second, beside what the database gives without Windlass.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use windlass::wire;
use windlass_runtime::{Scope, Stop};

use super::load::{self, Meter};
use super::{Measured, Scratch, percentile_ms, rounded};
use crate::app::App;
use crate::args::{self, BenchLoad};
use crate::exit::{Exit, Problem};
use crate::outcome;

/// Time that runs before a measurement begins, so that caches and the file are warm.
const WARM_UP: Duration = Duration::from_secs(1);

/// Measures the floor.
pub(crate) async fn floor(app: &App, args: BenchLoad) -> Result<Exit, Problem> {
    let measured = measure_floor(&args).await?;
    app.output.sentence(&measured, &measured.text());
    Ok(Exit::Ok)
}

/// Measures steps, and the floor before them.
pub(crate) async fn steps(app: &App, args: args::BenchSteps) -> Result<Exit, Problem> {
    let floor = if args.no_floor { None } else { measure_floor(&args.load).await?.steps_per_second };
    let scratch = Scratch::new(args.load.dir.as_deref())?;
    let url = format!("sqlite:{}", scratch.path("bench.db").display());
    let store = wire::open_store(&url).await?;
    let concurrency = args.load.concurrency as usize;
    let room = Arc::new(Semaphore::new(concurrency));
    let meter = Arc::new(Meter::new(Arc::clone(&room)));
    let engine = load::engine(Arc::clone(&store), meter.clone(), concurrency);
    let loaded = load::stepper(args.steps)?;
    let data = load::data(args.context.0);
    let stop = Stop::new();
    let driving = tokio::spawn({
        let (engine, stop) = (engine.clone(), stop.clone());
        async move { engine.drive(Scope::All, stop).await }
    });
    let feeding = tokio::spawn({
        let engine = engine.clone();
        let mut callers = tokio::task::JoinSet::new();
        async move {
            while let Ok(permit) = room.acquire().await {
                permit.forget();
                // Each caller submits for itself: callers do not wait for one another.
                let (engine, submission) = (engine.clone(), load::submission(&loaded, &data));
                callers.spawn(async move { engine.submit(submission).await });
                while let Some(submitted) = callers.try_join_next() {
                    if !matches!(submitted, Ok(Ok(_))) {
                        return;
                    }
                }
            }
        }
    });
    tokio::time::sleep(WARM_UP.min(Duration::from_millis(args.load.duration.0))).await;
    meter.reset();
    let (begun, steps_before, stats_before) = (Instant::now(), meter.steps(), store.stats().await?);
    tokio::time::sleep(Duration::from_millis(args.load.duration.0)).await;
    let (seconds, steps) = (begun.elapsed().as_secs_f64(), meter.steps() - steps_before);
    let stats = store.stats().await?;
    let micros = meter.sorted_micros();
    feeding.abort();
    stop.graceful.cancel();
    driving
        .await
        .map_err(|error| Problem::bug(format!("the worker of the measurement ended: {error}")))?
        .map_err(outcome::engine_problem)?;
    let rate = steps as f64 / seconds;
    let runs = meter.ended().max(1) as f64;
    let commits = stats.commits.saturating_sub(stats_before.commits).max(1) as f64;
    let per_commit = |now: u64, before: u64| rounded(now.saturating_sub(before) as f64 / commits);
    let measured = Measured {
        steps_per_second: Some(rounded(rate)),
        p50_ms: percentile_ms(&micros, 0.5),
        p99_ms: percentile_ms(&micros, 0.99),
        floor_ratio: floor.map(|floor| rounded(rate / floor.max(1.0))),
        disk_bytes_per_run: Some(rounded(stats.bytes as f64 / runs)),
        ..Measured::new("steps")
    }
    .with("floor_steps_per_second", floor)
    .with("concurrency", args.load.concurrency)
    .with("steps", args.steps)
    .with("context_bytes", args.context.0)
    .with("seconds", rounded(seconds))
    .with("runs", meter.ended())
    .with("statements_per_commit", per_commit(stats.statements, stats_before.statements))
    .with("transactions_per_commit", per_commit(stats.transactions, stats_before.transactions));
    app.output.sentence(&measured, &measured.text());
    Ok(Exit::Ok)
}

async fn measure_floor(args: &BenchLoad) -> Result<Measured, Problem> {
    let scratch = Scratch::new(args.dir.as_deref())?;
    let path = scratch.path("floor.db");
    let (submitters, duration) = (args.concurrency as usize, Duration::from_millis(args.duration.0));
    let floor = windlass_stores::floor::measure(&path, submitters, duration).await?;
    Ok(Measured {
        steps_per_second: Some(rounded(floor.steps_per_second)),
        p50_ms: Some(rounded(floor.p50_ms)),
        p99_ms: Some(rounded(floor.p99_ms)),
        ..Measured::new("floor")
    }
    .with("concurrency", args.concurrency)
    .with("seconds", rounded(duration.as_secs_f64())))
}
