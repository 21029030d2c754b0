//! Signatures over files, with ed25519 keys in PEM files.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use crate::exit::Problem;

/// The name of the only algorithm.
pub(crate) const ALGORITHM: &str = "ed25519";
/// Bytes of a public key, which are the last of its file.
const PUBLIC_BYTES: usize = 32;

/// Bytes as hexadecimal digits.
#[must_use]
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).map(pair).collect()
}

/// What a PEM file holds under a label.
fn pem(path: &Path, label: &str) -> Result<Vec<u8>, Problem> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Problem::invalid(format!("cannot read `{}`: {error}", path.display())))?;
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let inner = text.split_once(&begin).and_then(|(_, rest)| rest.split_once(&end)).map(|(inner, _)| inner);
    let bytes = inner.and_then(|inner| STANDARD.decode(inner.split_whitespace().collect::<String>()).ok());
    bytes.ok_or_else(|| {
        Problem::invalid(format!("`{}` has no `{label}` in PEM form", path.display()))
            .hint("`openssl genpkey -algorithm ed25519` makes a key, `openssl pkey -pubout` its public part")
    })
}

/// A key that signs.
#[derive(Debug)]
pub(crate) struct Signer(Ed25519KeyPair);

impl Signer {
    /// Reads a key.
    ///
    /// # Errors
    /// The file has none.
    pub(crate) fn read(path: &Path) -> Result<Self, Problem> {
        let bytes = pem(path, "PRIVATE KEY")?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&bytes);
        pair.map(Self).map_err(|error| {
            Problem::invalid(format!("`{}` is no ed25519 key: {error}", path.display()))
                .hint("`openssl genpkey -algorithm ed25519` makes one")
        })
    }

    /// Its public part.
    #[must_use]
    pub(crate) fn public(&self) -> String {
        hex(self.0.public_key().as_ref())
    }

    /// Signs.
    #[must_use]
    pub(crate) fn sign(&self, bytes: &[u8]) -> String {
        hex(self.0.sign(bytes).as_ref())
    }
}

/// Reads a public key, as hexadecimal digits.
///
/// # Errors
/// The file has none.
pub(crate) fn public_key(path: &Path) -> Result<String, Problem> {
    let bytes = pem(path, "PUBLIC KEY")?;
    let (_, key) = bytes
        .split_last_chunk::<PUBLIC_BYTES>()
        .ok_or_else(|| Problem::invalid(format!("`{}` is no ed25519 key", path.display())))?;
    Ok(hex(key))
}

/// Whether a signature is of this key over these bytes.
#[must_use]
pub(crate) fn is_signed(public_key: &str, signature: &str, bytes: &[u8]) -> bool {
    let (Some(key), Some(signature)) = (unhex(public_key), unhex(signature)) else { return false };
    UnparsedPublicKey::new(&ED25519, key).verify(bytes, &signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `openssl genpkey -algorithm ed25519` writes it.
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";

    #[test]
    fn what_is_signed_is_recognised() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("key.pem");
        std::fs::write(&path, KEY).expect("file");
        let signer = Signer::read(&path).expect("a key");
        assert_eq!(signer.public(), "19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1");
        let signature = signer.sign(b"text");
        assert!(is_signed(&signer.public(), &signature, b"text"));
        assert!(!is_signed(&signer.public(), &signature, b"other"));
        assert!(!is_signed(&signer.public(), "zz", b"text"));
        assert!(public_key(&path).is_err());
        assert!(Signer::read(&dir.path().join("none")).is_err());
    }
}
