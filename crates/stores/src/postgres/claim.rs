//! Who gets which run: the queue, its classes and turns, runs taken over, let go, quarantined.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use windlass_core::ids::RunId;
use windlass_core::machine::Priority;
use windlass_core::run::Status;
use windlass_ports::store::{Claim, Keep, Lease, STRIKES_SUSPECT, StoreError, WorkerId};

use super::connect::{Sql, Value};
use super::flight::status_code;
use super::pool::Pool;
use super::request::{count, int};
use super::statements::now_us;
use super::text::{shield, unshield};
use crate::priority_of;

/// Losses of a worker from which on a run is suspect: a claim takes it with nothing else.
const SUSPECT: i32 = STRIKES_SUSPECT as i32;
/// Tenants looked at in one class and pool, at most.
const TENANTS_MAX: usize = 256;
/// Of those, tenants that may turn out to hold as much as they may.
const TENANTS_SPARE: usize = 64;

/// Columns of a lease, after a change of the row.
macro_rules! lease {
    () => {
        " RETURNING r.id, r.epoch, r.lost, r.strikes, r.priority"
    };
}

/// What taking a run changes.
macro_rules! take {
    () => {
        "UPDATE runs r SET lost = coalesce(r.lost, r.owner), owner = $1, epoch = r.epoch + 1, ready = NULL, wake_at = NULL"
    };
}

/// Who waits: of each class and pool the tenants after the one that was served last, with how many of their runs wait
/// and how many are held, each counted up to what is asked for.
static SURVEY: Sql = Sql {
    text: "WITH RECURSIVE lane (priority, pool) AS ( \
           (SELECT priority, pool FROM runs WHERE ready IS NOT NULL ORDER BY priority, pool LIMIT 1) \
           UNION ALL SELECT n.priority, n.pool FROM lane l CROSS JOIN LATERAL (SELECT q.priority, q.pool FROM runs q \
             WHERE q.ready IS NOT NULL AND (q.priority, q.pool) > (l.priority, l.pool) \
             ORDER BY q.priority, q.pool LIMIT 1) n), \
         wanted AS MATERIALIZED (SELECT lane.priority, lane.pool, coalesce(t.last, '') AS last FROM lane \
           LEFT JOIN unnest($1::smallint[], $2::text[]) AS t (priority, last) ON t.priority = lane.priority \
           WHERE $3::text[] IS NULL OR lane.pool = ANY($3)), \
         after (priority, pool, tenant, nth) AS ( \
           SELECT w.priority, w.pool, f.tenant, 1::bigint FROM wanted w CROSS JOIN LATERAL (SELECT q.tenant FROM runs q \
             WHERE q.priority = w.priority AND q.pool = w.pool AND q.ready IS NOT NULL AND q.tenant > w.last \
             ORDER BY q.tenant LIMIT 1) f \
           UNION ALL SELECT a.priority, a.pool, f.tenant, a.nth + 1 FROM after a CROSS JOIN LATERAL (SELECT q.tenant \
             FROM runs q WHERE q.priority = a.priority AND q.pool = a.pool AND q.ready IS NOT NULL \
             AND q.tenant > a.tenant ORDER BY q.tenant LIMIT 1) f WHERE a.nth < $5), \
         before (priority, pool, tenant, last, nth) AS ( \
           SELECT w.priority, w.pool, f.tenant, w.last, 1::bigint FROM wanted w CROSS JOIN LATERAL (SELECT q.tenant \
             FROM runs q WHERE q.priority = w.priority AND q.pool = w.pool AND q.ready IS NOT NULL \
             AND q.tenant <= w.last ORDER BY q.tenant LIMIT 1) f \
           UNION ALL SELECT b.priority, b.pool, f.tenant, b.last, b.nth + 1 FROM before b CROSS JOIN LATERAL ( \
             SELECT q.tenant FROM runs q WHERE q.priority = b.priority AND q.pool = b.pool AND q.ready IS NOT NULL \
             AND q.tenant > b.tenant AND q.tenant <= b.last ORDER BY q.tenant LIMIT 1) f WHERE b.nth < $5) \
         SELECT s.priority, s.pool, s.tenant, \
           (SELECT count(*) FROM (SELECT 1 FROM runs q WHERE q.priority = s.priority AND q.pool = s.pool \
             AND q.tenant = s.tenant AND q.ready IS NOT NULL LIMIT $4) w), \
           CASE WHEN $6::bigint IS NULL THEN 0 ELSE (SELECT count(*) FROM (SELECT 1 FROM runs q \
             WHERE q.tenant = s.tenant AND q.owner IS NOT NULL LIMIT $6) h) END \
         FROM (SELECT priority, pool, tenant FROM after UNION ALL SELECT priority, pool, tenant FROM before) s",
    types: &[Type::INT2_ARRAY, Type::TEXT_ARRAY, Type::TEXT_ARRAY, Type::INT8, Type::INT8, Type::INT8],
};

/// Takes the first runs of each class, pool and tenant; of all pools of one class and tenant together no more than its
/// share.
static DEAL: Sql = Sql {
    text: concat!(
        "WITH free AS MATERIALIZED (SELECT i.share, q.id, q.tenant, q.priority, q.ready, q.strikes \
           FROM unnest($2::smallint[], $3::text[], $4::text[], $5::bigint[]) AS i (priority, pool, tenant, share) \
           CROSS JOIN LATERAL (SELECT r.id, r.tenant, r.priority, r.ready, r.strikes FROM runs r \
             WHERE r.priority = i.priority AND r.pool = i.pool AND r.tenant = i.tenant AND r.ready IS NOT NULL ORDER BY r.ready LIMIT i.share \
             FOR NO KEY UPDATE SKIP LOCKED) q), \
         dealt AS MATERIALIZED (SELECT id, tenant, priority, nth, strikes FROM (SELECT free.*, row_number() OVER \
           (PARTITION BY priority, tenant ORDER BY ready, id) AS nth FROM free) f WHERE nth <= share), \
         suspect AS MATERIALIZED (SELECT d.id FROM dealt d JOIN unnest($6::smallint[], $7::text[], $8::bigint[]) \
           WITH ORDINALITY AS o (priority, tenant, nth, place) USING (priority, tenant, nth) WHERE d.strikes >= $9 \
           ORDER BY o.place LIMIT 1), \
         taken AS (",
        take!(),
        " FROM dealt d WHERE r.id = d.id AND r.ready IS NOT NULL AND (NOT EXISTS (SELECT 1 FROM suspect) \
           OR d.id = (SELECT id FROM suspect)) AND EXISTS \
           (SELECT 1 FROM workers w WHERE w.id = $1 AND w.alive)",
        lease!(),
        ") SELECT taken.id, taken.epoch, taken.lost, taken.strikes, d.priority, d.tenant, d.nth \
         FROM taken JOIN dealt d ON d.id = taken.id"
    ),
    types: &[
        Type::TEXT,
        Type::INT2_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT8_ARRAY,
        Type::INT2_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT8_ARRAY,
        Type::INT4,
    ],
};

static CLAIM_TREE: Sql = Sql {
    text: concat!(
        "WITH free AS MATERIALIZED (SELECT id, ready, strikes FROM runs WHERE root = $2 AND ready IS NOT NULL \
         ORDER BY ready, id LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED), \
         suspect AS MATERIALIZED (SELECT id FROM free WHERE strikes >= $4 ORDER BY ready, id LIMIT 1), taken AS (",
        take!(),
        " FROM free WHERE r.id = free.id AND r.ready IS NOT NULL AND (NOT EXISTS (SELECT 1 FROM suspect) \
         OR r.id = (SELECT id FROM suspect)) AND EXISTS \
         (SELECT 1 FROM workers w WHERE w.id = $1 AND w.alive)",
        lease!(),
        ") SELECT taken.id, taken.epoch, taken.lost, taken.strikes, taken.priority FROM taken JOIN free ON free.id = taken.id \
         ORDER BY free.ready, free.id"
    ),
    types: &[Type::TEXT, Type::TEXT, Type::INT8, Type::INT4],
};

/// The word that a run's status reads as, as a number.
macro_rules! shown {
    () => {
        "CASE WHEN r.quarantine IS NOT NULL THEN $5 WHEN r.ready IS NOT NULL OR (r.version = 0 AND r.owner IS NULL) \
         THEN $4 ELSE r.status END"
    };
}

static TAKE_OVER: Sql = Sql {
    text: concat!(
        take!(),
        ", quarantine = NULL, strikes = CASE WHEN r.quarantine IS NULL THEN r.strikes ELSE 0 END, \
         helped = r.helped + CASE WHEN r.status < 6 AND (r.owner IS NOT NULL OR r.quarantine IS NOT NULL) THEN 1 ELSE 0 END \
         WHERE r.id = $2 AND r.status IN (0, 1, 2, 3, 4, 5, 7) AND ($3::smallint IS NULL OR $3 = ",
        shown!(),
        ") AND EXISTS (SELECT 1 FROM workers w WHERE w.id = $1 AND w.alive)",
        lease!()
    ),
    types: &[Type::TEXT, Type::TEXT, Type::INT2, Type::INT2, Type::INT2],
};

static RELEASE: Sql = Sql {
    text: concat!(
        "UPDATE runs r SET owner = NULL, \
         ready = CASE WHEN r.status < 6 AND (NOT $4 OR r.pending > 0) THEN ",
        now_us!(),
        " END, wake_at = CASE WHEN r.status < 6 AND $4 AND r.pending = 0 THEN $5::bigint END \
         WHERE r.id = $1 AND r.epoch = $2 AND r.owner = $3 RETURNING r.ready IS NOT NULL"
    ),
    types: &[Type::TEXT, Type::INT8, Type::TEXT, Type::BOOL, Type::INT8],
};

static REQUEUE: Sql = Sql {
    text: concat!(
        "UPDATE runs r SET quarantine = NULL, strikes = 0, helped = r.helped + 1, ready = ",
        now_us!(),
        " WHERE r.id = $1 AND r.quarantine IS NOT NULL RETURNING r.id"
    ),
    types: &[Type::TEXT],
};

fn failed(error: tokio_postgres::Error) -> StoreError {
    StoreError::Corrupt(format!("an answer cannot be read: {error}"))
}

/// Reads the columns of a lease.
pub(super) fn lease(row: &Row) -> Result<Lease, tokio_postgres::Error> {
    let (id, lost): (&str, Option<&str>) = (row.try_get(0)?, row.try_get(2)?);
    let strikes: i32 = row.try_get(3)?;
    Ok(Lease {
        run: RunId::stored(&unshield(id)),
        epoch: count(row.try_get(1)?),
        taken_from: lost.map(|lost| WorkerId(unshield(lost))),
        strikes: u32::try_from(strikes).unwrap_or_default(),
        priority: priority_of(i64::from(row.try_get::<_, i16>(4)?)),
    })
}

/// Of each class, the tenant that was served last by this process.
pub(super) type Turns = HashMap<i16, String>;

/// After a claim that emptied the queue the next one waits for so many times as long as that one took: what comes meanwhile
/// is claimed together, and a server with much to do is asked less often.
const REST: u32 = 2;
/// The longest such wait.
const REST_MAX: Duration = Duration::from_millis(5);

/// When this process claims again.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<Option<Instant>>);

impl Pace {
    fn until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it is time for the next claim.
    pub(super) async fn pause(&self) {
        let until = self.until().take();
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
        }
    }

    /// Notes how long a claim took that left nothing.
    pub(super) fn emptied(&self, took: Duration) {
        *self.until() = Some(Instant::now() + (took * REST).min(REST_MAX));
    }
}

/// A part of the queue: what one tenant has waiting in a class and a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Waiting {
    priority: i16,
    pool: String,
    tenant: String,
    runs: usize,
    held: usize,
}

/// So many runs are to be taken of a class and tenant.
type Shares = BTreeMap<(i16, String), usize>;

/// One of each tenant in turn, class after class.
fn deal(waiting: &[Waiting], claim: &Claim, room: usize, turns: &mut Turns) -> (Shares, Vec<(i16, String, usize)>) {
    let mut classes: Vec<i16> = Priority::ALL.iter().map(|class| *class as i16).collect();
    if claim.lowest_first {
        classes.reverse();
    }
    let mut left: HashMap<&str, usize> = HashMap::new();
    for part in waiting {
        let most = claim.tenant_held_max.map_or(usize::MAX, |most| (most as usize).saturating_sub(part.held));
        left.insert(&part.tenant, most);
    }
    let (mut shares, mut order) = (Shares::new(), Vec::new());
    for class in classes {
        let mut tenants: BTreeMap<&str, usize> = BTreeMap::new();
        for part in waiting.iter().filter(|part| part.priority == class) {
            *tenants.entry(&part.tenant).or_default() += part.runs;
        }
        let mut queue: VecDeque<_> = tenants.into_iter().collect();
        let last = turns.get(&class).cloned();
        let next = queue.iter().position(|(tenant, _)| last.as_deref().is_none_or(|last| *tenant > last));
        queue.rotate_left(next.unwrap_or_default());
        while order.len() < room
            && let Some((tenant, runs)) = queue.pop_front()
        {
            let Some(fewer) = left.get(tenant).copied().unwrap_or_default().checked_sub(1) else { continue };
            left.insert(tenant, fewer);
            let share = shares.entry((class, tenant.to_owned())).or_default();
            *share += 1;
            order.push((class, tenant.to_owned(), *share));
            turns.insert(class, tenant.to_owned());
            if runs > 1 {
                queue.push_back((tenant, runs - 1));
            }
        }
    }
    (shares, order)
}

/// Takes runs that are in the queue.
pub(super) async fn claim(pool: &Pool, claim: &Claim, turns: &mut Turns) -> Result<Vec<Lease>, StoreError> {
    if claim.limit == 0 {
        return Ok(Vec::new());
    }
    if let Some(root) = &claim.within {
        let values = || -> Vec<Value> {
            let root = shield(root.as_str()).into_owned();
            let limit = int(claim.limit as u64);
            vec![Box::new(shield(&claim.worker.0).into_owned()), Box::new(root), Box::new(limit), Box::new(SUSPECT)]
        };
        let rows = pool.rows(&CLAIM_TREE, values).await?;
        return rows.iter().map(lease).collect::<Result<_, _>>().map_err(failed);
    }
    let mut leases = Vec::new();
    loop {
        let room = claim.limit - leases.len();
        let waiting = survey(pool, claim, room, turns).await?;
        let (shares, order) = deal(&waiting, claim, room, turns);
        if order.is_empty() {
            return Ok(leases);
        }
        let taken = take(pool, claim, &waiting, &shares, &order).await?;
        let got_all = taken.len() >= order.len();
        leases.extend(taken);
        // What others took meanwhile is looked for once more by the next claim; what one look did not show, now.
        if leases.len() >= claim.limit || !got_all {
            return Ok(leases);
        }
        if waiting.iter().all(|part| part.runs < room) && waiting.len() < tenants_max(claim, room) {
            return Ok(leases);
        }
    }
}

/// How many tenants are looked at: each that waits gives one run at least, unless it holds as many as it may.
fn tenants_max(claim: &Claim, room: usize) -> usize {
    let spare = if claim.tenant_held_max.is_some() { TENANTS_SPARE } else { 0 };
    room.saturating_add(spare).min(TENANTS_MAX)
}

async fn survey(pool: &Pool, claim: &Claim, room: usize, turns: &Turns) -> Result<Vec<Waiting>, StoreError> {
    let pools: Option<Vec<String>> =
        (!claim.pools.is_empty()).then(|| claim.pools.iter().map(|pool| shield(pool).into_owned()).collect());
    let held_max = claim.tenant_held_max.map(i64::from);
    let values = || -> Vec<Value> {
        vec![
            Box::new(turns.keys().copied().collect::<Vec<i16>>()),
            Box::new(turns.values().cloned().collect::<Vec<String>>()),
            Box::new(pools.clone()),
            Box::new(int(room as u64)),
            Box::new(tenants_max(claim, room) as i64),
            Box::new(held_max),
        ]
    };
    let rows = pool.rows(&SURVEY, values).await?;
    let read = |row: &Row| {
        let (runs, held): (i64, i64) = (row.try_get(3)?, row.try_get(4)?);
        let number = |n: i64| usize::try_from(n).unwrap_or_default();
        Ok(Waiting {
            priority: row.try_get(0)?,
            pool: row.try_get(1)?,
            tenant: row.try_get(2)?,
            runs: number(runs),
            held: number(held),
        })
    };
    rows.iter().map(read).collect::<Result<_, _>>().map_err(failed)
}

async fn take(
    pool: &Pool,
    claim: &Claim,
    waiting: &[Waiting],
    shares: &Shares,
    order: &[(i16, String, usize)],
) -> Result<Vec<Lease>, StoreError> {
    let parts: Vec<(&Waiting, i64)> = waiting
        .iter()
        .filter_map(|part| Some((part, *shares.get(&(part.priority, part.tenant.clone()))? as i64)))
        .collect();
    let values = || -> Vec<Value> {
        vec![
            Box::new(shield(&claim.worker.0).into_owned()),
            Box::new(parts.iter().map(|(part, _)| part.priority).collect::<Vec<i16>>()),
            Box::new(parts.iter().map(|(part, _)| part.pool.clone()).collect::<Vec<String>>()),
            Box::new(parts.iter().map(|(part, _)| part.tenant.clone()).collect::<Vec<String>>()),
            Box::new(parts.iter().map(|(_, share)| *share).collect::<Vec<i64>>()),
            Box::new(order.iter().map(|(class, _, _)| *class).collect::<Vec<i16>>()),
            Box::new(order.iter().map(|(_, tenant, _)| tenant.clone()).collect::<Vec<String>>()),
            Box::new(order.iter().map(|(_, _, nth)| *nth as i64).collect::<Vec<i64>>()),
            Box::new(SUSPECT),
        ]
    };
    let rows = pool.rows(&DEAL, values).await?;
    let places: HashMap<(i16, &str, i64), usize> = order
        .iter()
        .enumerate()
        .map(|(place, (class, tenant, nth))| ((*class, tenant.as_str(), *nth as i64), place))
        .collect();
    let read = |row: &Row| {
        let (class, tenant, nth): (i16, &str, i64) = (row.try_get(4)?, row.try_get(5)?, row.try_get(6)?);
        Ok((places.get(&(class, tenant, nth)).copied().unwrap_or(usize::MAX), lease(row)?))
    };
    let mut taken: Vec<(usize, Lease)> = rows.iter().map(read).collect::<Result<_, _>>().map_err(failed)?;
    taken.sort_by_key(|(place, _)| *place);
    Ok(taken.into_iter().map(|(_, lease)| lease).collect())
}

/// Takes one run from whoever holds it.
pub(super) async fn take_over(
    pool: &Pool,
    run: &RunId,
    worker: &WorkerId,
    expected: Option<Status>,
) -> Result<Option<Lease>, StoreError> {
    let values = || -> Vec<Value> {
        vec![
            Box::new(shield(&worker.0).into_owned()),
            Box::new(shield(run.as_str()).into_owned()),
            Box::new(expected.map(status_code)),
            Box::new(status_code(Status::Queued)),
            Box::new(status_code(Status::Quarantined)),
        ]
    };
    let rows = pool.rows(&TAKE_OVER, values).await?;
    rows.first().map(lease).transpose().map_err(failed)
}

/// Gives a run back, or parks it. Tells whether it is in the queue.
pub(super) async fn release(pool: &Pool, lease: &Lease, worker: &WorkerId, keep: Keep) -> Result<bool, StoreError> {
    let (parks, wake_at) = match keep {
        Keep::Park { wake_at } => (true, wake_at.map(|at| int(at.0))),
        Keep::HandBack => (false, None),
        Keep::Hold | Keep::End => {
            return Err(StoreError::Invalid(format!("a run cannot be released with {keep:?}")));
        }
    };
    let values = || -> Vec<Value> {
        vec![
            Box::new(shield(lease.run.as_str()).into_owned()),
            Box::new(int(lease.epoch)),
            Box::new(shield(&worker.0).into_owned()),
            Box::new(parks),
            Box::new(wake_at),
        ]
    };
    let rows = pool.rows(&RELEASE, values).await?;
    rows.first().map_or(Ok(false), |row| row.try_get(0).map_err(failed))
}

/// Ends the quarantine of a run.
pub(super) async fn requeue(pool: &Pool, run: &RunId) -> Result<bool, StoreError> {
    let rows = pool.rows(&REQUEUE, || vec![Box::new(shield(run.as_str()).into_owned())]).await?;
    Ok(!rows.is_empty())
}
