//! Checks everything that can be checked without a machine. Reads one state of the store, and changes nothing.

use std::collections::BTreeSet;
use std::pin::pin;

use futures::TryStreamExt;
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use windlass_core::ids::{Digest, RunId};
use windlass_ports::store::{Finding, StoreError};

use super::connect::{Link, trouble};
use super::pool::Pool;
use super::read::{hashes, unread};
use super::schema::run;
use super::text::unshield;
use crate::cipher::{Cipher, Place};
use crate::encryption::{Rows, VALUES, Values};
use crate::fsck::Seen;
use crate::pack::{is_primed, unpack, unpack_primed};

/// Rules that are one query each: rows of (run, message) that should not be.
const RULES: &[(&str, &str)] = &[
    (
        "lease_and_queue",
        "SELECT id, 'the run is held and in the queue' FROM runs WHERE owner IS NOT NULL AND ready IS NOT NULL",
    ),
    (
        "liveness",
        "SELECT id, 'the run is over and in the queue, or due' FROM runs WHERE status >= 6 \
         AND (ready IS NOT NULL OR wake_at IS NOT NULL)",
    ),
    (
        "liveness",
        "SELECT id, 'the inbox has something and the run is not in the queue' FROM runs \
         WHERE status < 6 AND owner IS NULL AND ready IS NULL AND quarantine IS NULL AND pending > 0",
    ),
    (
        "liveness",
        "SELECT id, 'the run is quarantined and held, in the queue, due or over' FROM runs WHERE quarantine IS NOT NULL \
         AND (owner IS NOT NULL OR ready IS NOT NULL OR wake_at IS NOT NULL OR status >= 6)",
    ),
    (
        "liveness",
        "SELECT id, 'nothing will ever wake the run' FROM runs r WHERE status < 6 AND status NOT IN (3, 4) \
         AND quarantine IS NULL AND owner IS NULL AND ready IS NULL AND wake_at IS NULL AND pending = 0 \
         AND NOT EXISTS (SELECT 1 FROM waits w WHERE w.run = r.id) \
         AND NOT EXISTS (SELECT 1 FROM runs c WHERE c.root = r.root AND c.parent = r.id AND c.status < 6)",
    ),
    (
        "integrity",
        "SELECT id, 'the count of the inbox is ' || pending || ' and not ' || there FROM (SELECT id, pending, \
         (SELECT count(*) FROM inbox x WHERE x.run = r.id AND x.input IS NOT NULL) AS there FROM runs r) c \
         WHERE pending <> there",
    ),
    (
        "orphan",
        "SELECT id, 'the run above it does not exist' FROM runs r WHERE NOT EXISTS (SELECT 1 FROM runs t WHERE t.id = r.root) \
         OR (parent IS NOT NULL AND NOT EXISTS (SELECT 1 FROM runs p WHERE p.id = r.parent))",
    ),
    (
        "orphan",
        "SELECT id, 'the run has no start' FROM runs r WHERE NOT EXISTS (SELECT 1 FROM starts s WHERE s.run = r.id)",
    ),
    (
        "orphan",
        "SELECT id, 'the run is held by a worker that was never known' FROM runs r WHERE owner IS NOT NULL \
         AND NOT EXISTS (SELECT 1 FROM workers w WHERE w.id = r.owner)",
    ),
    (
        "orphan",
        "SELECT NULL, 'rows of `' || what || '` belong to run `' || run || '`, which does not exist' FROM ( \
         SELECT 'starts' AS what, run FROM starts UNION SELECT 'journal', run FROM journal \
         UNION SELECT 'snapshots', run FROM snapshots UNION SELECT 'waits', run FROM waits \
         UNION SELECT 'inbox', run FROM inbox UNION SELECT 'blob_uses', run FROM blob_uses) o \
         WHERE NOT EXISTS (SELECT 1 FROM runs r WHERE r.id = o.run)",
    ),
    (
        "integrity",
        "SELECT id, 'its status ' || status || ' is none that a decision gives' FROM runs \
         WHERE status NOT IN (1, 2, 3, 4, 6, 7, 8)",
    ),
    (
        "integrity",
        "SELECT id, 'its class ' || priority || ' is none that there is' FROM runs WHERE priority NOT IN (0, 1, 2)",
    ),
    (
        "integrity",
        "SELECT id, 'its bundle is named by ' || length(bundle) || ' bytes, and not by a hash' FROM runs WHERE length(bundle) <> 32",
    ),
    (
        "integrity",
        "SELECT run, 'its input is named by ' || length(input) || ' bytes, and not by a hash' FROM starts WHERE length(input) <> 32",
    ),
    (
        "journal_gap",
        "SELECT r.id, 'the journal ends at version ' || coalesce(max(j.version), 0) || ', the run is at ' || r.version \
         FROM runs r LEFT JOIN journal j ON j.run = r.id GROUP BY r.id HAVING r.version <> coalesce(max(j.version), 0)",
    ),
    (
        "blob",
        "SELECT DISTINCT j.run, 'blob `' || left(encode(substring(j.blobs FROM 32 * n.n + 1 FOR 32), 'hex'), 12) \
         || '` is missing or not kept' FROM journal j CROSS JOIN LATERAL generate_series(0, (length(j.blobs) - 1) / 32) AS n (n) \
         WHERE length(j.blobs) > 0 AND NOT EXISTS (SELECT 1 FROM blobs b JOIN blob_uses u ON u.digest = b.digest \
         WHERE b.digest = substring(j.blobs FROM 32 * n.n + 1 FOR 32) AND u.run = j.run)",
    ),
    (
        "blob",
        "SELECT run, 'a blob of its journal is missing' FROM blob_uses u \
         WHERE NOT EXISTS (SELECT 1 FROM blobs b WHERE b.digest = u.digest)",
    ),
    (
        "blob",
        "SELECT id, 'its bundle is missing' FROM runs r \
         WHERE NOT EXISTS (SELECT 1 FROM blobs b WHERE b.digest = r.bundle)",
    ),
];

const JOURNALS: &str = "SELECT j.run, j.version, j.record, j.audit, j.blobs, \
     CASE WHEN substring(j.record FROM 1 FOR 1) IN ('\\x02', '\\x82') \
     OR (j.version = 1 AND substring(j.record FROM 1 FOR 1) = '\\x45') THEN s.start END FROM journal j LEFT JOIN starts s ON s.run = j.run \
     ORDER BY j.run, j.version";

fn finding(run: Option<&str>, rule: &str, message: impl Into<String>) -> Finding {
    let run = run.map(|run| RunId::stored(&unshield(run)));
    Finding { run, rule: rule.into(), message: message.into() }
}

/// What is wrong.
pub(super) async fn check(pool: &Pool) -> Result<Vec<Finding>, StoreError> {
    let link = pool.lend().await?;
    run(&link, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let mut findings = Vec::new();
    for (rule, text) in RULES {
        each(&link, text, |row| {
            let (run, message): (Option<&str>, &str) =
                (row.try_get(0).map_err(unread)?, row.try_get(1).map_err(unread)?);
            findings.push(finding(run, rule, message));
            Ok(())
        })
        .await?;
    }
    journals(&link, &pool.cipher, &mut findings).await?;
    payloads(&link, &pool.cipher, &mut findings).await?;
    run(&link, "COMMIT").await?;
    link.put_back();
    Ok(findings)
}

/// Reads the rows of a query one after another.
async fn each(link: &Link, text: &str, mut read: impl FnMut(&Row) -> Result<(), StoreError>) -> Result<(), StoreError> {
    let failed = |error: tokio_postgres::Error| trouble(&error).error();
    let none: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 0] = [];
    let mut rows = pin!(link.client.query_typed_raw(text, none).await.map_err(failed)?);
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        read(&row)?;
    }
    Ok(())
}

/// Every version is there once and in order, every record is what was written, and audit rows are a chain.
async fn journals(link: &Link, cipher: &Cipher, findings: &mut Vec<Finding>) -> Result<(), StoreError> {
    let mut current = (String::new(), Seen::default());
    each(link, JOURNALS, |row| {
        let id: &str = row.try_get(0).map_err(unread)?;
        if current.0 != id {
            current = (id.to_owned(), Seen::default());
        }
        let seen = &mut current.1;
        let version: i64 = row.try_get(1).map_err(unread)?;
        let gap = seen.version(version);
        findings.extend(gap.map(|message| finding(Some(id), "journal_gap", message)));
        let (record, start): (&[u8], Option<&[u8]>) =
            (row.try_get(2).map_err(unread)?, row.try_get(5).map_err(unread)?);
        let read = cipher.decrypt(Place::Record { run: id, version }, record);
        let read = read.and_then(|packed| match (is_primed(&packed), start) {
            (true, Some(start)) => {
                cipher.unpack(Place::Start { run: id }, start).and_then(|primer| unpack_primed(&packed, &primer))
            }
            _ => unpack(&packed),
        });
        if let Err(error) = read {
            findings.push(finding(Some(id), "integrity", format!("record {version}: {error}")));
        }
        if let Some(packed) = row.try_get::<_, Option<&[u8]>>(3).map_err(unread)? {
            let wrong = seen.audit(cipher, id, packed);
            findings.extend(wrong.map(|message| finding(Some(id), "audit", message)));
        }
        if let Err(error) = hashes(row.try_get(4).map_err(unread)?) {
            findings.push(finding(Some(id), "blob", format!("the hashes of record {version}: {error}")));
        }
        Ok(())
    })
    .await
}

/// Everything beside journals is what was written.
async fn payloads(link: &Link, cipher: &Cipher, findings: &mut Vec<Finding>) -> Result<(), StoreError> {
    for values in VALUES.iter().filter(|values| !matches!(values.table, "journal" | "blobs")) {
        let Values { table, column, postgres: Rows { names: [first, second, number], .. }, place, .. } = values;
        let text =
            format!("SELECT {first}, {second}, ({number})::bigint, {column} FROM {table} WHERE {column} IS NOT NULL");
        each(link, &text, |row| {
            let (first, second): (&str, &str) = (row.try_get(0).map_err(unread)?, row.try_get(1).map_err(unread)?);
            let place = place(first, second, row.try_get(2).map_err(unread)?);
            let stored: &[u8] = row.try_get(3).map_err(unread)?;
            let read = match *table {
                "waits" => cipher.decrypt(place, stored).map(|_| ()),
                _ => cipher.unpack(place, stored).map(|_| ()),
            };
            if let Err(error) = read {
                let run = Some(first).filter(|_| values.is_of_run());
                findings.push(finding(run, values.rule(), format!("{}: {error}", values.what())));
            }
            Ok(())
        })
        .await?;
    }
    let mut told = BTreeSet::new();
    each(link, "SELECT digest, bytes FROM blobs", |row| {
        let (digest, packed): (Vec<u8>, &[u8]) = (row.try_get(0).map_err(unread)?, row.try_get(1).map_err(unread)?);
        let name = <[u8; 32]>::try_from(digest).ok().map(Digest);
        let short = name.map_or_else(|| "?".to_owned(), |digest| digest.short());
        let message = match cipher.unpack(Place::Blob(name.unwrap_or(Digest([0; 32]))), packed) {
            Ok(bytes) if Some(Digest::of(&bytes)) == name => return Ok(()),
            Ok(_) => format!("blob `{short}` has other bytes"),
            Err(error) => format!("blob `{short}`: {error}"),
        };
        if told.insert(short) {
            findings.push(finding(None, "blob", message));
        }
        Ok(())
    })
    .await
}
