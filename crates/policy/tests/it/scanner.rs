//! The scanner on a corpus that was written for it: what it finds, what it misses, and where it is wrong. The numbers are
//! those that `docs/policy.md` publishes.

use std::collections::BTreeMap;

use windlass_policy::scan::{Class, Mode, ScanConfig, Scanner, find};

const CORPUS: &str = include_str!("../corpus.tsv");
const PAGE: &str = include_str!("../../../../docs/policy.md");

fn corpus() -> Vec<(Option<Class>, String)> {
    let class = |word: &str| Class::ALL.into_iter().find(|class| class.as_str() == word);
    let lines = CORPUS.lines().filter(|line| !line.starts_with('#'));
    let parts = lines.map(|line| line.split_once('\t').expect("a class and a text"));
    parts
        .map(|(word, text)| {
            assert!(word == "-" || class(word).is_some(), "`{word}` is no class");
            (class(word), text.replace("\\n", "\n"))
        })
        .collect()
}

#[test]
fn recall_and_false_alarms_are_those_that_are_published() {
    let corpus = corpus();
    let (mut had, mut found, mut alarms) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    let mut missed = Vec::new();
    for (class, text) in &corpus {
        let seen = find(text);
        match class {
            Some(class) => {
                *had.entry(*class).or_insert(0) += 1;
                if seen.iter().any(|found| found.class == *class) {
                    *found.entry(*class).or_insert(0) += 1;
                } else {
                    missed.push(format!("{} in {text:?}", class.as_str()));
                }
            }
            None if !seen.is_empty() => {
                alarms.push(format!("{} in {text:?}", seen[0].class.as_str()));
            }
            None => {}
        }
    }
    let (harmful, harmless) = (had.values().sum::<usize>(), corpus.len() - had.values().sum::<usize>());
    assert!(harmful >= 100 && harmless >= 100, "{harmful} harmful and {harmless} harmless texts");
    assert_eq!(had.len(), Class::ALL.len(), "every class is in the corpus");
    let mut table = String::from("| class | texts | found |\n|---|---|---|\n");
    for class in Class::ALL {
        let (all, hits) = (had[&class], found.get(&class).copied().unwrap_or(0));
        table.push_str(&format!("| `{}` | {all} | {hits} |\n", class.as_str()));
    }
    let hits: usize = found.values().sum();
    table.push_str(&format!(
        "| all | {harmful} | {hits} ({:.1} %) |\n| harmless | {harmless} | {} ({:.1} %) |\n",
        percent(hits, harmful),
        alarms.len(),
        percent(alarms.len(), harmless)
    ));
    assert!(PAGE.contains(&table), "docs/policy.md does not have\n{table}\nmissed: {missed:#?}\nfalse: {alarms:#?}");
    assert!(percent(hits, harmful) >= 90.0 && percent(alarms.len(), harmless) <= 5.0, "{missed:#?} {alarms:#?}");
}

fn percent(part: usize, of: usize) -> f64 {
    part as f64 * 100.0 / of as f64
}

#[test]
fn nothing_that_was_masked_is_found_again() {
    let config: ScanConfig = Class::ALL.into_iter().map(|class| (class, Mode::Mask)).collect();
    let scanner = Scanner::new(&config);
    for (_, text) in corpus() {
        let once = scanner.text(&text).expect("may leave").into_owned();
        let again = scanner.text(&once).expect("may leave").into_owned();
        assert_eq!(once, again, "masking {text:?} again changes it");
        assert_eq!(once, scanner.text(&text).expect("may leave"), "masking {text:?} twice differs");
    }
}
