//! YAML 1.2 (core schema) and JSON text to a tree whose every part knows its place.
//!
//! Anchors and aliases share nodes, merge keys are applied, duplicate keys are found, and depth and number of values
//! are bounded before anything is built. Knows nothing of machines.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use saphyr::Scalar;
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span as Place, Tag};
use serde::de::{MapAccess, SeqAccess, Visitor};
use windlass_core::ids::Name;
use windlass_core::limits::{DOCUMENT_VALUES_MAX, VALUE_DEPTH_MAX};
use windlass_core::value::{Map, Value};

use crate::diagnostics::{Rule, Sink, Span};

/// One value of a document.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) data: Data,
    /// Values in this tree, every alias counted in full.
    weight: usize,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// `plain` is text without quotes, which another version of YAML may read as something else.
    Str {
        text: Name,
        plain: bool,
    },
    List(Vec<Arc<Node>>),
    Map(Vec<Entry>),
}

/// One pair of a mapping.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Name,
    pub(crate) key_span: Span,
    pub(crate) value: Arc<Node>,
}

impl Node {
    pub(crate) fn new(span: Span, data: Data) -> Self {
        let weight = match &data {
            Data::List(items) => items.iter().fold(1, |n: usize, item| n.saturating_add(item.weight)),
            Data::Map(entries) => entries.iter().fold(1, |n: usize, e| n.saturating_add(e.value.weight)),
            Data::Null | Data::Bool(_) | Data::Int(_) | Data::Float(_) | Data::Str { .. } => 1,
        };
        Self { span, data, weight }
    }

    pub(crate) fn as_str(&self) -> Option<&Name> {
        if let Data::Str { text, .. } = &self.data { Some(text) } else { None }
    }

    pub(crate) fn as_list(&self) -> Option<&[Arc<Self>]> {
        if let Data::List(items) = &self.data { Some(items) } else { None }
    }

    pub(crate) fn as_map(&self) -> Option<&[Entry]> {
        if let Data::Map(entries) = &self.data { Some(entries) } else { None }
    }

    pub(crate) fn as_f64(&self) -> Option<f64> {
        match self.data {
            Data::Int(i) => Some(i as f64),
            Data::Float(f) => Some(f),
            Data::Null | Data::Bool(_) | Data::Str { .. } | Data::List(_) | Data::Map(_) => None,
        }
    }

    /// The whole number, if it is one and not negative.
    pub(crate) fn as_u64(&self) -> Option<u64> {
        match self.data {
            Data::Int(i) => u64::try_from(i).ok(),
            Data::Float(f) if f.fract() == 0.0 && (0.0..9.0e15).contains(&f) => Some(f as u64),
            Data::Null | Data::Bool(_) | Data::Float(_) | Data::Str { .. } | Data::List(_) | Data::Map(_) => None,
        }
    }

    /// The boolean, also when it is spelled as YAML 1.1 does.
    pub(crate) fn as_bool(&self) -> Option<bool> {
        match &self.data {
            Data::Bool(b) => Some(*b),
            Data::Str { text, plain: true } => boolean_word(text),
            Data::Null | Data::Int(_) | Data::Float(_) | Data::Str { .. } | Data::List(_) | Data::Map(_) => None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self.data, Data::Null)
    }

    /// The pair under `key`, unless its value is null.
    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.as_map()?.iter().find(|e| *e.key == *key && !e.value.is_null())
    }

    /// The value under `key`, unless it is null.
    pub(crate) fn get(&self, key: &str) -> Option<&Arc<Self>> {
        self.entry(key).map(|e| &e.value)
    }

    /// The text under `key`.
    pub(crate) fn text(&self, key: &str) -> Option<&Name> {
        self.get(key).and_then(|n| n.as_str())
    }

    /// A scalar as text, as an author who forgot quotes means it.
    pub(crate) fn scalar_text(&self) -> Option<Name> {
        match &self.data {
            Data::Str { text, .. } => Some(text.clone()),
            Data::Bool(b) => Some(b.to_string().into()),
            Data::Int(i) => Some(i.to_string().into()),
            Data::Float(f) => Some(f.to_string().into()),
            Data::Null | Data::List(_) | Data::Map(_) => None,
        }
    }

    /// The word for this value's type in messages.
    pub(crate) fn kind(&self) -> &'static str {
        match self.data {
            Data::Null => "null",
            Data::Bool(_) => "a boolean",
            Data::Int(_) | Data::Float(_) => "a number",
            Data::Str { .. } => "text",
            Data::List(_) => "a list",
            Data::Map(_) => "a mapping",
        }
    }

    /// The value without its places.
    pub(crate) fn to_value(&self) -> Value {
        match &self.data {
            Data::Null => Value::Null,
            Data::Bool(b) => Value::Bool(*b),
            Data::Int(i) => Value::Int(*i),
            Data::Float(f) => Value::float(*f).unwrap_or_default(),
            Data::Str { text, .. } => Value::Str(text.clone()),
            Data::List(items) => Value::list(items.iter().map(|item| item.to_value()).collect()),
            Data::Map(entries) => {
                Value::map(entries.iter().map(|e| (e.key.clone(), e.value.to_value())).collect::<Map>())
            }
        }
    }
}

/// Words that YAML 1.1 reads as booleans and YAML 1.2 as text.
pub(crate) fn boolean_word(text: &str) -> Option<bool> {
    match text {
        "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

/// Reads the text of one file. Problems go to the sink; a tree comes back unless the text has no usable structure.
pub(crate) fn parse(file: u32, text: &str, sink: &mut Sink) -> Option<Arc<Node>> {
    let mut builder = Builder { file, sink, anchors: BTreeMap::new(), stack: Vec::new(), root: None, documents: 0 };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let step = match event {
            Ok((event, place)) => builder.event(event, place),
            Err(error) => {
                if let Some(root) = json_without_places(file, text) {
                    return Some(root);
                }
                builder.syntax(&error);
                Err(Stop)
            }
        };
        if step.is_err() {
            return None;
        }
    }
    let root = builder.root.take();
    if root.is_none() {
        let start = Span { file, line: 1, column: 1, end_line: 1, end_column: 1 };
        sink.error(Rule::Syntax, start, "the document is empty", ());
    }
    root
}

/// The problem was reported and the rest of the text cannot be used.
struct Stop;

enum Frame {
    List {
        span: Span,
        anchor: usize,
        items: Vec<Arc<Node>>,
        weight: usize,
    },
    Map {
        span: Span,
        anchor: usize,
        entries: Vec<Entry>,
        keys: BTreeSet<Name>,
        merges: Vec<Arc<Node>>,
        key: Option<Key>,
        weight: usize,
    },
}

struct Key {
    text: Name,
    span: Span,
    merge: bool,
    repeated: bool,
}

struct Builder<'a> {
    file: u32,
    sink: &'a mut Sink,
    anchors: BTreeMap<usize, Arc<Node>>,
    stack: Vec<Frame>,
    root: Option<Arc<Node>>,
    documents: usize,
}

impl Builder<'_> {
    fn span(&self, place: Place) -> Span {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Span {
            file: self.file,
            line: number(place.start.line()).max(1),
            column: number(place.start.col()).saturating_add(1),
            end_line: number(place.end.line()).max(1),
            end_column: number(place.end.col()).saturating_add(1),
        }
    }

    fn fail(&mut self, rule: Rule, span: Span, message: &str, advice: &str) -> Stop {
        self.sink.error(rule, span, message, advice);
        Stop
    }

    fn syntax(&mut self, error: &ScanError) {
        let span = self.span(Place::empty(*error.marker()));
        let advice = "check the indentation and the quotes of this line and the one before it";
        self.sink.error(Rule::Syntax, span, format!("not YAML: {}", error.info()), advice);
    }

    fn event(&mut self, event: Event<'_>, place: Place) -> Result<(), Stop> {
        let span = self.span(place);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    let advice = "put each document into its own file";
                    return Err(self.fail(Rule::UnsupportedYaml, span, "a second document in one file", advice));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                if self.expects_key() {
                    return self.key(&text, style, span, anchor);
                }
                let data = self.scalar(&text, style, tag.as_deref(), span);
                self.finish(Node::new(span, data), anchor)
            }
            Event::Alias(anchor) => self.alias(anchor, span),
            Event::SequenceStart(anchor, tag) => {
                self.open(span, tag.as_deref())?;
                self.stack.push(Frame::List { span, anchor, items: Vec::new(), weight: 1 });
                Ok(())
            }
            Event::MappingStart(anchor, tag) => {
                self.open(span, tag.as_deref())?;
                self.stack.push(Frame::Map {
                    span,
                    anchor,
                    entries: Vec::new(),
                    keys: BTreeSet::new(),
                    merges: Vec::new(),
                    key: None,
                    weight: 1,
                });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(place),
        }
    }

    fn expects_key(&self) -> bool {
        matches!(self.stack.last(), Some(Frame::Map { key: None, .. }))
    }

    /// Checks what opens a list or mapping.
    fn open(&mut self, span: Span, tag: Option<&Tag>) -> Result<(), Stop> {
        if self.expects_key() {
            let advice = "use a plain name as the key; text with `{{ }}` needs quotes";
            return Err(self.fail(Rule::UnsupportedYaml, span, "a list or mapping is used as a key", advice));
        }
        if self.stack.len() >= VALUE_DEPTH_MAX {
            let message = format!("the document is nested deeper than {VALUE_DEPTH_MAX} levels");
            return Err(self.fail(Rule::TooLarge, span, &message, "flatten it, or move parts into files"));
        }
        if let Some(tag) = tag.filter(|t| !(t.is_yaml_core_schema() && matches!(&*t.suffix, "seq" | "map"))) {
            self.sink.error(
                Rule::UnsupportedYaml,
                span,
                format!("the tag `{tag}` has no meaning in these documents"),
                "remove the tag",
            );
        }
        Ok(())
    }

    fn key(&mut self, text: &str, style: ScalarStyle, span: Span, anchor: usize) -> Result<(), Stop> {
        let name: Name = text.into();
        if anchor > 0 {
            let node = Node::new(span, Data::Str { text: name.clone(), plain: style == ScalarStyle::Plain });
            self.anchors.insert(anchor, Arc::new(node));
        }
        self.set_key(name, span, style == ScalarStyle::Plain && text == "<<");
        Ok(())
    }

    fn set_key(&mut self, text: Name, span: Span, merge: bool) {
        let Some(Frame::Map { keys, key, .. }) = self.stack.last_mut() else { return };
        let repeated = !merge && !keys.insert(text.clone());
        *key = Some(Key { text: text.clone(), span, merge, repeated });
        if repeated {
            let message = format!("the key `{text}` is given twice in one mapping");
            self.sink.error(Rule::DuplicateKey, span, message, "remove one of them, or rename it");
        }
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<(), Stop> {
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            let advice = "a document is a tree: write the value out here, or move the anchor (`&name`) to a part of it";
            return Err(self.fail(Rule::Syntax, span, "an alias is used inside of what it stands for", advice));
        };
        if self.expects_key() {
            let Some(text) = node.scalar_text() else {
                let message = "a list or mapping is used as a key";
                return Err(self.fail(Rule::UnsupportedYaml, span, message, "use a plain name as the key"));
            };
            self.set_key(text, span, false);
            return Ok(());
        }
        self.place(node)
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Data {
        let plain = style == ScalarStyle::Plain && tag.is_none();
        let tag: Option<Cow<'_, Tag>> = tag.map(Cow::Borrowed);
        if tag.as_ref().is_some_and(|t| !t.is_yaml_core_schema()) {
            let advice = "remove the tag";
            self.sink.error(Rule::UnsupportedYaml, span, "a tag has no meaning in these documents", advice);
        }
        let scalar = Scalar::parse_from_cow_and_metadata(text.into(), style, tag.as_ref());
        match scalar {
            Some(Scalar::Null) => Data::Null,
            Some(Scalar::Boolean(b)) => Data::Bool(b),
            Some(Scalar::Integer(i)) => {
                self.leading_zero(text, span);
                Data::Int(i)
            }
            Some(Scalar::FloatingPoint(_)) if is_whole(text) => {
                let message = format!("`{text}` cannot be kept exactly: whole numbers go from -2^63 to 2^63-1");
                let advice = "quote it if it is text, or write it with a decimal point if it may be rounded";
                self.sink.error(Rule::TooLarge, span, message, advice);
                Data::Null
            }
            Some(Scalar::FloatingPoint(f)) if f.is_finite() => {
                self.leading_zero(text, span);
                Data::Float(*f)
            }
            Some(Scalar::FloatingPoint(_)) => {
                let message = format!("`{text}` is not a finite number");
                self.sink.error(Rule::NotFinite, span, message, "write a number, or quote it if it is text");
                Data::Null
            }
            Some(Scalar::String(text)) => Data::Str { text: text.as_ref().into(), plain },
            None => {
                let message = format!("`{text}` does not fit its tag");
                self.sink.error(Rule::UnsupportedYaml, span, message, "remove the tag");
                Data::Null
            }
        }
    }

    fn leading_zero(&mut self, text: &str, span: Span) {
        let digits = text.trim_start_matches(['-', '+']);
        if digits.len() > 1 && digits.starts_with('0') && is_whole(text) {
            self.sink.warn(
                Rule::Ambiguous,
                span,
                format!("`{text}` is a decimal number here; YAML 1.1 reads it as octal"),
                "write it without the leading zero, or quote it if it is text",
            );
        }
    }

    fn close(&mut self, place: Place) -> Result<(), Stop> {
        let end = self.span(place);
        let ended = |start: Span| Span { end_line: end.end_line, end_column: end.end_column, ..start };
        match self.stack.pop() {
            Some(Frame::List { span, anchor, items, .. }) => {
                self.finish(Node::new(ended(span), Data::List(items)), anchor)
            }
            Some(Frame::Map { span, anchor, entries, merges, .. }) => {
                let entries = if merges.is_empty() { entries } else { self.merged(entries, &merges) };
                self.finish(Node::new(ended(span), Data::Map(entries)), anchor)
            }
            None => Ok(()),
        }
    }

    /// Applies `<<`: what is merged comes first, an earlier one over a later one, and the mapping's own keys over all.
    fn merged(&mut self, own: Vec<Entry>, merges: &[Arc<Node>]) -> Vec<Entry> {
        let mut result: Vec<Entry> = Vec::new();
        let mut at: BTreeMap<Name, usize> = BTreeMap::new();
        for merge in merges {
            let sources: Vec<&Arc<Node>> = match &merge.data {
                Data::List(items) => items.iter().collect(),
                _ => vec![merge],
            };
            for source in sources {
                let Some(entries) = source.as_map() else {
                    let message = format!("`<<` merges mappings, not {}", source.kind());
                    self.sink.error(Rule::WrongType, source.span, message, "give an alias of a mapping");
                    continue;
                };
                for entry in entries {
                    if !at.contains_key(&entry.key) {
                        at.insert(entry.key.clone(), result.len());
                        result.push(entry.clone());
                    }
                }
            }
        }
        for entry in own {
            match at.get(&entry.key) {
                Some(&i) => result[i] = entry,
                None => result.push(entry),
            }
        }
        result
    }

    fn finish(&mut self, node: Node, anchor: usize) -> Result<(), Stop> {
        let node = Arc::new(node);
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        self.place(node)
    }

    /// Puts a finished value where it belongs.
    fn place(&mut self, node: Arc<Node>) -> Result<(), Stop> {
        let (span, added) = (node.span, node.weight);
        let weight = match self.stack.last_mut() {
            None => {
                self.root = Some(node);
                return Ok(());
            }
            Some(Frame::List { items, weight, .. }) => {
                items.push(node);
                weight
            }
            Some(Frame::Map { entries, key, merges, weight, .. }) => {
                match key.take() {
                    Some(key) if key.merge => merges.push(node),
                    Some(key) if key.repeated => {}
                    Some(key) => entries.push(Entry { key: key.text, key_span: key.span, value: node }),
                    None => {}
                }
                weight
            }
        };
        *weight = weight.saturating_add(added);
        if *weight > DOCUMENT_VALUES_MAX {
            let message = format!("the document stands for more than {DOCUMENT_VALUES_MAX} values");
            return Err(self.fail(Rule::TooLarge, span, &message, "use fewer aliases, or move parts into files"));
        }
        Ok(())
    }
}

/// Whether a number is written without a fraction and an exponent.
fn is_whole(text: &str) -> bool {
    let digits = text.trim_start_matches(['-', '+']);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

/// JSON that is not YAML (escaped surrogate pairs, for one). Its parts have no places.
fn json_without_places(file: u32, text: &str) -> Option<Arc<Node>> {
    if !text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let node = serde::de::DeserializeSeed::deserialize(JsonNode(file), &mut deserializer).ok()?;
    deserializer.end().ok()?;
    Some(node)
}

struct JsonNode(u32);

impl JsonNode {
    fn node<E>(&self, data: Data) -> Result<Arc<Node>, E> {
        let span = Span { file: self.0, line: 1, column: 1, end_line: 1, end_column: 1 };
        Ok(Arc::new(Node::new(span, data)))
    }
}

impl<'de> serde::de::DeserializeSeed<'de> for JsonNode {
    type Value = Arc<Node>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for JsonNode {
    type Value = Arc<Node>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        self.node(Data::Null)
    }

    fn visit_bool<E>(self, b: bool) -> Result<Self::Value, E> {
        self.node(Data::Bool(b))
    }

    fn visit_i64<E>(self, i: i64) -> Result<Self::Value, E> {
        self.node(Data::Int(i))
    }

    fn visit_u64<E: serde::de::Error>(self, u: u64) -> Result<Self::Value, E> {
        self.node(Data::Int(i64::try_from(u).map_err(|_| E::custom(format!("`{u}` cannot be kept exactly")))?))
    }

    fn visit_f64<E>(self, f: f64) -> Result<Self::Value, E> {
        self.node(Data::Float(f))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        self.node(Data::Str { text: text.into(), plain: false })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(JsonNode(self.0))? {
            items.push(item);
        }
        self.node(Data::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let span = Span { file: self.0, line: 1, column: 1, end_line: 1, end_column: 1 };
        let (mut entries, mut keys) = (Vec::new(), BTreeSet::new());
        while let Some(key) = access.next_key::<String>()? {
            let key: Name = key.into();
            if !keys.insert(key.clone()) {
                return Err(serde::de::Error::custom(format!("the key `{key}` is given twice")));
            }
            let value = access.next_value_seed(JsonNode(self.0))?;
            entries.push(Entry { key, key_span: span, value });
        }
        self.node(Data::Map(entries))
    }
}

#[cfg(test)]
mod tests;
