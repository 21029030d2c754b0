//! One scenario: documents, inputs, and the journal they lead to. Parses the inputs, decides them, prints what was
//! recorded, and checks after every decision that folding the stored bytes gives the same run.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use windlass_core::approval::Reply;
use windlass_core::budget::{Amounts, Ceilings};
use windlass_core::effect::{Effect, Outcome, Spent};
use windlass_core::escrow::books::{self, Books};
use windlass_core::escrow::{Budget, Budgets, Drawn, Known};
use windlass_core::failure::{Code, Failure, Retry};
use windlass_core::ids::{Digest, EffectId, RunId};
use windlass_core::input::{Ending, Facts, Input, Quote, Sent, Traits};
use windlass_core::journal::{Entry, FORMAT, Record};
use windlass_core::machine::{HookKind, Machine, ModelSettings, Program};
use windlass_core::overrides::Listed;
use windlass_core::policy::{Answer, Question, Verdict};
use windlass_core::route::table::Rules;
use windlass_core::route::{Chain, Link};
use windlass_core::run::{Parent, Run, Start, Terms};
use windlass_core::time::Timestamp;
use windlass_core::transcript::{self, Finish, ToolRequest, Usage};
use windlass_core::value::Value;
use windlass_core::{Decision, Filled, apply, decide_asking, plan, snapshot, standing};
use windlass_ports::compile::Bundle;
use windlass_spec::compile::compile;
use windlass_spec::eval::Engine;

/// Tokens that a scripted reply reports: input and output.
const USAGE: (u64, u64) = (10, 5);

/// A run under test, with everything it has recorded.
pub(crate) struct Bench {
    pub(crate) program: Arc<Program>,
    evaluator: Engine,
    chains: BTreeMap<Arc<str>, Chain>,
    pub(crate) run: Run,
    pub(crate) records: Vec<Vec<u8>>,
    /// The run as it is folded from the start and from every snapshot so far. Those that are equal are one: what is equal
    /// is folded to what is equal.
    replays: Vec<Run>,
    now: u64,
    /// When the next answer was delivered, where that is not when it is taken up.
    delivered: Option<Timestamp>,
    started: bool,
    /// What the policy says: to calls of tools by their names, or with certain arguments, to `FROM->TO`, `model NAME` and `machine KEY`; it allows
    /// everything else. None where there is no policy.
    policy: Option<BTreeMap<String, Answer>>,
    user: Option<Arc<str>>,
    /// Who starts the run.
    by: Option<Arc<str>>,
    parent: Option<Parent>,
    /// What a store would keep of budgets.
    books: Books,
    /// Tools whose ramp has stopped.
    stopped_ramps: BTreeSet<Arc<str>>,
    terms: Terms,
    /// What the next attempt that ends is said to have used; by how it ends without this.
    spent: Option<Spent>,
    /// Whether no model has a price.
    unpriced: bool,
    /// Tokens that the models of agents without a chain take.
    context_tokens: Option<u64>,
    /// Who decides.
    pub(crate) worker: Option<Arc<str>>,
    /// The version of the rule set.
    pub(crate) rules: &'static str,
}

impl Bench {
    /// Compiles the documents and makes a run of their entry, `machine.yml`.
    pub(crate) fn new(files: BTreeMap<String, String>) -> Self {
        let tools = files
            .get("tools.json")
            .map(|text| serde_json::from_str(text).expect("tools.json holds contracts"))
            .unwrap_or_default();
        let chains = files.get("chains.json").map(|text| chains(text)).unwrap_or_default();
        let ours = ["tools.json", "chains.json"];
        let files = files.into_iter().filter(|(name, _)| !ours.contains(&name.as_str()));
        // `skills/NAME@VERSION/FILE` is a file of a pack.
        let (packed, files): (Vec<_>, Vec<_>) = files.partition(|(name, _)| name.starts_with("skills/"));
        let mut skills: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for (name, text) in packed {
            let mut parts = name.splitn(3, '/').skip(1).map(str::to_owned);
            let (pack, file) = parts.next().zip(parts.next()).expect("skills/NAME@VERSION/FILE");
            skills.entry(pack).or_default().insert(file, text);
        }
        let files = files.into_iter().collect();
        let hooks = [("*".to_owned(), HookKind::ALL.to_vec())].into_iter().collect();
        let bundle = Bundle { entry: "machine.yml".into(), files, hooks, tools, strict: false, skills };
        let program = compile(&bundle).unwrap_or_else(|problems| panic!("{problems:#?}"));
        let run = Run::blank(start_of(&program, Value::Null, Ceilings::default()));
        Self {
            program,
            evaluator: Engine::default(),
            chains,
            run,
            records: Vec::new(),
            replays: Vec::new(),
            now: 1_000,
            delivered: None,
            started: false,
            policy: None,
            user: None,
            by: None,
            parent: None,
            books: Books::default(),
            stopped_ramps: BTreeSet::new(),
            terms: Terms::default(),
            spent: None,
            unpriced: false,
            context_tokens: None,
            worker: None,
            rules: "1",
        }
    }

    /// From here on the run is one that began when this was the newest version of audit rows.
    pub(crate) fn began_with(&mut self, version: u32) {
        self.replays.iter_mut().chain([&mut self.run]).for_each(|run| run.start.audit = version);
    }

    fn machine(&self) -> Arc<Machine> {
        self.program.machines[&self.program.entry].clone()
    }

    /// Does what one input line says, and prints what came of it.
    pub(crate) fn line(&mut self, line: &str) -> String {
        let mut out = format!("> {line}\n");
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        if verb == "wait" {
            self.now += rest.parse::<u64>().expect("milliseconds");
            return out;
        }
        if verb == "delivered" {
            self.delivered = Some(Timestamp(rest.parse().expect("milliseconds")));
            return out;
        }
        if verb == "policy" {
            let rules = serde_json::from_str(rest).expect("answers by tool");
            self.policy = Some(rules);
            return out;
        }
        if verb == "budgets" {
            self.books.budgets = serde_json::from_str(rest).expect("budgets by scope");
            return out;
        }
        if verb == "stopped" {
            self.stopped_ramps = rest.split_whitespace().map(Into::into).collect();
            return out;
        }
        if verb == "others" {
            let (scope, amounts) = rest.split_once(' ').expect("a scope and what others used");
            let account = self.books.accounts.entry(scope.into()).or_default();
            account.spent.add(&serde_json::from_str(amounts).expect("amounts"));
            return out;
        }
        if verb == "terms" {
            self.terms = serde_json::from_str(rest).expect("what the run may do");
            return out;
        }
        if verb == "parent" {
            self.parent = Some(Parent { run: RunId::stored(rest), awaited: true });
            return out;
        }
        if verb == "spent" {
            self.spent = Some(serde_json::from_str(rest).expect("what an attempt used"));
            return out;
        }
        if verb == "unpriced" {
            self.unpriced = true;
            return out;
        }
        if verb == "context_tokens" {
            self.context_tokens = Some(rest.parse().expect("tokens"));
            return out;
        }
        if let Some(who) = [("user", &mut self.user), ("by", &mut self.by)].into_iter().find(|(one, _)| *one == verb) {
            *who.1 = Some(rest.into());
            return out;
        }
        let input = self.input(verb, rest.trim());
        match self.decide(input) {
            Ok(decision) => print_decision(&decision, &mut out),
            Err(rejected) => writeln!(out, "! {rejected}").expect("text"),
        }
        writeln!(out, "= {}", self.run.status().as_str()).expect("text");
        out
    }

    fn decide(&mut self, input: Input) -> Result<Decision, String> {
        let before = self.run.clone();
        let machine = self.machine();
        let mut questions = plan(&machine, &self.run, &input);
        let routes = self.routes(&input);
        questions.extend(routes.iter().flat_map(|(agent, chain)| chain.questions(agent)));
        let facts = Facts {
            now: Timestamp(self.now),
            seed: 0x7777_7777_7777_7777,
            worker: self.worker.clone(),
            basis: None,
            quotes: Arc::new(self.quotes()),
            traits: Arc::new(self.traits()),
            routes: Arc::new(routes),
            budgets: Arc::new(self.budgets()),
            stopped_ramps: Arc::new(self.stopped_ramps.clone()),
            standing: self.verdicts(standing(&machine)).into(),
            verdicts: self.verdicts(questions),
            allow_unasked: self.policy.is_none(),
            reads_arguments: self.policy.iter().flat_map(BTreeMap::keys).any(|key| key.contains('{')),
        };
        let judged = |mut facts: Facts, _: &Run, _: &Input, filled: &[Filled]| {
            facts.verdicts.extend(self.verdicts(filled.iter().map(|(question, _)| question.clone()).collect()));
            facts
        };
        let mut run = before.clone();
        let decided = decide_asking(&machine, &self.evaluator, &mut run, input, facts, judged);
        self.run = run;
        match decided {
            Ok(decision) => {
                self.keep(&before, &decision);
                self.give_back(&decision);
                Ok(decision)
            }
            Err(rejected) => {
                assert_eq!(before, self.run, "a rejected input changes nothing");
                Err(rejected.to_string())
            }
        }
    }

    fn budgets(&self) -> Budgets {
        let known = |(scope, budget): (&Arc<str>, &Budget)| {
            let account = self.books.accounts.get(scope);
            let is_near = account.is_some_and(|account| account.is_near(budget));
            (scope.clone(), Known { budget: budget.clone(), revision: 1, is_near })
        };
        self.books.budgets.iter().map(known).collect()
    }

    fn draw(&mut self) -> Drawn {
        let draw = self.run.escrow.draw(self.run.id(), Timestamp(self.now));
        books::settle(&mut self.books, &draw)
    }

    /// Does what a return asks for, and checks that the run and the books agree.
    fn give_back(&mut self, decision: &Decision) {
        if decision.effects.iter().any(|effect| matches!(effect, Effect::GiveBack(_))) {
            self.draw();
            let Some(told) = &self.books.allotted else { return };
            for (scope, allotment) in &self.run.escrow.allotments {
                let part = &told.parts[scope];
                assert_eq!((part.spent, part.held), (allotment.spent, allotment.reserved), "{scope}");
            }
        }
    }

    fn verdicts(&self, questions: Vec<Question>) -> Vec<Verdict> {
        let Some(policy) = &self.policy else { return Vec::new() };
        // `TOOL`, `TOOL LABEL` for arguments with that label, or `TOOL {…}` for these arguments.
        let answer = |question: &Question| match question {
            Question::CallTool { tool, labels, arguments, .. } => {
                let is_same = |given: &str| Value::from_json(given).is_ok_and(|given| given.digest() == *arguments);
                let by_value = policy.iter().find(|(key, _)| {
                    let given = key.strip_prefix(&**tool).filter(|rest| rest.starts_with(" {"));
                    given.is_some_and(|given| is_same(given.trim_start()))
                });
                if let Some((_, answer)) = by_value {
                    return *answer;
                }
                let mut words: Vec<&str> = labels.iter().map(|label| label.as_str()).collect();
                // What is secret weighs more.
                words.reverse();
                let labelled = words.iter().find_map(|word| policy.get(&format!("{tool} {word}")));
                labelled.or_else(|| policy.get(&**tool)).copied().unwrap_or(Answer::Allow)
            }
            Question::TakeTransition { from, to } => {
                policy.get(format!("{from}->{to}").as_str()).copied().unwrap_or(Answer::Allow)
            }
            Question::CallModel { model, .. } => {
                policy.get(&format!("model {model}")).copied().unwrap_or(Answer::Allow)
            }
            Question::StartMachine { machine } => {
                policy.get(&format!("machine {machine}")).copied().unwrap_or(Answer::Allow)
            }
        };
        let verdict = |question: Question| Verdict {
            answer: answer(&question),
            question,
            rule: "r1".into(),
            reason: "money".into(),
            version: self.rules.into(),
            origins: Vec::new(),
            asking: None,
            trust: None,
            choice: None,
            other: None,
        };
        questions.into_iter().map(verdict).collect()
    }

    /// `#WAIT BY ["ARGUMENTS"]`, or `#WAIT BY raise AMOUNTS`
    fn answer(&mut self, approve: bool, forged: bool, rest: &str) -> Input {
        let mut words = rest.splitn(3, ' ');
        let wait = effect(words.next().expect("a wait"));
        let by = words.next().unwrap_or_default().into();
        let shown = match self.run.waits.get(&wait).map(|wait| &wait.kind) {
            Some(kind) if !forged => kind.shown().expect("a question"),
            _ => Digest::of(b"something else"),
        };
        let (mut arguments, mut raise) = (words.next(), Amounts::ZERO);
        if let Some(amounts) = arguments.and_then(|word| word.strip_prefix("raise ")) {
            raise = serde_json::from_str(amounts).expect("amounts");
            arguments = None;
        }
        let arguments = arguments.map(json);
        let reason = "because".into();
        Input::Approved(Box::new(Reply {
            wait,
            approve,
            by,
            reason,
            shown,
            arguments,
            raise,
            at: self.delivered.take(),
        }))
    }

    /// Stores the decision and checks that what is stored gives the same run, from every snapshot so far.
    fn keep(&mut self, before: &Run, decision: &Decision) {
        let record = Record { format: FORMAT, version: self.run.version, entries: decision.entries.clone() };
        self.records.push(record.encode());
        let mut folded = before.clone();
        let rows: Vec<_> = decision.entries.iter().filter_map(|entry| apply(&mut folded, entry)).collect();
        assert_eq!(folded, self.run, "folding the entries gives the run");
        assert_eq!(rows, decision.audit, "folding the entries gives the audit rows");
        if self.replays.is_empty() {
            self.replays.push(Run::blank(self.run.start.clone()));
        }
        let stored = Record::decode(self.records.last().expect("a record")).expect("a record of this build");
        let expected = snapshot::encode(&self.run);
        let mut distinct: Vec<Run> = Vec::new();
        for mut replayed in std::mem::take(&mut self.replays) {
            stored.entries.iter().for_each(|entry| _ = apply(&mut replayed, entry));
            assert_eq!(snapshot::encode(&replayed), expected, "replay from the start and from every snapshot");
            if !distinct.contains(&replayed) {
                distinct.push(replayed);
            }
        }
        let loaded = snapshot::decode(&expected).expect("a snapshot of this build");
        if !distinct.contains(&loaded) {
            distinct.push(loaded);
        }
        self.replays = distinct;
    }

    fn quotes(&self) -> BTreeMap<Arc<str>, Quote> {
        let quote = Quote {
            input: 1_000_000,
            output: 2_000_000,
            version: "test".into(),
            beyond: windlass_core::budget::Amounts::ZERO,
        };
        let agents = self.machine().agents.keys().filter(|_| !self.unpriced).cloned().collect::<Vec<_>>();
        agents.into_iter().map(|name| (name, quote.clone())).collect()
    }

    fn traits(&self) -> BTreeMap<Arc<str>, Traits> {
        let traits = Traits { context_tokens: self.context_tokens, is_free: false };
        self.machine().agents.keys().map(|name| (name.clone(), traits)).collect()
    }

    /// The chains of agents: those of their documents, and of the models that somebody named since.
    fn routes(&self, input: &Input) -> BTreeMap<Arc<str>, Chain> {
        let overrides = match input {
            Input::ModelChanged(change) => self.run.overrides.changed(change),
            _ => self.run.overrides.clone(),
        };
        let chain = |agent: &Arc<str>| match overrides.of(agent) {
            Some(instead) => {
                let Listed { provider, model } = &instead.to;
                let listed = self.chains.get(format!("{provider}/{model}").as_str())?;
                Some(Chain { name: model.clone(), ..listed.clone() })
            }
            None => self.chains.get(agent).cloned(),
        };
        self.machine().agents.keys().filter_map(|agent| Some((agent.clone(), chain(agent)?))).collect()
    }

    fn input(&mut self, verb: &str, rest: &str) -> Input {
        let (first, more) = rest.split_once(' ').unwrap_or((rest, ""));
        match verb {
            "start" => self.start(rest),
            "reply" => self.settle(first, Outcome::Replied(Box::new(reply(more)))),
            "silent" => {
                let quiet = transcript::Reply { usage: Usage::default(), cost_micros: None, ..reply(more) };
                self.settle(first, Outcome::Replied(Box::new(quiet)))
            }
            "reasoned" => {
                let (bytes, more) = more.split_once(' ').expect("bytes of reasoning and an answer");
                let parts = "x".repeat(bytes.parse().expect("bytes"));
                let attachments = Value::object([("scripted", Value::str(parts)), ("other", Value::str("y"))]);
                self.settle(first, Outcome::Replied(Box::new(transcript::Reply { attachments, ..reply(more) })))
            }
            "return" => self.settle(first, Outcome::Returned(json(more))),
            "fail" => self.settle(first, Outcome::Failed(failure(more))),
            "lost" => {
                let sent = if more == "no" { Sent::No } else { Sent::Maybe };
                Input::Lost { effect: effect(first), sent }
            }
            "drawn" => {
                let number = self.run.escrow.last;
                Input::Drawn { number, answer: self.draw() }
            }
            "signal" => Input::Signalled { wait: effect(first), signal: "s".into(), data: json(more) },
            "fire" => {
                if let Some(timer) = self.run.timers.get(&effect(first)) {
                    self.now = self.now.max(timer.due.0);
                }
                Input::TimerFired { timer: effect(first) }
            }
            "child" => self.child(first, more),
            "labelled" => {
                let (marks, output) = more.split_once(' ').expect("labels and an output");
                let labels = Some(serde_json::from_str(marks).expect("labels"));
                let ending = Ending::Completed { output: json(output) };
                let child = RunId::stored(&format!("r{first}"));
                let hidden = windlass_core::hidden::Hidden::default();
                Input::ChildEnded { child, ending, used: Amounts::ZERO, labels, hidden }
            }
            "approve" => self.answer(true, false, rest),
            "reject" => self.answer(false, false, rest),
            "forge" => self.answer(true, true, rest),
            "cancel" => Input::Cancel { reason: rest.into() },
            "pause" => Input::Pause { reason: rest.into() },
            "unpause" => Input::Unpause,
            "retry" => Input::Retry { anyway: rest == "anyway" },
            "skip" => Input::Skip { output: json(rest), by: "ann".into(), reason: "known".into() },
            "model" => Input::ModelChanged(serde_json::from_str(rest).expect("a change")),
            "raised" => Input::ChildRaised {
                child: RunId::stored(&format!("r{first}")),
                amounts: serde_json::from_str(more).expect("amounts"),
            },
            "raise" => {
                Input::BudgetRaised { ceilings: serde_json::from_str(rest).expect("ceilings"), by: "finance".into() }
            }
            other => panic!("unknown input `{other}`"),
        }
    }

    fn start(&mut self, rest: &str) -> Input {
        assert!(!std::mem::replace(&mut self.started, true) || self.run.version > 0, "a scenario starts once");
        let mut parts = serde_json::Deserializer::from_str(rest).into_iter::<serde_json::Value>();
        let input = parts.next().and_then(Result::ok).map_or_else(Value::empty_map, Value::from);
        let ceilings = parts.next().and_then(Result::ok).map(serde_json::from_value).transpose().expect("ceilings");
        let mut start = start_of(&self.program, input, ceilings.unwrap_or_default());
        start.terms = self.terms.clone();
        start.scope.user.clone_from(&self.user);
        start.caller.by.clone_from(&self.by);
        start.parent.clone_from(&self.parent);
        if self.run.version == 0 {
            self.run = Run::blank(start.clone());
        }
        Input::Started(Box::new(start))
    }

    fn settle(&mut self, id: &str, outcome: Outcome) -> Input {
        let effect = effect(id);
        let spent = match &outcome {
            Outcome::Replied(reply) if reply.cost_micros.is_none() => Spent::Unknown,
            Outcome::Replied(reply) => {
                Spent::Known { tokens: USAGE.0 + USAGE.1, cost_micros: reply.cost_micros.unwrap_or(0) }
            }
            Outcome::Failed(failure) if failure.code == Code::ProviderTruncated => Spent::Unknown,
            Outcome::Failed(failure) if failure.code == Code::ProviderUnreachable => Spent::Unsent,
            Outcome::Failed(_) | Outcome::Returned(_) => Spent::Nothing,
        };
        let spent = self.spent.take().unwrap_or(spent);
        let attempt = self.run.calls.get(&effect).map_or(1, |call| call.attempt);
        Input::Settled { effect, attempt, outcome, spent }
    }

    fn child(&self, id: &str, rest: &str) -> Input {
        let (word, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let ending = match word {
            "completed" => Ending::Completed { output: json(rest) },
            "failed" => Ending::Failed { failure: failure(rest), state: None },
            "cancelled" => Ending::Cancelled { reason: rest.into() },
            other => panic!("unknown ending `{other}`"),
        };
        let used = serde_json::from_str(r#"{"model_calls":1,"tokens":15}"#).expect("amounts");
        Input::ChildEnded {
            child: RunId::stored(&format!("r{id}")),
            ending,
            used,
            labels: None,
            hidden: windlass_core::hidden::Hidden::default(),
        }
    }
}

/// `{"AGENT" or "catalog/NAME": [{"name", "on": [CODE], "price"?, "context_tokens"?, "shut"?, "instead"?}]}`: chains of agents, each priced per million
/// tokens.
fn chains(text: &str) -> BTreeMap<Arc<str>, Chain> {
    let link = |value: &Value| {
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        let name: Arc<str> = text("name").expect("a name").into();
        let number = |key: &str| value.get(key).and_then(Value::as_int).and_then(|n| u64::try_from(n).ok());
        let on = value.get("on").and_then(Value::as_list).unwrap_or_default();
        Link {
            settings: ModelSettings {
                provider: "scripted".into(),
                model: format!("model-{name}").into(),
                base_url: None,
                key: None,
                max_tokens: Some(100),
                stream: false,
                params: Value::Null,
                timeout_ms: 7_000,
            },
            name,
            tier: "t".into(),
            on: on.iter().map(|code| Code::parse(code.as_str().expect("a code")).expect("a code")).collect(),
            quote: number("price").map(|price| Quote {
                input: price,
                output: price,
                version: "test".into(),
                beyond: windlass_core::budget::Amounts::ZERO,
            }),
            traits: Traits { context_tokens: number("context_tokens"), is_free: false },
            shut: text("shut").map(Into::into),
            instead: text("instead").map(Into::into),
        }
    };
    let chain = |(agent, links): (&Arc<str>, &Value)| {
        let links = links.as_list().expect("links").iter().map(link).collect();
        (agent.clone(), Chain { name: "answers".into(), links, rules: Rules::default() })
    };
    json(text).as_map().expect("chains").iter().map(chain).collect()
}

fn start_of(program: &Program, input: Value, ceilings: Ceilings) -> Start {
    let machine = &program.machines[&program.entry];
    Start {
        ceilings,
        ..Start::new(RunId::stored("r"), program.bundle, program.entry.clone(), machine.name.clone(), input)
    }
}

fn effect(text: &str) -> EffectId {
    EffectId(text.trim_start_matches('#').parse().expect("an effect such as #3"))
}

fn json(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { Value::from_json(text).expect("JSON") }
}

/// `CODE [backoff|after MS|unknown] message`
fn failure(text: &str) -> Failure {
    let (code, rest) = text.split_once(' ').unwrap_or((text, ""));
    let failure = Failure::new(Code::parse(code).expect("a code"), rest);
    match rest.split_once(' ').unwrap_or((rest, "")) {
        ("backoff", _) => failure.retry(Retry::Backoff),
        ("after", ms) => failure.retry(Retry::After(ms.parse().expect("milliseconds"))),
        ("unknown", _) => failure.retry(Retry::Unknown),
        _ => failure,
    }
}

/// Text, or `tools [{"id","name","arguments"}]`, or `length TEXT`, or `filtered`.
fn reply(text: &str) -> transcript::Reply {
    let (content, tool_calls, finish) = if let Some(calls) = text.strip_prefix("tools ") {
        let calls: Vec<ToolRequest> = serde_json::from_str(calls).expect("tool requests");
        ("", calls, Finish::ToolUse)
    } else if text == "filtered" {
        ("", Vec::new(), Finish::ContentFilter)
    } else {
        (text, Vec::new(), Finish::Stop)
    };
    transcript::Reply {
        content: content.into(),
        has_content: !content.is_empty(),
        tool_calls,
        finish,
        usage: Usage { input: Some(USAGE.0), output: Some(USAGE.1), ..Usage::default() },
        cost_micros: Some(20),
        prices: None,
        attachments: Value::Null,
        provider_data: Value::Null,
    }
}

fn print_decision(decision: &Decision, out: &mut String) {
    for entry in &decision.entries {
        if matches!(entry, Entry::Decided { .. }) {
            continue;
        }
        let body = serde_json::to_value(entry).expect("entries serialise");
        let body = match &body {
            serde_json::Value::Object(map) => map.values().next().map(brief).unwrap_or_default(),
            _ => String::new(),
        };
        writeln!(out, "{} {body}", entry.kind()).map(|()| trim_end(out)).expect("text");
    }
    for effect in &decision.effects {
        let text = format!("{effect:?}");
        let word = text.split([' ', '(', '{']).next().unwrap_or_default();
        if let windlass_core::effect::Effect::Tell { to, input, .. } = effect {
            writeln!(out, "+ tell {to} {}", input.kind()).expect("text");
        } else if matches!(word, "Call" | "Abandon") {
            writeln!(out, "+ {}", text.replace("EffectId", "").replace("((", " #").replace("))", "")).expect("text");
        }
    }
}

fn trim_end(out: &mut String) {
    while out.ends_with(" \n") {
        out.truncate(out.len() - 2);
        out.push('\n');
    }
}

/// The body of an entry without what every scenario would repeat: hashes and full starts.
fn brief(body: &serde_json::Value) -> String {
    let mut body = body.clone();
    if let Some(map) = body.as_object_mut() {
        map.shift_remove("watched");
        map.shift_remove("audit");
        for key in ["bundle", "root", "scope", "machine", "id"] {
            map.remove(key);
        }
        if map.contains_key("route") {
            map.remove("arguments");
        }
        if let Some(call) = map.get_mut("call").and_then(|c| c.as_object_mut()) {
            for key in ["arguments", "output_bytes_max", "at", "timeout_ms"] {
                call.remove(key);
            }
        }
    }
    body.to_string()
}
