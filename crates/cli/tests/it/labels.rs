//! The page about labels, as it stands: its files are written, its commands are run, and what it says happens.

use std::collections::BTreeMap;

use crate::kit::Place;

/// The files of the page: fenced blocks whose fence names a file.
fn files() -> BTreeMap<String, String> {
    let page = include_str!("../../../../docs/labels.md");
    let mut files = BTreeMap::new();
    for block in page.split("\n```") {
        let (fence, body) = block.split_once('\n').unwrap_or((block, ""));
        if let Some((_, name)) =
            fence.split_once(' ').filter(|(language, _)| ["cedar", "toml", "yaml"].contains(language))
        {
            files.insert(name.to_owned(), format!("{body}\n"));
        }
    }
    files
}

fn desk(sinks: bool) -> Place {
    let place = Place::new();
    std::fs::create_dir_all(place.path("policies")).expect("a folder");
    let files = files();
    assert_eq!(files.len(), 4, "{:?}", files.keys());
    for (name, text) in files {
        let keeps = |rule: &&str| sinks || !rule.contains("forbid");
        let text = match name.ends_with(".cedar") {
            true => text.split("\n\n").filter(keeps).collect::<Vec<_>>().join("\n\n"),
            false => text,
        };
        place.write(&name, &text);
    }
    place
}

fn run(place: &Place, id: &str, task: &str) -> i32 {
    place
        .windlass(&["run", "desk.yml", "--run-id", id, "--input", &format!("{{\"task\": \"Read the {task}.\"}}")])
        .code()
}

#[test]
fn the_page_about_labels_says_what_happens() {
    let place = desk(true);
    assert_eq!(run(&place, "mail", "mail"), 7, "it waits for a person");
    let why = place.windlass(&["policy", "why", "mail", "--plain"]).shown();
    assert!(
        why.contains("asks by `outsiders.ask`") && why.contains("untrusted by tool `read_mail` in step 1"),
        "{why}"
    );
    run(&place, "key", "key");
    let why = place.windlass(&["policy", "why", "key"]).json().to_string();
    assert!(why.contains("\"rule\":\"no.secrets\"") && why.contains("\"name\":\"read_key\""), "{why}");
    assert!(!place.path("sent.txt").exists(), "nothing was sent");
    let asked = ["policy", "why", "--tool", "send_mail", "--label", "secret"];
    assert_eq!(place.windlass(&asked).json()["rule"], "no.secrets");
    // Without the two rules.
    let place = desk(false);
    run(&place, "mail", "mail");
    run(&place, "key", "key");
    let sent = std::fs::read_to_string(place.path("sent.txt")).expect("mails");
    assert!(sent.contains("evil") && sent.contains("Y2FuYXJ5LTVmMjFjMGZmZWU="), "{sent}");
}
