//! A page as steps: what to type, what to see, and the exit code.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::kit::Place;

/// Where the pages are.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations")
}

/// One page.
pub(crate) struct Book {
    pub(crate) sections: Vec<Section>,
}

/// What stands under one heading.
pub(crate) struct Section {
    pub(crate) heading: String,
    pub(crate) steps: Vec<Step>,
}

/// One command.
pub(crate) struct Step {
    place: String,
    command: String,
    shown: Vec<String>,
    exit: i32,
}

/// The kind of store that a page is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

impl Kind {
    /// What marks the blocks that are for this kind alone.
    fn mark(self) -> &'static str {
        match self {
            Self::Sqlite => "console sqlite",
            Self::Postgres => "console postgres",
        }
    }
}

impl Book {
    /// Reads a page of operations.
    pub(crate) fn read(name: &str, kind: Kind) -> Self {
        Self::of(name, &std::fs::read_to_string(folder().join(name)).expect("the page"), kind)
    }

    /// Reads the text of a page. Blocks marked `console` hold steps, those marked `console sqlite` or `console postgres`
    /// only for that kind of store: `$ ` starts a command, the lines below it are what is seen.
    pub(crate) fn of(name: &str, text: &str, kind: Kind) -> Self {
        let mut sections = vec![Section { heading: String::new(), steps: Vec::new() }];
        let mut block = None;
        for (number, line) in text.lines().enumerate() {
            if let Some(mark) = line.strip_prefix("```") {
                block = if block.is_some() { None } else { Some(mark.to_owned()) };
            } else if block.as_deref().is_some_and(|mark| mark == "console" || mark == kind.mark()) {
                sections.last_mut().expect("a section").add(&format!("{name}:{}", number + 1), line);
            } else if block.is_none()
                && let Some(heading) = line.strip_prefix("## ")
            {
                sections.push(Section { heading: heading.to_owned(), steps: Vec::new() });
            }
        }
        Self { sections }
    }

    /// Executes every step in order. `before` is told each heading before its steps.
    pub(crate) fn play(&self, place: &Place, more: &[(&str, &str)], mut before: impl FnMut(&str)) {
        for section in &self.sections {
            before(&section.heading);
            section.play(place, more);
        }
    }
}

impl Section {
    /// Executes every step in order.
    pub(crate) fn play(&self, place: &Place, more: &[(&str, &str)]) {
        for step in &self.steps {
            step.perform(place, more);
        }
    }

    fn add(&mut self, place: &str, line: &str) {
        if let Some(command) = line.strip_prefix("$ ") {
            let (place, command) = (place.to_owned(), command.to_owned());
            self.steps.push(Step { place, command, shown: Vec::new(), exit: 0 });
            return;
        }
        let step = self.steps.last_mut().unwrap_or_else(|| panic!("{place}: output without a command"));
        match line.strip_prefix("[exit ").and_then(|rest| rest.strip_suffix(']')) {
            Some(code) => step.exit = code.parse().expect("an exit code"),
            None => step.shown.push(line.to_owned()),
        }
    }
}

impl Step {
    fn perform(&self, place: &Place, more: &[(&str, &str)]) {
        let output = shell(place, &self.command, more);
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        let told = || format!("{}: $ {}\n--- stdout\n{stdout}--- stderr\n{stderr}", self.place, self.command);
        assert_eq!(output.status.code(), Some(self.exit), "{}", told());
        let both = format!("{stdout}{stderr}");
        let seen = [&stdout, &stderr, &both].into_iter().any(|text| {
            let lines: Vec<&str> = text.lines().collect();
            let wanted: Vec<&str> = self.shown.iter().map(String::as_str).collect();
            matches(&wanted, &lines)
        });
        assert!(self.shown.is_empty() || seen, "{}\n--- wanted\n{}", told(), self.shown.join("\n"));
    }
}

/// Runs a line as a person would, with the binary in the path and the store in the environment.
pub(crate) fn shell(place: &Place, line: &str, more: &[(&str, &str)]) -> Output {
    let command: Command = crate::kit::command(&place.path(""));
    let binary = Path::new(env!("CARGO_BIN_EXE_windlass")).parent().expect("a folder").display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = Command::new("/bin/sh");
    shell.current_dir(place.path("")).stdin(std::process::Stdio::null()).args(["-c", line]);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.env("PATH", format!("{binary}:{path}")).env("WINDLASS_STORE", "sqlite:windlass.db");
    shell.envs(more.iter().copied());
    shell.output().expect("a shell")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether lines are as wanted: `...` stands for any lines, `[..]` for anything within a line, blanks for any blanks.
fn matches(wanted: &[&str], lines: &[&str]) -> bool {
    match wanted.split_first() {
        None => lines.is_empty(),
        Some((&"...", rest)) => (0..=lines.len()).any(|skip| matches(rest, &lines[skip..])),
        Some((first, rest)) => {
            lines.split_first().is_some_and(|(line, others)| is_like(first, line) && matches(rest, others))
        }
    }
}

fn is_like(wanted: &str, line: &str) -> bool {
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (wanted, line) = (plain(wanted), plain(line));
    let parts: Vec<&str> = wanted.split("[..]").collect();
    let [first, middle @ .., last] = parts.as_slice() else { return wanted == line };
    let Some(mut rest) = line.strip_prefix(first.trim_end()) else { return false };
    for part in middle {
        let Some(at) = rest.find(part.trim()) else { return false };
        rest = &rest[at + part.trim().len()..];
    }
    rest.ends_with(last.trim_start())
}

#[test]
fn patterns_stand_for_lines_and_parts_of_lines() {
    assert!(matches(&["...", "a [..] c", "..."], &["x", "a  b   c", "y"]));
    assert!(matches(&["[..]\"ok\":false[..]"], &["{\"ok\":false,\"n\":1}"]));
    assert!(matches(&["a[..]"], &["a"]));
    assert!(!matches(&["a"], &["a", "b"]));
    assert!(!matches(&["a [..] c"], &["a b d"]));
    assert!(!matches(&["a b"], &["a c"]));
}
