//! The process group of a child, which ends with whoever started it, however that one ends.
//!
//! The group's first member is a guard: a shell that waits for the end of a pipe whose other end only this process has,
//! and then kills the group that it is in. The child is born into the group, so there is no moment in which it runs
//! unguarded, and the guard keeps the group's number from being given to others. Owns the guard and the signals to the
//! group; what runs in it is started elsewhere.

use std::io::{self, PipeWriter};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

/// The shell that guards are, which every Unix has at this place.
const SHELL: &str = "/bin/sh";
/// Signals for the group that ask to end are for the child; the guard goes last, by its own hand.
const GUARD: &str = "trap '' HUP INT QUIT TERM; read -r _; kill -s KILL 0";

/// A process group; what is left of it is killed on drop, and by its guard when this process ends without one.
#[derive(Debug)]
pub(crate) struct Group {
    leader: Pid,
    gone: AtomicBool,
    /// Reaped when the group is dropped: until then no other group can have its number.
    _guard: Child,
    /// Never written to. It closes with this process.
    _lifeline: PipeWriter,
}

impl Group {
    /// A group with nothing in it but its guard.
    pub(crate) fn new() -> io::Result<Self> {
        let (end, lifeline) = io::pipe()?;
        let guard = Command::new(SHELL)
            .args(["-c", GUARD])
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(end))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                let why = format!("`{SHELL}`, which ends commands with their worker, cannot be started: {error}");
                io::Error::new(error.kind(), why)
            })?;
        let leader = guard.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let leader = leader.ok_or_else(|| io::Error::other("the guard of a command ended at once"))?;
        Ok(Self { leader, gone: AtomicBool::new(false), _guard: guard, _lifeline: lifeline })
    }

    /// What a child joins it by.
    pub(crate) fn id(&self) -> i32 {
        self.leader.as_raw()
    }

    /// Signals all that is in it. The guard takes no notice of those that ask to end.
    pub(crate) fn signal(&self, signal: Signal) {
        if !self.gone.load(Ordering::Relaxed) {
            // An error means that no process of the group is left.
            let _ = killpg(self.leader, signal);
        }
    }

    /// Kills what is left.
    pub(crate) fn finish(&self) {
        self.signal(Signal::SIGKILL);
        self.gone.store(true, Ordering::Relaxed);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.finish();
    }
}
