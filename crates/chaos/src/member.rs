//! One worker process of the fleet, and the signals that are sent to it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

/// Bytes of a log that are told when its process ended by itself.
const TAIL_BYTES: usize = 2_000;

/// What a worker is started with.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its name: the number of its place, and of the process in that place.
    pub name: String,
    /// Its configuration.
    pub config: PathBuf,
    /// The address of its store, which may be that of a proxy.
    pub store_url: String,
    /// The file for the records of its history.
    pub history: PathBuf,
}

/// A worker process.
#[derive(Debug)]
pub(crate) struct Member {
    /// Its name.
    pub(crate) name: String,
    child: Child,
    log: PathBuf,
    /// Whether it is stopped.
    pub(crate) is_stopped: bool,
}

impl Member {
    /// Starts a process. Its output and its log go to a file beside its history.
    pub(crate) fn start(place: &Place, command: std::process::Command) -> io::Result<Self> {
        let log = place.history.with_extension("log");
        let file = File::create(&log)?;
        let mut command = Command::from(command);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).kill_on_drop(true);
        Ok(Self { name: place.name.clone(), child: command.spawn()?, log, is_stopped: false })
    }

    /// Sends a signal. False when the process has ended.
    pub(crate) fn signal(&mut self, signal: Signal) -> bool {
        let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) else { return false };
        match signal {
            Signal::SIGSTOP => self.is_stopped = true,
            Signal::SIGCONT | Signal::SIGKILL => self.is_stopped = false,
            _ => {}
        }
        kill(Pid::from_raw(pid), signal).is_ok()
    }

    /// How it ended, when it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Kills it and waits until it is gone.
    pub(crate) async fn kill(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::SIGKILL);
        self.child.wait().await
    }

    /// Asks it to end and waits. None when it did not in time, and was killed.
    pub(crate) async fn end(&mut self, patience: Duration) -> Option<ExitStatus> {
        self.signal(Signal::SIGCONT);
        self.signal(Signal::SIGTERM);
        match tokio::time::timeout(patience, self.child.wait()).await {
            Ok(status) => status.ok(),
            Err(_) => {
                // One that cannot be killed is gone.
                let _gone = self.kill().await;
                None
            }
        }
    }

    /// The end of its log.
    pub(crate) fn tail(&self) -> String {
        tail(&self.log)
    }
}

fn tail(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let from = bytes.len().saturating_sub(TAIL_BYTES);
    String::from_utf8_lossy(&bytes[from..]).into_owned()
}
