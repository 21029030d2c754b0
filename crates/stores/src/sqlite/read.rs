//! Everything that only reads, on a connection of its own.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::types::ToSql;
use rusqlite::{Connection, OptionalExtension, Row, params};
use windlass_core::audit;
use windlass_core::effect::WaitKind;
use windlass_core::ids::{Digest, EffectId, Name, RunId};
use windlass_core::input::Input;
use windlass_core::run::{Start, Status};
use windlass_core::time::Timestamp;
use windlass_ports::store::{
    Depth, Head, InboxItem, JournalRow, Lease, Object, Page, Priority, Query, Stats, StoreError, Stored, WaitRow,
    WorkerId,
};

use super::failed;
use super::readers::View;
use super::tx::{FRONT, count, int, status_code};
use crate::cipher::{Cipher, Place};
use crate::pack::{is_primed, unpack_primed};

/// The status that is shown: that of `Quarantined`, of `Queued`, or the last decided one.
const WORD: &str = "CASE WHEN runs.quarantine IS NOT NULL THEN 5 \
     WHEN runs.ready IS NOT NULL OR (runs.version = 0 AND runs.owner IS NULL) THEN 0 ELSE runs.status END";

/// Columns of [`head_of`], in its order, after [`WORD`].
const HEAD: &str = "runs.key, runs.id, runs.state, runs.step, runs.version, runs.epoch, \
     runs.wake_at, runs.tokens, runs.cost_micros, runs.bundle, runs.updated_at, workers.id, parents.id, \
     roots.id, starts.machine, tenants.name, starts.depth, starts.input, starts.created_at, pools.name, \
     runs.priority, starts.tags, runs.strikes, runs.quarantine, runs.helped FROM runs \
     JOIN starts ON starts.run = runs.key \
     JOIN names AS pools ON pools.key = runs.pool \
     JOIN names AS tenants ON tenants.key = runs.tenant \
     LEFT JOIN workers ON workers.key = runs.owner \
     LEFT JOIN runs AS parents ON parents.key = runs.parent \
     LEFT JOIN runs AS roots ON roots.key = runs.root";

/// Rows of runs at a glance, those that a filter wants.
pub(super) fn heads(filter: &str) -> String {
    format!("SELECT {WORD}, {HEAD} {filter}")
}

fn damaged(what: &str, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("{what} cannot be read: {error}"))
}

/// The present.
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Timestamp(since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
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

fn unreadable(column: usize, error: StoreError) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Blob, Box::new(error))
}

/// A run at a glance, from a row of [`heads`].
pub(super) fn head_of(row: &Row<'_>) -> rusqlite::Result<Head> {
    let number = |column: usize| row.get::<_, i64>(column).map(count);
    let place = |column: usize| row.get::<_, i64>(column).map(|place| usize::try_from(place).unwrap_or(usize::MAX));
    let outside = |column: usize| row.get(column).map(|code| rusqlite::Error::IntegralValueOutOfRange(column, code));
    let id = RunId::stored(row.get_ref(2)?.as_str()?);
    let run = |name: Name| RunId::stored(&name);
    let tags = match row.get_ref(22)?.as_blob_or_null()? {
        Some(bytes) => tags(bytes).map_err(|error| unreadable(22, error))?,
        None => BTreeMap::new(),
    };
    Ok(Head {
        status: match Status::ALL.get(place(0)?) {
            Some(status) => *status,
            None => return Err(outside(0)?),
        },
        state: optional_name(row, 3)?,
        step: number(4)?,
        version: number(5)?,
        epoch: number(6)?,
        wake_at: row.get::<_, Option<i64>>(7)?.map(|at| Timestamp(count(at))),
        tokens: number(8)?,
        cost_micros: number(9)?,
        bundle: Digest(row.get(10)?),
        updated_at: Timestamp(number(11)?),
        owner: optional_name(row, 12)?.map(WorkerId),
        parent: optional_name(row, 13)?.map(run),
        root: optional_name(row, 14)?.map_or_else(|| id.clone(), run),
        machine: name(row, 15)?,
        tenant: name(row, 16)?,
        depth: row.get(17)?,
        input: Digest(row.get(18)?),
        created_at: Timestamp(number(19)?),
        pool: name(row, 20)?,
        priority: match Priority::ALL.get(place(21)?) {
            Some(priority) => *priority,
            None => return Err(outside(21)?),
        },
        tags,
        strikes: row.get(23)?,
        quarantine: optional_name(row, 24)?,
        helped: row.get(25)?,
        id,
    })
}

/// Tags as stored.
pub(super) fn tags(bytes: &[u8]) -> Result<BTreeMap<Name, Name>, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| damaged("tags", &error))
}

/// Whether stored tags have all of these.
pub(super) fn has_tags(stored: Option<&[u8]>, wanted: &[(Name, Option<Name>)]) -> Result<bool, StoreError> {
    if wanted.is_empty() {
        return Ok(true);
    }
    let stored = stored.map(tags).transpose()?.unwrap_or_default();
    let has = |key: &Name, value: &Option<Name>| {
        stored.get(key).is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
    };
    Ok(wanted.iter().all(|(key, value)| has(key, value)))
}

/// A run at a glance.
pub(super) fn head(connection: &Connection, run: &RunId) -> Result<Option<Head>, StoreError> {
    keyed_head(connection, run).map(|found| found.map(|(_, head)| head))
}

fn keyed_head(connection: &Connection, run: &RunId) -> Result<Option<(i64, Head)>, StoreError> {
    let mut statement = connection.prepare_cached(&heads("WHERE runs.id = ?1")).map_err(failed)?;
    statement.query_row([run.as_str()], |row| Ok((row.get(1)?, head_of(row)?))).optional().map_err(failed)
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
pub(super) fn start_bytes(view: &View<'_>, key: i64, run: &str) -> Result<Vec<u8>, StoreError> {
    let mut statement = view.prepare_cached("SELECT start FROM starts WHERE run = ?1").map_err(failed)?;
    let stored = statement.query_row([key], |row| row.get::<_, Vec<u8>>(0)).map_err(failed)?;
    view.cipher.unpack(Place::Start { run }, &stored)
}

/// A run as stored, and the bytes of its start.
pub(super) fn load(view: &View<'_>, run: &RunId) -> Result<Option<(Stored, Vec<u8>)>, StoreError> {
    let Some((key, head)) = keyed_head(view, run)? else { return Ok(None) };
    let primer = start_bytes(view, key, run.as_str())?;
    let start: Start = serde_json::from_slice(&primer).map_err(|error| damaged("a start", &error))?;
    crate::trail::check_tenant(&head, &start)?;
    let mut statement = view.prepare_cached("SELECT version, bytes FROM snapshots WHERE run = ?1").map_err(failed)?;
    let snapshot = statement.query_row([key], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?)));
    let snapshot = snapshot.optional().map_err(failed)?;
    let from = snapshot.as_ref().map_or(0, |(version, _)| *version);
    let place = Place::Snapshot { run: run.as_str(), version: from };
    let snapshot = snapshot.map(|(_, stored)| view.cipher.unpack(place, &stored)).transpose()?;
    let records = rows(view, (key, run.as_str()), from, i64::MAX, Some(&primer))?;
    let mut statement = view.prepare_cached("SELECT pending > 0 FROM runs WHERE key = ?1").map_err(failed)?;
    let inbox = statement.query_row([key], |row| row.get(0)).map_err(failed)?;
    Ok(Some((Stored { head, start, snapshot, records, inbox }, primer)))
}

/// Ids of runs after one.
pub(super) fn ids(connection: &Connection, after: Option<&RunId>, limit: usize) -> Result<Vec<RunId>, StoreError> {
    let sql = "SELECT id FROM runs WHERE typeof(id) = 'text' AND (?1 IS NULL OR id > ?1) ORDER BY id LIMIT ?2";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let found = statement
        .query_map(params![after.map(RunId::as_str), int(limit as u64)], |row| {
            Ok(RunId::stored(row.get_ref(0)?.as_str()?))
        })
        .map_err(failed)?;
    found.collect::<Result<_, _>>().map_err(failed)
}

/// Rows of a journal after a version.
pub(super) fn journal(view: &View<'_>, run: &RunId, after: u64, limit: usize) -> Result<Vec<JournalRow>, StoreError> {
    match key_of(view, run)? {
        None => Ok(Vec::new()),
        Some(key) => rows(view, (key, run.as_str()), int(after), int(limit as u64), None),
    }
}

fn rows(
    view: &View<'_>,
    (key, run): (i64, &str),
    after: i64,
    limit: i64,
    primer: Option<&[u8]>,
) -> Result<Vec<JournalRow>, StoreError> {
    let sql = "SELECT version, record, blobs FROM journal WHERE run = ?1 AND version > ?2 ORDER BY version LIMIT ?3";
    let mut statement = view.prepare_cached(sql).map_err(failed)?;
    let mut found = statement.query([key, after, limit]).map_err(failed)?;
    let mut rows = Vec::new();
    while let Some(row) = found.next().map_err(failed)? {
        let (version, stored): (i64, Vec<u8>) = (row.get(0).map_err(failed)?, row.get(1).map_err(failed)?);
        let packed = view.cipher.decrypt(Place::Record { run, version }, &stored)?;
        let bytes = match (is_primed(&packed), primer) {
            (false, _) => unpack_primed(&packed, &[])?,
            (true, Some(primer)) => unpack_primed(&packed, primer)?,
            (true, None) => unpack_primed(&packed, &start_bytes(view, key, run)?)?,
        };
        let digests: Option<Vec<u8>> = row.get(2).map_err(failed)?;
        let (digests, rest) = digests.as_deref().unwrap_or_default().as_chunks::<32>();
        if !rest.is_empty() {
            return Err(StoreError::Corrupt("the hashes of a record are cut off".into()));
        }
        let blobs = digests.iter().map(|digest| Digest(*digest)).collect();
        rows.push(JournalRow { version: count(version), bytes, blobs });
    }
    Ok(rows)
}

/// Audit rows of a run.
pub(super) fn audit(view: &View<'_>, run: &RunId) -> Result<Vec<audit::Row>, StoreError> {
    let Some(key) = key_of(view, run)? else { return Ok(Vec::new()) };
    audit_of(view, &view.cipher.knowing(super::encryption::known(view)?), key, run.as_str())
}

/// Audit rows of a run by its key.
pub(super) fn audit_of(
    connection: &Connection,
    cipher: &Cipher,
    key: i64,
    run: &str,
) -> Result<Vec<audit::Row>, StoreError> {
    let sql = "SELECT version, audit FROM journal WHERE run = ?1 AND audit IS NOT NULL ORDER BY version";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    // What is of another type is nothing that can be read.
    let bytes = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get_ref(1)?.as_bytes().unwrap_or_default().to_vec()));
    let stored = statement.query_map([key], bytes).map_err(failed)?;
    let mut rows = Vec::new();
    for stored in stored {
        let (version, stored) = stored.map_err(failed)?;
        let more = crate::trail::rows_of(cipher, Place::Audit { run, version }, &stored);
        rows.extend(more.map_err(|error| crate::trail::after(rows.last(), error))?);
    }
    Ok(rows)
}

/// A run's inbox.
pub(super) fn inbox(view: &View<'_>, run: &RunId) -> Result<Vec<InboxItem>, StoreError> {
    let Some(key) = key_of(view, run)? else { return Ok(Vec::new()) };
    let sql = "SELECT number, id, input FROM inbox WHERE run = ?1 AND input IS NOT NULL ORDER BY number";
    let mut statement = view.prepare_cached(sql).map_err(failed)?;
    let mut found = statement.query([key]).map_err(failed)?;
    let mut items = Vec::new();
    while let Some(row) = found.next().map_err(failed)? {
        let stored: Vec<u8> = row.get(2).map_err(failed)?;
        let id = name(row, 1).map_err(failed)?;
        let bytes = view.cipher.unpack(Place::Input { run: run.as_str(), id: &id }, &stored)?;
        let input: Input = serde_json::from_slice(&bytes).map_err(|error| damaged("an input", &error))?;
        items.push(InboxItem { number: row.get(0).map(count).map_err(failed)?, id, input });
    }
    Ok(items)
}

/// Open waits of a run or of it and everything below it.
pub(super) fn waits(view: &View<'_>, run: &RunId, tree: bool) -> Result<Vec<(RunId, WaitRow)>, StoreError> {
    let Some(key) = key_of(view, run)? else { return Ok(Vec::new()) };
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
    let mut statement = view.prepare_cached(sql).map_err(failed)?;
    let mut found = statement.query([key]).map_err(failed)?;
    let mut waits = Vec::new();
    while let Some(row) = found.next().map_err(failed)? {
        let (of, effect): (Name, i64) = (name(row, 0).map_err(failed)?, row.get(1).map_err(failed)?);
        let kind = match row.get::<_, Option<Vec<u8>>>(3).map_err(failed)? {
            None => WaitKind::Signal,
            Some(stored) => crate::trail::wait_of(view.cipher, &of, effect, &stored)?,
        };
        let due: Option<i64> = row.get(4).map_err(failed)?;
        let wait = WaitRow {
            effect: EffectId(count(effect)),
            channel: name(row, 2).map_err(failed)?,
            kind,
            due: due.map(|at| Timestamp(count(at))),
        };
        waits.push((RunId::stored(&of), wait));
    }
    Ok(waits)
}

/// The conditions of a list, and the values in them.
#[derive(Default)]
struct Filter {
    clauses: Vec<String>,
    values: Vec<Box<dyn ToSql>>,
}

impl Filter {
    /// Adds a condition; each `?` in it is the value.
    fn add(&mut self, clause: &str, value: impl ToSql + 'static) {
        self.values.push(Box::new(value));
        self.clauses.push(clause.replace('?', &format!("?{}", self.values.len())));
    }

    /// Only runs with a tag. Looks at runs before the cursor only, since lists are read page by page.
    fn add_tag(&mut self, key: &str, value: Option<&Name>, before: i64) {
        self.values.push(Box::new(key.to_owned()));
        let mut clause =
            format!("runs.key IN (SELECT run FROM tags WHERE run < {before} AND key = ?{}", self.values.len());
        if let Some(value) = value {
            self.values.push(Box::new(value.to_string()));
            clause.push_str(&format!(" AND value = ?{}", self.values.len()));
        }
        clause.push(')');
        self.clauses.push(clause);
    }
}

/// What a query asks for; none when nothing can match.
fn filter(connection: &Connection, query: &Query) -> Result<Option<Filter>, StoreError> {
    let mut filter = Filter::default();
    let mut before = i64::MAX;
    if let Some(text) = &query.cursor {
        before = text.parse().map_err(|_| StoreError::Invalid(format!("`{text}` is not a cursor of this store")))?;
        filter.add("runs.key < ?", before);
    }
    if let Some(machine) = &query.machine {
        filter.add("starts.machine = ?", machine.to_string());
    }
    if let Some(parent) = &query.parent {
        let Some(key) = key_of(connection, parent)? else { return Ok(None) };
        let root = "(SELECT coalesce(root, key) FROM runs WHERE key = ?)";
        filter.add(&format!("(runs.root = {root} AND runs.parent = ?)"), key);
    }
    if let Some(root) = &query.root {
        let Some(key) = root_key_of(connection, root)? else { return Ok(None) };
        filter.add("(runs.root = ? OR runs.key = ?)", key);
    }
    for (name, column) in [(&query.tenant, "tenant"), (&query.pool, "pool")] {
        if let Some(name) = name {
            filter.add(&format!("runs.{column} = (SELECT key FROM names WHERE name = ?)"), name.to_string());
        }
    }
    for (key, value) in &query.tags {
        filter.add_tag(key, value.as_ref(), before);
    }
    if let Some(from) = query.created_from {
        filter.add("starts.created_at >= ?", int(from.0));
    }
    if let Some(before) = query.created_before {
        filter.add("starts.created_at < ?", int(before.0));
    }
    if !query.statuses.is_empty() {
        let codes: Vec<_> = query.statuses.iter().map(|status| status_code(*status).to_string()).collect();
        filter.clauses.push(format!("({WORD}) IN ({})", codes.join(", ")));
    }
    if query.roots_only {
        filter.clauses.push("runs.parent IS NULL".into());
    }
    Ok(Some(filter))
}

/// Runs, newest first.
pub(super) fn list(connection: &Connection, query: &Query) -> Result<Page, StoreError> {
    let Some(Filter { clauses, values }) = filter(connection, query)? else { return Ok(Page::default()) };
    let filter = if clauses.is_empty() { String::new() } else { format!("WHERE {}", clauses.join(" AND ")) };
    let limit = int((query.limit as u64).saturating_add(1));
    let sql = heads(&format!("{filter} ORDER BY runs.key DESC LIMIT {limit}"));
    let mut statement = connection.prepare(&sql).map_err(failed)?;
    let values = rusqlite::params_from_iter(values.iter());
    let found = statement.query_map(values, |row| Ok((row.get::<_, i64>(1)?, head_of(row)?))).map_err(failed)?;
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
pub(super) fn blob(view: &View<'_>, digest: Digest) -> Result<Option<Vec<u8>>, StoreError> {
    let mut statement = view.prepare_cached("SELECT bytes FROM blobs WHERE digest = ?1").map_err(failed)?;
    let stored = statement.query_row([digest.0], |row| row.get::<_, Vec<u8>>(0)).optional().map_err(failed)?;
    let bytes = stored.map(|stored| view.cipher.unpack(Place::Blob(digest), &stored)).transpose()?;
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
    let sql = format!("SELECT {WORD} AS word, count(*) FROM runs GROUP BY word");
    let mut statement = connection.prepare(&sql).map_err(failed)?;
    let words = statement
        .query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(failed)?;
    let word = |code: i64| usize::try_from(code).ok().and_then(|place| Status::ALL.get(place));
    let runs = words.into_iter().map(|(code, runs)| (word(code).map_or("?", |s| s.as_str()).to_owned(), count(runs)));
    let held = "SELECT min(updated_at) FROM runs WHERE owner IS NOT NULL";
    let held = connection.query_row(held, [], |row| row.get::<_, Option<i64>>(0)).map_err(failed)?;
    let held_since = held.map(|at| Timestamp(count(at)));
    Ok(Stats { bytes, runs: runs.collect(), held_since, queue: depths(connection)?, ..Stats::default() })
}

/// Runs in the queue by pool and class.
fn depths(connection: &Connection) -> Result<Vec<Depth>, StoreError> {
    let sql = "SELECT names.name, priority, count(*), min(CASE WHEN ready < 0 THEN ready + ?1 ELSE ready END) \
         FROM runs JOIN names ON names.key = runs.pool WHERE ready IS NOT NULL GROUP BY pool, priority \
         ORDER BY names.name, priority";
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let rows = statement.query_map([FRONT], |row| {
        let class: i64 = row.get(1)?;
        let priority = usize::try_from(class).ok().and_then(|place| Priority::ALL.get(place).copied());
        Ok(Depth {
            pool: name(row, 0)?,
            priority: priority.ok_or(rusqlite::Error::IntegralValueOutOfRange(1, class))?,
            runs: row.get(2).map(count)?,
            oldest: Timestamp(row.get(3).map(count)? / 1_000),
        })
    });
    rows.and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(failed)
}

/// How many runs each worker holds.
pub(super) fn held(connection: &Connection) -> Result<BTreeMap<WorkerId, u64>, StoreError> {
    let sql = "SELECT workers.id, count(*) FROM runs JOIN workers ON workers.key = runs.owner \
         WHERE owner IS NOT NULL GROUP BY owner";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let rows = statement.query_map([], |row| Ok((WorkerId(name(row, 0)?), row.get(1).map(count)?)));
    rows.and_then(Iterator::collect::<Result<BTreeMap<_, _>, _>>).map_err(failed)
}

/// What a worker holds.
pub(super) fn leases(connection: &Connection, worker: &WorkerId) -> Result<Vec<Lease>, StoreError> {
    let sql = "SELECT runs.id, epoch, lost.id, strikes, priority FROM runs JOIN workers ON workers.key = runs.owner \
         LEFT JOIN workers AS lost ON lost.key = runs.lost WHERE workers.id = ?1 ORDER BY runs.id";
    let lease = |row: &Row<'_>| {
        Ok(Lease {
            run: RunId::stored(row.get_ref(0)?.as_str()?),
            epoch: row.get(1).map(count)?,
            taken_from: row.get::<_, Option<String>>(2)?.map(|lost| WorkerId(lost.into())),
            strikes: row.get(3)?,
            priority: crate::priority_of(row.get(4)?),
        })
    };
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    statement.query_map([&*worker.0], lease).and_then(Iterator::collect).map_err(failed)
}

/// Whether a worker was voided by a fence.
pub(super) fn is_fenced(connection: &Connection, worker: &WorkerId) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM workers WHERE id = ?1 AND fenced = 1";
    connection.prepare_cached(sql).and_then(|mut found| found.exists([&*worker.0])).map_err(failed)
}

/// An object.
pub(super) fn object(view: &View<'_>, kind: &str, key: &str) -> Result<Option<Object>, StoreError> {
    let sql = "SELECT key, revision, bytes FROM objects WHERE kind = ?1 AND key = ?2";
    let mut statement = view.prepare_cached(sql).map_err(failed)?;
    let mut found = statement.query([kind, key]).map_err(failed)?;
    found.next().map_err(failed)?.map(|row| object_of(view.cipher, kind, row)).transpose()
}

/// Objects of a kind, in the order of their keys.
pub(super) fn objects(
    view: &View<'_>,
    kind: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<Object>, StoreError> {
    let sql = "SELECT key, revision, bytes FROM objects WHERE kind = ?1 AND (?2 IS NULL OR key > ?2) \
         ORDER BY key LIMIT ?3";
    let mut statement = view.prepare_cached(sql).map_err(failed)?;
    let mut found = statement.query(params![kind, after, int(limit as u64)]).map_err(failed)?;
    let mut objects = Vec::new();
    while let Some(row) = found.next().map_err(failed)? {
        objects.push(object_of(view.cipher, kind, row)?);
    }
    Ok(objects)
}

fn object_of(cipher: &Cipher, kind: &str, row: &Row<'_>) -> Result<Object, StoreError> {
    let stored: Vec<u8> = row.get(2).map_err(failed)?;
    let (key, revision) = (name(row, 0).map_err(failed)?, row.get(1).map(count).map_err(failed)?);
    let bytes = cipher.unpack(Place::Object { kind, key: &key }, &stored)?;
    Ok(Object { key, revision, bytes })
}
