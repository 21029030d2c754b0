//! Making tokens with a key of one's own, for tests and small installations.

use std::fmt;

use jsonwebtoken::{EncodingKey, Header, encode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value as Json, json};

use super::keys::{Algorithm, BadKey};
use super::{ClaimNames, ring};

/// What a token is to say.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The tenant.
    pub tenant: String,
    /// The user.
    pub user: String,
    /// The scopes.
    pub scopes: Vec<String>,
    /// The token's id.
    pub id: String,
    /// When it is made, in seconds since 1970.
    pub made_s: u64,
    /// For how long it is of use, in seconds.
    pub lifetime_s: u64,
}

/// A token, which is a secret, and what it says.
#[derive(Clone, Debug)]
pub struct Minted {
    /// The token.
    pub token: SecretString,
    /// Its claims.
    pub claims: Map<String, Json>,
}

/// Signs tokens of one issuer.
pub struct Signer {
    issuer: String,
    audience: String,
    claims: ClaimNames,
    header: Header,
    key: EncodingKey,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl Signer {
    /// Reads a private key as PEM (`PRIVATE KEY`), or the secret itself for HMAC. `id` becomes `kid`.
    ///
    /// # Errors
    /// Text that holds no such key.
    pub fn new(
        algorithm: Algorithm,
        text: &SecretString,
        id: Option<&str>,
        (issuer, audience, claims): (&str, &str, &ClaimNames),
    ) -> Result<Self, BadKey> {
        ring::install();
        let bytes = text.expose_secret().trim().as_bytes();
        let key = match algorithm {
            Algorithm::Hs256 => Ok(EncodingKey::from_secret(bytes)),
            Algorithm::EdDsa => EncodingKey::from_ed_pem(bytes),
            Algorithm::Es256 => EncodingKey::from_ec_pem(bytes),
            Algorithm::Rs256 => EncodingKey::from_rsa_pem(bytes),
        };
        let key = key.map_err(|_| BadKey::NoKey)?;
        let mut header = Header::new(algorithm.of_library());
        header.kid = id.map(str::to_owned);
        Ok(Self { issuer: issuer.into(), audience: audience.into(), claims: claims.clone(), header, key })
    }

    /// Makes a token.
    ///
    /// # Errors
    /// The key is none of the algorithm after all.
    pub fn mint(&self, wanted: &Wanted) -> Result<Minted, BadKey> {
        let mut claims = Map::new();
        for (name, value) in [
            ("iss", json!(self.issuer)),
            ("aud", json!(self.audience)),
            ("iat", json!(wanted.made_s)),
            ("exp", json!(wanted.made_s.saturating_add(wanted.lifetime_s))),
            ("jti", json!(wanted.id)),
            (&self.claims.tenant, json!(wanted.tenant)),
            (&self.claims.user, json!(wanted.user)),
            (&self.claims.scope, json!(wanted.scopes.join(" "))),
        ] {
            claims.insert(name.to_owned(), value);
        }
        let token = encode(&self.header, &claims, &self.key).map_err(|_| BadKey::NoKey)?;
        Ok(Minted { token: token.into(), claims })
    }
}
