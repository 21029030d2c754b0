//! Parked runs after a restart: all of them are signalled, and a worker that was started anew completes them.

use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinSet;
use windlass::wire;
use windlass_core::run::Status;
use windlass_core::value::Value;
use windlass_ports::store::{Query, Signal, Signalled, Store};

use super::crew::PATIENCE;
use super::field::{Field, until_ended};
use super::park::id;
use super::worker::Worker;
use super::{Measured, rounded};
use crate::app::App;
use crate::args::BenchPark;
use crate::exit::{Exit, Problem};
use crate::process;

/// Signals that wait for the store at the same time.
const SENDERS: u64 = 256;
/// Runs that are read at a time.
const PAGE: usize = 1_000;
/// Steps of a run that went on once.
const STEPS: u64 = 2;

/// What the store says of the runs in the end.
#[derive(Debug, Default)]
struct Found {
    completed: u64,
    /// Runs that did something more often than once.
    repeated: u64,
}

/// Resumes all runs of a measurement, and adds what that took.
pub(crate) async fn resume(app: &App, field: &Field, args: &BenchPark, parked: Measured) -> Result<Measured, Problem> {
    let config = field.path("worker.toml");
    std::fs::write(&config, "").map_err(|error| {
        Problem::new(Exit::Unreachable, "cli.io", format!("cannot write `{}`: {error}", config.display()))
    })?;
    let restarted = Instant::now();
    let mut worker = Worker::start(field, &config)?;
    worker.up().await?;
    let started = restarted.elapsed();
    let store = field.open().await?;
    let runs = u64::from(args.runs);
    app.output.note(&format!("{runs} signals"));
    let begun = Instant::now();
    let delivered = signal_all(&store, runs).await?;
    let signalled = begun.elapsed();
    app.output.note(&format!("all were sent after {:.1} s", signalled.as_secs_f64()));
    until_ended(&*store, PATIENCE).await?;
    let resumed = begun.elapsed();
    let worker_rss = worker.rss_mb();
    worker.kill().await?;
    let found = look(&*store).await?;
    Ok(parked
        .with("worker_start_ms", rounded(started.as_secs_f64() * 1_000.0))
        .with("signals_delivered", delivered)
        .with("signals_seconds", rounded(signalled.as_secs_f64()))
        .with("resumed_seconds", rounded(resumed.as_secs_f64()))
        .with("resumed_per_second", rounded(runs as f64 / resumed.as_secs_f64().max(0.001)))
        .with("completed", found.completed)
        .with("lost", runs.saturating_sub(found.completed))
        .with("duplicated", found.repeated)
        .with("worker_rss_mb", worker_rss)
        .with("rss_mb_peak", process::resident_bytes_peak().map(process::megabytes)))
}

/// Sends one signal to each run. Gives back how many found their run waiting.
async fn signal_all(store: &Arc<dyn Store>, runs: u64) -> Result<u64, Problem> {
    let mut tasks = JoinSet::new();
    for first in 0..SENDERS.min(runs) {
        let store = Arc::clone(store);
        tasks.spawn(async move {
            let mut delivered = 0;
            for number in (first..runs).step_by(SENDERS as usize) {
                let run = id(number);
                let signal = Signal {
                    id: format!("go-{run}").into(),
                    channel: "bench/go".into(),
                    run: Some(run),
                    data: Value::Null,
                    at: wire::now(),
                };
                if let Signalled::Delivered(to) = store.signal(signal).await? {
                    delivered += to.len() as u64;
                }
            }
            Ok::<u64, Problem>(delivered)
        });
    }
    let mut delivered = 0;
    while let Some(sent) = tasks.join_next().await {
        delivered += sent.map_err(|error| Problem::bug(format!("a sender ended: {error}")))??;
    }
    Ok(delivered)
}

/// Looks at every run.
async fn look(store: &dyn Store) -> Result<Found, Problem> {
    let mut found = Found::default();
    let mut query = Query { limit: PAGE, ..Query::default() };
    loop {
        let page = store.list(query.clone()).await?;
        for head in &page.heads {
            found.completed += u64::from(head.status == Status::Completed);
            found.repeated += u64::from(head.step > STEPS);
        }
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => return Ok(found),
        }
    }
}
