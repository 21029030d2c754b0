//! Machine documents for a command: read from disk, checked, with what the validator said shown to the person.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use windlass_ports::tool::Catalog;
use windlass_spec::diagnostics::{Diagnostic, Severity, render_all};
use windlass_spec::source::DirFiles;
use windlass_spec::{LoadOptions, Loaded, load, skill_names};

use crate::app::App;
use crate::commands::skills;
use crate::exit::{Exit, Problem};
use crate::output;
use crate::session;

/// What the validator is told about the configuration.
#[must_use]
pub(crate) fn options(app: &App, catalog: &Catalog, strict: bool) -> LoadOptions {
    let documents = &app.loaded.config.documents;
    LoadOptions {
        hooks: windlass::wire::hook_events(catalog),
        tools: windlass::wire::contracts(catalog),
        strict: strict || documents.strict,
        refuse_inline_keys: !documents.inline_keys,
        // A catalog that cannot be read is reported by whoever calls models by it.
        models: session::wiring(app, Path::new("")).model_names().ok().flatten(),
        skills: Vec::new(),
    }
}

/// Reads a machine and everything it refers to, with the skills that it uses.
///
/// # Errors
/// The skills cannot be looked for. Inside: everything that is wrong with the documents.
pub(crate) fn read(app: &App, path: &Path, options: &LoadOptions) -> Result<Result<Loaded, Vec<Diagnostic>>, Problem> {
    let (files, entry) = DirFiles::of_entry(path);
    let first = load(&files, &entry, options);
    // A machine that uses skills cannot be read without them.
    if first.is_ok() || skill_names(&files, &entry, options).is_empty() {
        return Ok(first);
    }
    let mut options = options.clone();
    let mut known = BTreeSet::new();
    loop {
        let names: BTreeSet<String> = skill_names(&files, &entry, &options).difference(&known).cloned().collect();
        if names.is_empty() {
            return Ok(load(&files, &entry, &options));
        }
        options.skills.extend(skills::named(app, &names)?.into_iter().map(Arc::new));
        known.extend(names);
    }
}

/// Reads a machine that is to be run, and shows warnings.
///
/// # Errors
/// A document that is not valid; what is wrong has been shown.
pub(crate) fn read_to_run(app: &App, path: &Path, catalog: &Catalog) -> Result<Loaded, Problem> {
    match read(app, path, &options(app, catalog, false))? {
        Ok(loaded) => {
            for warning in &loaded.diagnostics {
                app.output.note(&output::printable(&warning.render()));
            }
            Ok(loaded)
        }
        Err(found) => {
            output::note(&output::printable(&render_all(&found)));
            Err(refused(path, &found))
        }
    }
}

/// The problem of a document that is not valid.
#[must_use]
pub(crate) fn refused(path: &Path, found: &[Diagnostic]) -> Problem {
    let errors = found.iter().filter(|d| d.severity == Severity::Error).count() as u64;
    let errors = crate::story::counted(errors, "error");
    Problem::new(Exit::Invalid, "spec.invalid", format!("`{}` is not valid: {errors}", path.display()))
        .detail("diagnostics", serde_json::to_value(found).unwrap_or_default())
}
