//! Remembers, beside an embedded store, which configuration and folder a bundle was submitted from, so that `resume`
//! finds the same keys, scripts and hooks without being told again. A convenience: nothing depends on it.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use windlass::wire;
use windlass_core::ids::Digest;

/// Where a bundle was submitted from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// The machine's folder.
    pub folder: PathBuf,
}

/// Remembers a place. Does nothing for a store that is not a file.
pub(crate) fn remember(store_url: &str, bundle: Digest, place: &Place) {
    let Some(path) = path(store_url, bundle) else { return };
    if recall(store_url, bundle).as_ref() == Some(place) {
        return;
    }
    let written = path
        .parent()
        .map_or(Ok(()), |folder| std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder))
        .and_then(|()| serde_json::to_vec(place).map_err(Into::into))
        .and_then(|bytes| std::fs::write(&path, bytes));
    if let Err(error) = written {
        tracing::debug!(path = %path.display(), %error, "the place of a bundle was not remembered");
    }
}

/// The place of a bundle, when it is remembered.
#[must_use]
pub(crate) fn recall(store_url: &str, bundle: Digest) -> Option<Place> {
    serde_json::from_slice(&std::fs::read(path(store_url, bundle)?).ok()?).ok()
}

/// The absolute form of a path that exists.
#[must_use]
pub(crate) fn absolute(path: &Path) -> PathBuf {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn path(store_url: &str, bundle: Digest) -> Option<PathBuf> {
    let store = wire::store_path(store_url)?;
    let mut folder = store.into_os_string();
    folder.push(".places");
    Some(PathBuf::from(folder).join(format!("{}.json", bundle.short())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_remembered_beside_the_store() {
        let dir = tempfile::tempdir().expect("folder");
        let url = format!("sqlite:{}", dir.path().join("w.db").display());
        let place = Place { config: Some("/x/windlass.toml".into()), folder: "/x".into() };
        assert_eq!(recall(&url, Digest::ZERO), None);
        remember(&url, Digest::ZERO, &place);
        assert_eq!(recall(&url, Digest::ZERO), Some(place.clone()));
        remember("memory:", Digest::ZERO, &place);
        assert_eq!(recall("memory:", Digest::ZERO), None);
    }
}
