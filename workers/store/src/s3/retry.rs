//! Calls that are made again after a pause when a failure may pass, until a deadline.

use std::{
    error::Error as StdError,
    time::{Duration, Instant},
};

use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};

use super::{S3, failure::Failure};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// What one attempt may take without a body.
const ATTEMPT: Duration = Duration::from_secs(15);
/// The slowest connection over which a body is still waited for, in bytes a second.
const SLOWEST: u64 = 100 << 10;

/// Pauses that grow, each drawn at random so that many clients do not come back at once.
pub(super) struct Backoff {
    begun: Instant,
    pause: Duration,
    deadline: Duration,
}

impl Backoff {
    pub(super) fn until(deadline: Duration) -> Self {
        Self { begun: Instant::now(), pause: FIRST_PAUSE, deadline }
    }

    /// Waits before the next attempt; false when the deadline leaves no room for one.
    pub(super) async fn pause(&mut self) -> bool {
        let pause = self.pause.mul_f64(rand::random_range(0.5..1.0));
        if self.begun.elapsed() + pause > self.deadline {
            return false;
        }
        tokio::time::sleep(pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        true
    }
}

impl S3 {
    /// Makes a call that moves `bytes` of body, again and again while its failure may pass.
    pub(super) async fn call<T, E, Call, Answer>(&self, bytes: u64, attempt: Call) -> Result<T, Failure>
    where
        Call: FnMut() -> Answer,
        Answer: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + StdError + 'static,
    {
        self.call_until(self.settings().deadline, bytes, attempt).await
    }

    /// The same with a deadline of its own; with none at all, once.
    pub(super) async fn call_until<T, E, Call, Answer>(
        &self,
        deadline: Duration,
        bytes: u64,
        mut attempt: Call,
    ) -> Result<T, Failure>
    where
        Call: FnMut() -> Answer,
        Answer: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let limit = ATTEMPT + Duration::from_secs(bytes / SLOWEST);
        let mut backoff = Backoff::until(deadline);
        let mut may_have_happened = false;
        loop {
            let mut failure = match tokio::time::timeout(limit, attempt()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => Failure::of(&error),
                Err(_) => Failure::timeout(limit.as_secs()),
            };
            may_have_happened |= failure.may_have_happened;
            failure.may_have_happened = may_have_happened;
            if !failure.is_passing() || !backoff.pause().await {
                return Err(failure);
            }
            tracing::warn!("{}; asking again", failure.describe(self.settings()));
        }
    }
}
