//! `windlass runs watch`: follows what happens in a run that another process works on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use windlass_core::audit;
use windlass_core::ids::RunId;
use windlass_core::run::Run;
use windlass_core::{apply, run};
use windlass_ports::store::{Head, Query, Store};
use windlass_runtime::events::{self, Seen};

use crate::app::App;
use crate::args;
use crate::exit::{Exit, Problem};
use crate::journal::{self, Reader};
use crate::output::{Form, Output};
use crate::story;

/// The longest time between two looks at the store when it gives no hint.
const LOOK: Duration = Duration::from_millis(250);
/// Runs of a tree that are followed at most.
const RUNS_MAX: usize = 1_000;

/// Follows a run until it ends.
pub(crate) async fn watch(app: &App, args: args::RunsWatch) -> Result<Exit, Problem> {
    let (store, head) = app.run(&args.run).await?;
    let mut followed: BTreeMap<RunId, Followed> = BTreeMap::new();
    followed.insert(head.id.clone(), Followed::new(&store, head.id.clone(), args.after).await?);
    let mut is_told = false;
    loop {
        // The hint is asked for before the look, so that what is committed in between is not missed.
        let changed = store.changed();
        if args.tree && !join(&store, &head, &mut followed).await? && !std::mem::replace(&mut is_told, true) {
            app.output.note(&format!(
                "the tree has more than {RUNS_MAX} runs; the others are left out: `windlass runs list --below {} --all` lists them",
                head.id
            ));
        }
        let mut quiet = true;
        for run in followed.values_mut() {
            quiet &= !run.advance(&*store, app.output).await?;
        }
        let ended = followed.values().all(|run| run.run.status().is_final());
        if quiet && (ended || args.once) {
            return Ok(Exit::Ok);
        }
        if quiet {
            // A hint may be missing, so the store is looked at again after a while in any case.
            let _ = tokio::time::timeout(LOOK, changed).await;
        }
    }
}

/// Adds runs of the tree that are not followed yet. False when there are too many.
async fn join(store: &Arc<dyn Store>, top: &Head, followed: &mut BTreeMap<RunId, Followed>) -> Result<bool, Problem> {
    let mut query = Query { root: Some(top.root.clone()), limit: RUNS_MAX, ..Query::default() };
    loop {
        let page = store.list(query.clone()).await?;
        for head in page.heads.into_iter().filter(|head| head.id.is_within(&top.id)) {
            if followed.contains_key(&head.id) {
                continue;
            }
            if followed.len() >= RUNS_MAX {
                return Ok(false);
            }
            followed.insert(head.id.clone(), Followed::new(store, head.id, 0).await?);
        }
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => return Ok(true),
        }
    }
}

/// A run that is followed, folded as far as it was shown.
struct Followed {
    run: Run,
    reader: Reader,
    after: u64,
}

impl Followed {
    async fn new(store: &Arc<dyn Store>, id: RunId, after: u64) -> Result<Self, Problem> {
        let start: run::Start = journal::start(&**store, &id).await?;
        Ok(Self { run: Run::blank(start), reader: Reader::new(Arc::clone(store), id, 0), after })
    }

    /// Shows what is new. False when nothing is.
    async fn advance(&mut self, store: &dyn Store, output: Output) -> Result<bool, Problem> {
        let records = self.reader.next(usize::MAX).await?;
        if records.is_empty() {
            return Ok(false);
        }
        let audit: Vec<audit::Row> = store.audit(self.run.id().clone()).await?;
        for record in records {
            for entry in &record.entries {
                let _ = apply(&mut self.run, entry);
            }
            if record.version > self.after {
                show(Seen { run: &self.run, entries: &record.entries, audit: &audit }, output);
            }
        }
        Ok(true)
    }
}

fn show(seen: Seen<'_>, output: Output) {
    match output.form() {
        Form::Json => {
            let veil = seen.run.hidden.veil();
            events::of(seen).iter().for_each(|event| output.line(&veil.document(event)));
        }
        Form::Text => story::lines(seen).iter().for_each(|line| output.text(line)),
    }
}
