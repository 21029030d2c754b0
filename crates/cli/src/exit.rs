//! How the process ends: the documented exit codes, and the error that a command reports.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value as Json, json};
use windlass_core::failure::Code;
use windlass_ports::store::{StoreError, THE_STORE};

/// The exit codes. Scripts rely on them: a number never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done.
    Ok = 0,
    /// A fault of Windlass itself.
    Bug = 1,
    /// Wrong usage, or a document, configuration or input that is not valid.
    Invalid = 2,
    /// The run failed; also a failed test, finding of `fsck` or difference of `verify`.
    Failed = 3,
    /// Not found, or refused because of what is stored.
    Rejected = 4,
    /// The command itself was denied before any run existed.
    Denied = 5,
    /// The store, or something else the command needs, cannot be reached.
    Unreachable = 6,
    /// The run is parked: it waits for a person, a signal, or a time beyond `--wait`.
    Parked = 7,
    /// Stopped by a signal from the terminal or the system.
    Interrupted = 130,
}

impl Exit {
    /// Every code with its meaning, for the documentation.
    pub(crate) const TABLE: &'static [(Self, &'static str)] = &[
        (Self::Ok, "done"),
        (Self::Bug, "a fault of Windlass itself"),
        (Self::Invalid, "wrong usage, or a document, configuration or input that is not valid"),
        (
            Self::Failed,
            "the run failed (a limit without an approval path too), a test failed, or a check found something",
        ),
        (Self::Rejected, "not found, or refused because of what is stored"),
        (Self::Denied, "the command itself was denied before any run existed"),
        (Self::Unreachable, "the store or another dependency cannot be reached"),
        (Self::Parked, "the run is parked: it waits for a person, a signal, or a time beyond `--wait`"),
        (Self::Interrupted, "interrupted; the run can be resumed at once"),
    ];

    /// The number.
    #[must_use]
    pub(crate) fn code(self) -> u8 {
        self as u8
    }
}

/// Why a command did not do what was asked.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    /// How the process ends.
    pub exit: Exit,
    /// A stable word: a code of the engine, or `cli.*`.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// The way out.
    pub hint: Option<String>,
    /// More members of the JSON form's `error`.
    pub detail: Box<Map<String, Json>>,
}

impl Problem {
    /// A problem with an exit code, a stable word and a text.
    #[must_use]
    pub(crate) fn new(exit: Exit, code: &'static str, message: impl Into<String>) -> Self {
        Self { exit, code, message: message.into(), hint: None, detail: Box::default() }
    }

    /// Wrong usage or input.
    #[must_use]
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Exit::Invalid, "cli.invalid", message)
    }

    /// No such run.
    #[must_use]
    pub(crate) fn unknown_run(run: &str) -> Self {
        Self::new(Exit::Rejected, "cli.not_found", format!("no run `{run}` in this store"))
            .hint("`windlass runs list` shows the runs; `--store` chooses the store")
    }

    /// Refused because of what is stored.
    #[must_use]
    pub(crate) fn rejected(message: impl Into<String>) -> Self {
        Self::new(Exit::Rejected, Code::StoreConflict.as_str(), message)
    }

    /// What is named is not there.
    #[must_use]
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Exit::Rejected, "cli.not_found", message)
    }

    /// A fault of Windlass.
    #[must_use]
    pub(crate) fn bug(message: impl Into<String>) -> Self {
        Self::new(Exit::Bug, Code::InternalInvariant.as_str(), message)
    }

    /// The same with a way out.
    #[must_use]
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// The same with one more member of the JSON form.
    #[must_use]
    pub(crate) fn detail(mut self, key: &str, value: impl Into<Json>) -> Self {
        self.detail.insert(key.into(), value.into());
        self
    }

    /// The same with the name of the store whose disk is full.
    #[must_use]
    pub(crate) fn of_store(self, store: &str) -> Self {
        let full = format!("the disk of {THE_STORE} is full");
        Self { message: self.message.replacen(&full, &format!("the disk of `{store}` is full"), 1), ..self }
    }

    /// The JSON form: `{"error": {"code", "message", "hint"?, ...}}`.
    #[must_use]
    pub(crate) fn document(&self) -> Json {
        let mut error = Map::new();
        error.insert("code".into(), self.code.into());
        error.insert("message".into(), self.message.clone().into());
        if let Some(hint) = &self.hint {
            error.insert("hint".into(), hint.clone().into());
        }
        error.extend((*self.detail).clone());
        json!({ "error": error })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let (exit, code) = match &error {
            StoreError::Unavailable(_) | StoreError::NewerSchema { .. } => {
                (Exit::Unreachable, Code::StoreUnavailable.as_str())
            }
            StoreError::Corrupt(_) => (Exit::Unreachable, Code::StoreCorrupt.as_str()),
            StoreError::Invalid(_) => (Exit::Invalid, "cli.invalid"),
            StoreError::Key(_) => (Exit::Rejected, "cli.key"),
        };
        let hint = match &error {
            full if full.is_disk_full() => {
                "make room on that disk; nothing was written in part, and what is tried again works"
            }
            StoreError::Unavailable(why) => way_to_the_store(why),
            StoreError::NewerSchema { .. } => "use the build that wrote this store, or a newer one",
            StoreError::Corrupt(_) => {
                "`windlass fsck` lists what is damaged; restore a copy made by `windlass store backup`"
            }
            StoreError::Invalid(why) if why.contains("is not a cursor") => {
                "`--cursor` takes what the page before printed; without it a list begins"
            }
            StoreError::Invalid(_) => "`--store sqlite:PATH` names a store",
            StoreError::Key(_) => {
                "`[encryption]` in the configuration has the keys; nothing was changed. See docs/encryption.md"
            }
        };
        Self::new(exit, code, error.to_string()).hint(hint)
    }
}

/// What to look at when a store is unavailable. A database says in its own words why; what is left concerns a file.
fn way_to_the_store(why: &str) -> &'static str {
    let says = |words: &[&str]| words.iter().any(|word| why.contains(word));
    let is_of_database = says(&["the database `", "the connection to the database", "the database refused"]);
    if says(&["takes no writes"]) {
        "name the primary in the address of `--store`, and let its role write (`default_transaction_read_only = off`)"
    } else if says(&["does not accept the password", "` does not let `"]) {
        "check the user and the password in the address of `--store`, and what the server's `pg_hba.conf` lets in"
    } else if says(&["` does not exist; make it with `createdb "]) {
        "make the database, or name another in the address of `--store`"
    } else if is_of_database && says(&["TLS", "certificate"]) {
        "check `sslmode` and `sslrootcert` in the address of `--store`, and the certificate of the server"
    } else if says(&["has no connection left", "connection pooler"]) {
        "the message says what to change at the server or in the address of `--store`"
    } else if is_of_database {
        "check that the server runs, and that host, port and name in the address of `--store` are right"
    } else {
        "check that the path of `--store` can be written and its disk has space"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_code_is_documented_once() {
        let codes: Vec<u8> = Exit::TABLE.iter().map(|(exit, _)| exit.code()).collect();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7, 130]);
    }

    #[test]
    fn a_full_disk_is_named_with_the_way_out() {
        let problem = Problem::from(StoreError::disk_full("the database server", "could not extend file (53100)"));
        assert_eq!(problem.exit, Exit::Unreachable);
        assert!(problem.message.ends_with("the disk of the database server is full: could not extend file (53100)"));
        assert!(problem.hint.is_some_and(|hint| hint.contains("make room")));
        let problem =
            Problem::from(StoreError::disk_full(THE_STORE, "database or disk is full")).of_store("sqlite:w.db");
        assert!(problem.message.contains("the disk of `sqlite:w.db` is full"), "{problem}");
    }

    #[test]
    fn the_hint_fits_why_the_store_is_unavailable() {
        for (why, part) in [
            ("the database `db:5432/w` does not accept the password of `ann`", "the user and the password"),
            ("the database `db:5432/w` does not let `ann` in: no entry (28000)", "the user and the password"),
            ("the database `db:5432/w` does not exist; make it with `createdb w`", "make the database"),
            ("the database `db:5432/w` cannot be reached: error performing TLS handshake: x", "`sslmode`"),
            ("the database `db:5432/w` cannot be reached: error connecting to server: x", "the server runs"),
            ("the database `db:5432/w` has no connection left; raise its `max_connections`", "the message says"),
            ("the connection to the database failed: closed", "the server runs"),
            ("`db:5432/w` is a standby and takes no writes; use the address of its primary", "the primary"),
            ("cannot make the directory of `file/w.db`: File exists", "the path of `--store`"),
            ("unable to open database file", "the path of `--store`"),
        ] {
            let hint = Problem::from(StoreError::Unavailable(why.into())).hint.expect("a hint");
            assert!(hint.contains(part), "{why}: {hint}");
        }
    }

    #[test]
    fn the_json_form_carries_code_message_and_hint() {
        let problem = Problem::unknown_run("x").detail("run_id", "x");
        let document = problem.document();
        assert_eq!(document["error"]["code"], "cli.not_found");
        assert_eq!(document["error"]["run_id"], "x");
        assert!(document["error"]["hint"].is_string());
    }
}
