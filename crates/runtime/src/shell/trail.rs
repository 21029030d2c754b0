//! The audit trail of a store: checked, written down as lines, and added to.

use std::collections::{BTreeMap, BTreeSet};

use windlass_core::audit::{Act, Row};
use windlass_core::ids::{Digest, Name, RunId};
use windlass_core::seal::{ACTS, Last, proof};
use windlass_core::time::Timestamp;
use windlass_ports::store::{Head, Query, Store, StoreError};

use crate::audit::{ActLine, CallLine, Checker, FORMAT, Line, Verdict, Whose};

/// Runs, segments and acts read at a time.
const PAGE: usize = 256;
/// Tries to be the next to add an act.
const TRIES_MAX: u32 = 64;

/// An act without its place.
#[derive(Clone, Debug)]
pub struct Deed {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: Name,
    /// What, as `noun.verb`.
    pub action: Name,
    /// To what.
    pub subject: Name,
    /// More about it.
    pub detail: Option<Name>,
}

/// Adds to what people did in a tenant. Durable when it returns.
///
/// # Errors
/// The store fails, or others add all the time.
pub async fn note(store: &dyn Store, tenant: &Name, deed: Deed) -> Result<Act, StoreError> {
    let Deed { at, actor, action, subject, detail } = deed;
    let trail = store.trail();
    for _ in 0..TRIES_MAX {
        let last = trail.last_act(tenant.clone()).await?;
        let (number, previous) = last.map_or((1, Digest::ZERO), |last| (last.number + 1, last.hash()));
        let (actor, action) = (actor.clone(), action.clone());
        let act = Act { number, at, actor, action, subject: subject.clone(), detail: detail.clone(), previous };
        if trail.act(tenant.clone(), act.clone()).await? {
            return Ok(act);
        }
    }
    Err(StoreError::Unavailable(format!("others add to the audit trail of `{tenant}` all the time")))
}

/// Seals everything that there is.
///
/// # Errors
/// The store fails.
pub async fn seal(store: &dyn Store) -> Result<(), StoreError> {
    super::seal::everything(store).await
}

/// What is to be checked.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Only this tenant.
    pub tenant: Option<Name>,
    /// Only this run.
    pub run: Option<RunId>,
    /// Segments that were noted elsewhere: tenant, number, hash.
    pub anchors: Vec<(Name, u64, Digest)>,
}

/// Checks the trail of a store, tenant by tenant.
///
/// # Errors
/// The store fails; what it holds and cannot be read is [`StoreError::Corrupt`].
pub async fn verify(store: &dyn Store, asked: &Asked) -> Result<Vec<Verdict>, StoreError> {
    let mut verdicts = Vec::new();
    for tenant in tenants(store, asked).await? {
        let mut checker = Checker::new(tenant.clone(), asked.run.clone());
        let mut after = 0;
        loop {
            let segments = store.trail().segments(tenant.clone(), after, PAGE).await?;
            let Some(last) = segments.last() else { break };
            after = last.seal.number.max(after + 1);
            segments.iter().for_each(|segment| checker.segment(segment));
        }
        for (_, number, hash) in asked.anchors.iter().filter(|(of, _, _)| *of == tenant) {
            checker.anchor(*number, *hash);
        }
        let runs = Lives { store, tenant: &tenant, only: asked.run.as_ref() };
        runs.each(|whose, rows| checker.rows(&whose.run, rows)).await?;
        if asked.run.is_none() {
            checker.acts(&acts(store, &tenant).await?);
        }
        verdicts.push(checker.finish());
    }
    Ok(verdicts)
}

/// Tenants to look at, by name.
async fn tenants(store: &dyn Store, asked: &Asked) -> Result<BTreeSet<Name>, StoreError> {
    if let Some(tenant) = &asked.tenant {
        return Ok([tenant.clone()].into());
    }
    if let Some(run) = &asked.run {
        let kept = store.trail().kept(Some(run.clone()), 0, PAGE).await?;
        let loaded = store.load(run.clone()).await?.map(|stored| stored.head.tenant);
        return Ok(kept.into_iter().map(|kept| kept.tenant).chain(loaded).collect());
    }
    let mut all: BTreeSet<Name> = store.trail().tenants().await?.into_iter().collect();
    all.extend(asked.anchors.iter().map(|(tenant, _, _)| tenant.clone()));
    let mut query = Query { limit: PAGE, ..Query::default() };
    loop {
        let page = store.list(query.clone()).await?;
        all.extend(page.heads.into_iter().map(|head| head.tenant));
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => return Ok(all),
        }
    }
}

/// All acts of a tenant.
async fn acts(store: &dyn Store, tenant: &Name) -> Result<Vec<Act>, StoreError> {
    let mut all: Vec<Act> = Vec::new();
    loop {
        let after = all.last().map_or(0, |act| act.number);
        let more = store.trail().acts(tenant.clone(), after, PAGE).await?;
        if more.is_empty() {
            return Ok(all);
        }
        all.extend(more);
    }
}

/// For whom a run runs, as its first record says.
pub async fn user(store: &dyn Store, run: &RunId) -> Result<Option<Name>, StoreError> {
    let rows = store.journal(run.clone(), 0, 1).await?;
    let record = rows.first().and_then(|row| serde_json::from_slice::<serde_json::Value>(&row.bytes).ok());
    let entries = record.as_ref().and_then(|record| record.get("entries")?.as_array());
    let start = entries.and_then(|entries| entries.iter().find_map(|entry| entry.get("run_started")));
    Ok(start.and_then(|start| start.pointer("/scope/user")?.as_str()).map(Name::from))
}

/// Whose a run is that is there.
pub async fn whose(store: &dyn Store, head: &Head) -> Result<Whose, StoreError> {
    Ok(Whose {
        run: head.id.clone(),
        tenant: head.tenant.clone(),
        user: user(store, &head.id).await?,
        machine: Some(head.machine.clone()),
        life: 0,
    })
}

/// Chains of runs of a tenant, those of removed ones last.
struct Lives<'a> {
    store: &'a dyn Store,
    tenant: &'a Name,
    only: Option<&'a RunId>,
}

impl Lives<'_> {
    async fn each(&self, mut take: impl FnMut(&Whose, &[Row])) -> Result<(), StoreError> {
        let Self { store, tenant, only } = *self;
        match only {
            Some(run) => {
                if let Some(stored) = store.load(run.clone()).await?.filter(|stored| stored.head.tenant == *tenant) {
                    take(&whose(store, &stored.head).await?, &store.audit(run.clone()).await?);
                }
            }
            None => {
                let mut query = Query { tenant: Some(tenant.clone()), limit: PAGE, ..Query::default() };
                loop {
                    let page = store.list(query.clone()).await?;
                    for head in &page.heads {
                        let rows = store.audit(head.id.clone()).await?;
                        if !rows.is_empty() {
                            take(&whose(store, head).await?, &rows);
                        }
                    }
                    match page.next {
                        Some(next) => query.cursor = Some(next),
                        None => break,
                    }
                }
            }
        }
        let mut after = 0;
        loop {
            let kept = store.trail().kept(only.cloned(), after, PAGE).await?;
            let Some(last) = kept.last() else { return Ok(()) };
            after = last.number;
            for kept in kept.into_iter().filter(|kept| kept.tenant == *tenant) {
                let (run, tenant, life) = (kept.run, kept.tenant, kept.number);
                take(&Whose { run, tenant, user: None, machine: None, life }, &kept.rows);
            }
        }
    }
}

/// Writes the trail of a tenant down, or that of one of its runs, so that it can be checked elsewhere.
///
/// # Errors
/// The store fails, or `write` does.
pub async fn export<E: From<StoreError>>(
    store: &dyn Store,
    tenant: &Name,
    run: Option<&RunId>,
    at: Timestamp,
    mut write: impl FnMut(&Line) -> Result<(), E>,
) -> Result<Last, E> {
    write(&Line::Export { v: FORMAT, tenant: tenant.clone(), run: run.cloned(), at_ms: at.0 })?;
    let (mut last, mut proofs) = (Last::default(), Vec::new());
    loop {
        let segments = store.trail().segments(tenant.clone(), last.number, PAGE).await.map_err(E::from)?;
        if segments.is_empty() {
            break;
        }
        for segment in segments {
            last = Last { number: segment.seal.number, hash: segment.seal.hash() };
            let Some(run) = run else {
                write(&Line::Segment(segment))?;
                continue;
            };
            let place = segment.chains.iter().position(|leaf| leaf.run == *run);
            if let Some(way) = place.and_then(|place| proof(&segment.chains, place)) {
                let leaf = segment.chains[place.unwrap_or_default()].clone();
                proofs.push(Line::Proof { leaf, segment: segment.seal.number, way });
            }
            write(&Line::Seal(segment.seal))?;
        }
    }
    for proof in &proofs {
        write(proof)?;
    }
    let mut failed = None;
    let lives = Lives { store, tenant, only: run };
    let each = lives.each(|whose, rows| {
        for row in rows {
            if failed.is_none() {
                failed = write(&Line::Call(Box::new(CallLine::of(whose, row)))).err();
            }
        }
    });
    each.await.map_err(E::from)?;
    failed.map_or(Ok(()), Err)?;
    if run.is_none() {
        for act in acts(store, tenant).await.map_err(E::from)? {
            write(&Line::Act(ActLine::of(tenant, &act)))?;
        }
    }
    Ok(last)
}

/// Checks the lines of an export, one after another.
#[derive(Debug, Default)]
pub struct Reading {
    checker: Option<Checker>,
    chains: BTreeMap<(Name, u64), Vec<Row>>,
    acts: Vec<Act>,
    wrong: Vec<String>,
}

impl Reading {
    /// Takes the next line.
    ///
    /// # Errors
    /// It cannot come here.
    pub fn line(&mut self, line: Line) -> Result<(), String> {
        if let Line::Export { v, tenant, run, .. } = &line {
            if *v > FORMAT {
                return Err(format!("the export has version {v}, this build reads up to {FORMAT}"));
            }
            self.checker = Some(Checker::new(tenant.clone(), run.clone()));
            return Ok(());
        }
        let checker = self.checker.as_mut().ok_or("the first line is not that of an export")?;
        match line {
            Line::Segment(segment) => checker.segment(&segment),
            Line::Seal(seal) => checker.seal(&seal),
            Line::Proof { leaf, segment, way } => checker.proof(&leaf, segment, &way),
            Line::Call(call) => {
                let row = call.row();
                if row.hash() != call.hash {
                    self.wrong.push(format!("row {} of run `{}` does not have its hash", call.number, call.run));
                }
                self.chains.entry((call.run.clone(), call.life)).or_default().push(row);
            }
            Line::Act(act) => {
                if act.act().hash() != act.hash {
                    self.wrong.push(format!("row {} of `{ACTS}` does not have its hash", act.number));
                }
                self.acts.push(act.act());
            }
            Line::Export { .. } | Line::End { .. } | Line::Signature { .. } => {}
        }
        Ok(())
    }

    /// What was found, also beside segments that were noted elsewhere.
    ///
    /// # Errors
    /// There was no first line.
    pub fn finish(self, anchors: &[(Name, u64, Digest)]) -> Result<Verdict, String> {
        let Self { checker, chains, acts, wrong } = self;
        let mut checker = checker.ok_or("there is no line of an export")?;
        for (_, number, hash) in anchors {
            checker.anchor(*number, *hash);
        }
        for ((run, _), rows) in chains {
            checker.rows(&RunId::stored(&run), &rows);
        }
        checker.acts(&acts);
        let mut verdict = checker.finish();
        let finding = |message| crate::audit::Finding { run: None, row: None, message };
        verdict.findings.extend(wrong.into_iter().map(finding));
        Ok(verdict)
    }
}
