//! `windlass skills`: packs of skills, in the configured folders and registered in the store.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use windlass::skills::{Entry, Registry, RegistryError, in_folder};
use windlass::wire::Wiring;
use windlass_core::failure::Code;
use windlass_core::select;
use windlass_core::time::Timestamp;
use windlass_ports::store::Store;
use windlass_spec::check_skill;
use windlass_spec::diagnostics::{Diagnostic, Severity, render_all};
use windlass_spec::skill::{Pack, Wanted};

use crate::app::App;
use crate::args::{self, Skills};
use crate::documents;
use crate::exit::{Exit, Problem};
use crate::output::{Form, note, printable, time};
use crate::session;

/// Where a registered skill is.
const STORE: &str = "store";
/// Skills that are listed or found at once.
const LISTED_MAX: usize = 1_000;

/// Registers, lists, finds, shows, removes or checks skills.
pub(crate) async fn perform(app: &App, command: Skills) -> Result<Exit, Problem> {
    match command {
        Skills::Add(args) => add(app, &args).await,
        Skills::List(args) => list(app, &args).await,
        Skills::Search(args) => search(app, &args).await,
        Skills::Show(args) => show(app, &args).await,
        Skills::Remove(args) => remove(app, &args).await,
        Skills::Check(args) => check(app, &args).await,
    }
}

/// Every version of the skills of these names, of the configured folders and of the store.
///
/// # Errors
/// A pack that cannot be read, or a store that fails.
pub(crate) fn named(app: &App, names: &BTreeSet<String>) -> Result<Vec<Pack>, Problem> {
    let mut packs: Vec<Pack> = folders(app)?.into_iter().map(|(_, pack)| pack).collect();
    packs.retain(|pack| names.contains(&*pack.name));
    let registered = documents::looked_up(async || match readable(app).await? {
        Some(registry) => registry.packs(names).await.map_err(problem),
        None => Ok(Vec::new()),
    })?;
    // The same pack in both places is one.
    packs.extend(registered);
    packs.sort_by(|a, b| (&a.name, &a.version, a.digest).cmp(&(&b.name, &b.version, b.digest)));
    packs.dedup_by(|a, b| a.digest == b.digest);
    Ok(packs)
}

/// The registry, when there is a store; looking creates none.
async fn readable(app: &App) -> Result<Option<Registry>, Problem> {
    if app.store_url() == "memory:" {
        return Ok(None);
    }
    let store: Option<Arc<dyn Store>> = app.readable_store().await?;
    Ok(store.map(Registry::new))
}

/// The packs of the configured folders, with where each is.
fn folders(app: &App) -> Result<Vec<(String, Pack)>, Problem> {
    let mut packs = Vec::new();
    for path in &app.loaded.config.skills.paths {
        for (folder, found) in in_folder(&app.loaded.folder.join(path)).map_err(|why| unusable(&why))? {
            let shown = shown(app, &folder);
            packs.push((shown.clone(), found.map_err(|found| broken(&shown, &found))?));
        }
    }
    Ok(packs)
}

fn unusable(why: &str) -> Problem {
    Problem::new(Exit::Invalid, "cli.config", why).hint("`paths` under `[skills]` names folders with packs in them")
}

/// A folder as it is told: below that of the configuration without the beginning.
fn shown(app: &App, folder: &Path) -> String {
    folder.strip_prefix(&app.loaded.folder).unwrap_or(folder).display().to_string()
}

/// The problem of a pack that cannot be read; what is wrong is shown.
fn broken(folder: &str, found: &[Diagnostic]) -> Problem {
    note(&printable(&render_all(found)));
    let message = format!("the skill in `{folder}` cannot be used");
    Problem::new(Exit::Invalid, "spec.invalid", message)
        .detail("diagnostics", serde_json::to_value(found).unwrap_or_default())
        .hint("`windlass skills check` shows what is wrong with all of them")
}

fn problem(error: RegistryError) -> Problem {
    let message = error.to_string();
    match error {
        RegistryError::Store(error) => error.into(),
        RegistryError::Taken { .. } => {
            Problem::rejected(message).hint("a version never changes: give the pack a new `version` in its skill.yml")
        }
        RegistryError::Unknown(_) => Problem::rejected(message).hint("windlass skills list"),
        RegistryError::Changed(_) => Problem::new(Exit::Unreachable, Code::StoreCorrupt.as_str(), message)
            .hint("`windlass skills remove` it, and register it again from its folder"),
        RegistryError::Full => Problem::rejected(message).hint("`windlass skills remove` takes versions away"),
    }
}

/// Registers a pack.
async fn add(app: &App, args: &args::SkillsAdd) -> Result<Exit, Problem> {
    let shown = args.folder.display().to_string();
    let pack = Pack::folder(&args.folder).map_err(|found| broken(&shown, &found))?;
    if args.by.trim().is_empty() {
        return Err(Problem::invalid("a skill is registered by somebody: `--by NAME`"));
    }
    let is_new = Registry::new(app.store().await?).add(&pack, &args.by, app.now()).await.map_err(problem)?;
    let document =
        json!({"name": &*pack.name, "version": pack.version.to_string(), "digest": pack.digest, "added": is_new});
    let what = if is_new { "is registered" } else { "was registered before, with the same content" };
    app.output.sentence(&document, &printable(&format!("{} {what}; its digest is {}", pack.id(), pack.digest)));
    Ok(Exit::Ok)
}

/// One version of a skill, wherever it is.
#[derive(Debug)]
struct Listed {
    place: String,
    entry: Entry,
    pack: Option<Pack>,
}

impl Listed {
    fn of_folder(place: String, pack: Pack) -> Self {
        // Nobody registered it, and no time is shown.
        let entry = Entry::of(&pack, "", Timestamp::default());
        Self { place, entry, pack: Some(pack) }
    }

    fn id(&self) -> String {
        format!("{}@{}", self.entry.name, self.entry.version)
    }

    fn json(&self) -> Json {
        let mut value = serde_json::to_value(&self.entry).unwrap_or_default();
        value["place"] = json!(self.place);
        match self.pack {
            Some(_) => {
                for key in ["by", "at"] {
                    value.as_object_mut().map(|map| map.remove(key));
                }
            }
            None => value["at"] = json!(time(self.entry.at)),
        }
        value
    }

    fn row(&self) -> Vec<String> {
        let Entry { tools, machine, description, .. } = &self.entry;
        vec![
            self.id(),
            self.place.clone(),
            if *machine { "yes" } else { "-" }.to_owned(),
            if tools.is_empty() { "-".to_owned() } else { tools.join(", ") },
            description.to_string(),
        ]
    }
}

/// Every version that is known, in the order of names and versions.
async fn all(app: &App) -> Result<Vec<Listed>, Problem> {
    let mut listed: Vec<Listed> =
        folders(app)?.into_iter().map(|(place, pack)| Listed::of_folder(place, pack)).collect();
    if let Some(registry) = readable(app).await? {
        let entries = registry.all(None, windlass::skills::ENTRIES_MAX).await.map_err(problem)?;
        listed.extend(entries.into_iter().map(|entry| Listed { place: STORE.into(), entry, pack: None }));
    }
    listed.sort_by(|a, b| order(&a.entry).cmp(&order(&b.entry)).then_with(|| a.place.cmp(&b.place)));
    Ok(listed)
}

/// Versions in their order, and not as texts.
fn order(entry: &Entry) -> (&str, Option<semver::Version>) {
    (&entry.name, semver::Version::parse(&entry.version).ok())
}

/// Lists skills.
async fn list(app: &App, args: &args::SkillsList) -> Result<Exit, Problem> {
    let mut listed = all(app).await?;
    if let Some(after) = &args.after {
        let place = listed.iter().rposition(|one| one.id() == *after);
        let place = place.ok_or_else(|| Problem::not_found(format!("there is no skill `{after}`")))?;
        listed.drain(..=place);
    }
    let mut limit = args.limit.clamp(1, LISTED_MAX).min(listed.len());
    // One that is in a folder and registered stands on one page: `--after` names both.
    limit += listed
        .iter()
        .skip(limit)
        .take_while(|one| listed.get(limit - 1).is_some_and(|last| last.id() == one.id()))
        .count();
    let more = listed.len() - limit;
    listed.truncate(limit);
    let next = (more > 0).then(|| listed.last().map(Listed::id)).flatten();
    let value = json!({"skills": listed.iter().map(Listed::json).collect::<Vec<_>>(), "next": next});
    let rows: Vec<Vec<String>> = listed.iter().map(Listed::row).collect();
    app.output.table(&value, &["skill", "from", "machine", "tools", "for"], &rows);
    if let Some(next) = next {
        app.output.note(&printable(&format!("{more} more: `--after {next}`")));
    }
    Ok(Exit::Ok)
}

/// Finds skills: the highest version of each, ranked as agents find theirs.
async fn search(app: &App, args: &args::SkillsSearch) -> Result<Exit, Problem> {
    let mut highest: BTreeMap<String, Listed> = BTreeMap::new();
    for one in all(app).await? {
        highest.insert(one.entry.name.to_string(), one);
    }
    let tools: Vec<_> = highest.values().map(|one| as_tool(&one.entry)).collect();
    let found = select::rank(&tools, &args.words.join(" "), args.limit.clamp(1, LISTED_MAX));
    let found: Vec<&Listed> = found.into_iter().filter_map(|tool| highest.get(&*tool.name)).collect();
    let value = json!({"skills": found.iter().map(|one| one.json()).collect::<Vec<_>>()});
    let rows: Vec<Vec<String>> = found.iter().map(|one| one.row()).collect();
    app.output.table(&value, &["skill", "from", "machine", "tools", "for"], &rows);
    if found.is_empty() {
        app.output.note("no skill fits these words; `windlass skills list` shows all");
    }
    Ok(Exit::Ok)
}

fn as_tool(entry: &Entry) -> windlass_core::contract::Contract {
    use windlass_core::contract::{Class, Contract};
    let description = format!("{} {}", entry.description, entry.keywords.join(" "));
    Contract { description: description.into(), class: Class::Read, ..Contract::undeclared(&entry.name) }
}

/// Shows the highest version that fits.
async fn show(app: &App, args: &args::SkillsShow) -> Result<Exit, Problem> {
    let text = if args.skill.contains('@') { args.skill.clone() } else { format!("{}@*", args.skill) };
    let wanted = Wanted::parse(&text).map_err(|why| {
        Problem::invalid(format!("`{}` names no skill: {why}", args.skill)).hint("write `NAME` or `NAME@VERSION`")
    })?;
    let mut packs = named(app, &BTreeSet::from([wanted.name.to_string()]))?;
    packs.retain(|pack| wanted.requirement.matches(&pack.version) || text.ends_with("@*"));
    packs.retain(|pack| wanted.digest.is_none_or(|digest| digest == pack.digest));
    let Some(pack) = packs.iter().max_by(|a, b| a.version.cmp(&b.version)) else {
        return Err(Problem::not_found(format!("there is no skill `{}`", args.skill)).hint("windlass skills list"));
    };
    if packs.iter().any(|other| other.version == pack.version && other.digest != pack.digest) {
        let message = format!("there are two packs of `{}` with different contents", pack.id());
        return Err(Problem::rejected(message).hint("a version never changes: give what was changed a new version"));
    }
    if app.output.form() == Form::Json {
        app.output.document(&document(pack));
        return Ok(Exit::Ok);
    }
    let pair = |name: &str, value: String| vec![name.to_owned(), value];
    let mut rows = vec![
        pair("skill", pack.id()),
        pair("digest", pack.digest.to_string()),
        pair("for", pack.description.to_string()),
        pair("keywords", pack.keywords.join(", ")),
        pair("tools", pack.tools.join(", ")),
        pair("machine", pack.machine.as_deref().unwrap_or("-").to_owned()),
        pair("files", pack.files().keys().cloned().collect::<Vec<_>>().join(", ")),
        pair("use", format!("{}@^{}", pack.name, pack.version)),
    ];
    rows.retain(|row| !row[1].is_empty());
    app.output.text(&crate::output::table(&["", ""], &rows));
    if !pack.prompt.is_empty() {
        app.output.text(&printable(&format!("\n{}", pack.prompt)));
    }
    Ok(Exit::Ok)
}

fn document(pack: &Pack) -> Json {
    json!({
        "name": &*pack.name,
        "version": pack.version.to_string(),
        "digest": pack.digest,
        "description": &*pack.description,
        "keywords": pack.keywords,
        "tools": pack.tools,
        "machine": pack.machine,
        "input_schema": pack.input_schema,
        "output_schema": pack.output_schema,
        "prompt": &*pack.prompt,
        "files": pack.files(),
    })
}

/// Removes a version.
async fn remove(app: &App, args: &args::SkillsRemove) -> Result<Exit, Problem> {
    let Some(store) = app.store_to_change().await? else {
        return Err(problem(RegistryError::Unknown(args.skill.clone())));
    };
    let entry = Registry::new(store).remove(&args.skill, &args.by).await.map_err(problem)?;
    let document = json!({"name": &*entry.name, "version": &*entry.version, "digest": entry.digest, "removed": true});
    let sentence = format!("{} is removed; runs that use it go on", args.skill);
    app.output.sentence(&document, &printable(&sentence));
    Ok(Exit::Ok)
}

/// Checks packs as machines would use them.
async fn check(app: &App, args: &args::SkillsCheck) -> Result<Exit, Problem> {
    let wanted = match args.folders.is_empty() {
        true => app.loaded.config.skills.paths.iter().map(|path| app.loaded.folder.join(path)).collect(),
        false => args.folders.clone(),
    };
    let wiring = Wiring { needs_secrets: false, ..session::wiring(app, Path::new("")) };
    let catalog = wiring.catalog().map_err(session::setting)?;
    let mut options = documents::options(app, &catalog, false);
    let mut all = Vec::new();
    for folder in &wanted {
        all.extend(in_folder(folder).map_err(|why| unusable(&why))?);
    }
    options.skills = all.iter().filter_map(|(_, pack)| pack.as_ref().ok()).cloned().map(Arc::new).collect();
    if let Some(registry) = readable(app).await? {
        let here: BTreeSet<String> = options.skills.iter().map(|pack| pack.id()).collect();
        for entry in registry.all(None, windlass::skills::ENTRIES_MAX).await.map_err(problem)? {
            if !here.contains(&format!("{}@{}", entry.name, entry.version)) {
                options.skills.push(Arc::new(registry.pack(&entry).await.map_err(problem)?));
            }
        }
    }
    let mut documents = Vec::new();
    let mut errors = 0;
    for (folder, pack) in all {
        let shown = shown(app, &folder);
        let (id, found) = match pack {
            Ok(pack) => (Some(pack.id()), check_skill(&Arc::new(pack), &options)),
            Err(found) => (None, found),
        };
        let wrong = found.iter().filter(|finding| finding.severity == Severity::Error).count();
        errors += wrong;
        if !found.is_empty() && app.output.form() == Form::Text {
            note(&printable(&format!("{shown}:\n{}", render_all(&found))));
        }
        documents.push(json!({"folder": shown, "skill": id, "valid": wrong == 0, "diagnostics": found}));
    }
    let count = crate::story::counted(documents.len() as u64, "skill");
    let sentence = match errors {
        0 => format!("{count} valid"),
        errors => format!("{count}, {}", crate::story::counted(errors as u64, "error")),
    };
    app.output.sentence(&json!({"valid": errors == 0, "skills": documents}), &sentence);
    Ok(if errors > 0 { Exit::Invalid } else { Exit::Ok })
}
