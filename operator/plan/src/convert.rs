//! From the words of the YAML to the words that operator and workers share, and back.
//!
//! The two sets are the same today; a match that forgets a word does not compile.

use lakehouse_contract::{ColumnType, ingest, provider::ProviderKind, vectors};
use lakehouse_crds::{chat_provider::ProviderType, dataset as spec, vector_index};

pub(crate) fn format(word: spec::Format) -> ingest::Format {
    match word {
        spec::Format::CSV => ingest::Format::CSV,
        spec::Format::NDJSON => ingest::Format::NDJSON,
        spec::Format::Parquet => ingest::Format::Parquet,
    }
}

pub(crate) fn status_format(word: ingest::Format) -> spec::Format {
    match word {
        ingest::Format::CSV => spec::Format::CSV,
        ingest::Format::NDJSON => spec::Format::NDJSON,
        ingest::Format::Parquet => spec::Format::Parquet,
    }
}

pub(crate) fn column_type(word: spec::ColumnType) -> ColumnType {
    match word {
        spec::ColumnType::Int64 => ColumnType::Int64,
        spec::ColumnType::Float64 => ColumnType::Float64,
        spec::ColumnType::Boolean => ColumnType::Boolean,
        spec::ColumnType::Date => ColumnType::Date,
        spec::ColumnType::Timestamp => ColumnType::Timestamp,
        spec::ColumnType::String => ColumnType::String,
    }
}

pub(crate) fn status_column_type(word: ColumnType) -> spec::ColumnType {
    match word {
        ColumnType::Int64 => spec::ColumnType::Int64,
        ColumnType::Float64 => spec::ColumnType::Float64,
        ColumnType::Boolean => spec::ColumnType::Boolean,
        ColumnType::Date => spec::ColumnType::Date,
        ColumnType::Timestamp => spec::ColumnType::Timestamp,
        ColumnType::String => spec::ColumnType::String,
    }
}

pub(crate) fn on_error(word: spec::OnError) -> ingest::OnError {
    match word {
        spec::OnError::Fail => ingest::OnError::Fail,
        spec::OnError::Null => ingest::OnError::Null,
        spec::OnError::Quarantine => ingest::OnError::Quarantine,
    }
}

pub(crate) fn schema_policy(word: spec::SchemaPolicy) -> ingest::SchemaPolicy {
    match word {
        spec::SchemaPolicy::Reject => ingest::SchemaPolicy::Reject,
        spec::SchemaPolicy::Evolve => ingest::SchemaPolicy::Evolve,
    }
}

pub(crate) fn write_mode(word: spec::WriteMode) -> ingest::WriteMode {
    match word {
        spec::WriteMode::Replace => ingest::WriteMode::Replace,
        spec::WriteMode::Append => ingest::WriteMode::Append,
    }
}

pub(crate) fn metric(word: vector_index::Metric) -> vectors::Metric {
    match word {
        vector_index::Metric::Cosine => vectors::Metric::Cosine,
        vector_index::Metric::Euclidean => vectors::Metric::Euclidean,
        vector_index::Metric::Dot => vectors::Metric::Dot,
    }
}

pub(crate) fn quantization(word: vector_index::Quantization) -> vectors::Quantization {
    match word {
        vector_index::Quantization::None => vectors::Quantization::None,
        vector_index::Quantization::F16 => vectors::Quantization::F16,
        vector_index::Quantization::Int8 => vectors::Quantization::Int8,
    }
}

pub(crate) fn provider(word: ProviderType) -> ProviderKind {
    match word {
        ProviderType::Ollama => ProviderKind::Ollama,
        ProviderType::OllamaCloud => ProviderKind::OllamaCloud,
        ProviderType::OpenAI => ProviderKind::OpenAI,
        ProviderType::OpenRouter => ProviderKind::OpenRouter,
        ProviderType::OpenCode => ProviderKind::OpenCode,
        ProviderType::Kimi => ProviderKind::Kimi,
        ProviderType::Anthropic => ProviderKind::Anthropic,
        ProviderType::Voyage => ProviderKind::Voyage,
    }
}
