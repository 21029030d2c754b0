//! What a parked run costs in memory and on disk, and whether it wakes anybody.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use windlass::wire;
use windlass_ports::store::Query;
use windlass_runtime::{Scope, Silent, Stop};

use super::load;
use super::{Measured, Scratch, rounded};
use crate::app::App;
use crate::args;
use crate::exit::{Exit, Problem};
use crate::outcome;
use crate::process;

/// Runs that are submitted before the parked ones are looked at again.
const BATCH: usize = 2_000;
/// Submissions that wait for the store at the same time.
const SUBMITTERS: usize = 256;
/// Time for the worker to find that it has nothing to do, before it is watched.
const SETTLE: Duration = Duration::from_secs(1);

/// Parks runs and looks at what that costs.
pub(crate) async fn park(app: &App, args: args::BenchPark) -> Result<Exit, Problem> {
    let scratch = Scratch::new(args.dir.as_deref())?;
    let url = format!("sqlite:{}", scratch.path("bench.db").display());
    let store = wire::open_store(&url).await?;
    let engine = load::engine(Arc::clone(&store), Arc::new(Silent), SUBMITTERS);
    let loaded = Arc::new(load::waiter()?);
    let data = load::data(args.context.0);
    let runs = args.runs as usize;
    let mut rss: Vec<Option<u64>> = Vec::new();
    let begun = Instant::now();
    let mut parked = 0;
    while parked < runs {
        let batch = BATCH.min(runs - parked);
        let mut tasks = tokio::task::JoinSet::new();
        for share in 0..SUBMITTERS {
            let count = batch / SUBMITTERS + usize::from(share < batch % SUBMITTERS);
            let (engine, loaded, data) = (engine.clone(), Arc::clone(&loaded), data.clone());
            tasks.spawn(async move {
                for _ in 0..count {
                    engine.submit(load::submission(&loaded, &data)).await.map_err(outcome::submit_problem)?;
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
    }
    let seconds = begun.elapsed().as_secs_f64();
    let wakeups = watch(&engine, Duration::from_millis(args.watch.0)).await?;
    let waiting = store.list(Query { limit: 1, ..Query::default() }).await?.heads;
    if waiting.iter().any(|head| head.status != windlass_core::run::Status::Waiting) {
        return Err(Problem::bug("a run of the measurement did not park"));
    }
    let stats = store.stats().await?;
    let megabytes = |bytes: Option<Option<u64>>| bytes.flatten().map(process::megabytes);
    let early = rss.get(rss.len() / 10).copied();
    let measured = Measured {
        steps_per_second: Some(rounded(runs as f64 / seconds)),
        disk_bytes_per_run: Some(rounded(stats.bytes as f64 / runs.max(1) as f64)),
        rss_mb: megabytes(rss.last().copied()),
        ..Measured::new("park")
    }
    .with("runs", args.runs)
    .with("context_bytes", args.context.0)
    .with("rss_mb_early", megabytes(early))
    .with("wakeups_per_second", wakeups.map(rounded))
    .with("seconds", rounded(seconds));
    app.output.sentence(&measured, &measured.text());
    Ok(Exit::Ok)
}

/// How often this process wakes in a second while a worker waits for any of the runs to go on.
async fn watch(engine: &windlass_runtime::Engine, duration: Duration) -> Result<Option<f64>, Problem> {
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
    let more = |(thread, after): (&OsString, &u64), before: &BTreeMap<OsString, u64>| {
        after.saturating_sub(before.get(thread).copied().unwrap_or_default())
    };
    let waits = after.zip(before).map(|(after, before)| after.iter().map(|one| more(one, &before)).sum::<u64>());
    Ok(waits.map(|waits| waits as f64 / seconds))
}
