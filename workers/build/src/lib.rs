//! From a dataset's version to a published version of an index: what `up` and the build Job both run.
//!
//! Receives a [`BuildSpec`](lakehouse_contract::vectors::BuildSpec) and the version to read; hands on
//! [`Built`](lakehouse_contract::job::Built).
//!
//! ```text
//! version ─► query ─► template ─► spool ─► kept vectors? ─► index segments ─► recall ─► manifest
//!                                              └─ no ─► embedder ─► kept
//! ```
//! What was embedded is kept at once, so a build that is killed, or gives up waiting, embeds nothing twice when it comes again.

mod build;
mod embed;
mod embeddings;
mod error;
mod fill;
mod recall;
mod rejects;
mod rows;
mod spool;
mod tracker;

use std::io;

pub use build::{Builder, Options};
pub use error::Error;
pub use tracker::Tracker;

/// Runs what reads and writes files on a thread that may wait for them.
async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
