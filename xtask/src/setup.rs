//! Installs development tools that are missing, and says which programs of the host are. Installing host packages is
//! the business of `.ci/run`.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::{alerts, disk, process};

/// Built from source where it is missing; a version that the workspace's compiler can build.
const NEXTEST: &str = "cargo-nextest@0.9.143";

/// A program of the host that builds or tests need.
struct Needed {
    name: &'static str,
    /// What it is for.
    for_what: &'static str,
    /// The package of Debian that has it.
    package: &'static str,
    is_there: fn() -> bool,
}

const NEEDED: &[Needed] = &[
    Needed {
        name: "cc",
        for_what: "the bundled SQLite",
        package: "build-essential",
        is_there: || process::answers("cc", &["--version"]),
    },
    Needed {
        name: "git",
        for_what: "rules about the source tree",
        package: "git",
        is_there: || process::answers("git", &["--version"]),
    },
    Needed {
        name: "python3",
        for_what: "the conformance kit and an example",
        package: "python3",
        is_there: || process::answers("python3", &["--version"]),
    },
    Needed {
        name: "postgres",
        for_what: "tests of the fleet; 15 or newer, or WINDLASS_PG_BIN names the folder of its programs",
        package: "postgresql",
        is_there: || postgres().is_some(),
    },
    Needed {
        name: "pgbouncer",
        for_what: "tests of a fleet behind a pooler",
        package: "pgbouncer",
        is_there: || on_path("pgbouncer") || Path::new("/usr/sbin/pgbouncer").is_file(),
    },
    Needed {
        name: "faketime",
        for_what: "tests with wrong clocks",
        package: "faketime",
        is_there: || on_path("faketime"),
    },
    Needed {
        name: "openssl",
        for_what: "tests of servers that prove their name",
        package: "openssl",
        is_there: || on_path("openssl"),
    },
    Needed {
        name: "strace",
        for_what: "tests of devices that fail",
        package: "strace",
        is_there: || on_path("strace"),
    },
    Needed {
        name: "bwrap",
        for_what: "tests of processes that are confined",
        package: "bubblewrap",
        is_there: || on_path("bwrap"),
    },
    Needed {
        name: "promtool",
        for_what: "tests of the alert rules; PROMTOOL names it, and `.ci/run` fetches it alone",
        package: "prometheus",
        is_there: || alerts::promtool().is_some(),
    },
];

/// Installs what is missing, and looks at the programs of the host and its disks.
///
/// # Errors
/// An installation fails, or programs of the host are missing: all of them, with the packages that have them.
pub(crate) fn run(root: &Path) -> Result<()> {
    disk::warn(root);
    if process::answers("cargo-nextest", &["nextest", "--version"]) {
        println!("cargo-nextest: present");
    } else {
        println!("cargo-nextest: installing, this takes some minutes");
        process::run(process::cargo(root, &["install", "--locked", NEXTEST]))?;
    }
    let mut missing = Vec::new();
    for needed in NEEDED {
        if (needed.is_there)() {
            println!("{}: present", needed.name);
        } else {
            println!("{}: MISSING; for {}; in the package `{}`", needed.name, needed.for_what, needed.package);
            missing.push(needed.package);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    bail!("programs of this host are missing; on Debian: apt-get install --no-install-recommends {}", missing.join(" "))
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The folder of PostgreSQL's programs.
fn postgres() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("WINDLASS_PG_BIN") {
        return Some(PathBuf::from(named)).filter(|bin| bin.join("postgres").is_file());
    }
    let releases = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut bins = releases.map(|entry| entry.path().join("bin"));
    bins.find(|bin| bin.join("postgres").is_file()).or_else(|| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).find(|folder| folder.join("postgres").is_file())
    })
}
