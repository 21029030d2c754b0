//! The providers this build knows by name, and what each of them speaks.

use serde::Deserialize;
use windlass_core::file::Medium;

use crate::anthropic::Anthropic;
use crate::bedrock::Bedrock;
use crate::gemini::Gemini;
use crate::keys::variable;
use crate::ollama::Ollama;
use crate::openai::OpenAi;
use crate::responses::Responses;
use crate::wire::{StructuredOutput, Wire};

/// The parameter by which a request asks for a service tier.
pub(crate) const SERVICE_TIER: &str = "service_tier";

/// What a provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Answers from a script.
    Scripted,
    /// OpenAI chat completions, which most servers speak.
    #[serde(rename = "openai")]
    OpenAi,
    /// Anthropic messages.
    Anthropic,
    /// OpenAI responses.
    #[serde(rename = "openai_responses")]
    OpenAiResponses,
    /// Gemini `generateContent`.
    Gemini,
    /// Amazon Bedrock `Converse`, with an API key of Bedrock.
    Bedrock,
    /// Ollama's own API.
    Ollama,
}

impl Kind {
    pub(crate) fn wire(self) -> Option<&'static dyn Wire> {
        match self {
            Self::Scripted => None,
            Self::OpenAi => Some(&OpenAi),
            Self::Anthropic => Some(&Anthropic),
            Self::OpenAiResponses => Some(&Responses),
            Self::Gemini => Some(&Gemini),
            Self::Bedrock => Some(&Bedrock),
            Self::Ollama => Some(&Ollama),
        }
    }
}

/// The model parameter that names the region of Bedrock.
pub(crate) const REGION: &str = "region";

/// A provider that is known by name.
#[derive(Clone, Copy, Debug)]
pub struct Provider {
    /// Its name in documents.
    pub name: &'static str,
    /// What it speaks.
    pub kind: Kind,
    /// Its address.
    pub base_url: Option<&'static str>,
    /// How it takes output schemas at that address.
    pub structured_output: StructuredOutput,
    /// Whether it answers nobody without a key at that address.
    pub needs_key: bool,
    /// The files that it takes.
    pub takes: &'static [Medium],
}

/// What servers take that nothing else is known about: many models look at images, and few servers read documents.
pub(crate) const TAKES_DEFAULT: &[Medium] = &[Medium::Image];
/// What the providers with formats of their own take.
pub(crate) const TAKES_BOTH: &[Medium] = &[Medium::Image, Medium::Pdf];

const fn compatible(name: &'static str, base_url: &'static str) -> Provider {
    let (kind, structured_output) = (Kind::OpenAi, StructuredOutput::Object);
    Provider { name, kind, base_url: Some(base_url), structured_output, needs_key: true, takes: TAKES_DEFAULT }
}

/// A provider whose models read text only.
const fn text_only(name: &'static str, base_url: &'static str) -> Provider {
    Provider { takes: &[], ..compatible(name, base_url) }
}

const fn own(kind: Kind, name: &'static str, base_url: &'static str, structured_output: StructuredOutput) -> Provider {
    Provider { name, kind, base_url: Some(base_url), structured_output, needs_key: true, takes: TAKES_BOTH }
}

/// Every provider that is known by name. Any other name is an OpenAI-compatible server, once it has an address.
pub const ALL: &[Provider] = &[
    Provider {
        name: "scripted",
        kind: Kind::Scripted,
        base_url: None,
        structured_output: StructuredOutput::Off,
        needs_key: false,
        takes: TAKES_BOTH,
    },
    own(Kind::OpenAi, "openai", "https://api.openai.com/v1", StructuredOutput::Schema),
    own(Kind::OpenAiResponses, "openai-responses", "https://api.openai.com/v1", StructuredOutput::Schema),
    own(Kind::Anthropic, "anthropic", "https://api.anthropic.com/v1", StructuredOutput::Schema),
    own(Kind::Gemini, "gemini", "https://generativelanguage.googleapis.com/v1beta", StructuredOutput::Schema),
    own(Kind::Gemini, "google", "https://generativelanguage.googleapis.com/v1beta", StructuredOutput::Schema),
    own(Kind::Bedrock, "bedrock", "https://bedrock-runtime.us-east-1.amazonaws.com", StructuredOutput::Off),
    text_only("cerebras", "https://api.cerebras.ai/v1"),
    text_only("deepseek", "https://api.deepseek.com/v1"),
    compatible("groq", "https://api.groq.com/openai/v1"),
    compatible("mistral", "https://api.mistral.ai/v1"),
    compatible("openrouter", "https://openrouter.ai/api/v1"),
    compatible("together", "https://api.together.xyz/v1"),
    compatible("xai", "https://api.x.ai/v1"),
    Provider {
        needs_key: false,
        takes: TAKES_DEFAULT,
        ..own(Kind::Ollama, "ollama", "http://localhost:11434", StructuredOutput::Schema)
    },
];

/// The environment variables that hold keys of the known providers, for a caller that reads the environment.
pub fn key_variables() -> impl Iterator<Item = String> {
    ALL.iter().filter(|p| p.needs_key).map(|p| variable(p.name))
}
