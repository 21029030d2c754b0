//! Skills of a machine: instructions, tools and a machine under one name and version, and what a run used of them.
//!
//! What a pack of a skill looks like and which one is meant is decided before: here each is resolved.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::contract::Contract;
use crate::ids::{Digest, Name};
use crate::run::Run;

/// Which skill it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SkillRef {
    /// Its name.
    pub name: Name,
    /// Its version, as `1.2.0`.
    pub version: Name,
    /// Hash of its whole pack.
    pub digest: Digest,
}

impl std::fmt::Display for SkillRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{} ({})", self.name, self.version, self.digest.short())
    }
}

/// A use of a skill, as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkillUsed {
    /// Which.
    pub skill: SkillRef,
    /// How.
    pub way: Way,
    /// The agent, or the name of the child machine; the machine's own key where the run is one of the skill.
    pub by: Name,
}

/// How a skill is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Its instructions are part of an agent's prompt.
    Joined,
    /// A model asked for its instructions.
    Read,
    /// Its machine is started.
    Started,
    /// The run is one of its machine.
    Own,
}

impl Way {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Joined => "joined",
            Self::Read => "read",
            Self::Started => "started",
            Self::Own => "own",
        }
    }
}

/// A skill that a machine uses.
#[derive(Clone, Debug)]
pub struct Skill {
    /// Which.
    pub reference: SkillRef,
    /// Its instructions, taken as they are; empty when it has none.
    pub prompt: Name,
    /// The tools that its machine may call; where it has none, those that it brings to agents.
    pub tools: Vec<Name>,
    /// Its machine, by its name in [`crate::machine::Machine::machines`].
    pub machine: Option<Name>,
    /// How a model sees it as a tool. Its class is the strongest of its tools.
    pub contract: Arc<Contract>,
}

/// The skills of a machine.
#[derive(Clone, Debug, Default)]
pub struct Skills {
    /// All of them by name.
    pub known: BTreeMap<Name, Skill>,
    /// Those whose instructions and tools agents have, by the agent.
    pub agents: BTreeMap<Name, Vec<Name>>,
    /// Child machines that are skills, by their names in [`crate::machine::Machine::machines`].
    pub machines: BTreeMap<Name, Name>,
    /// Those that tool loops may find.
    pub searched: Vec<Name>,
    /// The skill that the machine is the machine of.
    pub own: Option<SkillRef>,
}

impl Skills {
    /// The skills that an agent has.
    pub fn of_agent(&self, agent: &str) -> impl Iterator<Item = &Skill> {
        self.agents.get(agent).into_iter().flatten().filter_map(|name| self.known.get(name))
    }

    /// The skills that tool loops may find.
    pub fn found(&self) -> impl Iterator<Item = &Skill> {
        self.searched.iter().filter_map(|name| self.known.get(name))
    }
}

/// The run has used a skill.
pub(crate) fn note(run: &mut Run, used: &SkillUsed) {
    if !run.skills.contains(&used.skill) {
        run.skills.push(used.skill.clone());
    }
}
