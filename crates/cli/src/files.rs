//! Files of runs on disk: read into an input when a run is submitted, bounded, and written where they are asked for.

use std::fmt;
use std::fs::File as Disk;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use windlass_core::file::{File, KEY};
use windlass_core::ids::Name;
use windlass_core::limits::{FILE_BYTES_MAX, VALUE_BYTES_MAX};
use windlass_core::value::{Map, Value};

use crate::exit::Problem;

/// Bytes of a name before its last dot that a file is written under; with its hash it fits where 255 bytes are the most.
const STEM_BYTES_MAX: usize = 120;
/// Bytes from the last dot on.
const END_BYTES_MAX: usize = 16;

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

/// A file of a run that was written to disk.
#[derive(Debug)]
pub(crate) struct Saved {
    path: PathBuf,
    mime: Name,
    sha256: Name,
    bytes: u64,
}

impl Saved {
    pub(crate) fn json(&self) -> Json {
        json!({ "path": self.path, "mime": &*self.mime, "sha256": &*self.sha256, "bytes": self.bytes })
    }
}

impl fmt::Display for Saved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {} bytes)", self.path.display(), self.mime, self.bytes)
    }
}

/// Writes files into a folder, which is made where it is missing. A file there that has this name and this content is
/// left as it is; beside one with another content, the new one has the beginning of its hash in its name.
///
/// # Errors
/// A folder or file that cannot be written.
pub(crate) fn save(files: &[File], folder: &Path) -> Result<Vec<Saved>, Problem> {
    let unwritten = |path: &Path| {
        let shown = path.display().to_string();
        move |error: std::io::Error| Problem::rejected(format!("`--save`: cannot write `{shown}`: {error}"))
    };
    std::fs::create_dir_all(folder).map_err(unwritten(folder))?;
    let mut saved = Vec::with_capacity(files.len());
    for file in files {
        let content = file.content().map_err(Problem::bug)?;
        let mut path = folder.join(plain_name(&file.name));
        if !written(&path, &content).map_err(unwritten(&path))? {
            let name = plain_name(&file.name);
            let (stem, end) = parted(&name);
            path = folder.join(format!("{stem}-{}{end}", file.sha256));
            if !written(&path, &content).map_err(unwritten(&path))? {
                return Err(Problem::rejected(format!("`--save`: `{}` is there with another content", path.display())));
            }
        }
        let (mime, sha256) = (file.mime.clone(), file.sha256.clone());
        saved.push(Saved { path, mime, sha256, bytes: file.bytes });
    }
    Ok(saved)
}

/// Writes a new file; false where another content has this name.
fn written(path: &Path, content: &[u8]) -> std::io::Result<bool> {
    match Disk::create_new(path) {
        Ok(mut disk) => {
            let ended = disk.write_all(content).and_then(|()| disk.sync_all());
            if ended.is_err() {
                // Half a file is worse than none; that it cannot be removed says less than why it could not be written.
                let _ = std::fs::remove_file(path);
            }
            ended.map(|()| true)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let is_file = std::fs::symlink_metadata(path)?.is_file();
            Ok(is_file && std::fs::read(path)? == content)
        }
        Err(error) => Err(error),
    }
}

/// A name before its last dot, and from that on.
fn parted(name: &str) -> (&str, &str) {
    name.rfind('.').filter(|at| *at > 0 && name.len() - at <= END_BYTES_MAX).map_or((name, ""), |at| name.split_at(at))
}

/// A name from inside of a run as one that stays in its folder.
fn plain_name(name: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ' ') { c } else { '_' };
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let name: String = last.chars().map(plain).collect();
    let (stem, end) = parted(name.trim().trim_start_matches('.'));
    let stem = &stem[..stem.floor_char_boundary(STEM_BYTES_MAX)];
    if stem.is_empty() { format!("file{end}") } else { format!("{stem}{end}") }
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
        Ok(File::new(&name, &content).to_value())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_into_the_input() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.pdf");
        std::fs::write(&path, "%PDF-1.7").expect("written");
        let named = Value::object([("doc", Value::object([(KEY, Value::str(path.display().to_string()))]))]);
        let input = into_input(named.clone(), true, &[format!("more={}", path.display())]).expect("read");
        into_input(named, false, &[]).expect_err("named by whoever wrote the input");
        let files = windlass_core::file::found(&input, &windlass_core::value::Value::Null).expect("files");
        assert_eq!((files.len(), &*files[0].mime, &*files[0].name), (1, "application/pdf", "a.pdf"));
        assert_eq!(input.get("doc"), input.get("more"));
        for wrong in ["more", "=x", "doc=/no/such/file"] {
            into_input(Value::empty_map(), true, &[wrong.to_owned()]).expect_err(wrong);
        }
        into_input(input, true, &[format!("doc={}", path.display())]).expect_err("taken");
    }

    #[test]
    fn files_are_written_into_their_folder_and_over_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path().join("out");
        let (one, two) = (File::new("../../a.txt", b"abc"), File::new("/etc/a.txt", b"abd"));
        let saved = save(&[one.clone(), two.clone()], &out).expect("written");
        assert_eq!(saved[0].path, out.join("a.txt"));
        assert_eq!(saved[1].path, out.join(format!("a-{}.txt", two.sha256)));
        assert_eq!(std::fs::read(&saved[1].path).expect("read"), b"abd");
        let again = save(&[one, two], &out).expect("there");
        assert_eq!((again.len(), std::fs::read_dir(&out).expect("a folder").count()), (2, 2));
        assert_eq!([".", "..", "", "a\0b", ".profile"].map(plain_name), ["file", "file", "file", "a_b", "profile"]);
        let long = plain_name(&format!("{}.pdf", "ä".repeat(300)));
        assert!(long.ends_with("ä.pdf") && long.len() <= STEM_BYTES_MAX + 4, "{long}");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_in_the_folder_is_not_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        let other = folder.path().join("other");
        std::os::unix::fs::symlink(&other, folder.path().join("a.txt")).expect("a link");
        let saved = save(&[File::new("a.txt", b"abc")], folder.path()).expect("written");
        assert!(!other.exists() && saved[0].path != folder.path().join("a.txt"), "{saved:?}");
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
