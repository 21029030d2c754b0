//! Steps per second, beside what the database gives without Windlass.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::crew::{Callers, Crew, warm_up};
use super::field::Field;
use super::governed;
use super::load::{self, Shape};
use super::meter::Meter;
use super::{Measured, percentile_ms, rounded};
use crate::args::{BenchLoad, BenchSteps};
use crate::exit::Problem;

/// Measures the floor.
pub(crate) async fn floor(field: &Field, args: &BenchLoad) -> Result<Measured, Problem> {
    let (submitters, duration) = (args.concurrency as usize, Duration::from_millis(args.duration.0));
    let floor = field.floor(submitters, duration).await?;
    Ok(Measured {
        steps_per_second: Some(rounded(floor.steps_per_second)),
        p50_ms: Some(rounded(floor.p50_ms)),
        p99_ms: Some(rounded(floor.p99_ms)),
        ..Measured::new("floor", field.kind())
    }
    .with("concurrency", args.concurrency)
    .with("seconds", rounded(duration.as_secs_f64())))
}

/// Measures steps, and the floor before them.
pub(crate) async fn steps(field: &Field, args: &BenchSteps) -> Result<Measured, Problem> {
    let floor = if args.no_floor { None } else { floor(field, &args.load).await?.steps_per_second };
    let (concurrency, duration) = (args.load.concurrency as usize, Duration::from_millis(args.load.duration.0));
    let room = Arc::new(Semaphore::new(concurrency));
    let meter = Arc::new(Meter::new(Arc::clone(&room)));
    if args.encrypted {
        field.encrypt()?;
    }
    let policy = if args.governed {
        governed::budgets(&*field.open().await?).await?;
        Some(governed::policy(field)?)
    } else {
        None
    };
    let shape = Shape { concurrency, policy, ..Shape::default() };
    let crew = Crew::start(field, args.workers, |store| load::engine(store, meter.clone(), &shape)).await?;
    let bytes_before = crew.stats().await?.bytes;
    let (loaded, data) = (Arc::new(load::stepper(args.steps)?), load::data(args.context.0));
    let callers = Callers::start(&crew, &room, &loaded, &data);
    warm_up(duration).await;
    meter.reset();
    let (begun, steps_before, stats_before) = (Instant::now(), meter.steps(), crew.stats().await?);
    tokio::time::sleep(duration).await;
    let (seconds, steps) = (begun.elapsed().as_secs_f64(), meter.steps() - steps_before);
    let stats = crew.stats().await?;
    let micros = meter.sorted_micros();
    callers.end().await?;
    crew.end().await?;
    let rate = steps as f64 / seconds;
    let runs = meter.ended().max(1) as f64;
    let commits = stats.commits.saturating_sub(stats_before.commits).max(1) as f64;
    let per_commit = |now: u64, before: u64| rounded(now.saturating_sub(before) as f64 / commits);
    Ok(Measured {
        steps_per_second: Some(rounded(rate)),
        p50_ms: percentile_ms(&micros, 0.5),
        p99_ms: percentile_ms(&micros, 0.99),
        floor_ratio: floor.map(|floor| rounded(rate / floor.max(1.0))),
        disk_bytes_per_run: Some(rounded(stats.bytes.saturating_sub(bytes_before) as f64 / runs)),
        ..Measured::new("steps", field.kind())
    }
    .with("floor_steps_per_second", floor)
    .with("workers", args.workers)
    .with("concurrency", args.load.concurrency)
    .with("steps", args.steps)
    .with("context_bytes", args.context.0)
    .with("seconds", rounded(seconds))
    .with("governed", args.governed)
    .with("encrypted", args.encrypted)
    .with("runs", meter.ended())
    .with("statements_per_commit", per_commit(stats.statements, stats_before.statements))
    .with("transactions_per_commit", per_commit(stats.transactions, stats_before.transactions)))
}
