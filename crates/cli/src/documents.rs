//! Machine documents for a command: read from disk, checked, with what the validator said shown to the person.

use std::path::Path;

use windlass_ports::tool::Catalog;
use windlass_spec::diagnostics::{Diagnostic, Severity, render_all};
use windlass_spec::source::DirFiles;
use windlass_spec::{LoadOptions, Loaded, load};

use crate::app::App;
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
    }
}

/// Reads a machine and everything it refers to.
///
/// # Errors
/// Everything that is wrong with the documents.
pub(crate) fn read(path: &Path, options: &LoadOptions) -> Result<Loaded, Vec<Diagnostic>> {
    let (files, entry) = DirFiles::of_entry(path);
    load(&files, &entry, options)
}

/// Reads a machine that is to be run, and shows warnings.
///
/// # Errors
/// A document that is not valid; what is wrong has been shown.
pub(crate) fn read_to_run(app: &App, path: &Path, catalog: &Catalog) -> Result<Loaded, Problem> {
    match read(path, &options(app, catalog, false)) {
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
