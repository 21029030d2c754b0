//! What was decided about calls: denied by a rule, doubted after a crash, resolved by a person. On both stores.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use windlass_runtime::audit::CallLine;

use super::Victim;

/// Is denied one tool, calls another one, and a third one that takes its process down the first time.
const MACHINE: &str = r#"spec: flatmachine
spec_version: "4.2.1"
data:
  name: decided
  settings: {tools: [pay, look, wipe]}
  machines:
    below: {spec: flatmachine, spec_version: "4.2.1", data: {name: below, states: {only: {type: final}}}}
  states:
    pay:
      type: initial
      action: pay
      arguments: {customer_id: cus-7, iban: DE02120300000000202051}
      transitions: [{to: look}]
      on_error: {policy.denied: look}
    look:
      action: look
      arguments: {customer_id: cus-7}
      transitions: [{to: wipe}]
    wipe:
      action: wipe
      arguments: {}
      transitions: [{to: below}]
    below: {machine: below, transitions: [{to: done}]}
    done: {type: final}
"#;

const CONFIG: &str = r#"[policy]
path = "policies"
[tools.pay]
type = "command"
command = ["/bin/true"]
class = "danger"
idempotency = "key"
resources = ["/customer_id", "/iban"]
redact = { arguments = ["/iban"] }
[tools.look]
type = "command"
command = ["sh", "-c", "cat > /dev/null; echo '{}'"]
class = "read"
idempotency = "natural"
resources = ["/customer_id"]
[tools.wipe]
type = "command"
command = ["sh", "-c", "cat > /dev/null; test -e died || { touch died; kill -9 $PPID; sleep 60; }; echo '{}'"]
class = "danger"
idempotency = "none"
on_unknown = "ask"
"#;

const RULES: &str = r#"@id("all") @reason("fine")
permit (principal, action, resource);
@id("no-pay") @reason("money")
forbid (principal, action == Action::"CallTool", resource == Tool::"pay");
"#;

impl Victim {
    fn listed(&self, filter: &[&str]) -> Vec<CallLine> {
        let listed = self.ok(&[&["audit", "list"][..], filter].concat());
        let rows = listed["rows"].as_array().expect("rows").clone();
        rows.into_iter().map(|row| serde_json::from_value(row).expect("a row")).collect()
    }
}

fn ids(line: &CallLine) -> Vec<String> {
    line.resources.iter().map(|one| format!("{}={}", one.name, one.id)).collect()
}

#[test]
fn what_is_denied_doubted_and_resolved_has_rows_and_every_call_ends_once_also_after_a_crash() {
    for victim in Victim::both() {
        victim.place.write("decided.yml", MACHINE);
        victim.place.write("windlass.toml", CONFIG);
        std::fs::create_dir_all(victim.place.path("policies")).expect("a folder");
        victim.place.write("policies/rules.cedar", RULES);
        let ran = victim.windlass(&["run", "decided.yml", "--run-id", "d"]);
        assert_eq!(ran.code(), -1, "killed: {}", ran.shown());

        let denied = &victim.listed(&["--stage", "denied"])[0];
        assert_eq!(
            (&*denied.target, &*denied.class, denied.result.as_deref()),
            ("pay", "danger", Some("policy.denied"))
        );
        assert_eq!((denied.effect, denied.idempotency_key.as_deref()), (0, None), "it was never committed");
        assert_eq!(
            (denied.rule.as_deref(), ids(denied)),
            (Some("no-pay"), vec!["customer_id=cus-7".into(), "iban=[redacted]".into()])
        );
        let allowed = &victim.listed(&["--tool", "look", "--stage", "intended"])[0];
        assert_eq!((allowed.rule.as_deref(), &allowed.rule_set), (Some("all"), &denied.rule_set));
        assert!(denied.rule_set.is_some());
        let targets = |filter: &[&str]| -> Vec<String> {
            victim.listed(filter).iter().map(|line| format!("{} {}", line.stage, line.target)).collect()
        };
        assert_eq!(targets(&["--rule", "no-pay"]), ["denied pay"]);
        assert_eq!(targets(&["--resource", "cus-7"]), ["denied pay", "intended look"]);
        assert_eq!(targets(&["--resource", "customer_id=cus-7"]), ["denied pay", "intended look"]);
        assert_eq!(targets(&["--resource", "iban=cus-7"]), Vec::<String>::new());
        assert_eq!(victim.windlass(&["audit", "list", "--stage", "odd"]).code(), 2);

        let waits = victim.windlass(&["resume", "d", "--takeover", "--wait", "0s"]);
        assert_eq!(waits.code(), 7, "{}", waits.shown());
        let wiped = victim.listed(&["--tool", "wipe"]);
        let stages: Vec<&str> = wiped.iter().map(|line| &*line.stage).collect();
        assert_eq!((stages, wiped[1].result.as_deref()), (vec!["intended", "doubted"], Some("ask")));
        let channel = format!("outcome/d#{}", wiped[0].effect);
        victim.ok(&["signal", &channel, "--data", r#"{"happened": true, "result": {}}"#]);
        victim.ok(&["resume", "d"]);

        let rows = victim.rows("d");
        let resolved = rows.iter().find(|line| &*line.stage == "resolved").expect("a row");
        assert_eq!((resolved.actor.as_deref(), resolved.result.as_deref()), (Some("olga"), Some("happened")));
        let below = &victim.listed(&["--stage", "allowed"])[0];
        let child = below.result.as_deref().expect("a child");
        assert_eq!((&*below.kind, below.rule.as_deref(), below.effect), ("machine", Some("all"), 0));
        assert_eq!(
            (&below.rule_set, victim.rows(child).len()),
            (&denied.rule_set, 1),
            "its own rows begin with the same"
        );
        let why = victim.ok(&["policy", "why", "d"]).to_string();
        assert!(why.contains(r#""from":"wipe","to":"below""#), "the journal says by which rule: {why}");
        let mut ends: BTreeMap<u64, u32> = BTreeMap::new();
        for line in rows.iter().filter(|line| line.effect > 0) {
            *ends.entry(line.effect).or_default() += u32::from(matches!(&*line.stage, "settled" | "abandoned"));
        }
        assert!(ends.len() >= 2 && ends.values().all(|ends| *ends == 1), "{ends:?}");
        assert_eq!(victim.findings(&[]), Vec::<Json>::new());
        assert_eq!(victim.ok(&["replay", "d"])["status"], json!("completed"));
        let file = victim.place.path("trail.jsonl").display().to_string();
        victim.ok(&["audit", "export", "--tenant", "default", "--out", &file]);
        let checked = victim.ok(&["audit", "verify", &file]);
        assert_eq!(
            (&checked["tenants"][0]["findings"], &checked["tenants"][0]["rows"]),
            (&json!([]), &json!(rows.len() + 1)),
            "with the one of the child"
        );
    }
}
