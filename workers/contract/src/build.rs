//! What a build of an index tells while it runs: `GET /build/progress` of its pod answers a list of these.

use serde::{Deserialize, Serialize};

/// How far a build has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The index.
    pub name: String,
    /// What is going on.
    pub phase: Phase,
    /// Rows read so far.
    pub rows: u64,
    /// Rows that have their vector or were turned away.
    pub done: u64,
    /// Rows to read, where that is known.
    pub total: Option<u64>,
    /// Texts that this run embedded.
    pub embedded: u64,
    /// Rows whose vectors were there already.
    pub reused: u64,
    /// Rows that give no vector.
    pub failed: u64,
    /// Since the start.
    pub elapsed_ms: u64,
    /// Rows a second since the first row.
    pub rows_per_second: u64,
    /// Estimated time until the last row has its vector, at this rate.
    pub remaining_ms: Option<u64>,
    /// What it waits for, how far its phase is, or why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The phases of a build, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Checks the ids and counts the rows.
    Reading,
    /// Rows become text and text becomes vectors.
    Embedding,
    /// The embedding service turns it away for now.
    Waiting,
    /// Makes segments and their graphs.
    Indexing,
    /// Compares searches with exact ones.
    Checking,
    /// Writes the segments to the store, and then the manifest.
    Publishing,
    /// Ended well.
    Done,
    /// Ended with an error; nothing was published.
    Failed,
}
