//! Encryption of a file: how far it is, how it begins, and how values get another key.

use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};
use windlass_core::time::Timestamp;
use windlass_ports::store::{StoreError, WorkerRow};

use super::readers::View;
use super::schema;
use super::{Options, failed, read};
use crate::cipher::{Cipher, Place};
use crate::encryption::{self, Beginning, Counted, Encryption, Found, Progress, Rekeyed, Values, Verdict};
use crate::keys::{HEADER_BYTES, Keyring, header_of, key_of};

/// The schema from which on a file says whether it is encrypted.
const SINCE: u32 = 7;
/// Values in one transaction, and their bytes: few enough that others write in between.
const BATCH_VALUES: i64 = 256;
/// Bytes of them after which no more are read.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// How often all tables are gone through when others go on to write with another key.
const PASSES: u32 = 3;

const RUN: &str = "(SELECT runs.id FROM runs WHERE runs.key = t.run)";

/// Everything that holds what somebody said, or may.
pub(super) const VALUES: &[Values] = &[
    Values {
        table: "starts",
        column: "start",
        keys: &["run"],
        names: [RUN, "''", "0"],
        place: |run, _, _| Place::Start { run },
    },
    Values {
        table: "journal",
        column: "record",
        keys: &["key"],
        names: [RUN, "''", "version"],
        place: |run, _, version| Place::Record { run, version },
    },
    Values {
        table: "journal",
        column: "audit",
        keys: &["key"],
        names: [RUN, "''", "version"],
        place: |run, _, version| Place::Audit { run, version },
    },
    Values {
        table: "snapshots",
        column: "bytes",
        keys: &["run"],
        names: [RUN, "''", "version"],
        place: |run, _, version| Place::Snapshot { run, version },
    },
    Values {
        table: "waits",
        column: "kind",
        keys: &["run", "effect"],
        names: [RUN, "''", "effect"],
        place: |run, _, effect| Place::Wait { run, effect },
    },
    Values {
        table: "inbox",
        column: "input",
        keys: &["number"],
        names: [RUN, "id", "0"],
        place: |run, id, _| Place::Input { run, id },
    },
    Values {
        table: "signals",
        column: "data",
        keys: &["number"],
        names: ["id", "''", "0"],
        place: |id, _, _| Place::Signal { id },
    },
    Values {
        table: "blobs",
        column: "bytes",
        keys: &["key"],
        names: ["lower(hex(digest))", "''", "0"],
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
        keys: &["key"],
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

/// What a file says about its encryption. None when nothing is encrypted.
fn found(connection: &Connection) -> Result<Option<Found>, StoreError> {
    if schema::found(connection)? < SINCE {
        return Ok(None);
    }
    let sql = "SELECT store, began_at, complete_at, state FROM encryption";
    let row = connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)));
    let Some((store, began_at, complete_at, state)) = row.optional().map_err(failed)? else { return Ok(None) };
    let mut keys = connection.prepare("SELECT id, proof FROM encryption_keys ORDER BY id").map_err(failed)?;
    let keys = keys.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).and_then(Iterator::collect);
    Ok(Some(Found { store, began_at, complete_at, state, keys: keys.map_err(failed)? }))
}

/// Whether there is no value at all.
fn is_empty(connection: &Connection) -> Result<bool, StoreError> {
    for Values { table, column, .. } in VALUES {
        let sql = format!("SELECT 1 FROM {table} WHERE {column} IS NOT NULL LIMIT 1");
        if connection.query_row(&sql, [], |_| Ok(())).optional().map_err(failed)?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Refuses a file whose keys are not there, before anything of it is changed.
pub(super) fn check(connection: &Connection, keys: Option<&Keyring>) -> Result<(), StoreError> {
    match (found(connection)?, keys) {
        // Whether it may begin to be encrypted is known only with the newest schema.
        (None, Some(_)) => Ok(()),
        (found, keys) => encryption::judge(found, false, keys).map(|_| ()),
    }
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
            register(connection, &cipher, keys)?;
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

/// Notes the active key, unless it is noted.
fn register(connection: &Connection, cipher: &Cipher, keys: &Keyring) -> Result<(), StoreError> {
    let id = keys.active();
    let known = connection.query_row("SELECT 1 FROM encryption_keys WHERE id = ?1", [id], |_| Ok(()));
    if known.optional().map_err(failed)?.is_none() {
        let proof = encryption::proof(cipher, id)?;
        let sql = "INSERT INTO encryption_keys (id, proof) VALUES (?1, ?2)";
        connection.execute(sql, params![id, proof]).map_err(failed)?;
    }
    Ok(())
}

/// From here on nothing plain is written, by whomever.
fn begin(connection: &Connection, keys: &Keyring, has_plain: bool) -> Result<Cipher, StoreError> {
    let Beginning { store, state, proof, cipher } = encryption::begin(keys, has_plain)?;
    let now = read::now().0 as i64;
    let complete_at = (!has_plain).then_some(now);
    let sql = "INSERT INTO encryption (store, began_at, complete_at, state) VALUES (?1, ?2, ?3, ?4)";
    connection.execute(sql, params![store, now, complete_at, state]).map_err(failed)?;
    let sql = "INSERT INTO encryption_keys (id, proof) VALUES (?1, ?2)";
    connection.execute(sql, params![keys.active(), proof]).map_err(failed)?;
    for Values { table, column, .. } in VALUES {
        for (name, event) in [("put", "INSERT".to_owned()), ("set", format!("UPDATE OF {column}"))] {
            let sql = format!(
                "CREATE TRIGGER {table}_{column}_{name} BEFORE {event} ON {table} \
                 WHEN NEW.{column} IS NOT NULL AND substr(NEW.{column}, 1, 1) <> x'45' BEGIN SELECT RAISE(ABORT, \
                 'the store is encrypted since this process opened it: start it again with the keys'); END"
            );
            connection.execute_batch(&sql).map_err(failed)?;
        }
    }
    Ok(cipher)
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
    let from = match found(&connection)? {
        None => None,
        Some(found) => Some(encryption::cipher_of(&found, keys)?),
    };
    let from_plain = from.as_ref().is_none_or(Cipher::reads_plain);
    encryption::check_workers(workers, from.is_none(), keys.active())?;
    let cipher = changed(&connection, || match &from {
        None => begin(&connection, keys, true),
        Some(cipher) => register(&connection, cipher, keys).map(|()| cipher.clone()),
    })?;
    let header = header_of(keys.active());
    let mut values = 0;
    for pass in 1.. {
        for table in VALUES {
            let mut work = Work { connection: &connection, cipher: &cipher, header, table, values };
            work.run(&mut progress)?;
            values = work.values;
        }
        let left = left(&connection, header)?;
        match left {
            0 => break,
            left if pass >= PASSES => return Err(encryption::unfinished(left, keys.active())),
            _ => {}
        }
    }
    let retired = finish(&connection, &cipher, keys)?;
    // Also where nothing was plain: an earlier time may have ended before this was done.
    let remains = emptied(&connection);
    Ok(Rekeyed { key: keys.active().to_owned(), from_plain, values, retired, remains })
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

/// Notes that everything is encrypted with the active key. Gives back the keys that are of no more use.
fn finish(connection: &Connection, cipher: &Cipher, keys: &Keyring) -> Result<Vec<String>, StoreError> {
    changed(connection, || {
        let sql = "UPDATE encryption SET complete_at = coalesce(complete_at, ?1), state = ?2";
        let now = read::now().0 as i64;
        connection.execute(sql, params![now, encryption::state(cipher, false)?]).map_err(failed)?;
        let mut gone = connection.prepare("DELETE FROM encryption_keys WHERE id <> ?1 RETURNING id").map_err(failed)?;
        let gone = gone.query_map([keys.active()], |row| row.get(0)).and_then(Iterator::collect);
        gone.map_err(failed)
    })
}

/// Writes the file anew, so that nothing plain is left in its free pages or its log. Tells what could not be done.
fn emptied(connection: &Connection) -> Option<String> {
    let done = connection.execute_batch("VACUUM").and_then(|()| {
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0)).map(|busy| busy == 0)
    });
    let why = match done {
        Ok(true) => return None,
        Ok(false) => "another process reads it".to_owned(),
        Err(error) => error.to_string(),
    };
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
        let Values { table, column, keys, names, .. } = self.table;
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
        let Values { table, column, keys, place, .. } = self.table;
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

/// Whether values are plain in what a process that has read them so may go on with.
pub(super) fn refuse_plain(view: &View<'_>) -> Result<(), StoreError> {
    if view.cipher.reads_plain() && view.cipher.keys().is_some() {
        let sql = "SELECT complete_at IS NOT NULL FROM encryption";
        let complete = view.query_row(sql, [], |row| row.get::<_, bool>(0)).optional().map_err(failed)?;
        if complete == Some(true) {
            view.cipher.refuse_plain();
        }
    }
    Ok(())
}
