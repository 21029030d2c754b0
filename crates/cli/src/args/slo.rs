//! `windlass slo`: how well runs do without people. Parsing only.

use std::str::FromStr;

use clap::{Args, Subcommand};

use crate::config::Span;

/// Measure how many runs complete without a person.
#[derive(Debug, Subcommand)]
pub(crate) enum Slo {
    /// Print the share of runs that completed without a person
    Report(SloReport),
}

/// Print the share of runs that completed without a person.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  windlass slo report
  windlass slo report --since 30d --target 99.5%
  windlass slo report --json | jq '.machines[] | {machine, runs, rate}'

Counts callers' runs that began in the window and have finished, or wait for a person now.
Exits with 3 when the share is below the target, and with 4 when there are too few runs to
tell. docs/operations/slo.md says what counts as help.")]
pub(crate) struct SloReport {
    /// Runs that began within this time
    #[arg(long, value_name = "DURATION", default_value = "7d")]
    pub since: Span,
    /// The share to reach, such as `95%`
    #[arg(long, value_name = "PERCENT", default_value = "95%")]
    pub target: Share,
    /// Fewer runs than this give no rate
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub min_runs: u64,
}

/// A part of a whole, in hundredths of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share(pub u64);

/// The whole.
pub(crate) const WHOLE: u64 = 10_000;

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || format!("`{text}` is no percentage from 0% to 100% with at most two decimals, such as `95%`");
        let number = text.trim().strip_suffix('%').ok_or_else(bad)?.trim_end();
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(part) || part.len() > 2 || whole.len() > 3 {
            return Err(bad());
        }
        let parse = |text: &str| text.parse::<u64>().map_err(|_| bad());
        let hundredths = parse(whole)? * 100 + parse(part)? * if part.len() == 1 { 10 } else { 1 };
        if hundredths > WHOLE { Err(bad()) } else { Ok(Self(hundredths)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_percentages() {
        for (text, expected) in [("95%", 9_500), ("99.5%", 9_950), ("99.95 %", 9_995), ("0%", 0), ("100%", 10_000)] {
            assert_eq!(text.parse(), Ok(Share(expected)), "{text}");
        }
        for text in ["95", "0.95", "100.01%", "-1%", "99.999%", "%", "a%", "9999%"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
    }
}
