//! Vector indexes: in the store, in memory, and over HTTP.
//!
//! Owns ids, metadata, the log of writes, manifests and versions; the engine behind it knows rows and distances only. Receives writes of
//! clients and segments of builds; hands on searches over a snapshot that no writer ever holds up.
//!
//! ```text
//! clients ─► log ─► head ─► segments ─┐
//! builds ───────────────► segments ───┴─► manifest ─► snapshot ─► search
//! ```

mod columns;
mod error;
mod filter;
mod ids;
mod indexes;
mod manifest;
mod record;
mod segment;
mod value;

pub use error::{Error, Result};
pub use filter::InvalidFilter;
pub use ids::shard;
pub use indexes::{Collected, GRACE, Indexes, NewVersion};
pub use manifest::{DeadEntry, Kind, Manifest, SegmentEntry};
pub use segment::{Finished, IndexWriter, MAX_ROWS, Segment, SegmentWriter};
pub use value::{check_id, check_metadata};
