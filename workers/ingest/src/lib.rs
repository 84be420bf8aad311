//! From a source file to typed Parquet in the store.
//!
//! Receives a local file and an [`IngestSpec`]; hands on the dataset's new version. [`convert()`] is the work
//! without a store; [`ingest()`] puts what it made under its content's hash and registers it: data first, manifest last.
//!
//! [`IngestSpec`]: lakehouse_contract::ingest::IngestSpec

pub mod convert;
mod csv;
mod encode;
mod error;
mod files;
mod ingest;
mod kind;
mod rows;
pub mod service;
mod spool;
mod tracker;
mod value;

pub use convert::convert;
pub use error::{Error, Fault};
pub use ingest::{Options, SourceInfo, ingest};
pub use tracker::Tracker;
