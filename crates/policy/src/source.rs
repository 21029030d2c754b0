//! The files of a rule set: which are read, how much of them, and the version that they make.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use windlass_core::ids::Digest;

use crate::diagnostic::Finding;

/// Bytes of one file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Files of one set.
const FILES_MAX: usize = 256;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The arguments that rules look at: `arguments.cedarschema`.
    Arguments,
    /// Rules: `.cedar`.
    Rules,
    /// Entities: `.json`.
    Entities,
}

/// One file.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
    pub(crate) text: String,
}

impl File {
    /// The file's name, for rule ids and messages.
    pub(crate) fn name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

/// The files of a folder, in the order of their names.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    pub(crate) folder: PathBuf,
    pub(crate) files: Vec<File>,
    /// The hash of names and contents.
    pub(crate) version: Digest,
}

/// What is looked at to see whether files changed: name, size and time of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fingerprint(Vec<(PathBuf, u64, Option<SystemTime>)>);

impl Fingerprint {
    /// Of the files of a folder as they are; empty when it cannot be read.
    pub(crate) fn of(folder: &Path) -> Self {
        let mut seen: Vec<_> = std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| kind_of(&entry.path()).is_some())
            .map(|entry| {
                // Through links: folders mounted into containers are made of them.
                let meta = std::fs::metadata(entry.path()).ok();
                let len = meta.as_ref().map_or(0, std::fs::Metadata::len);
                (entry.path(), len, meta.and_then(|meta| meta.modified().ok()))
            })
            .collect();
        seen.sort();
        Self(seen)
    }
}

fn kind_of(path: &Path) -> Option<Kind> {
    let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
    if path.file_name().is_some_and(|name| name == crate::arguments::FILE) {
        return Some(Kind::Arguments);
    }
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("cedar") if !hidden => Some(Kind::Rules),
        Some("json") if !hidden => Some(Kind::Entities),
        _ => None,
    }
}

impl Sources {
    /// Reads the files of a folder. Findings are warnings about what is not read.
    ///
    /// # Errors
    /// A folder or file that cannot be read, is too large, or is not text.
    pub(crate) fn read(folder: &Path) -> Result<(Self, Vec<Finding>), Vec<Finding>> {
        let listed = std::fs::read_dir(folder).map_err(|error| {
            let finding = Finding::error(folder, format_args!("cannot be read: {error}"));
            vec![finding.hint("a rule set is a folder with `.cedar` files and, for entities, `.json` files")]
        })?;
        let (mut files, mut errors, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
        let mut paths: Vec<PathBuf> = listed.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            match kind_of(&path) {
                Some(kind) => match text(&path) {
                    Ok(text) => files.push(File { path, kind, text }),
                    Err(why) => errors.push(Finding::error(&path, why)),
                },
                None if is_expected(&path) => {}
                None => warnings.push(Finding::warning(&path, "is not read: only `.cedar` and `.json` files are")),
            }
        }
        if files.len() > FILES_MAX {
            errors.push(Finding::error(folder, format_args!("has {} files, more than {FILES_MAX}", files.len())));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let version = version(&files);
        Ok((Self { folder: folder.to_owned(), files, version }, warnings))
    }
}

/// Files beside the rules that nobody takes for rules.
fn is_expected(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    name.starts_with('.') || matches!(extension, "md" | "txt" | "cedarschema")
}

fn text(path: &Path) -> Result<String, String> {
    let said = |error: &dyn fmt::Display| format!("cannot be read: {error}");
    let bytes = std::fs::metadata(path).map_err(|error| said(&error))?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(format!("has {bytes} bytes, more than {FILE_BYTES_MAX}"));
    }
    std::fs::read_to_string(path).map_err(|error| said(&error))
}

fn version(files: &[File]) -> Digest {
    let mut all = Vec::new();
    for file in files {
        for part in [file.name().as_bytes(), file.text.as_bytes()] {
            all.extend_from_slice(&(part.len() as u64).to_le_bytes());
            all.extend_from_slice(part);
        }
    }
    Digest::of(&all)
}
