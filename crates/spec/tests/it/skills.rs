//! Packs of skills, and machines that use them.

use std::collections::BTreeMap;
use std::sync::Arc;

use windlass_core::contract::{Class, Contract};
use windlass_ports::compile::Bundle;
use windlass_spec::diagnostics::{Diagnostic, Rule, Severity};
use windlass_spec::skill::{PACK_BYTES_MAX, PACK_FILES_MAX, PROMPT_BYTES_MAX, Pack, Wanted};
use windlass_spec::{LoadOptions, check_skill, compile, skill_names};

use crate::documents::{files, load_with, machine, shown};

/// A machine in a pack: `settings` and one state before the end.
fn inner(settings: &str, state: &str) -> String {
    machine(&format!(
        "settings: {{{settings}}}\nstates:\n  s: {{type: initial, {state}transitions: [{{to: e}}]}}\n  e: {{type: final}}"
    ))
}

fn read(manifest: &str, others: &[(&str, &str)]) -> Result<Pack, Vec<Diagnostic>> {
    let manifest = [("skill.yml", manifest)];
    let all = manifest.iter().chain(others);
    Pack::read(all.map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect())
}

fn pack(manifest: &str, others: &[(&str, &str)]) -> Arc<Pack> {
    Arc::new(read(manifest, others).unwrap_or_else(|found| panic!("{}", shown(&found))))
}

/// A skill with instructions and the tool `look`.
fn told(name: &str, version: &str, prompt: &str) -> Arc<Pack> {
    let manifest = format!("name: {name}\nversion: {version}\ndescription: d\nprompt: p.md\ntools: [look]");
    pack(&manifest, &[("p.md", prompt)])
}

/// A skill with a machine and these tools.
fn worked(name: &str, tools: &str, document: &str) -> Arc<Pack> {
    let manifest = format!("{{name: {name}, version: 1.0.0, description: d, machine: m.yml, tools: [{tools}]}}");
    pack(&manifest, &[("m.yml", document)])
}

fn tool(name: &str, class: Class) -> Contract {
    Contract { class, ..Contract::undeclared(name) }
}

fn with(packs: &[Arc<Pack>]) -> LoadOptions {
    let tools = vec![tool("look", Class::Read), tool("pay", Class::Write)];
    LoadOptions { tools, skills: packs.to_vec(), ..LoadOptions::default() }
}

/// A machine with an agent `x` in a tool loop that uses skills.
fn user(skills: &str, state: &str) -> String {
    machine(&format!(
        "agents:\n  x: {{spec: flatagent, spec_version: \"4.2\", data: {{prompt: {{user: q}}, profile: main}}}}\n\
         settings:\n  skills: {{{skills}}}\n\
         states:\n  s: {{type: initial, {state}, transitions: [{{to: e}}]}}\n  e: {{type: final}}"
    ))
}

/// The errors of a machine, as rule and message.
fn errors(text: &str, options: &LoadOptions) -> Vec<(Rule, String)> {
    let found = load_with(text, &[], options).expect_err("refused");
    let errors = found.into_iter().filter(|finding| finding.severity == Severity::Error);
    errors.map(|finding| (finding.code, finding.message)).collect()
}

const LOOP: &str = "agent: x, tool_loop: true";

#[test]
fn what_is_wrong_with_a_pack_is_found_where_it_is() {
    let well = "name: a\nversion: 1.0.0\ndescription: d\nprompt: p.md\n";
    let prompt = [("p.md", "Do it.")];
    assert!(read(well, &prompt).is_ok());
    for (manifest, rule, line, column) in [
        ("version: 1.0.0\ndescription: d\nprompt: p.md", Rule::MissingKey, 1, 1),
        ("name: A b\nversion: 1.0.0\ndescription: d\nprompt: p.md", Rule::WrongValue, 1, 7),
        ("name: a\nversion: \"1.0\"\ndescription: d\nprompt: p.md", Rule::WrongValue, 2, 10),
        ("name: a\nversion: 1.0.0+b\ndescription: d\nprompt: p.md", Rule::WrongValue, 2, 10),
        ("name: a\nversion: 1.0.0\ndescription: d\nprompt: q.md", Rule::FileMissing, 4, 9),
        ("name: a\nversion: 1.0.0\ndescription: d\nprompt: ../p.md", Rule::FileMissing, 4, 9),
        ("name: a\nversion: 1.0.0\ndescription: d", Rule::MissingKey, 1, 1),
        ("name: a\nversion: 1.0.0\ndescription: d\nprompt: p.md\ntools: [b*]", Rule::WrongValue, 5, 9),
        ("name: a\nversion: 1.0.0\ndescription: d\nprompt: p.md\nwhat: 1", Rule::UnknownKey, 5, 1),
        ("name: a\nversion: 1.0.0\ndescription: d\nprompt: p.md\ninput_schema: {}", Rule::NoEffect, 5, 1),
        ("name: [", Rule::Syntax, 2, 1),
    ] {
        let found = read(manifest, &prompt).expect_err(manifest);
        let place = (found[0].code, found[0].line, found[0].column);
        assert_eq!(place, (rule, line, column), "{manifest}\n{}", shown(&found));
    }
    let machine = [("m.yml", "{}")];
    let contract = "name: a\nversion: 1.0.0\ndescription: d\nmachine: m.yml\ncontract: {tools: [x]}";
    assert_eq!(read(contract, &machine).expect_err("refused")[0].code, Rule::WrongValue);
    assert_eq!(Pack::read(BTreeMap::new()).expect_err("empty")[0].code, Rule::FileMissing);
}

#[test]
fn a_pack_is_bounded_and_holds_texts_only() {
    let well = "name: a\nversion: 1.0.0\ndescription: d\nprompt: p.md\n";
    let rule = |found: Result<Pack, Vec<Diagnostic>>| found.expect_err("refused")[0].code;
    let large = "x".repeat(PACK_BYTES_MAX);
    assert_eq!(rule(read(well, &[("p.md", "a"), ("large.txt", &large)])), Rule::TooLarge);
    assert_eq!(rule(read(well, &[("p.md", &large[..=PROMPT_BYTES_MAX])])), Rule::TooLarge);
    assert!(read(well, &[("p.md", &large[..PROMPT_BYTES_MAX])]).is_ok());
    assert_eq!(rule(read(well, &[("p.md", " \n")])), Rule::WrongValue);
    let names: Vec<String> = (0..PACK_FILES_MAX).map(|n| format!("f{n}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    assert_eq!(rule(read(well, &many)), Rule::TooLarge);
    let mut bytes: BTreeMap<String, Vec<u8>> = [("skill.yml".into(), well.into())].into();
    bytes.insert("p.md".into(), vec![0xff]);
    assert_eq!(rule(Pack::read(bytes.clone())), Rule::NotUtf8);
    bytes.insert("p.md".into(), b"a".to_vec());
    for path in ["../out.md", "/root.md", "a//b.md", "a/../../b.md"] {
        let outside = bytes.clone().into_iter().chain([(path.to_owned(), Vec::new())]).collect();
        assert_eq!(rule(Pack::read(outside)), Rule::BadPath, "{path}");
    }
}

#[test]
fn a_folder_is_read_as_it_stands_and_named_by_its_content() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("skill.yml"), "{name: a, version: 1.0.0, description: d, prompt: deep/p.md}").expect("written");
    std::fs::create_dir(at("deep")).expect("a folder");
    std::fs::write(at("deep/p.md"), "Do it.").expect("written");
    std::fs::write(at(".hidden"), [0xff]).expect("written");
    let first = Pack::folder(folder.path()).expect("a pack");
    assert_eq!(first.id(), "a@1.0.0");
    assert_eq!(first.files().keys().collect::<Vec<_>>(), ["deep/p.md", "skill.yml"]);
    assert_eq!(Pack::folder(folder.path()).expect("a pack").digest, first.digest);
    std::fs::write(at("deep/p.md"), "Do it!").expect("written");
    assert_ne!(Pack::folder(folder.path()).expect("a pack").digest, first.digest);
    std::os::unix::fs::symlink("/etc/passwd", at("link")).expect("a link");
    let found = Pack::folder(folder.path()).expect_err("a link leads out");
    assert!(found[0].message.contains("neither a file nor a folder"), "{}", found[0]);
    assert_eq!(Pack::folder(&at("nowhere")).expect_err("missing")[0].code, Rule::FileUnreadable);
}

#[test]
fn a_use_names_a_skill_its_versions_and_its_content() {
    let digest = "0".repeat(64);
    let wanted = Wanted::parse(&format!("refunds@1.2#{digest}")).expect("wanted");
    assert_eq!((&*wanted.name, wanted.digest.map(|d| d.to_string())), ("refunds", Some(digest)));
    for wrong in ["refunds", "refunds@", "Refunds@1", "refunds@one", "refunds@1#abc", "@1"] {
        assert!(Wanted::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn the_highest_version_that_fits_is_meant_and_stays_with_the_bundle() {
    let packs = [told("a", "1.2.0", "old"), told("a", "1.10.0", "new"), told("a", "2.0.0", "next")];
    let text = user("agents: {x: [\"a@^1.2\"]}", LOOP);
    let loaded = load_with(&text, &[], &with(&packs)).unwrap_or_else(|found| panic!("{}", shown(&found)));
    let skill = loaded.program.machines["machine.yml"].skills.known["a"].clone();
    assert_eq!((&*skill.reference.version, &*skill.prompt), ("1.10.0", "new"));
    assert_eq!(skill.reference.digest, packs[1].digest);
    assert_eq!(loaded.bundle.skills.keys().collect::<Vec<_>>(), ["a@1.10.0"]);
    // A registry that has more since does not touch what was stored.
    let stored = Bundle::decode(&loaded.bundle.encode()).expect("decodes");
    let again = compile(&stored).expect("compiles");
    assert_eq!(format!("{again:?}"), format!("{:?}", loaded.program));
    let before = Bundle { skills: BTreeMap::new(), ..loaded.bundle };
    assert!(!String::from_utf8(before.encode()).expect("text").contains("skills\":{"), "old bundles keep their hash");
}

#[test]
fn a_skill_that_cannot_be_used_is_refused_and_why_is_said() {
    let packs = [told("a", "1.0.0", "one"), told("b", "1.0.0", "one"), told("b", "1.0.0", "two")];
    let options = with(&packs);
    let pinned = format!("agents: {{x: [\"a@1#{}\"]}}", "f".repeat(64));
    for (skills, rule, said) in [
        ("agents: {x: [\"c@1\"]}", Rule::UnknownSkill, "there is no skill `c`"),
        ("agents: {x: [\"a@2\"]}", Rule::UnknownSkill, "no version of the skill `a` fits `^2`"),
        ("agents: {x: [a]}", Rule::WrongValue, "it names no version"),
        ("agents: {x: [\"b@1\"]}", Rule::ChangedSkill, "two packs of `b@1.0.0` with different contents"),
        (pinned.as_str(), Rule::ChangedSkill, "not the content that is pinned"),
        ("agents: {y: [\"a@1\"]}", Rule::UnknownAgent, "`y`"),
        ("machines: {m: \"a@1\"}", Rule::UnknownMachine, "has no machine"),
        ("agents: {x: [\"a@1\"]}, what: 1", Rule::UnknownKey, "`what`"),
    ] {
        let found = errors(&user(skills, LOOP), &options);
        assert!(found.len() == 1 && found[0].0 == rule && found[0].1.contains(said), "{skills}: {found:?}");
    }
    let right = format!("agents: {{x: [\"a@1#{}\"]}}", packs[0].digest);
    assert!(load_with(&user(&right, LOOP), &[], &options).is_ok());
    let names =
        skill_names(&files(&user("agents: {x: [\"c@1\"]}, search: [\"d@2\"]", LOOP), &[]), "machine.yml", &options);
    assert_eq!(names.iter().collect::<Vec<_>>(), ["c", "d"]);
}

#[test]
fn an_agent_document_names_its_own_skills() {
    let agent =
        "spec: flatagent\nspec_version: \"4.2\"\ndata: {prompt: {user: q}, profile: main}\nmetadata: {skills: SKILLS}";
    let text = machine("agents: {x: ./x.yml}\nstates: {s: {type: final, agent: x, tool_loop: true}}");
    let options = with(&[told("a", "1.0.0", "one")]);
    let own = agent.replace("SKILLS", "[\"a@1\"]");
    let loaded = load_with(&text, &[("x.yml", &own)], &options).unwrap_or_else(|found| panic!("{}", shown(&found)));
    let machine = &loaded.program.machines["machine.yml"];
    assert_eq!(machine.skills.agents["x"], ["a".into()]);
    let without = load_with(&text, &[("x.yml", &agent.replace("SKILLS", "[]"))], &options).expect("loads");
    assert_ne!(machine.agents["x"].hash, without.program.machines["machine.yml"].agents["x"].hash);
    let wrong = load_with(&text, &[("x.yml", &agent.replace("SKILLS", "a"))], &options).expect_err("no list");
    assert_eq!((wrong[0].code, wrong[0].line), (Rule::WrongType, 4));
}

#[test]
fn tools_that_change_something_are_granted_and_loops_have_to_allow_what_is_brought() {
    let options = with(&[
        worked("payer", "pay", &inner("", "action: pay, ")),
        worked("lost", "gone", &inner("", "")),
        told("teller", "1.0.0", "one"),
    ]);
    for (skills, state, said) in [
        ("agents: {x: [\"payer@1\"]}", LOOP, "wants the tool `pay` of class `write`"),
        ("machines: {m: \"payer@1\"}", "machine: m", "wants the tool `pay` of class `write`"),
        ("agents: {x: [\"lost@1\"]}", LOOP, "wants the tool `gone`, which is not configured"),
        ("agents: {x: [\"teller@1\"]}", "agent: x, tool_loop: {denied_tools: [look]}", "wants `look`"),
        ("agents: {x: [\"teller@1\"]}", "agent: x, tool_loop: {allowed_tools: [pay]}", "wants `look`"),
        ("agents: {x: [\"payer@1\"]}, writes: [pay]", "agent: x, tool_loop: {denied_tools: [payer]}", "wants `payer`"),
    ] {
        let found = errors(&user(skills, state), &options);
        assert!(found.len() == 1 && found[0].0 == Rule::SkillTool && found[0].1.contains(said), "{skills}: {found:?}");
    }
    let granted = user("agents: {x: [\"payer@1\"]}, machines: {m: \"payer@1\"}, writes: [pay]", LOOP);
    let loaded = load_with(&granted, &[], &options).unwrap_or_else(|found| panic!("{}", shown(&found)));
    let machine = &loaded.program.machines["machine.yml"];
    assert_eq!(machine.skills.known["payer"].contract.class, Class::Write);
    assert_eq!(machine.machines["m"], machine.machines["skill:payer"]);
    assert_eq!(machine.child_contracts["m"].tools, Some(vec!["pay".into()]), "its machine may call no other");
    let idle = load_with(&user("agents: {x: [\"teller@1\"]}", "agent: x"), &[], &options).expect("loads");
    assert_eq!(idle.diagnostics.iter().map(|finding| finding.code).collect::<Vec<_>>(), [Rule::NoEffect]);
}

#[test]
fn the_machine_of_a_skill_keeps_to_its_pack() {
    for (tools, document, rule, said) in [
        ("", inner("tools: [look]", ""), Rule::SkillTool, "does not list the tool `look`"),
        ("", inner("", "action: look, "), Rule::SkillTool, "does not list the tool `look`"),
        ("", inner("skills: {machines: {n: \"b@1\"}}", ""), Rule::SkillTool, "`a@1.0.0` may not call"),
        (
            "",
            machine("machines: {n: ../other.yml}\nstates: {s: {type: final, machine: n}}"),
            Rule::BadPath,
            "out of a skill",
        ),
    ] {
        let packs = [worked("a", tools, &document), worked("b", "look", &inner("tools: [look]", ""))];
        let found = errors(&user("machines: {m: \"a@1\"}", "machine: m"), &with(&packs));
        assert!(found.iter().any(|(code, message)| *code == rule && message.contains(said)), "{said}: {found:?}");
    }
    let options = with(&[worked("a", "", &inner("", ""))]);
    let into = machine("machines: {n: \"skill:a@1.0.0/m.yml\"}\nstates: {s: {type: final, machine: n}}");
    assert_eq!(errors(&into, &options)[0].0, Rule::BadPath);
    let key = "spec: flatagent\nspec_version: \"4.2\"\ndata: {model: {provider: p, name: n, api_key: sk-0123456789abcdef}, user: q}";
    let manifest = "{name: k, version: 1.0.0, description: d, machine: m.yml}";
    let keyed = machine("agents: {x: ./x.yml}\nstates: {s: {type: final, agent: x}}");
    let options = with(&[pack(manifest, &[("m.yml", &keyed), ("x.yml", key)])]);
    let found = errors(&user("machines: {m: \"k@1\"}", "machine: m"), &options);
    assert!(found.iter().any(|(rule, _)| *rule == Rule::InlineKey), "{found:?}");
}

#[test]
fn skills_may_use_each_other_but_not_in_a_circle() {
    let uses = |other: &str| inner(&format!("skills: {{machines: {{n: \"{other}@1\"}}}}"), "machine: n, ");
    let chain = [worked("a", "", &uses("b")), worked("b", "", &inner("", ""))];
    let loaded = load_with(&user("machines: {m: \"a@1\"}", "machine: m"), &[], &with(&chain)).expect("a chain");
    assert_eq!(loaded.bundle.skills.keys().collect::<Vec<_>>(), ["a@1.0.0", "b@1.0.0"]);
    let own = loaded.program.machines["skill:b@1.0.0/m.yml"].skills.own.clone();
    assert_eq!(own.expect("a skill's machine").name, "b".into());
    let circle = [worked("a", "", &uses("b")), worked("b", "", &uses("a"))];
    let found = errors(&user("machines: {m: \"a@1\"}", "machine: m"), &with(&circle));
    assert!(found.iter().all(|(rule, _)| *rule == Rule::SkillCycle) && !found.is_empty(), "{found:?}");
}

#[test]
fn schemas_of_a_skill_are_those_of_its_machine() {
    let manifest =
        "{name: a, version: 1.0.0, description: d, machine: m.yml, input_schema: {type: object, required: [q]}}";
    let options = with(&[pack(manifest, &[("m.yml", &inner("", ""))])]);
    let loaded = load_with(&user("machines: {m: \"a@1\"}", "machine: m"), &[], &options).expect("loads");
    assert!(loaded.program.machines["skill:a@1.0.0/m.yml"].input_schema.is_some());
    let other = with(&[pack(manifest, &[("m.yml", &inner("input_schema: {type: object}", ""))])]);
    assert_eq!(errors(&user("machines: {m: \"a@1\"}", "machine: m"), &other)[0].0, Rule::WrongValue);
}

#[test]
fn a_skill_is_checked_without_a_user() {
    let agent = "{spec: flatagent, spec_version: \"4.2\", data: {prompt: {user: q}, profile: theirs}}";
    let document = machine(&format!("agents: {{x: {agent}}}\nstates: {{s: {{type: final, agent: x}}}}"));
    let options = with(&[]);
    assert_eq!(check_skill(&worked("a", "pay", &document), &options), [], "profiles are the user's part");
    assert_eq!(check_skill(&told("t", "1.0.0", "one"), &options), []);
    let lost = check_skill(&worked("a", "gone", &document), &options);
    assert_eq!((lost[0].code, &*lost[0].file), (Rule::SkillTool, "skill.yml"));
    let broken = check_skill(&worked("a", "", &inner("", "agent: nobody, ")), &options);
    assert_eq!((broken[0].code, &*broken[0].file), (Rule::UnknownAgent, "skill:a@1.0.0/m.yml"));
}
