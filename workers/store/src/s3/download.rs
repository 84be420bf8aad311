//! Bodies on their way out of a bucket. A connection that breaks is replaced by one that goes on where it broke, and
//! only if the object is still the same.

use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream as Body;
use bytes::Bytes;
use futures::{StreamExt, stream};
use lakehouse_contract::Key;

use super::{S3, retry::Backoff};
use crate::{ByteStream, Error, Result};

/// A body that brings nothing for this long counts as broken.
const SILENCE: Duration = Duration::from_secs(20);

/// The part of a body that is still to come.
pub(super) struct Reading {
    pub(super) s3: S3,
    pub(super) key: Key,
    pub(super) etag: String,
    /// The next byte of the object.
    pub(super) at: u64,
    /// One past the last byte that was asked for.
    pub(super) end: u64,
    pub(super) body: Body,
}

impl Reading {
    pub(super) fn into_stream(self) -> ByteStream {
        stream::try_unfold(self, |mut reading| async move {
            Ok(reading.next().await?.map(|piece| (piece, reading)))
        })
        .boxed()
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        let mut backoff = Backoff::until(self.s3.settings().deadline);
        loop {
            let left = self.end - self.at;
            if left == 0 {
                return Ok(None);
            }
            let broken = match tokio::time::timeout(SILENCE, self.body.try_next()).await {
                Ok(Ok(Some(piece))) if piece.is_empty() => continue,
                Ok(Ok(Some(mut piece))) => {
                    piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                    self.at += piece.len() as u64;
                    return Ok(Some(piece));
                }
                Ok(Ok(None)) => "the body ended too early".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("the body brought nothing for {} seconds", SILENCE.as_secs()),
            };
            if !backoff.pause().await {
                let message = format!("{}: {}", self.s3.settings(), self.s3.settings().redact(&broken));
                return Err(Error::Unavailable { message });
            }
            tracing::debug!(key = %self.key, at = self.at, broken, "Reading on after a broken connection");
            self.body = self.reopen().await?;
        }
    }

    async fn reopen(&self) -> Result<Body> {
        let answer = self
            .s3
            .call(0, || {
                self.s3
                    .client()
                    .get_object()
                    .bucket(self.s3.bucket())
                    .key(self.key.as_str())
                    .range(format!("bytes={}-{}", self.at, self.end - 1))
                    .if_match(&self.etag)
                    .send()
            })
            .await;
        match answer {
            Ok(object) => Ok(object.body),
            // Another content has come meanwhile; the rest of it does not continue what was read.
            Err(failure) if failure.is_conflict(&crate::Condition::Always) || failure.is_past_the_end() => {
                Err(Error::Conflict { key: self.key.clone() })
            }
            Err(failure) => Err(self.s3.error(failure, Some(&self.key))),
        }
    }
}
