//! Serving over HTTP, the same way in every service.
//!
//! Receives a service's routes; hands on a server with the one error body, size caps, auth, health, metrics,
//! a request log with an id, and a graceful end.
//!
//! ```text
//! listener ─► connection ─► request log, id, body cap ─► auth ─► probes │ the service's routes
//! ```

mod around;
pub mod auth;
pub mod body;
mod errors;
mod late;
pub mod metrics;
mod probes;
pub mod problem;
mod request;
mod request_id;
pub mod serve;

pub use around::Around;
pub use auth::{Auth, Caller};
pub use body::{BodyLimit, Json};
pub use errors::{AsIs, with_error_bodies};
pub use late::Late;
pub use metrics::Metrics;
pub use probes::Readiness;
pub use problem::Problem;
pub use request::Template;
pub use request_id::RequestId;
pub use serve::{Service, Settings, serve, shutdown_signal};
