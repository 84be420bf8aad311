//! Serving over HTTP, the same way in every service.
//!
//! Receives a service's routes; hands on a server with the one error body, size caps, auth, health, metrics,
//! a request log with an id, and a graceful end.

pub mod body;
pub mod problem;

pub use body::Json;
pub use problem::Problem;
