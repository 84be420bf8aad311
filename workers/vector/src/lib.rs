//! Vector indexes: in the store, in memory, and over HTTP.
//!
//! Owns ids, metadata, the log of writes, manifests and versions; the engine behind it knows rows and distances only. Receives writes of
//! clients and segments of builds; hands on searches over a snapshot that no writer ever holds up.
//!
//! ```text
//! clients ─► log ─► head ─► segments ─┐
//! builds ───────────────► segments ───┴─► manifest ─► snapshot ─► search
//! ```

mod cache;
mod columns;
mod error;
mod fanout;
mod filter;
mod head;
mod ids;
mod indexes;
mod live;
mod manifest;
mod merge;
mod metrics;
mod models;
mod parquet;
mod part;
mod record;
mod segment;
mod service;
mod snapshot;
mod state;
mod value;
mod vectord;

pub use error::{Error, Result};
pub use filter::InvalidFilter;
pub use ids::shard;
pub use indexes::{Collected, GRACE, Indexes, NewVersion};
pub use live::Tuning;
pub use manifest::{DeadEntry, Kind, Manifest, SegmentEntry};
pub use segment::{Finished, IndexWriter, MAX_ROWS, Segment, SegmentWriter};
pub use service::router;
pub use value::{check_id, check_metadata};
pub use vectord::{Settings, Vectord};
