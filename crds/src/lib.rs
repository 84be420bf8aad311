//! The resource types of `lakehouse.dev/v1alpha1` and their conditions.
//!
//! Owns what a user may write (spec) and what they are told (status) of a `Dataset`, a `VectorIndex` and a
//! `ChatProvider`; their CEL rules, their printer columns and the definitions a cluster installs.
//! A comment on a field is also what `kubectl explain` says of it. No behaviour lives here.
//!
//! The schemas of specs hold no defaults: what a user left out stays out, so that Argo CD and Flux see no difference.

#![allow(clippy::duplicated_attributes, reason = "each printer column has its own type and priority")]
#![allow(unreachable_pub, reason = "KubeSchema puts a copy of each type, with its `pub`, into a function")]

pub mod chat_provider;
pub mod common;
pub mod conditions;
pub mod dataset;
pub mod definitions;
mod rules;
pub mod vector_index;

pub use chat_provider::{ChatProvider, ChatProviderSpec, ChatProviderStatus};
pub use dataset::{Dataset, DatasetSpec, DatasetStatus};
pub use vector_index::{VectorIndex, VectorIndexSpec, VectorIndexStatus};

/// The API group of every resource.
pub const GROUP: &str = "lakehouse.dev";

/// The version of every resource.
pub const VERSION: &str = "v1alpha1";

/// `apiVersion` of every resource.
pub const API_VERSION: &str = "lakehouse.dev/v1alpha1";

/// An annotation whose every new value asks for one more run.
pub const REFRESH_ANNOTATION: &str = "lakehouse.dev/refresh";
