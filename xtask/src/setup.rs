//! Installs development tools that are missing. Host packages are the business of `.ci/run`.

use anyhow::{Result, bail};

use crate::process;

/// Built from source where it is missing; a version that the workspace's compiler can build.
const NEXTEST: &str = "cargo-nextest@0.9.143";

/// Installs what is missing.
///
/// # Errors
/// An installation fails, or a program of the host is missing.
pub(crate) fn run() -> Result<()> {
    if process::answers("cargo-nextest", &["nextest", "--version"]) {
        println!("cargo-nextest: present");
    } else {
        println!("cargo-nextest: installing, this takes some minutes");
        process::run(process::cargo(&crate::root(), &["install", "--locked", NEXTEST]))?;
    }
    for (program, args) in [("python3", ["--version"]), ("git", ["--version"]), ("cc", ["--version"])] {
        if !process::answers(program, &args) {
            bail!("`{program}` is missing; install it with the package manager of this host");
        }
        println!("{program}: present");
    }
    Ok(())
}
