//! Leaves a provider alone that failed several times in a row, and looks again after a while with one request at a time.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

#[derive(Debug)]
pub(crate) struct Breaker {
    limit: u32,
    rest: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// While this is set, the provider is left alone; whoever comes after it tries, and moves it on for all others.
    until: Option<Instant>,
    /// What the last failure said.
    said: Option<String>,
}

/// Nobody is let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resting {
    pub(crate) failures: u32,
    pub(crate) said: String,
    pub(crate) pause: Duration,
}

impl Breaker {
    pub(crate) fn new(limit: u32, rest: Duration) -> Self {
        Self { limit: limit.max(1), rest, state: Mutex::default() }
    }

    /// Lets a request through, or says for how long none is.
    pub(crate) fn enter(&self) -> Result<(), Resting> {
        let mut state = self.state();
        let Some(until) = state.until else { return Ok(()) };
        let now = Instant::now();
        if now < until {
            let said = state.said.clone().unwrap_or_default();
            return Err(Resting { failures: state.failures, said, pause: until - now });
        }
        // This request is the trial. One that brings no verdict, since its client left, is followed by another.
        state.until = Some(now + self.rest);
        Ok(())
    }

    /// The provider works.
    pub(crate) fn success(&self) {
        let mut state = self.state();
        if state.failures > 0 {
            *state = State::default();
        }
    }

    /// It failed. Whether it is left alone from now on, and was not before.
    pub(crate) fn failure(&self, said: &str) -> bool {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        state.said = Some(said.to_owned());
        let was_open = state.until.is_some();
        if state.failures >= self.limit {
            state.until = Some(Instant::now() + self.rest);
        }
        state.until.is_some() && !was_open
    }

    /// What the last failure said, while no success came after it.
    pub(crate) fn complaint(&self) -> Option<String> {
        self.state().said.clone()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state().until.is_none()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each method leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_close_the_way_and_one_trial_opens_it() {
        let breaker = Breaker::new(2, REST);
        assert!(!breaker.failure("one"));
        breaker.success();
        assert!(!breaker.failure("one"));
        breaker.enter().unwrap();
        assert!(breaker.failure("two"));
        let resting = breaker.enter().unwrap_err();
        assert_eq!(resting, Resting { failures: 2, said: "two".into(), pause: REST });

        tokio::time::advance(REST).await;
        breaker.enter().unwrap();
        breaker.enter().unwrap_err();
        assert!(!breaker.failure("three"), "it was known already");
        breaker.enter().unwrap_err();

        tokio::time::advance(REST).await;
        breaker.enter().unwrap();
        breaker.success();
        breaker.enter().unwrap();
        assert!(breaker.is_closed() && breaker.complaint().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_whose_client_left_is_followed_by_another() {
        let breaker = Breaker::new(1, REST);
        breaker.failure("down");
        tokio::time::advance(REST).await;
        breaker.enter().unwrap();
        tokio::time::advance(REST).await;
        breaker.enter().unwrap();
    }
}
