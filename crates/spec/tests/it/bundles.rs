//! What is stored: documents without keys, which compile to the same program.

use secrecy::ExposeSecret;
use windlass_core::machine::Program;
use windlass_ports::compile::Bundle;
use windlass_spec::diagnostics::Rule;
use windlass_spec::{compile, load};

use crate::documents::{bare, files, load_with, machine, options};

const AGENT: &str = "spec: flatagent\nspec_version: \"4.2\"\ndata: {prompt: ./prompts/p.yml, profile: main}";
const PROMPT: &str = "spec: prompt\nspec_version: \"4.2\"\ndata: {user: \"{{ input.q }}\"}";

fn same(a: &Program, b: &Program) -> bool {
    format!("{a:?}") == format!("{b:?}")
}

#[test]
fn a_bundle_holds_what_was_read_and_compiles_to_the_same_program() {
    let text = machine("agents: {x: ./agents/x.yml}\nstates: {a: {type: final, agent: x}}");
    let others = [("agents/x.yml", AGENT), ("prompts/p.yml", PROMPT), ("unused.yml", "a: 1")];
    let loaded = load(&files(&text, &others), "machine.yml", &options()).expect("loads");
    let paths: Vec<&String> = loaded.bundle.files.keys().collect();
    assert_eq!(paths, ["agents/x.yml", "machine.yml", "profiles.yml", "prompts/p.yml"]);
    assert_eq!(loaded.program.bundle, loaded.bundle.digest());
    let stored = Bundle::decode(&loaded.bundle.encode()).expect("decodes");
    let again = compile(&stored).expect("compiles");
    assert!(same(&again, &loaded.program));
}

#[test]
fn keys_are_taken_out_of_documents() {
    let catalog = "\
spec: flatprofile
spec_version: \"4.2\"
data:
  model_profiles:
    # keys in every style
    plain: {provider: p, name: m, api_key: sk-plain-0123456789, base_url: http://x}
    double:
      provider: p
      name: m
      api_key: \"sk-döuble-0123456789\"   # kept
    single: {provider: p, name: m, api_key: 'sk-single-0123456789'}
    again: {provider: p, name: m, api_key: sk-plain-0123456789}
    variable: {provider: p, name: m, api_key: env:MY_KEY}
    braces: {provider: p, name: m, api_key: \"${OTHER_KEY}\"}
";
    let agent = |name: &str| {
        format!("{{spec: flatagent, spec_version: \"4.2\", data: {{prompt: {{user: q}}, profile: {name}}}}}")
    };
    let names = ["plain", "double", "single", "again", "variable", "braces"];
    let agents: String = names.iter().map(|n| format!("\n  {n}: {}", agent(n))).collect();
    let text = machine(&format!(
        "agents:{agents}\nlifecycle_hooks: {{name: webhook, args: {{url: http://x, api_key: hook-key-0123456789}}}}\nstates: {{a: {{type: final}}}}"
    ));
    let loaded = load_with(&text, &[("profiles.yml", catalog)], &bare()).expect("loads");
    let stored = String::from_utf8(loaded.bundle.encode()).expect("text");
    let program = format!("{:?}", loaded.program);
    for secret in ["sk-plain-0123456789", "sk-döuble-0123456789", "sk-single-0123456789", "hook-key-0123456789"] {
        assert!(!stored.contains(secret) && !program.contains(secret), "{secret} is stored");
        assert!(loaded.secrets.values().any(|s| s.expose_secret() == secret), "{secret} is lost");
    }
    assert_eq!(loaded.secrets.len(), 4);
    assert!(stored.contains("# kept"), "{stored}");
    assert!(!format!("{:?}", loaded.secrets).contains("sk-"));
    let machine = &loaded.program.machines["machine.yml"];
    let key = |name: &str| machine.agents[name].model.key.clone().expect("a key");
    assert_eq!((&*key("variable"), &*key("braces")), ("MY_KEY", "OTHER_KEY"));
    assert_eq!(key("plain"), key("again"));
    assert!(loaded.secrets.contains_key(&*key("double")));
    assert!(same(&compile(&loaded.bundle).expect("compiles"), &loaded.program));
}

#[test]
fn a_key_that_would_be_stored_elsewhere_is_refused() {
    let text = machine("states: {a: {type: final}}");
    for catalog in [
        "# was sk-0123456789abc\nspec: flatprofile\ndata: {model_profiles: {a: {provider: p, name: m, api_key: sk-0123456789abc}}}",
        "spec: flatprofile\ndata:\n  model_profiles:\n    a:\n      name: m\n      provider: p\n      api_key: |\n        sk-0123456789abc\n",
    ] {
        let found = load_with(&text, &[("profiles.yml", catalog)], &bare()).expect_err("refused");
        assert_eq!(found[0].code, Rule::InlineKey);
    }
}

#[test]
fn keys_of_mcp_servers_are_taken_out() {
    let text = machine(
        "agents: {x: {spec: flatagent, spec_version: \"2.0\", data: {model: main, user: q, mcp: {servers: {s: {headers: {Authorization: Bearer abcdefghijkl}}}, tool_filter: {}, tool_prompt: x}}}}\nstates: {a: {type: final}}",
    );
    let loaded = load_with(&text, &[], &bare()).expect("loads");
    assert!(!String::from_utf8(loaded.bundle.encode()).expect("text").contains("abcdefghijkl"));
}

#[test]
fn the_hash_of_a_bundle_depends_on_everything_a_run_is_pinned_to() {
    let text = machine("states: {a: {type: final}}");
    let digest = |text: &str, options| load_with(text, &[], &options).expect("loads").bundle.digest();
    assert_eq!(digest(&text, options()), digest(&text, options()));
    assert_ne!(digest(&text, options()), digest(&text, bare()));
    assert_ne!(digest(&text, bare()), digest(&format!("{text}\n# a comment\n"), bare()));
}
