//! `windlass bench`: measures this build on this computer, with a store of its own that is removed afterwards.

mod load;
mod park;
mod start;
mod steps;

pub(crate) use park::park;
pub(crate) use start::start;
pub(crate) use steps::{floor, steps};

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::exit::{Exit, Problem};
use crate::process;

/// What a measurement found. A number that a measurement does not have is null.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Measured {
    /// Which one.
    pub bench: &'static str,
    /// Steps, parked runs or runs per second.
    pub steps_per_second: Option<f64>,
    /// Half of the steps took at most so many milliseconds.
    pub p50_ms: Option<f64>,
    /// 99 % of the steps took at most so many milliseconds.
    pub p99_ms: Option<f64>,
    /// Steps per second as a share of the floor measured beside it.
    pub floor_ratio: Option<f64>,
    /// Memory of this process at most, in megabytes.
    pub rss_mb: Option<f64>,
    /// Bytes on disk for each run.
    pub disk_bytes_per_run: Option<f64>,
    /// More numbers, by name.
    #[serde(flatten)]
    pub more: serde_json::Map<String, serde_json::Value>,
}

impl Measured {
    /// A measurement without numbers but memory.
    #[must_use]
    pub(crate) fn new(bench: &'static str) -> Self {
        Self { bench, rss_mb: process::resident_bytes_peak().map(process::megabytes), ..Self::default() }
    }

    /// The same with one more number.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// The numbers that there are, as sentences.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        let json = serde_json::to_value(self).unwrap_or_default();
        let rows: Vec<Vec<String>> = json
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| vec![name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)])
            .collect();
        crate::output::table(&["number", "value"], &rows)
    }
}

/// A folder that is removed at the end.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// A new folder in `dir`, or in the working directory.
    ///
    /// # Errors
    /// It cannot be created.
    pub(crate) fn new(dir: Option<&Path>) -> Result<Self, Problem> {
        let name = format!(".windlass-bench-{}", uuid::Uuid::now_v7());
        let path = dir.unwrap_or_else(|| Path::new(".")).join(name);
        std::fs::create_dir_all(&path).map_err(|error| {
            Problem::new(Exit::Unreachable, "cli.io", format!("cannot create `{}`: {error}", path.display()))
                .hint("`--dir` names a folder on the disk that is to be measured")
        })?;
        Ok(Self(path))
    }

    /// A path in it.
    #[must_use]
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "the folder of a measurement was not removed");
        }
    }
}

/// The value below which a share of sorted numbers lies, in milliseconds.
#[must_use]
pub(crate) fn percentile_ms(sorted_micros: &[u32], share: f64) -> Option<f64> {
    let last = sorted_micros.len().checked_sub(1)?;
    let at = ((last as f64) * share).round() as usize;
    sorted_micros.get(at).map(|micros| f64::from(*micros) / 1000.0)
}

/// A number with two digits after the point.
#[must_use]
pub(crate) fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_sorted_numbers() {
        let numbers: Vec<u32> = (1..=100).map(|n| n * 1000).collect();
        assert_eq!(percentile_ms(&numbers, 0.5), Some(51.0));
        assert_eq!(percentile_ms(&numbers, 0.99), Some(99.0));
        assert_eq!(percentile_ms(&[], 0.5), None);
    }

    #[test]
    fn every_measurement_has_the_same_keys() {
        let json = serde_json::to_value(Measured::new("x").with("runs", 3)).expect("json");
        for key in ["steps_per_second", "p50_ms", "p99_ms", "floor_ratio", "rss_mb", "disk_bytes_per_run", "runs"] {
            assert!(json.get(key).is_some(), "{key}");
        }
    }
}
