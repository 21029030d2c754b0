//! What `deploy/` and `docs/operations/` tell people to type is what this command line takes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Parser;
use clap::error::ErrorKind;
use serde_json::Value as Json;

use super::{Cli, Command};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn takes(words: &[String], place: &str) -> Cli {
    let words = std::iter::once("windlass").chain(words.iter().map(String::as_str));
    Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{place}: {error}"))
}

fn texts(list: &Json) -> Vec<String> {
    let list = list.as_array().unwrap_or_else(|| panic!("{list} is no list"));
    list.iter().map(|word| word.as_str().expect("a text").to_owned()).collect()
}

/// The words of a line as a shell takes them; none of a line that holds more than one command.
fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for letter in line.chars() {
        match (quote, letter) {
            (Some(open), letter) if open == letter => quote = None,
            (Some('\''), letter) => word.get_or_insert_default().push(letter),
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (_, '$' | '`') | (None, '|' | '&' | ';' | '>' | '<' | '(') => return None,
            (None, ' ') => words.extend(word.take()),
            (_, letter) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    Some(words)
}

#[test]
fn the_topology_is_what_the_command_line_takes() {
    let compose: Json = serde_saphyr::from_str(&read(&root().join("deploy/compose.yaml"))).expect("YAML");
    let services = compose["services"].as_object().expect("services");
    let ours = services.iter().filter(|(_, service)| service["image"] == "windlass");
    let mut roles = Vec::new();
    for (name, service) in ours {
        assert_eq!(service["environment"]["WINDLASS_PRESET"], "prod-safe", "{name}");
        assert_eq!(service["build"]["dockerfile"], "deploy/Dockerfile", "{name}");
        match takes(&texts(&service["command"]), name).command {
            Command::Serve(serve) => roles.push(serve.role.as_str()),
            Command::Worker(_) => roles.push("worker"),
            Command::Store(super::Store::Migrate(_)) => roles.push("migrate"),
            other => panic!("{name}: {other:?}"),
        }
    }
    roles.sort_unstable();
    assert_eq!(roles, ["migrate", "reaper", "server", "worker"]);
    assert_eq!(services["worker"]["deploy"]["replicas"], 2);
    for service in ["server", "worker", "reaper"] {
        let after = &services[service]["depends_on"]["migrate"]["condition"];
        assert_eq!(after, "service_completed_successfully", "{service}");
    }
    let store = services["server"]["environment"]["WINDLASS_STORE"].as_str().expect("a store");
    assert!(store.contains("${WINDLASS_DB_PASSWORD:?"), "no password is written down: {store}");
}

#[test]
fn the_image_starts_what_the_command_line_takes() {
    let text = read(&root().join("deploy/Dockerfile"));
    let instruction = |name: &str| -> Vec<&str> {
        text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).collect()
    };
    let list = |name: &str| -> Vec<String> {
        let found = instruction(name);
        assert_eq!(found.len(), 1, "{name}");
        texts(&serde_json::from_str(found[0]).expect("a list"))
    };
    assert_eq!(list("ENTRYPOINT"), ["/usr/local/bin/windlass"]);
    assert!(matches!(takes(&list("CMD"), "CMD").command, Command::Serve(_)));
    assert_eq!(instruction("FROM").len(), 2, "the compiler is not in the image");
    assert_eq!(instruction("USER"), ["65532:65532"], "not root");
    let release = concat!("FROM rust:", env!("CARGO_PKG_RUST_VERSION"), "-");
    assert!(text.contains(release), "the compiler is the one that the workspace asks for: {release}");
}

#[test]
fn the_pages_for_operators_name_commands_that_exist() {
    let folder = root().join("docs/operations");
    let mut seen = 0;
    for entry in std::fs::read_dir(&folder).expect("docs/operations") {
        let path = entry.expect("entry").path();
        let text = read(&path);
        // In a sentence a command may stand without what it needs.
        let blocks = text.lines().filter_map(|line| Some((line.strip_prefix("$ windlass ")?, true)));
        let spans =
            text.split('`').skip(1).step_by(2).filter_map(|span| Some((span.strip_prefix("windlass ")?, false)));
        for (line, is_whole) in blocks.chain(spans) {
            let Some(words) = words(line) else { continue };
            seen += 1;
            match Cli::try_parse_from(std::iter::once("windlass".to_owned()).chain(words)) {
                Err(error) if error.kind() == ErrorKind::DisplayVersion => {}
                Err(error) if !is_whole && error.kind() == ErrorKind::MissingRequiredArgument => {}
                Err(error) => panic!("{}: windlass {line}: {error}", path.display()),
                Ok(_) => {}
            }
        }
    }
    assert!(seen > 30, "{seen} commands were found");
}

#[test]
fn every_alert_names_a_page_that_exists() {
    let rules: Json = serde_saphyr::from_str(&read(&root().join("deploy/alerts.yml"))).expect("YAML");
    let groups = rules["groups"].as_array().expect("groups");
    let alerts: Vec<&Json> = groups.iter().flat_map(|group| group["rules"].as_array().expect("rules")).collect();
    assert!(alerts.len() >= 10);
    for alert in alerts {
        let page = alert["annotations"]["runbook"].as_str().unwrap_or_else(|| panic!("{alert} names no page"));
        assert!(root().join(page).is_file(), "{page}");
    }
}

#[test]
fn every_rule_of_fsck_has_a_section_and_every_section_a_rule() {
    let port = read(&root().join("crates/ports/src/store/upkeep.rs"));
    let (_, rest) = port.split_once("/// The rule broken:").expect("the rules");
    let (listed, _) = rest.split_once("pub rule").expect("the field");
    let rules: BTreeSet<&str> = listed.split('`').skip(1).step_by(2).collect();
    let page = read(&root().join("docs/operations/fsck.md"));
    let sections = page.lines().filter_map(|line| line.strip_prefix("## `")?.strip_suffix('`'));
    assert_eq!(sections.collect::<BTreeSet<_>>(), rules);
}
