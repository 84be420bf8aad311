//! What goes wrong: below a Dataset, and around it while it is in use.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod below;
mod outages;
