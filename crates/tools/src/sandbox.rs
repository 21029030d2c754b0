//! Bounds around a child process: what it may use of the host, and what it sees of it.
//!
//! The bounds are set by programs of the host, `prlimit` and `bwrap`, that become the child: there is no moment in which
//! it runs without them. Owns which words come before a command; starting it is not here.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::build::Site;

/// Where programs of the host are looked for, beside `PATH`.
const PLACES: &[&str] = &["/usr/bin", "/bin", "/usr/local/bin"];

/// Bounds of a process and of everything that it starts. Each process has the bounds of its own, but for `processes_max`,
/// which counts those of the same user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SandboxConfig {
    /// Bytes of address space.
    pub memory_bytes_max: Option<u64>,
    /// Open files.
    pub files_max: Option<u64>,
    /// Processes and threads of the user that runs it. The superuser has no such bound.
    pub processes_max: Option<u64>,
    /// Seconds of processor time.
    pub cpu_s_max: Option<u64>,
    /// Bytes of a file that it writes.
    pub file_bytes_max: Option<u64>,
    /// Whether it runs in `bubblewrap`: with its own view of processes, a file system that it can only read, and an empty
    /// `/tmp`. `never`, `when_present` or `required`. Default: `never`.
    pub isolate: Option<Isolate>,
    /// In `bubblewrap`: whether it has the host's network. Default: false.
    pub network: Option<bool>,
    /// In `bubblewrap`: folders that it may write to, relative to the configuration file.
    pub write: Option<Vec<String>>,
}

/// Whether a process runs in `bubblewrap`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Isolate {
    /// It does not.
    #[default]
    Never,
    /// Where the host has it.
    WhenPresent,
    /// Always: a host without it refuses the configuration.
    Required,
}

impl SandboxConfig {
    /// The bounds of a server that names none: what no honest server needs more of.
    pub(crate) fn server() -> Self {
        Self { files_max: Some(4_096), ..Self::default() }
    }
}

/// The words before a command that is started with these bounds in this folder. A server's default bounds are left out
/// on a host that cannot set them; bounds that someone wrote are not.
pub(crate) fn prefix(site: &mut Site<'_>, config: &SandboxConfig, dir: &Path, written: bool) -> Vec<OsString> {
    let mut words = limits(site, config, written);
    words.extend(bubble(site, config, dir));
    words
}

fn limits(site: &mut Site<'_>, config: &SandboxConfig, written: bool) -> Vec<OsString> {
    let bounds = [
        ("memory_bytes_max", "as", config.memory_bytes_max),
        ("files_max", "nofile", config.files_max),
        ("processes_max", "nproc", config.processes_max),
        ("cpu_s_max", "cpu", config.cpu_s_max),
        ("file_bytes_max", "fsize", config.file_bytes_max),
    ];
    for (key, _, _) in bounds.iter().filter(|(_, _, bound)| *bound == Some(0)) {
        site.wrong(&format!("sandbox.{key}"), "must be at least 1", None);
    }
    let named: Vec<_> = bounds.iter().filter_map(|(_, name, bound)| Some((name, (*bound)?))).collect();
    if named.is_empty() {
        return Vec::new();
    }
    let Some(program) = find(site, "prlimit") else {
        if written {
            let hint = "install util-linux, or leave the bounds out";
            site.wrong("sandbox", "this host has no `prlimit`, which sets the bounds", Some(hint));
        }
        return Vec::new();
    };
    let mut words = vec![program.into_os_string(), "--core=0:0".into()];
    words.extend(named.into_iter().map(|(name, bound)| format!("--{name}={bound}:{bound}").into()));
    words.push("--".into());
    words
}

fn bubble(site: &mut Site<'_>, config: &SandboxConfig, dir: &Path) -> Vec<OsString> {
    let isolate = config.isolate.unwrap_or_default();
    if isolate == Isolate::Never {
        for (key, given) in [("network", config.network.is_some()), ("write", config.write.is_some())] {
            if given {
                let hint = "set `isolate` too";
                site.wrong(&format!("sandbox.{key}"), "has a meaning in `bubblewrap` only", Some(hint));
            }
        }
        return Vec::new();
    }
    let Some(program) = find(site, "bwrap") else {
        if isolate == Isolate::Required {
            let hint = "install bubblewrap, or set `isolate = \"when_present\"`";
            site.wrong("sandbox.isolate", "this host has no `bwrap`", Some(hint));
        }
        return Vec::new();
    };
    let mut words: Vec<OsString> = vec![program.into_os_string()];
    let fixed = "--die-with-parent --new-session --unshare-all --ro-bind / / --dev /dev --proc /proc --tmpfs /tmp";
    words.extend(fixed.split(' ').map(OsString::from));
    if config.network == Some(true) {
        words.push("--share-net".into());
    }
    for folder in config.write.iter().flatten() {
        let folder = site.folder().join(folder).into_os_string();
        words.extend(["--bind".into(), folder.clone(), folder]);
    }
    words.extend(["--chdir".into(), dir.as_os_str().to_owned(), "--".into()]);
    words
}

/// A program of the host.
fn find(site: &Site<'_>, name: &str) -> Option<PathBuf> {
    let path = site.environment("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(PLACES.iter().map(PathBuf::from));
    places.filter(|place| place.is_absolute()).map(|place| place.join(name)).find(|path| path.is_file())
}
