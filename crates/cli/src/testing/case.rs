//! The format of test files: `tests.yml` and `NAME.test.yml` beside a machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use windlass_core::run::Status;

use crate::exit::Problem;

/// Bytes of one test file.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A test file.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TestFile {
    /// The machine that is tested, relative to this file. Default: `NAME.yml` for `NAME.test.yml`, else `machine.yml`.
    pub machine: Option<PathBuf>,
    /// The script of the scripted provider for cases that have none: a path relative to this file, or a script.
    #[serde(default)]
    pub script: Option<Json>,
    /// Answers of tools and actions for cases that do not say otherwise.
    #[serde(default)]
    pub answers: BTreeMap<String, Answers>,
    /// The cases.
    pub cases: Vec<Case>,
}

/// One case.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// Its name, unique within the file.
    pub name: String,
    /// The machine's input. Default: an empty mapping.
    #[serde(default)]
    pub input: Json,
    /// The script of the scripted provider: a path relative to the test file, or a script.
    #[serde(default)]
    pub script: Option<Json>,
    /// Answers of tools and actions, by name.
    #[serde(default)]
    pub answers: BTreeMap<String, Answers>,
    /// Signals that are sent before the run starts; each waits on its channel until the run does.
    #[serde(default)]
    pub signals: Vec<CaseSignal>,
    /// Answers to calls that ask for an approval, each for the next question it fits. A question without one expires.
    #[serde(default)]
    pub approvals: Vec<CaseApproval>,
    /// Steps at most.
    #[serde(default)]
    pub max_steps: Option<u64>,
    /// What must come out.
    #[serde(default)]
    pub expect: Expect,
}

/// Answers of one tool or action: one for all calls, or one after the other with the last repeated.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Answers {
    /// One after the other.
    Each(Vec<Answer>),
    /// The same for every call.
    Always(Answer),
}

/// One answer of a tool or an action.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Answer {
    /// What it returns.
    #[serde(default)]
    pub returns: Option<Json>,
    /// The message with which it fails.
    #[serde(default)]
    pub fails: Option<String>,
}

/// A signal of a case.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CaseSignal {
    /// The channel.
    pub channel: String,
    /// The data.
    #[serde(default)]
    pub data: Json,
}

/// An answer to a call that asks for an approval.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CaseApproval {
    /// The tool or action. Default: any.
    #[serde(default)]
    pub call: Option<String>,
    /// Whether the call may leave.
    pub approve: bool,
    /// Who answers.
    #[serde(default = "somebody")]
    pub by: String,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// Other arguments for the tool.
    #[serde(default)]
    pub arguments: Option<Json>,
}

fn somebody() -> String {
    "tester".into()
}

/// What must come out. What is not given is not checked; the status is, and is `completed` unless given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Expect {
    /// `completed`, `failed`, `waiting` or `cancelled`. With `waiting`, timers of up to a minute fire and later ones do
    /// not; otherwise all of them fire. Default: `failed` when `error` is given, else `completed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The output holds at least this: keys that are not named here may be there too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Json>,
    /// The output is exactly this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_exactly: Option<Json>,
    /// The states that the run enters, in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub states: Option<Vec<String>>,
    /// How often something is called, in the run and below it; a repeated attempt is the same call: `model.AGENT`, `tool.NAME`, `action.NAME`,
    /// `machine.NAME`, or `model`, `tool`, `action`, `machine` for all of a kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effects: Option<BTreeMap<String, u64>>,
    /// The failure's code: `provider.timeout`, or `provider.*` for a family.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Channels that the run, or one below it, waits on; `approval` for a call that asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits: Option<Vec<String>>,
    /// Cost at most, in millionths of a US dollar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_micros_max: Option<u64>,
    /// Tokens at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_max: Option<u64>,
    /// Steps at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps_max: Option<u64>,
}

impl Expect {
    /// The status that must come out.
    #[must_use]
    pub(crate) fn status(&self) -> &str {
        let otherwise = if self.error.is_some() { Status::Failed } else { Status::Completed };
        self.status.as_deref().unwrap_or(otherwise.as_str())
    }
}

/// A test file as read.
#[derive(Clone, Debug)]
pub(crate) struct Suite {
    /// Its path.
    pub path: PathBuf,
    /// The machine's path.
    pub machine: PathBuf,
    /// Its content.
    pub file: TestFile,
    /// Its text.
    pub text: String,
}

/// Reads a test file.
///
/// # Errors
/// A file that cannot be read or is no test file, with line and column.
pub(crate) fn read(path: &Path) -> Result<Suite, Problem> {
    let shown = path.display();
    let size = std::fs::metadata(path).map_err(|e| Problem::invalid(format!("cannot read `{shown}`: {e}")))?.len();
    if size > FILE_BYTES_MAX {
        return Err(Problem::invalid(format!("`{shown}` is larger than {} MiB", FILE_BYTES_MAX >> 20)));
    }
    let text = std::fs::read_to_string(path).map_err(|e| Problem::invalid(format!("cannot read `{shown}`: {e}")))?;
    let file: TestFile = serde_saphyr::from_str(&text).map_err(|error| {
        Problem::invalid(format!("`{shown}` is no test file: {error}"))
            .hint("docs/reference/tests.md describes the format")
    })?;
    check(&file, path)?;
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let machine = folder.join(file.machine.clone().unwrap_or_else(|| machine_of(path)));
    Ok(Suite { path: path.to_owned(), machine, file, text })
}

fn check(file: &TestFile, path: &Path) -> Result<(), Problem> {
    if file.cases.is_empty() {
        return Err(Problem::invalid(format!("`{}` has no cases", path.display()))
            .hint("docs/reference/tests.md describes the format"));
    }
    let mut seen = std::collections::BTreeSet::new();
    for case in &file.cases {
        if !seen.insert(&case.name) {
            return Err(Problem::invalid(format!("`{}` has two cases named `{}`", path.display(), case.name)));
        }
        if let Some(word) = case.expect.status.as_deref()
            && Status::parse(word).is_none()
        {
            return Err(Problem::invalid(format!("`{}`, case `{}`: `{word}` is no status", path.display(), case.name))
                .hint("`completed`, `failed`, `waiting`, `attention`, `paused` or `cancelled`"));
        }
        for answer in file.answers.values().chain(case.answers.values()).flat_map(Answers::each) {
            if answer.returns.is_some() == answer.fails.is_some() {
                return Err(Problem::invalid(format!(
                    "`{}`, case `{}`: an answer has either `returns` or `fails`",
                    path.display(),
                    case.name
                )));
            }
        }
    }
    Ok(())
}

impl Answers {
    /// Every answer.
    pub(crate) fn each(&self) -> impl Iterator<Item = &Answer> {
        match self {
            Self::Each(list) => list.iter(),
            Self::Always(one) => std::slice::from_ref(one).iter(),
        }
    }

    /// The answer to the n-th call, from 0.
    #[must_use]
    pub(crate) fn nth(&self, n: usize) -> Option<&Answer> {
        match self {
            Self::Each(list) => list.get(n).or(list.last()),
            Self::Always(one) => Some(one),
        }
    }
}

fn machine_of(path: &Path) -> PathBuf {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let stem = name.strip_suffix(".test.yml").or_else(|| name.strip_suffix(".test.yaml"));
    stem.map_or_else(|| PathBuf::from("machine.yml"), |stem| PathBuf::from(format!("{stem}.yml")))
}

/// The test files at or below a path, in the order of their names.
///
/// # Errors
/// A path that does not exist or a folder that cannot be read.
pub(crate) fn find(path: &Path) -> Result<Vec<PathBuf>, Problem> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder)
            .map_err(|error| Problem::invalid(format!("cannot read `{}`: {error}", folder.display())))?;
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().ok();
            if kind.is_some_and(|kind| kind.is_dir()) && !is_skipped(&name) {
                folders.push(entry.path());
            } else if is_test(&name) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

fn is_test(name: &str) -> bool {
    matches!(name, "tests.yml" | "tests.yaml") || name.ends_with(".test.yml") || name.ends_with(".test.yaml")
}

/// Hidden folders, build output and packages of others.
fn is_skipped(name: &str) -> bool {
    name.starts_with('.') || matches!(name, "target" | "node_modules")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_found_by_name() {
        assert_eq!(machine_of(Path::new("a/triage.test.yml")), Path::new("triage.yml"));
        assert_eq!(machine_of(Path::new("a/tests.yml")), Path::new("machine.yml"));
    }

    #[test]
    fn a_mistake_in_a_test_file_is_refused() {
        let parsed = serde_saphyr::from_str::<TestFile>("cases:\n  - name: a\n    expects: {}\n");
        assert!(parsed.is_err());
        let file: TestFile = serde_saphyr::from_str("cases:\n  - name: a\n  - name: a\n").expect("parses");
        assert!(check(&file, Path::new("x")).is_err());
    }
}
