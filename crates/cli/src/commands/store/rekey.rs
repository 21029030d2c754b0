//! `windlass store rekey`: every value is encrypted with the active key.

use std::io::{IsTerminal, Write};

use serde_json::json;
use windlass_stores::{Progress, Rekeyed};

use crate::app::App;
use crate::args;
use crate::commands::secrets;
use crate::exit::{Exit, Problem};
use crate::output::Form;
use crate::session;

/// Values between two lines of progress where nobody looks at a terminal.
const TOLD_EVERY: u64 = 10_000;

/// Encrypts every value, and the file of secrets, with the active key.
pub(crate) async fn rekey(app: &App, args: args::StoreRekey) -> Result<Exit, Problem> {
    let options = app.options()?;
    let Some(keys) = options.keys.clone() else {
        return Err(Problem::new(Exit::Invalid, "cli.config", "there is no key to encrypt with")
            .hint("`[encryption]` in the configuration names it; see docs/encryption.md"));
    };
    let keys = if args.from_plain { keys.with_plain() } else { keys };
    let options = windlass_stores::Options { keys: Some(keys), ..options };
    let is_shown = std::io::stderr().is_terminal();
    let form = app.output.form();
    let mut told = 0;
    let progress = move |progress: Progress| tell(progress, is_shown, form, &mut told);
    let rekeyed = windlass_stores::rekey(app.store_url(), options, progress).await;
    if is_shown {
        say("\r\u{1b}[K");
    }
    let rekeyed = rekeyed?;
    let secrets = session::secrets(app).rekey().map_err(secrets::problem)?;
    let Rekeyed { key, from_plain, values, retired, remains } = rekeyed;
    let value = json!({
        "store": app.shown_store(), "key": key, "from_plain": from_plain, "values": values, "retired": retired,
        "secrets": secrets, "remains": remains,
    });
    let mut text =
        format!("everything in `{}` is encrypted with key `{key}`: {values} values by this call", app.shown_store());
    if secrets {
        text.push_str("\nso is the file of secrets");
    }
    if !retired.is_empty() {
        let retired = retired.join("`, `");
        text.push_str(&format!(
            "\nno value is of key `{retired}`; older backups are, keep it as long as you keep them"
        ));
    }
    if let Some(remains) = &remains {
        text.push_str(&format!("\n{remains}"));
    }
    app.output.sentence(&value, &text);
    if !retired.is_empty() || from_plain {
        app.output.note(&format!(
            "the file of secrets of every other host (`{}` there) cannot be seen from here: run `windlass store rekey` on each \
             host before a key is taken away",
            session::secrets(app).path().display()
        ));
    }
    Ok(Exit::Ok)
}

/// Says how far it is: on a terminal in one line, in a log now and then, as a line of JSON where JSON is asked for.
fn tell(progress: Progress, is_shown: bool, form: Form, told: &mut u64) {
    let Progress { table, values } = progress;
    let line = match form {
        Form::Text if is_shown => format!("\r\u{1b}[K{values} values encrypted, at `{table}`"),
        _ if values < *told + TOLD_EVERY => return,
        Form::Text => format!("{values} values encrypted, at `{table}`\n"),
        Form::Json => format!("{}\n", json!({ "progress": { "table": table, "values": values } })),
    };
    *told = values;
    say(&line);
}

fn say(text: &str) {
    let mut stderr = std::io::stderr().lock();
    // Nobody is left to be told.
    let _gone = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}
