//! The page about commands, from the command line's own definition.

use std::fmt::Write;

use clap::{Arg, Command, CommandFactory};

use super::cell;
use crate::args::Cli;

/// Every command with its arguments and examples.
pub(super) fn page() -> String {
    let root = Cli::command();
    let mut out = String::from("# Commands\n\n");
    let about = root.get_long_about().or(root.get_about()).map(ToString::to_string).unwrap_or_default();
    let _ = writeln!(
        out,
        "{about}\n\n\
         stdout is the payload, stderr is everything else. On a terminal the payload is text, elsewhere JSON; `--json`\n\
         and `--plain` choose.\n"
    );
    out.push_str("## Global options\n\n");
    arguments(&mut out, root.get_arguments());
    for command in root.get_subcommands().filter(|c| !c.is_hide_set()) {
        section(&mut out, command, "windlass", 2);
    }
    out
}

fn section(out: &mut String, command: &Command, parent: &str, level: usize) {
    let name = format!("{parent} {}", command.get_name());
    let _ = writeln!(out, "{} `{name}`\n", "#".repeat(level));
    if let Some(about) = command.get_about() {
        let _ = writeln!(out, "{about}.\n");
    }
    let subs: Vec<&Command> = command.get_subcommands().collect();
    if subs.is_empty() {
        let _ = writeln!(out, "```\n{}\n```\n", usage(command, &name));
    }
    arguments(out, command.get_arguments());
    if let Some(help) = command.get_after_help() {
        let _ = writeln!(out, "```\n{}\n```\n", help.to_string().trim_end());
    }
    for sub in subs {
        section(out, sub, &name, level + 1);
    }
}

fn usage(command: &Command, name: &str) -> String {
    let mut usage = name.to_owned();
    if command.get_arguments().any(|arg| !arg.is_positional()) {
        usage.push_str(" [OPTIONS]");
    }
    for arg in command.get_positionals() {
        let value = value_name(arg);
        let more = if arg.get_num_args().is_some_and(|n| n.max_values() > 1) { "..." } else { "" };
        let _ =
            if arg.is_required_set() { write!(usage, " <{value}>{more}") } else { write!(usage, " [{value}]{more}") };
    }
    usage
}

fn arguments<'a>(out: &mut String, arguments: impl Iterator<Item = &'a Arg>) {
    let rows: Vec<&Arg> = arguments.filter(|a| !matches!(a.get_id().as_str(), "help" | "version")).collect();
    if rows.is_empty() {
        return;
    }
    out.push_str("| argument | meaning |\n|---|---|\n");
    for arg in rows {
        let mut meaning = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let possible: Vec<String> =
            arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
        if !possible.is_empty() && arg.get_action().takes_values() {
            let _ = write!(meaning, " ({})", possible.join(", "));
        }
        let defaults: Vec<String> =
            arg.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy())).collect();
        if !defaults.is_empty() && arg.get_action().takes_values() && !arg.is_hide_default_value_set() {
            let _ = write!(meaning, " [default: {}]", defaults.join(", "));
        }
        let _ = writeln!(out, "| {} | {} |", form(arg), cell(&meaning));
    }
    out.push('\n');
}

fn form(arg: &Arg) -> String {
    if arg.is_positional() {
        return format!("`{}`", cell(&value_name(arg)));
    }
    let mut form = String::new();
    if let Some(short) = arg.get_short() {
        let _ = write!(form, "`-{short}`, ");
    }
    let long = arg.get_long().unwrap_or_default();
    if arg.get_action().takes_values() {
        let _ = write!(form, "`--{long} {}`", cell(&value_name(arg)));
    } else {
        let _ = write!(form, "`--{long}`");
    }
    form
}

fn value_name(arg: &Arg) -> String {
    arg.get_value_names()
        .and_then(|names| names.first())
        .map_or_else(|| arg.get_id().as_str().to_uppercase(), ToString::to_string)
}
