//! The audit trail of a store: checked, written down as lines, and added to.

mod prune;
mod unproven;

use std::collections::BTreeSet;

use windlass_core::audit::{Act, Row};
use windlass_core::ids::{Digest, Name, RunId};
use windlass_core::seal::{ACTS, Last, proof};
use windlass_core::time::Timestamp;
use windlass_ports::store::{Head, Query, Removed, Store, StoreError, Unsealed};

use crate::audit::{ActLine, CallLine, Checker, Cut, Cuts, FORMAT, Line, Verdict, Whose, owner};

pub use windlass_ports::store::Deed;

pub use prune::{Prunable, prunable, prune};
pub use unproven::{UNPROVEN, unproven};

/// Runs, segments and acts read at a time.
const PAGE: usize = 256;
/// Times that a trail is checked which is pruned meanwhile.
const CUTS_MAX: u32 = 3;

/// Adds to what people did in a tenant. Durable when it returns.
///
/// # Errors
/// The store fails, or others add all the time.
pub async fn note(store: &dyn Store, tenant: &Name, deed: Deed) -> Result<Act, StoreError> {
    store.trail().note(tenant, deed).await
}

/// Whether there is anything of a tenant: runs, or a trail.
///
/// # Errors
/// The store fails.
pub async fn has_tenant(store: &dyn Store, tenant: &Name) -> Result<bool, StoreError> {
    if store.trail().tenants().await?.contains(tenant) {
        return Ok(true);
    }
    let query = Query { tenant: Some(tenant.clone()), limit: 1, ..Query::default() };
    Ok(!store.list(query).await?.heads.is_empty())
}

/// Seals everything that there is.
///
/// # Errors
/// The store fails.
pub async fn seal(store: &dyn Store) -> Result<(), StoreError> {
    super::seal::everything(store).await
}

/// What the acts of a tenant say was removed of its trail on purpose.
///
/// # Errors
/// The store fails.
pub async fn cuts(store: &dyn Store, tenant: &Name) -> Result<Cuts, StoreError> {
    let first = match store.trail().segments(tenant.clone(), 0, 1).await {
        // What it is cannot be told, so that nothing is let pass for its sake.
        Err(StoreError::Corrupt(_)) => None,
        read => read?.first().map(|segment| segment.seal.number),
    };
    let (mut cuts, mut after, mut limit) = (Cuts::default(), 0, PAGE);
    loop {
        match store.trail().acts(tenant.clone(), after, limit).await {
            Ok(acts) => {
                let Some(last) = acts.last() else { return Ok(cuts) };
                after = last.number.max(after + 1);
                acts.iter().for_each(|act| cuts.take(act, first));
            }
            // The page is read one by one, over the act that is damaged.
            Err(StoreError::Corrupt(_)) if limit > 1 => limit = 1,
            Err(StoreError::Corrupt(_)) => after += 1,
            Err(error) => return Err(error),
        }
    }
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

/// Checks the trail of a store, tenant by tenant. What cannot be read is a finding, and keeps nothing else from being checked.
///
/// # Errors
/// The store fails.
pub async fn verify(store: &dyn Store, asked: &Asked) -> Result<Vec<Verdict>, StoreError> {
    let (mut verdicts, state) = (Vec::new(), store.trail().unsealed(1).await?);
    for tenant in tenants(store, asked).await? {
        let mut tries = CUTS_MAX;
        verdicts.push(loop {
            let cuts = cuts(store, &tenant).await?;
            let verdict = verify_tenant(store, asked, &tenant, cuts.gone, &state).await?;
            tries -= 1;
            // What was pruned while this looked is no finding.
            if verdict.findings.is_empty() || tries == 0 || self::cuts(store, &tenant).await? == cuts {
                break verdict;
            }
        });
    }
    Ok(verdicts)
}

async fn verify_tenant(
    store: &dyn Store,
    asked: &Asked,
    tenant: &Name,
    gone: Option<Cut>,
    state: &Unsealed,
) -> Result<Verdict, StoreError> {
    let mut checker = Checker::new(tenant.clone(), asked.run.clone(), state.now);
    if let Some(lost) = &state.lost {
        checker.find(None, None, format!("what was sealed is not known: {lost}"));
    }
    for (_, number, hash) in asked.anchors.iter().filter(|(of, _, _)| of == tenant) {
        checker.anchor(*number, *hash);
    }
    if let Some(gone) = gone {
        checker.cut(gone);
        for what in there_again(store, tenant, &gone).await {
            checker.find(None, None, format!("{what} that were removed are there"));
        }
    }
    let gone = gone.unwrap_or_default();
    loop {
        verify_part(store, (tenant, gone), asked.run.as_ref(), &mut checker).await?;
        if !checker.next_part() {
            return Ok(checker.finish());
        }
    }
}

/// What there is of what was removed. A check begins after it, so that nothing else would find it.
async fn there_again(store: &dyn Store, tenant: &Name, gone: &Cut) -> Vec<&'static str> {
    fn differ<T: PartialEq>(all: Result<Vec<T>, StoreError>, after: Result<Vec<T>, StoreError>) -> bool {
        match (all, after) {
            (Ok(all), Ok(after)) => all != after,
            (Err(_), after) => after.is_ok(),
            (Ok(_), Err(_)) => false,
        }
    }
    let trail = store.trail();
    let segments = |after| trail.segments(tenant.clone(), after, 2);
    let acts = |after| trail.acts(tenant.clone(), after, 2);
    let mut found = Vec::new();
    if differ(segments(0).await, segments(gone.segments.number).await) {
        found.push("segments");
    }
    if differ(acts(0).await, acts(gone.acts.rows).await) {
        found.push("acts");
    }
    found
}

async fn verify_part(
    store: &dyn Store,
    (tenant, gone): (&Name, Cut),
    only: Option<&RunId>,
    checker: &mut Checker,
) -> Result<(), StoreError> {
    let mut after = gone.segments.number;
    loop {
        let segments = match store.trail().segments(tenant.clone(), after, PAGE).await {
            Err(StoreError::Corrupt(error)) => {
                // The page is read one by one, up to the one that is damaged.
                while let Ok(one) = store.trail().segments(tenant.clone(), after, 1).await {
                    let Some(segment) = one.first() else { break };
                    checker.segment(segment);
                    after = segment.seal.number.max(after + 1);
                }
                checker.unread_segments(&error);
                break;
            }
            read => read?,
        };
        let Some(last) = segments.last() else { break };
        after = last.seal.number.max(after + 1);
        segments.iter().for_each(|segment| checker.segment(segment));
    }
    Lives { store, tenant, only }.each(checker).await?;
    if only.is_none() {
        each_act(store, tenant, gone, &mut *checker).await?;
    }
    Ok(())
}

/// Tenants to look at, by name.
async fn tenants(store: &dyn Store, asked: &Asked) -> Result<BTreeSet<Name>, StoreError> {
    if let Some(tenant) = &asked.tenant {
        return Ok([tenant.clone()].into());
    }
    if let Some(run) = &asked.run {
        let kept = store.trail().kept(Removed::Run(run.clone()), 0, PAGE).await?;
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

/// Takes what a trail has, chain by chain.
trait Take: Send {
    /// Whether it wants the chains of a run.
    fn wants(&self, run: &RunId) -> bool;
    /// Takes a chain of a run. `told` is whose the run is as its row and its journal say; none for a removed run.
    fn chain(&mut self, whose: &Whose, told: Option<&Told>, rows: &[Row]);
    /// Takes an act.
    fn act(&mut self, act: &Act);
    /// Takes that a chain cannot be read.
    fn unread(&mut self, run: &RunId, life: u64, error: &str);
}

impl Take for Checker {
    fn wants(&self, run: &RunId) -> bool {
        Self::wants(self, run)
    }

    fn chain(&mut self, whose: &Whose, told: Option<&Told>, rows: &[Row]) {
        rows.iter().for_each(|row| self.row(whose, row));
        if let (Some(told), Some(owner)) = (told, owner(rows)) {
            let found = (&owner.tenant, &owner.user, &owner.machine);
            for (tenant, user, machine, place) in [
                (&told.tenant, &owner.user, &told.machine, "the table of runs"),
                (&told.start.tenant, &told.start.user, &told.start.machine, "the first record of the run"),
            ] {
                if found != (tenant, user, machine) {
                    let message = format!("its tenant, user or machine is another one in {place}");
                    self.find(Some(&whose.run), Some(1), message);
                }
            }
        }
    }

    fn act(&mut self, act: &Act) {
        Self::act(self, act);
    }

    fn unread(&mut self, run: &RunId, _life: u64, error: &str) {
        Self::unread(self, run, &error);
    }
}

/// Takes all acts of a tenant.
async fn each_act(store: &dyn Store, tenant: &Name, gone: Cut, take: &mut dyn Take) -> Result<(), StoreError> {
    let acts = RunId::stored(ACTS);
    if !take.wants(&acts) {
        return Ok(());
    }
    let (mut after, mut limit) = (gone.acts.rows, PAGE);
    loop {
        match store.trail().acts(tenant.clone(), after, limit).await {
            Ok(more) => {
                let Some(last) = more.last() else { return Ok(()) };
                after = last.number.max(after + 1);
                more.iter().for_each(|act| take.act(act));
            }
            // The page is read one by one, up to the act that is damaged.
            Err(StoreError::Corrupt(_)) if limit > 1 => limit = 1,
            Err(StoreError::Corrupt(error)) => {
                take.unread(&acts, 0, &format!("after row {after}: {error}"));
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whose a run is as its first record says.
struct Began {
    tenant: Name,
    user: Option<Name>,
    machine: Name,
}

/// Whose a run is, beside its audit rows.
struct Told {
    tenant: Name,
    machine: Name,
    start: Began,
}

async fn began(store: &dyn Store, run: &RunId) -> Result<Option<Began>, StoreError> {
    let rows = store.journal(run.clone(), 0, 1).await?;
    let record = rows.first().and_then(|row| serde_json::from_slice::<serde_json::Value>(&row.bytes).ok());
    let entries = record.as_ref().and_then(|record| record.get("entries")?.as_array());
    let start = entries.and_then(|entries| entries.iter().find_map(|entry| entry.get("run_started")));
    let text = |place: &str| start.and_then(|start| start.pointer(place)?.as_str()).map(Name::from);
    Ok(text("/scope/tenant").map(|tenant| Began {
        tenant,
        user: text("/scope/user"),
        machine: text("/machine_name").unwrap_or_default(),
    }))
}

/// For whom a run runs, as its first record says.
pub async fn user(store: &dyn Store, run: &RunId) -> Result<Option<Name>, StoreError> {
    Ok(began(store, run).await?.and_then(|began| began.user))
}

/// Whose a run is that is there and has these audit rows.
pub async fn whose(store: &dyn Store, head: &Head, rows: &[Row]) -> Result<Whose, StoreError> {
    let user = if owner(rows).is_some() { None } else { user(store, &head.id).await? };
    let (run, tenant, machine) = (head.id.clone(), head.tenant.clone(), Some(head.machine.clone()));
    Ok(Whose { run, tenant, user, machine, life: 0 }.proven(rows))
}

/// Chains of runs of a tenant, those of removed ones last.
struct Lives<'a> {
    store: &'a dyn Store,
    tenant: &'a Name,
    only: Option<&'a RunId>,
}

impl Lives<'_> {
    async fn each(&self, take: &mut dyn Take) -> Result<(), StoreError> {
        let Self { store, tenant, only } = *self;
        match only {
            Some(run) => {
                if let Some(stored) = store.load(run.clone()).await?.filter(|stored| stored.head.tenant == *tenant) {
                    self.one(&stored.head, take).await?;
                }
            }
            None => {
                let mut query = Query { tenant: Some(tenant.clone()), limit: PAGE, ..Query::default() };
                loop {
                    let page = store.list(query.clone()).await?;
                    for head in page.heads.iter().filter(|head| take.wants(&head.id)).collect::<Vec<_>>() {
                        self.one(head, take).await?;
                    }
                    match page.next {
                        Some(next) => query.cursor = Some(next),
                        None => break,
                    }
                }
            }
        }
        let of = only.map_or_else(|| Removed::Tenant(tenant.clone()), |run| Removed::Run(run.clone()));
        let mut after = 0;
        loop {
            let kept = store.trail().kept(of.clone(), after, PAGE).await?;
            let Some(last) = kept.last() else { return Ok(()) };
            after = last.number;
            for kept in kept.into_iter().filter(|kept| kept.tenant == *tenant) {
                let (run, tenant, life) = (kept.run, kept.tenant, kept.number);
                match kept.rows {
                    Ok(rows) => {
                        let whose = Whose { run, tenant, user: None, machine: None, life };
                        take.chain(&whose.proven(&rows), None, &rows);
                    }
                    Err(error) => take.unread(&run, life, &error),
                }
            }
        }
    }

    async fn one(&self, head: &Head, take: &mut dyn Take) -> Result<(), StoreError> {
        let rows = match self.store.audit(head.id.clone()).await {
            Err(StoreError::Corrupt(error)) => {
                take.unread(&head.id, 0, &error);
                return Ok(());
            }
            read => read?,
        };
        if rows.is_empty() {
            return Ok(());
        }
        let start = match began(self.store, &head.id).await {
            // That a journal cannot be read is found by those who read journals.
            Err(StoreError::Corrupt(_)) => None,
            read => read?,
        };
        let (run, tenant, machine) = (head.id.clone(), head.tenant.clone(), Some(head.machine.clone()));
        let user = start.as_ref().and_then(|start| start.user.clone());
        let whose = Whose { run, tenant, user, machine, life: 0 }.proven(&rows);
        let told = start.map(|start| Told { tenant: head.tenant.clone(), machine: head.machine.clone(), start });
        take.chain(&whose, told.as_ref(), &rows);
        Ok(())
    }
}

/// Writes chains and acts down as lines, up to the first that cannot be written.
struct Writing<'a, E, W> {
    tenant: &'a Name,
    /// Removals that are left out.
    unproven: BTreeSet<u64>,
    write: W,
    failed: Option<E>,
}

impl<E: Send, W: FnMut(&Line) -> Result<(), E> + Send> Writing<'_, E, W> {
    fn line(&mut self, line: &Line) {
        if self.failed.is_none() {
            self.failed = (self.write)(line).err();
        }
    }
}

impl<E: Send, W: FnMut(&Line) -> Result<(), E> + Send> Take for Writing<'_, E, W> {
    fn wants(&self, _: &RunId) -> bool {
        self.failed.is_none()
    }

    fn chain(&mut self, whose: &Whose, _: Option<&Told>, rows: &[Row]) {
        if self.unproven.contains(&whose.life) {
            return self.unread(&whose.run, whose.life, UNPROVEN);
        }
        rows.iter().for_each(|row| self.line(&Line::Call(Box::new(CallLine::of(whose, row)))));
    }

    fn act(&mut self, act: &Act) {
        self.line(&Line::Act(ActLine::of(self.tenant, act)));
    }

    fn unread(&mut self, run: &RunId, life: u64, error: &str) {
        self.line(&Line::Unread { run: run.clone(), life, message: error.to_owned() });
    }
}

/// Writes the trail of a tenant down, or that of one of its runs, so that it can be checked elsewhere. Chains that cannot be read,
/// and those of removed runs that nothing proves, are left out, and a line says so.
///
/// # Errors
/// The store fails, or `write` does.
pub async fn export<E: From<StoreError> + Send>(
    store: &dyn Store,
    tenant: &Name,
    run: Option<&RunId>,
    at: Timestamp,
    mut write: impl FnMut(&Line) -> Result<(), E> + Send,
) -> Result<Last, E> {
    write(&Line::Export { v: FORMAT, tenant: tenant.clone(), run: run.cloned(), at_ms: at.0 })?;
    let gone = cuts(store, tenant).await.map_err(E::from)?.gone;
    if let Some(gone) = gone {
        write(&Line::Cut(gone))?;
    }
    let gone = gone.unwrap_or_default();
    let (mut last, mut proofs) = (gone.segments, Vec::new());
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
    let of = run.map_or_else(|| Removed::Tenant(tenant.clone()), |run| Removed::Run(run.clone()));
    let (unproven, _) = unproven(store, &of, (0, u64::MAX)).await.map_err(E::from)?;
    let mut writing = Writing { tenant, unproven, write, failed: None };
    Lives { store, tenant, only: run }.each(&mut writing).await.map_err(E::from)?;
    if run.is_none() {
        each_act(store, tenant, gone, &mut writing).await.map_err(E::from)?;
    }
    writing.failed.map_or(Ok(last), Err)
}
