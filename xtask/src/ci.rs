//! Everything that must hold before a change lands, in one list: each step is timed, the first failure stops.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{alerts, conformance, disk, docs, litellm, mcp, process, setup, tidy};

/// What a step found out by counting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    passed: u64,
    failed: u64,
}

/// How a step ended.
enum Ended {
    /// It holds.
    Passed(Count),
    /// It does not apply on this host, for this reason.
    NotHere(&'static str),
    /// It does not hold.
    Failed(Count, anyhow::Error),
}

struct Step {
    name: &'static str,
    run: fn(&Path) -> Ended,
}

/// The steps, cheapest first. Build before tests: tests and examples run the binary.
const STEPS: &[Step] = &[
    Step { name: "fmt", run: |root| cargo(root, &["fmt", "--all", "--check"]) },
    Step { name: "tidy", run: |root| plain(tidy::run(root)) },
    Step {
        name: "clippy",
        run: |root| cargo(root, &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    },
    Step { name: "build", run: |root| cargo(root, &["build", "--workspace", "--all-targets"]) },
    Step { name: "tests", run: |root| tests(nextest(root, &[])) },
    Step { name: "sigv4", run: |root| tests(signed(root, "package(windlass-models) | test(signed_requests)")) },
    Step { name: "sigv4-pg", run: |root| tests(of_postgresql(signed(root, "test(signed_requests)"))) },
    Step { name: "postgresql", run: |root| tests(on_postgresql(root)) },
    Step { name: "doctests", run: |root| cargo(root, &["test", "--doc", "--workspace", "--quiet"]) },
    Step { name: "docs", run: |root| plain(docs::check(root)) },
    Step { name: "examples", run: |root| plain(examples(root)) },
    Step { name: "alerts", run: |root| plain(alerts::check(root)) },
    Step { name: "readme", run: |root| plain(readme(root)) },
    Step { name: "mcp", run: |root| plain(mcp::run(root)) },
    Step { name: "litellm", run: |root| plain(litellm::run(root)) },
    Step { name: "conformance", run: conformance },
];

/// Sets up and runs every step, or runs only those named. The last line says how many tests passed and failed.
///
/// # Errors
/// A step failed; the ones after it were not run. Or a name is no step's.
pub(crate) fn run(root: &Path, only: &[&str]) -> Result<()> {
    let known: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
    if let Some(name) = only.iter().find(|name| !known.contains(name)) {
        bail!("`{name}` is no step; the steps are {}", known.join(", "));
    }
    if only.is_empty() {
        setup::run(root)?;
    }
    let steps: Vec<&Step> = STEPS.iter().filter(|step| only.is_empty() || only.contains(&step.name)).collect();
    disk::warn(root);
    let mut total = Count::default();
    let mut summary = Vec::new();
    let mut failure = None;
    let start = Instant::now();
    for (index, step) in steps.iter().enumerate() {
        println!("==> {} ({} of {})", step.name, index + 1, steps.len());
        let began = Instant::now();
        let ended = (step.run)(root);
        let (word, count) = match &ended {
            Ended::Passed(count) => ("ok".to_owned(), *count),
            Ended::NotHere(reason) => (format!("not run: {reason}"), Count::default()),
            Ended::Failed(count, _) => ("FAILED".to_owned(), *count),
        };
        total.passed += count.passed;
        total.failed += count.failed;
        summary.push(format!("{:<12} {:>7}  {word}", step.name, seconds(began.elapsed())));
        if let Ended::Failed(_, error) = ended {
            failure = Some((step.name, error));
            break;
        }
    }
    println!("\n{}\n{:<12} {:>7}", summary.join("\n"), "all", seconds(start.elapsed()));
    let Some((name, error)) = failure else {
        println!("{} passed, {} failed", total.passed, total.failed);
        return Ok(());
    };
    println!("`{name}` failed: {error:#}");
    if let Some(blame) = disk::blame(root) {
        println!("note: {blame}");
    }
    println!("{} passed, {} failed", total.passed, total.failed.max(1));
    bail!("`{name}` failed")
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn plain(result: Result<()>) -> Ended {
    match result {
        Ok(()) => Ended::Passed(Count::default()),
        Err(error) => Ended::Failed(Count::default(), error),
    }
}

fn cargo(root: &Path, args: &[&str]) -> Ended {
    plain(process::run(process::cargo(root, args)))
}

/// Unit and integration tests of every crate.
fn nextest(root: &Path, more: &[&str]) -> Command {
    process::cargo(root, &[&["nextest", "run", "--workspace", "--all-targets"], more].concat())
}

/// Tests with the feature that the default build leaves out: of the adapters of models, and the branch of the bank.
fn signed(root: &Path, which: &str) -> Command {
    let packages = ["-p", "windlass-models", "-p", "windlass", "--features", "sigv4", "-E", which];
    process::cargo(root, &[&["nextest", "run"], packages.as_slice()].concat())
}

/// The tests that run on the store that the variable names: the crash proof, the tests of a fleet of processes, of
/// schedules and of many runs at once.
fn on_postgresql(root: &Path) -> Command {
    let which = "(package(windlass) & test(/^(proof|nested_approvals)::/)) | (package(windlass-cli) & test(/^(fleet|schedules|bulk)::/))";
    of_postgresql(nextest(root, &["-E", which]))
}

/// The same tests on the other store.
fn of_postgresql(mut command: Command) -> Command {
    command.env("WINDLASS_TEST_STORE", "postgres");
    command
}

fn tests(command: Command) -> Ended {
    match process::run_watched(command) {
        Ok((lines, true)) => match lines.iter().rev().find_map(|line| nextest_count(line)) {
            Some(count) => Ended::Passed(count),
            None => Ended::Failed(Count::default(), anyhow::anyhow!("nextest ended without a summary")),
        },
        Ok((lines, false)) => {
            let count = lines.iter().rev().find_map(|line| nextest_count(line)).unwrap_or_default();
            Ended::Failed(count, anyhow::anyhow!("tests failed; run one with `cargo nextest run NAME`"))
        }
        Err(error) => Ended::Failed(Count::default(), error.context("hint: `cargo xtask setup` installs nextest")),
    }
}

/// Reads `Summary [ 1.5s] 12 tests run: 11 passed (1 slow), 1 failed, 0 skipped`.
fn nextest_count(line: &str) -> Option<Count> {
    let (_, counts) = line.trim_start().strip_prefix("Summary [")?.split_once("run:")?;
    let number = |word: &str| counts.split(',').find_map(|part| numbered(part, word)).unwrap_or(0);
    Some(Count { passed: number("passed"), failed: number("failed") + number("timed out") + number("exec failed") })
}

/// The number before `word` in a text such as ` 3 passed (1 slow)`.
fn numbered(text: &str, word: &str) -> Option<u64> {
    let (number, rest) = text.trim().split_once(' ')?;
    rest.starts_with(word).then(|| number.parse().ok())?
}

/// Every example is valid under the strict rules, and passes its own tests.
fn examples(root: &Path) -> Result<()> {
    let windlass = process::windlass()?;
    let folders = folders(&root.join("examples"))?;
    if folders.is_empty() {
        bail!("`examples/` holds no example");
    }
    for folder in folders {
        let shown = folder.strip_prefix(root).unwrap_or(&folder).display().to_string();
        println!("{shown}");
        for words in [vec!["validate", "--strict", &format!("{shown}/machine.yml")], vec!["test", &shown]] {
            let mut command = Command::new(&windlass);
            command.current_dir(root).args(&words).stdin(Stdio::null());
            process::output(command)?;
        }
    }
    Ok(())
}

/// What the README tells a reader to type first works as told: no key, no network, one JSON document on stdout.
fn readme(root: &Path) -> Result<()> {
    let text = fs::read_to_string(root.join("README.md")).context("cannot read `README.md`")?;
    let words = first_command(&text).context("`README.md` has no line that starts with `cargo run --quiet --`")?;
    let scratch = docs::Scratch::new("windlass-readme")?;
    let mut command = Command::new(process::windlass()?);
    command
        .current_dir(root)
        .args(&words)
        .arg("--store")
        .arg(format!("sqlite:{}", scratch.path.join("windlass.db").display()))
        .stdin(Stdio::null());
    let stdout = process::output(command)?;
    serde_json::from_slice::<serde_json::Value>(&stdout)
        .context("stdout of the README's command is not one JSON document")?;
    println!("windlass {}", words.join(" "));
    Ok(())
}

/// The arguments of the first `cargo run` in a page.
fn first_command(text: &str) -> Option<Vec<&str>> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix("cargo run --quiet -- "))?;
    Some(line.split_whitespace().collect())
}

fn folders(of: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(of).with_context(|| format!("cannot read `{}`", of.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// The FlatMachine conformance kit, where it is present: every case passes, none is skipped, and the report in the
/// documentation is current.
fn conformance(root: &Path) -> Ended {
    let kit = match conformance::kit() {
        Ok(Some(kit)) => kit,
        Ok(None) => return Ended::NotHere("FLATMACHINE_KIT names no folder"),
        Err(error) => return Ended::Failed(Count::default(), error),
    };
    match conformance::run(root, &kit) {
        Ok(report) => {
            let count = Count { passed: report.count("passed"), failed: report.count("failed") };
            match report.judge().and_then(|()| conformance::compare(root, &report)) {
                Ok(()) => Ended::Passed(count),
                Err(error) => Ended::Failed(count, error),
            }
        }
        Err(error) => Ended::Failed(Count::default(), error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_are_read() {
        let line = "     Summary [   1.503s] 12 tests run: 9 passed (1 slow), 2 failed, 1 timed out, 4 skipped";
        assert_eq!(nextest_count(line), Some(Count { passed: 9, failed: 3 }));
        assert_eq!(first_command("x\n\n    cargo run --quiet -- run a.yml\n"), Some(vec!["run", "a.yml"]));
        assert_eq!(nextest_count("        PASS [   0.003s] crate tests::summary"), None);
    }
}
