//! The document format as pages: the feature table, the golden path, the rules of the validator, and JSON Schemas.

use std::fmt::Write;

use serde_json::Value as Json;
use windlass_spec::diagnostics::Rule;
use windlass_spec::features::{Origin, Row, Tier, rows};
use windlass_spec::schema::{Kind, json_schema};

/// What a machine is made of, and the scenarios of the core that pin it: what, page, headings.
const PROVED: &[(&str, &str, &[&str])] = &[
    (
        "Transitions and conditions",
        "flow",
        &["A machine without effects ends in its first decision", "A dead end is a failure with its own code"],
    ),
    (
        "Ceilings",
        "budgets",
        &[
            "Calls stop at the ceiling, and the failure can be handled",
            "A reservation that does not fit is refused before the call",
        ],
    ),
    ("Retry", "agents", &["Retries wait as long as they were told"]),
    (
        "Parallel samples and votes",
        "agents",
        &[
            "Parallel samples: failures are left out of the result and kept in the journal",
            "Voting stops as soon as one candidate leads",
        ],
    ),
    ("Structured output", "agents", &["An answer that does not fit is sent back once"]),
    (
        "Tool loops",
        "tools",
        &[
            "Calls run in order and every one is answered",
            "Lost calls: read and keyed ones are sent again, the others are looked into",
        ],
    ),
    (
        "Children and foreach",
        "children",
        &[
            "A failed child is part of a settled result",
            "The first success wins and the others are cancelled before the run ends",
        ],
    ),
    ("Launch", "children", &["A launch goes on by itself; an allotment is carved for it"]),
    (
        "Waits and timers",
        "waits",
        &["A signal ends a wait; data that is no mapping is wrapped", "A wait that times out goes through on_error"],
    ),
    ("Hooks", "flow", &["Hooks see every event and may change the way"]),
    ("Resume", "tools", &["Lost calls: read and keyed ones are sent again, the others are looked into"]),
];

/// Generated pages, by path below `docs/`.
#[must_use]
pub(crate) fn pages() -> Vec<(String, String)> {
    let mut pages = vec![
        ("golden-path.md".to_owned(), golden_path()),
        ("reference/format.md".to_owned(), table()),
        ("schemas/events.schema.json".to_owned(), pretty(&windlass_runtime::events::schema())),
        ("schemas/audit.schema.json".to_owned(), pretty(&windlass_runtime::audit::schema())),
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
    proved(&mut out);
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn proved(out: &mut String) {
    out.push_str(
        "## What pins it\n\n\
         Every field is changed by a test that must see the change or a refusal (`crates/spec/tests/it/parity.rs`), the\n\
         [conformance kit](compatibility.md) runs whole machines, and the crash proof cuts one at every commit\n\
         (`crates/windlass/tests/it/proof`). What each part does is written down step by step:\n\n\
         | part | scenarios |\n|---|---|\n",
    );
    for (part, page, headings) in PROVED {
        let link =
            |heading: &&str| format!("[{heading}](../crates/core/tests/scenarios/{page}.md#{})", anchor(heading));
        let links: Vec<String> = headings.iter().map(link).collect();
        let _ = writeln!(out, "| {part} | {} |", links.join("; "));
    }
}

/// The anchor that renderers of Markdown give a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
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
