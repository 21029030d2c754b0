//! `windlass secrets`: the operator's own secrets. Values come in by stdin, a file or the environment, and never go out.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value as Json, json};
use windlass::secrets::{SCHEME, SecretsError, VALUE_BYTES_MAX};
use windlass_core::limits::DOCUMENT_BYTES_MAX;
use windlass_core::redact;
use windlass_policy::redact::SECRET_BYTES_MIN;

use crate::app::App;
use crate::args::{Given, SecretsList, SecretsRemove, SecretsRotate, SecretsSet};
use crate::exit::{Exit, Problem};
use crate::output::{printable, time};
use crate::session;

/// Folders below that of the configuration in which documents are looked for.
const DEPTH_MAX: usize = 6;
/// Documents that are looked through.
const DOCUMENTS_MAX: usize = 5_000;

/// Sets a secret that is not there yet.
pub(crate) fn set(app: &App, args: &SecretsSet) -> Result<Exit, Problem> {
    let file = session::secrets(app);
    if file.list(app.now()).map_err(problem)?.iter().any(|secret| secret.name == args.name) {
        return Err(Problem::rejected(format!("the secret `{}` is there already", args.name))
            .hint("`windlass secrets rotate` gives it another value"));
    }
    let value = value(&args.given)?;
    let version = file.set(&args.name, &value, app.now(), 0).map_err(problem)?;
    warn_short(app, &value);
    told(app, &args.name, version, "is set; the configuration names it as `secret:NAME`");
    Ok(Exit::Ok)
}

/// Gives a secret another value.
pub(crate) fn rotate(app: &App, args: &SecretsRotate) -> Result<Exit, Problem> {
    let file = session::secrets(app);
    if !file.list(app.now()).map_err(problem)?.iter().any(|secret| secret.name == args.name) {
        return Err(Problem::not_found(format!("there is no secret `{}`", args.name)).hint("`windlass secrets set`"));
    }
    let version = match args.back {
        true => file.restore(&args.name, app.now(), args.grace.0),
        false => {
            let value = value(&args.given)?;
            let version = file.set(&args.name, &value, app.now(), args.grace.0);
            warn_short(app, &value);
            version
        }
    };
    let version = version.map_err(problem)?;
    told(app, &args.name, version, "has another value; workers that run take it up with their next call");
    Ok(Exit::Ok)
}

/// Removes a secret.
pub(crate) fn remove(app: &App, args: &SecretsRemove) -> Result<Exit, Problem> {
    session::secrets(app).remove(&args.name, args.previous, app.now()).map_err(problem)?;
    let what = if args.previous { "the value before the present one" } else { "the secret" };
    let document = json!({ "name": args.name, "removed": true, "previous": args.previous });
    app.output.sentence(&document, &printable(&format!("{what} of `{}` is removed", args.name)));
    Ok(Exit::Ok)
}

/// Says that a value is too short to be told apart from other text.
fn warn_short(app: &App, value: &SecretString) {
    if value.expose_secret().trim().len() < SECRET_BYTES_MIN {
        app.output.note(&format!(
            "warning: a secret of less than {SECRET_BYTES_MIN} bytes is not looked for in what tools, hooks and models send back"
        ));
    }
}

fn told(app: &App, name: &str, version: u64, what: &str) {
    let document = json!({ "name": name, "version": version });
    app.output.sentence(&document, &printable(&format!("`{name}` {what} (version {version})")));
}

/// Lists secrets and what uses them.
pub(crate) fn list(app: &App, args: &SecretsList) -> Result<Exit, Problem> {
    let file = session::secrets(app);
    file.forget(app.now()).map_err(problem)?;
    // What a command tells goes before what the file has under the same name.
    let kept: Vec<_> = file.list(app.now()).map_err(problem)?;
    let kept: Vec<_> = kept.into_iter().filter(|secret| !file.is_asked(&secret.name)).collect();
    let mut users = users(app);
    for name in file.asked() {
        users.entry(format!("{SCHEME}{name}")).or_default();
    }
    let mut exit = Exit::Ok;
    let mut rows = Vec::new();
    let mut documents = Vec::new();
    let named: BTreeSet<String> = kept.iter().map(|secret| format!("{SCHEME}{}", secret.name)).collect();
    for reference in named.iter().chain(users.keys().filter(|reference| !named.contains(*reference))) {
        let found = kept.iter().find(|secret| reference.strip_prefix(SCHEME) == Some(&secret.name));
        let used_by = users.get(reference).cloned().unwrap_or_default();
        let asked = reference.strip_prefix(SCHEME).filter(|name| file.is_asked(name));
        let (state, why) = match asked.map(|name| args.check.then(|| file.ask(name))) {
            Some(None) => ("asked", None),
            Some(Some(Ok(()))) => ("told", None),
            Some(Some(Err(why))) => ("not told", Some(why)),
            None if found.is_some() || is_there(app, reference) => ("set", None),
            None => ("missing", None),
        };
        let source = if asked.is_some() { "command" } else { source(reference) };
        let mut document = json!({ "reference": reference, "source": source, "state": state, "used_by": used_by });
        if let Some(why) = why {
            app.output.note(&printable(&format!("`{reference}`: {why}")));
            document["why"] = json!(why);
            exit = Exit::Failed;
        }
        if let Some(secret) = found {
            document["version"] = json!(secret.version);
            document["set_at"] = json!(time(secret.set_at));
            document["previous_until"] = secret.previous_until.map_or(Json::Null, |until| json!(time(until)));
        }
        documents.push(document);
        rows.push(vec![
            printable(reference),
            state.to_owned(),
            found.map(|secret| secret.version.to_string()).unwrap_or_default(),
            found.map(|secret| time(secret.set_at)).unwrap_or_default(),
            found.and_then(|secret| secret.previous_until).map(time).unwrap_or_default(),
            printable(&used_by.join(", ")),
        ]);
    }
    let document = json!({ "file": file.path(), "secrets": documents });
    app.output.table(&document, &["secret", "is", "version", "set", "previous until", "used by"], &rows);
    Ok(exit)
}

/// Where the value of a reference is.
fn source(reference: &str) -> &'static str {
    match reference.split_once(':') {
        Some(("env", _)) => "environment",
        Some(("file", _)) => "file",
        _ => "store",
    }
}

fn is_there(app: &App, reference: &str) -> bool {
    match reference.split_once(':') {
        Some(("env", name)) => std::env::var_os(name).is_some_and(|value| !value.is_empty()),
        Some(("file", path)) => app.loaded.folder.join(path).is_file(),
        _ => false,
    }
}

/// What names which secret: keys of the configuration and documents.
fn users(app: &App) -> BTreeMap<String, Vec<String>> {
    let mut users = BTreeMap::new();
    let config = serde_json::to_value(&app.loaded.config).unwrap_or_default();
    in_config(&config, "", &mut users);
    let mut left = DOCUMENTS_MAX;
    in_documents(&app.loaded.folder, &app.loaded.folder, DEPTH_MAX, &mut left, &mut users);
    users
}

fn in_config(value: &Json, key: &str, users: &mut BTreeMap<String, Vec<String>>) {
    // Arguments of commands are theirs.
    if key == "secrets.commands" {
        return;
    }
    let below = |part: &str| if key.is_empty() { part.to_owned() } else { format!("{key}.{part}") };
    match value {
        Json::Object(map) => map.iter().for_each(|(part, value)| in_config(value, &below(part), users)),
        Json::Array(items) => items.iter().for_each(|item| in_config(item, key, users)),
        Json::String(text) => {
            // A provider names the variable, the file or the secret alone.
            let reference = match key.rsplit('.').next() {
                Some("key_env") => format!("env:{text}"),
                Some("key_file") => format!("file:{text}"),
                Some("key_secret") => format!("{SCHEME}{text}"),
                _ => text.clone(),
            };
            let names = ["env:", "file:", SCHEME].iter().any(|scheme| reference.starts_with(scheme));
            if names && redact::is_reference(&reference) {
                users.entry(reference).or_default().push(key.to_owned());
            }
        }
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}

fn in_documents(root: &Path, folder: &Path, depth: usize, left: &mut usize, users: &mut BTreeMap<String, Vec<String>>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let is_link = path.is_symlink();
        if name.starts_with('.') || is_link || matches!(name.as_str(), "target" | "node_modules") {
            continue;
        }
        if path.is_dir() {
            if depth > 0 {
                in_documents(root, &path, depth - 1, left, users);
            }
            continue;
        }
        let is_document =
            path.extension().is_some_and(|ending| ending == "yml" || ending == "yaml" || ending == "json");
        let is_small = path.metadata().is_ok_and(|meta| meta.len() <= DOCUMENT_BYTES_MAX as u64);
        if !is_document || !is_small || *left == 0 {
            continue;
        }
        *left -= 1;
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        for reference in references(&text) {
            let of = users.entry(reference).or_default();
            if !of.contains(&shown) {
                of.push(shown.clone());
            }
        }
    }
}

/// `secret:NAME` and `env:NAME` where they stand as values in a document.
fn references(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for scheme in ["env:", SCHEME] {
        for (at, _) in text.match_indices(scheme) {
            let before = text[..at].chars().next_back();
            let fits = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            let name: String = text[at + scheme.len()..].chars().take_while(fits).collect();
            if before.is_some_and(|c| c.is_whitespace() || c == '"' || c == '\'') && !name.is_empty() {
                found.push(format!("{scheme}{name}"));
            }
        }
    }
    found
}

/// The value, from where it was said to be.
fn value(given: &Given) -> Result<SecretString, Problem> {
    let too_large = || Problem::invalid(format!("a secret has at most {VALUE_BYTES_MAX} bytes"));
    let read = |reader: &mut dyn Read, from: &str| {
        let mut text = String::new();
        reader
            .take(VALUE_BYTES_MAX + 2)
            .read_to_string(&mut text)
            .map_err(|error| Problem::invalid(format!("cannot read the value from {from}: {error}")))?;
        if text.len() as u64 > VALUE_BYTES_MAX + 1 { Err(too_large()) } else { Ok(text) }
    };
    let text = match (&given.file, &given.from_env) {
        (Some(path), _) => {
            let from = format!("`{}`", path.display());
            let mut file = std::fs::File::open(path)
                .map_err(|error| Problem::invalid(format!("cannot read the value from {from}: {error}")))?;
            read(&mut file, &from)?
        }
        (None, Some(name)) => std::env::var(name)
            .map_err(|_| Problem::invalid(format!("the environment variable `{name}` is not set, or is no text")))?,
        (None, None) if std::io::stdin().is_terminal() => {
            return Err(Problem::invalid("a value that is typed here would be seen")
                .hint("pipe it: `pass show NAME | windlass secrets set NAME`; or `--file`, `--from-env`"));
        }
        (None, None) => read(&mut std::io::stdin().lock(), "stdin")?,
    };
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).into())
}

pub(super) fn problem(error: SecretsError) -> Problem {
    let problem = Problem::invalid(error.to_string());
    match error {
        SecretsError::Exposed { path, .. } => problem.hint(format!("chmod 600 {}", path.display())),
        SecretsError::Key { path, why } => {
            Problem::new(Exit::Rejected, "cli.key", SecretsError::Key { path, why }.to_string())
                .hint("docs/encryption.md says how keys are configured and replaced")
        }
        SecretsError::Malformed { .. } | SecretsError::Io { .. } | SecretsError::Unfit(_) => problem,
    }
}
