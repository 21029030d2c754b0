//! Where documents come from: files behind a trait, a folder, or memory.
//!
//! Paths are relative to the entry document's folder, with `/` between parts. Owns no parsing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Why a document could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// There is no such file.
    #[error("there is no such file")]
    Missing,
    /// It has more bytes than asked for.
    #[error("the file has more than {0} bytes")]
    TooLarge(usize),
    /// Anything else, as the system says it.
    #[error("{0}")]
    Other(String),
}

/// Reads documents.
pub trait Files {
    /// The bytes of the file at `path`, at most `bytes_max`.
    ///
    /// # Errors
    /// See [`FileError`]. A folder is [`FileError::Other`].
    fn read(&self, path: &str, bytes_max: usize) -> Result<Vec<u8>, FileError>;
}

/// Documents in a folder.
#[derive(Clone, Debug)]
pub struct DirFiles {
    root: PathBuf,
}

impl DirFiles {
    /// The documents below `root`, and beside it by `../`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder of a machine document, and the document's name in it.
    #[must_use]
    pub fn of_entry(path: &Path) -> (Self, String) {
        let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else {
            return (Self::new(path), ".".to_owned());
        };
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        (Self::new(folder), name)
    }
}

impl Files for DirFiles {
    fn read(&self, path: &str, bytes_max: usize) -> Result<Vec<u8>, FileError> {
        let file = File::open(self.root.join(path)).map_err(|e| match e.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => FileError::Missing,
            _ => FileError::Other(e.to_string()),
        })?;
        let mut bytes = Vec::new();
        let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX).saturating_add(1);
        file.take(limit).read_to_end(&mut bytes).map_err(|e| FileError::Other(e.to_string()))?;
        if bytes.len() > bytes_max { Err(FileError::TooLarge(bytes_max)) } else { Ok(bytes) }
    }
}

/// Documents in memory, by path.
#[derive(Clone, Debug, Default)]
pub struct MemoryFiles {
    files: BTreeMap<String, Vec<u8>>,
}

impl MemoryFiles {
    /// No documents.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with one more document.
    #[must_use]
    pub fn with(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.insert(path.to_owned(), content.into());
        self
    }
}

impl Files for MemoryFiles {
    fn read(&self, path: &str, bytes_max: usize) -> Result<Vec<u8>, FileError> {
        match self.files.get(path) {
            None => Err(FileError::Missing),
            Some(bytes) if bytes.len() > bytes_max => Err(FileError::TooLarge(bytes_max)),
            Some(bytes) => Ok(bytes.clone()),
        }
    }
}

impl Files for BTreeMap<String, String> {
    fn read(&self, path: &str, bytes_max: usize) -> Result<Vec<u8>, FileError> {
        match self.get(path) {
            None => Err(FileError::Missing),
            Some(text) if text.len() > bytes_max => Err(FileError::TooLarge(bytes_max)),
            Some(text) => Ok(text.clone().into_bytes()),
        }
    }
}

/// Why a reference to a document is no path within the bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    #[error("the path is empty")]
    Empty,
    #[error("the path is absolute")]
    Absolute,
    #[error("the path contains a character that no document's name has")]
    Character,
}

/// The path that `reference` means in a document of folder `folder`: `.` and inner `..` are resolved, leading `..`
/// stay.
pub(crate) fn resolve(folder: &str, reference: &str) -> Result<String, PathError> {
    if reference.trim().is_empty() {
        return Err(PathError::Empty);
    }
    if reference.starts_with(['/', '~']) || reference.get(1..3).is_some_and(|s| s == ":\\" || s == ":/") {
        return Err(PathError::Absolute);
    }
    if reference.contains(['\\', '\0', '#']) {
        return Err(PathError::Character);
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(reference.split('/')) {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

/// The folder of a document: empty for the entry's own.
pub(crate) fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_relative_to_a_folder() {
        assert_eq!(resolve("", "./agents/a.yml").as_deref(), Ok("agents/a.yml"));
        assert_eq!(resolve("sub", "../a.yml").as_deref(), Ok("a.yml"));
        assert_eq!(resolve("sub", "../../a.yml").as_deref(), Ok("../a.yml"));
        assert_eq!(resolve("", "../../a.yml").as_deref(), Ok("../../a.yml"));
        assert_eq!(resolve("../x", "../../a.yml").as_deref(), Ok("../../a.yml"));
        assert_eq!(resolve("", "/etc/a.yml"), Err(PathError::Absolute));
        assert_eq!(resolve("", "C:\\a.yml"), Err(PathError::Absolute));
        assert_eq!(resolve("", "~/a.yml"), Err(PathError::Absolute));
        assert_eq!(resolve("", " "), Err(PathError::Empty));
        assert_eq!(folder_of("a/b/c.yml"), "a/b");
        assert_eq!(folder_of("c.yml"), "");
    }

    #[test]
    fn a_folder_is_read_up_to_the_bound() {
        let dir = tempfile::tempdir().expect("folder");
        std::fs::write(dir.path().join("m.yml"), "12345").expect("file");
        let (files, name) = DirFiles::of_entry(&dir.path().join("m.yml"));
        assert_eq!(files.read(&name, 5), Ok(b"12345".to_vec()));
        assert_eq!(files.read(&name, 4), Err(FileError::TooLarge(4)));
        assert_eq!(files.read("nope.yml", 4), Err(FileError::Missing));
        assert!(matches!(files.read(".", 4), Err(FileError::Other(_))));
    }
}
