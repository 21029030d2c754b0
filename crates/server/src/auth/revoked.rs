//! Tokens, users and keys that were revoked: one object of the store, which every process looks at with each request.

use serde::{Deserialize, Serialize};
use windlass_core::time::Timestamp;
use windlass_ports::store::{Put, Store, StoreError};

use super::Caller;

/// The object that has them.
const KIND: &str = "auth";
const KEY: &str = "revoked";
/// How often a change that others make at the same moment is tried again.
const TRIES_MAX: u32 = 16;
/// What is revoked at a time. Tokens end by themselves, so that what is about one is dropped soon.
const REVOKED_MAX: usize = 10_000;

/// What is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevokedWhat {
    /// A token, by its id.
    Token,
    /// A user, by name: all tokens of it, of every tenant.
    User,
    /// A key, by its id: all tokens that were signed with it.
    Key,
}

impl RevokedWhat {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::User => "user",
            Self::Key => "key",
        }
    }
}

/// One revocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// What.
    pub what: RevokedWhat,
    /// Its id or name.
    pub name: String,
    /// Since when.
    pub at: Timestamp,
    /// Until when; for good without it.
    pub until: Option<Timestamp>,
    /// By whom.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// Everything that is revoked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked(pub Vec<Revocation>);

impl Revoked {
    /// Whether the token of this caller is.
    #[must_use]
    pub fn holds(&self, caller: &Caller, now: Timestamp) -> bool {
        self.0.iter().filter(|one| one.until.is_none_or(|until| until > now)).any(|one| match one.what {
            RevokedWhat::Token => caller.id.as_deref() == Some(one.name.as_str()),
            RevokedWhat::User => *caller.user == *one.name,
            RevokedWhat::Key => caller.key.as_deref() == Some(one.name.as_str()),
        })
    }
}

async fn read(store: &dyn Store) -> Result<(u64, Revoked), StoreError> {
    let Some(object) = store.object(KIND.into(), KEY.into()).await? else { return Ok((0, Revoked::default())) };
    let revoked = serde_json::from_slice(&object.bytes)
        .map_err(|error| StoreError::Corrupt(format!("what is revoked cannot be read: {error}")))?;
    Ok((object.revision, revoked))
}

/// Everything that is revoked.
///
/// # Errors
/// The store fails, or has something else in that place.
pub async fn revocations(store: &dyn Store) -> Result<Revoked, StoreError> {
    Ok(read(store).await?.1)
}

/// Revokes something. What is over is dropped. False when so much is revoked that there is no room.
///
/// # Errors
/// The store fails, or others change the same all the time.
pub async fn revoke(store: &dyn Store, revocation: Revocation) -> Result<bool, StoreError> {
    change(store, |revoked| {
        revoked.0.retain(|one| one.until.is_none_or(|until| until > revocation.at));
        revoked.0.retain(|one| (one.what, &one.name) != (revocation.what, &revocation.name));
        let has_room = revoked.0.len() < REVOKED_MAX;
        if has_room {
            revoked.0.push(revocation.clone());
        }
        has_room
    })
    .await
}

/// Takes a revocation back. False when there is none.
///
/// # Errors
/// As [`revoke`].
pub async fn unrevoke(store: &dyn Store, what: RevokedWhat, name: &str) -> Result<bool, StoreError> {
    change(store, |revoked| {
        let before = revoked.0.len();
        revoked.0.retain(|one| (one.what, one.name.as_str()) != (what, name));
        revoked.0.len() < before
    })
    .await
}

async fn change(store: &dyn Store, edit: impl Fn(&mut Revoked) -> bool + Send) -> Result<bool, StoreError> {
    for _ in 0..TRIES_MAX {
        let (expected, mut revoked) = read(store).await?;
        if !edit(&mut revoked) {
            return Ok(false);
        }
        let bytes = serde_json::to_vec(&revoked).map_err(|error| StoreError::Corrupt(error.to_string()))?;
        if store.put_object(Put { kind: KIND.into(), key: KEY.into(), expected, bytes: Some(bytes) }).await? {
            return Ok(true);
        }
    }
    Err(StoreError::Unavailable("others change what is revoked all the time".into()))
}
