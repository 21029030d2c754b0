//! The audit trail in a file: what is not sealed, seals, acts, and rows of removed runs.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};
use windlass_core::audit::{Act, Chain};
use windlass_core::ids::{Digest, Name, RunId};
use windlass_core::seal::{ACTS, Last, Segment};
use windlass_core::time::Timestamp;
use windlass_ports::BoxFuture;
use windlass_ports::store::{Grown, Kept, Mark, Sealing, StoreError, Trail, Unsealed};

use super::request::{Answer, Request, encode};
use super::tx::{Trouble, Tx, count, int};
use super::{SqliteStore, failed, read};
use crate::pack::{pack, pack_audit};
use crate::trail::{act_of, chain_of, segment_of};

fn name(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Name> {
    Ok(row.get_ref(column)?.as_str()?.into())
}

fn unsealed(connection: &Connection, limit: usize) -> Result<Unsealed, StoreError> {
    let state = "SELECT epoch, sealed_at, rows, acts, (SELECT coalesce(max(key), 0) FROM journal), \
         (SELECT coalesce(max(key), 0) FROM audit_acts) FROM audit_sealing";
    let numbers = |row: &rusqlite::Row<'_>| {
        let number = |column| row.get::<_, i64>(column);
        Ok([number(0)?, number(1)?, number(2)?, number(3)?, number(4)?, number(5)?])
    };
    let [epoch, sealed_at, rows, acts, last_row, last_act] =
        connection.query_row(state, [], numbers).map_err(failed)?;
    let mut grown: BTreeMap<(Name, RunId), Chain> = BTreeMap::new();
    // The last rows of each run are enough.
    let mut ends: BTreeMap<(Name, RunId), Vec<u8>> = BTreeMap::new();
    let (mut mark, mut seen) = (Mark { rows: last_row, acts: last_act, ..Mark::default() }, 0);
    if last_row > rows {
        let sql = "SELECT journal.key, runs.id, names.name, journal.audit FROM journal \
             JOIN runs ON runs.key = journal.run JOIN names ON names.key = runs.tenant \
             WHERE journal.key > ?1 AND journal.audit IS NOT NULL ORDER BY journal.key LIMIT ?2";
        let mut statement = connection.prepare_cached(sql).map_err(failed)?;
        let mut found = statement.query(params![rows, int(limit as u64)]).map_err(failed)?;
        while let Some(row) = found.next().map_err(failed)? {
            let run = RunId::stored(row.get_ref(1).map_err(failed)?.as_str().map_err(|error| failed(error.into()))?);
            seen += 1;
            if seen == limit {
                mark.rows = row.get(0).map_err(failed)?;
            }
            ends.insert((name(row, 2).map_err(failed)?, run), row.get(3).map_err(failed)?);
        }
    }
    for (of, packed) in ends {
        grown.insert(of, chain_of(&packed)?);
    }
    if last_act > acts {
        let sql = "SELECT tenant, bytes FROM audit_acts WHERE key IN \
             (SELECT max(key) FROM audit_acts WHERE key > ?1 GROUP BY tenant)";
        let mut statement = connection.prepare_cached(sql).map_err(failed)?;
        let mut found = statement.query([acts]).map_err(failed)?;
        while let Some(row) = found.next().map_err(failed)? {
            let act = act_of(&row.get::<_, Vec<u8>>(1).map_err(failed)?)?;
            let chain = Chain { rows: act.number, head: act.hash() };
            grown.insert((name(row, 0).map_err(failed)?, RunId::stored(ACTS)), chain);
        }
    }
    let chains: Vec<Grown> = grown.into_iter().map(|((tenant, run), chain)| Grown { tenant, run, chain }).collect();
    let mut tenants: Vec<Name> = chains.iter().map(|one| one.tenant.clone()).collect();
    tenants.dedup();
    let last = tenants.into_iter().map(|tenant| last(connection, &tenant).map(|last| (tenant, last)));
    let last = last.collect::<Result<_, _>>()?;
    let (epoch, sealed_at) = (count(epoch), Timestamp(count(sealed_at)));
    Ok(Unsealed { epoch, sealed_at, now: read::now(), chains, last, mark, more: seen == limit })
}

/// The last seal of a tenant.
fn last(connection: &Connection, tenant: &str) -> Result<Last, StoreError> {
    let sql = "SELECT number, hash FROM audit_segments WHERE tenant = ?1 ORDER BY number DESC LIMIT 1";
    let read = |row: &rusqlite::Row<'_>| Ok(Last { number: count(row.get(0)?), hash: Digest(row.get(1)?) });
    let found = connection.prepare_cached(sql).and_then(|mut found| found.query_row([tenant], read).optional());
    Ok(found.map_err(failed)?.unwrap_or_default())
}

/// What rows of a query hold, read one by one.
fn rows_of<T>(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    read: impl Fn(&rusqlite::Row<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let mut found = statement.query(params).map_err(failed)?;
    let mut all = Vec::new();
    while let Some(row) = found.next().map_err(failed)? {
        all.push(read(row)?);
    }
    Ok(all)
}

fn bytes(row: &rusqlite::Row<'_>, column: usize) -> Result<Vec<u8>, StoreError> {
    row.get(column).map_err(failed)
}

fn kept_of(row: &rusqlite::Row<'_>) -> Result<Kept, StoreError> {
    let number: i64 = row.get(0).map_err(failed)?;
    let run = RunId::stored(&name(row, 1).map_err(failed)?);
    let (tenant, rows) = (name(row, 2).map_err(failed)?, read::audit_rows(&bytes(row, 3)?)?);
    Ok(Kept { number: count(number), run, tenant, rows })
}

impl Tx<'_> {
    pub(super) fn seal(&mut self, sealing: &Sealing) -> Result<bool, Trouble> {
        let Sealing { epoch, mark, at, segments } = sealing;
        let sql = "UPDATE audit_sealing SET epoch = epoch + 1, sealed_at = ?2, rows = ?3, acts = ?4 WHERE epoch = ?1";
        if self.run(sql, params![int(*epoch), int(at.0), mark.rows, mark.acts])? != 1 {
            return Ok(false);
        }
        for segment in segments {
            let sql = "INSERT INTO audit_segments (tenant, number, hash, bytes) VALUES (?1, ?2, ?3, ?4)";
            let seal = &segment.seal;
            self.run(sql, params![&*seal.tenant, int(seal.number), seal.hash().0, pack(&encode(segment)?)])?;
        }
        Ok(true)
    }

    pub(super) fn act(&mut self, tenant: &Name, act: &Act) -> Result<bool, Trouble> {
        let sql = "SELECT bytes FROM audit_acts WHERE tenant = ?1 ORDER BY number DESC LIMIT 1";
        let found = self.row(sql, [&**tenant], |row| row.get::<_, Vec<u8>>(0))?;
        let before = found.map(|bytes| act_of(&bytes)).transpose()?;
        let chain = before.map_or_else(Chain::default, |act| Chain { rows: act.number, head: act.hash() });
        if chain.then(act.number, act.previous, act.hash()).is_err() {
            return Ok(false);
        }
        let sql = "INSERT INTO audit_acts (tenant, number, bytes) VALUES (?1, ?2, ?3)";
        self.run(sql, params![&**tenant, int(act.number), pack(&encode(act)?)])?;
        Ok(true)
    }

    /// Keeps the audit rows of a run that is about to be removed.
    pub(super) fn keep_audit(&mut self, run: i64) -> Result<(), Trouble> {
        let sql = "SELECT audit FROM journal WHERE run = ?1 AND audit IS NOT NULL ORDER BY version";
        let packed = self.rows(sql, [run], |row| row.get::<_, Vec<u8>>(0))?;
        if packed.is_empty() {
            return Ok(());
        }
        let mut rows = Vec::new();
        for packed in packed {
            // What cannot be read is kept by nobody: a check says so before anything is removed.
            rows.extend(read::audit_rows(&packed)?);
        }
        let sql = "INSERT INTO audit_kept (run, tenant, rows) SELECT runs.id, names.name, ?2 FROM runs \
             JOIN names ON names.key = runs.tenant WHERE runs.key = ?1";
        self.run(sql, params![run, pack_audit(&encode(&rows)?)])?;
        Ok(())
    }

    /// Keys of the journal may be given again once the last rows are gone, so that what comes next must count as new.
    pub(super) fn lower_mark(&mut self) -> Result<(), Trouble> {
        let sql = "UPDATE audit_sealing SET rows = min(rows, (SELECT coalesce(max(key), 0) FROM journal))";
        self.run(sql, [])?;
        Ok(())
    }
}

impl Trail for SqliteStore {
    fn unsealed(&self, limit: usize) -> BoxFuture<'_, Result<Unsealed, StoreError>> {
        Box::pin(self.read(move |connection| unsealed(connection, limit)))
    }

    fn seal(&self, sealing: Sealing) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(self.asked(Request::Seal(sealing)))
    }

    fn segments(&self, tenant: Name, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Segment>, StoreError>> {
        let sql = "SELECT bytes FROM audit_segments WHERE tenant = ?1 AND number > ?2 ORDER BY number LIMIT ?3";
        Box::pin(self.read(move |connection| {
            let params = params![&*tenant, int(after), int(limit as u64)];
            rows_of(connection, sql, params, |row| segment_of(&bytes(row, 0)?))
        }))
    }

    fn tenants(&self) -> BoxFuture<'_, Result<Vec<Name>, StoreError>> {
        let sql = "SELECT tenant FROM audit_segments UNION SELECT tenant FROM audit_acts \
             UNION SELECT tenant FROM audit_kept ORDER BY tenant";
        Box::pin(self.read(move |connection| rows_of(connection, sql, [], |row| name(row, 0).map_err(failed))))
    }

    fn kept(&self, run: Option<RunId>, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Kept>, StoreError>> {
        let sql = match run {
            Some(_) => {
                "SELECT number, run, tenant, rows FROM audit_kept WHERE run = ?1 AND number > ?2 ORDER BY number LIMIT ?3"
            }
            None => {
                "SELECT number, run, tenant, rows FROM audit_kept WHERE ?1 IS NULL AND number > ?2 ORDER BY number LIMIT ?3"
            }
        };
        Box::pin(self.read(move |connection| {
            let params = params![run.as_ref().map(RunId::as_str), int(after), int(limit as u64)];
            rows_of(connection, sql, params, kept_of)
        }))
    }

    fn act(&self, tenant: Name, act: Act) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(self.asked(Request::Act(tenant, act)))
    }

    fn acts(&self, tenant: Name, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Act>, StoreError>> {
        let sql = "SELECT bytes FROM audit_acts WHERE tenant = ?1 AND number > ?2 ORDER BY number LIMIT ?3";
        Box::pin(self.read(move |connection| {
            let params = params![&*tenant, int(after), int(limit as u64)];
            rows_of(connection, sql, params, |row| act_of(&bytes(row, 0)?))
        }))
    }

    fn last_act(&self, tenant: Name) -> BoxFuture<'_, Result<Option<Act>, StoreError>> {
        let sql = "SELECT bytes FROM audit_acts WHERE tenant = ?1 ORDER BY number DESC LIMIT 1";
        Box::pin(
            self.read(move |connection| Ok(rows_of(connection, sql, [&*tenant], |row| act_of(&bytes(row, 0)?))?.pop())),
        )
    }
}

impl SqliteStore {
    async fn asked(&self, request: Request) -> Result<bool, StoreError> {
        match self.ask(request).await? {
            Answer::Is(answer) => Ok(answer),
            other => Err(StoreError::Corrupt(format!("the writer answered {other:?}"))),
        }
    }
}
