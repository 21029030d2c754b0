//! What rules see of the arguments of a tool's call: what the rule set declares, as `context.args`.
//!
//! A value that is not what was declared is not shown. Whether that denies the call is a matter of the rules that would have
//! looked at it: see [`crate::set`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{Hash, Hasher};

use cedar_policy::{RestrictedExpression, SchemaFragment};
use serde_json::{Map, Value as Json, json};
use windlass_core::contract::Contract;
use windlass_core::hidden;
use windlass_core::ids::{Digest, Name};
use windlass_core::redact::REDACTED;
use windlass_core::value::Value;

use crate::diagnostic::Finding;
use crate::rules::located;
use crate::source::File;

/// The file of a rule set that declares which arguments its rules look at.
pub(crate) const FILE: &str = "arguments.cedarschema";
/// The declaration in the schema of this build, in whose place that of the file is put.
pub(crate) const NONE: &str = "type Arguments = {};";
/// The name of the type.
const NAME: &str = "Arguments";
/// Whole numbers from here on have no exact floating-point form.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
/// Digits after the point that a decimal of Cedar has.
const DECIMALS_MAX: usize = 4;
/// A decimal of Cedar is below this.
const DECIMAL_MAX: f64 = 922_337_203_685_477.0;

/// The arguments of one call, as a question has them. `Debug` shows none of them.
#[derive(Clone)]
pub struct Arguments {
    /// The hash that the question names; all zeroes for a call that has none.
    hash: Digest,
    /// What they are, where that is known.
    value: Option<Value>,
    is_known: bool,
    /// What of them is not shown to anybody but the rules.
    hidden: Vec<Vec<Name>>,
}

impl Arguments {
    /// Those of a call under a contract; `value` is none when it is not known what they are.
    pub(crate) fn of(hash: Digest, value: Option<&Value>, contract: Option<&Contract>) -> Self {
        if hash == Digest::ZERO {
            return Self::default();
        }
        let hidden = contract.map(|contract| contract.redact.arguments.clone()).unwrap_or_default();
        Self { hash, value: value.cloned(), is_known: value.is_some(), hidden }
    }

    /// Those of a call that nobody makes.
    #[must_use]
    pub fn given(value: &Value) -> Self {
        Self::of(value.digest(), Some(value), None)
    }

    /// Those that nobody knows.
    pub(crate) fn unknown() -> Self {
        Self { is_known: false, ..Self::default() }
    }

    /// What stands for them where they are not looked at any more.
    pub(crate) fn without_values(&self) -> Self {
        Self { value: None, hidden: Vec::new(), ..*self }
    }

    /// What they are as Cedar reads it, and the names of those that are not what was declared, or that nobody knows.
    pub(crate) fn shown(&self, declared: &Declared) -> (Vec<(String, RestrictedExpression)>, BTreeSet<String>) {
        let (mut shown, mut unfit) = (Vec::new(), BTreeSet::new());
        for (name, kind) in &declared.fields {
            let given = self.value.as_ref().and_then(|value| value.get(name)).filter(|given| !given.is_null());
            match given.map(|given| kind.shown(given)) {
                Some(Some(value)) => shown.push((name.clone(), value)),
                Some(None) => drop(unfit.insert(name.clone())),
                None if !self.is_known => drop(unfit.insert(name.clone())),
                None => {}
            }
        }
        (shown, unfit)
    }

    /// Whether it is known what they are.
    pub(crate) fn is_known(&self) -> bool {
        self.is_known
    }

    /// For people: numbers and flags as they are, of a text its length, and nothing that the contract hides.
    pub(crate) fn described(&self, declared: &Declared) -> Json {
        let Some(value) = &self.value else {
            return if self.is_known { json!({}) } else { json!("[not known]") };
        };
        described(&hidden::masked(value, &self.hidden), &declared.fields)
    }
}

fn described(value: &Value, fields: &Fields) -> Json {
    let one = |(name, kind): (&String, &Type)| {
        let given = value.get(name).filter(|given| !given.is_null())?;
        let shown = match (given, kind) {
            (Value::Map(_), Type::Record(fields)) => described(given, fields),
            (Value::Str(text), _) if &**text == REDACTED => json!(REDACTED),
            (Value::Str(text), _) => json!(format!("[text of {} bytes]", text.len())),
            (Value::List(items), _) => json!(format!("[list of {}]", items.len())),
            (Value::Map(map), _) => json!(format!("[mapping of {}]", map.len())),
            (Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_), _) => Json::from(given),
        };
        Some((name.clone(), shown))
    };
    Json::Object(fields.iter().filter_map(one).collect())
}

impl Default for Arguments {
    /// Those of a call that has none.
    fn default() -> Self {
        Self { hash: Digest::ZERO, value: None, is_known: true, hidden: Vec::new() }
    }
}

impl PartialEq for Arguments {
    fn eq(&self, other: &Self) -> bool {
        (self.hash, self.is_known) == (other.hash, other.is_known)
    }
}

impl Eq for Arguments {}

impl Hash for Arguments {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.hash, self.is_known).hash(state);
    }
}

impl fmt::Debug for Arguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arguments({}{})", self.hash, if self.is_known { "" } else { ", not known" })
    }
}

type Fields = BTreeMap<String, Type>;

/// A type that an argument is declared with.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Type {
    Long,
    Decimal,
    Text,
    Bool,
    Set(Box<Self>),
    Record(Fields),
}

impl Type {
    /// A type of the schema in its JSON form; `place` is the name of what is declared so.
    fn read(json: &Json, place: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{place}` is declared as what no argument is: there are `Long`, `decimal`, `String`, `Bool`, sets and records of them"
            )
        };
        match (json["type"].as_str(), json["name"].as_str()) {
            (Some("EntityOrCommon"), Some("Long")) => Ok(Self::Long),
            (Some("EntityOrCommon"), Some("decimal")) => Ok(Self::Decimal),
            (Some("EntityOrCommon"), Some("String")) => Ok(Self::Text),
            (Some("EntityOrCommon"), Some("Bool")) => Ok(Self::Bool),
            (Some("Set"), _) => Ok(Self::Set(Box::new(Self::read(&json["element"], place)?))),
            (Some("Record"), _) => fields(json, place).map(Self::Record),
            _ => Err(wrong()),
        }
    }

    /// A value as Cedar reads it; none when it is not of this type.
    fn shown(&self, value: &Value) -> Option<RestrictedExpression> {
        match (self, value) {
            (Self::Long, Value::Int(n)) => Some(RestrictedExpression::new_long(*n)),
            (Self::Long, Value::Float(n)) => {
                let is_exact = n.fract() == 0.0 && n.abs() < EXACT_MAX;
                // It is whole and within range.
                is_exact.then(|| RestrictedExpression::new_long(*n as i64))
            }
            (Self::Decimal, Value::Int(n)) => decimal(&n.to_string()),
            (Self::Decimal, Value::Float(n)) => decimal(&n.to_string()),
            (Self::Decimal, Value::Str(text)) => decimal(text),
            (Self::Text, Value::Str(text)) => Some(RestrictedExpression::new_string(text.to_string())),
            (Self::Bool, Value::Bool(flag)) => Some(RestrictedExpression::new_bool(*flag)),
            (Self::Set(kind), Value::List(items)) => {
                let items: Option<Vec<_>> = items.iter().map(|item| kind.shown(item)).collect();
                Some(RestrictedExpression::new_set(items?))
            }
            (Self::Record(fields), Value::Map(map)) => {
                let given = |(name, kind): (&String, &Self)| {
                    let value = map.get(name.as_str()).filter(|value| !value.is_null())?;
                    Some(kind.shown(value).map(|value| (name.clone(), value)))
                };
                let shown: Option<Vec<_>> = fields.iter().filter_map(given).collect();
                RestrictedExpression::new_record(shown?).ok()
            }
            _ => None,
        }
    }
}

/// A number in digits as Cedar reads it; none when it has more digits than that has.
fn decimal(text: &str) -> Option<RestrictedExpression> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let fits = is_number(whole) && is_number(fraction) && fraction.len() <= DECIMALS_MAX;
    let is_small = whole.parse::<f64>().is_ok_and(|whole| whole < DECIMAL_MAX);
    let sign = if text.starts_with('-') { "-" } else { "" };
    (fits && is_small).then(|| RestrictedExpression::new_decimal(format!("{sign}{whole}.{fraction}")))
}

/// The arguments that the rules of a set look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Declared {
    fields: Fields,
    /// The declaration as it was written.
    text: String,
}

impl Declared {
    /// Reads the declaration.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn read(file: &File) -> Result<Self, Vec<Finding>> {
        let wrong = |why: String| {
            let finding = Finding::error(&file.path, why);
            vec![finding.hint("write `type Arguments = { amount?: Long, currency?: String };`")]
        };
        let (fragment, _warnings) = SchemaFragment::from_cedarschema_str(&file.text)
            .map_err(|error| vec![located(file, &error, Finding::error(&file.path, &error))])?;
        let json = fragment.to_json_value().map_err(|error| wrong(error.to_string()))?;
        let alone = || wrong("declares the type `Arguments` and nothing else".to_owned());
        let namespace = json.as_object().filter(|all| all.len() == 1).and_then(|all| all.get("")).ok_or_else(alone)?;
        let size = |key: &str| namespace[key].as_object().map_or(0, Map::len);
        if (size("commonTypes"), size("entityTypes"), size("actions")) != (1, 0, 0) {
            return Err(alone());
        }
        let declared = namespace["commonTypes"].get(NAME).filter(|kind| kind["type"] == "Record").ok_or_else(alone)?;
        Ok(Self { fields: fields(declared, "").map_err(wrong)?, text: file.text.clone() })
    }

    /// Whether these names lead to something that is declared.
    fn has(&self, path: &[String]) -> bool {
        let Some((name, rest)) = path.split_first() else { return false };
        let mut kind = self.fields.get(name);
        for name in rest {
            kind = match kind {
                Some(Type::Record(fields)) => fields.get(name),
                _ => None,
            };
        }
        kind.is_some()
    }

    /// The declaration in Cedar's syntax; none where nothing is declared.
    pub(crate) fn declaration(&self) -> Option<&str> {
        (!self.text.is_empty()).then_some(&*self.text)
    }
}

/// An argument, or a part of one, that a tool never takes as what it is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Clash {
    /// The names that lead to it.
    pub(crate) place: String,
    pub(crate) declared: &'static str,
    /// What the tool takes there.
    pub(crate) takes: String,
}

impl Declared {
    /// What can never be as it is declared by the schema of a tool's arguments, by the name of the argument. Where the schema
    /// leaves room for it, or refers to what is elsewhere, nothing is said.
    pub(crate) fn clashes(&self, schema: &Json) -> BTreeMap<&str, Clash> {
        let clash = |(name, kind): (&'_ String, &Type)| kind.clash(&schema["properties"][name], name);
        self.fields.iter().filter_map(|field| Some((field.0.as_str(), clash(field)?))).collect()
    }
}

impl Type {
    /// Its name, and the types of JSON Schema that it may be seen from.
    fn words(&self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Long => ("Long", &["integer", "number"]),
            Self::Decimal => ("decimal", &["integer", "number", "string"]),
            Self::Text => ("String", &["string"]),
            Self::Bool => ("Bool", &["boolean"]),
            Self::Set(_) => ("Set", &["array"]),
            Self::Record(_) => ("record", &["object"]),
        }
    }

    fn clash(&self, schema: &Json, place: &str) -> Option<Clash> {
        let (declared, fitting) = self.words();
        let clash = |takes: String| Some(Clash { place: place.to_owned(), declared, takes });
        for key in ["anyOf", "oneOf"] {
            let ways = schema[key].as_array().into_iter().flatten().filter(|way| way["type"] != "null");
            let clashes: Vec<_> = ways.map(|way| self.clash(way, place)).collect();
            if !clashes.is_empty() && clashes.iter().all(Option::is_some) {
                return clashes.into_iter().next().flatten();
            }
        }
        let all = schema["allOf"].as_array().into_iter().flatten();
        if let Some(found) = all.filter_map(|part| self.clash(part, place)).next() {
            return Some(found);
        }
        let values = schema["enum"].as_array().into_iter().flatten().chain(schema.get("const"));
        let mut values = values.filter(|value| !value.is_null()).peekable();
        if let Some(first) = values.peek().map(|first| first.to_string())
            && !values.any(|value| self.shown(&value.clone().into()).is_some())
        {
            return clash(first);
        }
        let kinds = match &schema["type"] {
            Json::Array(kinds) => kinds.iter().filter_map(Json::as_str).collect(),
            kind => kind.as_str().into_iter().collect::<Vec<_>>(),
        };
        let kinds: Vec<&str> = kinds.into_iter().filter(|kind| *kind != "null").collect();
        if !kinds.is_empty() && !kinds.iter().any(|kind| fitting.contains(kind)) {
            return clash(kinds.join(" or "));
        }
        match self {
            Self::Set(kind) => kind.clash(&schema["items"], &format!("{place}[]")),
            Self::Record(fields) => fields
                .iter()
                .find_map(|(name, kind)| kind.clash(&schema["properties"][name], &format!("{place}.{name}"))),
            Self::Long | Self::Decimal | Self::Text | Self::Bool => None,
        }
    }
}

/// The fields of a record in its JSON form, each of which a call may leave out.
fn fields(json: &Json, place: &str) -> Result<Fields, String> {
    let mut fields = Fields::new();
    for (name, kind) in json["attributes"].as_object().into_iter().flatten() {
        let place = if place.is_empty() { name.clone() } else { format!("{place}.{name}") };
        if kind["required"] != json!(false) {
            return Err(format!("`{place}` is not optional: a call may leave out any argument, so write `{name}?:`"));
        }
        fields.insert(name.clone(), Type::read(kind, &place)?);
    }
    Ok(fields)
}

/// Which arguments a rule looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// These, by the names that lead to them.
    Named(BTreeSet<Vec<String>>),
    /// All that are declared: it takes them as a whole.
    All,
}

impl Reads {
    /// Of a rule in its JSON form; none where it looks at no argument.
    pub(crate) fn of(rule: &Json) -> Option<Self> {
        let mut found = Found::default();
        found.look(&rule["conditions"]);
        if found.is_whole {
            return Some(Self::All);
        }
        (!found.paths.is_empty()).then_some(Self::Named(found.paths))
    }

    /// Whether it looks at an argument or a part of it.
    pub(crate) fn has(&self, name: &str) -> bool {
        match self {
            Self::Named(paths) => paths.iter().any(|path| path.first().is_some_and(|first| first == name)),
            Self::All => true,
        }
    }

    /// The first of them that is not declared: a rule with it would never hold.
    pub(crate) fn undeclared(&self, declared: &Declared) -> Option<String> {
        let Self::Named(paths) = self else { return None };
        paths.iter().find(|path| !declared.has(path)).map(|path| path.join("."))
    }
}

#[derive(Default)]
struct Found {
    paths: BTreeSet<Vec<String>>,
    is_whole: bool,
}

impl Found {
    fn look(&mut self, json: &Json) {
        match json {
            Json::Object(map) if map.get("Record").is_some_and(Json::is_object) => {
                let fields = map["Record"].as_object().into_iter().flatten();
                fields.for_each(|(_, inner)| self.look(inner));
            }
            Json::Object(map) => match (access(map), path(json)) {
                (_, Some(path)) if path.is_empty() => self.is_whole = true,
                (Some((word, _)), Some(path)) if path[0] == "args" => match &path[1..] {
                    // That there are some says nothing.
                    [] => self.is_whole |= word == ".",
                    names => drop(self.paths.insert(names.iter().map(|name| (*name).to_owned()).collect())),
                },
                (Some(_), Some(_)) => {}
                (Some((_, of)), None) => self.look(&of["left"]),
                (None, _) => map.values().for_each(|inner| self.look(inner)),
            },
            Json::Array(items) => items.iter().for_each(|item| self.look(item)),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
        }
    }
}

/// `left.attr` or `left has attr`; a record may have keys like these, and nothing within them looks like an access.
fn access(map: &Map<String, Json>) -> Option<(&str, &Json)> {
    let is_access =
        |word: &str, of: &Json| matches!(word, "." | "has") && of.get("left").is_some() && of.get("attr").is_some();
    map.iter().find_map(|(word, of)| is_access(word, of).then_some((&**word, of)))
}

/// The names that lead from the context to what an expression takes or looks for; none where it does not begin there.
fn path(json: &Json) -> Option<Vec<&str>> {
    let map = json.as_object()?;
    if map.get("Var").is_some_and(|var| var == "context") {
        return Some(Vec::new());
    }
    let (_, of) = access(map)?;
    let mut path = path(&of["left"])?;
    match &of["attr"] {
        Json::Array(steps) => path.extend(steps.iter().filter_map(Json::as_str)),
        step => path.extend(step.as_str()),
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use cedar_policy::Policy;

    use super::*;
    use crate::source::Kind;

    fn read(text: &str) -> Result<Declared, String> {
        let file = File { path: FILE.into(), kind: Kind::Arguments, text: text.to_owned() };
        Declared::read(&file).map_err(|findings| findings[0].to_string())
    }

    #[test]
    fn a_declaration_is_one_type_of_optional_values() {
        let good = "// what refunds are\ntype Arguments = { amount?: Long, \"to-whom\"?: Set<String>, c?: { rate?: decimal, dry?: Bool } };\n";
        let declared = read(good).expect("good");
        assert_eq!(declared.fields.keys().collect::<Vec<_>>(), ["amount", "c", "to-whom"]);
        assert_eq!(read("type Arguments = {};").expect("good").fields.len(), 0);
        for (wrong, said) in [
            ("entity X;", "nothing else"),
            ("type Arguments = { a?: Long }; entity X;", "nothing else"),
            ("type Arguments = Long;", "nothing else"),
            ("namespace N { type Arguments = {}; }", "nothing else"),
            ("type Arguments = { a: Long };", "`a` is not optional"),
            ("type Arguments = { a?: { b: Long } };", "`a.b` is not optional"),
            ("type Arguments = { a?: User };", "what no argument is"),
            ("type Arguments = { a?: Long ", "unexpected end"),
        ] {
            let why = read(wrong).expect_err(wrong);
            assert!(why.contains(said), "{wrong}: {why}");
        }
    }

    #[test]
    fn values_are_shown_as_they_were_declared_or_not_at_all() {
        let shown = |kind: &Type, json: &str| {
            let value = Value::from_json(json).expect("JSON");
            kind.shown(&value).map(|shown| format!("{shown:?}")).is_some()
        };
        let set = Type::Set(Box::new(Type::Text));
        let record = Type::Record(Fields::from([("n".to_owned(), Type::Long)]));
        for (kind, json, fits) in [
            (&Type::Long, "100", true),
            (&Type::Long, "100.0", true),
            (&Type::Long, "100.5", false),
            (&Type::Long, "1e300", false),
            (&Type::Long, "\"100\"", false),
            (&Type::Long, "9223372036854775807", true),
            (&Type::Decimal, "99.95", true),
            (&Type::Decimal, "-7", true),
            (&Type::Decimal, "0.12345", false),
            (&Type::Decimal, "1e15", false),
            (&Type::Decimal, "9223372036854775807", false),
            (&Type::Decimal, "\"12.50\"", true),
            (&Type::Decimal, "\"1e3\"", false),
            (&Type::Decimal, "\" 1\"", false),
            (&Type::Decimal, "\"-\"", false),
            (&Type::Text, "1", false),
            (&Type::Text, "\"\"", true),
            (&Type::Bool, "\"true\"", false),
            (&set, "[\"a\", \"b\"]", true),
            (&set, "[]", true),
            (&set, "[\"a\", null]", false),
            (&set, "\"a\"", false),
            (&record, "{\"n\": 1, \"other\": []}", true),
            (&record, "{\"n\": null}", true),
            (&record, "{\"n\": \"1\"}", false),
            (&record, "[]", false),
        ] {
            assert_eq!(shown(kind, json), fits, "{kind:?} {json}");
        }
    }

    #[test]
    fn what_a_schema_never_takes_as_it_is_declared_is_found() {
        let declared =
            read("type Arguments = { n?: Long, rate?: decimal, to?: Set<String>, who?: { age?: Long }, on?: Bool };");
        let declared = declared.expect("good");
        let said = |properties: Json| {
            let clashes = declared.clashes(&json!({ "type": "object", "properties": properties }));
            clashes
                .into_values()
                .map(|clash| format!("{} {} {}", clash.place, clash.declared, clash.takes))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            said(json!({
                "n": { "type": ["string", "null"] }, "rate": { "type": "boolean" },
                "to": { "type": "array", "items": { "type": "integer" } },
                "who": { "type": "object", "properties": { "age": { "anyOf": [{ "type": "string" }, { "type": "null" }] } } },
                "on": { "enum": ["yes", "no", null] },
            })),
            ["n Long string", "on Bool \"yes\"", "rate decimal boolean", "to[] String integer", "who.age Long string"]
        );
        // Where there is room for it, or nobody can tell, nothing is said.
        assert_eq!(
            said(json!({
                "n": { "type": "number" }, "rate": { "type": "string" }, "to": { "$ref": "#/$defs/names" },
                "who": { "oneOf": [{ "type": "string" }, { "type": "object" }] }, "on": { "enum": ["ask", true] },
            })),
            [""; 0]
        );
        assert!(declared.clashes(&Json::Null).is_empty());
        assert_eq!(said(json!({ "n": { "allOf": [{ "minimum": 1 }, { "type": "string" }] } })), ["n Long string"]);
    }

    #[test]
    fn it_is_known_which_arguments_a_rule_looks_at() {
        let of = |condition: &str| {
            let text = format!("forbid (principal, action, resource) when {{ {condition} }};");
            let rule = Policy::parse(None, text).expect("a rule").to_json().expect("JSON");
            Reads::of(&rule)
        };
        let path = |path: &&str| path.split('.').map(str::to_owned).collect();
        let named = |paths: &[&str]| Some(Reads::Named(paths.iter().map(path).collect()));
        assert_eq!(of("resource.tags.contains(\"args\")"), None);
        assert_eq!(of("context has args"), None);
        assert_eq!(of("context.place.machine == \"args\""), None);
        assert_eq!(of("context.args has a && context.args.a > 1"), named(&["a"]));
        assert_eq!(of("context has args.a.b && context[\"args\"][\"c\"].d == 1"), named(&["a.b", "c.d"]));
        assert_eq!(of("context.args == {a: 1}"), Some(Reads::All));
        assert_eq!(of(r#"{"has": context.args has a && context.args.a > 1}["has"]"#), named(&["a"]));
        assert_eq!(of(r#"{".": context}["."].args has a"#), Some(Reads::All));
        assert_eq!(of(r#"{"Record": {"has": context.args.a > 1}}["Record"]["has"]"#), named(&["a"]));
        let declared = read("type Arguments = { a?: { b?: Long }, c?: Long };").expect("good");
        for (condition, undeclared) in [
            ("context.args has a && context.args.c == 1", None),
            ("context has args.a.b", None),
            ("context has args.a.d", Some("a.d")),
            ("context.args has amuont", Some("amuont")),
        ] {
            let reads = of(condition).expect("it looks at some");
            assert_eq!(reads.undeclared(&declared).as_deref(), undeclared, "{condition}");
        }
        assert_eq!(of("[context].contains(context)"), Some(Reads::All));
    }
}
