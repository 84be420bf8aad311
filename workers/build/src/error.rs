//! Why a build ended without a version, told so that its reader knows what would help.

use std::{io, path::PathBuf};

use lakehouse_catalog::Error as CatalogError;
use lakehouse_contract::{DatasetName, embed::ModelIdentity, template::InvalidTemplate};
use lakehouse_embed::EmbedError;
use lakehouse_query::Error as QueryError;
use lakehouse_store::Error as StoreError;
use lakehouse_vector::Error as VectorError;

/// A build that published nothing. What it embedded is kept all the same.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The template cannot be read.
    #[error("spec.source.text: {0}")]
    Template(#[from] InvalidTemplate),
    /// The spec names a column that the version does not have.
    #[error("{place} names the column `{column}`, which version {version} of dataset `{dataset}` does not have; it has {}", listed(.known))]
    UnknownColumn {
        /// The field of the resource.
        place: &'static str,
        /// The column.
        column: String,
        /// The dataset.
        dataset: DatasetName,
        /// Its version.
        version: u64,
        /// The columns that there are.
        known: Vec<String>,
    },
    /// The predicate is not accepted.
    #[error("spec.source.where: {0}")]
    Predicate(String),
    /// Two rows have one id.
    #[error(
        "the rows {} and {} have the same id `{id}` in the column `{column}`; ids must be unique (rows are counted from 1, as `where` lets them through)",
        .rows[0], .rows[1]
    )]
    RepeatedId {
        /// The id column.
        column: String,
        /// The text in it.
        id: String,
        /// The first two rows.
        rows: [u64; 2],
    },
    /// The spec wants vectors of another length than the model's.
    #[error(
        "spec.dimension is {wanted}, but `{model}` makes vectors of {found} numbers; leave `dimension` out, or choose another model"
    )]
    Dimension {
        /// The spec's.
        wanted: u32,
        /// The model.
        model: String,
        /// The model's.
        found: u32,
    },
    /// Another model answers to the name than the one that was planned with.
    #[error(
        "`{}` is another model now: it was {} and is {}; the next build takes the new one",
        .found.model, told(.expected), told(.found)
    )]
    ModelChanged {
        /// The one that was planned with.
        expected: Box<ModelIdentity>,
        /// The one that answers.
        found: Box<ModelIdentity>,
    },
    /// The dataset's version is not there.
    #[error(
        "version {version} of dataset `{dataset}` is not kept any more; the next build reads the current one"
    )]
    VersionGone {
        /// The dataset.
        dataset: DatasetName,
        /// The version.
        version: u64,
    },
    /// There is no such dataset.
    #[error("there is no dataset `{0}` yet")]
    NoDataset(DatasetName),
    /// The model took none of the texts.
    #[error("`{model}` refused every text; of the first one it says: {message}")]
    AllRefused {
        /// The model.
        model: String,
        /// What it says.
        message: String,
    },
    /// A segment that was just written cannot be read.
    #[error("a segment that was just written cannot be read: {message}")]
    Unsound {
        /// What is wrong with it.
        message: String,
    },
    /// The rows could not be read.
    #[error("the rows could not be read: {0}")]
    Query(QueryError),
    /// The embedding service failed, or was waited for too long.
    #[error("{0}")]
    Embed(#[from] EmbedError),
    /// The catalogue failed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The index could not be written or published.
    #[error(transparent)]
    Index(#[from] VectorError),
    /// A file of this machine failed.
    #[error("the folder for builds, {}: {error}", .folder.display())]
    Local {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

fn listed(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn told(model: &ModelIdentity) -> String {
    format!("{} with {} numbers", model.digest, model.dimension)
}
