//! From what a worker says went wrong to the closed vocabulary of a resource's conditions.

use lakehouse_build::Error as BuildError;
use lakehouse_catalog::Error as CatalogError;
use lakehouse_embed::{EmbedError, Reason as EmbedReason};
use lakehouse_ingest::Error as IngestError;
use lakehouse_plan::{Reason, status::Failure};
use lakehouse_query::Error as QueryError;
use lakehouse_source::Error as SourceError;
use lakehouse_vector::Error as VectorError;

/// A source that could not be brought here.
pub(crate) fn of_source(error: &SourceError) -> Failure {
    let reason = match error {
        SourceError::NotFound(_) => Reason::SourceMissing,
        SourceError::Denied(_) => Reason::SourceDenied,
        SourceError::Mismatch(_) => Reason::DigestMismatch,
        SourceError::Spool(_) => Reason::DiskFailed,
        _ => Reason::SourceUnreachable,
    };
    Failure::new(reason, error.to_string())
}

/// An ingest that ended without a version.
pub(crate) fn of_ingest(error: &IngestError) -> Failure {
    let reason = match error {
        IngestError::Unavailable(_) => Reason::NotSupported,
        IngestError::Spec(_) => Reason::InvalidColumns,
        IngestError::Fault(_) => Reason::InvalidData,
        IngestError::Read { .. } => Reason::SourceUnreachable,
        IngestError::Changed(_) | IngestError::Cancelled => Reason::Interrupted,
        IngestError::Spool { .. } => Reason::DiskFailed,
        IngestError::Catalog(error) => return of_catalog(error),
        _ => Reason::Failed,
    };
    Failure::new(reason, error.to_string())
}

/// A catalogue that could not be read or changed.
pub(crate) fn of_catalog(error: &CatalogError) -> Failure {
    let reason = match error {
        CatalogError::SchemaConflict { .. } => Reason::SchemaChanged,
        CatalogError::UnknownDataset(_) => Reason::NotPublished,
        CatalogError::UnknownVersion { .. } => Reason::VersionNotKept,
        CatalogError::Damaged { .. } | CatalogError::Store(_) => Reason::StoreFailed,
        _ => Reason::Failed,
    };
    Failure::new(reason, error.to_string())
}

/// A build that ended without a version.
pub(crate) fn of_build(error: &BuildError) -> Failure {
    let reason = match error {
        BuildError::Template(_) | BuildError::Predicate(_) => Reason::InvalidSource,
        BuildError::UnknownColumn { .. } => Reason::InvalidColumns,
        BuildError::RepeatedId { .. } | BuildError::AllRefused { .. } => Reason::InvalidData,
        BuildError::Dimension { .. } => Reason::DimensionMismatch,
        // The next build is planned with what is there now.
        BuildError::ModelChanged { .. }
        | BuildError::VersionGone { .. }
        | BuildError::Query(QueryError::UnknownVersion { .. }) => Reason::Interrupted,
        BuildError::NoDataset(_) => Reason::DatasetMissing,
        BuildError::Query(QueryError::Dataset { .. }) | BuildError::Store(_) => Reason::StoreFailed,
        BuildError::Query(QueryError::OutOfMemory(_)) => Reason::OutOfMemory,
        BuildError::Query(QueryError::Timeout { .. }) => Reason::DeadlineExceeded,
        BuildError::Embed(error) => return of_embedder(error),
        BuildError::Catalog(error) => return of_catalog(error),
        BuildError::Index(error) => return of_index(error),
        BuildError::Local { .. } | BuildError::Unsound { .. } => Reason::DiskFailed,
        _ => Reason::Failed,
    };
    Failure::new(reason, error.to_string())
}

/// A model that cannot be asked.
pub(crate) fn of_embedder(error: &EmbedError) -> Failure {
    let reason = match error.reason {
        EmbedReason::UnknownModel => Reason::UnknownModel,
        _ => Reason::EmbedderFailed,
    };
    Failure::new(reason, error.to_string())
}

/// An index that could not be read or changed.
pub(crate) fn of_index(error: &VectorError) -> Failure {
    let reason = match error {
        VectorError::FilledByClients(_) | VectorError::Exists(_) | VectorError::BuiltFromDataset { .. } => {
            Reason::IndexConflict
        }
        VectorError::UnknownVersion { .. } => Reason::VersionNotKept,
        VectorError::UnknownIndex(_) => Reason::NotPublished,
        VectorError::Duplicate { .. } => Reason::InvalidData,
        VectorError::Embed(error) => return of_embedder(error),
        VectorError::Damaged { .. } | VectorError::Store(_) => Reason::StoreFailed,
        VectorError::Local(_) => Reason::DiskFailed,
        _ => Reason::Failed,
    };
    Failure::new(reason, error.to_string())
}
