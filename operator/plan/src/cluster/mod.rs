//! What a cluster holds for Lakehouse, as arithmetic: settings, resources and observed objects in; objects and facts out.
//!
//! ```text
//! namespace::Observed ─► namespace::plan ─► shared objects: settings, gateway, query pods
//! dataset::Observed   ─► dataset::plan   ─► the ingest Job, what to prune, and the facts for `status::dataset`
//! deletion::Observed  ─► deletion::plan  ─► the purge Job, and whether the finalizer may go
//! serving::Observed   ─► serving::facts  ─► whether SQL is answered from the published version
//! ```
//! Nothing here asks anybody anything: the operator observes, calls one of these, applies what it says, and calls again when
//! something has changed. Equal inputs give equal objects, byte for byte, so that applying them twice changes nothing; no object
//! tells the operator's version, so that another version of the operator restarts nothing.

mod activity;
mod backoff;
mod child;
pub mod dataset;
pub mod deletion;
mod history;
mod job;
pub mod meta;
pub mod names;
pub mod namespace;
mod pod;
mod pods;
mod quantity;
pub mod serving;
pub mod settings;

pub use child::{Child, Kind, ObjectName};
pub use meta::Owner;
pub use settings::Settings;
