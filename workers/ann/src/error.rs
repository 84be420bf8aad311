//! What can be wrong: with a vector, or with a file.

use std::{
    io,
    path::{Path, PathBuf},
};

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a segment was not written or not opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused; a retry may help.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// The file is not what was written; fetching it anew helps.
    #[error("{path} is damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which part, and how that shows.
        what: String,
    },
    /// One of the vectors cannot be kept.
    #[error("vector {row}: {error}")]
    Vector {
        /// Its row.
        row: u32,
        /// What is wrong with it.
        #[source]
        error: BadVector,
    },
}

impl Error {
    pub(crate) fn io(path: &Path, error: io::Error) -> Self {
        Self::Io { path: path.to_owned(), error }
    }
}

/// Why a vector can be neither kept nor searched for.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum BadVector {
    /// It has too few or too many numbers.
    #[error("it has {found} numbers, and the index's vectors have {expected}")]
    Length {
        /// What the index has.
        expected: u32,
        /// What it has.
        found: usize,
    },
    /// A number is infinite, or none.
    #[error("number {index} is {value}")]
    NotFinite {
        /// Which number, from 0.
        index: usize,
        /// What it is.
        value: f32,
    },
    /// Its direction is undefined, so it has no cosine with another.
    #[error("all its numbers are zero or nearly so: it has no direction, and the metric is cosine")]
    Zero,
    /// Squares of distances would overflow.
    #[error("it is longer than 1e18")]
    TooLong,
}
