//! Signatures of tokens, made and checked by `ring`, which is in the build already. The library for tokens does the rest.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result, new_error};
use jsonwebtoken::signature::{Error, Signer, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{self, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair, UnparsedPublicKey};

/// Bytes of the modulus of an RSA key: 2,048 to 8,192 bits.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1_024;

static PROVIDER: CryptoProvider =
    CryptoProvider { signer_factory: signer, verifier_factory: verifier, key_utils: KeyUtils::new_unimplemented() };

/// Makes this what tokens are checked with. Only the first call does anything.
pub(super) fn install() {
    // Another one is there only where this one is: nothing else in the build has tokens.
    let _installed = PROVIDER.install_default();
}

/// Checks with one key by one algorithm.
struct Checks {
    algorithm: Algorithm,
    key: DecodingKey,
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    let family = match algorithm {
        Algorithm::EdDSA => AlgorithmFamily::Ed,
        Algorithm::ES256 => AlgorithmFamily::Ec,
        Algorithm::RS256 => AlgorithmFamily::Rsa,
        Algorithm::HS256 => AlgorithmFamily::Hmac,
        _ => return Err(new_error(ErrorKind::InvalidAlgorithm)),
    };
    if key.family() != family {
        return Err(new_error(ErrorKind::InvalidAlgorithm));
    }
    Ok(Box::new(Checks { algorithm: *algorithm, key: key.clone() }))
}

impl Verifier<Vec<u8>> for Checks {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        let wrong = |_| Error::new();
        let bytes = || self.key.try_get_as_bytes().map_err(|_| Error::new());
        match (self.algorithm, self.key.kind()) {
            (Algorithm::HS256, _) => {
                hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, bytes()?), message, signature).map_err(wrong)
            }
            (Algorithm::EdDSA, _) => {
                UnparsedPublicKey::new(&signature::ED25519, bytes()?).verify(message, signature).map_err(wrong)
            }
            (Algorithm::ES256, _) => UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, bytes()?)
                .verify(message, signature)
                .map_err(wrong),
            (Algorithm::RS256, DecodingKeyKind::RsaModulusExponent { n, e }) => PublicKeyComponents { n, e }
                .verify(&signature::RSA_PKCS1_2048_8192_SHA256, message, signature)
                .map_err(wrong),
            (Algorithm::RS256, DecodingKeyKind::SecretOrDer(der)) => {
                UnparsedPublicKey::new(&signature::RSA_PKCS1_2048_8192_SHA256, der)
                    .verify(message, signature)
                    .map_err(wrong)
            }
            _ => Err(Error::new()),
        }
    }
}

impl JwtVerifier for Checks {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

/// Whether this is an RSA key of a size that is taken.
pub(super) fn is_rsa(key: &DecodingKey) -> bool {
    let fits = |n: &[u8]| RSA_BYTES.contains(&n.iter().skip_while(|byte| **byte == 0).count());
    match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, e } => fits(n) && !e.is_empty(),
        // A sequence of two numbers, the first of which is nearly all of it.
        DecodingKeyKind::SecretOrDer(der) => der.first() == Some(&0x30) && (262..=1_100).contains(&der.len()),
    }
}

/// Signs with one key by one algorithm.
enum Signs {
    Ed(Ed25519KeyPair),
    Ec(Box<EcdsaKeyPair>),
    Rsa(Box<RsaKeyPair>),
    Hmac(hmac::Key),
}

fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    let (bytes, bad) = (key.as_bytes(), || new_error(ErrorKind::InvalidKeyFormat));
    let signs = match (algorithm, key.family()) {
        // A key that `openssl` makes has no public part beside it.
        (Algorithm::EdDSA, AlgorithmFamily::Ed) => {
            Signs::Ed(Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes).map_err(|_| bad())?)
        }
        (Algorithm::ES256, AlgorithmFamily::Ec) => {
            let algorithm = &signature::ECDSA_P256_SHA256_FIXED_SIGNING;
            let pair = EcdsaKeyPair::from_pkcs8(algorithm, bytes, &SystemRandom::new()).map_err(|_| bad())?;
            Signs::Ec(Box::new(pair))
        }
        (Algorithm::RS256, AlgorithmFamily::Rsa) => {
            Signs::Rsa(Box::new(RsaKeyPair::from_der(bytes).map_err(|_| bad())?))
        }
        (Algorithm::HS256, AlgorithmFamily::Hmac) => Signs::Hmac(hmac::Key::new(hmac::HMAC_SHA256, bytes)),
        _ => return Err(new_error(ErrorKind::InvalidAlgorithm)),
    };
    Ok(Box::new(signs))
}

impl Signer<Vec<u8>> for Signs {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, Error> {
        match self {
            Self::Ed(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Self::Ec(pair) => {
                pair.sign(&SystemRandom::new(), message).map(|made| made.as_ref().to_vec()).map_err(|_| Error::new())
            }
            Self::Rsa(pair) => {
                let mut made = vec![0; pair.public().modulus_len()];
                pair.sign(&signature::RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut made)
                    .map(|()| made)
                    .map_err(|_| Error::new())
            }
            Self::Hmac(key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
        }
    }
}

impl JwtSigner for Signs {
    fn algorithm(&self) -> Algorithm {
        match self {
            Self::Ed(_) => Algorithm::EdDSA,
            Self::Ec(_) => Algorithm::ES256,
            Self::Rsa(_) => Algorithm::RS256,
            Self::Hmac(_) => Algorithm::HS256,
        }
    }
}
