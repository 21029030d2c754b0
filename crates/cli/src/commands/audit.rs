//! `windlass audit`: lists, checks and exports the audit trail.

mod export;
mod prune;

use std::collections::BTreeSet;

use serde_json::json;
use windlass_core::audit::Row;
use windlass_core::ids::{Digest, Name, RunId};
use windlass_core::time::Timestamp;
use windlass_ports::store::{Query, Removed, Store, StoreError};
use windlass_runtime::audit::{ActLine, CallLine, RowLine, Verdict, Whose};
use windlass_runtime::trail::{self, Asked, UNPROVEN};

use crate::app::App;
use crate::args::{Audit, AuditActs, AuditList, AuditSeal, AuditVerify};
use crate::exit::{Exit, Problem};
use crate::filter::moment;
use crate::output::{printable, time};

/// Runs, acts and removals read at a time.
const PAGE: usize = 100;

/// Which rows are wanted.
struct Wanted {
    tool: Option<String>,
    class: Option<String>,
    stage: Option<String>,
    rule: Option<String>,
    resource: Option<String>,
    actor: Option<String>,
    since: Option<Timestamp>,
}

impl Wanted {
    fn takes(&self, line: &CallLine) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
        let by = |name: &Option<Name>| name.is_some() && name.as_deref() == self.actor.as_deref();
        let touches = |wanted: &String| {
            line.resources.iter().any(|one| *one.id == **wanted || format!("{}={}", one.name, one.id) == *wanted)
        };
        // The row of a run names its machine, which is no tool.
        is(&self.tool, if &*line.kind == "run" { "" } else { &line.target })
            && is(&self.class, &line.class)
            && is(&self.stage, &line.stage)
            && is(&self.rule, line.rule.as_deref().unwrap_or_default())
            && self.resource.as_ref().is_none_or(touches)
            && (self.actor.is_none() || by(&line.user) || by(&line.actor))
            && self.since.is_none_or(|since| line.at_ms >= since.0)
    }
}

/// What comes before the name of a tenant in the place of a page of removed runs.
const REMOVED: &str = "@removed:";

/// Where a page ends: the page of runs, the run in it, the row in that. Of removed runs: their tenant, the number of the one
/// before, the row.
#[derive(Clone, Debug, Default)]
struct Place {
    runs: Option<String>,
    run: u64,
    row: u64,
}

impl Place {
    fn parse(text: &str) -> Result<Self, Problem> {
        let parsed = || {
            let mut parts = text.rsplitn(3, '/');
            let (row, run) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            let runs = parts.next()?;
            Some(Self { runs: (!runs.is_empty()).then(|| runs.to_owned()), run, row })
        };
        parsed().ok_or_else(|| Problem::invalid(format!("`--cursor {text}` is not the `next` of a page")))
    }

    fn text(&self) -> String {
        format!("{}/{}/{}", self.runs.as_deref().unwrap_or_default(), self.run, self.row)
    }
}

/// One page of rows.
struct Rows {
    lines: Vec<CallLine>,
    next: Option<Place>,
    /// Runs whose rows cannot be read or are not proven, and why.
    unread: Vec<(RunId, String)>,
}

/// Carries one of the commands out.
pub(crate) async fn perform(app: &App, wanted: Audit) -> Result<Exit, Problem> {
    match wanted {
        Audit::List(args) => list(app, args).await,
        Audit::Acts(args) => acts(app, args).await,
        Audit::Verify(args) => verify(app, args).await,
        Audit::Seal(AuditSeal {}) => seal(app).await,
        Audit::Prune(args) => prune::prune(app, args).await,
        Audit::Export(args) => export::export(app, args).await,
    }
}

/// Lists audit rows of calls.
async fn list(app: &App, args: AuditList) -> Result<Exit, Problem> {
    let since = args.since.as_deref().map(|text| moment("--since", text, app.now())).transpose()?;
    let AuditList { tool, class, stage, rule, resource, actor, .. } = args;
    let wanted = Wanted { tool, class, stage, rule, resource, actor, since };
    let limit = args.limit as usize;
    let from = args.cursor.as_deref().map(Place::parse).transpose()?.unwrap_or_default();
    let rows = match (app.store_to_list().await?, args.run) {
        (None, _) => Rows { lines: Vec::new(), next: None, unread: Vec::new() },
        (Some(store), Some(run)) => of_run(&*store, &run, args.tenant.as_deref(), &wanted, (from, limit)).await?,
        (Some(store), None) => {
            let tenant = args.tenant.as_deref().map(Into::into);
            of_all(&*store, Query { tenant, limit: PAGE, ..Query::default() }, &wanted, (from, limit)).await?
        }
    };
    let cells: Vec<Vec<String>> = rows.lines.iter().map(cells).collect();
    let next = rows.next.as_ref().map(Place::text);
    let lines: Vec<RowLine> = rows.lines.into_iter().map(|line| RowLine::Call(Box::new(line))).collect();
    let header = [
        "at",
        "run",
        "call",
        "stage",
        "kind",
        "target",
        "class",
        "rule",
        "resources",
        "plan",
        "result",
        "by",
        "worker",
    ];
    let unread: Vec<_> = rows.unread.iter().map(|(run, why)| json!({ "run": run, "message": why })).collect();
    app.output.table(&json!({ "rows": lines, "next": next, "unread": unread }), &header, &cells);
    for (run, why) in &rows.unread {
        app.output.note(&printable(&format!("rows of run `{run}` are left out: {why}")));
    }
    if let Some(next) = next {
        app.output.note(&format!("more: --cursor {next}"));
    }
    Ok(if rows.unread.is_empty() { Exit::Ok } else { Exit::Failed })
}

fn cells(line: &CallLine) -> Vec<String> {
    let result = line.result.as_deref().unwrap_or_default();
    vec![
        time(Timestamp(line.at_ms)),
        line.run.to_string(),
        format!("#{}.{}", line.effect, line.attempt),
        line.stage.to_string(),
        line.kind.to_string(),
        line.target.to_string(),
        line.class.to_string(),
        line.rule.as_deref().unwrap_or_default().to_owned(),
        line.resources.iter().map(|one| format!("{}={}", one.name, one.id)).collect::<Vec<_>>().join(" "),
        line.plan.as_deref().unwrap_or_default().to_owned(),
        Digest::parse(result).map_or_else(|| result.to_owned(), |digest| digest.short()),
        line.actor.as_ref().or(line.user.as_ref()).map(ToString::to_string).unwrap_or_default(),
        line.worker.as_deref().unwrap_or_default().to_owned(),
    ]
}

/// Rows of one run, of every life it had.
async fn of_run(
    store: &dyn Store,
    run: &str,
    tenant: Option<&str>,
    wanted: &Wanted,
    (from, limit): (Place, usize),
) -> Result<Rows, Problem> {
    let id = RunId::stored(run);
    let (mut lines, mut unread) = (Vec::new(), Vec::new());
    let (unproven, _) = trail::unproven(store, &Removed::Run(id.clone()), (0, u64::MAX)).await?;
    let mut kept_after = 0;
    loop {
        let kept = store.trail().kept(Removed::Run(id.clone()), kept_after, PAGE).await?;
        let Some(last) = kept.last() else { break };
        kept_after = last.number;
        for kept in kept {
            if unproven.contains(&kept.number) {
                unread.push((kept.run, UNPROVEN.to_owned()));
                continue;
            }
            let whose = Whose { run: kept.run, tenant: kept.tenant, user: None, machine: None, life: kept.number };
            let rows = read(kept.rows)?;
            let whose = whose.proven(&rows);
            lines.extend(rows.iter().map(|row| CallLine::of(&whose, row)));
        }
    }
    match store.load(id.clone()).await? {
        Some(stored) => {
            let rows = store.audit(id).await?;
            let whose = trail::whose(store, &stored.head, &rows).await?;
            lines.extend(rows.iter().map(|row| CallLine::of(&whose, row)));
        }
        None if lines.is_empty() && unread.is_empty() => return Err(Problem::unknown_run(run)),
        None => {}
    }
    lines.retain(|line| wanted.takes(line) && tenant.is_none_or(|tenant| *line.tenant == *tenant));
    let skip = usize::try_from(from.row).unwrap_or(usize::MAX);
    let more = lines.len() > skip.saturating_add(limit);
    let lines: Vec<_> = lines.into_iter().skip(skip).take(limit).collect();
    let next = more.then(|| Place { row: from.row + limit as u64, ..Place::default() });
    Ok(Rows { next, lines, unread })
}

fn read<T>(rows: Result<T, String>) -> Result<T, Problem> {
    rows.map_err(|error| Problem::from(StoreError::Corrupt(error)))
}

/// Rows of all runs: of those that are there, newest first, then of removed ones, in the order of their removal.
async fn of_all(
    store: &dyn Store,
    query: Query,
    wanted: &Wanted,
    (from, limit): (Place, usize),
) -> Result<Rows, Problem> {
    let mut page = Taking { wanted, limit, lines: Vec::new(), unread: Vec::new() };
    let tenant = query.tenant.clone();
    let removed = from.runs.as_ref().is_some_and(|runs| runs.starts_with(REMOVED));
    let next = match if removed { None } else { of_present(store, query, &mut page, &from).await? } {
        Some(next) => Some(next),
        None => of_removed(store, tenant, &mut page, removed.then_some(from)).await?,
    };
    Ok(Rows { lines: page.lines, next, unread: page.unread })
}

/// A page that is being filled.
struct Taking<'a> {
    wanted: &'a Wanted,
    limit: usize,
    lines: Vec<CallLine>,
    unread: Vec<(RunId, String)>,
}

impl Taking<'_> {
    /// Takes rows after one, as far as there is room; the number of the one before the first that there is no room for.
    fn take(&mut self, whose: &Whose, rows: &[Row], after: u64) -> Option<u64> {
        for row in rows.iter().filter(|row| row.number > after) {
            let line = CallLine::of(whose, row);
            if self.wanted.takes(&line) {
                if self.lines.len() == self.limit {
                    return Some(row.number - 1);
                }
                self.lines.push(line);
            }
        }
        None
    }
}

async fn of_present(
    store: &dyn Store,
    mut query: Query,
    taking: &mut Taking<'_>,
    from: &Place,
) -> Result<Option<Place>, Problem> {
    let mut skip = Some(from.clone());
    query.cursor.clone_from(&from.runs);
    loop {
        let page = store.list(query.clone()).await?;
        for (place, head) in (0..).zip(&page.heads) {
            let (first, after) = skip.as_ref().map_or((0, 0), |skip| (skip.run, skip.row));
            let old = taking.wanted.since.is_some_and(|since| head.updated_at < since);
            if place < first || old {
                continue;
            }
            skip = None;
            let rows = match store.audit(head.id.clone()).await {
                Err(StoreError::Corrupt(why)) => {
                    taking.unread.push((head.id.clone(), why));
                    continue;
                }
                read => read?,
            };
            if rows.is_empty() {
                continue;
            }
            let whose = trail::whose(store, head, &rows).await?;
            if let Some(row) = taking.take(&whose, &rows, after) {
                return Ok(Some(Place { runs: query.cursor.clone(), run: place, row }));
            }
        }
        skip = None;
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => return Ok(None),
        }
    }
}

async fn of_removed(
    store: &dyn Store,
    tenant: Option<Name>,
    taking: &mut Taking<'_>,
    from: Option<Place>,
) -> Result<Option<Place>, Problem> {
    let tenants = match tenant {
        Some(tenant) => vec![tenant],
        None => store.trail().tenants().await?,
    };
    let first = from.as_ref().and_then(|from| from.runs.as_ref()?.strip_prefix(REMOVED));
    let mut skip = from.as_ref();
    for tenant in tenants.into_iter().filter(|tenant| first.is_none_or(|first| **tenant >= *first)) {
        let here = skip.take().filter(|_| first == Some(&*tenant));
        let (mut number, mut row) = here.map_or((0, 0), |place| (place.run, place.row));
        let (mut unproven, mut seen, mut reach) = (BTreeSet::new(), number, 0);
        loop {
            let of = Removed::Tenant(tenant.clone());
            let kept = store.trail().kept(of.clone(), number, PAGE).await?;
            let Some(last) = kept.last() else { break };
            if last.number > seen {
                // Each look reads all seals of the tenant, so it goes twice as far as the one before.
                reach = (reach * 2).max(last.number - number);
                (unproven, seen) = trail::unproven(store, &of, (number, number.saturating_add(reach))).await?;
            }
            for kept in kept {
                if unproven.contains(&kept.number) {
                    taking.unread.push((kept.run, UNPROVEN.to_owned()));
                    (number, row) = (kept.number, 0);
                    continue;
                }
                let rows = match kept.rows {
                    Ok(rows) => rows,
                    Err(why) => {
                        taking.unread.push((kept.run, why));
                        (number, row) = (kept.number, 0);
                        continue;
                    }
                };
                let whose = Whose { run: kept.run, tenant: kept.tenant, user: None, machine: None, life: kept.number };
                if let Some(row) = taking.take(&whose.proven(&rows), &rows, row) {
                    return Ok(Some(Place { runs: Some(format!("{REMOVED}{tenant}")), run: number, row }));
                }
                (number, row) = (kept.number, 0);
            }
        }
    }
    Ok(None)
}

/// Seals what there is.
async fn seal(app: &App) -> Result<Exit, Problem> {
    let store = app.store_to_change().await?.ok_or_else(|| app.no_store())?;
    trail::seal(&*store).await?;
    let at = store.trail().unsealed(1).await?.sealed_at;
    app.output
        .sentence(&json!({ "sealed_at_ms": at.0 }), &format!("everything is sealed; the last seal is of {}", time(at)));
    Ok(Exit::Ok)
}

/// Lists what people did.
async fn acts(app: &App, args: AuditActs) -> Result<Exit, Problem> {
    let since = args.since.as_deref().map(|text| moment("--since", text, app.now())).transpose()?;
    let (tenant, limit) = (Name::from(args.tenant.as_str()), args.limit as usize);
    let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted == found);
    let (mut lines, mut after, mut more) = (Vec::new(), args.cursor.unwrap_or_default(), false);
    if let Some(store) = app.store_to_read().await? {
        // What was removed is not there to be listed.
        after = after.max(trail::cuts(&*store, &tenant).await?.gone.unwrap_or_default().acts.rows);
        'pages: loop {
            let acts = store.trail().acts(tenant.clone(), after, PAGE).await?;
            if acts.is_empty() {
                break;
            }
            for act in acts {
                let late = since.is_none_or(|since| act.at >= since);
                if late && is(&args.actor, &act.actor) && is(&args.action, &act.action) {
                    if lines.len() == limit {
                        more = true;
                        break 'pages;
                    }
                    lines.push(ActLine::of(&tenant, &act));
                }
                after = act.number;
            }
        }
    }
    let cells = |line: &ActLine| {
        vec![
            time(Timestamp(line.at_ms)),
            line.actor.to_string(),
            line.action.to_string(),
            line.subject.to_string(),
            line.detail.as_deref().unwrap_or_default().to_owned(),
        ]
    };
    let cells: Vec<Vec<String>> = lines.iter().map(cells).collect();
    let lines: Vec<RowLine> = lines.into_iter().map(RowLine::Act).collect();
    let next = more.then_some(after);
    app.output.table(&json!({ "rows": lines, "next": next }), &["at", "by", "did", "to", "detail"], &cells);
    Ok(Exit::Ok)
}

/// Checks the trail of a store, or an export.
async fn verify(app: &App, args: AuditVerify) -> Result<Exit, Problem> {
    let anchors = args.anchor.iter().map(|text| anchor(text)).collect::<Result<Vec<_>, _>>()?;
    if let Some(file) = &args.file {
        let checked = export::check(file, args.public_key.as_deref(), &anchors)?;
        return Ok(tell(app, vec![checked.verdict], Some(checked.signed_by)));
    }
    let store = app.readable_store().await?.ok_or_else(|| app.no_store())?;
    let run = args.run.as_deref().map(RunId::stored);
    let asked = Asked { tenant: args.tenant.as_deref().map(Into::into), run, anchors };
    let verdicts = trail::verify(&*store, &asked).await?;
    let nothing = verdicts.iter().all(|one| one.runs == 0 && one.findings.is_empty());
    if let (Some(run), true) = (args.run, nothing)
        && store.load(RunId::stored(&run)).await?.is_none()
    {
        return Err(Problem::unknown_run(&run));
    }
    Ok(tell(app, verdicts, None))
}

/// `TENANT:NUMBER:HASH`.
fn anchor(text: &str) -> Result<(Name, u64, Digest), Problem> {
    let parsed = || {
        let mut parts = text.rsplitn(3, ':');
        let (hash, number) = (Digest::parse(parts.next()?)?, parts.next()?.parse().ok()?);
        Some((parts.next()?.into(), number, hash))
    };
    parsed().ok_or_else(|| {
        Problem::invalid(format!("`--anchor`: `{text}` is no segment"))
            .hint("TENANT:NUMBER:HASH, as `windlass audit verify` prints it")
    })
}

/// Says what was found.
fn tell(app: &App, verdicts: Vec<Verdict>, signed_by: Option<Option<String>>) -> Exit {
    let ok = verdicts.iter().all(|one| one.findings.is_empty());
    let mut value = json!({ "ok": ok, "tenants": verdicts });
    if let Some(signed_by) = &signed_by {
        value["signed_by"] = json!(signed_by);
    }
    let mut text = Vec::new();
    for one in &verdicts {
        let Verdict { tenant, segments, last, runs, rows, sealed, tail, acts, acts_tail, cut, findings } = one;
        text.push(format!(
            "{tenant}: {runs} runs with {rows} rows, {sealed} sealed in {segments} segments, {tail} in the tail; {acts} \
             acts, {acts_tail} in the tail"
        ));
        if let Some(cut) = cut {
            text.push(format!(
                "  pruned up to segment {} and act {}: what was removed was written before {}",
                cut.segments.number,
                cut.acts.rows,
                time(cut.before_ms)
            ));
        }
        if last.number > 0 {
            text.push(format!("  anchor {tenant}:{}:{}", last.number, last.hash));
        }
        for finding in findings {
            let run = finding.run.as_ref().map(|run| format!("run `{run}`: ")).unwrap_or_default();
            let row = finding.row.map(|row| format!("from row {row} on: ")).unwrap_or_default();
            text.push(format!("  WRONG: {run}{row}{}", finding.message));
        }
    }
    if let Some(signed_by) = signed_by {
        text.push(signed_by.map_or_else(|| "not signed".to_owned(), |key| format!("signed by {key}")));
    }
    if verdicts.is_empty() {
        text.push("there is nothing to check".to_owned());
    }
    app.output.sentence(&value, &text.join("\n"));
    if ok { Exit::Ok } else { Exit::Failed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_and_anchors_are_read_back() {
        for place in [Place::default(), Place { runs: Some("a/b".into()), run: 3, row: 9 }] {
            assert_eq!(Place::parse(&place.text()).expect("read").text(), place.text());
        }
        assert!(Place::parse("x").is_err());
        let hash = Digest::of(b"x");
        let read = anchor(&format!("a:b:7:{hash}")).expect("an anchor");
        assert_eq!((&*read.0, read.1, read.2), ("a:b", 7, hash));
        assert!(anchor("a:7").is_err());
    }
}
