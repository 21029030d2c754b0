//! Executes the pages of `docs/operations` against the failures that they are about: a page that goes stale fails.

pub(crate) mod book;
mod scenes;

use std::collections::BTreeSet;

use book::{Book, folder};

/// Pages whose commands are executed here, each by a test of its own.
const PLAYED: [&str; 7] =
    ["README.md", "database-failover.md", "poisoned-work.md", "restore.md", "slo.md", "stuck-runs.md", "upgrade.md"];

#[test]
fn every_page_with_commands_is_executed() {
    let pages: BTreeSet<String> = std::fs::read_dir(folder())
        .expect("docs/operations")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .filter(|name| !Book::read(name).sections.iter().all(|section| section.steps.is_empty()))
        .collect();
    assert_eq!(pages, PLAYED.into_iter().map(str::to_owned).collect());
}

#[test]
fn the_overview() {
    scenes::overview(&Book::read("README.md"));
}

#[test]
fn stuck_runs() {
    scenes::stuck_runs(&Book::read("stuck-runs.md"));
}

#[test]
fn poisoned_work() {
    scenes::poisoned_work(&Book::read("poisoned-work.md"));
}

#[test]
fn restore() {
    scenes::restore(&Book::read("restore.md"));
}

#[test]
fn upgrade() {
    scenes::upgrade(&Book::read("upgrade.md"));
}

#[test]
fn the_service_level() {
    scenes::service_level(&Book::read("slo.md"));
}

#[test]
fn database_failover() {
    scenes::database_failover(&Book::read("database-failover.md"));
}
