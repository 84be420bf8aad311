//! What an S3 server or the way to it answered when it was not what was asked for, and what that means for the caller.

use std::error::Error as StdError;

use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};
use lakehouse_contract::Key;

use super::S3Settings;
use crate::{Condition, Error};

/// A call that failed, freed of its operation's type.
#[derive(Debug)]
pub(super) struct Failure {
    /// The HTTP status; none when no answer came.
    status: Option<u16>,
    /// S3's error code, or empty.
    code: String,
    /// What the server or the connection says.
    message: String,
    /// The object's size, where the answer says it.
    size: Option<u64>,
    /// The request cannot have left this machine, and would not the next time.
    hopeless: bool,
    /// This or an earlier attempt of the same call may have been carried out.
    pub(super) may_have_happened: bool,
}

impl Failure {
    /// Frees a failure of its operation's type.
    pub(super) fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let status = error.raw_response().map(|answer| answer.status().as_u16());
        let size = error.raw_response().and_then(|answer| total_size(answer.headers().get("content-range")?));
        let code = error.code().unwrap_or_default().to_owned();
        let spoken = error.message().map(str::to_owned);
        let built = matches!(error, SdkError::ConstructionFailure(_));
        let message = spoken.unwrap_or_else(|| chain(error));
        let hopeless = status.is_none()
            && (built
                || ["certificate", "credential", "UnknownIssuer"].iter().any(|sign| message.contains(sign)));
        let may_have_happened = !hopeless && status.is_none_or(|status| status >= 500);
        Self { status, code, message, size, hopeless, may_have_happened }
    }

    /// An attempt that got no answer in its time.
    pub(super) fn timeout(seconds: u64) -> Self {
        Self {
            status: None,
            code: String::new(),
            message: format!("no answer within {seconds} seconds"),
            size: None,
            hopeless: false,
            may_have_happened: true,
        }
    }

    /// Whether the same call may go well a moment later.
    pub(super) fn is_passing(&self) -> bool {
        match self.status {
            None => !self.hopeless,
            Some(501 | 507) => false,
            Some(status) => {
                status >= 500
                    || matches!(status, 408 | 429)
                    || matches!(
                        self.code.as_str(),
                        "ConditionalRequestConflict" | "OperationAborted" | "RequestTimeout" | "SlowDown"
                    )
            }
        }
    }

    /// Whether the condition of a write did not hold.
    pub(super) fn is_conflict(&self, condition: &Condition) -> bool {
        match (condition, self.status) {
            (_, Some(412)) => true,
            (Condition::Always, _) => false,
            // An update of a key that is not there, or a write that another one overtook.
            (_, Some(404)) => self.code == "NoSuchKey",
            (_, Some(409)) => self.code == "ConditionalRequestConflict",
            _ => false,
        }
    }

    pub(super) fn is_missing(&self) -> bool {
        self.status == Some(404) && matches!(self.code.as_str(), "NoSuchKey" | "NotFound" | "")
    }

    /// Whether the server can hold nothing under such a name.
    pub(super) fn is_unfit_name(&self) -> bool {
        matches!(
            self.code.as_str(),
            "XMinioInvalidObjectName" | "XMinioInvalidResourceName" | "KeyTooLongError"
        )
    }

    pub(super) fn is_missing_upload(&self) -> bool {
        self.code == "NoSuchUpload"
    }

    pub(super) fn is_past_the_end(&self) -> bool {
        self.status == Some(416)
    }

    /// The size of the object, where the answer says it.
    pub(super) fn size(&self) -> Option<u64> {
        self.size
    }

    /// The server, and what it or the connection says, without secrets.
    pub(super) fn describe(&self, settings: &S3Settings) -> String {
        let said = match (self.status, self.code.as_str()) {
            (None, _) => self.message.clone(),
            (Some(status), "") => format!("HTTP {status} {}", self.message),
            (Some(_), code) => format!("{code}: {}", self.message),
        };
        format!("{settings}: {}", settings.redact(&said))
    }

    /// What the caller of the store is told. `key` is what it asked for, if it asked for one.
    pub(super) fn into_error(self, settings: &S3Settings, key: Option<&Key>) -> Error {
        if let (true, Some(key)) = (self.is_missing(), key) {
            return Error::NotFound { key: key.clone() };
        }
        let message = self.describe(settings);
        let advised = |advice: &str| format!("{message} ({advice})");
        match (self.status, self.code.as_str()) {
            (_, "NoSuchBucket") => {
                Error::Unfit { message: advised("make the bucket first, or correct its name") }
            }
            (
                _,
                "QuotaExceeded"
                | "XMinioStorageFull"
                | "XMinioAdminBucketQuotaExceeded"
                | "InsufficientStorage",
            )
            | (Some(507), _) => Error::Full { message },
            (_, "RequestTimeTooSkewed") => Error::Denied { message: advised("set this machine's clock") },
            (_, "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "ExpiredToken" | "InvalidToken") => {
                Error::Denied {
                    message: advised("check the access key, the secret key and the session token"),
                }
            }
            (Some(401 | 403), _) => Error::Denied { message },
            (Some(400..500), _) if self.is_unfit_name() => match key {
                Some(key) => Error::UnfitKey { key: key.clone(), message },
                None => Error::Unfit { message },
            },
            (Some(301 | 307), _) | (_, "AuthorizationHeaderMalformed") => {
                Error::Unfit { message: advised("check the region and the endpoint") }
            }
            (None, _) if self.message.contains("credential") => {
                Error::Denied { message: advised("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") }
            }
            (None, _) if self.hopeless => Error::Unfit {
                message: advised("for a private authority set AWS_CA_BUNDLE to its certificates"),
            },
            (Some(400..500), _) if !self.is_passing() => Error::Unfit { message },
            _ => Error::Unavailable { message },
        }
    }
}

/// `bytes 0-9/10` and `bytes */10` both end in the size.
pub(super) fn total_size(content_range: &str) -> Option<u64> {
    content_range.rsplit_once('/')?.1.parse().ok()
}

/// The causes of an error, without those that only repeat the one above.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    // Some causes are lists over many lines.
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
