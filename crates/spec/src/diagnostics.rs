//! What is wrong with a document: where, what, and what to write instead. Many at once.
//!
//! Owns the closed list of rules, the collection of findings, and their text and JSON forms. Finds nothing itself.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};
use serde::Serialize;
use windlass_core::redact;

macro_rules! rules {
    ($($(#[doc = $doc:literal])+ $variant:ident = $text:literal),+ $(,)?) => {
        /// A stable name for a kind of finding.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule { $($(#[doc = $doc])+ $variant),+ }

        impl Rule {
            /// Every rule, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The text of the rule.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// One sentence that says what the rule is about.
            #[must_use]
            pub fn summary(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii()),+ }
            }
        }
    };
}

rules! {
    /// A document that is referred to does not exist.
    FileMissing = "file_missing",
    /// A document cannot be read.
    FileUnreadable = "file_unreadable",
    /// A document is larger, deeper or more numerous than is read.
    TooLarge = "too_large",
    /// A document is not UTF-8.
    NotUtf8 = "not_utf8",
    /// A document is not YAML or JSON.
    Syntax = "syntax",
    /// A key is given twice in one mapping.
    DuplicateKey = "duplicate_key",
    /// A part of YAML that documents do not use: tags, mappings as keys, several documents in one file.
    UnsupportedYaml = "unsupported_yaml",
    /// A word or number that YAML 1.1 and YAML 1.2 read differently.
    Ambiguous = "ambiguous",
    /// A number that is not finite.
    NotFinite = "not_finite",
    /// A document is of another kind than is expected here.
    WrongKind = "wrong_kind",
    /// A document is written for a version that this build does not read.
    UnsupportedVersion = "unsupported_version",
    /// A key that must be there is not.
    MissingKey = "missing_key",
    /// A key that the format does not have.
    UnknownKey = "unknown_key",
    /// A value of the wrong type.
    WrongType = "wrong_type",
    /// A value outside what is allowed.
    WrongValue = "wrong_value",
    /// A field of the format that this build refuses.
    Blocked = "blocked",
    /// A field whose behaviour may change, or that is accepted without effect.
    Experimental = "experimental",
    /// A key outside the format that published documents use, accepted.
    Compatibility = "compatibility",
    /// A key that has no effect where it stands.
    NoEffect = "no_effect",
    /// A state that does not exist.
    UnknownState = "unknown_state",
    /// An agent that does not exist.
    UnknownAgent = "unknown_agent",
    /// A machine that does not exist.
    UnknownMachine = "unknown_machine",
    /// A model profile that does not exist.
    UnknownProfile = "unknown_profile",
    /// A model or chain that the model catalog does not have.
    UnknownModel = "unknown_model",
    /// A model that its provider no longer serves, or soon will not; found by `windlass validate`.
    RetiredModel = "retired_model",
    /// A model without a price where the cost of runs has a ceiling; found by `windlass validate`.
    UnpricedModel = "unpriced_model",
    /// Conversations are to be kept short, and how long a model's may be is not known; found by `windlass validate`.
    UnmeasuredModel = "unmeasured_model",
    /// A hook that is neither built in nor configured.
    UnknownHook = "unknown_hook",
    /// A tool that is not configured.
    UnknownTool = "unknown_tool",
    /// An action that nothing performs.
    UnknownAction = "unknown_action",
    /// A machine without states.
    NoStates = "no_states",
    /// More than one initial state.
    TwoInitial = "two_initial",
    /// A state that no transition leads to.
    Unreachable = "unreachable",
    /// A state that is not final and has no way out.
    DeadEnd = "dead_end",
    /// Machines that start each other without end.
    MachineCycle = "machine_cycle",
    /// A template that does not parse.
    BadTemplate = "bad_template",
    /// A condition that does not parse.
    BadCondition = "bad_condition",
    /// A JSON Schema or a regular expression that is not valid.
    BadSchema = "bad_schema",
    /// A path that leaves the documents' folder tree.
    BadPath = "bad_path",
    /// A key written into a document where that is refused, or where it cannot be taken out.
    InlineKey = "inline_key",
    /// A decision table that cannot be read, or that contradicts what it declares.
    BadTable = "bad_table",
    /// A row of a decision table that the rows before it leave nothing.
    UnreachableRow = "unreachable_row",
    /// A decision table without a row for some inputs.
    TableGap = "table_gap",
    /// A skill that is not known, or not in a version that fits.
    UnknownSkill = "unknown_skill",
    /// A skill whose content is not the one that is pinned or registered.
    ChangedSkill = "changed_skill",
    /// A tool that a skill wants and may not have.
    SkillTool = "skill_tool",
    /// Skills that use each other in a circle.
    SkillCycle = "skill_cycle",
    /// A name given twice in a list where it would hide the other.
    DuplicateName = "duplicate_name",
}

impl Rule {
    /// Where the rule is described, within the documentation.
    #[must_use]
    pub fn docs(self) -> &'static str {
        "docs/reference/format.md#rules-of-the-validator"
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Rule {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The document is refused.
    Error,
    /// The document is accepted; under `strict` it is refused.
    Warning,
}

/// A place in a document. Lines and columns start at 1 and count characters; the end column is exclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Span {
    pub(crate) file: u32,
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) end_line: u32,
    pub(crate) end_column: u32,
}

impl Span {
    /// The first line of what is marked, when it goes over several.
    pub(crate) fn line_only(self) -> Self {
        if self.line == self.end_line {
            self
        } else {
            Self { end_line: self.line, end_column: self.column + 1, ..self }
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Whether the document is refused for it.
    pub severity: Severity,
    /// The kind of finding.
    pub code: Rule,
    /// What is wrong: a lower-case fragment.
    pub message: String,
    /// The document, by its path within the bundle.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Column after the last character marked in that line.
    pub end_column: u32,
    /// The text of the line, with `*` in place of credentials; empty when there is none or when it is very long.
    pub excerpt: String,
    /// What to write instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// Where the rule is described.
    pub docs: &'static str,
}

impl Diagnostic {
    /// The finding as text with the line it is about, as compilers print it. No colour codes.
    #[must_use]
    pub fn render(&self) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(self.message.as_str()).id(self.code.as_str());
        let mut group = if self.excerpt.is_empty() {
            let origin = Origin::path(self.file.as_str()).line(self.line as usize).char_column(self.column as usize);
            title.element(origin)
        } else {
            let start = byte_of_column(&self.excerpt, self.column);
            let end = byte_of_column(&self.excerpt, self.end_column).max(start);
            let snippet = Snippet::source(self.excerpt.as_str())
                .path(self.file.as_str())
                .line_start(self.line as usize)
                .annotation(AnnotationKind::Primary.span(start..end));
            title.element(snippet)
        };
        if let Some(advice) = &self.advice {
            group = group.element(Level::HELP.message(advice.as_str()));
        }
        Renderer::plain().render(&[group])
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {} [{}]", self.file, self.line, self.column, self.message, self.code)?;
        match &self.advice {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}

/// Every finding as text, one after the other, with a count at the end.
#[must_use]
pub fn render_all(diagnostics: &[Diagnostic]) -> String {
    let mut text = String::new();
    for diagnostic in diagnostics {
        text.push_str(&diagnostic.render());
        text.push_str("\n\n");
    }
    let errors = diagnostics.iter().filter(|d| d.severity == Severity::Error).count();
    text.push_str(&format!("{}, {}\n", counted(errors, "error"), counted(diagnostics.len() - errors, "warning")));
    text
}

fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn byte_of_column(line: &str, column: u32) -> usize {
    line.char_indices().nth(column.saturating_sub(1) as usize).map_or(line.len(), |(i, _)| i)
}

/// Bytes of a line above which it is not quoted.
const EXCERPT_BYTES_MAX: usize = 2_000;
/// Findings of one severity that are kept; more help nobody.
const DIAGNOSTICS_MAX: usize = 200;

/// A line of a document without credentials. One may have its name on the line before.
fn shown(text: &str, line: &str, number: u32) -> String {
    let before = text.lines().take(number.saturating_sub(1) as usize).filter(|line| !line.trim().is_empty()).last();
    let indentation = |line: &str| line.len() - line.trim_start().len();
    match before {
        Some(before) if redact::opens_secret(before) && indentation(line) > indentation(before) => {
            redact::columns(line, 1, u32::MAX)
        }
        _ => redact::line(line),
    }
}

/// Collects findings, each once.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    files: Vec<(String, Arc<str>)>,
    found: Vec<Diagnostic>,
    seen: BTreeSet<(u32, u32, u32, Rule, String)>,
    errors: usize,
    warnings: usize,
}

impl Sink {
    /// Makes a document known, so that its lines can be quoted.
    pub(crate) fn add_file(&mut self, path: &str, text: Arc<str>) -> u32 {
        self.files.push((path.to_owned(), text));
        u32::try_from(self.files.len() - 1).unwrap_or(u32::MAX)
    }

    /// The path of a document.
    pub(crate) fn path(&self, file: u32) -> &str {
        self.files.get(file as usize).map_or("", |(path, _)| path)
    }

    pub(crate) fn error(&mut self, code: Rule, span: Span, message: impl Into<String>, advice: impl Into<Advice>) {
        self.add(Severity::Error, code, span, message.into(), advice.into());
    }

    pub(crate) fn warn(&mut self, code: Rule, span: Span, message: impl Into<String>, advice: impl Into<Advice>) {
        self.add(Severity::Warning, code, span, message.into(), advice.into());
    }

    fn add(&mut self, severity: Severity, code: Rule, span: Span, message: String, advice: Advice) {
        let count = match severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *count += 1;
        if *count > DIAGNOSTICS_MAX || !self.seen.insert((span.file, span.line, span.column, code, message.clone())) {
            return;
        }
        let (path, text) =
            self.files.get(span.file as usize).map_or(("", ""), |(path, text)| (path.as_str(), text.as_ref()));
        let line = text.lines().nth(span.line.saturating_sub(1) as usize).unwrap_or_default();
        let end_column = if span.end_line == span.line && span.end_column > span.column {
            span.end_column
        } else {
            u32::try_from(line.trim_end().chars().count()).unwrap_or(u32::MAX).saturating_add(1).max(span.column)
        };
        let excerpt = if line.len() > EXCERPT_BYTES_MAX { String::new() } else { shown(text, line, span.line) };
        let excerpt = match code {
            Rule::InlineKey => redact::columns(&excerpt, span.column, end_column),
            _ => excerpt,
        };
        self.found.push(Diagnostic {
            severity,
            code,
            message,
            file: path.to_owned(),
            line: span.line,
            column: span.column,
            end_column,
            excerpt,
            advice: advice.0,
            docs: code.docs(),
        });
    }

    /// The place of a character within the text at `span`, by the text's own line and column. The text's beginning
    /// where the notation (escapes, folded lines) hides the place.
    pub(crate) fn inside(&self, span: Span, line: u32, column: u32) -> Span {
        let source = self.files.get(span.file as usize).map_or("", |(_, text)| text.as_ref());
        let mut lines = source.lines().skip(span.line.saturating_sub(1) as usize);
        let first = lines.next().unwrap_or_default();
        let rest = &first[byte_of_column(first, span.column)..];
        let at = |line: u32, column: u32| Span { line, column, end_line: line, end_column: column + 1, ..span };
        match rest.chars().next() {
            Some('|') => {
                let indentation = lines
                    .find(|line| !line.trim().is_empty())
                    .map_or(0, |line| line.len() - line.trim_start_matches(' ').len());
                let indentation = u32::try_from(indentation).unwrap_or_default();
                at(span.line.saturating_add(line), indentation.saturating_add(column))
            }
            Some('>') => span,
            _ if span.line != span.end_line || line != 1 || rest.contains('\\') => span,
            Some('"' | '\'') => at(span.line, span.column.saturating_add(column)),
            _ => at(span.line, (span.column + column).saturating_sub(1)),
        }
    }

    /// Number of errors so far.
    pub(crate) fn errors(&self) -> usize {
        self.errors
    }

    /// The findings, by document and place; entry document first. Under `strict` every one is an error.
    pub(crate) fn finish(self, strict: bool) -> Vec<Diagnostic> {
        let mut found = self.found;
        if strict {
            for diagnostic in &mut found {
                diagnostic.severity = Severity::Error;
            }
        }
        found.sort_by_key(|d| (self.files.iter().position(|(path, _)| *path == d.file), d.line, d.column, d.code));
        found
    }
}

/// What to write instead, if anything can be said.
#[derive(Debug)]
pub(crate) struct Advice(Option<String>);

impl From<()> for Advice {
    fn from((): ()) -> Self {
        Self(None)
    }
}

impl From<&str> for Advice {
    fn from(text: &str) -> Self {
        Self(Some(text.to_owned()))
    }
}

impl From<String> for Advice {
    fn from(text: String) -> Self {
        Self(Some(text))
    }
}

impl From<Option<String>> for Advice {
    fn from(text: Option<String>) -> Self {
        Self(text)
    }
}

/// "did you mean" for a name that is not among those known, else the names themselves.
pub(crate) fn suggest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let known: Vec<&str> = known.into_iter().collect();
    let near = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(&wrong.to_lowercase(), &name.to_lowercase()), *name))
        .filter(|(distance, name)| *distance <= (wrong.len().max(name.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance);
    match near {
        Some((_, name)) => Some(format!("did you mean `{name}`?")),
        None if known.is_empty() || known.len() > 20 => None,
        None => {
            Some(format!("known here: {}", known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")))
        }
    }
}
