//! Checks everything that can be checked without a machine. Reads one state of the store, and changes nothing.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params};
use windlass_core::ids::{Digest, RunId};
use windlass_core::run::Status;
use windlass_ports::store::{Finding, StoreError};

use super::failed;
use super::read::{self, start_bytes};
use super::readers::View;
use super::tx::{FINAL, status_code};
use crate::cipher::Place;
use crate::encryption::{Rows, VALUES, Values};
use crate::fsck::Seen;
use crate::pack::{is_primed, unpack, unpack_primed};

/// Findings of SQLite itself that are told.
const INTEGRITY_MAX: u32 = 100;

/// Rules that are one query each: rows of (run, message) that should not be.
const RULES: &[(&str, &str)] = &[
    (
        "lease_and_queue",
        "SELECT id, 'the run is held and in the queue' FROM runs WHERE owner IS NOT NULL AND ready IS NOT NULL",
    ),
    (
        "liveness",
        "SELECT id, 'the run is over and in the queue, or due' FROM runs WHERE status >= ?1 \
         AND (ready IS NOT NULL OR wake_at IS NOT NULL)",
    ),
    (
        "liveness",
        "SELECT id, 'the inbox has something and the run is not in the queue' FROM runs \
         WHERE status < ?1 AND owner IS NULL AND ready IS NULL AND quarantine IS NULL AND pending > 0",
    ),
    (
        "liveness",
        "SELECT id, 'the run is quarantined and held, in the queue, due or over' FROM runs WHERE quarantine IS NOT NULL \
         AND (owner IS NOT NULL OR ready IS NOT NULL OR wake_at IS NOT NULL OR status >= ?1)",
    ),
    (
        "liveness",
        "SELECT id, 'nothing will ever wake the run' FROM runs WHERE status < ?1 AND status NOT IN (?2, ?3) \
         AND quarantine IS NULL AND owner IS NULL AND ready IS NULL AND wake_at IS NULL AND pending = 0 \
         AND NOT EXISTS (SELECT 1 FROM waits WHERE waits.run = runs.key) \
         AND NOT EXISTS (SELECT 1 FROM runs AS child WHERE child.root = coalesce(runs.root, runs.key) \
             AND child.parent = runs.key AND child.status < ?1)",
    ),
    (
        "integrity",
        "SELECT id, 'the count of the inbox is ' || pending || ' and not ' || there FROM \
         (SELECT id, pending, (SELECT count(*) FROM inbox WHERE run = runs.key AND input IS NOT NULL) AS there FROM runs) \
         WHERE pending <> there",
    ),
    (
        "orphan",
        "SELECT id, 'the run above it does not exist' FROM runs \
         WHERE (parent IS NOT NULL AND parent NOT IN (SELECT key FROM runs)) \
            OR (root IS NOT NULL AND root NOT IN (SELECT key FROM runs))",
    ),
    ("orphan", "SELECT id, 'the run has no start' FROM runs WHERE key NOT IN (SELECT run FROM starts)"),
    (
        "orphan",
        "SELECT id, 'the run is held by a worker that was never known' FROM runs \
         WHERE owner IS NOT NULL AND owner NOT IN (SELECT key FROM workers)",
    ),
    (
        "orphan",
        "SELECT id, 'the run was lost by a worker that was never known' FROM runs \
         WHERE lost IS NOT NULL AND lost NOT IN (SELECT key FROM workers)",
    ),
    (
        "orphan",
        "SELECT NULL, 'rows of `' || what || '` belong to run ' || run || ', which does not exist' FROM ( \
         SELECT DISTINCT 'starts' AS what, run FROM starts UNION SELECT DISTINCT 'journal', run FROM journal \
         UNION SELECT DISTINCT 'snapshots', run FROM snapshots UNION SELECT DISTINCT 'waits', run FROM waits \
         UNION SELECT DISTINCT 'inbox', run FROM inbox UNION SELECT DISTINCT 'blob_uses', run FROM blob_uses \
         UNION SELECT DISTINCT 'tags', run FROM tags) \
         WHERE run NOT IN (SELECT key FROM runs)",
    ),
    (
        "orphan",
        "SELECT id, 'its pool or its tenant has no name' FROM runs \
         WHERE pool NOT IN (SELECT key FROM names) OR tenant NOT IN (SELECT key FROM names)",
    ),
    (
        "integrity",
        "SELECT id, 'its tags are not those it is found by' FROM (SELECT id, key AS run, \
         CASE WHEN json_valid(CAST(starts.tags AS TEXT)) THEN CAST(starts.tags AS TEXT) ELSE '{}' END AS own, \
         starts.tags IS NULL OR json_valid(CAST(starts.tags AS TEXT)) AS sound \
         FROM runs JOIN starts ON starts.run = runs.key) AS r \
         WHERE NOT sound OR (SELECT count(*) FROM json_each(own)) <> (SELECT count(*) FROM tags WHERE tags.run = r.run) \
            OR EXISTS (SELECT 1 FROM json_each(own) AS tag WHERE NOT EXISTS (SELECT 1 FROM tags \
                WHERE tags.run = r.run AND tags.key = tag.key AND tags.value = tag.value))",
    ),
    (
        "integrity",
        "SELECT NULL, 'the run ' || key || ' has an id that is no text' FROM runs WHERE typeof(id) <> 'text'",
    ),
    (
        "integrity",
        "SELECT id, 'its status ' || quote(status) || ' is none that a decision gives' FROM runs \
         WHERE status IN (0, 5)",
    ),
    (
        "journal_gap",
        "SELECT id, 'the journal ends at version ' || written || ', the run is at ' || quote(version) FROM (SELECT id, version, \
         (SELECT coalesce(max(version), 0) FROM journal WHERE run = runs.key) AS written FROM runs) \
         WHERE version <> written",
    ),
    (
        "blob",
        "SELECT id, 'a blob of its journal is missing' FROM blob_uses JOIN runs ON runs.key = blob_uses.run \
         WHERE blob NOT IN (SELECT key FROM blobs)",
    ),
    ("blob", "SELECT id, 'its bundle is missing' FROM runs WHERE bundle NOT IN (SELECT digest FROM blobs)"),
];

/// What is wrong.
pub(super) fn check(view: &View<'_>) -> Result<Vec<Finding>, StoreError> {
    let mut findings = Vec::new();
    integrity(view, &mut findings)?;
    // What one part cannot read is told, and the other parts go on.
    for (rule, sql) in RULES {
        let asked = ask(view, rule, sql, &mut findings);
        unless_damaged(asked, &mut findings)?;
    }
    for part in [heads, journals, payloads, blobs_stored] {
        let read = part(view, &mut findings);
        unless_damaged(read, &mut findings)?;
    }
    Ok(findings)
}

/// Damage that ends a part of the check is a finding; a store that cannot be read now is none.
fn unless_damaged(checked: Result<(), StoreError>, findings: &mut Vec<Finding>) -> Result<(), StoreError> {
    match checked {
        Err(StoreError::Corrupt(text)) => {
            let told = finding(None, "integrity", text);
            if !findings.contains(&told) {
                findings.push(told);
            }
            Ok(())
        }
        other => other,
    }
}

/// The text of a column, however it is stored.
fn text(row: &Row<'_>, column: usize) -> Result<Option<String>, StoreError> {
    Ok(match row.get_ref(column).map_err(failed)? {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(number.to_string()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
    })
}

/// The bytes of a payload; anything else was not written by Windlass.
fn bytes<'a>(row: &'a Row<'_>, column: usize) -> Result<&'a [u8], StoreError> {
    let value = row.get_ref(column).map_err(failed)?;
    value.as_blob().map_err(|_| {
        StoreError::Corrupt(format!(
            "it is stored as {} and not as bytes",
            value.data_type().to_string().to_lowercase()
        ))
    })
}

fn optional_bytes<'a>(row: &'a Row<'_>, column: usize) -> Result<Option<&'a [u8]>, StoreError> {
    match row.get_ref(column).map_err(failed)? {
        ValueRef::Null => Ok(None),
        _ => bytes(row, column).map(Some),
    }
}

/// Every row of a run can be read.
fn heads(view: &View<'_>, findings: &mut Vec<Finding>) -> Result<(), StoreError> {
    let mut statement = view.prepare(&read::heads("ORDER BY runs.key")).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        if let Err(error) = read::head_of(row) {
            findings.push(finding(text(row, 2)?.as_deref(), "integrity", format!("its row cannot be read: {error}")));
        }
    }
    Ok(())
}

fn finding(run: Option<&str>, rule: &str, message: impl Into<String>) -> Finding {
    Finding { run: run.map(RunId::stored), rule: rule.into(), message: message.into() }
}

fn integrity(connection: &Connection, findings: &mut Vec<Finding>) -> Result<(), StoreError> {
    let mut statement = connection.prepare(&format!("PRAGMA integrity_check({INTEGRITY_MAX})")).map_err(failed)?;
    let lines = statement.query_map([], |row| row.get::<_, String>(0)).map_err(failed)?;
    for line in lines {
        match line.map_err(failed)? {
            ok if ok == "ok" => {}
            line => findings.push(finding(None, "integrity", line)),
        }
    }
    Ok(())
}

fn ask(connection: &Connection, rule: &str, sql: &str, findings: &mut Vec<Finding>) -> Result<(), StoreError> {
    let holds = [Status::Paused, Status::Attention].map(status_code);
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let all = [FINAL, holds[0], holds[1]];
    let used = all.into_iter().take(statement.parameter_count());
    let mut rows = statement.query(rusqlite::params_from_iter(used)).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        let (run, message) = (text(row, 0)?, text(row, 1)?);
        findings.push(finding(run.as_deref(), rule, message.unwrap_or_default()));
    }
    Ok(())
}

/// Every version is there once and in order, every record is what was written, and audit rows are a chain.
fn journals(view: &View<'_>, findings: &mut Vec<Finding>) -> Result<(), StoreError> {
    let sql = "SELECT runs.id, runs.key, journal.version, journal.record, journal.audit, journal.blobs FROM journal \
         JOIN runs ON runs.key = journal.run ORDER BY journal.run, journal.version";
    let mut statement = view.prepare(sql).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut current = (0, Seen::default());
    while let Some(row) = rows.next().map_err(failed)? {
        let id = text(row, 0)?.unwrap_or_default();
        let key: i64 = row.get(1).map_err(failed)?;
        if current.0 != key {
            current = (key, Seen::default());
        }
        let Ok(version) = row.get::<_, i64>(2) else {
            let shown = text(row, 2)?.unwrap_or_default();
            findings.push(finding(
                Some(&id),
                "integrity",
                format!("a record has the version `{shown}`, which is no number"),
            ));
            continue;
        };
        let seen = &mut current.1;
        let gap = seen.version(version);
        findings.extend(gap.map(|message| finding(Some(&id), "journal_gap", message)));
        let place = Place::Record { run: &id, version };
        let read = bytes(row, 3).and_then(|stored| view.cipher.decrypt(place, stored));
        let read = read.and_then(|packed| match is_primed(&packed) {
            true => start_bytes(view, key, &id).and_then(|primer| unpack_primed(&packed, &primer)),
            false => unpack(&packed),
        });
        if let Err(error) = read {
            findings.push(finding(Some(&id), "integrity", format!("record {version}: {error}")));
        }
        match optional_bytes(row, 4) {
            Ok(None) => {}
            Ok(Some(stored)) => {
                let wrong = seen.audit(view.cipher, &id, stored);
                findings.extend(wrong.map(|message| finding(Some(&id), "audit", message)));
            }
            Err(error) => {
                findings.push(finding(Some(&id), "audit", format!("audit rows of version {version}: {error}")))
            }
        }
        match optional_bytes(row, 5) {
            Ok(None) => {}
            Ok(Some(digests)) => blobs(view, &id, digests, findings)?,
            Err(error) => findings.push(finding(Some(&id), "blob", format!("the hashes of record {version}: {error}"))),
        }
    }
    Ok(())
}

/// Every blob that a record names is there, and kept for this run.
fn blobs(connection: &Connection, id: &str, digests: &[u8], findings: &mut Vec<Finding>) -> Result<(), StoreError> {
    let sql = "SELECT 1 FROM blobs JOIN blob_uses ON blob_uses.blob = blobs.key \
         WHERE digest = ?1 AND blob_uses.run = (SELECT key FROM runs WHERE id = ?2)";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    for digest in digests.as_chunks::<32>().0 {
        if !statement.exists(params![digest, id]).map_err(failed)? {
            let message = format!("blob `{}` is missing or not kept", Digest(*digest).short());
            findings.push(finding(Some(id), "blob", message));
        }
    }
    Ok(())
}

/// Everything beside journals and blobs is what was written.
fn payloads(view: &View<'_>, findings: &mut Vec<Finding>) -> Result<(), StoreError> {
    for values in VALUES.iter().filter(|values| !matches!(values.table, "journal" | "blobs")) {
        let Values { table, column, sqlite: Rows { names: [first, second, number], .. }, place, .. } = values;
        let sql =
            format!("SELECT {first}, {second}, {number}, t.{column} FROM {table} AS t WHERE t.{column} IS NOT NULL");
        let mut statement = view.prepare(&sql).map_err(failed)?;
        let mut rows = statement.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let names = (text(row, 0)?, text(row, 1)?.unwrap_or_default());
            let run = names.0.as_deref().filter(|_| values.is_of_run());
            let place = place(names.0.as_deref().unwrap_or_default(), &names.1, row.get(2).unwrap_or_default());
            let read = bytes(row, 3).and_then(|stored| match *table {
                "waits" => view.cipher.decrypt(place, stored).map(|_| ()),
                _ => view.cipher.unpack(place, stored).map(|_| ()),
            });
            if let Err(error) = read {
                findings.push(finding(run, values.rule(), format!("{}: {error}", values.what())));
            }
        }
    }
    Ok(())
}

/// Every blob has the bytes that its hash says.
fn blobs_stored(view: &View<'_>, findings: &mut Vec<Finding>) -> Result<(), StoreError> {
    let mut statement = view.prepare("SELECT digest, bytes FROM blobs").map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        let Ok(digest) = row.get(0).map(Digest) else {
            let shown = text(row, 0)?.unwrap_or_default();
            findings.push(finding(None, "blob", format!("a blob has the hash `{shown}`, which is none")));
            continue;
        };
        match bytes(row, 1).and_then(|stored| view.cipher.unpack(Place::Blob(digest), stored)) {
            Ok(bytes) if Digest::of(&bytes) == digest => {}
            Ok(_) => findings.push(finding(None, "blob", format!("blob `{}` has other bytes", digest.short()))),
            Err(error) => findings.push(finding(None, "blob", format!("blob `{}`: {error}", digest.short()))),
        }
    }
    Ok(())
}
