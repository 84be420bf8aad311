//! Bodies on their way into a bucket: small ones in one request, large ones in parts.
//!
//! Every write carries a random mark of its own. When an answer is lost and the repeated request is refused because
//! "somebody was first", the mark says whether that somebody was this very write.

use std::{path::PathBuf, time::Duration};

use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use lakehouse_contract::Key;
use uuid::Uuid;

use super::{S3, failure::Failure};
use crate::{ByteStream, Condition, Error, Etag, Payload, Result};

/// Bodies up to this size go in one request; above it, each part has it.
const PART: usize = 8 << 20;
/// What S3 allows.
const MOST_PARTS: usize = 10_000;
/// Parts under way at once. With the one that is being read, this bounds the memory of an upload.
const AT_ONCE: usize = 3;
/// The name under which the mark is kept with the object.
const MARK: &str = "lakehouse-write";

impl S3 {
    /// Writes `body`, in parts when it is large or `in_parts` asks for it.
    pub(super) async fn upload(
        &self,
        key: &Key,
        body: Payload,
        condition: &Condition,
        in_parts: bool,
    ) -> Result<Etag> {
        let part_size = match &body {
            Payload::File(path) => part_size(path.clone()).await?,
            Payload::Bytes(_) | Payload::Stream(_) => PART,
        };
        let mut body = Parts { body: body.into_stream().await?, rest: BytesMut::new(), part_size };
        let first = body.next().await?.unwrap_or_default();
        if first.len() < part_size && !in_parts {
            return self.upload_whole(key, first, condition).await;
        }
        if self.is_refused_already(key, condition).await? {
            return Err(Error::Conflict { key: key.clone() });
        }
        self.upload_parts(key, first, body, condition).await
    }

    async fn upload_whole(&self, key: &Key, body: Bytes, condition: &Condition) -> Result<Etag> {
        let mark = new_mark();
        let (if_match, if_none_match) = headers(condition);
        let answer = self
            .call(body.len() as u64, || {
                self.client()
                    .put_object()
                    .bucket(self.bucket())
                    .key(key.as_str())
                    .metadata(MARK, &mark)
                    .set_if_match(if_match.clone())
                    .set_if_none_match(if_none_match.clone())
                    .body(body.clone().into())
                    .send()
            })
            .await;
        match answer {
            Ok(done) => self.etag(done.e_tag),
            Err(failure) => self.settle(key, &mark, condition, failure).await,
        }
    }

    async fn upload_parts(
        &self,
        key: &Key,
        first: Bytes,
        rest: Parts,
        condition: &Condition,
    ) -> Result<Etag> {
        let mark = new_mark();
        let begun = self
            .call(0, || {
                let create = self.client().create_multipart_upload().bucket(self.bucket()).key(key.as_str());
                create.metadata(MARK, &mark).send()
            })
            .await
            .map_err(|failure| self.error(failure, Some(key)))?;
        let id = begun.upload_id.ok_or_else(|| self.unclear("it gave no id for an upload in parts"))?;
        let upload = Upload { s3: self.clone(), key: key.clone(), id, open: true };

        let rest = stream::try_unfold(rest, |mut rest| async move {
            Ok::<_, Error>(rest.next().await?.map(|part| (part, rest)))
        });
        let mut parts: Vec<CompletedPart> = stream::once(async { Ok(first) })
            .chain(rest)
            .enumerate()
            .map(|(index, part)| part.map(|part| upload.part(index + 1, part)))
            .try_buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        parts.sort_by_key(|part| part.part_number);
        upload.complete(parts, &mark, condition).await
    }

    /// Spares a body that could not be committed; what decides is the condition of the commit itself.
    async fn is_refused_already(&self, key: &Key, condition: &Condition) -> Result<bool> {
        Ok(match (condition, self.head_until(self.settings().deadline, key).await?) {
            (Condition::Always, _) => false,
            (Condition::Absent, found) => found.is_some(),
            (Condition::Matches(etag), found) => {
                found.is_none_or(|found| found.e_tag.as_ref() != Some(&etag.0))
            }
        })
    }

    /// Finds out whether a write that failed, or seems to have lost against another one, was done after all.
    async fn settle(&self, key: &Key, mark: &str, condition: &Condition, failure: Failure) -> Result<Etag> {
        // When the server did not come back before the deadline, it is asked once more and not for as long again.
        let deadline = if failure.is_passing() { Duration::ZERO } else { self.settings().deadline };
        if failure.may_have_happened
            && let Ok(Some(found)) = self.head_until(deadline, key).await
            && found.metadata.as_ref().and_then(|pairs| pairs.get(MARK)).is_some_and(|found| found == mark)
        {
            return self.etag(found.e_tag);
        }
        if failure.is_conflict(condition) {
            return Err(Error::Conflict { key: key.clone() });
        }
        Err(self.error(failure, Some(key)))
    }
}

/// An upload in parts that the server keeps until it is completed or aborted.
struct Upload {
    s3: S3,
    key: Key,
    id: String,
    open: bool,
}

impl Upload {
    async fn part(&self, number: usize, body: Bytes) -> Result<CompletedPart> {
        if number > MOST_PARTS {
            let limit = (MOST_PARTS * PART) as u64;
            return Err(Error::TooLarge { limit });
        }
        let number = i32::try_from(number).expect("at most 10,000");
        let done = self
            .s3
            .call(body.len() as u64, || {
                self.s3
                    .client()
                    .upload_part()
                    .bucket(self.s3.bucket())
                    .key(self.key.as_str())
                    .upload_id(&self.id)
                    .part_number(number)
                    .body(body.clone().into())
                    .send()
            })
            .await
            .map_err(|failure| self.s3.error(failure, Some(&self.key)))?;
        Ok(CompletedPart::builder().part_number(number).set_e_tag(done.e_tag).build())
    }

    async fn complete(
        mut self,
        parts: Vec<CompletedPart>,
        mark: &str,
        condition: &Condition,
    ) -> Result<Etag> {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let (if_match, if_none_match) = headers(condition);
        // Putting the parts together may take the server a while for a large object.
        let answer = self
            .s3
            .call(PART as u64, || {
                self.s3
                    .client()
                    .complete_multipart_upload()
                    .bucket(self.s3.bucket())
                    .key(self.key.as_str())
                    .upload_id(&self.id)
                    .multipart_upload(parts.clone())
                    .set_if_match(if_match.clone())
                    .set_if_none_match(if_none_match.clone())
                    .send()
            })
            .await;
        let result = match answer {
            Ok(done) => self.s3.etag(done.e_tag),
            Err(failure) => {
                // A repeated request finds no upload when the first one completed it.
                self.open = !failure.is_missing_upload();
                self.s3.settle(&self.key, mark, condition, failure).await
            }
        };
        self.open &= result.is_err();
        result
    }
}

/// Also when the caller goes away in the middle: parts that nobody completes would lie in the bucket, unseen and paid for.
impl Drop for Upload {
    fn drop(&mut self) {
        let (true, Ok(runtime)) = (self.open, tokio::runtime::Handle::try_current()) else { return };
        let (s3, key, id) = (self.s3.clone(), self.key.clone(), self.id.clone());
        runtime.spawn(async move {
            let aborted = s3
                .call(0, || {
                    let abort = s3.client().abort_multipart_upload().bucket(s3.bucket());
                    abort.key(key.as_str()).upload_id(&id).send()
                })
                .await;
            if let Err(failure) = aborted {
                let error = s3.error(failure, Some(&key));
                tracing::warn!(%key, %error, "An unfinished upload stays in the bucket");
            }
        });
    }
}

/// A body cut into parts of one size; only the last is shorter. (Some servers insist on equal parts.)
struct Parts {
    body: ByteStream,
    rest: BytesMut,
    part_size: usize,
}

impl Parts {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        while self.rest.len() < self.part_size {
            match self.body.try_next().await? {
                Some(piece) => self.rest.extend_from_slice(&piece),
                None => break,
            }
        }
        let size = self.rest.len().min(self.part_size);
        Ok((size > 0).then(|| self.rest.split_to(size).freeze()))
    }
}

/// Parts of [`PART`], or larger ones for a file that would need too many.
async fn part_size(file: PathBuf) -> Result<usize> {
    let size = tokio::fs::metadata(&file).await.map_err(|error| Error::local(&file, error))?.len();
    let needed = size.div_ceil(MOST_PARTS as u64);
    Ok(usize::try_from(needed).unwrap_or(usize::MAX).max(PART))
}

fn headers(condition: &Condition) -> (Option<String>, Option<String>) {
    match condition {
        Condition::Always => (None, None),
        Condition::Absent => (None, Some("*".to_owned())),
        Condition::Matches(etag) => (Some(etag.0.clone()), None),
    }
}

fn new_mark() -> String {
    Uuid::new_v4().simple().to_string()
}
