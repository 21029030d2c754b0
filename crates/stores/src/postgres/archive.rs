//! A portable copy of a database in one file: all of one moment, table by table in the server's binary form, with a
//! checksum over everything.

use std::path::{Path, PathBuf};
use std::pin::pin;

use bytes::Bytes;
use futures::{SinkExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio_postgres::types::Type;
use windlass_core::time::Timestamp;
use windlass_ports::store::{FENCED, StoreError};

use super::connect::{Connector, Link, Purpose, Sql, Trouble, Value, trouble};
use super::encryption;
use super::pool::Pool;
use super::rates::FORGET_RATES;
use super::read::unread;
use super::request::count;
use super::schema::{self, run};
use super::text::shield;
use super::workers::{END_WORKERS, FENCE};
use crate::cipher::{Cipher, Place};
use crate::keys::Keyring;
use crate::restore::{Held, RestoreError, Restored, check_free, unwritten};

const MAGIC: &[u8; 16] = b"windlass-copy-1\n";
const CHECKSUM_BYTES: usize = 32;
/// Bytes of one part of a table, at most.
const PART_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Tables and their columns, in an order in which they can be filled. What names a database is not among them: a copy
/// that was restored is another one.
const TABLES: &[(&str, &str)] = &[
    (
        "runs",
        "id, parent, root, tenant, pool, priority, status, strikes, step, version, epoch, pending, received, tokens, \
         cost_micros, updated_at, ready, wake_at, owner, lost, bundle, state, quarantine, helped",
    ),
    ("starts", "run, machine, depth, input, created_at, created_us, tags, start"),
    ("journal", "run, version, op, record, blobs, audit"),
    ("snapshots", "run, version, bytes"),
    ("waits", "run, effect, channel, kind, due, answered"),
    ("inbox", "run, id, number, wait, signal, input"),
    ("signals", "id, channel, run, sent_at, sent_us, op, data"),
    ("blobs", "digest, bundled_at, bytes"),
    ("blob_uses", "run, digest"),
    ("workers", "id, registration, held, calls, draining, joined_us, seen_us, until_us, alive"),
    ("objects", "kind, key, revision, bytes"),
    ("object_floors", "slot, revision"),
    ("audit_segments", "tenant, number, hash, bytes"),
    ("audit_acts", "tenant, number, bytes"),
    ("audit_kept", "number, run, tenant, rows"),
    ("encryption", "store, began_at, complete_at, state"),
    ("encryption_keys", "id, proof"),
    ("encryption_writers", "id, header, closed_at"),
];

static OBJECTS_OF_KIND: Sql =
    Sql { text: "SELECT key, bytes FROM objects WHERE kind = $1 ORDER BY key", types: &[Type::TEXT] };

static HOLD_OBJECT: Sql = Sql {
    text: "UPDATE objects SET revision = revision + 1, bytes = $3 WHERE kind = $1 AND key = $2",
    types: &[Type::TEXT, Type::TEXT, Type::BYTEA],
};

static LATEST: Sql = Sql { text: "SELECT max(updated_at) FROM runs", types: &[] };

/// What stands at the beginning of a copy, and before each table.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
enum Note {
    Begin { schema: u32 },
    Table { name: String },
    End,
}

/// A file being written, and the checksum of what is in it.
struct Writer {
    file: BufWriter<File>,
    hash: blake3::Hasher,
}

impl Writer {
    async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.hash.update(bytes);
        self.file.write_all(bytes).await
    }

    /// A part with its length before it; an empty one ends a table.
    async fn part(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(|_| std::io::ErrorKind::InvalidInput)?;
        self.write(&length.to_le_bytes()).await?;
        self.write(bytes).await
    }

    async fn note(&mut self, note: &Note) -> std::io::Result<()> {
        self.part(&serde_json::to_vec(note)?).await
    }
}

fn partial(to: &Path) -> PathBuf {
    let mut partial = to.as_os_str().to_owned();
    partial.push(".partial");
    partial.into()
}

/// Copies everything, all of one moment, to a file that must not be there.
pub(super) async fn backup(pool: &Pool, version: u32, to: &Path) -> Result<(), StoreError> {
    check_free(to)?;
    let failed = |error: std::io::Error| unwritten(to, &error);
    let hidden = partial(to);
    let mut options = tokio::fs::OpenOptions::new();
    options.create(true).truncate(true).write(true).mode(0o600);
    let file = options.open(&hidden).await.map_err(failed)?;
    let mut writer = Writer { file: BufWriter::new(file), hash: blake3::Hasher::new() };
    let link = pool.lend().await?;
    run(&link, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    writer.write(MAGIC).await.map_err(failed)?;
    writer.note(&Note::Begin { schema: version }).await.map_err(failed)?;
    for (name, columns) in TABLES {
        writer.note(&Note::Table { name: (*name).to_owned() }).await.map_err(failed)?;
        let text = format!("COPY (SELECT {columns} FROM {name}) TO STDOUT (FORMAT binary)");
        let lost = |error: tokio_postgres::Error| trouble(&error).error();
        let mut rows = pin!(link.client.copy_out(&text).await.map_err(lost)?);
        while let Some(bytes) = rows.try_next().await.map_err(lost)? {
            for part in bytes.chunks(PART_BYTES_MAX) {
                writer.part(part).await.map_err(failed)?;
            }
        }
        writer.part(&[]).await.map_err(failed)?;
    }
    run(&link, "COMMIT").await?;
    link.put_back();
    writer.note(&Note::End).await.map_err(failed)?;
    let sum = *writer.hash.finalize().as_bytes();
    writer.file.write_all(&sum).await.map_err(failed)?;
    writer.file.flush().await.map_err(failed)?;
    writer.file.get_ref().sync_all().await.map_err(failed)?;
    tokio::fs::rename(&hidden, to).await.map_err(failed)
}

/// A copy being read.
struct Reader<'a> {
    file: BufReader<File>,
    path: &'a Path,
}

impl Reader<'_> {
    fn damaged(&self, what: &str) -> StoreError {
        StoreError::Corrupt(format!("the copy `{}` {what}", self.path.display()))
    }

    async fn part(&mut self) -> Result<Vec<u8>, StoreError> {
        let mut length = [0; 4];
        self.file.read_exact(&mut length).await.map_err(|_| self.damaged("is cut off"))?;
        let length = u32::from_le_bytes(length) as usize;
        if length > PART_BYTES_MAX {
            return Err(self.damaged("has a part that is too long"));
        }
        let mut bytes = vec![0; length];
        self.file.read_exact(&mut bytes).await.map_err(|_| self.damaged("is cut off"))?;
        Ok(bytes)
    }

    async fn note(&mut self) -> Result<Note, StoreError> {
        let bytes = self.part().await?;
        serde_json::from_slice(&bytes).map_err(|error| self.damaged(&format!("cannot be read: {error}")))
    }
}

/// Reads the whole file once, before anything of it is used.
async fn verify(path: &Path) -> Result<(), StoreError> {
    let failed =
        |error: std::io::Error| StoreError::Unavailable(format!("cannot read the copy `{}`: {error}", path.display()));
    let mut file = File::open(path).await.map_err(failed)?;
    let length = file.metadata().await.map_err(failed)?.len();
    let mut hash = blake3::Hasher::new();
    let mut left = length.saturating_sub(CHECKSUM_BYTES as u64);
    let mut bytes = vec![0; 1024 * 1024];
    let mut first = true;
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let size = file.read(&mut bytes[..most]).await.map_err(failed)?;
        if size == 0 {
            break;
        }
        if first && !bytes[..size].starts_with(MAGIC) {
            return Err(StoreError::Invalid(format!("`{}` is no copy of a PostgreSQL store", path.display())));
        }
        first = false;
        hash.update(&bytes[..size]);
        left -= size as u64;
    }
    let mut sum = [0; CHECKSUM_BYTES];
    let read = file.read_exact(&mut sum).await;
    if read.is_err() || sum != *hash.finalize().as_bytes() {
        return Err(StoreError::Corrupt(format!("the copy `{}` is damaged or cut off", path.display())));
    }
    Ok(())
}

/// Fills an empty database from a copy, with every unfinished run held back: whoever waits for the database to come
/// finds nothing to work on.
///
/// # Errors
/// [`RestoreError::NotEmpty`] for a database that has a store; [`StoreError::Invalid`] for a file that is no copy,
/// [`StoreError::Corrupt`] for one that is damaged; [`StoreError::NewerSchema`] for one of a newer build.
pub(super) async fn restore(
    connector: &Connector,
    keys: Option<&Keyring>,
    from: &Path,
    reason: impl FnOnce(Option<Timestamp>) -> String,
    held: Held<'_>,
) -> Result<Restored, RestoreError> {
    verify(from).await?;
    let mut link = connector.link(Purpose::Any).await?;
    schema::check_server(&mut link, &connector.address.place()).await?;
    if schema::found(&mut link).await? > 0 {
        return Err(RestoreError::NotEmpty { target: connector.address.place() });
    }
    run(&link, "BEGIN").await?;
    let filled = match fill(&mut link, from).await {
        Ok(()) => hold_back(&mut link, keys, reason, held).await,
        Err(error) => Err(error),
    };
    match filled {
        Ok(restored) => {
            run(&link, "COMMIT").await?;
            // What the planner knows of tables that were just filled; without it the first queries are slow.
            run(&link, "ANALYZE").await?;
            Ok(restored)
        }
        Err(error) => {
            // The connection ends anyway.
            let _ended = run(&link, "ROLLBACK").await;
            Err(error.into())
        }
    }
}

async fn hold_back(
    link: &mut Link,
    keys: Option<&Keyring>,
    reason: impl FnOnce(Option<Timestamp>) -> String,
    held: Held<'_>,
) -> Result<Restored, StoreError> {
    let cipher = encryption::restored(link, keys).await?;
    let rows = link.query(&LATEST, Vec::new()).await.map_err(Trouble::error)?;
    let latest: Option<i64> = rows.first().map_or(Ok(None), |row| row.try_get(0)).map_err(unread)?;
    let taken_at = latest.map(|at| Timestamp(count(at)));
    link.query(&END_WORKERS, Vec::new()).await.map_err(Trouble::error)?;
    let reason = shield(&reason(taken_at)).into_owned();
    link.query(&FORGET_RATES, Vec::new()).await.map_err(Trouble::error)?;
    let rows = link.query(&FENCE, vec![Box::new(reason), Box::new(FENCED)]).await.map_err(Trouble::error)?;
    let quarantined = rows.first().map_or(Ok(0), |row| row.try_get(0)).map(count).map_err(unread)?;
    Ok(Restored { aside: None, quarantined, held: hold_objects(link, &cipher, held).await?, taken_at })
}

/// Within the transaction of the restore.
async fn hold_objects(link: &mut Link, cipher: &Cipher, held: Held<'_>) -> Result<u64, StoreError> {
    let kind = || -> Value { Box::new(shield(held.kind).into_owned()) };
    let mut changed = 0;
    for row in link.query(&OBJECTS_OF_KIND, vec![kind()]).await.map_err(Trouble::error)? {
        let (key, packed): (String, &[u8]) = (row.try_get(0).map_err(unread)?, row.try_get(1).map_err(unread)?);
        let of = shield(held.kind);
        let place = Place::Object { kind: &of, key: &key };
        let Some(bytes) = (held.change)(&cipher.unpack(place, packed)?) else { continue };
        let packed = cipher.pack(place, &bytes)?;
        let values = vec![kind(), Box::new(key) as Value, Box::new(packed)];
        link.query(&HOLD_OBJECT, values).await.map_err(Trouble::error)?;
        changed += 1;
    }
    Ok(changed)
}

async fn fill(link: &mut Link, from: &Path) -> Result<(), StoreError> {
    let failed =
        |error: std::io::Error| StoreError::Unavailable(format!("cannot read the copy `{}`: {error}", from.display()));
    let mut reader = Reader { file: BufReader::new(File::open(from).await.map_err(failed)?), path: from };
    let mut magic = [0; MAGIC.len()];
    reader.file.read_exact(&mut magic).await.map_err(failed)?;
    let Note::Begin { schema: version } = reader.note().await? else { return Err(reader.damaged("has no beginning")) };
    if version > schema::known() {
        return Err(StoreError::NewerSchema { found: version, known: schema::known() });
    }
    schema::migrate_within(link, version).await?;
    loop {
        let name = match reader.note().await? {
            Note::Table { name } => name,
            Note::End => break,
            Note::Begin { .. } => return Err(reader.damaged("begins twice")),
        };
        let Some((name, columns)) = TABLES.iter().find(|(known, _)| *known == name) else {
            return Err(reader.damaged(&format!("has a table `{name}` that this build does not know")));
        };
        let lost = |error: tokio_postgres::Error| trouble(&error).error();
        // What the migration put there is in the copy too.
        run(link, &format!("DELETE FROM {name}")).await?;
        let text = format!("COPY {name} ({columns}) FROM STDIN (FORMAT binary)");
        // A copy's rows are of no transaction here.
        let of_none = version >= schema::AUDITED && *name == "journal";
        if of_none {
            run(link, "ALTER TABLE journal ALTER COLUMN xact SET DEFAULT 0").await?;
        }
        let mut sink = pin!(link.client.copy_in::<_, Bytes>(&text).await.map_err(lost)?);
        loop {
            let part = reader.part().await?;
            if part.is_empty() {
                break;
            }
            sink.send(part.into()).await.map_err(lost)?;
        }
        sink.finish().await.map_err(lost)?;
        if of_none {
            run(link, "ALTER TABLE journal ALTER COLUMN xact SET DEFAULT pg_current_xact_id()::text::bigint").await?;
        }
    }
    schema::migrate_within(link, schema::known()).await.map(|_| ())
}
