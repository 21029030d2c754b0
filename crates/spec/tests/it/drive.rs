//! Drives loaded documents through the core with made-up answers, and writes down everything that the world would see:
//! what is recorded, what models and hooks are sent. So a field that has an effect on runs shows it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use windlass_core::budget::Amounts;
use windlass_core::decide;
use windlass_core::effect::{Call, Effect, Outcome, Spent, WaitKind};
use windlass_core::failure::{Code, Failure, Retry};
use windlass_core::ids::{EffectId, RunId};
use windlass_core::input::{Ending, Facts, Input};
use windlass_core::journal::Entry;
use windlass_core::machine::{Machine, Program};
use windlass_core::request;
use windlass_core::run::{Run, Start};
use windlass_core::time::Timestamp;
use windlass_core::transcript::{Finish, Reply, ToolRequest, Usage};
use windlass_core::value::Value;
use windlass_spec::eval::Engine;

/// Inputs of one run at most.
const INPUTS_MAX: u32 = 300;

/// How the world behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Everything works at once.
    Calm,
    /// The first attempt at each call fails and may be tried again; children fail.
    Shaky,
    /// Timers fire before anything else happens.
    Late,
    /// Models answer something else each time.
    Varied,
}

impl Manner {
    pub(crate) const ALL: [Self; 4] = [Self::Calm, Self::Shaky, Self::Late, Self::Varied];
}

/// What is seen of a run of each machine of a program.
pub(crate) fn trace(program: &Program, manner: Manner) -> String {
    let mut seen = String::new();
    for machine in program.machines.values() {
        writeln!(seen, "## {} {manner:?}", machine.key).expect("text");
        Driver::new(program, machine, manner).run(&mut seen);
    }
    seen
}

struct Driver<'a> {
    machine: &'a Machine,
    evaluator: Engine,
    run: Run,
    manner: Manner,
    now: u64,
}

impl<'a> Driver<'a> {
    fn new(program: &Program, machine: &'a Machine, manner: Manner) -> Self {
        let start = Start::new(
            RunId::stored("r"),
            program.bundle,
            machine.key.clone(),
            machine.name.clone(),
            Value::from_json(r#"{"q":"what"}"#).expect("json"),
        );
        Self { machine, evaluator: Engine::default(), run: Run::blank(start), manner, now: 1_000 }
    }

    fn run(mut self, seen: &mut String) {
        let mut next = Some(Input::Started(Box::new(self.run.start.clone())));
        for _ in 0..INPUTS_MAX {
            let Some(input) = next else { return };
            self.now += 10;
            if let Err(rejected) = self.take(input, seen) {
                panic!("{rejected}\n{seen}");
            }
            next = self.next();
        }
        writeln!(seen, "and so on").expect("text");
    }

    fn take(&mut self, input: Input, seen: &mut String) -> Result<(), String> {
        let facts = Facts {
            now: Timestamp(self.now),
            seed: 0x7777_7777_7777_7777,
            worker: None,
            basis: None,
            quotes: Arc::new(BTreeMap::new()),
            traits: Arc::new(BTreeMap::new()),
            routes: Arc::new(BTreeMap::new()),
            standing: Arc::default(),
            verdicts: Vec::new(),
            allow_unasked: true,
            reads_arguments: false,
            budgets: Arc::default(),
            stopped_ramps: Arc::default(),
        };
        let decision = decide(self.machine, &self.evaluator, &mut self.run, input, &facts)
            .map_err(|rejected| rejected.to_string())?;
        for entry in &decision.entries {
            match entry {
                Entry::RunStarted(start) => {
                    writeln!(seen, "run_started {} {:?}", start.machine_name, start.ceilings).expect("text");
                }
                // The hash of a request says nothing that the request itself does not say.
                Entry::CallIntended { effect, call } => {
                    writeln!(seen, "call_intended {effect} {:?} {}", call.call, call.timeout_ms).expect("text");
                }
                entry => writeln!(seen, "{}", serde_json::to_string(entry).expect("entries serialise")).expect("text"),
            }
        }
        for effect in &decision.effects {
            if let Effect::Call(id) = effect {
                let model = request::model_request(self.machine, &self.run, *id);
                let hook = request::hook_body(self.machine, &self.run, *id, true);
                writeln!(seen, "sent {model:?} {hook:?}").expect("text");
            }
        }
        Ok(())
    }

    fn next(&self) -> Option<Input> {
        let timer = || {
            let (timer, _) = self.run.timers.iter().min_by_key(|(_, open)| open.due)?;
            Some(Input::TimerFired { timer: *timer })
        };
        if self.manner == Manner::Late
            && let Some(input) = timer()
        {
            return Some(input);
        }
        if let Some(effect) = self.run.calls.iter().find(|(_, call)| call.is_out()).map(|(effect, _)| *effect) {
            return Some(self.settled(effect));
        }
        if let Some((wait, _)) = self.run.waits.iter().find(|(_, open)| open.kind == WaitKind::Signal) {
            return Some(Input::Signalled { wait: *wait, signal: "s".into(), data: Value::Int(1) });
        }
        if let Some(child) =
            self.run.children.keys().next().filter(|_| self.run.stage != windlass_core::run::Stage::Ended)
        {
            let ending = match self.manner {
                Manner::Shaky => Ending::Failed { failure: Failure::new(Code::ToolFailed, "broken"), state: None },
                Manner::Calm | Manner::Late | Manner::Varied => {
                    Ending::Completed { output: Value::object([("id", Value::str(child.as_str()))]) }
                }
            };
            return Some(Input::ChildEnded {
                child: child.clone(),
                ending,
                used: Amounts::ZERO,
                labels: None,
                hidden: windlass_core::hidden::Hidden::default(),
            });
        }
        timer()
    }

    fn settled(&self, effect: EffectId) -> Input {
        let call = &self.run.calls[&effect];
        let outcome = match &call.call {
            _ if self.manner == Manner::Shaky && call.attempt == 1 => {
                Outcome::Failed(Failure::new(Code::ProviderRateLimited, "slow down").retry(Retry::Backoff))
            }
            Call::Model { .. } => Outcome::Replied(Box::new(self.reply(effect))),
            Call::Tool { .. } | Call::Verify { .. } => Outcome::Returned(Value::str("done")),
            Call::Hook { .. } | Call::Action { .. } => Outcome::Returned(Value::Null),
        };
        let spent = match &outcome {
            Outcome::Replied(_) => Spent::Known { tokens: 15, cost_micros: 200_000 },
            Outcome::Returned(_) | Outcome::Failed(_) => Spent::Nothing,
        };
        Input::Settled { effect, attempt: call.attempt, outcome, spent }
    }

    /// A tool loop calls the first tool that is offered twice in each of three turns, then answers.
    fn reply(&self, effect: EffectId) -> Reply {
        let request = request::model_request(self.machine, &self.run, effect).expect("a request");
        let turns = request
            .messages
            .iter()
            .filter(|message| matches!(message, windlass_core::transcript::Message::Assistant { .. }));
        let tool = request
            .tools
            .first()
            .filter(|_| turns.count() < 3 && self.run.exec.as_ref().is_some_and(|exec| exec.tools.is_some()));
        let tool_calls: Vec<ToolRequest> = tool.map_or_else(Vec::new, |tool| {
            let call = |n: u32| ToolRequest {
                id: format!("c{effect}.{n}").into(),
                name: tool.name.clone(),
                arguments: Value::empty_map(),
            };
            vec![call(1), call(2)]
        });
        let answer = match self.manner {
            Manner::Varied => format!(r#"{{"a":"x{effect}","l":["1"],"o":{{"b":"2"}}}}"#),
            Manner::Calm | Manner::Shaky | Manner::Late => r#"{"a":"x","l":["1"],"o":{"b":"2"}}"#.to_owned(),
        };
        let content = if tool_calls.is_empty() { answer } else { String::new() };
        Reply {
            has_content: !content.is_empty(),
            content: content.into(),
            finish: if tool_calls.is_empty() { Finish::Stop } else { Finish::ToolUse },
            tool_calls,
            usage: Usage { input: Some(10), output: Some(5), ..Usage::default() },
            cost_micros: Some(200_000),
            prices: None,
            attachments: Value::Null,
            provider_data: Value::Null,
        }
    }
}
