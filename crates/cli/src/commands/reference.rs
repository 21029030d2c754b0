//! `windlass completions`, `config` and `docs`: what the program knows about itself.

use std::path::Path;

use clap::CommandFactory;
use serde_json::json;

use crate::app::App;
use crate::args::{self, Cli};
use crate::config::{Config, Origin, unknown_variables};
use crate::exit::{Exit, Problem};
use crate::output::{Form, Output};
use crate::reference;

/// Prints a completion script.
pub(crate) fn completions(output: Output, json: bool, args: &args::Completions) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "windlass", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    if json {
        output.document(&json!({ "shell": args.shell.to_string(), "script": script }));
    } else {
        output.text(&script);
    }
    Exit::Ok
}

/// Prints the configuration with the source of each value, or its schema.
pub(crate) fn config(app: &App, args: &args::ShowConfig) -> Exit {
    if args.schema {
        app.output.document(&Config::schema());
        return Exit::Ok;
    }
    let origins = app.loaded.origins();
    let unknown = unknown_variables();
    for name in &unknown {
        app.output.note(&format!("warning: `{name}` names no key of the configuration"));
    }
    if app.output.form() == Form::Json {
        app.output.document(&json!({
            "file": app.loaded.file.as_ref().map(|f| f.display().to_string()),
            "preset": app.loaded.config.preset.as_str(),
            "values": origins,
            "unknown_variables": unknown,
        }));
        return Exit::Ok;
    }
    let rows: Vec<Vec<String>> = origins.iter().map(row).collect();
    app.output.text(&crate::output::table(&["key", "value", "source"], &rows));
    Exit::Ok
}

fn row(origin: &Origin) -> Vec<String> {
    let value = match &origin.value {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    vec![origin.key.clone(), value, origin.source.clone()]
}

/// Writes the generated pages, or checks that they are up to date.
///
/// # Errors
/// A page that cannot be written.
pub(crate) fn docs(output: Output, args: &args::Docs) -> Result<Exit, Problem> {
    let mut stale = Vec::new();
    for (path, text) in reference::pages() {
        let target = args.dir.join(&path);
        if std::fs::read_to_string(&target).is_ok_and(|old| old == text) {
            continue;
        }
        stale.push(path);
        if !args.check {
            write(&target, &text)?;
        }
    }
    output.sentence(&json!({ "changed": stale }), &format!("{} pages changed", stale.len()));
    Ok(if args.check && !stale.is_empty() { Exit::Failed } else { Exit::Ok })
}

fn write(target: &Path, text: &str) -> Result<(), Problem> {
    let written = target.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(target, text));
    written.map_err(|error| {
        Problem::new(Exit::Unreachable, "cli.io", format!("cannot write `{}`: {error}", target.display()))
    })
}
