//! Keeps the generated pages of `docs/` equal to the program: command reference, configuration reference, golden path
//! and JSON Schemas are written by the hidden `docs` command of the windlass binary.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::process;

/// Writes the generated pages into `docs/`.
///
/// # Errors
/// The binary cannot be built or run, or a file cannot be written.
pub(crate) fn write(root: &Path) -> Result<()> {
    process::run(process::cargo(root, &["build", "--quiet", "--package", "windlass-cli"]))?;
    let pages = generate()?;
    for (path, bytes) in &pages {
        let target = root.join("docs").join(path);
        if fs::read(&target).is_ok_and(|old| old == *bytes) {
            continue;
        }
        if let Some(folder) = target.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot create `{}`", folder.display()))?;
        }
        fs::write(&target, bytes).with_context(|| format!("cannot write `{}`", target.display()))?;
        println!("wrote docs/{path}");
    }
    println!("{} generated pages", pages.len());
    Ok(())
}

/// Compares the generated pages with `docs/`. The binary must have been built.
///
/// # Errors
/// A page is missing or different.
pub(crate) fn check(root: &Path) -> Result<()> {
    let pages = generate()?;
    let stale = stale(&pages, &root.join("docs"));
    if stale.is_empty() {
        println!("{} generated pages are current", pages.len());
        return Ok(());
    }
    bail!("generated pages differ from the program: {}\nhint: run `cargo xtask docs` and commit", stale.join(", "));
}

fn stale(pages: &BTreeMap<String, Vec<u8>>, docs: &Path) -> Vec<String> {
    pages
        .iter()
        .filter(|(path, bytes)| !fs::read(docs.join(path)).is_ok_and(|old| old == **bytes))
        .map(|(path, _)| format!("docs/{path}"))
        .collect()
}

/// The generated pages by path below `docs/`.
fn generate() -> Result<BTreeMap<String, Vec<u8>>> {
    let folder = Scratch::new("windlass-docs")?;
    let mut command = std::process::Command::new(process::windlass()?);
    command.arg("docs").arg(&folder.path);
    process::output(command)?;
    let mut pages = BTreeMap::new();
    collect(&folder.path, "", &mut pages)?;
    if pages.is_empty() {
        bail!("`windlass docs` wrote nothing");
    }
    Ok(pages)
}

fn collect(folder: &Path, prefix: &str, pages: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read `{}`", folder.display()))? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &format!("{name}/"), pages)?;
        } else {
            pages.insert(name, fs::read(entry.path())?);
        }
    }
    Ok(())
}

/// A folder of its own that is removed at the end.
pub(crate) struct Scratch {
    /// Where it is.
    pub(crate) path: PathBuf,
}

impl Scratch {
    /// Creates the folder.
    ///
    /// # Errors
    /// It cannot be created.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove `{}`", path.display()))?;
        }
        fs::create_dir_all(&path).with_context(|| format!("cannot create `{}`", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("cannot remove `{}`: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_differs_or_is_missing_is_stale() {
        let docs = Scratch::new("windlass-docs-test").unwrap();
        fs::write(docs.path.join("same.md"), "a").unwrap();
        fs::write(docs.path.join("other.md"), "b").unwrap();
        let pages = ["same.md", "other.md", "gone.md"].map(|name| (name.to_owned(), b"a".to_vec()));
        assert_eq!(stale(&pages.into(), &docs.path), ["docs/gone.md", "docs/other.md"]);
    }
}
