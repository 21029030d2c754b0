//! The suite of the model port on every adapter.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::TcpSocket;
use windlass_core::machine::ModelSettings;
use windlass_core::transcript::Usage;
use windlass_core::value::Value;
use windlass_models::Models;
use windlass_models::scripted::{Script, Scripts};
use windlass_ports::BoxFuture;
use windlass_ports::conformance::model::{BROKEN_ARGUMENTS, Behaviour, Subject, TEXT, TOOL, USAGE, exercise};
use windlass_ports::model::{Model, ModelResult};

use crate::formats::{Format, Why};
use crate::server::{Act, End, Seen, Server};

/// Keeps every server of its checks; the last one is the one that is waited on.
struct OverHttp {
    format: Format,
    servers: Mutex<Vec<Arc<Server>>>,
    absent: TcpSocket,
}

impl OverHttp {
    fn new(format: Format) -> Self {
        let absent = TcpSocket::new_v4().expect("a socket");
        absent.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        Self { format, servers: Mutex::default(), absent }
    }

    fn last(&self) -> Arc<Server> {
        let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(servers.last().expect("a server"))
    }
}

impl Subject for OverHttp {
    fn model(&self, behaviour: Behaviour) -> Option<(Arc<dyn Model>, ModelSettings)> {
        let format = self.format;
        answer(format, behaviour, false).or_else(|| answer(format, behaviour, true))?;
        let server = Arc::new(Server::start(move |seen| act(format, behaviour, seen)));
        let url = match behaviour {
            Behaviour::Absent => format!("http://{}/v2", self.absent.local_addr().expect("an address")),
            _ => format.base(&server),
        };
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).push(server);
        Some((Arc::new(Models::builder().build()), settings(format.provider(), format.model(), Some(&url))))
    }

    fn usage(&self) -> Usage {
        match self.format {
            // Nothing is said about caches.
            Format::Ollama => Usage { input: Some(200), cache_read: None, ..USAGE },
            Format::OpenAi | Format::Anthropic | Format::Responses | Format::Gemini | Format::Bedrock => USAGE,
        }
    }

    fn arrived(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.last().arrived().await })
    }

    fn quiet(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.last().quiet().await })
    }
}

fn settings(provider: &str, model: &str, base_url: Option<&str>) -> ModelSettings {
    ModelSettings {
        provider: provider.into(),
        model: model.into(),
        base_url: base_url.map(Into::into),
        key: None,
        max_tokens: Some(100),
        stream: false,
        params: Value::Null,
        timeout_ms: 1_000,
    }
}

fn act(format: Format, behaviour: Behaviour, seen: &Seen) -> Act {
    let streamed = format.is_streamed(&seen.path, &seen.body);
    answer(format, behaviour, streamed).unwrap_or_else(|| panic!("{format:?} cannot do {behaviour:?}: {streamed}"))
}

/// What a server of a format does; none where it cannot do so.
fn answer(format: Format, behaviour: Behaviour, streamed: bool) -> Option<Act> {
    let error = |status: u16, message: &str| {
        Act::json(status, &format!(r#"{{"error":{{"message":"{message}","type":"some_error","code":null}}}}"#))
    };
    let middle = |answer: Act| match &answer {
        Act::Answer { body, .. } => End::Cut(body.len() / 2),
        Act::Drop | Act::Reset | Act::Hang => End::Whole,
    };
    Some(match behaviour {
        Behaviour::Says => format.says(TEXT, Why::Done, true, streamed)?,
        Behaviour::CallsTools => format.calls(TOOL, &[("one", r#"{"n":1}"#), ("two", r#"{"n":2}"#)], streamed)?,
        Behaviour::BreaksArguments => format.calls(TOOL, &[("one", BROKEN_ARGUMENTS)], streamed)?,
        Behaviour::CountsNothing => format.says(TEXT, Why::Done, false, streamed)?,
        Behaviour::RunsOut => format.says(TEXT, Why::Length, true, streamed)?,
        Behaviour::Filters => format.says(TEXT, Why::Filter, true, streamed)?,
        Behaviour::Limits => error(429, "slow down").header("retry-after", "7"),
        Behaviour::Fails => error(500, "oops"),
        Behaviour::Locks => error(401, "who are you"),
        Behaviour::Refuses => error(400, "what is that"),
        Behaviour::FindsTooLong => error(400, "prompt is too long: 300000 tokens"),
        Behaviour::BreaksOff => {
            let answer = format.says(TEXT, Why::Done, true, streamed)?;
            let end = middle(answer.clone());
            answer.end(end)
        }
        Behaviour::Babbles => format.babble(streamed),
        Behaviour::Hangs | Behaviour::Absent => Act::Hang,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn openai() {
    exercise(|| OverHttp::new(Format::OpenAi)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn anthropic() {
    exercise(|| OverHttp::new(Format::Anthropic)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openai_responses() {
    exercise(|| OverHttp::new(Format::Responses)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gemini() {
    exercise(|| OverHttp::new(Format::Gemini)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bedrock() {
    exercise(|| OverHttp::new(Format::Bedrock)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ollama() {
    exercise(|| OverHttp::new(Format::Ollama)).await;
}

struct ByScript;

const RATES: &str = "prices: {demo: {input: 3000000, output: 15000000}}\n";

impl Subject for ByScript {
    fn model(&self, behaviour: Behaviour) -> Option<(Arc<dyn Model>, ModelSettings)> {
        let text = quoted(TEXT);
        let broken = quoted(BROKEN_ARGUMENTS);
        let usage = "usage: {input: 120, cache_read: 80, output: 30}";
        let reply = match behaviour {
            Behaviour::Says => format!("{{content: {text}, {usage}}}"),
            Behaviour::CallsTools => format!(
                "{{tool_calls: [{{id: one, name: {TOOL}, arguments: {{n: 1}}}}, {{id: two, name: {TOOL}, arguments: {{n: 2}}}}]}}"
            ),
            Behaviour::BreaksArguments => format!("{{tool_calls: [{{name: {TOOL}, arguments: {broken}}}]}}"),
            Behaviour::CountsNothing => format!("{{content: {text}, no_usage: true}}"),
            Behaviour::RunsOut => format!("{{content: {text}, finish: length}}"),
            Behaviour::Filters => format!("{{content: {text}, finish: content_filter}}"),
            Behaviour::Limits => "{status: 429, retry_after: 7}".to_owned(),
            Behaviour::Fails => "{status: 500}".to_owned(),
            Behaviour::Locks => "{status: 401}".to_owned(),
            Behaviour::Refuses => "{status: 400}".to_owned(),
            Behaviour::FindsTooLong => "{fault: context_length}".to_owned(),
            Behaviour::BreaksOff => format!("{{content: {text}, fault: cut}}"),
            Behaviour::Babbles => format!("{{content: {text}, fault: malformed}}"),
            Behaviour::Hangs => "{fault: timeout}".to_owned(),
            Behaviour::Absent => "{fault: connection_refused}".to_owned(),
        };
        let script = Script::parse(&format!("{RATES}default: {reply}\n")).expect("a script");
        let models = Models::builder().scripts(Scripts::default().default_script(script)).build();
        Some((Arc::new(models), settings("scripted", "demo", None)))
    }

    fn arrived(&self) -> BoxFuture<'_, ()> {
        Box::pin(tokio::task::yield_now())
    }

    fn quiet(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

fn quoted(text: &str) -> String {
    Value::str(text).to_json()
}

#[tokio::test(start_paused = true)]
async fn scripted() {
    exercise(|| ByScript).await;
}

/// Takes every broken stream for a whole answer.
#[derive(Debug)]
struct Credulous(Arc<dyn Model>);

impl Model for Credulous {
    fn call(&self, request: windlass_core::request::ModelRequest) -> BoxFuture<'_, ModelResult> {
        Box::pin(async move {
            let result = self.0.call(request.clone()).await;
            match result.outcome {
                Ok(_) => result,
                Err(_) => {
                    let whole = Script::parse("default: {content: half, no_usage: true}").expect("a script");
                    let models = Models::builder().scripts(Scripts::default().default_script(whole)).build();
                    models.call(request).await
                }
            }
        })
    }

    fn quote(&self, settings: &ModelSettings) -> Option<windlass_core::input::Quote> {
        self.0.quote(settings)
    }
}

struct Broken;

impl Subject for Broken {
    fn model(&self, behaviour: Behaviour) -> Option<(Arc<dyn Model>, ModelSettings)> {
        let (model, settings) = ByScript.model(behaviour)?;
        Some((Arc::new(Credulous(model)), settings))
    }

    fn arrived(&self) -> BoxFuture<'_, ()> {
        ByScript.arrived()
    }

    fn quiet(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "a failure was expected")]
async fn an_adapter_that_takes_half_an_answer_fails_the_suite() {
    windlass_ports::conformance::model::half_an_answer_is_a_failure(&Broken, true).await;
}
