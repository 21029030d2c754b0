//! The help of every command, as one snapshot each.

use crate::kit::Place;

fn subcommands(help: &str) -> Vec<String> {
    let Some((_, rest)) = help.split_once("Commands:\n") else { return Vec::new() };
    rest.lines()
        .take_while(|line| line.starts_with("  "))
        .filter(|line| !line.starts_with("     "))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect()
}

fn check(place: &Place, path: &[String]) {
    let mut args: Vec<&str> = path.iter().map(String::as_str).collect();
    args.push("--help");
    let ran = place.windlass(&args);
    assert_eq!((ran.code(), ran.stderr()), (0, String::new()), "{path:?}");
    let name = if path.is_empty() { "windlass".to_owned() } else { path.join(" ") };
    insta::with_settings!({ omit_expression => true, snapshot_suffix => name.replace(' ', "-") }, {
        insta::assert_snapshot!("help", ran.stdout());
    });
    for sub in subcommands(&ran.stdout()) {
        let mut below = path.to_vec();
        below.push(sub);
        check(place, &below);
    }
}

#[test]
fn every_command_explains_itself() {
    check(&Place::new(), &[]);
}

#[test]
fn the_version_is_one_line() {
    let ran = Place::new().windlass(&["--version"]);
    assert_eq!(ran.code(), 0);
    assert!(ran.stdout().starts_with("windlass "));
}
