//! The document format as pages: the feature table, the golden path, the rules of the validator, and JSON Schemas.

use std::fmt::Write;

use serde_json::Value as Json;
use windlass_spec::diagnostics::Rule;
use windlass_spec::features::{Origin, Row, Tier, rows};
use windlass_spec::schema::{Kind, json_schema};

/// Generated pages, by path below `docs/`.
#[must_use]
pub(crate) fn pages() -> Vec<(String, String)> {
    let mut pages = vec![
        ("golden-path.md".to_owned(), golden_path()),
        ("reference/format.md".to_owned(), table()),
        ("schemas/events.schema.json".to_owned(), pretty(&windlass_runtime::events::schema())),
    ];
    for (name, schema) in schemas() {
        pages.push((format!("schemas/{name}.schema.json"), pretty(&schema)));
    }
    pages
}

/// JSON Schemas of the document kinds, by name.
#[must_use]
pub(crate) fn schemas() -> Vec<(&'static str, Json)> {
    Kind::ALL
        .into_iter()
        .map(|kind| {
            let name = match kind {
                Kind::Machine => "machine",
                Kind::Agent => "agent",
                Kind::Prompt => "prompt",
                Kind::Profile => "profile",
            };
            (name, json_schema(kind))
        })
        .collect()
}

/// The word for a tier.
#[must_use]
pub(crate) fn tier(tier: Tier) -> &'static str {
    match tier {
        Tier::Supported => "supported",
        Tier::Experimental => "experimental",
        Tier::Blocked => "blocked",
    }
}

/// The word for an origin.
#[must_use]
pub(crate) fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Format => "format",
        Origin::Legacy => "legacy",
        Origin::Compatibility => "compatibility",
        Origin::Windlass => "windlass",
    }
}

fn golden_path() -> String {
    let mut out = String::from(
        "# The golden path\n\n\
         What a machine may rely on. The lists are made from the table that the validator uses; a field that is in\n\
         neither list is refused when the document is read.\n\n",
    );
    out.push_str("## Supported\n\nWorks as described, with tests.\n\n");
    list(&mut out, |row| row.tier == Tier::Supported && row.origin != Origin::Legacy);
    out.push_str("## Accepted with a warning\n\nHas no effect yet, or may change; refused under `strict`.\n\n");
    list(&mut out, |row| row.tier == Tier::Experimental);
    out.push_str("## Out of scope\n\nRefused, with the reason.\n\n");
    list(&mut out, |row| row.tier == Tier::Blocked);
    out
}

fn list(out: &mut String, wanted: impl Fn(&Row) -> bool) {
    out.push_str("| field | what it does |\n|---|---|\n");
    for row in rows().iter().filter(|row| wanted(row)) {
        let _ = writeln!(out, "| `{}` | {} |", row.field, cell(row.about));
    }
    out.push('\n');
}

fn table() -> String {
    let mut out = String::from(
        "# Document format\n\n\
         Every field of FlatMachine 4.2 documents, and of earlier versions, with its tier. `windlass explain-schema`\n\
         prints the same table.\n\n\
         | field | tier | from | what it does |\n|---|---|---|---|\n",
    );
    for row in rows() {
        let _ =
            writeln!(out, "| `{}` | {} | {} | {} |", row.field, tier(row.tier), origin(row.origin), cell(row.about));
    }
    out.push_str("\n## Rules of the validator\n\n| code | what it finds |\n|---|---|\n");
    for rule in Rule::ALL {
        let _ = writeln!(out, "| `{}` | {} |", rule.as_str(), cell(rule.summary()));
    }
    out
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn pretty(json: &Json) -> String {
    serde_json::to_string_pretty(json).unwrap_or_default() + "\n"
}
