//! Why an ingest ended without a new version.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use crate::spool;

/// A failure of an ingest. Nothing was published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The spec asks for something that this version cannot do.
    #[error("{0} is not available yet")]
    Unavailable(&'static str),
    /// The spec contradicts itself or its source.
    #[error("{0}")]
    Spec(String),
    /// The source's content is at fault; editing it helps.
    #[error(transparent)]
    Fault(Box<Fault>),
    /// The source cannot be read.
    #[error("{} cannot be read: {error}", path.display())]
    Read {
        /// The source.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The source was written to while it was read.
    #[error("{} changed while it was read", .0.display())]
    Changed(PathBuf),
    /// The spool folder cannot be written.
    #[error("the spool folder {} cannot be written: {error}", folder.display())]
    Spool {
        /// The folder of all runs. What lies below it has a new name at every try, and a message must not.
        folder: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The caller went away or asked for an end.
    #[error("the ingest was cancelled")]
    Cancelled,
    /// The catalogue refused, or failed.
    #[error(transparent)]
    Catalog(#[from] lakehouse_catalog::Error),
    /// The Parquet library refused what it was given: a mistake of this program.
    #[error("writing Parquet: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
}

impl Error {
    /// Whether the same call may succeed later without anybody changing the source or the spec.
    pub fn retry_helps(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Spec(_) | Self::Fault(_) | Self::Cancelled | Self::Parquet(_) => {
                false
            }
            Self::Read { .. } | Self::Changed(_) | Self::Spool { .. } => true,
            Self::Catalog(error) => error.retry_helps(),
        }
    }

    /// A failure to write `path`, which lies in the folder of a run.
    pub(crate) fn spool(path: &Path, error: io::Error) -> Self {
        Self::Spool { folder: spool::folder_of_runs(path).to_owned(), error }
    }

    pub(crate) fn read(path: &Path, error: io::Error) -> Self {
        Self::Read { path: path.to_owned(), error }
    }
}

/// What is wrong with a source, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The physical line, counted from 1; `None` when the whole file is meant.
    pub line: Option<u64>,
    /// The byte, counted from 0 at the file's start; `None` when the whole file is meant.
    pub byte: Option<u64>,
    /// The column's name.
    pub column: Option<String>,
    /// The value as the file has it, shortened and with control characters escaped.
    pub value: Option<String>,
    /// What is wrong, and what would help.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(line), Some(byte)) = (self.line, self.byte) {
            write!(f, "line {line} (byte {byte}): ")?;
        }
        if let Some(column) = &self.column {
            write!(f, "column `{column}`: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::Fault(Box::new(fault))
    }
}

impl Fault {
    /// A fault of the file as a whole.
    pub(crate) fn whole(message: impl Into<String>) -> Self {
        Self { line: None, byte: None, column: None, value: None, message: message.into() }
    }

    /// A fault at a byte of the file. The line follows when it is known that there will be a message.
    pub(crate) fn at(byte: u64, message: impl Into<String>) -> Self {
        Self { byte: Some(byte), ..Self::whole(message) }
    }

    /// The first byte of `text` that is not UTF-8. `offset` is the place of `text` in the file.
    pub(crate) fn not_utf8(text: &[u8], offset: u64) -> Self {
        let valid = std::str::from_utf8(text).map_or_else(|error| error.valid_up_to(), str::len);
        let byte = text.get(valid).copied().unwrap_or_default();
        let message = format!("byte 0x{byte:02X} is not UTF-8 here; save the file as UTF-8");
        Self::at(offset + valid as u64, message)
    }
}

/// A value fit for a message: at most 60 characters, control characters escaped.
pub(crate) fn shown(value: &[u8]) -> String {
    const SHOWN: usize = 60;
    let text = String::from_utf8_lossy(value);
    let mut characters = text.chars();
    let mut shown: String = characters.by_ref().take(SHOWN).flat_map(char::escape_debug).collect();
    // `escape_debug` means source code; in a sentence the quotes stand for themselves.
    shown = shown.replace("\\\"", "\"").replace("\\'", "'");
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}
