//! Which rule of a script answers a request. Pure: counts come in as numbers.

use windlass_core::ids::Name;
use windlass_core::request::ModelRequest;
use windlass_core::transcript::Message;

use super::script::{By, Place, Response, Rule, Script};

/// What was counted before a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted<'a> {
    /// The number of this request in the script, from 1.
    pub(super) call: u64,
    /// The number of this request among those of its agent, from 1.
    pub(super) agent_call: u64,
    /// How often each rule applied so far.
    pub(super) hits: &'a [u64],
}

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// An entry of a rule.
    Rule {
        /// Its place.
        rule: usize,
        /// The entry.
        entry: usize,
    },
    /// The default.
    Default,
}

impl Choice {
    /// What was chosen.
    pub(super) fn response(self, script: &Script) -> Option<&Response> {
        match self {
            Self::Rule { rule, entry } => script.rules.get(rule).and_then(|r| r.value.responses().get(entry)),
            Self::Default => script.default.as_ref().map(|d| &d.value),
        }
    }
}

/// The turn that a request asks for: one more than the assistant messages in its conversation.
pub(super) fn turn(request: &ModelRequest) -> u64 {
    1 + request.messages.iter().filter(|m| matches!(m, Message::Assistant { .. })).count() as u64
}

/// The text of a message.
pub(super) fn text(message: &Message) -> &Name {
    match message {
        Message::System { content }
        | Message::User { content }
        | Message::Assistant { content, .. }
        | Message::Tool { content, .. } => content,
    }
}

/// The first rule that applies, else the default.
pub(super) fn choose(script: &Script, request: &ModelRequest, counted: Counted<'_>) -> Option<Choice> {
    let turn = turn(request);
    for (index, rule) in script.rules.iter().enumerate() {
        let rule = &rule.value;
        let used = counted.hits.get(index).copied().unwrap_or(0);
        if applies(rule, request, turn, counted, used) {
            let wanted = match rule.by {
                By::Hit => used,
                By::Turn => turn - 1,
            };
            let last = rule.responses().len() - 1;
            return Some(Choice::Rule { rule: index, entry: usize::try_from(wanted).unwrap_or(last).min(last) });
        }
    }
    script.default.as_ref().map(|_| Choice::Default)
}

fn applies(rule: &Rule, request: &ModelRequest, turn: u64, counted: Counted<'_>, used: u64) -> bool {
    let is = |wanted: &Option<Name>, name: &Name| wanted.as_ref().is_none_or(|w| w == name);
    let number = |wanted: Option<u64>, number: u64| wanted.is_none_or(|w| w == number);
    is(&rule.agent, &request.agent)
        && is(&rule.model, &request.model)
        && number(rule.turn, turn)
        && number(rule.call, counted.call)
        && number(rule.agent_call, counted.agent_call)
        && rule.has_tools.is_none_or(|wanted| wanted != request.tools.is_empty())
        && rule.stream.is_none_or(|wanted| wanted == request.stream)
        && rule.times.is_none_or(|most| used < most)
        && says(rule, request)
}

fn says(rule: &Rule, request: &ModelRequest) -> bool {
    if rule.contains.0.is_empty() && rule.not.0.is_empty() && rule.regex.is_none() {
        return true;
    }
    let said = place(rule.place, request);
    rule.contains.0.iter().all(|part| said.contains(&**part))
        && !rule.not.0.iter().any(|part| said.contains(&**part))
        && rule.regex.as_ref().is_none_or(|regex| regex.0.is_match(&said))
}

fn place(place: Place, request: &ModelRequest) -> String {
    let wanted = |message: &&Message| match place {
        Place::All => true,
        Place::System => matches!(message, Message::System { .. }),
        Place::User => matches!(message, Message::User { .. }),
        Place::Tool => matches!(message, Message::Tool { .. }),
        Place::Last => false,
    };
    if place == Place::Last {
        return request.messages.last().map(|m| text(m).to_string()).unwrap_or_default();
    }
    let texts: Vec<&str> = request.messages.iter().filter(wanted).map(|m| &**text(m)).collect();
    texts.join("\n")
}
