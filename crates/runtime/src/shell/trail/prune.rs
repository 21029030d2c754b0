//! Removes the beginning of the audit trail of a tenant, so that the rest can be checked as before.
//!
//! First the ends of chains that stay and are sealed only by what goes are sealed once more; then an act names what goes;
//! then it goes, in one transaction. Until then it is checked as if there was no such act. Whoever is stopped in between leaves a trail that is whole.

use std::collections::{BTreeMap, BTreeSet};

use windlass_core::audit::Chain;
use windlass_core::ids::{Digest, Name, RunId};
use windlass_core::seal::{ACTS, Last, Leaf};
use windlass_core::time::Timestamp;
use windlass_ports::store::{Grown, Pruning, Removed, Store, StoreError};

use super::{Deed, PAGE, cuts, note, seal};
use crate::audit::{Cut, Gone};
use crate::seal::sealing;

/// Tries to be the next to add an act.
const TRIES_MAX: u32 = 64;

/// Rows of decisions that are looked at for one seal.
const ROWS_MAX: usize = 20_000;

/// What can be removed of a trail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prunable {
    /// What is gone then.
    pub cut: Cut,
    /// Segments of these.
    pub segments: u64,
    /// Acts of these.
    pub acts: u64,
    /// Removed runs, by the numbers of their removals.
    pub runs: Vec<u64>,
    /// Their rows.
    pub rows: u64,
    /// Removed runs that are old and whose rows are not all sealed: they stay.
    pub unsealed: u64,
    /// An act says already that just this goes: somebody was stopped.
    is_noted: bool,
    /// Ends of chains that stay and are sealed by nothing else.
    seal_again: Vec<Leaf>,
}

impl Prunable {
    /// Whether there is nothing.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.segments == 0 && self.acts == 0 && self.runs.is_empty()
    }
}

/// A leaf by what it says of its run.
type End = (u64, Digest);

/// Leaves of segments that go, and of those that stay.
#[derive(Clone, Default)]
struct Leaves {
    /// In the order of segments.
    old: BTreeMap<RunId, Vec<End>>,
    new: BTreeMap<RunId, BTreeSet<End>>,
}

/// What of a tenant's trail was written before a time and can be removed. Rows of runs that are there stay with them. Where
/// somebody was stopped at more than that, it is that: an act says so already.
///
/// # Errors
/// The store fails; [`StoreError::Corrupt`] for segments that cannot be read or do not follow one another.
pub async fn prunable(store: &dyn Store, tenant: &Name, before: Timestamp) -> Result<Prunable, StoreError> {
    let cuts = cuts(store, tenant).await?;
    let gone = cuts.gone.unwrap_or_default();
    let before = cuts.begun.map_or(before, |begun| before.max(begun.before_ms));
    let mut found = Prunable { cut: Cut { before_ms: before, ..Cut::default() }, ..Prunable::default() };
    let leaves = leaves(store, tenant, gone.segments, before, &mut found).await?;
    let mut present = leaves.clone();
    removals(store, tenant, (before, &leaves), &mut found, &mut present).await?;
    acts(store, tenant, (gone.acts, before, &leaves), &mut found).await?;
    for (run, ends) in present.old {
        // What a later segment has of a run goes on from the ends before it.
        let is_later = present.new.get(&run).is_some_and(|ends| !ends.is_empty());
        if let (Some(end), false, true) = (ends.last(), is_later, run.as_str() != ACTS) {
            found.seal_again.push(Leaf { run, rows: end.0, head: end.1 });
        }
    }
    found.cut = gone.and(found.cut);
    found.is_noted = cuts.begun == Some(found.cut);
    Ok(found)
}

/// Which segments go, and the leaves of all.
async fn leaves(
    store: &dyn Store,
    tenant: &Name,
    gone: Last,
    before: Timestamp,
    found: &mut Prunable,
) -> Result<Leaves, StoreError> {
    let (mut leaves, mut after, mut is_old, mut chain) = (Leaves::default(), gone.number, true, gone);
    loop {
        let segments = store.trail().segments(tenant.clone(), after, PAGE).await?;
        let Some(last) = segments.last() else { return Ok(leaves) };
        after = last.seal.number.max(after + 1);
        for segment in segments {
            // What is not whole is not to lose what shows it.
            chain = segment
                .check(tenant, chain)
                .map_err(|error| StoreError::Corrupt(format!("the trail of `{tenant}` is not whole: {error}")))?;
            is_old &= segment.seal.at < before;
            if is_old {
                found.segments += 1;
                found.cut.segments = chain;
            }
            for leaf in segment.chains {
                let end = (leaf.rows, leaf.head);
                if is_old {
                    leaves.old.entry(leaf.run).or_default().push(end);
                } else {
                    leaves.new.entry(leaf.run).or_default().insert(end);
                }
            }
        }
    }
}

/// Which rows of removed runs go. Leaves those of runs that are there in `present`, and adds the ends of removed runs that
/// stay to what is sealed again.
async fn removals(
    store: &dyn Store,
    tenant: &Name,
    (before, leaves): (Timestamp, &Leaves),
    found: &mut Prunable,
    present: &mut Leaves,
) -> Result<(), StoreError> {
    let (mut after, mut gone) = (0, Vec::new());
    loop {
        let kept = store.trail().kept(Removed::Tenant(tenant.clone()), after, PAGE).await?;
        let Some(last) = kept.last() else {
            found.cut.removed = Some(Gone::of(&gone));
            return Ok(());
        };
        after = last.number;
        for kept in kept {
            // What cannot be read stays: a check says so.
            let Ok(rows) = &kept.rows else { continue };
            let own: BTreeSet<End> = rows.iter().map(|row| (row.number, row.hash())).collect();
            let (Some(last), Some(end)) = (rows.last(), own.last().copied()) else { continue };
            let is_new = leaves.new.get(&kept.run).is_some_and(|ends| ends.contains(&end));
            let is_old = leaves.old.get(&kept.run).is_some_and(|ends| ends.contains(&end));
            if let Some(ends) = present.old.get_mut(&kept.run) {
                ends.retain(|end| !own.contains(end));
            }
            if let Some(ends) = present.new.get_mut(&kept.run) {
                ends.retain(|end| !own.contains(end));
            }
            if is_old && !is_new && last.at < before {
                gone.push(Leaf { run: kept.run, rows: end.0, head: end.1 });
                found.rows += rows.len() as u64;
                found.cut.removals = found.cut.removals.max(kept.number);
                found.runs.push(kept.number);
            } else if is_old && !is_new {
                found.seal_again.push(Leaf { run: kept.run, rows: end.0, head: end.1 });
            } else if !is_new && last.at < before {
                found.unsealed += 1;
            }
        }
    }
}

/// Which acts go: those that a segment which goes has sealed, and that no other one has as the end of their chain.
async fn acts(
    store: &dyn Store,
    tenant: &Name,
    (gone, before, leaves): (Chain, Timestamp, &Leaves),
    found: &mut Prunable,
) -> Result<(), StoreError> {
    let acts = RunId::stored(ACTS);
    let sealed = leaves.old.get(&acts).and_then(|ends| ends.iter().map(|end| end.0).max()).unwrap_or_default();
    let stays = leaves.new.get(&acts).and_then(|ends| ends.iter().map(|end| end.0).min()).unwrap_or(u64::MAX);
    let most = sealed.min(stays.saturating_sub(1));
    let mut after = gone.rows;
    loop {
        let page = store.trail().acts(tenant.clone(), after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.number;
        for act in page {
            if act.number > most || act.at >= before {
                return Ok(());
            }
            found.acts += 1;
            found.cut.acts = Chain { rows: act.number, head: act.hash() };
        }
    }
}

/// Removes it: see [`prunable`]. What is not sealed is sealed first.
///
/// # Errors
/// The store fails; what was sealed is not known, or others seal all the time.
pub async fn prune(
    store: &dyn Store,
    tenant: &Name,
    before: Timestamp,
    (at, actor): (Timestamp, Name),
) -> Result<Prunable, StoreError> {
    seal(store).await?;
    let found = prunable(store, tenant, before).await?;
    if found.is_nothing() {
        return Ok(found);
    }
    seal_again(store, tenant, &found.seal_again).await?;
    if !found.is_noted {
        let (action, detail) = (Cut::ACTION.into(), Some(found.cut.detail().into()));
        note(store, tenant, Deed { at, actor, action, subject: tenant.clone(), detail }).await?;
    }
    seal(store).await?;
    let (segments, acts) = (found.cut.segments.number, found.cut.acts.rows);
    store.trail().cut(Pruning { tenant: tenant.clone(), segments, acts, kept: found.runs.clone() }).await?;
    Ok(found)
}

/// Seals ends of chains once more, in segments of their own time.
async fn seal_again(store: &dyn Store, tenant: &Name, ends: &[Leaf]) -> Result<(), StoreError> {
    if ends.is_empty() {
        return Ok(());
    }
    for _ in 0..TRIES_MAX {
        let mut unsealed = store.trail().unsealed(ROWS_MAX).await?;
        if let Some(lost) = unsealed.lost {
            return Err(StoreError::Corrupt(format!("what was sealed is not known: {lost}")));
        }
        let grown = |end: &Leaf| Grown {
            tenant: tenant.clone(),
            run: end.run.clone(),
            chain: Chain { rows: end.rows, head: end.head },
        };
        unsealed.chains.extend(ends.iter().map(grown));
        if !unsealed.last.iter().any(|(of, _)| of == tenant) {
            unsealed.last.push((tenant.clone(), last(store, tenant).await?));
        }
        if store.trail().seal(sealing(unsealed)).await? {
            return Ok(());
        }
    }
    Err(StoreError::Unavailable("others seal the audit trail all the time".into()))
}

/// The last segment of a tenant.
async fn last(store: &dyn Store, tenant: &Name) -> Result<Last, StoreError> {
    let mut last = Last::default();
    loop {
        let page = store.trail().segments(tenant.clone(), last.number, PAGE).await?;
        let Some(segment) = page.last() else { return Ok(last) };
        last = Last { number: segment.seal.number, hash: segment.seal.hash() };
    }
}
