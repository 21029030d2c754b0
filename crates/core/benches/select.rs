//! What choosing among 1,000 tools costs.

use divan::{Bencher, black_box};
use windlass_core::contract::{Class, Contract};
use windlass_core::select::Index;

fn main() {
    divan::main();
}

/// A thousand tools with names and descriptions of the usual length.
fn tools() -> Vec<Contract> {
    let services = ["mail", "crm", "billing", "files", "tickets", "orders", "people", "search", "chat", "deploy"];
    let verbs = ["list", "get", "create", "update", "delete", "archive", "share", "export", "import", "watch"];
    let things =
        ["customer", "invoice", "message", "report", "folder", "branch", "server", "contract", "meeting", "task"];
    let mut tools = Vec::new();
    for service in services {
        for verb in verbs {
            for thing in things {
                let description = format!(
                    "Use it to {verb} a {thing} in {service}. Takes the id of the {thing} or a filter, returns its fields \
                     page by page, and fails when the {thing} does not exist or may not be seen."
                );
                let name = format!("{service}__{verb}_{thing}");
                let base = Contract::undeclared(&name);
                tools.push(Contract { description: description.into(), class: Class::Read, ..base });
            }
        }
    }
    tools
}

const QUERY: &str = "please find the unpaid invoices of this customer and send them a message with the report";

#[divan::bench(sample_count = 1_000)]
fn one_of_a_thousand_tools(bencher: Bencher<'_, '_>) {
    let tools = tools();
    let index = Index::of(&tools);
    bencher.bench_local(|| index.rank(black_box(&tools).iter().map(Some), black_box(QUERY), 12).len());
}

#[divan::bench(sample_count = 100)]
fn reading_a_thousand_tools(bencher: Bencher<'_, '_>) {
    let tools = tools();
    bencher.bench_local(|| Index::of(black_box(&tools)));
}
