//! Whether and when a failed attempt is tried again. The only place where that is decided.

use crate::failure::{Failure, Retry};
use crate::machine::Execution;

/// The pause before the next attempt in milliseconds; none when there is none. `attempt` is the one that failed,
/// from 1. What the other side asked for is honoured when it is longer; jitter varies the pause by its share,
/// drawn from `seed`.
#[must_use]
pub fn pause_ms(execution: &Execution, attempt: u32, failure: &Failure, seed: u64) -> Option<u64> {
    let Execution::Retry { backoffs_ms, jitter } = execution else { return None };
    let asked = match failure.retry {
        Retry::Never | Retry::Unknown => return None,
        Retry::Backoff => 0,
        Retry::After(ms) => ms,
    };
    let backoff = *backoffs_ms.get(attempt.checked_sub(1)? as usize)?;
    Some(vary(backoff.max(asked), *jitter, seed).max(asked))
}

/// `pause` moved by up to `share` of itself, either way.
fn vary(pause: u64, share: f64, seed: u64) -> u64 {
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    let unit = (seed >> 11) as f64 / (1_u64 << 53) as f64;
    (pause as f64 * (1.0 + share * (2.0 * unit - 1.0))).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Code;

    fn retrying() -> Execution {
        Execution::Retry { backoffs_ms: vec![100, 200], jitter: 0.0 }
    }

    #[test]
    fn pauses_follow_the_list_and_then_end() {
        let failure = Failure::new(Code::ProviderUnavailable, "x").retry(Retry::Backoff);
        let pauses: Vec<_> = (1..=3).map(|n| pause_ms(&retrying(), n, &failure, 0)).collect();
        assert_eq!(pauses, [Some(100), Some(200), None]);
        assert_eq!(pause_ms(&Execution::Once, 1, &failure, 0), None);
    }

    #[test]
    fn what_was_asked_for_is_honoured() {
        let failure = Failure::new(Code::ProviderRateLimited, "x").retry(Retry::After(5_000));
        assert_eq!(pause_ms(&retrying(), 1, &failure, 0), Some(5_000));
    }

    #[test]
    fn hopeless_failures_are_not_tried_again() {
        assert_eq!(pause_ms(&retrying(), 1, &Failure::new(Code::ProviderAuth, "x"), 0), None);
    }

    #[test]
    fn jitter_stays_within_its_share() {
        let execution = Execution::Retry { backoffs_ms: vec![1_000], jitter: 0.1 };
        let failure = Failure::new(Code::ProviderUnavailable, "x").retry(Retry::Backoff);
        for seed in [0, u64::MAX, 0x1234_5678_9abc_def0] {
            let pause = pause_ms(&execution, 1, &failure, seed).expect("a pause");
            assert!((900..=1_100).contains(&pause), "{pause}");
        }
    }
}
