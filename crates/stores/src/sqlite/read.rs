//! Everything that only reads, on a connection of its own.

use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension, Row, params};
use windlass_core::audit;
use windlass_core::effect::WaitKind;
use windlass_core::ids::{Digest, EffectId, Name, RunId};
use windlass_core::input::Input;
use windlass_core::run::{Start, Status};
use windlass_core::time::Timestamp;
use windlass_ports::store::{Head, InboxItem, JournalRow, Page, Query, Stats, StoreError, Stored, WaitRow, WorkerId};

use super::failed;
use super::tx::{count, int, status_code};
use crate::pack::{is_primed, unpack, unpack_primed};

/// Columns of [`head_of`], in its order.
const HEAD: &str = "SELECT runs.key, runs.id, runs.status, runs.state, runs.step, runs.version, runs.epoch, \
     runs.ready, runs.wake_at, runs.tokens, runs.cost_micros, runs.bundle, runs.updated_at, workers.id, parents.id, \
     roots.id, starts.machine, starts.tenant, starts.depth, starts.input, starts.created_at FROM runs \
     JOIN starts ON starts.run = runs.key \
     LEFT JOIN workers ON workers.key = runs.owner \
     LEFT JOIN runs AS parents ON parents.key = runs.parent \
     LEFT JOIN runs AS roots ON roots.key = runs.root";

fn damaged(what: &str, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("{what} cannot be read: {error}"))
}

/// Seconds since the Unix epoch.
pub(super) fn seconds_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| int(since.as_secs()))
}

fn name(row: &Row<'_>, column: usize) -> rusqlite::Result<Name> {
    Ok(row.get_ref(column)?.as_str()?.into())
}

fn optional_name(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Name>> {
    Ok(row.get_ref(column)?.as_str_or_null()?.map(Name::from))
}

fn head_of(row: &Row<'_>) -> rusqlite::Result<Head> {
    let number = |column: usize| row.get::<_, i64>(column).map(count);
    let id = RunId::stored(row.get_ref(1)?.as_str()?);
    let is_ready = row.get::<_, Option<i64>>(7)?.is_some();
    let status = usize::try_from(row.get::<_, i64>(2)?).ok().and_then(|place| Status::ALL.get(place).copied());
    let run = |name: Name| RunId::stored(&name);
    Ok(Head {
        status: match status {
            Some(status) if !is_ready => status,
            Some(_) => Status::Queued,
            None => return Err(rusqlite::Error::IntegralValueOutOfRange(2, row.get(2)?)),
        },
        state: optional_name(row, 3)?,
        step: number(4)?,
        version: number(5)?,
        epoch: number(6)?,
        wake_at: row.get::<_, Option<i64>>(8)?.map(|at| Timestamp(count(at))),
        tokens: number(9)?,
        cost_micros: number(10)?,
        bundle: Digest(row.get(11)?),
        updated_at: Timestamp(number(12)?),
        owner: optional_name(row, 13)?.map(WorkerId),
        parent: optional_name(row, 14)?.map(run),
        root: optional_name(row, 15)?.map_or_else(|| id.clone(), run),
        machine: name(row, 16)?,
        tenant: name(row, 17)?,
        depth: row.get(18)?,
        input: Digest(row.get(19)?),
        created_at: Timestamp(number(20)?),
        id,
    })
}

/// A run at a glance.
pub(super) fn head(connection: &Connection, run: &RunId) -> Result<Option<Head>, StoreError> {
    keyed_head(connection, run).map(|found| found.map(|(_, head)| head))
}

fn keyed_head(connection: &Connection, run: &RunId) -> Result<Option<(i64, Head)>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("{HEAD} WHERE runs.id = ?1")).map_err(failed)?;
    statement.query_row([run.as_str()], |row| Ok((row.get(0)?, head_of(row)?))).optional().map_err(failed)
}

/// The key of a run.
pub(super) fn key_of(connection: &Connection, run: &RunId) -> Result<Option<i64>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT key FROM runs WHERE id = ?1").map_err(failed)?;
    statement.query_row([run.as_str()], |row| row.get(0)).optional().map_err(failed)
}

/// The key of a caller's run.
fn root_key_of(connection: &Connection, run: &RunId) -> Result<Option<i64>, StoreError> {
    let sql = "SELECT key FROM runs WHERE id = ?1 AND root IS NULL";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    statement.query_row([run.as_str()], |row| row.get(0)).optional().map_err(failed)
}

/// The start of a run as it was packed, unpacked.
pub(super) fn start_bytes(connection: &Connection, key: i64) -> Result<Vec<u8>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT start FROM starts WHERE run = ?1").map_err(failed)?;
    unpack(&statement.query_row([key], |row| row.get::<_, Vec<u8>>(0)).map_err(failed)?)
}

/// A run as stored, and the bytes of its start.
pub(super) fn load(connection: &Connection, run: &RunId) -> Result<Option<(Stored, Vec<u8>)>, StoreError> {
    let Some((key, head)) = keyed_head(connection, run)? else { return Ok(None) };
    let primer = start_bytes(connection, key)?;
    let start: Start = serde_json::from_slice(&primer).map_err(|error| damaged("a start", &error))?;
    let mut statement =
        connection.prepare_cached("SELECT version, bytes FROM snapshots WHERE run = ?1").map_err(failed)?;
    let snapshot = statement.query_row([key], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)));
    let snapshot = snapshot.optional().map_err(failed)?;
    let from = snapshot.as_ref().map_or(0, |(version, _)| *version);
    let snapshot = snapshot.map(|(_, packed)| unpack(&packed)).transpose()?;
    let records = rows(connection, key, from, i64::MAX, Some(&primer))?;
    Ok(Some((Stored { head, start, snapshot, records }, primer)))
}

/// Rows of a journal after a version.
pub(super) fn journal(
    connection: &Connection,
    run: &RunId,
    after: u64,
    limit: usize,
) -> Result<Vec<JournalRow>, StoreError> {
    match key_of(connection, run)? {
        None => Ok(Vec::new()),
        Some(key) => rows(connection, key, int(after), int(limit as u64), None),
    }
}

fn rows(
    connection: &Connection,
    key: i64,
    after: i64,
    limit: i64,
    primer: Option<&[u8]>,
) -> Result<Vec<JournalRow>, StoreError> {
    let sql = "SELECT version, record, blobs FROM journal WHERE run = ?1 AND version > ?2 ORDER BY version LIMIT ?3";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let mut found = statement.query([key, after, limit]).map_err(failed)?;
    let mut rows = Vec::new();
    while let Some(row) = found.next().map_err(failed)? {
        let packed: Vec<u8> = row.get(1).map_err(failed)?;
        let bytes = match (is_primed(&packed), primer) {
            (false, _) => unpack(&packed)?,
            (true, Some(primer)) => unpack_primed(&packed, primer)?,
            (true, None) => unpack_primed(&packed, &start_bytes(connection, key)?)?,
        };
        let digests: Option<Vec<u8>> = row.get(2).map_err(failed)?;
        let (digests, rest) = digests.as_deref().unwrap_or_default().as_chunks::<32>();
        if !rest.is_empty() {
            return Err(StoreError::Corrupt("the hashes of a record are cut off".into()));
        }
        let blobs = digests.iter().map(|digest| Digest(*digest)).collect();
        rows.push(JournalRow { version: row.get(0).map(count).map_err(failed)?, bytes, blobs });
    }
    Ok(rows)
}

/// Audit rows of a run.
pub(super) fn audit(connection: &Connection, run: &RunId) -> Result<Vec<audit::Row>, StoreError> {
    let Some(key) = key_of(connection, run)? else { return Ok(Vec::new()) };
    let sql = "SELECT audit FROM journal WHERE run = ?1 AND audit IS NOT NULL ORDER BY version";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let packed = statement.query_map([key], |row| row.get::<_, Vec<u8>>(0)).map_err(failed)?;
    let mut rows = Vec::new();
    for packed in packed {
        rows.extend(audit_rows(&packed.map_err(failed)?)?);
    }
    Ok(rows)
}

/// The audit rows of one decision.
pub(super) fn audit_rows(packed: &[u8]) -> Result<Vec<audit::Row>, StoreError> {
    serde_json::from_slice(&unpack(packed)?).map_err(|error| damaged("audit rows", &error))
}

/// A run's inbox.
pub(super) fn inbox(connection: &Connection, run: &RunId) -> Result<Vec<InboxItem>, StoreError> {
    let Some(key) = key_of(connection, run)? else { return Ok(Vec::new()) };
    let sql = "SELECT number, id, input FROM inbox WHERE run = ?1 AND input IS NOT NULL ORDER BY number";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let mut found = statement.query([key]).map_err(failed)?;
    let mut items = Vec::new();
    while let Some(row) = found.next().map_err(failed)? {
        let packed: Vec<u8> = row.get(2).map_err(failed)?;
        let input: Input = serde_json::from_slice(&unpack(&packed)?).map_err(|error| damaged("an input", &error))?;
        let number = row.get(0).map(count).map_err(failed)?;
        items.push(InboxItem { number, id: name(row, 1).map_err(failed)?, input });
    }
    Ok(items)
}

/// Open waits of a run or of it and everything below it.
pub(super) fn waits(connection: &Connection, run: &RunId, tree: bool) -> Result<Vec<(RunId, WaitRow)>, StoreError> {
    let Some(key) = key_of(connection, run)? else { return Ok(Vec::new()) };
    // Every run below one is in its tree, so the recursion stays within one range of an index.
    let sql = if tree {
        "WITH RECURSIVE below (key, root) AS (SELECT key, coalesce(root, key) FROM runs WHERE key = ?1 \
             UNION SELECT runs.key, runs.root FROM runs JOIN below ON runs.root = below.root AND runs.parent = below.key) \
             SELECT runs.id, effect, channel, kind, due FROM below JOIN waits ON waits.run = below.key \
             JOIN runs ON runs.key = below.key ORDER BY waits.run, effect"
    } else {
        "SELECT runs.id, effect, channel, kind, due FROM waits JOIN runs ON runs.key = waits.run \
             WHERE waits.run = ?1 ORDER BY effect"
    };
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let mut found = statement.query([key]).map_err(failed)?;
    let mut waits = Vec::new();
    while let Some(row) = found.next().map_err(failed)? {
        let kind: Option<Vec<u8>> = row.get(3).map_err(failed)?;
        let kind = match kind {
            None => WaitKind::Signal,
            Some(text) => serde_json::from_slice(&text).map_err(|error| damaged("a wait", &error))?,
        };
        let due: Option<i64> = row.get(4).map_err(failed)?;
        let wait = WaitRow {
            effect: EffectId(row.get(1).map(count).map_err(failed)?),
            channel: name(row, 2).map_err(failed)?,
            kind,
            due: due.map(|at| Timestamp(count(at))),
        };
        waits.push((RunId::stored(&name(row, 0).map_err(failed)?), wait));
    }
    Ok(waits)
}

/// Runs, newest first.
pub(super) fn list(connection: &Connection, query: &Query) -> Result<Page, StoreError> {
    let mut clauses = Vec::new();
    let mut values: Vec<Box<dyn ToSql>> = Vec::new();
    let mut add = |clause: String, value: Box<dyn ToSql>| {
        values.push(value);
        clauses.push(clause.replace('?', &format!("?{}", values.len())));
    };
    if let Some(text) = &query.cursor {
        let cursor: i64 =
            text.parse().map_err(|_| StoreError::Invalid(format!("`{text}` is not a cursor of this store")))?;
        add("runs.key < ?".into(), Box::new(cursor));
    }
    if let Some(machine) = &query.machine {
        add("starts.machine = ?".into(), Box::new(machine.to_string()));
    }
    for (run, column) in [(&query.parent, "parent"), (&query.root, "root")] {
        let Some(run) = run else { continue };
        let key = if column == "root" { root_key_of(connection, run)? } else { key_of(connection, run)? };
        let Some(key) = key else { return Ok(Page::default()) };
        if column == "root" {
            add("(runs.root = ? OR runs.key = ?)".into(), Box::new(key));
        } else {
            let root = "(SELECT coalesce(root, key) FROM runs WHERE key = ?)";
            add(format!("(runs.root = {root} AND runs.parent = ?)"), Box::new(key));
        }
    }
    if !query.statuses.is_empty() {
        let codes: Vec<_> = query.statuses.iter().map(|status| status_code(*status).to_string()).collect();
        let queued = query.statuses.contains(&Status::Queued);
        let ready = if queued { "OR runs.ready IS NOT NULL" } else { "" };
        clauses.push(format!("((runs.ready IS NULL AND runs.status IN ({})) {ready})", codes.join(", ")));
    }
    if query.roots_only {
        clauses.push("runs.parent IS NULL".into());
    }
    let filter = if clauses.is_empty() { String::new() } else { format!("WHERE {}", clauses.join(" AND ")) };
    let limit = int((query.limit as u64).saturating_add(1));
    let sql = format!("{HEAD} {filter} ORDER BY runs.key DESC LIMIT {limit}");
    let mut statement = connection.prepare(&sql).map_err(failed)?;
    let values = rusqlite::params_from_iter(values.iter());
    let found = statement.query_map(values, |row| Ok((row.get::<_, i64>(0)?, head_of(row)?))).map_err(failed)?;
    let mut found = found.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let more = found.len() > query.limit;
    found.truncate(query.limit);
    let next = found.last().filter(|_| more).map(|(key, _)| key.to_string());
    Ok(Page { heads: found.into_iter().map(|(_, head)| head).collect(), next })
}

/// When the next parked run is due.
pub(super) fn next_due(connection: &Connection, within: Option<&RunId>) -> Result<Option<Timestamp>, StoreError> {
    let at: Option<i64> = match within {
        None => {
            let sql = "SELECT min(wake_at) FROM runs WHERE wake_at IS NOT NULL";
            connection.prepare_cached(sql).and_then(|mut found| found.query_row([], |row| row.get(0)))
        }
        Some(root) => {
            let Some(key) = root_key_of(connection, root)? else { return Ok(None) };
            let sql = "SELECT min(wake_at) FROM (SELECT wake_at FROM runs WHERE key = ?1 UNION ALL \
                 SELECT min(wake_at) FROM runs WHERE root = ?1 AND wake_at IS NOT NULL)";
            connection.prepare_cached(sql).and_then(|mut found| found.query_row([key], |row| row.get(0)))
        }
    }
    .map_err(failed)?;
    Ok(at.map(|at| Timestamp(count(at))))
}

/// A blob or a bundle.
pub(super) fn blob(connection: &Connection, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT bytes FROM blobs WHERE digest = ?1").map_err(failed)?;
    let packed = statement.query_row([digest.0], |row| row.get::<_, Vec<u8>>(0)).optional().map_err(failed)?;
    let bytes = packed.map(|packed| unpack(&packed)).transpose()?;
    match bytes {
        Some(bytes) if Digest::of(&bytes) != digest => {
            Err(StoreError::Corrupt(format!("blob `{}` has other bytes", digest.short())))
        }
        bytes => Ok(bytes),
    }
}

/// When a bundle was last stored, in seconds; none when it is not there as a bundle.
pub(super) fn bundled_at(connection: &Connection, digest: Digest) -> Result<Option<i64>, StoreError> {
    let mut statement = connection.prepare_cached("SELECT bundled_at FROM blobs WHERE digest = ?1").map_err(failed)?;
    let at = statement.query_row([digest.0], |row| row.get::<_, Option<i64>>(0)).optional().map_err(failed)?;
    Ok(at.flatten())
}

/// Size and runs by status.
pub(super) fn stats(connection: &Connection) -> Result<Stats, StoreError> {
    let pragma = |text: &str| connection.query_row(text, [], |row| row.get::<_, i64>(0)).map(count).map_err(failed);
    let bytes = pragma("PRAGMA page_count")?.saturating_mul(pragma("PRAGMA page_size")?);
    let sql = "SELECT CASE WHEN ready IS NULL THEN status ELSE ?1 END AS word, count(*) FROM runs GROUP BY word";
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let words = statement
        .query_map(params![status_code(Status::Queued)], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(failed)?;
    let word = |code: i64| usize::try_from(code).ok().and_then(|place| Status::ALL.get(place));
    let runs = words.into_iter().map(|(code, runs)| (word(code).map_or("?", |s| s.as_str()).to_owned(), count(runs)));
    Ok(Stats { bytes, runs: runs.collect(), ..Stats::default() })
}
