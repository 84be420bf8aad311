//! Models that turn text into vectors in this process.
//!
//! [`Lexical`] needs no weights and finds shared words, not meanings; [`SentenceTransformer`]s are read from folders.
//! [`Models`] finds them by their names, in a folder of this machine and in the bucket, and hands them to embedd.

pub mod lexical;
mod models;
mod transformer;

pub use lexical::Lexical;
pub use models::Models;
pub use transformer::SentenceTransformer;

/// A folder that is no model that can be computed here.
#[derive(Debug, thiserror::Error)]
#[error("`{file}`: {what}")]
pub struct Unusable {
    file: String,
    what: String,
}

impl Unusable {
    pub(crate) fn new(file: impl Into<String>, what: String) -> Self {
        Self { file: file.into(), what }
    }
}
