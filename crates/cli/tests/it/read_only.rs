//! Commands that only look work on a store that takes no writes, and make no store where there is none; those that
//! write say why they cannot.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use serde_json::json;
use windlass_testpg::{Options, Server};

use crate::kit::{Place, Ran};

/// What only looks, with the exit code it ends with.
const LOOKS: &[(&[&str], i32)] = &[
    (&["runs", "list", "--all"], 0),
    (&["runs", "show", "order-1"], 0),
    (&["runs", "journal", "order-1"], 0),
    (&["runs", "watch", "done-1"], 0),
    (&["verify", "done-1"], 0),
    (&["replay", "order-1"], 0),
    (&["fsck"], 0),
    (&["slo", "report", "--min-runs", "1"], 0),
    (&["diagnostics"], 0),
    (&["schedules", "list"], 0),
    (&["schedules", "show", "often"], 0),
    (&["approvals", "list"], 0),
    (&["store", "status"], 0),
    (&["workers"], 0),
    (&["runs", "cancel", "--where", "status=waiting"], 0),
];

/// What writes.
const WRITES: &[&[&str]] = &[
    &["runs", "cancel", "order-1"],
    &["signal", "approvals/7", "--data", "{}"],
    &["run", "asks.yml", "--input", "{}"],
    &["resume", "order-1"],
    &["schedules", "pause", "often"],
    &["store", "fence", "--reason", "x"],
    &["runs", "prune", "--older-than", "0"],
];

fn on(place: &Place, url: &str, args: &[&str]) -> Ran {
    place.with(args, |command| {
        command.env("WINDLASS_STORE", url);
    })
}

fn fill(place: &Place, url: &str) {
    for (args, code) in [
        (&["run", "asks.yml", "--input", r#"{"topic":"tides"}"#, "--run-id", "done-1"][..], 0),
        (&["run", "waits.yml", "--input", r#"{"order":7}"#, "--run-id", "order-1"], 7),
        (&["schedules", "add", "often", "waits.yml", "--every", "1h"], 0),
    ] {
        let ran = on(place, url, args);
        assert_eq!(ran.code(), code, "{}", ran.shown());
    }
}

/// Looks and tries to write, as `run` runs the binary.
fn assert_only_read(run: impl Fn(&[&str]) -> Ran, why: &str) {
    for (args, code) in LOOKS {
        let ran = run(args);
        assert_eq!(ran.code(), *code, "{args:?}: {}", ran.shown());
    }
    assert_eq!(run(&["runs", "show", "order-1"]).json()["status"], "waiting");
    for args in WRITES {
        let ran = run(args);
        assert_eq!(ran.code(), 6, "{args:?}: {}", ran.shown());
        assert_eq!(ran.json()["error"]["code"], "store.unavailable", "{args:?}: {}", ran.shown());
        assert!(ran.stderr().contains(why), "{args:?}: {}", ran.shown());
    }
}

/// Runs the binary so that the rights of files hold for it, also where the tests are run by one who may do everything.
fn bound(place: &Place, url: &str, args: &[&str]) -> Ran {
    place.with(args, |command| {
        command.env("WINDLASS_STORE", url);
        if std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0) {
            let plain = std::mem::replace(command, Command::new("setpriv"));
            let rights = "-dac_override,-dac_read_search";
            command.args([format!("--bounding-set={rights}"), format!("--inh-caps={rights}")]);
            command.arg(plain.get_program()).args(plain.get_args()).stdin(std::process::Stdio::null());
            if let Some(dir) = plain.get_current_dir() {
                command.current_dir(dir);
            }
            for (name, value) in plain.get_envs() {
                match value {
                    Some(value) => command.env(name, value),
                    None => command.env_remove(name),
                };
            }
        }
    })
}

fn set_mode(place: &Place, name: &str, mode: u32) {
    std::fs::set_permissions(place.path(name), std::fs::Permissions::from_mode(mode)).expect("set");
}

/// What is in a folder.
fn names(place: &Place, folder: &str) -> std::collections::BTreeSet<std::ffi::OsString> {
    std::fs::read_dir(place.path(folder)).expect("a folder").flatten().map(|entry| entry.file_name()).collect()
}

#[test]
fn a_file_without_the_right_to_write_it_can_be_looked_at() {
    let place = Place::new();
    std::fs::create_dir(place.path("kept")).expect("folder");
    let url = format!("sqlite:{}", place.path("kept/w.db").display());
    fill(&place, &url);
    let before = names(&place, "kept");
    set_mode(&place, "kept/w.db", 0o444);
    set_mode(&place, "kept", 0o555);
    let probe = bound(&place, &url, &["--version"]);
    assert_eq!(probe.code(), 0, "the binary cannot be run without all rights: {}", probe.shown());
    assert_only_read(|args| bound(&place, &url, args), "w.db");
    let copied = bound(&place, &url, &["store", "backup", "/dev/null/x"]);
    assert_eq!(copied.code(), 6, "{}", copied.shown());
    assert_eq!(names(&place, "kept"), before, "and nothing was made");
    set_mode(&place, "kept", 0o755);
}

#[test]
fn a_database_that_takes_no_writes_can_be_looked_at() {
    let (place, server) = (Place::new(), Server::start(Options::default()));
    let database = server.database();
    fill(&place, &database.url());
    let name = database.name();
    let _set = database
        .execute_outside(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on"))
        .expect("set");
    assert_only_read(|args| on(&place, &database.url(), args), "takes no writes");
}

#[test]
fn a_standby_can_be_looked_at() {
    let settings = [("wal_level", "replica"), ("max_wal_senders", "4")];
    let settings: Vec<_> = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let followed = || Options { settings: settings.clone(), ..Options::default() };
    let place = Place::new();
    let primary = Server::start(followed());
    let database = primary.database();
    fill(&place, &database.url());
    let standby = Server::start(Options { standby_of: Some(primary.port()), ..followed() });
    let url = standby.url(database.name());
    assert_only_read(|args| on(&place, &url, args), "standby");
    let both = database.url().replace(
        &format!("127.0.0.1:{}", primary.port()),
        &format!("127.0.0.1:{},127.0.0.1:{}", standby.port(), primary.port()),
    );
    assert_eq!(on(&place, &both, &["runs", "show", "order-1"]).json()["status"], "waiting");
    primary.stop(windlass_testpg::Stop::Kill);
    let shown = on(&place, &both, &["runs", "show", "order-1"]);
    assert_eq!(shown.code(), 0, "what is left is read: {}", shown.shown());
}

#[test]
fn looking_makes_no_store_and_says_what_does() {
    let (place, database) = (Place::new(), windlass_testpg::database());
    for url in [database.url(), format!("sqlite:{}", place.path("none.db").display())] {
        for (args, _) in LOOKS.iter().filter(|(args, _)| args[0] != "diagnostics") {
            let ran = on(&place, &url, args);
            assert_eq!(ran.code(), 4, "{args:?}: {}", ran.shown());
            let error = &ran.json()["error"];
            assert_eq!(error["code"], "cli.not_found", "{args:?}: {}", ran.shown());
            assert!(error["hint"].as_str().is_some_and(|hint| hint.contains("windlass store migrate")), "{error}");
        }
        assert_eq!(on(&place, &url, &["diagnostics"]).json()["store"]["exists"], false);
    }
    assert!(!place.path("none.db").exists());
    assert_eq!(database.value("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), "0");
}

#[test]
fn tables_of_something_else_are_refused() {
    let (place, database) = (Place::new(), windlass_testpg::database());
    let _made = database.execute("CREATE TABLE runs (id integer, miles integer)").expect("made");
    let path = place.path("other.db");
    let connection = rusqlite::Connection::open(&path).expect("opened");
    connection.execute_batch("CREATE TABLE runs (id integer, miles integer)").expect("made");
    drop(connection);
    let file = format!("sqlite:{}", path.display());
    for (url, words) in
        [(database.url(), "a table `runs` that is not Windlass's"), (file, "a database of something else")]
    {
        for args in [&["runs", "list"][..], &["fsck"], &["run", "asks.yml", "--input", "{}"], &["store", "migrate"]] {
            let ran = on(&place, &url, args);
            assert_eq!(
                (ran.code(), &ran.json()["error"]["code"]),
                (2, &json!("cli.invalid")),
                "{args:?}: {}",
                ran.shown()
            );
            assert!(ran.stderr().contains(words), "{args:?}: {}", ran.shown());
        }
    }
    assert_eq!(database.value("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), "1");
    let _made = database.execute("DROP TABLE runs; CREATE TABLE schema_history (id integer)").expect("made");
    let ran = on(&place, &database.url(), &["runs", "list"]);
    assert!(ran.stderr().contains("a table `schema_history` that is not Windlass's"), "{}", ran.shown());
}
