//! Tools that are too many to be shown: the model sees those that fit what it is asked, and finds others by asking for
//! them. What is shown is an entry, so nothing is ranked again when the run is replayed.

use super::{Turn, plan};
use crate::contract::{Class, Contract};
use crate::ids::Name;
use crate::journal::Entry;
use crate::limits::{TOOLS_FOUND_MAX, TOOLS_SELECTED_MAX, TOOLS_SELECTED_SAVING, TOOLS_SHOWN_MAX, TOOLS_SHOWN_SAVING};
use crate::machine::{AgentCall, ToolDefinition};
use crate::run::{LoopState, OfferedTool};
use crate::select::Index;
use crate::transcript::{Message, ToolRequest};
use crate::value::Value;

/// The tool by which a model finds others. A configured tool of this name takes its place.
pub(super) const FIND_TOOL: &str = "find_tool";

/// A tool of the catalog as a model sees it.
pub(super) fn offered(contract: &Contract) -> OfferedTool {
    let parameters = match &contract.input_schema {
        Value::Null => no_parameters(),
        schema => schema.clone(),
    };
    let (parameters, description) = plan::offered(contract, parameters);
    let name = contract.name.clone();
    OfferedTool { definition: ToolDefinition { name, description, parameters }, hook: None }
}

/// The schema of a tool that says nothing about its arguments.
pub(super) fn no_parameters() -> Value {
    Value::object([("type", Value::str("object")), ("properties", Value::empty_map())])
}

impl<'a> Turn<'a> {
    /// Adds the tools that fit what the agent is asked, and the one that finds others. Fewer where a budget is nearly used
    /// up: every definition is paid for in tokens.
    pub(super) fn select_tools(&self, call: &AgentCall, tools: &mut Vec<OfferedTool>) {
        let searched = self.searched(call);
        let named = call.tool_loop.as_ref().is_some_and(|config| !config.allowed_tools.is_empty());
        let saves = self.saving().is_some();
        let (shown_max, selected_max) =
            if saves { (TOOLS_SHOWN_SAVING, TOOLS_SELECTED_SAVING) } else { (TOOLS_SHOWN_MAX, TOOLS_SELECTED_MAX) };
        if named || tools.len() + searched.iter().flatten().count() <= shown_max {
            searched.into_iter().flatten().for_each(|contract| add(tools, offered(contract)));
            return;
        }
        if !self.machine.tools.contains_key(FIND_TOOL) {
            add(tools, find_tool());
        }
        let room = shown_max.saturating_sub(tools.len()).min(selected_max);
        for contract in self.index().rank(searched, &self.asked(), room) {
            add(tools, offered(contract));
        }
    }

    /// The tools that a loop may find: those that change nothing, and those that its state names. None in the place of one
    /// that it may not.
    fn searched(&self, call: &AgentCall) -> Vec<Option<&'a Contract>> {
        let config = call.tool_loop.as_ref();
        let may_find = |contract: &Contract| {
            let named = config.is_some_and(|config| config.allowed_tools.contains(&contract.name));
            // What the tools of a skill may change was allowed where it is named.
            let is_open = contract.class == Class::Read || named || self.skill(&contract.name).is_some();
            is_open && self.may_call(call, &contract.name)
        };
        self.machine.findable().map(|contract| may_find(contract).then_some(contract)).collect()
    }

    /// What may be found, read once for all runs of the machine.
    fn index(&self) -> &'a Index {
        self.machine.tool_index.of(self.machine.findable())
    }

    /// What the model is asked: the last message of a person in its prompt.
    fn asked(&self) -> Name {
        let prompt = self.run.exec.as_ref().map(|exec| exec.prompt.as_slice()).unwrap_or_default();
        let said = prompt.iter().rev().find_map(|message| match message {
            Message::User { content } => Some(content.clone()),
            _ => None,
        });
        said.unwrap_or_default()
    }

    /// Whether a call asks for tools rather than for the world.
    pub(super) fn is_search(&self, name: &str) -> bool {
        let is_own = !self.machine.tools.contains_key(FIND_TOOL);
        let finds = !self.machine.searched_tools.is_empty() || !self.machine.skills.searched.is_empty();
        name == FIND_TOOL && is_own && finds
    }

    /// Answers a search: what was found is offered from the next turn on, in the place of what was found before.
    pub(super) fn search_tools(&mut self, call: &AgentCall, looping: &LoopState, index: u32, request: &ToolRequest) {
        let query = request.arguments.get("query").and_then(Value::as_str).unwrap_or_default();
        let found: Vec<OfferedTool> =
            self.index().rank(self.searched(call), query, TOOLS_FOUND_MAX).into_iter().map(offered).collect();
        let content = if found.is_empty() {
            "no tool fits these words; try others".to_owned()
        } else {
            let line = |tool: &OfferedTool| {
                Value::object([
                    ("name", Value::Str(tool.definition.name.clone())),
                    ("description", Value::Str(tool.definition.description.clone())),
                ])
            };
            Value::list(found.iter().map(line).collect()).to_json()
        };
        let mut tools = looping.offered.clone().unwrap_or_default();
        let called = |name: &Name| looping.pending.iter().any(|pending| pending.request.name == *name);
        let new = found.iter().filter(|one| !tools.iter().any(|known| known.definition.name == one.definition.name));
        let mut room = (tools.len() + new.count()).saturating_sub(TOOLS_SHOWN_MAX);
        tools.retain(|tool| {
            let name = &tool.definition.name;
            let kept = room == 0
                || tool.hook.is_some()
                || !(self.machine.searched_tools.contains(name) || self.machine.skills.searched.contains(name))
                || called(name)
                || found.iter().any(|one| one.definition.name == *name);
            if !kept {
                room -= 1;
            }
            kept
        });
        found.into_iter().for_each(|tool| add(&mut tools, tool));
        if looping.offered.as_ref() != Some(&tools) {
            self.offer(tools);
        }
        self.emit(Entry::ToolAnswered { index, content: content.into(), is_error: false, counted: true });
    }
}

fn find_tool() -> OfferedTool {
    let query = Value::object([
        ("type", Value::str("string")),
        ("description", Value::str("What the tool should do, in a few words.")),
    ]);
    let parameters = Value::object([
        ("type", Value::str("object")),
        ("properties", Value::object([("query", query)])),
        ("required", Value::list(vec![Value::str("query")])),
    ]);
    let description = "Finds more tools. There are many more than are shown: describe what you need, and the tools that \
                       fit can be called from your next turn on.";
    OfferedTool {
        definition: ToolDefinition { name: FIND_TOOL.into(), description: description.into(), parameters },
        hook: None,
    }
}

/// Adds a tool, unless there is one of its name.
pub(super) fn add(tools: &mut Vec<OfferedTool>, tool: OfferedTool) {
    if !tools.iter().any(|known| known.definition.name == tool.definition.name) {
        tools.push(tool);
    }
}
