//! Encryption as it is configured: keys, their rotation, what is said when they do not fit, and that nothing that was said
//! is in a file.

use std::path::Path;

use serde_json::json;

use crate::kit::{Place, Ran};

const SAID: &str = "Zq7Xk9Vw3JpL5mRt8N";
const SECRET: &str = "Yb4Hd2Gs6FnCz1Tq0P";
const ONE: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const TWO: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

const MACHINE: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: echo
  context: {said: input.said}
  states:
    one:
      type: initial
      action: repeat
      output_to_context: {said: output.said}
      transitions: [{to: wait}]
    wait:
      wait_for: "go"
      transitions: [{to: done}]
    done: {type: final, output: {said: "{{ context.said }}"}}
"#;

const ACTION: &str = "[actions.repeat]\ntype = \"command\"\ncommand = [\"sh\", \"-c\", \"cat > /dev/null; echo '{\\\"output\\\": \
                      {\\\"said\\\": \\\"Zq7Xk9Vw3JpL5mRt8N\\\"}}'\"]\nclass = \"read\"\n";

fn place(encryption: &str) -> Place {
    let place = Place::new();
    place.write("echo.yml", MACHINE);
    configure(&place, encryption);
    place
}

fn configure(place: &Place, encryption: &str) {
    place.write("windlass.toml", &format!("{encryption}\n{ACTION}"));
}

fn run(place: &Place, args: &[&str]) -> Ran {
    place.with(args, |command| {
        command.env("KEY_ONE", ONE).env("KEY_TWO", TWO).env("VALUE", SECRET).env("WINDLASS_STORE", place.store());
    })
}

fn work(place: &Place, id: &str) {
    let input = json!({ "said": SAID }).to_string();
    let ran = run(place, &["run", "echo.yml", "--run-id", id, "--input", &input, "--wait", "0s"]);
    assert_eq!(ran.code(), 7, "{}", ran.shown());
}

/// What is found of what was said in the files of the store.
fn found(place: &Place) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![place.path("").to_path_buf()];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(&folder).expect("a folder").flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if holds(&path) {
                found.push(path.file_name().expect("a name").to_string_lossy().into_owned());
            }
        }
    }
    found.retain(|name| !matches!(&**name, "windlass.toml" | "echo.yml"));
    found.sort();
    found
}

fn holds(path: &Path) -> bool {
    let bytes = std::fs::read(path).unwrap_or_default();
    [SAID, SECRET].iter().any(|text| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
}

const WITH_ONE: &str = "[encryption]\nkey = \"one\"\n[encryption.keys]\none = \"env:KEY_ONE\"";
const WITH_BOTH: &str = "[encryption]\nkey = \"two\"\n[encryption.keys]\none = \"env:KEY_ONE\"\ntwo = \"env:KEY_TWO\"";
const WITH_TWO: &str = "[encryption]\nkey = \"two\"\n[encryption.keys]\ntwo = \"env:KEY_TWO\"";

#[test]
fn nothing_that_was_said_is_in_a_file_of_an_encrypted_store() {
    for (config, expected) in [("", true), (WITH_ONE, false)] {
        let place = place(config);
        work(&place, "a");
        assert_eq!(run(&place, &["secrets", "set", "crm", "--from-env", "VALUE"]).code(), 0);
        assert_eq!(run(&place, &["store", "backup", "copy.backup"]).code(), 0);
        let found = found(&place);
        if expected {
            for name in ["windlass.db", "secrets.json", "copy.backup"] {
                assert!(found.contains(&name.to_owned()), "the search finds what is there: {found:?}");
            }
        } else {
            assert_eq!(found, Vec::<String>::new());
        }
        let shown = run(&place, &["runs", "show", "a"]);
        assert!(shown.code() == 0 && shown.stdout().contains(SAID), "{}", shown.shown());
        assert_eq!(run(&place, &["verify", "a"]).code(), 0);
        assert_eq!(run(&place, &["fsck"]).json(), json!({"ok": true, "findings": []}));
        assert_eq!(run(&place, &["audit", "verify"]).code(), 0);
    }
}

#[test]
fn a_store_is_encrypted_and_its_key_is_replaced() {
    let place = place("");
    work(&place, "a");
    assert_eq!(run(&place, &["secrets", "set", "crm", "--from-env", "VALUE"]).code(), 0);
    assert_eq!(run(&place, &["store", "status"]).json()["encryption"]["state"], "none");
    assert_eq!(run(&place, &["store", "rekey"]).code(), 2, "there is no key");

    configure(&place, WITH_ONE);
    let refused = run(&place, &["runs", "list"]);
    assert_eq!((refused.code(), &refused.json()["error"]["code"]), (4, &json!("cli.key")), "{}", refused.shown());
    assert!(refused.stdout().contains("windlass store rekey"), "{}", refused.shown());
    assert_eq!(run(&place, &["secrets", "list"]).code(), 4);
    // What is done before a store is encrypted works.
    for args in [&["workers"][..], &["store", "status"], &["store", "backup", "before.backup"]] {
        let ran = run(&place, args);
        assert_eq!(ran.code(), 0, "{args:?}: {}", ran.shown());
        assert!(ran.shown().contains("`windlass store rekey` encrypts it"), "{args:?}: {}", ran.shown());
    }
    std::fs::remove_file(place.path("before.backup")).expect("removed");
    let rekeyed = run(&place, &["store", "rekey"]);
    assert!(rekeyed.shown().contains("secrets of every other host"), "{}", rekeyed.shown());
    let value = rekeyed.json();
    assert_eq!(rekeyed.code(), 0, "{}", rekeyed.shown());
    assert_eq!((&value["key"], &value["from_plain"], &value["secrets"]), (&json!("one"), &json!(true), &json!(true)));
    assert_eq!(value["remains"], json!(null), "{value}");
    assert_eq!(found(&place), Vec::<String>::new());
    assert_eq!(run(&place, &["secrets", "list"]).json()["secrets"][0]["state"], "set");
    assert!(run(&place, &["audit", "acts"]).stdout().contains("store.rekey"));

    configure(&place, "");
    let refused = run(&place, &["runs", "show", "a"]);
    assert_eq!(refused.code(), 4, "{}", refused.shown());
    assert!(refused.stdout().contains("encrypted with key `one`, and there are no keys"), "{}", refused.shown());
    configure(&place, WITH_TWO);
    let refused = run(&place, &["runs", "show", "a"]);
    assert!(refused.stdout().contains("key `one`, which is not among the keys"), "{}", refused.shown());

    configure(&place, WITH_BOTH);
    work(&place, "b");
    let status = run(&place, &["store", "status", "--keys"]).json();
    let counted = status["encryption"]["values"].as_array().expect("counted").clone();
    assert_eq!((&counted[0]["key"], &counted[1]["key"], counted.len()), (&json!("one"), &json!("two"), 2), "{status}");
    let rekeyed = run(&place, &["store", "rekey"]).json();
    assert_eq!((&rekeyed["retired"], &rekeyed["from_plain"]), (&json!(["one"]), &json!(false)));
    configure(&place, WITH_TWO);
    for id in ["a", "b"] {
        assert!(run(&place, &["runs", "show", id]).stdout().contains(SAID));
        assert_eq!(run(&place, &["signal", "go", "--run", id]).code(), 0);
        assert_eq!(run(&place, &["resume", id]).code(), 0);
    }
    assert_eq!(run(&place, &["secrets", "list"]).json()["secrets"][0]["state"], "set");
    assert_eq!(run(&place, &["fsck"]).json(), json!({"ok": true, "findings": []}));
}

#[test]
fn keys_that_are_none_are_refused_and_not_shown() {
    let cases = [
        ("key = \"a\"", "there is no key `a`"),
        ("[encryption.keys]\na = \"env:KEY_ONE\"", "none is chosen"),
        ("key = \"a\"\n[encryption.keys]\na = \"env:NOBODY_SET_IT\"", "`NOBODY_SET_IT` is not set"),
        ("key = \"a\"\n[encryption.keys]\na = \"env:VALUE\"", "neither base64 nor hexadecimal"),
        ("key = \"a\"\n[encryption.keys]\na = \"file:short\"", "has 16 bytes, and a key has 32"),
        ("key = \"a\"\n[encryption.keys]\na = \"secret:a\"", "cannot hold them"),
        ("key = \"a\"\n[encryption.keys]\na = \"Ux3Bv8Ke\"", "never the key itself"),
    ];
    for (config, said) in cases {
        let place = place(&format!("[encryption]\n{config}"));
        place.write("short", &ONE[..32]);
        let closed = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(place.path("short"), closed).expect("closed");
        let refused = run(&place, &["runs", "list"]);
        assert_eq!(refused.code(), 2, "{config}: {}", refused.shown());
        assert_eq!(refused.json()["error"]["code"], "cli.config");
        assert!(refused.stdout().contains(said), "{config}: {}", refused.shown());
        assert!(!refused.shown().contains(&ONE[..32]) && !refused.shown().contains(SECRET), "{}", refused.shown());
        assert!(!place.path(".windlass/windlass.db").exists() && found(&place).is_empty(), "nothing was made");
    }
}
