//! Looks at a provider now and then: is its key there, does it answer, does it accept the key, what does it list?
//!
//! One small request tells all of it. It takes no place and no turn from those who chat, and the breaker does not hear of it: a
//! provider whose list works while its chat fails is left alone all the same.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use jiff::Timestamp;
use lakehouse_contract::chat::{Probe, ProbeFailure, ProbeStage};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};

use crate::{ChatError, error::Kind, upstream::Upstream};

/// A list of models, or why there is none.
pub(crate) type Models = Result<Arc<[String]>, String>;

/// What was seen of a provider.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    pub(crate) probe: Probe,
    pub(crate) models: Models,
}

/// The last look at a provider, and the wish for the next one. The looks end when this is dropped.
#[derive(Debug)]
pub(crate) struct Looks {
    last: watch::Sender<Option<Look>>,
    again: Arc<Notify>,
}

impl Default for Looks {
    fn default() -> Self {
        Self { last: watch::Sender::new(None), again: Arc::default() }
    }
}

impl Looks {
    /// Something has changed: the next look is now.
    pub(crate) fn again(&self) {
        self.again.notify_one();
    }

    /// The last look. Where there was none yet, the first one is waited for, but not for long.
    pub(crate) async fn last(&self, patience: Duration) -> Option<Look> {
        let mut last = self.last.subscribe();
        // Nothing is seen in time, or ever: that is an answer too.
        let seen = timeout(patience, last.wait_for(Option::is_some)).await.ok()?.ok()?;
        seen.clone()
    }

    fn known_models(&self) -> Option<Arc<[String]>> {
        self.last.borrow().as_ref()?.models.as_ref().ok().cloned()
    }
}

impl Drop for Looks {
    fn drop(&mut self) {
        self.again.notify_one();
    }
}

/// Looks at a provider until nobody has it any more: every so often, and soon again where something is in the way.
pub(crate) async fn follow(upstream: Weak<Upstream>, every: Duration, soon: Duration) {
    loop {
        let Some(current) = upstream.upgrade() else { return };
        let look = look(&current).await;
        // One that cannot list its models is not mended by another look.
        let waits = look.probe.failure.as_ref().is_none_or(|failure| failure.stage == ProbeStage::Models);
        let (looks, pause) = (&current.looks, if waits { every } else { soon });
        looks.last.send_replace(Some(look));
        let again = looks.again.clone();
        drop(current);
        // Whichever is first; both lead to the next look.
        let _ = timeout(pause, again.notified()).await;
    }
}

async fn look(upstream: &Upstream) -> Look {
    let asked = Instant::now();
    let (latency, listed) = match upstream.list().await {
        Ok((answered, models)) => (Some(answered - asked), Ok(models.into())),
        // It answers, and has no time for lists.
        Err(ChatError { kind: Kind::RateLimited, .. }) if let Some(known) = upstream.looks.known_models() => {
            (Some(asked.elapsed()), Ok(known))
        }
        Err(error) => (error.upstream_status.map(|_| asked.elapsed()), Err(error)),
    };
    let failure = listed
        .as_ref()
        .err()
        .map(|error| ProbeFailure { stage: stage(error), message: error.message.clone() });
    let latency_ms = latency.map(|latency| u64::try_from(latency.as_millis()).unwrap_or(u64::MAX));
    Look {
        probe: Probe { at: Timestamp::now(), latency_ms, failure },
        models: listed.map_err(|error| error.message),
    }
}

/// How far a look came.
fn stage(error: &ChatError) -> ProbeStage {
    match (error.kind, error.upstream_status) {
        (Kind::Credentials, None) => ProbeStage::Key,
        (Kind::Credentials, Some(_)) => ProbeStage::Accept,
        (Kind::Unavailable | Kind::Timeout, _) => ProbeStage::Reach,
        _ => ProbeStage::Models,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_stops_at_the_first_thing_in_the_way() {
        let error = |kind, status| ChatError { upstream_status: status, ..ChatError::new(kind, "no") };
        for (kind, status, expected) in [
            (Kind::Credentials, None, ProbeStage::Key),
            (Kind::Unavailable, None, ProbeStage::Reach),
            (Kind::Unavailable, Some(503), ProbeStage::Reach),
            (Kind::Timeout, None, ProbeStage::Reach),
            (Kind::Credentials, Some(401), ProbeStage::Accept),
            (Kind::Refused, Some(404), ProbeStage::Models),
            (Kind::RateLimited, Some(429), ProbeStage::Models),
            (Kind::Broken, None, ProbeStage::Models),
        ] {
            assert_eq!(stage(&error(kind, status)), expected, "{kind:?} {status:?}");
        }
    }
}
