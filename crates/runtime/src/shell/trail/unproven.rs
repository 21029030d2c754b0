//! Rows of removed runs that nothing proves: whoever lists or exports leaves them out. No journal has them any more, so
//! that a seal over the end of their chain is all that tells them from rows that somebody made up.

use std::collections::{BTreeMap, BTreeSet};

use windlass_core::audit::{Chain, Row};
use windlass_core::ids::Name;
use windlass_core::seal::Leaf;
use windlass_ports::store::{Kept, Removed, Store, StoreError};

use super::{PAGE, cuts};

/// What is said of them.
pub const UNPROVEN: &str = "they are rows of a removed run, and no seal that is there is over them";
/// Ends of chains that are looked for at once.
const ENDS_MAX: usize = 65_536;

/// Ends of chains by tenant, with the removals that have them.
type Ends = BTreeMap<Name, BTreeMap<Leaf, Vec<u64>>>;

/// Removals, after the first of these numbers up to the second, whose rows do not follow one another or have an end that is
/// under no seal, and the number of the last one that was looked at. Rows that cannot be read are not among them. Reads all
/// seals of the tenant.
///
/// # Errors
/// The store fails.
pub async fn unproven(
    store: &dyn Store,
    of: &Removed,
    (after, last): (u64, u64),
) -> Result<(BTreeSet<u64>, u64), StoreError> {
    let (mut found, mut ends, mut held, mut after) = (BTreeSet::new(), Ends::new(), 0, after);
    let mut seen = after;
    loop {
        let kept = store.trail().kept(of.clone(), after, PAGE).await?;
        let is_last = kept.last().is_none_or(|kept| kept.number >= last);
        after = kept.last().map_or(last, |kept| kept.number);
        for Kept { number, run, tenant, rows } in kept.into_iter().filter(|kept| kept.number <= last) {
            seen = number;
            let Ok(rows) = rows else { continue };
            match end(&rows) {
                Some(end) => {
                    let leaf = Leaf::of(run, end);
                    ends.entry(tenant).or_default().entry(leaf).or_default().push(number);
                    held += 1;
                }
                None => drop(found.insert(number)),
            }
        }
        if is_last || held >= ENDS_MAX {
            for (tenant, mut ends) in std::mem::take(&mut ends) {
                remove_sealed(store, &tenant, &mut ends).await?;
                found.extend(ends.into_values().flatten());
            }
            held = 0;
        }
        if is_last {
            return Ok((still_there(store, of, found).await?, seen));
        }
    }
}

/// The end of a chain of which every row follows the one before.
fn end(rows: &[Row]) -> Option<Chain> {
    rows.iter().try_fold(Chain::default(), |chain, row| chain.then(row.number, row.previous, row.hash()).ok())
}

/// Takes out the ends that a segment has. What comes after a segment that cannot be read is as if it was not there.
async fn remove_sealed(
    store: &dyn Store,
    tenant: &Name,
    ends: &mut BTreeMap<Leaf, Vec<u64>>,
) -> Result<(), StoreError> {
    let mut after = cuts(store, tenant).await?.gone.unwrap_or_default().segments.number;
    let mut limit = PAGE;
    while !ends.is_empty() {
        let segments = match store.trail().segments(tenant.clone(), after, limit).await {
            Err(StoreError::Corrupt(_)) if limit > 1 => {
                limit = 1;
                continue;
            }
            Err(StoreError::Corrupt(_)) => return Ok(()),
            read => read?,
        };
        let Some(last) = segments.last() else { return Ok(()) };
        after = last.seal.number.max(after + 1);
        for leaf in segments.iter().flat_map(|segment| &segment.chains) {
            ends.remove(leaf);
        }
    }
    Ok(())
}

/// Those that nobody pruned meanwhile.
async fn still_there(store: &dyn Store, of: &Removed, found: BTreeSet<u64>) -> Result<BTreeSet<u64>, StoreError> {
    let mut there = BTreeSet::new();
    for number in &found {
        let kept = store.trail().kept(of.clone(), number.saturating_sub(1), 1).await?;
        there.extend(kept.first().filter(|kept| kept.number == *number).map(|kept| kept.number));
    }
    Ok(there)
}
