//! Values as they stand in tables: packed, and encrypted where the store has keys.
//!
//! What is encrypted is bound to its store, its table and its row: the same bytes elsewhere are refused.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use windlass_core::ids::Digest;
use windlass_ports::store::{Registration, StoreError};

use crate::keys::{Keyring, Unreadable, key_of};
use crate::pack;

/// What every place begins with, so that a key that serves something else too gives nothing away here.
const DOMAIN: &str = "windlass store 1";

/// Where a value stands. Names are as they stand in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    Start {
        run: &'a str,
    },
    Record {
        run: &'a str,
        version: i64,
    },
    Audit {
        run: &'a str,
        version: i64,
    },
    Snapshot {
        run: &'a str,
        version: i64,
    },
    Input {
        run: &'a str,
        id: &'a str,
    },
    Wait {
        run: &'a str,
        effect: i64,
    },
    Signal {
        id: &'a str,
    },
    Blob(Digest),
    Object {
        kind: &'a str,
        key: &'a str,
    },
    Segment {
        tenant: &'a str,
        number: i64,
    },
    Act {
        tenant: &'a str,
        number: i64,
    },
    Kept {
        tenant: &'a str,
        run: &'a str,
    },
    /// How far the store is encrypted.
    State,
    /// What tells a key from another one of its name.
    Key {
        id: &'a str,
    },
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { run } => write!(f, "the start of run `{run}`"),
            Self::Record { run, version } => write!(f, "record {version} of run `{run}`"),
            Self::Audit { run, version } => write!(f, "the audit rows of version {version} of run `{run}`"),
            Self::Snapshot { run, version } => write!(f, "the snapshot of version {version} of run `{run}`"),
            Self::Input { run, id } => write!(f, "input `{id}` of run `{run}`"),
            Self::Wait { run, effect } => write!(f, "wait {effect} of run `{run}`"),
            Self::Signal { id } => write!(f, "the data of signal `{id}`"),
            Self::Blob(digest) => write!(f, "blob `{}`", digest.short()),
            Self::Object { kind, key } => write!(f, "object `{key}` of kind `{kind}`"),
            Self::Segment { tenant, number } => write!(f, "audit segment {number} of tenant `{tenant}`"),
            Self::Act { tenant, number } => write!(f, "act {number} of tenant `{tenant}`"),
            Self::Kept { tenant, run } => write!(f, "the kept audit rows of run `{run}` of tenant `{tenant}`"),
            Self::State => write!(f, "the state of the encryption"),
            Self::Key { id } => write!(f, "the proof of key `{id}`"),
        }
    }
}

impl Place<'_> {
    /// The place as bytes that no other place has: every part with its length before it.
    fn bytes(&self, store: &str) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        let mut part = |part: &[u8]| {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part);
        };
        part(DOMAIN.as_bytes());
        part(store.as_bytes());
        let (table, names, number): (&str, [&[u8]; 2], i64) = match self {
            Self::Start { run } => ("start", [run.as_bytes(), b""], 0),
            Self::Record { run, version } => ("record", [run.as_bytes(), b""], *version),
            Self::Audit { run, version } => ("audit", [run.as_bytes(), b""], *version),
            Self::Snapshot { run, version } => ("snapshot", [run.as_bytes(), b""], *version),
            Self::Input { run, id } => ("input", [run.as_bytes(), id.as_bytes()], 0),
            Self::Wait { run, effect } => ("wait", [run.as_bytes(), b""], *effect),
            Self::Signal { id } => ("signal", [id.as_bytes(), b""], 0),
            Self::Blob(digest) => ("blob", [&digest.0, b""], 0),
            Self::Object { kind, key } => ("object", [kind.as_bytes(), key.as_bytes()], 0),
            Self::Segment { tenant, number } => ("segment", [tenant.as_bytes(), b""], *number),
            Self::Act { tenant, number } => ("act", [tenant.as_bytes(), b""], *number),
            Self::Kept { tenant, run } => ("kept", [tenant.as_bytes(), run.as_bytes()], 0),
            Self::State => ("state", [b"", b""], 0),
            Self::Key { id } => ("key", [id.as_bytes(), b""], 0),
        };
        part(table.as_bytes());
        names.iter().for_each(|name| part(name));
        part(&number.to_le_bytes());
        bytes
    }
}

/// How the values of one store are kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cipher {
    encrypted: Option<Arc<Encrypted>>,
    /// All keys of the store, where they were just looked at.
    known: Option<Arc<[String]>>,
}

#[derive(Debug)]
struct Encrypted {
    keys: Keyring,
    /// Names the store, also in its backups.
    store: String,
    /// Values from before the store was encrypted are still in it.
    has_plain: AtomicBool,
}

impl Cipher {
    pub(crate) fn new(keys: Keyring, store: String, has_plain: bool) -> Self {
        let encrypted = Encrypted { keys, store, has_plain: AtomicBool::new(has_plain) };
        Self { encrypted: Some(Arc::new(encrypted)), known: None }
    }

    /// The same, of a store that has just these keys at this moment: a value that names another one is damaged, and says
    /// nothing about what this process lacks.
    pub(crate) fn knowing(&self, known: Vec<String>) -> Self {
        Self { known: Some(known.into()), ..self.clone() }
    }

    /// The ids of the keys, that which encrypts first; none when nothing is encrypted.
    pub(crate) fn keys(&self) -> Option<&Keyring> {
        self.encrypted.as_ref().map(|encrypted| &encrypted.keys)
    }

    /// The registration of a worker, with the keys that it has, the active one first.
    pub(crate) fn registered(&self, registration: Registration) -> Registration {
        let Some(keys) = self.keys() else { return registration };
        let others = keys.ids().into_iter().filter(|id| *id != keys.active());
        let keys = std::iter::once(keys.active().to_owned()).chain(others).map(Into::into).collect();
        Registration { keys, ..registration }
    }

    /// From here on a value that is not encrypted is refused.
    pub(crate) fn refuse_plain(&self) {
        if let Some(encrypted) = &self.encrypted {
            encrypted.has_plain.store(false, Ordering::Relaxed);
        }
    }

    /// Whether values that are not encrypted are read.
    pub(crate) fn reads_plain(&self) -> bool {
        self.encrypted.as_ref().is_none_or(|encrypted| encrypted.has_plain.load(Ordering::Relaxed))
    }

    /// The stored form of packed bytes.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] where there is no randomness.
    pub(crate) fn encrypt(&self, place: Place<'_>, packed: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        let Some(encrypted) = &self.encrypted else { return Ok(packed) };
        let sealed = encrypted.keys.encrypt(&place.bytes(&encrypted.store), &packed);
        sealed.map_err(|why| StoreError::Unavailable(format!("{place} cannot be encrypted: {why}")))
    }

    /// The packed bytes of a stored value.
    ///
    /// # Errors
    /// [`StoreError::Key`] when its key is not there, [`StoreError::Corrupt`] for a value that is not what was written
    /// here.
    pub(crate) fn decrypt<'a>(&self, place: Place<'_>, stored: &'a [u8]) -> Result<Cow<'a, [u8]>, StoreError> {
        let Some(encrypted) = &self.encrypted else {
            return match key_of(stored) {
                None => Ok(Cow::Borrowed(stored)),
                Some(key) => Err(self.lacking(place, &key, "there are no keys")),
            };
        };
        match encrypted.keys.decrypt(&place.bytes(&encrypted.store), stored) {
            Ok(packed) => Ok(Cow::Owned(packed)),
            Err(Unreadable::Plain) if self.reads_plain() => Ok(Cow::Borrowed(stored)),
            Err(Unreadable::Plain) => {
                Err(StoreError::Corrupt(format!("{place} is not encrypted, and everything in this store is")))
            }
            Err(Unreadable::Cut) => Err(StoreError::Corrupt(format!("{place} is cut off"))),
            Err(Unreadable::NoKey(key)) => Err(self.lacking(place, &key, "it is not among the keys")),
            Err(Unreadable::Forged(key)) => Err(StoreError::Corrupt(format!(
                "{place} does not authenticate with key `{key}`: it was changed, or was written elsewhere"
            ))),
        }
    }

    /// Why a value of a key that is not there cannot be read.
    fn lacking(&self, place: Place<'_>, key: &str, why: &str) -> StoreError {
        match &self.known {
            Some(known) if known.iter().all(|id| id != key) => {
                StoreError::Corrupt(format!("{place} names key `{key}`, which is none of the store"))
            }
            _ => StoreError::Key(format!("{place} is encrypted with key `{key}`, and {why}")),
        }
    }

    /// Packs bytes that repeat nothing, and encrypts them.
    ///
    /// # Errors
    /// As [`Cipher::encrypt`].
    pub(crate) fn pack(&self, place: Place<'_>, bytes: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.encrypt(place, pack::pack(bytes))
    }

    /// What was packed for a place.
    ///
    /// # Errors
    /// As [`Cipher::decrypt`]; [`StoreError::Corrupt`] for bytes that are not what was written.
    pub(crate) fn unpack(&self, place: Place<'_>, stored: &[u8]) -> Result<Vec<u8>, StoreError> {
        pack::unpack(&self.decrypt(place, stored)?)
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    fn keys(id: &str, byte: &str) -> Keyring {
        Keyring::new(id, [(id.to_owned(), SecretString::from(byte.repeat(32)))]).expect("keys")
    }

    #[test]
    fn a_value_is_read_where_it_was_written_and_nowhere_else() {
        let cipher = Cipher::new(keys("a", "01"), "store".into(), false);
        let digest = Digest::of(b"x");
        let places = [
            Place::Start { run: "r" },
            Place::Start { run: "s" },
            Place::Record { run: "r", version: 1 },
            Place::Record { run: "r", version: 2 },
            Place::Audit { run: "r", version: 1 },
            Place::Snapshot { run: "r", version: 1 },
            Place::Input { run: "r", id: "x" },
            Place::Input { run: "rx", id: "" },
            Place::Wait { run: "r", effect: 1 },
            Place::Signal { id: "r" },
            Place::Blob(digest),
            Place::Object { kind: "r", key: "x" },
            Place::Segment { tenant: "r", number: 1 },
            Place::Act { tenant: "r", number: 1 },
            Place::Kept { tenant: "r", run: "x" },
            Place::State,
            Place::Key { id: "r" },
        ];
        let other = Cipher::new(keys("a", "01"), "another store".into(), false);
        for written in places {
            let stored = cipher.pack(written, b"what somebody said").expect("encrypted");
            for read in places {
                assert_eq!(cipher.unpack(read, &stored).is_ok(), written == read, "{written} read as {read}");
            }
            assert!(matches!(other.unpack(written, &stored), Err(StoreError::Corrupt(_))), "of another store");
        }
    }

    #[test]
    fn plain_values_are_refused_unless_the_store_has_them() {
        let (place, plain) = (Place::Signal { id: "s" }, pack::pack(b"plain"));
        let cipher = Cipher::new(keys("a", "01"), "store".into(), true);
        assert_eq!(cipher.unpack(place, &plain).expect("read"), b"plain");
        cipher.refuse_plain();
        let refused = cipher.unpack(place, &plain).expect_err("refused").to_string();
        assert!(refused.contains("the data of signal `s` is not encrypted"), "{refused}");
        assert_eq!(Cipher::default().unpack(place, &plain).expect("read"), b"plain");
    }

    #[test]
    fn a_lost_and_a_wrong_key_are_told_apart() {
        let place = Place::Signal { id: "s" };
        let stored = Cipher::new(keys("a", "01"), "store".into(), false).pack(place, b"x").expect("encrypted");
        let read = |cipher: Cipher| cipher.unpack(place, &stored).expect_err("refused");
        let wrong = read(Cipher::new(keys("a", "02"), "store".into(), false));
        assert!(matches!(&wrong, StoreError::Corrupt(text) if text.contains("key `a`")), "{wrong}");
        let lost = read(Cipher::new(keys("b", "02"), "store".into(), true));
        assert!(matches!(&lost, StoreError::Key(text) if text.contains("`a`, and it is not among the keys")), "{lost}");
        // In a store that has no such key nobody lacks it.
        let cipher = Cipher::new(keys("b", "02"), "store".into(), false);
        assert!(matches!(read(cipher.knowing(vec!["b".into()])), StoreError::Corrupt(_)));
        assert!(matches!(read(cipher.knowing(vec!["a".into(), "b".into()])), StoreError::Key(_)));
        assert!(matches!(read(Cipher::default().knowing(Vec::new())), StoreError::Corrupt(_)));
        assert!(matches!(read(Cipher::default()), StoreError::Key(_)));
    }
}
