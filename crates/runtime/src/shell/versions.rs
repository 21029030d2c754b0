//! Published versions in the store: sources by their hash, versions by name and number, and where each name points.
//!
//! | step of a publisher | if it dies after it |
//! |---|---|
//! | the sources are stored by their hash | no version names them; who publishes the same finds them |
//! | the version of the next number is made, which must not be there | who publishes next completes it first |
//! | the name is moved to it | done |
//!
//! Nothing here is ever removed, so what a name points at, or pointed at, is there.

mod check;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use windlass_core::ids::{Digest, Name};
use windlass_core::time::Timestamp;
use windlass_ports::store::{Store, StoreError};

use super::objects::{self, TRIES_MAX};
use crate::versions::{
    NAME_BYTES_MAX, NOTE_BYTES_MAX, NUMBER_MAX, Pointer, Reference, SOURCES_BYTES_MAX, Sources, Version, is_name,
};

/// The kind of objects that say where a name points, by the name.
const POINTERS: &str = "machine_name";
/// The kind of objects that are versions, by `NAME@NUMBER`, the number with ten digits.
const VERSIONS: &str = "machine_version";
/// The kind of objects that are sources, by their hash.
const SOURCES: &str = "machine_sources";

/// What is to be published.
#[derive(Clone, Debug)]
pub struct Publication {
    /// Under which name.
    pub name: Name,
    /// What.
    pub sources: Sources,
    /// The machine's own name.
    pub machine: Name,
    /// Hashes of its agents, as [`Version::agents`].
    pub agents: BTreeMap<Name, BTreeMap<Name, Digest>>,
    /// Why; may be empty.
    pub note: Name,
    /// Who publishes.
    pub by: Name,
    /// When.
    pub at: Timestamp,
}

/// What became of a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// A version was made, and the name points at it.
    New(Version),
    /// The name points at a version with this content already. Nothing was made.
    Same(Version),
}

/// One page of a list.
#[derive(Clone, Debug)]
pub struct VersionsPage<T> {
    /// What is on it.
    pub found: Vec<T>,
    /// Whether there is more.
    pub more: bool,
}

/// Why a version cannot be published or found, or a name cannot be moved.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No name.
    #[error(
        "`{0}` cannot name versions: up to {NAME_BYTES_MAX} letters, digits, `.`, `_` and `-`, of which the first is a letter or a digit"
    )]
    Name(String),
    /// No note, or nobody.
    #[error("{what} has at most {NOTE_BYTES_MAX} bytes and no control characters")]
    Text {
        /// What it is.
        what: &'static str,
    },
    /// Nobody publishes.
    #[error("a version is published, and a name moved, by somebody")]
    Nobody,
    /// The sources are too large.
    #[error("documents and skills have {bytes} bytes, a version takes at most {SOURCES_BYTES_MAX}")]
    TooLarge {
        /// Their bytes.
        bytes: usize,
    },
    /// Nothing was published under a name.
    #[error("nothing is published as `{0}`")]
    Unknown(Name),
    /// A name has no such version.
    #[error("`{name}` has no version {number}: the highest is {latest}")]
    NoVersion {
        /// The name.
        name: Name,
        /// The version.
        number: u64,
        /// The highest one.
        latest: u64,
    },
    /// The name points at its first version.
    #[error("`{0}` points at its first version: there is none before it")]
    First(Name),
    /// Somebody else moved it.
    #[error("somebody else moved `{0}` meanwhile")]
    Moved(Name),
    /// The sources are not what was published.
    #[error("the sources of `{0}` in the store are not what was published")]
    Damaged(String),
    /// A schedule cannot start it.
    #[error("`{0}` cannot be started: {1}")]
    Unfit(String, String),
    /// Others published again and again, or there is no number left.
    #[error("`{0}` cannot be given a number: others publish it all the time, or it has every number")]
    Contended(Name),
}

/// A name as it was read, with the revision to change it by.
struct Known {
    pointer: Option<Pointer>,
    revision: u64,
}

/// The published versions of a store.
#[derive(Clone, Debug)]
pub struct Versions {
    store: Arc<dyn Store>,
}

impl Versions {
    /// Those of a store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Publishes sources as the next version of a name, and moves the name to it. The content that the name points at is not
    /// published again. Of two that publish at one moment each gets a number of its own.
    ///
    /// # Errors
    /// A name, note or publisher that cannot be, sources that are too large, a store that fails.
    pub async fn publish(&self, new: Publication) -> Result<Published, VersionError> {
        check(&new)?;
        let bytes = new.sources.encode();
        if bytes.len() > SOURCES_BYTES_MAX {
            return Err(VersionError::TooLarge { bytes: bytes.len() });
        }
        let digest = Digest::of(&bytes);
        for _ in 0..TRIES_MAX {
            let known = self.known(&new.name).await?;
            if let Some(pointer) = &known.pointer {
                let current = self.read(&new.name, pointer.current).await?;
                if current.sources == digest {
                    self.keep(&digest, &bytes).await?;
                    return Ok(Published::Same(current));
                }
            }
            let number = known.pointer.as_ref().map_or(0, |pointer| pointer.latest) + 1;
            if number > NUMBER_MAX {
                break;
            }
            self.keep(&digest, &bytes).await?;
            let Publication { name, machine, agents, note, by, at, .. } = new.clone();
            let before = known.pointer.as_ref().map(|pointer| pointer.current);
            let version = Version { name, number, before, sources: digest, machine, agents, note, by, at };
            if self.put(VERSIONS, &version_key(&new.name, number), 0, &version).await? {
                self.complete(&version).await?;
                return Ok(Published::New(version));
            }
            // Somebody made it and has not moved the name yet, or will never.
            self.complete(&self.read(&new.name, number).await?).await?;
        }
        Err(VersionError::Contended(new.name))
    }

    /// Stores sources by their hash, in place of what is not what its hash says.
    async fn keep(&self, digest: &Digest, bytes: &[u8]) -> Result<(), VersionError> {
        let key: Name = digest.to_string().into();
        let found = self.store.object(SOURCES.into(), key.clone()).await?;
        if found.as_ref().is_some_and(|object| object.bytes == bytes) {
            return Ok(());
        }
        let expected = found.map_or(0, |object| object.revision);
        // Whoever was faster stored the same.
        objects::put(&*self.store, SOURCES, &key, expected, Some(bytes.to_vec())).await?;
        Ok(())
    }

    /// Moves the name to a version that was made, unless it was moved to it before.
    async fn complete(&self, version: &Version) -> Result<(), VersionError> {
        for _ in 0..TRIES_MAX {
            let known = self.known(&version.name).await?;
            let Some(pointer) = Pointer::published(known.pointer.as_ref(), version) else { return Ok(()) };
            if self.put(POINTERS, &version.name, known.revision, &pointer).await? {
                return Ok(());
            }
        }
        Err(VersionError::Contended(version.name.clone()))
    }

    /// Moves a name to a published version, or to the one that it meant when the version was published that it means. Gives back where it pointed before, and
    /// where it points. Runs stay as they are.
    ///
    /// # Errors
    /// No such name or version, none before the first, somebody else who moved it at the same moment, a store that fails.
    pub async fn rollback(
        &self,
        name: &str,
        to: Option<u64>,
        by: &str,
        at: Timestamp,
    ) -> Result<(u64, Pointer), VersionError> {
        let by = somebody(by)?;
        let known = self.known(&name.into()).await?;
        let Some(pointer) = known.pointer else { return Err(VersionError::Unknown(name.into())) };
        let from = pointer.current;
        let current = match to {
            Some(number) => number,
            None => {
                let before = self.read(&pointer.name, from).await?.before;
                before.ok_or_else(|| VersionError::First(pointer.name.clone()))?
            }
        };
        let (name, latest) = (pointer.name.clone(), pointer.latest);
        if current == 0 || current > latest {
            return Err(VersionError::NoVersion { name, number: current, latest });
        }
        if current == from {
            return Ok((from, pointer));
        }
        // What is pointed at can be run.
        self.sources(&self.read(&name, current).await?).await?;
        let pointer = Pointer { current, by, at, ..pointer };
        if !self.put(POINTERS, &name, known.revision, &pointer).await? {
            return Err(VersionError::Moved(name));
        }
        Ok((from, pointer))
    }

    /// Where a name points.
    ///
    /// # Errors
    /// No such name, or a store that fails.
    pub async fn pointer(&self, name: &str) -> Result<Pointer, VersionError> {
        self.known(&name.into()).await?.pointer.ok_or_else(|| VersionError::Unknown(name.into()))
    }

    /// The version that a reference means now.
    ///
    /// # Errors
    /// No such name or version, or a store that fails.
    pub async fn find(&self, reference: &Reference) -> Result<Version, VersionError> {
        let pointer = self.pointer(&reference.name).await?;
        let number = reference.number.unwrap_or(pointer.current);
        if number == 0 || number > pointer.latest {
            let (name, latest) = (pointer.name, pointer.latest);
            return Err(VersionError::NoVersion { name, number, latest });
        }
        Ok(self.read(&reference.name, number).await?)
    }

    /// The sources of a version, as they were published.
    ///
    /// # Errors
    /// Sources that are gone or were changed in the store, or a store that fails.
    pub async fn sources(&self, version: &Version) -> Result<Sources, VersionError> {
        let damaged = || VersionError::Damaged(version.id());
        let object = self.store.object(SOURCES.into(), version.sources.to_string().into()).await?;
        let bytes = object.map(|object| object.bytes).filter(|bytes| Digest::of(bytes) == version.sources);
        serde_json::from_slice(&bytes.ok_or_else(damaged)?).map_err(|_| damaged())
    }

    /// Names in their order, after a name.
    ///
    /// # Errors
    /// The store fails, or holds what cannot be read.
    pub async fn names(&self, after: Option<Name>, limit: usize) -> Result<VersionsPage<Pointer>, VersionError> {
        let page = self.store.objects(POINTERS.into(), after, limit + 1).await?;
        let more = page.len() > limit;
        let found = page.iter().take(limit).map(|object| objects::decode(POINTERS, &object.key, &object.bytes));
        Ok(VersionsPage { found: found.collect::<Result<_, _>>()?, more })
    }

    /// The versions of a name, the highest first, below a number.
    ///
    /// # Errors
    /// No such name, or a store that fails or holds what cannot be read.
    pub async fn of_name(
        &self,
        name: &str,
        below: Option<u64>,
        limit: usize,
    ) -> Result<(Pointer, VersionsPage<Version>), VersionError> {
        let pointer = self.pointer(name).await?;
        // There is each number up to the highest.
        let first = below.unwrap_or(u64::MAX).min(pointer.latest + 1);
        let last = first.saturating_sub(limit as u64).max(1);
        let after = version_key(name, last - 1);
        let wanted = usize::try_from(first.saturating_sub(last)).unwrap_or(limit);
        let page = match wanted {
            0 => Vec::new(),
            _ => self.store.objects(VERSIONS.into(), Some(after), wanted).await?,
        };
        let found = page.iter().rev().map(|object| objects::decode(VERSIONS, &object.key, &object.bytes));
        Ok((pointer, VersionsPage { found: found.collect::<Result<_, _>>()?, more: last > 1 }))
    }

    async fn known(&self, name: &Name) -> Result<Known, StoreError> {
        let object = self.store.object(POINTERS.into(), name.clone()).await?;
        let revision = object.as_ref().map_or(0, |object| object.revision);
        let pointer = object.map(|object| objects::decode(POINTERS, name, &object.bytes)).transpose()?;
        Ok(Known { pointer, revision })
    }

    async fn read(&self, name: &str, number: u64) -> Result<Version, StoreError> {
        let key = version_key(name, number);
        let object = self.store.object(VERSIONS.into(), key.clone()).await?;
        let object = object.ok_or_else(|| StoreError::Corrupt(format!("the {VERSIONS} `{key}` is gone")))?;
        objects::decode(VERSIONS, &key, &object.bytes)
    }

    async fn put<T: Serialize>(
        &self,
        kind: &'static str,
        key: &Name,
        expected: u64,
        value: &T,
    ) -> Result<bool, StoreError> {
        let bytes = serde_json::to_vec(value).map_err(|error| StoreError::Invalid(error.to_string()))?;
        objects::put(&*self.store, kind, key, expected, Some(bytes)).await
    }
}

/// The key of a version: in the order of numbers.
fn version_key(name: &str, number: u64) -> Name {
    format!("{name}@{number:010}").into()
}

fn check(new: &Publication) -> Result<(), VersionError> {
    if !is_name(&new.name) {
        return Err(VersionError::Name(new.name.chars().take(NAME_BYTES_MAX + 20).collect()));
    }
    text("a note", &new.note)?;
    somebody(&new.by).map(|_| ())
}

fn somebody(by: &str) -> Result<Name, VersionError> {
    if by.trim().is_empty() {
        return Err(VersionError::Nobody);
    }
    if by.contains('\n') {
        return Err(VersionError::Text { what: "who does it" });
    }
    text("who does it", by).map(|()| by.into())
}

fn text(what: &'static str, given: &str) -> Result<(), VersionError> {
    let has_control = given.contains(|c: char| c.is_control() && c != '\n');
    if given.len() > NOTE_BYTES_MAX || has_control { Err(VersionError::Text { what }) } else { Ok(()) }
}
