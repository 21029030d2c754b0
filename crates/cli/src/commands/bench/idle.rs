//! Worker processes with nothing to do: the processor time and the transactions that they cost.

use std::time::{Duration, Instant};

use super::field::Field;
use super::worker::Worker;
use super::{Measured, rounded};
use crate::app::App;
use crate::args::BenchIdle;
use crate::exit::{Exit, Problem};

/// Time for workers to find that there is nothing to do, before they are watched. PostgreSQL counts what a connection did
/// at its start up to 10 s later.
const SETTLE: Duration = Duration::from_secs(12);

/// Starts workers and watches them.
pub(crate) async fn idle(app: &App, field: &Field, args: &BenchIdle) -> Result<Measured, Problem> {
    let config = field.path("worker.toml");
    std::fs::write(&config, "").map_err(|error| {
        Problem::new(Exit::Unreachable, "cli.io", format!("cannot write `{}`: {error}", config.display()))
    })?;
    let mut workers = Vec::new();
    for _ in 0..args.workers {
        let mut worker = Worker::start(field, &config)?;
        worker.up().await?;
        workers.push(worker);
    }
    let duration = Duration::from_millis(args.duration.0);
    tokio::time::sleep(SETTLE.min(duration)).await;
    app.output.note(&format!("{} workers are watched for {:.0} s", args.workers, duration.as_secs_f64()));
    let (begun, asked_before) = (Instant::now(), field.transactions().await?);
    let spent_before: Vec<_> = workers.iter().map(Worker::spent).collect();
    tokio::time::sleep(duration).await;
    let seconds = begun.elapsed().as_secs_f64();
    let spent: Vec<_> = workers.iter().map(Worker::spent).collect();
    let asked = field.transactions().await?;
    let shares: Option<Vec<f64>> = spent
        .iter()
        .zip(&spent_before)
        .map(|(now, before)| Some(now.as_ref()?.seconds_since(before.as_ref()?) * 100.0 / seconds))
        .collect();
    // The question itself is one.
    let transactions = asked.zip(asked_before).map(|(now, before)| now.saturating_sub(before).saturating_sub(1));
    let each = f64::from(args.workers);
    let rss = workers.iter().filter_map(Worker::rss_mb).reduce(f64::max);
    for worker in workers {
        worker.kill().await?;
    }
    let most = shares.as_ref().and_then(|shares| shares.iter().copied().reduce(f64::max));
    let mean = shares.as_ref().map(|shares| shares.iter().sum::<f64>() / each);
    let digits = |share: f64| (share * 1_000.0).round() / 1_000.0;
    Ok(Measured::new("idle", field.kind())
        .with("workers", args.workers)
        .with("seconds", rounded(seconds))
        .with("cpu_percent_per_worker", mean.map(digits))
        .with("cpu_percent_max", most.map(digits))
        .with("queries_per_second_per_worker", transactions.map(|count| rounded(count as f64 / seconds / each)))
        .with("worker_rss_mb", rss))
}
