//! Which labels what happens brings: the input, signals, answers, templates, the conversation with a model, failures.

use super::Turn;
use crate::contract::Contract;
use crate::effect::Outcome;
use crate::ids::Name;
use crate::input::Ending;
use crate::journal::Entry;
use crate::label::{
    self, Label, LabelSet, Mark, Marks, Source, SourceKind, Tags, View, of_arguments, of_template, path, set_of,
};
use crate::limits;
use crate::machine::{ChildContract, HookKind, Machine, Targets, Template};
use crate::policy::Question;
use crate::run::{JoinShape, OfferedTool, Run, Start};
use crate::value::{Map, Value};

/// The places in which a run has data.
const PLACES: [&str; 5] = ["input", "context", "output", "asked", "join"];

/// Every set of labels that the arguments of a call may have by the time it is decided about.
pub(super) fn reachable(at_least: LabelSet) -> impl Iterator<Item = LabelSet> {
    LabelSet::ALL.into_iter().filter(move |set| set.covers(at_least))
}

/// Labels of which nobody knows what they should be: all of them.
fn unknown() -> Tags {
    let source = Source { kind: SourceKind::Unknown, name: "".into(), step: 0 };
    Label::ALL.into_iter().map(|label| (label, source.clone())).collect()
}

/// The labels of a run's input.
fn of_input(machine: &Machine, start: &Start) -> Marks {
    let mut marks = match (&start.labels, &start.parent) {
        (Some(labels), _) => labels.clone(),
        (None, Some(_)) => Marks::whole(unknown()),
        (None, None) => Marks::default(),
    };
    let source = || Source { kind: SourceKind::Input, name: "".into(), step: 0 };
    if start.parent.is_none() && start.labels.is_none() && !machine.provenance.input_trusted {
        marks.add(Vec::new(), Label::Untrusted, source());
    }
    for secret in &machine.provenance.secret_input {
        if let Some(part) = label::reached(&start.input, secret) {
            marks.add(part.to_vec(), Label::Secret, source());
        }
    }
    marks
}

/// What `input` of states reads: the run's input where no key of the context hides it.
fn of_input_view(run: &Run) -> Marks {
    let mut view = run.labels.marks.below(&path(["context"]));
    let (Value::Map(context), Some(input)) = (&run.context, run.start.input.as_map()) else { return view };
    let seen = |key: &Name| !context.contains_key(key);
    for (at, label, from) in run.labels.marks.below(&path(["input"])).iter() {
        match at.first() {
            Some(key) if seen(key) => view.add(at.to_vec(), label, from.clone()),
            Some(_) => {}
            // Many keys are not told apart.
            None if input.len() > limits::LABELS_MAX => view.add(Vec::new(), label, from.clone()),
            None => {
                input.keys().filter(|key| seen(key)).for_each(|key| view.add(vec![key.clone()], label, from.clone()))
            }
        }
    }
    view
}

impl Turn<'_> {
    fn source(&self, kind: SourceKind, name: &Name) -> Source {
        Source { kind, name: name.clone(), step: self.run.step }
    }

    /// One label that comes from outside.
    fn untrusted(&self, kind: SourceKind, name: &Name) -> Tags {
        Tags::from([(Label::Untrusted, self.source(kind, name))])
    }

    fn change_labels(&mut self, cleared: Vec<Vec<Name>>, mut marks: Marks) {
        marks.bound();
        if self.run.labels.kept && self.run.labels.changed(&cleared, &marks) != self.run.labels {
            self.emit(Entry::LabelsChanged { cleared, marks });
        }
    }

    /// Replaces the labels on one path.
    pub(super) fn label(&mut self, at: Vec<Name>, marks: Marks) {
        let marks = marks.within(&at);
        self.change_labels(vec![at], marks);
    }

    /// Adds labels to one path.
    pub(super) fn taint(&mut self, at: Vec<Name>, tags: Tags) {
        self.change_labels(Vec::new(), Marks::whole(tags).within(&at));
    }

    /// Replaces the labels of keys of the context.
    pub(super) fn label_context(&mut self, keys: Vec<(Name, Marks)>) {
        if keys.len() > limits::LABELS_MAX {
            let tags = keys.iter().flat_map(|(_, marks)| marks.all()).collect();
            return self.taint(path(["context"]), tags);
        }
        let mut marks = Marks::default();
        let mut cleared = Vec::with_capacity(keys.len());
        for (key, of_key) in keys {
            let at = vec![Name::from("context"), key];
            marks.join(of_key.within(&at));
            cleared.push(at);
        }
        self.change_labels(cleared, marks);
    }

    /// Labels are kept where rules may ask for them. A run that goes on without having kept them counts as having all.
    pub(super) fn keep_labels(&mut self) {
        if self.run.labels.kept || self.facts.allow_unasked || !self.run.started {
            return;
        }
        let mut marks = Marks::default();
        for place in PLACES {
            marks.join(Marks::whole(unknown()).within(&path([place])));
        }
        self.emit(Entry::LabelsChanged { cleared: Vec::new(), marks });
    }

    /// Labels what the run begins with.
    pub(super) fn label_start(&mut self) {
        if self.facts.allow_unasked {
            return;
        }
        let mut marks = of_input(self.machine, &self.run.start).within(&path(["input"]));
        if let Some(origin) = &self.run.start.origin {
            let of_context = match &origin.labels {
                Some(labels) => labels.clone(),
                None => Marks::whole(unknown()),
            };
            marks.join(of_context.within(&path(["context"])));
        }
        self.emit(Entry::LabelsChanged { cleared: Vec::new(), marks });
    }

    /// The labels of what templates of the current state read.
    pub(super) fn view(&self) -> View {
        let marks = &self.run.labels.marks;
        if marks.is_empty() {
            return View::default();
        }
        View::default()
            .with("context", marks.below(&path(["context"])))
            .with("input", of_input_view(self.run))
            .with("output", marks.below(&path(["output"])))
    }

    /// The labels of the run's input alone, as its first context reads it.
    pub(super) fn first_view(&self) -> View {
        View::default().with("input", self.run.labels.marks.below(&path(["input"])))
    }

    pub(super) fn labels_of(&self, template: &Template, view: &View) -> Marks {
        of_template(template, view, self.evaluator)
    }

    /// The labels of what a signal says.
    pub(super) fn signal_labels(&self, state: Option<Name>) -> Tags {
        match self.machine.provenance.signals_trusted {
            true => Tags::new(),
            false => self.untrusted(SourceKind::Signal, &state.unwrap_or_default()),
        }
    }

    pub(super) fn on_signal_labels(&mut self, state: Option<Name>) {
        let tags = self.signal_labels(state);
        self.label(path(["output"]), Marks::whole(tags));
    }

    /// What the text of a failure may repeat: anything that the run has, and what others said.
    pub(super) fn failure_labels(&mut self) {
        let state = self.run.state.clone().unwrap_or_default();
        let tags = self.retold(SourceKind::Failure, &state);
        self.taint(path(["context", "last_error"]), tags.clone());
        self.taint(path(["context", "last_error_type"]), tags);
    }

    /// What a person gives in the place of a state may repeat the same.
    pub(super) fn label_given(&mut self, by: &Name) {
        let tags = self.retold(SourceKind::Person, by);
        self.label(path(["output"]), Marks::whole(tags));
    }

    /// Labels of what may repeat anything that the run has, and what the action of its state answers.
    fn retold(&self, kind: SourceKind, name: &Name) -> Tags {
        let mut tags = self.run.labels.marks.all();
        let outside = self.untrusted(kind, name);
        outside.into_iter().for_each(|(label, from)| _ = tags.entry(label).or_insert(from));
        let action = self.state().and_then(|state| self.machine.tools.get(state.action.as_ref()?));
        if let Some(action) = action.filter(|action| !action.flow.secret.is_empty()) {
            let from = self.source(SourceKind::Action, &action.name);
            tags.entry(Label::Secret).or_insert(from);
        }
        tags
    }

    /// The conversation with a model learns the answer of a tool: the whole of it, or its `content` where it has one.
    pub(super) fn label_tool_answer(&mut self, tool: &Name, outcome: &Outcome, whole: bool) {
        if !self.run.labels.kept {
            return;
        }
        let contract = self.machine.tools.get(tool);
        let from = self.source(SourceKind::Tool, tool);
        let tags = match outcome {
            Outcome::Returned(value) => {
                let flow = contract.map(|contract| contract.flow.clone()).unwrap_or_default();
                let free = contract.map(|contract| self.free_of(contract, value)).unwrap_or_default();
                let marks = label::of_answer(&flow, &free, value, &from, Tags::new());
                if !whole && value.get("content").is_some() { marks.at(&path(["content"])) } else { marks.all() }
            }
            // Why a call failed is said by the tool or by a person, whatever the contract says of answers.
            Outcome::Replied(_) | Outcome::Failed(_) => {
                let mut tags = Tags::from([(Label::Untrusted, from.clone())]);
                // It may repeat what the answer holds.
                if contract.is_some_and(|contract| !contract.flow.secret.is_empty()) {
                    tags.insert(Label::Secret, from);
                }
                tags
            }
        };
        self.taint(path(["asked"]), tags);
    }

    /// The conversation with a model learns what a person wrote.
    pub(super) fn label_person(&mut self, by: &Name) {
        let tags = self.untrusted(SourceKind::Person, by);
        self.taint(path(["asked"]), tags);
    }

    /// The conversation with a model learns what hooks want said.
    pub(super) fn label_steering(&mut self) {
        let tags = self.run.labels.marks.at(&path(["context", "_steering_messages"]));
        self.taint(path(["asked"]), tags);
    }

    /// Offers tools. What others write about their tools is part of the conversation.
    pub(super) fn offer(&mut self, tools: Vec<OfferedTool>) {
        let foreign: Vec<Name> = tools
            .iter()
            .filter(|tool| match &tool.hook {
                Some(_) => true,
                None => self.machine.tools.get(&tool.definition.name).is_some_and(|contract| contract.flow.foreign),
            })
            .map(|tool| tool.definition.name.clone())
            .collect();
        self.emit(Entry::ToolsListed { tools });
        if let Some(first) = foreign.first() {
            let tags = self.untrusted(SourceKind::Description, first);
            self.taint(path(["asked"]), tags);
        }
    }

    /// The result of an agent has the labels of everything that its model has read.
    pub(super) fn agent_labels(&self) -> Tags {
        of_arguments(self.run, true)
    }

    /// What a hook or an action changed has the labels that its contract says, and those of all that it was given.
    pub(super) fn label_hook_answer(&mut self, event: HookKind, by: &Contract, answer: &Value, is_reply: bool) {
        if !self.run.labels.kept {
            return;
        }
        let kind = if event == HookKind::Action { SourceKind::Action } else { SourceKind::Hook };
        let from = self.source(kind, &by.name);
        let doubted = self.take_doubt_labels();
        let free = self.free_of(by, answer);
        let mut marks = label::of_answer(&by.flow, &free, answer, &from, of_arguments(self.run, false));
        marks.tag(doubted);
        for part in if is_reply { label::said_secret(answer) } else { Vec::new() } {
            marks.add(part, Label::Secret, from.clone());
        }
        if !is_reply && event == HookKind::Action {
            return self.label(path(["output"]), marks);
        }
        if let (Some(Value::Map(new)), Value::Map(old)) = (answer.get("context"), self.run.context.clone()) {
            let changed = |(key, value): &(&Name, &Value)| &***key != "machine" && old.get(*key) != Some(*value);
            let of_key = |(key, _): (&Name, &Value)| (key.clone(), marks.below(&[Name::from("context"), key.clone()]));
            let keys = Map::iter(new).filter(changed).map(of_key).collect();
            self.label_context(keys);
        }
        if answer.get("output").is_some_and(|output| !output.is_null()) {
            self.label(path(["output"]), marks.below(&path(["output"])));
        }
    }

    /// The parts of an answer that have no label: what their contract declassifies.
    pub(super) fn free_of(&self, contract: &Contract, answer: &Value) -> Vec<Vec<Name>> {
        self.free(&contract.flow.declassified, &contract.output_schema, answer)
    }

    /// The parts of a value that have no label because its schema bounds what they can say, which whoever built the machine
    /// looked at, and the value fits it as it is.
    fn free(&self, declassified: &[Vec<Name>], schema: &Value, value: &Value) -> Vec<Vec<Name>> {
        let is_fit = || self.evaluator.fit(schema, value).is_ok_and(|fit| fit == *value);
        if declassified.is_empty() || !is_fit() { Vec::new() } else { declassified.to_vec() }
    }

    /// The result of a child takes its place among the others.
    pub(super) fn label_child(&mut self, slot: Option<u32>, ending: &Ending, labels: Option<Marks>) {
        let Some(slot) = slot.filter(|_| self.run.labels.kept) else { return };
        let mut labels = labels.unwrap_or_else(|| Marks::whole(unknown()));
        // Which part of the output a piece of a cut one is, nobody knows.
        if let (Ending::Completed { output }, Some(contract)) = (ending, self.contract_of_slot(slot))
            && !label::is_cut(output)
        {
            labels = labels.freed(output, &self.free(&contract.declassified, &contract.output_schema, output));
        }
        self.label(path(["join", &slot.to_string()]), labels);
    }

    fn contract_of_slot(&self, slot: u32) -> Option<&ChildContract> {
        if self.run.exec.is_some() {
            // A skill that a model called; nothing that it says is declassified.
            return None;
        }
        let name = match &self.state()?.call.as_ref()?.targets {
            Targets::One { machine, .. } | Targets::Foreach { machine, .. } => machine,
            Targets::Many(children) => &children.get(slot as usize)?.0,
        };
        self.machine.child_contracts.get(name)
    }

    /// The labels of the joined results of children.
    pub(super) fn join_labels(&self) -> Marks {
        let (Some(join), true) = (&self.run.join, self.run.labels.kept) else { return Marks::default() };
        let marks = self.run.labels.marks.below(&path(["join"]));
        let of_slot = |slot: usize| marks.below(&[Name::from(slot.to_string())]);
        match (&join.shape, join.winner) {
            (JoinShape::One, _) => of_slot(0),
            (JoinShape::List, _) => Marks::whole(marks.all()),
            (JoinShape::Keys(keys), None) if keys.len() > limits::LABELS_MAX => Marks::whole(marks.all()),
            (JoinShape::Keys(keys), winner) => {
                let mut of_all = Marks::default();
                for (slot, key) in keys.iter().enumerate() {
                    if winner.is_none_or(|winner| winner as usize == slot) {
                        of_all.join(of_slot(slot).within(std::slice::from_ref(key)));
                    }
                }
                of_all
            }
        }
    }

    /// What brought the labels of a question's arguments, for the journal.
    pub(super) fn origins(&self, question: &Question) -> Vec<Mark> {
        match question {
            Question::CallTool { agent, labels, .. } if !labels.is_empty() => {
                Marks::whole(of_arguments(self.run, agent.is_some())).into()
            }
            Question::CallTool { .. }
            | Question::CallModel { .. }
            | Question::StartMachine { .. }
            | Question::TakeTransition { .. } => Vec::new(),
        }
    }
}

/// The labels of what a call would send, alone.
pub(super) fn arguments(run: &Run, by_model: bool) -> LabelSet {
    set_of(&of_arguments(run, by_model))
}
