//! A worker process of this program, looked at from outside.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use super::field::Field;
use crate::exit::{Exit, Problem};
use crate::process;

/// A process of `windlass worker`, killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Worker {
    child: Child,
    said: BufReader<ChildStdout>,
}

/// What was seen of a process so far.
#[derive(Debug)]
pub(crate) struct Spent(BTreeMap<OsString, u64>);

fn failed(what: &dyn std::fmt::Display) -> Problem {
    Problem::new(Exit::Unreachable, "cli.io", format!("a worker process cannot be used: {what}"))
}

impl Worker {
    /// Starts a worker on the store of a field, with a configuration and nothing else that changes how it works.
    ///
    /// # Errors
    /// The process cannot be started.
    pub(crate) fn start(field: &Field, config: &Path) -> Result<Self, Problem> {
        let program = std::env::current_exe().map_err(|error| failed(&error))?;
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("WINDLASS") {
                command.env_remove(name);
            }
        }
        command.args(["worker", "--quiet", "--json", "--store", field.url(), "--config"]).arg(config);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| failed(&error))?;
        let stdout = child.stdout.take().ok_or_else(|| failed(&"it has no stdout"))?;
        Ok(Self { child, said: BufReader::new(stdout) })
    }

    /// Waits until it says that it serves.
    ///
    /// # Errors
    /// It ended instead.
    pub(crate) async fn up(&mut self) -> Result<(), Problem> {
        let mut line = String::new();
        match self.said.read_line(&mut line).await {
            Ok(bytes) if bytes > 0 && line.contains("\"role\"") => Ok(()),
            Ok(_) => Err(failed(&format!("it did not start: {}", line.trim()))),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Kills it, and waits until it is gone.
    ///
    /// # Errors
    /// It cannot be killed.
    pub(crate) async fn kill(mut self) -> Result<(), Problem> {
        self.child.kill().await.map_err(|error| failed(&error))
    }

    /// The most memory that it used, in megabytes.
    #[must_use]
    pub(crate) fn rss_mb(&self) -> Option<f64> {
        self.child.id().and_then(process::resident_bytes_peak_of).map(process::megabytes)
    }

    /// The time that it has been on a processor so far.
    #[must_use]
    pub(crate) fn spent(&self) -> Option<Spent> {
        self.child.id().and_then(process::processor_nanos_of).map(Spent)
    }
}

impl Spent {
    /// The time on a processor since then, in seconds.
    #[must_use]
    pub(crate) fn seconds_since(&self, before: &Self) -> f64 {
        process::growth(&before.0, &self.0) as f64 / 1e9
    }
}
