//! Machine documents for a command: read from disk, checked, with what the validator said shown to the person.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use windlass_ports::tool::Catalog;
use windlass_runtime::versions::{Reference, Version};
use windlass_spec::diagnostics::{Diagnostic, Severity, render_all};
use windlass_spec::source::DirFiles;
use windlass_spec::{LoadOptions, Loaded, load, skill_names};

use crate::app::App;
use crate::commands::{skills, versions};
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

/// The published version that stands in the place of a machine document: `NAME@` or `NAME@NUMBER`. A file of such a name is
/// written with its folder, `./NAME@`.
#[must_use]
pub(crate) fn reference(path: &Path) -> Option<Reference> {
    Reference::parse(path.to_str()?)
}

/// The folder of a machine document; that of the configuration for a published version.
#[must_use]
pub(crate) fn folder(app: &App, path: &Path) -> PathBuf {
    match reference(path) {
        Some(_) => app.loaded.folder.clone(),
        None => path.parent().unwrap_or_else(|| Path::new("")).to_owned(),
    }
}

/// A machine as a command means it.
#[derive(Debug)]
pub(crate) struct Meant {
    /// Its documents.
    pub loaded: Loaded,
    /// The published version that they are; none for files.
    pub version: Option<Version>,
}

/// Reads a machine and everything it refers to, with the skills that it uses: from files, or as it was published.
///
/// # Errors
/// There is no such version, or the skills cannot be looked for. Inside: everything that is wrong with the documents.
pub(crate) fn read(app: &App, path: &Path, options: &LoadOptions) -> Result<Result<Loaded, Vec<Diagnostic>>, Problem> {
    Ok(meant(app, path, options)?.map(|meant| meant.loaded))
}

fn meant(app: &App, path: &Path, options: &LoadOptions) -> Result<Result<Meant, Vec<Diagnostic>>, Problem> {
    let Some(reference) = reference(path) else {
        return Ok(read_files(app, path, options)?.map(|loaded| Meant { loaded, version: None }));
    };
    let (version, sources) = looked_up(async || versions::published(app, &reference).await)?;
    let options = LoadOptions { skills: versions::packs(&sources.skills)?, ..options.clone() };
    let loaded = load(&sources.files, &sources.entry, &options);
    Ok(loaded.map(|loaded| Meant { loaded, version: Some(version) }))
}

/// Looks something up in the store for code that waits for nothing, inside of a runtime and outside of one: from a thread of
/// its own.
///
/// # Errors
/// What the looking says.
pub(crate) fn looked_up<T: Send>(look: impl AsyncFnOnce() -> Result<T, Problem> + Send) -> Result<T, Problem> {
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| Problem::bug(format!("cannot start a runtime: {error}")))?;
            runtime.block_on(look())
        });
        looking.join().unwrap_or_else(|_| Err(Problem::bug("looking into the store panicked")))
    })
}

fn read_files(app: &App, path: &Path, options: &LoadOptions) -> Result<Result<Loaded, Vec<Diagnostic>>, Problem> {
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
    Ok(meant_to_run(app, path, catalog)?.loaded)
}

/// The same with the published version that it is.
///
/// # Errors
/// As [`read_to_run`].
pub(crate) fn meant_to_run(app: &App, path: &Path, catalog: &Catalog) -> Result<Meant, Problem> {
    shown(app, path, &options(app, catalog, false))
}

/// The same under other options.
///
/// # Errors
/// As [`read_to_run`].
pub(crate) fn shown(app: &App, path: &Path, options: &LoadOptions) -> Result<Meant, Problem> {
    match meant(app, path, options)? {
        Ok(meant) => {
            for warning in &meant.loaded.diagnostics {
                app.output.note(&output::printable(&warning.render()));
            }
            Ok(meant)
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
