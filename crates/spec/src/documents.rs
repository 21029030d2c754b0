//! The documents of one load: reads each once, keeps its text for the bundle, and takes keys out of it.
//!
//! Owns file access and secrets. Knows nothing of what documents mean.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use secrecy::SecretString;
use windlass_core::ids::{Digest, Name};
use windlass_core::limits::{DOCUMENT_BYTES_MAX, DOCUMENT_FILES_MAX};
use windlass_core::redact;

use crate::diagnostics::{Advice, Rule, Sink, Span, suggest};
use crate::skill::pack_of;
use crate::source::{FileError, Files, folder_of, resolve};
use crate::yaml::{self, Data, Node};

/// Begins the reference that stands for a key that was written into a document.
const INLINE: &str = "inline:";
/// Begins what documents write for a key in an environment variable.
const ENVIRONMENT: &str = "env:";
/// How a reference to one of the operator's own secrets begins.
const KEPT: &str = "secret:";
/// Bytes from which a key is long enough to look for elsewhere in its file.
const KEY_BYTES_MIN: usize = 12;

/// Reads documents by path.
pub(crate) struct Documents<'a> {
    files: &'a dyn Files,
    pub(crate) sink: Sink,
    read: BTreeMap<String, Document>,
    keys: BTreeMap<u32, BTreeMap<Span, String>>,
    refuse_inline_keys: bool,
    /// Whether the documents are those of a bundle, which were accepted when it was stored.
    is_stored: bool,
}

struct Document {
    file: u32,
    text: Arc<str>,
    root: Option<Arc<Node>>,
    /// Whether it is UTF-8.
    is_valid: bool,
    /// Whether it was read as something else than a document.
    is_text: bool,
}

/// As what a file is read.
#[derive(Clone, Copy)]
enum Content {
    /// YAML or JSON.
    Document,
    /// Something else.
    Text,
}

/// What a load gives besides the machine: stored texts, and the keys taken out of them.
pub(crate) struct Stored {
    pub(crate) texts: BTreeMap<String, String>,
    pub(crate) secrets: BTreeMap<String, SecretString>,
}

impl<'a> Documents<'a> {
    pub(crate) fn new(files: &'a dyn Files, refuse_inline_keys: bool) -> Self {
        let (read, keys) = (BTreeMap::new(), BTreeMap::new());
        Self { files, sink: Sink::default(), read, keys, refuse_inline_keys, is_stored: false }
    }

    /// Documents of a stored bundle: what was accepted then is not refused for its credentials now.
    pub(crate) fn stored(files: &'a dyn Files) -> Self {
        Self { is_stored: true, ..Self::new(files, false) }
    }

    /// The path that a reference in a document means; a reference that leaves the tree is reported.
    pub(crate) fn path(&mut self, folder: &str, reference: &str, span: Span) -> Option<String> {
        match resolve(folder, reference) {
            Ok(path) if pack_of(&path) == pack_of(folder) => Some(path),
            Ok(path) => {
                let message =
                    format!("`{reference}` leads {} a skill", if pack_of(&path).is_some() { "into" } else { "out of" });
                let advice = "name a skill under `settings.skills`; a skill holds all its documents itself";
                self.sink.error(Rule::BadPath, span, message, advice);
                None
            }
            Err(error) => {
                let advice = "write a path relative to the machine's folder, with `/` between its parts";
                self.sink.error(Rule::BadPath, span, format!("`{reference}` cannot be used: {error}"), advice);
                None
            }
        }
    }

    /// The document at `path`, referred to from `span`. Problems are reported once.
    pub(crate) fn document(&mut self, path: &str, span: Span) -> Option<Arc<Node>> {
        self.found(path, span, Content::Document).flatten()
    }

    /// What is at `path`; none, and a problem, when it cannot be read.
    fn found(&mut self, path: &str, span: Span, content: Content) -> Option<Option<Arc<Node>>> {
        let loaded = self.load(path, content);
        // No document refers to the entry, so what is wrong with its file is said of the file itself.
        let is_entry = span.file == u32::MAX;
        let span = match &loaded {
            Err(_) if is_entry => Span { file: self.sink.add_file(path, "".into()), ..span },
            _ => span,
        };
        match loaded {
            Ok(root) => Some(root),
            Err(FileError::Missing) if is_entry => {
                let advice = "give the path of a machine document";
                self.sink.error(Rule::FileMissing, span, "the file does not exist", advice);
                None
            }
            Err(FileError::Missing) => {
                let folder = folder_of(self.sink.path(span.file)).to_owned();
                let known: Vec<String> = self.read.keys().cloned().collect();
                let advice: Advice = match suggest(path, known.iter().map(String::as_str)) {
                    Some(near) if near.starts_with("did") => near.into(),
                    _ if folder.is_empty() => "paths are relative to the machine document's folder".into(),
                    _ => "paths in an agent document are relative to the machine document's folder".into(),
                };
                self.sink.error(Rule::FileMissing, span, format!("the file `{path}` does not exist"), advice);
                None
            }
            Err(FileError::TooLarge(bytes)) => {
                let message = format!("the file `{path}` has more than {bytes} bytes");
                self.sink.error(Rule::TooLarge, span, message, "move large data out of the document");
                None
            }
            Err(FileError::Other(why)) => {
                self.sink.error(Rule::FileUnreadable, span, format!("the file `{path}` cannot be read: {why}"), ());
                None
            }
        }
    }

    /// The text of the file at `path`, which is no document, and its number.
    pub(crate) fn text(&mut self, path: &str, span: Span) -> Option<(u32, Arc<str>)> {
        self.found(path, span, Content::Text)?;
        self.read.get(path).filter(|document| document.is_valid).map(|document| (document.file, document.text.clone()))
    }

    /// The document at `path` if there is one.
    pub(crate) fn optional(&mut self, path: &str) -> Option<Arc<Node>> {
        self.load(path, Content::Document).unwrap_or_default()
    }

    /// Whether there is a document at `path`, of use or not, that was asked for.
    pub(crate) fn was_read(&self, path: &str) -> bool {
        self.read.contains_key(path)
    }

    fn load(&mut self, path: &str, content: Content) -> Result<Option<Arc<Node>>, FileError> {
        if let Some(document) = self.read.get_mut(path) {
            if let (Content::Document, true, None) = (content, document.is_text, &document.root) {
                document.is_text = false;
                document.root = yaml::parse(document.file, &document.text, &mut self.sink);
            }
            return Ok(document.root.clone());
        }
        if self.read.len() >= DOCUMENT_FILES_MAX {
            return Err(FileError::Other(format!("a machine refers to more than {DOCUMENT_FILES_MAX} documents")));
        }
        let bytes = self.files.read(path, DOCUMENT_BYTES_MAX)?;
        let (text, valid): (Arc<str>, bool) = match String::from_utf8(bytes) {
            Ok(text) => (text.strip_prefix('\u{feff}').unwrap_or(&text).into(), true),
            Err(error) => (String::from_utf8_lossy(error.as_bytes()).into(), false),
        };
        let file = self.sink.add_file(path, text.clone());
        let root = match content {
            _ if !valid => {
                self.not_utf8(file, &text);
                None
            }
            Content::Document => yaml::parse(file, &text, &mut self.sink),
            Content::Text => None,
        };
        let is_text = valid && matches!(content, Content::Text);
        self.read.insert(path.to_owned(), Document { file, text, root: root.clone(), is_valid: valid, is_text });
        Ok(root)
    }

    fn not_utf8(&mut self, file: u32, text: &str) {
        let before = text.split(char::REPLACEMENT_CHARACTER).next().unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let span = Span {
            file,
            line: number(line),
            column: number(column),
            end_line: number(line),
            end_column: number(column + 1),
        };
        self.sink.error(Rule::NotUtf8, span, "the document is not UTF-8", "save it as UTF-8");
    }

    /// The reference for what a document gives as a key: the variable's name for `env:NAME` and `${NAME}`, the text
    /// itself for `secret:NAME`; a key itself is taken out and stands as `inline:` with a part of its hash.
    pub(crate) fn key(&mut self, node: &Node) -> Option<Name> {
        let text = node.as_str()?;
        let braced = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
        if let Some(variable) = braced.or_else(|| text.strip_prefix(ENVIRONMENT)) {
            return Some(variable.into());
        }
        if text.starts_with(INLINE) || text.strip_prefix(KEPT).is_some_and(|name| !name.is_empty()) {
            return Some(text.clone());
        }
        if self.refuse_inline_keys || pack_of(self.sink.path(node.span.file)).is_some() {
            let advice = "write `env:NAME` and set that environment variable";
            self.sink.error(Rule::InlineKey, node.span, "a key is written into the document", advice);
        }
        self.keys.entry(node.span.file).or_default().insert(node.span, text.to_string());
        Some(reference(text).into())
    }

    /// Takes out every value of a mapping that may hold keys.
    pub(crate) fn keys_of(&mut self, node: &Node) {
        for entry in node.as_map().unwrap_or_default() {
            if let Data::Str { .. } = entry.value.data {
                self.key(&entry.value);
            }
        }
    }

    /// Refuses credentials that cannot be taken out: in addresses, and values of keys with such names at any depth.
    /// `api_key` itself is taken out elsewhere.
    pub(crate) fn refuse_credentials(&mut self, settings: &Node) {
        for entry in settings.as_map().unwrap_or_default() {
            if &*entry.key != "api_key" {
                self.refuse_credential(&entry.key, &entry.value);
            }
        }
    }

    fn refuse_credential(&mut self, name: &str, node: &Node) {
        for entry in node.as_map().unwrap_or_default() {
            self.refuse_credential(&entry.key, &entry.value);
        }
        for item in node.as_list().unwrap_or_default() {
            self.refuse_credential(name, item);
        }
        let Some(text) = node.as_str() else { return };
        // `<...>` are marks such as `eos_token`, and places to fill in.
        let is_reference = redact::is_reference(text) || text.contains("{{") || text.starts_with('<');
        let is_credential = (redact::is_secret_name(name) && !is_reference) || redact::has_credentials(text);
        if is_credential && !self.is_stored {
            let message = format!("`{name}` holds a credential, which would be stored with the document");
            let advice =
                "write `api_key: env:NAME`, or `key_env` or `key_file` in the provider's table of `windlass.toml`";
            self.sink.error(Rule::InlineKey, node.span, message, advice);
        }
    }

    /// The texts as they are stored: every key replaced by its reference.
    pub(crate) fn store(&mut self) -> Stored {
        let (mut texts, mut secrets) = (BTreeMap::new(), BTreeMap::new());
        let keys = std::mem::take(&mut self.keys);
        for (path, document) in &std::mem::take(&mut self.read) {
            let mut text = document.text.to_string();
            if let Some(found) = keys.get(&document.file) {
                text = self.without_keys(&document.text, found);
                leftovers(&text, found, &mut self.sink);
                secrets.extend(found.values().map(|secret| (reference(secret), SecretString::from(secret.clone()))));
            }
            texts.insert(path.clone(), text);
        }
        Stored { texts, secrets }
    }

    /// A text with the keys at the given places replaced by their references.
    fn without_keys(&mut self, text: &str, keys: &BTreeMap<Span, String>) -> String {
        let line_starts: Vec<usize> =
            std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let (mut out, mut done) = (String::with_capacity(text.len()), 0);
        for (span, secret) in keys {
            let line_start = line_starts.get(span.line.saturating_sub(1) as usize).copied();
            match line_start.and_then(|start| scalar_at(text, start, span.column, secret)) {
                Some((start, end)) if start >= done => {
                    out.push_str(&text[done..start]);
                    out.push_str(&format!("\"{}\"", reference(secret)));
                    done = end;
                }
                _ => {
                    let advice = "write the key in one line, or as `env:NAME`";
                    self.sink.error(Rule::InlineKey, *span, "the key cannot be taken out", advice);
                }
            }
        }
        out.push_str(&text[done..]);
        out
    }
}

/// Reports keys that are still somewhere in the text, in a comment perhaps.
fn leftovers(text: &str, found: &BTreeMap<Span, String>, sink: &mut Sink) {
    let distinct: BTreeSet<&String> = found.values().filter(|s| s.len() >= KEY_BYTES_MIN).collect();
    for secret in distinct {
        if text.contains(secret.as_str())
            && let Some((span, _)) = found.iter().find(|(_, s)| *s == secret)
        {
            let message = "this key stands elsewhere in the document too, where it would be stored";
            sink.error(Rule::InlineKey, *span, message, "remove the other place, or write `env:NAME` here");
        }
    }
}

fn reference(secret: &str) -> String {
    format!("{INLINE}{}", Digest::of(secret.as_bytes()).short())
}

/// Where the scalar at a column of a line begins and ends, in bytes. None when it is not written within the line.
fn scalar_at(text: &str, line_start: usize, column: u32, secret: &str) -> Option<(usize, usize)> {
    let line = text.get(line_start..)?.lines().next()?;
    let start = line.char_indices().nth(column.checked_sub(1)? as usize)?.0;
    let rest = &line[start..];
    let length = match rest.chars().next()? {
        quote @ ('"' | '\'') => quoted_length(rest, quote)?,
        _ => rest.starts_with(secret).then_some(secret.len())?,
    };
    Some((line_start + start, line_start + start + length))
}

/// Bytes of the quoted scalar that `text` begins with.
fn quoted_length(text: &str, quote: char) -> Option<usize> {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if quote == '"' => {
                chars.next();
            }
            c if c == quote => {
                if quote == '\'' && chars.peek().is_some_and(|(_, next)| *next == quote) {
                    chars.next();
                    continue;
                }
                return Some(at + 1);
            }
            _ => {}
        }
    }
    None
}
