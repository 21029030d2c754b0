//! Removing finished trees, and blobs that nothing refers to any more.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use windlass_core::ids::Name;
use windlass_core::time::Timestamp;
use windlass_ports::store::{Pruned, Retention, StoreError};

use super::connect::{Link, Sql, Trouble, Value};
use super::escrow;
use super::pool::{Pool, TRIES_MAX, pause};
use super::read::unread;
use super::request::{count, int, tag_key, tag_pair};
use super::schema::run;
use super::text::shield;
use super::trail;
use crate::cipher::Cipher;

/// Trees removed in one transaction.
const TREES_MAX: usize = 64;
/// A bundle stored this recently may be about to get its first run.
const BUNDLE_KEPT_SECONDS: i64 = 3_600;

static CANDIDATES: Sql = Sql {
    text: "SELECT t.root, t.ended_at, s.machine, s.tags @> $1 FROM \
         (SELECT root, max(updated_at) AS ended_at, min(status) AS least FROM runs GROUP BY root) t \
         JOIN starts s ON s.run = t.root WHERE t.least >= 6 ORDER BY s.created_us DESC, s.run DESC",
    types: &[Type::TEXT_ARRAY],
};

static LOCK_TREES: Sql = Sql {
    text: "SELECT id, root, status, bundle FROM runs WHERE root = ANY($1) ORDER BY id FOR UPDATE",
    types: &[Type::TEXT_ARRAY],
};

static COUNT_RECORDS: Sql = Sql {
    text: "SELECT count(*), coalesce(sum(length(record)), 0)::bigint FROM journal WHERE run = ANY($1)",
    types: &[Type::TEXT_ARRAY],
};

static LOCK_BLOBS: Sql = Sql {
    text: "SELECT digest FROM blobs WHERE digest IN (SELECT digest FROM blob_uses WHERE run = ANY($1) \
         UNION SELECT unnest($2::bytea[])) ORDER BY digest FOR UPDATE",
    types: &[Type::TEXT_ARRAY, Type::BYTEA_ARRAY],
};

static REMOVE_RUNS: Sql = Sql {
    text: "WITH j AS (DELETE FROM journal WHERE run = ANY($1)), n AS (DELETE FROM snapshots WHERE run = ANY($1)), \
         w AS (DELETE FROM waits WHERE run = ANY($1)), x AS (DELETE FROM inbox WHERE run = ANY($1)), \
         u AS (DELETE FROM blob_uses WHERE run = ANY($1)), s AS (DELETE FROM starts WHERE run = ANY($1)) \
         DELETE FROM runs WHERE id = ANY($1)",
    types: &[Type::TEXT_ARRAY],
};

static REMOVE_BLOBS: Sql = Sql {
    text: "DELETE FROM blobs b WHERE digest = ANY($1) AND NOT EXISTS (SELECT 1 FROM blob_uses u WHERE u.digest = b.digest) \
         AND (bundled_at IS NULL OR (digest = ANY($2) AND bundled_at < extract(epoch FROM now())::bigint - $3 \
         AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.bundle = b.digest))) RETURNING length(bytes)::bigint",
    types: &[Type::BYTEA_ARRAY, Type::BYTEA_ARRAY, Type::INT8],
};

/// All bundles, and which of them nothing uses.
static BUNDLES: Sql = Sql {
    text: "SELECT digest, NOT EXISTS (SELECT 1 FROM blob_uses u WHERE u.digest = b.digest) \
         AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.bundle = b.digest) FROM blobs b WHERE bundled_at IS NOT NULL",
    types: &[],
};

static FORGET_SIGNALS: Sql =
    Sql { text: "DELETE FROM signals WHERE data IS NULL AND sent_at < $1", types: &[Type::INT8] };

/// Roots of trees that may go, oldest first.
async fn candidates(pool: &Pool, retention: &Retention) -> Result<Vec<String>, StoreError> {
    let tag = |(key, value): &(Name, Option<Name>)| match value {
        Some(value) => tag_pair(key, value),
        None => tag_key(key),
    };
    let tags: Vec<String> = retention.tags.iter().map(tag).collect();
    let rows = pool.rows(&CANDIDATES, || vec![Box::new(tags.clone())]).await?;
    let machine = retention.machine.as_deref().map(shield);
    let mut newer: BTreeMap<String, u64> = BTreeMap::new();
    let mut roots = Vec::new();
    for row in &rows {
        let (root, of): (String, String) = (row.try_get(0).map_err(unread)?, row.try_get(2).map_err(unread)?);
        let ended_at = Timestamp(count(row.try_get(1).map_err(unread)?));
        let tagged: Option<bool> = row.try_get(3).map_err(unread)?;
        let wanted = machine.as_deref().is_none_or(|wanted| wanted == of);
        let place = newer.entry(of).or_default();
        *place += 1;
        let surplus = retention.keep_per_machine.is_none_or(|keep| *place > keep);
        let old = retention.ended_before.is_none_or(|before| ended_at < before);
        let named =
            retention.trees.as_ref().is_none_or(|trees| trees.iter().any(|tree| *shield(tree.as_str()) == *root));
        if wanted && surplus && old && named && (tags.is_empty() || tagged == Some(true)) {
            roots.push(root);
        }
    }
    roots.reverse();
    Ok(roots)
}

/// Removes finished runs, or tells what would be removed.
pub(super) async fn prune(pool: &Pool, retention: &Retention) -> Result<Pruned, StoreError> {
    let roots = candidates(pool, retention).await?;
    // A report is one look at everything; a removal lets others write between its parts.
    let part = if retention.dry_run { roots.len().max(1) } else { TREES_MAX };
    let mut pruned = Pruned::default();
    let erases = !retention.dry_run && retention.trees.is_some();
    let none = if erases && roots.is_empty() { vec![&roots[..]] } else { Vec::new() };
    let how = (retention.dry_run, erases);
    for roots in roots.chunks(part).chain(none) {
        let more = remove(pool, roots, how).await?;
        pruned.runs += more.runs;
        pruned.records += more.records;
        pruned.blobs += more.blobs;
        pruned.bytes += more.bytes;
        pruned.unsealed += more.unsealed;
        pruned.recent = more.recent;
    }
    if let (false, Some(before)) = (retention.dry_run, retention.ended_before) {
        pool.rows(&FORGET_SIGNALS, || vec![Box::new(int(before.0))]).await?;
    }
    Ok(pruned)
}

async fn remove(pool: &Pool, roots: &[String], (dry_run, erases): (bool, bool)) -> Result<Pruned, StoreError> {
    let mut tries = 0;
    loop {
        let mut link = pool.lend().await?;
        run(&link, "BEGIN").await?;
        match remove_within(&mut link, &pool.cipher, roots, (dry_run, erases)).await {
            Ok(pruned) => {
                run(&link, if dry_run { "ROLLBACK" } else { "COMMIT" }).await?;
                link.put_back();
                return Ok(pruned);
            }
            Err(Trouble::Again(_)) if tries < TRIES_MAX => {
                drop(link);
                tries += 1;
                pause(tries).await;
            }
            // The connection ends with its transaction.
            Err(trouble) => return Err(trouble.error()),
        }
    }
}

async fn remove_within(
    link: &mut Link,
    cipher: &Cipher,
    roots: &[String],
    (dry_run, erases): (bool, bool),
) -> Result<Pruned, Trouble> {
    let corrupt = |error: tokio_postgres::Error| Trouble::Refused(unread(error));
    let rows = link.query(&LOCK_TREES, vec![Box::new(roots.to_vec())]).await?;
    // Looked at again: a failed run may have been tried again since it was found.
    let mut open = BTreeSet::new();
    for row in &rows {
        if row.try_get::<_, i16>(2).map_err(corrupt)? < 6 {
            open.insert(row.try_get::<_, String>(1).map_err(corrupt)?);
        }
    }
    // Rows that are kept are looked at by no sealer.
    let mut unsealed = 0;
    if !dry_run {
        for root in trail::unsealed_trees(link, roots).await? {
            unsealed += u64::from(open.insert(root));
        }
    }
    let (mut runs, mut bundles) = (Vec::new(), BTreeSet::new());
    for row in &rows {
        if !open.contains(row.try_get::<_, &str>(1).map_err(corrupt)?) {
            runs.push(row.try_get::<_, String>(0).map_err(corrupt)?);
            bundles.insert(row.try_get::<_, Vec<u8>>(3).map_err(corrupt)?);
        }
    }
    if erases {
        let all = link.query(&BUNDLES, Vec::new()).await?;
        let digests = all.iter().map(|row| row.try_get::<_, Vec<u8>>(0));
        bundles.extend(digests.collect::<Result<Vec<_>, _>>().map_err(corrupt)?);
    }
    let bundles: Vec<Vec<u8>> = bundles.into_iter().collect();
    let all = || -> Value { Box::new(runs.clone()) };
    let number = |row: Option<&Row>, column: usize| -> Result<u64, Trouble> {
        row.map_or(Ok(0), |row| row.try_get(column).map(count).map_err(corrupt))
    };
    let counted = link.query(&COUNT_RECORDS, vec![all()]).await?;
    let mut pruned = Pruned {
        runs: runs.len() as u64,
        records: number(counted.first(), 0)?,
        blobs: 0,
        bytes: number(counted.first(), 1)?,
        unsealed,
        recent: 0,
        left_in_log: false,
    };
    let locked = link.query(&LOCK_BLOBS, vec![all(), Box::new(bundles.clone())]).await?;
    let digests = locked.iter().map(|row| row.try_get::<_, Vec<u8>>(0)).collect::<Result<Vec<_>, _>>();
    let digests = digests.map_err(corrupt)?;
    trail::keep(link, cipher, &runs).await?;
    escrow::forfeit(link, cipher, &runs).await?;
    link.query(&REMOVE_RUNS, vec![all()]).await?;
    let values: Vec<Value> = vec![Box::new(digests), Box::new(bundles), Box::new(BUNDLE_KEPT_SECONDS)];
    for row in &link.query(&REMOVE_BLOBS, values).await? {
        pruned.blobs += 1;
        pruned.bytes += number(Some(row), 0)?;
    }
    if erases {
        for row in &link.query(&BUNDLES, Vec::new()).await? {
            pruned.recent += u64::from(row.try_get::<_, bool>(1).map_err(corrupt)?);
        }
    }
    Ok(pruned)
}
