//! The schema: what a database must be like, and how it is brought up to date.

use tokio_postgres::Row;
use windlass_ports::store::StoreError;

use super::connect::{Connector, Link, Purpose, Sql, Trouble, trouble};
use super::encryption;
use super::read::unread;
use crate::cipher::Cipher;
use crate::keys::Keyring;

/// A change of the schema. Old workers go on with what it leaves: a column is added in one release and used in the next.
struct Migration {
    version: u32,
    name: &'static str,
    sql: &'static str,
}

const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "runs", sql: include_str!("migrations/V1__runs.sql") },
    Migration { version: 2, name: "object_floors", sql: include_str!("migrations/V2__object_floors.sql") },
    Migration { version: 3, name: "named_signals", sql: include_str!("migrations/V3__named_signals.sql") },
    Migration { version: 4, name: "switches", sql: include_str!("migrations/V4__switches.sql") },
    Migration { version: 5, name: "audit", sql: include_str!("migrations/V5__audit.sql") },
    Migration { version: 6, name: "rates", sql: include_str!("migrations/V6__rates.sql") },
    Migration { version: 7, name: "encryption", sql: include_str!("migrations/V7__encryption.sql") },
    Migration { version: 8, name: "key_writers", sql: include_str!("migrations/V8__key_writers.sql") },
];

/// The schema from which on rows of the journal know their transaction.
pub(super) const AUDITED: u32 = 5;

/// The schema from which on a database says whether it is encrypted.
pub(super) const ENCRYPTED: u32 = 7;
/// The schema from which on it says with which keys values may be written.
pub(super) const WRITERS: u32 = 8;

/// One process at a time changes the schema.
pub(super) const LOCK: &str = "SET LOCAL lock_timeout = '60s'; SELECT pg_advisory_xact_lock(7812738460178);";
const HISTORY: &str = "CREATE TABLE IF NOT EXISTS schema_history (version integer NOT NULL PRIMARY KEY, \
     name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now(), checksum text NOT NULL);";

/// The oldest release that works, as the server numbers them.
const SERVER_MIN: i32 = 150_000;

static SERVER: Sql = Sql {
    text: "SELECT current_setting('server_version_num')::integer, pg_is_in_recovery(), \
         current_setting('transaction_read_only'), current_setting('synchronous_commit'), current_setting('fsync'), \
         current_setting('server_encoding')",
    types: &[],
};

/// Whether there is a history, whether it is ours, and which tables of ours there are.
static HAS_HISTORY: Sql = Sql {
    text: "SELECT to_regclass('schema_history') IS NOT NULL, (SELECT count(*) = 4 FROM pg_attribute \
         WHERE attrelid = to_regclass('schema_history') AND attname IN ('version', 'name', 'applied_at', 'checksum')), \
         ARRAY(SELECT name FROM unnest(ARRAY['store', 'runs', 'starts', 'journal', 'snapshots', 'waits', 'inbox', \
         'signals', 'blobs', 'blob_uses', 'workers', 'objects', 'object_floors', 'audit_sealing', 'audit_segments', \
         'audit_acts', 'audit_kept', 'rates', 'encryption', 'encryption_keys', 'encryption_writers']) AS name \
         WHERE to_regclass(name) IS NOT NULL)",
    types: &[],
};

static APPLIED: Sql = Sql { text: "SELECT version, name, checksum FROM schema_history ORDER BY version", types: &[] };

static STORE_ID: Sql = Sql { text: "SELECT id FROM store", types: &[] };

/// The newest schema this build knows.
pub(super) fn known() -> u32 {
    MIGRATIONS.last().map_or(0, |migration| migration.version)
}

/// Refuses servers that cannot be read. Tells whether it is a standby.
pub(super) async fn check_to_read(link: &mut Link, place: &str) -> Result<bool, StoreError> {
    let rows = link.query(&SERVER, Vec::new()).await.map_err(Trouble::error)?;
    let row = rows.first().ok_or_else(|| StoreError::Corrupt("the server does not describe itself".into()))?;
    check_kind(row, place)?;
    row.try_get(1).map_err(unread)
}

/// Refuses servers that are too old, and text that is kept otherwise.
fn check_kind(row: &Row, place: &str) -> Result<(), StoreError> {
    let version: i32 = row.try_get(0).map_err(unread)?;
    if version < SERVER_MIN {
        let (found, least) = (version / 10_000, SERVER_MIN / 10_000);
        return Err(StoreError::Invalid(format!(
            "the server of `{place}` is PostgreSQL {found}; {least} or newer is needed"
        )));
    }
    let encoding: &str = row.try_get(5).map_err(unread)?;
    if encoding != "UTF8" {
        return Err(StoreError::Invalid(format!(
            "`{place}` keeps text as `{encoding}`; make a database with encoding UTF8"
        )));
    }
    Ok(())
}

/// Refuses servers that the store cannot rely on.
pub(super) async fn check_server(link: &mut Link, place: &str) -> Result<(), StoreError> {
    let rows = link.query(&SERVER, Vec::new()).await.map_err(Trouble::error)?;
    let row = rows.first().ok_or_else(|| StoreError::Corrupt("the server does not describe itself".into()))?;
    let setting = |column: usize| row.try_get::<_, &str>(column).map_err(unread);
    check_kind(row, place)?;
    let standby: bool = row.try_get(1).map_err(unread)?;
    if standby {
        return Err(StoreError::Unavailable(format!(
            "`{place}` is a standby and takes no writes; use the address of its primary"
        )));
    }
    if setting(2)? != "off" {
        return Err(StoreError::Unavailable(format!(
            "`{place}` is set to read only (`default_transaction_read_only`), and takes no writes"
        )));
    }
    if setting(3)? == "off" {
        return Err(StoreError::Invalid(format!(
            "`{place}` has `synchronous_commit = off`, which loses what it acknowledged; set it to `on` for this role or database"
        )));
    }
    if setting(4)? != "on" {
        tracing::warn!(place, "the database has `fsync = off`: a loss of power loses or damages what is stored");
    }
    Ok(())
}

fn version_of(row: &Row) -> Result<u32, StoreError> {
    let version: i32 = row.try_get(0).map_err(unread)?;
    u32::try_from(version).map_err(|_| StoreError::Corrupt("the schema has a negative version".into()))
}

/// The schema that is there; 0 of an empty database.
///
/// # Errors
/// [`StoreError::NewerSchema`], and [`StoreError::Corrupt`] for one that was changed by other means.
pub(super) async fn found(link: &mut Link) -> Result<u32, StoreError> {
    let rows = link.query(&HAS_HISTORY, Vec::new()).await.map_err(Trouble::error)?;
    let row = rows.first().ok_or_else(|| StoreError::Corrupt("the database does not describe itself".into()))?;
    let (has_history, is_ours): (bool, bool) = (row.try_get(0).map_err(unread)?, row.try_get(1).map_err(unread)?);
    let tables: Vec<&str> = row.try_get(2).map_err(unread)?;
    if has_history && !is_ours {
        return Err(foreign("schema_history"));
    }
    if !has_history {
        return tables.first().map_or(Ok(0), |table| Err(foreign(table)));
    }
    let mut latest = 0;
    for row in link.query(&APPLIED, Vec::new()).await.map_err(Trouble::error)? {
        let (version, checksum): (_, &str) = (version_of(&row)?, row.try_get(2).map_err(unread)?);
        if let Some(migration) = MIGRATIONS.iter().find(|migration| migration.version == version)
            && checksum != checksum_of(migration)
        {
            return Err(StoreError::Corrupt(format!(
                "schema {version} was applied from another text than this build has"
            )));
        }
        latest = version;
    }
    if let (0, Some(table)) = (latest, tables.first()) {
        return Err(foreign(table));
    }
    match latest {
        found if found > known() => Err(StoreError::NewerSchema { found, known: known() }),
        found => Ok(found),
    }
}

/// A table of the name of one of ours that something else made.
fn foreign(table: &str) -> StoreError {
    StoreError::Invalid(format!(
        "the database has a table `{table}` that is not Windlass's; give Windlass a database, or a schema, of its own"
    ))
}

fn checksum_of(migration: &Migration) -> String {
    blake3::hash(migration.sql.as_bytes()).to_hex().to_string()
}

/// Brings the schema up to `target`, for one process at a time. Everything is one transaction: a process killed in
/// between leaves the schema before it.
pub(super) async fn migrate(link: &mut Link, target: u32) -> Result<u32, StoreError> {
    if found(link).await? >= target {
        return Ok(target);
    }
    run(link, "BEGIN").await?;
    let migrated = migrate_within(link, target).await;
    let end = if migrated.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = run(link, end).await;
    migrated.and_then(|version| ended.map(|()| version))
}

/// The same within a transaction of the caller.
pub(super) async fn migrate_within(link: &mut Link, target: u32) -> Result<u32, StoreError> {
    run(link, LOCK).await?;
    run(link, HISTORY).await?;
    // Another process may have done it while this one waited.
    let from = found(link).await?;
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > from && migration.version <= target) {
        run(link, migration.sql).await?;
        let (version, name, checksum) = (migration.version, migration.name, checksum_of(migration));
        let note =
            format!("INSERT INTO schema_history (version, name, checksum) VALUES ({version}, '{name}', '{checksum}')");
        run(link, &note).await?;
    }
    let id = uuid::Uuid::now_v7().simple();
    run(link, &format!("INSERT INTO store (id) SELECT '{id}' WHERE NOT EXISTS (SELECT 1 FROM store)")).await?;
    Ok(target.max(from))
}

/// Runs a text of statements.
pub(super) async fn run(link: &Link, text: &str) -> Result<(), StoreError> {
    link.client.batch_execute(text).await.map_err(|error| match trouble(&error) {
        Trouble::Refused(StoreError::Invalid(text)) => StoreError::Unavailable(text),
        other => other.error(),
    })
}

/// Names the database, as long as it lives.
pub(super) async fn store_id(link: &mut Link) -> Result<String, StoreError> {
    let rows = link.query(&STORE_ID, Vec::new()).await.map_err(Trouble::error)?;
    let row = rows.first().ok_or_else(|| StoreError::Corrupt("the store has no id".into()))?;
    row.try_get(0).map_err(unread)
}

/// A checked connection with the newest schema below it.
pub(super) async fn prepare(
    connector: &Connector,
    keys: Option<&Keyring>,
) -> Result<(String, u32, Cipher), StoreError> {
    let mut link = connector.link(Purpose::Any).await?;
    check_server(&mut link, &connector.address.place()).await?;
    encryption::check(&mut link, keys).await?;
    let version = migrate(&mut link, known()).await?;
    let cipher = encryption::cipher_to_write(&mut link, keys).await?;
    Ok((store_id(&mut link).await?, version, cipher))
}
