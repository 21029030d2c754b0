//! The machine of the proof and everything around it, as files in a folder.

use std::path::Path;

/// The tools of the loop, in the order the model asks for them: one of each class and idempotency that differ.
pub(super) const TOOLS: [&str; 5] = ["look", "tag", "set", "pay", "erase"];
/// Tools that must never be done twice, of this machine and of [`super::pairs`].
pub(super) const UNREPEATABLE: [&str; 3] = ["pay", "erase", "send"];
/// The channel that the machine waits on.
pub(super) const CHANNEL: &str = "go/7";

/// The run that the machine launches, in its fourth step.
pub(super) const SIDE: &str = "proof~4.0";

const MACHINE: &str = r##"
spec: flatmachine
spec_version: 4.2.1
data:
  name: proof
  context: {order: "{{ input.order }}"}
  settings: {tools: [look, tag, set, pay, erase]}
  machines: {leaf: ./leaf.yml, side: ./side.yml}
  agents:
    writer: {spec: flatagent, spec_version: 4.2.1, data: {prompt: {system: S, user: "write {{ input.order }}"}, profile: main}}
    worker: {spec: flatagent, spec_version: 4.2.1, data: {prompt: {system: S, user: "work {{ input.order }}"}, profile: main}}
  states:
    draft:
      type: initial
      agent: writer
      input: {order: context.order}
      output_to_context: {draft: output.content}
      transitions: [{to: work}]
    work:
      agent: worker
      tool_loop: true
      input: {order: context.order}
      output_to_context: {work: output}
      transitions: [{to: fan}]
    fan:
      machine: leaf
      foreach: "{{ [1, 2] }}"
      input: {n: "{{ item }}"}
      output_to_context: {leaves: output}
      transitions: [{to: spread}]
    spread:
      launch: side
      launch_input: {n: 9}
      transitions: [{to: gate}]
    gate:
      wait_for: "go/{{ context.order }}"
      output_to_context: {gate: output}
      transitions: [{to: pause}]
    pause:
      wait_for: nobody
      timeout: PAUSE_S
      on_error: {TimeoutError: done}
      transitions: [{to: done}]
    done:
      type: final
      output: {draft: context.draft, work: context.work, leaves: context.leaves, gate: context.gate}
"##;

const LEAF: &str = r##"
spec: flatmachine
spec_version: 4.2.1
data:
  name: leaf
  context: {n: "{{ input.n }}"}
  agents:
    leafer: {spec: flatagent, spec_version: 4.2.1, data: {prompt: {system: S, user: "leaf {{ input.n }}"}, profile: main}}
  states:
    only: {type: initial, agent: leafer, input: {n: context.n}, output_to_context: {r: output.content}, transitions: [{to: end}]}
    end: {type: final, output: {n: context.n, r: context.r}}
"##;

const SIDE_MACHINE: &str = r##"
spec: flatmachine
spec_version: 4.2.1
data:
  name: side
  context: {n: "{{ input.n }}"}
  agents:
    sider: {spec: flatagent, spec_version: 4.2.1, data: {prompt: {system: S, user: "side {{ input.n }}"}, profile: main}}
  states:
    only: {type: initial, agent: sider, input: {n: context.n}, output_to_context: {r: output.content}, transitions: [{to: end}]}
    end: {type: final, output: {r: context.r}}
"##;

/// A machine of one turn, in which the model asks for each of its tools once.
const TURN: &str = r##"
spec: flatmachine
spec_version: 4.2.1
data:
  name: proof
  context: {order: "{{ input.order }}"}
  settings: {tools: [TOOLS]}
  agents:
    worker: {spec: flatagent, spec_version: 4.2.1, data: {prompt: {system: S, user: "work {{ input.order }}"}, profile: main}}
  states:
    work:
      type: initial
      agent: worker
      tool_loop: true
      input: {order: context.order}
      output_to_context: {work: output.content}
      transitions: [{to: done}]
    done: {type: final, output: {work: context.work}}
"##;

/// What a model call costs, so that a lost one is seen in the ledger.
const PRICES: &str = r##"
version: proof
models:
- {provider: fake, model: small, rates: {input: 3000000, output: 15000000}}
"##;

/// The machine of one turn in which the model asks for each of these tools.
pub(super) fn turn(tools: &[&str]) -> String {
    TURN.replace("TOOLS", &tools.join(", "))
}

/// Tools and their contracts, in the form of the configuration file's tables.
pub(super) fn configuration(address: &str) -> String {
    let mut text = String::from("[providers.fake]\nkind = \"openai\"\n");
    text.push_str(&format!("base_url = \"http://{address}/v1\"\n\n"));
    let tables = [
        ("look", "read", "none", "\"fail\""),
        ("tag", "write", "key", "\"fail\""),
        ("set", "write", "natural", "\"fail\""),
        ("pay", "write", "none", "{ verify = \"happened\" }"),
        ("erase", "danger", "none", "\"ask\""),
        ("happened", "read", "none", "\"fail\""),
    ];
    for (name, class, idempotency, on_unknown) in tables {
        text.push_str(&table(address, name, class, idempotency, on_unknown));
    }
    text
}

/// The table of one tool, with an empty line at its end.
pub(super) fn table(address: &str, name: &str, class: &str, idempotency: &str, on_unknown: &str) -> String {
    format!(
        "[tools.{name}]\ntype = \"http\"\nmethod = \"POST\"\nurl = \"http://{address}/tools/{name}\"\n\
         description = \"{name}\"\nclass = \"{class}\"\nidempotency = \"{idempotency}\"\n\
         on_unknown = {on_unknown}\ntimeout_ms = 10000\n\n"
    )
}

/// Writes the machine and its configuration into a folder.
pub(super) fn write(folder: &Path, address: &str, pause_ms: u64) {
    let machine = MACHINE.replace("PAUSE_S", &format!("{}", pause_ms as f64 / 1_000.0));
    let profiles = "spec: flatprofile\nspec_version: 4.2.1\ndata:\n  default: main\n  model_profiles:\n    main: {name: small, provider: fake, max_tokens: 100}\n";
    for (name, text) in [
        ("machine.yml", machine.as_str()),
        ("leaf.yml", LEAF),
        ("side.yml", SIDE_MACHINE),
        ("profiles.yml", profiles),
        ("prices.yml", PRICES),
        ("windlass.toml", &configuration(address)),
    ] {
        std::fs::write(folder.join(name), text).expect("a writable folder");
    }
}
