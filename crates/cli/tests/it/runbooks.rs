//! Executes the pages of `docs/operations` against the failures that they are about: a page that goes stale fails.

pub(crate) mod book;
mod scenes;

use std::collections::BTreeSet;

use book::{Book, Kind, folder};
use scenes::Scene;

/// Pages whose commands are executed here, each by tests of its own.
const PLAYED: [&str; 7] =
    ["README.md", "database-failover.md", "poisoned-work.md", "restore.md", "slo.md", "stuck-runs.md", "upgrade.md"];

#[test]
fn every_page_with_commands_is_executed() {
    let has_steps = |name: &str, kind| Book::read(name, kind).sections.iter().any(|section| !section.steps.is_empty());
    let pages: BTreeSet<String> = std::fs::read_dir(folder())
        .expect("docs/operations")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .filter(|name| has_steps(name, Kind::Sqlite) || has_steps(name, Kind::Postgres))
        .collect();
    assert_eq!(pages, PLAYED.into_iter().map(str::to_owned).collect());
}

/// Plays a page on the kinds of stores that it is for.
macro_rules! played {
    ($($page:literal => $scene:ident on $($kind:ident as $name:ident),+;)+) => {
        $($(
            #[test]
            fn $name() {
                scenes::$scene(&Scene::new(Kind::$kind), &Book::read($page, Kind::$kind));
            }
        )+)+
    };
}

played! {
    "README.md" => overview on Sqlite as the_overview, Postgres as the_overview_on_postgresql;
    "stuck-runs.md" => stuck_runs on Sqlite as stuck_runs, Postgres as stuck_runs_on_postgresql;
    "restore.md" => restore on Sqlite as restore, Postgres as restore_on_postgresql;
    "upgrade.md" => upgrade on Sqlite as upgrade, Postgres as upgrade_on_postgresql;
    "slo.md" => service_level on Sqlite as the_service_level, Postgres as the_service_level_on_postgresql;
    "poisoned-work.md" => poisoned_work on Sqlite as poisoned_work, Postgres as poisoned_work_on_postgresql;
    "database-failover.md" => database_failover on Postgres as database_failover;
}
