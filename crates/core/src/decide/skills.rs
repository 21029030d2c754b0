//! Skills: their instructions in prompts, their tools in tool loops, and their machines as tools and children.
//!
//! A call of a skill with a machine is a child that the tool loop waits for: while it runs the call stays wanted and the
//! run has its join. A state's own children are done before its agent is asked, so there is never another.

use super::tool_loop::Next;
use super::{About, Turn, finding, join};
use crate::budget::Ceilings;
use crate::contract::Contract;
use crate::failure::Failure;
use crate::ids::Name;
use crate::journal::Entry;
use crate::label::{Marks, of_arguments, path};
use crate::machine::AgentCall;
use crate::policy::Question;
use crate::run::{Join, JoinShape, LoopState, OfferedTool};
use crate::skill::{Skill, SkillRef, SkillUsed, Way};
use crate::transcript::ToolRequest;
use crate::value::Value;

impl<'a> Turn<'a> {
    /// The instructions of an agent's skills, in the order in which they are named, after its own.
    pub(super) fn with_skills(&mut self, agent: &Name, system: Name) -> Name {
        let machine = self.machine;
        let mut text = String::new();
        for skill in machine.skills.of_agent(agent) {
            self.note_skill(skill, Way::Joined, agent);
            if !skill.prompt.is_empty() {
                let SkillRef { name, version, .. } = &skill.reference;
                text.push_str(&format!("\n\n## Skill: {name} {version}\n\n{}", skill.prompt));
            }
        }
        if text.is_empty() { system } else { format!("{system}{text}").trim_start().into() }
    }

    /// Adds what an agent's skills bring: their machines, or the tools of those without one. The tools of a machine are its
    /// own.
    pub(super) fn skill_tools(&self, call: &AgentCall, tools: &mut Vec<OfferedTool>) {
        for skill in self.machine.skills.of_agent(&call.agent) {
            match skill.machine {
                Some(_) => finding::add(tools, finding::offered(&skill.contract)),
                None => self.tools_of(skill, tools),
            }
        }
    }

    fn tools_of(&self, skill: &Skill, tools: &mut Vec<OfferedTool>) {
        let contracts = skill.tools.iter().filter_map(|name| self.machine.tools.get(name));
        contracts.for_each(|contract| finding::add(tools, finding::offered(contract)));
    }

    /// The skill that a call of a tool means.
    pub(super) fn skill(&self, name: &str) -> Option<&'a Skill> {
        self.machine.skills.known.get(name)
    }

    /// The contract of a tool or a skill.
    pub(super) fn contract_named(&self, name: &str) -> Option<&'a Contract> {
        let of_skill = || self.machine.skills.known.get(name).map(|skill| &*skill.contract);
        self.machine.tools.get(name).map(|contract| &**contract).or_else(of_skill)
    }

    /// Makes a call of a skill: starts its machine, or answers its instructions.
    pub(super) fn call_skill(
        &mut self,
        call: &AgentCall,
        looping: &LoopState,
        index: u32,
        request: &ToolRequest,
        skill: &'a Skill,
    ) -> Result<Next, Failure> {
        let Some(child) = &skill.machine else {
            self.read_skill(call, looping, index, skill);
            return Ok(Next::Again);
        };
        let key = self.machine.machines.get(child).cloned().unwrap_or_default();
        if let Err(failure) = self.permitted(&Question::StartMachine { machine: key }, About::Nothing) {
            let content = format!("Tool '{}' is not allowed: {}", request.name, failure.message).into();
            self.emit(Entry::ToolAnswered { index, content, is_error: true, counted: false });
            return Ok(Next::Again);
        }
        let marks = Marks::whole(of_arguments(self.run, true));
        let mut wanted = self.child_wanted(child, request.arguments.clone(), marks);
        if let Some(Err(why)) = self.envelope(&wanted).map(|envelope| envelope.check(&wanted.input)) {
            let content = format!("Tool '{}': the arguments do not fit its envelope: {why}", request.name).into();
            self.emit(Entry::ToolAnswered { index, content, is_error: true, counted: false });
            return Ok(Next::Again);
        }
        let join = Join { shape: JoinShape::One, any: false, slots: vec![None], open: 1, winner: None };
        self.emit(Entry::JoinStarted { join });
        let wall_ms = Some(looping.bounds.tool_timeout_ms).filter(|ms| *ms > 0);
        wanted.bounds = wanted.bounds.tighter(&Ceilings { wall_ms, ..Ceilings::default() });
        self.start_children(vec![wanted], true)?;
        Ok(Next::Rest)
    }

    /// The machine of a skill runs, or has ended: its output is the answer, its failure one too.
    pub(super) fn skill_ended(&mut self, index: u32) -> Next {
        let Some(result) = self.run.join.as_ref().and_then(join::result) else { return Next::Rest };
        let (content, is_error): (Name, bool) = match result {
            Ok(Value::Str(text)) => (text, false),
            Ok(output) => (crate::file::without_contents(&output).to_json().into(), false),
            Err(failure) => (failure.message, true),
        };
        let tags = self.join_labels().all();
        self.emit(Entry::JoinEnded);
        self.taint(path(["asked"]), tags);
        self.emit(Entry::ToolAnswered { index, content, is_error, counted: true });
        self.break_circle();
        Next::Again
    }

    /// A skill without a machine that was found: its instructions are the answer, and those of its tools are offered that the
    /// loop may call.
    fn read_skill(&mut self, call: &AgentCall, looping: &LoopState, index: u32, skill: &Skill) {
        self.note_skill(skill, Way::Read, &call.agent);
        let (mut tools, mut brought) = (looping.offered.clone().unwrap_or_default(), Vec::new());
        self.tools_of(skill, &mut brought);
        brought.retain(|tool| self.may_call(call, &tool.definition.name));
        brought.into_iter().for_each(|tool| finding::add(&mut tools, tool));
        if looping.offered.as_ref() != Some(&tools) {
            self.offer(tools);
        }
        self.emit(Entry::ToolAnswered { index, content: skill.prompt.clone(), is_error: false, counted: true });
        self.break_circle();
    }

    /// Records that a skill is used.
    pub(super) fn note_skill(&mut self, skill: &Skill, way: Way, by: &Name) {
        let used = SkillUsed { skill: skill.reference.clone(), way, by: by.clone() };
        self.emit(Entry::SkillUsed(Box::new(used)));
    }

    /// Records that a child machine is a skill, where it is one.
    pub(super) fn note_child_skill(&mut self, child: &Name) {
        let machine = self.machine;
        let named = machine.skills.machines.get(child).and_then(|name| machine.skills.known.get(name));
        if let Some(skill) = named {
            self.note_skill(skill, Way::Started, child);
        }
    }

    /// Records which skill the run is one of, where it is.
    pub(super) fn note_own_skill(&mut self) {
        if let Some(own) = &self.machine.skills.own {
            let used = SkillUsed { skill: own.clone(), way: Way::Own, by: self.machine.key.clone() };
            self.emit(Entry::SkillUsed(Box::new(used)));
        }
    }
}
