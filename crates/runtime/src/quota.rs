//! The quota of one model as all processes know it: how a refusal, a header and an answer change it, and who looks whether
//! it is back. Without I/O; time comes from outside.

use serde::{Deserialize, Serialize};
use windlass_core::ids::Name;
use windlass_core::time::Timestamp;
use windlass_ports::quota::{News, Rest};

/// Milliseconds for which a model rests after a second refusal that does not say for how long; doubled with each further
/// one in a row. After the first the engine's own pause is enough.
const REST_MS: u64 = 1_000;
/// The longest of those rests, in milliseconds.
const REST_MS_MAX: u64 = 60_000;
/// How long a word that nobody took back counts after its rest, in milliseconds.
const STALE_MS: u64 = 15 * 60_000;
/// How soon a process that may not look itself asks again, in milliseconds.
const AGAIN_MS: u64 = 200;

/// What is known of a quota that is used up, or was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Nothing is sent before.
    pub rests_until: Timestamp,
    /// Refusals in a row.
    pub refusals: u32,
    /// When the last of them came.
    pub refused_at: Timestamp,
    /// Whether one call goes alone first.
    pub alone: bool,
    /// Who sends that one, until then.
    pub probe: Option<(Name, Timestamp)>,
}

impl Notice {
    /// What it says now.
    #[must_use]
    pub fn rest(&self, now: Timestamp) -> Rest {
        if self.is_stale(now) {
            return Rest::default();
        }
        Rest { ms: self.rests_until.since_ms(now), alone: self.alone }
    }

    /// Whether it is so old that it says nothing.
    #[must_use]
    pub fn is_stale(&self, now: Timestamp) -> bool {
        self.rests_until.max(self.refused_at).plus_ms(STALE_MS) <= now
    }

    /// What is known after news; none when nothing is against calls any more.
    #[must_use]
    pub fn after(before: Option<Self>, news: News, by: &Name, now: Timestamp) -> Option<Self> {
        let before = before.filter(|notice| !notice.is_stale(now));
        match news {
            News::Back => None,
            News::Empty(ms) => {
                let notice = before.unwrap_or_default();
                Some(Self { rests_until: notice.rests_until.max(now.plus_ms(ms)), ..notice })
            }
            News::Unsure => before.map(|notice| {
                let probe = notice.probe.filter(|(who, _)| who != by);
                Self { probe, ..notice }
            }),
            News::Refused { left_ago_ms, asked_ms } => {
                let notice = before.unwrap_or_default();
                let asked = asked_ms.map_or(notice.rests_until, |ms| notice.rests_until.max(now.plus_ms(ms)));
                // Calls that were out together are refused together: that is one refusal.
                let is_known = notice.refusals > 0 && notice.refused_at.plus_ms(left_ago_ms) >= now;
                if is_known {
                    return Some(Self { rests_until: asked, ..notice });
                }
                let own = REST_MS.saturating_mul((1 << notice.refusals.min(10)) >> 1).min(REST_MS_MAX);
                Some(Self {
                    rests_until: if asked_ms.is_some() { asked } else { notice.rests_until.max(now.plus_ms(own)) },
                    refusals: notice.refusals.saturating_add(1),
                    refused_at: now,
                    alone: true,
                    probe: None,
                })
            }
        }
    }

    /// The word by which a process takes it upon itself to look, or in how many milliseconds it may ask again.
    ///
    /// # Errors
    /// It rests, or another process looks.
    pub fn probed(&self, by: &Name, for_ms: u64, now: Timestamp) -> Result<Self, u64> {
        let rests = self.rests_until.since_ms(now);
        if rests > 0 {
            return Err(rests);
        }
        match &self.probe {
            Some((_, until)) if *until > now => Err(until.since_ms(now).min(AGAIN_MS)),
            Some(_) | None => Ok(Self { probe: Some((by.clone(), now.plus_ms(for_ms))), ..self.clone() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Timestamp {
        Timestamp(1_000_000 + ms)
    }

    fn refused(before: Option<Notice>, now: u64, left_ago_ms: u64, asked_ms: Option<u64>) -> Notice {
        let news = News::Refused { left_ago_ms, asked_ms };
        Notice::after(before, news, &"p".into(), at(now)).expect("something is known")
    }

    #[test]
    fn refusals_in_a_row_double_the_rest_and_a_wave_is_one() {
        let mut notice = None;
        let mut rests = Vec::new();
        let mut now = 0;
        for _ in 0..9 {
            let one = refused(notice.clone(), now, 5, None);
            rests.push(one.rest(at(now)).ms);
            now += one.rest(at(now)).ms + 10;
            notice = Some(one);
        }
        assert_eq!(rests, [0, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
        let first = refused(None, 0, 100, None);
        let wave = refused(Some(first.clone()), 50, 100, None);
        assert_eq!(wave, first, "it left before the other was refused");
    }

    #[test]
    fn a_provider_that_says_for_how_long_is_obeyed() {
        let one = refused(None, 0, 5, Some(700));
        assert_eq!((one.rest(at(0)).ms, one.rest(at(600)).ms, one.alone), (700, 100, true));
        let longer = refused(Some(one), 10, 50, Some(5_000));
        assert_eq!((longer.rest(at(10)).ms, longer.refusals), (5_000, 1), "of a wave the longest rest counts");
    }

    #[test]
    fn one_process_looks_and_the_others_wait_for_it() {
        let notice = refused(None, 0, 5, Some(100));
        assert_eq!(notice.probed(&"p".into(), 1_000, at(40)), Err(60));
        let probed = notice.probed(&"p".into(), 1_000, at(100)).expect("it looks");
        assert_eq!(probed.probed(&"q".into(), 1_000, at(150)), Err(AGAIN_MS));
        assert!(probed.probed(&"q".into(), 1_000, at(1_100)).is_ok(), "whoever looked is gone");
        let unsure = Notice::after(Some(probed.clone()), News::Unsure, &"p".into(), at(200)).expect("known");
        assert!(unsure.probed(&"q".into(), 1_000, at(200)).is_ok());
        assert_eq!(Notice::after(Some(probed), News::Back, &"p".into(), at(200)), None);
    }

    #[test]
    fn what_headers_say_is_no_refusal() {
        let notice = Notice::after(None, News::Empty(300), &"p".into(), at(0)).expect("known");
        assert_eq!((notice.rest(at(0)), notice.refusals), (Rest { ms: 300, alone: false }, 0));
        assert_eq!(notice.rest(at(300)), Rest::default());
        assert_eq!(notice.rest(at(STALE_MS + 300)), Rest::default());
    }
}
