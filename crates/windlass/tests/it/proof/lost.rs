//! What was in flight when a worker died, by what its store and the world say of it: what the promises allow is counted
//! from this.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use windlass_core::budget::Amounts;
use windlass_core::effect::OpenCall;
use windlass_core::ids::{EffectId, RunId};
use windlass_core::input::Sent;
use windlass_core::run::Run;
use windlass_ports::store::{Head, Query, Store, WorkerId};

use super::cuts::block_on;
use super::machine::{CHANNEL, SIDE, UNREPEATABLE};
use super::worker::{RUN, engine};
use super::world::World;

/// One attempt at a call: run, effect, attempt.
pub(super) type Attempt = (String, u64, u32);

/// A lost attempt at a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ToolLoss {
    pub(super) tool: String,
    /// Whether the call had reached the world. One that left a mark and did not get that far is in doubt as well: the
    /// mark is made before the call leaves, so nobody but the world can tell.
    pub(super) reached: bool,
}

/// What was in flight when workers died. An attempt that is found twice, because the next worker died before it dealt
/// with it, is one.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// Model attempts that may have left, by what the store knows, with their reservations.
    pub(super) models: BTreeMap<Attempt, Amounts>,
    /// Attempts at tools that may have left, by what the store knows.
    pub(super) tools: BTreeMap<Attempt, ToolLoss>,
    /// Questions whether a call happened.
    pub(super) questions: BTreeSet<Attempt>,
    /// The kinds of effects that were in flight.
    pub(super) kinds: BTreeSet<&'static str>,
}

/// How a tree stood when workers of it died before: a kill only counts for what its own worker had in hand, not for what
/// the one before had left.
#[derive(Debug, Default)]
pub(super) struct Known {
    dead: BTreeSet<WorkerId>,
    versions: BTreeMap<RunId, u64>,
}

impl Known {
    /// Whether the worker that died last held this run.
    fn is_held(&self, head: &Head) -> bool {
        head.owner.as_ref().is_some_and(|owner| !self.dead.contains(owner))
    }

    /// Whether that worker did anything for the tree.
    fn is_moved(&self, heads: &[Head]) -> bool {
        heads.iter().any(|head| self.is_held(head) || self.versions.get(&head.id) != Some(&head.version))
    }

    fn learn(&mut self, heads: &[Head]) {
        self.dead.extend(heads.iter().filter_map(|head| head.owner.clone()));
        self.versions.extend(heads.iter().map(|head| (head.id.clone(), head.version)));
    }
}

impl Lost {
    /// Whether nothing may differ from an undisturbed run.
    pub(super) fn is_empty(&self) -> bool {
        self.models.is_empty() && !self.is_doubted() && self.tools.values().all(|loss| !loss.reached)
    }

    /// Whether a call was lost that must not be repeated: asking about it takes a number, which those of later calls come
    /// after.
    pub(super) fn is_doubted(&self) -> bool {
        self.tools.values().any(|loss| UNREPEATABLE.contains(&&*loss.tool))
    }

    /// How often a tool was reached by a call whose result was lost.
    pub(super) fn times(&self, tool: &str) -> usize {
        self.tools.values().filter(|loss| loss.reached && loss.tool == tool).count()
    }

    /// Everything that a journal may call lost, without the number of the attempt.
    pub(super) fn calls(&self) -> BTreeSet<(String, u64)> {
        let attempts = self.models.keys().chain(self.tools.keys()).chain(&self.questions);
        attempts.map(|(run, effect, _)| (run.clone(), *effect)).collect()
    }

    /// What is charged for lost attempts of one run.
    pub(super) fn charge(&self, run: &str) -> Amounts {
        let mut sum = Amounts::ZERO;
        self.models.iter().filter(|((of, _, _), _)| of == run).for_each(|(_, reserved)| sum.add(reserved));
        sum
    }

    pub(super) fn extend(&mut self, later: Self) {
        self.models.extend(later.models);
        for (attempt, loss) in later.tools {
            let reached = loss.reached || self.tools.get(&attempt).is_some_and(|earlier| earlier.reached);
            self.tools.insert(attempt, ToolLoss { reached, ..loss });
        }
        self.questions.extend(later.questions);
        self.kinds.extend(later.kinds);
    }

    fn add(
        &mut self,
        store: &dyn Store,
        head: &Head,
        effect: EffectId,
        call: &OpenCall,
        seen: &BTreeMap<String, u64>,
        is_held: bool,
    ) {
        let attempt = (head.id.to_string(), effect.0, call.attempt);
        let sent = head.owner.as_ref().map(|owner| store.was_sent(owner, &head.id, effect, call.attempt));
        let may_have_left = sent == Some(Sent::Maybe);
        let target = call.call.target().to_string();
        match call.call.kind() {
            "model" if may_have_left => {
                self.models.insert(attempt, call.reserved);
                self.kinds.extend(is_held.then_some("model"));
            }
            "tool" => {
                let reached = seen.contains_key(&target);
                if reached && is_held {
                    self.kinds.extend(super::machine::TOOLS.iter().find(|tool| **tool == target));
                }
                // Calls that may be repeated have no mark: any that was open counts as lost.
                if may_have_left || !UNREPEATABLE.contains(&&*target) {
                    self.tools.insert(attempt, ToolLoss { tool: target, reached });
                }
            }
            "verify" => {
                self.questions.insert(attempt);
            }
            _ => {}
        }
    }

    /// Children, launches, waits and timers that are open.
    fn look_at(&mut self, run: &Run) {
        if run.id().as_str() == SIDE {
            self.kinds.insert("launch");
        } else if run.id().as_str() != RUN {
            self.kinds.insert("child");
        } else {
            self.kinds.extend(run.waits.values().any(|wait| &*wait.channel == CHANNEL).then_some("signal"));
            self.kinds.extend((!run.timers.is_empty()).then_some("timer"));
        }
    }
}

/// Looks what was in flight in a folder whose worker is dead.
pub(super) fn in_flight(folder: &Path, world: &World, known: &mut Known) -> Lost {
    world.settle();
    let mut lost = Lost::default();
    let seen = world.counts();
    block_on(async {
        let (engine, _) = engine(folder, None).await;
        let store = &engine.parts().store;
        let query = Query { root: Some(RunId::stored(RUN)), limit: 100, ..Query::default() };
        let heads = store.list(query).await.expect("a list").heads;
        let is_moved = known.is_moved(&heads);
        for head in &heads {
            let Some(report) = engine.status(&head.id).await.expect("a report") else { continue };
            for (effect, call) in report.run.calls.iter().filter(|(_, call)| call.is_out()) {
                lost.add(&**store, head, *effect, call, &seen, known.is_held(head));
            }
            if is_moved && !head.status.is_final() {
                lost.look_at(&report.run);
            }
        }
        known.learn(&heads);
    });
    lost
}
