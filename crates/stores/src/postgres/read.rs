//! Everything that only reads one run, or a few.

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use windlass_core::audit;
use windlass_core::effect::WaitKind;
use windlass_core::ids::{Digest, EffectId, Name, RunId};
use windlass_core::input::Input;
use windlass_core::run::Status;
use windlass_core::time::Timestamp;
use windlass_core::value::Value as Data;
use windlass_ports::store::{Head, InboxItem, JournalRow, Object, OpId, Put, SWITCHES, StoreError, WaitRow, WorkerId};

use super::connect::{Sql, Value};
use super::pool::Pool;
use super::request::{count, int};
use super::text::{indexed, shield, unshield};
use crate::cipher::{Cipher, Place};
use crate::pack::{is_primed, unpack_primed};

/// Columns of [`head_of`], in its order.
macro_rules! head_columns {
    () => {
        "r.id, r.status, r.state, r.step, r.version, r.epoch, r.ready IS NOT NULL, r.wake_at, r.tokens, r.cost_micros, \
         r.bundle, r.updated_at, r.owner, r.parent, r.root, s.machine, r.tenant, s.depth, s.input, s.created_at, \
         r.pool, r.priority, s.tags, r.strikes, r.quarantine, r.helped"
    };
}
pub(super) use head_columns;

/// How many columns those are.
pub(super) const HEAD_COLUMNS: usize = 26;

static HEAD: Sql = Sql {
    text: concat!("SELECT ", head_columns!(), " FROM runs r JOIN starts s ON s.run = r.id WHERE r.id = $1"),
    types: &[Type::TEXT],
};

static JOURNAL: Sql = Sql {
    text: "SELECT version, record, blobs FROM journal WHERE run = $1 AND version > $2 ORDER BY version LIMIT $3",
    types: &[Type::TEXT, Type::INT8, Type::INT8],
};

static START: Sql = Sql { text: "SELECT start FROM starts WHERE run = $1", types: &[Type::TEXT] };

static AUDIT: Sql = Sql {
    text: "SELECT audit, version FROM journal WHERE run = $1 AND audit IS NOT NULL ORDER BY version",
    types: &[Type::TEXT],
};

static INBOX: Sql = Sql {
    text: "SELECT number, id, wait, signal, input FROM inbox WHERE run = $1 AND input IS NOT NULL ORDER BY number",
    types: &[Type::TEXT],
};

static WAITS: Sql = Sql {
    text: "SELECT run, effect, channel, kind, due FROM waits WHERE run = $1 ORDER BY effect",
    types: &[Type::TEXT],
};

static WAITS_OF_TREE: Sql = Sql {
    text: "WITH RECURSIVE below (id, root) AS (SELECT id, root FROM runs WHERE id = $1 UNION \
         SELECT r.id, r.root FROM runs r JOIN below b ON r.root = b.root AND r.parent = b.id) \
         SELECT w.run, effect, channel, kind, due FROM below b JOIN waits w ON w.run = b.id \
         JOIN starts s ON s.run = b.id ORDER BY s.created_us, s.run, effect",
    types: &[Type::TEXT],
};

static NEXT_DUE: Sql = Sql { text: "SELECT min(wake_at) FROM runs WHERE wake_at IS NOT NULL", types: &[] };

static NEXT_DUE_WITHIN: Sql =
    Sql { text: "SELECT min(wake_at) FROM runs WHERE root = $1 AND wake_at IS NOT NULL", types: &[Type::TEXT] };

/// Waits for a transaction that is writing the run, so that its outcome is known afterwards.
static SETTLE: Sql = Sql { text: "SELECT 1 FROM runs WHERE id = $1 FOR NO KEY UPDATE", types: &[Type::TEXT] };

static WAS_COMMITTED: Sql =
    Sql { text: "SELECT 1 FROM journal WHERE run = $1 AND op = $2 LIMIT 1", types: &[Type::TEXT, Type::UUID] };

static BLOB: Sql = Sql { text: "SELECT bytes FROM blobs WHERE digest = $1", types: &[Type::BYTEA] };

static BUNDLED_AT: Sql = Sql {
    text: "SELECT extract(epoch FROM now())::bigint - bundled_at FROM blobs WHERE digest = $1 AND bundled_at IS NOT NULL",
    types: &[Type::BYTEA],
};

static PUT_BUNDLE: Sql = Sql {
    text: "INSERT INTO blobs (digest, bundled_at, bytes) VALUES ($1, extract(epoch FROM now())::bigint, $2) \
         ON CONFLICT (digest) DO UPDATE SET bundled_at = excluded.bundled_at",
    types: &[Type::BYTEA, Type::BYTEA],
};

static OBJECT: Sql = Sql {
    text: "SELECT key, revision, bytes FROM objects WHERE kind = $1 AND key = $2",
    types: &[Type::TEXT, Type::TEXT],
};

static OBJECTS: Sql = Sql {
    text: "SELECT key, revision, bytes FROM objects WHERE kind = $1 AND ($2::text IS NULL OR key > $2) \
         ORDER BY key LIMIT $3",
    types: &[Type::TEXT, Type::TEXT, Type::INT8],
};

/// Waits for removals that are under way: a revision is never given twice.
static NEW_OBJECT: Sql = Sql {
    text: "WITH floor AS MATERIALIZED (SELECT revision FROM object_floors WHERE slot = $4 FOR SHARE) \
         INSERT INTO objects (kind, key, revision, bytes) SELECT $1, $2, revision + 1, $3 FROM floor \
         ON CONFLICT DO NOTHING RETURNING 1",
    types: &[Type::TEXT, Type::TEXT, Type::BYTEA, Type::INT2],
};

static CHANGE_OBJECT: Sql = Sql {
    text: "UPDATE objects SET revision = revision + 1, bytes = $4 WHERE kind = $1 AND key = $2 AND revision = $3 RETURNING 1",
    types: &[Type::TEXT, Type::TEXT, Type::INT8, Type::BYTEA],
};

/// The floor first, so that everyone takes the two rows in one order.
static REMOVE_OBJECT: Sql = Sql {
    text: "WITH floor AS (UPDATE object_floors f SET revision = greatest(f.revision, o.revision) FROM objects o \
         WHERE f.slot = $4 AND o.kind = $1 AND o.key = $2 AND o.revision = $3 RETURNING o.revision) \
         DELETE FROM objects o USING floor WHERE o.kind = $1 AND o.key = $2 AND o.revision = floor.revision RETURNING 1",
    types: &[Type::TEXT, Type::TEXT, Type::INT8, Type::INT2],
};

static NO_OBJECT: Sql = Sql {
    text: "SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM objects WHERE kind = $1 AND key = $2)",
    types: &[Type::TEXT, Type::TEXT],
};

/// Something of a row that is not as it was written.
pub(super) fn unread(error: tokio_postgres::Error) -> StoreError {
    StoreError::Corrupt(format!("a row cannot be read: {error}"))
}

pub(super) fn damaged(what: &str, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("{what} cannot be read: {error}"))
}

fn text(run: &RunId) -> Value {
    Box::new(shield(run.as_str()).into_owned())
}

fn digest(bytes: &[u8]) -> Result<Digest, StoreError> {
    bytes.try_into().map(Digest).map_err(|_| StoreError::Corrupt(format!("a hash has {} bytes", bytes.len())))
}

/// The tags of a run, from how they stand in its row.
fn tags(stored: Option<Vec<&str>>) -> std::collections::BTreeMap<Name, Name> {
    let pair = |tag: &str| {
        let (length, rest) = tag.split_once(':')?;
        let (key, value) = rest.split_at_checked(length.parse().ok()?)?;
        Some((unshield(key), unshield(value.strip_prefix('=')?)))
    };
    stored.unwrap_or_default().into_iter().filter_map(pair).collect()
}

/// A run at a glance, from the first columns of a row.
pub(super) fn head_of(row: &Row) -> Result<Head, StoreError> {
    let number = |column: usize| row.try_get::<_, i64>(column).map(count).map_err(unread);
    let word = |column: usize| row.try_get::<_, &str>(column).map(unshield).map_err(unread);
    let optional =
        |column: usize| Ok::<_, StoreError>(row.try_get::<_, Option<&str>>(column).map_err(unread)?.map(unshield));
    let bytes = |column: usize| row.try_get::<_, &[u8]>(column).map_err(unread).and_then(digest);
    let (status, priority): (i16, i16) = (row.try_get(1).map_err(unread)?, row.try_get(21).map_err(unread)?);
    let status = usize::try_from(status).ok().and_then(|place| Status::ALL.get(place).copied());
    let status =
        status.ok_or_else(|| StoreError::Corrupt("a run has a status that this build does not know".into()))?;
    let (version, owner) = (number(4)?, optional(12)?);
    let (is_ready, quarantine): (bool, _) = (row.try_get(6).map_err(unread)?, optional(24)?);
    let wake_at: Option<i64> = row.try_get(7).map_err(unread)?;
    let (depth, strikes): (i32, i32) = (row.try_get(17).map_err(unread)?, row.try_get(23).map_err(unread)?);
    let helped: i32 = row.try_get(25).map_err(unread)?;
    Ok(Head {
        id: RunId::stored(&word(0)?),
        status: match (&quarantine, is_ready) {
            (Some(_), _) => Status::Quarantined,
            (None, true) => Status::Queued,
            (None, false) if version == 0 && owner.is_none() => Status::Queued,
            (None, false) => status,
        },
        machine: word(15)?,
        state: optional(2)?,
        step: number(3)?,
        version,
        epoch: number(5)?,
        owner: owner.map(WorkerId),
        parent: optional(13)?.map(|run| RunId::stored(&run)),
        root: RunId::stored(&word(14)?),
        depth: u32::try_from(depth).unwrap_or_default(),
        tenant: word(16)?,
        bundle: bytes(10)?,
        input: bytes(18)?,
        wake_at: wake_at.map(|at| Timestamp(count(at))),
        pool: word(20)?,
        priority: crate::priority_of(i64::from(priority)),
        tags: tags(row.try_get(22).map_err(unread)?),
        strikes: u32::try_from(strikes).unwrap_or_default(),
        quarantine,
        helped: u32::try_from(helped).unwrap_or_default(),
        tokens: number(8)?,
        cost_micros: number(9)?,
        created_at: Timestamp(number(19)?),
        updated_at: Timestamp(number(11)?),
    })
}

pub(super) async fn head(pool: &Pool, run: &RunId) -> Result<Option<Head>, StoreError> {
    pool.rows(&HEAD, || vec![text(run)]).await?.first().map(head_of).transpose()
}

/// The hashes of a record.
pub(super) fn hashes(packed: Option<&[u8]>) -> Result<Vec<Digest>, StoreError> {
    let (digests, rest) = packed.unwrap_or_default().as_chunks::<32>();
    match rest.is_empty() {
        true => Ok(digests.iter().map(|digest| Digest(*digest)).collect()),
        false => Err(StoreError::Corrupt("the hashes of a record are cut off".into())),
    }
}

/// A record from its packed bytes.
pub(super) fn record(
    version: i64,
    packed: &[u8],
    blobs: Option<&[u8]>,
    primer: &[u8],
) -> Result<JournalRow, StoreError> {
    let bytes = unpack_primed(packed, if is_primed(packed) { primer } else { &[] })?;
    Ok(JournalRow { version: count(version), bytes, blobs: hashes(blobs)? })
}

/// The start of a run as it was packed, unpacked; nothing when there is none.
pub(super) async fn start_bytes(pool: &Pool, run: &str) -> Result<Vec<u8>, StoreError> {
    let rows = pool.rows(&START, || vec![Box::new(run.to_owned())]).await?;
    let start = |row: &Row| pool.cipher.unpack(Place::Start { run }, row.try_get(0).map_err(unread)?);
    rows.first().map_or(Ok(Vec::new()), start)
}

pub(super) async fn journal(pool: &Pool, run: &RunId, after: u64, limit: usize) -> Result<Vec<JournalRow>, StoreError> {
    let rows = pool.rows(&JOURNAL, || vec![text(run), Box::new(int(after)), Box::new(int(limit as u64))]).await?;
    let (mut primer, run) = (None, shield(run.as_str()));
    let mut journal = Vec::with_capacity(rows.len());
    for row in &rows {
        let (version, blobs): (i64, _) = (row.try_get(0).map_err(unread)?, row.try_get(2).map_err(unread)?);
        let packed = pool.cipher.decrypt(Place::Record { run: &run, version }, row.try_get(1).map_err(unread)?)?;
        if is_primed(&packed) && primer.is_none() {
            primer = Some(start_bytes(pool, &run).await?);
        }
        journal.push(record(version, &packed, blobs, primer.as_deref().unwrap_or_default())?);
    }
    Ok(journal)
}

pub(super) async fn audit(pool: &Pool, run: &RunId) -> Result<Vec<audit::Row>, StoreError> {
    let rows = pool.rows(&AUDIT, || vec![text(run)]).await?;
    let (mut all, cipher) = (Vec::new(), super::encryption::knowing(pool).await?);
    for row in rows {
        let place = Place::Audit { run: &shield(run.as_str()), version: row.try_get(1).map_err(unread)? };
        let rows = crate::trail::rows_of(&cipher, place, row.try_get(0).map_err(unread)?);
        all.extend(rows.map_err(|error| crate::trail::after(all.last(), error))?);
    }
    Ok(all)
}

pub(super) async fn inbox(pool: &Pool, run: &RunId) -> Result<Vec<InboxItem>, StoreError> {
    let rows = pool.rows(&INBOX, || vec![text(run)]).await?;
    let run = shield(run.as_str());
    rows.iter().map(|row| item(&pool.cipher, &run, row)).collect()
}

fn item(cipher: &Cipher, run: &str, row: &Row) -> Result<InboxItem, StoreError> {
    let id: &str = row.try_get(1).map_err(unread)?;
    let (wait, signal): (Option<i64>, Option<&str>) =
        (row.try_get(2).map_err(unread)?, row.try_get(3).map_err(unread)?);
    // The data of a signal is as it was sent: the server brings it here.
    let place = signal.map_or(Place::Input { run, id }, |id| Place::Signal { id });
    let bytes = cipher.unpack(place, row.try_get(4).map_err(unread)?)?;
    let input = match (wait, signal) {
        (Some(wait), Some(signal)) => {
            let data: Data = serde_json::from_slice(&bytes).map_err(|error| damaged("the data of a signal", &error))?;
            Input::Signalled { wait: EffectId(count(wait)), signal: unshield(signal), data }
        }
        _ => serde_json::from_slice(&bytes).map_err(|error| damaged("an input", &error))?,
    };
    Ok(InboxItem { number: count(row.try_get(0).map_err(unread)?), id: unshield(id), input })
}

pub(super) async fn waits(pool: &Pool, run: &RunId, tree: bool) -> Result<Vec<(RunId, WaitRow)>, StoreError> {
    let rows = pool.rows(if tree { &WAITS_OF_TREE } else { &WAITS }, || vec![text(run)]).await?;
    let read = |row: &Row| {
        let (of, effect): (&str, i64) = (row.try_get(0).map_err(unread)?, row.try_get(1).map_err(unread)?);
        let kind: Option<&[u8]> = row.try_get(3).map_err(unread)?;
        let kind = match kind {
            None => WaitKind::Signal,
            Some(stored) => crate::trail::wait_of(&pool.cipher, of, effect, stored)?,
        };
        let due: Option<i64> = row.try_get(4).map_err(unread)?;
        let wait = WaitRow {
            effect: EffectId(count(effect)),
            channel: unshield(row.try_get(2).map_err(unread)?),
            kind,
            due: due.map(|at| Timestamp(count(at))),
        };
        Ok((RunId::stored(&unshield(of)), wait))
    };
    rows.iter().map(read).collect()
}

pub(super) async fn next_due(pool: &Pool, within: Option<&RunId>) -> Result<Option<Timestamp>, StoreError> {
    let rows = match within {
        None => pool.rows(&NEXT_DUE, Vec::new).await?,
        Some(root) => pool.rows(&NEXT_DUE_WITHIN, || vec![text(root)]).await?,
    };
    let at: Option<i64> = rows.first().map_or(Ok(None), |row| row.try_get(0)).map_err(unread)?;
    Ok(at.map(|at| Timestamp(count(at))))
}

pub(super) async fn was_committed(pool: &Pool, run: &RunId, op: OpId) -> Result<bool, StoreError> {
    let look = || -> Vec<Value> { vec![text(run), Box::new(uuid::Uuid::from_u128(op.0))] };
    let rows = pool.run(|| vec![(&SETTLE, vec![text(run)]), (&WAS_COMMITTED, look())]).await?;
    Ok(rows.last().is_some_and(|rows| !rows.is_empty()))
}

pub(super) async fn blob(pool: &Pool, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
    let rows = pool.rows(&BLOB, || vec![Box::new(digest.0.to_vec())]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let bytes = pool.cipher.unpack(Place::Blob(digest), row.try_get(0).map_err(unread)?)?;
    if Digest::of(&bytes) != digest {
        return Err(StoreError::Corrupt(format!("blob `{}` has other bytes", digest.short())));
    }
    Ok(Some(bytes))
}

/// How many seconds ago a bundle was stored.
pub(super) async fn bundle_age(pool: &Pool, digest: Digest) -> Result<Option<i64>, StoreError> {
    let rows = pool.rows(&BUNDLED_AT, || vec![Box::new(digest.0.to_vec())]).await?;
    rows.first().map(|row| row.try_get(0).map_err(unread)).transpose()
}

pub(super) async fn put_bundle(pool: &Pool, digest: Digest, packed: Vec<u8>) -> Result<(), StoreError> {
    pool.rows(&PUT_BUNDLE, || vec![Box::new(digest.0.to_vec()), Box::new(packed.clone())]).await?;
    Ok(())
}

fn object_of(cipher: &Cipher, kind: &str, row: &Row) -> Result<Object, StoreError> {
    let key: &str = row.try_get(0).map_err(unread)?;
    Ok(Object {
        key: unshield(key),
        revision: count(row.try_get(1).map_err(unread)?),
        bytes: cipher.unpack(Place::Object { kind: &shield(kind), key }, row.try_get(2).map_err(unread)?)?,
    })
}

pub(super) async fn object(pool: &Pool, kind: &str, key: &str) -> Result<Option<Object>, StoreError> {
    let values = || -> Vec<Value> { vec![Box::new(shield(kind).into_owned()), Box::new(shield(key).into_owned())] };
    pool.rows(&OBJECT, values).await?.first().map(|row| object_of(&pool.cipher, kind, row)).transpose()
}

pub(super) async fn objects(
    pool: &Pool,
    kind: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<Object>, StoreError> {
    let values = || -> Vec<Value> {
        let after = after.map(|after| shield(after).into_owned());
        vec![Box::new(shield(kind).into_owned()), Box::new(after), Box::new(int(limit as u64))]
    };
    pool.rows(&OBJECTS, values).await?.iter().map(|row| object_of(&pool.cipher, kind, row)).collect()
}

pub(super) async fn put_object(pool: &Pool, put: &Put) -> Result<bool, StoreError> {
    let (kind, key) = (indexed("the kind of an object", &put.kind)?, indexed("the key of an object", &put.key)?);
    let packed = |bytes: &[u8]| pool.cipher.pack(Place::Object { kind: &kind, key: &key }, bytes);
    let packed = put.bytes.as_deref().map(packed).transpose()?;
    let place = || -> Vec<Value> { vec![Box::new(kind.clone()), Box::new(key.clone())] };
    let (expected, slot) = (int(put.expected), crate::floors::slot(&put.kind, &put.key));
    let values = || {
        let more: [Option<Value>; 2] = match (&packed, put.expected) {
            (Some(packed), 0) => [Some(Box::new(packed.clone())), Some(Box::new(slot))],
            (Some(packed), _) => [Some(Box::new(expected)), Some(Box::new(packed.clone()))],
            (None, 0) => [None, None],
            (None, _) => [Some(Box::new(expected)), Some(Box::new(slot))],
        };
        place().into_iter().chain(more.into_iter().flatten()).collect::<Vec<Value>>()
    };
    let sql = match (&packed, put.expected) {
        (Some(_), 0) => &NEW_OBJECT,
        (Some(_), _) => &CHANGE_OBJECT,
        (None, 0) => &NO_OBJECT,
        (None, _) => &REMOVE_OBJECT,
    };
    // Every commit that has looked at the switches ends before one is changed.
    let lock = (*put.kind == *SWITCHES).then_some(&LOCK_SWITCHES);
    let parts = || lock.map(|lock| (lock, Vec::new())).into_iter().chain([(sql, values())]).collect();
    Ok(pool.run(parts).await?.last().is_some_and(|rows| !rows.is_empty()))
}

/// Nobody reads the epoch of a switch meanwhile; see `switch_epoch` of the schema.
static LOCK_SWITCHES: Sql = Sql { text: "SELECT pg_advisory_xact_lock(7812738460179)", types: &[] };
