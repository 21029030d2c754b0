//! stdout is the payload and nothing else, for every command, at any log level.

use serde_json::json;

use crate::kit::Place;

#[test]
fn stdout_is_json_at_any_log_level() {
    let place = Place::new();
    let commands: &[&[&str]] = &[
        &["run", "asks.yml", "--input", "{}", "--run-id", "p"],
        &["run", "waits.yml", "--input", "{\"order\":1}", "--run-id", "w"],
        &["resume", "p"],
        &["resume", "gone"],
        &["signal", "nobody/waits"],
        &["runs", "list", "--all"],
        &["runs", "show", "p"],
        &["runs", "journal", "p"],
        &["runs", "watch", "p", "--tree"],
        &["runs", "pause", "w"],
        &["runs", "unpause", "w"],
        &["runs", "fork", "p", "--at", "1"],
        &["runs", "cancel", "w"],
        &["runs", "retry", "p"],
        &["runs", "prune", "--keep", "100", "--dry-run"],
        &["replay", "p"],
        &["verify", "p"],
        &["validate", "asks.yml"],
        &["graph", "asks.yml"],
        &["graph", "asks.yml", "--format", "mermaid"],
        &["explain-schema"],
        &["explain-schema", "--document", "machine"],
        &["fsck"],
        &["store", "status"],
        &["store", "migrate"],
        &["store", "backup", "copy.db"],
        &["store", "restore", "copy.db"],
        &["store", "restore", "copy.db", "--replace"],
        &["store", "fence", "--reason", "a drill"],
        &["slo", "report"],
        &["diagnostics"],
        &["config"],
        &["config", "--schema"],
        &["completions", "bash"],
    ];
    for args in commands {
        let mut all: Vec<&str> = args.to_vec();
        all.extend(["--json", "--log", "trace"]);
        let ran = place.windlass(&all);
        assert!(!matches!(ran.code(), 1 | -1), "{args:?}: {}", ran.shown());
        let values = serde_json::Deserializer::from_str(&ran.stdout())
            .into_iter::<serde_json::Value>()
            .collect::<Result<Vec<_>, _>>();
        let values = values.unwrap_or_else(|error| panic!("{args:?}: {error}: {}", ran.stdout()));
        assert!(!values.is_empty(), "{args:?}: {}", ran.shown());
    }
}

#[test]
fn logs_do_not_hold_prompts_or_answers_below_debug() {
    let place = Place::new();
    let ran = place.windlass(&["run", "asks.yml", "--input", r#"{"topic":"zyzzyva"}"#, "--log", "info"]);
    assert!(!ran.stderr().contains("zyzzyva") && !ran.stderr().contains("twice a day"), "{}", ran.stderr());
}

#[test]
fn a_closed_pipe_is_no_error() {
    use std::process::Stdio;
    let place = Place::new();
    let mut child = crate::kit::command(&place.path(""))
        .args(["explain-schema", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("ends").code(), Some(0));
}

#[test]
fn flags_win_over_the_environment_over_the_file_over_the_preset() {
    let place = Place::new();
    place.write("windlass.toml", "store = \"sqlite:file.db\"\n[limits]\nsteps = 7\n[run]\nwait = \"1m\"\n");
    let shown = |args: &[&str]| {
        let ran = place.with(args, |command| {
            command.env("WINDLASS_RUN__WAIT", "5s").env("WINDLASS_LOG", "error");
        });
        ran.json()
    };
    let config = shown(&["config", "--preset", "prod-safe", "--store", "sqlite:flag.db"]);
    let find = |key: &str| {
        let value = config["values"].as_array().into_iter().flatten().find(|v| v["key"] == key);
        value.map(|v| (v["value"].clone(), v["source"].as_str().unwrap_or_default().to_owned()))
    };
    assert_eq!(find("store"), Some(("sqlite:flag.db".into(), "flag".into())));
    assert_eq!(find("run.wait"), Some(("5s".into(), "environment WINDLASS_RUN__WAIT".into())));
    assert_eq!(find("log.filter"), Some(("error".into(), "environment WINDLASS_LOG__FILTER".into())));
    assert_eq!(find("limits.steps"), Some((7.into(), "windlass.toml".into())));
    assert_eq!(find("documents.strict"), Some((true.into(), "preset prod-safe".into())));
    assert_eq!(find("worker.threads"), Some((2.into(), "default".into())));
    // Words about secrets are no secrets.
    for class in ["private_key", "github_token", "slack_token", "assigned_secret"] {
        assert_eq!(find(&format!("scan.{class}")), Some(("mask".into(), "preset prod-safe".into())), "{class}");
    }
}

#[test]
fn what_happens_in_production_is_kept_for_a_while() {
    let place = Place::new();
    let told = |text: &str| {
        place.write("windlass.toml", &format!("preset = 'prod-safe'\n{text}\n"));
        place.with(&["config"], |command| {
            command.env_remove("WINDLASS_STORE");
        })
    };
    for (text, key) in [("[audit]\nkeep = '29d'", "audit.keep"), ("store = 'memory:'", "store")] {
        let refused = told(text);
        assert_eq!((refused.code(), &refused.json()["error"]["key"]), (2, &json!(key)), "{}", refused.shown());
    }
    assert_eq!(told("[audit]\nkeep = '30d'").code(), 0);
}

#[test]
fn who_gives_a_command_is_known_without_any_variable() {
    let place = Place::new();
    let set = place.with(&["budgets", "set", "tenant:acme", "--tokens", "5"], |command| {
        for name in ["WINDLASS_ACTOR", "USER", "LOGNAME"] {
            command.env_remove(name);
        }
    });
    assert_eq!(set.code(), 0, "{}", set.shown());
    let acts = place.windlass(&["audit", "acts", "--tenant", "acme"]).json();
    let uid = nix::unistd::Uid::current();
    let user = nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| format!("uid {uid}"), |user| user.name);
    assert_eq!(acts["rows"][0]["actor"], user, "{acts}");
}
