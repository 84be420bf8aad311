//! SQL over the catalogue's datasets: DuckDB behind a fence, and its HTTP service (queryd).
//!
//! Receives manifests from the [`Catalog`](lakehouse_catalog::Catalog) and blobs from the
//! [`Store`](lakehouse_store::Store); hands on answers. The only crate that links DuckDB.
//!
//! ```text
//! catalogue ─► refresh ─► views ─┐
//!                                ├─► session ─► answer (JSON, Arrow IPC, CSV), or batches for this process
//! SQL ─► gate ─► thread ─► fence ┘
//!                            └─► a version by its number ─► a view of this query's own
//! ```

mod cache;
mod database;
mod encode;
mod engine;
mod error;
mod fence;
mod gate;
mod generation;
mod memory;
mod params;
mod recast;
mod refresh;
mod run;
mod service;
mod settings;
mod sink;
mod threads;
mod values;
mod version;
mod view;
mod watch;

pub use encode::Format;
pub use engine::{Answer, Batches, Engine};
pub use error::Error;
pub use lakehouse_contract::sql::{ViewInfo, Views};
pub use service::router;
pub use settings::{DEFAULT_TIMEOUT, Settings};
