//! Finds hidden values in texts and JSON by what they are: where a value went after its call, nobody can say.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value as Json;

use super::Leaf;
use crate::redact::{REDACTED, forms, without};
use crate::value::Value;

/// Bytes from which a text is found anywhere, and in other encodings too.
const ANYWHERE_BYTES_MIN: usize = 8;
/// Bytes from which a text is found as a whole word. A shorter one is found under its own key only: it would match by
/// accident.
const WORD_BYTES_MIN: usize = 4;
/// The same of a number: short ones count things.
const NUMBER_BYTES_MIN: usize = 6;

/// Finds the hidden values of a run in what is shown of it, and puts [`REDACTED`] there. `Debug` shows none.
#[derive(Clone, Default)]
pub struct Veil {
    /// Found anywhere, longest first.
    texts: Vec<String>,
    /// Found as a whole word, longest first.
    words: Vec<String>,
    /// Found under this key: key and text.
    keyed: BTreeSet<(String, String)>,
    /// Nothing is shown.
    all: bool,
}

impl std::fmt::Debug for Veil {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Veil").finish_non_exhaustive()
    }
}

/// The text of a leaf, and from how many bytes on it is looked for elsewhere.
fn text_of(leaf: &Leaf) -> (String, usize) {
    match &leaf.value {
        Value::Str(text) => (text.to_string(), WORD_BYTES_MIN),
        Value::Bool(_) => (leaf.value.to_json(), usize::MAX),
        Value::Null | Value::Int(_) | Value::Float(_) | Value::List(_) | Value::Map(_) => {
            (leaf.value.to_json(), NUMBER_BYTES_MIN)
        }
    }
}

/// A text as it stands within the text of JSON.
fn escaped(text: &str) -> String {
    let quoted = serde_json::to_string(text).unwrap_or_default();
    quoted.trim_start_matches('"').strip_suffix('"').unwrap_or_default().to_owned()
}

/// What a text is found by: its forms, and its lines, for a message may be shown by its first one.
fn needles(text: &str) -> Vec<String> {
    let text = text.trim();
    let mut found = forms(text);
    if text.contains('\n') {
        found.extend(text.lines().map(|line| line.trim().to_owned()));
    }
    found.retain(|needle| needle.len() >= ANYWHERE_BYTES_MIN);
    found
}

/// Whether a leaf may stand in the text of JSON.
pub(super) fn may_hold(json: &str, leaf: &Leaf) -> bool {
    let (whole, least) = text_of(leaf);
    let text = whole.trim();
    if text.len() >= ANYWHERE_BYTES_MIN && needles(text).iter().any(|needle| json.contains(needle)) {
        return true;
    }
    let is_there = json.contains(&escaped(text));
    is_there && (text.len() >= least || json.contains(&*leaf.key))
}

impl Veil {
    pub(super) fn new<'l>(leaves: impl IntoIterator<Item = &'l Leaf>, all: bool) -> Self {
        let mut veil = Self { all, ..Self::default() };
        for leaf in leaves {
            let (whole, least) = text_of(leaf);
            // What a program prints ends with a line break that nobody repeats.
            let text = whole.trim();
            if text.len() >= least.max(ANYWHERE_BYTES_MIN) {
                veil.texts.extend(needles(text));
            }
            if text.len() >= least && text.len() < ANYWHERE_BYTES_MIN {
                veil.words.push(text.to_owned());
            }
            veil.keyed.insert((leaf.key.to_string(), text.to_owned()));
            veil.keyed.insert((leaf.key.to_string(), whole));
        }
        for list in [&mut veil.texts, &mut veil.words] {
            list.sort_by_key(|needle| std::cmp::Reverse(needle.len()));
            list.dedup();
        }
        veil
    }

    /// Whether nothing is hidden.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keyed.is_empty() && !self.all
    }

    /// A text without what is hidden; none when there is nothing in it.
    #[must_use]
    pub fn text(&self, text: &str) -> Option<String> {
        if self.all {
            return (!text.is_empty()).then(|| REDACTED.to_owned());
        }
        let found = without(text, self.texts.iter().map(String::as_str));
        let mut out = found;
        for word in &self.words {
            out = without_word(out.as_deref().unwrap_or(text), word).or(out);
        }
        out
    }

    /// A text as it may be shown.
    #[must_use]
    pub fn shown(&self, text: &str) -> String {
        self.text(text).unwrap_or_else(|| text.to_owned())
    }

    /// Anything as JSON that may be shown.
    #[must_use]
    pub fn document<T: Serialize + ?Sized>(&self, value: &T) -> Json {
        // What is shown is plain data with text keys, for which serialisation cannot fail.
        let mut json = serde_json::to_value(value).unwrap_or_default();
        self.json(&mut json);
        json
    }

    /// The JSON text of a value as it may be shown.
    #[must_use]
    pub fn value(&self, value: &Value) -> String {
        if self.is_empty() { value.to_json() } else { self.document(value).to_string() }
    }

    /// Puts the veil over JSON.
    pub fn json(&self, json: &mut Json) {
        if !self.is_empty() {
            self.under("", json);
        }
    }

    fn under(&self, key: &str, json: &mut Json) {
        match json {
            Json::Null => {}
            Json::Array(items) => items.iter_mut().for_each(|item| self.under(key, item)),
            Json::Object(map) => {
                for (name, mut inner) in std::mem::take(map) {
                    self.under(&name, &mut inner);
                    let name = if self.all { name } else { self.shown(&name) };
                    map.insert(name, inner);
                }
            }
            Json::Bool(_) | Json::Number(_) => {
                let text = json.to_string();
                let is_number = json.is_number();
                let is_known = is_number && (self.all || self.words.contains(&text) || self.texts.contains(&text));
                if is_known || self.keyed.contains(&(key.to_owned(), text)) {
                    *json = REDACTED.into();
                }
            }
            Json::String(text) => {
                if self.keyed.contains(&(key.to_owned(), text.clone())) {
                    *text = REDACTED.into();
                } else if let Some(shown) = self.inner(key, text).or_else(|| self.text(text)) {
                    *text = shown;
                }
            }
        }
    }

    /// Text that is JSON by itself, such as the answer of a tool that a model reads.
    fn inner(&self, key: &str, text: &str) -> Option<String> {
        if self.all || !text.trim_start().starts_with(['{', '[']) {
            return None;
        }
        let before: Json = serde_json::from_str(text).ok()?;
        let mut after = before.clone();
        self.under(key, &mut after);
        (after != before).then(|| after.to_string())
    }
}

/// A text without a word; none when it does not have it.
fn without_word(text: &str, word: &str) -> Option<String> {
    let mut out = String::new();
    let mut from = 0;
    for (at, _) in text.match_indices(word) {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        if at < from || before.is_some_and(char::is_alphanumeric) || after.is_some_and(char::is_alphanumeric) {
            continue;
        }
        out.push_str(&text[from..at]);
        out.push_str(REDACTED);
        from = at + word.len();
    }
    (from > 0).then(|| {
        out.push_str(&text[from..]);
        out
    })
}
