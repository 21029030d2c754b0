//! `windlass slo report`: the share of runs that completed without a person, from what is stored.
//!
//! Owns what counts as help. Everything is read from hot rows and journals: nothing is sampled, nothing is estimated.

mod help;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use windlass_core::ids::{Name, RunId};
use windlass_core::run::Status;
use windlass_core::time::Timestamp;
use windlass_ports::store::{Head, Query, Store};

use crate::app::App;
use crate::args;
use crate::args::slo::WHOLE;
use crate::exit::{Exit, Problem};
use crate::output::{Form, table};
use help::Cause;

/// Runs read from the store at a time.
const PAGE_RUNS: usize = 500;

/// A caller's run and everything below it.
#[derive(Debug)]
struct Tree {
    machine: Name,
    /// How the caller's run stands; none when it began before the window.
    status: Option<Status>,
    /// Someone has to do something about it now.
    stuck: Option<Cause>,
    /// Someone had to do something about it that the hot rows tell.
    helped: bool,
    runs: Vec<RunId>,
}

/// How the trees of one machine did.
#[derive(Debug, Default)]
struct Tally {
    runs: u64,
    unaided: u64,
    unfinished: u64,
    causes: BTreeMap<Cause, u64>,
}

impl Tally {
    fn add(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Unfinished => self.unfinished += 1,
            Verdict::Unaided => {
                self.runs += 1;
                self.unaided += 1;
            }
            Verdict::Not(cause) => {
                self.runs += 1;
                *self.causes.entry(cause).or_default() += 1;
            }
        }
    }

    fn join(&mut self, other: &Self) {
        self.runs += other.runs;
        self.unaided += other.unaided;
        self.unfinished += other.unfinished;
        for (cause, count) in &other.causes {
            *self.causes.entry(*cause).or_default() += count;
        }
    }

    /// The share in hundredths of a percent, rounded down. None of too few runs.
    fn share(&self, runs_min: u64) -> Option<u64> {
        (self.runs >= runs_min.max(1)).then(|| self.unaided.saturating_mul(WHOLE) / self.runs)
    }

    fn reaches(&self, target: u64) -> bool {
        self.unaided.saturating_mul(WHOLE) >= target.saturating_mul(self.runs)
    }

    fn document(&self, runs_min: u64) -> serde_json::Map<String, Json> {
        let share = self.share(runs_min);
        let causes: serde_json::Map<String, Json> =
            self.causes.iter().map(|(cause, count)| (cause.as_str().to_owned(), json!(count))).collect();
        let mut map = serde_json::Map::new();
        map.insert("runs".into(), self.runs.into());
        map.insert("unaided".into(), self.unaided.into());
        map.insert("rate".into(), json!(share.map(percent)));
        map.insert("not_unaided".into(), causes.into());
        map.insert("unfinished".into(), self.unfinished.into());
        map
    }
}

/// How one tree did.
enum Verdict {
    /// It completed, and nobody helped.
    Unaided,
    /// It did not complete, or someone helped.
    Not(Cause),
    /// It is still going.
    Unfinished,
}

/// Prints the share of runs that completed without a person.
pub(crate) async fn report(app: &App, args: args::SloReport) -> Result<Exit, Problem> {
    let store = app.store_to_read().await?.ok_or_else(|| app.no_store())?;
    let from = Timestamp(app.now().0.saturating_sub(args.since.0));
    let mut machines: BTreeMap<Name, Tally> = BTreeMap::new();
    for tree in trees(&store, from).await?.into_values() {
        let machine = tree.machine.clone();
        let verdict = judge(&*store, tree).await?;
        machines.entry(machine).or_default().add(verdict);
    }
    let mut all = Tally::default();
    machines.values().for_each(|tally| all.join(tally));
    print(app, &args, from, &machines, &all);
    if all.share(args.min_runs).is_none() {
        // What there is was told: an error beside it would be a second document.
        app.output.note(&format!("{} runs are too few for a rate; at least {}", all.runs, args.min_runs));
        app.output.note("a longer `--since` counts more runs; `--min-runs` changes what is enough");
        return Ok(Exit::Rejected);
    }
    Ok(if all.reaches(args.target.0) { Exit::Ok } else { Exit::Failed })
}

/// The trees whose callers' runs began in the window. A child is never older than the run above it.
async fn trees(store: &Arc<dyn Store>, from: Timestamp) -> Result<BTreeMap<RunId, Tree>, Problem> {
    let mut trees: BTreeMap<RunId, Tree> = BTreeMap::new();
    let mut cursor = None;
    loop {
        let query = Query { created_from: Some(from), cursor, limit: PAGE_RUNS, ..Query::default() };
        let page = store.list(query).await?;
        for head in page.heads {
            add(&mut trees, head);
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    trees.retain(|_, tree| tree.status.is_some());
    Ok(trees)
}

fn add(trees: &mut BTreeMap<RunId, Tree>, head: Head) {
    let tree = trees.entry(head.root.clone()).or_insert_with(|| Tree {
        machine: head.machine.clone(),
        status: None,
        stuck: None,
        helped: false,
        runs: Vec::new(),
    });
    tree.stuck = tree.stuck.or(match head.status {
        Status::Quarantined => Some(Cause::Quarantined),
        Status::Attention => Some(Cause::Attention),
        _ => None,
    });
    tree.helped |= head.helped > 0;
    if head.root == head.id {
        tree.machine = head.machine;
        tree.status = Some(head.status);
    }
    tree.runs.push(head.id);
}

async fn judge(store: &dyn Store, tree: Tree) -> Result<Verdict, Problem> {
    let verdict = match tree.status {
        Some(Status::Failed) => Verdict::Not(Cause::Failed),
        Some(Status::Cancelled) => Verdict::Not(Cause::Cancelled),
        Some(Status::Completed) if tree.helped => Verdict::Not(Cause::Requeued),
        Some(Status::Completed) => match help::in_journals(store, &tree.runs).await? {
            Some(cause) => Verdict::Not(cause),
            None => Verdict::Unaided,
        },
        _ => tree.stuck.map_or(Verdict::Unfinished, Verdict::Not),
    };
    Ok(verdict)
}

/// Hundredths of a percent as a number of percent.
fn percent(share: u64) -> f64 {
    // At most 10,000, which a float holds without loss.
    f64::from(u32::try_from(share).unwrap_or(u32::MAX)) / 100.0
}

fn print(app: &App, args: &args::SloReport, from: Timestamp, machines: &BTreeMap<Name, Tally>, all: &Tally) {
    if app.output.form() == Form::Text {
        let row = |name: &str, tally: &Tally| {
            let rate = tally.share(args.min_runs).map_or_else(|| "-".to_owned(), |s| format!("{:.2}%", percent(s)));
            let causes: Vec<String> = tally.causes.iter().map(|(c, n)| format!("{n} {}", c.as_str())).collect();
            let causes = if causes.is_empty() { "-".to_owned() } else { causes.join(", ") };
            vec![name.to_owned(), tally.runs.to_string(), tally.unaided.to_string(), rate, causes]
        };
        let mut rows: Vec<Vec<String>> = machines.iter().map(|(name, tally)| row(name, tally)).collect();
        rows.push(row("all", all));
        app.output.text(&table(&["machine", "runs", "unaided", "rate", "not unaided"], &rows));
        let target = percent(args.target.0);
        app.output.note(&format!("{} more runs have not finished; the target is {target}%", all.unfinished));
        return;
    }
    let machines: Vec<Json> = machines
        .iter()
        .map(|(name, tally)| {
            let mut map = tally.document(args.min_runs);
            map.insert("machine".into(), json!(&**name));
            Json::Object(map)
        })
        .collect();
    let mut document = all.document(args.min_runs);
    document.insert("since".into(), json!(crate::output::time(from)));
    document.insert("target".into(), json!(percent(args.target.0)));
    document.insert("min_runs".into(), args.min_runs.into());
    let met = all.share(args.min_runs).map(|_| all.reaches(args.target.0));
    document.insert("met".into(), json!(met));
    document.insert("machines".into(), machines.into());
    app.output.document(&Json::Object(document));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_enough_runs_and_is_rounded_down() {
        let mut tally = Tally::default();
        assert_eq!(tally.share(0), None, "nothing divided by nothing");
        for _ in 0..2 {
            tally.add(Verdict::Unaided);
        }
        tally.add(Verdict::Not(Cause::Failed));
        tally.add(Verdict::Unfinished);
        assert_eq!((tally.runs, tally.unaided, tally.unfinished), (3, 2, 1));
        assert_eq!(tally.share(4), None);
        assert_eq!(tally.share(3), Some(6_666));
        assert!(tally.reaches(6_666) && !tally.reaches(6_667), "compared without rounding");
    }
}
