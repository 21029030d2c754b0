//! One run that starts many children at once and waits for all of them.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Semaphore;

use super::crew::{Crew, until_ended};
use super::field::Field;
use super::load::{self, Shape};
use super::meter::Meter;
use super::{Measured, micros, percentile_ms, rounded};
use crate::args::BenchFanOut;
use crate::exit::Problem;
use crate::outcome;

/// Measures from the submission of the run to its end.
pub(crate) async fn fan_out(field: &Field, args: &BenchFanOut) -> Result<Measured, Problem> {
    let meter = Arc::new(Meter::new(Arc::new(Semaphore::new(0))));
    let shape = Shape::default();
    let crew = Crew::start(field, args.workers, |store| load::engine(store, meter.clone(), &shape)).await?;
    let (loaded, data) = (load::parent(args.children)?, load::data(0));
    let each = u64::from(args.children) + 1;
    let before = crew.stats().await?;
    let mut times: Vec<u32> = Vec::new();
    for (round, engine) in (1..=u64::from(args.times)).zip(crew.engines().iter().cycle()) {
        let begun = Instant::now();
        engine.submit(load::submission(&loaded, &data, None)).await.map_err(outcome::submit_problem)?;
        until_ended(&meter, round * each).await?;
        times.push(micros(begun.elapsed()));
    }
    let after = crew.stats().await?;
    crew.end().await?;
    let first = times.first().map(|time| f64::from(*time) / 1_000.0);
    times.sort_unstable();
    let children = u64::from(args.children) * u64::from(args.times);
    let per_child = |now: u64, before: u64| rounded(now.saturating_sub(before) as f64 / children as f64);
    let seconds = times.iter().map(|time| f64::from(*time)).sum::<f64>() / 1e6;
    Ok(Measured {
        p50_ms: percentile_ms(&times, 0.5),
        p99_ms: percentile_ms(&times, 0.99),
        disk_bytes_per_run: Some(per_child(after.bytes, before.bytes)),
        ..Measured::new("fan-out", field.kind())
    }
    .with("first_ms", first)
    .with("children", args.children)
    .with("times", args.times)
    .with("workers", args.workers)
    .with("children_per_second", rounded(children as f64 / seconds.max(0.001)))
    .with("commits_per_child", per_child(after.commits, before.commits))
    .with("statements_per_child", per_child(after.statements, before.statements))
    .with("transactions_per_child", per_child(after.transactions, before.transactions)))
}
