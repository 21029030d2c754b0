//! Secrets that something else keeps: a keychain or a vault, asked by a command of the operator.
//!
//! A command is run when its secret is first needed, and again in the background once its answer is old, so that nobody who
//! makes a call waits for it twice. What it says is never shown or logged, whatever it is.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use secrecy::{ExposeSecret, SecretString};
use tokio::runtime::{Handle, RuntimeFlavor};

use super::VALUE_BYTES_MAX;

/// How long a command that failed is left alone, when its answers are kept for longer.
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// How long it is waited for the end of a program that was killed.
const REAPED_WITHIN: Duration = Duration::from_secs(1);

/// How the keepers of secrets are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commands {
    /// Of each secret the program and its arguments. No shell reads them.
    pub programs: BTreeMap<String, Vec<String>>,
    /// The folder that they run in.
    pub folder: PathBuf,
    /// How long one may take.
    pub timeout: Duration,
    /// How old an answer may be before it is asked for again.
    pub fresh: Duration,
}

/// What is known of one secret.
#[derive(Default)]
struct Answer {
    value: Option<SecretString>,
    /// The value before, which is kept out of texts too.
    previous: Option<SecretString>,
    /// When it is asked for again; none before it was asked for.
    again_at: Option<Instant>,
    /// Somebody is asking in the background.
    asking: bool,
}

/// One secret.
#[derive(Default)]
struct Keeper {
    answer: Mutex<Answer>,
    /// Held by whoever asks first, so that everybody else waits for that answer.
    first: Mutex<()>,
}

/// Secrets by the commands that tell them.
#[derive(Clone)]
pub(crate) struct Asked {
    commands: Arc<Commands>,
    keepers: Arc<BTreeMap<String, Keeper>>,
    /// Grows with every value that is another one than before.
    generation: Arc<AtomicU64>,
    /// The same without the answers that were the first ones: whoever needed those waited for them.
    changes: Arc<AtomicU64>,
    /// Programs that could not be killed, such as those of another user.
    unreaped: Arc<Mutex<Vec<Child>>>,
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").field("commands", &self.commands).finish_non_exhaustive()
    }
}

impl Keeper {
    fn answer(&self) -> MutexGuard<'_, Answer> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_new(&self) -> bool {
        self.answer().again_at.is_none()
    }
}

impl Asked {
    pub(crate) fn new(commands: Commands) -> Self {
        let keepers = commands.programs.keys().map(|name| (name.clone(), Keeper::default())).collect();
        let (generation, changes, unreaped) = (Arc::default(), Arc::default(), Arc::default());
        Self { commands: Arc::new(commands), keepers: Arc::new(keepers), generation, changes, unreaped }
    }

    /// Whether a command tells this secret.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.keepers.contains_key(name)
    }

    /// The names of the secrets that commands tell.
    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        self.keepers.keys()
    }

    /// The value of a secret; none when its keeper does not tell it. Waits for the command only where there was no answer
    /// yet.
    pub(crate) fn value(&self, name: &str) -> Option<SecretString> {
        let keeper = self.keepers.get(name)?;
        if keeper.is_new() {
            unhurried(|| self.ask_first(name, keeper));
        } else {
            self.renew(name, keeper);
        }
        keeper.answer().value.clone()
    }

    fn ask_first(&self, name: &str, keeper: &Keeper) {
        let _first = keeper.first.lock().unwrap_or_else(PoisonError::into_inner);
        if keeper.is_new()
            && let Err(why) = self.ask(name)
        {
            tracing::error!(secret = name, error = %why, "the command of a secret does not tell it");
        }
    }

    /// Asks for a secret now.
    ///
    /// # Errors
    /// Why its command does not tell it, with nothing of what it said.
    pub(crate) fn check(&self, name: &str) -> Result<(), String> {
        self.ask(name)
    }

    /// Every value that was told.
    pub(crate) fn values(&self) -> Vec<SecretString> {
        let both = |keeper: &Keeper| {
            let answer = keeper.answer();
            answer.value.iter().chain(&answer.previous).cloned().collect::<Vec<_>>()
        };
        self.keepers.values().flat_map(both).collect()
    }

    /// A number that changes with the values. Asks again, in the background, for what is old.
    pub(crate) fn generation(&self) -> u64 {
        for (name, keeper) in self.keepers.iter() {
            self.renew(name, keeper);
        }
        self.generation.load(Ordering::Acquire)
    }

    /// How often a value became another one than it was known to be.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    fn renew(&self, name: &str, keeper: &Keeper) {
        {
            let mut answer = keeper.answer();
            if answer.asking || answer.again_at.is_none_or(|at| Instant::now() < at) {
                return;
            }
            answer.asking = true;
        }
        let (asked, of) = (self.clone(), name.to_owned());
        let work = move || {
            if let Err(why) = asked.ask(&of) {
                tracing::error!(secret = of, error = %why, "the command of a secret does not tell it; the last value stays");
            }
        };
        if std::thread::Builder::new().name("windlass-secret".into()).spawn(work).is_err() {
            keeper.answer().asking = false;
        }
    }

    /// Runs the command. The last value stays when it fails.
    fn ask(&self, name: &str) -> Result<(), String> {
        let (Some(keeper), Some(program)) = (self.keepers.get(name), self.commands.programs.get(name)) else {
            return Err("no command tells it".into());
        };
        let told = self.run(program);
        let mut answer = keeper.answer();
        let is_first = answer.again_at.is_none();
        let pause = if told.is_ok() { self.commands.fresh } else { self.commands.fresh.min(AGAIN_MAX) };
        (answer.again_at, answer.asking) = (Some(Instant::now() + pause), false);
        let value = told?;
        let is_same = answer.value.as_ref().is_some_and(|old| old.expose_secret() == value.expose_secret());
        if !is_same {
            answer.previous = answer.value.replace(value);
            self.generation.fetch_add(1, Ordering::AcqRel);
            self.changes.fetch_add(u64::from(!is_first), Ordering::AcqRel);
        }
        Ok(())
    }

    /// What a program tells. One that cannot be ended is reaped by whoever runs one after it has ended.
    fn run(&self, program: &[String]) -> Result<SecretString, String> {
        let unreaped = || self.unreaped.lock().unwrap_or_else(PoisonError::into_inner);
        unreaped().retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        let (said, left) = run(program, &self.commands.folder, self.commands.timeout);
        unreaped().extend(left);
        said
    }
}

/// Waits for a program without keeping other work of the same thread from going on.
fn unhurried(work: impl FnOnce()) {
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// What a program writes to stdout, without the line break at its end, and the program where it could not be ended. No error
/// has anything of what it wrote. When it is done with, nothing that it started is left in its process group, and nothing
/// here waits for what is left elsewhere.
fn run(program: &[String], folder: &Path, timeout: Duration) -> (Result<SecretString, String>, Option<Child>) {
    let Some((name, arguments)) = program.split_first() else { return (Err("it names no program".into()), None) };
    let mut command = Command::new(name);
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = match command.process_group(0).spawn() {
        Ok(child) => child,
        Err(error) => return (Err(format!("`{name}` cannot be started: {error}")), None),
    };
    let group = i32::try_from(child.id()).ok().map(Pid::from_raw);
    let said = listen(&mut child, name, timeout);
    // One that has ended with all it started need not be killed.
    let _gone = group.map(|group| killpg(group, Signal::SIGKILL));
    let left = until_ended(&mut child, REAPED_WITHIN).is_none();
    (said, left.then_some(child))
}

fn listen(child: &mut Child, name: &str, timeout: Duration) -> Result<SecretString, String> {
    let stdout = child.stdout.take().ok_or_else(|| format!("`{name}` has no output"))?;
    let begun = Instant::now();
    let read = read(stdout, begun, timeout).map_err(|error| format!("`{name}` cannot be read: {error}"))?;
    let bytes = read.ok_or_else(|| format!("`{name}` did not answer in {timeout:?}"))?;
    if bytes.len() as u64 > VALUE_BYTES_MAX + 1 {
        return Err(format!("`{name}` says more than {VALUE_BYTES_MAX} bytes"));
    }
    match until_ended(child, timeout.saturating_sub(begun.elapsed())) {
        Some(status) if status.success() => {}
        Some(status) => return Err(format!("`{name}` ended with {status}")),
        None => return Err(format!("`{name}` did not end in {timeout:?}")),
    }
    let text = String::from_utf8(bytes).map_err(|_| format!("`{name}` says what is no text"))?;
    let text = text.strip_suffix('\n').map_or(&*text, |text| text.strip_suffix('\r').unwrap_or(text));
    if text.len() as u64 > VALUE_BYTES_MAX {
        return Err(format!("`{name}` says more than {VALUE_BYTES_MAX} bytes"));
    }
    if text.trim().is_empty() {
        return Err(format!("`{name}` says nothing"));
    }
    if text.contains('\0') {
        return Err(format!("`{name}` says what is no text"));
    }
    Ok(text.into())
}

/// What is written until nobody can write any more, or until it is more than a secret has; none when that takes too long. The
/// pipe is closed then, whoever has its other end.
fn read(mut stdout: ChildStdout, begun: Instant, timeout: Duration) -> io::Result<Option<Vec<u8>>> {
    let (mut bytes, mut part) = (Vec::new(), [0; 4 * 1024]);
    while bytes.len() as u64 <= VALUE_BYTES_MAX + 1 {
        let left = timeout.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return Ok(None);
        }
        let wait = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)], wait) {
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        // There is something, or its end: this does not wait.
        match stdout.read(&mut part)? {
            0 => break,
            count => bytes.extend_from_slice(&part[..count]),
        }
    }
    Ok(Some(bytes))
}

/// How a program ended; none when it did not in this time. It has closed its output, so it is about to.
fn until_ended(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let begun = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if begun.elapsed() < patience => std::thread::sleep(Duration::from_millis(2)),
            Ok(None) | Err(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(folder: &Path, program: &[&str], fresh: Duration) -> Asked {
        let program = program.iter().map(|word| (*word).to_owned()).collect();
        let programs = BTreeMap::from([("a".to_owned(), program)]);
        let timeout = Duration::from_secs(20);
        Asked::new(Commands { programs, folder: folder.to_owned(), timeout, fresh })
    }

    fn shown(value: Option<SecretString>) -> Option<String> {
        value.map(|value| value.expose_secret().to_owned())
    }

    #[test]
    fn a_command_tells_a_secret_and_is_asked_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let script = "echo asked >> asked; printf 'what it is\\n'";
        let asked = asked(folder.path(), &["sh", "-c", script], Duration::from_secs(3_600));
        assert!(asked.has("a") && !asked.has("b"));
        assert!(asked.values().is_empty(), "nobody has asked");
        for _ in 0..3 {
            assert_eq!(shown(asked.value("a")).as_deref(), Some("what it is"));
        }
        assert_eq!((asked.generation(), asked.changes(), asked.values().len()), (1, 0, 1));
        assert_eq!(std::fs::read_to_string(folder.path().join("asked")).expect("read"), "asked\n");
        assert!(!format!("{asked:?}").contains("what it is\""));
    }

    #[test]
    fn what_a_keeper_says_later_is_taken_up_and_a_failure_changes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let say = |text: &str| std::fs::write(folder.path().join("kept"), text).expect("written");
        say("one");
        let asked = asked(folder.path(), &["cat", "kept"], Duration::ZERO);
        assert_eq!(shown(asked.value("a")).as_deref(), Some("one"));
        say("two");
        while asked.generation() < 2 {
            std::thread::yield_now();
        }
        assert_eq!(asked.changes(), 1, "the first answer is no change");
        let values: Vec<_> = asked.values().into_iter().map(|value| shown(Some(value)).unwrap_or_default()).collect();
        assert_eq!(values, ["two", "one"], "the value before is kept out of texts too");
        std::fs::remove_file(folder.path().join("kept")).expect("removed");
        asked.check("a").expect_err("it is gone");
        assert_eq!(shown(asked.value("a")).as_deref(), Some("two"));
    }

    #[test]
    fn what_is_no_answer_is_refused_without_being_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let refused = |program: &[&str], timeout: Duration| {
            let program: Vec<String> = program.iter().map(|word| (*word).to_owned()).collect();
            run(&program, folder.path(), timeout).0.expect_err("refused")
        };
        let patient = Duration::from_secs(60);
        for (program, said) in [
            (&["sh", "-c", "echo canary-9b1; exit 3"][..], "ended with exit status: 3"),
            (&["sh", "-c", "echo canary-9b1 >&2"], "says nothing"),
            (&["sh", "-c", "head -c 200000 /dev/zero | tr '\\0' c"], "says more than 65536 bytes"),
            (&["sh", "-c", "printf 'canary-9b1\\0'"], "is no text"),
            (&["sh", "-c", "printf '\\377'"], "is no text"),
            (&["there-is-no-such-program-9b1"], "cannot be started"),
            (&[], "names no program"),
        ] {
            let why = refused(program, patient);
            assert!(why.contains(said), "{why}");
            assert!(!why.contains("canary"), "{why}");
        }
        // What it left running has its output open, and is ended with it.
        for slow in ["echo canary-9b1; exec sleep 600", "sleep 600 & echo canary-9b1"] {
            let why = refused(&["sh", "-c", slow], Duration::from_millis(50));
            assert!(why.contains("did not") && !why.contains("canary"), "{why}");
        }
    }

    /// The threads of this process.
    fn threads() -> usize {
        std::fs::read_dir("/proc/self/task").expect("a list").count()
    }

    #[test]
    fn what_left_the_process_group_and_keeps_the_output_open_holds_nothing_here() {
        let folder = tempfile::tempdir().expect("a folder");
        // It is there before anything is said, and in a session of its own, where it is not ended with the program.
        let away =
            "setsid sh -c 'echo $$ > pid.new; mv pid.new pid; exec sleep 600' & until [ -e pid ]; do :; done; echo a";
        let program = ["sh", "-c", away].map(str::to_owned);
        let before = threads();
        let mut timeout = Duration::from_millis(100);
        // On a busy machine it may not be there in time: it is tried again with more.
        let left = loop {
            let why = run(&program, folder.path(), timeout).0.expect_err("its output stays open");
            assert!(why.contains("did not answer in"), "{why}");
            match std::fs::read_to_string(folder.path().join("pid")) {
                Ok(pid) => break Pid::from_raw(pid.trim().parse().expect("a pid")),
                Err(_) => timeout *= 2,
            }
        };
        assert_eq!(threads(), before, "nobody waits for it");
        nix::sys::signal::kill(left, Signal::SIGKILL).expect("it lives, and is ended by this test");
    }
}
