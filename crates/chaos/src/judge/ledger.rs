//! The log of the counting server as the effects of a history.

use std::collections::{BTreeMap, BTreeSet};

use windlass_core::contract::{Class, Idempotency};
use windlass_core::ids::{Digest, EffectId, Name, RunId};
use windlass_ports::compile::Bundle;
use windlass_sim::history::{Effect, History, Result as Ended, Violation};

use crate::effects::{Deed, Fate, Kind};
use crate::run::root_of;

/// Every request with an idempotency key. Model calls carry none.
pub(super) fn effects(deeds: &[Deed], bundle: &Bundle, began_ms: u64) -> Vec<Effect> {
    deeds.iter().filter_map(|deed| effect(deed, bundle, began_ms)).collect()
}

fn effect(deed: &Deed, bundle: &Bundle, began_ms: u64) -> Option<Effect> {
    let (run, number) = deed.key.rsplit_once('#')?;
    let contract = bundle.tools.iter().find(|contract| *contract.name == *deed.what);
    let (class, idempotency) = match (deed.kind, contract) {
        (Kind::Hook, _) => (Class::Write, Idempotency::Key),
        (Kind::Verify, _) => (Class::Read, Idempotency::None),
        (_, Some(contract)) => (contract.class, contract.idempotency),
        (_, None) => (Class::Write, Idempotency::None),
    };
    Some(Effect {
        process: deed.worker.as_str().into(),
        key: deed.key.as_str().into(),
        run: RunId::stored(run),
        effect: EffectId(number.parse().ok()?),
        attempt: 0,
        kind: match deed.kind {
            Kind::Tool => "tool".into(),
            Kind::Verify => "verify".into(),
            Kind::Hook => "hook".into(),
            Kind::Model => "model".into(),
        },
        target: deed.what.as_str().into(),
        class,
        idempotency,
        arguments: Digest::of(deed.arguments.to_string().as_bytes()),
        at: began_ms + deed.at_ms,
        happened: deed.fate.happened(),
        result: match deed.fate {
            Fate::Done | Fate::Repeat => Ended::Ok,
            Fate::Refused => Ended::Fail,
            Fate::ClosedBefore | Fate::ClosedAfter => Ended::Info,
        },
    })
}

/// Takes out what the history cannot know: model calls carry no key, so that the log does not tell which of them
/// reached the world.
pub(super) fn keep_promised(violations: &mut Vec<Violation>, history: &History) {
    let models: BTreeSet<Name> = history
        .runs
        .iter()
        .flat_map(|end| {
            let rows = end.audit.iter().filter(|row| &*row.kind == "model");
            rows.map(|row| format!("`{}` is done and never reached the world", row.effect.key(&end.start.id)).into())
        })
        .collect();
    violations.retain(|violation| !models.contains(&Name::from(violation.message.as_str())));
}

/// How many effects each caller's run had on each tool, action and hook, its children included.
pub(super) fn by_root(deeds: &[Deed]) -> BTreeMap<&str, BTreeMap<String, usize>> {
    let mut seen = BTreeSet::new();
    let mut by_root: BTreeMap<&str, BTreeMap<String, usize>> = BTreeMap::new();
    for deed in deeds.iter().filter(|deed| matches!(deed.kind, Kind::Tool | Kind::Hook) && deed.fate.happened()) {
        if seen.insert((&deed.what, &deed.key)) {
            *by_root.entry(root_of(&deed.key)).or_default().entry(deed.what.clone()).or_default() += 1;
        }
    }
    by_root
}
