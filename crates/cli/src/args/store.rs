//! `windlass store`: the store as a whole. Parsing only.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Look at, upgrade, copy and bring back the store.
#[derive(Debug, Subcommand)]
pub(crate) enum Store {
    /// Print schema, size, runs, queue and workers
    Status(StoreStatus),
    /// Bring the schema up to what this build knows
    Migrate(StoreMigrate),
    /// Copy the store while it is in use
    Backup(StoreBackup),
    /// Make a store from a backup, with every unfinished run held back
    Restore(StoreRestore),
    /// Encrypt everything with the active key
    Rekey(StoreRekey),
    /// Write the file of the store anew, without what was removed
    Compact(StoreCompact),
    /// Void every lease and hold back every unfinished run
    Fence(StoreFence),
}

/// Print the state of the store.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass store status
  windlass store status --json | jq .schema
  windlass store status --keys

Changes nothing: a schema that is not up to date is reported and not migrated. Exits with 3
when a migration is due, and with 6 when the store cannot be reached or has a newer schema.")]
pub(crate) struct StoreStatus {
    /// Count the values of each key of an encrypted store, which reads all of it
    #[arg(long)]
    pub keys: bool,
}

/// Encrypt everything with the active key.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass store rekey
  windlass store rekey --from-plain
  windlass store rekey --json --store postgres://windlass_owner@db/windlass

Encrypts what is plain, and what is of another key, with the `key` of `[encryption]` in the
configuration: the store and the file of secrets. In parts that last: one that was interrupted
goes on where it was. The first time, workers must be stopped while it begins; from one key to
another they may run, once all of them have both keys and encrypt with the new one. Says on
stderr how far it is.")]
pub(crate) struct StoreRekey {
    /// Go on with a first time that was interrupted: values that are plain are read
    #[arg(long)]
    pub from_plain: bool,
}

/// Write the file of the store anew.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass store compact
  windlass erase --tenant acme --yes && windlass store compact

For SQLite. The file takes no more room than it needs, and between its values nothing is left
of what was removed. Needs as much free space as the file has in the folder for temporary
files, and as much beside the file. While it works, others read and nobody writes: run it when little is done. Exits with 4 when another process kept it from
that; nothing is lost then.")]
pub(crate) struct StoreCompact {}

/// Bring the schema up to date.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass store migrate
  windlass store migrate --store postgres://windlass_owner@db/windlass

One process migrates at a time, in one transaction: killed in the middle, the schema is the
one before or the one after. Does nothing to a schema that is up to date.")]
pub(crate) struct StoreMigrate {}

/// Copy the store.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass store backup /backups/windlass-monday.db

The copy is of one moment; runs go on meanwhile. `windlass store restore` makes a store of it.")]
pub(crate) struct StoreBackup {
    /// The new file; must not exist
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Make a store from a backup.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass store restore /backups/windlass-monday.db --store sqlite:/var/lib/windlass/windlass.db
  windlass store restore /backups/windlass-monday.db --replace

Checks the backup first. Every unfinished run is quarantined: the backup does not know what
it did since, and going on could do it again. Look at each one, then `windlass runs requeue`
or `windlass runs cancel` it. Processes that still work on the old store cannot write to the
new one.")]
pub(crate) struct StoreRestore {
    /// The backup
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Replace the store that is there; its file is kept beside it (SQLite)
    #[arg(long)]
    pub replace: bool,
}

/// Void every lease.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass store fence --reason 'failed over to the standby, the last seconds may be missing'

For a database that was brought back by other means than `windlass store restore`: a file
system snapshot, a point-in-time recovery, a standby that was behind. Every unfinished run
is quarantined until `windlass runs requeue` or `windlass runs cancel`.")]
pub(crate) struct StoreFence {
    /// Why; shown with every run that is held back
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
}
