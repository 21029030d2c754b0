//! The floor of PostgreSQL: the same two statements for each step, many steps at once through UNNEST, one transaction in
//! one flight, on one connection.

use std::time::{Duration, Instant};

use futures::future::try_join4;
use tokio::sync::{mpsc, oneshot};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Statement};
use windlass_ports::store::StoreError;

use super::{BATCH_MAX, Floor, ROW_BYTES, summary, unavailable};
use crate::postgres::connect_plain;

/// A place for the tables of the measurement, removed afterwards.
const SETUP: &str = "DROP SCHEMA IF EXISTS windlass_floor CASCADE; CREATE SCHEMA windlass_floor; \
     CREATE TABLE windlass_floor.runs (key bigint PRIMARY KEY, version bigint NOT NULL, state text) WITH (fillfactor = 60); \
     CREATE TABLE windlass_floor.journal (run bigint NOT NULL, version bigint NOT NULL, record bytea NOT NULL, \
     PRIMARY KEY (run, version));";
const INSERT: &str = "INSERT INTO windlass_floor.journal (run, version, record) \
     SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bytea[])";
const UPDATE: &str = "UPDATE windlass_floor.runs r SET version = r.version + 1, state = i.state \
     FROM unnest($1::bigint[], $2::text[]) AS i (key, state) WHERE r.key = i.key";

type Step = (i64, i64, oneshot::Sender<()>);

/// Measures in the database of a URL, with so many submitters, for so long. Call within a tokio runtime.
///
/// # Errors
/// The database cannot be reached or written.
pub async fn measure_postgres(url: &str, submitters: usize, duration: Duration) -> Result<Floor, StoreError> {
    let client = connect_plain(url).await?.client;
    client.batch_execute(SETUP).await.map_err(unavailable)?;
    let fill = format!("INSERT INTO windlass_floor.runs SELECT n, 0, 'state' FROM generate_series(0, {submitters}) n");
    client.batch_execute(&fill).await.map_err(unavailable)?;
    let (steps, asked) = mpsc::unbounded_channel();
    let writer = tokio::spawn(write(client, asked));
    let began = Instant::now();
    let submitters: Vec<_> =
        (0..submitters as i64).map(|run| tokio::spawn(submit(run, steps.clone(), began + duration))).collect();
    drop(steps);
    let mut times = Vec::new();
    for submitter in submitters {
        times.extend(submitter.await.map_err(unavailable)?);
    }
    let seconds = began.elapsed().as_secs_f64();
    let client = writer.await.map_err(unavailable)?.map_err(unavailable)?;
    client.batch_execute("DROP SCHEMA windlass_floor CASCADE").await.map_err(unavailable)?;
    Ok(summary(times, seconds))
}

async fn submit(run: i64, steps: mpsc::UnboundedSender<Step>, until: Instant) -> Vec<Duration> {
    let mut times = Vec::new();
    for version in 1.. {
        let began = Instant::now();
        let (answer, answered) = oneshot::channel();
        if began >= until || steps.send((run, version, answer)).is_err() || answered.await.is_err() {
            break;
        }
        times.push(began.elapsed());
    }
    times
}

async fn write(client: Client, mut asked: mpsc::UnboundedReceiver<Step>) -> Result<Client, tokio_postgres::Error> {
    let insert = client.prepare_typed(INSERT, &[Type::INT8_ARRAY, Type::INT8_ARRAY, Type::BYTEA_ARRAY]).await?;
    let update = client.prepare_typed(UPDATE, &[Type::INT8_ARRAY, Type::TEXT_ARRAY]).await?;
    let mut steps = Vec::new();
    while asked.recv_many(&mut steps, BATCH_MAX).await > 0 {
        batch(&client, &insert, &update, &steps).await?;
        for (.., answer) in steps.drain(..) {
            // A submitter whose time is over does not wait for its last step.
            let _over = answer.send(());
        }
    }
    Ok(client)
}

async fn batch(
    client: &Client,
    insert: &Statement,
    update: &Statement,
    steps: &[Step],
) -> Result<(), tokio_postgres::Error> {
    let runs: Vec<i64> = steps.iter().map(|(run, ..)| *run).collect();
    let versions: Vec<i64> = steps.iter().map(|(_, version, _)| *version).collect();
    let records: Vec<&[u8]> = steps.iter().map(|_| [b'x'; ROW_BYTES].as_slice()).collect();
    let states: Vec<&str> = steps.iter().map(|_| "state").collect();
    let rows: [&(dyn ToSql + Sync); 3] = [&runs, &versions, &records];
    let changes: [&(dyn ToSql + Sync); 2] = [&runs, &states];
    // All are sent before the first is answered, in this order.
    let flight = try_join4(
        client.batch_execute("BEGIN"),
        client.execute(insert, &rows),
        client.execute(update, &changes),
        client.batch_execute("COMMIT"),
    );
    flight.await.map(|_| ())
}
