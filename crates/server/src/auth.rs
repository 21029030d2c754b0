//! Who makes a request: a short-lived token of a configured issuer, checked against the one key and the one algorithm that
//! the configuration names for it.
//!
//! Nothing of a token chooses how it is checked: `alg` has to be that of the key, `kid` only picks one of the issuer's own
//! keys by equality, and what else a header may say of keys is not looked at. No error has a part of a token in it.

mod keys;
mod revoked;
mod ring;
mod scope;
mod token;

use std::collections::{BTreeMap, BTreeSet};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, decode, decode_header};
use serde_json::{Map, Value as Json};
use windlass_core::ids::Name;

pub use keys::{Algorithm, BadKey, Keys};
pub use revoked::{Revocation, Revoked, RevokedWhat, revocations, revoke, unrevoke};
pub use scope::Scopes;
pub use token::{Minted, Signer, Wanted};

/// Bytes of a token.
pub const TOKEN_BYTES_MAX: usize = 8 * 1_024;
/// Bytes of a tenant's or a user's name, and of the id of a token.
const NAME_BYTES_MAX: usize = 128;

/// Whose tokens are taken, and how they are checked.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// What `iss` says, exactly.
    pub issuer: String,
    /// What `aud` says, or has among what it says.
    pub audience: String,
    /// Its keys.
    pub keys: Keys,
    /// By how much clocks may differ, in seconds.
    pub leeway_s: u64,
    /// For how long a token may be of use from when it was made, in seconds.
    pub lifetime_max_s: u64,
    /// Where the tenant, the user and the scopes stand.
    pub claims: ClaimNames,
    /// The tenants that it may speak for; every one when none are named.
    pub tenants: BTreeSet<Name>,
}

/// The names of claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimNames {
    /// The tenant's.
    pub tenant: String,
    /// The user's.
    pub user: String,
    /// That of the scopes: a text with blanks between them, or a list.
    pub scope: String,
}

/// Who makes a request, as a token says whose signature was good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The issuer.
    pub issuer: Name,
    /// The tenant.
    pub tenant: Name,
    /// The user.
    pub user: Name,
    /// What the token allows.
    pub scopes: Scopes,
    /// Whether its issuer may speak for its tenant.
    pub may_speak: bool,
    /// The key that it was signed with, where that has an id.
    pub key: Option<Name>,
    /// The token's id.
    pub id: Option<Name>,
    /// Until when it is of use, in seconds since 1970.
    pub expires: u64,
}

/// Why a request is not authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// There is no token.
    Missing,
    /// What is there is no token, or there are several.
    Malformed,
    /// It is longer than any that is taken.
    TooLarge,
    /// It names another algorithm than its key has, or none.
    Algorithm,
    /// Its issuer has no such key.
    Key,
    /// It was not signed with the key.
    Signature,
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYet,
    /// Nobody of this name is an issuer here.
    Issuer,
    /// It is for somebody else.
    Audience,
    /// It does not say what it has to say.
    Claims,
    /// It is of use for longer than tokens may be.
    Lifetime,
    /// It, its user or its key was revoked.
    Revoked,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Missing,
        Self::Malformed,
        Self::TooLarge,
        Self::Algorithm,
        Self::Key,
        Self::Signature,
        Self::Expired,
        Self::NotYet,
        Self::Issuer,
        Self::Audience,
        Self::Claims,
        Self::Lifetime,
        Self::Revoked,
    ];

    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::Algorithm => "algorithm",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NotYet => "not_yet",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Claims => "claims",
            Self::Lifetime => "lifetime",
            Self::Revoked => "revoked",
        }
    }

    /// What is said to whoever sent it. What would help to forge one is not told apart.
    #[must_use]
    pub fn said(self) -> &'static str {
        match self {
            Self::Missing => "there is no token: send `Authorization: Bearer TOKEN`",
            Self::Malformed | Self::TooLarge => "the token cannot be read",
            Self::Algorithm | Self::Key | Self::Signature | Self::Issuer | Self::Audience => {
                "the token is not one that is taken here"
            }
            Self::Expired => "the token has expired",
            Self::NotYet => "the token is not of use yet",
            Self::Claims => "the token lacks a claim that is needed, or has one that cannot be used",
            Self::Lifetime => "the token is of use for longer than tokens may be here",
            Self::Revoked => "the token was revoked",
        }
    }
}

/// All issuers of a process.
#[derive(Clone, Debug, Default)]
pub struct Authority {
    issuers: BTreeMap<String, Issuer>,
}

impl Authority {
    /// Takes the tokens of these issuers. Of two with one `iss` the last counts.
    #[must_use]
    pub fn new(issuers: impl IntoIterator<Item = Issuer>) -> Self {
        ring::install();
        Self { issuers: issuers.into_iter().map(|issuer| (issuer.issuer.clone(), issuer)).collect() }
    }

    /// Whether there is nobody whose tokens would be taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.issuers.is_empty()
    }

    /// Issuers that clients may ask for tokens: those with an address, whose keys only they can sign with.
    #[must_use]
    pub fn servers(&self) -> Vec<&str> {
        let asks =
            |issuer: &&Issuer| issuer.issuer.starts_with("https://") && issuer.keys.algorithm() != Algorithm::Hs256;
        self.issuers.values().filter(asks).map(|issuer| issuer.issuer.as_str()).collect()
    }

    /// Who sends this token. `now_s` is the present in seconds since 1970. Whether it was revoked is not known here.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn authenticate(&self, token: &str, now_s: u64) -> Result<Caller, Refusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        let header = decode_header(token).map_err(|error| unread_header(token, error.kind()))?;
        if header.crit.is_some() || header.enc.is_some() || header.zip.is_some() {
            return Err(Refusal::Malformed);
        }
        // Who it is said to be from only picks the key with which that is checked.
        let said: Said = jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(|_| Refusal::Malformed)?;
        let issuer = said.0.get("iss").and_then(Json::as_str).and_then(|iss| self.issuers.get(iss));
        let issuer = issuer.ok_or(Refusal::Issuer)?;
        let (algorithm, (id, key)) = (issuer.keys.algorithm(), issuer.keys.pick(header.kid.as_deref())?);
        if header.alg != algorithm.of_library() {
            return Err(Refusal::Algorithm);
        }
        let mut rules = Validation::new(algorithm.of_library());
        rules.set_issuer(&[&issuer.issuer]);
        rules.set_audience(&[&issuer.audience]);
        rules.set_required_spec_claims(&["exp", "iss", "aud"]);
        // The time is looked at below, by the clock that is given.
        (rules.validate_exp, rules.validate_nbf) = (false, false);
        let claims = decode::<Said>(token, key, &rules).map_err(|error| refusal(error.kind()))?.claims;
        issuer.caller(&claims.0, id, now_s)
    }
}

/// Claims, whatever they are. A name that is given twice is refused.
#[derive(Debug)]
struct Said(Map<String, Json>);

impl<'de> serde::Deserialize<'de> for Said {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Unique;
        impl<'de> serde::de::Visitor<'de> for Unique {
            type Value = Said;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("claims")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut access: A) -> Result<Said, A::Error> {
                let mut claims = Map::new();
                while let Some((name, value)) = access.next_entry::<String, Json>()? {
                    if claims.insert(name, value).is_some() {
                        return Err(serde::de::Error::custom("a claim is given twice"));
                    }
                }
                Ok(Said(claims))
            }
        }
        deserializer.deserialize_map(Unique)
    }
}

/// A header that names an algorithm which nobody knows, `none` among them, is one of another algorithm.
fn unread_header(token: &str, kind: &ErrorKind) -> Refusal {
    let is_json = matches!(kind, ErrorKind::Json(error) if error.is_data());
    if is_json && token.matches('.').count() == 2 { Refusal::Algorithm } else { Refusal::Malformed }
}

fn refusal(kind: &ErrorKind) -> Refusal {
    match kind {
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName | ErrorKind::UnsupportedAlgorithm => {
            Refusal::Algorithm
        }
        ErrorKind::InvalidAudience => Refusal::Audience,
        ErrorKind::InvalidIssuer => Refusal::Issuer,
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => Refusal::Claims,
        ErrorKind::Json(_) | ErrorKind::Utf8(_) => Refusal::Malformed,
        // Whatever else is wrong, it was not shown to be signed.
        _ => Refusal::Signature,
    }
}

impl Issuer {
    fn caller(&self, claims: &Map<String, Json>, key: Option<&Name>, now_s: u64) -> Result<Caller, Refusal> {
        // Seconds since 1970. Some issuers write parts of seconds, which are left out.
        let time = |name: &str| match claims.get(name) {
            None => Ok(None),
            Some(Json::Number(number)) => match (number.as_u64(), number.as_f64()) {
                (Some(whole), _) => Ok(Some(whole)),
                (None, Some(parts)) if (0.0..1e15).contains(&parts) => Ok(Some(parts as u64)),
                _ => Err(Refusal::Claims),
            },
            Some(_) => Err(Refusal::Claims),
        };
        let (expires, made) = (time("exp")?.ok_or(Refusal::Claims)?, time("iat")?.ok_or(Refusal::Claims)?);
        let latest = now_s.saturating_add(self.leeway_s);
        if expires.saturating_add(self.leeway_s) <= now_s {
            return Err(Refusal::Expired);
        }
        if made > latest || time("nbf")?.is_some_and(|begins| begins > latest) {
            return Err(Refusal::NotYet);
        }
        if expires.saturating_sub(made) > self.lifetime_max_s {
            return Err(Refusal::Lifetime);
        }
        let tenant = name_in(claims, &self.claims.tenant).ok_or(Refusal::Claims)?;
        let user = name_in(claims, &self.claims.user).ok_or(Refusal::Claims)?;
        let id = match claims.get("jti") {
            None => None,
            Some(_) => Some(name_in(claims, "jti").ok_or(Refusal::Claims)?),
        };
        Ok(Caller {
            issuer: self.issuer.as_str().into(),
            may_speak: self.tenants.is_empty() || self.tenants.contains(&tenant),
            tenant,
            user,
            scopes: Scopes::of(claims.get(&self.claims.scope)).ok_or(Refusal::Claims)?,
            // A key without an id goes by the name of its issuer, so that it can be revoked.
            key: Some(key.cloned().unwrap_or_else(|| self.issuer.as_str().into())),
            id,
            expires,
        })
    }
}

/// A claim that can name somebody.
fn name_in(claims: &Map<String, Json>, name: &str) -> Option<Name> {
    let text = claims.get(name)?.as_str()?;
    let fits = !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.trim() == text;
    (fits && !text.contains(char::is_control)).then(|| text.into())
}
