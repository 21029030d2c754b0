//! `windlass validate`: what is wrong with documents, without running them and without any call.

use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use windlass::wire::Wiring;
use windlass_spec::diagnostics::{Diagnostic, Severity, render_all};

use crate::app::App;
use crate::args;
use crate::documents;
use crate::exit::{Exit, Problem};
use crate::output::{self, Form};
use crate::session;

mod used;

/// Checks documents and everything they refer to.
///
/// # Errors
/// A path that does not exist.
pub(crate) fn validate(app: &App, args: &args::Validate) -> Result<Exit, Problem> {
    let mut entries = Vec::new();
    for path in &args.paths {
        if path.is_dir() {
            entries.extend(machines(path)?);
        } else if path.is_file() || documents::reference(path).is_some() {
            entries.push(path.clone());
        } else {
            return Err(Problem::invalid(format!("there is no file `{}`", path.display())));
        }
    }
    if entries.is_empty() {
        return Err(Problem::invalid("no machine document was found")
            .hint("machine documents are `.yml`, `.yaml` or `.json` files with `spec: flatmachine`"));
    }
    let mut files: Vec<Json> = Vec::new();
    let mut all: Vec<Diagnostic> = Vec::new();
    for path in &entries {
        let found = check(app, path, args.strict)?;
        files.push(json!({
            "path": path.display().to_string(),
            "valid": !found.iter().any(|d| d.severity == Severity::Error),
            "diagnostics": found,
        }));
        all.extend(found);
    }
    let errors = all.iter().filter(|d| d.severity == Severity::Error).count();
    if !all.is_empty() {
        output::note(&output::printable(&render_all(&all)));
    }
    match app.output.form() {
        Form::Json => app.output.document(&json!({
            "valid": errors == 0,
            "errors": errors,
            "warnings": all.len() - errors,
            "files": files,
            "diagnostics": all,
        })),
        Form::Text if errors == 0 => {
            app.output.text(&format!("{} valid", crate::story::counted(entries.len() as u64, "document")));
        }
        Form::Text => {}
    }
    Ok(if errors > 0 { Exit::Invalid } else { Exit::Ok })
}

/// Everything that is wrong with one document, under the configuration that applies to it.
fn check(app: &App, path: &Path, strict: bool) -> Result<Vec<Diagnostic>, Problem> {
    let app = app.beside(path)?;
    let wiring = Wiring { needs_secrets: false, ..session::wiring(&app, Path::new("")) };
    let catalog = wiring.catalog().map_err(session::setting)?;
    Ok(match documents::read(&app, path, &documents::options(&app, &catalog, strict))? {
        Ok(mut loaded) => {
            loaded.diagnostics.extend(used::models(&app, &wiring, &loaded, strict)?);
            loaded.diagnostics
        }
        Err(found) => found,
    })
}

/// The machine documents below a folder, in the order of their paths.
fn machines(folder: &Path) -> Result<Vec<PathBuf>, Problem> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder)
            .map_err(|error| Problem::invalid(format!("cannot read `{}`: {error}", folder.display())))?;
        for entry in entries.flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                // What is in a skill is checked with it: `windlass skills check`.
                let is_skill = path.join(windlass_spec::skill::MANIFEST).is_file();
                if !is_skill && !name.starts_with('.') && !matches!(&*name, "target" | "node_modules") {
                    folders.push(path);
                }
            } else if is_machine(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a file says of itself that it is a machine, at the left edge of a line or as a JSON member.
fn is_machine(path: &Path) -> bool {
    let is_document = path.extension().is_some_and(|ext| ext == "yml" || ext == "yaml" || ext == "json");
    is_document
        && std::fs::read_to_string(path).is_ok_and(|text| {
            text.lines().any(|line| {
                let line = line.trim_start_matches(['{', ' ']).replace(['"', '\'', ' ', ','], "");
                line.starts_with("spec:flatmachine")
            })
        })
}
