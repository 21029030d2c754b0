//! One child process: a cleared environment, its own process group, bounded time and output.
//!
//! Owns starting, feeding and reading; the group and its end are in `group`. What a result means is decided by the callers.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::group::Group;

/// Bytes of standard error that a failure carries: the last ones.
const STDERR_BYTES_MAX: usize = 2 * 1024;
/// Time between SIGTERM and SIGKILL, taken from the end of the call's own time.
const GRACE_MS_MAX: u64 = 1_000;

/// The most that a pipe holds where nobody has raised it, in bytes. What comes after that was written later.
const PIPE_BYTES_MAX: usize = 1024 * 1024;

/// A program with everything that is the same for each of its calls.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// Program and arguments, passed as they are: no shell reads them.
    pub(crate) argv: Vec<String>,
    /// What stands before them: the programs that set bounds and then become this one.
    pub(crate) prefix: Vec<OsString>,
    /// Working directory.
    pub(crate) dir: PathBuf,
    /// The whole environment, but for what is set with each call.
    pub(crate) env: Vec<(String, EnvValue)>,
}

/// The value of an environment variable.
#[derive(Clone, Debug)]
pub(crate) enum EnvValue {
    /// Passed on or written in the configuration.
    Plain(OsString),
    /// Never shown.
    Secret(SecretString),
}

/// A process that ended by itself.
#[derive(Debug)]
pub(crate) struct Ended {
    /// How.
    pub(crate) status: ExitStatus,
    /// What it wrote.
    pub(crate) stdout: Vec<u8>,
    /// The last of its messages, without control characters and secrets.
    pub(crate) stderr: String,
}

/// Why there is no result.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It could not be started.
    NotStarted(io::Error),
    /// It ran out of time and was killed.
    TimedOut,
    /// It wrote more than allowed and was killed.
    TooLarge,
    /// Its pipes broke.
    Broken(io::Error),
}

impl Program {
    /// Runs the program once: `stdin` is written and closed, and every process of its group is gone when this
    /// returns or is dropped, and when this process is killed. Processes that left the group by `setsid` are beyond
    /// reach, and nobody waits for them: what counts is what was written when the program ended.
    pub(crate) async fn run(
        &self,
        call_env: &[(&str, &str)],
        stdin: Vec<u8>,
        timeout_ms: u64,
        output_bytes_max: u64,
    ) -> Result<Ended, Trouble> {
        let (mut child, group) = self.start(call_env).map_err(Trouble::NotStarted)?;
        let (input, output, messages) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (over, is_over) = watch::channel(false);
        let work = async {
            tokio::try_join!(
                exit(&mut child, &group, over),
                read_bounded(output, output_bytes_max, is_over.clone()),
                read_tail(messages, is_over.clone()),
                feed(input, stdin, is_over),
            )
        };
        tokio::pin!(work);
        let grace_ms = (timeout_ms / 10).min(GRACE_MS_MAX);
        let soft = Duration::from_millis(timeout_ms.saturating_sub(grace_ms));
        let result = match timeout(soft, &mut work).await {
            Ok(result) => result,
            Err(_) => {
                group.signal(Signal::SIGTERM);
                // Whatever it says from here on is no longer wanted; only its end is.
                let _ = timeout(Duration::from_millis(grace_ms), &mut work).await;
                return Err(Trouble::TimedOut);
            }
        };
        let (status, stdout, stderr, ()) = result?;
        Ok(Ended { status, stdout, stderr: self.shown(&stderr) })
    }

    /// Starts it with pipes, in a process group of its own.
    pub(crate) fn start(&self, call_env: &[(&str, &str)]) -> io::Result<(Child, Group)> {
        let mut words = self.prefix.iter().cloned().chain(self.argv.iter().map(OsString::from));
        let program = words.next().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut command = Command::new(program);
        command.args(words).current_dir(&self.dir).env_clear();
        for (name, value) in &self.env {
            match value {
                EnvValue::Plain(text) => command.env(name, text),
                EnvValue::Secret(secret) => command.env(name, secret.expose_secret()),
            };
        }
        let group = Group::new()?;
        let child = command
            .envs(call_env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(group.id())
            .kill_on_drop(true)
            .spawn()?;
        Ok((child, group))
    }

    /// Text as it may be shown: no secret of this program, no control characters.
    pub(crate) fn shown(&self, bytes: &[u8]) -> String {
        crate::answer::printable(self.redacted(&String::from_utf8_lossy(bytes)).trim())
    }

    /// Text without any secret of this program.
    pub(crate) fn redacted(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (_, value) in &self.env {
            if let EnvValue::Secret(secret) = value
                && !secret.expose_secret().is_empty()
            {
                text = text.replace(secret.expose_secret(), "***");
            }
        }
        text
    }
}

/// Waits for the end of the program, ends its group, and then says that it is over.
async fn exit(child: &mut Child, group: &Group, over: watch::Sender<bool>) -> Result<ExitStatus, Trouble> {
    let status = child.wait().await.map_err(Trouble::Broken)?;
    group.finish();
    over.send_replace(true);
    Ok(status)
}

async fn feed(pipe: Option<ChildStdin>, bytes: Vec<u8>, mut is_over: watch::Receiver<bool>) -> Result<(), Trouble> {
    let Some(mut pipe) = pipe else { return Ok(()) };
    let written = tokio::select! {
        written = pipe.write_all(&bytes) => written,
        _ = is_over.wait_for(|over| *over) => Ok(()),
    };
    match written {
        // A program need not read its input.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Trouble::Broken(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

async fn read_bounded<P>(pipe: Option<P>, bytes_max: u64, is_over: watch::Receiver<bool>) -> Result<Vec<u8>, Trouble>
where
    P: AsyncRead + AsFd + Unpin,
{
    let mut bytes = Vec::new();
    let take = |chunk: &[u8]| {
        bytes.extend_from_slice(chunk);
        if bytes.len() as u64 > bytes_max { Err(Trouble::TooLarge) } else { Ok(()) }
    };
    read(pipe, is_over, take).await?;
    Ok(bytes)
}

async fn read_tail<P>(pipe: Option<P>, is_over: watch::Receiver<bool>) -> Result<Vec<u8>, Trouble>
where
    P: AsyncRead + AsFd + Unpin,
{
    let mut tail = Vec::new();
    let take = |chunk: &[u8]| {
        tail.extend_from_slice(chunk);
        let excess = tail.len().saturating_sub(STDERR_BYTES_MAX);
        tail.drain(..excess);
        Ok(())
    };
    read(pipe, is_over, take).await?;
    Ok(tail)
}

/// Reads a pipe to its end, or to what is in it when the program is over: a process that left the group may hold the
/// other end for ever.
async fn read<P>(
    pipe: Option<P>,
    mut is_over: watch::Receiver<bool>,
    mut take: impl FnMut(&[u8]) -> Result<(), Trouble>,
) -> Result<(), Trouble>
where
    P: AsyncRead + AsFd + Unpin,
{
    let Some(mut pipe) = pipe else { return Ok(()) };
    let mut chunk = [0u8; 8 * 1024];
    loop {
        let read = tokio::select! {
            read = pipe.read(&mut chunk) => read.map_err(Trouble::Broken)?,
            _ = is_over.wait_for(|over| *over) => break,
        };
        if read == 0 {
            return Ok(());
        }
        take(&chunk[..read])?;
    }
    // The pipe blocks nobody: what cannot be read at once is not there.
    let mut left = PIPE_BYTES_MAX;
    while left > 0 {
        match nix::unistd::read(&pipe, &mut chunk) {
            Ok(0) | Err(Errno::EAGAIN) => break,
            Ok(read) => {
                take(&chunk[..read])?;
                left = left.saturating_sub(read);
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Trouble::Broken(errno.into())),
        }
    }
    Ok(())
}

impl Ended {
    /// The exit code, or the negative number of the signal that ended it.
    pub(crate) fn code(&self) -> i64 {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => code.into(),
            (None, Some(signal)) => -i64::from(signal),
            (None, None) => -1,
        }
    }
}
