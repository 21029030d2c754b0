//! Keys by which values are encrypted: several, of which one is in use, so that a key can be replaced.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use chacha20poly1305::aead::inout::InOutBuf;
use chacha20poly1305::aead::{AeadInOut, Generate, KeyInit};
use chacha20poly1305::{Key, Tag, XChaCha20Poly1305, XNonce};
use secrecy::{ExposeSecret, SecretString};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes of the id of a key, at most; as many as each encrypted value has for it.
pub const KEY_ID_BYTES_MAX: usize = 16;

/// How an encrypted value begins. No value that is not encrypted begins so: those begin with a codec or with JSON.
const MARK: u8 = b'E';
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
/// The mark and the id of the key.
pub(crate) const HEADER_BYTES: usize = 1 + KEY_ID_BYTES_MAX;

/// Why keys cannot be used. No text has a key in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A key has another length.
    #[error("key `{id}` has {found} bytes, and a key has {KEY_BYTES}")]
    Length {
        /// The key.
        id: String,
        /// Its bytes.
        found: usize,
    },
    /// A key is neither base64 nor hexadecimal.
    #[error("key `{id}` is neither base64 nor hexadecimal")]
    Form {
        /// The key.
        id: String,
    },
    /// A name that no key can have.
    #[error("`{id}` names no key: use 1 to {KEY_ID_BYTES_MAX} letters, digits, `.`, `_` and `-`")]
    Id {
        /// The name.
        id: String,
    },
    /// The key in use is not among the keys.
    #[error("there is no key `{id}`; there {}", listed(.known))]
    Unknown {
        /// The name of the key in use.
        id: String,
        /// The keys that there are.
        known: Vec<String>,
    },
}

fn listed(known: &[String]) -> String {
    if known.is_empty() { "is none".to_owned() } else { format!("are `{}`", known.join("`, `")) }
}

/// Why a value cannot be decrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// It is not encrypted.
    Plain,
    /// It is cut off.
    Cut,
    /// Its key is not there.
    NoKey(String),
    /// It is not what was encrypted with this key for this place.
    Forged(String),
}

/// Keys by their ids, and the one that new values are encrypted with.
#[derive(Clone)]
pub struct Keyring {
    inner: Arc<Inner>,
    accepts_plain: bool,
}

struct Inner {
    active: String,
    header: [u8; HEADER_BYTES],
    ciphers: BTreeMap<String, XChaCha20Poly1305>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("active", &self.inner.active).field("ids", &self.ids()).finish_non_exhaustive()
    }
}

impl Keyring {
    /// Keys of [`KEY_BYTES`] bytes, in base64 or hexadecimal, of which `active` encrypts.
    ///
    /// # Errors
    /// A key of another length or form, a name that no key can have, and an active key that is none of these.
    pub fn new(active: &str, keys: impl IntoIterator<Item = (String, SecretString)>) -> Result<Self, KeyError> {
        let mut ciphers = BTreeMap::new();
        for (id, text) in keys {
            if !is_key_id(&id) {
                return Err(KeyError::Id { id });
            }
            let cipher = cipher_of(&id, text.expose_secret().trim())?;
            ciphers.insert(id, cipher);
        }
        if !ciphers.contains_key(active) {
            let known = ciphers.into_keys().collect();
            return Err(KeyError::Unknown { id: active.to_owned(), known });
        }
        let inner = Inner { active: active.to_owned(), header: header_of(active), ciphers };
        Ok(Self { inner: Arc::new(inner), accepts_plain: false })
    }

    /// The same keys for a store whose values are being encrypted for the first time: where it says so itself, values that
    /// are plain are read too. Nobody believes that unasked, because whoever may write the store could say so at any time.
    #[must_use]
    pub fn with_plain(self) -> Self {
        Self { accepts_plain: true, ..self }
    }

    /// Whether plain values may be read, as long as the store says that it has some.
    #[must_use]
    pub fn accepts_plain(&self) -> bool {
        self.accepts_plain
    }

    /// The key that encrypts.
    #[must_use]
    pub fn active(&self) -> &str {
        &self.inner.active
    }

    /// All keys, by their ids.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        self.inner.ciphers.keys().cloned().collect()
    }

    /// Whether there is such a key.
    #[must_use]
    pub fn has(&self, id: &str) -> bool {
        self.inner.ciphers.contains_key(id)
    }

    /// Encrypts a file of this name that stands beside a store.
    ///
    /// # Errors
    /// There is no randomness, in words.
    pub fn encrypt_file(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, String> {
        self.encrypt(&place_of_file(name), plain)
    }

    /// What was encrypted as a file of this name.
    ///
    /// # Errors
    /// It is not encrypted, its key is not there, or it is not what was encrypted, in words.
    pub fn decrypt_file(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, String> {
        self.decrypt(&place_of_file(name), sealed).map_err(|why| match why {
            Unreadable::Plain => "it is not encrypted, and there are keys".to_owned(),
            Unreadable::Cut => "it is cut off".to_owned(),
            Unreadable::NoKey(id) => format!("it is encrypted with key `{id}`, which is not among the keys"),
            Unreadable::Forged(id) => format!("it does not authenticate with key `{id}`"),
        })
    }

    /// Encrypts with the active key, in such a way that only whoever names the same `place` can decrypt it.
    pub(crate) fn encrypt(&self, place: &[u8], plain: &[u8]) -> Result<Vec<u8>, String> {
        let Inner { active, header, ciphers } = &*self.inner;
        let cipher = ciphers.get(active).ok_or("the active key is missing")?;
        let nonce = XNonce::try_generate().map_err(|error| format!("there is no randomness: {error}"))?;
        let mut sealed = Vec::with_capacity(HEADER_BYTES + NONCE_BYTES + plain.len() + TAG_BYTES);
        sealed.extend_from_slice(header);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        let body = InOutBuf::from(&mut sealed[HEADER_BYTES + NONCE_BYTES..]);
        let tag = cipher.encrypt_inout_detached(&nonce, &bound(header, place), body);
        sealed.extend_from_slice(&tag.map_err(|_| "a value is too large to be encrypted")?);
        Ok(sealed)
    }

    /// What was encrypted for `place`.
    pub(crate) fn decrypt(&self, place: &[u8], sealed: &[u8]) -> Result<Vec<u8>, Unreadable> {
        let id = key_of(sealed).ok_or(Unreadable::Plain)?;
        let (header, rest) = sealed.split_at_checked(HEADER_BYTES).ok_or(Unreadable::Cut)?;
        let (nonce, rest) = rest.split_at_checked(NONCE_BYTES).ok_or(Unreadable::Cut)?;
        let body = rest.len().checked_sub(TAG_BYTES).ok_or(Unreadable::Cut)?;
        let (body, tag) = rest.split_at(body);
        let Some(cipher) = self.inner.ciphers.get(&id) else { return Err(Unreadable::NoKey(id)) };
        let (Ok(nonce), Ok(tag)) = (XNonce::try_from(nonce), Tag::try_from(tag)) else { return Err(Unreadable::Cut) };
        let mut plain = body.to_vec();
        let opened =
            cipher.decrypt_inout_detached(&nonce, &bound(header, place), InOutBuf::from(plain.as_mut_slice()), &tag);
        opened.map_err(|_| Unreadable::Forged(id)).map(|()| plain)
    }
}

fn place_of_file(name: &str) -> Vec<u8> {
    [b"windlass file 1\0", name.as_bytes()].concat()
}

/// Whether bytes that were read are encrypted, as far as their beginning tells.
#[must_use]
pub fn is_encrypted(bytes: &[u8]) -> bool {
    key_of(bytes).is_some()
}

/// Whether a text can name a key.
#[must_use]
pub fn is_key_id(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !text.is_empty() && text.len() <= KEY_ID_BYTES_MAX && text.chars().all(fits)
}

/// How values that are encrypted with a key begin.
pub(crate) fn header_of(id: &str) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[0] = MARK;
    for (place, byte) in header[1..].iter_mut().zip(id.bytes()) {
        *place = byte;
    }
    header
}

/// The key that a stored value names; none when it is not encrypted.
pub(crate) fn key_of(stored: &[u8]) -> Option<String> {
    let (mark, rest) = stored.split_first()?;
    let id = rest.get(..KEY_ID_BYTES_MAX.min(rest.len()))?;
    let id = id.split(|byte| *byte == 0).next().unwrap_or_default();
    (*mark == MARK).then(|| String::from_utf8_lossy(id).into_owned())
}

/// What a value is authenticated with, beside its bytes: its key, and where it stands.
fn bound(header: &[u8], place: &[u8]) -> Vec<u8> {
    [header, place].concat()
}

fn cipher_of(id: &str, text: &str) -> Result<XChaCha20Poly1305, KeyError> {
    // Hexadecimal digits are base64 of something else too, which is a key only by its length.
    let base64 = decoded(text).map(SecretBytes);
    let bytes = match base64 {
        Some(bytes) if bytes.0.len() == KEY_BYTES => Some(bytes),
        other => hexadecimal(text).map(SecretBytes).or(other),
    };
    let bytes = bytes.ok_or_else(|| KeyError::Form { id: id.to_owned() })?;
    let key = Key::try_from(&*bytes.0).map_err(|_| KeyError::Length { id: id.to_owned(), found: bytes.0.len() })?;
    Ok(XChaCha20Poly1305::new(&key))
}

/// Bytes that are overwritten when they are no longer needed.
struct SecretBytes(Vec<u8>);

impl Drop for SecretBytes {
    fn drop(&mut self) {
        secrecy::zeroize::Zeroize::zeroize(&mut self.0);
    }
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let is_hex = text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let digits = is_hex.then(|| text.as_bytes().chunks(2))?;
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD].iter().find_map(|form| form.decode(text).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    fn keyring(active: &str, keys: &[(&str, &str)]) -> Result<Keyring, KeyError> {
        Keyring::new(active, keys.iter().map(|(id, text)| ((*id).to_owned(), SecretString::from(*text))))
    }

    #[test]
    fn what_was_encrypted_comes_back_at_its_place_only() {
        let keys = keyring("a", &[("a", HEX)]).expect("keys");
        for plain in [&b""[..], b"short", &[7; 10_000]] {
            let sealed = keys.encrypt(b"here", plain).expect("encrypted");
            assert_eq!(keys.decrypt(b"here", &sealed).expect("decrypted"), plain);
            assert_eq!(keys.decrypt(b"there", &sealed), Err(Unreadable::Forged("a".into())));
            assert_ne!(sealed, keys.encrypt(b"here", plain).expect("encrypted"), "every time with another nonce");
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let keys = keyring("a", &[("a", HEX)]).expect("keys");
        let sealed = keys.encrypt(b"here", b"what somebody said").expect("encrypted");
        for place in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[place] ^= 1;
            assert!(keys.decrypt(b"here", &bad).is_err(), "byte {place}");
            assert!(keys.decrypt(b"here", &sealed[..place]).is_err(), "cut at {place}");
        }
        assert_eq!(keys.decrypt(b"here", b"\x80plain"), Err(Unreadable::Plain));
    }

    #[test]
    fn the_known_answer_of_the_construction() {
        // draft-irtf-cfrg-xchacha-03, A.3.1.
        let key = "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f";
        let keys = keyring("a", &[("a", key)]).expect("keys");
        let nonce: Vec<u8> = (0x40..0x58).collect();
        let mut body = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.".to_vec();
        let more = [0x50, 0x51, 0x52, 0x53, 0xc0, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7];
        let nonce = XNonce::try_from(&nonce[..]).expect("a nonce");
        let tag = keys.inner.ciphers["a"].encrypt_inout_detached(&nonce, &more, InOutBuf::from(body.as_mut_slice()));
        assert_eq!(body[..4], [0xbd, 0x6d, 0x17, 0x9d]);
        assert_eq!(tag.expect("encrypted")[..4], [0xc0, 0x87, 0x59, 0x24]);
    }

    #[test]
    fn keys_are_base64_or_hexadecimal_and_have_32_bytes() {
        let bytes: Vec<u8> = (0..32).collect();
        let base64 = STANDARD.encode(&bytes);
        let keys = keyring("b", &[("a", HEX), ("b", &base64)]).expect("keys");
        let sealed = keyring("a", &[("a", &base64)]).expect("keys").encrypt(b"x", b"y").expect("encrypted");
        assert_eq!(keys.decrypt(b"x", &sealed).expect("the same key in another form"), b"y");
        let found = |text: &str| keyring("a", &[("a", text)]).expect_err("refused");
        assert_eq!(found(&STANDARD.encode([1; 16])), KeyError::Length { id: "a".into(), found: 16 });
        assert_eq!(found(&HEX[2..]), KeyError::Length { id: "a".into(), found: 31 });
        assert_eq!(found("no key!"), KeyError::Form { id: "a".into() });
        assert_eq!(found(""), KeyError::Length { id: "a".into(), found: 0 });
        let unknown = keyring("b", &[("a", HEX)]).expect_err("refused");
        assert_eq!(unknown.to_string(), "there is no key `b`; there are `a`");
        for id in ["", "a b", "seventeen-letters", "ü"] {
            assert_eq!(keyring(id, &[(id, HEX)]).expect_err("refused"), KeyError::Id { id: id.into() });
        }
        assert!(!format!("{keys:?}").contains("0001"), "{keys:?}");
    }

    #[test]
    fn a_key_that_is_not_there_is_named() {
        let sealed = keyring("old", &[("old", HEX)]).expect("keys").encrypt(b"x", b"y").expect("encrypted");
        let other = keyring("new", &[("new", HEX)]).expect("keys");
        assert_eq!(other.decrypt(b"x", &sealed), Err(Unreadable::NoKey("old".into())));
        assert_eq!(key_of(&sealed).as_deref(), Some("old"));
    }
}
