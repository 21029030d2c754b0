//! Buckets of rates in a file: read, reckoned and written in the transaction of the writer.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::params;
use windlass_core::ids::Name;
use windlass_core::time::Timestamp;
use windlass_ports::BoxFuture;
use windlass_ports::store::StoreError;
use windlass_ports::store::rates::{Bucket, BucketRow, Rates, Take, Taken, settle};

use super::request::{Answer, Request};
use super::tx::{Trouble, Tx, count, int};
use super::{SqliteStore, failed};

/// The name of the row that says since when nothing is missing.
const SINCE: &str = "";

/// The time of this host, which is that of every process that has the file.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl Tx<'_> {
    /// Answers a trip to the buckets.
    pub(super) fn take_permits(&mut self, take: &Take) -> Result<Taken, Trouble> {
        let now = now();
        let mut buckets = BTreeMap::new();
        for (name, rate) in take.buckets() {
            let sql = "SELECT bytes FROM rates WHERE bucket = ?1";
            let bucket = match self.row(sql, [&*name], |row| row.get::<_, Vec<u8>>(0))? {
                Some(bytes) => Bucket::read(&name, &bytes)?,
                None => Bucket::empty_since(self.rates_since(now)?, rate, now),
            };
            buckets.insert(name, bucket);
        }
        let taken = settle(take, &mut buckets, now);
        for (name, bucket) in &buckets {
            let sql = "INSERT INTO rates (bucket, idle_at, bytes) VALUES (?1, ?2, ?3) \
                 ON CONFLICT (bucket) DO UPDATE SET idle_at = excluded.idle_at, bytes = excluded.bytes";
            self.run(sql, params![&**name, int(bucket.idle_at().0), bucket.bytes()?])?;
        }
        if take.tidy {
            self.run("DELETE FROM rates WHERE bucket <> ?1 AND idle_at < ?2", params![SINCE, int(now.0)])?;
        }
        Ok(taken)
    }

    fn rates_since(&mut self, now: Timestamp) -> Result<Timestamp, Trouble> {
        let sql = "SELECT idle_at FROM rates WHERE bucket = ?1";
        let since = self.row(sql, [SINCE], |row| row.get::<_, i64>(0))?;
        Ok(since.map_or(now, |since| Timestamp(count(since))))
    }

    /// Forgets every bucket: what is there may be older than what was handed out.
    pub(super) fn forget_rates(&mut self) -> Result<(), Trouble> {
        self.run("DELETE FROM rates", [])?;
        let sql = "INSERT INTO rates (bucket, idle_at, bytes) VALUES (?1, ?2, x'')";
        self.run(sql, params![SINCE, int(now().0)])?;
        Ok(())
    }
}

impl Rates for SqliteStore {
    fn take(&self, take: Take) -> BoxFuture<'_, Result<Taken, StoreError>> {
        Box::pin(async move {
            match self.ask(Request::Take(Box::new(take))).await? {
                Answer::Taken(taken) => Ok(taken),
                other => Err(StoreError::Corrupt(format!("the writer answered {other:?}"))),
            }
        })
    }

    fn buckets(&self, after: Option<Name>, limit: usize) -> BoxFuture<'_, Result<Vec<BucketRow>, StoreError>> {
        Box::pin(self.read(move |connection| {
            let sql = "SELECT bucket, bytes FROM rates WHERE bucket > ?1 ORDER BY bucket LIMIT ?2";
            let mut statement = connection.prepare_cached(sql).map_err(failed)?;
            let after = after.as_deref().unwrap_or(SINCE);
            let mut found = statement.query(params![after, int(limit as u64)]).map_err(failed)?;
            let (mut rows, now) = (Vec::new(), now());
            while let Some(row) = found.next().map_err(failed)? {
                let (name, bytes): (String, Vec<u8>) = (row.get(0).map_err(failed)?, row.get(1).map_err(failed)?);
                rows.push(Bucket::read(&name, &bytes)?.row(name.as_str().into(), now));
            }
            Ok(rows)
        }))
    }
}
