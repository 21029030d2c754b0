//! The only place that prints. stdout carries the payload and nothing else; stderr carries everything else.
//!
//! A closed pipe is not an error: whoever reads has seen enough, and the process ends with 0.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::exit::{Exit, Problem};

/// How the payload is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// One JSON document, or one per line for commands that follow something.
    Json,
    /// Tables and sentences for people.
    Text,
}

/// Where a command's results go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    form: Form,
    quiet: bool,
    pretty: bool,
}

impl Output {
    /// JSON when asked for, or when stdout is not a terminal and `plain` does not ask for text.
    #[must_use]
    pub(crate) fn new(json: bool, plain: bool, quiet: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        let form = if json || (!terminal && !plain) { Form::Json } else { Form::Text };
        Self { form, quiet, pretty: terminal }
    }

    /// How the payload is written.
    #[must_use]
    pub(crate) fn form(&self) -> Form {
        self.form
    }

    /// Whether notes for people are wanted.
    #[must_use]
    pub(crate) fn quiet(&self) -> bool {
        self.quiet
    }

    /// Writes one JSON document.
    pub(crate) fn document<T: Serialize + ?Sized>(&self, value: &T) {
        let json = if self.pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
        let mut out = io::stdout().lock();
        let written = json.map_err(io::Error::from).and_then(|json| writeln!(out, "{}", escaped(&json)));
        finish(written.and_then(|()| out.flush()));
    }

    /// Writes one JSON document on one line.
    pub(crate) fn line<T: Serialize + ?Sized>(&self, value: &T) {
        let stdout = io::stdout();
        let mut out = stdout.lock();
        let text = serde_json::to_string(value).unwrap_or_default();
        finish(writeln!(out, "{}", escaped(&text)).and_then(|()| out.flush()));
    }

    /// Writes text as it is; a line feed is added when there is none.
    pub(crate) fn text(&self, text: &str) {
        let stdout = io::stdout();
        let mut out = stdout.lock();
        let end = if text.ends_with('\n') || text.is_empty() { "" } else { "\n" };
        finish(out.write_all(text.as_bytes()).and_then(|()| out.write_all(end.as_bytes())).and_then(|()| out.flush()));
    }

    /// Writes a table, or the JSON form when that is wanted.
    pub(crate) fn table<T: Serialize + ?Sized>(&self, value: &T, header: &[&str], rows: &[Vec<String>]) {
        match self.form {
            Form::Json => self.document(value),
            Form::Text => self.text(&table(header, rows)),
        }
    }

    /// Writes sentences, or the JSON form when that is wanted.
    pub(crate) fn sentence<T: Serialize + ?Sized>(&self, value: &T, text: &str) {
        match self.form {
            Form::Json => self.document(value),
            Form::Text => self.text(text),
        }
    }

    /// Tells a person something, on stderr.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            note(text);
        }
    }

    /// Reports a problem: text on stderr and, in JSON form, the error document on stdout.
    pub(crate) fn problem(&self, problem: &Problem) {
        report(problem);
        if self.form == Form::Json {
            self.document(&problem.document());
        }
    }
}

/// Shows help, the version, or what is wrong with the command line: text on stderr and, in JSON form, the error document
/// on stdout. The command line was not understood, so the words in it that choose the form are looked for.
#[must_use]
pub(crate) fn usage(error: &clap::Error, line: impl Iterator<Item = std::ffi::OsString>) -> Exit {
    use clap::error::ErrorKind;
    // stderr or stdout is gone when this fails, so there is nobody to tell.
    let _ = error.print();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return Exit::Ok;
    }
    let options: Vec<_> = line.take_while(|word| word != "--").collect();
    let says = |word: &str| options.iter().any(|option| option == word);
    let output = Output::new(says("--json"), says("--plain"), true);
    if output.form == Form::Json {
        output.document(&misuse(&error.to_string()).document());
    }
    Exit::Invalid
}

/// What is wrong with the command line, from the text for people: what comes before the usage is the message, and tips
/// are the hint.
fn misuse(text: &str) -> Problem {
    let said = text.strip_prefix("error: ").unwrap_or(text);
    let lines: Vec<&str> = said.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:")).collect();
    let (tips, message): (Vec<&str>, Vec<&str>) =
        lines.into_iter().filter(|line| !line.is_empty()).partition(|line| line.starts_with("tip:"));
    let tip = tips.first().map(|tip| tip.trim_start_matches("tip:").trim());
    let hint = tip.unwrap_or("`--help` after a command says what it takes, `windlass --help` which commands there are");
    Problem::invalid(message.join(" ")).hint(hint)
}

/// Writes a line to stderr, whatever was asked for. Colours are dropped where they are not wanted (`NO_COLOR`).
pub(crate) fn note(text: &str) {
    let mut err = anstream::stderr().lock();
    // stderr is gone when this fails, so there is nobody to tell.
    let _ = writeln!(err, "{}", text.trim_end_matches('\n')).and_then(|()| err.flush());
}

/// Writes a problem to stderr.
pub(crate) fn report(problem: &Problem) {
    let mut text = format!("\u{1b}[1;31merror\u{1b}[0m: {}", printable(&problem.message));
    if let Some(hint) = &problem.hint {
        text.push_str(&format!("\n \u{1b}[1;36mhint\u{1b}[0m: {}", printable(hint)));
    }
    note(&text);
}

/// A plain table: columns apart by two blanks, no lines, so that it reads well in a terminal and in a file.
#[must_use]
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|cell| cell.to_uppercase()));
    for row in rows {
        table.add_row(row.iter().map(|cell| printable(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// A point in time as RFC 3339 text in UTC.
#[must_use]
pub(crate) fn time(at: windlass_core::time::Timestamp) -> String {
    let millis = i64::try_from(at.0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(millis).map_or_else(|_| at.0.to_string(), |time| time.to_string())
}

/// Text from outside with control characters made visible, so that it cannot steer a terminal, and with what shows nothing
/// or turns the direction of text escaped, so that it reads as what it is.
#[must_use]
pub(crate) fn printable(text: &str) -> String {
    let shown = text.chars().map(|c| match c {
        '\n' | '\t' => c,
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    });
    escaped(&shown.collect::<String>()).into_owned()
}

/// Whether a character shows nothing, or changes how what stands around it is shown.
fn is_hidden(c: char) -> bool {
    matches!(c,
        '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// JSON, or a text, with the characters that cannot be seen as JSON escapes. In JSON they only stand within texts, and mean
/// the same.
fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hidden(c) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

fn finish(written: io::Result<()>) {
    if let Err(error) = written {
        if error.kind() == io::ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        note(&format!("error: cannot write to stdout: {error}"));
        std::process::exit(i32::from(crate::exit::Exit::Unreachable.code()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_of_others_are_made_visible() {
        assert_eq!(printable("a\u{1b}[31mb\nc"), "a\u{fffd}[31mb\nc");
    }

    #[test]
    fn what_cannot_be_seen_is_escaped() {
        let text = "pay \u{202e}5\u{2066}00\u{200b}\u{feff}\u{e0041}\u{9b}!";
        assert_eq!(printable(text), "pay \\u202e5\\u206600\\u200b\\ufeff\\udb40\\udc41\u{fffd}!");
        let json = serde_json::to_string(&[text]).expect("JSON");
        let shown = escaped(&json);
        assert!(!shown.contains(is_hidden), "{shown}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&shown).expect("JSON"), [text], "it means the same");
        assert_eq!(printable("Zürich, 東京 \u{1f600}"), "Zürich, 東京 \u{1f600}");
    }

    #[test]
    fn a_misused_command_line_is_a_problem_with_a_hint() {
        let text = "error: unexpected argument '--inptu' found\n\n  tip: a similar argument exists: '--input'\n\nUsage: windlass run <MACHINE>\n\nFor more information, try '--help'.\n";
        let problem = misuse(text);
        assert_eq!(problem.message, "unexpected argument '--inptu' found");
        assert_eq!(problem.hint.as_deref(), Some("a similar argument exists: '--input'"));
        let missing = misuse("error: the following required arguments were not provided:\n  <RUN>\n\nUsage: x\n");
        assert_eq!(missing.message, "the following required arguments were not provided: <RUN>");
        assert!(missing.hint.is_some());
    }

    #[test]
    fn tables_have_no_trailing_blanks() {
        let text = table(&["run", "status"], &[vec!["a".into(), "completed".into()]]);
        assert_eq!(text, "RUN  STATUS\na    completed");
    }
}
