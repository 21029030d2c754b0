//! Children and launches: started with ids derived from their place, awaited, cancelled.

use super::{About, Flow, Turn, exceeded};
use crate::budget::{Amounts, Ceilings, Meter};
use crate::effect::{ChildStart, Effect, TimerPurpose};
use crate::failure::{Code, Failure};
use crate::handoff::{self, Handoff};
use crate::ids::{Name, RunId};
use crate::input::{Ending, Input};
use crate::journal::Entry;
use crate::label::{Marks, Tags, path};
use crate::limits;
use crate::machine::{Call, Launch, Mode, Targets};
use crate::policy::Question;
use crate::run::{Join, JoinShape, Run, Terms};
use crate::value::{Map, Value};

/// A child to be started.
pub(super) struct Wanted {
    /// The name that the machine has for it; none for one that a hook asked for.
    pub name: Option<Name>,
    /// Key of its machine in the program.
    pub machine: Name,
    /// What its contract bounds it by.
    pub bounds: Ceilings,
    /// What it may do.
    pub terms: Terms,
    /// Its input.
    pub input: Value,
    /// The labels of that.
    pub marks: Marks,
}

impl Turn<'_> {
    /// Starts the machines of `launch`. They go on by themselves.
    pub(super) fn launch(&mut self, launch: &Launch) -> Result<(), Failure> {
        let input = self.fill("launch_input", &launch.input)?;
        let marks = self.labels_of(&launch.input, &self.view());
        let wanted = launch.machines.iter().map(|name| self.child_wanted(name, input.clone(), marks.clone())).collect();
        self.start_children(wanted, false)
    }

    /// Starts the children of a state, or looks whether they are done.
    pub(super) fn join(&mut self, call: &Call) -> Result<Flow, Failure> {
        let Some(join) = self.run.join.take() else { return self.open_join(call) };
        let result = result(&join);
        self.run.join = Some(join);
        let Some(result) = result else { return Ok(Flow::Rest) };
        let output = result?;
        self.cancel_children("another child was first", false);
        self.cancel_timers(|purpose| purpose == TimerPurpose::JoinTimeout);
        let labels = self.join_labels();
        self.emit(Entry::JoinEnded);
        if self.run.output.is_null() {
            self.emit(Entry::OutputProduced { output });
            self.label(path(["output"]), labels);
        }
        Ok(Flow::Go)
    }

    fn open_join(&mut self, call: &Call) -> Result<Flow, Failure> {
        let (shape, wanted, of_keys) = self.targets(&call.targets)?;
        let any = call.mode == Mode::Any;
        if wanted.is_empty() {
            let empty = if matches!(shape, JoinShape::Keys(_)) { Value::empty_map() } else { Value::list(Vec::new()) };
            self.emit(Entry::OutputProduced { output: empty });
            return Ok(Flow::Go);
        }
        let open = wanted.len() as u32;
        let slots = vec![None; wanted.len()];
        self.emit(Entry::JoinStarted { join: Join { shape, any, slots, open, winner: None } });
        self.taint(path(["join"]), of_keys);
        self.start_children(wanted, true)?;
        if let Some(ms) = call.timeout_ms {
            self.set_timer(self.facts.now.plus_ms(ms), TimerPurpose::JoinTimeout);
        }
        Ok(Flow::Rest)
    }

    /// The children, and the labels of the keys of their results.
    fn targets(&mut self, targets: &Targets) -> Result<(JoinShape, Vec<Wanted>, Tags), Failure> {
        let view = self.view();
        match targets {
            Targets::One { machine, input } => {
                let marks = self.labels_of(input, &view);
                let input = self.fill("input", input)?;
                Ok((JoinShape::One, vec![self.child_wanted(machine, input, marks)], Tags::new()))
            }
            Targets::Many(children) => {
                let keys = children.iter().map(|(name, _)| name.clone()).collect();
                let wanted = children
                    .iter()
                    .map(|(name, input)| {
                        let marks = self.labels_of(input, &view);
                        let input = self.fill(&format!("input of {name}"), input)?;
                        Ok(self.child_wanted(name, input, marks))
                    })
                    .collect::<Result<_, Failure>>()?;
                Ok((JoinShape::Keys(keys), wanted, Tags::new()))
            }
            Targets::Foreach { machine, items, binding, input, key } => {
                let value = self.fill("foreach", items)?;
                let Some(list) = value.as_list() else {
                    let message = format!("`foreach` needs a list, not {}", value.type_name());
                    return Err(Failure::new(Code::RunNotAList, message));
                };
                // Which items a list has depends on all that it was made of.
                let of_items = self.labels_of(items, &view).all();
                let view = view.with(binding.clone(), Marks::whole(of_items.clone()));
                let marks = self.labels_of(input, &view);
                let mut keys = Vec::new();
                let mut wanted = Vec::with_capacity(list.len().min(limits::FAN_OUT_MAX));
                for item in list.iter().take(limits::FAN_OUT_MAX + 1) {
                    let scope = self.scope().with(binding.clone(), item.clone());
                    let input = self.fill_with("input", input, &scope)?;
                    wanted.push(self.child_wanted(machine, input, marks.clone()));
                    if let Some(key) = key {
                        keys.push(key_text(&self.fill_with("key", key, &scope)?));
                    }
                }
                let shape = if key.is_some() { JoinShape::Keys(distinct(keys)?) } else { JoinShape::List };
                let mut of_keys = of_items;
                if let Some(key) = key {
                    of_keys.extend(self.labels_of(key, &view).all());
                }
                Ok((shape, wanted, of_keys))
            }
        }
    }

    /// A child by its name in the machine.
    pub(super) fn child_wanted(&self, name: &Name, input: Value, marks: Marks) -> Wanted {
        let contract = self.machine.child_contracts.get(name);
        Wanted {
            name: Some(name.clone()),
            machine: self.machine.machines.get(name).cloned().unwrap_or_default(),
            bounds: contract.map(|contract| contract.ceilings).unwrap_or_default(),
            terms: self.run.start.terms.narrowed(contract),
            input,
            marks,
        }
    }

    /// What may cross to a child, where its contract has an envelope. One that a hook asked for has none.
    pub(super) fn envelope(&self, wanted: &Wanted) -> Option<&Handoff> {
        self.machine.child_contracts.get(wanted.name.as_ref()?)?.handoff.as_ref()
    }

    /// Nothing crosses to a child that its envelope does not name; none is started otherwise.
    fn check_envelopes(&self, wanted: &[Wanted]) -> Result<(), Failure> {
        for child in wanted {
            let Some(envelope) = self.envelope(child) else { continue };
            envelope.check(&child.input).map_err(|why| {
                let name = child.name.as_deref().unwrap_or_default();
                Failure::new(Code::RunBadInput, format!("what is handed to `{name}` does not fit its envelope: {why}"))
            })?;
        }
        Ok(())
    }

    pub(super) fn start_children(&mut self, wanted: Vec<Wanted>, awaited: bool) -> Result<(), Failure> {
        if wanted.len() > limits::FAN_OUT_MAX {
            let message = format!("a state starts at most {} children", limits::FAN_OUT_MAX);
            return Err(Failure::new(Code::RunTooLarge, message));
        }
        let ceilings = self.run.ledger.ceilings;
        let depth_left = ceilings.depth.unwrap_or(limits::DEPTH_DEFAULT);
        if depth_left == 0 {
            let message = format!("the ceiling of depth is reached: this run is {} deep", self.run.start.depth);
            return Err(Failure::new(Code::BudgetExceeded, message));
        }
        let count = wanted.len() as u64;
        let launches = Amounts::ZERO.with(Meter::Launches, count);
        self.run.ledger.check(&launches).map_err(|over| exceeded(self.run, over))?;
        for child in &wanted {
            self.permitted(&Question::StartMachine { machine: child.machine.clone() }, About::Nothing)?;
        }
        self.check_envelopes(&wanted)?;
        // What is carved is what is left once these launches are counted.
        let mut ledger = self.run.ledger.clone();
        ledger.charge(&Amounts::ZERO.with(Meter::Launches, count));
        let below = Ceilings { depth: Some(depth_left - 1), ..Ceilings::default() };
        for (slot, child) in wanted.into_iter().enumerate() {
            let has_envelope = self.envelope(&child).is_some();
            let Wanted { name, machine, bounds, terms, input, marks } = child;
            if let Some(name) = &name {
                self.note_child_skill(name);
            }
            let (bounds, allotment) = ledger.carve(count, &bounds.tighter(&below));
            let input = if has_envelope { handoff::with_limits(&input, &bounds, &terms) } else { input };
            let (hidden, ruled) = (self.run.hidden.within(&input), self.child_ruled(&machine));
            let child = ChildStart {
                id: self.run.id().child(self.run.step, self.run.ordinal),
                machine,
                input,
                ceilings: bounds,
                allotment,
                awaited,
                depth: self.run.start.depth + 1,
                deadline: self.run.ledger.deadline,
                terms,
                labels: self.run.labels.kept.then_some(marks),
                hidden,
                ruled,
            };
            let slot = awaited.then_some(slot as u32);
            self.emit(Entry::ChildStarted { child: Box::new(child.clone()), slot });
            self.ask(Effect::Start(Box::new(child)));
        }
        Ok(())
    }
}

fn key_text(value: &Value) -> Name {
    match value {
        Value::Str(text) => text.clone(),
        other => other.to_json().into(),
    }
}

fn distinct(keys: Vec<Name>) -> Result<Vec<Name>, Failure> {
    let mut sorted: Vec<_> = keys.iter().collect();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => {
            Err(Failure::new(Code::RunDuplicateKey, format!("two items of `foreach` have the key `{}`", pair[0])))
        }
        None => Ok(keys),
    }
}

/// The result of a join; none while it waits.
pub(super) fn result(join: &Join) -> Option<Result<Value, Failure>> {
    (join.open == 0 || join.winner.is_some()).then(|| join_result(join))
}

/// The result of a join that is done.
fn join_result(join: &Join) -> Result<Value, Failure> {
    if let Some(winner) = join.winner {
        let value = slot_value(join.slots.get(winner as usize).and_then(Option::as_ref));
        return Ok(match &join.shape {
            JoinShape::One => value,
            JoinShape::Keys(keys) => {
                let key = keys.get(winner as usize).cloned().unwrap_or_default();
                Value::map([(key, value)].into_iter().collect())
            }
            JoinShape::List => Value::list(vec![value]),
        });
    }
    if join.any {
        return Err(all_failed(join));
    }
    match &join.shape {
        JoinShape::One => match join.slots.first().and_then(Option::as_ref) {
            Some(Ending::Completed { output }) => Ok(output.clone()),
            Some(Ending::Failed { failure, .. }) => Err(failure.clone()),
            Some(Ending::Cancelled { reason }) => {
                Err(Failure::new(Code::RunChildFailed, format!("the child was cancelled: {reason}")))
            }
            None => Err(Failure::new(Code::InternalInvariant, "a join without an ending is done")),
        },
        JoinShape::Keys(keys) => {
            let entries = keys.iter().cloned().zip(join.slots.iter().map(|slot| slot_value(slot.as_ref())));
            Ok(Value::map(entries.collect::<Map>()))
        }
        JoinShape::List => Ok(Value::list(join.slots.iter().map(|slot| slot_value(slot.as_ref())).collect())),
    }
}

/// A child's place in a settled result.
fn slot_value(ending: Option<&Ending>) -> Value {
    let failed =
        |message: Name, kind: Name| Value::object([("_error", Value::Str(message)), ("_error_type", Value::Str(kind))]);
    match ending {
        Some(Ending::Completed { output }) => output.clone(),
        Some(Ending::Failed { failure, .. }) => failed(failure.message.clone(), failure.display_type()),
        Some(Ending::Cancelled { reason }) => failed(reason.clone(), "CancelledError".into()),
        None => Value::Null,
    }
}

fn all_failed(join: &Join) -> Failure {
    let reasons: Vec<_> = join.slots.iter().map(|slot| slot_value(slot.as_ref())).collect();
    let first = match join.slots.iter().flatten().next() {
        Some(Ending::Failed { failure, .. }) => failure.message.to_string(),
        Some(Ending::Cancelled { reason }) => reason.to_string(),
        Some(Ending::Completed { .. }) | None => String::new(),
    };
    Failure::new(Code::RunAllFailed, format!("all {} children failed; the first: {first}", join.slots.len()))
        .detail(Value::object([("failures", Value::list(reasons))]))
}

/// The message that tells a parent how its child ended.
pub(super) fn farewell(run: &Run, ending: Ending) -> Option<(RunId, Name, Input)> {
    let parent = run.start.parent.as_ref()?;
    let mut used = run.ledger.settled;
    used.add(&run.ledger.granted);
    let id: Name = format!("ended:{}", run.id()).into();
    let labels = crate::label::of_result(run, &ending);
    let hidden = match &ending {
        // Of a value that was cut only the beginning stands there.
        Ending::Completed { output } if crate::label::is_cut(output) => run.hidden.clone(),
        _ => run.hidden.within_ending(&ending),
    };
    Some((parent.run.clone(), id, Input::ChildEnded { child: run.id().clone(), ending, used, labels, hidden }))
}
