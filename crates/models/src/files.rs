//! Files of a prompt in the forms of the providers: parts of the first turn of the user. Pure mapping.
//!
//! Which of them a provider takes is known by the registry; a type that a format has no part for is refused here.

use windlass_core::file::{File, Medium};
use windlass_core::value::{Map, Value};

use crate::errors::Fault;
use crate::wire::text;

/// A file of a medium that the format has no place for.
pub(crate) fn not_taken(file: &File, by: &str) -> Fault {
    let File { name, mime, .. } = file;
    Fault::Unsayable(format!("{by} does not take the file `{name}` of type `{mime}`"))
}

fn data_uri(file: &File) -> Value {
    Value::str(format!("data:{};base64,{}", file.mime, file.data))
}

fn typed(kind: &str, inner: [(&str, Value); 1]) -> Value {
    let [(key, value)] = inner;
    Value::object([("type", Value::str(kind)), (key, value)])
}

/// OpenAI chat completions.
pub(crate) fn chat(file: &File) -> Result<Value, Fault> {
    match file.medium() {
        Some(Medium::Image) => Ok(typed("image_url", [("image_url", Value::object([("url", data_uri(file))]))])),
        Some(Medium::Pdf) => {
            let inner = [("filename", Value::Str(file.name.clone())), ("file_data", data_uri(file))];
            Ok(typed("file", [("file", Value::object(inner))]))
        }
        None => Err(not_taken(file, "chat completions")),
    }
}

/// OpenAI responses.
pub(crate) fn responses(file: &File) -> Result<Value, Fault> {
    match file.medium() {
        Some(Medium::Image) => Ok(typed("input_image", [("image_url", data_uri(file))])),
        Some(Medium::Pdf) => Ok(Value::object([
            ("type", Value::str("input_file")),
            ("filename", Value::Str(file.name.clone())),
            ("file_data", data_uri(file)),
        ])),
        None => Err(not_taken(file, "the responses API")),
    }
}

/// Anthropic messages.
pub(crate) fn anthropic(file: &File) -> Result<Value, Fault> {
    let kind = match file.medium() {
        Some(Medium::Image) => "image",
        Some(Medium::Pdf) => "document",
        None => return Err(not_taken(file, "the messages API")),
    };
    let source = Value::object([
        ("type", Value::str("base64")),
        ("media_type", Value::Str(file.mime.clone())),
        ("data", Value::Str(file.data.clone())),
    ]);
    Ok(typed(kind, [("source", source)]))
}

/// Gemini.
pub(crate) fn gemini(file: &File) -> Result<Value, Fault> {
    if file.medium().is_none() {
        return Err(not_taken(file, "Gemini"));
    }
    let data = [("mimeType", Value::Str(file.mime.clone())), ("data", Value::Str(file.data.clone()))];
    Ok(Value::object([("inlineData", Value::object(data))]))
}

/// Bedrock Converse.
pub(crate) fn bedrock(file: &File) -> Result<Value, Fault> {
    let format = file.mime.rsplit('/').next().unwrap_or_default();
    let source = ("source", Value::object([("bytes", Value::Str(file.data.clone()))]));
    match file.medium() {
        Some(Medium::Image) => Ok(Value::object([("image", Value::object([("format", Value::str(format)), source]))])),
        Some(Medium::Pdf) => {
            // Letters, digits, single blanks, hyphens and brackets are all that a name may have there.
            let plain =
                |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '(' | ')' | '[' | ']') { c } else { '-' };
            let name: String = file.name.chars().map(plain).take(200).collect();
            let name = if name.is_empty() { "document".to_owned() } else { name };
            let inner = [("format", Value::str(format)), ("name", Value::str(name)), source];
            Ok(Value::object([("document", Value::object(inner))]))
        }
        None => Err(not_taken(file, "Converse")),
    }
}

/// Where a format has the turns, and the parts of a turn.
pub(crate) struct Turns {
    /// The key of the turns in the body.
    pub(crate) turns: &'static str,
    /// The key of the parts in a turn.
    pub(crate) parts: &'static str,
    /// A text as a part.
    pub(crate) said: fn(&str) -> Value,
}

/// The body with parts before what the user said first.
pub(crate) fn attach(body: Value, at: &Turns, parts: Vec<Value>) -> Result<Value, Fault> {
    in_first_turn(body, at.turns, |turn| {
        let said: Vec<Value> = match turn.get(at.parts) {
            Some(Value::Str(content)) if content.trim().is_empty() => Vec::new(),
            Some(Value::Str(content)) => vec![(at.said)(content)],
            Some(Value::List(list)) => list.iter().filter(|part| !is_blank(part)).cloned().collect(),
            _ => Vec::new(),
        };
        turn.insert(at.parts.into(), Value::list(parts.into_iter().chain(said).collect()));
    })
}

fn is_blank(part: &Value) -> bool {
    part.get("text").and_then(Value::as_str).is_some_and(|said| said.trim().is_empty())
}

/// The body of Ollama with images beside what the user said first.
pub(crate) fn attach_images(body: Value, files: &[File]) -> Result<Value, Fault> {
    if let Some(file) = files.iter().find(|file| file.medium() != Some(Medium::Image)) {
        return Err(not_taken(file, "Ollama"));
    }
    let images = files.iter().map(|file| Value::Str(file.data.clone())).collect();
    in_first_turn(body, "messages", |turn| {
        turn.insert("images".into(), Value::list(images));
    })
}

fn in_first_turn(body: Value, key: &str, change: impl FnOnce(&mut Map)) -> Result<Value, Fault> {
    let mut body = body.as_map().cloned().unwrap_or_default();
    let mut turns = body.get(key).and_then(Value::as_list).unwrap_or_default().to_vec();
    let first = turns.iter_mut().find(|turn| text(turn, "role") == Some("user"));
    let none = || Fault::Unsayable("there are files, and no turn of the user that they could go with".to_owned());
    let turn = first.ok_or_else(none)?;
    let mut map = turn.as_map().cloned().ok_or_else(none)?;
    change(&mut map);
    *turn = Value::map(map);
    body.insert(key.into(), Value::list(turns));
    Ok(Value::map(body))
}
