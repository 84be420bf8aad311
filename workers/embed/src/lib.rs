//! Text to vectors: the promise of an embedder, the service that keeps it, and its client.
//!
//! Receives texts and a model's name; hands on vectors and the identity of the model that made them.
//!
//! ```text
//! names -> cache -> flights (equal texts go once) -> local model, or provider (batches, limits, retries)
//! ```

mod board;
mod cache;
mod client;
mod deadline;
mod embedd;
mod embedder;
mod error;
mod flight;
mod follow;
mod local;
mod metrics;
mod models;
mod ollama;
mod openai;
mod providers;
mod service;

pub use client::HttpEmbedder;
pub use embedd::{Embedd, Settings};
pub use embedder::{Embedded, Embedder, Vector};
pub use error::{EmbedError, Reason};
pub use follow::{FileError, follow};
pub use local::{LocalModel, Locals};
pub use service::router;
