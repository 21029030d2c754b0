//! `windlass run --key`: at most one unfinished run of a key, or the last of many submissions.

use std::time::Duration;

use serde_json::json;
use windlass_core::time::Timestamp;
use windlass_runtime::keys::{KeyMode, WAIT_WINDOWS_DEFAULT};
use windlass_runtime::{KeyError, Keyed, Submission, Submitted};

use crate::app::App;
use crate::args;
use crate::exit::{Exit, Problem};
use crate::outcome;
use crate::output::time;
use crate::session::Session;

/// What became of a submission with a key.
pub(super) enum Under {
    /// This is the run to go on with.
    Submitted(Submitted),
    /// The person has the answer.
    Answered(Exit),
}

/// Submits under a key, and waits for a debounce when nobody else is to begin the run.
///
/// # Errors
/// Another run of the key is unfinished and is not wanted, a key that cannot be used, a store that fails.
pub(super) async fn submit(
    app: &App,
    session: &Session,
    submission: Submission,
    key: &str,
    args: &args::Run,
) -> Result<Under, Problem> {
    let returns = match args.keyed.if_running.as_deref() {
        None | Some("refuse") => false,
        Some("return") => true,
        Some(other) => {
            return Err(Problem::invalid(format!("`--if-running`: `{other}` is neither `refuse` nor `return`")));
        }
    };
    let tenant = submission.scope.tenant.clone();
    let mode = match args.keyed.debounce {
        None => KeyMode::Singleton,
        Some(window) => KeyMode::Debounce {
            window_ms: window.0,
            max_wait_ms: args.keyed.max_wait.map_or(window.0.saturating_mul(WAIT_WINDOWS_DEFAULT), |wait| wait.0),
        },
    };
    match session.engine.submit_keyed(submission, key, mode).await.map_err(problem)? {
        Keyed::Submitted(submitted) => Ok(Under::Submitted(submitted)),
        Keyed::Running(head) if returns => {
            if args.detach {
                let (run, status) = (head.id.as_str(), head.status.as_str());
                app.output.sentence(&json!({ "run_id": run, "status": status }), &format!("{run} is {status}"));
                return Ok(Under::Answered(Exit::Ok));
            }
            session.follow(app, &head.id).await.map(Under::Answered)
        }
        Keyed::Running(head) => {
            let text = format!("run `{}` of the key `{key}` is unfinished: it is {}", head.id, head.status.as_str());
            Err(Problem::rejected(text)
                .hint("`--if-running return` goes on with that run")
                .detail("run_id", head.id.as_str()))
        }
        Keyed::Waiting { run, due, replaced } if args.detach => {
            let value = json!({
                "run_id": run.as_str(),
                "status": "debounced",
                "due": time(due),
                "replaced": replaced,
            });
            let text = format!("{run} begins at {}, unless another one comes; `windlass serve` begins it", time(due));
            app.output.sentence(&value, &text);
            Ok(Under::Answered(Exit::Ok))
        }
        Keyed::Waiting { run, due, .. } => {
            begin(app, session, &tenant, key, due).await?;
            session.follow(app, &run).await.map(Under::Answered)
        }
    }
}

/// Waits until the last word is spoken, here or by others, and begins the run.
async fn begin(app: &App, session: &Session, tenant: &str, key: &str, due: Timestamp) -> Result<(), Problem> {
    let mut then = Some(due);
    while let Some(due) = then {
        let clock = &session.engine.parts().clock;
        let pause = Duration::from_millis(due.since_ms(clock.now()).max(1));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = tokio::signal::ctrl_c() => {
                app.output.note("interrupted; `windlass serve` begins the run");
                return Err(Problem::new(Exit::Interrupted, "run.cancelled", "interrupted before the run began"));
            }
        }
        then = session.engine.begin(tenant, key).await?;
    }
    Ok(())
}

fn problem(error: KeyError) -> Problem {
    let text = error.to_string();
    match error {
        KeyError::Submit(error) => outcome::submit_problem(error),
        KeyError::Key(_) => Problem::invalid(format!("`--key`: {text}")),
        KeyError::Window(_) | KeyError::TooLarge { .. } => Problem::invalid(text),
        KeyError::Contended(_) => Problem::rejected(text).hint("try again"),
    }
}
