//! `windlass sim`: clean machines, machines that never end, and the examples.

use std::path::Path;

use crate::kit::Place;

#[test]
fn a_machine_is_clean_under_every_fault() {
    let place = Place::new();
    let ran = place.windlass(&["sim", "asks.yml", "--seeds", "10", "--input", r#"{"topic": "tides"}"#, "--json"]);
    assert_eq!(ran.code(), 0, "{}", ran.shown());
    let report = ran.json();
    assert_eq!((&report["clean"], &report["seeds"]), (&true.into(), &10.into()));
    assert!(!place.path(".windlass").exists(), "a simulation makes no store");
}

#[test]
fn a_seed_is_the_same_each_time() {
    let place = Place::new();
    let play = || {
        let ran = place.windlass(&["sim", "waits.yml", "--seed", "7", "--faults", "crash,zombie", "--json"]);
        let mut report = ran.json();
        report["seconds"] = 0.into();
        (ran.code(), report)
    };
    let first = play();
    assert_eq!((first.0, &first.1["seeds"]), (0, &1.into()));
    assert_eq!(first, play());
}

#[test]
fn faults_and_signals_that_cannot_be_read() {
    let place = Place::new();
    let ran = place.windlass(&["sim", "asks.yml", "--faults", "crash,tea"]);
    assert_eq!(ran.code(), 2);
    assert!(ran.shown().contains("`tea` is no fault"), "{}", ran.shown());
    let ran = place.windlass(&["sim", "asks.yml", "--signal", "go"]);
    assert_eq!(ran.code(), 2);
    assert!(ran.shown().contains("--signal CHANNEL=JSON"), "{}", ran.shown());
}

#[test]
fn the_examples_are_clean() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut folders: Vec<_> =
        std::fs::read_dir(examples).expect("the examples").map(|e| e.expect("entry").path()).collect();
    folders.retain(|folder| folder.join("machine.yml").is_file());
    folders.sort();
    assert!(folders.len() >= 5);
    let place = Place::new();
    for folder in folders {
        let (machine, input) = (folder.join("machine.yml"), format!("@{}", folder.join("input.json").display()));
        let machine = machine.to_str().expect("a path in Unicode");
        let config = folder.join("windlass.toml").display().to_string();
        let ran = place.windlass(&["sim", machine, "--config", &config, "--seeds", "5", "--input", &input, "--json"]);
        assert_eq!(ran.code(), 0, "{machine}: {}", ran.shown());
    }
}
