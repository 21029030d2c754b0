//! Encryption of a file: how far it is, how it begins, and how values get another key.

use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};
use windlass_core::time::Timestamp;
use windlass_ports::store::{StoreError, WorkerRow};

use super::schema;
use super::{Options, failed, read};
use crate::cipher::Cipher;
use crate::encryption::{
    self, Beginning, Counted, Encryption, Found, KEY_REFUSED, PASSES, PLAIN_REFUSED, Progress, Rekeyed, Rows, VALUES,
    Values, Verdict,
};
use crate::keys::{HEADER_BYTES, Keyring, header_of, key_of};

/// The schema from which on a file says whether it is encrypted.
const SINCE: u32 = 7;
/// The schema from which on it says with which keys values may be written.
const WRITERS: u32 = 8;
/// Values in one transaction, and their bytes: few enough that others write in between.
const BATCH_VALUES: i64 = 256;
/// Bytes of them after which no more are read.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// What a file says about its encryption. None when nothing is encrypted.
fn found(connection: &Connection) -> Result<Option<Found>, StoreError> {
    let schema = schema::found(connection)?;
    if schema < SINCE {
        return Ok(None);
    }
    let sql = "SELECT store, began_at, complete_at, state FROM encryption";
    let row = connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)));
    let Some((store, began_at, complete_at, state)) = row.optional().map_err(failed)? else { return Ok(None) };
    let mut keys = connection.prepare("SELECT id, proof FROM encryption_keys ORDER BY id").map_err(failed)?;
    let keys = keys.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).and_then(Iterator::collect);
    let closed = match schema {
        WRITERS.. => ids(connection, "SELECT id FROM encryption_writers WHERE closed_at IS NOT NULL")?,
        _ => Vec::new(),
    };
    Ok(Some(Found { store, began_at, complete_at, state, keys: keys.map_err(failed)?, closed }))
}

fn ids(connection: &Connection, sql: &str) -> Result<Vec<String>, StoreError> {
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    statement.query_map([], |row| row.get(0)).and_then(Iterator::collect).map_err(failed)
}

/// The keys of a file at this moment.
pub(super) fn known(connection: &Connection) -> Result<Vec<String>, StoreError> {
    ids(connection, "SELECT id FROM encryption_keys")
}

/// Whether there is no value at all, in a file of whatever schema.
fn is_empty(connection: &Connection) -> Result<bool, StoreError> {
    for Values { table, column, .. } in VALUES {
        let sql = "SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2";
        if connection.query_row(sql, [table, column], |_| Ok(())).optional().map_err(failed)?.is_none() {
            continue;
        }
        let sql = format!("SELECT 1 FROM {table} WHERE {column} IS NOT NULL LIMIT 1");
        if connection.query_row(&sql, [], |_| Ok(())).optional().map_err(failed)?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Refuses a file whose keys are not there, before anything of it is changed.
pub(super) fn check(connection: &Connection, keys: Option<&Keyring>) -> Result<(), StoreError> {
    encryption::judge(found(connection)?, is_empty(connection)?, keys).map(|_| ())
}

/// How the values of a file are read.
pub(super) fn cipher_to_read(connection: &Connection, keys: Option<&Keyring>) -> Result<Cipher, StoreError> {
    match encryption::judge(found(connection)?, is_empty(connection)?, keys)? {
        Verdict::Begin(keys) => Ok(Cipher::new(keys, String::new(), false)),
        Verdict::Use(cipher) => Ok(cipher),
    }
}

/// How the values of a file of the newest schema are read and written. One without values begins to be encrypted.
pub(super) fn cipher_to_write(connection: &Connection, keys: Option<&Keyring>) -> Result<Cipher, StoreError> {
    let Some(keys) = keys else { return cipher_to_read(connection, None) };
    changed(connection, || match encryption::judge(found(connection)?, is_empty(connection)?, Some(keys))? {
        Verdict::Begin(keys) => begin(connection, &keys, false),
        Verdict::Use(cipher) => {
            register(connection, &cipher, keys, false)?;
            guard(connection)?;
            Ok(cipher)
        }
    })
}

/// Makes changes in one transaction.
fn changed<T>(connection: &Connection, change: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    connection.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
    let done = change();
    let end = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = connection.execute_batch(end).map_err(failed);
    done.and_then(|done| ended.map(|()| done))
}

/// Notes the active key, unless it is noted. One that was replaced is taken into use again only where that is wanted.
fn register(connection: &Connection, cipher: &Cipher, keys: &Keyring, reopens: bool) -> Result<(), StoreError> {
    let id = keys.active();
    if !reopens && let Some(found) = found(connection)? {
        encryption::check_active(&found, keys)?;
    }
    let known = connection.query_row("SELECT 1 FROM encryption_keys WHERE id = ?1", [id], |_| Ok(()));
    if known.optional().map_err(failed)?.is_none() {
        let proof = encryption::proof(cipher, id)?;
        let sql = "INSERT INTO encryption_keys (id, proof) VALUES (?1, ?2)";
        connection.execute(sql, params![id, proof]).map_err(failed)?;
    }
    let sql = "INSERT INTO encryption_writers (id, header) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET closed_at = NULL WHERE closed_at IS NOT NULL";
    connection.execute(sql, params![id, header_of(id)]).map(|_| ()).map_err(failed)
}

/// From here on nothing plain is written, by whomever.
fn begin(connection: &Connection, keys: &Keyring, has_plain: bool) -> Result<Cipher, StoreError> {
    let Beginning { store, state, cipher } = encryption::begin(keys, has_plain)?;
    let now = read::now().0 as i64;
    let complete_at = (!has_plain).then_some(now);
    let sql = "INSERT INTO encryption (store, began_at, complete_at, state) VALUES (?1, ?2, ?3, ?4)";
    connection.execute(sql, params![store, now, complete_at, state]).map_err(failed)?;
    register(connection, &cipher, keys, true)?;
    guard(connection)?;
    Ok(cipher)
}

/// Values that are plain, or of a key that was replaced, are refused, also those of processes that opened the file before.
fn guard(connection: &Connection) -> Result<(), StoreError> {
    let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND sql LIKE '%encryption_writers%'";
    let there: i64 = connection.query_row(sql, [], |row| row.get(0)).map_err(failed)?;
    if usize::try_from(there) == Ok(2 * VALUES.len()) {
        return Ok(());
    }
    for Values { table, column, .. } in VALUES {
        for (name, event) in [("put", "INSERT".to_owned()), ("set", format!("UPDATE OF {column}"))] {
            let sql = format!(
                "DROP TRIGGER IF EXISTS {table}_{column}_{name}; \
                 CREATE TRIGGER {table}_{column}_{name} BEFORE {event} ON {table} \
                 WHEN NEW.{column} IS NOT NULL AND NOT EXISTS (SELECT 1 FROM encryption_writers \
                 WHERE header = substr(NEW.{column}, 1, {HEADER_BYTES}) AND closed_at IS NULL) \
                 BEGIN SELECT CASE WHEN substr(NEW.{column}, 1, 1) = x'45' THEN RAISE(ABORT, '{KEY_REFUSED}') \
                 ELSE RAISE(ABORT, '{PLAIN_REFUSED}') END; END"
            );
            connection.execute_batch(&sql).map_err(failed)?;
        }
    }
    Ok(())
}

/// How far a file is encrypted. With `count` its values are counted, which reads all of it.
pub(crate) fn status(path: &Path, count: bool) -> Result<Encryption, StoreError> {
    let (connection, _) = schema::connect_to_read(path, &Options::default())?;
    let found = found(&connection)?;
    let time = |at: i64| Timestamp(u64::try_from(at).unwrap_or_default());
    let values = count.then(|| counted(&connection)).transpose()?;
    let keys = found.iter().flat_map(|found| found.keys.iter().map(|(id, _)| id.clone())).collect();
    let (began_at, complete_at) =
        found.map_or((None, None), |found| (Some(time(found.began_at)), found.complete_at.map(time)));
    Ok(Encryption { began_at, complete_at, keys, values })
}

fn counted(connection: &Connection) -> Result<Vec<Counted>, StoreError> {
    let mut all: std::collections::BTreeMap<Option<String>, u64> = std::collections::BTreeMap::new();
    for Values { table, column, .. } in VALUES {
        let sql = format!(
            "SELECT substr({column}, 1, iif(substr({column}, 1, 1) = x'45', {HEADER_BYTES}, 0)) AS header, count(*) \
             FROM {table} WHERE {column} IS NOT NULL GROUP BY header"
        );
        let mut statement = connection.prepare(&sql).map_err(failed)?;
        let rows = statement.query_map([], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, i64>(1)?)));
        for row in rows.map_err(failed)? {
            let (header, values) = row.map_err(failed)?;
            *all.entry(key_of(&header)).or_default() += u64::try_from(values).unwrap_or_default();
        }
    }
    Ok(all.into_iter().map(|(key, values)| Counted { key, values }).collect())
}

/// Encrypts every value of a file with the active key. `workers` are those of the store.
pub(crate) fn rekey(
    path: &Path,
    options: &Options,
    workers: &[WorkerRow],
    mut progress: impl FnMut(Progress),
) -> Result<Rekeyed, StoreError> {
    let keys = options.keys.as_ref().ok_or_else(|| StoreError::Key("there is no key to encrypt with".into()))?;
    let connection = schema::connect(path, options)?;
    // What is overwritten leaves nothing behind in its page. Writing a large file anew does not fit in memory, and what it
    // goes through on disk is encrypted by then.
    connection.execute_batch("PRAGMA secure_delete = ON; PRAGMA temp_store = FILE").map_err(failed)?;
    let (cipher, from_plain) = changed(&connection, || {
        // Within the transaction: of two that begin at once the second goes on with what the first began.
        let found = found(&connection)?;
        encryption::check_workers(workers, found.is_none(), keys.active())?;
        let Some(found) = found else { return begin(&connection, keys, true).map(|cipher| (cipher, true)) };
        let cipher = encryption::cipher_of(&found, keys)?;
        register(&connection, &cipher, keys, true)?;
        let sql = "UPDATE encryption_writers SET closed_at = ?1 WHERE id <> ?2 AND closed_at IS NULL";
        connection.execute(sql, params![read::now().0 as i64, keys.active()]).map_err(failed)?;
        guard(&connection)?;
        let from_plain = cipher.reads_plain();
        Ok((cipher, from_plain))
    })?;
    let header = header_of(keys.active());
    let mut values = 0;
    let mut pass = 0;
    loop {
        pass += 1;
        for table in VALUES {
            let mut work = Work { connection: &connection, cipher: &cipher, header, table, values };
            work.run(&mut progress)?;
            values = work.values;
        }
        match finish(&connection, &cipher, keys)? {
            Ended::Done(retired) => return Ok(done(&connection, keys, from_plain, values, retired)),
            Ended::Left(left) if pass >= PASSES => return Err(encryption::unfinished(left, keys.active())),
            Ended::Left(_) => {}
        }
    }
}

fn done(connection: &Connection, keys: &Keyring, from_plain: bool, values: u64, retired: Vec<String>) -> Rekeyed {
    // Also where nothing was plain: an earlier time may have ended before this was done.
    let remains = emptied(connection);
    Rekeyed { key: keys.active().to_owned(), from_plain, values, retired, remains }
}

/// How a pass over all tables ended.
enum Ended {
    /// Everything is of the active key; these keys were retired.
    Done(Vec<String>),
    /// So many values are not.
    Left(u64),
}

/// Values of other keys than that of a header.
fn left(connection: &Connection, header: [u8; HEADER_BYTES]) -> Result<u64, StoreError> {
    let mut left = 0;
    for Values { table, column, .. } in VALUES {
        let sql = format!(
            "SELECT count(*) FROM {table} WHERE {column} IS NOT NULL AND substr({column}, 1, {HEADER_BYTES}) <> ?1"
        );
        let count: i64 = connection.query_row(&sql, [header], |row| row.get(0)).map_err(failed)?;
        left += u64::try_from(count).unwrap_or_default();
    }
    Ok(left)
}

/// Notes that everything is of the active key, where it is: no other key may be written with since before it was counted.
fn finish(connection: &Connection, cipher: &Cipher, keys: &Keyring) -> Result<Ended, StoreError> {
    let left = left(connection, header_of(keys.active()))?;
    if left > 0 {
        return Ok(Ended::Left(left));
    }
    changed(connection, || {
        let open = ids(connection, "SELECT id FROM encryption_writers WHERE closed_at IS NULL")?;
        if open != [keys.active()] {
            return Err(encryption::crossed(&open));
        }
        let sql = "UPDATE encryption SET complete_at = coalesce(complete_at, ?1), state = ?2";
        let now = read::now().0 as i64;
        connection.execute(sql, params![now, encryption::state(cipher, false)?]).map_err(failed)?;
        let mut gone = connection.prepare("DELETE FROM encryption_keys WHERE id <> ?1 RETURNING id").map_err(failed)?;
        let gone = gone.query_map([keys.active()], |row| row.get(0)).and_then(Iterator::collect);
        gone.map(Ended::Done).map_err(failed)
    })
}

/// Writes the file anew, so that nothing plain is left in its free pages or its log. Tells what could not be done.
fn emptied(connection: &Connection) -> Option<String> {
    let why = super::compact::rewrite(connection).err()?;
    Some(format!(
        "free pages and the log of the file may still hold earlier values ({why}); stop everything that uses the store, and run \
         this again, or `sqlite3 FILE VACUUM`"
    ))
}

/// One column that is gone through.
struct Work<'a> {
    connection: &'a Connection,
    cipher: &'a Cipher,
    header: [u8; HEADER_BYTES],
    table: &'a Values,
    values: u64,
}

/// A row whose value has another key.
struct Old {
    keys: Vec<Value>,
    names: (String, String, i64),
    stored: Vec<u8>,
}

impl Work<'_> {
    fn run(&mut self, progress: &mut impl FnMut(Progress)) -> Result<(), StoreError> {
        let mut after: Option<Vec<Value>> = None;
        loop {
            let done = changed(self.connection, || {
                let batch = self.batch(after.as_deref())?;
                for old in &batch {
                    self.replace(old)?;
                }
                Ok(batch)
            })?;
            self.values += done.len() as u64;
            progress(Progress { table: self.table.table, values: self.values });
            match done.into_iter().next_back() {
                Some(last) => after = Some(last.keys),
                None => return Ok(()),
            }
        }
    }

    fn batch(&self, after: Option<&[Value]>) -> Result<Vec<Old>, StoreError> {
        let Values { table, column, sqlite: Rows { keys, names }, .. } = self.table;
        let count = keys.len();
        let listed = keys.iter().map(|key| format!("t.{key}")).collect::<Vec<_>>().join(", ");
        let [first, second, number] = names;
        let marks = (2..2 + count).map(|place| format!("?{place}")).collect::<Vec<_>>().join(", ");
        let later = after.map_or_else(String::new, |_| format!("AND ({listed}) > ({marks})"));
        let sql = format!(
            "SELECT {listed}, coalesce({first}, ''), {second}, {number}, t.{column} FROM {table} AS t \
             WHERE t.{column} IS NOT NULL AND substr(t.{column}, 1, {HEADER_BYTES}) <> ?1 {later} ORDER BY {listed} \
             LIMIT {BATCH_VALUES}"
        );
        let values = std::iter::once(Value::Blob(self.header.to_vec())).chain(after.into_iter().flatten().cloned());
        let mut statement = self.connection.prepare_cached(&sql).map_err(failed)?;
        let read = |row: &rusqlite::Row<'_>| {
            let keys = (0..count).map(|place| row.get(place)).collect::<rusqlite::Result<_>>()?;
            let names = (row.get(count)?, row.get(count + 1)?, row.get(count + 2)?);
            Ok(Old { keys, names, stored: row.get(count + 3)? })
        };
        let (mut batch, mut bytes) = (Vec::new(), 0);
        for old in statement.query_map(params_from_iter(values), read).map_err(failed)? {
            let old: Old = old.map_err(failed)?;
            bytes += old.stored.len();
            batch.push(old);
            if bytes >= BATCH_BYTES {
                break;
            }
        }
        Ok(batch)
    }

    fn replace(&self, old: &Old) -> Result<(), StoreError> {
        let Values { table, column, sqlite: Rows { keys, .. }, place, .. } = self.table;
        let place = place(&old.names.0, &old.names.1, old.names.2);
        let packed = self.cipher.decrypt(place, &old.stored)?.into_owned();
        let new = self.cipher.encrypt(place, packed)?;
        let named = keys.iter().zip(2..).map(|(key, place)| format!("{key} = ?{place}")).collect::<Vec<_>>();
        let sql = format!("UPDATE {table} SET {column} = ?1 WHERE {}", named.join(" AND "));
        let values = std::iter::once(Value::Blob(new)).chain(old.keys.iter().cloned());
        let mut statement = self.connection.prepare_cached(&sql).map_err(failed)?;
        statement.execute(params_from_iter(values)).map(|_| ()).map_err(failed)
    }
}

/// Where values from before the file was encrypted are read: looks whether there are any left.
pub(super) fn refresh(connection: &Connection, cipher: &Cipher) -> Result<(), StoreError> {
    if cipher.reads_plain() && cipher.keys().is_some() {
        let sql = "SELECT complete_at IS NOT NULL FROM encryption";
        let complete = connection.query_row(sql, [], |row| row.get::<_, bool>(0)).optional().map_err(failed)?;
        if complete == Some(true) {
            cipher.refuse_plain();
        }
    }
    Ok(())
}
