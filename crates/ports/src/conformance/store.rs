//! The cases that every store passes: the list, and what a store brings to run them.
//!
//! A case panics when the store is wrong. Cases know nothing of an async runtime: the store's crate drives them.

mod claims;
mod commits;
mod escrow;
mod hints;
mod inbox;
mod lists;
mod model;
mod objects;
mod switches;
mod quarantine;
mod queue;
mod rates;
mod runs;
mod setup;
mod signals;
mod tags;
mod trail;
mod upkeep;
mod workers;

use std::fmt;
use std::sync::Arc;

use futures::future::LocalBoxFuture;
use windlass_core::ids::{Digest, RunId};

use crate::BoxFuture;
use crate::store::{Store, WorkerId};

/// What a store brings: an empty store, opened as often as asked.
pub trait Harness: Send + Sync + fmt::Debug {
    /// A handle as another process would have it. Its workers die when it is dropped.
    fn open(&self) -> BoxFuture<'_, Arc<dyn Store>>;

    /// Breaks what is stored, behind the back of every handle.
    fn damage(&self, damage: &Damage);

    /// Lets the lease of a worker run out at once, behind the back of its process, which lives: as when it was stopped
    /// for longer than a lease lasts. False where that cannot be, because a worker is as alive as its process.
    fn forget(&self, worker: &WorkerId) -> bool {
        let _as_alive_as_its_process = worker;
        false
    }
}

/// Something that [`Store::fsck`] must notice.
#[derive(Clone, Debug)]
pub enum Damage {
    /// A parked run loses its waits, its timer and its place in the queue.
    Wake(RunId),
    /// A held run is put in the queue as well.
    Queue(RunId),
    /// The first row of a journal is gone.
    Journal(RunId),
    /// The first audit row of a run tells another story.
    Audit(RunId),
    /// A blob is gone.
    Blob(Digest),
    /// The parent of a run is gone.
    Parent(RunId),
    /// A run in the queue is quarantined as well.
    Quarantine(RunId),
}

/// One case.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name: what a right store does.
    pub name: &'static str,
    /// Runs it.
    pub run: fn(Arc<dyn Harness>) -> LocalBoxFuture<'static, ()>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The case of this name.
///
/// # Panics
/// There is none.
#[must_use]
pub fn case(name: &str) -> Case {
    *CASES.iter().find(|case| case.name == name).unwrap_or_else(|| panic!("no case is called `{name}`"))
}

/// Names every case once: passes `module::name` of each to a macro.
#[doc(hidden)]
#[macro_export]
macro_rules! store_cases {
    ($callback:path, $($extra:tt)*) => {
        $callback! { $($extra)*;
            runs::create_is_idempotent
            runs::a_new_run_is_in_the_queue
            runs::a_run_below_an_unknown_one_is_refused
            runs::bundles_are_kept_by_hash
            runs::unknown_runs_are_empty
            claims::claim_is_exclusive
            claims::claim_is_exclusive_between_processes
            claims::claim_respects_its_limit_and_the_order_of_the_queue
            claims::claim_stays_within_a_tree
            claims::what_a_worker_holds_is_told_again
            claims::parked_runs_are_claimed_when_due
            claims::next_due_is_the_earliest_parked_run
            claims::runs_of_a_dead_worker_are_taken_over_at_once
            claims::runs_of_a_live_worker_are_not_claimed
            claims::the_worker_that_lost_a_run_is_known_until_the_next_decision
            claims::take_over_fences_the_old_holder
            claims::take_over_of_a_run_nobody_holds
            claims::only_a_failed_run_can_be_taken_over_after_its_end
            claims::release_hands_back_or_parks
            claims::release_by_a_fenced_worker_changes_nothing
            claims::sent_marks_outlive_their_worker
            commits::a_commit_is_read_back
            commits::a_stale_version_writes_nothing
            commits::a_stale_epoch_writes_nothing
            commits::another_worker_writes_nothing
            commits::a_commit_is_written_once
            commits::the_same_decision_twice_at_once_is_written_once
            commits::refused_commits_write_nothing_and_spare_the_others
            commits::was_committed_knows_every_commit
            commits::journals_are_paged_in_order
            commits::snapshots_shorten_loading
            commits::blobs_are_kept_once
            commits::audit_rows_keep_their_order
            commits::zero_characters_survive
            commits::large_records_survive
            commits::children_are_created_with_the_commit_and_once
            commits::a_thousand_children_in_one_commit
            trail::chains_that_grew_are_sealed_once
            trail::much_is_sealed_in_parts
            trail::acts_follow_one_another
            trail::what_is_pruned_is_gone_and_the_rest_stays
            trail::audit_rows_outlive_their_run
            trail::what_is_not_sealed_is_not_removed
            inbox::deliveries_keep_their_order_and_are_deduplicated
            inbox::a_taken_input_stays_known
            inbox::a_loaded_run_says_whether_something_lies_in_its_inbox
            inbox::deliveries_to_unknown_and_finished_runs_are_refused
            inbox::the_inbox_is_checked_when_parking
            inbox::a_delivery_wakes_a_parked_run
            inbox::a_delivery_to_a_held_run_waits_for_its_holder
            inbox::messages_travel_with_the_commit
            inbox::messages_to_finished_and_unknown_runs_are_dropped
            inbox::messages_to_itself_and_to_new_children_arrive
            inbox::a_thousand_endings_join
            signals::a_signal_reaches_every_open_wait
            signals::a_signal_is_buffered_until_awaited_in_order
            signals::an_answered_wait_takes_no_second_signal
            signals::a_signal_is_sent_once
            signals::a_signal_for_one_run_reaches_only_that
            signals::a_wait_takes_what_names_its_run_first
            signals::signals_to_unknown_and_finished_runs_are_refused
            signals::a_buffered_signal_answers_no_question
            signals::a_closed_wait_gets_nothing
            signals::waits_are_listed_for_a_run_and_its_tree
            lists::ids_are_told_in_order
            lists::lists_are_newest_first_and_paged
            lists::lists_are_filtered
            upkeep::prune_removes_whole_trees_only
            upkeep::prune_keeps_what_it_is_told_to_keep
            upkeep::prune_keeps_shared_blobs
            upkeep::fsck_finds_nothing_in_a_sound_store
            upkeep::fsck_finds_every_planted_damage
            upkeep::stats_count
            workers::workers_are_listed_with_what_they_said
            workers::a_heartbeat_tells_who_lives
            workers::a_worker_that_leaves_gives_back_what_it_holds
            workers::reaping_puts_runs_of_dead_workers_first
            workers::what_a_claim_takes_back_is_told_once
            workers::a_worker_believed_gone_can_do_nothing_more
            quarantine::losses_are_counted_until_the_next_decision
            quarantine::a_run_that_loses_worker_after_worker_is_quarantined
            quarantine::runs_that_lose_workers_in_company_are_driven_alone_first
            quarantine::reaping_quarantines_too
            quarantine::what_comes_for_a_quarantined_run_is_kept
            quarantine::a_quarantine_ends_by_requeueing
            quarantine::a_quarantined_run_can_be_taken_over
            quarantine::take_over_of_a_run_that_is_no_longer_as_expected
            quarantine::a_fence_voids_everything
            queue::classes_are_claimed_in_order
            queue::workers_of_a_pool_get_its_runs
            queue::children_wait_as_their_parent_does
            queue::a_tenant_with_many_runs_holds_up_nobody
            queue::many_tenants_take_turns
            queue::a_tenant_holds_no_more_than_it_may
            queue::a_run_is_not_claimed_before_its_time
            queue::a_queue_that_is_full_takes_no_more
            queue::the_depth_of_the_queue_is_known
            tags::runs_are_found_by_their_tags
            tags::runs_are_found_by_tenant_pool_and_time
            tags::prune_goes_by_tags
            objects::an_object_changes_only_as_expected
            objects::objects_are_listed_by_key
            objects::no_change_of_an_object_is_lost
            escrow::budgets_are_kept_with_their_versions
            escrow::a_draw_is_granted_once_and_returned
            escrow::a_draw_is_refused_as_a_whole
            escrow::draws_at_once_never_exceed_a_cap
            escrow::what_a_run_returned_is_known_until_it_is_pruned
            escrow::what_a_removed_run_holds_counts_as_used
            escrow::draws_that_come_together_see_each_other
            rates::permits_are_handed_out_once
            rates::permits_at_once_never_exceed_a_burst
            rates::who_waits_is_told
            rates::of_large_calls_the_one_that_came_first_goes
            rates::after_a_fence_buckets_are_empty
            rates::buckets_that_are_full_and_unused_are_forgotten
            switches::a_decision_that_begins_calls_is_told_of_a_changed_switch
            switches::the_switch_of_a_tenant_is_for_its_runs
            switches::every_kind_of_decision_is_told_of_a_switch
            hints::a_change_here_is_told
            hints::a_change_elsewhere_is_told
            model::behaves_like_the_store_in_memory
        }
    };
}

macro_rules! table {
    (; $($module:ident :: $name:ident)*) => {
        /// Every case.
        pub const CASES: &[Case] = &[$(Case {
            name: stringify!($name),
            run: |harness| Box::pin($module::$name(harness)),
        }),*];
    };
}
store_cases!(table,);

/// Makes one `#[test]` of each case. `$run` takes a [`Case`] and runs it on a fresh store.
#[macro_export]
macro_rules! store_conformance {
    (@each $run:path; $($module:ident :: $name:ident)*) => {
        $(#[test]
        fn $name() {
            $run($crate::conformance::store::case(stringify!($name)));
        })*
    };
    ($run:path) => {
        $crate::store_cases!($crate::store_conformance, @each $run);
    };
}

#[cfg(test)]
mod tests;
