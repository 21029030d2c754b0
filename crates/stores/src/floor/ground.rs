//! A database to measure in: a schema of its own that is removed afterwards, so that nothing that is there is touched.

use std::time::Duration;

use tokio_postgres::{Client, SimpleQueryMessage};
use windlass_ports::store::StoreError;

use super::unavailable;
use crate::postgres::connect_plain;

/// The schema that runs are measured in.
const SCHEMA: &str = "windlass_bench";
/// One process at a time measures in a database.
const LOCK: &str = "SELECT pg_try_advisory_lock(7812738460179)";
const HAS_STORE: &str = "SELECT to_regclass('schema_history') IS NOT NULL AND to_regclass('runs') IS NOT NULL \
     AND to_regclass('workers') IS NOT NULL";
const HAS_RUNS: &str = "SELECT EXISTS (SELECT 1 FROM runs)";
const HAS_WORKERS: &str = "SELECT EXISTS (SELECT 1 FROM workers WHERE alive \
     AND until_us >= (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)";
const TRANSACTIONS: &str =
    "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()";

/// A schema of a database that is only measured in. What an interrupted measurement left is removed by the next.
#[derive(Debug)]
pub struct Ground {
    client: Client,
    url: String,
    lease: Duration,
}

impl Ground {
    /// Makes the schema. Call within a tokio runtime.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a database with runs or workers, one in which somebody measures already, one behind a
    /// pooler in transaction mode, and an address with `options`; [`StoreError::Unavailable`] when it cannot be reached
    /// or changed.
    pub async fn prepare(url: &str) -> Result<Self, StoreError> {
        let own = within(url)?;
        let plain = connect_plain(url).await?;
        if plain.is_pooled {
            return Err(invalid("a connection pooler in transaction mode is before it"));
        }
        let client = plain.client;
        if truth(&client, HAS_STORE).await? {
            if truth(&client, HAS_RUNS).await? {
                return Err(invalid("it holds runs already"));
            }
            if truth(&client, HAS_WORKERS).await? {
                return Err(invalid("workers are at work in it"));
            }
        }
        if !truth(&client, LOCK).await? {
            return Err(invalid("another measurement is under way in it"));
        }
        let fresh = format!("DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; CREATE SCHEMA {SCHEMA}");
        client.batch_execute(&fresh).await.map_err(unavailable)?;
        Ok(Self { client, url: own, lease: plain.lease })
    }

    /// The address under which a store uses the schema.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// How long a worker is taken to live after its last sign of life.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.lease
    }

    /// Transactions that the server has counted in the whole database so far. Its connections tell it what they did at
    /// most once a second.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn transactions(&self) -> Result<u64, StoreError> {
        let text = value(&self.client, TRANSACTIONS).await?;
        text.parse().map_err(|_| StoreError::Corrupt(format!("`{text}` is no number of transactions")))
    }

    /// Removes the schema with everything in it.
    ///
    /// # Errors
    /// The database cannot be changed.
    pub async fn remove(self) -> Result<(), StoreError> {
        self.client.batch_execute(&format!("DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")).await.map_err(unavailable)
    }
}

fn invalid(why: &str) -> StoreError {
    StoreError::Invalid(format!("the database cannot be measured in: {why}"))
}

/// The address with the schema in it.
fn within(url: &str) -> Result<String, StoreError> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    if query.split('&').any(|pair| pair.split('=').next() == Some("options")) {
        return Err(invalid("its address has `options`, which a measurement needs for itself"));
    }
    let mark = if url.contains('?') { '&' } else { '?' };
    Ok(format!("{url}{mark}options=-c%20search_path%3D{SCHEMA}"))
}

/// The only column of the only row. Not prepared, so that it is one transaction.
async fn value(client: &Client, text: &str) -> Result<String, StoreError> {
    let messages = client.simple_query(text).await.map_err(unavailable)?;
    let mut rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    rows.next().map(str::to_owned).ok_or_else(|| StoreError::Corrupt("the database gives no answer".into()))
}

async fn truth(client: &Client, text: &str) -> Result<bool, StoreError> {
    Ok(value(client, text).await? == "t")
}

#[cfg(test)]
mod tests {
    use windlass_ports::store::Store;

    use super::*;
    use crate::PostgresStore;

    #[test]
    fn an_address_is_given_the_schema() {
        let path = "options=-c%20search_path%3Dwindlass_bench";
        assert_eq!(within("postgres://h/d").unwrap(), format!("postgres://h/d?{path}"));
        assert_eq!(within("postgres://h/d?lease_ms=900").unwrap(), format!("postgres://h/d?lease_ms=900&{path}"));
        assert!(matches!(within("postgres://h/d?options=-cx"), Err(StoreError::Invalid(_))));
    }

    #[tokio::test]
    async fn a_store_in_it_is_apart_and_gone_afterwards() {
        let database = windlass_testpg::database();
        let ground = Ground::prepare(&database.url()).await.unwrap();
        assert_eq!(ground.lease(), Duration::from_secs(15));
        let store = PostgresStore::open(ground.url()).await.unwrap();
        store.join(windlass_ports::store::Registration::default()).await.unwrap();
        assert_eq!(database.value("SELECT to_regclass('public.runs') IS NULL"), "t");
        assert_eq!(database.value("SELECT count(*) FROM windlass_bench.workers"), "1");
        assert!(ground.transactions().await.is_ok());
        let second = Ground::prepare(&database.url()).await;
        assert!(matches!(second, Err(StoreError::Invalid(text)) if text.contains("under way")));
        drop(store);
        ground.remove().await.unwrap();
        assert_eq!(database.value("SELECT to_regnamespace('windlass_bench') IS NULL"), "t");
    }

    #[tokio::test]
    async fn a_database_in_use_is_refused() {
        let database = windlass_testpg::database();
        let store = PostgresStore::open(&database.url()).await.unwrap();
        let worker = store.join(windlass_ports::store::Registration::default()).await.unwrap();
        let refused = Ground::prepare(&database.url()).await;
        assert!(matches!(refused, Err(StoreError::Invalid(text)) if text.contains("workers")));
        store.leave(worker).await.unwrap();
        assert!(Ground::prepare(&database.url()).await.is_ok());
    }
}
