//! The operator: brings Lakehouse resources in a cluster to what they ask for.
//!
//! ```text
//! watch ─► queue ─► observe ─► plan (pure) ─► apply ─► report
//! ```
//! What a resource asks for is decided in `lakehouse-plan`; here lies everything that talks: to the API server, and to the
//! pods of a namespace. Watching, queueing, applying and reporting know no kind; a kind is a module: `dataset`, `vector_index`,
//! `chat_provider`.

pub mod apply;
mod chat_provider;
pub mod client;
pub mod context;
mod dataset;
mod end;
pub mod error;
pub mod key;
pub mod lease;
pub mod metrics;
mod namespace;
pub mod observe;
pub mod queue;
pub mod report;
pub mod run;
pub mod services;
pub mod settings;
pub mod store;
mod vector_index;
pub mod watch;
pub mod world;
