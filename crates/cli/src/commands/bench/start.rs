//! From the start of a process to its first completed run, in a new store.

use std::process::{Command, Stdio};
use std::time::Instant;

use super::{Measured, Scratch, percentile_ms, rounded};
use crate::app::App;
use crate::args;
use crate::exit::{Exit, Problem};

const MACHINE: &str = "spec: flatmachine\nspec_version: \"4.2.1\"\ndata:\n  name: bench-start\n  states:\n    start:\n      type: initial\n      transitions:\n        - to: done\n    done:\n      type: final\n      output:\n        ok: true\n";

/// Starts this program with a tiny machine again and again.
pub(crate) fn start(app: &App, args: &args::BenchStart) -> Result<Exit, Problem> {
    let scratch = Scratch::new(args.place.dir.as_deref())?;
    let machine = scratch.path("machine.yml");
    let failed = |what: &dyn std::fmt::Display| Problem::new(Exit::Unreachable, "cli.io", what.to_string());
    std::fs::write(&machine, MACHINE).map_err(|error| failed(&error))?;
    let program = std::env::current_exe().map_err(|error| failed(&error))?;
    let mut micros: Vec<u32> = Vec::new();
    for round in 0..args.times {
        let store = format!("sqlite:{}", scratch.path(&format!("{round}.db")).display());
        let begun = Instant::now();
        let status = Command::new(&program)
            .arg("run")
            .arg(&machine)
            .args(["--quiet", "--store", &store])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .status()
            .map_err(|error| failed(&error))?;
        micros.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
        if !status.success() {
            return Err(Problem::bug(format!("the measured process ended with {status}")));
        }
    }
    let mean = micros.iter().map(|m| f64::from(*m)).sum::<f64>() / 1000.0 / micros.len().max(1) as f64;
    micros.sort_unstable();
    let measured = Measured {
        p50_ms: percentile_ms(&micros, 0.5),
        p99_ms: percentile_ms(&micros, 0.99),
        rss_mb: None,
        ..Measured::new("start", "sqlite")
    }
    .with("times", args.times)
    .with("mean_ms", rounded(mean))
    .with("min_ms", micros.first().map(|m| f64::from(*m) / 1000.0));
    app.output.sentence(&measured, &measured.text());
    Ok(Exit::Ok)
}
