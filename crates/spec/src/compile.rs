//! Loading and compiling: from an entry document to a bundle and a program, and from a stored bundle to a program.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use secrecy::SecretString;
use windlass_core::contract::Contract;
use windlass_core::eval::Evaluator;
use windlass_core::ids::Name;
use windlass_core::machine::{HookKind, Program};
use windlass_ports::compile::{Bundle, CompileError, Compiler};

use crate::diagnostics::{Diagnostic, Rule, Severity};
use crate::documents::Documents;
use crate::eval::Engine;
use crate::lower::{Lowered, Surroundings, lower};
use crate::skill::{MANIFEST, Pack, WithPacks, pack_of};
use crate::source::{Files, MemoryFiles};

/// What a load needs to know beside the documents.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Configured hooks: name to the events it takes part in. `*` catches names that are not configured.
    pub hooks: BTreeMap<String, Vec<HookKind>>,
    /// Contracts of configured tools and actions.
    pub tools: Vec<Contract>,
    /// Whether warnings are errors. A machine may ask for it too, by `settings.strict`.
    pub strict: bool,
    /// Whether a key written into a document is an error.
    pub refuse_inline_keys: bool,
    /// What the model catalog has, so that a name it does not have is an error; none to leave names unchecked.
    pub models: Option<ModelNames>,
    /// The packs of skills that documents may mean.
    pub skills: Vec<Arc<Pack>>,
}

/// The names that documents may use of the model catalog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelNames {
    /// Its models, for `provider: catalog`.
    pub models: Vec<String>,
    /// Its chains, for `provider: chain`.
    pub chains: Vec<String>,
}

impl ModelNames {
    /// The names behind a provider; none for a provider that is not the catalog.
    pub(crate) fn behind(&self, provider: &str) -> Option<&[String]> {
        match provider {
            "catalog" => Some(&self.models),
            "chain" => Some(&self.chains),
            _ => None,
        }
    }
}

/// A machine that is ready to run.
#[derive(Debug)]
pub struct Loaded {
    /// What a run is pinned to: every document that was read, without keys.
    pub bundle: Bundle,
    /// The bundle compiled.
    pub program: Arc<Program>,
    /// Warnings.
    pub diagnostics: Vec<Diagnostic>,
    /// Keys that were written into documents, by the references that stand for them now.
    pub secrets: BTreeMap<String, SecretString>,
}

/// Reads `entry` and everything it refers to.
///
/// # Errors
/// Everything that is wrong with the documents, warnings included.
pub fn load(files: &dyn Files, entry: &str, options: &LoadOptions) -> Result<Loaded, Vec<Diagnostic>> {
    let files = WithPacks { files, packs: &options.skills };
    let mut docs = Documents::new(&files, options.refuse_inline_keys);
    let around = surroundings(&options.hooks, &options.tools, options.models.clone(), &options.skills);
    let mut lowered = lower(&mut docs, entry, &around);
    std::mem::take(&mut lowered.unbounded).into_iter().for_each(|part| part.report(&mut docs.sink));
    let strict = options.strict || lowered.strict;
    let stored = docs.store();
    let diagnostics = docs.sink.finish(strict);
    if diagnostics.iter().any(|d| d.severity == Severity::Error) {
        return Err(diagnostics);
    }
    let bundle = Bundle {
        entry: entry.to_owned(),
        files: stored.texts.into_iter().filter(|(path, _)| pack_of(path).is_none()).collect(),
        hooks: options.hooks.clone(),
        tools: options.tools.clone(),
        strict: options.strict,
        skills: lowered.packs.iter().map(|(id, pack)| (id.clone(), pack.files().clone())).collect(),
    };
    let program = program(&bundle, lowered);
    Ok(Loaded { bundle, program: Arc::new(program), diagnostics, secrets: stored.secrets })
}

/// The names of the skills that the documents from `entry` on use, as far as the packs of `options` show.
#[must_use]
pub fn skill_names(files: &dyn Files, entry: &str, options: &LoadOptions) -> BTreeSet<String> {
    let files = WithPacks { files, packs: &options.skills };
    let around = surroundings(&options.hooks, &options.tools, options.models.clone(), &options.skills);
    lower(&mut Documents::new(&files, false), entry, &around).skill_names
}

/// What is wrong with a skill as a machine would use it under this configuration. Models are the user's part: profiles that
/// the pack does not have itself are not looked for.
#[must_use]
pub fn check_skill(pack: &Arc<Pack>, options: &LoadOptions) -> Vec<Diagnostic> {
    let mut options = options.clone();
    options.skills.retain(|other| other.id() != pack.id());
    options.skills.push(Arc::clone(pack));
    let wanted = format!("{}@={}", pack.name, pack.version);
    let (uses, body) = match pack.machine {
        Some(_) => (format!("machines: {{it: \"{wanted}\"}}"), "machine: it, "),
        None => (format!("search: [\"{wanted}\"]"), ""),
    };
    let writes = pack.tools.iter().map(|tool| format!("{:?}", &**tool)).collect::<Vec<_>>().join(", ");
    let text = format!(
        "spec: flatmachine\nspec_version: \"4.2.1\"\ndata:\n  name: check\n  settings: {{skills: {{{uses}, writes: \
         [{writes}]}}}}\n  states:\n    start: {{type: initial, {body}transitions: [{{to: end}}]}}\n    end: {{type: final}}\n"
    );
    let found = match load(&MemoryFiles::new().with(USER, text), USER, &options) {
        Ok(loaded) => loaded.diagnostics,
        Err(found) => found,
    };
    found
        .into_iter()
        .filter(|finding| finding.code != Rule::UnknownProfile)
        .map(|finding| match finding.file == USER {
            // What is said of the use is said of the skill.
            true => Diagnostic {
                file: MANIFEST.into(),
                line: 1,
                column: 1,
                end_column: 1,
                excerpt: String::new(),
                ..finding
            },
            false => finding,
        })
        .collect()
}

/// The document that stands for a user of a skill that is checked.
const USER: &str = "user-of-the-skill.yml";

fn surroundings(
    hooks: &BTreeMap<String, Vec<HookKind>>,
    tools: &[Contract],
    models: Option<ModelNames>,
    packs: &[Arc<Pack>],
) -> Surroundings {
    Surroundings {
        models,
        hooks: hooks.clone(),
        tools: tools.iter().map(|contract| (contract.name.clone(), Arc::new(contract.bounded()))).collect(),
        packs: packs.to_vec(),
    }
}

fn program(bundle: &Bundle, lowered: Lowered) -> Program {
    let digest = bundle.digest();
    let machines: BTreeMap<Name, _> = lowered
        .machines
        .into_iter()
        .map(|(key, mut machine)| {
            machine.bundle = digest;
            (key, Arc::new(machine))
        })
        .collect();
    Program {
        bundle: digest,
        entry: bundle.entry.as_str().into(),
        machines,
        tools: bundle.tools.iter().map(|c| (c.name.clone(), Arc::new(c.bounded()))).collect(),
    }
}

/// Compiles a stored bundle.
///
/// # Errors
/// What this build finds wrong with it; it was valid for the build that stored it.
pub fn compile(bundle: &Bundle) -> Result<Arc<Program>, Vec<Diagnostic>> {
    let packs = bundle.skills.values().map(stored_pack).collect::<Result<Vec<_>, _>>()?;
    let files = WithPacks { files: &bundle.files, packs: &packs };
    let mut docs = Documents::stored(&files);
    let lowered = lower(&mut docs, &bundle.entry, &surroundings(&bundle.hooks, &bundle.tools, None, &packs));
    let failed = docs.sink.errors() > 0;
    let diagnostics = docs.sink.finish(false);
    if failed {
        return Err(diagnostics.into_iter().filter(|d| d.severity == Severity::Error).collect());
    }
    Ok(Arc::new(program(bundle, lowered)))
}

fn stored_pack(files: &BTreeMap<String, String>) -> Result<Arc<Pack>, Vec<Diagnostic>> {
    let files = files.iter().map(|(path, text)| (path.clone(), text.clone().into_bytes())).collect();
    Pack::read(files).map(Arc::new)
}

/// Compiles bundles for the runtime. Holds no programs: keeping them, by the bundle's hash, is the caller's part.
#[derive(Clone, Debug, Default)]
pub struct SpecCompiler {
    engine: Engine,
}

impl SpecCompiler {
    /// A compiler with an engine of default bounds.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Compiler for SpecCompiler {
    fn compile(&self, bundle: &Bundle) -> Result<Arc<Program>, CompileError> {
        compile(bundle).map_err(|found| CompileError {
            message: found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
        })
    }

    fn evaluator(&self) -> Arc<dyn Evaluator> {
        Arc::new(self.engine.clone())
    }
}
