//! Files among values: what a file is as a value, and which files an agent's input holds.
//!
//! A file is a mapping with the one key `$file`. Its content stands in it as text (base64), so it is stored, referred to
//! and erased as every large value is. Reads no disk.

use serde::{Deserialize, Serialize};

use crate::failure::{Code, Failure};
use crate::ids::{Digest, Name};
use crate::limits::{FILE_BYTES_MAX, FILE_TOKENS_MIN, FILES_MAX};
use crate::value::{Map, Value};

/// The key of a mapping that is a file.
pub const KEY: &str = "$file";

/// What a model may be able to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Medium {
    /// A PNG, JPEG, GIF or WebP image.
    Image,
    /// A PDF document.
    Pdf,
}

/// A file that goes to a model with the prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its name, for people and for providers that want one.
    pub name: Name,
    /// Its MIME type.
    pub mime: Name,
    /// The SHA-256 of its content.
    pub sha256: Name,
    /// Bytes of its content.
    pub bytes: u64,
    /// Its content in base64, with padding.
    pub data: Name,
}

impl File {
    /// A file of this content. `data` is the content in base64.
    #[must_use]
    pub fn new(name: &str, mime: &str, content: &[u8], data: String) -> Self {
        let (sha256, bytes) = (Digest::of(content).to_string().into(), content.len() as u64);
        Self { name: name.into(), mime: mime.into(), sha256, bytes, data: data.into() }
    }

    /// The file as a value.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let inner = Value::object([
            ("name", Value::Str(self.name.clone())),
            ("mime", Value::Str(self.mime.clone())),
            ("sha256", Value::Str(self.sha256.clone())),
            ("bytes", Value::count(self.bytes)),
            ("data", Value::Str(self.data.clone())),
        ]);
        Value::object([(KEY, inner)])
    }

    /// What it is to a model; none for a type that no model looks at.
    #[must_use]
    pub fn medium(&self) -> Option<Medium> {
        match &*self.mime {
            "image/png" | "image/jpeg" | "image/gif" | "image/webp" => Some(Medium::Image),
            "application/pdf" => Some(Medium::Pdf),
            _ => None,
        }
    }

    /// The most input tokens that it is counted as: an image does not cost by its bytes, and a document at most by them.
    #[must_use]
    pub fn tokens_max(&self) -> u64 {
        match self.medium() {
            Some(Medium::Image) => FILE_TOKENS_MIN,
            Some(Medium::Pdf) | None => self.bytes.max(FILE_TOKENS_MIN),
        }
    }

    fn read(inner: &Value) -> Result<Self, String> {
        let text = |key: &str| match inner.get(key) {
            Some(Value::Str(text)) => Ok(text.clone()),
            _ => Err(format!("a file without `{key}`")),
        };
        let (name, data) = (text("name")?, text("data")?);
        let bytes = inner.get("bytes").and_then(Value::as_int).and_then(|n| u64::try_from(n).ok());
        let bytes = bytes.ok_or_else(|| format!("the file `{name}` without `bytes`"))?;
        if bytes > FILE_BYTES_MAX {
            return Err(format!("the file `{name}` of {bytes} bytes; at most {FILE_BYTES_MAX} are taken"));
        }
        if decoded_len(&data) != Some(bytes) {
            return Err(format!("the file `{name}`, whose `data` is not {bytes} bytes in base64"));
        }
        Ok(Self { name, mime: text("mime")?, sha256: text("sha256")?, bytes, data })
    }
}

/// Bytes that a text in base64 stands for; none when it is none.
fn decoded_len(data: &str) -> Option<u64> {
    let body = data.trim_end_matches('=');
    let padding = data.len() - body.len();
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    (data.len().is_multiple_of(4) && padding <= 2 && body.bytes().all(plain))
        .then(|| (data.len() / 4 * 3 - padding) as u64)
}

/// The mapping inside of a value that is a file.
fn inner(value: &Value) -> Option<&Value> {
    value.as_map().filter(|map| map.len() == 1)?.get(KEY)
}

/// The files in a value, in its order, each content once.
///
/// # Errors
/// A mapping that says it is a file and is none, or more files than are taken.
pub fn found(value: &Value) -> Result<Vec<File>, Failure> {
    let mut files = Vec::new();
    collect(value, &mut files).map_err(|why| Failure::new(Code::RunBadInput, format!("the input holds {why}")))?;
    Ok(files)
}

fn collect(value: &Value, files: &mut Vec<File>) -> Result<(), String> {
    if let Some(inner) = inner(value) {
        let file = File::read(inner)?;
        if files.len() == FILES_MAX {
            return Err(format!("more than {FILES_MAX} files"));
        }
        if !files.iter().any(|known: &File| known.sha256 == file.sha256 && known.data == file.data) {
            files.push(file);
        }
        return Ok(());
    }
    match value {
        Value::Map(map) => map.values().try_for_each(|value| collect(value, files)),
        Value::List(list) => list.iter().try_for_each(|value| collect(value, files)),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Str(_) => Ok(()),
    }
}

/// Whether there is a file in a value.
#[must_use]
pub fn is_in(value: &Value) -> bool {
    match value {
        Value::Map(_) if inner(value).is_some() => true,
        Value::Map(map) => map.values().any(is_in),
        Value::List(list) => list.iter().any(is_in),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Str(_) => false,
    }
}

/// The value with the contents of its files left out: what templates of prompts see.
#[must_use]
pub fn without_contents(value: &Value) -> Value {
    if let Some(inner) = inner(value).and_then(Value::as_map) {
        let mut inner = inner.clone();
        inner.shift_remove("data");
        return Value::object([(KEY, Value::map(inner))]);
    }
    match value {
        Value::Map(map) => {
            let inside = map.iter().map(|(key, value)| (key.clone(), without_contents(value)));
            Value::map(inside.collect::<Map>())
        }
        Value::List(list) => Value::list(list.iter().map(without_contents).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, content: &[u8], data: &str) -> File {
        File::new(name, "image/png", content, data.to_owned())
    }

    #[test]
    fn files_are_found_wherever_they_stand_each_once() {
        let (one, two) = (file("a.png", b"abc", "YWJj"), file("b.png", b"abcd", "YWJjZA=="));
        let list = Value::list(vec![two.to_value(), one.to_value(), Value::Null]);
        let value = Value::object([("x", one.to_value()), ("y", Value::object([("z", list)]))]);
        assert_eq!(found(&value), Ok(vec![one, two]));
        let shown = without_contents(&value);
        assert!(!shown.to_json().contains("YWJj") && shown.to_json().contains("b.png"), "{shown}");
        assert_eq!(found(&Value::object([("x", Value::Int(1))])), Ok(vec![]));
    }

    #[test]
    fn what_says_it_is_a_file_and_is_none_is_refused() {
        let refused = |json: &str| {
            let value = Value::from_json(json).expect("JSON");
            found(&value).expect_err("refused").message.to_string()
        };
        assert!(refused(r#"{"$file":"./x.png"}"#).contains("a file without `name`"));
        let with = |bytes: &str, data: &str| {
            refused(&format!(
                r#"{{"$file":{{"name":"x","mime":"image/png","sha256":"0","bytes":{bytes},"data":"{data}"}}}}"#
            ))
        };
        assert!(with("4", "YWJj").contains("not 4 bytes in base64"));
        assert!(with("3", "Y\\\"Jj").contains("not 3 bytes in base64"));
        assert!(with("99999999999", "YWJj").contains("at most"));
    }

    #[test]
    fn no_more_files_than_the_bound_go_with_a_prompt() {
        let one = |n: u8| file("x.png", &[0, 0, n], &format!("AAA{}", char::from(b'A' + n))).to_value();
        let of = |count: usize| Value::list((0..count as u8).map(one).collect());
        assert_eq!(found(&of(FILES_MAX)).map(|files| files.len()), Ok(FILES_MAX));
        let refused = found(&of(FILES_MAX + 1)).expect_err("one too many");
        assert!(refused.message.contains("more than 20 files"), "{refused}");
    }

    #[test]
    fn an_image_is_bounded_without_its_bytes_and_a_document_by_them() {
        let mut big = file("a.png", b"abc", "YWJj");
        big.bytes = 1_000_000;
        assert_eq!((big.medium(), big.tokens_max()), (Some(Medium::Image), FILE_TOKENS_MIN));
        big.mime = "application/pdf".into();
        assert_eq!((big.medium(), big.tokens_max()), (Some(Medium::Pdf), 1_000_000));
        big.mime = "text/csv".into();
        assert_eq!(big.medium(), None);
    }
}
