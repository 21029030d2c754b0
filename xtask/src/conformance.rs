//! Runs the FlatMachine conformance kit against the binary, and keeps its report in `docs/compatibility.md`.
//!
//! The kit is no part of the repository: the variable `FLATMACHINE_KIT` names its folder.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::docs::Scratch;
use crate::process;

/// Names the folder of the kit.
const VARIABLE: &str = "FLATMACHINE_KIT";
/// The page that holds the report.
const PAGE: &str = "docs/compatibility.md";
/// Around the report.
const OPEN: &str = "<!-- conformance report: written by `cargo xtask conformance` -->";
const CLOSE: &str = "<!-- end of the conformance report -->";

/// How the kit ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// Every case with its status: `passed`, `failed` or `skipped`.
    cases: BTreeMap<String, String>,
}

impl Report {
    fn parse(text: &str) -> Result<Self> {
        let report: Value = serde_json::from_str(text).context("the kit's report is no JSON")?;
        let word = |case: &Value, key: &str| case[key].as_str().map(str::to_owned).context("the report has no cases");
        let cases = report["cases"].as_array().context("the report has no cases")?;
        let cases = cases.iter().map(|case| Ok((word(case, "case")?, word(case, "status")?)));
        Ok(Self { cases: cases.collect::<Result<_>>()? })
    }

    /// Cases of a status.
    pub(crate) fn count(&self, status: &str) -> u64 {
        self.cases.values().filter(|found| *found == status).count() as u64
    }

    /// All cases passed, and there are some.
    ///
    /// # Errors
    /// Names the cases that did not pass.
    pub(crate) fn judge(&self) -> Result<()> {
        let others: Vec<&str> =
            self.cases.iter().filter(|(_, status)| *status != "passed").map(|(name, _)| name.as_str()).collect();
        if self.cases.is_empty() {
            bail!("the kit ran no case");
        }
        if !others.is_empty() {
            bail!("{} of {} cases did not pass: {}", others.len(), self.cases.len(), others.join(", "));
        }
        Ok(())
    }

    /// The report as it stands in the page.
    fn page(&self) -> String {
        let mut groups: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
        for (name, status) in &self.cases {
            groups.entry(name.split('_').next().unwrap_or_default()).or_default().push((name, status));
        }
        let mut text = String::from("| group | cases | passed | failed | skipped |\n|---|---|---|---|---|\n");
        let mut row = |title: &str, cases: &[(&str, &str)]| {
            let of = |wanted: &str| cases.iter().filter(|(_, status)| *status == wanted).count();
            let (passed, failed, skipped) = (of("passed"), of("failed"), of("skipped"));
            writeln!(text, "| {title} | {} | {passed} | {failed} | {skipped} |", cases.len())
        };
        let all: Vec<(&str, &str)> = groups.values().flatten().copied().collect();
        // Writing to a String cannot fail.
        let _ = groups.iter().try_for_each(|(group, cases)| row(meaning(group), cases)).and_then(|()| row("all", &all));
        text
    }
}

/// What the first part of a case's name stands for.
fn meaning(group: &str) -> &str {
    match group {
        "pub" => "documents of public repositories",
        "syn" => "behaviour of the reference implementation",
        "tbl" => "tables of values: conditions, templates, coercion",
        "win" => "deliberate differences of Windlass",
        other => other,
    }
}

/// The folder of the kit; none when the variable is not set.
///
/// # Errors
/// The variable names something that is no folder.
pub(crate) fn kit() -> Result<Option<PathBuf>> {
    match std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from) {
        None => Ok(None),
        Some(kit) if kit.is_dir() => Ok(Some(kit)),
        Some(kit) => bail!("{VARIABLE} names `{}`, which is no folder", kit.display()),
    }
}

/// Runs every case of the kit.
///
/// # Errors
/// The kit cannot be run, or wrote no report.
pub(crate) fn run(root: &Path, kit: &Path) -> Result<Report> {
    let scratch = Scratch::new("windlass-conformance")?;
    let file = scratch.path.join("report.json");
    let mut command = Command::new("python3");
    command
        .current_dir(root)
        .env("WINDLASS", process::windlass()?)
        .arg(kit.join("conformance.py"))
        .arg("--report")
        .arg(&file)
        .stdin(Stdio::null());
    process::run_watched(command)?;
    let text = fs::read_to_string(&file).context("the kit wrote no report")?;
    Report::parse(&text)
}

/// Runs the kit and writes its report into the page.
///
/// # Errors
/// The kit is not there, a case did not pass, or the page cannot be written.
pub(crate) fn write(root: &Path) -> Result<()> {
    let kit = kit()?.with_context(|| format!("set {VARIABLE} to the folder of the conformance kit"))?;
    process::run(process::cargo(root, &["build", "--quiet", "--package", "windlass-cli"]))?;
    let report = run(root, &kit)?;
    let path = root.join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("cannot read `{PAGE}`"))?;
    fs::write(&path, insert(&page, &report.page())?).with_context(|| format!("cannot write `{PAGE}`"))?;
    println!("wrote the report into {PAGE}");
    report.judge()
}

/// Compares the page with a fresh report.
///
/// # Errors
/// The page holds another report, or none.
pub(crate) fn compare(root: &Path, report: &Report) -> Result<()> {
    let page = fs::read_to_string(root.join(PAGE)).with_context(|| format!("cannot read `{PAGE}`"))?;
    if insert(&page, &report.page())? != page {
        bail!("the report in `{PAGE}` is not current\nhint: run `cargo xtask conformance` and commit");
    }
    Ok(())
}

/// The page with `report` between its marks.
fn insert(page: &str, report: &str) -> Result<String> {
    let (before, rest) = page.split_once(OPEN).with_context(|| format!("`{PAGE}` has no place for the report"))?;
    let (_, after) = rest.split_once(CLOSE).with_context(|| format!("`{PAGE}` has no end of the report"))?;
    Ok(format!("{before}{OPEN}\n\n{report}\n{CLOSE}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(statuses: &[(&str, &str)]) -> Report {
        Report { cases: statuses.iter().map(|(name, status)| ((*name).to_owned(), (*status).to_owned())).collect() }
    }

    #[test]
    fn a_report_is_read() {
        let text = r#"{"passed": 1, "cases": [{"case": "pub_a", "status": "passed", "seconds": 1, "diff": []}]}"#;
        assert_eq!(Report::parse(text).unwrap(), report(&[("pub_a", "passed")]));
        assert!(Report::parse("{}").is_err());
        assert!(Report::parse("no").is_err());
    }

    #[test]
    fn a_skipped_case_is_no_pass() {
        report(&[("pub_a", "passed")]).judge().unwrap();
        for bad in [&[("pub_a", "passed"), ("pub_b", "skipped")][..], &[("pub_a", "failed")], &[]] {
            assert!(report(bad).judge().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_page_holds_the_report_once() {
        let page = format!("# Title\n\n{OPEN}\nold\n{CLOSE}\n\nmore\n");
        let fresh = report(&[("pub_a", "passed"), ("syn_b", "passed"), ("syn_c", "failed")]).page();
        let once = insert(&page, &fresh).unwrap();
        assert_eq!(insert(&once, &fresh).unwrap(), once);
        assert!(once.contains("| behaviour of the reference implementation | 2 | 1 | 1 | 0 |"), "{once}");
        assert!(once.contains("| all | 3 | 2 | 1 | 0 |"), "{once}");
        assert!(once.ends_with("\n\nmore\n") && !once.contains("old"));
        assert!(insert("# Title\n", &fresh).is_err());
    }
}
