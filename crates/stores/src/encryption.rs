//! Whether a store is encrypted, and with which keys: what is the same in every store.
//!
//! A store is encrypted from its first value on, or by a rekey: from when that begins nothing plain is written, and from
//! when it ends nothing plain is read.

use serde::{Deserialize, Serialize};
use windlass_core::ids::Digest;
use windlass_core::time::Timestamp;
use windlass_ports::store::{StoreError, WorkerRow};

use crate::cipher::{Cipher, Place};
use crate::keys::Keyring;

/// What every key proves itself with.
const PROOF: &[u8] = b"windlass";

/// The way from plain values to encrypted ones.
const REKEY: &str = "`windlass store rekey`";

/// What is said to a process that writes a plain value into an encrypted store.
pub(crate) const PLAIN_REFUSED: &str =
    "the store is encrypted since this process opened it: start it again with the keys";

/// What is said to a process that writes a value of a key that was replaced.
pub(crate) const KEY_REFUSED: &str = "the key that this process encrypts with was replaced: make the key of the store its \
     active key and start it again";

/// How often all tables are gone through where values of another key are left.
pub(crate) const PASSES: u32 = 3;

/// What tells the place of a value from two names and a number of its row.
pub(crate) type PlaceOf = for<'a> fn(&'a str, &'a str, i64) -> Place<'a>;

/// A column that holds values.
pub(crate) struct Values {
    pub(crate) table: &'static str,
    pub(crate) column: &'static str,
    pub(crate) place: PlaceOf,
    pub(crate) sqlite: Rows,
    pub(crate) postgres: Rows,
}

/// How a store finds its rows.
pub(crate) struct Rows {
    /// Columns that name a row.
    pub(crate) keys: &'static [&'static str],
    /// The two names and the number of a place, as expressions over the row.
    pub(crate) names: [&'static str; 3],
}

const fn rows(keys: &'static [&'static str], names: [&'static str; 3]) -> Rows {
    Rows { keys, names }
}

/// The id of a run, of a row of SQLite that has its number.
const RUN: &str = "(SELECT runs.id FROM runs WHERE runs.key = t.run)";

/// Everything that holds what somebody said, or may. Signals come before what they are copied into.
pub(crate) const VALUES: &[Values] = &[
    Values {
        table: "signals",
        column: "data",
        place: |id, _, _| Place::Signal { id },
        sqlite: rows(&["number"], ["id", "''", "0"]),
        postgres: rows(&["id"], ["id", "''", "0"]),
    },
    Values {
        table: "starts",
        column: "start",
        place: |run, _, _| Place::Start { run },
        sqlite: rows(&["run"], [RUN, "''", "0"]),
        postgres: rows(&["run"], ["run", "''", "0"]),
    },
    Values {
        table: "journal",
        column: "record",
        place: |run, _, version| Place::Record { run, version },
        sqlite: rows(&["key"], [RUN, "''", "version"]),
        postgres: rows(&["run", "version"], ["run", "''", "version"]),
    },
    Values {
        table: "journal",
        column: "audit",
        place: |run, _, version| Place::Audit { run, version },
        sqlite: rows(&["key"], [RUN, "''", "version"]),
        postgres: rows(&["run", "version"], ["run", "''", "version"]),
    },
    Values {
        table: "snapshots",
        column: "bytes",
        place: |run, _, version| Place::Snapshot { run, version },
        sqlite: rows(&["run"], [RUN, "''", "version"]),
        postgres: rows(&["run"], ["run", "''", "version"]),
    },
    Values {
        table: "waits",
        column: "kind",
        place: |run, _, effect| Place::Wait { run, effect },
        sqlite: rows(&["run", "effect"], [RUN, "''", "effect"]),
        postgres: rows(&["run", "effect"], ["run", "''", "effect"]),
    },
    Values {
        table: "inbox",
        column: "input",
        place: |run, id, _| match id.split_at_checked(1) {
            Some(("s", id)) => Place::Signal { id },
            Some((_, id)) => Place::Input { run, id },
            None => Place::Input { run, id },
        },
        sqlite: rows(&["number"], [RUN, "'i' || id", "0"]),
        postgres: rows(&["run", "id"], ["run", "CASE WHEN signal IS NULL THEN 'i' || id ELSE 's' || signal END", "0"]),
    },
    Values {
        table: "blobs",
        column: "bytes",
        place: |digits, _, _| Place::Blob(Digest::parse(digits).unwrap_or(Digest([0; 32]))),
        sqlite: rows(&["key"], ["lower(hex(digest))", "''", "0"]),
        postgres: rows(&["digest"], ["encode(digest, 'hex')", "''", "0"]),
    },
    Values {
        table: "objects",
        column: "bytes",
        place: |kind, key, _| Place::Object { kind, key },
        sqlite: rows(&["kind", "key"], ["kind", "key", "0"]),
        postgres: rows(&["kind", "key"], ["kind", "key", "0"]),
    },
    Values {
        table: "audit_segments",
        column: "bytes",
        place: |tenant, _, number| Place::Segment { tenant, number },
        sqlite: rows(&["tenant", "number"], ["tenant", "''", "number"]),
        postgres: rows(&["tenant", "number"], ["tenant", "''", "number"]),
    },
    Values {
        table: "audit_acts",
        column: "bytes",
        place: |tenant, _, number| Place::Act { tenant, number },
        sqlite: rows(&["key"], ["tenant", "''", "number"]),
        postgres: rows(&["tenant", "number"], ["tenant", "''", "number"]),
    },
    Values {
        table: "audit_kept",
        column: "rows",
        place: |tenant, run, _| Place::Kept { tenant, run },
        sqlite: rows(&["number"], ["tenant", "run", "0"]),
        postgres: rows(&["number"], ["tenant", "run", "0"]),
    },
];

impl Values {
    /// Whether the first name is that of a run.
    pub(crate) fn is_of_run(&self) -> bool {
        matches!(self.table, "starts" | "journal" | "snapshots" | "waits" | "inbox")
    }

    /// What a value is called when it is damaged.
    pub(crate) fn what(&self) -> &'static str {
        match self.table {
            "inbox" => "input",
            table => table.strip_suffix('s').unwrap_or(table),
        }
    }

    /// The rule of a check that a damaged value breaks.
    pub(crate) fn rule(&self) -> &'static str {
        if self.table.starts_with("audit_") { "audit" } else { "integrity" }
    }
}

/// What stands in the encrypted state.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    has_plain: bool,
}

/// What a store says about its encryption.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) store: String,
    pub(crate) began_at: i64,
    pub(crate) complete_at: Option<i64>,
    pub(crate) state: Vec<u8>,
    /// Keys and their proofs.
    pub(crate) keys: Vec<(String, Vec<u8>)>,
    /// Keys that nothing more is encrypted with; a store of an older schema has none.
    pub(crate) closed: Vec<String>,
}

/// What to do with a store.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It holds nothing, and is encrypted from its first value on.
    Begin(Keyring),
    /// Its values are read and written so.
    Use(Cipher),
}

/// What stands in the tables when encryption begins.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) store: String,
    pub(crate) state: Vec<u8>,
    pub(crate) cipher: Cipher,
}

/// Compares what a store is with the keys that are there.
///
/// # Errors
/// [`StoreError::Key`] when they do not fit each other.
pub(crate) fn judge(found: Option<Found>, is_empty: bool, keys: Option<&Keyring>) -> Result<Verdict, StoreError> {
    match (found, keys) {
        (None, None) => Ok(Verdict::Use(Cipher::default())),
        (None, Some(keys)) if is_empty => Ok(Verdict::Begin(keys.clone())),
        (None, Some(_)) => {
            Err(StoreError::Key(format!("the store is not encrypted, and there are keys for it: {REKEY} encrypts it")))
        }
        (Some(found), None) => {
            let ids: Vec<String> = found.keys.iter().map(|(id, _)| format!("`{id}`")).collect();
            Err(StoreError::Key(format!("the store is encrypted with key {}, and there are no keys", ids.join(", "))))
        }
        (Some(found), Some(keys)) => cipher_of(&found, keys).map(Verdict::Use),
    }
}

/// How the values of an encrypted store are read and written, when all of its keys are there.
///
/// # Errors
/// [`StoreError::Key`] for a key that is not there or is another one.
pub(crate) fn cipher_of(found: &Found, keys: &Keyring) -> Result<Cipher, StoreError> {
    let strict = Cipher::new(keys.clone(), found.store.clone(), false);
    for (id, proof) in &found.keys {
        if !keys.has(id) {
            return Err(StoreError::Key(format!("the store has values of key `{id}`, which is not among the keys")));
        }
        let wrong = |_| StoreError::Key(format!("key `{id}` is not the one that the store was encrypted with"));
        strict.unpack(Place::Key { id }, proof).map_err(wrong)?;
    }
    let state = strict.unpack(Place::State, &found.state)?;
    let state: State = serde_json::from_slice(&state)
        .map_err(|error| StoreError::Corrupt(format!("the state of the encryption cannot be read: {error}")))?;
    let has_plain = state.has_plain && found.complete_at.is_none();
    if has_plain && !keys.accepts_plain() {
        return Err(StoreError::Key(format!(
            "the store says that its values are being encrypted for the first time, and that some are plain: if that is so, \
             {REKEY} with `--from-plain` goes on with it, and `plain = true` under `[encryption]` lets other processes read them \
             meanwhile"
        )));
    }
    Ok(Cipher::new(keys.clone(), found.store.clone(), has_plain))
}

/// Refuses to write with a key that was replaced.
///
/// # Errors
/// [`StoreError::Key`] that says with which one to.
pub(crate) fn check_active(found: &Found, keys: &Keyring) -> Result<(), StoreError> {
    let id = keys.active();
    if !found.closed.iter().any(|closed| closed == id) {
        return Ok(());
    }
    let open: Vec<String> =
        found.keys.iter().filter(|(id, _)| !found.closed.contains(id)).map(|(id, _)| format!("`{id}`")).collect();
    Err(StoreError::Key(format!(
        "key `{id}` was replaced by {}: make that the active key; to make `{id}` the key of everything again, {REKEY}",
        open.join(", ")
    )))
}

/// What is written when the encryption of a store begins. With `has_plain` it has values from before.
pub(crate) fn begin(keys: &Keyring, has_plain: bool) -> Result<Beginning, StoreError> {
    let store = uuid::Uuid::now_v7().simple().to_string();
    let cipher = Cipher::new(keys.clone(), store.clone(), has_plain);
    let state = state(&cipher, has_plain)?;
    Ok(Beginning { store, state, cipher })
}

/// The stored state.
pub(crate) fn state(cipher: &Cipher, has_plain: bool) -> Result<Vec<u8>, StoreError> {
    let text = serde_json::to_vec(&State { has_plain }).map_err(|error| StoreError::Invalid(error.to_string()))?;
    cipher.pack(Place::State, &text)
}

/// What the active key proves itself with.
pub(crate) fn proof(cipher: &Cipher, id: &str) -> Result<Vec<u8>, StoreError> {
    cipher.pack(Place::Key { id }, PROOF)
}

/// How far a store is encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Encryption {
    /// Since when nothing plain is written; none when nothing is encrypted.
    pub began_at: Option<Timestamp>,
    /// Since when nothing plain is read; none while values from before are plain.
    pub complete_at: Option<Timestamp>,
    /// The keys that values are encrypted with.
    pub keys: Vec<String>,
    /// How many values are of which key, when they were counted. Those of no key are plain.
    pub values: Option<Vec<Counted>>,
}

/// Values of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// The key; none of plain values.
    pub key: Option<String>,
    /// How many.
    pub values: u64,
}

/// What is told while a store is rekeyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The table at work.
    pub table: &'static str,
    /// Values encrypted so far.
    pub values: u64,
}

/// What a rekey did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rekeyed {
    /// The key that everything is encrypted with.
    pub key: String,
    /// Whether there were plain values.
    pub from_plain: bool,
    /// Values that were encrypted by this call.
    pub values: u64,
    /// Keys that no value is encrypted with any more.
    pub retired: Vec<String>,
    /// What may still hold plain values on the device, and what removes it; none when nothing does.
    pub remains: Option<String>,
}

/// Refuses a rekey that a living worker would not survive.
///
/// # Errors
/// [`StoreError::Invalid`] that names the workers.
pub(crate) fn check_workers(workers: &[WorkerRow], was_plain: bool, key: &str) -> Result<(), StoreError> {
    let knows = |row: &WorkerRow| !was_plain && row.registration.keys.first().is_some_and(|id| **id == *key);
    let names: Vec<String> =
        workers.iter().filter(|row| row.is_alive && !knows(row)).map(|row| format!("`{}`", row.id)).collect();
    if names.is_empty() {
        return Ok(());
    }
    let names = names.join(", ");
    Err(StoreError::Invalid(match was_plain {
        true => {
            format!("workers are at work that would write plain values: stop {names}, and start them with the keys")
        }
        false => {
            format!("workers are at work that encrypt with another key: make `{key}` the active key of {names} first")
        }
    }))
}

/// Values of the old key keep coming.
pub(crate) fn unfinished(left: u64, key: &str) -> StoreError {
    StoreError::Unavailable(format!(
        "{left} values are not of key `{key}` still, because something goes on to write others past the rules of the store; \
         stop it, and repeat {REKEY}"
    ))
}

/// Another process makes another key that of everything.
pub(crate) fn crossed(open: &[String]) -> StoreError {
    let open = open.join("`, `");
    StoreError::Unavailable(format!(
        "values may be written with `{open}` again: another {REKEY} with another key goes on; let one of them end, and repeat \
         this one"
    ))
}

/// No moment was found in which nobody was about to write.
pub(crate) fn busy(error: &StoreError) -> StoreError {
    StoreError::Unavailable(format!(
        "something reads the keys of the store for long, such as a backup: repeat {REKEY} once it has ended ({error})"
    ))
}
