//! Where values came from: labels on paths of a run's data, kept beside the values and not within them.
//!
//! Owns the set and how labels join. Which inputs bring a label is decided in [`crate::decide`]; what a label forbids is
//! for the rules.

mod template;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::contract::Flow;
use crate::ids::Name;
use crate::input::Ending;
use crate::limits;
use crate::run::Run;
use crate::value::Value;

pub use template::{View, of_template};

/// What is known of a value by where it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// Someone outside may have written it: it may hold instructions.
    Untrusted,
    /// It must not leave.
    Secret,
}

impl Label {
    /// Every label.
    pub const ALL: [Self; 2] = [Self::Untrusted, Self::Secret];

    /// The word, as rules see it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::Secret => "secret",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|label| label.as_str() == text)
    }
}

/// Labels without what brought them. Stored as a list of words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<Label>", into = "Vec<Label>")]
pub struct LabelSet {
    untrusted: bool,
    secret: bool,
}

impl LabelSet {
    /// Every set there is.
    pub const ALL: [Self; 4] = [
        Self { untrusted: false, secret: false },
        Self { untrusted: true, secret: false },
        Self { untrusted: false, secret: true },
        Self { untrusted: true, secret: true },
    ];

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it has a label.
    #[must_use]
    pub fn contains(self, label: Label) -> bool {
        match label {
            Label::Untrusted => self.untrusted,
            Label::Secret => self.secret,
        }
    }

    /// Whether it has every label of another one.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        Label::ALL.into_iter().all(|label| self.contains(label) || !other.contains(label))
    }

    /// Its labels.
    pub fn iter(self) -> impl Iterator<Item = Label> {
        Label::ALL.into_iter().filter(move |label| self.contains(*label))
    }
}

impl FromIterator<Label> for LabelSet {
    fn from_iter<I: IntoIterator<Item = Label>>(labels: I) -> Self {
        let mut set = Self::default();
        for label in labels {
            match label {
                Label::Untrusted => set.untrusted = true,
                Label::Secret => set.secret = true,
            }
        }
        set
    }
}

impl From<Vec<Label>> for LabelSet {
    fn from(labels: Vec<Label>) -> Self {
        labels.into_iter().collect()
    }
}

impl From<LabelSet> for Vec<Label> {
    fn from(set: LabelSet) -> Self {
        set.iter().collect()
    }
}

/// What brought a label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Source {
    /// What kind of thing.
    pub kind: SourceKind,
    /// Its name: the tool, hook, child machine or state; empty for the input.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub name: Name,
    /// The step of the run in which it came; 0 before the first.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub step: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(step: &u64) -> bool {
    *step == 0
}

/// The kinds of things that bring labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// The input of the run.
    Input,
    /// A signal that a state waited for.
    Signal,
    /// The answer of a tool.
    Tool,
    /// The answer of an action.
    Action,
    /// The answer of a hook.
    Hook,
    /// How a tool that others provide describes itself.
    Description,
    /// What a person wrote who was asked for an approval.
    Person,
    /// The text of a failure.
    Failure,
    /// Nobody kept labels when it came.
    Unknown,
}

impl SourceKind {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Signal => "signal",
            Self::Tool => "tool",
            Self::Action => "action",
            Self::Hook => "hook",
            Self::Description => "description",
            Self::Person => "person",
            Self::Failure => "failure",
            Self::Unknown => "unknown",
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind.as_str())?;
        if !self.name.is_empty() {
            write!(f, " `{}`", self.name)?;
        }
        if self.step > 0 { write!(f, " in step {}", self.step) } else { Ok(()) }
    }
}

/// Labels of one value, each with what brought it first.
pub type Tags = BTreeMap<Label, Source>;

/// The labels alone.
#[must_use]
pub fn set_of(tags: &Tags) -> LabelSet {
    tags.keys().copied().collect()
}

/// One label on one path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Keys from the value inwards; empty for the value itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<Name>,
    /// The label.
    pub label: Label,
    /// What brought it.
    pub from: Source,
}

/// Labels on the parts of a value. A label on a part counts for everything within it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Mark>", into = "Vec<Mark>")]
pub struct Marks(BTreeMap<(Vec<Name>, Label), Source>);

impl From<Vec<Mark>> for Marks {
    fn from(marks: Vec<Mark>) -> Self {
        Self(marks.into_iter().map(|mark| ((mark.path, mark.label), mark.from)).collect())
    }
}

impl From<Marks> for Vec<Mark> {
    fn from(marks: Marks) -> Self {
        marks.0.into_iter().map(|((path, label), from)| Mark { path, label, from }).collect()
    }
}

/// Whether one path is another one or within it.
fn is_within(path: &[Name], outer: &[Name]) -> bool {
    path.len() >= outer.len() && path[..outer.len()] == *outer
}

impl Marks {
    /// A value of which every part has these labels.
    #[must_use]
    pub fn whole(tags: Tags) -> Self {
        Self(tags.into_iter().map(|(label, from)| ((Vec::new(), label), from)).collect())
    }

    /// Whether nothing is labelled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many labels there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Each label with its path and what brought it.
    pub fn iter(&self) -> impl Iterator<Item = (&[Name], Label, &Source)> {
        self.0.iter().map(|((path, label), from)| (path.as_slice(), *label, from))
    }

    /// Adds a label, unless something around it has it.
    pub fn add(&mut self, path: Vec<Name>, label: Label, from: Source) {
        let covered = (0..=path.len()).any(|length| self.0.contains_key(&(path[..length].to_vec(), label)));
        if covered {
            return;
        }
        // What is within a path stands in one row after it.
        let inner: Vec<_> = self
            .0
            .range((path.clone(), Label::ALL[0])..)
            .map(|(key, _)| key)
            .take_while(|(inner, _)| is_within(inner, &path))
            .filter(|(_, other)| *other == label)
            .cloned()
            .collect();
        inner.iter().for_each(|key| _ = self.0.remove(key));
        self.0.insert((path, label), from);
    }

    /// Adds labels to the whole value.
    pub fn tag(&mut self, tags: Tags) {
        for (label, from) in tags {
            self.add(Vec::new(), label, from);
        }
    }

    /// Adds the labels of another value to this one.
    pub fn join(&mut self, other: Self) {
        for ((path, label), from) in other.0 {
            self.add(path, label, from);
        }
    }

    /// The same as parts of a value around this one.
    #[must_use]
    pub fn within(self, outer: &[Name]) -> Self {
        let inside = |path: Vec<Name>| outer.iter().cloned().chain(path).collect();
        Self(self.0.into_iter().map(|((path, label), from)| ((inside(path), label), from)).collect())
    }

    /// The labels of the part at a path, with paths from there.
    #[must_use]
    pub fn below(&self, path: &[Name]) -> Self {
        let mut found = Self::default();
        for ((at, label), from) in &self.0 {
            if is_within(path, at) {
                found.add(Vec::new(), *label, from.clone());
            } else if is_within(at, path) {
                found.add(at[path.len()..].to_vec(), *label, from.clone());
            }
        }
        found
    }

    /// What the part at a path is labelled with, by itself, by what is around it, or by something within it.
    #[must_use]
    pub fn at(&self, path: &[Name]) -> Tags {
        let mut tags = Tags::new();
        for ((at, label), from) in &self.0 {
            if is_within(path, at) || is_within(at, path) {
                tags.entry(*label).or_insert_with(|| from.clone());
            }
        }
        tags
    }

    /// What anything in it is labelled with.
    #[must_use]
    pub fn all(&self) -> Tags {
        self.at(&[])
    }

    /// The labels of a value without those of some of its parts. What stands around such a part moves to all that is
    /// beside it.
    #[must_use]
    pub fn freed(self, value: &Value, free: &[Vec<Name>]) -> Self {
        if free.is_empty() {
            return self;
        }
        let mut left = Self::default();
        for ((path, label), from) in self.0 {
            if free.iter().any(|part| is_within(&path, part)) {
                continue;
            }
            let inside: Vec<&[Name]> =
                free.iter().filter(|part| is_within(part, &path)).map(|part| &part[path.len()..]).collect();
            let mut at = path.clone();
            left.spread(&value.at_path(&path), &mut at, &inside, label, &from);
        }
        left
    }

    /// Labels a value but for the parts at some paths, of which none is empty.
    fn spread(&mut self, value: &Value, at: &mut Vec<Name>, free: &[&[Name]], label: Label, from: &Source) {
        if free.iter().any(|path| path.is_empty()) {
            return;
        }
        // Of many parts none is told apart from the others.
        let told_apart = value.as_map().filter(|map| !free.is_empty() && map.len() <= limits::LABELS_MAX);
        let Some(map) = told_apart else {
            return self.add(at.clone(), label, from.clone());
        };
        for (key, part) in map {
            let inside = free.iter().filter_map(|path| path.split_first());
            let inside: Vec<&[Name]> = inside.filter(|(first, _)| *first == key).map(|(_, rest)| rest).collect();
            at.push(key.clone());
            self.spread(part, at, &inside, label, from);
            at.pop();
        }
    }

    /// Takes away what stands on a path and within it. What stands around it stays.
    pub fn clear(&mut self, path: &[Name]) {
        self.0.retain(|(at, _), _| !is_within(at, path));
    }

    /// Brings it within its bounds: labels move outwards, which only adds.
    pub(crate) fn bound(&mut self) {
        let bytes = |path: &[Name]| path.iter().map(|part| part.len()).sum::<usize>();
        let long = |path: &[Name]| path.len() > 1 && bytes(path) > limits::LABEL_PATH_BYTES_MAX;
        self.lift(long);
        while self.0.len() > limits::LABELS_MAX {
            let deepest = self.0.keys().map(|(path, _)| path.len()).max().unwrap_or_default();
            if deepest <= 1 {
                return;
            }
            self.lift(|path| path.len() == deepest);
        }
    }

    /// Moves labels on these paths outwards until none of them is left.
    fn lift(&mut self, which: impl Fn(&[Name]) -> bool) {
        if !self.0.keys().any(|(path, _)| which(path)) {
            return;
        }
        let old = std::mem::take(&mut self.0);
        for ((mut path, label), from) in old {
            while which(&path) {
                path.pop();
            }
            self.add(path, label, from);
        }
    }
}

/// The labels of a run's data. The first part of a path is the place: `input`, `context`, `output`, `asked` for the
/// conversation with a model, `join` for the results of children, `doubt` for what was said about an action in doubt until
/// its result is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    /// Whether labels are kept: without, nothing is known, rather than nothing labelled.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kept: bool,
    /// The labels.
    #[serde(default, skip_serializing_if = "Marks::is_empty")]
    pub marks: Marks,
}

impl Labels {
    /// Whether nothing has ever been labelled.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        *self == Self::default()
    }

    /// The labels after a change: what stood on and within `cleared` gives way to `marks`.
    #[must_use]
    pub fn changed(&self, cleared: &[Vec<Name>], marks: &Marks) -> Self {
        let mut changed = self.marks.clone();
        for path in cleared {
            changed.clear(path);
        }
        changed.join(marks.clone());
        changed.bound();
        Self { kept: true, marks: changed }
    }

    /// Takes away what stands in a place.
    pub(crate) fn empty(&mut self, place: &str) {
        if !self.marks.is_empty() {
            self.marks.clear(&[Name::from(place)]);
        }
    }
}

/// A path in a run's data.
pub(crate) fn path<const N: usize>(parts: [&str; N]) -> Vec<Name> {
    parts.into_iter().map(Name::from).collect()
}

/// The labels of what a call of a tool or action would send: of the conversation of the model that asks for it, or of
/// all data of the run for an action, which gets all of it.
#[must_use]
pub fn of_arguments(run: &Run, by_model: bool) -> Tags {
    if by_model { run.labels.marks.at(&path(["asked"])) } else { run.labels.marks.all() }
}

/// The labels of what a run that ended tells its parent; none where it keeps none.
#[must_use]
pub fn of_result(run: &Run, ending: &Ending) -> Option<Marks> {
    if !run.labels.kept {
        return None;
    }
    if let Ending::Completed { output } = ending {
        let marks = run.labels.marks.below(&path(["output"]));
        // Which part of the output a piece of its text was is not known any more.
        return Some(if is_cut(output) { Marks::whole(marks.all()) } else { marks });
    }
    // Why it ended may repeat anything that it had, and what others said.
    let mut tags = run.labels.marks.all();
    let from = Source { kind: SourceKind::Failure, name: run.start.machine_name.clone(), step: run.step };
    tags.entry(Label::Untrusted).or_insert(from);
    Some(Marks::whole(tags))
}

/// What stands for an answer that was larger than its bound: the beginning of it, as text.
#[must_use]
pub fn cut_answer(bytes: u64, text: &str) -> Value {
    Value::object([("truncated", Value::Bool(true)), ("bytes", Value::count(bytes)), ("text", Value::str(text))])
}

/// Whether an answer is one of [`cut_answer`].
#[must_use]
pub fn is_cut(answer: &Value) -> bool {
    answer.get("truncated") == Some(&Value::Bool(true)) && answer.get("bytes").is_some() && answer.get("text").is_some()
}

/// The labels of an answer: what its contract says of it, and those of what was sent, without those of the parts that are
/// free of them.
#[must_use]
pub fn of_answer(flow: &Flow, free: &[Vec<Name>], answer: &Value, from: &Source, sent: Tags) -> Marks {
    let mut tags = sent;
    if !flow.trusted {
        tags.entry(Label::Untrusted).or_insert_with(|| from.clone());
    }
    if is_cut(answer) && !flow.secret.is_empty() {
        // Which part of the answer a piece of its text was is not known any more.
        tags.entry(Label::Secret).or_insert_with(|| from.clone());
    }
    let free = if is_cut(answer) { &[] } else { free };
    let mut marks = Marks::whole(tags).freed(answer, free);
    for secret in &flow.secret {
        if let Some(part) = reached(answer, secret) {
            marks.add(part.to_vec(), Label::Secret, from.clone());
        }
    }
    marks
}

/// The parts of a hook's answer that it calls secret itself: `secret`, a list of JSON Pointers into the answer. All of the
/// answer where one of them is none, or where there are more than are told apart.
#[must_use]
pub fn said_secret(answer: &Value) -> Vec<Vec<Name>> {
    let Some(said) = answer.get("secret").and_then(Value::as_list) else { return Vec::new() };
    let whole = || vec![Vec::new()];
    if said.len() > limits::LABELS_MAX {
        return whole();
    }
    let paths: Option<Vec<_>> = said.iter().map(|part| pointer(part.as_str()?)).collect();
    paths.unwrap_or_else(whole)
}

/// As far as a path leads into a value: to its end, or to the list or the text in which what it names would be. None where
/// a mapping does not have it.
#[must_use]
pub fn reached<'p>(value: &Value, path: &'p [Name]) -> Option<&'p [Name]> {
    let mut current = value;
    for (depth, key) in path.iter().enumerate() {
        match current.as_map() {
            Some(map) => current = map.get(key)?,
            None if current.is_null() => return None,
            None => return Some(&path[..depth]),
        }
    }
    (!current.is_null()).then_some(path)
}

/// The path that a JSON Pointer names, as keys. None for a text that is none, also by a `~` that escapes nothing.
#[must_use]
pub fn pointer(text: &str) -> Option<Vec<Name>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let rest = text.strip_prefix('/')?;
    if rest.split('~').skip(1).any(|after| !after.starts_with(['0', '1'])) {
        return None;
    }
    let parts = rest.split('/');
    Some(parts.map(|part| part.replace("~1", "/").replace("~0", "~").into()).collect())
}

#[cfg(test)]
mod tests;
