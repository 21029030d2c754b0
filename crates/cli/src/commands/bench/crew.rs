//! Workers of a measurement, each an engine with a handle on the store of its own, and those who submit to them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use windlass_core::ids::RunId;
use windlass_core::value::Value;
use windlass_ports::store::{Stats, Store};
use windlass_runtime::{Driven, Engine, EngineError, Scope, Stop, SubmitError};
use windlass_spec::Loaded;

use super::field::Field;
use super::load;
use super::meter::Meter;
use crate::exit::Problem;
use crate::outcome;

/// Time that runs before a measurement begins, so that caches and the file are warm.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long nothing may end before a measurement is given up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// Time between two looks whether enough has ended.
pub(crate) const LOOK: Duration = Duration::from_millis(5);
/// Runs from whose ends a rate can be told, at least.
const ENDED_MIN: u64 = 10;
/// Submissions under way at the same time, at most.
const SUBMITTING_MAX: usize = 10_000;

/// Engines that drive everything in the store.
#[derive(Debug)]
pub(crate) struct Crew {
    engines: Vec<Engine>,
    stop: Stop,
    driving: JoinSet<Result<Driven, EngineError>>,
}

impl Crew {
    /// Starts so many workers.
    ///
    /// # Errors
    /// The store cannot be opened.
    pub(crate) async fn start(
        field: &Field,
        workers: u32,
        make: impl Fn(Arc<dyn Store>) -> Engine,
    ) -> Result<Self, Problem> {
        let mut crew = Self { engines: Vec::new(), stop: Stop::new(), driving: JoinSet::new() };
        for _ in 0..workers {
            let engine = make(field.open().await?);
            let (driver, stop) = (engine.clone(), crew.stop.clone());
            crew.driving.spawn(async move { driver.drive(Scope::All, stop).await });
            crew.engines.push(engine);
        }
        Ok(crew)
    }

    /// Their engines.
    #[must_use]
    pub(crate) fn engines(&self) -> &[Engine] {
        &self.engines
    }

    /// Numbers of the store, with what all workers did.
    ///
    /// # Errors
    /// The store fails.
    pub(crate) async fn stats(&self) -> Result<Stats, Problem> {
        let mut sum = Stats::default();
        for engine in &self.engines {
            let stats = engine.parts().store.stats().await?;
            sum = Stats {
                commits: sum.commits + stats.commits,
                statements: sum.statements + stats.statements,
                transactions: sum.transactions + stats.transactions,
                ..stats
            };
        }
        Ok(sum)
    }

    /// Ends all workers.
    ///
    /// # Errors
    /// One of them failed.
    pub(crate) async fn end(mut self) -> Result<(), Problem> {
        self.stop.graceful.cancel();
        while let Some(driven) = self.driving.join_next().await {
            driven
                .map_err(|error| Problem::bug(format!("the worker of the measurement ended: {error}")))?
                .map_err(outcome::engine_problem)?;
        }
        for engine in &self.engines {
            engine.leave().await;
        }
        Ok(())
    }
}

/// Callers that submit a run whenever there is room, to each worker in turn.
#[derive(Debug)]
pub(crate) struct Callers {
    stop: CancellationToken,
    task: JoinHandle<Result<u64, SubmitError>>,
}

impl Callers {
    /// Starts submitting.
    pub(crate) fn start(crew: &Crew, room: &Arc<Semaphore>, loaded: &Arc<Loaded>, data: &Value) -> Self {
        let stop = CancellationToken::new();
        let (engines, room) = (crew.engines.to_vec(), Arc::clone(room));
        let (loaded, data, stopped) = (Arc::clone(loaded), data.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let (mut submitting, mut submitted) = (JoinSet::new(), 0);
            for engine in engines.iter().cycle() {
                tokio::select! {
                    biased;
                    () = stopped.cancelled() => break,
                    permit = room.acquire() => match permit {
                        Ok(permit) => permit.forget(),
                        Err(_) => break,
                    },
                }
                // Each caller submits for itself: callers do not wait for one another.
                let (engine, submission) = (engine.clone(), load::submission(&loaded, &data, None));
                submitting.spawn(async move { engine.submit(submission).await });
                submitted += 1;
                while let Some(Ok(done)) = submitting.try_join_next() {
                    done?;
                }
            }
            while let Some(Ok(done)) = submitting.join_next().await {
                done?;
            }
            Ok(submitted)
        });
        Self { stop, task }
    }

    /// Ends, and gives back how many runs were submitted.
    ///
    /// # Errors
    /// A submission failed.
    pub(crate) async fn end(self) -> Result<u64, Problem> {
        self.stop.cancel();
        let ended = self.task.await.map_err(|error| Problem::bug(format!("a caller ended: {error}")))?;
        ended.map_err(outcome::submit_problem)
    }
}

/// Lets everything be warm.
pub(crate) async fn warm_up(duration: Duration) {
    tokio::time::sleep(WARM_UP.min(duration)).await;
}

/// Runs that the workers end in a second when there is always one more, so many at the same time. All have ended then.
///
/// # Errors
/// A submission fails, or the runs do not end.
pub(crate) async fn capacity(
    crew: &Crew,
    (meter, room): (&Meter, &Arc<Semaphore>),
    (loaded, data): (&Arc<Loaded>, &Value),
    (concurrency, duration): (usize, Duration),
) -> Result<f64, Problem> {
    let before = meter.ended();
    room.add_permits(concurrency);
    let callers = Callers::start(crew, room, loaded, data);
    warm_up(duration).await;
    let (begun, ended) = (Instant::now(), meter.ended());
    tokio::time::sleep(duration).await;
    while meter.ended() - ended < ENDED_MIN && begun.elapsed() < PATIENCE {
        tokio::time::sleep(LOOK).await;
    }
    let rate = (meter.ended() - ended) as f64 / begun.elapsed().as_secs_f64();
    let submitted = callers.end().await?;
    until_ended(meter, before + submitted).await?;
    Ok(rate)
}

/// Waits until so many runs have ended.
///
/// # Errors
/// For a long time none did.
pub(crate) async fn until_ended(meter: &Meter, count: u64) -> Result<(), Problem> {
    let (mut seen, mut since) = (meter.ended(), Instant::now());
    while meter.ended() < count {
        tokio::time::sleep(LOOK).await;
        if meter.ended() > seen {
            (seen, since) = (meter.ended(), Instant::now());
        } else if since.elapsed() > PATIENCE {
            let seconds = PATIENCE.as_secs();
            return Err(Problem::bug(format!("{seen} of {count} runs of the measurement ended, none for {seconds} s")));
        }
    }
    Ok(())
}

/// What became of submissions at a steady rate.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Offered {
    /// Runs that were submitted.
    pub offered: u64,
    /// Runs that were accepted.
    pub accepted: u64,
    /// Runs that a full queue refused.
    pub shed: u64,
    /// How long it took.
    pub seconds: f64,
}

/// Submits runs at a steady rate for so long, whatever becomes of them.
///
/// # Errors
/// A submission fails otherwise than by a full queue.
pub(crate) async fn arrive(
    engine: &Engine,
    meter: &Arc<Meter>,
    (loaded, data): (&Arc<Loaded>, &Value),
    (rate, duration): (f64, Duration),
) -> Result<Offered, Problem> {
    let begun = Instant::now();
    let mut offered = Offered::default();
    let mut submitting: JoinSet<Result<bool, Problem>> = JoinSet::new();
    let mut take = |answer: Result<Result<bool, Problem>, tokio::task::JoinError>| {
        match answer.map_err(|error| Problem::bug(format!("a submission ended: {error}")))?? {
            true => offered.accepted += 1,
            false => offered.shed += 1,
        }
        Ok::<(), Problem>(())
    };
    let mut count: u32 = 0;
    loop {
        let due = Duration::from_secs_f64(f64::from(count) / rate.max(0.001));
        if due >= duration || begun.elapsed() >= duration.saturating_mul(2) {
            break;
        }
        tokio::time::sleep_until((begun + due).into()).await;
        if submitting.len() >= SUBMITTING_MAX
            && let Some(answer) = submitting.join_next().await
        {
            take(answer)?;
        }
        while let Some(answer) = submitting.try_join_next() {
            take(answer)?;
        }
        let run = RunId::stored(&uuid::Uuid::now_v7().to_string());
        let submission = load::submission(loaded, data, Some(run.clone()));
        let (engine, meter, wanted) = (engine.clone(), Arc::clone(meter), begun + due);
        submitting.spawn(async move {
            meter.arrives(run.clone(), wanted);
            let answer = engine.submit(submission).await;
            if answer.is_ok() {
                meter.accepted(&run);
            } else {
                meter.refused(&run);
            }
            match answer {
                Ok(_) => Ok(true),
                Err(SubmitError::Full { .. }) => Ok(false),
                Err(error) => Err(outcome::submit_problem(error)),
            }
        });
        count += 1;
    }
    tokio::time::sleep_until((begun + duration).into()).await;
    let seconds = begun.elapsed().as_secs_f64();
    while let Some(answer) = submitting.join_next().await {
        take(answer)?;
    }
    Ok(Offered { offered: u64::from(count), seconds, ..offered })
}
