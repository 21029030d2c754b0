//! Regular expressions, linear in time and bounded in size.

use regex::{Regex, RegexBuilder};
use windlass_core::failure::{Code, Failure};

/// Bytes of one expression.
const SOURCE_BYTES_MAX: usize = 8 * 1024;
/// Bytes of one compiled expression.
const COMPILED_BYTES_MAX: usize = 1024 * 1024;

/// Reads an expression; `dot_all` lets `.` match line ends.
pub(super) fn compile(pattern: &str, dot_all: bool) -> Result<Regex, Failure> {
    let fail = |message: String| Failure::new(Code::TemplateSyntax, message);
    if pattern.len() > SOURCE_BYTES_MAX {
        return Err(fail(format!("a regular expression longer than {SOURCE_BYTES_MAX} bytes")));
    }
    RegexBuilder::new(pattern)
        .dot_matches_new_line(dot_all)
        .size_limit(COMPILED_BYTES_MAX)
        .dfa_size_limit(COMPILED_BYTES_MAX)
        .nest_limit(100)
        .build()
        .map_err(|error| fail(format!("`{pattern}` is no regular expression: {}", reason(&error))))
}

/// What is wrong, in one line.
fn reason(error: &regex::Error) -> String {
    match error {
        regex::Error::Syntax(text) => text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
        other => other.to_string(),
    }
}

/// The first group of the first match, or the whole match of an expression without groups.
pub(super) fn capture(regex: &Regex, text: &str) -> Option<String> {
    let captures = regex.captures(text)?;
    let group = usize::from(captures.len() > 1);
    captures.get(group).map(|found| found.as_str().to_owned())
}
