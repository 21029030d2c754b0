//! The definitions that a person accepted: one file beside `windlass.toml`, made to be reviewed and kept in git.
//!
//! The file says what it is by hash as well as in full. One that cannot be read, or in which the two differ, is refused
//! as a whole: nothing runs on definitions that nobody accepted.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::value::RawValue;
use windlass_core::ids::Digest;

use crate::mcp::canonical::{canonical, indented};
use crate::mcp::definition::Definition;

/// The name of the file.
pub const FILE: &str = "windlass.pins.json";
/// Bytes of the file.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// The form of the file.
const FORM: u32 = 1;

/// The accepted definitions by server and name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pins {
    /// Of each server.
    pub servers: BTreeMap<String, BTreeMap<String, Definition>>,
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PinsError {
    /// It cannot be read or written.
    #[error("`{path}` cannot be used: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("`{path}` is damaged: {why}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    form: u32,
    servers: BTreeMap<String, BTreeMap<String, Pin>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pin {
    hash: String,
    definition: Box<RawValue>,
}

impl Pins {
    /// Reads the file of a folder; without one nothing is accepted.
    ///
    /// # Errors
    /// It cannot be read, is no file of pins, or a hash in it is not that of its definition.
    pub fn load(folder: &Path) -> Result<Self, PinsError> {
        let path = folder.join(FILE);
        let bytes = match fs::metadata(&path) {
            Ok(found) if found.len() > FILE_BYTES_MAX => {
                return Err(PinsError::Damaged { path, why: format!("it has more than {FILE_BYTES_MAX} bytes") });
            }
            Ok(_) => fs::read_to_string(&path),
            Err(error) => Err(error),
        };
        match bytes {
            Ok(text) => Self::parse(&text).map_err(|why| PinsError::Damaged { path, why }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(PinsError::Io { path, source }),
        }
    }

    /// Reads the text of the file.
    ///
    /// # Errors
    /// What is wrong with it.
    fn parse(text: &str) -> Result<Self, String> {
        // A name that comes twice would show a reviewer one definition and the engine another.
        canonical(text)?;
        let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if file.form != FORM {
            return Err(format!("it has the form {}, and this build reads the form {FORM}", file.form));
        }
        let mut servers = BTreeMap::new();
        for (server, pins) in file.servers {
            let mut tools = BTreeMap::new();
            for (name, pin) in pins {
                let at = |why: &str| format!("`{server}` / `{name}`: {why}");
                let definition = Definition::read(&pin.definition).map_err(|refused| at(&refused.why))?;
                if definition.name != name {
                    return Err(at("the definition has another name"));
                }
                if Digest::parse(&pin.hash) != Some(definition.hash) {
                    return Err(at("the hash is not that of the definition"));
                }
                tools.insert(name, definition);
            }
            servers.insert(server, tools);
        }
        Ok(Self { servers })
    }

    /// The text of the file. Definitions stand in it token by token as they came.
    fn text(&self) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let pin = |(name, tool): (&String, &Definition)| {
            format!(r#"{}:{{"hash":"{}","definition":{}}}"#, quoted(name), tool.hash, tool.text)
        };
        let server = |(name, tools): (&String, &BTreeMap<String, Definition>)| {
            format!("{}:{{{}}}", quoted(name), tools.iter().map(pin).collect::<Vec<_>>().join(","))
        };
        let filled = self.servers.iter().filter(|(_, tools)| !tools.is_empty());
        let servers = filled.map(server).collect::<Vec<_>>().join(",");
        indented(&format!(r#"{{"form":{FORM},"servers":{{{servers}}}}}"#)) + "\n"
    }

    /// Writes the file of a folder, whole or not at all.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), PinsError> {
        let path = folder.join(FILE);
        let write = || -> io::Result<()> {
            let text = self.text();
            // What would be refused when read is never written.
            Self::parse(&text).map_err(io::Error::other)?;
            let draft = folder.join(format!(".{FILE}.{}", std::process::id()));
            let mut file = fs::File::create(&draft)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&draft, &path)
        };
        write().map_err(|source| PinsError::Io { path: path.clone(), source })
    }

    /// The accepted definition of a tool.
    #[must_use]
    pub fn find(&self, server: &str, tool: &str) -> Option<&Definition> {
        self.servers.get(server)?.get(tool)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pins() -> Pins {
        let wire = r#"{"name":"send","description":"Sends ü.","inputSchema":{"maximum":1e3,"type":"object"}}"#;
        let tool = Definition::read(&RawValue::from_string(wire.into()).unwrap()).unwrap();
        let tools = BTreeMap::from([("send".to_owned(), tool)]);
        Pins { servers: BTreeMap::from([("mail".to_owned(), tools)]) }
    }

    #[test]
    fn what_is_saved_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Pins::load(folder.path()).unwrap(), Pins::default());
        pins().save(folder.path()).unwrap();
        assert_eq!(Pins::load(folder.path()).unwrap(), pins());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn every_change_of_a_byte_is_noticed_or_means_the_same() {
        let text = pins().text();
        for (index, byte) in text.bytes().enumerate() {
            let mut changed = text.clone().into_bytes();
            changed[index] = byte.wrapping_add(1);
            let Ok(changed) = String::from_utf8(changed) else { continue };
            if let Ok(read) = Pins::parse(&changed)
                && let Some(tool) = read.find("mail", "send")
            {
                assert_eq!(tool, pins().find("mail", "send").unwrap(), "byte {index}");
            }
        }
    }

    #[test]
    fn a_damaged_file_is_refused_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let text = pins().text();
        for damaged in [
            String::new(),
            "{}".into(),
            text[..text.len() / 2].to_owned(),
            text.replace("\"form\": 1", "\"form\": 2"),
            text.replace("Sends", "Spends"),
            text.replace("\"send\": {", "\"sent\": {"),
            text.replace("\"mail\": {", "\"mail\": {}, \"mail\": {"),
        ] {
            fs::write(folder.path().join(FILE), &damaged).unwrap();
            assert!(matches!(Pins::load(folder.path()), Err(PinsError::Damaged { .. })), "{damaged}");
        }
    }
}
