//! The bare floor that the store is measured against: what the library alone can do for the same durability.
//!
//! One step is one INSERT of 200 bytes and one UPDATE of a row. Submitters wait for their own step; one writer takes
//! whatever waits into one transaction, synced before it answers.

mod ground;
mod postgres;

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::wal::CheckpointMode;
use tokio::sync::oneshot;
use windlass_ports::store::StoreError;

pub use ground::Ground;
pub use postgres::measure_postgres;

use crate::sqlite::{Options, connect_plain};

/// Bytes inserted by one step.
const ROW_BYTES: usize = 200;
/// Steps in one transaction, as in the store.
const BATCH_MAX: usize = 512;

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Floor {
    /// Acknowledged steps in one second.
    pub steps_per_second: f64,
    /// Half of the steps took at most this long, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 did, in milliseconds.
    pub p99_ms: f64,
}

type Step = (i64, oneshot::Sender<()>);

fn unavailable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

/// Measures in a new file at `path`, with so many submitters, for so long. Call within a tokio runtime.
///
/// # Errors
/// The file cannot be made or written.
pub async fn measure(path: &Path, submitters: usize, duration: Duration) -> Result<Floor, StoreError> {
    let connection = connect_plain(path, &Options::default())?;
    connection
        .execute_batch(
            "PRAGMA journal_mode=WAL; \
             CREATE TABLE runs (key INTEGER PRIMARY KEY, version INTEGER NOT NULL, state TEXT); \
             CREATE TABLE journal (key INTEGER PRIMARY KEY, run INTEGER NOT NULL, record BLOB NOT NULL);",
        )
        .map_err(unavailable)?;
    for run in 0..submitters as i64 {
        let insert = "INSERT INTO runs (key, version, state) VALUES (?1, 0, 'state')";
        connection.execute(insert, [run]).map_err(unavailable)?;
    }
    let (steps, asked) = channel();
    let writer = tokio::task::spawn_blocking(move || write(&connection, &asked));
    let began = Instant::now();
    let submitters: Vec<_> =
        (0..submitters as i64).map(|run| tokio::spawn(submit(run, steps.clone(), began + duration))).collect();
    drop(steps);
    let mut times = Vec::new();
    for submitter in submitters {
        times.extend(submitter.await.map_err(unavailable)?);
    }
    let seconds = began.elapsed().as_secs_f64();
    writer.await.map_err(unavailable)?.map_err(unavailable)?;
    Ok(summary(times, seconds))
}

/// Rate and percentiles of so many times, measured over so many seconds.
fn summary(mut times: Vec<Duration>, seconds: f64) -> Floor {
    times.sort_unstable();
    let at = |percent: usize| {
        let place = (times.len() * percent / 100).min(times.len().saturating_sub(1));
        times.get(place).map_or(0.0, |time| time.as_secs_f64() * 1_000.0)
    };
    Floor { steps_per_second: times.len() as f64 / seconds, p50_ms: at(50), p99_ms: at(99) }
}

async fn submit(run: i64, steps: Sender<Step>, until: Instant) -> Vec<Duration> {
    let mut times = Vec::new();
    loop {
        let began = Instant::now();
        let (answer, answered) = oneshot::channel();
        if began >= until || steps.send((run, answer)).is_err() || answered.await.is_err() {
            return times;
        }
        times.push(began.elapsed());
    }
}

fn write(connection: &Connection, asked: &Receiver<Step>) -> rusqlite::Result<()> {
    let record = [b'x'; ROW_BYTES];
    let mut insert = connection.prepare("INSERT INTO journal (run, record) VALUES (?1, ?2)")?;
    let mut update = connection.prepare("UPDATE runs SET version = version + 1, state = ?2 WHERE key = ?1")?;
    let mut commits = 0_u64;
    while let Ok(first) = asked.recv() {
        let mut steps = vec![first];
        while steps.len() < BATCH_MAX
            && let Ok(step) = asked.try_recv()
        {
            steps.push(step);
        }
        connection.execute_batch("BEGIN IMMEDIATE")?;
        for (run, _) in &steps {
            insert.execute(rusqlite::params![run, record])?;
            update.execute(rusqlite::params![run, "state"])?;
        }
        connection.execute_batch("COMMIT")?;
        for (_, answer) in steps {
            // A submitter whose time is over does not wait for its last step.
            let _over = answer.send(());
        }
        commits += 1;
        if commits.is_multiple_of(1_024) {
            connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::RESTART)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let times = (1..=100).rev().map(Duration::from_millis).collect();
        let floor = summary(times, 2.0);
        assert_eq!((floor.steps_per_second, floor.p50_ms, floor.p99_ms), (50.0, 51.0, 100.0));
        assert_eq!(summary(Vec::new(), 1.0).p50_ms, 0.0);
    }

    #[tokio::test]
    async fn the_floor_is_measured() {
        let dir = tempfile::tempdir().unwrap();
        let floor = measure(&dir.path().join("floor.db"), 4, Duration::from_millis(50)).await.unwrap();
        assert!(floor.steps_per_second > 0.0 && floor.p50_ms > 0.0 && floor.p99_ms >= floor.p50_ms);
    }
}
