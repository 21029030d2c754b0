//! A rule set that is tried beside the one in force: on how many runs, on which, and when it is given up.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use windlass_core::ids::{Digest, RunId};
use windlass_core::policy::{Choice, Mode, Sticky};
use windlass_core::run::TenantScope;

use crate::entities::escaped;

/// Places among which runs are spread: hundredths of a percent.
pub const PLACES: u32 = 10_000;

/// A candidate as configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CandidateConfig {
    /// The folder of the rule set that is tried, relative to this file.
    pub path: PathBuf,
    /// How large the share is for which it is asked, in percent, 0 to 100. Default: `100`.
    pub percent: u32,
    /// What is in the share or not as a whole: `run` (with all that it starts), `user` or `tenant`. Default: `run`.
    #[schemars(with = "String")]
    pub sticky: Sticky,
    /// What is done with the share: `shadow`, and the set in force judges it while the candidate is asked beside it, or
    /// `enforce`, and the candidate judges it. Default: `shadow`.
    #[schemars(with = "String")]
    pub mode: Mode,
    /// By how many percentage points the candidate's rate of denials may differ from that of the set in force, over the same
    /// questions, before the candidate is withdrawn. 100 is never. Default: `10`.
    pub differ_max: u32,
    /// How many questions both have to be asked before that is looked at, at least 1. Default: `100`.
    pub decisions_min: u64,
}

impl Default for CandidateConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            percent: 100,
            sticky: Sticky::Run,
            mode: Mode::Shadow,
            differ_max: 10,
            decisions_min: 100,
        }
    }
}

impl CandidateConfig {
    /// What cannot be meant, as the key and what is wrong with it.
    ///
    /// # Errors
    /// The first such key.
    pub fn check(&self) -> Result<(), (&'static str, &'static str)> {
        if self.path.as_os_str().is_empty() {
            return Err(("path", "names the folder of the candidate, and there is none"));
        }
        if self.percent > 100 {
            return Err(("percent", "is a share of 0 to 100 percent"));
        }
        if self.differ_max > 100 {
            return Err(("differ_max", "is a difference of 0 to 100 percentage points"));
        }
        if self.decisions_min == 0 {
            return Err(("decisions_min", "is a number of questions, at least 1"));
        }
        Ok(())
    }

    /// The side of a run: where it was put before under the same candidate, else where its place is.
    pub(crate) fn choice(&self, candidate: &str, root: &RunId, scope: &TenantScope, kept: Option<&Choice>) -> Choice {
        if let Some(kept) = kept.filter(|kept| &*kept.candidate == candidate) {
            return kept.clone();
        }
        let chosen = place(self.sticky, candidate, root, scope) < self.percent.saturating_mul(PLACES / 100);
        let (mode, sticky, percent) = (self.mode, self.sticky, self.percent);
        Choice { candidate: candidate.into(), mode, sticky, percent, chosen }
    }
}

/// The place of a run among [`PLACES`] under a candidate: the same for all that is sticky together. It is in the share when
/// its place is below it.
#[must_use]
pub fn place(sticky: Sticky, candidate: &str, root: &RunId, scope: &TenantScope) -> u32 {
    let tenant = escaped(&scope.tenant);
    let whose = match sticky {
        Sticky::Run => root.as_str().to_owned(),
        Sticky::User => format!("{tenant}/{}", scope.user.as_deref().unwrap_or_default()),
        Sticky::Tenant => tenant,
    };
    let hash = Digest::of(format!("windlass.candidate.v1\n{candidate}\n{}\n{whose}", sticky.as_str()).as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hash.0[..8]);
    // Below `PLACES`, which fits.
    u32::try_from(u64::from_be_bytes(first) % u64::from(PLACES)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scope(tenant: &str, user: Option<&str>) -> TenantScope {
        TenantScope { tenant: tenant.into(), user: user.map(Into::into) }
    }

    proptest! {
        #[test]
        fn prop_a_share_is_of_its_size_and_a_larger_one_has_all_of_a_smaller_one(percent in 0_u32..=100) {
            let config = CandidateConfig { percent, ..CandidateConfig::default() };
            let larger = CandidateConfig { percent: (percent + 10).min(100), ..config.clone() };
            let mut chosen = 0_u32;
            for number in 0..2_000 {
                let run = RunId::stored(&format!("run-{number}"));
                let of = |config: &CandidateConfig| config.choice("0123456789ab", &run, &scope("a", None), None).chosen;
                prop_assert!(!of(&config) || of(&larger));
                chosen += u32::from(of(&config));
            }
            // 2000 runs are spread by a hash that never changes: what is found is found each time.
            prop_assert!(chosen.abs_diff(percent * 20) <= 60, "{} of 2000 at {} %", chosen, percent);
        }
    }

    #[test]
    fn what_is_sticky_together_is_on_one_side() {
        let spread = |sticky, scope: &TenantScope| {
            let runs = (0..50).map(|number| RunId::stored(&format!("run-{number}")));
            runs.map(|run| place(sticky, "c", &run, scope)).collect::<std::collections::BTreeSet<_>>().len()
        };
        let (ada, bob) = (scope("acme", Some("ada")), scope("acme", Some("bob")));
        assert!(spread(Sticky::Run, &ada) > 40);
        assert_eq!((spread(Sticky::User, &ada), spread(Sticky::Tenant, &ada)), (1, 1));
        let run = RunId::stored("r");
        assert_ne!(place(Sticky::User, "c", &run, &ada), place(Sticky::User, "c", &run, &bob));
        assert_eq!(place(Sticky::Tenant, "c", &run, &ada), place(Sticky::Tenant, "c", &run, &bob));
        assert_ne!(place(Sticky::Run, "c", &run, &ada), place(Sticky::Run, "d", &run, &ada), "each candidate anew");
        // No user of one tenant is a user of another.
        let other = scope("acme/ada", None);
        assert_ne!(
            place(Sticky::User, "c", &run, &scope("acme", Some("ada/"))),
            place(Sticky::User, "c", &run, &other)
        );
    }

    #[test]
    fn a_run_keeps_its_side_under_the_same_candidate() {
        let all = CandidateConfig { mode: Mode::Enforce, ..CandidateConfig::default() };
        let none = CandidateConfig { percent: 0, ..all.clone() };
        let (run, scope) = (RunId::stored("r"), scope("acme", None));
        let first = all.choice("c", &run, &scope, None);
        assert!(first.is_candidates());
        assert_eq!(none.choice("c", &run, &scope, Some(&first)), first);
        assert!(!none.choice("d", &run, &scope, Some(&first)).chosen);
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        let good = CandidateConfig { path: "next".into(), ..CandidateConfig::default() };
        assert_eq!(good.check(), Ok(()));
        for (key, wrong) in [
            ("path", CandidateConfig::default()),
            ("percent", CandidateConfig { percent: 101, ..good.clone() }),
            ("differ_max", CandidateConfig { differ_max: 101, ..good.clone() }),
            ("decisions_min", CandidateConfig { decisions_min: 0, ..good.clone() }),
        ] {
            assert_eq!(wrong.check().expect_err("refused").0, key);
        }
    }
}
