//! How long documents take to load: a machine of fifty states must be checked in well under ten milliseconds.

use windlass_spec::source::MemoryFiles;
use windlass_spec::{LoadOptions, load};

fn main() {
    divan::main();
}

/// A machine of `states` states with an agent, conditions, templates and children.
fn documents(states: usize) -> MemoryFiles {
    let mut text = String::from(
        "spec: flatmachine\nspec_version: \"4.2\"\ndata:\n  name: bench\n  context: {topic: \"{{ input.topic }}\", n: 0}\n  \
         agents: {writer: ./writer.yml}\n  machines:\n    kid: {spec: flatmachine, spec_version: \"4.2\", data: {states: \
         {end: {type: final}}}}\n  states:\n",
    );
    for i in 0..states {
        text.push_str(&format!(
            "    s{i}:\n      agent: writer\n      execution: {{type: retry, backoffs: [1, 2]}}\n      input:\n        \
             topic: \"{{{{ context.topic | upper }}}} {i}\"\n        n: context.n\n      output_to_context:\n        \
             n: \"{{{{ context.n + 1 }}}}\"\n        text: output.content\n      on_error: {{default: end, \
             provider.rate_limited: s{i}}}\n      transitions:\n        - condition: context.n > {i} and \
             context.topic != ''\n          to: end\n        - to: {}\n",
            if i + 1 < states { format!("s{}", i + 1) } else { "end".to_owned() },
        ));
    }
    text.push_str("    end:\n      type: final\n      output: {text: context.text}\n");
    MemoryFiles::new()
        .with("machine.yml", text)
        .with(
            "writer.yml",
            "spec: flatagent\nspec_version: \"4.2\"\ndata:\n  prompt:\n    system: Be brief.\n    user: \"Write about {{ \
             input.topic }}.\"\n    output: {content: {type: str}}\n  profile: main\n",
        )
        .with(
            "profiles.yml",
            "spec: flatprofile\nspec_version: \"4.2\"\ndata: {model_profiles: {main: {provider: openai, name: m}}}\n",
        )
}

#[divan::bench(args = [1, 10, 50, 500])]
fn states(bencher: divan::Bencher, states: usize) {
    let documents = documents(states);
    let options = LoadOptions::default();
    bencher.bench(|| load(&documents, "machine.yml", &options).expect("loads"));
}
