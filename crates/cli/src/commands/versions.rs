//! `windlass versions`: publishes machines under names, lists and compares what was published, and moves names.

mod diff;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use windlass_core::failure::Code;
use windlass_core::ids::{Digest, Name};
use windlass_core::machine::Program;
use windlass_ports::store::Store;
use windlass_runtime::versions::{NAME_BYTES_MAX, Pointer, Reference, Sources, Version, is_name};
use windlass_runtime::{Publication, Published, VersionError, Versions};
use windlass_spec::LoadOptions;
use windlass_spec::diagnostics::render_all;
use windlass_spec::skill::Pack;

use crate::app::App;
use crate::args;
use crate::documents;
use crate::exit::{Exit, Problem};
use crate::output::{Form, note, printable, time};
use crate::session;

/// A name as it is given to a command about names, where a version or a path is no name.
///
/// # Errors
/// What cannot be the name of versions, with what to write instead.
fn name(text: &str) -> Result<&str, Problem> {
    if is_name(text) {
        return Ok(text);
    }
    let problem = problem(VersionError::Name(text.chars().take(NAME_BYTES_MAX).collect()));
    Err(match Reference::parse(text) {
        Some(Reference { name, number: None }) => problem.hint(format!("write the name alone: `{name}`")),
        Some(Reference { name, number: Some(number) }) => problem.hint(format!(
            "write the name alone, `{name}`: `windlass versions show {name}@{number}` shows this version, `windlass versions \
             rollback {name} --to {number}` moves the name to it"
        )),
        None => problem.hint("`windlass versions list` shows the names in this store"),
    })
}

/// Carries one of them out.
pub(crate) async fn perform(app: &App, command: args::Versions) -> Result<Exit, Problem> {
    match command {
        args::Versions::Publish(args) => publish(app, args).await,
        args::Versions::List(args) => list(app, args).await,
        args::Versions::Show(args) => show(app, &args).await,
        args::Versions::Diff(args) => diff::diff(app, &args).await,
        args::Versions::Rollback(args) => rollback(app, &args).await,
    }
}

/// A version with its sources, as they were published.
///
/// # Errors
/// No such version, a store that fails, or sources that were changed in it.
pub(crate) async fn published(app: &App, reference: &Reference) -> Result<(Version, Sources), Problem> {
    let store = if app.store_url() == "memory:" { None } else { app.readable_store().await? };
    let Some(store) = store else { return Err(problem(VersionError::Unknown(reference.name.clone()))) };
    let versions = Versions::new(store);
    let version = versions.find(reference).await.map_err(problem)?;
    let sources = versions.sources(&version).await.map_err(problem)?;
    Ok((version, sources))
}

/// The packs of skills that were published, by `NAME@VERSION`.
///
/// # Errors
/// A pack that this build cannot read.
pub(crate) fn packs(skills: &BTreeMap<String, BTreeMap<String, String>>) -> Result<Vec<Arc<Pack>>, Problem> {
    let pack = |(id, files): (&String, &BTreeMap<String, String>)| {
        let files = files.iter().map(|(path, text)| (path.clone(), text.clone().into_bytes())).collect();
        Pack::read(files).map(Arc::new).map_err(|found| {
            note(&printable(&render_all(&found)));
            Problem::new(Exit::Rejected, "spec.invalid", format!("the skill `{id}` cannot be used by this build"))
        })
    };
    skills.iter().map(pack).collect()
}

/// The hashes of a program's agents, by the key of their machine and their names.
#[must_use]
pub(crate) fn agents(program: &Program) -> BTreeMap<Name, BTreeMap<Name, Digest>> {
    let with = program.machines.iter().filter(|(_, machine)| !machine.agents.is_empty());
    with.map(|(key, machine)| {
        let agents = machine.agents.iter().map(|(name, agent)| (name.clone(), agent.hash));
        (key.clone(), agents.collect())
    })
    .collect()
}

/// What a person is told of a version that cannot be published, found or pointed at.
pub(crate) fn problem(error: VersionError) -> Problem {
    let text = error.to_string();
    match error {
        VersionError::Store(error) => error.into(),
        VersionError::Name(_) => Problem::invalid(text).hint("for example `triage`, `billing.refunds` or `desk-2`"),
        VersionError::Text { .. } => Problem::invalid(text),
        VersionError::Nobody => Problem::invalid(text).hint("`--by NAME` says who"),
        VersionError::TooLarge { .. } => Problem::new(Exit::Invalid, Code::RunTooLarge.as_str(), text)
            .hint("move large texts out of the documents, or publish parts of it as skills"),
        VersionError::Unknown(name) => Problem::new(Exit::Rejected, "cli.not_found", text).hint(format!(
            "`windlass versions list` shows the names in this store, `windlass versions publish {name} MACHINE` makes one; a file \
             is written `./{name}@`"
        )),
        VersionError::NoVersion { name, .. } => Problem::new(Exit::Rejected, "cli.not_found", text)
            .hint(format!("windlass versions list {name}")),
        VersionError::First(name) => {
            Problem::rejected(text).hint(format!("`windlass versions list {name}` shows its versions, `--to` names one"))
        }
        VersionError::Moved(name) => Problem::new(Exit::Rejected, Code::StoreConflict.as_str(), text)
            .hint(format!("look where it points, `windlass versions show {name}`, and try again")),
        VersionError::Damaged(_) => Problem::new(Exit::Unreachable, Code::StoreCorrupt.as_str(), text)
            .hint("publish the machine again, or restore a copy made by `windlass store backup`"),
        VersionError::Contended(_) | VersionError::Unfit(..) => Problem::rejected(text),
    }
}

/// Publishes a machine.
async fn publish(app: &App, args: args::VersionsPublish) -> Result<Exit, Problem> {
    let folder = documents::folder(app, &args.machine);
    let catalog = session::wiring(app, &folder).catalog().map_err(session::setting)?;
    // Whoever runs it has the documents only.
    let options = LoadOptions { refuse_inline_keys: true, ..documents::options(app, &catalog, false) };
    let loaded = documents::shown(app, &args.machine, &options)?.loaded;
    let entry = loaded.program.machines.get(&loaded.program.entry);
    let publication = Publication {
        name: args.name.as_str().into(),
        sources: Sources::of(&loaded.bundle),
        machine: entry.map(|machine| machine.name.clone()).unwrap_or_default(),
        agents: agents(&loaded.program),
        note: args.note.as_str().into(),
        by: args.by.as_str().into(),
        at: app.now(),
    };
    let published = Versions::new(app.store().await?).publish(publication).await.map_err(problem)?;
    let (version, is_new) = match &published {
        Published::New(version) => (version, true),
        Published::Same(version) => (version, false),
    };
    let mut document = entry_of(version);
    document["published"] = is_new.into();
    let text = match is_new {
        true => format!("{} is published, and `{}@` means it", version.id(), version.name),
        false => format!("nothing to publish: `{}@` means {}, which has this content", version.name, version.id()),
    };
    app.output.sentence(&document, &text);
    Ok(Exit::Ok)
}

/// A version without its documents.
fn entry_of(version: &Version) -> Json {
    json!({
        "id": version.id(),
        "name": &*version.name,
        "number": version.number,
        "sources": version.sources,
        "machine": &*version.machine,
        "agents": version.agents,
        "note": &*version.note,
        "by": &*version.by,
        "at": time(version.at),
    })
}

fn pointer_of(pointer: &Pointer) -> Json {
    json!({
        "name": &*pointer.name,
        "current": pointer.current,
        "latest": pointer.latest,
        "by": &*pointer.by,
        "at": time(pointer.at),
    })
}

/// Lists names, or the versions of one.
async fn list(app: &App, args: args::VersionsList) -> Result<Exit, Problem> {
    let limit = args.limit as usize;
    let store = app.store_to_list().await?;
    if let Some(name) = &args.name {
        let below = args.cursor.as_deref().map(number).transpose()?;
        return list_of(app, store, (self::name(name)?, below), limit).await;
    }
    let (mut names, mut next) = (Vec::new(), None);
    if let Some(store) = store {
        let page = Versions::new(store).names(args.cursor.as_deref().map(Into::into), limit).await.map_err(problem)?;
        next = page.found.last().filter(|_| page.more).map(|last| last.name.to_string());
        names = page.found;
    }
    let row = |pointer: &Pointer| {
        vec![
            pointer.name.to_string(),
            pointer.current.to_string(),
            pointer.latest.to_string(),
            pointer.by.to_string(),
            time(pointer.at),
        ]
    };
    let value = json!({ "names": names.iter().map(pointer_of).collect::<Vec<_>>(), "next": next });
    let rows: Vec<Vec<String>> = names.iter().map(row).collect();
    app.output.table(&value, &["name", "current", "latest", "moved by", "at"], &rows);
    more(app, next.as_deref());
    Ok(Exit::Ok)
}

async fn list_of(
    app: &App,
    store: Option<Arc<dyn Store>>,
    (name, below): (&str, Option<u64>),
    limit: usize,
) -> Result<Exit, Problem> {
    let store = store.ok_or_else(|| problem(VersionError::Unknown(name.into())))?;
    let (pointer, page) = Versions::new(store).of_name(name, below, limit).await.map_err(problem)?;
    let next = page.found.last().filter(|_| page.more).map(|last| last.number.to_string());
    let row = |version: &Version| {
        let mark = if version.number == pointer.current { "current" } else { "" };
        let note = version.note.lines().next().unwrap_or_default().to_owned();
        vec![
            version.id(),
            mark.to_owned(),
            version.sources.short(),
            version.by.to_string(),
            time(version.at),
            printable(&note),
        ]
    };
    let rows: Vec<Vec<String>> = page.found.iter().map(row).collect();
    let mut value = pointer_of(&pointer);
    value["versions"] = page.found.iter().map(entry_of).collect();
    value["next"] = json!(next);
    app.output.table(&value, &["version", "", "sources", "by", "at", "note"], &rows);
    more(app, next.as_deref());
    Ok(Exit::Ok)
}

fn more(app: &App, next: Option<&str>) {
    if let (Form::Text, Some(next)) = (app.output.form(), next) {
        app.output.note(&format!("more: --cursor {next}"));
    }
}

fn number(text: &str) -> Result<u64, Problem> {
    text.parse().map_err(|_| Problem::invalid(format!("`--cursor`: `{text}` is no number of a version")))
}

/// Shows a version.
async fn show(app: &App, args: &args::VersionsShow) -> Result<Exit, Problem> {
    let reference = reference(&args.version)?;
    let store = app.store_to_read().await?.ok_or_else(|| problem(VersionError::Unknown(reference.name.clone())))?;
    let versions = Versions::new(store);
    let version = versions.find(&reference).await.map_err(problem)?;
    let sources = versions.sources(&version).await.map_err(problem)?;
    let files = texts(&sources);
    if let Some(path) = &args.file {
        let text = files.get(path).ok_or_else(|| {
            let known: Vec<&str> = files.keys().map(String::as_str).collect();
            Problem::new(Exit::Rejected, "cli.not_found", format!("{} has no document `{path}`", version.id()))
                .hint(format!("one of {}", known.join(", ")))
        })?;
        match app.output.form() {
            Form::Json => {
                app.output.document(&json!({ "path": path, "hash": Digest::of(text.as_bytes()), "text": text }))
            }
            Form::Text => app.output.text(text),
        }
        return Ok(Exit::Ok);
    }
    let pointer = versions.pointer(&version.name).await.map_err(problem)?;
    let is_current = pointer.current == version.number;
    if app.output.form() == Form::Json {
        let mut value = entry_of(&version);
        value["current"] = is_current.into();
        value["latest"] = pointer.latest.into();
        value["entry"] = sources.entry.as_str().into();
        let told = |text: &str| json!({ "hash": Digest::of(text.as_bytes()), "bytes": text.len(), "text": text });
        value["files"] =
            files.iter().map(|(path, text)| (path.clone(), told(text))).collect::<serde_json::Map<_, _>>().into();
        app.output.document(&value);
        return Ok(Exit::Ok);
    }
    let pair = |name: &str, value: String| vec![name.to_owned(), printable(&value)];
    let means = if is_current { "it".to_owned() } else { format!("{}@{}", pointer.name, pointer.current) };
    let mut rows = vec![
        pair("version", version.id()),
        pair(&format!("{}@", version.name), format!("means {means}")),
        pair("machine", version.machine.to_string()),
        pair("sources", version.sources.to_string()),
        pair("published", format!("{} by {}", time(version.at), version.by)),
        pair("note", version.note.to_string()),
    ];
    rows.retain(|row| !row[1].is_empty());
    for (machine, agents) in &version.agents {
        rows.extend(agents.iter().map(|(agent, hash)| pair("agent", format!("{agent}@{} of {machine}", hash.short()))));
    }
    let document = |(path, text): (&String, &String)| {
        pair("document", format!("{path} {} ({} bytes)", Digest::of(text.as_bytes()).short(), text.len()))
    };
    rows.extend(files.iter().map(document));
    app.output.text(&crate::output::table(&["", ""], &rows));
    Ok(Exit::Ok)
}

/// All texts of sources by their paths, those of skills under `skill:NAME@VERSION/`.
fn texts(sources: &Sources) -> BTreeMap<String, String> {
    let mut all = sources.files.clone();
    for (id, files) in &sources.skills {
        all.extend(files.iter().map(|(path, text)| (format!("skill:{id}/{path}"), text.clone())));
    }
    all
}

fn reference(text: &str) -> Result<Reference, Problem> {
    let whole = if text.contains('@') { text.to_owned() } else { format!("{text}@") };
    Reference::parse(&whole).ok_or_else(|| {
        Problem::invalid(format!("`{text}` names no version")).hint("write `NAME`, `NAME@` or `NAME@NUMBER`")
    })
}

/// Moves a name.
async fn rollback(app: &App, args: &args::VersionsRollback) -> Result<Exit, Problem> {
    let name = name(&args.name)?;
    let store = app.store_to_change().await?.ok_or_else(|| problem(VersionError::Unknown(name.into())))?;
    let versions = Versions::new(store);
    let (from, pointer) = versions.rollback(name, args.to, &args.by, app.now()).await.map_err(problem)?;
    let mut document = pointer_of(&pointer);
    document["from"] = from.into();
    document["moved"] = (from != pointer.current).into();
    let Pointer { name, current, .. } = &pointer;
    let text = match from == *current {
        true => format!("{name}@ means {name}@{current} already"),
        false => format!("{name}@ means {name}@{current}, and not {name}@{from}; runs in flight stay as they are"),
    };
    app.output.sentence(&document, &text);
    Ok(Exit::Ok)
}

/// The number that a name points at, for the trail; none where nothing is published under it.
pub(super) async fn current(store: &Arc<dyn Store>, name: &str) -> Result<Option<u64>, Problem> {
    match Versions::new(Arc::clone(store)).pointer(name).await {
        Ok(pointer) => Ok(Some(pointer.current)),
        Err(VersionError::Unknown(_)) => Ok(None),
        Err(error) => Err(problem(error)),
    }
}
