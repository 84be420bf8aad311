//! What the operator, the workers and their clients agree on.
//!
//! Owns the names, bucket keys, manifests and HTTP bodies that cross a process boundary, and nothing else:
//! no IO, no clock, no randomness. Every other crate of the workspace may depend on this one; it depends on none.

pub mod build;
pub mod catalog;
pub mod chat;
pub mod dataset;
pub mod embed;
pub mod ingest;
pub mod job;
pub mod key;
pub mod keys;
pub mod names;
pub mod problem;
pub mod provider;
pub mod role;
pub mod sql;
pub mod storage;
pub mod template;
pub mod vectors;

pub use dataset::{Column, ColumnType, DataObject, DatasetManifest, DatasetName, Origin};
pub use key::Key;
pub use problem::ErrorBody;
pub use role::Role;
pub use vectors::IndexName;
