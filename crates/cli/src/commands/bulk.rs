//! Many runs at once: `--where` of `windlass runs cancel`, `pause`, `unpause`, `retry`, `signal` and `requeue`.
//!
//! Runs are read a page at a time and dealt with a few at a time. What was done is not done again by a repeat of the
//! command: a run that is no longer as it has to be is skipped.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use serde_json::{Value as Json, json};
use windlass_core::ids::{Digest, Name};
use windlass_core::input::Input;
use windlass_core::run::Status;
use windlass_core::value::Value;
use windlass_ports::store::{Delivered, Head, Message, Signal, Signalled, Store, StoreError};
use windlass_runtime::{Engine, EngineError};

use super::runs;
use crate::app::App;
use crate::args::{Follow, Many};
use crate::config::Span;
use crate::exit::{Exit, Problem};
use crate::filter::Filter;
use crate::output::{Form, time};
use crate::session;
use crate::story::counted;

/// Runs that are read at a time.
const PAGE: usize = 200;
/// Runs that are shown before anything is done.
const SAMPLE: usize = 10;
/// Runs that are named for each reason.
const NAMED: usize = 5;
/// How often progress is told, in runs.
const PROGRESS: u64 = 1_000;

/// Why a run is skipped that has the order in its inbox.
const TOLD: &str = "was told so already";

/// What is done to each run.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Stop it and everything below it.
    Cancel {
        /// Why.
        reason: Name,
    },
    /// Hold it and everything below it.
    Pause {
        /// Why.
        reason: Name,
    },
    /// Let it and everything below it go on.
    Unpause,
    /// Let it try its last state again.
    Retry,
    /// Send it a signal.
    Signal {
        /// The channel.
        channel: Name,
        /// The data.
        data: Value,
        /// Makes a repeat harmless: with the run, the signal's id.
        id: Name,
    },
    /// End its quarantine.
    Requeue,
}

impl Action {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Cancel { .. } => "cancel",
            Self::Pause { .. } => "pause",
            Self::Unpause => "unpause",
            Self::Retry => "retry",
            Self::Signal { .. } => "signal",
            Self::Requeue => "requeue",
        }
    }

    /// The runs that it can be done to, when the filter names no status.
    fn statuses(&self) -> Vec<Status> {
        match self {
            Self::Cancel { .. } => Status::ALL.into_iter().filter(|status| !status.is_final()).collect(),
            Self::Pause { .. } => vec![Status::Queued, Status::Running, Status::Waiting],
            Self::Unpause => vec![Status::Paused],
            Self::Retry => vec![Status::Failed],
            Self::Signal { .. } => Status::ALL.into_iter().filter(|status| !status.is_final()).collect(),
            Self::Requeue => vec![Status::Quarantined],
        }
    }

    /// Whether it would do anything to a run, as far as the run's row tells.
    fn applies(&self, head: &Head) -> bool {
        // The failure of a child has been dealt with by its parent.
        let is_dealt_with = matches!(self, Self::Retry) && head.root != head.id;
        self.statuses().contains(&head.status) && !is_dealt_with
    }

    /// Whether it is finished only once somebody has taken it up.
    fn settles(&self) -> bool {
        matches!(self, Self::Cancel { .. } | Self::Pause { .. })
    }
}

/// What became of one run.
enum Became {
    Told,
    Skipped(String),
    Failed(String),
}

/// What became of all of them.
#[derive(Default)]
struct Tally {
    matched: u64,
    done: u64,
    skipped: BTreeMap<String, (u64, Vec<String>)>,
    failed: BTreeMap<String, (u64, Vec<String>)>,
}

impl Tally {
    fn add(&mut self, head: &Head, done: &Became) {
        self.matched += 1;
        let (reasons, why) = match done {
            Became::Told => {
                self.done += 1;
                return;
            }
            Became::Skipped(why) => (&mut self.skipped, why),
            Became::Failed(why) => (&mut self.failed, why),
        };
        let (count, runs) = reasons.entry(why.clone()).or_default();
        *count += 1;
        if runs.len() < NAMED {
            runs.push(head.id.to_string());
        }
    }

    fn count(reasons: &BTreeMap<String, (u64, Vec<String>)>) -> u64 {
        reasons.values().map(|(count, _)| count).sum()
    }
}

/// Does something to every run that a filter finds, or says what would be done.
///
/// # Errors
/// A filter that cannot be read, a store that fails.
pub(crate) async fn perform(app: &mut App, action: Action, many: &Many) -> Result<Exit, Problem> {
    let mut filter = Filter::parse(&many.wanted, app.now())?;
    if filter.statuses.is_empty() {
        filter.statuses = action.statuses();
    }
    if !many.yes {
        let store = app.store_to_read().await?.ok_or_else(|| app.no_store())?;
        return preview(app, &*store, &action, &filter).await;
    }
    let store = app.store_to_change().await?.ok_or_else(|| app.no_store())?;
    let engine = session::observer(Arc::clone(&store));
    // Runs that nobody works on are settled here, unless there are workers to take them up.
    let alone = action.settles() && !store.workers().await?.iter().any(|worker| worker.is_alive);
    let mut tally = Tally::default();
    let mut query = filter.query(PAGE);
    loop {
        let page = store.list(query.clone()).await?;
        let before = tally.matched;
        let mut done = one_page(&engine, &action, page.heads, many.at_once as usize).await;
        if alone {
            settle(app, &store, &mut done, many.at_once as usize).await;
        }
        done.iter().for_each(|(head, done)| tally.add(head, done));
        if tally.matched / PROGRESS != before / PROGRESS {
            app.output.note(&format!("{} so far", counted(tally.matched, "run")));
        }
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => break,
        }
    }
    Ok(report(app, &action, &tally, alone))
}

/// Does it to the runs of one page.
async fn one_page(engine: &Engine, action: &Action, heads: Vec<Head>, at_once: usize) -> Vec<(Head, Became)> {
    let acts = futures::stream::iter(heads).map(|head| async move {
        let done = act(engine, action, &head).await;
        (head, done)
    });
    acts.buffered(at_once).collect().await
}

async fn act(engine: &Engine, action: &Action, head: &Head) -> Became {
    let store = &engine.parts().store;
    // The version is a part of the id: the same order to a run that has not changed since is the same order.
    let id = || format!("bulk:{}:{}", action.as_str(), head.version).as_str().into();
    let tell = async |input: Input| {
        let message = Message { to: head.id.clone(), id: id(), input };
        let told = store.deliver(message.clone()).await?;
        if told == Delivered::Accepted {
            runs::pass_on(&**store, head, &message).await?;
        }
        Ok::<_, StoreError>(told)
    };
    let delivered = match action {
        Action::Cancel { reason } => tell(Input::Cancel { reason: reason.clone() }).await,
        Action::Pause { .. } if head.status == Status::Paused => return Became::Skipped("is paused already".into()),
        Action::Pause { reason } => tell(Input::Pause { reason: reason.clone() }).await,
        Action::Unpause if !head.status.is_final() && head.status != Status::Paused => {
            return Became::Skipped(format!("is {}, not paused", head.status.as_str()));
        }
        Action::Unpause => tell(Input::Unpause).await,
        Action::Retry => return retry(engine, head).await,
        Action::Signal { channel, data, id } => return signal(engine, head, channel, data, id).await,
        Action::Requeue => {
            return match store.requeue(head.id.clone()).await {
                Ok(true) => Became::Told,
                Ok(false) => Became::Skipped(format!("is {}, not quarantined", head.status.as_str())),
                Err(error) => Became::Failed(error.to_string()),
            };
        }
    };
    match delivered {
        Ok(Delivered::Accepted) => Became::Told,
        Ok(Delivered::Duplicate) => Became::Skipped(TOLD.into()),
        Ok(Delivered::NotFound) => Became::Skipped("is gone".into()),
        Ok(Delivered::Finished) => Became::Skipped("has ended".into()),
        Err(error) => Became::Failed(error.to_string()),
    }
}

async fn retry(engine: &Engine, head: &Head) -> Became {
    if head.root != head.id {
        return Became::Skipped("is a child; its parent has dealt with its failure".into());
    }
    match engine.retry(&head.id, false).await {
        Ok(()) => Became::Told,
        Err(EngineError::NotFound(_)) => Became::Skipped("is gone".into()),
        Err(EngineError::Rejected { reason, .. }) => Became::Skipped(reason.to_string()),
        Err(error) => Became::Failed(error.to_string()),
    }
}

async fn signal(engine: &Engine, head: &Head, channel: &Name, data: &Value, id: &Name) -> Became {
    let signal = Signal {
        id: format!("{id}:{}", head.id).as_str().into(),
        channel: channel.clone(),
        run: Some(head.id.clone()),
        data: data.clone(),
        at: engine.parts().clock.now(),
    };
    match engine.parts().store.signal(signal).await {
        Ok(Signalled::Delivered(_) | Signalled::Buffered) => Became::Told,
        Ok(Signalled::Duplicate) => Became::Skipped("was sent this signal already".into()),
        Ok(Signalled::NotFound) => Became::Skipped("is gone".into()),
        Ok(Signalled::Finished) => Became::Skipped("has ended".into()),
        Err(error) => Became::Failed(error.to_string()),
    }
}

/// Lets runs take up here what they were told, now or by an earlier try, for nobody else would.
async fn settle(app: &mut App, store: &Arc<dyn Store>, told: &mut [(Head, Became)], at_once: usize) {
    let mut by_bundle: BTreeMap<Digest, Vec<&mut (Head, Became)>> = BTreeMap::new();
    for one in told {
        let is_told = matches!(&one.1, Became::Told) || matches!(&one.1, Became::Skipped(why) if why == TOLD);
        if is_told && one.0.owner.is_none() {
            by_bundle.entry(one.0.bundle).or_default().push(one);
        }
    }
    for (bundle, told) in by_bundle {
        let follow = Follow { wait: Some(Span(0)), events: None };
        let engine = match session::of_run(app, Arc::clone(store), bundle, &follow).await {
            Ok(session) => session.engine,
            Err(problem) => {
                for one in told {
                    one.1 = Became::Failed(format!("was told, and cannot take it up here: {problem}"));
                }
                continue;
            }
        };
        let engine = &engine;
        let taking = futures::stream::iter(told).map(|one| async move {
            if let Err(error) = engine.settle(&one.0.id).await {
                one.1 = Became::Failed(format!("was told, and did not take it up: {error}"));
            }
        });
        taking.buffer_unordered(at_once).collect::<()>().await;
    }
}

/// Says what would be done.
async fn preview(app: &App, store: &dyn Store, action: &Action, filter: &Filter) -> Result<Exit, Problem> {
    let mut query = filter.query(PAGE);
    let (mut matched, mut would_do) = (0_u64, 0_u64);
    let (mut statuses, mut sample) = (BTreeMap::<&str, u64>::new(), Vec::new());
    loop {
        let page = store.list(query.clone()).await?;
        for head in page.heads {
            matched += 1;
            *statuses.entry(head.status.as_str()).or_default() += 1;
            if !action.applies(&head) {
                continue;
            }
            would_do += 1;
            if sample.len() < SAMPLE {
                sample.push(head);
            }
        }
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => break,
        }
    }
    let value = json!({
        "action": action.as_str(),
        "preview": true,
        "matched": matched,
        "would_do": would_do,
        "would_skip": matched - would_do,
        "by_status": statuses,
        "sample": sample.iter().map(super::runs::head).collect::<Vec<_>>(),
    });
    let rows: Vec<Vec<String>> = sample
        .iter()
        .map(|head| {
            let state = head.state.as_deref().unwrap_or("-").to_owned();
            let status = head.status.as_str().to_owned();
            vec![head.id.to_string(), status, head.machine.to_string(), state, time(head.updated_at)]
        })
        .collect();
    app.output.table(&value, &["run", "status", "machine", "state", "updated"], &rows);
    let shown =
        if would_do > sample.len() as u64 { format!(", {} of them shown", sample.len()) } else { String::new() };
    let skipped = match matched - would_do {
        0 => String::new(),
        others => format!(", {} that the filter finds would be skipped", counted(others, "other")),
    };
    app.output.note(&format!(
        "{} would be told to {}{shown}{skipped}; `--yes` does it",
        counted(would_do, "run"),
        action.as_str()
    ));
    Ok(Exit::Ok)
}

fn report(app: &App, action: &Action, tally: &Tally, alone: bool) -> Exit {
    let (skipped, failed) = (Tally::count(&tally.skipped), Tally::count(&tally.failed));
    let reasons = |reasons: &BTreeMap<String, (u64, Vec<String>)>| -> Vec<Json> {
        let one = |(why, (count, runs)): (&String, &(u64, Vec<String>))| json!({ "reason": why, "count": count, "runs": runs });
        reasons.iter().map(one).collect()
    };
    let value = json!({
        "action": action.as_str(),
        "matched": tally.matched,
        "done": tally.done,
        "skipped": skipped,
        "failed": failed,
        "skipped_reasons": reasons(&tally.skipped),
        "failed_reasons": reasons(&tally.failed),
    });
    let mut text = format!("{}: {} done, {skipped} skipped, {failed} failed", action.as_str(), tally.done);
    for (word, reasons) in [("skipped", &tally.skipped), ("failed", &tally.failed)] {
        for (why, (count, runs)) in reasons {
            text.push_str(&format!("\n  {word} {count}: {why} ({})", runs.join(", ")));
        }
    }
    match app.output.form() {
        Form::Json => app.output.document(&value),
        Form::Text => app.output.text(&crate::output::printable(&text)),
    }
    if action.settles() && !alone && tally.done > 0 {
        app.output.note("workers take it up; `windlass runs list` shows how far they are");
    }
    if failed > 0 {
        app.output.note("the same command goes on with what has failed");
        return Exit::Failed;
    }
    Exit::Ok
}
