//! Brings runs into memory: those that are asked for at the same time come with one statement, as those of one claim do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use windlass_core::ids::RunId;
use windlass_core::run::Start;
use windlass_ports::store::{StoreError, Stored};

use super::connect::Sql;
use super::lanes::copy;
use super::pool::Pool;
use super::read::{HEAD_COLUMNS, damaged, head_columns, head_of, record, unread};
use super::text::shield;
use crate::cipher::{Cipher, Place};

/// Runs in one statement: many enough to share what it costs, few enough to hold in memory.
const BATCH_MAX: usize = 32;

/// One statement, so that all of a run is of one moment.
static LOAD: Sql = Sql {
    text: concat!(
        "SELECT ",
        head_columns!(),
        ", s.start, n.bytes, n.version, j.versions, j.records, j.blobs, r.pending > 0 FROM runs r JOIN starts s ON s.run = r.id \
         LEFT JOIN snapshots n ON n.run = r.id LEFT JOIN LATERAL (SELECT array_agg(version ORDER BY version) AS versions, \
         array_agg(record ORDER BY version) AS records, array_agg(blobs ORDER BY version) AS blobs FROM journal \
         WHERE run = r.id AND version > coalesce(n.version, 0)) j ON true WHERE r.id = ANY($1)"
    ),
    types: &[Type::TEXT_ARRAY],
};

/// A run as stored, and the bytes of its start.
pub(super) type Found = (Stored, Vec<u8>);

#[derive(Debug)]
struct Asked {
    run: RunId,
    answer: oneshot::Sender<Result<Option<Found>, StoreError>>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Asked>,
    /// A task is at work that takes what waits.
    is_served: bool,
}

/// Whoever loads runs, together.
#[derive(Debug)]
pub(super) struct Loads {
    pool: Arc<Pool>,
    queue: Arc<Mutex<Queue>>,
}

fn locked(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Loads {
    pub(super) fn new(pool: Arc<Pool>) -> Self {
        Self { pool, queue: Arc::default() }
    }

    /// None when there is no such run.
    pub(super) async fn load(&self, run: RunId) -> Result<Option<Found>, StoreError> {
        let (answer, answered) = oneshot::channel();
        let is_first = {
            let mut queue = locked(&self.queue);
            queue.waiting.push(Asked { run, answer });
            !std::mem::replace(&mut queue.is_served, true)
        };
        if is_first {
            // In a task of its own: whoever asked first may go away while others wait.
            tokio::spawn(serve(Arc::clone(&self.pool), Arc::clone(&self.queue)));
        }
        let gone = || StoreError::Unavailable("the readers of the store have stopped".into());
        answered.await.map_err(|_| gone())?
    }
}

/// Loads what waits, until nothing does.
async fn serve(pool: Arc<Pool>, queue: Arc<Mutex<Queue>>) {
    let mut serving = Serving { queue, is_done: false };
    loop {
        let asked: Vec<Asked> = {
            let mut queue = locked(&serving.queue);
            if queue.waiting.is_empty() {
                queue.is_served = false;
                serving.is_done = true;
                return;
            }
            let count = queue.waiting.len().min(BATCH_MAX);
            queue.waiting.drain(..count).collect()
        };
        answer(&pool, asked).await;
    }
}

/// Answers with one statement, or, when that fails for a reason that does not pass, each with its own: what is damaged in
/// one run is no business of the others.
async fn answer(pool: &Pool, mut asked: Vec<Asked>) {
    let ids: Vec<String> = asked.iter().map(|asked| shield(asked.run.as_str()).into_owned()).collect();
    let rows = pool.rows(&LOAD, || vec![Box::new(ids.clone())]).await;
    if let Err(StoreError::Corrupt(_) | StoreError::Invalid(_)) = rows
        && asked.len() > 1
    {
        let rest = asked.split_off(asked.len() / 2);
        Box::pin(answer(pool, asked)).await;
        return Box::pin(answer(pool, rest)).await;
    }
    let places: HashMap<&str, &Row> =
        rows.iter().flatten().filter_map(|row| Some((row.try_get(0).ok()?, row))).collect();
    for (asked, id) in asked.into_iter().zip(&ids) {
        let found = match &rows {
            Ok(_) => places.get(id.as_str()).map(|row| read(&pool.cipher, row)).transpose(),
            Err(error) => Err(copy(error)),
        };
        // Whoever asked may have gone.
        let _gone = asked.answer.send(found);
    }
}

/// Lets another task take over when this one ends in the middle.
struct Serving {
    queue: Arc<Mutex<Queue>>,
    is_done: bool,
}

impl Drop for Serving {
    fn drop(&mut self) {
        if !self.is_done {
            let mut queue = locked(&self.queue);
            queue.is_served = false;
            // Who waits is answered that the readers have stopped, and asks again.
            queue.waiting.clear();
        }
    }
}

fn read(cipher: &Cipher, row: &Row) -> Result<Found, StoreError> {
    let head = head_of(row)?;
    let run: &str = row.try_get(0).map_err(unread)?;
    let column = |place: usize| HEAD_COLUMNS + place;
    let primer = cipher.unpack(Place::Start { run }, row.try_get(column(0)).map_err(unread)?)?;
    let start: Start = serde_json::from_slice(&primer).map_err(|error| damaged("a start", &error))?;
    crate::trail::check_tenant(&head, &start)?;
    let snapshot: Option<&[u8]> = row.try_get(column(1)).map_err(unread)?;
    let version = row.try_get::<_, Option<i64>>(column(2)).map_err(unread)?.unwrap_or_default();
    let snapshot = snapshot.map(|stored| cipher.unpack(Place::Snapshot { run, version }, stored)).transpose()?;
    let versions: Vec<i64> = row.try_get::<_, Option<_>>(column(3)).map_err(unread)?.unwrap_or_default();
    let stored: Vec<&[u8]> = row.try_get::<_, Option<_>>(column(4)).map_err(unread)?.unwrap_or_default();
    let blobs: Vec<Option<&[u8]>> = row.try_get::<_, Option<_>>(column(5)).map_err(unread)?.unwrap_or_default();
    let records = versions.into_iter().zip(stored).zip(blobs);
    let records = records.map(|((version, stored), blobs)| {
        let packed = cipher.decrypt(Place::Record { run, version }, stored)?;
        record(version, &packed, blobs, &primer)
    });
    let records = records.collect::<Result<_, StoreError>>()?;
    let inbox = row.try_get(column(6)).map_err(unread)?;
    Ok((Stored { head, start, snapshot, records, inbox }, primer))
}
