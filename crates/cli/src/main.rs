//! The `windlass` binary: reads the command line, sets up logging and threads, runs one command, ends with its code.

mod app;
mod args;
mod caller;
mod commands;
mod config;
mod documents;
mod drawing;
mod exit;
mod files;
mod filter;
mod format;
mod input;
mod journal;
mod outcome;
mod output;
mod places;
mod process;
mod reference;
mod session;
mod sign;
mod story;
mod telemetry;
mod testing;
mod watcher;

use std::process::ExitCode;

use clap::Parser;

use crate::exit::Exit;

fn main() -> ExitCode {
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(output::usage(&error, std::env::args_os()).code()),
    };
    let output = output::Output::new(cli.global.json, cli.global.plain, cli.global.quiet);
    let exit = commands::dispatch(output, cli).unwrap_or_else(|problem| {
        output.problem(&problem);
        problem.exit
    });
    if exit == Exit::Bug {
        output::note("this is a fault of Windlass: please report it with the output of `windlass diagnostics`");
    }
    ExitCode::from(exit.code())
}
