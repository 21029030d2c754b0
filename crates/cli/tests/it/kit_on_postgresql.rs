//! The FlatMachine conformance kit on PostgreSQL, where the variable `FLATMACHINE_KIT` names it. The kit asks for a new
//! SQLite file for every case; a script in between gives it a new database instead, and changes nothing else.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

/// Replaces `--store sqlite:PATH` by a database of its own for each path.
const IN_BETWEEN: &str = r#"#!/bin/sh
set -eu
count=$#
while [ "$count" -gt 0 ]; do
    word=$1
    shift
    case "$word" in
    sqlite:*)
        name=k$(printf %s "$word" | cksum | tr -d ' ')
        psql -q "$SERVER" -c "CREATE DATABASE $name" 2>/dev/null || true
        word=${SERVER%/*}/$name
        ;;
    esac
    set -- "$@" "$word"
    count=$((count - 1))
done
exec "$BINARY" "$@"
"#;

#[test]
fn the_conformance_kit_passes_on_postgresql() {
    let Some(kit) = std::env::var_os("FLATMACHINE_KIT").filter(|kit| !kit.is_empty()) else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let (script, report) = (dir.path().join("windlass"), dir.path().join("report.json"));
    std::fs::write(&script, IN_BETWEEN).expect("a script");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("a script");
    let database = windlass_testpg::database();
    let ran = Command::new("python3")
        .arg(std::path::Path::new(&kit).join("conformance.py"))
        .args(["--timeout", "120", "--report"])
        .arg(&report)
        .env("WINDLASS", &script)
        .env("BINARY", env!("CARGO_BIN_EXE_windlass"))
        .env("SERVER", database.url())
        .stdin(Stdio::null())
        .output()
        .expect("the kit runs");
    let text = std::fs::read_to_string(&report).unwrap_or_else(|_| panic!("{ran:?}"));
    let report: serde_json::Value = serde_json::from_str(&text).expect("a report");
    let cases = report["cases"].as_array().expect("cases");
    let others: Vec<_> = cases.iter().filter(|case| case["status"] != "passed").collect();
    assert!(cases.len() >= 124 && others.is_empty(), "{} cases, {others:#?}", cases.len());
}
