//! Text to vectors: the promise of an embedder, the service that keeps it, and its client.
//!
//! Receives texts and a model's name; hands on vectors and the identity of the model that made them.
//!
//! ```text
//! names -> cache -> flights (equal texts go once) -> local model, or provider (batches, limits, retries)
//! ```

mod embedder;
mod error;
mod local;

pub use embedder::{Embedded, Embedder, Vector};
pub use error::{EmbedError, Reason};
pub use local::{LocalModel, Locals};
