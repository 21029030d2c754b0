//! How the values of a database get another key, beside those who work on it.

use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::Type;
use windlass_ports::store::{StoreError, WorkerRow};

use super::connect::{Connector, Link, Purpose, Sql, Trouble, trouble};
use super::encryption::{begin, ended, found, guard_again, ids, lost, register};
use super::pool::{TRIES_MAX, pause};
use super::read::unread;
use super::request::count;
use super::schema::{self, run};
use crate::cipher::Cipher;
use crate::encryption::{self, PASSES, Progress, Rekeyed, Rows, VALUES, Values};
use crate::keys::{HEADER_BYTES, Keyring, header_of};

/// Values in one transaction: few enough that nobody waits long for them.
const BATCH_VALUES: usize = 256;
/// Bytes of them after which no more are read.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// How often it is tried to find a moment in which nobody is about to write, and the pause between.
const BARRIER_TRIES: u32 = 30;
const BARRIER_PAUSE: Duration = Duration::from_secs(1);

static OPEN: Sql = Sql { text: "SELECT id FROM encryption_writers WHERE closed_at IS NULL ORDER BY id", types: &[] };
static CLOSE_OTHERS: Sql = Sql {
    text: "UPDATE encryption_writers SET closed_at = (extract(epoch FROM clock_timestamp()) * 1000)::bigint \
         WHERE id <> $1 AND closed_at IS NULL",
    types: &[Type::TEXT],
};
static COMPLETE: Sql = Sql {
    text: "UPDATE encryption SET state = $1, \
         complete_at = coalesce(complete_at, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)",
    types: &[Type::BYTEA],
};
static RETIRE: Sql = Sql { text: "DELETE FROM encryption_keys WHERE id <> $1 RETURNING id", types: &[Type::TEXT] };
/// Waits until everybody who is about to write has done so: whoever writes a value looks at the keys first, and holds on
/// to them until the end of the transaction.
const BARRIER: &str = "SET LOCAL lock_timeout = '2s'; LOCK TABLE encryption_writers IN ACCESS EXCLUSIVE MODE;";

/// Encrypts every value of a database with the active key. `workers` are those of the store.
pub(super) async fn rekey(
    connector: &Connector,
    keys: &Keyring,
    workers: &[WorkerRow],
    mut progress: impl FnMut(Progress),
) -> Result<Rekeyed, StoreError> {
    let mut link = connector.link(Purpose::Any).await?;
    let (cipher, from_plain) = began(&mut link, keys, workers).await?;
    let header = header_of(keys.active()).to_vec();
    let (mut values, mut pass) = (0, 0);
    let retired = loop {
        pass += 1;
        for table in VALUES {
            let mut work = Work { link: &link, cipher: &cipher, header: &header, table, values };
            work.run(&mut progress).await?;
            values = work.values;
            if table.table == "signals" {
                // Nothing of another key is copied out of them from here on.
                barrier(&mut link, None).await?;
            }
        }
        match left(&link, &header).await? {
            0 => break finish(&mut link, &cipher, keys).await?,
            left if pass >= PASSES => return Err(encryption::unfinished(left, keys.active())),
            _ => {}
        }
    };
    let remains = from_plain.then(|| {
        "pages and logs of the server still hold plain values: `VACUUM FULL` rewrites the tables, and backups and archived \
         logs from before are plain"
            .to_owned()
    });
    Ok(Rekeyed { key: keys.active().to_owned(), from_plain, values, retired, remains })
}

/// From here on the active key is the only one that is written with. With it whether there are plain values.
async fn began(link: &mut Link, keys: &Keyring, workers: &[WorkerRow]) -> Result<(Cipher, bool), StoreError> {
    run(link, "BEGIN").await?;
    let begun = began_within(link, keys, workers).await;
    let (cipher, from_plain) = ended(link, begun).await?;
    guard_again(link).await?;
    barrier(link, Some(keys)).await?;
    Ok((cipher, from_plain))
}

async fn began_within(link: &mut Link, keys: &Keyring, workers: &[WorkerRow]) -> Result<(Cipher, bool), StoreError> {
    // Of two that begin at once the second goes on with what the first began.
    run(link, schema::LOCK).await?;
    let found = found(link).await?;
    encryption::check_workers(workers, found.is_none(), keys.active())?;
    let Some(found) = found else { return begin(link, keys, true).await.map(|cipher| (cipher, true)) };
    let cipher = encryption::cipher_of(&found, keys)?;
    register(link, &cipher, keys, true).await?;
    let from_plain = cipher.reads_plain();
    Ok((cipher, from_plain))
}

/// Waits for everybody who is about to write. With keys, nothing is written with others than the active one afterwards.
async fn barrier(link: &mut Link, keys: Option<&Keyring>) -> Result<(), StoreError> {
    let mut tries = 0;
    loop {
        run(link, "BEGIN").await?;
        let passed = async {
            link.client.batch_execute(BARRIER).await.map_err(|error| trouble(&error))?;
            if let Some(keys) = keys {
                link.query(&CLOSE_OTHERS, vec![Box::new(keys.active().to_owned())]).await?;
            }
            Ok(())
        };
        let passed: Result<(), Trouble> = passed.await;
        run(link, if passed.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
        match passed {
            Ok(()) => return Ok(()),
            // Whoever reads for long, such as a backup, is not waited for while everybody else waits behind.
            Err(Trouble::Again(_)) if tries < BARRIER_TRIES => {
                tries += 1;
                tokio::time::sleep(BARRIER_PAUSE).await;
            }
            Err(Trouble::Again(error)) => return Err(encryption::busy(&error)),
            Err(trouble) => return Err(trouble.error()),
        }
    }
}

/// Notes that everything is of the active key: no other one may be written with since before it was counted.
async fn finish(link: &mut Link, cipher: &Cipher, keys: &Keyring) -> Result<Vec<String>, StoreError> {
    run(link, "BEGIN").await?;
    let finished = finish_within(link, cipher, keys).await;
    ended(link, finished).await
}

async fn finish_within(link: &mut Link, cipher: &Cipher, keys: &Keyring) -> Result<Vec<String>, StoreError> {
    run(link, schema::LOCK).await?;
    let open = ids(link, &OPEN).await?;
    if open != [keys.active()] {
        return Err(encryption::crossed(&open));
    }
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
        let Values { table, column, place, postgres: Rows { keys, names: [first, second, number] }, .. } = self.table;
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
        let Values { table, column, postgres: Rows { keys, .. }, .. } = self.table;
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
