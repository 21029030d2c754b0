//! Packs of skills: what a folder with a `skill.yml` holds, read with diagnostics, bounded, and named by its content.
//!
//! Which pack a document means is decided while it is lowered; where packs come from is the caller's part.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use semver::{Version, VersionReq};
use windlass_core::contract::{Class, Contract, Idempotency};
use windlass_core::ids::{Digest, Name};
use windlass_core::machine::ChildContract;
use windlass_core::skill::SkillRef;
use windlass_core::value::Value;

use crate::check;
use crate::diagnostics::{Diagnostic, Rule, Sink, Span};
use crate::features::SKILL;
use crate::lower::{pack_contract, pack_schema};
use crate::source::{FileError, Files, resolve};
use crate::yaml::{self, Node};

/// The file that says what a pack is.
pub const MANIFEST: &str = "skill.yml";
/// Files of a pack.
pub const PACK_FILES_MAX: usize = 64;
/// Bytes of all files of a pack together.
pub const PACK_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of the instructions of a skill: they are part of every prompt of an agent that has it.
pub const PROMPT_BYTES_MAX: usize = 32 * 1024;
/// Packs that one machine and all that it can start may use.
pub const PACKS_MAX: usize = 64;
/// Bytes of a skill's name.
const NAME_BYTES_MAX: usize = 64;
/// Levels of folders in a pack.
const DEPTH_MAX: usize = 8;
/// What the hash of a pack begins with.
const DIGEST_TAG: &str = "windlass.skill.v1\n";
/// How the paths of documents in packs begin.
const PREFIX: &str = "skill:";

/// A pack of one version of a skill.
#[derive(Clone, Debug, PartialEq)]
pub struct Pack {
    /// Its name.
    pub name: Name,
    /// Its version.
    pub version: Version,
    /// Hash of the names and contents of all its files.
    pub digest: Digest,
    /// What it is for, in one or two sentences, as models and people read it.
    pub description: Name,
    /// Words by which it is found beside those of its description.
    pub keywords: Vec<Name>,
    /// Tools and actions that it may call.
    pub tools: Vec<Name>,
    /// Its instructions; empty when it has none.
    pub prompt: Name,
    /// The path of its machine document within the pack.
    pub machine: Option<Name>,
    /// JSON Schema of what its machine is given; null accepts any.
    pub input_schema: Value,
    /// JSON Schema of what its machine gives back; null accepts any.
    pub output_schema: Value,
    /// What a run of its machine may spend, call and give back.
    pub contract: ChildContract,
    files: BTreeMap<String, String>,
}

impl Pack {
    /// Reads a pack from its files, by their paths within it.
    ///
    /// # Errors
    /// Everything that is wrong with it, warnings included.
    pub fn read(files: BTreeMap<String, Vec<u8>>) -> Result<Self, Vec<Diagnostic>> {
        let mut sink = Sink::default();
        let pack = texts(files, &mut sink).and_then(|files| manifest(files, &mut sink));
        let failed = sink.errors() > 0;
        match pack {
            Some(pack) if !failed => Ok(pack),
            _ => Err(sink.finish(false)),
        }
    }

    /// Reads the pack in a folder.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn folder(path: &Path) -> Result<Self, Vec<Diagnostic>> {
        let mut files = BTreeMap::new();
        match gather(path, "", 0, &mut files) {
            Ok(()) => Self::read(files),
            Err(why) => {
                let mut sink = Sink::default();
                let (shown, place) = (path.display().to_string(), of_file(&mut sink, MANIFEST));
                sink.error(Rule::FileUnreadable, place, format!("the folder `{shown}` cannot be used: {why}"), ());
                Err(sink.finish(false))
            }
        }
    }

    /// `NAME@VERSION`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }

    /// What runs record of it.
    #[must_use]
    pub fn reference(&self) -> SkillRef {
        SkillRef { name: self.name.clone(), version: self.version.to_string().into(), digest: self.digest }
    }

    /// Its files by their paths.
    #[must_use]
    pub fn files(&self) -> &BTreeMap<String, String> {
        &self.files
    }

    /// The path of one of its files among the documents of a machine.
    pub(crate) fn path(&self, file: &str) -> String {
        format!("{PREFIX}{}/{file}", self.id())
    }

    /// How a search and a model see it: a tool of its name.
    #[must_use]
    pub fn as_tool(&self, class: Class) -> Contract {
        Contract {
            description: self.description.clone(),
            input_schema: if self.machine.is_some() { self.input_schema.clone() } else { Value::Null },
            output_schema: self.output_schema.clone(),
            class,
            idempotency: Idempotency::None,
            ..Contract::undeclared(&self.name)
        }
    }

    /// The same for a search of people: its keywords count as well.
    #[must_use]
    pub fn as_found(&self) -> Contract {
        let description = format!("{} {}", self.description, self.keywords.join(" "));
        Contract { description: description.into(), ..self.as_tool(Class::Read) }
    }
}

/// What a document says of a skill that it uses: `NAME@REQUIREMENT`, and `#DIGEST` where its content is pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub name: Name,
    /// The versions that fit, as Cargo reads them: `1.2` is `^1.2`.
    pub requirement: VersionReq,
    /// The only content that fits.
    pub digest: Option<Digest>,
}

impl Wanted {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (text, digest) = match text.split_once('#') {
            None => (text, None),
            Some((text, digest)) => {
                let digest = Digest::parse(digest).ok_or("what follows `#` is no digest of 64 digits")?;
                (text, Some(digest))
            }
        };
        let (name, requirement) = text.split_once('@').ok_or("it names no version")?;
        if !is_name(name) {
            return Err(format!("`{name}` cannot be the name of a skill"));
        }
        let requirement = VersionReq::parse(requirement.trim()).map_err(|error| error.to_string())?;
        Ok(Self { name: name.into(), requirement, digest })
    }
}

/// Whether a text can name a skill: small letters, digits and `-`, a letter first.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    text.len() <= NAME_BYTES_MAX && text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(fits)
}

/// The part of a path that says in which pack a document is; none for documents outside of packs.
pub(crate) fn pack_of(path: &str) -> Option<&str> {
    path.starts_with(PREFIX).then(|| path.split_once('/').map_or(path, |(pack, _)| pack))
}

/// Documents with those of packs beside them.
pub(crate) struct WithPacks<'a> {
    pub(crate) files: &'a dyn Files,
    pub(crate) packs: &'a [Arc<Pack>],
}

impl Files for WithPacks<'_> {
    fn read(&self, path: &str, bytes_max: usize) -> Result<Vec<u8>, FileError> {
        let Some(pack) = pack_of(path) else { return self.files.read(path, bytes_max) };
        let found = self.packs.iter().find(|known| format!("{PREFIX}{}", known.id()) == pack);
        let text = found.and_then(|known| known.files.get(path.get(pack.len() + 1..)?)).ok_or(FileError::Missing)?;
        if text.len() > bytes_max { Err(FileError::TooLarge(bytes_max)) } else { Ok(text.clone().into_bytes()) }
    }
}

fn gather(root: &Path, below: &str, depth: usize, files: &mut BTreeMap<String, Vec<u8>>) -> Result<(), String> {
    if depth > DEPTH_MAX {
        return Err(format!("it has more than {DEPTH_MAX} levels of folders"));
    }
    let folder = root.join(below);
    let shown = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => format!("`{}` does not exist", folder.display()),
        _ => error.to_string(),
    };
    for entry in std::fs::read_dir(&folder).map_err(shown)? {
        let entry = entry.map_err(|error| error.to_string())?;
        let Some(name) = entry.file_name().to_str().map(ToOwned::to_owned) else {
            return Err("the name of a file is not UTF-8".to_owned());
        };
        // What editors and version control keep beside.
        if name.starts_with('.') {
            continue;
        }
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        let kind = entry.file_type().map_err(|error| error.to_string())?;
        if kind.is_dir() {
            gather(root, &path, depth + 1, files)?;
            continue;
        }
        if !kind.is_file() {
            return Err(format!("`{path}` is neither a file nor a folder"));
        }
        let taken: usize = files.values().map(Vec::len).sum();
        let size = entry.metadata().map_or(u64::MAX, |about| about.len());
        if files.len() >= PACK_FILES_MAX || size.saturating_add(taken as u64) > PACK_BYTES_MAX as u64 {
            return Err(format!("a pack has at most {PACK_FILES_MAX} files and {PACK_BYTES_MAX} bytes"));
        }
        let bytes = std::fs::read(root.join(&path)).map_err(|error| format!("`{path}`: {error}"))?;
        files.insert(path, bytes);
    }
    Ok(())
}

/// A place that stands for a whole file.
fn of_file(sink: &mut Sink, path: &str) -> Span {
    Span { file: sink.add_file(path, "".into()), line: 1, column: 1, end_line: 1, end_column: 1 }
}

/// The files as texts, within the bounds of a pack.
fn texts(files: BTreeMap<String, Vec<u8>>, sink: &mut Sink) -> Option<BTreeMap<String, String>> {
    let bytes: usize = files.values().map(Vec::len).sum();
    if files.len() > PACK_FILES_MAX || bytes > PACK_BYTES_MAX {
        let message = format!("the pack has {} files and {bytes} bytes", files.len());
        let advice = format!("a pack has at most {PACK_FILES_MAX} files and {PACK_BYTES_MAX} bytes");
        let place = of_file(sink, MANIFEST);
        sink.error(Rule::TooLarge, place, message, advice);
        return None;
    }
    let mut texts = BTreeMap::new();
    for (path, bytes) in files {
        if resolve("", &path).is_ok_and(|resolved| resolved == path && !path.starts_with("..")) {
            match String::from_utf8(bytes) {
                Ok(text) => drop(texts.insert(path, text)),
                Err(_) => {
                    let place = of_file(sink, &path);
                    sink.error(Rule::NotUtf8, place, "the file is not UTF-8", "a pack holds texts only");
                }
            }
        } else {
            let place = of_file(sink, MANIFEST);
            sink.error(Rule::BadPath, place, format!("`{path}` cannot be a file of a pack"), ());
        }
    }
    Some(texts)
}

fn manifest(files: BTreeMap<String, String>, sink: &mut Sink) -> Option<Pack> {
    let Some(text) = files.get(MANIFEST) else {
        let place = of_file(sink, MANIFEST);
        let advice = "a skill is a folder with a `skill.yml`; see docs/skills.md";
        sink.error(Rule::FileMissing, place, "the file does not exist", advice);
        return None;
    };
    let file = sink.add_file(MANIFEST, text.as_str().into());
    let root = yaml::parse(file, text, sink)?;
    check::section(&root, &SKILL, sink);
    if sink.errors() > 0 {
        return None;
    }
    let name = name(&root, sink);
    let version = version(&root, sink);
    let prompt = prompt(&root, &files, sink);
    let machine = machine(&root, &files, sink);
    let listed = |key: &str| -> Vec<Name> {
        let items = root.get(key).and_then(|n| n.as_list()).unwrap_or_default();
        items.iter().filter_map(|item| item.as_str().cloned()).collect()
    };
    if ["prompt", "tools", "machine"].iter().all(|key| root.entry(key).is_none()) {
        let advice = "add `prompt`, `tools` or `machine`";
        sink.error(Rule::MissingKey, root.span.line_only(), "the skill has nothing to give", advice);
    }
    for (key, needs) in [("input_schema", "machine"), ("output_schema", "machine"), ("contract", "machine")] {
        if let Some(entry) = root.entry(key).filter(|_| machine.is_none()) {
            let message = format!("`{key}` has no effect without `{needs}`");
            sink.error(Rule::NoEffect, entry.key_span, message, "add the machine, or remove it");
        }
    }
    for item in root.get("tools").and_then(|n| n.as_list()).unwrap_or_default() {
        if item.as_str().is_some_and(|tool| tool.contains('*')) {
            let message = "a skill names each of its tools in full";
            sink.error(Rule::WrongValue, item.span, message, "write one line for each tool");
        }
    }
    let (input_schema, output_schema) =
        (pack_schema(&root, "input_schema", sink), pack_schema(&root, "output_schema", sink));
    let tools = listed("tools");
    let contract = ChildContract { tools: Some(tools.clone()), ..pack_contract(&root, sink) };
    Some(Pack {
        name: name?,
        version: version?,
        digest: digest(&files),
        description: root.text("description").cloned().unwrap_or_default(),
        keywords: listed("keywords"),
        tools,
        prompt,
        machine,
        input_schema,
        output_schema,
        contract,
        files,
    })
}

fn name(root: &Node, sink: &mut Sink) -> Option<Name> {
    let node = root.get("name")?;
    let name = node.as_str()?;
    if !is_name(name) {
        let message = format!("`{name}` cannot be the name of a skill");
        let advice = format!("use up to {NAME_BYTES_MAX} small letters, digits and `-`, a letter first");
        sink.error(Rule::WrongValue, node.span, message, advice);
    }
    Some(name.clone())
}

fn version(root: &Node, sink: &mut Sink) -> Option<Version> {
    let node = root.get("version")?;
    let text = node.scalar_text()?;
    match Version::parse(&text) {
        Ok(version) if version.build.is_empty() => Some(version),
        Ok(_) => {
            let message = format!("`{text}` has metadata of a build, by which versions are not ordered");
            sink.error(Rule::WrongValue, node.span, message, "write it without `+` and what follows");
            None
        }
        Err(error) => {
            let message = format!("`{text}` is no semantic version: {error}");
            sink.error(Rule::WrongValue, node.span, message, "write three numbers, such as `1.0.0`");
            None
        }
    }
}

fn file_of(root: &Node, key: &str, files: &BTreeMap<String, String>, sink: &mut Sink) -> Option<(Name, Span)> {
    let node = root.get(key)?;
    let path = node.as_str()?;
    let path: Name = path.strip_prefix("./").unwrap_or(path).into();
    if !files.contains_key(&*path) {
        let advice = crate::diagnostics::suggest(&path, files.keys().map(String::as_str));
        sink.error(Rule::FileMissing, node.span, format!("the pack has no file `{path}`"), advice);
        return None;
    }
    Some((path, node.span))
}

fn prompt(root: &Node, files: &BTreeMap<String, String>, sink: &mut Sink) -> Name {
    let Some((path, span)) = file_of(root, "prompt", files, sink) else { return "".into() };
    let text = files.get(&*path).map(|text| text.trim()).unwrap_or_default();
    if text.len() > PROMPT_BYTES_MAX {
        let message = format!("the instructions have {} bytes", text.len());
        sink.error(Rule::TooLarge, span, message, format!("they are part of prompts; {PROMPT_BYTES_MAX} at most"));
    }
    if text.is_empty() {
        sink.error(Rule::WrongValue, span, format!("`{path}` is empty"), "write the instructions, or remove `prompt`");
    }
    text.into()
}

fn machine(root: &Node, files: &BTreeMap<String, String>, sink: &mut Sink) -> Option<Name> {
    file_of(root, "machine", files, sink).map(|(path, _)| path)
}

/// The hash of a pack: of each path and text in the order of the paths.
fn digest(files: &BTreeMap<String, String>) -> Digest {
    let json = serde_json::to_string(files).unwrap_or_default();
    Digest::of(format!("{DIGEST_TAG}{json}").as_bytes())
}
