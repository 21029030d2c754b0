//! The operator's own secrets: set, listed with what names them, rotated, removed; never shown.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::kit::{Place, Ran};

const VALUE: &str = "canary-41c9d0";

fn told(place: &Place, args: &[&str], value: &str) -> Ran {
    let ran = place.with(args, |command| {
        command.env("VALUE", value).env("USER", "olga").env("WINDLASS_STORE", place.store());
    });
    assert!(!ran.shown().contains(VALUE), "{}", ran.shown());
    ran
}

fn place() -> Place {
    let place = Place::new();
    place.write(
        "windlass.toml",
        "[providers.openai]\nkey_secret = \"model\"\n[tools.look]\ntype = \"http\"\nclass = \"read\"\n\
         url = \"http://127.0.0.1:1/\"\nsecret_headers = { x = \"secret:crm\", y = \"env:NOBODY_SET_IT\" }\n",
    );
    place.write("agent.yml", "profile: {api_key: secret:model}\n");
    place
}

#[test]
fn a_secret_is_set_listed_rotated_and_removed() {
    let place = place();
    let windlass = |args: &[&str]| told(&place, args, VALUE);
    let set = windlass(&["secrets", "set", "crm", "--from-env", "VALUE"]);
    assert_eq!((set.code(), &set.json()["version"]), (0, &json!(1)), "{}", set.shown());
    assert_eq!(windlass(&["secrets", "set", "crm", "--from-env", "VALUE"]).code(), 4, "it is there already");
    let mode = std::fs::metadata(place.path(".windlass/secrets.json")).expect("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let listed = windlass(&["secrets", "list"]).json();
    let by = |reference: &str| {
        let all = listed["secrets"].as_array().expect("secrets");
        all.iter().find(|secret| secret["reference"] == reference).expect("listed").clone()
    };
    assert_eq!(by("secret:crm")["used_by"], json!(["tools.look.secret_headers.x"]));
    assert_eq!((&by("secret:crm")["state"], &by("secret:model")["state"]), (&json!("set"), &json!("missing")));
    assert_eq!(by("secret:model")["used_by"], json!(["providers.openai.key_secret", "agent.yml"]));
    assert_eq!(by("env:NOBODY_SET_IT")["source"], "environment");
    let rotated = told(&place, &["secrets", "rotate", "crm", "--from-env", "VALUE"], "canary-41c9d0-second");
    assert_eq!(rotated.json()["version"], 2);
    assert_eq!(windlass(&["secrets", "rotate", "crm", "--back"]).json()["version"], 3);
    assert!(windlass(&["secrets", "list", "--plain"]).stdout().contains("secret:crm"));
    assert_eq!(windlass(&["secrets", "rotate", "other", "--from-env", "VALUE"]).code(), 4);
    assert_eq!(windlass(&["secrets", "remove", "crm", "--previous"]).code(), 0);
    assert_eq!(windlass(&["secrets", "rotate", "crm", "--back"]).code(), 2, "nothing to go back to");
    assert_eq!(windlass(&["secrets", "remove", "crm"]).code(), 0);
    let acts = windlass(&["audit", "acts", "--json"]).stdout();
    for act in ["secret.set", "secret.rotate", "secret.remove"] {
        assert!(acts.contains(act) && acts.contains("olga"), "{acts}");
    }
    assert!(acts.contains("came to nothing: cli.not_found"), "what was refused is told apart: {acts}");
    let short = told(&place, &["secrets", "set", "pin", "--from-env", "VALUE"], "4711");
    assert!(short.code() == 0 && short.stderr().contains("less than 8 bytes"), "{}", short.shown());
}

#[test]
fn values_come_in_by_stdin_and_files_and_no_other_way() {
    let place = place();
    place.write("value.txt", "canary-41c9d0-file\n");
    assert_eq!(told(&place, &["secrets", "set", "a", "--file", "value.txt"], "").code(), 0);
    let kept = std::fs::read_to_string(place.path(".windlass/secrets.json")).expect("the file");
    assert!(kept.contains("\"canary-41c9d0-file\""), "without the line break");
    let piped = place.with(&["secrets", "set", "b"], |command| {
        command.stdin(std::fs::File::open(place.path("value.txt")).expect("a file"));
    });
    assert_eq!(piped.code(), 0, "{}", piped.shown());
    assert_eq!(told(&place, &["secrets", "set", "c"], "").code(), 2, "nothing comes in");
    assert_eq!(told(&place, &["secrets", "set", "c", "value"], "").code(), 2, "no argument is a value");
    let file = place.path(".windlass/secrets.json");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("changed");
    let refused = told(&place, &["secrets", "list"], "");
    assert!(refused.code() == 2 && refused.shown().contains("chmod 600"), "{}", refused.shown());
}

#[test]
fn commands_tell_secrets_and_none_of_what_they_say_is_shown() {
    let place = Place::new();
    let config = "[tools.crm]\ntype = \"http\"\nurl = \"http://127.0.0.1:1/\"\nclass = \"read\"\n\
                  secret_headers = { x-api-key = \"secret:crm\" }\n\
                  [secrets.commands]\ncrm = [\"sh\", \"-c\", \"echo canary-5e1; echo canary-5e1 >&2\"]\n\
                  unused = [\"sh\", \"-c\", \"echo secret:canary-5e1; exit 7\"]\n\
                  binary = [\"printf\", \"canary-5e1\\\\377\"]\n";
    place.write("windlass.toml", config);
    let row = |listed: &serde_json::Value, name: &str| {
        let rows = listed["secrets"].as_array().expect("rows").clone();
        rows.into_iter().find(|row| row["reference"] == format!("secret:{name}")).expect("a row")
    };
    let listed = place.windlass(&["secrets", "list"]);
    assert_eq!(listed.code(), 0, "{}", listed.shown());
    let crm = row(&listed.json(), "crm");
    assert_eq!((&crm["source"], &crm["state"]), (&json!("command"), &json!("asked")), "nothing is run");
    assert_eq!(crm["used_by"], json!(["tools.crm.secret_headers.x-api-key"]));
    let checked = place.windlass(&["secrets", "list", "--check"]);
    assert_eq!(checked.code(), 3, "{}", checked.shown());
    assert_eq!(row(&checked.json(), "crm")["state"], "told");
    let failed = row(&checked.json(), "unused");
    assert_eq!((&failed["state"], &failed["why"]), (&json!("not told"), &json!("`sh` ended with exit status: 7")));
    assert_eq!(row(&checked.json(), "binary")["why"], "`printf` says what is no text");
    assert!(!checked.shown().contains("canary-5e1"), "{}", checked.shown());
    place.write("value.txt", "another-value\n");
    let set = place.windlass(&["secrets", "set", "crm", "--file", "value.txt"]);
    assert_eq!(set.code(), 2, "{}", set.shown());
    for (lines, key) in [("crm = []\n", "secrets.commands.crm"), ("\"a b\" = [\"true\"]\n", "secrets.commands.a b")] {
        place.write("windlass.toml", &format!("[secrets.commands]\n{lines}"));
        let refused = place.windlass(&["secrets", "list"]);
        assert_eq!(refused.code(), 2, "{}", refused.shown());
        assert!(refused.stderr().contains(key), "{}", refused.shown());
    }
    place.write("windlass.toml", "preset = \"prod-safe\"\n[secrets.commands]\ncrm = [\"true\"]\n");
    assert_eq!(place.windlass(&["secrets", "list"]).code(), 0, "the operator wrote it");
}
