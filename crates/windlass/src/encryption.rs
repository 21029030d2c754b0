//! Keys of an encrypted store, as configured.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::Uid;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use windlass_stores::Keyring;

use crate::wire::WireError;

/// Bytes of a file that holds one key.
const FILE_BYTES_MAX: u64 = 4_096;

/// Encryption of what is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EncryptionConfig {
    /// The id of the key that everything is encrypted with. Default: none; nothing is encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Keys by id, of up to 16 letters, digits, `.`, `_` and `-`: `env:NAME` or `file:PATH`, relative to this file. A key is
    /// 32 random bytes in base64 or hexadecimal. Those that are not `key` only decrypt.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub keys: BTreeMap<String, String>,
    /// Whether plain values are read as long as the store says that it is being encrypted for the first time. Only for
    /// processes that work while `windlass store rekey` does that; take it out when it is done. Default: `false`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub plain: bool,
}

impl EncryptionConfig {
    /// The keys; none when nothing is encrypted. `folder` is what paths are relative to.
    ///
    /// # Errors
    /// A key that is not there or is none, and an active key that is not among the keys. No text has a key in it.
    pub fn keyring(
        &self,
        folder: &Path,
        environment: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Option<Keyring>, WireError> {
        let Some(active) = &self.key else {
            return match self.keys.keys().next() {
                None => Ok(None),
                Some(id) => {
                    Err(wrong("encryption.key", format!("there are keys, and none is chosen: `key = \"{id}\"`")))
                }
            };
        };
        let mut keys = Vec::new();
        for (id, reference) in &self.keys {
            let at = format!("encryption.keys.{id}");
            let value = value(reference, folder, environment).map_err(|why| wrong(&at, why))?;
            keys.push((id.clone(), value));
        }
        let keys = Keyring::new(active, keys).map_err(|error| wrong("encryption", error.to_string()))?;
        Ok(Some(if self.plain { keys.with_plain() } else { keys }))
    }
}

fn wrong(key: &str, why: impl std::fmt::Display) -> WireError {
    let hint = "a key is 32 random bytes, such as `openssl rand -base64 32` makes; see docs/encryption.md";
    WireError { key: Some(key.to_owned()), message: format!("`{key}`: {why}"), hint: Some(hint.to_owned()) }
}

/// The text behind a reference.
fn value(
    reference: &str,
    folder: &Path,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<SecretString, String> {
    match reference.split_once(':') {
        Some(("env", name)) => {
            let text = environment(name).ok_or_else(|| format!("the environment variable `{name}` is not set"))?;
            let text = text.into_string().map_err(|_| format!("the environment variable `{name}` is no text"))?;
            Ok(text.into())
        }
        Some(("file", path)) => {
            let path = folder.join(path);
            let shown = path.display();
            let meta = std::fs::metadata(&path).map_err(|error| format!("cannot read `{shown}`: {error}"))?;
            // As `ssh` does: what is another user's is for that one to close.
            if meta.uid() == Uid::effective().as_raw() && meta.mode() & 0o077 != 0 {
                let mode = meta.mode() & 0o777;
                return Err(format!("others may read `{shown}` (mode {mode:04o}): `chmod 600 {shown}`"));
            }
            if meta.len() > FILE_BYTES_MAX {
                return Err(format!("`{shown}` is too large to be a key"));
            }
            std::fs::read_to_string(&path).map(Into::into).map_err(|error| format!("cannot read `{shown}`: {error}"))
        }
        Some(("secret", _)) => {
            Err("the operator's own secrets are encrypted with these keys, and cannot hold them; use `env:` or `file:`"
                .into())
        }
        _ => Err("it is no reference to a key: write `env:NAME` or `file:PATH`, and never the key itself".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    fn config(key: Option<&str>, keys: &[(&str, &str)]) -> EncryptionConfig {
        let keys = keys.iter().map(|(id, reference)| ((*id).to_owned(), (*reference).to_owned())).collect();
        EncryptionConfig { key: key.map(str::to_owned), keys, plain: false }
    }

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("set");
    }

    #[test]
    fn a_file_that_others_may_read_is_no_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("old");
        std::fs::write(&path, KEY).expect("written");
        for (mode, fits) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o620, false)] {
            set_mode(&path, mode);
            let keys = config(Some("old"), &[("old", "file:old")]).keyring(folder.path(), &|_| None);
            assert_eq!(keys.is_ok(), fits, "{mode:o}: {keys:?}");
            let said = keys.err().map_or_else(String::new, |error| error.message);
            assert_eq!(said.contains(&format!("`chmod 600 {}`", path.display())), !fits, "{said}");
        }
    }

    #[test]
    fn plain_values_are_read_only_where_that_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        for plain in [false, true] {
            let config = EncryptionConfig { plain, ..config(Some("a"), &[("a", "env:A")]) };
            let keys = config.keyring(folder.path(), &|_| Some(KEY.into())).expect("keys").expect("there are keys");
            assert_eq!(keys.accepts_plain(), plain);
        }
    }

    #[test]
    fn keys_come_from_the_environment_and_from_files() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("old"), format!("{KEY}\n")).expect("written");
        set_mode(&folder.path().join("old"), 0o600);
        let keyring = |config: EncryptionConfig| {
            config.keyring(folder.path(), &|name| (name == "NEW").then(|| KEY.replace('0', "7").into()))
        };
        let keys = keyring(config(Some("new"), &[("new", "env:NEW"), ("old", "file:old")])).expect("keys");
        let keys = keys.expect("there are keys");
        assert_eq!((keys.active(), keys.ids()), ("new", vec!["new".to_owned(), "old".to_owned()]));
        assert!(keyring(config(None, &[])).expect("nothing is wrong").is_none());
        for (config, said) in [
            (config(None, &[("a", "env:NEW")]), "none is chosen"),
            (config(Some("a"), &[]), "there is no key `a`"),
            (config(Some("a"), &[("a", "env:MISSING")]), "`MISSING` is not set"),
            (config(Some("a"), &[("a", "file:missing")]), "cannot read"),
            (config(Some("a"), &[("a", "secret:a")]), "cannot hold them"),
            (config(Some("a"), &[("a", KEY)]), "never the key itself"),
        ] {
            let error = keyring(config).expect_err("refused");
            assert!(error.message.contains(said), "{error}");
            assert!(!error.message.contains(KEY), "{error}");
        }
    }
}
