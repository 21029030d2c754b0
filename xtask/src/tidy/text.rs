//! Rules about every text file: words and sizes.

use super::rust::has_word;
use super::{Finding, Tree, has_extension};

/// Bytes of a tracked file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Marks of unfinished work, each in two halves so that this file does not hold them.
const MARKS: &[(&str, &str)] = &[("TO", "DO"), ("FIX", "ME"), ("XX", "X"), ("HA", "CK"), ("WI", "P")];

/// Promises that nobody can keep, each in two halves so that this file does not hold them.
const PROMISES: &[(&str, &str)] = &[
    ("exactly", " once"),
    ("exactly-", "once"),
    ("never loses", " data"),
    ("never lose", " data"),
    ("tamper-", "proof"),
    ("tamper", "proof"),
    ("injection-", "proof"),
];

/// No unfinished work is marked: what is not done is refused with an error, or written in the issue tracker.
pub(super) fn marks(tree: &Tree) -> Vec<Finding> {
    let marks: Vec<String> = MARKS.iter().map(|(a, b)| format!("{a}{b}")).collect();
    let mut findings = Vec::new();
    for (path, text) in tree.texts().filter(|(path, _)| is_ours(path)) {
        for (number, line) in text.lines().enumerate() {
            if let Some(mark) = marks.iter().find(|mark| has_word(line, mark)) {
                findings.push(Finding::new(path, number + 1, format!("`{mark}` marks work that is not done")));
            }
        }
    }
    findings
}

/// Words that claim more than can be shown.
pub(super) fn promises(tree: &Tree) -> Vec<Finding> {
    let promises: Vec<String> = PROMISES.iter().map(|(a, b)| format!("{a}{b}")).collect();
    let mut findings = Vec::new();
    for (path, text) in tree.texts().filter(|(path, _)| is_ours(path)) {
        for (number, line) in text.lines().enumerate() {
            let lower = line.to_lowercase();
            if let Some(promise) = promises.iter().find(|promise| lower.contains(promise.as_str())) {
                findings.push(Finding::new(path, number + 1, format!("nobody can keep the promise `{promise}`")));
            }
        }
    }
    findings
}

/// Large files do not belong into a repository.
pub(super) fn size(tree: &Tree) -> Vec<Finding> {
    let large = |(path, file): (&String, &super::File)| {
        let message = format!("has {} bytes; at most {FILE_BYTES_MAX}", file.bytes);
        (file.bytes > FILE_BYTES_MAX).then(|| Finding::new(path, 0, message))
    };
    tree.files.iter().filter_map(large).collect()
}

/// Text that people of this project wrote: not lock files, not the licence.
fn is_ours(path: &str) -> bool {
    path != "LICENSE" && !has_extension(path, "lock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_as_whole_words() {
        let mark = ["TO", "DO"].concat();
        let tree = |line: &str| Tree::of(&[("docs/a.md", line)]);
        assert_eq!(
            marks(&tree(&format!("fine\n{mark}: later"))),
            [Finding::new("docs/a.md", 2, format!("`{mark}` marks work that is not done"))]
        );
        assert_eq!(marks(&tree("a todo list application")), []);
        assert_eq!(marks(&Tree::of(&[("LICENSE", &mark)])), []);
    }

    #[test]
    fn promises_are_found_in_any_case() {
        let promise = ["Exactly", " once"].concat();
        assert_eq!(promises(&Tree::of(&[("crates/a/src/a.rs", &format!("// {promise}."))])).len(), 1);
        assert_eq!(promises(&Tree::of(&[("README.md", "at least once")])), []);
    }

    #[test]
    fn a_large_file_is_found() {
        let mut tree = Tree::of(&[("a.bin", "x")]);
        assert_eq!(size(&tree), []);
        tree.files.get_mut("a.bin").unwrap().bytes = FILE_BYTES_MAX + 1;
        assert_eq!(size(&tree).len(), 1);
    }
}
