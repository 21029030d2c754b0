//! The machine that is run when none is named: effects of every class, a model that asks for tools, children, a signal and
//! a timer. All of its tools are played by the counting server.

use std::collections::BTreeMap;

use windlass_core::value::Value;

/// Path of its entry document.
pub const ENTRY: &str = "chaos.yml";
/// The tools that its model asks for.
pub const MODEL_ASKS: [&str; 5] = ["look", "tag", "set", "pay", "erase"];
/// What its inputs say.
const ORDERS: [i64; 4] = [1, 2, 3, 4];
/// The provider that its agent names.
pub const PROVIDER: &str = "counted";

const MACHINE: &str = r##"
spec: flatmachine
spec_version: 4.2.1
data:
  name: chaos
  context: {order: "{{ input.order }}"}
  settings: {tools: [look, tag, set, pay, erase]}
  machines: {part: ./part.yml}
  agents:
    worker: {spec: flatagent, spec_version: 4.2.1, data: {prompt: {system: S, user: "{{ input.order }}"}, profile: main}}
  states:
    work:
      type: initial
      agent: worker
      tool_loop: true
      input: {order: context.order}
      output_to_context: {work: output.content}
      transitions: [{to: ship}]
    ship:
      action: ship
      output_to_context: {shipped: output.done}
      transitions: [{to: parts}]
    parts:
      machine: part
      foreach: "{{ [1, 2] }}"
      input: {n: "{{ item }}"}
      output_to_context: {parts: output}
      transitions: [{to: gate}]
    gate:
      wait_for: "go/{{ context.order }}"
      output_to_context: {approved: output.approved}
      transitions: [{to: pause}]
    pause:
      wait_for: nobody
      timeout: 0.05
      on_error: {TimeoutError: done}
      transitions: [{to: done}]
    done:
      type: final
      output:
        order: context.order
        work: context.work
        shipped: context.shipped
        parts: context.parts
        approved: context.approved
"##;

const PART: &str = r##"
spec: flatmachine
spec_version: 4.2.1
data:
  name: part
  context: {n: "{{ input.n }}"}
  states:
    pack: {type: initial, action: pack, output_to_context: {packed: output.done}, transitions: [{to: done}]}
    done: {type: final, output: {n: context.n, packed: context.packed}}
"##;

const PROFILES: &str = r##"
spec: flatprofile
spec_version: 4.2.1
data:
  default: main
  model_profiles:
    main: {name: small, provider: counted, max_tokens: 100}
"##;

/// Its documents, by path.
#[must_use]
pub fn documents() -> [(&'static str, &'static str); 3] {
    [(ENTRY, MACHINE), ("part.yml", PART), ("profiles.yml", PROFILES)]
}

/// Its tools, as the tables of a configuration file: one of each class and idempotency that differ. Where their calls
/// go is the affair of whoever runs them.
#[must_use]
pub fn tools() -> String {
    let mut text = String::new();
    for (name, class, idempotency, on_unknown) in [
        ("look", "read", "none", "\"fail\""),
        ("tag", "write", "key", "\"fail\""),
        ("set", "write", "natural", "\"fail\""),
        ("pay", "write", "none", "{ verify = \"happened\" }"),
        ("erase", "danger", "none", "{ verify = \"happened\" }"),
        ("ship", "write", "none", "{ verify = \"happened\" }"),
        ("pack", "write", "none", "{ verify = \"happened\" }"),
        ("happened", "read", "none", "\"fail\""),
    ] {
        text.push_str(&format!(
            "[tools.{name}]\ntype = \"http\"\nmethod = \"POST\"\nurl = \"http://127.0.0.1:9/tools/{name}\"\n\
             class = \"{class}\"\nidempotency = \"{idempotency}\"\non_unknown = {on_unknown}\n\n"
        ));
    }
    text
}

/// Inputs that its runs take turns with.
#[must_use]
pub fn inputs() -> Vec<Value> {
    ORDERS.map(|order| Value::object([("order", Value::Int(order))])).to_vec()
}

/// What its signals carry, by channel.
#[must_use]
pub fn signals() -> BTreeMap<String, Value> {
    let data = || Value::object([("approved", Value::Bool(true))]);
    ORDERS.into_iter().map(|order| (format!("go/{order}"), data())).collect()
}
