//! Entities from files: who has which tier, which tools belong together, how far an agent is trusted.
//!
//! The form is Cedar's own JSON. What a file leaves out is filled in here, so that rules need no `has` for it.

use std::collections::BTreeMap;

use cedar_policy::Entity;
use serde_json::{Map, Value as Json, json};

use crate::diagnostic::Finding;
use crate::schema::schema;
use crate::source::File;

/// A type and an id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Uid {
    pub(crate) kind: String,
    pub(crate) id: String,
}

impl Uid {
    pub(crate) fn new(kind: &str, id: impl Into<String>) -> Self {
        Self { kind: kind.to_owned(), id: id.into() }
    }

    pub(crate) fn json(&self) -> Json {
        json!({ "type": self.kind, "id": self.id })
    }

    fn parse(json: &Json) -> Option<Self> {
        let json = json.get("__entity").unwrap_or(json);
        Some(Self { kind: json.get("type")?.as_str()?.to_owned(), id: json.get("id")?.as_str()?.to_owned() })
    }
}

/// One entity as a file has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Record {
    pub(crate) attrs: Map<String, Json>,
    pub(crate) parents: Vec<Uid>,
}

/// All entities of a set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry {
    known: BTreeMap<Uid, Record>,
}

impl Registry {
    /// Reads the entities of a file into the registry.
    ///
    /// # Errors
    /// What is not an entity of the schema, with its place.
    pub(crate) fn read(&mut self, file: &File) -> Result<(), Vec<Finding>> {
        let whole: Json = serde_json::from_str(&file.text)
            .map_err(|error| vec![Finding::error(&file.path, &error).at_line(error.line(), error.column().max(1))])?;
        let Json::Array(items) = whole else {
            let finding = Finding::error(&file.path, "entities are a JSON array").at_line(1, 1);
            return Err(vec![finding.hint("write [{\"uid\": {\"type\": \"User\", \"id\": \"acme/ada\"}, ...}]")]);
        };
        let places = places(&file.text);
        let mut findings = Vec::new();
        for (index, item) in items.iter().enumerate() {
            if let Err(finding) = self.add(file, item) {
                findings.push(finding.at(&file.text, places.get(index).copied().unwrap_or_default()));
            }
        }
        if findings.is_empty() { Ok(()) } else { Err(findings) }
    }

    fn add(&mut self, file: &File, item: &Json) -> Result<(), Finding> {
        let wrong = |message: &str| Finding::error(&file.path, message);
        let Some(map) = item.as_object() else { return Err(wrong("an entity is a JSON object")) };
        if let Some(key) = map.keys().find(|key| !matches!(key.as_str(), "uid" | "attrs" | "parents")) {
            return Err(wrong(&format!("an entity has no key `{key}`")).hint("it has `uid`, `attrs` and `parents`"));
        }
        let uid = map.get("uid").and_then(Uid::parse);
        let Some(uid) = uid else {
            return Err(wrong("`uid` is missing").hint("write \"uid\": {\"type\": \"Tool\", \"id\": \"refund\"}"));
        };
        let attrs = match map.get("attrs") {
            None => Map::new(),
            Some(Json::Object(attrs)) => attrs.clone(),
            Some(_) => return Err(wrong("`attrs` is an object")),
        };
        let parents: Option<Vec<Uid>> = match map.get("parents") {
            None => Some(Vec::new()),
            Some(Json::Array(parents)) => parents.iter().map(Uid::parse).collect(),
            Some(_) => None,
        };
        let parents = parents.ok_or_else(|| {
            wrong("`parents` is a list of references").hint("write [{\"type\": \"Group\", \"id\": \"night\"}]")
        })?;
        if uid.kind == "User" && !uid.id.contains('/') {
            return Err(wrong(&format!("the user `{}` belongs to no tenant", uid.id))
                .hint("the id of a user is `TENANT/NAME`, with the tenant `default` where there are none"));
        }
        let record = Record { attrs, parents };
        let completed = self.completed(&uid, record.clone());
        Entity::from_json_value(entity_json(&uid, &completed), Some(schema())).map_err(|error| {
            let why = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            wrong(&format!("`{}::\"{}\"`: {error}{why}", uid.kind, uid.id))
                .hint("`windlass policy schema` prints the types and their attributes")
        })?;
        if self.known.insert(uid.clone(), record).is_some() {
            return Err(wrong(&format!("`{}::\"{}\"` is given twice", uid.kind, uid.id)));
        }
        Ok(())
    }

    /// What a file says about an entity.
    pub(crate) fn get(&self, uid: &Uid) -> Option<&Record> {
        self.known.get(uid)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// An entity with everything that the schema asks for: what the file says, then `record`'s defaults by type.
    pub(crate) fn completed(&self, uid: &Uid, mut record: Record) -> Record {
        let mut fill = |key: &str, value: Json| {
            record.attrs.entry(key).or_insert(value);
        };
        match uid.kind.as_str() {
            "User" => {
                let (tenant, name) = uid.id.split_once('/').unwrap_or(("default", &uid.id));
                let parent = Uid::new("Tenant", tenant);
                let inherited = self.known.get(&parent).map(|tenant| tenant.attrs.clone()).unwrap_or_default();
                fill("tenant", unescaped(tenant).into());
                fill("name", name.into());
                for (key, default) in
                    [("tier", json!("")), ("locale", json!("")), ("experiments", json!([])), ("tags", json!([]))]
                {
                    fill(key, inherited.get(key).cloned().unwrap_or(default));
                }
                if !record.parents.contains(&parent) {
                    record.parents.push(parent);
                }
            }
            "Agent" => {
                let (name, version) = uid.id.rsplit_once('@').unwrap_or((&uid.id, ""));
                fill("name", name.into());
                fill("version", version.into());
                fill("trust", json!(0));
                fill("tags", json!([]));
            }
            "Tool" => {
                fill("class", "write".into());
                fill("idempotency", "none".into());
                fill("tags", json!([]));
            }
            "Model" => {
                fill("provider", "".into());
                fill("tags", json!([]));
            }
            "Machine" => fill("tags", json!([])),
            "Transition" => {
                let (machine, rest) = uid.id.split_once('/').unwrap_or(("", &uid.id));
                let (from, to) = rest.split_once("->").unwrap_or((rest, ""));
                for (key, value) in [("machine", machine), ("from", from), ("to", to)] {
                    fill(key, value.into());
                }
                fill("tags", json!([]));
            }
            _ => {}
        }
        record
    }

    /// Every group and tenant above an entity, without itself.
    pub(crate) fn ancestors(&self, of: &Record) -> Vec<(Uid, Record)> {
        let mut found: Vec<(Uid, Record)> = Vec::new();
        let mut next: Vec<Uid> = of.parents.clone();
        while let Some(uid) = next.pop() {
            if found.iter().any(|(known, _)| *known == uid) {
                continue;
            }
            let record = self.known.get(&uid).cloned().unwrap_or_default();
            next.extend(record.parents.iter().cloned());
            found.push((uid, record));
        }
        found
    }
}

/// The JSON that Cedar reads.
pub(crate) fn entity_json(uid: &Uid, record: &Record) -> Json {
    let parents: Vec<Json> = record.parents.iter().map(Uid::json).collect();
    json!({ "uid": uid.json(), "attrs": record.attrs, "parents": parents })
}

/// A tenant's name as a part of a user's id: a slash ends it.
pub(crate) fn escaped(tenant: &str) -> String {
    tenant.replace('%', "%25").replace('/', "%2F")
}

fn unescaped(tenant: &str) -> String {
    tenant.replace("%2F", "/").replace("%25", "%")
}

/// Where the elements of a top-level JSON array begin. The text is known to be JSON.
fn places(text: &str) -> Vec<usize> {
    let (mut found, mut depth, mut in_text, mut escaped) = (Vec::new(), 0_usize, false, false);
    for (at, c) in text.char_indices() {
        if in_text {
            in_text = escaped || c != '"';
            escaped = c == '\\' && !escaped;
            continue;
        }
        match c {
            '{' | '[' => {
                if depth == 1 {
                    found.push(at);
                }
                depth += 1;
            }
            '}' | ']' => depth = depth.saturating_sub(1),
            '"' => {
                if depth == 1 {
                    found.push(at);
                }
                in_text = true;
            }
            c if depth == 1 && !c.is_whitespace() && c != ',' && text[..at].ends_with(['[', ',', ' ', '\n']) => {
                found.push(at);
            }
            _ => {}
        }
    }
    found
}
