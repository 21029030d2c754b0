//! Which crate may depend on which, and where versions are written.

use toml::Table;

use super::{Finding, Tree};

/// What one crate may use. A new edge is a change of this table, visible in review.
struct Node {
    /// Folder below `crates/`.
    name: &'static str,
    /// Crates of the workspace that it may use.
    uses: &'static [&'static str],
    /// Crates of the workspace that only its tests may use.
    tests_use: &'static [&'static str],
    /// Outside crates that it may use; everything when empty.
    outside: &'static [&'static str],
    /// Outside crates that it may not use.
    never: &'static [&'static str],
}

/// Drivers, runtimes and clients that belong behind a port.
const DRIVERS: &[&str] = &["tokio", "rusqlite", "tokio-postgres", "reqwest", "genai", "hyper", "axum", "anyhow"];

/// The graph. `a` uses `b` reads: an edge from `a` to `b`.
const GRAPH: &[Node] = &[
    Node {
        name: "core",
        uses: &[],
        // Scenarios are written as documents.
        tests_use: &["spec", "ports"],
        outside: &["aho-corasick", "base64", "blake3", "indexmap", "serde", "serde_json", "sha2", "thiserror"],
        never: &[],
    },
    Node { name: "ports", uses: &["core"], tests_use: &[], outside: &[], never: DRIVERS },
    Node { name: "spec", uses: &["core", "ports"], tests_use: &[], outside: &[], never: DRIVERS },
    // For tests only: nothing of the product, and the product uses none of it.
    Node { name: "testpg", uses: &[], tests_use: &[], outside: &["nix", "tokio", "tokio-postgres"], never: &[] },
    Node { name: "stores", uses: &["core", "ports"], tests_use: &["testpg"], outside: &[], never: &["anyhow"] },
    Node { name: "models", uses: &["core", "ports"], tests_use: &[], outside: &[], never: &["anyhow"] },
    Node { name: "tools", uses: &["core", "ports"], tests_use: &[], outside: &[], never: &["anyhow"] },
    Node { name: "policy", uses: &["core", "ports"], tests_use: &[], outside: &[], never: DRIVERS },
    Node {
        name: "runtime",
        uses: &["core", "ports"],
        tests_use: &["spec", "stores", "models", "tools", "testpg"],
        outside: &[],
        never: &["anyhow", "rusqlite", "reqwest", "genai"],
    },
    Node {
        name: "server",
        uses: &["core", "ports", "runtime"],
        tests_use: &[],
        outside: &[],
        never: &["anyhow", "rusqlite", "reqwest", "genai"],
    },
    Node {
        name: "telemetry",
        uses: &["core", "runtime"],
        tests_use: &[],
        outside: &[],
        never: &["anyhow", "rusqlite", "tokio-postgres"],
    },
    Node {
        name: "sim",
        uses: &["core", "ports", "spec", "models", "runtime"],
        tests_use: &[],
        outside: &[],
        never: &["anyhow", "rusqlite", "tokio-postgres", "reqwest", "hyper"],
    },
    Node {
        name: "chaos",
        uses: &["core", "ports", "runtime", "sim"],
        tests_use: &["testpg", "spec", "stores", "tools", "windlass"],
        outside: &[],
        never: &["anyhow", "rusqlite", "reqwest"],
    },
    Node {
        name: "windlass",
        uses: &["core", "ports", "spec", "stores", "models", "tools", "policy", "runtime"],
        tests_use: &["testpg"],
        outside: &[],
        never: &["anyhow"],
    },
    Node {
        name: "cli",
        uses: &[
            "core",
            "ports",
            "spec",
            "stores",
            "models",
            "tools",
            "policy",
            "runtime",
            "server",
            "sim",
            "chaos",
            "telemetry",
            "windlass",
        ],
        tests_use: &["testpg"],
        outside: &[],
        never: &[],
    },
];

/// The package of a folder below `crates/`.
fn package(folder: &str) -> String {
    if folder == "windlass" { folder.to_owned() } else { format!("windlass-{folder}") }
}

/// The folder of a package, if it is one of the workspace.
fn folder(package: &str) -> Option<&str> {
    if package == "windlass" { Some(package) } else { package.strip_prefix("windlass-") }
}

/// Compares the dependencies of every crate with the table.
pub(super) fn edges(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in manifests(tree) {
        let Ok(manifest) = text.parse::<Table>() else {
            findings.push(Finding::new(path, 0, "is no TOML"));
            continue;
        };
        let Some(name) = path.strip_prefix("crates/").and_then(|rest| rest.strip_suffix("/Cargo.toml")) else {
            if dependencies(&manifest, "dependencies").any(|name| folder(name).is_some()) {
                findings.push(Finding::new(path, 0, "knows no crate of the product"));
            }
            continue;
        };
        match GRAPH.iter().find(|node| node.name == name) {
            Some(node) => node.compare(path, &manifest, &mut findings),
            None => findings.push(Finding::new(path, 0, "is not in the table of `xtask/src/tidy/graph.rs`; add it")),
        }
    }
    findings
}

impl Node {
    fn compare(&self, path: &str, manifest: &Table, findings: &mut Vec<Finding>) {
        let found = manifest.get("package").and_then(|table| table.get("name")).and_then(|name| name.as_str());
        if found != Some(&package(self.name)) {
            findings.push(Finding::new(path, 0, format!("the package must be named `{}`", package(self.name))));
        }
        let mut refuse = |name: &str, kind: &str| {
            let message = format!("`{name}` is no {kind} that the table of `xtask/src/tidy/graph.rs` allows here");
            findings.push(Finding::new(path, 0, message));
        };
        for name in dependencies(manifest, "dependencies").chain(dependencies(manifest, "build-dependencies")) {
            let allowed = match folder(name) {
                Some(inner) => self.uses.contains(&inner),
                None => !self.never.contains(&name) && (self.outside.is_empty() || self.outside.contains(&name)),
            };
            if !allowed {
                refuse(name, "dependency");
            }
        }
        for name in dependencies(manifest, "dev-dependencies") {
            if folder(name).is_some_and(|inner| !self.uses.contains(&inner) && !self.tests_use.contains(&inner)) {
                refuse(name, "dependency of tests");
            }
        }
    }
}

/// Every dependency of a member names the workspace's version.
pub(super) fn versions(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in manifests(tree) {
        let Ok(manifest) = text.parse::<Table>() else { continue };
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for (name, value) in manifest.get(kind).and_then(|table| table.as_table()).into_iter().flatten() {
                if value.get("workspace").and_then(toml::Value::as_bool) != Some(true) {
                    let message = format!("`{name}` must be `{name}.workspace = true`; its version goes to the root");
                    findings.push(Finding::new(path, 0, message));
                }
            }
        }
        if manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool) != Some(true) {
            findings.push(Finding::new(path, 0, "must take its lints from the workspace: `[lints] workspace = true`"));
        }
    }
    findings
}

fn manifests(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    tree.texts().filter(|(path, _)| {
        *path == "xtask/Cargo.toml"
            || path
                .strip_prefix("crates/")
                .and_then(|rest| rest.strip_suffix("/Cargo.toml"))
                .is_some_and(|name| !name.contains('/'))
    })
}

fn dependencies<'a>(manifest: &'a Table, kind: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    manifest.get(kind).and_then(|table| table.as_table()).into_iter().flatten().map(|(name, _)| name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str, rest: &str) -> String {
        format!("[package]\nname = \"{name}\"\n[lints]\nworkspace = true\n{rest}")
    }

    #[test]
    fn the_graph_has_no_cycle() {
        // Each crate uses only crates that stand before it.
        for (index, node) in GRAPH.iter().enumerate() {
            for used in node.uses {
                assert!(GRAPH[..index].iter().any(|earlier| earlier.name == *used), "{} uses {used}", node.name);
            }
        }
    }

    #[test]
    fn an_edge_that_is_not_in_the_table_is_found() {
        let good = manifest("windlass-ports", "[dependencies]\nwindlass-core.workspace = true\n");
        assert_eq!(edges(&Tree::of(&[("crates/ports/Cargo.toml", &good)])), []);
        for bad in [
            manifest("windlass-ports", "[dependencies]\nwindlass-runtime.workspace = true\n"),
            manifest("windlass-ports", "[dependencies]\ntokio.workspace = true\n"),
            manifest("windlass-ports", "[dev-dependencies]\nwindlass-stores.workspace = true\n"),
            manifest("windlass-doors", ""),
        ] {
            assert_eq!(edges(&Tree::of(&[("crates/ports/Cargo.toml", &bad)])).len(), 1, "{bad}");
        }
    }

    #[test]
    fn the_core_uses_only_what_is_listed() {
        let bad = manifest("windlass-core", "[dependencies]\nrand.workspace = true\nserde.workspace = true\n");
        assert_eq!(edges(&Tree::of(&[("crates/core/Cargo.toml", &bad)])).len(), 1);
    }

    #[test]
    fn a_crate_outside_the_table_and_a_product_crate_in_xtask_are_found() {
        let new = manifest("windlass-new", "");
        assert_eq!(edges(&Tree::of(&[("crates/new/Cargo.toml", &new)])).len(), 1);
        let task = manifest("xtask", "[dependencies]\nwindlass-core.workspace = true\n");
        assert_eq!(edges(&Tree::of(&[("xtask/Cargo.toml", &task)])).len(), 1);
    }

    #[test]
    fn a_version_in_a_member_is_found() {
        let bad = manifest("windlass-spec", "[dependencies]\nserde = \"1\"\nregex = { workspace = true }\n");
        let findings = versions(&Tree::of(&[("crates/spec/Cargo.toml", &bad)]));
        assert_eq!(findings.len(), 1);
        assert!(findings[0].message.contains("`serde`"));
    }
}
