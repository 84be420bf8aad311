//! The closed vocabulary of reasons: why a condition is what it is, why a spec was refused.

use std::fmt;

/// Why. The names are those of the conditions' `reason` and fit for a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    // The spec.
    /// More than one thing is wrong with the spec, or one that has no reason of its own.
    InvalidSpec,
    /// The resource's name cannot be a dataset's.
    InvalidName,
    /// `spec.source` cannot be read as a source.
    InvalidSource,
    /// The format is neither said nor told by a name.
    UnknownFormat,
    /// The declared columns, or the columns to sort by, cannot be.
    InvalidColumns,
    /// `spec.schedule` is no cron expression, or never comes.
    InvalidSchedule,
    /// The spec is sound, but what it asks for is not built yet.
    NotSupported,

    // The source.
    /// Nobody has looked yet.
    NotChecked,
    /// It was found and could be read.
    SourceFound,
    /// Nothing has been uploaded yet.
    WaitingForUpload,
    /// There is nothing at that place.
    SourceMissing,
    /// A Secret that the spec names is not there, or lacks an entry.
    SecretMissing,
    /// The place wants other credentials.
    SourceDenied,
    /// The place cannot be reached or failed.
    SourceUnreachable,
    /// The source's digest is not the promised one.
    DigestMismatch,

    // The work.
    /// The work waits for its turn.
    Waiting,
    /// Rows are being read and converted.
    Ingesting,
    /// The rows in the store are those of the source.
    UpToDate,
    /// `spec.suspend` is set.
    Suspended,
    /// The data cannot be read as its format, or breaks a declared type.
    InvalidData,
    /// More rows were turned away than `spec.rejects` allows.
    TooManyRejects,
    /// The source's schema is not the dataset's, and `spec.schemaPolicy` does not accept it.
    SchemaChanged,
    /// The bucket or the folder failed.
    StoreFailed,
    /// This machine has no room or no right to keep what it must.
    DiskFailed,
    /// The work was stopped before its end.
    Interrupted,
    /// The work took longer than it may.
    DeadlineExceeded,
    /// A pod could not start, or ended badly.
    PodFailed,
    /// Something that has no reason of its own; the message says what.
    Failed,

    // The result.
    /// No version has been published.
    NotPublished,
    /// A version is published.
    Published,
    /// `spec.version` names a version that is not the published one yet.
    VersionPending,
    /// `spec.version` names a version that is not kept.
    VersionNotKept,
    /// Requests are not answered from the published version yet.
    NotServed,
    /// Requests are answered from the published version.
    Serving,
    /// The service that answers requests cannot read the version.
    ServingFailed,
    /// There is nothing left to do.
    Settled,
}

/// Whether doing the same again may end better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Later it may, without anybody changing anything.
    Backoff,
    /// Only after someone has changed the resource or its source.
    OnEdit,
}

impl Reason {
    /// The name, in `UpperCamelCase` as Kubernetes asks for.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidSpec => "InvalidSpec",
            Self::InvalidName => "InvalidName",
            Self::InvalidSource => "InvalidSource",
            Self::UnknownFormat => "UnknownFormat",
            Self::InvalidColumns => "InvalidColumns",
            Self::InvalidSchedule => "InvalidSchedule",
            Self::NotSupported => "NotSupported",
            Self::NotChecked => "NotChecked",
            Self::SourceFound => "SourceFound",
            Self::WaitingForUpload => "WaitingForUpload",
            Self::SourceMissing => "SourceMissing",
            Self::SecretMissing => "SecretMissing",
            Self::SourceDenied => "SourceDenied",
            Self::SourceUnreachable => "SourceUnreachable",
            Self::DigestMismatch => "DigestMismatch",
            Self::Waiting => "Waiting",
            Self::Ingesting => "Ingesting",
            Self::UpToDate => "UpToDate",
            Self::Suspended => "Suspended",
            Self::InvalidData => "InvalidData",
            Self::TooManyRejects => "TooManyRejects",
            Self::SchemaChanged => "SchemaChanged",
            Self::StoreFailed => "StoreFailed",
            Self::DiskFailed => "DiskFailed",
            Self::Interrupted => "Interrupted",
            Self::DeadlineExceeded => "DeadlineExceeded",
            Self::PodFailed => "PodFailed",
            Self::Failed => "Failed",
            Self::NotPublished => "NotPublished",
            Self::Published => "Published",
            Self::VersionPending => "VersionPending",
            Self::VersionNotKept => "VersionNotKept",
            Self::NotServed => "NotServed",
            Self::Serving => "Serving",
            Self::ServingFailed => "ServingFailed",
            Self::Settled => "Settled",
        }
    }

    /// Whether doing the same again may end better, where this is the reason of a failure.
    pub fn retry(self) -> Retry {
        match self {
            Self::InvalidSpec
            | Self::InvalidName
            | Self::InvalidSource
            | Self::UnknownFormat
            | Self::InvalidColumns
            | Self::InvalidSchedule
            | Self::NotSupported
            | Self::SourceDenied
            | Self::DigestMismatch
            | Self::InvalidData
            | Self::TooManyRejects
            | Self::SchemaChanged
            | Self::DeadlineExceeded
            | Self::VersionNotKept => Retry::OnEdit,
            Self::NotChecked
            | Self::SourceFound
            | Self::WaitingForUpload
            | Self::SourceMissing
            | Self::SecretMissing
            | Self::SourceUnreachable
            | Self::Waiting
            | Self::Ingesting
            | Self::UpToDate
            | Self::Suspended
            | Self::StoreFailed
            | Self::DiskFailed
            | Self::Interrupted
            | Self::PodFailed
            | Self::Failed
            | Self::NotPublished
            | Self::Published
            | Self::VersionPending
            | Self::NotServed
            | Self::Serving
            | Self::ServingFailed
            | Self::Settled => Retry::Backoff,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
