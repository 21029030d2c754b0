//! The audit trail in a file: what is not sealed, seals, acts, and rows of removed runs.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};
use windlass_core::audit::{Act, Chain};
use windlass_core::ids::{Digest, Name, RunId};
use windlass_core::seal::{ACTS, Last, Segment};
use windlass_core::time::Timestamp;
use windlass_ports::BoxFuture;
use windlass_ports::store::{Grown, Kept, Mark, Pruning, Removed, Sealing, StoreError, Trail, Unread, Unsealed};

use super::encryption::known;
use super::readers::View;
use super::request::{Answer, Request, encode};
use super::tx::{Trouble, Tx, count, int};
use super::{SqliteStore, failed, read};
use crate::cipher::{Cipher, Place};
use crate::pack::pack_audit;
use crate::trail::{act_of, chain_of, segment_of};

fn name(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Name> {
    Ok(row.get_ref(column)?.as_str()?.into())
}

/// How far seals go, and how far rows go.
struct State {
    epoch: i64,
    sealed_at: i64,
    rows: i64,
    acts: i64,
    last_row: i64,
    last_act: i64,
}

impl State {
    fn read(connection: &Connection) -> Result<Self, StoreError> {
        let sql = "SELECT epoch, sealed_at, rows, acts, (SELECT coalesce(max(key), 0) FROM journal), \
             (SELECT coalesce(max(key), 0) FROM audit_acts) FROM audit_sealing";
        let read = |row: &rusqlite::Row<'_>| {
            let number = |column| row.get::<_, i64>(column);
            let (epoch, sealed_at, rows) = (number(0)?, number(1)?, number(2)?);
            Ok(Self { epoch, sealed_at, rows, acts: number(3)?, last_row: number(4)?, last_act: number(5)? })
        };
        let found = connection.query_row(sql, [], read).optional().map_err(failed)?;
        found.ok_or_else(|| StoreError::Corrupt("how far the audit trail is sealed is lost".into()))
    }

    /// What cannot be true; then everything counts as new.
    fn mend(&mut self) -> Option<String> {
        let Self { rows, acts, last_row, last_act, .. } = *self;
        if rows <= last_row && acts <= last_act {
            return None;
        }
        (self.rows, self.acts) = (0, 0);
        let what = if rows > last_row { (rows, "row", last_row) } else { (acts, "act", last_act) };
        Some(format!("seals are said to go up to {} {}, and the last one is {}", what.1, what.0, what.2))
    }
}

fn unsealed(view: &View<'_>, limit: usize) -> Result<Unsealed, StoreError> {
    let mut state = State::read(view)?;
    let lost = state.mend();
    let mut grown: BTreeMap<(Name, RunId), Chain> = BTreeMap::new();
    // The last rows of each run are enough.
    let mut ends: BTreeMap<(Name, RunId), (i64, Vec<u8>)> = BTreeMap::new();
    let (mut mark, mut seen) = (Mark { rows: state.last_row, acts: state.last_act, ..Mark::default() }, 0);
    if state.last_row > state.rows {
        let sql = "SELECT journal.key, runs.id, names.name, journal.audit, journal.version FROM journal \
             JOIN runs ON runs.key = journal.run JOIN names ON names.key = runs.tenant \
             WHERE journal.key > ?1 AND journal.audit IS NOT NULL ORDER BY journal.key LIMIT ?2";
        let mut statement = view.prepare_cached(sql).map_err(failed)?;
        let mut found = statement.query(params![state.rows, int(limit as u64)]).map_err(failed)?;
        while let Some(row) = found.next().map_err(failed)? {
            let run = RunId::stored(row.get_ref(1).map_err(failed)?.as_str().map_err(|error| failed(error.into()))?);
            seen += 1;
            if seen == limit {
                mark.rows = row.get(0).map_err(failed)?;
            }
            let version = row.get(4).map_err(failed)?;
            ends.insert((name(row, 2).map_err(failed)?, run), (version, packed(row, 3)?));
        }
    }
    let cipher = view.cipher.knowing(known(view)?);
    let mut unread = Vec::new();
    let mut leave_out = |tenant: Name, run: RunId, error: &dyn std::fmt::Display| {
        unread.push(Unread { tenant, run, message: error.to_string() });
    };
    for (of, (version, stored)) in ends {
        match chain_of(&cipher, Place::Audit { run: of.1.as_str(), version }, &stored) {
            Ok(chain) => drop(grown.insert(of, chain)),
            // Who lacks a key cannot tell what stands there, and seals past nothing.
            Err(error @ StoreError::Key(_)) => return Err(error),
            Err(error) => leave_out(of.0, of.1, &error),
        }
    }
    if state.last_act > state.acts {
        let sql = "SELECT tenant, bytes, number FROM audit_acts WHERE key IN \
             (SELECT max(key) FROM audit_acts WHERE key > ?1 GROUP BY tenant)";
        let mut statement = view.prepare_cached(sql).map_err(failed)?;
        let mut found = statement.query([state.acts]).map_err(failed)?;
        while let Some(row) = found.next().map_err(failed)? {
            let (tenant, run) = (name(row, 0).map_err(failed)?, RunId::stored(ACTS));
            match act_of(&cipher, &tenant, row.get(2).map_err(failed)?, &packed(row, 1)?) {
                Ok(act) => drop(grown.insert((tenant, run), Chain { rows: act.number, head: act.hash() })),
                Err(error @ StoreError::Key(_)) => return Err(error),
                Err(error) => leave_out(tenant, run, &error),
            }
        }
    }
    let chains: Vec<Grown> = grown.into_iter().map(|((tenant, run), chain)| Grown { tenant, run, chain }).collect();
    let mut tenants: Vec<Name> = chains.iter().map(|one| one.tenant.clone()).collect();
    tenants.dedup();
    let last = tenants.into_iter().map(|tenant| last(view, &tenant).map(|last| (tenant, last)));
    let last = last.collect::<Result<_, _>>()?;
    let (epoch, sealed_at) = (count(state.epoch), Timestamp(count(state.sealed_at)));
    Ok(Unsealed { epoch, sealed_at, now: read::now(), chains, last, mark, more: seen == limit, unread, lost })
}

/// Packed bytes; what is of another type is nothing that can be read.
fn packed(row: &rusqlite::Row<'_>, column: usize) -> Result<Vec<u8>, StoreError> {
    Ok(row.get_ref(column).map_err(failed)?.as_bytes().unwrap_or_default().to_vec())
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
    view: &View<'_>,
    sql: &str,
    params: impl rusqlite::Params,
    read: impl Fn(&Cipher, &rusqlite::Row<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = view.prepare_cached(sql).map_err(failed)?;
    let mut found = statement.query(params).map_err(failed)?;
    let (mut all, cipher) = (Vec::new(), view.cipher.knowing(known(view)?));
    while let Some(row) = found.next().map_err(failed)? {
        all.push(read(&cipher, row)?);
    }
    Ok(all)
}

fn bytes(row: &rusqlite::Row<'_>, column: usize) -> Result<Vec<u8>, StoreError> {
    row.get(column).map_err(failed)
}

/// A segment after its number.
fn segment(cipher: &Cipher, tenant: &str, row: &rusqlite::Row<'_>) -> Result<Segment, StoreError> {
    segment_of(cipher, tenant, row.get(0).map_err(failed)?, &bytes(row, 1)?)
}

/// An act after its number.
fn act(cipher: &Cipher, tenant: &str, row: &rusqlite::Row<'_>) -> Result<Act, StoreError> {
    act_of(cipher, tenant, row.get(0).map_err(failed)?, &bytes(row, 1)?)
}

fn kept_of(cipher: &Cipher, row: &rusqlite::Row<'_>) -> Result<Kept, StoreError> {
    let number: i64 = row.get(0).map_err(failed)?;
    let run = RunId::stored(&name(row, 1).map_err(failed)?);
    let tenant = name(row, 2).map_err(failed)?;
    let place = Place::Kept { tenant: &tenant, run: run.as_str() };
    let rows = crate::trail::rows_of(cipher, place, &packed(row, 3)?).map_err(|error| error.to_string());
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
            let (seal, tenant) = (&segment.seal, &*segment.seal.tenant);
            let number = int(seal.number);
            let packed = self.cipher.pack(Place::Segment { tenant, number }, &encode(segment)?)?;
            self.run(sql, params![tenant, number, seal.hash().0, packed])?;
        }
        Ok(true)
    }

    pub(super) fn act(&mut self, tenant: &Name, act: &Act) -> Result<bool, Trouble> {
        let sql = "SELECT number, bytes FROM audit_acts WHERE tenant = ?1 ORDER BY number DESC LIMIT 1";
        let found = self.row(sql, [&**tenant], |row| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?)))?;
        let before = found.map(|(number, stored)| act_of(self.cipher, tenant, number, &stored)).transpose()?;
        let chain = before.map_or_else(Chain::default, |act| Chain { rows: act.number, head: act.hash() });
        if chain.then(act.number, act.previous, act.hash()).is_err() {
            return Ok(false);
        }
        let sql = "INSERT INTO audit_acts (tenant, number, bytes) VALUES (?1, ?2, ?3)";
        let number = int(act.number);
        let packed = self.cipher.pack(Place::Act { tenant, number }, &encode(act)?)?;
        self.run(sql, params![&**tenant, number, packed])?;
        Ok(true)
    }

    pub(super) fn prune_trail(&mut self, pruning: &Pruning) -> Result<(), Trouble> {
        let Pruning { tenant, segments, acts, kept } = pruning;
        let sql = "DELETE FROM audit_segments WHERE tenant = ?1 AND number <= ?2";
        self.run(sql, params![&**tenant, int(*segments)])?;
        let sql = "DELETE FROM audit_acts WHERE tenant = ?1 AND number <= ?2";
        self.run(sql, params![&**tenant, int(*acts)])?;
        for number in kept {
            let sql = "DELETE FROM audit_kept WHERE tenant = ?1 AND number = ?2";
            self.run(sql, params![&**tenant, int(*number)])?;
        }
        Ok(())
    }

    /// Whether all audit rows of a tree are sealed.
    pub(super) fn has_sealed(&mut self, root: i64) -> Result<bool, Trouble> {
        let sql = "SELECT 1 FROM audit_sealing s, runs r JOIN journal j ON j.run = r.key \
             WHERE (r.key = ?1 OR r.root = ?1) AND j.audit IS NOT NULL AND j.key > s.rows LIMIT 1";
        Ok(self.row(sql, [root], |_| Ok(()))?.is_none())
    }

    /// Keeps the audit rows of a run that is about to be removed.
    pub(super) fn keep_audit(&mut self, run: i64) -> Result<(), Trouble> {
        let sql = "SELECT runs.id, names.name FROM runs JOIN names ON names.key = runs.tenant WHERE runs.key = ?1";
        let named = self.row(sql, [run], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
        let Some((id, tenant)) = named else { return Ok(()) };
        // What cannot be read is kept by nobody: a check says so before anything is removed.
        let rows = read::audit_of(self.connection, self.cipher, run, &id)?;
        if rows.is_empty() {
            return Ok(());
        }
        let packed = self.cipher.encrypt(Place::Kept { tenant: &tenant, run: &id }, pack_audit(&encode(&rows)?))?;
        self.run("INSERT INTO audit_kept (run, tenant, rows) VALUES (?1, ?2, ?3)", params![id, tenant, packed])?;
        Ok(())
    }

    /// Keys of the journal may be given again once the last rows are gone, so that what comes next must count as new. A seal
    /// whose rows were read before must not move the mark over them.
    pub(super) fn lower_mark(&mut self) -> Result<(), Trouble> {
        let sql = "UPDATE audit_sealing SET epoch = epoch + 1, \
             rows = min(rows, (SELECT coalesce(max(key), 0) FROM journal))";
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
        let sql = "SELECT number, bytes FROM audit_segments WHERE tenant = ?1 AND number > ?2 ORDER BY number LIMIT ?3";
        Box::pin(self.read(move |view| {
            let params = params![&*tenant, int(after), int(limit as u64)];
            rows_of(view, sql, params, |cipher, row| segment(cipher, &tenant, row))
        }))
    }

    fn tenants(&self) -> BoxFuture<'_, Result<Vec<Name>, StoreError>> {
        let sql = "SELECT tenant FROM audit_segments UNION SELECT tenant FROM audit_acts \
             UNION SELECT tenant FROM audit_kept ORDER BY tenant";
        Box::pin(self.read(move |connection| rows_of(connection, sql, [], |_, row| name(row, 0).map_err(failed))))
    }

    fn kept(&self, of: Removed, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Kept>, StoreError>> {
        let (sql, of) = match of {
            Removed::Run(run) => (
                "SELECT number, run, tenant, rows FROM audit_kept WHERE run = ?1 AND number > ?2 ORDER BY number LIMIT ?3",
                run.as_str().into(),
            ),
            Removed::Tenant(tenant) => (
                "SELECT number, run, tenant, rows FROM audit_kept WHERE tenant = ?1 AND number > ?2 ORDER BY number \
                 LIMIT ?3",
                tenant,
            ),
        };
        Box::pin(self.read(move |connection| {
            let params = params![&*of, int(after), int(limit as u64)];
            rows_of(connection, sql, params, kept_of)
        }))
    }

    fn act(&self, tenant: Name, act: Act) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(self.asked(Request::Act(tenant, act)))
    }

    fn acts(&self, tenant: Name, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Act>, StoreError>> {
        let sql = "SELECT number, bytes FROM audit_acts WHERE tenant = ?1 AND number > ?2 ORDER BY number LIMIT ?3";
        Box::pin(self.read(move |view| {
            let params = params![&*tenant, int(after), int(limit as u64)];
            rows_of(view, sql, params, |cipher, row| act(cipher, &tenant, row))
        }))
    }

    fn cut(&self, pruning: Pruning) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.asked(Request::PruneTrail(pruning)).await?;
            Ok(())
        })
    }

    fn last_act(&self, tenant: Name) -> BoxFuture<'_, Result<Option<Act>, StoreError>> {
        let sql = "SELECT number, bytes FROM audit_acts WHERE tenant = ?1 ORDER BY number DESC LIMIT 1";
        let read = move |view: &View<'_>| {
            let acts = rows_of(view, sql, [&*tenant], |cipher, row| act(cipher, &tenant, row))?;
            Ok(acts.into_iter().next_back())
        };
        Box::pin(self.read(read))
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
