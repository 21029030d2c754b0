//! `windlass runs show` and `journal`: one run in full.

use serde_json::{Value as Json, json};
use windlass_core::file::{self, File};
use windlass_core::hidden::Veil;
use windlass_core::ids::RunId;
use windlass_core::input::Ending;
use windlass_core::journal::Record;
use windlass_core::overrides::{Listed, ModelOverride};
use windlass_core::run::Run;
use windlass_core::value::Value;
use windlass_ports::store::Head;

use super::hashes::Hashes;
use super::list;
use crate::app::App;
use crate::args;
use crate::exit::{Exit, Problem};
use crate::files::{self, Saved};
use crate::journal::{self, Reader};
use crate::outcome;
use crate::output::{Form, time};
use crate::session;
use crate::story::dollars;

/// Waits, children and slots of a join that are shown at most.
const SHOWN: usize = 100;
/// Bytes of one value in a table.
const CELL_BYTES: usize = 4_000;

/// Shows a run.
pub(crate) async fn show(app: &App, args: args::RunsShow) -> Result<Exit, Problem> {
    let (store, head) = app.run(&args.run).await?;
    let run = journal::current(&*store, &head.id).await?;
    let hashes = Hashes::of(&store, &run).await?;
    let waiting = session::observer(store).status(&head.id).await.map_err(outcome::engine_problem)?;
    let waits = waiting.map(|report| report.waits).unwrap_or_default();
    let left_out = LeftOut::of(&run, waits.len());
    let veil = run.hidden.veil().with_thinking(app.shows_thinking());
    let saved = match &args.save {
        Some(folder) => files::save(&files_of(&run, &veil)?, folder)?,
        None => Vec::new(),
    };
    if app.output.form() == Form::Json {
        let mut value = list::head(&head);
        if let Json::Object(map) = &mut value {
            if args.save.is_some() {
                map.insert("saved".into(), saved.iter().map(Saved::json).collect());
            }
            map.insert("run".into(), shortened(veil.document(&run)));
            map.insert("hashes".into(), serde_json::to_value(&hashes).unwrap_or_default());
            let waits: Vec<Json> = waits.iter().take(SHOWN).map(outcome::wait).collect();
            map.insert("waits".into(), veil.document(&waits));
            if left_out.is_any() {
                map.insert("left_out".into(), left_out.json());
            }
        }
        app.output.document(&value);
        left_out.tell(app, &head.id);
        return Ok(Exit::Ok);
    }
    let mut rows = about(&head, &run);
    rows.extend(models_and_skills(&run, &veil));
    rows.extend(hashes.rows().iter().take(SHOWN).map(|(name, value)| pair(name, value)));
    if let Some(owner) = &head.owner {
        rows.push(pair("worker", &owner.0));
    }
    if let Some(reason) = &head.quarantine {
        rows.push(pair("quarantined", reason));
    }
    if let Some(hold) = run.hold.as_ref().filter(|_| run.ending.is_none()) {
        rows.push(pair("held", &veil.shown(hold.reason())));
    }
    for wait in waits.iter().take(SHOWN) {
        rows.push(pair("waits for", &veil.shown(&outcome::described(wait))));
    }
    match &run.ending {
        Some(Ending::Completed { output }) => rows.push(pair("output", &cell(&veil.value(output), &head.id))),
        Some(Ending::Failed { failure, .. }) => rows.push(pair("failure", &veil.shown(&failure.to_string()))),
        Some(Ending::Cancelled { reason }) => rows.push(pair("cancelled", &veil.shown(reason))),
        None => rows.push(pair("context", &cell(&veil.value(&run.context), &head.id))),
    }
    rows.extend(saved.iter().map(|saved| pair("saved", &saved.to_string())));
    app.output.text(&crate::output::table(&["", ""], &rows));
    if args.save.is_some() && saved.is_empty() {
        app.output.note("nothing saved: there is no file in it");
    }
    LeftOut { children: 0, slots: 0, ..left_out }.tell(app, &head.id);
    Ok(Exit::Ok)
}

/// Whose a run is, where it stands and what it cost.
fn about(head: &Head, run: &Run) -> Vec<Vec<String>> {
    let mut rows = vec![
        pair("run", head.id.as_str()),
        pair("status", head.status.as_str()),
        pair("machine", &head.machine),
        pair("state", head.state.as_deref().unwrap_or("-")),
        pair("steps", &head.step.to_string()),
        pair("cost", &format!("{}, {} tokens", dollars(head.cost_micros), head.tokens)),
        pair("tenant", &head.tenant),
        pair("user", run.start.scope.user.as_deref().unwrap_or("-")),
        pair("created", &time(head.created_at)),
        pair("updated", &time(head.updated_at)),
    ];
    for (tier, used) in &run.tiers {
        rows.push(pair("cost by tier", &format!("`{tier}` {}, {} tokens", dollars(used.cost_micros), used.tokens)));
    }
    rows
}

/// The models that stand in the place of those of the documents, each as a sentence.
fn overrides(run: &Run) -> Vec<String> {
    let said = |whose: &str, instead: &ModelOverride| {
        let below = if instead.below { " and the runs below" } else { "" };
        let why = if instead.reason.is_empty() { String::new() } else { format!(": {}", instead.reason) };
        let Listed { provider, model } = &instead.to;
        format!("`{provider}/{model}` for {whose}{below}, by {}{why}", instead.by)
    };
    let all = run.overrides.all.iter().map(|instead| said("every agent", instead));
    all.chain(run.overrides.agents.iter().map(|(agent, instead)| said(&format!("`{agent}`"), instead))).collect()
}

/// What of the run's models and skills is not in its documents: models that were changed, and which skills it used.
fn models_and_skills(run: &Run, veil: &Veil) -> Vec<Vec<String>> {
    let models = overrides(run).into_iter().map(|text| pair("model", &veil.shown(&text)));
    models.chain(run.skills.iter().map(|skill| pair("skill", &skill.to_string()))).collect()
}

/// The files of a run's output, or of its context while it has none, as far as they may be shown.
fn files_of(run: &Run, veil: &Veil) -> Result<Vec<File>, Problem> {
    let value = match &run.ending {
        Some(Ending::Completed { output }) => output,
        _ => &run.context,
    };
    let shown = Value::from_json(&veil.value(value)).map_err(|error| Problem::bug(error.to_string()))?;
    file::all(&shown).map_err(|why| Problem::rejected(format!("cannot be saved: the run holds {why}")))
}

/// What of a large tree is not shown.
#[derive(Clone, Copy, Debug)]
struct LeftOut {
    waits: usize,
    children: usize,
    slots: usize,
}

impl LeftOut {
    fn of(run: &Run, waits: usize) -> Self {
        let slots = run.join.as_ref().map_or(0, |join| join.slots.len());
        let beyond = |count: usize| count.saturating_sub(SHOWN);
        Self { waits: beyond(waits), children: beyond(run.children.len()), slots: beyond(slots) }
    }

    fn is_any(self) -> bool {
        self.waits + self.children + self.slots > 0
    }

    fn json(self) -> Json {
        json!({ "waits": self.waits, "children": self.children, "slots": self.slots })
    }

    fn tell(self, app: &App, run: &RunId) {
        if self.is_any() {
            app.output.note(&format!(
                "left out: {} waits, {} children, {} results of children; `windlass runs list --below {run} --all` lists the runs, `windlass replay {run}` prints the whole state",
                self.waits, self.children, self.slots
            ));
        }
    }
}

/// The folded state with the first children and slots of a join only.
fn shortened(mut run: Json) -> Json {
    if let Some(Json::Object(children)) = run.get_mut("children")
        && children.len() > SHOWN
    {
        *children = std::mem::take(children).into_iter().take(SHOWN).collect();
    }
    if let Some(Json::Array(slots)) = run.pointer_mut("/join/slots") {
        slots.truncate(SHOWN);
    }
    run
}

/// A value as a table shows it: its beginning, when it is long.
fn cell(json: &str, run: &RunId) -> String {
    if json.len() <= CELL_BYTES {
        return json.to_owned();
    }
    let shown = &json[..json.floor_char_boundary(CELL_BYTES)];
    format!("{shown}… ({} bytes; `windlass runs show {run} --json` prints all)", json.len())
}

/// Prints a journal.
pub(crate) async fn journal(app: &App, args: args::RunsJournal) -> Result<Exit, Problem> {
    let (store, head) = app.run(&args.run).await?;
    let veil = journal::veil(app, &store, &head.id).await?;
    let mut reader = Reader::new(store, RunId::stored(&args.run), args.after);
    let mut left = args.limit.unwrap_or(usize::MAX);
    while left > 0 && reader.after() < head.version {
        let records = reader.next(left).await?;
        if records.is_empty() {
            break;
        }
        left = left.saturating_sub(records.len());
        for record in &records {
            match app.output.form() {
                Form::Json => app.output.line(&veil.document(record)),
                Form::Text => app.output.text(&lines(record, &veil)),
            }
        }
    }
    Ok(Exit::Ok)
}

fn lines(record: &Record, veil: &Veil) -> String {
    let mut text = String::new();
    for (index, entry) in record.entries.iter().enumerate() {
        let number = if index == 0 { record.version.to_string() } else { String::new() };
        let json = veil.document(entry);
        let detail = match &json {
            Json::Object(map) => map.values().next().map(Json::to_string).unwrap_or_default(),
            _ => String::new(),
        };
        text.push_str(&format!("{number:>6}  {:<18} {}\n", entry.kind(), crate::output::printable(&detail)));
    }
    text
}

fn pair(name: &str, value: &str) -> Vec<String> {
    vec![name.to_owned(), value.to_owned()]
}

/// The head and the folded state as one document, for `replay`.
#[must_use]
pub(crate) fn replayed(run: &Run, veil: &Veil) -> Json {
    json!({
        "run_id": run.id().as_str(),
        "version": run.version,
        "status": run.status().as_str(),
        "machine": &*run.start.machine_name,
        "state": run.state.as_deref(),
        "step": run.step,
        "context": veil.document(&run.context),
        "ending": veil.document(&run.ending),
        "ledger": &run.ledger,
        "run": veil.document(run),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_is_cut_with_the_command_that_prints_all() {
        let run = RunId::stored("r");
        assert_eq!(cell("{}", &run), "{}");
        let long = cell(&"ü".repeat(CELL_BYTES), &run);
        assert!(
            long.len() < CELL_BYTES + 100 && long.ends_with("(8000 bytes; `windlass runs show r --json` prints all)")
        );
    }

    #[test]
    fn a_large_tree_is_shown_in_part() {
        let many: serde_json::Map<String, Json> = (0..250).map(|n| (format!("r~1.{n}"), Json::Null)).collect();
        let short = shortened(json!({ "children": many, "join": { "slots": vec![1; 250] }, "context": {} }));
        assert_eq!(short["children"].as_object().map(serde_json::Map::len), Some(SHOWN));
        assert_eq!(short["join"]["slots"].as_array().map(Vec::len), Some(SHOWN));
        assert_eq!(shortened(json!({ "children": {} })), json!({ "children": {} }));
    }
}
