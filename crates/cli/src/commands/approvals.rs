//! `windlass approvals`: what runs ask people, and the answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use windlass_core::approval::{self, Reply};
use windlass_core::budget::{self, Amounts, Exceeded, Meter};
use windlass_core::effect::{Call, OpenCall, Outcome, WaitKind};
use windlass_core::escrow::Refusal;
use windlass_core::hidden;
use windlass_core::ids::{Digest, EffectId, Name, RunId};
use windlass_core::input::Input;
use windlass_core::journal::Entry;
use windlass_core::redact::REDACTED;
use windlass_core::run::{Run, Status};
use windlass_core::time::Timestamp;
use windlass_core::value::Value;
use windlass_ports::compile::Bundle;
use windlass_ports::store::escrow::{self, BudgetRow};
use windlass_ports::store::{Head, InboxItem, Page, Query, Store};
use windlass_runtime::{Answered, store_time};

use super::budgets;
use crate::app::App;
use crate::args::{ApprovalsApprove, ApprovalsList, ApprovalsReject, ApprovalsShow, Who};
use crate::exit::{Exit, Problem};
use crate::input;
use crate::journal;
use crate::outcome;
use crate::output::{Form, printable, table, time};

/// A question that a run asks, as it is shown.
struct Question {
    wait: EffectId,
    /// To whom it was escalated last, and how often it was.
    escalated: Option<(Name, u32)>,
    /// Its id, as commands take it.
    id: String,
    tool: Name,
    kind: &'static str,
    class: &'static str,
    arguments: Value,
    /// Parts of them that the contract hides.
    veiled: Vec<Vec<Name>>,
    rule: Name,
    reason: Name,
    shown: Digest,
    asked_at: Timestamp,
    expires_at: Option<Timestamp>,
    /// The budget that has too little, where it asks for more.
    refusal: Option<Refusal>,
    /// The ceiling of the run that has too little, where it asks for more.
    over: Option<Exceeded>,
    /// The plan that the call applies.
    plan: Option<Planned>,
}

/// The kind of a question about a transition.
const TRANSITION: &str = "transition";

/// A plan as whoever is asked sees it.
struct Planned {
    id: Name,
    /// What the call would do, as it was shown to the model; none where the journal no longer says.
    preview: Option<Value>,
    expires_at: Option<Timestamp>,
}

impl Question {
    /// Its arguments as whoever is asked sees them: without what the contract hides, and what tools had answered that is
    /// hidden.
    fn visible(&self, run: &Run) -> Json {
        match self.kind {
            TRANSITION => run.hidden.veil().document(&self.arguments),
            _ => run.hidden.veil_of_questions().document(&hidden::masked(&self.arguments, &self.veiled)),
        }
    }

    /// What is asked: whether a call may leave, whether a transition may be taken, or for more of a budget or a ceiling.
    fn asks(&self) -> &'static str {
        match (&self.refusal, self.over) {
            (Some(_), _) => "budget",
            (None, Some(_)) => "ceiling",
            (None, None) if self.kind == TRANSITION => TRANSITION,
            (None, None) => "call",
        }
    }

    /// Of what there is too little and how much is wanted, where more is asked for.
    fn wanted(&self) -> Option<String> {
        let of = |meter: Meter, wanted: u64, left: u64, most: u64| {
            format!("{wanted} {} wanted, {left} of {most} left", meter.as_str())
        };
        match (&self.refusal, self.over) {
            (Some(Refusal { scope, meter, cap, left, wanted, .. }), _) => {
                Some(format!("budget {scope}: {}", of(*meter, *wanted, *left, *cap)))
            }
            (None, Some(over)) => Some(format!("ceiling: {}", of(over.meter, over.wanted, over.left, over.ceiling))),
            (None, None) => None,
        }
    }

    /// What there is too little of.
    fn meter(&self) -> Option<Meter> {
        self.refusal.as_ref().map(|refusal| refusal.meter).or(self.over.map(|over| over.meter))
    }
}

/// Lists open questions.
pub(crate) async fn list(app: &App, args: ApprovalsList) -> Result<Exit, Problem> {
    let query = Query {
        statuses: vec![Status::Attention, Status::Paused],
        tenant: args.tenant.as_deref().map(Into::into),
        root: args.run.as_deref().map(RunId::stored),
        limit: args.limit as usize,
        cursor: args.cursor,
        ..Query::default()
    };
    let store = app.store_to_list().await?;
    let page = match &store {
        Some(store) => store.list(query).await?,
        None => Page::default(),
    };
    let mut found = Vec::new();
    for head in &page.heads {
        let Some(store) = &store else { break };
        let asks = store.waits(head.id.clone(), false).await?;
        if asks.iter().any(|(_, wait)| wait.kind.is_question()) {
            let run = journal::current(&**store, &head.id).await?;
            let run = Arc::new(run);
            let mut asked = questions(&run);
            look_up_plans(store, &run, &mut asked).await?;
            found.extend(asked.into_iter().map(|question| (head, Arc::clone(&run), question)));
        }
    }
    let value = json!({
        "approvals": found.iter().map(|(head, run, question)| described(head, run, question)).collect::<Vec<_>>(),
        "next": page.next,
    });
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|(head, run, question)| {
            vec![
                question.id.clone(),
                head.machine.to_string(),
                question.tool.to_string(),
                question.class.to_owned(),
                printable(&question.wanted().unwrap_or_else(|| question.visible(run).to_string())),
                question.expires_at.map(time).unwrap_or_default(),
            ]
        })
        .collect();
    app.output.table(&value, &["approval", "machine", "call", "class", "asks", "expires"], &rows);
    if let (Form::Text, Some(next)) = (app.output.form(), &page.next) {
        app.output.note(&format!("more: --cursor {next}"));
    }
    Ok(Exit::Ok)
}

/// Shows one question.
pub(crate) async fn show(app: &App, args: ApprovalsShow) -> Result<Exit, Problem> {
    let asked = find(app, &args.id, false).await?;
    let (head, question) = (&asked.head, &asked.question);
    if app.output.form() == Form::Json {
        app.output.document(&described(head, &asked.run, question));
        return Ok(Exit::Ok);
    }
    let veil = asked.run.hidden.veil();
    let pair = |name: &str, value: &str| vec![name.to_owned(), printable(value)];
    let arguments = question.visible(&asked.run).to_string();
    let mut rows = vec![
        pair("approval", &question.id),
        pair("run", head.id.as_str()),
        pair("machine", &head.machine),
        pair("state", head.state.as_deref().unwrap_or("-")),
        pair(question.kind, &question.tool),
        pair("class", question.class),
        match question.wanted() {
            Some(wanted) => pair("asks for", &wanted),
            None => pair("arguments", &arguments),
        },
        pair("asked by", &veil.shown(&format!("rule {}: {}", question.rule, question.reason))),
        pair("asked", &time(question.asked_at)),
    ];
    if let Some(plan) = &question.plan {
        let preview = plan.preview.as_ref().map_or_else(
            || "no longer known".to_owned(),
            |preview| asked.run.hidden.veil_of_questions().value(preview),
        );
        rows.extend([pair("plan", &plan.id), pair("would do", &preview)]);
        rows.extend(plan.expires_at.map(|at| pair("plan expires", &time(at))));
    }
    if question.meter().is_some() {
        rows.push(pair("so far", &veil.value(&asked.run.context)));
        if !asked.run.output.is_null() {
            rows.push(pair("output so far", &veil.value(&asked.run.output)));
        }
    }
    if let Some(at) = question.expires_at {
        rows.push(pair("expires", &time(at)));
    }
    if let Some((to, level)) = &question.escalated {
        rows.push(pair("escalated", &format!("to {to}, level {level}")));
    }
    rows.push(pair("shown", &question.shown.to_string()));
    if arguments.contains(REDACTED) {
        rows.push(pair(
            "redacted",
            "values that a contract hides; what is approved, and the hash, is the call with them",
        ));
    }
    app.output.text(&table(&["", ""], &rows));
    Ok(Exit::Ok)
}

/// Lets a call leave.
pub(crate) async fn approve(app: &App, args: ApprovalsApprove) -> Result<Exit, Problem> {
    let arguments = args.arguments.as_deref().map(|text| input::value("--arguments", Some(text))).transpose()?;
    let raise = args.raise.into_iter().fold(Amounts::ZERO, |sum, (meter, amount)| sum.with(meter, amount));
    answer(app, &args.id, args.who, Said { approve: true, arguments, raise }).await
}

/// Does not let a call leave.
pub(crate) async fn reject(app: &App, args: ApprovalsReject) -> Result<Exit, Problem> {
    answer(app, &args.id, args.who, Said { approve: false, arguments: None, raise: Amounts::ZERO }).await
}

/// An answer.
struct Said {
    approve: bool,
    arguments: Option<Value>,
    raise: Amounts,
}

async fn answer(app: &App, id: &str, who: Who, said: Said) -> Result<Exit, Problem> {
    let asked = find(app, id, true).await?;
    let shown = match who.shown {
        None => asked.question.shown,
        Some(text) => Digest::parse(&text).ok_or_else(|| {
            Problem::invalid(format!("`--shown {text}` is no hash: take the one of `windlass approvals show`"))
        })?,
    };
    // Whoever decides goes by the store's clock.
    let now = store_time(&*asked.store).await?;
    let Who { by, reason, .. } = who;
    let Said { approve, arguments, raise } = said;
    let reply = Reply {
        wait: asked.question.wait,
        approve,
        by: by.as_str().into(),
        reason: reason.as_str().into(),
        shown,
        arguments,
        raise,
        at: Some(now),
    };
    if let Some(why) = approval::refusal(&asked.run, &reply, now) {
        return Err(Problem::rejected(format!("`{id}` was not answered: {why}")));
    }
    if let Some(arguments) = &reply.arguments {
        check_schema(&asked, arguments).await?;
    }
    match windlass_runtime::answer(&*asked.store, &asked.head.id, reply, asked.run.version).await {
        Ok(answered) => told(answered, &asked)?,
        Err(error) => return Err(outcome::engine_problem(error)),
    }
    // Only for the answer that counts. A run that takes it up before asks again, and hears at once that there is enough.
    if let Some(refusal) = asked.question.refusal.as_ref().filter(|_| approve)
        && let Some(row) = grant(&asked, refusal, app.now()).await?
    {
        // Nobody agreed to the calls of other runs.
        budgets::wake(&*asked.store, &row.scope, app.now(), row.known.revision, Some(&asked.head.id)).await?;
    }
    let word = if approve { "approved" } else { "rejected" };
    let value = json!({ "approval": id, "run_id": asked.head.id.as_str(), "answer": word, "by": by, "shown": shown.to_string() });
    app.output
        .sentence(&value, &format!("{id} is {word}; a worker takes it up, or: windlass resume {}", asked.head.root));
    Ok(Exit::Ok)
}

/// Raises a budget by what the call lacks, and by nothing when it has come by other ways.
async fn grant(asked: &Asked, refusal: &Refusal, now: Timestamp) -> Result<Option<BudgetRow>, Problem> {
    let Some(row) = escrow::budget(&*asked.store, &refusal.scope, now).await? else { return Ok(None) };
    if budgets::lacking(&row, refusal) == 0 {
        return Ok(None);
    }
    budgets::raise_to(&*asked.store, refusal, now).await.map(Some)
}

/// Refuses what does not count.
fn told(answered: Answered, asked: &Asked) -> Result<(), Problem> {
    let (id, run) = (&asked.question.id, &asked.head.id);
    match answered {
        Answered::Counts => Ok(()),
        Answered::Beaten { answer: approval::Answer::Expired, .. } => {
            Err(Problem::rejected(format!("`{id}` was not answered: its time was over")))
        }
        Answered::Beaten { answer, by } => {
            Err(Problem::rejected(format!("`{id}` was {} by `{by}` already", answer.as_str()))
                .hint("the first answer counts, unless it is refused when a worker takes it up"))
        }
        Answered::Void => Err(Problem::rejected(format!("`{id}` is not open any more, or the answer does not fit it"))
            .hint(format!("windlass runs journal {run}"))),
        Answered::NotFound => Err(Problem::unknown_run(run.as_str())),
        Answered::Finished => Err(Problem::rejected(format!("run `{run}` has ended"))),
    }
}

/// A question with the run that asks it.
struct Asked {
    store: Arc<dyn Store>,
    head: Head,
    run: Run,
    question: Question,
}

async fn find(app: &App, id: &str, to_change: bool) -> Result<Asked, Problem> {
    let no_id = || Problem::invalid(format!("`{id}` is no approval: it looks like `RUN#NUMBER`, see `approvals list`"));
    let (run, number) = id.rsplit_once('#').ok_or_else(no_id)?;
    let wait = EffectId(number.parse().map_err(|_| no_id())?);
    let (store, head) = if to_change { app.run_to_change(run).await? } else { app.run(run).await? };
    let run = journal::current(&*store, &head.id).await?;
    let mut question = questions(&run).into_iter().find(|question| question.wait == wait).ok_or_else(|| {
        Problem::rejected(format!("`{id}` is not open: it has been answered, has expired, or the run went on"))
            .hint(format!("windlass runs journal {}", head.id))
    })?;
    let closing = |item: &InboxItem| match &item.input {
        Input::Approved(reply) => (reply.wait == wait).then_some(false),
        Input::Signalled { wait: woken, .. } => (*woken == wait).then_some(true),
        _ => None,
    };
    if store.inbox(head.id.clone()).await?.iter().find_map(closing) == Some(true) {
        return Err(Problem::rejected(format!("`{id}` is not open: its budget was raised, and the run draws again"))
            .hint(format!("windlass resume {}", head.root)));
    }
    look_up_plans(&store, &run, std::slice::from_mut(&mut question)).await?;
    Ok(Asked { store, head, run, question })
}

/// The questions of a run, oldest first.
fn questions(run: &Run) -> Vec<Question> {
    let mut found = Vec::new();
    for (wait, open) in &run.waits {
        let escalating = run.escalating.get(wait);
        let escalated = escalating.and_then(|one| Some((one.to()?.clone(), one.level)));
        if let WaitKind::Transition { from, to, rule, reason, shown, .. } = &open.kind {
            found.push(Question {
                wait: *wait,
                escalated,
                id: wait.key(run.id()),
                tool: format!("{from}->{to}").into(),
                kind: TRANSITION,
                class: "-",
                arguments: run.context.clone(),
                veiled: Vec::new(),
                rule: rule.clone(),
                reason: reason.clone(),
                shown: *shown,
                asked_at: run.now,
                expires_at: approval::due(run, *wait),
                refusal: None,
                over: None,
                plan: None,
            });
            continue;
        }
        let Some((_, call)) = approval::asked(run, *wait) else { continue };
        let (shown, refusal, over) = match &open.kind {
            WaitKind::Approval { shown, .. } => (shown, None, None),
            WaitKind::Budget { shown, refusal, .. } => (shown, Some(Refusal::clone(refusal)), None),
            WaitKind::Ceiling { shown, over, .. } => (shown, None, Some(*over)),
            WaitKind::Signal
            | WaitKind::Outcome { .. }
            | WaitKind::ToolChanged { .. }
            | WaitKind::Transition { .. } => continue,
        };
        let why = call.approval.as_deref();
        found.push(Question {
            wait: *wait,
            escalated,
            id: wait.key(run.id()),
            tool: call.call.target().clone(),
            kind: call.call.kind(),
            class: call.class.as_str(),
            arguments: approval::arguments(run, call),
            veiled: call.veiled.clone(),
            rule: why.map(|why| why.rule.clone()).unwrap_or_default(),
            reason: why.map(|why| why.reason.clone()).unwrap_or_default(),
            shown: *shown,
            asked_at: call.at,
            expires_at: approval::due(run, *wait),
            refusal,
            over,
            plan: planned(run, call),
        });
    }
    found
}

/// The plan that a call applies, without what it showed.
fn planned(run: &Run, call: &OpenCall) -> Option<Planned> {
    let Call::Tool { plan: Some(id), .. } = &call.call else { return None };
    let expires_at = run.plans.get(id).map(|plan| plan.expires_at);
    Some(Planned { id: id.clone(), preview: None, expires_at })
}

/// Finds in the journal what the plans of questions showed: the answer from which each was made, by its hash.
async fn look_up_plans(store: &Arc<dyn Store>, run: &Run, asked: &mut [Question]) -> Result<(), Problem> {
    let wanted: BTreeMap<Digest, Name> = asked
        .iter()
        .filter_map(|question| question.plan.as_ref())
        .filter_map(|plan| Some((run.plans.get(&plan.id)?.preview, plan.id.clone())))
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let mut previews: BTreeMap<Digest, Value> = BTreeMap::new();
    let mut reader = journal::Reader::new(Arc::clone(store), run.id().clone(), 0);
    while previews.len() < wanted.len() {
        let records = reader.next(usize::MAX).await?;
        if records.is_empty() {
            break;
        }
        for entry in records.into_iter().flat_map(|record| record.entries) {
            if let Entry::CallSettled { outcome: Outcome::Returned(preview), .. } = entry {
                let digest = preview.digest();
                if wanted.contains_key(&digest) {
                    previews.insert(digest, preview);
                }
            }
        }
    }
    for plan in asked.iter_mut().filter_map(|question| question.plan.as_mut()) {
        plan.preview = run.plans.get(&plan.id).and_then(|made| previews.get(&made.preview)).cloned();
    }
    Ok(())
}

/// What used most of the meter that a budget or a ceiling lacks, in this run.
fn drivers(run: &Run, question: &Question) -> Option<Json> {
    let meter = question.meter()?;
    let driver = |(name, used): (&Name, u64)| json!({ "name": &**name, "used": used });
    let top = if question.over.is_some() { budget::top(&run.ledger.drivers, meter) } else { run.escrow.top(meter) };
    Some(top.into_iter().map(driver).collect())
}

fn described(head: &Head, run: &Run, question: &Question) -> Json {
    let veil = run.hidden.veil();
    let arguments = question.visible(run);
    json!({
        "id": question.id,
        "redacted": arguments.to_string().contains(REDACTED),
        "run_id": head.id.as_str(),
        "root_run_id": head.root.as_str(),
        "tenant": &*head.tenant,
        "machine": &*head.machine,
        "state": head.state.as_deref(),
        "asks": question.asks(),
        "kind": question.kind,
        "call": &*question.tool,
        "class": question.class,
        "arguments": arguments,
        "rule": &*question.rule,
        "reason": veil.shown(&question.reason),
        "plan": question.plan.as_ref().map(|plan| json!({
            "id": &*plan.id,
            "preview": plan.preview.as_ref().map(|preview| run.hidden.veil_of_questions().document(preview)),
            "expires_at": plan.expires_at.map(time),
        })),
        "shown": question.shown.to_string(),
        "asked_at": time(question.asked_at),
        "expires_at": question.expires_at.map(time),
        "escalated": question.escalated.as_ref().map(|(to, level)| json!({ "to": &**to, "level": level })),
        "budget": question.refusal.as_ref().map(|refusal| json!({
            "scope": &*refusal.scope,
            "meter": refusal.meter.as_str(),
            "cap": refusal.cap,
            "left": refusal.left,
            "wanted": refusal.wanted,
        })),
        "ceiling": question.over.map(|over| json!({
            "meter": over.meter.as_str(),
            "ceiling": over.ceiling,
            "left": over.left,
            "wanted": over.wanted,
        })),
        "drivers": drivers(run, question),
        "context": question.meter().map(|_| veil.document(&run.context)),
        "output": question.meter().map(|_| veil.document(&run.output)),
    })
}

/// Says at once what the worker would say: changed arguments that do not fit the schema of the tool.
async fn check_schema(asked: &Asked, arguments: &Value) -> Result<(), Problem> {
    let damaged = || Problem::bug("the bundle of the run cannot be read");
    let bytes = asked.store.blob(asked.run.start.bundle).await?.ok_or_else(damaged)?;
    let bundle = Bundle::decode(&bytes).map_err(|_| damaged())?;
    let compiler = windlass::wire::compiler();
    let program =
        compiler.compile(&bundle).map_err(|error| Problem::new(Exit::Rejected, "spec.invalid", error.to_string()))?;
    let contract =
        program.machines.get(&asked.run.start.machine).and_then(|machine| machine.tools.get(&asked.question.tool));
    let Some(contract) = contract.filter(|contract| !contract.input_schema.is_null()) else { return Ok(()) };
    compiler.evaluator().fit(&contract.input_schema, arguments).map(|_| ()).map_err(|problems| {
        Problem::rejected(format!(
            "the arguments do not fit the schema of `{}`: {}",
            contract.name,
            problems.join("; ")
        ))
    })
}
