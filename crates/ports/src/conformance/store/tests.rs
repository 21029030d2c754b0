//! The cases hold for the store in memory, and notice stores that are broken on purpose.

mod broken;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::{CASES, Case, Damage, Harness};
use crate::BoxFuture;
use crate::fake::MemoryStore;
use crate::store::{Store, WorkerId};
use broken::{Broken, Fault};

#[derive(Debug, Default)]
struct Memory {
    first: MemoryStore,
    fault: Option<Fault>,
}

impl Harness for Memory {
    fn open(&self) -> BoxFuture<'_, Arc<dyn Store>> {
        let store: Arc<dyn Store> = Arc::new(self.first.another());
        Box::pin(std::future::ready(match self.fault {
            Some(fault) => Arc::new(Broken::new(store, fault)),
            None => store,
        }))
    }

    fn damage(&self, damage: &Damage) {
        self.first.damage(damage);
    }

    fn forget(&self, worker: &WorkerId) -> bool {
        self.first.forget(worker);
        true
    }
}

fn run(case: Case) {
    futures::executor::block_on((case.run)(Arc::new(Memory::default())));
}

mod memory {
    crate::store_conformance!(super::run);
}

/// The cases that fail on a store with this fault.
fn failing(fault: Fault) -> Vec<&'static str> {
    let fails = |case: &&Case| {
        let harness = Arc::new(Memory { fault: Some(fault), ..Memory::default() });
        catch_unwind(AssertUnwindSafe(|| futures::executor::block_on((case.run)(harness)))).is_err()
    };
    CASES.iter().filter(|case| case.name != "a_change_elsewhere_is_told").filter(fails).map(|case| case.name).collect()
}

#[track_caller]
fn assert_noticed(fault: Fault, by: &[&str]) {
    let failing = failing(fault);
    for case in by {
        assert!(failing.contains(case), "`{case}` passes on a store with the fault {fault:?}; failing: {failing:?}");
    }
}

#[test]
fn a_store_without_a_fence_is_noticed() {
    assert_noticed(
        Fault::NoFence,
        &["a_stale_epoch_writes_nothing", "take_over_fences_the_old_holder", "another_worker_writes_nothing"],
    );
}

#[test]
fn a_lost_update_is_noticed() {
    assert_noticed(
        Fault::LostUpdate,
        &["a_stale_version_writes_nothing", "the_same_decision_twice_at_once_is_written_once"],
    );
}

#[test]
fn a_dropped_acknowledgement_is_noticed() {
    assert_noticed(Fault::DroppedAcknowledgement, &["a_commit_is_read_back", "behaves_like_the_store_in_memory"]);
}

#[test]
fn a_lost_inbox_row_is_noticed() {
    assert_noticed(Fault::LostInboxRow, &["deliveries_keep_their_order_and_are_deduplicated"]);
}

#[test]
fn a_blind_park_is_noticed() {
    assert_noticed(Fault::BlindPark, &["the_inbox_is_checked_when_parking"]);
}

#[test]
fn losses_that_are_never_forgotten_are_noticed() {
    assert_noticed(Fault::StrikesKept, &["losses_are_counted_until_the_next_decision"]);
}

#[test]
fn a_starving_tenant_is_noticed() {
    assert_noticed(Fault::Starvation, &["a_tenant_with_many_runs_holds_up_nobody", "many_tenants_take_turns"]);
}

#[test]
fn an_ignored_revision_is_noticed() {
    assert_noticed(Fault::BlindPut, &["an_object_changes_only_as_expected", "no_change_of_an_object_is_lost"]);
}

#[test]
fn a_grant_that_is_not_checked_is_noticed() {
    assert_noticed(Fault::BlindDraw, &["draws_at_once_never_exceed_a_cap", "a_draw_is_refused_as_a_whole"]);
}

#[test]
fn a_load_that_forgets_the_inbox_is_noticed() {
    assert_noticed(Fault::BlindLoad, &["a_loaded_run_says_whether_something_lies_in_its_inbox"]);
}

#[test]
fn an_ignored_switch_is_noticed() {
    assert_noticed(
        Fault::BlindSwitch,
        &["a_decision_that_begins_calls_is_told_of_a_changed_switch", "every_kind_of_decision_is_told_of_a_switch"],
    );
}

#[test]
fn a_right_store_behind_the_same_wrapper_passes() {
    assert_eq!(failing(Fault::None), [""; 0]);
}
