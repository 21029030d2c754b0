//! Encryption of a database: how far it is, how it begins, and how values get another key.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use windlass_core::time::Timestamp;
use windlass_ports::store::{StoreError, WorkerRow};

use super::PostgresStore;
use super::connect::{Connector, Link, PLAIN_REFUSED, Purpose, Sql, Trouble, Value, trouble};
use super::local::Local;
use super::pool::{Pool, TRIES_MAX, pause};
use super::read::unread;
use super::request::count;
use super::schema::{self, ENCRYPTED, run};
use super::url::Address;
use super::workers::Workers;
use crate::cipher::{Cipher, Place};
use crate::encryption::{self, Beginning, Counted, Encryption, Found, Progress, Rekeyed, Values, Verdict};
use crate::keys::{HEADER_BYTES, Keyring, header_of, key_of};

/// Values in one transaction: few enough that nobody waits long for them.
const BATCH_VALUES: usize = 256;
/// Bytes of them after which no more are read.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// How often all tables are gone through when others go on to write with another key.
const PASSES: u32 = 3;

/// Everything that holds what somebody said, or may.
pub(super) const VALUES: &[Values] = &[
    Values {
        table: "starts",
        column: "start",
        keys: &["run"],
        names: ["run", "''", "0"],
        place: |run, _, _| Place::Start { run },
    },
    Values {
        table: "journal",
        column: "record",
        keys: &["run", "version"],
        names: ["run", "''", "version"],
        place: |run, _, version| Place::Record { run, version },
    },
    Values {
        table: "journal",
        column: "audit",
        keys: &["run", "version"],
        names: ["run", "''", "version"],
        place: |run, _, version| Place::Audit { run, version },
    },
    Values {
        table: "snapshots",
        column: "bytes",
        keys: &["run"],
        names: ["run", "''", "version"],
        place: |run, _, version| Place::Snapshot { run, version },
    },
    Values {
        table: "waits",
        column: "kind",
        keys: &["run", "effect"],
        names: ["run", "''", "effect"],
        place: |run, _, effect| Place::Wait { run, effect },
    },
    Values {
        table: "inbox",
        column: "input",
        keys: &["run", "id"],
        names: ["run", "CASE WHEN signal IS NULL THEN 'i' || id ELSE 's' || signal END", "0"],
        place: |run, id, _| match id.split_at_checked(1) {
            Some(("s", id)) => Place::Signal { id },
            Some((_, id)) => Place::Input { run, id },
            None => Place::Input { run, id },
        },
    },
    Values {
        table: "signals",
        column: "data",
        keys: &["id"],
        names: ["id", "''", "0"],
        place: |id, _, _| Place::Signal { id },
    },
    Values {
        table: "blobs",
        column: "bytes",
        keys: &["digest"],
        names: ["encode(digest, 'hex')", "''", "0"],
        place: encryption::blob,
    },
    Values {
        table: "objects",
        column: "bytes",
        keys: &["kind", "key"],
        names: ["kind", "key", "0"],
        place: |kind, key, _| Place::Object { kind, key },
    },
    Values {
        table: "audit_segments",
        column: "bytes",
        keys: &["tenant", "number"],
        names: ["tenant", "''", "number"],
        place: |tenant, _, number| Place::Segment { tenant, number },
    },
    Values {
        table: "audit_acts",
        column: "bytes",
        keys: &["tenant", "number"],
        names: ["tenant", "''", "number"],
        place: |tenant, _, number| Place::Act { tenant, number },
    },
    Values {
        table: "audit_kept",
        column: "rows",
        keys: &["number"],
        names: ["tenant", "run", "0"],
        place: |tenant, run, _| Place::Kept { tenant, run },
    },
];

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
static COMPLETE: Sql = Sql {
    text: "UPDATE encryption SET state = $1, \
         complete_at = coalesce(complete_at, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)",
    types: &[Type::BYTEA],
};
static RETIRE: Sql = Sql { text: "DELETE FROM encryption_keys WHERE id <> $1 RETURNING id", types: &[Type::TEXT] };

/// What a database says about its encryption. None when nothing is encrypted.
async fn found(link: &mut Link) -> Result<Option<Found>, StoreError> {
    if schema::found(link).await? < ENCRYPTED {
        return Ok(None);
    }
    let rows = link.query(&STATE, Vec::new()).await.map_err(Trouble::error)?;
    let Some(row) = rows.first() else { return Ok(None) };
    let (store, began_at) = (row.try_get(0).map_err(unread)?, row.try_get(1).map_err(unread)?);
    let (complete_at, state) = (row.try_get(2).map_err(unread)?, row.try_get(3).map_err(unread)?);
    let keys = link.query(&KEYS, Vec::new()).await.map_err(Trouble::error)?;
    let key = |row: &Row| Ok((row.try_get(0).map_err(unread)?, row.try_get(1).map_err(unread)?));
    let keys = keys.iter().map(key).collect::<Result<_, StoreError>>()?;
    Ok(Some(Found { store, began_at, complete_at, state, keys }))
}

fn lost(error: tokio_postgres::Error) -> StoreError {
    trouble(&error).error()
}

/// Whether there is no value at all.
async fn is_empty(link: &Link) -> Result<bool, StoreError> {
    let any = VALUES
        .iter()
        .map(|values| format!("EXISTS (SELECT 1 FROM {} WHERE {} IS NOT NULL)", values.table, values.column));
    let text = format!("SELECT {}", any.collect::<Vec<_>>().join(" OR "));
    let row = link.client.query_typed(&text, &[]).await.map_err(lost)?;
    row.first().map_or(Ok(true), |row| row.try_get::<_, bool>(0).map(|any| !any).map_err(unread))
}

/// Refuses a database whose keys are not there, before anything of it is changed.
pub(super) async fn check(link: &mut Link, keys: Option<&Keyring>) -> Result<(), StoreError> {
    match (found(link).await?, keys) {
        // Whether it may begin to be encrypted is known only with the newest schema.
        (None, Some(_)) => Ok(()),
        (found, keys) => encryption::judge(found, false, keys).map(|_| ()),
    }
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
    run(link, if cipher.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
    cipher
}

/// The same within a transaction of the caller.
async fn cipher_within(link: &mut Link, keys: &Keyring) -> Result<Cipher, StoreError> {
    run(link, schema::LOCK).await?;
    let (found, is_empty) = (found(link).await?, is_empty(link).await?);
    match encryption::judge(found, is_empty, Some(keys))? {
        Verdict::Begin(keys) => begin(link, &keys, false).await,
        Verdict::Use(cipher) => {
            let proof = encryption::proof(&cipher, keys.active())?;
            add_key(link, keys, proof).await?;
            Ok(cipher)
        }
    }
}

async fn add_key(link: &mut Link, keys: &Keyring, proof: Vec<u8>) -> Result<(), StoreError> {
    let values: Vec<Value> = vec![Box::new(keys.active().to_owned()), Box::new(proof)];
    link.query(&ADD_KEY, values).await.map_err(Trouble::error)?;
    Ok(())
}

/// From the end of the transaction on nothing plain is written, by whomever.
async fn begin(link: &mut Link, keys: &Keyring, has_plain: bool) -> Result<Cipher, StoreError> {
    let Beginning { store, state, proof, cipher } = encryption::begin(keys, has_plain)?;
    let values: Vec<Value> = vec![Box::new(store), Box::new(!has_plain), Box::new(state)];
    link.query(&BEGIN, values).await.map_err(Trouble::error)?;
    add_key(link, keys, proof).await?;
    guard(link).await?;
    Ok(cipher)
}

/// Plain values are refused, also those of processes that opened the database before it was encrypted.
async fn guard(link: &Link) -> Result<(), StoreError> {
    let function = format!(
        "CREATE OR REPLACE FUNCTION refuse_plain() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN RAISE EXCEPTION '{PLAIN_REFUSED}'; END $$"
    );
    run(link, &function).await?;
    for Values { table, column, .. } in VALUES {
        let sql = format!(
            "CREATE TRIGGER {table}_{column}_encrypted BEFORE INSERT OR UPDATE OF {column} ON {table} FOR EACH ROW \
             WHEN (NEW.{column} IS NOT NULL AND substring(NEW.{column} FROM 1 FOR 1) <> '\\x45'::bytea) \
             EXECUTE FUNCTION refuse_plain()"
        );
        run(link, &sql).await?;
    }
    Ok(())
}

/// How the values of a copy that was just filled in are read, within the transaction of the restore.
pub(super) async fn restored(link: &mut Link, keys: Option<&Keyring>) -> Result<Cipher, StoreError> {
    let (found, is_empty) = (found(link).await?, is_empty(link).await?);
    let is_encrypted = found.is_some();
    match encryption::judge(found, is_empty, keys)? {
        Verdict::Begin(keys) => begin(link, &keys, false).await,
        Verdict::Use(cipher) => {
            if is_encrypted {
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

/// Encrypts every value of a database with the active key. `workers` are those of the store.
pub(super) async fn rekey(
    connector: &Connector,
    keys: &Keyring,
    workers: &[WorkerRow],
    mut progress: impl FnMut(Progress),
) -> Result<Rekeyed, StoreError> {
    let mut link = connector.link(Purpose::Any).await?;
    let from = match found(&mut link).await? {
        None => None,
        Some(found) => Some(encryption::cipher_of(&found, keys)?),
    };
    let from_plain = from.as_ref().is_none_or(Cipher::reads_plain);
    encryption::check_workers(workers, from.is_none(), keys.active())?;
    run(&link, "BEGIN").await?;
    let cipher = match from {
        None => match run(&link, schema::LOCK).await {
            Ok(()) => begin(&mut link, keys, true).await,
            Err(error) => Err(error),
        },
        Some(cipher) => {
            let proof = encryption::proof(&cipher, keys.active())?;
            add_key(&mut link, keys, proof).await.map(|()| cipher)
        }
    };
    run(&link, if cipher.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
    let cipher = cipher?;
    let header = header_of(keys.active()).to_vec();
    let mut values = 0;
    for pass in 1.. {
        for table in VALUES {
            let mut work = Work { link: &link, cipher: &cipher, header: &header, table, values };
            work.run(&mut progress).await?;
            values = work.values;
        }
        match left(&link, &header).await? {
            0 => break,
            left if pass >= PASSES => return Err(encryption::unfinished(left, keys.active())),
            _ => {}
        }
    }
    run(&link, "BEGIN").await?;
    let finished = finish(&mut link, &cipher, keys).await;
    run(&link, if finished.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
    let remains = from_plain.then(|| {
        "pages and logs of the server still hold plain values: `VACUUM FULL` rewrites the tables, and backups and archived \
         logs from before are plain"
            .to_owned()
    });
    Ok(Rekeyed { key: keys.active().to_owned(), from_plain, values, retired: finished?, remains })
}

async fn finish(link: &mut Link, cipher: &Cipher, keys: &Keyring) -> Result<Vec<String>, StoreError> {
    let state = encryption::state(cipher, false)?;
    link.query(&COMPLETE, vec![Box::new(state)]).await.map_err(Trouble::error)?;
    let gone = link.query(&RETIRE, vec![Box::new(keys.active().to_owned())]).await.map_err(Trouble::error)?;
    gone.iter().map(|row| row.try_get(0).map_err(unread)).collect()
}

/// Values of other keys than that of a header.
async fn left(link: &Link, header: &[u8]) -> Result<u64, StoreError> {
    let mut left = 0;
    for Values { table, column, .. } in VALUES {
        let text = format!(
            "SELECT count(*) FROM {table} WHERE {column} IS NOT NULL \
             AND substring({column} FROM 1 FOR {HEADER_BYTES}) <> $1"
        );
        let rows = link.client.query_typed(&text, &[(&header, Type::BYTEA)]).await.map_err(lost)?;
        left += rows.first().map_or(Ok(0), |row| row.try_get(0).map(count).map_err(unread))?;
    }
    Ok(left)
}

/// A part of what names a row.
#[derive(Clone, Debug)]
enum Key {
    Text(String),
    Number(i64),
    Bytes(Vec<u8>),
}

/// The type of a column that names a row.
fn type_of(column: &str) -> (Type, &'static str) {
    match column {
        "version" | "effect" | "number" => (Type::INT8, "bigint"),
        "digest" => (Type::BYTEA, "bytea"),
        _ => (Type::TEXT, "text"),
    }
}

impl Key {
    fn read(row: &Row, place: usize, column: &str) -> Result<Self, StoreError> {
        Ok(match type_of(column).0 {
            Type::INT8 => Self::Number(row.try_get(place).map_err(unread)?),
            Type::BYTEA => Self::Bytes(row.try_get(place).map_err(unread)?),
            _ => Self::Text(row.try_get(place).map_err(unread)?),
        })
    }

    fn value(&self) -> &(dyn tokio_postgres::types::ToSql + Sync) {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number,
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// One column that is gone through.
struct Work<'a> {
    link: &'a Link,
    cipher: &'a Cipher,
    header: &'a [u8],
    table: &'a Values,
    values: u64,
}

/// A row whose value has another key.
struct Old {
    keys: Vec<Key>,
    stored: Vec<u8>,
    new: Vec<u8>,
}

impl Work<'_> {
    async fn run(&mut self, progress: &mut impl FnMut(Progress)) -> Result<(), StoreError> {
        let mut after: Option<Vec<Key>> = None;
        let mut tries = 0;
        loop {
            let batch = self.batch(after.as_deref()).await?;
            let Some(last) = batch.last().map(|old| old.keys.clone()) else { return Ok(()) };
            match self.replace(&batch).await {
                Ok(replaced) => self.values += replaced,
                Err(Trouble::Again(_)) if tries < TRIES_MAX => {
                    tries += 1;
                    pause(tries).await;
                    continue;
                }
                Err(trouble) => return Err(trouble.error()),
            }
            (after, tries) = (Some(last), 0);
            progress(Progress { table: self.table.table, values: self.values });
        }
    }

    async fn batch(&self, after: Option<&[Key]>) -> Result<Vec<Old>, StoreError> {
        let Values { table, column, keys, names: [first, second, number], place } = self.table;
        let listed = keys.join(", ");
        let marks = (2..2 + keys.len()).map(|place| format!("${place}")).collect::<Vec<_>>().join(", ");
        let later = after.map_or_else(String::new, |_| format!("AND ({listed}) > ({marks})"));
        let text = format!(
            "SELECT {listed}, w_first, w_second, w_number, w_value FROM (SELECT q.*, \
             sum(octet_length(w_value)) OVER (ORDER BY {listed}) - octet_length(w_value) AS w_before FROM \
             (SELECT {listed}, {first} AS w_first, {second} AS w_second, ({number})::bigint AS w_number, {column} AS w_value \
             FROM {table} WHERE {column} IS NOT NULL AND substring({column} FROM 1 FOR {HEADER_BYTES}) <> $1 {later} \
             ORDER BY {listed} LIMIT {BATCH_VALUES}) AS q) AS w WHERE w_before < {BATCH_BYTES} ORDER BY {listed}"
        );
        let mut values: Vec<(&(dyn tokio_postgres::types::ToSql + Sync), Type)> = vec![(&self.header, Type::BYTEA)];
        let after = after.into_iter().flatten().zip(*keys);
        values.extend(after.map(|(key, column)| (key.value(), type_of(column).0)));
        let rows = self.link.client.query_typed(&text, &values).await.map_err(lost)?;
        let read = |row: &Row| {
            let named = keys.iter().enumerate().map(|(place, column)| Key::read(row, place, column));
            let named = named.collect::<Result<Vec<_>, _>>()?;
            let at = keys.len();
            let (first, second): (&str, &str) =
                (row.try_get(at).map_err(unread)?, row.try_get(at + 1).map_err(unread)?);
            let place = place(first, second, row.try_get(at + 2).map_err(unread)?);
            let stored: Vec<u8> = row.try_get(at + 3).map_err(unread)?;
            let new = self.cipher.encrypt(place, self.cipher.decrypt(place, &stored)?.into_owned())?;
            Ok(Old { keys: named, stored, new })
        };
        rows.iter().map(read).collect()
    }

    /// Writes the new values where the old ones still stand. What was changed meanwhile is of the active key already, or is
    /// found by the next pass.
    async fn replace(&self, batch: &[Old]) -> Result<u64, Trouble> {
        let Values { table, column, keys, .. } = self.table;
        let arrays = keys.iter().zip(3..).map(|(key, place)| format!("${place}::{}[]", type_of(key).1));
        let arrays = arrays.collect::<Vec<_>>().join(", ");
        let named = (0..keys.len()).map(|place| format!("k{place}")).collect::<Vec<_>>().join(", ");
        let same = keys.iter().enumerate().map(|(place, key)| format!("t.{key} = i.k{place}"));
        let same = same.collect::<Vec<_>>().join(" AND ");
        let text = format!(
            "UPDATE {table} t SET {column} = i.new FROM unnest($1::bytea[], $2::bytea[], {arrays}) \
             AS i (old, new, {named}) WHERE {same} AND t.{column} = i.old"
        );
        let old: Vec<&[u8]> = batch.iter().map(|old| &*old.stored).collect();
        let new: Vec<&[u8]> = batch.iter().map(|old| &*old.new).collect();
        let columns: Vec<Column<'_>> = (0..keys.len()).map(|place| Column::of(batch, place)).collect();
        let mut values: Vec<(&(dyn tokio_postgres::types::ToSql + Sync), Type)> =
            vec![(&old, Type::BYTEA_ARRAY), (&new, Type::BYTEA_ARRAY)];
        values.extend(columns.iter().map(Column::value));
        let changed = self.link.client.execute_typed(&text, &values).await;
        changed.map_err(|error| trouble(&error))
    }
}

/// One column of what names rows.
enum Column<'a> {
    Texts(Vec<&'a str>),
    Numbers(Vec<i64>),
    Bytes(Vec<&'a [u8]>),
}

impl<'a> Column<'a> {
    fn of(batch: &'a [Old], place: usize) -> Self {
        let keys = || batch.iter().filter_map(|old| old.keys.get(place));
        match batch.first().and_then(|old| old.keys.get(place)) {
            Some(Key::Number(_)) => Self::Numbers(
                keys().filter_map(|key| if let Key::Number(number) = key { Some(*number) } else { None }).collect(),
            ),
            Some(Key::Bytes(_)) => Self::Bytes(
                keys().filter_map(|key| if let Key::Bytes(bytes) = key { Some(&**bytes) } else { None }).collect(),
            ),
            _ => Self::Texts(
                keys().filter_map(|key| if let Key::Text(text) = key { Some(&**text) } else { None }).collect(),
            ),
        }
    }

    fn value(&self) -> (&(dyn tokio_postgres::types::ToSql + Sync), Type) {
        match self {
            Self::Texts(texts) => (texts, Type::TEXT_ARRAY),
            Self::Numbers(numbers) => (numbers, Type::INT8_ARRAY),
            Self::Bytes(bytes) => (bytes, Type::BYTEA_ARRAY),
        }
    }
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
        rekey(&connector, &keys, &workers, progress).await
    }
}
