//! Who starts a run with this command, and within which trace.

use windlass_core::run::Caller;
use windlass_core::trace::Incoming;

use crate::app::App;
use crate::exit::Problem;

/// Whoever gives this command. The trace is the one of `--traceparent`, else that of the variables `TRACEPARENT` and
/// `TRACESTATE`: one that is none there is told and left, and the run begins a trace of its own.
///
/// # Errors
/// A `--traceparent` that is none.
pub(crate) fn caller(app: &App, given: Option<&str>) -> Result<Caller, Problem> {
    let trace = match given {
        Some(text) => Some(Incoming::parse(text, None).map_err(|error| {
            Problem::invalid(format!("`--traceparent`: {error}"))
                .hint("for example `00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01`")
        })?),
        None => surrounding(|name| std::env::var(name).ok().filter(|text| !text.trim().is_empty())),
    };
    Ok(Caller { by: Some(app.actor().into()), trace })
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
