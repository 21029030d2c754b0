//! Evidence about versions of agents in a store, and the scores that follow from it.

use std::collections::BTreeMap;

use futures::executor::block_on;
use windlass_core::ids::Name;
use windlass_core::time::Timestamp;
use windlass_policy::TrustConfig;
use windlass_policy::evidence::{self, Counts, Evidence, Incident, Kind, Severity};
use windlass_policy::trust::{self, Change};
use windlass_ports::fake::MemoryStore;

const DAY_MS: u64 = 86_400_000;

fn at(day: u64) -> Timestamp {
    Timestamp(day * DAY_MS)
}

fn add(store: &MemoryStore, agent: &str, counts: &[(Kind, u64)], day: u64) {
    let counts: Counts = counts.iter().copied().collect();
    block_on(evidence::add(store, &agent.into(), &counts, at(day))).expect("added");
}

/// What changes, as before and after.
fn compute(store: &MemoryStore, day: u64) -> Vec<(Name, Option<u32>, u32)> {
    let all: BTreeMap<Name, Evidence> = block_on(evidence::all(store)).expect("read");
    let changed = block_on(evidence::compute(store, &all, &TrustConfig::default(), at(day))).expect("computed");
    changed.into_iter().map(|one| (one.agent, one.before, one.after)).collect()
}

#[test]
fn scores_follow_evidence_and_stay_where_a_person_set_them() {
    let store = MemoryStore::default();
    let (one, two) = ("clerk@0123456789ab", "clerk@ba9876543210");
    add(&store, one, &[(Kind::Passed, 15)], 1_000);
    assert_eq!(compute(&store, 1_000), [], "too little");
    add(&store, one, &[(Kind::Passed, 3), (Kind::Failed, 2)], 1_000);
    assert_eq!(compute(&store, 1_000), [(one.into(), None, 90)]);
    assert_eq!(compute(&store, 1_000), [], "nothing has changed");
    // Another version begins with nothing.
    add(&store, two, &[(Kind::Calls, 10)], 1_001);
    assert_eq!(compute(&store, 1_001), []);
    let incident = Incident { at: at(1_001), severity: Severity::Major, reason: "r".into(), by: "ada".into() };
    block_on(evidence::report(&store, &one.into(), &incident)).expect("reported");
    assert_eq!(compute(&store, 1_001), [(one.into(), Some(90), 65)]);
    let by_hand = Change { score: 80, by: "ada".into(), reason: "r".into(), at: at(1_001), computed: false };
    block_on(trust::set(&store, one, by_hand.clone())).expect("set");
    assert_eq!(compute(&store, 1_002), []);
    block_on(trust::set(&store, one, Change { computed: true, ..by_hand })).expect("set");
    // The incident counts less by now, and what is beyond the window not at all.
    assert_eq!(compute(&store, 1_015), [(one.into(), Some(80), 78)]);
    assert_eq!(compute(&store, 1_030), [(one.into(), Some(78), 0)], "too little is left");
    assert_eq!(compute(&store, 1_040), []);
    let changes = &block_on(trust::all(&store)).expect("read")[one].changes;
    assert!(changes.last().is_some_and(|last| last.computed && last.reason.contains("evidence 0")), "{changes:?}");
}

#[test]
fn a_score_of_before_there_was_evidence_counts_as_set_by_a_person() {
    let old = r#"{"changes":[{"score":80,"by":"ada","reason":"evals","at":1}]}"#;
    let score: trust::Score = serde_json::from_str(old).expect("read");
    assert!(!score.changes[0].computed);
    assert_eq!(serde_json::to_string(&score).expect("written"), old);
}
