//! Pure planning: what a resource asks for, checked once; what is told of it; how it is listed.
//!
//! Receives resources as a user wrote them and facts as an executor found them. Hands on values that leave no question
//! open. The operator and `lakehouse up` stand on the same functions, so one YAML means the same in both.
//! No IO, no randomness, and no clock: the time is an argument.
//!
//! ```text
//! text ─► documents ─► dataset::check      ─► ReadyDataset     ─► an executor ─► Facts ─► status ─► table
//!                      vector_index::check ─► ReadyVectorIndex   │
//!                      chat_provider::check ─► ReadyProvider     └─► cluster ─► objects for an API server, facts from them
//! ```

pub mod chat_provider;
pub mod cluster;
mod convert;
pub mod dataset;
pub mod documents;
pub mod human;
mod pod;
mod reason;
mod refusal;
mod schedule;
pub mod status;
pub mod table;
pub mod vector_index;

pub use chat_provider::ReadyProvider;
pub use dataset::{ReadyDataset, check};
pub use pod::Pod;
pub use reason::{Reason, Retry, UnknownReason};
pub use refusal::{Problem, Refusal};
pub use schedule::Schedule;
pub use vector_index::ReadyVectorIndex;

/// The namespace of a resource that names none.
pub const DEFAULT_NAMESPACE: &str = "default";
