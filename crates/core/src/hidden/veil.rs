//! Finds hidden values in texts and JSON by what they are: where a value went after its call, nobody can say.

use std::ops::Range;

use serde::Serialize;
use serde_json::Value as Json;

use super::finder::{Finder, Places};
use super::leaves::Leaves;
use super::needles::spellings;
use super::thinking;
use crate::redact::REDACTED;
use crate::value::Value;

/// What stands for the rest of a text that was cut.
const CUT: char = '…';

/// Finds the hidden values of a run in what is shown of it, and puts [`REDACTED`] there; in the place of what models
/// thought it puts size and hash. `Debug` shows none.
#[derive(Clone, Default)]
pub struct Veil {
    /// What is not shown.
    leaves: [Leaves; 2],
    /// Nothing is shown.
    all: bool,
    /// What models thought is shown.
    thinking: bool,
}

impl std::fmt::Debug for Veil {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Veil").finish_non_exhaustive()
    }
}

impl Veil {
    pub(super) fn new(leaves: [Leaves; 2], all: bool) -> Self {
        Self { leaves, all, thinking: false }
    }

    fn finders(&self) -> impl Iterator<Item = &Finder> {
        self.leaves.iter().flat_map(Leaves::finders).map(|finder| &**finder)
    }

    /// The same where what models thought is shown, when `shown` says so. Without this, size and hash stand in its place.
    #[must_use]
    pub fn with_thinking(self, shown: bool) -> Self {
        Self { thinking: shown, ..self }
    }

    /// Whether no value is hidden. What models thought may be.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.leaves.iter().all(Leaves::is_empty) && !self.all
    }

    /// A text without what is hidden; none when there is nothing in it. Where values stand over one another, all of that is
    /// hidden.
    #[must_use]
    pub fn text(&self, text: &str) -> Option<String> {
        if self.all {
            return (!text.is_empty()).then(|| REDACTED.to_owned());
        }
        let mut places = Places::default();
        self.finders().for_each(|finder| finder.places(text, &mut places));
        self.begun(text, &mut places.found);
        let mut found = merged(places.found);
        let words: Vec<_> = places.words.into_iter().filter(|place| is_word(text, place, &found)).collect();
        found.extend(words);
        if found.is_empty() { None } else { Some(without(text, &merged(found))) }
    }

    /// Adds the beginnings of values that stand where a text was cut.
    fn begun(&self, text: &str, places: &mut Vec<Range<usize>>) {
        let mut from = 0;
        for (at, mark) in text.match_indices(CUT) {
            let before = &text[from..at];
            if let Some(bytes) = self.finders().filter_map(|finder| finder.begun(before)).max() {
                places.push(at - bytes..at);
            }
            from = at + mark.len();
        }
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
        if !self.thinking {
            thinking::cover(json);
        }
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
            Json::Bool(_) => {
                if self.is_keyed(key, &json.to_string()) {
                    *json = REDACTED.into();
                }
            }
            Json::Number(_) => {
                if self.all || self.is_number(key, json) {
                    *json = REDACTED.into();
                }
            }
            Json::String(text) => {
                if self.is_keyed(key, text) {
                    *text = REDACTED.into();
                } else if let Some(shown) = self.inner(key, text).or_else(|| self.text(text)) {
                    *text = shown;
                }
            }
        }
    }

    fn is_keyed(&self, key: &str, text: &str) -> bool {
        self.finders().any(|finder| finder.is_keyed(key, text))
    }

    /// Whether a number is hidden, however it and the hidden one are spelled.
    fn is_number(&self, key: &str, json: &Json) -> bool {
        let written = json.to_string();
        let spelled = Value::from_json(&written).map(|number| spellings(&number)).unwrap_or_default();
        spelled
            .into_iter()
            .chain([written])
            .any(|text| self.finders().any(|finder| finder.is_number(&text) || finder.is_keyed(key, &text)))
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

/// Places in their order, of which none stands over another one.
fn merged(mut places: Vec<Range<usize>>) -> Vec<Range<usize>> {
    places.sort_unstable_by_key(|place| place.start);
    let mut merged: Vec<Range<usize>> = Vec::new();
    for place in places {
        match merged.last_mut().filter(|last| place.start < last.end) {
            Some(last) => last.end = last.end.max(place.end),
            None => merged.push(place),
        }
    }
    merged
}

/// Whether what stands at a place is a whole word, beside what is hidden too.
fn is_word(text: &str, place: &Range<usize>, hidden: &[Range<usize>]) -> bool {
    let is_hidden = |at: usize| {
        let after = hidden.partition_point(|place| place.start <= at);
        after.checked_sub(1).is_some_and(|last| at < hidden[last].end)
    };
    let before = text[..place.start].chars().next_back();
    let after = text[place.end..].chars().next();
    let is_open = |neighbour: Option<char>, at: usize| neighbour.is_some_and(char::is_alphanumeric) && !is_hidden(at);
    !is_open(before, place.start.wrapping_sub(1)) && !is_open(after, place.end)
}

/// A text with [`REDACTED`] in these places.
fn without(text: &str, places: &[Range<usize>]) -> String {
    let mut out = String::new();
    let mut from = 0;
    for place in places {
        out.push_str(&text[from..place.start]);
        out.push_str(REDACTED);
        from = place.end;
    }
    out.push_str(&text[from..]);
    out
}
