//! What is said to a provider, and what its answer must be. Each protocol's own page is named where it is spoken.

use lakehouse_contract::provider::ProviderKind;
use serde::Deserialize;
use serde_json::{Value, json};

/// How a kind of provider is asked for vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// <https://docs.ollama.com/api/embed>
    Ollama,
    /// <https://platform.openai.com/docs/api-reference/embeddings>
    OpenAi,
    /// <https://docs.voyageai.com/reference/embeddings-api>
    Voyage,
}

/// A model that an Ollama server has.
#[derive(Debug, Deserialize)]
pub(super) struct Tag {
    pub(super) name: String,
    pub(super) digest: String,
}

#[derive(Deserialize)]
struct Tags {
    models: Vec<Tag>,
}

#[derive(Deserialize)]
struct OllamaAnswer {
    embeddings: Vec<Vec<f32>>,
}

#[derive(Deserialize)]
struct OpenAiAnswer {
    data: Vec<OpenAiVector>,
}

#[derive(Deserialize)]
struct OpenAiVector {
    index: usize,
    embedding: Vec<f32>,
}

impl Protocol {
    pub(super) fn of(kind: ProviderKind) -> Self {
        match kind {
            ProviderKind::Ollama | ProviderKind::OllamaCloud => Self::Ollama,
            // Anthropic has no embeddings; its words to this say so.
            ProviderKind::OpenAI
            | ProviderKind::OpenRouter
            | ProviderKind::OpenCode
            | ProviderKind::Kimi
            | ProviderKind::Anthropic => Self::OpenAi,
            ProviderKind::Voyage => Self::Voyage,
        }
    }

    /// Below its base address.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Ollama => "api/embed",
            Self::OpenAi | Self::Voyage => "embeddings",
        }
    }

    /// Texts in one request: fewer than each allows, so that one that fails costs little.
    pub(super) fn max_texts(self) -> usize {
        match self {
            Self::Ollama => 64,
            Self::OpenAi => 256,
            Self::Voyage => 128,
        }
    }

    /// Wherever a protocol would cut a text that is too long without a word, it is told to refuse it.
    pub(super) fn body(self, model: &str, texts: &[String]) -> Value {
        match self {
            Self::Ollama => json!({ "model": model, "input": texts, "truncate": false }),
            Self::OpenAi => json!({ "model": model, "input": texts, "encoding_format": "float" }),
            Self::Voyage => json!({ "model": model, "input": texts, "truncation": false }),
        }
    }

    /// One vector for each of `count` texts, in their order; else what is wrong with the answer.
    pub(super) fn vectors(self, answer: &[u8], count: usize) -> Result<Vec<Vec<f32>>, String> {
        let vectors = match self {
            Self::Ollama => parsed::<OllamaAnswer>(answer)?.embeddings,
            Self::OpenAi | Self::Voyage => {
                let mut data = parsed::<OpenAiAnswer>(answer)?.data;
                data.sort_by_key(|vector| vector.index);
                if let Some((at, other)) = data.iter().enumerate().find(|(at, vector)| vector.index != *at) {
                    return Err(format!("a vector with the index {} where {at} comes next", other.index));
                }
                data.into_iter().map(|vector| vector.embedding).collect()
            }
        };
        if vectors.len() != count {
            return Err(format!("{} vectors for {count} texts", vectors.len()));
        }
        // JSON has no NaN and no infinity, and numbers beyond 32 bits are refused where it is read.
        if let Some(at) = vectors.iter().position(Vec::is_empty) {
            return Err(format!("an empty vector at index {at}"));
        }
        Ok(vectors)
    }
}

/// The models of `GET /api/tags`.
pub(super) fn tags(answer: &[u8]) -> Result<Vec<Tag>, String> {
    Ok(parsed::<Tags>(answer)?.models)
}

fn parsed<'a, T: Deserialize<'a>>(answer: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(answer)
        .map_err(|error| format!("something that is not the JSON expected: {error}"))
}

/// The address of a kind of provider that has one.
pub(super) fn default_url(kind: ProviderKind) -> &'static str {
    match kind {
        ProviderKind::Ollama => "http://127.0.0.1:11434",
        ProviderKind::OllamaCloud => "https://ollama.com",
        ProviderKind::OpenAI => "https://api.openai.com/v1",
        ProviderKind::OpenRouter => "https://openrouter.ai/api/v1",
        ProviderKind::OpenCode => "https://opencode.ai/zen/v1",
        ProviderKind::Kimi => "https://api.moonshot.ai/v1",
        ProviderKind::Anthropic => "https://api.anthropic.com/v1",
        ProviderKind::Voyage => "https://api.voyageai.com/v1",
    }
}

/// A kind as a metric's label.
pub(super) fn label(kind: ProviderKind) -> &'static str {
    match kind {
        ProviderKind::Ollama => "ollama",
        ProviderKind::OllamaCloud => "ollama_cloud",
        ProviderKind::OpenAI => "openai",
        ProviderKind::OpenRouter => "openrouter",
        ProviderKind::OpenCode => "opencode",
        ProviderKind::Kimi => "kimi",
        ProviderKind::Anthropic => "anthropic",
        ProviderKind::Voyage => "voyage",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_put_in_the_order_of_the_texts() {
        let answer = br#"{"data": [{"index": 1, "embedding": [2]}, {"index": 0, "embedding": [1]}]}"#;
        assert_eq!(Protocol::OpenAi.vectors(answer, 2).unwrap(), [[1.0], [2.0]]);
    }

    #[test]
    fn an_answer_that_cannot_be_right_is_told_apart() {
        for (protocol, answer, said) in [
            (Protocol::Ollama, r#"{"embeddings": [[1]]}"#, "1 vectors for 2 texts"),
            (Protocol::Ollama, r#"{"embeddings": [[1], []]}"#, "empty vector at index 1"),
            (Protocol::Ollama, r#"{"embeddings": [[1], [1e39]]}"#, "number out of range"),
            (Protocol::Ollama, r#"{"embeddings": [[1], [NaN]]}"#, "not the JSON"),
            (Protocol::Ollama, r#"{"embeddings": [[1], [null]]}"#, "not the JSON"),
            (Protocol::Ollama, "<html>", "not the JSON"),
            (Protocol::OpenAi, r#"{"data": [{"index": 0, "embedding": [1]}]}"#, "1 vectors for 2 texts"),
            (
                Protocol::Voyage,
                r#"{"data": [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [1]}]}"#,
                "the index 0 where 1 comes next",
            ),
        ] {
            let wrong = protocol.vectors(answer.as_bytes(), 2).unwrap_err();
            assert!(wrong.contains(said), "{wrong}");
        }
    }
}
