//! Asks a LiteLLM proxy, a server written by others, by the formats of OpenAI and Anthropic: whole and streamed answers,
//! and refusals. `cargo xtask ci litellm` starts the proxy. Arguments: its address and its key.

use std::time::{Duration, Instant};

use windlass_core::effect::Spent;
use windlass_core::failure::Code;
use windlass_core::machine::Priority;
use windlass_core::request::ModelRequest;
use windlass_core::transcript::{Finish, Message};
use windlass_core::value::Value;
use windlass_models::keys::Keys;
use windlass_models::{Models, ProviderSettings};
use windlass_ports::model::{Model, ModelResult};

/// How long the proxy may take to start.
const START_MAX: Duration = Duration::from_secs(180);
/// What it answers, by its configuration.
const ANSWER: &str = "The answer is 42.";

/// A question and what has to come of it.
struct Case {
    provider: &'static str,
    model: &'static str,
    expected: Result<(), Code>,
}

const fn case(provider: &'static str, model: &'static str, expected: Result<(), Code>) -> Case {
    Case { provider, model, expected }
}

const CASES: &[Case] = &[
    case("openai", "answers", Ok(())),
    case("anthropic", "answers-anthropic", Ok(())),
    case("openai", "limited", Err(Code::ProviderRateLimited)),
    case("anthropic", "limited", Err(Code::ProviderRateLimited)),
    case("openai", "broken", Err(Code::ProviderUnavailable)),
    case("anthropic", "broken", Err(Code::ProviderUnavailable)),
    case("openai", "long", Err(Code::ProviderContextLength)),
    case("openai", "none-such", Err(Code::ProviderInvalidRequest)),
    case("anthropic", "none-such", Err(Code::ProviderInvalidRequest)),
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(address), Some(key)) = (words.next(), words.next()) else {
        return Err("name the address and the key of the proxy".into());
    };
    until_up(&address, &key).await?;
    let mut wrong = Vec::new();
    for case in CASES {
        for stream in [false, true] {
            let result = ask(&address, &key, case, stream).await;
            if let Err(why) = judge(case, &result) {
                wrong.push(format!("{} {} (streamed: {stream}): {why}", case.provider, case.model));
            }
        }
    }
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(wrong.join("\n").into()),
    }
}

/// Waits until the proxy answers anything.
async fn until_up(address: &str, key: &str) -> Result<(), String> {
    let began = Instant::now();
    loop {
        match ask(address, key, &CASES[0], false).await.outcome {
            Err(failure) if failure.code == Code::ProviderUnreachable => {}
            _ => return Ok(()),
        }
        if began.elapsed() > START_MAX {
            return Err(format!("the proxy at `{address}` does not answer"));
        }
        // Slow on purpose: a program of others starts in its own time.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn ask(address: &str, key: &str, case: &Case, stream: bool) -> ModelResult {
    let base_url = format!("{address}/v1");
    let settings =
        ProviderSettings { base_url: Some(base_url.clone()), api_key: Some(key.into()), ..ProviderSettings::default() };
    let models = Models::builder().keys(Keys::default()).provider(case.provider, settings).build();
    let request = ModelRequest {
        agent: "asker".into(),
        provider: case.provider.into(),
        model: case.model.into(),
        base_url: Some(base_url.into()),
        key: None,
        messages: vec![Message::User { content: "What is the answer?".into() }],
        files: vec![],
        tools: vec![],
        output_schema: None,
        max_tokens: Some(100),
        params: Value::Null,
        stream,
        timeout_ms: 60_000,
        idempotency_key: "run/1".into(),
        tenant: "default".into(),
        priority: Priority::Normal,
        trace: None,
        repeat: false,
        denied: Vec::new(),
        link: None,
    };
    models.call(request).await
}

fn judge(case: &Case, result: &ModelResult) -> Result<(), String> {
    match (&result.outcome, case.expected) {
        (Ok(reply), Ok(())) => {
            let text = reply.content.to_string();
            if text != ANSWER || reply.finish != Finish::Stop {
                return Err(format!("answered `{text}` and ended with {:?}", reply.finish));
            }
            match (reply.usage.input, reply.usage.output) {
                (Some(input), Some(output)) if input > 0 && output > 0 => Ok(()),
                usage => Err(format!("the usage is {usage:?}")),
            }
        }
        (Err(failure), Err(code)) if failure.code == code => match result.spent {
            Spent::Nothing => Ok(()),
            other => Err(format!("a refusal costs {other:?}")),
        },
        (Ok(_), Err(code)) => Err(format!("it is answered, and {code} was expected")),
        (Err(failure), _) => Err(failure.to_string()),
    }
}
