//! Checks the alert rules of `deploy/` with promtool: their form, and when each fires.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::process;

/// Names the program, before all other places.
const VARIABLE: &str = "PROMTOOL";
/// Where `.ci/run` unpacks it, below the cache folder of the user.
const CACHED: &str = "windlass-promtool/usr/bin/promtool";

/// Runs promtool over the rules and their tests.
///
/// # Errors
/// It is missing, or it finds something.
pub(crate) fn check(root: &Path) -> Result<()> {
    let Some(promtool) = promtool() else {
        bail!(
            "promtool is missing; `.ci/run` fetches it, the package `prometheus` has it, or set {VARIABLE} to its path"
        );
    };
    for words in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts.test.yml"]] {
        let mut command = Command::new(&promtool);
        command.current_dir(root.join("deploy")).args(words);
        process::run(command)?;
    }
    Ok(())
}

/// Where promtool is.
pub(crate) fn promtool() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(VARIABLE) {
        return Some(named.into());
    }
    let cached = process::cache().ok().map(|folder| folder.join(CACHED)).filter(|path| path.is_file());
    cached.or_else(|| process::answers("promtool", &["--version"]).then(|| "promtool".into()))
}
