//! Whose tokens are taken, as it is written down.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use windlass_server::auth::{self, ClaimNames, Keys};

use super::Span;

/// Bytes of the name of an issuer or an audience.
const NAME_BYTES_MAX: usize = 128;
/// The longest that a token may be configured to be of use, in milliseconds: a day.
const LIFETIME_MS_MAX: u64 = 24 * 3_600_000;
/// By how much clocks may differ at most, in milliseconds.
const LEEWAY_MS_MAX: u64 = 5 * 60_000;

/// Whose tokens are taken for calls of tools over HTTP. See docs/calls.md.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Auth {
    /// Issuers by a name of yours. Default: none; `windlass serve` serves no calls.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub issuers: BTreeMap<String, Issuer>,
    /// What `windlass tokens issue` signs with. Default: nothing; tokens come from elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing: Option<Signing>,
}

/// Who makes tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Issuer {
    /// What `iss` of its tokens says, exactly.
    pub issuer: String,
    /// What `aud` of its tokens says, or has among what it says: the name of this server.
    pub audience: String,
    /// How its tokens are signed. A token that says another one is refused.
    pub algorithm: Algorithm,
    /// Its public key as PEM, or its JWK set, which has one algorithm too; the secret itself for `HS256`. Named as
    /// `file:PATH`, relative to this file, `env:NAME` or `secret:NAME`.
    pub key: String,
    /// What `kid` of its tokens says, for a single key. Default: anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// By how much its clock may differ, 5 minutes at most. Default: `30s`.
    #[serde(default = "leeway")]
    pub leeway: Span,
    /// For how long its tokens may be of use from `iat` to `exp`, a day at most. Default: `15m`.
    #[serde(default = "lifetime")]
    pub lifetime_max: Span,
    /// The claim that names the tenant. Default: `tenant`.
    #[serde(default = "tenant")]
    pub tenant_claim: String,
    /// The claim that names the user. Default: `sub`.
    #[serde(default = "user")]
    pub user_claim: String,
    /// The claim that has the scopes: `tools:NAME`, `tools:BEGINNING*`, `tools:*`. Default: `scope`.
    #[serde(default = "scope")]
    pub scope_claim: String,
    /// The tenants that it may speak for. Default: every one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tenants: Vec<String>,
}

/// What tokens are signed with here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Signing {
    /// The name of the issuer, one of `[auth.issuers]`.
    pub issuer: String,
    /// Its private key as PEM (`PRIVATE KEY`), or the secret for `HS256`. Named as `file:PATH`, `env:NAME` or `secret:NAME`.
    pub key: String,
}

/// How tokens are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum Algorithm {
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// ECDSA on P-256.
    #[serde(rename = "ES256")]
    Es256,
    /// RSA of 2,048 bits or more, PKCS#1 v1.5.
    #[serde(rename = "RS256")]
    Rs256,
    /// HMAC with a secret of 32 bytes or more, which both sides know.
    #[serde(rename = "HS256")]
    Hs256,
}

impl Algorithm {
    /// The same for whoever checks.
    pub(crate) fn lowered(self) -> auth::Algorithm {
        match self {
            Self::EdDsa => auth::Algorithm::EdDsa,
            Self::Es256 => auth::Algorithm::Es256,
            Self::Rs256 => auth::Algorithm::Rs256,
            Self::Hs256 => auth::Algorithm::Hs256,
        }
    }
}

fn leeway() -> Span {
    Span(30_000)
}

fn lifetime() -> Span {
    Span(15 * 60_000)
}

fn tenant() -> String {
    "tenant".into()
}

fn user() -> String {
    "sub".into()
}

fn scope() -> String {
    "scope".into()
}

impl Issuer {
    /// The names of its claims.
    pub(crate) fn claims(&self) -> ClaimNames {
        ClaimNames { tenant: self.tenant_claim.clone(), user: self.user_claim.clone(), scope: self.scope_claim.clone() }
    }

    /// The issuer with its key.
    ///
    /// # Errors
    /// The key of the table that cannot be, and why. No text has a key in it.
    pub(crate) fn lowered(
        &self,
        secret: &dyn Fn(&str) -> Option<SecretString>,
    ) -> Result<auth::Issuer, (&'static str, String)> {
        for (key, text) in [("issuer", &self.issuer), ("audience", &self.audience)] {
            if text.trim().is_empty() {
                return Err((key, "is empty".into()));
            }
            if text.len() > NAME_BYTES_MAX {
                return Err((key, format!("has {NAME_BYTES_MAX} bytes at most")));
            }
        }
        if self.leeway.0 > LEEWAY_MS_MAX {
            return Err(("leeway", "is 5 minutes at most".into()));
        }
        if self.lifetime_max.0 > LIFETIME_MS_MAX || self.lifetime_max.0 < 1_000 {
            return Err(("lifetime_max", "is from a second to a day".into()));
        }
        let text = secret(&self.key).ok_or_else(|| ("key", MISSING.to_owned()))?;
        let keys = Keys::read(self.algorithm.lowered(), text.expose_secret(), self.key_id.as_deref());
        Ok(auth::Issuer {
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            keys: keys.map_err(|error| ("key", error.to_string()))?,
            leeway_s: self.leeway.0 / 1_000,
            lifetime_max_s: self.lifetime_max.0 / 1_000,
            claims: self.claims(),
            tenants: self.tenants.iter().map(|tenant| tenant.as_str().into()).collect(),
        })
    }
}

/// What is said where nothing is behind a reference. What stands there is not shown: it may be the key itself.
pub(crate) const MISSING: &str =
    "names nothing that can be read: write `file:PATH`, `env:NAME` or `secret:NAME`, and never the key itself";

impl Auth {
    /// The references to what must not be shown: secrets that both sides know, and what is signed with.
    pub(crate) fn private(&self) -> Vec<String> {
        let shared = self.issuers.values().filter(|issuer| issuer.algorithm == Algorithm::Hs256);
        shared
            .map(|issuer| issuer.key.clone())
            .chain(self.signing.as_ref().map(|signing| signing.key.clone()))
            .collect()
    }
}
