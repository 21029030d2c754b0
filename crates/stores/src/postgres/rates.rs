//! Buckets of rates in a database: one transaction for a trip, which locks the buckets in the order of their names, and the
//! row that says since when nothing is missing after them.
//!
//! The table is not logged, so these transactions wait for no sync. A server that crashed has none of it, and knows so.

use std::collections::BTreeMap;

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use windlass_core::ids::Name;
use windlass_core::time::Timestamp;
use windlass_ports::BoxFuture;
use windlass_ports::store::StoreError;
use windlass_ports::store::rates::{Bucket, BucketRow, Rates, Take, Taken, settle};

use super::PostgresStore;
use super::connect::{Link, Sql, Trouble, Value};
use super::pool::{Pool, TRIES_MAX, pause};
use super::read::unread;
use super::request::{count, int};
use super::schema::run;
use super::text::{indexed, shield, unshield};

macro_rules! now_ms {
    () => {
        "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
    };
}

/// Locks the buckets that are there. The time may be from before a wait for the locks: nothing is filled too early then.
static LOCK: Sql = Sql {
    text: concat!("SELECT bucket, bytes, ", now_ms!(), " FROM rates WHERE bucket = ANY($1) ORDER BY bucket FOR UPDATE"),
    types: &[Type::TEXT_ARRAY],
};

/// Makes buckets that are not there, without anything in them. A transaction of its own, which has no lock when it begins:
/// whoever waits here for somebody who makes the same holds nothing that another one waits for. They are not tidied away
/// before somebody has used them.
static MAKE: Sql = Sql {
    text: concat!(
        "INSERT INTO rates (bucket, idle_at, bytes) SELECT b, ",
        now_ms!(),
        " + 600000, '' FROM unnest($1::text[]) AS b ORDER BY b ON CONFLICT DO NOTHING"
    ),
    types: &[Type::TEXT_ARRAY],
};

/// Since when nothing is missing: the present, where nothing is known any more.
static SINCE: Sql = Sql {
    text: concat!(
        "INSERT INTO rates (bucket, idle_at, bytes) VALUES ('', ",
        now_ms!(),
        ", '') ON CONFLICT (bucket) DO UPDATE SET bytes = rates.bytes RETURNING idle_at"
    ),
    types: &[],
};

static WRITE: Sql = Sql {
    text: "UPDATE rates r SET idle_at = w.idle_at, bytes = w.bytes \
         FROM unnest($1::text[], $2::bigint[], $3::bytea[]) AS w (bucket, idle_at, bytes) WHERE r.bucket = w.bucket",
    types: &[Type::TEXT_ARRAY, Type::INT8_ARRAY, Type::BYTEA_ARRAY],
};

/// Those that somebody uses at this moment are not waited for.
static TIDY: Sql = Sql {
    text: concat!(
        "DELETE FROM rates WHERE bucket IN (SELECT bucket FROM rates WHERE bucket <> '' AND idle_at < ",
        now_ms!(),
        " FOR UPDATE SKIP LOCKED)"
    ),
    types: &[],
};

static LIST: Sql = Sql {
    text: concat!(
        "SELECT bucket, bytes, ",
        now_ms!(),
        " FROM rates WHERE bucket > $1 AND bytes <> '' ORDER BY bucket LIMIT $2"
    ),
    types: &[Type::TEXT, Type::INT8],
};

/// Forgets every bucket, and with them since when nothing is missing.
pub(super) static FORGET_RATES: Sql = Sql { text: "DELETE FROM rates", types: &[] };

/// Begins a transaction whose end waits for no disk.
const BEGIN: &str = "BEGIN; SET LOCAL synchronous_commit = off; SET LOCAL lock_timeout = '2s'";

async fn take(pool: &Pool, take: &Take) -> Result<Taken, StoreError> {
    let (mut tries, mut made) = (0, 0);
    let taken = loop {
        match take_once(pool, take).await {
            Ok(Tried::Taken(taken)) => break taken,
            // Forgotten again before they were locked, which is not so every time.
            Ok(Tried::Missing(missing)) if made < TRIES_MAX => {
                made += 1;
                pool.rows(&MAKE, || vec![Box::new(missing.clone())]).await?;
            }
            Ok(Tried::Missing(_)) => {
                return Err(StoreError::Unavailable("buckets of rates vanish as they are made".into()));
            }
            Err(Trouble::Again(_)) if tries < TRIES_MAX => {
                tries += 1;
                pause(tries).await;
            }
            Err(trouble) => return Err(trouble.error()),
        }
    };
    if take.tidy {
        // What was taken is taken, whether or not anything is tidied.
        let tidied = pool.rows(&TIDY, Vec::new).await;
        if let Err(error) = tidied {
            tracing::debug!(%error, "buckets of rates that nobody uses could not be forgotten");
        }
    }
    Ok(taken)
}

/// How a try to take went.
enum Tried {
    Taken(Taken),
    /// Buckets that are not there. Nothing was written, and nothing is locked.
    Missing(Vec<String>),
}

async fn take_once(pool: &Pool, take: &Take) -> Result<Tried, Trouble> {
    let mut link = pool.lend().await.map_err(Trouble::Passing)?;
    run(&link, BEGIN).await.map_err(Trouble::Passing)?;
    // The connection ends with a transaction that fails.
    let tried = take_within(&mut link, take).await?;
    let end = if matches!(tried, Tried::Taken(_)) { "COMMIT" } else { "ROLLBACK" };
    run(&link, end).await.map_err(Trouble::Passing)?;
    link.put_back();
    Ok(tried)
}

/// What was read of buckets.
struct Shelf {
    now: Timestamp,
    buckets: BTreeMap<Name, Bucket>,
    /// Those that have nothing in them yet.
    new: Vec<Name>,
}

impl Shelf {
    fn add(&mut self, row: &Row) -> Result<(), StoreError> {
        let (name, now) = (unshield(row.try_get(0).map_err(unread)?), row.try_get(2).map(count).map_err(unread)?);
        let bytes: &[u8] = row.try_get(1).map_err(unread)?;
        self.now = self.now.max(Timestamp(now));
        if bytes.is_empty() {
            self.new.push(name);
        } else {
            self.buckets.insert(name.clone(), Bucket::read(&name, bytes)?);
        }
        Ok(())
    }
}

async fn take_within(link: &mut Link, take: &Take) -> Result<Tried, Trouble> {
    let refused = Trouble::Refused;
    let rates = take.buckets();
    let key = |name: &Name| indexed("the bucket of a rate", name).map_err(refused);
    let keys = rates.keys().map(key).collect::<Result<Vec<_>, _>>()?;
    let mut shelf = Shelf { now: Timestamp(0), buckets: BTreeMap::new(), new: Vec::new() };
    for row in &link.query(&LOCK, vec![Box::new(keys)]).await? {
        shelf.add(row).map_err(refused)?;
    }
    let is_missing = |name: &&Name| !shelf.buckets.contains_key(*name) && !shelf.new.contains(name);
    let missing = rates.keys().filter(is_missing).map(key).collect::<Result<Vec<_>, _>>()?;
    if !missing.is_empty() {
        return Ok(Tried::Missing(missing));
    }
    let Shelf { now, mut buckets, new } = shelf;
    if !new.is_empty() {
        let rows = link.query(&SINCE, Vec::new()).await?;
        let since = rows.first().map(|row| row.try_get(0).map(count)).transpose();
        let since = Timestamp(since.map_err(|error| refused(unread(error)))?.unwrap_or(now.0));
        let made = new.into_iter().filter_map(|name| Some((rates.get(&name)?, name)));
        buckets.extend(made.map(|(rate, name)| (name, Bucket::empty_since(since, *rate, now))));
    }
    let taken = settle(take, &mut buckets, now);
    let (mut keys, mut idle, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
    for (name, bucket) in &buckets {
        keys.push(key(name)?);
        idle.push(int(bucket.idle_at().0));
        bytes.push(bucket.bytes().map_err(refused)?);
    }
    if !keys.is_empty() {
        let values: Vec<Value> = vec![Box::new(keys), Box::new(idle), Box::new(bytes)];
        link.query(&WRITE, values).await?;
    }
    Ok(Tried::Taken(taken))
}

impl Rates for PostgresStore {
    fn take(&self, asked: Take) -> BoxFuture<'_, Result<Taken, StoreError>> {
        Box::pin(async move { take(&self.pool, &asked).await })
    }

    fn buckets(&self, after: Option<Name>, limit: usize) -> BoxFuture<'_, Result<Vec<BucketRow>, StoreError>> {
        Box::pin(async move {
            let after = after.as_deref().map_or_else(String::new, |after| shield(after).into_owned());
            let values = || -> Vec<Value> { vec![Box::new(after.clone()), Box::new(int(limit as u64))] };
            let rows = self.pool.rows(&LIST, values).await?;
            let row = |row: &Row| {
                let name = unshield(row.try_get(0).map_err(unread)?);
                let now = Timestamp(row.try_get(2).map(count).map_err(unread)?);
                Ok(Bucket::read(&name, row.try_get(1).map_err(unread)?)?.row(name, now))
            };
            rows.iter().map(row).collect()
        })
    }
}
