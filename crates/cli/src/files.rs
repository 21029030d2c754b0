//! Files of an input: read from disk when a run is submitted, bounded, with their type and hash.

use std::fs::File as Disk;
use std::io::Read;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use windlass_core::file::{File, KEY};
use windlass_core::limits::{FILE_BYTES_MAX, VALUE_BYTES_MAX};
use windlass_core::value::{Map, Value};

use crate::exit::Problem;

/// Types by the first bytes of a content.
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

/// The input with the files of the command line under their keys, and with every `{"$file": "PATH"}` of it read where
/// `is_typed` says that whoever runs this wrote it: an input that came from elsewhere must not say which files are read.
///
/// # Errors
/// A file that cannot be read or is too large, more of them than a run takes, a name of a file in an input that was not
/// typed, or a key that is there already.
pub(crate) fn into_input(input: Value, is_typed: bool, given: &[String]) -> Result<Value, Problem> {
    let mut reader = Reader { is_typed, left: VALUE_BYTES_MAX as u64 };
    let mut map = reader.resolved(&input)?.as_map().cloned().unwrap_or_default();
    for text in given {
        let (key, path) =
            text.split_once('=').filter(|(key, path)| !key.is_empty() && !path.is_empty()).ok_or_else(|| {
                Problem::invalid(format!("`--file`: `{text}` names no file"))
                    .hint("write KEY=PATH, for example `--file photo=./x.png`")
            })?;
        if map.contains_key(key) {
            return Err(Problem::invalid(format!("`--file`: the input has `{key}` already")));
        }
        map.insert(key.into(), reader.read("--file", Path::new(path))?);
    }
    Ok(Value::map(map))
}

/// Reads files until all of them together are more than an input may have.
struct Reader {
    is_typed: bool,
    left: u64,
}

impl Reader {
    /// A value with its named files read.
    fn resolved(&mut self, value: &Value) -> Result<Value, Problem> {
        match value {
            Value::Map(map) => match map.get(KEY) {
                Some(Value::Str(path)) if map.len() == 1 && !self.is_typed => {
                    Err(Problem::invalid(format!("the input names the file `{path}` to be read"))
                        .hint("write the input itself after `--input`, or add the file with `--file KEY=PATH`"))
                }
                Some(Value::Str(path)) if map.len() == 1 => self.read("--input", Path::new(&**path)),
                _ => {
                    let inside = map.iter().map(|(key, value)| Ok((key.clone(), self.resolved(value)?)));
                    Ok(Value::map(inside.collect::<Result<Map, Problem>>()?))
                }
            },
            Value::List(list) => {
                Ok(Value::list(list.iter().map(|value| self.resolved(value)).collect::<Result<_, _>>()?))
            }
            other => Ok(other.clone()),
        }
    }

    fn read(&mut self, flag: &str, path: &Path) -> Result<Value, Problem> {
        let shown = path.display();
        let unread = |error: std::io::Error| Problem::invalid(format!("`{flag}`: cannot read `{shown}`: {error}"));
        // A pipe or a device may never end.
        if !std::fs::metadata(path).map_err(unread)?.is_file() {
            return Err(Problem::invalid(format!("`{flag}`: `{shown}` is no regular file")));
        }
        let mut content = Vec::new();
        let bounded = |disk: Disk| disk.take(FILE_BYTES_MAX + 1).read_to_end(&mut content);
        Disk::open(path).and_then(bounded).map_err(unread)?;
        let bytes = content.len() as u64;
        if bytes > FILE_BYTES_MAX {
            return Err(Problem::invalid(format!("`{flag}`: `{shown}` has more than {FILE_BYTES_MAX} bytes")));
        }
        self.left = self.left.checked_sub(bytes).ok_or_else(|| {
            Problem::invalid(format!("`{flag}`: with `{shown}` the input has more than {VALUE_BYTES_MAX} bytes"))
        })?;
        let name = path.file_name().map_or_else(|| "file".to_owned(), |name| name.to_string_lossy().into_owned());
        Ok(File::new(&name, mime(&name, &content), &content, STANDARD.encode(&content)).to_value())
    }
}

/// The type of a content: by its first bytes, else by its name.
fn mime(name: &str, content: &[u8]) -> &'static str {
    let starts = |(at, with, _): &&(usize, &[u8], &str)| content.get(*at..).is_some_and(|rest| rest.starts_with(with));
    if let Some((_, _, mime)) = BY_CONTENT.iter().find(starts) {
        return mime;
    }
    let end = name.rsplit_once('.').map_or("", |(_, end)| end).to_lowercase();
    BY_NAME.iter().find(|(known, _)| *known == end).map_or("application/octet-stream", |(_, mime)| mime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_told_by_content_before_the_name() {
        assert_eq!(mime("x.txt", b"\x89PNG\r\n\x1a\n..."), "image/png");
        assert_eq!(mime("x", b"RIFF\x01\x02\x03\x04WEBPVP8 "), "image/webp");
        assert_eq!(mime("x.CSV", b"a,b"), "text/csv");
        assert_eq!(mime("x", b""), "application/octet-stream");
    }

    #[test]
    fn files_are_read_into_the_input() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.pdf");
        std::fs::write(&path, "%PDF-1.7").expect("written");
        let named = Value::object([("doc", Value::object([(KEY, Value::str(path.display().to_string()))]))]);
        let input = into_input(named.clone(), true, &[format!("more={}", path.display())]).expect("read");
        into_input(named, false, &[]).expect_err("named by whoever wrote the input");
        let files = windlass_core::file::found(&input).expect("files");
        assert_eq!((files.len(), &*files[0].mime, &*files[0].name), (1, "application/pdf", "a.pdf"));
        assert_eq!(input.get("doc"), input.get("more"));
        for wrong in ["more", "=x", "doc=/no/such/file"] {
            into_input(Value::empty_map(), true, &[wrong.to_owned()]).expect_err(wrong);
        }
        into_input(input, true, &[format!("doc={}", path.display())]).expect_err("taken");
    }

    #[test]
    fn what_is_no_regular_file_or_too_much_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        into_input(Value::empty_map(), true, &["x=/dev/null".to_owned()]).expect_err("a device");
        let large = folder.path().join("large");
        Disk::create(&large).and_then(|file| file.set_len(FILE_BYTES_MAX)).expect("a file");
        let many: Vec<String> = (0..4).map(|n| format!("x{n}={}", large.display())).collect();
        into_input(Value::empty_map(), true, &many).expect_err("together more than an input has");
    }
}
