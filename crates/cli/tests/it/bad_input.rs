//! Every way to be wrong: a typed error that says where and what to do, the right exit code, and no half-made store.

use crate::kit::{Place, assert_shown};

#[test]
fn a_missing_machine() {
    assert_shown!(Place::new().windlass(&["run", "gone.yml"]));
}

#[test]
fn a_machine_with_several_mistakes() {
    let place = Place::new();
    place.write(
        "broken.yml",
        "spec: flatmachine\nspec_version: \"4.2.1\"\ndata:\n  name: broken\n  statess: {}\n  states:\n    a:\n      type: initial\n      agent: nobody\n      transitions:\n        - to: nowhere\n",
    );
    let ran = place.windlass(&["validate", "broken.yml"]);
    assert_eq!(ran.code(), 2);
    assert!(ran.json()["errors"].as_u64().is_some_and(|n| n >= 3), "{}", ran.shown());
    assert_shown!(ran);
    assert_eq!(place.windlass(&["run", "broken.yml"]).code(), 2);
    assert!(!place.path(".windlass").exists(), "a refused machine makes no store");
}

#[test]
fn a_machine_that_is_a_folder() {
    let place = Place::new();
    std::fs::create_dir(place.path("folder")).expect("folder");
    for (path, file) in [("folder", "folder"), (".", ".")] {
        let ran = place.windlass(&["run", path]);
        assert_eq!((ran.code(), &ran.json()["error"]["diagnostics"][0]["file"]), (2, &file.into()), "{}", ran.shown());
    }
}

#[test]
fn an_input_that_is_no_json() {
    assert_shown!(Place::new().windlass(&["run", "asks.yml", "--input", "{\"topic\":"]));
}

#[test]
fn an_input_that_is_no_mapping() {
    let place = Place::new();
    for (input, found) in [("\"str\"", "a text"), ("[1]", "a list"), ("null", "null")] {
        let ran = place.windlass(&["run", "asks.yml", "--input", input]);
        assert_eq!((ran.code(), &ran.json()["error"]["code"]), (2, &"cli.invalid".into()), "{}", ran.shown());
        assert!(ran.stderr().contains(&format!("the input is a mapping, not {found}")), "{}", ran.shown());
    }
    assert!(!place.path(".windlass").exists(), "a refused input makes no store");
}

#[test]
fn an_input_file_that_is_not_there() {
    assert_shown!(Place::new().windlass(&["run", "asks.yml", "--input", "@gone.json"]));
}

#[test]
fn an_input_file_that_is_not_utf8() {
    let place = Place::new();
    std::fs::write(place.path("bytes.json"), b"{\"a\":\"\xff\"}").expect("file");
    assert_shown!(place.windlass(&["run", "asks.yml", "--input", "@bytes.json"]));
}

#[test]
fn an_input_beyond_the_limit() {
    let place = Place::new();
    let text = format!("\"{}\"", "x".repeat(64 * 1024 * 1024));
    place.write("large.json", &text);
    let ran = place.windlass(&["run", "asks.yml", "--input", "@large.json"]);
    assert_shown!(ran);
}

#[test]
fn an_input_that_is_larger_in_memory_than_as_text() {
    let place = Place::new();
    place.write("large.json", &format!("{{\"a\":[{}1]}}", "1,".repeat(8 * 1024 * 1024)));
    let ran = place.windlass(&["run", "asks.yml", "--input", "@large.json"]);
    assert_eq!((ran.code(), &ran.json()["error"]["code"]), (2, &"run.too_large".into()), "{}", ran.shown());
    assert!(ran.stderr().contains("bytes in memory"), "{}", ran.shown());
}

#[test]
fn a_large_input_within_the_limit() {
    let place = Place::new();
    place.write("large.json", &format!("{{\"order\":1,\"data\":\"{}\"}}", "x".repeat(20 * 1024 * 1024)));
    let ran = place.windlass(&["run", "waits.yml", "--input", "@large.json", "--quiet"]);
    assert_eq!(ran.code(), 7, "{}", ran.shown());
    assert_eq!(place.windlass(&["fsck"]).code(), 0);
}

#[test]
fn an_unknown_run() {
    let place = Place::new();
    assert_shown!(place.windlass(&["resume", "nobody"]));
    for args in [
        ["runs", "show", "nobody"],
        ["runs", "journal", "nobody"],
        ["runs", "watch", "nobody"],
        ["runs", "cancel", "nobody"],
        ["runs", "pause", "nobody"],
        ["runs", "retry", "nobody"],
    ] {
        assert_eq!(place.windlass(&args).code(), 4, "{args:?}");
    }
    assert_eq!(place.windlass(&["verify", "nobody"]).code(), 4);
    assert!(!place.path(".windlass").exists(), "looking makes no store");
    place.windlass(&["run", "asks.yml", "--input", "{}"]);
    assert_eq!(place.windlass(&["resume", "nobody"]).code(), 4);
    assert_eq!(place.windlass(&["signal", "x", "--run", "nobody"]).code(), 4);
}

#[test]
fn a_store_that_cannot_be_written() {
    let place = Place::new();
    place.write("file", "");
    assert_shown!(place.windlass(&["run", "asks.yml", "--input", "{}", "--store", "sqlite:file/windlass.db"]));
}

#[test]
fn a_store_that_is_no_database() {
    let place = Place::new();
    place.write("w.db", &"no database ".repeat(1000));
    for args in [&["fsck"][..], &["runs", "list"], &["runs", "show", "x"]] {
        let ran = place.windlass(&[args, &["--store", "sqlite:w.db"]].concat());
        assert_eq!((ran.code(), &ran.json()["error"]["code"]), (6, &"store.corrupt".into()), "{}", ran.shown());
        assert!(!ran.stderr().contains("windlass fsck"), "{}", ran.shown());
    }
}

#[test]
fn a_named_store_that_is_not_there() {
    let place = Place::new();
    let store = format!("sqlite:{}", place.path("none/w.db").display());
    for args in [&["runs", "list"][..], &["runs", "show", "x"], &["replay", "x"], &["fsck"]] {
        let ran = place.windlass(&[args, &["--store", &store]].concat());
        assert_eq!(ran.code(), 4, "{}", ran.shown());
        assert!(ran.stderr().contains("there is no store at"), "{}", ran.shown());
    }
    assert!(!place.path("none").exists(), "looking makes no store");
    let fresh = place.windlass(&["runs", "list"]);
    assert_eq!((fresh.code(), fresh.json()["runs"].as_array().map(Vec::len)), (0, Some(0)), "{}", fresh.shown());
    assert!(fresh.stderr().contains("note: there is no store"), "{}", fresh.shown());
}

#[test]
fn a_store_of_another_kind() {
    assert_shown!(Place::new().windlass(&["run", "asks.yml", "--input", "{}", "--store", "floppy:a"]));
}

#[test]
fn a_key_that_the_configuration_does_not_have() {
    let place = Place::new();
    place.write("windlass.toml", "[worker]\nthreads = 2\nthraeds = 3\n");
    assert_shown!(place.windlass(&["runs", "list"]));
}

#[test]
fn a_value_of_the_wrong_type_in_the_environment() {
    let place = Place::new();
    let ran = place.with(&["runs", "list"], |command| {
        command.env("WINDLASS_WORKER__THREADS", "many");
    });
    assert_shown!(ran);
}

#[test]
fn a_run_id_that_cannot_be_one() {
    assert_shown!(Place::new().windlass(&["run", "asks.yml", "--input", "{}", "--run-id", "a b"]));
}

#[test]
fn a_flag_that_does_not_exist() {
    assert_shown!(Place::new().windlass(&["run", "asks.yml", "--inptu", "{}"]));
}

#[test]
fn an_events_file_that_cannot_be_written() {
    assert_shown!(Place::new().windlass(&["run", "asks.yml", "--input", "{}", "--events", "no/such/folder/e.jsonl"]));
}

#[test]
fn keys_are_not_printed() {
    let place = Place::new();
    let ran = place.with(&["diagnostics", "--machine", "asks.yml"], |command| {
        command.env("OPENAI_API_KEY", "sk-very-secret-value");
    });
    assert_eq!(ran.code(), 0);
    assert!(!ran.shown().contains("sk-very-secret"), "{}", ran.shown());
    assert_eq!(ran.json()["machine"]["valid"], true);
}

#[test]
fn a_command_line_that_is_not_understood_is_an_error_document() {
    let place = Place::new();
    for (args, message) in [
        (&["run", "asks.yml", "--inptu", "{}", "--json"][..], "unexpected argument '--inptu' found"),
        (&["runs", "show", "--json"], "the following required arguments were not provided: <RUN>"),
        (&["--json", "rnu"], "unrecognized subcommand 'rnu'"),
        (&["runs", "list", "--limit", "many"], "invalid value 'many' for '--limit"),
    ] {
        let ran = place.windlass(args);
        let document = ran.json();
        assert_eq!((ran.code(), &document["error"]["code"]), (2, &"cli.invalid".into()), "{}", ran.shown());
        let said = document["error"]["message"].as_str().expect("a message");
        assert!(said.starts_with(message) && document["error"]["hint"].is_string(), "{}", ran.shown());
        assert!(ran.stderr().starts_with("error: ") && ran.stderr().contains("--help"), "{}", ran.shown());
    }
    let plain = place.windlass(&["runs", "show", "--plain"]);
    assert_eq!((plain.code(), plain.stdout().as_str()), (2, ""), "{}", plain.shown());
    let help = place.windlass(&["runs", "show", "--help", "--json"]);
    assert!(help.code() == 0 && help.stdout().contains("Usage:"), "{}", help.shown());
}

#[test]
fn an_input_with_a_repeated_key_or_a_number_that_would_lose_digits() {
    let place = Place::new();
    for (input, message) in [
        ("{\"topic\": 1,\n \"topic\": 2}", "the key `topic` is given twice at line 2 column 8"),
        ("{\"topic\": 12345678901234567890}", "12345678901234567890 at line 1 column 11 cannot be kept exactly"),
    ] {
        place.write("input.json", input);
        for given in [input, "@input.json"] {
            let ran = place.windlass(&["run", "asks.yml", "--input", given]);
            assert_eq!((ran.code(), &ran.json()["error"]["code"]), (2, &"cli.invalid".into()), "{}", ran.shown());
            assert!(ran.stderr().contains(message) && ran.stderr().contains("hint:"), "{}", ran.shown());
        }
        let signal = place.windlass(&["signal", "channel", "--data", input]);
        assert_eq!(signal.code(), 2, "{}", signal.shown());
        assert!(signal.stderr().contains(message), "{}", signal.shown());
    }
    assert!(!place.path(".windlass").exists(), "a refused input makes no store");
}

#[test]
fn a_template_that_fails_names_its_file_state_and_field() {
    let place = Place::new();
    place.write(
        "adds.yml",
        "spec: flatmachine\nspec_version: \"4.2.1\"\ndata:\n  name: adds\n  states:\n    sum:\n      type: final\n      output:\n        parts: [1, \"{{ input.a + 1 }}\"]\n",
    );
    let ran = place.windlass(&["run", "adds.yml", "--input", "{\"a\":\"one\"}"]);
    let error = &ran.json()["error"];
    assert_eq!((ran.code(), &error["code"]), (3, &"template.type".into()), "{}", ran.shown());
    let message = error["message"].as_str().expect("a message");
    assert!(message.starts_with("adds.yml: state sum: output.parts[1]: "), "{message}");
    assert!(error["detail"]["hint"].is_string() && ran.stderr().contains("hint"), "{}", ran.shown());
}

#[test]
fn quiet_leaves_no_warnings() {
    let place = Place::new();
    let mut command = crate::kit::command(place.path("").as_path());
    command.args(["runs", "list", "--all", "-q"]).env("WINDLASS_NO_SUCH_KEY", "1");
    let ran = command.output().expect("runs");
    assert!(!String::from_utf8_lossy(&ran.stderr).contains("WARN"), "{}", String::from_utf8_lossy(&ran.stderr));
}
