//! Rules about documentation: links, error pages, configuration keys, examples and decisions.

use std::collections::BTreeSet;

use super::{Finding, Tree, has_extension};

/// Where the error codes are defined.
const CODES: &str = "crates/core/src/failure.rs";
/// Where the commands report problems of their own, with codes `cli.*`.
const COMMANDS: &str = "crates/cli/src/";
/// Where the pages of error codes are.
const PAGES: &str = "docs/errors/";
/// The index of the error pages.
const PAGES_INDEX: &str = "docs/errors/README.md";
/// Where the rules of the validator are defined.
const RULES: &str = "crates/spec/src/diagnostics.rs";
/// Where they are described.
const RULES_PAGE: &str = "docs/diagnostics.md";
/// Where the configuration keys are defined, as public fields.
const CONFIG: &str = "crates/cli/src/config.rs";
/// What every example has beside its machine.
const EXAMPLE_FILES: &[&str] = &["README.md", "machine.yml", "tests.yml", "input.json", "windlass.toml", "script.yml"];
/// Sections that every error page has.
const PAGE_SECTIONS: &[&str] = &["## Likely causes", "## What to do"];
/// Sections that every decision has.
const DECISION_SECTIONS: &[&str] = &["## Context", "## Choice", "## Cost"];

/// Every relative link of a page leads to a file or folder of the repository.
pub(super) fn links(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts().filter(|(path, _)| has_extension(path, "md")) {
        for (line, target) in targets(text) {
            if let Some(wanted) = resolve(path, target)
                && !(exists(tree, &wanted) && has_anchor(tree, &wanted, target))
            {
                findings.push(Finding::new(path, line, format!("links to `{target}`, which does not exist")));
            }
        }
    }
    findings
}

/// Every page below `docs/` is linked from another page.
pub(super) fn orphans(tree: &Tree) -> Vec<Finding> {
    let mut linked = BTreeSet::new();
    for (path, text) in tree.texts().filter(|(path, _)| has_extension(path, "md")) {
        linked.extend(targets(text).filter_map(|(_, target)| resolve(path, target)).filter(|target| target != path));
    }
    let pages = tree.texts().filter(|(path, _)| path.starts_with("docs/") && has_extension(path, "md"));
    pages
        .filter(|(path, _)| !linked.contains(*path))
        .map(|(path, _)| Finding::new(path, 0, "no page links to this one"))
        .collect()
}

/// Link targets of a page with their lines: `[text](target)`, outside of code blocks.
fn targets(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    text.lines().enumerate().flat_map(move |(number, line)| {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        let line = if in_code { "" } else { line };
        line.match_indices("](").filter_map(move |(at, _)| {
            let target = &line[at + 2..];
            Some((number + 1, &target[..target.find(')')?]))
        })
    })
}

/// The path that a relative link of a page means; none for a link elsewhere or within the page.
fn resolve(page: &str, target: &str) -> Option<String> {
    let target = target.split('#').next().unwrap_or_default();
    if target.is_empty() || target.contains(':') {
        return None;
    }
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in target.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    Some(parts.join("/"))
}

/// Whether a page has the heading that a link's part after `#` means. Other files have no headings to check.
fn has_anchor(tree: &Tree, path: &str, target: &str) -> bool {
    let (Some((_, wanted)), Some(text)) = (target.split_once('#'), tree.text(path)) else { return true };
    let anchor = |heading: &str| {
        let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    !has_extension(path, "md")
        || text
            .lines()
            .filter_map(|line| line.trim_start_matches('#').strip_prefix(' '))
            .any(|h| anchor(h.trim()) == wanted)
}

fn exists(tree: &Tree, path: &str) -> bool {
    let folder = format!("{path}/");
    tree.files.contains_key(path) || tree.files.keys().any(|file| file.starts_with(&folder))
}

/// Every error code has a page and a line in the index, and every page has its code.
pub(super) fn codes(tree: &Tree) -> Vec<Finding> {
    let mut codes = defined(tree.text(CODES).unwrap_or_default(), "codes");
    if codes.is_empty() {
        return vec![Finding::new(CODES, 0, "no error code found; the rule in `xtask/src/tidy/docs.rs` must follow")];
    }
    for (_, text) in tree.texts().filter(|(path, _)| path.starts_with(COMMANDS)) {
        codes.extend(command_codes(text));
    }
    let index = tree.text(PAGES_INDEX).unwrap_or_default();
    let mut findings = Vec::new();
    for code in &codes {
        let path = format!("{PAGES}{code}.md");
        let Some(page) = tree.text(&path) else {
            findings.push(Finding::new(&path, 0, format!("the code `{code}` has no page; write it")));
            continue;
        };
        if page.lines().next() != Some(&format!("# `{code}`")) {
            findings.push(Finding::new(&path, 1, format!("must open with `# ` and the code in backticks: {code}")));
        }
        for section in PAGE_SECTIONS.iter().filter(|section| !page.contains(*section)) {
            findings.push(Finding::new(&path, 0, format!("has no section `{section}`")));
        }
        if !page.contains("**Retry:**") {
            findings.push(Finding::new(&path, 0, "does not say `**Retry:**`"));
        }
        if !index.contains(&format!("({code}.md)")) {
            findings.push(Finding::new(PAGES_INDEX, 0, format!("does not list `{code}`")));
        }
    }
    for path in tree.files.keys().filter(|path| path.starts_with(PAGES) && *path != PAGES_INDEX) {
        let code = path.trim_start_matches(PAGES).trim_end_matches(".md");
        if !codes.contains(code) {
            findings.push(Finding::new(path, 0, format!("`{code}` is no error code; remove the page")));
        }
    }
    findings
}

/// The codes `cli.*` that stand in quotes in a file.
fn command_codes(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("\"cli.").filter_map(|(at, _)| {
        let code = text[at + 1..].split_once('"')?.0;
        let word = &code["cli.".len()..];
        (!word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')).then_some(code)
    })
}

/// The texts of a closed list: lines such as `Name = "family.cause",` inside `codes! { ... }`.
fn defined<'a>(text: &'a str, list: &str) -> BTreeSet<&'a str> {
    let Some((_, block)) = text.split_once(&format!("\n{list}! {{")) else { return BTreeSet::new() };
    let block = block.split_once("\n}").map_or(block, |(block, _)| block);
    block
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .filter_map(|line| line.split_once(" = \"")?.1.split_once('"'))
        .map(|(code, _)| code)
        .collect()
}

/// Every rule of the validator has its section, and every section its rule.
pub(super) fn rules(tree: &Tree) -> Vec<Finding> {
    let rules = defined(tree.text(RULES).unwrap_or_default(), "rules");
    if rules.is_empty() {
        return vec![Finding::new(RULES, 0, "no rule found; the check in `xtask/src/tidy/docs.rs` must follow")];
    }
    let page = tree.text(RULES_PAGE).unwrap_or_default();
    let sections: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("## `")?.strip_suffix('`')).collect();
    let missing = rules.difference(&sections).map(|rule| format!("has no section for `{rule}`; write it"));
    let surplus = sections.difference(&rules).map(|rule| format!("`{rule}` is no rule; remove the section"));
    missing.chain(surplus).map(|message| Finding::new(RULES_PAGE, 0, message)).collect()
}

/// Every public field of a configuration type says what it is; the reference page is generated from that.
pub(super) fn config(tree: &Tree) -> Vec<Finding> {
    let Some(text) = tree.text(CONFIG) else {
        return vec![Finding::new(CONFIG, 0, "does not exist; the rule in `xtask/src/tidy/docs.rs` must follow")];
    };
    let mut documented = false;
    let mut findings = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with("///") {
            documented = true;
        } else if !line.starts_with("#[") {
            if is_field(line) && !documented {
                findings.push(Finding::new(CONFIG, number + 1, "a configuration key without a doc comment"));
            }
            documented = false;
        }
    }
    findings
}

/// Whether a line declares a public field, such as `pub(crate) name: Type,`.
fn is_field(line: &str) -> bool {
    let Some(rest) = line.strip_prefix("pub ").or_else(|| line.strip_prefix("pub(crate) ")) else { return false };
    let Some((name, _)) = rest.split_once(':') else { return false };
    line.ends_with(',') && name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '#')
}

/// Every example has what a reader and a test need.
pub(super) fn examples(tree: &Tree) -> Vec<Finding> {
    let names: BTreeSet<&str> = tree
        .files
        .keys()
        .filter_map(|path| path.strip_prefix("examples/")?.split_once('/'))
        .map(|(name, _)| name)
        .collect();
    if names.is_empty() {
        return vec![Finding::new("examples", 0, "holds no example")];
    }
    let mut findings = Vec::new();
    for name in names {
        for file in EXAMPLE_FILES {
            let path = format!("examples/{name}/{file}");
            if !tree.files.contains_key(&path) {
                findings.push(Finding::new(&path, 0, "is missing"));
            }
        }
    }
    findings
}

/// Decisions are numbered without gaps, have their sections and are listed.
pub(super) fn decisions(tree: &Tree) -> Vec<Finding> {
    const FOLDER: &str = "docs/decisions/";
    let index = tree.text("docs/decisions/README.md").unwrap_or_default();
    let pages = tree.texts().filter_map(|(path, text)| Some((path.strip_prefix(FOLDER)?, text)));
    let mut findings = Vec::new();
    for (place, (name, text)) in pages.filter(|(name, _)| *name != "README.md").enumerate() {
        let path = format!("{FOLDER}{name}");
        if !name.starts_with(&format!("{:04}-", place + 1)) {
            findings.push(Finding::new(&path, 0, format!("should be number {:04}", place + 1)));
        }
        for section in DECISION_SECTIONS.iter().filter(|section| !text.contains(*section)) {
            findings.push(Finding::new(&path, 0, format!("has no section `{section}`")));
        }
        if !index.contains(&format!("({name})")) {
            findings.push(Finding::new("docs/decisions/README.md", 0, format!("does not list `{name}`")));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_link_is_found() {
        let page = ("docs/errors/x.md", "# A part, of it\n");
        let tree = |link: &str| Tree::of(&[("docs/a.md", &format!("see [b]({link})")), page]);
        for good in
            ["errors/x.md", "../docs/errors", "errors/x.md#a-part-of-it", "#here", "https://example.com", "./a.md"]
        {
            assert_eq!(links(&tree(good)), [], "{good}");
        }
        for bad in ["errors/y.md", "../README.md", "error", "errors/x.md#other"] {
            assert_eq!(links(&tree(bad)).len(), 1, "{bad}");
        }
        assert_eq!(links(&Tree::of(&[("a.md", "```\n[b](gone.md)\n```\n")])), []);
    }

    #[test]
    fn a_page_that_nothing_links_to_is_found() {
        let tree = Tree::of(&[("README.md", "[a](docs/a.md)"), ("docs/a.md", ""), ("docs/b.md", "[me](b.md)")]);
        assert_eq!(orphans(&tree), [Finding::new("docs/b.md", 0, "no page links to this one")]);
    }

    #[test]
    fn codes_and_pages_are_compared_both_ways() {
        let source = "//! Codes.\ncodes! {\n    /// Says = \"x.no\".\n    One = \"x.one\",\n}\nlet y = \"z.two\";\n";
        assert_eq!(defined(source, "codes").into_iter().collect::<Vec<_>>(), ["x.one"]);
        let page = "# `x.one`\n\n**Retry:** never.\n\n## Likely causes\n\n## What to do\n";
        let index = "[`x.one`](x.one.md)";
        let good = [(CODES, source), ("docs/errors/x.one.md", page), (PAGES_INDEX, index)];
        assert_eq!(codes(&Tree::of(&good)), []);
        assert_eq!(codes(&Tree::of(&[good[0], good[2]])).len(), 1, "no page");
        assert_eq!(codes(&Tree::of(&[good[0], good[1]])).len(), 1, "not listed");
        assert_eq!(codes(&Tree::of(&[good[0], good[1], good[2], ("docs/errors/x.two.md", page)])).len(), 1, "no code");
        let short = ("docs/errors/x.one.md", "# x.one\n");
        assert_eq!(codes(&Tree::of(&[good[0], short, good[2]])).len(), 4, "title, two sections, retry");
        assert_eq!(codes(&Tree::of(&[(CODES, "")])).len(), 1);
        let command = ("crates/cli/src/a.rs", "let a = \"cli.io\"; let b = \"cli.*\"; let c = \"cli.md\".len();");
        let found = codes(&Tree::of(&[good[0], good[1], good[2], command]));
        assert_eq!(found.len(), 2, "`cli.io` and `cli.md` have no page");
    }

    #[test]
    fn rules_and_sections_are_compared_both_ways() {
        let source = "//! Rules.\nrules! {\n    /// Says.\n    One = \"one\",\n}\n";
        let page = |text: &str| rules(&Tree::of(&[(RULES, source), (RULES_PAGE, text)])).len();
        assert_eq!(page("## `one`\n"), 0);
        assert_eq!(page("## `two`\n"), 2, "one is missing and two is no rule");
        assert_eq!(rules(&Tree::of(&[(RULES, "")])).len(), 1);
    }

    #[test]
    fn a_configuration_key_without_a_doc_comment_is_found() {
        let good = "struct A {\n    /// Says.\n    #[serde(default)]\n    pub(crate) a: u8,\n    b: u8,\n}\n";
        assert_eq!(config(&Tree::of(&[(CONFIG, good)])), []);
        let bad = "struct A {\n    /// Says.\n    pub a: u8,\n    pub b: u8,\n}\npub fn f(x: u8) {}\n";
        assert_eq!(
            config(&Tree::of(&[(CONFIG, bad)])),
            [Finding::new(CONFIG, 4, "a configuration key without a doc comment")]
        );
    }

    #[test]
    fn an_incomplete_example_is_found() {
        let files: Vec<String> = EXAMPLE_FILES.iter().map(|file| format!("examples/a/{file}")).collect();
        let mut all: Vec<(&str, &str)> = files.iter().map(|path| (path.as_str(), "")).collect();
        assert_eq!(examples(&Tree::of(&all)), []);
        all.pop();
        assert_eq!(examples(&Tree::of(&all)).len(), 1);
        assert_eq!(examples(&Tree::of(&[])).len(), 1);
    }

    #[test]
    fn decisions_have_numbers_sections_and_a_line_in_the_index() {
        let text = "## Context\n## Choice\n## Cost\n";
        let index = ("docs/decisions/README.md", "[a](0001-a.md) [b](0002-b.md)");
        let tree = Tree::of(&[index, ("docs/decisions/0001-a.md", text), ("docs/decisions/0002-b.md", text)]);
        assert_eq!(decisions(&tree), []);
        assert_eq!(decisions(&Tree::of(&[index, ("docs/decisions/0002-b.md", text)])).len(), 1, "gap");
        assert_eq!(decisions(&Tree::of(&[index, ("docs/decisions/0001-a.md", "## Choice\n")])).len(), 2, "sections");
        assert_eq!(decisions(&Tree::of(&[("docs/decisions/0001-a.md", text)])).len(), 1, "not listed");
    }
}
