//! What a parked run costs in memory and on disk, and whether it wakes anybody.

use std::sync::Arc;
use std::time::{Duration, Instant};

use windlass_core::ids::RunId;
use windlass_ports::store::Query;
use windlass_runtime::{Engine, Scope, Silent, Stop};

use super::field::Field;
use super::load::{self, Shape};
use super::{Measured, resume, rounded};
use crate::app::App;
use crate::args::BenchPark;
use crate::exit::Problem;
use crate::outcome;
use crate::process;

/// Runs that are submitted before the parked ones are looked at again.
const BATCH: usize = 2_000;
/// Submissions that wait for the store at the same time.
const SUBMITTERS: usize = 256;
/// Time for the worker to find that it has nothing to do, before it is watched.
const SETTLE: Duration = Duration::from_secs(1);

/// Time between two notes.
const PROGRESS: Duration = Duration::from_secs(5);

/// The id of a run of this measurement.
#[must_use]
pub(crate) fn id(number: u64) -> RunId {
    RunId::stored(&format!("bench-{number:08}"))
}

/// Parks runs and looks at what that costs; then, when that is wanted, signals all of them.
pub(crate) async fn park(app: &App, field: &Field, args: &BenchPark) -> Result<Measured, Problem> {
    let store = field.open().await?;
    let bytes_before = store.stats().await?.bytes;
    let engine = load::engine(Arc::clone(&store), Arc::new(Silent), &Shape::default());
    let begun = Instant::now();
    let rss = fill(app, &engine, args).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let wakeups = watch(&engine, Duration::from_millis(args.watch.0)).await?;
    let waiting = store.list(Query { limit: 1, ..Query::default() }).await?.heads;
    if waiting.iter().any(|head| head.status != windlass_core::run::Status::Waiting) {
        return Err(Problem::bug("a run of the measurement did not park"));
    }
    let stats = store.stats().await?;
    let megabytes = |bytes: Option<Option<u64>>| bytes.flatten().map(process::megabytes);
    let measured = Measured {
        steps_per_second: Some(rounded(f64::from(args.runs) / seconds)),
        disk_bytes_per_run: Some(rounded(stats.bytes.saturating_sub(bytes_before) as f64 / f64::from(args.runs))),
        rss_mb: megabytes(rss.last().copied()),
        ..Measured::new("park", field.kind())
    }
    .with("runs", args.runs)
    .with("context_bytes", args.context.0)
    .with("rss_mb_early", megabytes(rss.get(rss.len() / 10).copied()))
    .with("rss_mb_peak", process::resident_bytes_peak().map(process::megabytes))
    .with("wakeups_per_second", wakeups.map(rounded))
    .with("seconds", rounded(seconds));
    engine.leave().await;
    drop((engine, store));
    if args.signal { resume::resume(app, field, args, measured).await } else { Ok(measured) }
}

/// Parks all runs, part by part. Gives back the memory in use after each part.
async fn fill(app: &App, engine: &Engine, args: &BenchPark) -> Result<Vec<Option<u64>>, Problem> {
    let (loaded, data) = (Arc::new(load::waiter()?), load::data(args.context.0));
    let runs = args.runs as usize;
    let (mut parked, mut rss, mut told) = (0, Vec::new(), Instant::now());
    while parked < runs {
        let batch = BATCH.min(runs - parked);
        let mut tasks = tokio::task::JoinSet::new();
        for share in 0..SUBMITTERS.min(batch) {
            let (engine, loaded, data) = (engine.clone(), Arc::clone(&loaded), data.clone());
            let numbers = (parked + share..parked + batch).step_by(SUBMITTERS);
            tasks.spawn(async move {
                for number in numbers {
                    let submission = load::submission(&loaded, &data, Some(id(number as u64)));
                    engine.submit(submission).await.map_err(outcome::submit_problem)?;
                }
                Ok::<(), Problem>(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.map_err(|error| Problem::bug(format!("a submission ended: {error}")))??;
        }
        engine.drive(Scope::Idle, Stop::new()).await.map_err(outcome::engine_problem)?;
        parked += batch;
        rss.push(process::resident_bytes());
        if told.elapsed() >= PROGRESS {
            told = Instant::now();
            app.output.note(&format!("{parked} of {runs} runs are parked"));
        }
    }
    Ok(rss)
}

/// How often this process wakes in a second while a worker waits for any of the runs to go on.
async fn watch(engine: &Engine, duration: Duration) -> Result<Option<f64>, Problem> {
    let stop = Stop::new();
    let driving = tokio::spawn({
        let (engine, stop) = (engine.clone(), stop.clone());
        async move { engine.drive(Scope::All, stop).await }
    });
    // Watched from a thread of its own that sleeps in the kernel: a timer of the async runtime would be counted itself.
    let watching = move || {
        std::thread::sleep(SETTLE);
        let before = process::waits_of_others();
        std::thread::sleep(duration);
        (before, process::waits_of_others())
    };
    let (before, after) = tokio::task::spawn_blocking(watching)
        .await
        .map_err(|error| Problem::bug(format!("the watch of the measurement ended: {error}")))?;
    stop.graceful.cancel();
    driving
        .await
        .map_err(|error| Problem::bug(format!("the worker of the measurement ended: {error}")))?
        .map_err(outcome::engine_problem)?;
    let seconds = duration.as_secs_f64().max(0.001);
    // A thread that ended in between, as those without work do, is no wakeup of a parked run.
    let waits = after.zip(before).map(|(after, before)| process::growth(&before, &after));
    Ok(waits.map(|waits| waits as f64 / seconds))
}
