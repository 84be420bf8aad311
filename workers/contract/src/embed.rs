//! Models that turn text into vectors: their identity, who offers them, and the bodies of embedd.

use serde::{Deserialize, Serialize};

/// Which model made a vector. Vectors of unequal models mean nothing to each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ModelIdentity {
    /// The full name: `local/<name>` or `<provider>/<model>`.
    pub model: String,
    /// Names the weights where they are known (`sha256:…`), else the provider's address and the model's name.
    pub digest: String,
    /// Numbers in a vector.
    pub dimension: u32,
    /// Whether its vectors have length one.
    pub normalised: bool,
}

/// `POST /embed`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbedRequest {
    /// None of them empty.
    pub texts: Vec<String>,
    /// A full name, or one that a provider or the local models list; the default when absent or empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// The answer to an embed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EmbedAnswer {
    /// The model's full name.
    pub model: String,
    /// Numbers in a vector.
    pub dimension: u32,
    /// In the order of the texts.
    pub vectors: Vec<Vec<f32>>,
    /// Which model made them.
    pub identity: ModelIdentity,
}

/// `GET /embed/stats`
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EmbedStats {
    /// Texts answered from the cache.
    pub hits: u64,
    /// Texts that were not in it.
    pub misses: u64,
    /// Hits of all; 0 before the first text.
    pub hit_rate: f64,
    /// Texts in the cache.
    pub size: u64,
    /// The most it holds.
    pub capacity: u64,
}

/// `POST /embed/identity`: which model answers to a name now. The provider is asked, and a text embedded where only that tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityRequest {
    /// As in [`EmbedRequest::model`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// `GET /embed/models`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelList {
    /// The one that answers to an empty name.
    pub default: String,
    /// Full names, in alphabetical order.
    pub models: Vec<String>,
}
