//! Voting among samples: what counts as a candidate, and who wins.

use super::agent::result;
use crate::eval::Evaluator;
use crate::failure::{Code, Failure};
use crate::machine::Agent;
use crate::output::extract_json;
use crate::run::{Sample, SampleState};
use crate::transcript::Reply;
use crate::value::{Map, Value};

/// Characters per token when an answer's length is judged, as the format counts.
const CHARACTERS_PER_TOKEN: u64 = 4;

/// The candidate in an answer, or why it does not count.
pub(super) fn candidate(agent: &Agent, reply: &Reply, evaluator: &dyn Evaluator) -> Result<Value, Failure> {
    let rules = &agent.voting;
    let bad = |why: String| Failure::new(Code::ProviderBadOutput, why);
    let tokens = reply.content.chars().count() as u64 / CHARACTERS_PER_TOKEN;
    if rules.max_tokens.is_some_and(|most| tokens > most) {
        return Err(bad(format!("the answer is {tokens} tokens long")));
    }
    let value = if rules.parsing.is_empty() {
        result(agent, reply, evaluator).map_err(bad)?
    } else {
        let mut fields = Map::new();
        for (field, pattern, kind) in &rules.parsing {
            let text = evaluator
                .capture(pattern, &reply.content)?
                .ok_or_else(|| bad(format!("the answer has nothing for `{field}`")))?;
            fields.insert(field.clone(), read(&text, kind).map_err(|why| bad(format!("`{field}`: {why}")))?);
        }
        Value::map(fields)
    };
    match &rules.validation {
        None => Ok(value),
        Some(schema) => evaluator.fit(schema, &value).map_err(|problems| bad(problems.join("; "))),
    }
}

fn read(text: &str, kind: &str) -> Result<Value, String> {
    match kind {
        "int" => text.trim().parse::<i64>().map(Value::Int).map_err(|_| "not a whole number".to_owned()),
        "json" => extract_json(text),
        _ => Ok(Value::str(text.trim())),
    }
}

/// Votes for each distinct candidate, in the order first seen.
pub(super) struct Ballot(Vec<(String, Value, u32)>);

impl Ballot {
    pub(super) fn count(samples: &[Sample]) -> Self {
        let mut votes: Vec<(String, Value, u32)> = Vec::new();
        for sample in samples {
            let SampleState::Done(value) = &sample.state else { continue };
            let key = value.canonical();
            match votes.iter_mut().find(|(k, _, _)| *k == key) {
                Some((_, _, n)) => *n += 1,
                None => votes.push((key, value.clone(), 1)),
            }
        }
        Self(votes)
    }

    /// The winner once one has `margin` votes or leads the second by as many.
    pub(super) fn decided(&self, margin: u32) -> Option<Value> {
        let mut counts: Vec<u32> = self.0.iter().map(|(_, _, n)| *n).collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let first = *counts.first()?;
        let second = counts.get(1).copied().unwrap_or(0);
        if first >= margin || first - second >= margin { self.leader() } else { None }
    }

    /// The candidate with the most votes; the first seen among equals.
    pub(super) fn leader(&self) -> Option<Value> {
        let most = self.0.iter().map(|(_, _, n)| *n).max()?;
        self.0.iter().find(|(_, _, n)| *n == most).map(|(_, value, _)| value.clone())
    }
}
