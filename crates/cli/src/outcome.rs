//! How a run ended, as the document that `run` and `resume` print, and as an exit code. Values that contracts hide are
//! not in it.

use serde_json::{Value as Json, json};
use windlass_core::effect::tool_of_channel;
use windlass_core::failure::Code;
use windlass_core::ids::RunId;
use windlass_core::input::Ending;
use windlass_core::limits::VALUE_BYTES_MAX;
use windlass_runtime::{EngineError, Report, SubmitError, Waiting};

use crate::exit::{Exit, Problem};
use crate::output::time;

/// The document and the exit code of a run.
#[must_use]
pub(crate) fn of(report: &Report) -> (Json, Exit) {
    let run_id = report.run.id().as_str();
    let veil = report.run.hidden.veil();
    match &report.run.ending {
        Some(Ending::Completed { output }) if report.head.status.is_final() => {
            let mut output = Json::from(output);
            veil.json(&mut output);
            (output, Exit::Ok)
        }
        Some(Ending::Failed { failure, state }) if report.head.status.is_final() => {
            let mut error = json!({
                "code": failure.code.as_str(),
                "message": &*failure.message,
                "state": state.as_deref(),
                "type": &*failure.display_type(),
            });
            if let (Json::Object(map), Some(status)) = (&mut error, failure.status) {
                map.insert("status".into(), status.into());
            }
            if let (Json::Object(map), false) = (&mut error, failure.detail.is_null()) {
                map.insert("detail".into(), Json::from(&failure.detail));
            }
            veil.json(&mut error);
            (json!({ "error": error, "run_id": run_id }), Exit::Failed)
        }
        Some(Ending::Cancelled { reason }) if report.head.status.is_final() => {
            let error =
                json!({ "code": "run.cancelled", "message": veil.shown(reason), "state": report.run.state.as_deref() });
            (json!({ "error": error, "run_id": run_id }), Exit::Failed)
        }
        _ => {
            let waits: Vec<Json> = report.waits.iter().map(wait).collect();
            (json!({ "run_id": run_id, "status": status(report), "waits": veil.document(&waits) }), Exit::Parked)
        }
    }
}

/// The run's own status, as everywhere else: `attention` when a person must decide, `waiting` for the rest. A run that
/// waits for its children reads `waiting`, whatever they wait for and whoever drives it meanwhile.
fn status(report: &Report) -> &'static str {
    use windlass_core::run::Status;
    match report.head.status {
        held @ (Status::Paused | Status::Attention | Status::Quarantined) => held.as_str(),
        _ => Status::Waiting.as_str(),
    }
}

/// One wait: `{"kind", "run_id", "channel"?, "approval"?, "at"?}`.
#[must_use]
pub(crate) fn wait(wait: &Waiting) -> Json {
    let mut json = json!({ "kind": &*wait.kind, "run_id": wait.run.as_str() });
    if let Json::Object(map) = &mut json {
        if let Some(channel) = &wait.channel {
            map.insert("channel".into(), (**channel).into());
        }
        if let Some(approval) = &wait.approval {
            map.insert("approval".into(), (**approval).into());
        }
        if let Some(at) = wait.at {
            map.insert("at".into(), time(at).into());
        }
    }
    json
}

/// One wait as words.
#[must_use]
pub(crate) fn described(wait: &Waiting) -> String {
    let until = wait.at.map(|at| format!(" until {}", time(at))).unwrap_or_default();
    if let Some(approval) = &wait.approval {
        return format!("a person who approves `{approval}`{until} (run {})", wait.run);
    }
    match (&*wait.kind, &wait.channel) {
        ("tool_changed", Some(channel)) => {
            let (server, tool) = tool_of_channel(channel).unwrap_or_default();
            format!("a decision about `{tool}` of `{server}`, which is not what was accepted (run {})", wait.run)
        }
        ("signal", Some(channel)) => format!("a signal on `{channel}`{until} (run {})", wait.run),
        (kind, Some(channel)) => {
            format!("a person, about an {kind}, who answers on `{channel}`{until} (run {})", wait.run)
        }
        ("timer", None) => format!("a time{} (run {})", until.replace(" until", ""), wait.run),
        (kind, None) => format!("{kind} (run {})", wait.run),
    }
}

/// What a person says of a call that may have happened; its result goes beside it.
const OUTCOME: &str = "'{\"happened\": true|false, \"result\": JSON}'";

/// How a run goes on that is parked. `flags` are those that another command needs to find the same store.
#[must_use]
pub(crate) fn advice(report: &Report, flags: &str) -> String {
    use windlass_core::run::Status;
    let run = report.run.id();
    if report.head.status == Status::Paused {
        return format!("go on with: windlass runs unpause {run}{flags} && windlass resume {run}{flags}");
    }
    if let Some(approval) = report.waits.iter().find_map(|wait| wait.approval.as_deref()) {
        let approval = quoted(approval);
        return format!("go on with: windlass approvals approve {approval}{flags} && windlass resume {run}{flags}");
    }
    if let Some((server, tool)) = report.waits.iter().find_map(|wait| tool_of_channel(wait.channel.as_deref()?)) {
        return format!("{}, then windlass resume {run}{flags}", changed(server, tool, flags));
    }
    if let Some((wait, channel)) = report.waits.iter().find_map(|wait| Some((wait, wait.channel.as_deref()?))) {
        let channel = quoted(channel);
        let data = if &*wait.kind == "outcome" { OUTCOME } else { "JSON" };
        return format!("go on with: windlass signal {channel} --data {data}{flags} && windlass resume {run}{flags}");
    }
    for (held, order) in [
        (Status::Paused, "unpause"),
        (Status::Quarantined, "requeue"),
        // Whoever lifts it says that what was wrong is mended.
        (Status::Attention, "unpause"),
    ] {
        if let Some(held) = report.waits.iter().find(|wait| &*wait.kind == held.as_str()) {
            let held = quoted(held.run.as_str());
            return format!("go on with: windlass runs {order} {held}{flags} && windlass resume {run}{flags}");
        }
    }
    format!("go on with: windlass resume {run}{flags}")
}

/// How a call goes on whose tool is not what was accepted.
#[must_use]
pub(crate) fn changed(server: &str, tool: &str, flags: &str) -> String {
    let (server, tool) = (quoted(server), quoted(tool));
    format!(
        "look with windlass tools blocked {server}{flags}, then windlass tools accept {server} {tool}{flags} or windlass tools \
         release {server} {tool} --reason TEXT{flags}"
    )
}

/// A word as a shell takes it.
#[must_use]
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@%+=,".contains(c);
    if !word.is_empty() && !word.starts_with('-') && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// The document of a command that was interrupted.
#[must_use]
pub(crate) fn interrupted(run: &RunId) -> Json {
    json!({ "run_id": run.as_str(), "status": "interrupted" })
}

/// A failure of the engine as a problem of the command.
#[must_use]
pub(crate) fn engine_problem(error: EngineError) -> Problem {
    match error {
        EngineError::Store(error) => error.into(),
        EngineError::Fold { .. } => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(inner) = source {
                text.push_str(&format!(": {inner}"));
                source = inner.source();
            }
            Problem::new(Exit::Unreachable, "store.corrupt", text)
                .hint("`windlass fsck` lists what is damaged; restore a copy made by `windlass store backup`")
        }
        EngineError::Stranded { .. } => Problem::new(Exit::Bug, "internal.invariant", error.to_string()),
        EngineError::Rejected { reason, run } => Problem::rejected(format!("run `{run}`: {reason}")),
        EngineError::NotFound(run) => Problem::unknown_run(run.as_str()),
    }
}

fn too_large(message: String) -> Problem {
    Problem::new(Exit::Invalid, "run.too_large", message)
        .hint("pass a reference to the data, such as a path or an address, instead of the data")
}

/// A submission that was refused, as a problem of the command.
#[must_use]
pub(crate) fn submit_problem(error: SubmitError) -> Problem {
    match error {
        SubmitError::Store(error) => error.into(),
        SubmitError::Conflict { .. } => Problem::rejected(error.to_string())
            .hint("use another `--run-id`, or `windlass resume` to go on with the run that is there"),
        SubmitError::Full { .. } => Problem::new(Exit::Denied, Code::QueueFull.as_str(), error.to_string())
            .hint("send it again when some of the waiting runs have been worked off, or start more workers"),
        SubmitError::File(_) => Problem::new(Exit::Invalid, Code::RunBadInput.as_str(), error.to_string())
            .hint("a file is {\"$file\": {\"name\": …, \"data\": … in base64}}; leave out `bytes`, `sha256` and `mime` to have them told by the content, or give the file with `--file KEY=PATH`"),
        SubmitError::Pool { .. } => Problem::invalid(error.to_string()),
        SubmitError::Id { source, .. } => Problem::invalid(source.to_string()),
        SubmitError::TooLarge { bytes } => too_large(format!(
            "the input takes {bytes} bytes in memory, which is more than its text has; at most {VALUE_BYTES_MAX} are taken"
        )),
        SubmitError::TooDeep { .. } => too_large(error.to_string()),
        SubmitError::NoEntry(_) => Problem::bug(error.to_string()),
    }
}
