//! The closed vocabulary of reasons: why a condition is what it is, why a spec was refused.

use std::{fmt, str::FromStr};

/// Whether doing the same again may end better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Later it may, without anybody changing anything.
    Backoff,
    /// Only after someone has changed the resource or its source.
    OnEdit,
}

/// Declares each reason once, with its verdict where it is the reason of a failure.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident: $retry:ident,)*) => {
        /// Why. The names are those of the conditions' `reason` and fit for a metric's label.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name, in `UpperCamelCase` as Kubernetes asks for.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// Whether doing the same again may end better, where this is the reason of a failure.
            pub fn retry(self) -> Retry {
                match self {
                    $(Self::$name => Retry::$retry,)*
                }
            }
        }
    };
}

reasons! {
    // The spec.
    /// More than one thing is wrong with the spec, or one that has no reason of its own.
    InvalidSpec: OnEdit,
    /// The resource's name cannot be a dataset's.
    InvalidName: OnEdit,
    /// `spec.source` cannot be read as a source.
    InvalidSource: OnEdit,
    /// The format is neither said nor told by a name.
    UnknownFormat: OnEdit,
    /// The declared columns, or the columns to sort by, cannot be.
    InvalidColumns: OnEdit,
    /// `spec.schedule` is no cron expression, or never comes.
    InvalidSchedule: OnEdit,
    /// The spec is sound, but what it asks for is not built yet.
    NotSupported: OnEdit,

    // The source.
    /// Nobody has looked yet.
    NotChecked: Backoff,
    /// It was found and could be read.
    SourceFound: Backoff,
    /// Nothing has been uploaded yet.
    WaitingForUpload: Backoff,
    /// There is nothing at that place.
    SourceMissing: Backoff,
    /// A Secret that the spec names is not there, or lacks an entry.
    SecretMissing: Backoff,
    /// The place wants other credentials.
    SourceDenied: OnEdit,
    /// The place cannot be reached or failed.
    SourceUnreachable: Backoff,
    /// The source's digest is not the promised one.
    DigestMismatch: OnEdit,

    // What an index is made of.
    /// The Dataset that `spec.source.dataset` names is not there.
    DatasetMissing: Backoff,
    /// The Dataset is there, but has no version yet.
    DatasetNotReady: Backoff,
    /// A ChatProvider that `spec.embedding.provider` or `spec.fallback` names is not there, or cannot be asked.
    ProviderMissing: Backoff,
    /// The embedding model answers.
    EmbedderAnswers: Backoff,
    /// The embedding service or the provider behind it cannot be reached, or failed.
    EmbedderFailed: Backoff,
    /// The provider, or the service itself, has no model of that name.
    UnknownModel: OnEdit,
    /// The model's vectors have another length than `spec.dimension` says.
    DimensionMismatch: OnEdit,
    /// The store has an index of this name that is of another kind or shape.
    IndexConflict: OnEdit,
    /// What the condition is about is not part of this resource.
    NotNeeded: Backoff,

    // A provider of models.
    /// Its key is there.
    KeyFound: Backoff,
    /// The provider does not accept the key.
    KeyRefused: OnEdit,
    /// The provider answers.
    ProviderAnswers: Backoff,
    /// The provider cannot be reached, or does not work.
    ProviderUnreachable: Backoff,
    /// The provider's models are known.
    ModelsListed: Backoff,
    /// The provider answers, but its models cannot be read from that.
    ModelsUnreadable: Backoff,
    /// An older ChatProvider has a prefix, suffix, tier or the default that this one claims.
    RouteConflict: OnEdit,

    // The work.
    /// The work waits for its turn.
    Waiting: Backoff,
    /// Rows are being read and converted.
    Ingesting: Backoff,
    /// The rows in the store are those of the source; the index is made of the Dataset's newest version.
    UpToDate: Backoff,
    /// Rows become vectors, and vectors an index.
    Building: Backoff,
    /// An index as the spec asks for is built.
    Built: Backoff,
    /// No index as the spec asks for is built yet.
    NotBuilt: Backoff,
    /// The Dataset has a newer version than the one that the index is made of.
    DatasetChanged: Backoff,
    /// `spec.suspend` is set.
    Suspended: Backoff,
    /// The data cannot be read as its format, or breaks a declared type.
    InvalidData: OnEdit,
    /// More rows were turned away than `spec.rejects` allows.
    TooManyRejects: OnEdit,
    /// The source's schema is not the dataset's, and `spec.schemaPolicy` does not accept it.
    SchemaChanged: OnEdit,
    /// The bucket or the folder failed.
    StoreFailed: Backoff,
    /// This machine has no room or no right to keep what it must.
    DiskFailed: Backoff,
    /// The work was stopped before its end.
    Interrupted: Backoff,
    /// The work took longer than it may.
    DeadlineExceeded: OnEdit,
    /// A pod could not start, or ended badly.
    PodFailed: Backoff,
    /// A pod's image cannot be pulled.
    ImagePullFailed: Backoff,
    /// A pod needed more memory than its limit.
    OutOfMemory: OnEdit,
    /// No node has room for a pod, or may run it.
    Unschedulable: Backoff,
    /// The API server refuses an object: a quota is used up, or an admission rule says no.
    ObjectRefused: Backoff,
    /// The resource is being deleted, and its rows with it.
    Deleting: Backoff,
    /// Something that has no reason of its own; the message says what.
    Failed: Backoff,

    // The result.
    /// No version has been published.
    NotPublished: Backoff,
    /// A version is published.
    Published: Backoff,
    /// `spec.version` names a version that is not the published one yet.
    VersionPending: Backoff,
    /// `spec.version` names a version that is not kept.
    VersionNotKept: OnEdit,
    /// Requests are not answered from the published version yet.
    NotServed: Backoff,
    /// Requests are answered from the published version.
    Serving: Backoff,
    /// The service that answers requests cannot read the version.
    ServingFailed: Backoff,
    /// There is nothing left to do.
    Settled: Backoff,
}

impl Reason {
    /// Whether only the spec, or a newer version of Lakehouse, can change what this is the reason of.
    pub fn is_of_the_spec(self) -> bool {
        matches!(
            self,
            Self::InvalidSpec
                | Self::InvalidName
                | Self::InvalidSource
                | Self::UnknownFormat
                | Self::InvalidSchedule
                | Self::NotSupported
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is none of the reasons.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no reason that this version knows")]
pub struct UnknownReason(pub String);

impl FromStr for Reason {
    type Err = UnknownReason;
    fn from_str(text: &str) -> Result<Self, UnknownReason> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.as_str() == text)
            .ok_or_else(|| UnknownReason(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_reads_back_as_it_was_written_and_fits_a_condition() {
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(*reason));
            // `^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$` of metav1.Condition.
            assert!(reason.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric()), "{reason}");
        }
        assert!("invaliddata".parse::<Reason>().is_err());
    }
}
