//! The keys of an issuer: public ones as PEM or as a JWK set, or a secret that both sides know. All of one algorithm.

use std::collections::BTreeMap;

use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use windlass_core::ids::Name;

use super::Refusal;

/// Bytes of a secret at least: as many as its hash has.
const SECRET_BYTES_MIN: usize = 32;
/// Keys of one issuer.
const KEYS_MAX: usize = 32;
/// Bytes of the id of a key.
const ID_BYTES_MAX: usize = 128;

/// How tokens of an issuer are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Ed25519.
    EdDsa,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// RSA, PKCS#1 v1.5, with SHA-256.
    Rs256,
    /// HMAC with SHA-256, by a secret that both sides know.
    Hs256,
}

impl Algorithm {
    pub(super) fn of_library(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::EdDsa => jsonwebtoken::Algorithm::EdDSA,
            Self::Es256 => jsonwebtoken::Algorithm::ES256,
            Self::Rs256 => jsonwebtoken::Algorithm::RS256,
            Self::Hs256 => jsonwebtoken::Algorithm::HS256,
        }
    }
}

/// Why a key cannot be used. Says nothing of what it is.
#[derive(Debug, thiserror::Error)]
pub enum BadKey {
    /// It is no key of the algorithm.
    #[error("it is no key of this algorithm")]
    NoKey,
    /// A secret is too short.
    #[error("a secret has at least {SECRET_BYTES_MIN} bytes")]
    Short,
    /// A key set is none.
    #[error("it is no JWK set")]
    NoSet,
    /// A key of a set cannot be used.
    #[error(
        "key {0} of the set cannot be used: it is for another algorithm, has a wrong form, or has no `kid` of its own"
    )]
    OfSet(usize),
    /// A set has none, or too many.
    #[error("a set has 1 to {KEYS_MAX} keys")]
    Count,
}

/// The keys of one issuer.
#[derive(Clone, Debug)]
pub struct Keys {
    algorithm: Algorithm,
    named: BTreeMap<Name, DecodingKey>,
    /// The only one, when it has no id.
    only: Option<DecodingKey>,
}

impl Keys {
    /// Reads a key: PEM (`PUBLIC KEY`), a JWK set, or the secret itself for HMAC. `id` is what `kid` has to say of a single
    /// key; without one tokens need not say any, and may say anything.
    ///
    /// # Errors
    /// Text that holds no such key.
    pub fn read(algorithm: Algorithm, text: &str, id: Option<&str>) -> Result<Self, BadKey> {
        let text = text.trim();
        if algorithm != Algorithm::Hs256 && text.starts_with('{') {
            return Self::of_set(algorithm, text);
        }
        let key = match algorithm {
            Algorithm::Hs256 if text.len() < SECRET_BYTES_MIN => return Err(BadKey::Short),
            // Whoever puts the public key of another algorithm here would let everybody sign.
            Algorithm::Hs256 if text.contains("-----BEGIN") || text.starts_with('{') => return Err(BadKey::NoKey),
            Algorithm::Hs256 => Ok(DecodingKey::from_secret(text.as_bytes())),
            _ if !text.contains("PUBLIC KEY-----") => return Err(BadKey::NoKey),
            Algorithm::EdDsa => DecodingKey::from_ed_pem(text.as_bytes()),
            Algorithm::Es256 => DecodingKey::from_ec_pem(text.as_bytes()),
            Algorithm::Rs256 => DecodingKey::from_rsa_pem(text.as_bytes()),
        };
        let key = key.ok().filter(|key| fits(algorithm, key)).ok_or(BadKey::NoKey)?;
        Ok(match id {
            Some(id) => Self { algorithm, named: BTreeMap::from([(id.into(), key)]), only: None },
            None => Self { algorithm, named: BTreeMap::new(), only: Some(key) },
        })
    }

    fn of_set(algorithm: Algorithm, text: &str) -> Result<Self, BadKey> {
        let set: JwkSet = serde_json::from_str(text).map_err(|_| BadKey::NoSet)?;
        if set.keys.is_empty() || set.keys.len() > KEYS_MAX {
            return Err(BadKey::Count);
        }
        let mut named = BTreeMap::new();
        for (index, jwk) in set.keys.iter().enumerate() {
            let id = jwk.common.key_id.as_deref().filter(|id| !id.is_empty() && id.len() <= ID_BYTES_MAX);
            let key = of_jwk(algorithm, jwk).zip(id).ok_or(BadKey::OfSet(index + 1))?;
            if named.insert(Name::from(key.1), key.0).is_some() {
                return Err(BadKey::OfSet(index + 1));
            }
        }
        Ok(Self { algorithm, named, only: None })
    }

    /// The algorithm of all of them.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The key that a token names, with its id. The name is only ever compared.
    pub(super) fn pick(&self, kid: Option<&str>) -> Result<(Option<&Name>, &DecodingKey), Refusal> {
        if let Some(only) = &self.only {
            return Ok((None, only));
        }
        let found = self.named.get_key_value(kid.ok_or(Refusal::Key)?);
        found.map(|(id, key)| (Some(id), key)).ok_or(Refusal::Key)
    }
}

/// The key of a set, when it is one of the algorithm and for signatures.
fn of_jwk(algorithm: Algorithm, jwk: &Jwk) -> Option<DecodingKey> {
    let is_curve = match (&jwk.algorithm, algorithm) {
        (AlgorithmParameters::OctetKeyPair(key), Algorithm::EdDsa) => key.curve == EllipticCurve::Ed25519,
        (AlgorithmParameters::EllipticCurve(key), Algorithm::Es256) => key.curve == EllipticCurve::P256,
        (AlgorithmParameters::RSA(_), Algorithm::Rs256) => true,
        _ => false,
    };
    let said = jwk.common.key_algorithm.as_ref().map(ToString::to_string);
    let is_said = said.is_none_or(|said| said == format!("{:?}", algorithm.of_library()));
    let is_use = jwk.common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature);
    let key = if is_curve && is_said && is_use { DecodingKey::from_jwk(jwk).ok()? } else { return None };
    fits(algorithm, &key).then_some(key)
}

/// Whether a key has the form that its algorithm needs.
fn fits(algorithm: Algorithm, key: &DecodingKey) -> bool {
    let bytes = key.try_get_as_bytes();
    match algorithm {
        Algorithm::EdDsa => bytes.is_ok_and(|bytes| bytes.len() == 32),
        Algorithm::Es256 => bytes.is_ok_and(|bytes| bytes.len() == 65 && bytes[0] == 4),
        Algorithm::Rs256 => super::ring::is_rsa(key),
        Algorithm::Hs256 => true,
    }
}
