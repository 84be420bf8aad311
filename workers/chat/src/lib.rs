//! Language models behind one door: routing by model name, providers, streaming, and chatd.
//!
//! Receives the list of providers, as a channel that is followed, and requests by model name; hands on answers in the shape
//! of the door that they were asked through. A stream that was begun goes on with the provider that it began with, whatever
//! becomes of the list.
//!
//! ```text
//! request ─► ask ─► route ─► candidates ─► upstream (limits, key, protocol) ─► live ─► pieces
//!             ▲                                                                 │
//!            door ◄────────────── whole answer, error body, last event ◄───────┘
//! ```
//! Beside that each provider is looked at now and then.

mod ask;
mod breaker;
mod chatd;
mod door;
mod error;
mod event;
mod fleet;
mod gate;
mod key;
mod live;
mod look;
mod metrics;
mod models;
mod origin;
mod protocol;
mod route;
mod service;
mod settings;
mod trace;
mod upstream;
mod wire;

pub use chatd::Chatd;
pub use error::{ChatError, Kind};
pub use models::ModelInfo;
pub use route::{Table, Target};
pub use service::router;
pub use settings::{Settings, Timeouts};
