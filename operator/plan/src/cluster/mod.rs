//! What a cluster holds for Lakehouse, as arithmetic: settings, resources and observed objects in; objects and facts out.
//!
//! ```text
//! namespace::Observed    ─► namespace::plan    ─► shared objects: settings, gateway, query pods, embedd, chatd
//! dataset::Observed      ─► dataset::plan      ─► the ingest Job, what to prune, and the facts for `status::dataset`
//! vector_index::Observed ─► vector_index::plan ─► the pods that answer, the build Job, and the facts for `status::vector_index`
//! deletion::Observed     ─► deletion::plan     ─► the purge Job, and whether the finalizer may go
//! serving::Observed      ─► serving::facts     ─► whether the published version answers
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
mod run;
mod server;
pub mod serving;
pub mod settings;
pub mod vector_index;
mod work;

pub use child::{Child, Kind, ObjectName};
pub use meta::{Owner, ResourceKind};
pub use run::{EventsOf, Rollback, Run};
pub use settings::Settings;
