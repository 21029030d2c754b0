//! Branches of the bank whose calls leave in other ways than by a provider's key: by programs that are agents, each a
//! process that is supervised and counted by the same server, and signed with access keys of AWS.

use std::path::Path;

use windlass_core::budget::Meter;

use super::bank::{BRANCH, Size, bank};
use super::world::World;

/// A stand-in for an agent that is a program: tells the server what it was asked, and answers as the agent of that format
/// does, with what the server counts for one call.
const AGENT: &str = r#"
import json, os, re, sys, urllib.request

asked = re.search(r"take \d+", sys.stdin.read()).group(0)
request = urllib.request.Request(
    os.environ["WORLD"] + "/tools/agent", data=b"{}", headers={"idempotency-key": '"' + asked + '"/2'}
)
urllib.request.urlopen(request).read()
lines = {
    "claude_code": [
        {"type": "system", "subtype": "init", "session_id": "s"},
        {"type": "result", "subtype": "success", "is_error": False, "result": "taken", "session_id": "s",
         "total_cost_usd": 0.000105, "usage": {"input_tokens": 10, "output_tokens": 5}},
    ],
    "codex": [
        {"type": "thread.started", "thread_id": "t"},
        {"type": "item.completed", "item": {"type": "agent_message", "text": "taken"}},
        {"type": "turn.completed", "usage": {"input_tokens": 10, "cached_input_tokens": 0, "output_tokens": 5}},
    ],
    "json": [{"content": "taken", "usage": {"input": 10, "output": 5}, "cost_micros": 105}],
}
for line in lines[os.environ["FORMAT"]]:
    print(json.dumps(line))
"#;

/// Makes a folder ask a program.
fn program(folder: &Path, world: &World, format: &str) {
    // Codex does not say what a call cost: with a budget of its own it would be charged at that.
    let budget = if format == "codex" { "" } else { "budget_micros = 1000\n" };
    let text = format!(
        "[providers.fake]\nkind = \"openai\"\nbase_url = \"http://{0}/v1\"\n\n[agents_cli.coder]\nformat = \"{format}\"\n\
         command = [\"python3\", \"{1}\"]\n{budget}tokens_max = 1000\n\
         env = {{ WORLD = \"http://{0}\", FORMAT = \"{format}\" }}\n",
        world.address,
        folder.join("agent.py").display(),
    );
    let profiles = "spec: flatprofile\nspec_version: 4.2.1\ndata:\n  default: main\n  model_profiles:\n    \
        main: {name: small, provider: coder, timeout: 60}\n";
    for (name, text) in [("windlass.toml", text.as_str()), ("profiles.yml", profiles), ("agent.py", AGENT)] {
        std::fs::write(folder.join(name), text).expect("a writable folder");
    }
}

/// A bank of programs. A worker that is killed takes all of its programs along, so few are.
const PROGRAMS: Size = Size { kills: 2, ..BRANCH };

/// A bank whose calls are programs of this format.
#[expect(clippy::print_stdout, reason = "the counts are part of the proof")]
fn agents(format: &str, size: Size) {
    let world = World::start();
    let (charged, kills) =
        bank(&world, size, false, |folder| program(folder, &world, format)).unwrap_or_else(|why| panic!("{why}"));
    println!("{format}, {size:?}: {kills} workers killed: {charged:?}");
    assert!(charged.known > 0 && kills > 0, "{kills} kills: {charged:?}");
    let started = world.arrivals("agent");
    assert!((charged.known..=charged.known + charged.lost).contains(&started), "{started} programs: {charged:?}");
}

#[test]
fn the_bank_holds_over_claude_code() {
    agents("claude_code", PROGRAMS);
}

/// A call is held at a thousand, and uses about a tenth of that: a hundred fit as they are used.
#[test]
fn the_bank_holds_over_claude_code_for_money() {
    agents("claude_code", Size { cap: 12_000, meter: Meter::CostMicros, ..PROGRAMS });
}

#[test]
fn the_bank_holds_over_codex() {
    agents("codex", PROGRAMS);
}

#[test]
fn the_bank_holds_over_a_program_of_ones_own() {
    agents("json", PROGRAMS);
}

/// The whole bank over Bedrock with requests that are signed. In builds with the feature `sigv4`.
#[cfg(feature = "sigv4")]
#[test]
#[expect(clippy::print_stdout, reason = "the counts are part of the proof")]
fn the_bank_holds_over_bedrock_with_signed_requests() {
    use super::bank::WHOLE;
    use super::wires;
    use super::worker::SIGNED;

    let world = World::start();
    let sign = |folder: &Path| {
        wires::speak(folder, &world, "bedrock");
        let profiles = "spec: flatprofile\nspec_version: 4.2.1\ndata:\n  default: main\n  model_profiles:\n    \
            main: {name: small, provider: fake, max_tokens: 100, region: eu-central-1}\n";
        std::fs::write(folder.join("profiles.yml"), profiles).expect("a writable folder");
        std::fs::write(folder.join(SIGNED), "").expect("a writable folder");
    };
    let (charged, kills) = bank(&world, WHOLE, false, sign).unwrap_or_else(|why| panic!("{why}"));
    println!("{WHOLE:?}, {kills} workers killed: {charged:?}");
    assert!(charged.known > 0 && kills > 0, "{kills} kills: {charged:?}");
    assert_eq!(world.signed(), world.arrivals("model"), "every request is signed");
}
