//! Who starts a run with this command, and within which trace.

use nix::unistd::{Uid, User};
use windlass_core::run::Caller;
use windlass_core::trace::Incoming;

use crate::exit::Problem;

/// Whoever gives this command. The trace is the one of `--traceparent`, else that of the variables `TRACEPARENT` and
/// `TRACESTATE`: one that is none there is told and left, and the run begins a trace of its own.
///
/// # Errors
/// A `--traceparent` that is none.
pub(crate) fn caller(given: Option<&str>) -> Result<Caller, Problem> {
    let trace = match given {
        Some(text) => Some(Incoming::parse(text, None).map_err(|error| {
            Problem::invalid(format!("`--traceparent`: {error}"))
                .hint("for example `00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01`")
        })?),
        None => surrounding(|name| std::env::var(name).ok().filter(|text| !text.trim().is_empty())),
    };
    Ok(Caller { by: Some(actor().into()), trace, version: None })
}

/// Who gives the command: as `WINDLASS_ACTOR` says, else the user of the operating system, by its number where the
/// environment and the operating system have no name for it.
#[must_use]
pub(crate) fn actor() -> String {
    let named = |name| std::env::var(name).ok().filter(|text| !text.trim().is_empty());
    let shown = |text: String| text.chars().filter(|c| !c.is_control()).collect();
    named("WINDLASS_ACTOR").or_else(|| named("USER")).or_else(|| named("LOGNAME")).map_or_else(owner_of_process, shown)
}

/// The user that this process runs as, as the operating system knows it.
fn owner_of_process() -> String {
    let uid = Uid::current();
    User::from_uid(uid).ok().flatten().map_or_else(|| format!("uid {uid}"), |user| user.name)
}

/// The trace that the variables name.
fn surrounding(said: impl Fn(&str) -> Option<String>) -> Option<Incoming> {
    let parent = said("TRACEPARENT")?;
    match Incoming::parse(&parent, said("TRACESTATE").as_deref()) {
        Ok(incoming) => Some(incoming),
        Err(error) => {
            tracing::warn!("`TRACEPARENT` is not followed, and the run begins a trace of its own: {error}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variables_name_a_trace_or_none() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let said = |name: &str| (name == "TRACEPARENT").then(|| parent.to_owned());
        assert_eq!(surrounding(said), Incoming::parse(parent, None).ok());
        assert_eq!(surrounding(|_| None), None);
        assert_eq!(surrounding(|_| Some("00-x".into())), None);
    }
}
