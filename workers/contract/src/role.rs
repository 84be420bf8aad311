//! The roles a worker process can take.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A service of its own, reachable under its own port when it runs alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The public edge.
    Gateway,
    /// Objects by key.
    Storaged,
    /// Manifests of datasets.
    Catalogd,
    /// Files in, typed Parquet out.
    Ingestd,
    /// SQL.
    Queryd,
    /// Nearness.
    Vectord,
    /// Text to vectors.
    Embedd,
    /// Language models.
    Chatd,
}

impl Role {
    /// Every role, in the order of their ports.
    pub const ALL: [Self; 8] = [
        Self::Gateway,
        Self::Storaged,
        Self::Catalogd,
        Self::Ingestd,
        Self::Queryd,
        Self::Vectord,
        Self::Embedd,
        Self::Chatd,
    ];

    /// The name in `--role`, in `/health` and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Storaged => "storaged",
            Self::Catalogd => "catalogd",
            Self::Ingestd => "ingestd",
            Self::Queryd => "queryd",
            Self::Vectord => "vectord",
            Self::Embedd => "embedd",
            Self::Chatd => "chatd",
        }
    }

    /// The port that the role listens on unless told otherwise.
    pub fn port(self) -> u16 {
        match self {
            Self::Gateway => 3110,
            Self::Storaged => 3211,
            Self::Catalogd => 3212,
            Self::Ingestd => 3213,
            Self::Queryd => 3214,
            Self::Vectord => 3215,
            Self::Embedd => 3216,
            Self::Chatd => 3220,
        }
    }

    /// The first path segment of the role's routes; the gateway owns none of its own.
    pub fn path(self) -> Option<&'static str> {
        match self {
            Self::Gateway => None,
            Self::Storaged => Some("storage"),
            Self::Catalogd => Some("catalog"),
            Self::Ingestd => Some("ingest"),
            Self::Queryd => Some("sql"),
            Self::Vectord => Some("vectors"),
            Self::Embedd => Some("embed"),
            Self::Chatd => Some("chat"),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = UnknownRole;
    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| UnknownRole(text.to_owned()))
    }
}

/// A text that names no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no role; the roles are gateway, storaged, catalogd, ingestd, queryd, vectord, embedd, chatd"
)]
pub struct UnknownRole(pub String);
