//! Files among values: what a file is as a value, and which files an agent's input holds.
//!
//! A file is a mapping with the one key `$file`. Its content stands in it as text (base64), so it is stored, referred to
//! and erased as every large value is. Reads no disk.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::failure::{Code, Failure};
use crate::ids::Name;
use crate::limits::{FILE_BYTES_MAX, FILE_TOKENS_MIN, FILES_MAX};
use crate::value::{Map, Value};

/// Characters of a file's name that a message has.
const NAME_QUOTED_CHARS: usize = 80;

/// The key of a mapping that is a file.
pub const KEY: &str = "$file";

/// Types that are told by the first bytes of a content: where they stand, what they are, the type.
const BY_CONTENT: &[(usize, &[u8], &str)] = &[
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF8", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (0, b"%PDF-", "application/pdf"),
];

/// Types by the end of a name.
const BY_NAME: &[(&str, &str)] = &[
    ("csv", "text/csv"),
    ("html", "text/html"),
    ("json", "application/json"),
    ("md", "text/markdown"),
    ("txt", "text/plain"),
    ("xml", "application/xml"),
    ("zip", "application/zip"),
];

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
    /// A file of this name and content; its type is told by the content, else by the name.
    #[must_use]
    pub fn new(name: &str, content: &[u8]) -> Self {
        Self::of(name, mime(name, content), content, STANDARD.encode(content).into())
    }

    fn of(name: &str, mime: &str, content: &[u8], data: Name) -> Self {
        Self { name: name.into(), mime: mime.into(), sha256: sha256(content), bytes: content.len() as u64, data }
    }

    /// Its bytes.
    ///
    /// # Errors
    /// `data` is no base64.
    pub fn content(&self) -> Result<Vec<u8>, String> {
        decoded(&self.data).map_err(|why| format!("the file `{}`, {why}", quoted(&self.name)))
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

    /// The file that a mapping says it is. What it says of its content must be so; what it does not say is told by the
    /// content.
    fn read(inner: &Value) -> Result<Self, String> {
        let text = |key: &str| match inner.get(key) {
            None => Ok(None),
            Some(Value::Str(text)) => Ok(Some(text.clone())),
            Some(_) => Err(format!("a file whose `{key}` is no text")),
        };
        let wanted = |key: &str| text(key)?.ok_or_else(|| format!("a file without `{key}`"));
        let (file_name, data) = (wanted("name")?, wanted("data")?);
        let name = quoted(&file_name);
        if data.len() as u64 / 4 * 3 > FILE_BYTES_MAX + 2 {
            return Err(format!(
                "the file `{name}` of more than {FILE_BYTES_MAX} bytes, which is the most that is taken"
            ));
        }
        let content = decoded(&data).map_err(|why| format!("the file `{name}`, {why}"))?;
        let told = mime(&file_name, &content);
        let mime: Name = text("mime")?.map_or_else(|| told.into(), |said| said.to_ascii_lowercase().into());
        if BY_CONTENT.iter().any(|(.., known)| *known == &*mime) && by_content(&content) != Some(&*mime) {
            return Err(format!("the file `{name}`, whose content is no `{mime}`"));
        }
        let file = Self::of(&file_name, &mime, &content, data);
        match inner.get("bytes") {
            None => {}
            Some(said) if said.as_int().and_then(|n| u64::try_from(n).ok()) == Some(file.bytes) => {}
            Some(said) => return Err(format!("the file `{name}` of {} bytes that says it has {said}", file.bytes)),
        }
        match text("sha256")? {
            Some(said) if !said.eq_ignore_ascii_case(&file.sha256) => {
                Err(format!("the file `{name}`, whose content has the SHA-256 {} and not {said}", file.sha256))
            }
            Some(_) | None => Ok(file),
        }
    }
}

/// SHA-256 in 64 hexadecimal digits.
fn sha256(content: &[u8]) -> Name {
    use std::fmt::Write;
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(content) {
        // Writing into a text does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text.into()
}

fn decoded(data: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(data).map_err(|error| format!("whose `data` is no base64 with padding: {error}"))
}

/// A name as a message has it: others gave it, so it is short and has nothing that does not print.
fn quoted(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(NAME_QUOTED_CHARS).collect()
}

fn by_content(content: &[u8]) -> Option<&'static str> {
    let starts = |(at, with, _): &&(usize, &[u8], &str)| content.get(*at..).is_some_and(|rest| rest.starts_with(with));
    BY_CONTENT.iter().find(starts).map(|(.., mime)| *mime)
}

/// The type of a content: by its first bytes, else by its name.
#[must_use]
pub fn mime(name: &str, content: &[u8]) -> &'static str {
    by_content(content).unwrap_or_else(|| {
        let end = name.rsplit_once('.').map_or("", |(_, end)| end).to_lowercase();
        BY_NAME.iter().find(|(known, _)| *known == end).map_or("application/octet-stream", |(_, mime)| mime)
    })
}

/// The mapping inside of a value that is a file.
fn inner(value: &Value) -> Option<&Value> {
    value.as_map().filter(|map| map.len() == 1)?.get(KEY)
}

/// The files in a value, in its order, each content once. One that stands as it is among those that are `checked` already is
/// not looked into again.
///
/// # Errors
/// A mapping that says it is a file and is none, or more files than are taken.
pub fn found(value: &Value, checked: &Value) -> Result<Vec<File>, Failure> {
    let mut known = Vec::new();
    mappings(checked, &mut known);
    let read = |inner: &Value| match said(inner) {
        Some(file) if known.contains(&inner) => Ok(file),
        Some(_) | None => File::read(inner),
    };
    let mut files = Vec::new();
    collect(value, FILES_MAX, &read, &mut files)
        .map_err(|why| Failure::new(Code::RunBadInput, format!("the input holds {why}")))?;
    Ok(files)
}

/// The mappings in a value that are files.
fn mappings<'v>(value: &'v Value, into: &mut Vec<&'v Value>) {
    if let Some(inner) = inner(value) {
        return into.push(inner);
    }
    match value {
        Value::Map(map) => map.values().for_each(|value| mappings(value, into)),
        Value::List(list) => list.iter().for_each(|value| mappings(value, into)),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Str(_) => {}
    }
}

/// The file that a mapping says it is, if it says all of it. Nothing of it is checked.
fn said(inner: &Value) -> Option<File> {
    let text = |key: &str| inner.get(key).and_then(Value::as_str).map(Name::from);
    let bytes = inner.get("bytes").and_then(Value::as_int).and_then(|n| u64::try_from(n).ok())?;
    let (mime, sha256) = (text("mime")?.to_ascii_lowercase().into(), text("sha256")?.to_ascii_lowercase().into());
    Some(File { name: text("name")?, mime, sha256, bytes, data: text("data")? })
}

/// All files in a value, however many, in its order, each content once.
///
/// # Errors
/// A mapping that says it is a file and is none.
pub fn all(value: &Value) -> Result<Vec<File>, String> {
    let mut files = Vec::new();
    collect(value, usize::MAX, &File::read, &mut files).map(|()| files)
}

fn collect(
    value: &Value,
    most: usize,
    read: &impl Fn(&Value) -> Result<File, String>,
    files: &mut Vec<File>,
) -> Result<(), String> {
    if let Some(inner) = inner(value) {
        let file = read(inner)?;
        if files.len() == most {
            return Err(format!("more than {most} files"));
        }
        if !files.iter().any(|known: &File| known.sha256 == file.sha256) {
            files.push(file);
        }
        return Ok(());
    }
    match value {
        Value::Map(map) => map.values().try_for_each(|value| collect(value, most, read, files)),
        Value::List(list) => list.iter().try_for_each(|value| collect(value, most, read, files)),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Str(_) => Ok(()),
    }
}

/// A value that comes from outside, with its files checked, and with what they do not say of themselves: type, size,
/// hash. None where nothing is to be added.
///
/// # Errors
/// A mapping that says it is a file and is none, or not the one that it says.
pub fn completed(value: &Value) -> Result<Option<Value>, String> {
    if let Some(inner) = inner(value) {
        let file = File::read(inner)?;
        let mut map = inner.as_map().cloned().unwrap_or_default();
        let said = map.len();
        for (key, told) in
            [("mime", Value::Str(file.mime)), ("sha256", Value::Str(file.sha256)), ("bytes", Value::count(file.bytes))]
        {
            map.entry(key.into()).or_insert(told);
        }
        return Ok((map.len() > said).then(|| Value::object([(KEY, Value::map(map))])));
    }
    match value {
        Value::Map(map) => {
            let mut whole: Option<Map> = None;
            for (key, value) in map.iter() {
                if let Some(value) = completed(value)? {
                    whole.get_or_insert_with(|| (**map).clone()).insert(key.clone(), value);
                }
            }
            Ok(whole.map(Value::map))
        }
        Value::List(list) => {
            let mut whole: Option<Vec<Value>> = None;
            for (at, value) in list.iter().enumerate() {
                if let Some(value) = completed(value)? {
                    whole.get_or_insert_with(|| list.to_vec())[at] = value;
                }
            }
            Ok(whole.map(Value::list))
        }
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Str(_) => Ok(None),
    }
}

/// Whether a value says that it is a file.
#[must_use]
pub fn is_file(value: &Value) -> bool {
    inner(value).is_some()
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

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

    fn png(name: &str, more: &[u8]) -> File {
        File::new(name, &[PNG, more].concat())
    }

    #[test]
    fn files_are_found_wherever_they_stand_each_once() {
        let (one, two) = (png("a.png", b"abc"), png("b.png", b"abcd"));
        let list = Value::list(vec![two.to_value(), one.to_value(), Value::Null]);
        let value = Value::object([("x", one.to_value()), ("y", Value::object([("z", list)]))]);
        assert_eq!(found(&value, &Value::Null), Ok(vec![one.clone(), two]));
        let shown = without_contents(&value);
        assert!(!shown.to_json().contains(&*one.data) && shown.to_json().contains("b.png"), "{shown}");
        assert_eq!(found(&Value::object([("x", Value::Int(1))]), &Value::Null), Ok(vec![]));
    }

    #[test]
    fn what_was_checked_already_is_taken_as_it_stands_and_nothing_else_is() {
        let forged = |sha256: &str| {
            Value::from_json(&format!(
                r#"{{"$file":{{"name":"x","mime":"text/csv","sha256":"{sha256}","bytes":3,"data":"YWJj"}}}}"#
            ))
            .expect("JSON")
        };
        let (one, other) = (forged("00"), forged("01"));
        let checked = Value::object([("files", Value::list(vec![one.clone()]))]);
        let files = found(&Value::list(vec![one.clone()]), &checked).expect("it is known");
        assert_eq!((files.len(), &*files[0].sha256), (1, "00"), "it is not looked into");
        assert!(found(&one, &Value::Null).is_err() && found(&other, &checked).is_err());
        let bare = Value::from_json(r#"{"$file":{"name":"x","data":"YWJj"}}"#).expect("JSON");
        let read = found(&bare, &bare).expect("a file");
        assert_eq!(read[0].sha256, File::new("x", b"abc").sha256, "what does not say all of itself is looked into");
    }

    #[test]
    fn a_hash_is_sha_256() {
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(&*File::new("x.txt", b"abc").sha256, known);
        assert_eq!(File::new("x.txt", b"abc").content(), Ok(b"abc".to_vec()));
    }

    #[test]
    fn a_type_is_told_by_content_before_the_name() {
        assert_eq!(mime("x.txt", b"\x89PNG\r\n\x1a\n..."), "image/png");
        assert_eq!(mime("x", b"RIFF\x01\x02\x03\x04WEBPVP8 "), "image/webp");
        assert_eq!(mime("x.CSV", b"a,b"), "text/csv");
        assert_eq!(mime("x", b""), "application/octet-stream");
    }

    fn refused(json: &str) -> String {
        let value = Value::from_json(json).expect("JSON");
        let why = found(&value, &Value::Null).expect_err("refused").message.to_string();
        assert!(why.ends_with(&completed(&value).expect_err("refused")), "{why}");
        why
    }

    #[test]
    fn what_says_it_is_a_file_and_is_none_is_refused() {
        assert!(refused(r#"{"$file":"./x.png"}"#).contains("a file without `name`"));
        assert!(refused(r#"{"$file":{"name":"x"}}"#).contains("a file without `data`"));
        assert!(refused(r#"{"$file":{"name":"x","data":1}}"#).contains("whose `data` is no text"));
        let with = |more: &str| refused(&format!(r#"{{"$file":{{"name":"x","data":"YWJj",{more}}}}}"#));
        assert!(with(r#""bytes":4"#).contains("of 3 bytes that says it has 4"));
        assert!(with(r#""bytes":-3"#).contains("says it has -3"));
        assert!(with(r#""sha256":"00""#).contains("has the SHA-256 ba7816"));
        assert!(with(r#""mime":"image/png""#).contains("is no `image/png`"));
        let capitals = "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD";
        let said = Value::from_json(&format!(r#"{{"$file":{{"name":"x","data":"YWJj","sha256":"{capitals}"}}}}"#));
        assert_eq!(found(&said.expect("JSON"), &Value::Null).map(|files| files.len()), Ok(1));
        assert!(with(r#""mime":"IMAGE/PNG""#).contains("is no `image/png`"));
        let long = refused(&format!(r#"{{"$file":{{"name":"{}\u001b","data":"!"}}}}"#, "x".repeat(1_000)));
        assert!(long.len() < 300 && !long.contains('\u{1b}'), "{long}");
        for data in ["Y\\\"Jj", "YWJ", "YWJ=", "YW J", "YR=="] {
            let why = refused(&format!(r#"{{"$file":{{"name":"x","data":"{data}"}}}}"#));
            assert!(why.contains("no base64"), "{data}: {why}");
        }
        let large = "A".repeat((FILE_BYTES_MAX as usize / 3 + 2) * 4);
        assert!(refused(&format!(r#"{{"$file":{{"name":"x","data":"{large}"}}}}"#)).contains("the most that is taken"));
    }

    #[test]
    fn what_a_file_does_not_say_of_itself_is_added_and_nothing_is_lost() {
        let value = Value::from_json(r#"{"a":[1,{"$file":{"name":"x.csv","data":"YWJj","page":3}}]}"#).expect("JSON");
        let whole = completed(&value).expect("a file").expect("something to add");
        let inner = whole.get("a").and_then(|list| list.as_list()?[1].get(KEY).cloned()).expect("the file");
        assert_eq!(inner.get("page"), Some(&Value::Int(3)));
        assert_eq!(inner.get("mime"), Some(&Value::str("text/csv")));
        assert_eq!(inner.get("bytes"), Some(&Value::Int(3)));
        assert_eq!(completed(&whole), Ok(None));
        assert_eq!(completed(&png("a.png", b"").to_value()), Ok(None));
    }

    #[test]
    fn no_more_files_than_the_bound_go_with_a_prompt() {
        let of = |count: usize| Value::list((0..count as u8).map(|n| png("x.png", &[n]).to_value()).collect());
        assert_eq!(found(&of(FILES_MAX), &Value::Null).map(|files| files.len()), Ok(FILES_MAX));
        let refused = found(&of(FILES_MAX + 1), &Value::Null).expect_err("one too many");
        assert!(refused.message.contains("more than 20 files"), "{refused}");
        assert_eq!(all(&of(FILES_MAX + 1)).map(|files| files.len()), Ok(FILES_MAX + 1));
    }

    #[test]
    fn an_image_is_bounded_without_its_bytes_and_a_document_by_them() {
        let mut big = png("a.png", b"abc");
        big.bytes = 1_000_000;
        assert_eq!((big.medium(), big.tokens_max()), (Some(Medium::Image), FILE_TOKENS_MIN));
        big.mime = "application/pdf".into();
        assert_eq!((big.medium(), big.tokens_max()), (Some(Medium::Pdf), 1_000_000));
        big.mime = "text/csv".into();
        assert_eq!(big.medium(), None);
    }
}
