//! `windlass bench`: measures this build on this computer, with a store of its own that is removed afterwards.

mod crew;
mod fairness;
mod fan_out;
mod field;
mod governed;
mod idle;
mod latency;
mod load;
mod meter;
mod naps;
mod park;
mod recovery;
mod resume;
mod select;
mod start;
mod steps;
mod surge;
mod worker;

pub(crate) use start::start;

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::app::App;
use crate::args::Bench;
use crate::exit::{Exit, Problem};
use crate::process;

/// Measures, and prints what was found.
///
/// # Errors
/// A place that cannot be measured in, or a store that fails.
pub(crate) async fn bench(app: &App, what: Bench) -> Result<Exit, Problem> {
    let measured = match what {
        Bench::Start(args) => return start(app, &args),
        Bench::Select(args) => Ok(select::select(&args)),
        Bench::Floor(args) => field::within(app, &args.place, async |field| steps::floor(field, &args).await).await,
        Bench::Steps(args) => {
            field::within(app, &args.load.place, async |field| steps::steps(field, &args).await).await
        }
        Bench::Latency(args) => {
            field::within(app, &args.load.place, async |field| latency::latency(app, field, &args).await).await
        }
        Bench::FanOut(args) => {
            field::within(app, &args.place, async |field| fan_out::fan_out(field, &args).await).await
        }
        Bench::Recovery(args) => {
            field::within(app, &args.place, async |field| recovery::recovery(app, field, &args).await).await
        }
        Bench::Park(args) => field::within(app, &args.place, async |field| park::park(app, field, &args).await).await,
        Bench::Idle(args) => field::within(app, &args.place, async |field| idle::idle(app, field, &args).await).await,
        Bench::Fairness(args) => {
            field::within(app, &args.place, async |field| fairness::fairness(app, field, &args).await).await
        }
        Bench::Governed(args) => {
            field::within(app, &args.place, async |field| governed::governed(field, &args).await).await
        }
        Bench::Surge(args) => {
            field::within(app, &args.place, async |field| surge::surge(app, field, &args).await).await
        }
    }?;
    app.output.sentence(&measured, &measured.text());
    Ok(Exit::Ok)
}

/// What a measurement found. A number that a measurement does not have is null.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Measured {
    /// Which one.
    pub bench: &'static str,
    /// The kind of store.
    pub store: &'static str,
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
    pub(crate) fn new(bench: &'static str, store: &'static str) -> Self {
        Self { bench, store, rss_mb: process::resident_bytes_peak().map(process::megabytes), ..Self::default() }
    }

    /// The same with one more number.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// The same with a percentile in milliseconds.
    #[must_use]
    pub(crate) fn with_ms(self, name: &str, sorted_micros: &[u32], share: f64) -> Self {
        self.with(name, percentile_ms(sorted_micros, share))
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

/// A length of time in milliseconds.
#[must_use]
pub(crate) fn milliseconds(time: std::time::Duration) -> f64 {
    rounded(time.as_secs_f64() * 1_000.0)
}

/// A length of time as percentiles are taken of.
#[must_use]
pub(crate) fn micros(time: std::time::Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
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
        let json = serde_json::to_value(Measured::new("x", "sqlite").with("runs", 3)).expect("json");
        for key in
            ["store", "steps_per_second", "p50_ms", "p99_ms", "floor_ratio", "rss_mb", "disk_bytes_per_run", "runs"]
        {
            assert!(json.get(key).is_some(), "{key}");
        }
    }
}
