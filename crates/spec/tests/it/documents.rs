//! Documents for tests, and short ways to load them.

use std::collections::BTreeMap;

use windlass_core::contract::Contract;
use windlass_core::machine::{HookKind, Machine};
use windlass_spec::diagnostics::{Diagnostic, Rule, Severity};
use windlass_spec::source::MemoryFiles;
use windlass_spec::{LoadOptions, Loaded, load};

/// A catalog with two profiles, the first one the default.
pub(crate) const PROFILES: &str = "
spec: flatprofile
spec_version: \"4.2\"
data:
  model_profiles:
    main: {provider: openai, name: small, temperature: 0.5}
    big: {name: anthropic/large, max_tokens: 99}
  default: main
";

/// Options under which any hook and the tool `lookup` exist.
pub(crate) fn options() -> LoadOptions {
    LoadOptions {
        hooks: BTreeMap::from([("*".to_owned(), HookKind::ALL.to_vec())]),
        tools: vec![Contract::undeclared("lookup")],
        ..LoadOptions::default()
    }
}

/// Options without hooks and tools.
pub(crate) fn bare() -> LoadOptions {
    LoadOptions::default()
}

/// A machine document with the given `data`, whose lines are indented by two blanks.
pub(crate) fn machine(data: &str) -> String {
    let indented: String = data.lines().map(|line| format!("  {line}\n")).collect();
    format!("spec: flatmachine\nspec_version: \"4.2\"\ndata:\n{indented}")
}

/// Documents beside `machine.yml`, with the catalog.
pub(crate) fn files(machine: &str, others: &[(&str, &str)]) -> MemoryFiles {
    let base = MemoryFiles::new().with("machine.yml", machine).with("profiles.yml", PROFILES);
    others.iter().fold(base, |files, (path, text)| files.with(path, *text))
}

pub(crate) fn load_with(text: &str, others: &[(&str, &str)], options: &LoadOptions) -> Result<Loaded, Vec<Diagnostic>> {
    load(&files(text, others), "machine.yml", options)
}

/// The entry machine of a document that loads.
pub(crate) fn lowered(text: &str) -> Machine {
    let loaded = load_with(text, &[], &options()).unwrap_or_else(|found| panic!("{}", shown(&found)));
    (**loaded.program.machines.get("machine.yml").expect("entry")).clone()
}

/// The findings of a document, loaded or not.
pub(crate) fn findings(text: &str, others: &[(&str, &str)], options: &LoadOptions) -> Vec<Diagnostic> {
    match load_with(text, others, options) {
        Ok(loaded) => loaded.diagnostics,
        Err(found) => found,
    }
}

/// The only error of a document: its rule, line and column.
pub(crate) fn only_error(text: &str, others: &[(&str, &str)]) -> (Rule, u32, u32) {
    let found = match load_with(text, others, &options()) {
        Ok(_) => panic!("loaded:\n{text}"),
        Err(found) => found,
    };
    let errors: Vec<&Diagnostic> = found.iter().filter(|d| d.severity == Severity::Error).collect();
    assert_eq!(errors.len(), 1, "{}", shown(&found));
    (errors[0].code, errors[0].line, errors[0].column)
}

pub(crate) fn shown(found: &[Diagnostic]) -> String {
    found.iter().map(|d| format!("{d}\n")).collect()
}
