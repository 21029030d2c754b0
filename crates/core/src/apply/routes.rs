//! What model calls leave in a run beside their answers: the link each sample is at, what it sent, steps to better tiers,
//! and what each tier used.

use crate::budget::Amounts;
use crate::effect::OpenCall;
use crate::run::{Prefix, Raised, Run, Sample};
use crate::transcript::Usage;

/// The sample is asked for anew: what was wrong with the answer is not the better model's business.
pub(super) fn escalated(run: &mut Run, index: u32, raised: &Raised) {
    run.escalations += 1;
    if let Some(sample) = run.exec.as_mut().and_then(|exec| exec.samples.get_mut(index as usize)) {
        *sample = Sample { raised: Some(raised.clone()), ..Sample::default() };
    }
}

/// Notes the link that a model call takes.
pub(super) fn routed(run: &mut Run, sample: u32, call: &OpenCall) {
    let Some(route) = call.route.as_ref().filter(|_| is_followed(call)) else { return };
    run.escalations += u32::from(route.escalated);
    if let Some(sample) = run.exec.as_mut().and_then(|exec| exec.samples.get_mut(sample as usize)) {
        sample.link = Some(route.link);
    }
}

/// Whether a call was recorded by a build that keeps the sums below: an older journal folds to what it folded to.
fn is_followed(call: &OpenCall) -> bool {
    call.cached_expected.is_some()
}

/// Notes what an answered call had sent.
pub(super) fn note_prefix(run: &mut Run, sample: u32, call: &OpenCall, usage: &Usage) {
    let parts = [usage.input, usage.cache_read, usage.cache_write];
    let tokens = parts.into_iter().flatten().reduce(u64::saturating_add).filter(|_| is_followed(call));
    if let Some(sample) = run.exec.as_mut().and_then(|exec| exec.samples.get_mut(sample as usize)) {
        let link = call.route.as_ref().map(|route| route.name.clone());
        sample.prefix = tokens.map(|tokens| Prefix { link, tokens });
    }
}

/// Adds what an attempt used to its tier.
pub(super) fn count_tier(run: &mut Run, call: &OpenCall, used: &Amounts) {
    if let Some(route) = call.route.as_ref().filter(|route| is_followed(call) && !route.tier.is_empty()) {
        run.tiers.entry(route.tier.clone()).or_default().add(used);
    }
}
