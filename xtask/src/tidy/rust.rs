//! Rules about Rust sources: size, openings, names, and which code belongs where.

use super::scan::Source;
use super::{Finding, Tree};

/// Lines of a file without its tests.
const LINES_MAX: usize = 600;
/// Lines of a file that is all tests.
const TEST_LINES_MAX: usize = 1_000;
/// Lines of `//!` that open a file, at most. The front page of a crate may be longer.
const OPENING_LINES_MAX: usize = 30;
/// Words that say nothing about what a file owns.
const EMPTY_NAMES: &[&str] = &["util", "utils", "helper", "helpers", "manager", "common", "misc"];

/// Every file opens with what it owns.
pub(super) fn opening(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.rust() {
        let lines = text.lines().take_while(|line| line.starts_with("//!")).count();
        if lines == 0 {
            findings.push(Finding::new(path, 1, "must open with `//!` lines: what the file owns, what it does not"));
        } else if lines > OPENING_LINES_MAX && !path.ends_with("/lib.rs") {
            findings.push(Finding::new(path, 1, format!("opens with {lines} lines; more belongs in `docs/`")));
        }
    }
    findings
}

/// No file is longer than can be read at once.
pub(super) fn length(tree: &Tree) -> Vec<Finding> {
    let long = |(path, text): (&str, &str)| {
        let source = Source::scan(path, text);
        let (lines, most) = match source.tests_from {
            0 => (source.code.len(), TEST_LINES_MAX),
            lines => (lines, LINES_MAX),
        };
        (lines > most).then(|| {
            let message = format!("has {lines} lines without the tests at its bottom; split it (at most {most})");
            Finding::new(path, 0, message)
        })
    };
    tree.rust().filter_map(long).collect()
}

/// No file or folder has a name that says nothing.
pub(super) fn names(tree: &Tree) -> Vec<Finding> {
    let empty = |(path, _): (&str, &str)| {
        let mut parts = path.split('/').map(|part| part.trim_end_matches(".rs"));
        let bad = parts.find(|part| EMPTY_NAMES.contains(part))?;
        Some(Finding::new(path, 0, format!("`{bad}` does not say what this owns; name it after that")))
    };
    tree.rust().filter_map(empty).collect()
}

/// Lints are expected with a reason, and every test runs.
pub(super) fn attributes(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.rust() {
        for (number, line) in Source::scan(path, text).code.iter().enumerate() {
            let line = line.replace(' ', "");
            if line.contains("#[allow(") || line.contains("#![allow(") {
                findings.push(Finding::new(path, number + 1, "use `#[expect(lint, reason = \"...\")]`"));
            }
            if line.contains("#[ignore]") || line.contains("#[ignore=") {
                findings.push(Finding::new(path, number + 1, "a test that does not run proves nothing"));
            }
        }
    }
    findings
}

/// A word that may stand only in some files.
struct Place {
    /// What is looked for: whole words of code.
    words: &'static [&'static str],
    /// Whether a file is under the rule.
    applies: fn(&str) -> bool,
    /// What to do instead.
    advice: &'static str,
}

fn in_core(path: &str) -> bool {
    path.starts_with("crates/core/src/")
}

fn is_product(path: &str) -> bool {
    path.starts_with("crates/") && !path.starts_with("crates/testpg/") && !path.contains("/examples/")
}

const PLACES: &[Place] = &[
    Place {
        words: &["tokio", "async", "await", "tracing", "rand", "minijinja", "cel"],
        applies: in_core,
        advice: "the core has no runtime, no logging, no randomness and no expression library",
    },
    Place {
        words: &["Instant", "SystemTime", "std::fs", "std::env", "std::net", "std::process", "std::thread"],
        applies: in_core,
        advice: "the core has no clock and no I/O: values come in with the input and the facts",
    },
    Place {
        words: &["HashMap", "HashSet"],
        applies: in_core,
        advice: "iterates in another order in every process; use BTreeMap or IndexMap",
    },
    Place {
        words: &["tokio"],
        applies: |path| path.starts_with("crates/ports/src/") || path.starts_with("crates/spec/src/"),
        advice: "ports and documents know no async runtime",
    },
    Place {
        words: &["tokio"],
        applies: |path| path.starts_with("crates/runtime/src/") && !path.starts_with("crates/runtime/src/shell"),
        advice: "only `runtime/src/shell/` knows the async runtime; the rest gets time and results as arguments",
    },
    Place {
        words: &["println!", "print!", "eprintln!", "eprint!", "dbg!"],
        applies: |path| is_product(path) && path != "crates/cli/src/output.rs",
        advice: "only `crates/cli/src/output.rs` prints",
    },
    Place {
        words: &["env::var", "env::var_os", "env::vars", "env::vars_os", "env::args", "env::args_os"],
        applies: |path| is_product(path) && !path.starts_with("crates/cli/"),
        advice: "only `cli` reads the environment; take the value as an argument",
    },
    Place {
        words: &["rusqlite", "tokio_postgres"],
        applies: |path| is_product(path) && !path.starts_with("crates/stores/"),
        advice: "only `stores` knows a database",
    },
    Place {
        words: &["anyhow"],
        applies: |path| is_product(path) && !path.starts_with("crates/cli/"),
        advice: "libraries have typed errors",
    },
];

/// Beginnings of SQL statements, in strings.
const SQL: &[&str] = &["SELECT ", "INSERT INTO ", "INSERT OR ", "UPDATE ", "DELETE FROM ", "CREATE TABLE ", "PRAGMA "];

/// Code stays in the crate that owns it.
pub(super) fn places(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.rust() {
        let source = Source::scan(path, text);
        for place in PLACES.iter().filter(|place| (place.applies)(path)) {
            for (number, line) in source.product() {
                if let Some(word) = place.words.iter().find(|word| has_word(line, word)) {
                    findings.push(Finding::new(path, number, format!("`{word}`: {}", place.advice)));
                }
            }
        }
        if is_product(path) && !path.starts_with("crates/stores/") {
            for (number, line) in source.product_strings() {
                if SQL.iter().any(|sql| line.trim_start_matches([' ', '"', 'r', '#']).starts_with(sql)) {
                    findings.push(Finding::new(path, number, "only `stores` has SQL"));
                }
            }
        }
    }
    findings
}

/// Opens a comment, on the line before, that says why something in a test takes time: a peer that is slow.
const SLOW: &str = "// Slow on purpose:";

/// By this a file of tests runs on a clock that moves by itself when nothing else does.
const VIRTUAL: &str = "start_paused = true";

/// Tests wait for what they need, not for time to pass. What stands in for a slow peer says so.
pub(super) fn sleep(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.rust() {
        let lines: Vec<&str> = text.lines().collect();
        let is_virtual = text.contains(VIRTUAL);
        for (number, line) in Source::scan(path, text).tests() {
            let sleeps = has_word(line, "thread::sleep")
                || (!is_virtual && ["time::sleep", "sleep_until"].iter().any(|word| has_word(line, word)));
            let explained = number >= 2 && lines[number - 2].trim_start().starts_with(SLOW);
            if sleeps && !explained {
                let message = format!(
                    "a test waits for an event or moves a virtual clock; a stand-in for a slow peer says `{SLOW} ...`"
                );
                findings.push(Finding::new(path, number, message));
            }
        }
    }
    findings
}

/// Whether a line has `word` with no letter, digit or underscore beside it.
pub(super) fn has_word(line: &str, word: &str) -> bool {
    let inner = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(inner) && !after.is_some_and(inner)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(check: fn(&Tree) -> Vec<Finding>, path: &str, text: &str) -> usize {
        check(&Tree::of(&[(path, text)])).len()
    }

    #[test]
    fn a_file_without_an_opening_is_found() {
        assert_eq!(one(opening, "crates/core/src/a.rs", "fn a() {}\n"), 1);
        assert_eq!(one(opening, "crates/core/src/a.rs", "//! Owns a.\n"), 0);
        assert_eq!(one(opening, "crates/core/src/a.rs", &"//! a\n".repeat(OPENING_LINES_MAX + 1)), 1);
    }

    #[test]
    fn tests_do_not_count_as_length() {
        let body = "fn a() {}\n".repeat(LINES_MAX);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{body}}}\n");
        assert_eq!(one(length, "crates/core/src/a.rs", &format!("{body}{tests}")), 0);
        assert_eq!(one(length, "crates/core/src/a.rs", &format!("{body}fn b() {{}}\n{tests}")), 1);
        assert_eq!(one(length, "crates/core/tests/it/a.rs", &format!("{body}fn b() {{}}\n")), 0);
        assert_eq!(one(length, "crates/core/tests/it/a.rs", &"fn a() {}\n".repeat(TEST_LINES_MAX + 1)), 1);
    }

    #[test]
    fn empty_names_are_found() {
        assert_eq!(one(names, "crates/core/src/util.rs", ""), 1);
        assert_eq!(one(names, "crates/core/src/common/a.rs", ""), 1);
        assert_eq!(one(names, "crates/core/src/retry.rs", ""), 0);
    }

    #[test]
    fn silenced_lints_and_skipped_tests_are_found() {
        assert_eq!(one(attributes, "crates/core/src/a.rs", "#[allow(dead_code)]\nfn a() {}\n"), 1);
        assert_eq!(one(attributes, "crates/core/src/a.rs", "#[test]\n#[ignore = \"slow\"]\nfn a() {}\n"), 1);
        assert_eq!(one(attributes, "crates/core/src/a.rs", "#[expect(dead_code, reason = \"later\")]\n"), 0);
        assert_eq!(one(attributes, "crates/core/src/a.rs", "// `#[allow(x)]` in a comment\n"), 0);
    }

    #[test]
    fn code_in_the_wrong_crate_is_found() {
        for (path, text) in [
            ("crates/core/src/a.rs", "use std::collections::HashMap;"),
            ("crates/core/src/a.rs", "let now = Instant::now();"),
            ("crates/core/src/a.rs", "async fn a() {}"),
            ("crates/ports/src/a.rs", "use tokio::sync::Mutex;"),
            ("crates/runtime/src/a.rs", "println!(\"x\");"),
            ("crates/runtime/src/lease.rs", "tokio::spawn(x);"),
            ("crates/cli/src/main.rs", "eprintln!(\"x\");"),
            ("crates/models/src/a.rs", "let key = std::env::var(\"KEY\");"),
            ("crates/runtime/src/a.rs", "let sql = \"SELECT 1\";"),
            ("crates/cli/src/a.rs", "let sql = r#\"INSERT INTO runs VALUES (1)\"#;"),
            ("crates/spec/src/a.rs", "fn a() -> anyhow::Result<()> {}"),
        ] {
            assert!(one(places, path, text) > 0, "{path}: {text}");
        }
    }

    #[test]
    fn code_in_its_place_is_not_found() {
        for (path, text) in [
            ("crates/core/src/a.rs", "// an Instant is not known here\nfn instant() {}"),
            ("crates/core/src/a.rs", "fn a() {}\n#[cfg(test)]\nmod tests {\n    use std::collections::HashMap;\n}\n"),
            ("crates/cli/src/output.rs", "println!(\"x\");"),
            ("crates/runtime/src/shell/worker.rs", "tokio::spawn(x);"),
            ("crates/spec/src/a.rs", "print(\"x\"); pretty_print!(x);"),
            ("crates/cli/src/config.rs", "let key = std::env::var(\"KEY\");"),
            ("crates/stores/src/sqlite.rs", "let sql = \"SELECT 1\";"),
            ("crates/runtime/src/a.rs", "let text = \"please SELECT one\";"),
            ("xtask/src/a.rs", "println!(\"x\");"),
        ] {
            assert_eq!(one(places, path, text), 0, "{path}: {text}");
        }
    }

    #[test]
    fn a_sleeping_test_is_found() {
        let sleeping = "#[cfg(test)]\nmod tests {\n    fn a() { std::thread::sleep(x); }\n}\n";
        assert_eq!(one(sleep, "crates/core/src/a.rs", sleeping), 1);
        assert_eq!(one(sleep, "crates/cli/tests/it/a.rs", "fn a() { tokio::time::sleep(x).await; }"), 1);
        let moved = "#[tokio::test(start_paused = true)]\nasync fn a() { tokio::time::sleep(x).await; }";
        assert_eq!(one(sleep, "crates/runtime/tests/it/a.rs", moved), 0);
        let slow = "// Slow on purpose: a provider that hangs.\ntokio::time::sleep(x).await;";
        assert_eq!(one(sleep, "crates/models/tests/it/server.rs", slow), 0);
        assert_eq!(one(sleep, "crates/models/src/a.rs", "fn a() { tokio::time::sleep(x).await; }"), 0);
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("use tokio::sync", "tokio"));
        assert!(!has_word("tokio_postgres", "tokio"));
        assert!(!has_word("asynchronous", "async"));
    }
}
