//! The operator's own file of secrets: `secret:NAME` in the configuration and in documents.
//!
//! Owns the file, its permissions, versions and what stays known of a value that was replaced. A value is read where it is
//! needed and again whenever the file has changed; nothing here shows or logs one.

mod asked;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use windlass_core::time::Timestamp;
use windlass_stores::{Keyring, is_encrypted};

use asked::Asked;
pub use asked::Commands;

/// What the file is called where it is encrypted, wherever it is.
const ENCRYPTED_AS: &str = "secrets";
/// How references to these secrets begin.
pub const SCHEME: &str = "secret:";
/// Bytes of one value.
pub const VALUE_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of the file.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Bytes of a name.
const NAME_BYTES_MAX: usize = 128;
/// Bits of a file's mode that let others than its owner do anything with it.
const OTHERS: u32 = 0o077;

/// Why secrets cannot be had or changed.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// Others than the owner may read or write the file.
    #[error("others may read `{}` (mode {mode:o}): it is not used", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is not what this build writes.
    #[error("`{}` is no file of secrets", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// The operating system says no.
    #[error("cannot use `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is encrypted with other keys than those that are there, or is not encrypted and keys are there.
    #[error("`{}` cannot be used: {why}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A name or a value cannot be kept.
    #[error("{0}")]
    Unfit(String),
}

/// Whether a text can name a secret: up to 128 letters, digits, `.`, `_` and `-`.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.chars().all(fits)
}

/// A value in the file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
struct Plain(String);

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

/// One secret with what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    value: Plain,
    version: u64,
    set_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<Previous>,
}

/// The value before the present one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Previous {
    value: Plain,
    version: u64,
    /// When it is forgotten.
    until: Timestamp,
}

type Contents = BTreeMap<String, Kept>;

/// What may be shown of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// How often it was set.
    pub version: u64,
    /// When it was set last.
    pub set_at: Timestamp,
    /// Until when the value before is kept, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_until: Option<Timestamp>,
}

/// What tells one state of the file from another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stamp(Option<(u64, u64, i64, i64, u32)>);

#[derive(Default)]
struct Seen {
    stamp: Stamp,
    generation: u64,
    contents: Arc<Contents>,
    /// What is wrong with the file as it is; the last good contents stay in use.
    wrong: Option<String>,
}

/// The file, and the commands that tell what it does not have. Reads it again whenever it has changed.
pub struct SecretFile {
    path: PathBuf,
    /// Secrets that commands tell; they go before those in the file.
    asked: Option<Asked>,
    /// Keys that it is encrypted with, or why they cannot be had.
    keys: Result<Option<Keyring>, String>,
    seen: Mutex<Seen>,
}

impl fmt::Debug for SecretFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SecretFile {
    /// A file that may not be there yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), asked: None, keys: Ok(None), seen: Mutex::default() }
    }

    /// The same file, and beside it secrets that commands tell.
    #[must_use]
    pub fn asking(self, commands: Commands) -> Self {
        Self { asked: Some(Asked::new(commands)), ..self }
    }

    /// Whether a command tells this secret.
    #[must_use]
    pub fn is_asked(&self, name: &str) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.has(name))
    }

    /// The names of the secrets that commands tell.
    pub fn asked(&self) -> impl Iterator<Item = &String> {
        self.asked.iter().flat_map(Asked::names)
    }

    /// Runs the command of a secret.
    ///
    /// # Errors
    /// Why it does not tell it, with nothing of what it said.
    pub fn ask(&self, name: &str) -> Result<(), String> {
        self.asked.as_ref().map_or_else(|| Err("no command tells it".into()), |asked| asked.check(name))
    }

    /// The same file, encrypted with these keys; with why they cannot be had, it cannot be used where it is encrypted.
    #[must_use]
    pub fn encrypted(self, keys: Result<Option<Keyring>, String>) -> Self {
        Self { keys, ..self }
    }

    /// Encrypts the file with the active key, if it is there: also one that is not encrypted. Tells whether it did.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn rekey(&self) -> Result<bool, SecretsError> {
        if !self.path.exists() {
            return Ok(false);
        }
        self.rewrite(true, |_| Ok(())).map(|()| true)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file can be used as it is. One that is not there is empty.
    ///
    /// # Errors
    /// Others may read it, or it cannot be read.
    pub fn check(&self) -> Result<(), SecretsError> {
        self.read().map(|_| ())
    }

    /// The present value of a secret; none when it has none.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<SecretString> {
        if let Some(asked) = self.asked.as_ref().filter(|asked| asked.has(name)) {
            return asked.value(name);
        }
        let (_, contents) = self.current();
        contents.get(name).map(|kept| kept.value.0.clone().into())
    }

    /// Every value, those before the present ones included: what must not be shown.
    #[must_use]
    pub fn values(&self) -> Vec<SecretString> {
        let (_, contents) = self.current();
        let both = contents.values().flat_map(|kept| {
            let previous = kept.previous.iter().map(|previous| &previous.value);
            std::iter::once(&kept.value).chain(previous)
        });
        let kept = both.map(|value| value.0.clone().into());
        kept.chain(self.asked.iter().flat_map(Asked::values)).collect()
    }

    /// A number that changes with the contents.
    #[must_use]
    pub fn generation(&self) -> u64 {
        // Both only grow, so their sum changes with either.
        self.current().0 + self.asked.as_ref().map_or(0, Asked::generation)
    }

    /// The same without the first answers of commands: whoever needed one of those waited for it.
    #[must_use]
    pub(crate) fn changes(&self) -> u64 {
        self.current().0 + self.asked.as_ref().map_or(0, Asked::changes)
    }

    /// What may be shown, by name. Values that are past their time count as forgotten.
    ///
    /// # Errors
    /// Others may read the file, or it cannot be read.
    pub fn list(&self, now: Timestamp) -> Result<Vec<Listed>, SecretsError> {
        let listed = |(name, kept): (&String, &Kept)| Listed {
            name: name.clone(),
            version: kept.version,
            set_at: kept.set_at,
            previous_until: kept.previous.as_ref().map(|previous| previous.until).filter(|until| *until > now),
        };
        Ok(self.read()?.iter().map(listed).collect())
    }

    /// Sets a secret, new or not; gives its version. With `grace_ms` the value before is kept for that long.
    ///
    /// # Errors
    /// A name or value that cannot be kept, and a file that cannot be used.
    pub fn set(&self, name: &str, value: &SecretString, now: Timestamp, grace_ms: u64) -> Result<u64, SecretsError> {
        if !is_name(name) {
            let message =
                format!("`{name}` names no secret: use up to {NAME_BYTES_MAX} letters, digits, `.`, `_` and `-`");
            return Err(SecretsError::Unfit(message));
        }
        if self.is_asked(name) {
            let message = format!("`{name}` is told by a command of the configuration: it is not kept here");
            return Err(SecretsError::Unfit(message));
        }
        let value = Plain(value.expose_secret().to_owned());
        if value.0.trim().is_empty() || value.0.len() as u64 > VALUE_BYTES_MAX || value.0.contains('\0') {
            let message = format!("a secret has 1 to {VALUE_BYTES_MAX} bytes of text and no NUL");
            return Err(SecretsError::Unfit(message));
        }
        self.change(now, |contents| {
            let old = contents.get(name);
            let version = old.map_or(1, |kept| kept.version + 1);
            let previous = old.filter(|kept| grace_ms > 0 && kept.value != value).map(|kept| Previous {
                value: kept.value.clone(),
                version: kept.version,
                until: now.plus_ms(grace_ms),
            });
            contents.insert(name.to_owned(), Kept { value, version, set_at: now, previous });
            Ok(version)
        })
    }

    /// Takes the value before the present one again, and keeps the present one as the one before.
    ///
    /// # Errors
    /// There is none, or the file cannot be used.
    pub fn restore(&self, name: &str, now: Timestamp, grace_ms: u64) -> Result<u64, SecretsError> {
        self.change(now, |contents| {
            let kept = contents.get_mut(name).ok_or_else(|| unknown(name))?;
            let Some(previous) = kept.previous.take() else {
                return Err(SecretsError::Unfit(format!("no value before the present one of `{name}` is kept")));
            };
            let version = kept.version + 1;
            let value = std::mem::replace(&mut kept.value, previous.value);
            kept.previous = Some(Previous { value, version: kept.version, until: now.plus_ms(grace_ms) });
            (kept.version, kept.set_at) = (version, now);
            Ok(version)
        })
    }

    /// Removes a secret, or with `previous` only the value before the present one.
    ///
    /// # Errors
    /// There is none, or the file cannot be used.
    pub fn remove(&self, name: &str, previous: bool, now: Timestamp) -> Result<(), SecretsError> {
        self.change(now, |contents| {
            let kept = contents.get_mut(name).ok_or_else(|| unknown(name))?;
            if previous {
                kept.previous = None;
            } else {
                contents.remove(name);
            }
            Ok(())
        })
    }

    /// Removes the values before the present ones that are past their time. Writes nothing when there are none.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn forget(&self, now: Timestamp) -> Result<(), SecretsError> {
        let is_over = |kept: &Kept| kept.previous.as_ref().is_some_and(|previous| previous.until <= now);
        if self.read()?.values().any(is_over) {
            self.change(now, |_| Ok(()))?;
        }
        Ok(())
    }

    /// Contents as they are now; the last good ones when the file is not.
    fn current(&self) -> (u64, Arc<Contents>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = self.stamp();
        if seen.stamp != stamp || (seen.generation == 0) {
            match self.read() {
                Ok(contents) => {
                    seen.wrong = None;
                    if seen.generation == 0 || *seen.contents != contents {
                        seen.generation += 1;
                        seen.contents = Arc::new(contents);
                    }
                    seen.stamp = stamp;
                }
                Err(error) => {
                    let message = error.to_string();
                    if seen.wrong.as_ref() != Some(&message) {
                        tracing::error!(error = %message, "the secrets cannot be read; the last good ones stay in use");
                        seen.wrong = Some(message);
                    }
                }
            }
        }
        (seen.generation, Arc::clone(&seen.contents))
    }

    fn stamp(&self) -> Stamp {
        let meta = std::fs::metadata(&self.path).ok();
        Stamp(meta.map(|meta| (meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec(), meta.mode())))
    }

    fn failed(&self, source: io::Error) -> SecretsError {
        SecretsError::Io { path: self.path.clone(), source }
    }

    fn read(&self) -> Result<Contents, SecretsError> {
        self.read_as(false)
    }

    fn locked(&self, why: impl Into<String>) -> SecretsError {
        SecretsError::Key { path: self.path.clone(), why: why.into() }
    }

    /// The text of the file. With `plain` it may be there without encryption although there are keys.
    fn decrypted(&self, bytes: Vec<u8>, plain: bool) -> Result<Vec<u8>, SecretsError> {
        match (is_encrypted(&bytes), &self.keys) {
            (true, Ok(Some(keys))) => keys.decrypt_file(ENCRYPTED_AS, &bytes).map_err(|why| self.locked(why)),
            (true, Ok(None)) => Err(self.locked("it is encrypted, and there are no keys")),
            (_, Err(why)) => Err(self.locked(why)),
            (false, Ok(Some(_))) if !plain => {
                Err(self.locked("it is not encrypted, and there are keys: `windlass store rekey` encrypts it"))
            }
            (false, Ok(_)) => Ok(bytes),
        }
    }

    fn encoded(&self, contents: &Contents) -> Result<Vec<u8>, SecretsError> {
        let text = serde_json::to_vec_pretty(contents).map_err(|error| self.failed(error.into()))?;
        match &self.keys {
            Ok(None) => Ok(text),
            Ok(Some(keys)) => keys.encrypt_file(ENCRYPTED_AS, &text).map_err(|why| self.locked(why)),
            Err(why) => Err(self.locked(why)),
        }
    }

    fn read_as(&self, plain: bool) -> Result<Contents, SecretsError> {
        let mut file = match std::fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contents::new()),
            Err(error) => return Err(self.failed(error)),
        };
        let meta = file.metadata().map_err(|error| self.failed(error))?;
        let malformed = || SecretsError::Malformed { path: self.path.clone() };
        if meta.mode() & OTHERS != 0 {
            return Err(SecretsError::Exposed { path: self.path.clone(), mode: meta.mode() & 0o777 });
        }
        if !meta.is_file() || meta.len() > FILE_BYTES_MAX {
            return Err(malformed());
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|error| self.failed(error))?;
        // What is wrong in it is not said: the parser would quote it.
        serde_json::from_slice(&self.decrypted(bytes, plain)?).map_err(|_| malformed())
    }

    /// Changes the file as one of several processes may: under a lock, whole or not at all.
    fn change<T>(
        &self,
        now: Timestamp,
        work: impl FnOnce(&mut Contents) -> Result<T, SecretsError>,
    ) -> Result<T, SecretsError> {
        self.rewrite(false, |contents| {
            for kept in contents.values_mut() {
                kept.previous = kept.previous.take().filter(|previous| previous.until > now);
            }
            work(contents)
        })
    }

    fn rewrite<T>(
        &self,
        plain: bool,
        work: impl FnOnce(&mut Contents) -> Result<T, SecretsError>,
    ) -> Result<T, SecretsError> {
        if let Some(folder) = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(|error| self.failed(error))?;
        }
        let beside = |ending: &str| {
            let mut name = self.path.clone().into_os_string();
            name.push(ending);
            PathBuf::from(name)
        };
        let mut private = std::fs::OpenOptions::new();
        private.write(true).create(true).mode(0o600);
        let lock = private.open(beside(".lock")).map_err(|error| self.failed(error))?;
        lock.lock().map_err(|error| self.failed(error))?;
        let mut contents = self.read_as(plain)?;
        let done = work(&mut contents)?;
        let bytes = self.encoded(&contents)?;
        let new = beside(".new");
        // What a process left that died here is not of use to anybody.
        let _gone = std::fs::remove_file(&new);
        let written = private.create_new(true).open(&new).and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()?;
            std::fs::rename(&new, &self.path)?;
            // Only then is it the new file that a crash of the machine leaves.
            let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
            std::fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        });
        written.map_err(|error| self.failed(error))?;
        Ok(done)
    }
}

fn unknown(name: &str) -> SecretsError {
    SecretsError::Unfit(format!("there is no secret `{name}`"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file() -> (tempfile::TempDir, SecretFile) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = SecretFile::new(folder.path().join("state/secrets.json"));
        (folder, file)
    }

    fn shown(value: Option<SecretString>) -> Option<String> {
        value.map(|value| value.expose_secret().to_owned())
    }

    #[test]
    fn a_secret_is_set_rotated_restored_and_removed() {
        let (_folder, file) = file();
        let at = Timestamp;
        assert_eq!(shown(file.value("a")), None);
        assert_eq!(file.set("a", &"one".into(), at(1), 0).expect("set"), 1);
        let first = file.generation();
        assert_eq!(shown(file.value("a")).as_deref(), Some("one"));
        assert_eq!(file.set("a", &"two".into(), at(2), 100).expect("set"), 2);
        file.forget(at(101)).expect("kept");
        assert_eq!(file.values().len(), 2);
        assert!(file.generation() > first);
        assert_eq!(shown(file.value("a")).as_deref(), Some("two"));
        assert_eq!(file.values().len(), 2, "the value before is kept out of texts too");
        let listed = file.list(at(50)).expect("listed");
        let one = Listed { name: "a".into(), version: 2, set_at: at(2), previous_until: Some(at(102)) };
        assert_eq!(listed, [one]);
        assert_eq!(file.list(at(200)).expect("listed")[0].previous_until, None);
        assert_eq!(file.restore("a", at(60), 100).expect("back"), 3);
        assert_eq!(shown(file.value("a")).as_deref(), Some("one"));
        file.remove("a", true, at(61)).expect("forgotten");
        assert!(file.restore("a", at(62), 1).is_err());
        file.remove("a", false, at(63)).expect("removed");
        assert!(file.remove("a", false, at(64)).is_err());
        assert_eq!(shown(file.value("a")), None);
    }

    #[test]
    fn an_encrypted_file_is_read_with_its_keys_only() {
        let (_folder, plain) = file();
        plain.set("a", &"what it is".into(), Timestamp(1), 0).expect("set");
        let keys = |active: &str, ids: &[&str]| {
            let key = |id: &&str| ((*id).to_owned(), id.repeat(64).into());
            Ok(Some(Keyring::new(active, ids.iter().map(key)).expect("keys")))
        };
        let with = |keys| SecretFile::new(plain.path()).encrypted(keys);
        let why = |file: SecretFile| file.list(Timestamp(2)).expect_err("refused").to_string();
        let bytes = || std::fs::read(plain.path()).expect("read");
        assert!(why(with(keys("a", &["a"]))).contains("not encrypted"));
        assert!(with(keys("a", &["a"])).set("b", &"x".into(), Timestamp(2), 0).is_err());
        assert!(String::from_utf8_lossy(&bytes()).contains("what it is"), "nothing was changed");

        assert!(with(keys("a", &["a"])).rekey().expect("encrypted"));
        assert!(!String::from_utf8_lossy(&bytes()).contains("what it is"));
        assert_eq!(std::fs::metadata(plain.path()).expect("there").mode() & 0o777, 0o600);
        assert_eq!(shown(with(keys("a", &["a"])).value("a")).as_deref(), Some("what it is"));
        assert!(why(with(Ok(None))).contains("there are no keys"));
        assert!(why(with(keys("b", &["b"]))).contains("key `a`, which is not among the keys"));
        assert!(why(with(Err("no key".into()))).contains("no key"));
        assert_eq!(shown(with(keys("b", &["a", "b"])).value("a")).as_deref(), Some("what it is"));
        with(keys("b", &["a", "b"])).set("c", &"more".into(), Timestamp(3), 0).expect("set");
        assert!(with(keys("b", &["a", "b"])).rekey().expect("rekeyed"));
        assert_eq!(shown(with(keys("b", &["b"])).value("c")).as_deref(), Some("more"));
        let mut forged = bytes();
        let last = forged.len() - 1;
        forged[last] ^= 1;
        std::fs::write(plain.path(), &forged).expect("written");
        assert!(why(with(keys("b", &["b"]))).contains("does not authenticate"));
        assert!(!SecretFile::new(plain.path().join("none")).encrypted(keys("b", &["b"])).rekey().expect("nothing"));
    }

    #[test]
    fn a_file_that_others_may_read_is_refused_and_the_last_good_one_stays() {
        let (_folder, file) = file();
        file.set("a", &"one".into(), Timestamp(1), 0).expect("set");
        assert_eq!(std::fs::metadata(file.path()).expect("there").mode() & 0o777, 0o600);
        assert_eq!(shown(file.value("a")).as_deref(), Some("one"));
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o640)).expect("changed");
        assert!(matches!(file.check(), Err(SecretsError::Exposed { mode: 0o640, .. })));
        assert!(file.set("a", &"two".into(), Timestamp(2), 0).is_err());
        assert_eq!(shown(file.value("a")).as_deref(), Some("one"), "what runs goes on");
        assert_eq!(shown(SecretFile::new(file.path()).value("a")), None, "what begins does not");
    }

    #[test]
    fn nothing_says_what_is_in_it() {
        let (_folder, file) = file();
        file.set("a", &"canary-value".into(), Timestamp(1), 0).expect("set");
        std::fs::write(file.path(), "{\"a\": canary-value").expect("broken");
        let error = file.check().expect_err("broken");
        assert!(!format!("{error} {error:?} {file:?}").contains("canary"));
    }

    #[test]
    fn names_and_values_have_bounds() {
        let (_folder, file) = file();
        for name in ["", "a b", "a/b", &"x".repeat(NAME_BYTES_MAX + 1)] {
            assert!(file.set(name, &"v".into(), Timestamp(1), 0).is_err(), "{name}");
        }
        let long = "x".repeat(VALUE_BYTES_MAX as usize + 1);
        for value in ["", " \n", "a\0b", &long] {
            assert!(file.set("a", &value.into(), Timestamp(1), 0).is_err());
        }
    }
}
