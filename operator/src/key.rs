//! What is looked at as a whole: a resource, or what the resources of a namespace share.

use std::fmt;

/// One thing to reconcile.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A Dataset.
    Dataset {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A VectorIndex.
    VectorIndex {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A ChatProvider.
    ChatProvider {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// What the resources of a namespace share.
    Namespace(String),
}

impl Key {
    /// A Dataset.
    pub fn dataset(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self::Dataset { namespace: namespace.into(), name: name.into() }
    }

    /// A VectorIndex.
    pub fn vector_index(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self::VectorIndex { namespace: namespace.into(), name: name.into() }
    }

    /// A ChatProvider.
    pub fn chat_provider(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self::ChatProvider { namespace: namespace.into(), name: name.into() }
    }

    /// The kind, for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Dataset { .. } => "dataset",
            Self::VectorIndex { .. } => "vector_index",
            Self::ChatProvider { .. } => "chat_provider",
            Self::Namespace(_) => "namespace",
        }
    }

    /// Where it lies.
    pub fn namespace(&self) -> &str {
        match self {
            Self::Dataset { namespace, .. }
            | Self::VectorIndex { namespace, .. }
            | Self::ChatProvider { namespace, .. }
            | Self::Namespace(namespace) => namespace,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dataset { namespace, name } => write!(f, "Dataset {namespace}/{name}"),
            Self::VectorIndex { namespace, name } => write!(f, "VectorIndex {namespace}/{name}"),
            Self::ChatProvider { namespace, name } => write!(f, "ChatProvider {namespace}/{name}"),
            Self::Namespace(namespace) => write!(f, "namespace {namespace}"),
        }
    }
}
