//! What planning for a cluster promises: safe objects, one Job for equal inputs, and words that help.
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod chat_provider;
mod deletion;
mod failures;
mod objects;
mod restricted;
mod runs;
mod serving;
mod told;
mod vector_index;
mod walks;
mod world;
