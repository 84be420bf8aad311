//! Models that turn text into vectors in this process.
//!
//! [`lexical`] needs no weights and finds shared words, not meanings.

pub mod lexical;

pub use lexical::Lexical;
