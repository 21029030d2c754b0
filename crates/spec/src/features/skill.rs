//! Fields of `skill.yml`, and of machines that use skills.

use super::machine::CONTRACT;
use super::{Claim, Others, Section, Shape, ours, ours_needed};

const TEXTS: Shape = Shape::List(&Shape::Text);

/// `skill.yml`: what a pack of a skill is.
pub static SKILL: Section = Section {
    name: "Skill",
    noun: "a skill",
    others: Others::Refused,
    claims: Claim::Any,
    features: &[
        ours_needed("name", Shape::Text, "Its name: small letters, digits and `-`."),
        ours_needed("version", Shape::Version, "Its version, as `1.2.0`. What one version is never changes."),
        ours_needed("description", Shape::Text, "What it is for, as models and people read it who choose among many."),
        ours("keywords", TEXTS, "Words by which it is found beside those of its description."),
        ours(
            "prompt",
            Shape::Text,
            "The file with its instructions, which join the system prompt of agents that have it.",
        ),
        ours(
            "tools",
            TEXTS,
            "Configured tools and actions, each in full: the only ones that its machine may call; without a machine, those that \
             agents get that have it.",
        ),
        ours("machine", Shape::Text, "The file of its machine, which a model calls as a tool and a state as a child."),
        ours("input_schema", Shape::Mapping, "JSON Schema that the input of its machine must fit."),
        ours("output_schema", Shape::Mapping, "JSON Schema that the output of its machine must fit."),
        ours("contract", Shape::Section(&CONTRACT), "What a run of its machine may spend and give back."),
    ],
};

/// `data.settings.skills`.
pub static SKILLS: Section = Section {
    name: "Skills",
    noun: "`skills`",
    others: Others::Refused,
    claims: Claim::Any,
    features: &[
        ours(
            "agents",
            Shape::MapOf(&TEXTS),
            "Skills of agents, by the agent's name, each as `NAME@VERSION`: their instructions, and their machines or tools. An agent \
             document names its own under `metadata.skills`.",
        ),
        ours(
            "machines",
            Shape::MapOf(&Shape::Text),
            "Skills whose machines states start, by the name that states use in `machine` and `launch`.",
        ),
        ours("search", TEXTS, "Skills that every tool loop of the machine may find with `find_tool`."),
        ours(
            "writes",
            TEXTS,
            "Tools of class `write` and `danger` that its skills may call. Without this a skill brings tools that change \
             nothing.",
        ),
    ],
};
