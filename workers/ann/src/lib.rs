//! Approximate nearest neighbours: immutable segments with a graph, exact heads, filters.
//!
//! Owns how vectors are coded, linked, searched and laid out in a file. Receives vectors by row; hands on rows and distances. Knows
//! files, and neither ids, nor metadata, nor the network. A row is a number from 0, counted within one [`Segment`] or [`Head`].
//!
//! ```text
//! vectors ─► write ─► sections of a file ─► Segment ─┐
//! vectors ─► Head (scanned as it grows) ─────────────┴─► search(Query, k, ef, allowed rows) ─► hits, nearest first
//! ```

mod build;
mod codes;
mod error;
mod filter;
mod graph;
mod growing;
mod head;
mod huge;
mod kept;
mod query;
pub mod sections;
mod segment;
mod simd;
mod top;
mod write;

pub use error::{BadVector, Error, Result};
pub use head::Head;
pub use query::{Query, check};
pub use segment::Segment;
pub use top::Hit;
pub use write::{Vectors, write};
