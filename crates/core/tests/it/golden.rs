//! The stored formats: files written by this and every later build must load and say the same.
//!
//! `UPDATE_EXPECT=1` writes the files of the present format. A change to an existing one is a change of format.

use std::path::{Path, PathBuf};

use windlass_core::journal::{DecodeError, Record};
use windlass_core::run::Run;
use windlass_core::{apply, snapshot};

use super::scenario::Bench;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// A run that records as many kinds of entry as one run can.
fn specimen() -> Bench {
    let machine = r##"
spec: flatmachine
spec_version: 4.2.1
data:
  name: specimen
  context: {q: "{{ input.q }}"}
  settings: {tools: [tag]}
  machines:
    c: {spec: flatmachine, spec_version: 4.2.1, data: {name: c, states: {s: {type: final}}}}
  agents:
    a: {spec: flatagent, spec_version: 4.2.1, data: {prompt: {system: S, user: "{{ input.q }}"}, profile: main}}
  states:
    ask: {type: initial, agent: a, hooks: h, tool_loop: true, input: {q: context.q}, output_to_context: {r: output}, on_error: call, transitions: [{to: call}]}
    call: {machine: c, transitions: [{to: park}]}
    park: {wait_for: ch, timeout: 60, transitions: [{to: end}]}
    end: {type: final, output: {r: context.r}}
"##;
    let profiles = "spec: flatprofile\nspec_version: 4.2.1\ndata:\n  default: main\n  model_profiles:\n    main: {name: small, provider: scripted, max_tokens: 100}\n";
    let tools = r#"[{"name":"tag","description":"tags","input_schema":null,"output_schema":null,"class":"write","idempotency":"none","on_unknown":"ask","timeout_ms":1000,"output_bytes_max":1000}]"#;
    let files = [("machine.yml", machine), ("profiles.yml", profiles), ("tools.json", tools)];
    Bench::new(files.into_iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect())
}

#[test]
fn golden_records_and_snapshots_load_and_replay() {
    let folder = folder();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        write(&folder);
    }
    let text = std::fs::read_to_string(folder.join("v1-records.jsonl")).expect("golden records");
    let mut run: Option<Run> = None;
    for line in text.lines() {
        let record = Record::decode(line.as_bytes()).expect("a golden record loads");
        assert_eq!(String::from_utf8(record.encode()).expect("text"), line, "what is read is written the same");
        for entry in &record.entries {
            if let windlass_core::journal::Entry::RunStarted(start) = entry {
                run.get_or_insert_with(|| Run::blank((**start).clone()));
            }
        }
        let run = run.as_mut().expect("the first record starts the run");
        for entry in &record.entries {
            apply(run, entry);
        }
    }
    // `Decided` precedes `RunStarted`, so the blank run misses nothing but is made within the first record.
    let stored = std::fs::read(folder.join("v1-snapshot.json")).expect("the golden snapshot");
    let loaded = snapshot::decode(stored.trim_ascii_end()).expect("the golden snapshot loads");
    assert_eq!(Some(&loaded), run.as_ref());
    assert_eq!(snapshot::encode(&loaded), stored.trim_ascii_end());
}

fn write(folder: &Path) {
    let mut bench = specimen();
    for line in [
        r#"start {"q":"hi"} {"tokens":100000,"wall_ms":600000}"#,
        "return #2 null",
        r#"return #3 {"tools":[{"type":"function","function":{"name":"look","parameters":{}}}]}"#,
        r#"reply #4 tools [{"id":"c1","name":"tag","arguments":{"t":1}},{"id":"c2","name":"nope","arguments":{}}]"#,
        "return #5 null",
        "lost #6 maybe",
        r#"signal #7 {"happened":false}"#,
        r#"return #6 "tagged""#,
        r#"return #8 {"context":{"q":"hi","_steering_messages":[{"role":"user","content":"hurry"}]}}"#,
        "reply #9 done",
        "return #10 null",
        "return #11 null",
        r#"child ~2.0 completed {"ok":true}"#,
        "pause lunch",
    ] {
        bench.line(line);
    }
    let records: Vec<String> =
        bench.records.iter().map(|bytes| String::from_utf8(bytes.clone()).expect("text")).collect();
    std::fs::create_dir_all(folder).expect("the golden folder");
    std::fs::write(folder.join("v1-records.jsonl"), records.join("\n") + "\n").expect("golden records");
    let mut bytes = snapshot::encode(&bench.run);
    bytes.push(b'\n');
    std::fs::write(folder.join("v1-snapshot.json"), bytes).expect("the golden snapshot");
}

#[test]
fn a_newer_format_is_named_and_refused() {
    let newer = br#"{"v":99,"version":1,"entries":["something_new"]}"#;
    assert!(matches!(Record::decode(newer), Err(DecodeError::Newer { found: 99 })));
    assert!(matches!(snapshot::decode(br#"{"v":99,"run":{}}"#), Err(DecodeError::Newer { found: 99 })));
    assert!(matches!(Record::decode(b"{"), Err(DecodeError::Malformed(_))));
}
