//! Finding the right one of 1,000 tools: recall over labelled queries. `docs/tools.md` has the number.

use windlass_core::contract::{Class, Contract};
use windlass_core::select::rank;

const CATALOG: &str = include_str!("../select/catalog.tsv");
const QUERIES: &str = include_str!("../select/queries.tsv");

/// Five kinds of things in each of forty services, and five things to do with each.
fn catalog() -> Vec<Contract> {
    let mut tools = Vec::new();
    for line in CATALOG.lines() {
        let (key, rest) = line.split_once('\t').expect("a service");
        let (service, nouns) = rest.split_once('\t').expect("its things");
        for noun in nouns.split(';') {
            let (noun, gloss) = noun.split_once('=').expect("a thing");
            let many = match noun.strip_suffix('y') {
                Some(stem) => format!("{stem}ies"),
                None if noun.ends_with('s') => noun.to_owned(),
                None => format!("{noun}s"),
            };
            let (one, all) = (noun.replace('_', " "), many.replace('_', " "));
            let verbs = [
                (
                    "list",
                    &many,
                    Class::Read,
                    format!("Lists {all} of {service} ({gloss}), newest first, page by page."),
                ),
                (
                    "get",
                    &noun.to_owned(),
                    Class::Read,
                    format!("Reads one {one} of {service} ({gloss}) with all its fields."),
                ),
                ("create", &noun.to_owned(), Class::Write, format!("Makes a new {one} in {service}: {gloss}.")),
                (
                    "update",
                    &noun.to_owned(),
                    Class::Write,
                    format!("Changes fields of a {one} in {service} ({gloss})."),
                ),
                ("delete", &noun.to_owned(), Class::Danger, format!("Removes a {one} from {service} ({gloss}).")),
            ];
            for (verb, object, class, description) in verbs {
                let name = format!("{key}__{verb}_{object}");
                tools.push(Contract { description: description.into(), class, ..Contract::undeclared(&name) });
            }
        }
    }
    tools
}

#[test]
fn the_wanted_tool_is_among_the_first_ten() {
    let tools = catalog();
    assert_eq!(tools.len(), 1_000);
    let queries: Vec<(&str, &str)> = QUERIES.lines().filter_map(|line| line.split_once('\t')).collect();
    assert!(queries.len() >= 100, "{} queries", queries.len());
    let mut found = [0usize; 3];
    let mut missed = Vec::new();
    for (query, wanted) in &queries {
        assert!(tools.iter().any(|tool| &*tool.name == *wanted), "the catalog has no `{wanted}`");
        let ranked = rank(&tools, query, 10);
        let place = ranked.iter().position(|tool| &*tool.name == *wanted);
        for (count, most) in found.iter_mut().zip([1, 5, 10]) {
            *count += usize::from(place.is_some_and(|place| place < most));
        }
        if place.is_none() {
            missed.push(*query);
        }
    }
    let share = |count: usize| 100 * count / queries.len();
    let recall = found.map(share);
    assert!(recall[2] >= 95, "recall at 1, 5 and 10 is {recall:?} %; missed: {missed:#?}");
    assert_eq!(recall, RECALL, "the documentation has other numbers; missed: {missed:#?}");
}

/// Recall at 1, 5 and 10 in percent, as published.
const RECALL: [usize; 3] = [36, 96, 98];
