//! What the host offers: the programs of PostgreSQL, a user to run them as, a place for files, free ports.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::must;

/// Names the folder of the programs, before all other places.
const BIN_VARIABLE: &str = "WINDLASS_PG_BIN";
/// The oldest release that is used.
const MAJOR_MIN: u32 = 15;
/// Ports of servers: below those that the system gives to outgoing connections.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// The programs of one release.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) bin: PathBuf,
    /// Such as `15.18`.
    pub(crate) version: String,
}

/// Who runs the servers when the tests run as root, which PostgreSQL refuses to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct User {
    uid: u32,
    gid: u32,
}

fn version_of(bin: &Path) -> Option<String> {
    let output = Command::new(bin.join("postgres")).arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.split_whitespace().nth(2).map(str::to_owned)
}

fn major(version: &str) -> u32 {
    version.split(|c: char| !c.is_ascii_digit()).next().and_then(|part| part.parse().ok()).unwrap_or_default()
}

fn candidates() -> Vec<PathBuf> {
    if let Some(bin) = std::env::var_os(BIN_VARIABLE) {
        return vec![bin.into()];
    }
    let asked = Command::new("pg_config").arg("--bindir").stdin(Stdio::null()).output();
    let asked = asked.ok().and_then(|output| String::from_utf8(output.stdout).ok());
    let mut found: Vec<PathBuf> = asked.into_iter().map(|text| text.trim().into()).collect();
    let releases = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    found.extend(releases.map(|entry| entry.path().join("bin")));
    found
}

/// The newest release that is there.
pub(crate) fn programs() -> &'static Programs {
    static PROGRAMS: OnceLock<Programs> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let found =
            candidates().into_iter().filter_map(|bin| version_of(&bin).map(|version| Programs { bin, version }));
        let newest = found.filter(|programs| major(&programs.version) >= MAJOR_MIN);
        newest.max_by_key(|programs| major(&programs.version)).unwrap_or_else(|| {
            panic!(
                "no server of PostgreSQL {MAJOR_MIN} or newer is installed: install the package `postgresql`, or set \
                 {BIN_VARIABLE} to the folder of its programs"
            )
        })
    })
}

/// The user of this process.
pub(crate) fn own_uid() -> u32 {
    must(fs::metadata("/proc/self"), "the user of this process is not known").uid()
}

/// The user that servers run as; none when this process may run them itself.
pub(crate) fn user() -> Option<User> {
    if own_uid() != 0 {
        return None;
    }
    let users = must(fs::read_to_string("/etc/passwd"), "the users of this host cannot be read");
    let of = |name: &str| {
        let mut fields =
            users.lines().map(|line| line.split(':')).find(|line| line.clone().next() == Some(name))?.skip(2);
        Some(User { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
    };
    let user = of("postgres").or_else(|| of("nobody"));
    Some(user.unwrap_or_else(|| panic!("a server cannot run as root, and there is no user `postgres` or `nobody`")))
}

/// A command that runs as the user of servers.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    if let Some(user) = user() {
        command.uid(user.uid).gid(user.gid);
    }
    command.stdin(Stdio::null()).current_dir("/").env_remove("LD_PRELOAD");
    // Nothing of the surroundings of a test may change what a server is or who connects to it.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C").env("TZ", "UTC");
    command
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command, what: &str) {
    let output = must(command.output(), format_args!("{what}: `{}`", command.get_program().display()));
    if !output.status.success() {
        let told = [output.stdout, output.stderr].concat();
        panic!("{what}: {}\n{}", output.status, String::from_utf8_lossy(&told));
    }
}

/// Makes a folder that belongs to the user of servers.
pub(crate) fn make_dir(path: &Path, mode: u32) {
    must(fs::create_dir_all(path), format_args!("cannot make `{}`", path.display()));
    must(fs::set_permissions(path, fs::Permissions::from_mode(mode)), "cannot set the rights of a folder");
    if let Some(user) = user() {
        must(chown(path, Some(user.uid), Some(user.gid)), "cannot give a folder to the user of servers");
    }
}

/// Gives a file to the user of servers.
pub(crate) fn own(path: &Path, mode: u32) {
    must(fs::set_permissions(path, fs::Permissions::from_mode(mode)), "cannot set the rights of a file");
    if let Some(user) = user() {
        must(chown(path, Some(user.uid), Some(user.gid)), "cannot give a file to the user of servers");
    }
}

/// The library that turns the clock of a program.
pub(crate) fn faketime() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
    let library = found.find(|path| path.is_file());
    library.unwrap_or_else(|| panic!("the library of `faketime` is missing; install the package `faketime`"))
}

/// A file to be locked, by the user of servers as well.
pub(crate) fn lock_file(path: &Path) -> fs::File {
    let file = fs::OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path);
    let file = must(file, format_args!("cannot open `{}`", path.display()));
    if let Some(user) = user() {
        must(chown(path, Some(user.uid), Some(user.gid)), "cannot give a file to the user of servers");
    }
    file
}

/// A number that no other call gives, in this process or another.
pub(crate) fn unique() -> String {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    format!("{}_{nanos:x}_{number}", std::process::id())
}

/// A port of the loopback address that nobody listens on.
pub(crate) fn free_port() -> u16 {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    let count = PORTS.end - PORTS.start;
    let first = (u64::from(nanos) * 31 + u64::from(std::process::id()) * 977) % u64::from(count);
    let ports = (0..count).map(|n| PORTS.start + ((first as u16) + n) % count);
    ports
        .into_iter()
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .unwrap_or_else(|| panic!("no port of {PORTS:?} is free"))
}
