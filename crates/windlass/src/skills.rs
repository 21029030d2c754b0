//! The registry of skills: packs in the store, for every process that shares it. A version never changes.
//!
//! An entry names a pack and its hash; the pack itself is an object of its own, read only when it is used. What is read is
//! hashed again, so that a pack that was changed in the store is refused and not run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use windlass_core::ids::{Digest, Name};
use windlass_core::time::Timestamp;
use windlass_ports::store::{Put, Store, StoreError};
use windlass_spec::diagnostics::Diagnostic;
use windlass_spec::skill::{MANIFEST, Pack};

/// The kind of objects that are entries, by `NAME@VERSION`.
const ENTRIES: &str = "skill";
/// The kind of objects that are packs, by `NAME@VERSION`.
const PACKS: &str = "skill_pack";
/// Objects that are read at once.
const PAGE: usize = 100;
/// Entries of one registry.
pub const ENTRIES_MAX: usize = 10_000;
/// Folders with packs below one path of the configuration.
const FOLDERS_MAX: usize = 1_000;

/// One registered version of a skill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub name: Name,
    /// Its version.
    pub version: Name,
    /// Hash of its pack.
    pub digest: Digest,
    /// What it is for.
    pub description: Name,
    /// Words by which it is found.
    #[serde(default)]
    pub keywords: Vec<Name>,
    /// Tools that it wants.
    #[serde(default)]
    pub tools: Vec<Name>,
    /// Whether it has a machine.
    #[serde(default)]
    pub machine: bool,
    /// Who registered it.
    pub by: Name,
    /// When.
    pub at: Timestamp,
    /// Who removed it. The version stays taken: it can come back with the same content only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed_by: Option<Name>,
}

impl Entry {
    /// That of a pack which somebody registers.
    #[must_use]
    pub fn of(pack: &Pack, by: &str, at: Timestamp) -> Self {
        Self {
            name: pack.name.clone(),
            version: pack.version.to_string().into(),
            digest: pack.digest,
            description: pack.description.clone(),
            keywords: pack.keywords.clone(),
            tools: pack.tools.clone(),
            machine: pack.machine.is_some(),
            by: by.into(),
            at,
            removed_by: None,
        }
    }
}

/// Why the registry did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A version is there already with another content.
    #[error("`{id}` is registered with another content: its digest is {registered}, that of this pack is {given}")]
    Taken {
        /// `NAME@VERSION`.
        id: String,
        /// What is registered.
        registered: Digest,
        /// What was to be registered.
        given: Digest,
    },
    /// There is no such version.
    #[error("`{0}` is not registered")]
    Unknown(String),
    /// The pack in the store is not the one that was registered.
    #[error("the pack of `{0}` in the store was changed: it is not the one that was registered")]
    Changed(String),
    /// The registry is full.
    #[error("a registry has at most {ENTRIES_MAX} versions")]
    Full,
}

/// The skills of a store.
#[derive(Clone, Debug)]
pub struct Registry {
    store: Arc<dyn Store>,
}

impl Registry {
    /// The registry of a store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Registers a pack. False when this version with this content was registered before.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn add(&self, pack: &Pack, by: &str, at: Timestamp) -> Result<bool, RegistryError> {
        let key: Name = pack.id().into();
        let known = self.store.object(ENTRIES.into(), key.clone()).await?;
        let revision = known.as_ref().map_or(0, |object| object.revision);
        match known.map(|object| entry(&object.bytes)).transpose()? {
            Some(entry) if entry.digest != pack.digest => {
                return Err(RegistryError::Taken { id: pack.id(), registered: entry.digest, given: pack.digest });
            }
            Some(Entry { removed_by: None, .. }) => return Ok(false),
            Some(_) => {}
            None if self.all(None, ENTRIES_MAX).await?.len() >= ENTRIES_MAX => return Err(RegistryError::Full),
            None => {}
        }
        // The pack first: an entry without one could not be used.
        let stored = self.store.object(PACKS.into(), key.clone()).await?;
        let expected = stored.map_or(0, |object| object.revision);
        self.put(PACKS, &key, expected, Some(&pack.files())).await?;
        if !self.put(ENTRIES, &key, revision, Some(&Entry::of(pack, by, at))).await? {
            return Err(StoreError::Invalid(format!("somebody else changed `{key}` meanwhile; try again")).into());
        }
        Ok(true)
    }

    /// Removes a version. Runs that use it have it in their bundle and go on.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn remove(&self, id: &str, by: &str) -> Result<Entry, RegistryError> {
        let key: Name = id.into();
        let known = self.store.object(ENTRIES.into(), key.clone()).await?;
        let Some(object) = known else { return Err(RegistryError::Unknown(id.to_owned())) };
        let found = entry(&object.bytes)?;
        if found.removed_by.is_some() {
            return Err(RegistryError::Unknown(id.to_owned()));
        }
        let removed = Entry { removed_by: Some(by.into()), ..found };
        if !self.put(ENTRIES, &key, object.revision, Some(&removed)).await? {
            return Err(StoreError::Invalid(format!("somebody else changed `{key}` meanwhile; try again")).into());
        }
        if let Some(pack) = self.store.object(PACKS.into(), key.clone()).await? {
            self.put::<()>(PACKS, &key, pack.revision, None).await?;
        }
        Ok(removed)
    }

    /// Registered versions in the order of their names, after an id; removed ones are left out.
    ///
    /// # Errors
    /// The store fails, or holds what is no entry.
    pub async fn all(&self, after: Option<&str>, limit: usize) -> Result<Vec<Entry>, RegistryError> {
        let (mut found, mut after) = (Vec::new(), after.map(Name::from));
        while found.len() < limit {
            let page = self.store.objects(ENTRIES.into(), after.take(), PAGE).await?;
            let is_last = page.len() < PAGE;
            after = page.last().map(|object| object.key.clone());
            for object in page {
                let entry = entry(&object.bytes)?;
                if entry.removed_by.is_none() && found.len() < limit {
                    found.push(entry);
                }
            }
            if is_last {
                break;
            }
        }
        Ok(found)
    }

    /// Every version of the skills of these names that is registered, with its pack.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn packs(&self, names: &BTreeSet<String>) -> Result<Vec<Pack>, RegistryError> {
        let mut found = Vec::new();
        for name in names {
            let start = format!("{name}@");
            for entry in
                self.all(Some(&start), ENTRIES_MAX).await?.into_iter().take_while(|entry| *entry.name == **name)
            {
                found.push(self.pack(&entry).await?);
            }
        }
        Ok(found)
    }

    /// The pack of an entry.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub async fn pack(&self, entry: &Entry) -> Result<Pack, RegistryError> {
        let id = format!("{}@{}", entry.name, entry.version);
        let object = self.store.object(PACKS.into(), id.as_str().into()).await?;
        let object = object.ok_or_else(|| RegistryError::Changed(id.clone()))?;
        let files: BTreeMap<String, String> =
            serde_json::from_slice(&object.bytes).map_err(|_| RegistryError::Changed(id.clone()))?;
        let files = files.into_iter().map(|(path, text)| (path, text.into_bytes())).collect();
        match Pack::read(files) {
            Ok(pack) if pack.digest == entry.digest => Ok(pack),
            _ => Err(RegistryError::Changed(id)),
        }
    }

    async fn put<T: Serialize>(
        &self,
        kind: &str,
        key: &Name,
        expected: u64,
        value: Option<&T>,
    ) -> Result<bool, StoreError> {
        let bytes = value.map(serde_json::to_vec).transpose();
        let bytes = bytes.map_err(|error| StoreError::Invalid(error.to_string()))?;
        self.store.put_object(Put { kind: kind.into(), key: key.clone(), expected, bytes }).await
    }
}

fn entry(bytes: &[u8]) -> Result<Entry, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| StoreError::Corrupt(format!("the entry of a skill: {error}")))
}

/// A pack in a folder, or what is wrong with it.
pub type Found = (std::path::PathBuf, Result<Pack, Vec<Diagnostic>>);

/// The packs below a folder: the folder itself, or the folders in it that have a `skill.yml`.
///
/// # Errors
/// The folder cannot be read, or has too many in it.
pub fn in_folder(folder: &Path) -> Result<Vec<Found>, String> {
    if folder.join(MANIFEST).is_file() {
        return Ok(vec![(folder.to_owned(), Pack::folder(folder))]);
    }
    let shown = |error: std::io::Error| format!("the folder `{}` cannot be read: {error}", folder.display());
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(shown)? {
        let path = entry.map_err(shown)?.path();
        if path.join(MANIFEST).is_file() {
            folders.push(path);
        }
    }
    if folders.len() > FOLDERS_MAX {
        return Err(format!("the folder `{}` has more than {FOLDERS_MAX} skills", folder.display()));
    }
    folders.sort();
    Ok(folders.into_iter().map(|path| (path.clone(), Pack::folder(&path))).collect())
}
