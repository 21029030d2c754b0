//! Encryption of a database: how far it is, how it begins, and what is refused from then on.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use windlass_core::time::Timestamp;
use windlass_ports::store::StoreError;

use super::PostgresStore;
use super::connect::{Connector, Link, Purpose, Sql, Trouble, Value, trouble};
use super::local::Local;
use super::pool::Pool;
use super::read::unread;
use super::request::count;
use super::schema::{self, ENCRYPTED, WRITERS, run};
use super::url::Address;
use super::workers::Workers;
use crate::cipher::Cipher;
use crate::encryption::{
    self, Beginning, Counted, Encryption, Found, KEY_REFUSED, PLAIN_REFUSED, Progress, Rekeyed, VALUES, Values, Verdict,
};
use crate::keys::{HEADER_BYTES, Keyring, header_of, key_of};

static STATE: Sql = Sql { text: "SELECT store, began_at, complete_at, state FROM encryption", types: &[] };
static KEYS: Sql = Sql { text: "SELECT id, proof FROM encryption_keys ORDER BY id", types: &[] };
static BEGIN: Sql = Sql {
    text: "INSERT INTO encryption (store, began_at, complete_at, state) SELECT $1, at, CASE WHEN $2 THEN at END, $3 \
         FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS at) now",
    types: &[Type::TEXT, Type::BOOL, Type::BYTEA],
};
static ADD_KEY: Sql = Sql {
    text: "INSERT INTO encryption_keys (id, proof) VALUES ($1, $2) ON CONFLICT DO NOTHING",
    types: &[Type::TEXT, Type::BYTEA],
};
/// Takes a key into use that was not known.
static BRING_KEY: Sql = Sql {
    text: "INSERT INTO encryption_writers (id, header) VALUES ($1, $2) ON CONFLICT DO NOTHING",
    types: &[Type::TEXT, Type::BYTEA],
};
/// Takes a key into use, also one that was replaced.
static OPEN_KEY: Sql = Sql {
    text: "INSERT INTO encryption_writers (id, header) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET closed_at = NULL",
    types: &[Type::TEXT, Type::BYTEA],
};
static CLOSED: Sql =
    Sql { text: "SELECT id FROM encryption_writers WHERE closed_at IS NOT NULL ORDER BY id", types: &[] };
static IS_COMPLETE: Sql = Sql { text: "SELECT complete_at IS NOT NULL FROM encryption", types: &[] };
static KNOWN: Sql = Sql { text: "SELECT id FROM encryption_keys", types: &[] };
static GUARDS: Sql = Sql {
    text: "SELECT count(*) FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid WHERE p.proname = 'refuse_value' \
         AND t.tgenabled <> 'D' AND t.tgrelid IN (SELECT to_regclass(name) FROM unnest($1::text[]) AS name)",
    types: &[Type::TEXT_ARRAY],
};

/// What a database says about its encryption. None when nothing is encrypted.
pub(super) async fn found(link: &mut Link) -> Result<Option<Found>, StoreError> {
    let schema = schema::found(link).await?;
    if schema < ENCRYPTED {
        return Ok(None);
    }
    let rows = link.query(&STATE, Vec::new()).await.map_err(Trouble::error)?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (store, began_at) = (row.try_get(0).map_err(unread)?, row.try_get(1).map_err(unread)?);
    let (complete_at, state) = (row.try_get(2).map_err(unread)?, row.try_get(3).map_err(unread)?);
    let keys = link.query(&KEYS, Vec::new()).await.map_err(Trouble::error)?;
    let key = |row: &Row| Ok((row.try_get(0).map_err(unread)?, row.try_get(1).map_err(unread)?));
    let keys = keys.iter().map(key).collect::<Result<_, StoreError>>()?;
    let closed = if schema < WRITERS { Vec::new() } else { ids(link, &CLOSED).await? };
    Ok(Some(Found { store, began_at, complete_at, state, keys, closed }))
}

pub(super) async fn ids(link: &mut Link, sql: &'static Sql) -> Result<Vec<String>, StoreError> {
    let rows = link.query(sql, Vec::new()).await.map_err(Trouble::error)?;
    rows.iter().map(|row| row.try_get(0).map_err(unread)).collect()
}

pub(super) fn lost(error: tokio_postgres::Error) -> StoreError {
    trouble(&error).error()
}

/// How values are read where it matters which keys the store has at this moment.
pub(super) async fn knowing(pool: &Pool) -> Result<Cipher, StoreError> {
    let rows = pool.rows(&KNOWN, Vec::new).await?;
    let known = rows.iter().map(|row| row.try_get(0).map_err(unread)).collect::<Result<_, _>>()?;
    Ok(pool.cipher.knowing(known))
}

/// Where values from before the database was encrypted are read: looks whether there are any left.
pub(super) async fn refresh(link: &mut Link, cipher: &Cipher) -> Result<(), StoreError> {
    if cipher.reads_plain() && cipher.keys().is_some() {
        let rows = link.query(&IS_COMPLETE, Vec::new()).await.map_err(Trouble::error)?;
        if rows.first().map(|row| row.try_get(0).map_err(unread)).transpose()? == Some(true) {
            cipher.refuse_plain();
        }
    }
    Ok(())
}

/// Whether there is no value at all, in a database of whatever schema.
async fn is_empty(link: &Link) -> Result<bool, StoreError> {
    let columns = "SELECT attrelid::regclass::text, attname::text FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped \
         AND attrelid IN (SELECT to_regclass(name) FROM unnest($1::text[]) AS name)";
    let tables: Vec<&str> = VALUES.iter().map(|values| values.table).collect();
    let rows = link.client.query_typed(columns, &[(&tables, Type::TEXT_ARRAY)]).await.map_err(lost)?;
    let column = |row: &Row| Ok((row.try_get(0).map_err(unread)?, row.try_get(1).map_err(unread)?));
    let there = rows.iter().map(column).collect::<Result<Vec<(String, String)>, StoreError>>()?;
    let is_there =
        |values: &&Values| there.iter().any(|(table, column)| table == values.table && column == values.column);
    let any: Vec<String> = VALUES
        .iter()
        .filter(is_there)
        .map(|values| format!("EXISTS (SELECT 1 FROM {} WHERE {} IS NOT NULL)", values.table, values.column))
        .collect();
    if any.is_empty() {
        return Ok(true);
    }
    let row = link.client.query_typed(&format!("SELECT {}", any.join(" OR ")), &[]).await.map_err(lost)?;
    row.first().map_or(Ok(true), |row| row.try_get::<_, bool>(0).map(|any| !any).map_err(unread))
}

/// Refuses a database whose keys are not there, before anything of it is changed.
pub(super) async fn check(link: &mut Link, keys: Option<&Keyring>) -> Result<(), StoreError> {
    let (found, is_empty) = (found(link).await?, is_empty(link).await?);
    encryption::judge(found, is_empty, keys).map(|_| ())
}

/// How the values of a database are read.
pub(super) async fn cipher_to_read(link: &mut Link, keys: Option<&Keyring>) -> Result<Cipher, StoreError> {
    let (found, is_empty) = (found(link).await?, is_empty(link).await?);
    match encryption::judge(found, is_empty, keys)? {
        Verdict::Begin(keys) => Ok(Cipher::new(keys, String::new(), false)),
        Verdict::Use(cipher) => Ok(cipher),
    }
}

/// How the values of a database of the newest schema are read and written. One without values begins to be encrypted.
pub(super) async fn cipher_to_write(link: &mut Link, keys: Option<&Keyring>) -> Result<Cipher, StoreError> {
    let Some(keys) = keys else { return cipher_to_read(link, None).await };
    run(link, "BEGIN").await?;
    let cipher = cipher_within(link, keys).await;
    let cipher = ended(link, cipher).await?;
    guard_again(link).await?;
    Ok(cipher)
}

/// The same within a transaction of the caller.
async fn cipher_within(link: &mut Link, keys: &Keyring) -> Result<Cipher, StoreError> {
    run(link, schema::LOCK).await?;
    let (found, is_empty) = (found(link).await?, is_empty(link).await?);
    match encryption::judge(found, is_empty, Some(keys))? {
        Verdict::Begin(keys) => begin(link, &keys, false).await,
        Verdict::Use(cipher) => {
            register(link, &cipher, keys, false).await?;
            Ok(cipher)
        }
    }
}

/// Notes the active key. One that was replaced is taken into use again only where that is wanted.
pub(super) async fn register(
    link: &mut Link,
    cipher: &Cipher,
    keys: &Keyring,
    reopens: bool,
) -> Result<(), StoreError> {
    if !reopens && let Some(found) = found(link).await? {
        encryption::check_active(&found, keys)?;
    }
    let id = keys.active();
    let values: Vec<Value> = vec![Box::new(id.to_owned()), Box::new(encryption::proof(cipher, id)?)];
    link.query(&ADD_KEY, values).await.map_err(Trouble::error)?;
    let values: Vec<Value> = vec![Box::new(id.to_owned()), Box::new(header_of(id).to_vec())];
    link.query(if reopens { &OPEN_KEY } else { &BRING_KEY }, values).await.map_err(Trouble::error)?;
    Ok(())
}

/// From the end of the transaction on nothing plain is written, by whomever.
pub(super) async fn begin(link: &mut Link, keys: &Keyring, has_plain: bool) -> Result<Cipher, StoreError> {
    let Beginning { store, state, cipher } = encryption::begin(keys, has_plain)?;
    let values: Vec<Value> = vec![Box::new(store), Box::new(!has_plain), Box::new(state)];
    link.query(&BEGIN, values).await.map_err(Trouble::error)?;
    register(link, &cipher, keys, true).await?;
    guard(link).await?;
    Ok(cipher)
}

/// Ends a transaction, as it went.
pub(super) async fn ended<T>(link: &Link, done: Result<T, StoreError>) -> Result<T, StoreError> {
    run(link, if done.is_ok() { "COMMIT" } else { "ROLLBACK" }).await.and(done)
}

/// Values that are plain, or of a key that was replaced, are refused, also those of processes that opened the database
/// before. What the server itself copies out of a signal is as that was written. Within a transaction of the caller.
async fn guard(link: &Link) -> Result<(), StoreError> {
    for sql in guards() {
        run(link, &sql).await?;
    }
    Ok(())
}

/// Puts back what [`guard`] makes, where it is not there: each in a transaction of its own, so that nobody who writes waits
/// for two tables at a time.
pub(super) async fn guard_again(link: &mut Link) -> Result<(), StoreError> {
    let tables: Vec<String> = VALUES.iter().map(|values| values.table.to_owned()).collect();
    let there = link.query(&GUARDS, vec![Box::new(tables)]).await.map_err(Trouble::error)?;
    let there = there.first().map_or(Ok(0), |row| row.try_get(0).map(count).map_err(unread))?;
    if there == VALUES.len() as u64 {
        return Ok(());
    }
    for sql in guards() {
        run(link, &format!("BEGIN; {} {sql}; COMMIT", schema::LOCK)).await?;
    }
    Ok(())
}

/// The functions and triggers that refuse values.
fn guards() -> Vec<String> {
    // Not stable: what it looks at is looked at anew for each value, after the wait for whoever changes it.
    let refuses = format!(
        "CREATE OR REPLACE FUNCTION refuse_unkeyed(start bytea, is_copy boolean) RETURNS boolean LANGUAGE plpgsql VOLATILE AS \
         $$ BEGIN \
         IF EXISTS (SELECT 1 FROM encryption_writers w WHERE w.header = start AND (is_copy OR w.closed_at IS NULL)) \
         THEN RETURN false; END IF; \
         IF substring(start FROM 1 FOR 1) = '\\x45'::bytea THEN RAISE EXCEPTION '{KEY_REFUSED}'; END IF; \
         IF is_copy AND EXISTS (SELECT 1 FROM encryption WHERE complete_at IS NULL) THEN RETURN false; END IF; \
         RAISE EXCEPTION '{PLAIN_REFUSED}'; END $$"
    );
    let function = "CREATE OR REPLACE FUNCTION refuse_value() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN RAISE EXCEPTION 'windlass: a value was refused'; END $$";
    let trigger = |Values { table, column, .. }: &Values| {
        let is_copy = if *table == "inbox" { "NEW.signal IS NOT NULL" } else { "false" };
        format!(
            "CREATE OR REPLACE TRIGGER {table}_{column}_encrypted BEFORE INSERT OR UPDATE OF {column} ON {table} FOR EACH ROW \
             WHEN (NEW.{column} IS NOT NULL AND refuse_unkeyed(substring(NEW.{column} FROM 1 FOR {HEADER_BYTES}), {is_copy})) \
             EXECUTE FUNCTION refuse_value()"
        )
    };
    [refuses, function.to_owned()].into_iter().chain(VALUES.iter().map(trigger)).collect()
}

/// How the values of a copy that was just filled in are read, within the transaction of the restore.
pub(super) async fn restored(link: &mut Link, keys: Option<&Keyring>) -> Result<Cipher, StoreError> {
    let (found, is_empty) = (found(link).await?, is_empty(link).await?);
    let is_encrypted = found.is_some();
    match encryption::judge(found, is_empty, keys)? {
        Verdict::Begin(keys) => begin(link, &keys, false).await,
        Verdict::Use(cipher) => {
            if let Some(keys) = keys.filter(|_| is_encrypted) {
                register(link, &cipher, keys, true).await?;
                guard(link).await?;
            }
            Ok(cipher)
        }
    }
}

/// How far a database is encrypted. With `count` its values are counted, which reads all of it.
pub(super) async fn status(link: &mut Link, count: bool) -> Result<Encryption, StoreError> {
    let found = found(link).await?;
    let time = |at: i64| Timestamp(u64::try_from(at).unwrap_or_default());
    let values = if count { Some(counted(link).await?) } else { None };
    let keys = found.iter().flat_map(|found| found.keys.iter().map(|(id, _)| id.clone())).collect();
    let (began_at, complete_at) =
        found.map_or((None, None), |found| (Some(time(found.began_at)), found.complete_at.map(time)));
    Ok(Encryption { began_at, complete_at, keys, values })
}

async fn counted(link: &Link) -> Result<Vec<Counted>, StoreError> {
    let mut all: BTreeMap<Option<String>, u64> = BTreeMap::new();
    for Values { table, column, .. } in VALUES {
        let text = format!(
            "SELECT substring({column} FROM 1 FOR CASE WHEN substring({column} FROM 1 FOR 1) = '\\x45' \
             THEN {HEADER_BYTES} ELSE 0 END) AS header, count(*) FROM {table} WHERE {column} IS NOT NULL GROUP BY header"
        );
        for row in link.client.query_typed(&text, &[]).await.map_err(lost)? {
            let (header, values): (&[u8], i64) = (row.try_get(0).map_err(unread)?, row.try_get(1).map_err(unread)?);
            *all.entry(key_of(header)).or_default() += super::request::count(values);
        }
    }
    Ok(all.into_iter().map(|(key, values)| Counted { key, values }).collect())
}

impl PostgresStore {
    /// How far a database is encrypted, which needs no keys.
    ///
    /// # Errors
    /// As [`PostgresStore::schema_status`].
    pub(crate) async fn encryption(url: &str, count: bool) -> Result<Encryption, StoreError> {
        let connector = Connector::to_read(Address::parse(url)?)?;
        let mut link = connector.link(Purpose::Any).await?;
        status(&mut link, count).await
    }

    /// Encrypts every value of a database with the active key.
    ///
    /// # Errors
    /// As [`crate::rekey`].
    pub(crate) async fn rekey(
        url: &str,
        keys: Option<Keyring>,
        progress: impl FnMut(Progress),
    ) -> Result<Rekeyed, StoreError> {
        let keys = keys.ok_or_else(|| StoreError::Key("there is no key to encrypt with".into()))?;
        let connector = Arc::new(Connector::new(Address::parse(url)?)?);
        let pool = Pool::new(&connector, Purpose::Any, 1, &Cipher::default());
        let workers = Workers::new(Local::absent(), Arc::clone(&connector)).rows(&pool).await?;
        super::rekey::rekey(&connector, &keys, &workers, progress).await
    }
}
