//! The catalogue: which datasets there are, and what each one is now.
//!
//! Receives what an ingest made ([`RegisterRequest`]); hands on [`DatasetManifest`]s. A manifest is a one-row Parquet
//! file, swapped only by compare-and-set, so its write is the commit of a version: data first, manifest last.
//!
//! ```text
//! register ─► check ─► objects are there? ─► decide on the current one ─► archive it ─► swap ─┬► answer
//!                                                ▲──────────── somebody was first ────────────┘
//! ```
//!
//! [`RegisterRequest`]: lakehouse_contract::catalog::RegisterRequest
//! [`DatasetManifest`]: lakehouse_contract::DatasetManifest

mod catalog;
mod change;
mod codec;
mod collect;
mod declared;
mod error;
mod history;
mod purge;
mod read;
mod rows;
mod schema;
mod service;
mod sound;

pub use catalog::Catalog;
pub use codec::FORMAT;
pub use collect::{Collected, GRACE};
pub use error::Error;
pub use read::Listing;
pub use schema::{Retyped, SchemaDiff};
pub use service::{Catalogd, router};

/// A result of the catalogue.
pub type Result<T, E = Error> = std::result::Result<T, E>;
