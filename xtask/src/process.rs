//! Runs other programs from the workspace's folder: cargo, the windlass binary, python.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A `cargo` command. Uses the cargo that runs this program.
pub(crate) fn cargo(root: &Path, args: &[&str]) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(root).args(args).stdin(Stdio::null());
    command
}

/// The windlass binary that the same cargo profile built, beside this program.
///
/// # Errors
/// It has not been built.
pub(crate) fn windlass() -> Result<PathBuf> {
    let here = std::env::current_exe().context("cannot tell where this program is")?;
    let path = here.with_file_name("windlass");
    if !path.is_file() {
        bail!("`{}` does not exist; build it with `cargo build`", path.display());
    }
    Ok(path)
}

/// The folder of the user for what can be fetched again.
///
/// # Errors
/// The environment names none.
pub(crate) fn cache() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    cache.context("neither XDG_CACHE_HOME nor HOME is set")
}

/// Runs a command to its end, its output passing through.
///
/// # Errors
/// It cannot be started, or does not succeed.
pub(crate) fn run(mut command: Command) -> Result<()> {
    let shown = show(&command);
    let status = command.status().with_context(|| format!("cannot start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` ended with {status}");
    }
    Ok(())
}

/// Runs a command to its end, its output passing through, and gives back every line it wrote, and whether it
/// succeeded.
///
/// # Errors
/// It cannot be started.
pub(crate) fn run_watched(mut command: Command) -> Result<(Vec<String>, bool)> {
    let shown = show(&command);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    let stdout = child.stdout.take().context("no stdout")?;
    let stderr = child.stderr.take().context("no stderr")?;
    let reader = std::thread::spawn(move || pass_through(stderr, |line| eprintln!("{line}")));
    let mut lines = pass_through(stdout, |line| println!("{line}"));
    lines.extend(reader.join().unwrap_or_default());
    let status = child.wait().with_context(|| format!("cannot wait for `{shown}`"))?;
    Ok((lines, status.success()))
}

fn pass_through(from: impl Read, show: impl Fn(&str)) -> Vec<String> {
    let mut lines = Vec::new();
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
        show(&text);
        lines.push(text);
        line.clear();
    }
    lines
}

/// Runs a command to its end and gives back what it wrote to stdout.
///
/// # Errors
/// It cannot be started or does not succeed; its stderr is in the message.
pub(crate) fn output(mut command: Command) -> Result<Vec<u8>> {
    let shown = show(&command);
    let output = command.output().with_context(|| format!("cannot start `{shown}`"))?;
    if !output.status.success() {
        bail!("`{shown}` ended with {}\n{}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(output.stdout)
}

/// Whether a program answers when asked for its version.
pub(crate) fn answers(program: &str, args: &[&str]) -> bool {
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn show(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
    std::iter::once(name)
        .chain(command.get_args().map(|arg| arg.to_string_lossy().into_owned()))
        .collect::<Vec<_>>()
        .join(" ")
}
