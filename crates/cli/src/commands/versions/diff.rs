//! `windlass versions diff`: what changed from one version to another, by agents and by lines.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value as Json, json};
use similar::TextDiff;
use windlass_core::ids::{Digest, Name};
use windlass_runtime::versions::{Reference, Version};
use windlass_runtime::{VersionError, Versions};

use super::{problem, texts};
use crate::app::App;
use crate::args;
use crate::exit::{Exit, Problem};
use crate::output::{Form, printable};

/// How long the shortest way from one text to another is looked for; beyond it any way is taken.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between the key of a machine and the name of an agent: neither has one.
const AGENT_MARK: char = '\n';

/// One thing that is not the same in both.
struct Change<'a, T> {
    what: &'a str,
    before: Option<T>,
    after: Option<T>,
}

impl<T> Change<'_, T> {
    fn word(&self) -> &'static str {
        match (&self.before, &self.after) {
            (None, _) => "added",
            (_, None) => "removed",
            (Some(_), Some(_)) => "changed",
        }
    }
}

/// What differs between two maps, by key.
fn changes<'a, T: PartialEq>(
    before: &'a BTreeMap<String, T>,
    after: &'a BTreeMap<String, T>,
) -> Vec<Change<'a, &'a T>> {
    let mut keys: Vec<&String> = before.keys().chain(after.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let change = |what: &'a String| Change { what, before: before.get(what), after: after.get(what) };
    keys.into_iter().map(change).filter(|change| change.before != change.after).collect()
}

/// Compares two versions of a name.
pub(super) async fn diff(app: &App, args: &args::VersionsDiff) -> Result<Exit, Problem> {
    let name: Name = super::name(&args.name)?.into();
    let store = app.store_to_read().await?.ok_or_else(|| problem(VersionError::Unknown(name.clone())))?;
    let versions = Versions::new(store);
    let (mut found, mut sources) = (Vec::new(), Vec::new());
    for number in [Some(args.from), args.to] {
        let version = versions.find(&Reference { name: name.clone(), number }).await.map_err(problem)?;
        sources.push(texts(&versions.sources(&version).await.map_err(problem)?));
        found.push(version);
    }
    let agents: Vec<BTreeMap<String, Digest>> = found.iter().map(agents_of).collect();
    let (agents, files) = (changes(&agents[0], &agents[1]), changes(&sources[0], &sources[1]));
    let ids = (found[0].id(), found[1].id());
    let diffs: Vec<String> = files.iter().map(|file| unified(file, (&ids.0, &ids.1), args.context as usize)).collect();
    match app.output.form() {
        Form::Json => app.output.document(&json!({
            "name": args.name,
            "from": found[0].number,
            "to": found[1].number,
            "same": files.is_empty(),
            "agents": agents.iter().map(agent_json).collect::<Vec<Json>>(),
            "files": files.iter().zip(&diffs).map(|(file, diff)| file_json(file, diff)).collect::<Vec<Json>>(),
        })),
        Form::Text if files.is_empty() => app.output.text(&format!("{} and {} have the same content\n", ids.0, ids.1)),
        Form::Text => app.output.text(&printable(&told(&agents, &files, &diffs))),
    }
    Ok(Exit::Ok)
}

fn agent_json(change: &Change<'_, &Digest>) -> Json {
    let (machine, agent) = change.what.split_once(AGENT_MARK).unwrap_or_default();
    json!({ "machine": machine, "agent": agent, "change": change.word(), "from": change.before, "to": change.after })
}

fn file_json(change: &Change<'_, &String>, diff: &str) -> Json {
    let hash = |text: Option<&String>| text.map(|text| Digest::of(text.as_bytes()));
    let (from, to) = (hash(change.before), hash(change.after));
    json!({ "path": change.what, "change": change.word(), "from": from, "to": to, "diff": diff })
}

fn told(agents: &[Change<'_, &Digest>], files: &[Change<'_, &String>], diffs: &[String]) -> String {
    let short = |hash: Option<&Digest>| hash.map_or_else(|| "-".to_owned(), Digest::short);
    let agent = |change: &Change<'_, &Digest>| {
        let (machine, agent) = change.what.split_once(AGENT_MARK).unwrap_or_default();
        let (before, after) = (short(change.before), short(change.after));
        format!("{} agent {agent} of {machine}: {before} -> {after}\n", change.word())
    };
    let file = |change: &Change<'_, &String>| format!("{} {}\n", change.word(), change.what);
    let mut text: String = agents.iter().map(agent).chain(files.iter().map(file)).collect();
    for diff in diffs {
        text.push('\n');
        text.push_str(diff);
    }
    text
}

fn agents_of(version: &Version) -> BTreeMap<String, Digest> {
    let all = version.agents.iter().flat_map(|(machine, agents)| agents.iter().map(move |agent| (machine, agent)));
    all.map(|(machine, (agent, hash))| (format!("{machine}{AGENT_MARK}{agent}"), *hash)).collect()
}

/// The changed lines of a text, with some around them.
fn unified(change: &Change<'_, &String>, (from, to): (&str, &str), context: usize) -> String {
    let text = |text: Option<&String>| text.map(String::as_str).unwrap_or_default().to_owned();
    let (before, after) = (text(change.before), text(change.after));
    let named = |of: &str, there: bool| if there { format!("{of}/{}", change.what) } else { "/dev/null".to_owned() };
    let (from, to) = (named(from, change.before.is_some()), named(to, change.after.is_some()));
    let diff = TextDiff::configure().timeout(PATIENCE).diff_lines(&before, &after);
    diff.unified_diff().context_radius(context).header(&from, &to).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_found_by_key_and_told_by_lines() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect()
        };
        let before = map(&[("a", "1\n2\n3\n"), ("b", "same"), ("c", "gone\n")]);
        let after = map(&[("a", "1\nx\n3\n"), ("b", "same"), ("d", "new\n")]);
        let found = changes(&before, &after);
        let words: Vec<_> = found.iter().map(|change| (change.what, change.word())).collect();
        assert_eq!(words, [("a", "changed"), ("c", "removed"), ("d", "added")]);
        let lines: Vec<String> = found.iter().map(|change| unified(change, ("n@1", "n@2"), 0)).collect();
        assert_eq!(lines[0], "--- n@1/a\n+++ n@2/a\n@@ -2 +2 @@\n-2\n+x\n");
        assert!(lines[1].starts_with("--- n@1/c\n+++ /dev/null\n") && lines[1].ends_with("-gone\n"), "{}", lines[1]);
        assert!(lines[2].starts_with("--- /dev/null\n+++ n@2/d\n") && lines[2].ends_with("+new\n"), "{}", lines[2]);
    }
}
