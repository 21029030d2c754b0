//! Who lives: workers as rows, their signs of life on the database's clock, and what is taken from those that are gone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use windlass_core::ids::{Name, RunId};
use windlass_core::time::Timestamp;
use windlass_ports::store::{
    Beat, FENCED, Lease, Load, Reaped, Registration, STRIKES_MAX, STRIKES_SUSPECT, StoreError, WorkerId, WorkerRow,
    lost_too_often,
};

use super::claim::lease;
use super::connect::{Connector, Link, Purpose, Sql, Trouble, Value};
use super::local::Local;
use super::pool::Pool;
use super::rates::FORGET_RATES;
use super::request::{count, encode};
use super::schema::known;
use super::statements::now_us;
use super::text::{shield, unshield};
use crate::pack::{pack, unpack};

/// Places in the queue below zero were taken back from a worker, and come before all others.
pub(super) const FRONT: i64 = -(1 << 62);
/// Runs that are put into the queue at once.
const PART_MAX: i64 = 2_000;
/// Rows of workers that were gone for so long are removed.
const KEPT_US: i64 = 24 * 3_600 * 1_000_000;
/// Heartbeats in one lease.
const BEATS: u32 = 3;

static JOIN: Sql = Sql {
    text: concat!(
        "WITH now AS MATERIALIZED (SELECT ",
        now_us!(),
        " AS us), old AS (DELETE FROM workers w USING now WHERE NOT w.alive AND w.until_us < now.us - $4 \
         AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.owner = w.id)) \
         INSERT INTO workers (id, registration, held, calls, draining, joined_us, seen_us, until_us, alive) \
         SELECT $1, $2, 0, 0, false, us, us, us + $3, true FROM now"
    ),
    types: &[Type::TEXT, Type::BYTEA, Type::INT8, Type::INT8],
};

static BEAT: Sql = Sql {
    text: concat!(
        "WITH now AS MATERIALIZED (SELECT ",
        now_us!(),
        " AS us), beat AS (UPDATE workers w SET seen_us = now.us, until_us = now.us + $2, held = $3, calls = $4, \
         draining = $5 FROM now WHERE w.id = $1 AND w.alive RETURNING w.id) \
         SELECT us, EXISTS (SELECT 1 FROM beat), (SELECT count(*) FROM runs r WHERE r.owner = $1), \
         (SELECT max(version) FROM schema_history) FROM now"
    ),
    types: &[Type::TEXT, Type::INT8, Type::INT8, Type::INT8, Type::BOOL],
};

static LEASES: Sql = Sql {
    text: "SELECT r.id, r.epoch, r.lost, r.strikes, r.priority FROM runs r WHERE r.owner = $1 ORDER BY r.id",
    types: &[Type::TEXT],
};

static LEAVE: Sql = Sql { text: "UPDATE workers SET alive = false WHERE id = $1", types: &[Type::TEXT] };

static GIVE_BACK: Sql = Sql {
    text: concat!(
        "UPDATE runs r SET owner = NULL, lost = CASE WHEN r.status < 6 THEN coalesce(r.lost, r.owner) ELSE r.lost END, \
         ready = CASE WHEN r.status < 6 THEN $2 + ",
        now_us!(),
        " + held.nth END FROM (SELECT id, row_number() OVER (ORDER BY id) AS nth FROM (SELECT id FROM runs \
         WHERE owner = $1 ORDER BY id FOR NO KEY UPDATE) h) held WHERE r.id = held.id AND r.owner = $1 \
         RETURNING r.ready IS NOT NULL"
    ),
    types: &[Type::TEXT, Type::INT8],
};

/// Marks workers whose lease ran out, or that are known to be dead; takes back the runs of all that are gone; puts runs
/// whose time has come into the queue. Runs are looked up by their owner: what a claim costs must not grow with the runs.
static UPKEEP: Sql = Sql {
    text: concat!(
        "WITH now AS MATERIALIZED (SELECT ",
        now_us!(),
        " AS us), gone AS (UPDATE workers w SET alive = false FROM (SELECT id FROM workers, now WHERE alive \
           AND (until_us < now.us OR id = ANY($1::text[])) ORDER BY id FOR UPDATE OF workers SKIP LOCKED) g \
           WHERE w.id = g.id RETURNING w.id), \
         lost AS MATERIALIZED (SELECT k.*, alone AND strikes + 1 >= $6 AS is_last, \
             CASE WHEN strikes = 0 THEN 1 WHEN alone AND strikes = 1 THEN $6 - 1 WHEN alone THEN strikes + 1 \
               ELSE greatest(strikes, $9) END AS after \
             FROM (SELECT id, owner, strikes, row_number() OVER (ORDER BY id) AS nth, (SELECT count(*) FROM \
             (SELECT 1 FROM runs h WHERE h.owner = l.owner AND h.status < 6 LIMIT 2) c) = 1 AS alone \
             FROM (SELECT r.id, r.owner, r.strikes FROM \
           (SELECT id FROM gone UNION SELECT id FROM workers WHERE NOT alive) w CROSS JOIN LATERAL \
           (SELECT id, owner, strikes FROM runs WHERE owner = w.id AND ($2::text IS NULL OR root = $2) \
           LIMIT $4 FOR NO KEY UPDATE SKIP LOCKED) r ORDER BY r.id LIMIT $4) l) k), \
         back AS (UPDATE runs r SET owner = NULL, \
           lost = CASE WHEN r.status < 6 THEN coalesce(r.lost, r.owner) ELSE r.lost END, \
           strikes = CASE WHEN r.status < 6 THEN lost.after ELSE r.strikes END, \
           ready = CASE WHEN r.status < 6 AND NOT lost.is_last THEN $5 + now.us + lost.nth END, \
           quarantine = CASE WHEN r.status < 6 AND lost.is_last THEN $7 || lost.owner || $8 END \
           FROM lost, now WHERE r.id = lost.id AND r.owner = lost.owner \
           RETURNING r.id, lost.owner, r.ready IS NOT NULL AS ready, r.quarantine IS NOT NULL AS quarantined), \
         due AS MATERIALIZED (SELECT id, row_number() OVER (ORDER BY wake_at, id) AS nth FROM (SELECT id, wake_at \
           FROM runs WHERE wake_at <= $3 AND ($2::text IS NULL OR root = $2) ORDER BY wake_at, id LIMIT $4 \
           FOR NO KEY UPDATE SKIP LOCKED) d), \
         woken AS (UPDATE runs r SET wake_at = NULL, ready = now.us + due.nth FROM due, now \
           WHERE r.id = due.id AND r.wake_at <= $3 RETURNING r.id) \
         SELECT 0, id, NULL, false, false FROM gone UNION ALL SELECT 1, id, owner, ready, quarantined FROM back \
         UNION ALL SELECT 2, id, NULL, false, false FROM woken"
    ),
    types: &[
        Type::TEXT_ARRAY,
        Type::TEXT,
        Type::INT8,
        Type::INT8,
        Type::INT8,
        Type::INT4,
        Type::TEXT,
        Type::TEXT,
        Type::INT4,
    ],
};

static KNOWN_DEAD: Sql = Sql {
    text: "SELECT id FROM unnest($1::text[]) AS i (id) WHERE NOT EXISTS \
         (SELECT 1 FROM workers w WHERE w.id = i.id AND w.alive)",
    types: &[Type::TEXT_ARRAY],
};

static WORKERS: Sql = Sql {
    text: concat!(
        "SELECT id, registration, held, calls, draining, seen_us, alive AND until_us >= ",
        now_us!(),
        ", (SELECT count(*) FROM runs r WHERE r.owner = w.id) FROM workers w ORDER BY id"
    ),
    types: &[],
};

static ALIVE: Sql = Sql { text: concat!("SELECT id FROM workers WHERE alive AND until_us >= ", now_us!()), types: &[] };

pub(super) static END_WORKERS: Sql = Sql { text: "UPDATE workers SET alive = false WHERE alive", types: &[] };

/// Holds every unfinished run back, for the first reason, as if lost by the second worker.
pub(super) static FENCE: Sql = Sql {
    text: "WITH before AS MATERIALIZED (SELECT id, quarantine IS NULL AND status < 6 AS new FROM runs ORDER BY id \
         FOR NO KEY UPDATE), fenced AS (UPDATE runs r SET epoch = r.epoch + 1, owner = NULL, ready = NULL, \
         lost = CASE WHEN r.status < 6 THEN $2 ELSE r.lost END, \
         wake_at = CASE WHEN r.status < 6 THEN NULL ELSE r.wake_at END, \
         quarantine = CASE WHEN r.status < 6 THEN $1 ELSE r.quarantine END FROM before \
         WHERE r.id = before.id RETURNING before.new) SELECT count(*) FILTER (WHERE new) FROM fenced",
    types: &[Type::TEXT, Type::TEXT],
};

/// When a lease of this process ends, as far as its own clocks tell.
#[derive(Clone, Copy, Debug)]
struct Beaten {
    at: Instant,
    wall: SystemTime,
}

/// The workers of one handle.
#[derive(Debug)]
pub(super) struct Workers {
    pub(super) local: Local,
    lease: Duration,
    connector: Arc<Connector>,
    /// A connection for signs of life alone, so that nothing else can delay one.
    link: tokio::sync::Mutex<Option<Link>>,
    beaten: Mutex<HashMap<WorkerId, Beaten>>,
}

/// What upkeep did.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) reaped: Reaped,
    /// Runs whose time has come.
    pub(super) woken: usize,
}

fn failed(error: tokio_postgres::Error) -> StoreError {
    StoreError::Corrupt(format!("a worker cannot be read: {error}"))
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

fn millis(micros: i64) -> Timestamp {
    Timestamp(count(micros) / 1_000)
}

impl Workers {
    pub(super) fn new(local: Local, connector: Arc<Connector>) -> Self {
        let lease = connector.address.settings.lease;
        Self { local, lease, connector, link: tokio::sync::Mutex::default(), beaten: Mutex::default() }
    }

    fn beaten(&self) -> MutexGuard<'_, HashMap<WorkerId, Beaten>> {
        self.beaten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks on the connection for signs of life, made again when it was lost.
    async fn ask(&self, sql: &'static Sql, values: impl Fn() -> Vec<Value>) -> Result<Vec<Row>, StoreError> {
        // A sign of life that takes longer than the time to the next one is made again.
        let patience = self.lease / BEATS;
        let asked = tokio::time::timeout(patience, async {
            let mut link = self.link.lock().await;
            let mut lost = None;
            for _ in 0..2 {
                let open = match link.take().filter(|link| !link.is_lost()) {
                    Some(open) => open,
                    None => self.connector.link(Purpose::Any).await?,
                };
                let mut open = open;
                match open.query(sql, values()).await {
                    Ok(rows) => {
                        *link = Some(open);
                        return Ok(rows);
                    }
                    Err(Trouble::Refused(error)) => {
                        *link = Some(open);
                        return Err(error);
                    }
                    Err(other) => lost = Some(other.error()),
                }
            }
            Err(lost.unwrap_or_else(|| StoreError::Unavailable("the database does not answer".into())))
        });
        let timed =
            |_| StoreError::Unavailable(format!("the database did not answer for {} s", patience.as_secs_f64()));
        asked.await.map_err(timed)?
    }

    pub(super) async fn join(&self, registration: &Registration) -> Result<WorkerId, StoreError> {
        let id = WorkerId(format!("w-{}", uuid::Uuid::now_v7().simple()).into());
        let packed = pack(&encode(registration)?);
        self.local.join(&id)?;
        let (at, wall) = (Instant::now(), SystemTime::now());
        let values = || -> Vec<Value> {
            let lease = micros(self.lease);
            vec![Box::new(id.0.to_string()), Box::new(packed.clone()), Box::new(lease), Box::new(KEPT_US)]
        };
        if let Err(error) = self.ask(&JOIN, values).await {
            self.local.leave(&id);
            return Err(error);
        }
        self.beaten().insert(id.clone(), Beaten { at, wall });
        Ok(id)
    }

    /// A sign of life.
    pub(super) async fn beat(&self, worker: &WorkerId, load: Load) -> Result<Beat, StoreError> {
        let (at, wall) = (Instant::now(), SystemTime::now());
        // A worker of another process gets no answer but the time.
        let id = if self.local.is_mine(worker) { shield(&worker.0).into_owned() } else { String::new() };
        let values = || -> Vec<Value> {
            vec![
                Box::new(id.clone()),
                Box::new(micros(self.lease)),
                Box::new(i64::from(load.held)),
                Box::new(i64::from(load.calls)),
                Box::new(load.draining),
            ]
        };
        let rows = self.ask(&BEAT, values).await?;
        let row = rows.first().ok_or_else(|| StoreError::Corrupt("a sign of life has no answer".into()))?;
        let (now, is_alive) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
        if is_alive {
            self.beaten().insert(worker.clone(), Beaten { at, wall });
        } else {
            self.beaten().remove(worker);
        }
        let (held, found): (i64, Option<i32>) = (row.try_get(2).map_err(failed)?, row.try_get(3).map_err(failed)?);
        let (found, known) = (found.and_then(|found| u32::try_from(found).ok()).unwrap_or_default(), known());
        if is_alive && found > known {
            return Err(StoreError::NewerSchema { found, known });
        }
        let again_ms = u64::try_from((self.lease / BEATS).as_millis()).unwrap_or(u64::MAX);
        Ok(Beat { now: millis(now), is_alive, again_ms, held: Some(count(held)) })
    }

    /// What a worker of this process holds.
    pub(super) async fn leases(&self, pool: &Pool, worker: &WorkerId) -> Result<Vec<Lease>, StoreError> {
        let rows = pool.rows(&LEASES, || vec![Box::new(shield(&worker.0).into_owned())]).await?;
        rows.iter().map(lease).collect::<Result<_, _>>().map_err(failed)
    }

    /// Whether the lease surely lasts: by the clock that cannot be set, and by the one that also runs while the system
    /// sleeps. A fifth of it is kept for the way and for what happens between this answer and its use.
    pub(super) fn is_current(&self, worker: &WorkerId) -> bool {
        let Some(beaten) = self.beaten().get(worker).copied() else { return false };
        let age = beaten.at.elapsed().max(beaten.wall.elapsed().unwrap_or_default());
        age < self.lease - self.lease / 5
    }

    pub(super) async fn leave(&self, pool: &Pool, worker: &WorkerId) -> Result<bool, StoreError> {
        if !self.local.is_mine(worker) {
            return Err(StoreError::Invalid(format!("`{worker}` is no worker of this process")));
        }
        self.beaten().remove(worker);
        let id = || -> Value { Box::new(worker.0.to_string()) };
        let rows = pool.run(|| vec![(&LEAVE, vec![id()]), (&GIVE_BACK, vec![id(), Box::new(FRONT)])]).await?;
        self.local.leave(worker);
        Ok(rows.last().is_some_and(|rows| rows.iter().any(|row| row.try_get(0).unwrap_or(false))))
    }

    /// Takes back what workers that are gone held, of a tree or of all, and wakes what is due at `now`.
    pub(super) async fn upkeep(
        &self,
        pool: &Pool,
        within: Option<&RunId>,
        now: Option<i64>,
    ) -> Result<Kept, StoreError> {
        let dead = self.local.dead();
        let names: Vec<String> = dead.iter().map(|worker| worker.0.to_string()).collect();
        let why = lost_too_often("\u{2}");
        let (before, after) = why.split_once('\u{2}').unwrap_or((&why, ""));
        let values = || -> Vec<Value> {
            vec![
                Box::new(names.clone()),
                Box::new(within.map(|root| shield(root.as_str()).into_owned())),
                Box::new(now),
                Box::new(PART_MAX),
                Box::new(FRONT),
                Box::new(STRIKES_MAX as i32),
                Box::new(before.to_owned()),
                Box::new(after.to_owned()),
                Box::new(STRIKES_SUSPECT as i32),
            ]
        };
        let rows = pool.rows(&UPKEEP, values).await?;
        if !names.is_empty() {
            let known = pool.rows(&KNOWN_DEAD, || vec![Box::new(names.clone())]).await?;
            let known = known.iter().map(|row| row.try_get::<_, &str>(0).map(|id| WorkerId(id.into())));
            self.local.settle(known.collect::<Result<Vec<_>, _>>().map_err(failed)?);
        }
        read_kept(&rows).map_err(failed)
    }

    pub(super) async fn rows(&self, pool: &Pool) -> Result<Vec<WorkerRow>, StoreError> {
        let dead = self.local.dead();
        let rows = pool.rows(&WORKERS, Vec::new).await?;
        let mut workers = rows.iter().map(|row| worker(row, &dead)).collect::<Result<Vec<_>, _>>()?;
        workers.sort_by_key(|worker| !worker.is_alive);
        Ok(workers)
    }

    pub(super) async fn alive(&self, pool: &Pool) -> Result<u64, StoreError> {
        let dead = self.local.dead();
        let rows = pool.rows(&ALIVE, Vec::new).await?;
        let ids = rows.iter().map(|row| row.try_get::<_, &str>(0)).collect::<Result<Vec<_>, _>>().map_err(failed)?;
        Ok(ids.into_iter().filter(|id| !dead.iter().any(|dead| &*dead.0 == *id)).count() as u64)
    }

    pub(super) async fn fence(&self, pool: &Pool, reason: &Name) -> Result<u64, StoreError> {
        self.beaten().clear();
        let reason = shield(reason).into_owned();
        let rows = pool
            .run(|| {
                let fence: Vec<Value> = vec![Box::new(reason.clone()), Box::new(FENCED)];
                vec![(&END_WORKERS, Vec::new()), (&FORGET_RATES, Vec::new()), (&FENCE, fence)]
            })
            .await?;
        let row = rows.last().and_then(|rows| rows.first());
        row.map_or(Ok(0), |row| row.try_get(0).map(count).map_err(failed))
    }
}

fn read_kept(rows: &[Row]) -> Result<Kept, tokio_postgres::Error> {
    let mut kept = Kept::default();
    for row in rows {
        let id: &str = row.try_get(1)?;
        match row.try_get::<_, i32>(0)? {
            0 => kept.reaped.workers.push(WorkerId(unshield(id))),
            1 => {
                let owner = WorkerId(unshield(row.try_get(2)?));
                if !kept.reaped.workers.contains(&owner) {
                    kept.reaped.workers.push(owner);
                }
                if row.try_get(3)? {
                    kept.reaped.runs += 1;
                }
                if row.try_get(4)? {
                    kept.reaped.quarantined.push(RunId::stored(&unshield(id)));
                }
            }
            _ => kept.woken += 1,
        }
    }
    kept.reaped.workers.sort();
    kept.reaped.quarantined.sort();
    Ok(kept)
}

fn worker(row: &Row, dead: &[WorkerId]) -> Result<WorkerRow, StoreError> {
    let id = WorkerId(unshield(row.try_get(0).map_err(failed)?));
    let packed: &[u8] = row.try_get(1).map_err(failed)?;
    let registration = serde_json::from_slice(&unpack(packed)?)
        .map_err(|error| StoreError::Corrupt(format!("the registration of `{id}` cannot be read: {error}")))?;
    let number = |column: usize| {
        let number: i64 = row.try_get(column).map_err(failed)?;
        Ok::<_, StoreError>(u32::try_from(number).unwrap_or_default())
    };
    let load = Load { held: number(2)?, calls: number(3)?, draining: row.try_get(4).map_err(failed)? };
    let alive: bool = row.try_get(6).map_err(failed)?;
    Ok(WorkerRow {
        registration,
        load,
        seen_at: millis(row.try_get(5).map_err(failed)?),
        is_alive: alive && !dead.contains(&id),
        runs: count(row.try_get(7).map_err(failed)?),
        id,
    })
}
