//! Choosing among many tools which ones a model is shown.

use std::hint::black_box;
use std::time::Instant;

use windlass_core::contract::{Class, Contract};
use windlass_core::limits::TOOLS_SELECTED_MAX;
use windlass_core::select::Index;

use super::{Measured, micros, milliseconds, percentile_ms};
use crate::args;

const SERVICES: [&str; 10] =
    ["mail", "crm", "billing", "files", "tickets", "orders", "people", "search", "chat", "deploy"];
const VERBS: [&str; 10] =
    ["list", "get", "create", "update", "delete", "archive", "share", "export", "import", "watch"];
const THINGS: [&str; 10] =
    ["customer", "invoice", "message", "report", "folder", "branch", "server", "contract", "meeting", "task"];
const QUESTIONS: [&str; 5] = [
    "please find the unpaid invoices of this customer and send them a message with the report",
    "which tickets of last week are still open, and who works on them?",
    "archive the folder of the project that ended",
    "Deploy the branch to the test server, then watch it and tell people in the chat when the meeting begins.",
    "share the contract",
];

/// Tools with names and descriptions of the usual length.
fn tools(count: u32) -> Vec<Contract> {
    let made = |n: u32| {
        let [a, b, c] = [n % 10, n / 10 % 10, n / 100 % 10].map(|digit| digit as usize);
        let (service, verb, thing) = (SERVICES[a], VERBS[b], THINGS[c]);
        let description = format!(
            "Use it to {verb} a {thing} in {service}. Takes the id of the {thing} or a filter, returns its fields page by \
             page, and fails when the {thing} does not exist or may not be seen."
        );
        let base = Contract::undeclared(&format!("{service}{}__{verb}_{thing}", n / 1_000));
        Contract { description: description.into(), class: Class::Read, ..base }
    };
    (0..count).map(made).collect()
}

/// Chooses again and again.
pub(super) fn select(args: &args::BenchSelect) -> Measured {
    let tools = tools(args.tools);
    let begun = Instant::now();
    let index = Index::of(&tools);
    let index_ms = milliseconds(begun.elapsed());
    let mut took: Vec<u32> = Vec::new();
    let mut chosen = 0;
    for question in QUESTIONS.iter().cycle().take(args.times as usize) {
        let begun = Instant::now();
        chosen += black_box(index.rank(black_box(&tools).iter().map(Some), question, TOOLS_SELECTED_MAX)).len();
        took.push(micros(begun.elapsed()));
    }
    took.sort_unstable();
    Measured {
        p50_ms: percentile_ms(&took, 0.5),
        p99_ms: percentile_ms(&took, 0.99),
        ..Measured::new("select", "none")
    }
    .with("tools", args.tools)
    .with("times", args.times)
    .with("max_ms", percentile_ms(&took, 1.0))
    .with("index_ms", index_ms)
    .with("chosen", chosen as f64 / f64::from(args.times))
}
