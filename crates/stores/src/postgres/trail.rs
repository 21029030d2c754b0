//! The audit trail in a database: what is not sealed, seals, acts, and rows of removed runs.
//!
//! Transactions become visible in any order, so how far seals go is a snapshot: what was not visible to the last seal is
//! to be sealed by the next one.

use std::collections::BTreeMap;

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use windlass_core::audit::{self, Act, Chain};
use windlass_core::ids::{Digest, Name, RunId};
use windlass_core::seal::{ACTS, Last, Segment};
use windlass_core::time::Timestamp;
use windlass_ports::BoxFuture;
use windlass_ports::store::{Grown, Kept, Mark, Pruning, Removed, Sealing, StoreError, Trail, Unread, Unsealed};

use super::PostgresStore;
use super::connect::{Link, Sql, Trouble, Value};
use super::encryption::knowing;
use super::pool::Pool;
use super::read::unread;
use super::request::{count, encode, int};
use super::text::{indexed, shield, unshield};
use crate::cipher::{Cipher, Place};
use crate::pack::pack_audit;
use crate::trail::{act_of, chain_of, segment_of};

static STATE: Sql = Sql {
    text: "SELECT epoch, sealed_at, snapshot, backlog, pg_current_snapshot()::text, \
         (extract(epoch FROM clock_timestamp()) * 1000)::bigint FROM audit_sealing",
    types: &[],
};

/// Ends of chains, by run.
static BACKLOG: Sql = Sql {
    text: "SELECT DISTINCT ON (j.run) j.run, r.tenant, j.audit, j.xact, j.version FROM journal j \
         JOIN runs r ON r.id = j.run WHERE j.run > $1 AND j.audit IS NOT NULL ORDER BY j.run, j.version DESC LIMIT $2",
    types: &[Type::TEXT, Type::INT8],
};

/// What was not seen. A row whose transaction is still to come was written by another server, before the database was moved
/// to this one.
static ROWS: Sql = Sql {
    text: "SELECT j.run, r.tenant, j.audit, j.xact, j.version FROM journal j JOIN runs r ON r.id = j.run \
         WHERE (j.xact >= $1 OR j.xact = ANY($2)) AND j.xact < $3 AND j.audit IS NOT NULL \
         ORDER BY j.xact, j.run, j.version LIMIT $4",
    types: &[Type::INT8, Type::INT8_ARRAY, Type::INT8, Type::INT8],
};

static NEW_ACTS: Sql = Sql {
    text: "SELECT DISTINCT ON (tenant) tenant, bytes, number FROM audit_acts WHERE (xact >= $1 OR xact = ANY($2)) AND xact < $3 \
         ORDER BY tenant, number DESC",
    types: &[Type::INT8, Type::INT8_ARRAY, Type::INT8],
};

static LAST: Sql = Sql {
    text: "SELECT t.tenant, s.number, s.hash FROM unnest($1) AS t (tenant) CROSS JOIN LATERAL (SELECT number, hash \
         FROM audit_segments WHERE tenant = t.tenant ORDER BY number DESC LIMIT 1) s",
    types: &[Type::TEXT_ARRAY],
};

static SEAL: Sql = Sql {
    text: "WITH c AS (UPDATE audit_sealing SET epoch = epoch + 1, sealed_at = $2, snapshot = $3, backlog = $4 \
         WHERE epoch = $1 RETURNING epoch), s AS (INSERT INTO audit_segments (tenant, number, hash, bytes) \
         SELECT t, n, h, b FROM c, unnest($5::text[], $6::bigint[], $7::bytea[], $8::bytea[]) AS x (t, n, h, b)) \
         SELECT epoch FROM c",
    types: &[
        Type::INT8,
        Type::INT8,
        Type::TEXT,
        Type::TEXT,
        Type::TEXT_ARRAY,
        Type::INT8_ARRAY,
        Type::BYTEA_ARRAY,
        Type::BYTEA_ARRAY,
    ],
};

static SEGMENTS: Sql = Sql {
    text: "SELECT number, bytes FROM audit_segments WHERE tenant = $1 AND number > $2 ORDER BY number LIMIT $3",
    types: &[Type::TEXT, Type::INT8, Type::INT8],
};

static TENANTS: Sql = Sql {
    text: "SELECT tenant FROM audit_segments UNION SELECT tenant FROM audit_acts UNION SELECT tenant FROM audit_kept \
         ORDER BY tenant",
    types: &[],
};

static KEPT_OF_TENANT: Sql = Sql {
    text: "SELECT number, run, tenant, rows FROM audit_kept WHERE tenant = $1 AND number > $2 ORDER BY number LIMIT $3",
    types: &[Type::TEXT, Type::INT8, Type::INT8],
};

static KEPT_OF_RUN: Sql = Sql {
    text: "SELECT number, run, tenant, rows FROM audit_kept WHERE run = $1 AND number > $2 ORDER BY number LIMIT $3",
    types: &[Type::TEXT, Type::INT8, Type::INT8],
};

static ACT: Sql = Sql {
    text: "INSERT INTO audit_acts (tenant, number, bytes) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING number",
    types: &[Type::TEXT, Type::INT8, Type::BYTEA],
};

static ACTS_AFTER: Sql = Sql {
    text: "SELECT number, bytes FROM audit_acts WHERE tenant = $1 AND number > $2 ORDER BY number LIMIT $3",
    types: &[Type::TEXT, Type::INT8, Type::INT8],
};

static LAST_ACT: Sql = Sql {
    text: "SELECT number, bytes FROM audit_acts WHERE tenant = $1 ORDER BY number DESC LIMIT 1",
    types: &[Type::TEXT],
};

static PRUNE: Sql = Sql {
    text: "WITH s AS (DELETE FROM audit_segments WHERE tenant = $1 AND number <= $2), \
         a AS (DELETE FROM audit_acts WHERE tenant = $1 AND number <= $3) \
         DELETE FROM audit_kept WHERE tenant = $1 AND number = ANY($4)",
    types: &[Type::TEXT, Type::INT8, Type::INT8, Type::INT8_ARRAY],
};

static ROWS_TO_KEEP: Sql = Sql {
    text: "SELECT j.run, r.tenant, j.audit, j.version FROM journal j JOIN runs r ON r.id = j.run \
         WHERE j.run = ANY($1) AND j.audit IS NOT NULL ORDER BY j.run, j.version",
    types: &[Type::TEXT_ARRAY],
};

static KEEP: Sql = Sql {
    text: "INSERT INTO audit_kept (number, run, tenant, rows) SELECT \
         ((extract(epoch FROM clock_timestamp()) * 1000000)::bigint << 10) + o, r, t, b \
         FROM unnest($1::text[], $2::text[], $3::bytea[]) WITH ORDINALITY AS x (r, t, b, o)",
    types: &[Type::TEXT_ARRAY, Type::TEXT_ARRAY, Type::BYTEA_ARRAY],
};

/// Trees of which not all audit rows are sealed. Rows that another server wrote were sealed when the database was moved; when
/// that was not seen yet, nothing is.
static UNSEALED_TREES: Sql = Sql {
    text: "SELECT DISTINCT r.root FROM runs r JOIN journal j ON j.run = r.id CROSS JOIN audit_sealing s \
         WHERE r.root = ANY($1) AND j.audit IS NOT NULL AND (j.run > s.backlog \
         OR pg_snapshot_xmax(s.snapshot::pg_snapshot) > pg_snapshot_xmax(pg_current_snapshot()) \
         OR (j.xact::text::xid8 < pg_snapshot_xmax(pg_current_snapshot()) \
         AND NOT pg_visible_in_snapshot(j.xact::text::xid8, s.snapshot::pg_snapshot)))",
    types: &[Type::TEXT_ARRAY],
};

/// A snapshot: transactions from `end` on, and `open` ones, were not visible.
#[derive(Debug, PartialEq, Eq)]
struct Snapshot {
    /// Everything below it was visible.
    oldest: i64,
    end: i64,
    open: Vec<i64>,
}

impl Snapshot {
    const NONE: Self = Self { oldest: 1, end: 1, open: Vec::new() };

    fn parse(text: &str) -> Result<Self, StoreError> {
        let parsed = || {
            let mut parts = text.split(':');
            let (oldest, end) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            let open = parts.next()?.split(',').filter(|part| !part.is_empty()).map(|part| part.parse().ok());
            Some(Self { oldest, end, open: open.collect::<Option<_>>()? })
        };
        parsed().ok_or_else(|| StoreError::Corrupt(format!("`{text}` is no snapshot")))
    }

    fn values(&self, below: i64) -> Vec<Value> {
        vec![Box::new(self.end), Box::new(self.open.clone()), Box::new(below)]
    }
}

/// How far seals go.
struct State {
    epoch: u64,
    sealed_at: Timestamp,
    now: Timestamp,
    /// What the last seal saw.
    seen: String,
    old: Snapshot,
    /// Runs up to this one are sealed, whenever their rows were written; none when all are.
    backlog: Option<String>,
    /// What is visible.
    current: String,
    new: Snapshot,
    /// Why everything is to be sealed once more.
    lost: Option<String>,
}

impl State {
    async fn read(pool: &Pool) -> Result<Self, StoreError> {
        let rows = pool.rows(&STATE, Vec::new).await?;
        let row =
            rows.first().ok_or_else(|| StoreError::Corrupt("how far the audit trail is sealed is lost".into()))?;
        let number = |column| row.try_get::<_, i64>(column).map(count).map_err(unread);
        let seen: String = row.try_get(2).map_err(unread)?;
        let current: String = row.try_get(4).map_err(unread)?;
        let new = Snapshot::parse(&current)?;
        // A database that was moved to another server counts transactions from another number.
        let (old, lost) = match Snapshot::parse(&seen) {
            Ok(old) if old.end > new.end => {
                let text =
                    format!("seals are said to go up to transaction {}, and the next one is {}", old.end, new.end);
                (Snapshot::NONE, Some(text))
            }
            Ok(old) => (old, None),
            Err(error) => (Snapshot::NONE, Some(error.to_string())),
        };
        let mut backlog: Option<String> = row.try_get(3).map_err(unread)?;
        if lost.is_some() {
            backlog = Some(String::new());
        }
        let (epoch, sealed_at, now) = (number(0)?, Timestamp(number(1)?), Timestamp(number(5)?));
        Ok(Self { epoch, sealed_at, now, seen, old, backlog, current, new, lost })
    }

    /// Whether this is the first part of all there is.
    fn is_first(&self) -> bool {
        self.backlog.as_deref() == Some("")
    }
}

/// Rows that were read, and what the next seal has seen when it takes them.
struct Found {
    rows: Vec<Row>,
    seen: String,
    backlog: Option<String>,
    more: bool,
}

/// Rows of runs after a mark.
async fn rows_after(pool: &Pool, state: &State, limit: usize) -> Result<Found, StoreError> {
    let State { old, new, .. } = state;
    if let Some(after) = &state.backlog {
        let values = || -> Vec<Value> { vec![Box::new(after.clone()), Box::new(int(limit as u64))] };
        let rows = pool.rows(&BACKLOG, values).await?;
        let more = rows.len() == limit;
        let last = rows.last().filter(|_| more).map(|row| row.try_get(0).map_err(unread)).transpose()?;
        // What comes while this goes on is not in what was visible when it began.
        let seen = if state.is_first() { &state.current } else { &state.seen };
        return Ok(Found { rows, seen: seen.clone(), backlog: last, more: true });
    }
    let rows = rows_since(pool, old, new.end, int(limit as u64)).await?;
    let xact = |row: &Row| row.try_get::<_, i64>(3).map_err(unread);
    let whole = Found { rows: Vec::new(), seen: state.current.clone(), backlog: None, more: false };
    if rows.len() < limit {
        return Ok(Found { rows, ..whole });
    }
    // A part of what there is ends before a transaction, below which nothing can come any more.
    let last = rows.last().map(xact).transpose()?.unwrap_or_default();
    let mut part = Vec::new();
    for row in rows {
        if xact(&row)? < last {
            part.push(row);
        }
    }
    if part.is_empty() || last >= new.oldest {
        return Ok(Found { rows: rows_since(pool, old, new.end, i64::MAX).await?, ..whole });
    }
    Ok(Found { rows: part, seen: format!("{last}:{last}:"), backlog: None, more: true })
}

async fn rows_since(pool: &Pool, seen: &Snapshot, below: i64, limit: i64) -> Result<Vec<Row>, StoreError> {
    pool.rows(&ROWS, || seen.values(below).into_iter().chain([Box::new(limit) as Value]).collect()).await
}

/// Of each run of a tenant: a version, and the audit rows of its decision.
type Ends<'a> = BTreeMap<(Name, RunId), (i64, &'a [u8])>;

/// The ends of the chains of these rows: the last decision of each run, which those of another server need not follow.
fn ends_of(rows: &[Row]) -> Result<Ends<'_>, StoreError> {
    let mut ends = Ends::new();
    for row in rows {
        let run = RunId::stored(&unshield(row.try_get(0).map_err(unread)?));
        let tenant = unshield(row.try_get(1).map_err(unread)?);
        let (packed, version) = (row.try_get(2).map_err(unread)?, row.try_get(4).map_err(unread)?);
        let end = ends.entry((tenant, run)).or_insert((version, packed));
        if version > end.0 {
            *end = (version, packed);
        }
    }
    Ok(ends)
}

async fn unsealed(pool: &Pool, limit: usize) -> Result<Unsealed, StoreError> {
    let state = State::read(pool).await?;
    let found = rows_after(pool, &state, limit).await?;
    let mut grown: BTreeMap<(Name, RunId), Chain> = BTreeMap::new();
    let mut unread_chains = Vec::new();
    let mut leave_out = |tenant: Name, run: RunId, error: StoreError| {
        unread_chains.push(Unread { tenant, run, message: error.to_string() });
    };
    let ends = ends_of(&found.rows)?;
    let cipher = knowing(pool).await?;
    for (of, (version, stored)) in ends {
        let place = Place::Audit { run: &shield(of.1.as_str()), version };
        match chain_of(&cipher, place, stored) {
            Ok(chain) => drop(grown.insert(of, chain)),
            // Who lacks a key cannot tell what stands there, and seals past nothing.
            Err(error @ StoreError::Key(_)) => return Err(error),
            Err(error) => leave_out(of.0, of.1, error),
        }
    }
    if state.backlog.is_none() || state.is_first() {
        let (old, below) = if state.is_first() { (&Snapshot::NONE, i64::MAX) } else { (&state.old, state.new.end) };
        let rows = pool.rows(&NEW_ACTS, || old.values(below)).await?;
        let cipher = knowing(pool).await?;
        for row in rows {
            let name: &str = row.try_get(0).map_err(unread)?;
            let (tenant, run) = (unshield(name), RunId::stored(ACTS));
            let number = row.try_get(2).map_err(unread)?;
            match act_of(&cipher, name, number, row.try_get(1).map_err(unread)?) {
                Ok(act) => drop(grown.insert((tenant, run), Chain { rows: act.number, head: act.hash() })),
                Err(error @ StoreError::Key(_)) => return Err(error),
                Err(error) => leave_out(tenant, run, error),
            }
        }
    }
    let chains: Vec<Grown> = grown.into_iter().map(|((tenant, run), chain)| Grown { tenant, run, chain }).collect();
    let mut tenants: Vec<String> = chains.iter().map(|one| shield(&one.tenant).into_owned()).collect();
    tenants.dedup();
    let last =
        if tenants.is_empty() { Vec::new() } else { pool.rows(&LAST, || vec![Box::new(tenants.clone())]).await? };
    let last = last.iter().map(last_of).collect::<Result<_, _>>()?;
    let mark = Mark { seen: found.seen, backlog: found.backlog, ..Mark::default() };
    let State { epoch, sealed_at, now, lost, .. } = state;
    Ok(Unsealed { epoch, sealed_at, now, chains, last, mark, more: found.more, unread: unread_chains, lost })
}

fn last_of(row: &Row) -> Result<(Name, Last), StoreError> {
    let hash: Vec<u8> = row.try_get(2).map_err(unread)?;
    let hash = hash.try_into().map_err(|_| StoreError::Corrupt("the hash of a segment is cut off".into()))?;
    let number = count(row.try_get(1).map_err(unread)?);
    Ok((unshield(row.try_get(0).map_err(unread)?), Last { number, hash: Digest(hash) }))
}

async fn seal(pool: &Pool, sealing: Sealing) -> Result<bool, StoreError> {
    let Sealing { epoch, mark, at, segments } = sealing;
    let (mut tenants, mut numbers, mut hashes, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for segment in &segments {
        let (tenant, number) = (indexed("the name of a tenant", &segment.seal.tenant)?, int(segment.seal.number));
        bytes.push(pool.cipher.pack(Place::Segment { tenant: &tenant, number }, &encode(segment)?)?);
        tenants.push(tenant);
        numbers.push(number);
        hashes.push(segment.seal.hash().0.to_vec());
    }
    let values = || -> Vec<Value> {
        vec![
            Box::new(int(epoch)),
            Box::new(int(at.0)),
            Box::new(mark.seen.clone()),
            Box::new(mark.backlog.clone()),
            Box::new(tenants.clone()),
            Box::new(numbers.clone()),
            Box::new(hashes.clone()),
            Box::new(bytes.clone()),
        ]
    };
    Ok(!pool.rows(&SEAL, values).await?.is_empty())
}

/// Which of these trees have audit rows that are not sealed.
pub(super) async fn unsealed_trees(link: &mut Link, roots: &[String]) -> Result<Vec<String>, Trouble> {
    let rows = link.query(&UNSEALED_TREES, vec![Box::new(roots.to_vec())]).await?;
    rows.iter().map(|row| row.try_get(0).map_err(|error| Trouble::Refused(unread(error)))).collect()
}

/// Keeps the audit rows of runs that are about to be removed, within the transaction of their removal.
pub(super) async fn keep(link: &mut Link, cipher: &Cipher, runs: &[String]) -> Result<(), Trouble> {
    let corrupt = |error: tokio_postgres::Error| Trouble::Refused(unread(error));
    let mut kept: BTreeMap<(String, String), Vec<audit::Row>> = BTreeMap::new();
    for row in link.query(&ROWS_TO_KEEP, vec![Box::new(runs.to_vec())]).await? {
        let of: (String, String) = (row.try_get(0).map_err(corrupt)?, row.try_get(1).map_err(corrupt)?);
        let place = Place::Audit { run: &of.0, version: row.try_get(3).map_err(corrupt)? };
        let rows = crate::trail::rows_of(cipher, place, row.try_get(2).map_err(corrupt)?);
        kept.entry(of).or_default().extend(rows.map_err(Trouble::Refused)?);
    }
    if kept.is_empty() {
        return Ok(());
    }
    let (mut ids, mut tenants, mut packed) = (Vec::new(), Vec::new(), Vec::new());
    for ((run, tenant), rows) in kept {
        let rows = pack_audit(&encode(&rows).map_err(Trouble::Refused)?);
        packed.push(cipher.encrypt(Place::Kept { tenant: &tenant, run: &run }, rows).map_err(Trouble::Refused)?);
        ids.push(run);
        tenants.push(tenant);
    }
    link.query(&KEEP, vec![Box::new(ids), Box::new(tenants), Box::new(packed)]).await?;
    Ok(())
}

fn kept_of(cipher: &Cipher, row: &Row) -> Result<Kept, StoreError> {
    let (run, tenant): (&str, &str) = (row.try_get(1).map_err(unread)?, row.try_get(2).map_err(unread)?);
    let rows = crate::trail::rows_of(cipher, Place::Kept { tenant, run }, row.try_get(3).map_err(unread)?);
    Ok(Kept {
        number: count(row.try_get(0).map_err(unread)?),
        run: RunId::stored(&unshield(run)),
        tenant: unshield(tenant),
        rows: rows.map_err(|error| error.to_string()),
    })
}

/// An act after its number.
fn read_act(cipher: &Cipher, tenant: &str, row: &Row) -> Result<Act, StoreError> {
    act_of(cipher, &shield(tenant), row.try_get(0).map_err(unread)?, row.try_get(1).map_err(unread)?)
}

fn text(name: &str) -> Value {
    Box::new(shield(name).into_owned())
}

fn page(first: Value, after: u64, limit: usize) -> Vec<Value> {
    vec![first, Box::new(int(after)), Box::new(int(limit as u64))]
}

impl Trail for PostgresStore {
    fn unsealed(&self, limit: usize) -> BoxFuture<'_, Result<Unsealed, StoreError>> {
        Box::pin(unsealed(&self.pool, limit))
    }

    fn seal(&self, sealing: Sealing) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(seal(&self.pool, sealing))
    }

    fn segments(&self, tenant: Name, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Segment>, StoreError>> {
        Box::pin(async move {
            let rows = self.pool.rows(&SEGMENTS, || page(text(&tenant), after, limit)).await?;
            let cipher = knowing(&self.pool).await?;
            let read = |row: &Row| {
                let (number, stored) = (row.try_get(0).map_err(unread)?, row.try_get(1).map_err(unread)?);
                segment_of(&cipher, &shield(&tenant), number, stored)
            };
            rows.iter().map(read).collect()
        })
    }

    fn tenants(&self) -> BoxFuture<'_, Result<Vec<Name>, StoreError>> {
        Box::pin(async move {
            let rows = self.pool.rows(&TENANTS, Vec::new).await?;
            rows.iter().map(|row| row.try_get(0).map(unshield).map_err(unread)).collect()
        })
    }

    fn kept(&self, of: Removed, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Kept>, StoreError>> {
        Box::pin(async move {
            let rows = match &of {
                Removed::Run(run) => self.pool.rows(&KEPT_OF_RUN, || page(text(run.as_str()), after, limit)).await?,
                Removed::Tenant(tenant) => self.pool.rows(&KEPT_OF_TENANT, || page(text(tenant), after, limit)).await?,
            };
            let cipher = knowing(&self.pool).await?;
            rows.iter().map(|row| kept_of(&cipher, row)).collect()
        })
    }

    fn act(&self, tenant: Name, act: Act) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let name = indexed("the name of a tenant", &tenant)?;
            let last = self.last_act(tenant).await?;
            let chain = last.map_or_else(Chain::default, |last| Chain { rows: last.number, head: last.hash() });
            if chain.then(act.number, act.previous, act.hash()).is_err() {
                return Ok(false);
            }
            let place = Place::Act { tenant: &name, number: int(act.number) };
            let packed = self.pool.cipher.pack(place, &encode(&act)?)?;
            let values =
                || -> Vec<Value> { vec![Box::new(name.clone()), Box::new(int(act.number)), Box::new(packed.clone())] };
            Ok(!self.pool.rows(&ACT, values).await?.is_empty())
        })
    }

    fn acts(&self, tenant: Name, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Act>, StoreError>> {
        Box::pin(async move {
            let rows = self.pool.rows(&ACTS_AFTER, || page(text(&tenant), after, limit)).await?;
            let cipher = knowing(&self.pool).await?;
            rows.iter().map(|row| read_act(&cipher, &tenant, row)).collect()
        })
    }

    fn cut(&self, pruning: Pruning) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let Pruning { tenant, segments, acts, kept } = pruning;
            let kept: Vec<i64> = kept.into_iter().map(int).collect();
            let values = || -> Vec<Value> {
                vec![text(&tenant), Box::new(int(segments)), Box::new(int(acts)), Box::new(kept.clone())]
            };
            self.pool.rows(&PRUNE, values).await?;
            Ok(())
        })
    }

    fn last_act(&self, tenant: Name) -> BoxFuture<'_, Result<Option<Act>, StoreError>> {
        Box::pin(async move {
            let rows = self.pool.rows(&LAST_ACT, || vec![text(&tenant)]).await?;
            let cipher = knowing(&self.pool).await?;
            rows.first().map(|row| read_act(&cipher, &tenant, row)).transpose()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_read() {
        let read = Snapshot::parse("10:20:10,14,15").expect("a snapshot");
        assert_eq!(read, Snapshot { oldest: 10, end: 20, open: vec![10, 14, 15] });
        assert_eq!(Snapshot::parse("1:1:").expect("a snapshot").open, Vec::<i64>::new());
        assert!(Snapshot::parse("1:1").is_err());
        assert!(Snapshot::parse("x").is_err());
    }
}
