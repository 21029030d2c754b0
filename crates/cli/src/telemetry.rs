//! Where spans go, as the configuration and the variables of OpenTelemetry say.

use std::collections::BTreeMap;
use std::time::Duration;

use windlass_telemetry::{Config, Exporter, Protocol};

use crate::app::App;
use crate::config::{Otlp, Telemetry};
use crate::exit::{Exit, Problem};

/// What is put after an address that is for all kinds of telemetry.
const TRACES: &str = "v1/traces";
/// How long one request may take when nothing else is said, in milliseconds.
const TIMEOUT_MS: u64 = 10_000;

/// What the variables say.
type Environment = BTreeMap<String, String>;

/// Starts to send spans, when that is switched on.
///
/// # Errors
/// A setting that cannot be used: nothing is ignored in silence.
pub(crate) fn exporter(app: &App) -> Result<Option<Exporter>, Problem> {
    let environment = std::env::vars().filter(|(name, value)| name.starts_with("OTEL_") && !value.is_empty()).collect();
    let Some(config) = config(&app.loaded.config.telemetry, &environment)? else { return Ok(None) };
    Exporter::start(config).map(Some).map_err(|error| wrong(error.to_string()))
}

fn wrong(message: String) -> Problem {
    Problem::new(Exit::Invalid, "cli.config", message).hint("docs/telemetry.md names every setting")
}

fn config(configured: &Telemetry, environment: &Environment) -> Result<Option<Config>, Problem> {
    let said = |name: &str| environment.get(name).map(String::as_str);
    let of_traces = |name: &str| {
        said(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}")).or_else(|| said(&format!("OTEL_EXPORTER_OTLP_{name}")))
    };
    if said("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    match said("OTEL_TRACES_EXPORTER") {
        None | Some("otlp") => {}
        Some("none") => return Ok(None),
        Some(other) => return Err(wrong(format!("`OTEL_TRACES_EXPORTER`: `{other}` is not `otlp` or `none`"))),
    }
    match said("OTEL_TRACES_SAMPLER") {
        None | Some("always_on" | "parentbased_always_on") => {}
        Some("always_off" | "parentbased_always_off") => return Ok(None),
        Some(other) => {
            return Err(wrong(format!(
                "`OTEL_TRACES_SAMPLER`: `{other}` is not `always_on`, `always_off` or one of them with `parentbased_`"
            )));
        }
    }
    let protocol = match of_traces("PROTOCOL") {
        None => match configured.protocol {
            None | Some(Otlp::HttpProtobuf) => Protocol::HttpProtobuf,
            Some(Otlp::Grpc) => Protocol::Grpc,
        },
        Some(word) => Protocol::parse(word).ok_or_else(|| {
            wrong(format!("`OTEL_EXPORTER_OTLP_PROTOCOL`: spans are sent as `http/protobuf` or `grpc`, not `{word}`"))
        })?,
    };
    let whole = said("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").map(str::to_owned);
    let base = said("OTEL_EXPORTER_OTLP_ENDPOINT").or(configured.endpoint.as_deref());
    let below = base.map(|base| match protocol {
        Protocol::HttpProtobuf => format!("{}/{TRACES}", base.trim_end_matches('/')),
        Protocol::Grpc => base.to_owned(),
    });
    let Some(endpoint) = whole.or(below) else { return Ok(None) };
    let timeout = match of_traces("TIMEOUT") {
        None => TIMEOUT_MS,
        Some(text) => text
            .parse()
            .map_err(|_| wrong(format!("`OTEL_EXPORTER_OTLP_TIMEOUT`: `{text}` is no number of milliseconds")))?,
    };
    refuse_others(environment)?;
    let mut resource = pairs("OTEL_RESOURCE_ATTRIBUTES", said("OTEL_RESOURCE_ATTRIBUTES"))?;
    let named = resource.iter().position(|(key, _)| key == "service.name").map(|place| resource.remove(place).1);
    let service = said("OTEL_SERVICE_NAME").map(str::to_owned).or(named).unwrap_or_else(|| "windlass".to_owned());
    Ok(Some(Config {
        endpoint,
        headers: pairs("OTEL_EXPORTER_OTLP_HEADERS", of_traces("HEADERS"))?,
        service,
        resource,
        timeout: Duration::from_millis(timeout),
        protocol,
        parent_based: said("OTEL_TRACES_SAMPLER") != Some("always_on"),
    }))
}

/// `KEY=VALUE,KEY=VALUE`. What is wrong with it is said without a value, which may be a secret.
fn pairs(name: &str, text: Option<&str>) -> Result<Vec<(String, String)>, Problem> {
    let parts = text.unwrap_or_default().split(',').map(str::trim).filter(|part| !part.is_empty());
    let pair = |part: &str| {
        let (key, value) = part.split_once('=').ok_or_else(|| wrong(format!("`{name}` is not `KEY=VALUE,…`")))?;
        let value = decoded(value.trim()).ok_or_else(|| wrong(format!("`{name}`: a value is not percent-encoded")))?;
        Ok((key.trim().to_owned(), value))
    };
    parts.map(pair).collect()
}

/// Without percent-encoding; none for what is not encoded rightly.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Settings of how spans are sent that are read.
const READ: &[&str] = &["ENDPOINT", "HEADERS", "TIMEOUT", "PROTOCOL"];

/// Refuses settings of how spans are sent that are not known here. Those of metrics and logs, which are not sent, are others'.
fn refuse_others(environment: &Environment) -> Result<(), Problem> {
    for (name, value) in environment {
        let of_spans = name.strip_prefix("OTEL_EXPORTER_OTLP_").filter(|rest| {
            !rest.starts_with("METRICS_") && !rest.starts_with("LOGS_") && !rest.starts_with("PROFILES_")
        });
        let is_read = of_spans
            .map(|rest| rest.strip_prefix("TRACES_").unwrap_or(rest))
            .map(|rest| READ.contains(&rest) || (rest == "COMPRESSION" && value == "none"));
        let is_sampling = name.starts_with("OTEL_TRACES_SAMPLER") && name != "OTEL_TRACES_SAMPLER";
        if is_sampling || is_read == Some(false) {
            return Err(wrong(format!("`{name}` is set, and cannot be followed: all spans are sent, as they are")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(configured: Option<&str>, said: &[(&str, &str)]) -> Result<Option<Config>, String> {
        let environment = said.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let configured = Telemetry { endpoint: configured.map(str::to_owned), protocol: None };
        config(&configured, &environment).map_err(|problem| problem.message)
    }

    #[test]
    fn spans_go_where_the_variables_say_and_nowhere_without_them() {
        assert!(read(None, &[]).expect("read").is_none());
        let told = read(Some("http://a:4318/"), &[]).expect("read").expect("on");
        assert_eq!((&*told.endpoint, &*told.service), ("http://a:4318/v1/traces", "windlass"));
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://b:4318");
        let told = read(
            Some("http://a:4318"),
            &[
                base,
                ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=s3cret, x=y"),
                ("OTEL_SERVICE_NAME", "pay"),
                ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,env=test"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "500"),
            ],
        );
        let told = told.expect("read").expect("on");
        assert_eq!((&*told.endpoint, &*told.service), ("http://b:4318/v1/traces", "pay"));
        assert_eq!((told.headers.len(), told.parent_based), (2, true));
        assert_eq!(told.resource, [("env".to_owned(), "test".to_owned())]);
        let whole = [base, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c/in")];
        assert_eq!(read(None, &whole).expect("read").expect("on").endpoint, "http://c/in");
        assert!(read(None, &[base, ("OTEL_SDK_DISABLED", "true")]).expect("read").is_none());
        assert!(read(None, &[base, ("OTEL_TRACES_EXPORTER", "none")]).expect("read").is_none());
        for off in ["always_off", "parentbased_always_off"] {
            assert!(read(None, &[base, ("OTEL_TRACES_SAMPLER", off)]).expect("read").is_none());
        }
        for harmless in [
            ("OTEL_TRACES_SAMPLER", "always_on"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
            ("OTEL_EXPORTER_OTLP_METRICS_COMPRESSION", "gzip"),
        ] {
            assert!(read(None, &[base, harmless]).expect("read").is_some(), "{harmless:?}");
        }
        let encoded = ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20YTpi,x=a%2Cb%3Dc+d");
        let told = read(None, &[base, encoded]).expect("read").expect("on");
        assert_eq!((&*told.headers[0].1, &*told.headers[1].1), ("Basic YTpi", "a,b=c+d"));
        let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        let told = read(None, &[base, grpc]).expect("read").expect("on");
        assert_eq!((&*told.endpoint, told.protocol), ("http://b:4318", Protocol::Grpc));
        let configured = Telemetry { endpoint: Some("http://a:4317".into()), protocol: Some(Otlp::Grpc) };
        let told = config(&configured, &Environment::new()).expect("read").expect("on");
        assert_eq!((&*told.endpoint, told.protocol), ("http://a:4317", Protocol::Grpc));
        let http = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL".to_owned(), "http/protobuf".to_owned());
        let told = config(&configured, &[http].into()).expect("read").expect("on");
        assert_eq!((&*told.endpoint, told.protocol), ("http://a:4317/v1/traces", Protocol::HttpProtobuf));
        for wrong in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "s3cret"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "key=s3cret%2"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key.pem"),
            ("OTEL_EXPORTER_OTLP_SOMETHING", "x"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.1"),
        ] {
            let refused = read(None, &[base, wrong]).expect_err("refused");
            assert!(refused.contains(wrong.0) && !refused.contains("s3cret"), "{refused}");
        }
    }
}
