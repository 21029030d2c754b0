//! Runs every scenario of `tests/scenarios`: a heading is a case, fenced blocks are its documents, inputs and journal.
//!
//! `UPDATE_EXPECT=1` writes the journals that the engine gives, for review.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::scenario::Bench;

/// One case of a scenario file.
#[derive(Default)]
struct Case {
    name: String,
    files: BTreeMap<String, String>,
    inputs: Vec<String>,
    journal: String,
}

/// A scenario file: its lines, and where the journal blocks stand.
struct Scenario {
    lines: Vec<String>,
    cases: Vec<(Case, Option<(usize, usize)>)>,
}

fn parse(text: &str) -> Scenario {
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut cases: Vec<(Case, Option<(usize, usize)>)> = Vec::new();
    let mut shared: BTreeMap<String, String> = BTreeMap::new();
    let mut at = 0;
    while at < lines.len() {
        if let Some(name) = lines[at].strip_prefix("## ") {
            cases.push((Case { name: name.to_owned(), files: shared.clone(), ..Case::default() }, None));
        }
        if let Some(tag) = lines[at].strip_prefix("```").filter(|tag| !tag.is_empty()) {
            let end = (at + 1..lines.len()).find(|n| lines[*n] == "```").expect("a closed block");
            let body = lines[at + 1..end].join("\n");
            match (tag, cases.last_mut()) {
                ("inputs", Some((case, _))) => case.inputs = lines[at + 1..end].to_vec(),
                ("journal", Some((case, place))) => {
                    case.journal = body;
                    *place = Some((at + 1, end));
                }
                (file, Some((case, _))) => {
                    case.files.insert(file_name(file), body);
                }
                (file, None) => {
                    shared.insert(file_name(file), body);
                }
            }
            at = end;
        }
        at += 1;
    }
    Scenario { lines, cases }
}

fn file_name(tag: &str) -> String {
    tag.split_whitespace().last().unwrap_or_default().to_owned()
}

fn scenario_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("the scenario folder").map(|entry| entry.expect("an entry").path()).collect();
    found.sort();
    found
}

#[test]
fn scenarios_record_what_they_should() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let (mut failures, mut count) = (Vec::new(), 0);
    for path in scenario_files() {
        let scenario = parse(&std::fs::read_to_string(&path).expect("a readable scenario"));
        let mut lines = scenario.lines.clone();
        for (case, place) in scenario.cases.iter().rev() {
            count += 1;
            let mut bench = Bench::new(case.files.clone());
            let actual: String = case.inputs.iter().map(|line| bench.line(line)).collect();
            let actual = actual.trim_end().to_owned();
            if actual == case.journal {
                continue;
            }
            match place {
                Some((from, to)) if update => {
                    lines.splice(*from..*to, actual.lines().map(str::to_owned));
                }
                _ => {
                    failures.push(format!("{}: {}\n{}", path.display(), case.name, difference(&case.journal, &actual)))
                }
            }
        }
        if update {
            std::fs::write(&path, lines.join("\n") + "\n").expect("a writable scenario");
        }
    }
    assert!(count >= 20, "the scenarios are found: {count}");
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

fn difference(expected: &str, actual: &str) -> String {
    let at = expected.lines().zip(actual.lines()).take_while(|(a, b)| a == b).count();
    let line = |text: &str| text.lines().nth(at).unwrap_or("(end)").to_owned();
    format!("line {}:\n  expected {}\n  actual   {}", at + 1, line(expected), line(actual))
}
