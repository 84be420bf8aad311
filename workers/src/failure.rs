//! From what a worker says went wrong to the closed vocabulary of a resource's conditions.

use lakehouse_catalog::Error as CatalogError;
use lakehouse_ingest::Error as IngestError;
use lakehouse_plan::{Reason, status::Failure};
use lakehouse_source::Error as SourceError;

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
