//! Audit rows of runs that are gone: kept, removed with the oldest part of the trail, and made up by somebody.

use serde_json::{Value as Json, json};
use windlass_runtime::audit::CallLine;

use super::Victim;

#[test]
fn rows_outlive_their_run_and_the_check_still_holds() {
    for victim in Victim::both() {
        victim.asked("a");
        let before = victim.rows("a");
        victim.ok(&["runs", "prune", "--keep", "0"]);
        victim.asked("b");
        let after = victim.rows("a");
        assert_eq!(
            after.iter().map(CallLine::row).collect::<Vec<_>>(),
            before.iter().map(CallLine::row).collect::<Vec<_>>()
        );
        assert!(after[0].life > 0);
        assert_eq!(
            after.iter().map(|row| (&row.user, &row.machine)).collect::<Vec<_>>(),
            before.iter().map(|row| (&row.user, &row.machine)).collect::<Vec<_>>(),
            "who it was for stays"
        );
        let listed = |args: &[&str]| {
            let args: Vec<&str> = ["audit", "list"].iter().chain(args).copied().collect();
            victim.ok(&args)
        };
        let all = listed(&[])["rows"].as_array().expect("rows").clone();
        assert_eq!(all.iter().filter(|row| row["run"] == "a").count(), 3, "removed runs are listed too");
        assert_eq!(all.last().expect("a row")["run"], "a", "and come last");
        let (mut paged, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let page = match &cursor {
                Some(cursor) => listed(&["--limit", "2", "--cursor", cursor]),
                None => listed(&["--limit", "2"]),
            };
            paged.extend(page["rows"].as_array().expect("rows").clone());
            match page["next"].as_str() {
                Some(next) => cursor = Some(next.to_owned()),
                None => break,
            }
        }
        assert_eq!(paged, all);
        assert_eq!(victim.findings(&[]), Vec::<Json>::new());
        victim.execute("DELETE FROM audit_kept", "DELETE FROM audit_kept");
        let findings = victim.findings(&[]);
        assert_eq!((&findings[0]["run"], &findings[0]["row"]), (&json!("a"), &json!(1)));
    }
}

#[test]
fn what_was_not_sealed_is_sealed_before_its_run_is_removed() {
    for victim in Victim::both() {
        victim.asked("a");
        let unseal = "DELETE FROM audit_segments";
        victim.execute(
            &format!("{unseal}; UPDATE audit_sealing SET rows = 0"),
            &format!("{unseal}; UPDATE audit_sealing SET snapshot = '1:1:', backlog = NULL"),
        );
        assert_eq!(victim.ok(&["audit", "verify"])["tenants"][0]["tail"], 3);
        assert_eq!(victim.ok(&["runs", "prune", "--keep", "0"])["runs"], 1);
        assert_eq!(victim.findings(&[]), Vec::<Json>::new());
        assert_eq!(victim.ok(&["audit", "verify"])["tenants"][0]["tail"], 0);
        victim.ok(&["audit", "seal"]);
    }
}

#[test]
fn the_oldest_part_is_pruned_and_the_rest_still_verifies() {
    for victim in Victim::both() {
        let config = "[providers.scripted]\nscript = \"script.yml\"\n";
        let refused = victim.windlass(&["audit", "prune", "--older", "30d"]);
        assert_eq!(refused.code(), 4, "half a year is kept: {}", refused.shown());
        victim.place.write("windlass.toml", &format!("{config}[audit]\nkeep = \"0s\"\n"));
        victim.asked("gone");
        victim.ok(&["runs", "prune", "--keep", "0"]);
        victim.asked("stays");
        let noted = victim.ok(&["audit", "verify"])["tenants"][0]["last"].clone();
        let would = victim.ok(&["audit", "prune", "--older", "0s", "--dry-run"]);
        assert_eq!((&would["dry_run"], &would["tenants"][0]["runs"]), (&json!(true), &json!(1)), "{would}");
        assert_eq!(victim.rows("gone").len(), 3);
        let pruned = victim.ok(&["audit", "prune", "--older", "0s"]);
        let of = &pruned["tenants"][0];
        assert_eq!((&of["runs"], &of["rows"], &of["acts"]), (&json!(1), &json!(3), &json!(1)), "{pruned}");
        assert_eq!(victim.findings(&[]), Vec::<Json>::new());
        let verified = victim.ok(&["audit", "verify"])["tenants"][0].clone();
        assert_eq!((&verified["rows"], &verified["sealed"]), (&json!(3), &json!(3)), "{verified}");
        assert_eq!(verified["cut"]["segments"]["number"], of["up_to"]["segment"]);
        let told = victim.windlass(&["audit", "verify", "--plain"]).stdout();
        assert!(told.contains("pruned up to segment"), "{told}");
        assert_eq!(victim.windlass(&["audit", "list", "--run", "gone"]).code(), 4, "nothing is left of it");
        let acts = victim.ok(&["audit", "acts"])["rows"].clone();
        assert_eq!((&acts[0]["action"], &acts[0]["actor"]), (&json!("audit.prune"), &json!("olga")), "{acts}");
        // An anchor of before cannot be compared, unless it is the last one that went.
        let anchor = format!("default:{}:{}", noted["number"], noted["hash"].as_str().expect("a hash"));
        let found = victim.findings(&["--anchor", &anchor]);
        let (last, known) = (&verified["cut"]["segments"]["number"], noted["number"].as_u64());
        assert_eq!(found.is_empty(), last.as_u64() <= known, "{found:?}");
        victim.ok(&["audit", "export", "--out", "trail.jsonl"]);
        victim.ok(&["audit", "verify", "trail.jsonl"]);
        victim.asked("later");
        assert_eq!(victim.findings(&[]), Vec::<Json>::new());
        let cut = "DELETE FROM audit_segments WHERE number = (SELECT min(number) FROM audit_segments)";
        victim.execute(cut, cut);
        assert!(!victim.findings(&[]).is_empty(), "no more went than the act says");
    }
}

/// A trail of which the oldest part was pruned: the run `gone` went, the run `stays` is there. Gives back stored rows of the
/// former, and the stored first segment.
fn pruned(victim: &Victim) -> (String, String) {
    let config = "[providers.scripted]\nscript = \"script.yml\"\n[audit]\nkeep = \"0s\"\n";
    victim.place.write("windlass.toml", config);
    victim.asked("gone");
    victim.ok(&["runs", "prune", "--keep", "0"]);
    let before = (victim.first("rows", "audit_kept"), victim.first("bytes", "audit_segments"));
    victim.asked("stays");
    let removed = victim.ok(&["audit", "prune", "--older", "0s"]);
    assert_eq!(removed["tenants"][0]["runs"], 1, "{removed}");
    assert_eq!(victim.findings(&[]), Vec::<Json>::new());
    before
}

#[test]
fn rows_that_somebody_made_up_after_a_pruning_are_refused() {
    for victim in Victim::both() {
        let (rows, _) = pruned(&victim);
        // A whole chain under another name, with a number below those that went.
        victim.keep_rows(1, "made-up", &rows);
        let findings = victim.findings(&[]);
        assert_eq!((findings.len(), &findings[0]["run"]), (1, &json!("made-up")), "{findings:?}");
        assert!(!victim.findings(&["--run", "made-up"]).is_empty());

        let told = |ran: &crate::kit::Ran| {
            assert_eq!(ran.code(), 3, "it says that something is left out: {}", ran.shown());
            assert!(ran.shown().contains("made-up") && ran.shown().contains("no seal"), "{}", ran.shown());
        };
        let listed = victim.windlass(&["audit", "list"]);
        told(&listed);
        let runs = |listed: &Json| {
            let rows = listed["rows"].as_array().expect("rows").clone();
            rows.iter().filter(|row| row["run"] == "made-up").count()
        };
        assert_eq!((runs(&listed.json()), listed.json()["rows"].as_array().map(Vec::len)), (0, Some(3)));
        told(&victim.windlass(&["audit", "list", "--run", "made-up"]));
        told(&victim.windlass(&["audit", "export", "--out", "trail.jsonl"]));
        let text = std::fs::read_to_string(victim.place.path("trail.jsonl")).expect("a file");
        assert!(!text.lines().any(|line| line.contains("made-up") && line.contains(r#""type":"call""#)), "{text}");
        let read = victim.findings(&["trail.jsonl"]);
        assert_eq!((read.len(), &read[0]["run"]), (1, &json!("made-up")), "{read:?}");

        // What went does not come back under its own name either, and acts of before neither.
        victim.execute("DELETE FROM audit_kept", "DELETE FROM audit_kept");
        assert_eq!(victim.findings(&[]), Vec::<Json>::new());
        victim.keep_rows(1, "gone", &rows);
        assert_eq!(victim.findings(&[])[0]["run"], "gone");
        victim.execute("DELETE FROM audit_kept", "DELETE FROM audit_kept");
        let acts = victim.ok(&["audit", "acts"])["rows"].clone();
        let (last, first) = (&acts[0]["number"], 1);
        let act = format!(
            "INSERT INTO audit_acts (tenant, number, bytes) SELECT tenant, {first}, bytes FROM audit_acts WHERE number = {last}"
        );
        victim.execute(&act, &act);
        assert!(!victim.findings(&[]).is_empty());
        assert_eq!(victim.ok(&["audit", "acts"])["rows"], acts, "it is not listed");
    }
}

#[test]
fn made_up_rows_do_not_pass_for_those_of_a_pruning_that_was_stopped() {
    for victim in Victim::both() {
        let (rows, segment) = pruned(&victim);
        // Somebody makes it look as if it had been stopped before anything went.
        victim.keep_rows(1, "made-up", &rows);
        let insert = "INSERT INTO audit_segments (tenant, number, hash, bytes) VALUES ('default', 1, ";
        victim.execute(
            &format!("{insert}x'{:064}', x'{segment}')", 0),
            &format!("{insert}'\\x{:064}', '\\x{segment}')", 0),
        );
        let findings = victim.findings(&[]);
        assert!(findings.iter().any(|finding| finding["run"] == "made-up"), "{findings:?}");
        assert!(findings.iter().any(|finding| finding["run"] == Json::Null), "segments are missing: {findings:?}");
        let refused = victim.windlass(&["audit", "prune", "--older", "0s"]);
        assert_ne!(refused.code(), 0, "what is not whole is not pruned: {}", refused.shown());
        assert!(refused.shown().contains("not whole"), "{}", refused.shown());
    }
}
