//! What a machine may do, read from its documents alone: bounds of what a run uses, models, tools, questions to people.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use windlass_core::contract::Contract;
use windlass_core::ids::Name;
use windlass_core::machine::{Agent, AgentCall, Call, Execution, Machine, Mode, Program, State, Targets, Template};

use super::price::PerCall;

/// The fewest and the most of something; no most where only a ceiling bounds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Bounds {
    /// Of a run that nothing disturbs.
    pub min: u64,
    /// Of any run.
    pub max: Option<u64>,
}

impl Bounds {
    fn exactly(number: u64) -> Self {
        Self { min: number, max: Some(number) }
    }

    fn times(self, one: Self) -> Self {
        let max = match (self.max, one.max) {
            (Some(0), _) | (_, Some(0)) => Some(0),
            (times, most) => times.zip(most).map(|(a, b)| a.saturating_mul(b)),
        };
        Self { min: self.min.saturating_mul(one.min), max }
    }

    fn plus(self, other: Self) -> Self {
        let max = self.max.zip(other.max).map(|(a, b)| a.saturating_add(b));
        Self { min: self.min.saturating_add(other.min), max }
    }

    /// With a ceiling on top.
    pub(crate) fn under(self, ceiling: Option<u64>) -> Self {
        let max = match (self.max, ceiling) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, None) | (None, one) => one,
        };
        Self { max, ..self }
    }
}

/// What one visit to a state, or one run, uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Uses {
    /// Visits to states, of the run itself.
    pub steps: Bounds,
    /// Model calls, of the run and all below it.
    pub model_calls: Bounds,
    /// Tool calls of loops, of the run and all below it.
    pub tool_calls: Bounds,
    /// Children and launches, of the run and all below it.
    pub launches: Bounds,
    /// Tokens of model calls, of the run and all below it.
    pub tokens: Bounds,
    /// Cost of model calls in micro-USD, of the run and all below it.
    pub cost_micros: Bounds,
}

impl Uses {
    fn plus(self, other: Self) -> Self {
        Self {
            steps: self.steps.plus(other.steps),
            model_calls: self.model_calls.plus(other.model_calls),
            tool_calls: self.tool_calls.plus(other.tool_calls),
            launches: self.launches.plus(other.launches),
            tokens: self.tokens.plus(other.tokens),
            cost_micros: self.cost_micros.plus(other.cost_micros),
        }
    }

    fn each(self, change: impl Fn(Bounds) -> Bounds) -> Self {
        Self {
            steps: change(self.steps),
            model_calls: change(self.model_calls),
            tool_calls: change(self.tool_calls),
            launches: change(self.launches),
            tokens: change(self.tokens),
            cost_micros: change(self.cost_micros),
        }
    }

    /// What a child adds to its parent: a launch, and everything but its steps.
    fn as_child(self) -> Self {
        Self { steps: Bounds::exactly(0), launches: self.launches.plus(Bounds::exactly(1)), ..self }
    }
}

/// The machines that are reached from the entry of a program, the entry first.
pub(crate) fn machines(program: &Program) -> Vec<&Machine> {
    let mut seen: BTreeSet<&Name> = BTreeSet::new();
    let mut found = Vec::new();
    let mut next = vec![&program.entry];
    while let Some(key) = next.pop() {
        if let (true, Some(machine)) = (seen.insert(key), program.machines.get(key)) {
            found.push(&**machine);
            next.extend(machine.machines.values());
        }
    }
    found
}

/// Everything that can be reached from the entry of a program.
pub(crate) struct Reach<'a> {
    program: &'a Program,
    price: &'a dyn Fn(&Agent) -> PerCall,
    known: BTreeMap<Name, Uses>,
}

impl<'a> Reach<'a> {
    /// Of a program whose agents' calls use so much.
    pub(crate) fn of(program: &'a Program, price: &'a dyn Fn(&Agent) -> PerCall) -> Self {
        Self { program, price, known: BTreeMap::new() }
    }

    /// What a run of the entry uses.
    pub(crate) fn uses(&mut self) -> Uses {
        let entry = self.program.entry.clone();
        self.machine(&entry)
    }

    /// The machines that are reached, the entry first.
    pub(crate) fn machines(&self) -> Vec<&'a Machine> {
        machines(self.program)
    }

    fn machine(&mut self, key: &Name) -> Uses {
        if let Some(uses) = self.known.get(key) {
            return *uses;
        }
        let Some(machine) = self.program.machines.get(key) else { return Uses::default() };
        // Machines do not contain themselves; a key that came back would find this.
        self.known.insert(key.clone(), Uses::default().each(|_| Bounds { min: 0, max: None }));
        let states: BTreeMap<&Name, Uses> =
            machine.states.iter().map(|(name, state)| (name, self.state(machine, state))).collect();
        let uses = paths(machine, &states);
        self.known.insert(key.clone(), uses);
        uses
    }

    fn state(&mut self, machine: &Machine, state: &State) -> Uses {
        let mut uses = Uses { steps: Bounds::exactly(1), ..Uses::default().each(|_| Bounds::exactly(0)) };
        uses.steps = Bounds::exactly(1);
        if state.wait.is_some() {
            return uses;
        }
        for name in state.launch.iter().flat_map(|launch| &launch.machines) {
            uses = uses.plus(self.child(machine, name));
        }
        if let Some(call) = &state.call {
            uses = uses.plus(self.call(machine, call));
        }
        if machine.performed(state).is_some() {
            uses.tool_calls = uses.tool_calls.plus(Bounds::exactly(1));
        }
        if let Some(call) = &state.agent {
            let agent = machine.agents.get(&call.agent).map(|agent| &**agent);
            let one = agent.map_or_else(PerCall::default, |agent| (self.price)(agent));
            let (model_calls, tool_calls) = asked(call, agent, one.attempts);
            uses.model_calls = uses.model_calls.plus(model_calls);
            uses.tool_calls = uses.tool_calls.plus(tool_calls);
            if call.tool_loop.is_some() {
                uses = uses.plus(self.skills(machine, &call.agent, tool_calls));
            }
            uses.tokens = uses.tokens.plus(model_calls.times(one.tokens));
            uses.cost_micros = uses.cost_micros.plus(model_calls.times(one.cost_micros));
        }
        uses
    }

    /// What the machines of an agent's skills use, each called as often as its loop calls tools.
    fn skills(&mut self, machine: &Machine, agent: &Name, calls: Bounds) -> Uses {
        let skills = machine.skills.of_agent(agent).chain(machine.skills.found());
        let children: Vec<&Name> = skills.filter_map(|skill| skill.machine.as_ref()).collect();
        let nothing = Uses::default().each(|_| Bounds::exactly(0));
        children.into_iter().fold(nothing, |sum, child| {
            let one = self.child(machine, child);
            sum.plus(one.each(|bounds| calls.times(bounds)))
        })
    }

    fn child(&mut self, machine: &Machine, name: &Name) -> Uses {
        machine.machines.get(name).cloned().map(|key| self.machine(&key).as_child()).unwrap_or_default()
    }

    fn call(&mut self, machine: &Machine, call: &Call) -> Uses {
        let nothing = Uses::default().each(|_| Bounds::exactly(0));
        match &call.targets {
            Targets::One { machine: name, .. } => self.child(machine, name),
            Targets::Many(children) => {
                let all: Vec<Uses> = children.iter().map(|(name, _)| self.child(machine, name)).collect();
                let sum = all.iter().fold(nothing, |sum, uses| sum.plus(*uses));
                // All are started; those that come too late may be cancelled before they use anything.
                let started = Bounds::exactly(all.len() as u64);
                match call.mode {
                    Mode::Settled => sum,
                    Mode::Any => Uses { launches: Bounds { min: started.min, ..sum.launches }, ..least(sum, &all) },
                }
            }
            Targets::Foreach { machine: name, .. } => {
                let one = self.child(machine, name);
                // How many items there are is known when it runs.
                one.each(|bounds| Bounds { min: 0, max: bounds.max.filter(|max| *max == 0) })
            }
        }
    }
}

/// The most of all, and the fewest that any one needs.
fn least(sum: Uses, all: &[Uses]) -> Uses {
    let fewest = |of: fn(&Uses) -> Bounds| all.iter().map(|uses| of(uses).min).min().unwrap_or_default();
    Uses {
        steps: Bounds::exactly(0),
        model_calls: Bounds { min: fewest(|uses| uses.model_calls), ..sum.model_calls },
        tool_calls: Bounds { min: fewest(|uses| uses.tool_calls), ..sum.tool_calls },
        tokens: Bounds { min: fewest(|uses| uses.tokens), ..sum.tokens },
        cost_micros: Bounds { min: fewest(|uses| uses.cost_micros), ..sum.cost_micros },
        ..sum
    }
}

/// Model calls and tool calls of one visit to a state with an agent.
fn asked(call: &AgentCall, agent: Option<&Agent>, links: Option<u64>) -> (Bounds, Bounds) {
    let attempts = match &call.execution {
        Execution::Once => Bounds::exactly(1),
        Execution::Retry { backoffs_ms, .. } => Bounds { min: 1, max: Some(1 + backoffs_ms.len() as u64) },
        Execution::Parallel { samples } => Bounds::exactly(u64::from(*samples)),
        Execution::Voting { margin, candidates } => {
            Bounds { min: u64::from((*margin).max(1)), max: Some(u64::from(*candidates)) }
        }
    };
    // An answer that does not fit its schema is repaired once; every link of a chain may fail.
    let repaired = if agent.is_some_and(|agent| agent.output_schema.is_some()) { 2 } else { 1 };
    let most = attempts.max.zip(links).map(|(most, links)| most.saturating_mul(repaired).saturating_mul(links));
    let attempts = Bounds { max: most, ..attempts };
    let Some(looped) = &call.tool_loop else { return (attempts, Bounds::exactly(0)) };
    let turns = literal(&looped.max_turns).unwrap_or(windlass_core::limits::TURNS_DEFAULT);
    let model_calls = Bounds { min: attempts.min, max: attempts.max.map(|most| most.saturating_mul(turns)) };
    (model_calls, Bounds { min: 0, max: literal(&looped.max_tool_calls) })
}

/// A bound that is written as a number; none and zero are no bound.
fn literal(template: &Template) -> Option<u64> {
    match template {
        Template::Literal(value) => value.as_f64().filter(|number| *number >= 1.0).map(|number| number as u64),
        Template::Path(_) | Template::Text { .. } | Template::List(_) | Template::Map(_) => None,
    }
}

/// The fewest on any way from the initial state to a final one, and the most where no way comes back to where it was.
fn paths(machine: &Machine, states: &BTreeMap<&Name, Uses>) -> Uses {
    let of = |pick: fn(&Uses) -> Bounds| {
        let min = cheapest(machine, |name| states.get(name).map_or(0, |uses| pick(uses).min));
        let mut longest = Longest {
            machine,
            weight: &|name| states.get(name).map_or(Some(0), |uses| pick(uses).max),
            known: BTreeMap::new(),
        };
        Bounds { min, max: longest.from(&machine.initial) }
    };
    Uses {
        steps: of(|uses| uses.steps),
        model_calls: of(|uses| uses.model_calls),
        tool_calls: of(|uses| uses.tool_calls),
        launches: of(|uses| uses.launches),
        tokens: of(|uses| uses.tokens),
        cost_micros: of(|uses| uses.cost_micros),
    }
}

/// The least weight of a way to a final state, over transitions alone: failures do not count as ways.
fn cheapest(machine: &Machine, weight: impl Fn(&Name) -> u64) -> u64 {
    let mut open: BTreeSet<(u64, &Name)> = BTreeSet::from([(weight(&machine.initial), &machine.initial)]);
    let mut done: BTreeSet<&Name> = BTreeSet::new();
    while let Some((so_far, name)) = open.pop_first() {
        let Some(state) = machine.states.get(name).filter(|_| done.insert(name)) else { continue };
        if state.is_final {
            return so_far;
        }
        for transition in &state.transitions {
            open.insert((so_far.saturating_add(weight(&transition.to)), &transition.to));
        }
    }
    // Nothing leads to an end but a failure.
    weight(&machine.initial)
}

/// The greatest weight of a way, failures included; none when a way can come back and has weight on it.
struct Longest<'a> {
    machine: &'a Machine,
    weight: &'a dyn Fn(&Name) -> Option<u64>,
    /// None while a state is being looked at.
    known: BTreeMap<&'a Name, Option<Option<u64>>>,
}

impl<'a> Longest<'a> {
    fn from(&mut self, name: &'a Name) -> Option<u64> {
        match self.known.get(name) {
            Some(Some(found)) => return *found,
            Some(None) => return None,
            None => {}
        }
        self.known.insert(name, None);
        let own = (self.weight)(name);
        let state = self.machine.states.get(name);
        let mut ways = state.map(exits).unwrap_or_default();
        if state.is_some_and(|state| state.agent.is_some()) {
            ways.extend(&self.machine.conversation.on_near);
        }
        let mut most = Some(0);
        for next in ways {
            most = self.from(next).zip(most).map(|(a, b): (u64, u64)| a.max(b));
        }
        let found = own.zip(most).map(|(a, b)| a.saturating_add(b));
        self.known.insert(name, Some(found));
        found
    }
}

fn exits(state: &State) -> Vec<&Name> {
    let failures = state.on_error.by_name.iter().map(|(_, to)| to).chain(&state.on_error.default);
    state.transitions.iter().map(|transition| &transition.to).chain(failures).collect()
}

/// The tools and actions that machines may call, with their contracts, by name.
pub(crate) fn tools<'a>(machines: &[&'a Machine]) -> BTreeMap<Name, Option<&'a Contract>> {
    let mut found: BTreeMap<Name, Option<&Contract>> = BTreeMap::new();
    for machine in machines {
        let mut add = |name: &Name| {
            found.insert(name.clone(), machine.tools.get(name).map(|contract| &**contract));
        };
        for state in machine.states.values() {
            machine.performed(state).into_iter().for_each(&mut add);
            let Some((call, looped)) = state.agent.as_ref().and_then(|call| Some((call, call.tool_loop.as_ref()?)))
            else {
                continue;
            };
            let declared = machine.agents.get(&call.agent).into_iter().flat_map(|agent| &agent.tools);
            let skills = machine.skills.of_agent(&call.agent).chain(machine.skills.found());
            let offered = machine.offered_tools.iter().chain(&machine.searched_tools);
            let offered = offered.chain(skills.flat_map(|skill| &skill.tools));
            declared
                .map(|tool| &tool.name)
                .chain(offered)
                .chain(&looped.allowed_tools)
                .filter(|name| looped.allowed_tools.is_empty() || looped.allowed_tools.contains(name))
                .filter(|name| !looped.denied_tools.contains(name))
                .for_each(&mut add);
        }
    }
    found
}

/// The channels on which machines wait for signals, as the documents write them.
pub(crate) fn channels(machines: &[&Machine]) -> BTreeSet<String> {
    let waits = machines.iter().flat_map(|machine| machine.states.values()).filter_map(|state| state.wait.as_ref());
    waits
        .map(|wait| match &wait.channel {
            Template::Literal(value) => value.as_str().map_or_else(|| value.to_json(), ToOwned::to_owned),
            Template::Text { source, .. } => source.to_string(),
            Template::Path(parts) => parts.join("."),
            Template::List(_) | Template::Map(_) => "?".to_owned(),
        })
        .collect()
}
