//! Rules about the source tree that no compiler checks. Each rule is a function from the tree to findings, so each is
//! tested on a small tree that breaks it.

mod docs;
mod graph;
mod rust;
mod scan;
mod text;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::process;

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    /// The file, relative to the workspace.
    path: String,
    /// The line from 1; 0 for the file as a whole.
    line: usize,
    /// What is wrong and what to do.
    message: String,
}

impl Finding {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, message: message.into() }
    }
}

/// One file of the tree.
#[derive(Clone, Debug, Default)]
struct File {
    /// Its size.
    bytes: u64,
    /// Its text; none when it is not text.
    text: Option<String>,
}

/// The files of the repository by path, `/` between parts.
#[derive(Clone, Debug, Default)]
struct Tree {
    files: BTreeMap<String, File>,
}

impl Tree {
    /// The files that git tracks, or would track.
    fn load(root: &Path) -> Result<Self> {
        let mut command = std::process::Command::new("git");
        command.current_dir(root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let listed = String::from_utf8(process::output(command)?).context("a file name is not UTF-8")?;
        let mut files = BTreeMap::new();
        for path in listed.split('\0').filter(|path| !path.is_empty()) {
            // A tracked file that was deleted and not yet committed is still listed.
            let Ok(bytes) = fs::read(root.join(path)) else { continue };
            let file = File { bytes: bytes.len() as u64, text: String::from_utf8(bytes).ok() };
            files.insert(path.to_owned(), file);
        }
        Ok(Self { files })
    }

    /// A tree of the given texts.
    #[cfg(test)]
    fn of(files: &[(&str, &str)]) -> Self {
        let file = |text: &str| File { bytes: text.len() as u64, text: Some(text.to_owned()) };
        Self { files: files.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect() }
    }

    /// The text of a file.
    fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path)?.text.as_deref()
    }

    /// Paths and texts of every text file.
    fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().filter_map(|(path, file)| Some((path.as_str(), file.text.as_deref()?)))
    }

    /// Paths and texts of the Rust sources.
    fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts().filter(|(path, _)| has_extension(path, "rs"))
    }
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}

/// What a rule says, and the function that finds where it is broken.
type Rule = (&'static str, fn(&Tree) -> Vec<Finding>);

/// Every rule.
const RULES: &[Rule] = &[
    ("crates depend on each other as the table says", graph::edges),
    ("versions are in the workspace's Cargo.toml only", graph::versions),
    ("every Rust file says what it owns", rust::opening),
    ("files are short", rust::length),
    ("names say what a thing is", rust::names),
    ("no lint is switched off without a reason, no test is skipped", rust::attributes),
    ("code stays where it belongs", rust::places),
    ("tests do not sleep", rust::sleep),
    ("no unfinished work is marked", text::marks),
    ("no promise is made that nobody can keep", text::promises),
    ("no large file", text::size),
    ("links lead somewhere", docs::links),
    ("every page is reachable", docs::orphans),
    ("every error code has its page", docs::codes),
    ("every rule of the validator is described", docs::rules),
    ("every configuration key is documented", docs::config),
    ("every example is complete", docs::examples),
    ("decisions are numbered", docs::decisions),
];

/// Checks every rule and prints what breaks one.
///
/// # Errors
/// A rule is broken, or the tree cannot be read.
pub(crate) fn run(root: &Path) -> Result<()> {
    let tree = Tree::load(root)?;
    let mut broken = 0;
    for (rule, check) in RULES {
        let mut findings = check(&tree);
        findings.sort();
        broken += findings.len();
        if !findings.is_empty() {
            println!("{rule}:");
        }
        for Finding { path, line, message } in findings {
            let place = if line == 0 { path } else { format!("{path}:{line}") };
            println!("  {place}: {message}");
        }
    }
    if broken > 0 {
        bail!("tidy: {broken} findings");
    }
    println!("tidy: {} files, {} rules, nothing found", tree.files.len(), RULES.len());
    Ok(())
}
