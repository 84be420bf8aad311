//! How much is asked of a provider: requests at the same time, and requests in a minute.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use lakehouse_contract::provider::Limits;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, sleep_until},
};

use super::MAX_CONCURRENT;
use crate::deadline::Deadline;

const MINUTE: Duration = Duration::from_mins(1);
/// So long one answer can keep everybody from asking.
const LONGEST_HOLD: Duration = Duration::from_mins(5);

/// Lets requests through, one after the other where it must.
#[derive(Clone, Debug)]
pub(super) struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    open: Semaphore,
    per_minute: Option<usize>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When the requests of the last minute began, or will begin.
    begun: VecDeque<Instant>,
    /// The provider has asked for a pause until then.
    not_before: Instant,
}

impl Gate {
    pub(super) fn new(limits: &Limits) -> Self {
        let concurrent = limits.max_concurrent.unwrap_or(MAX_CONCURRENT).max(1);
        Self(Arc::new(Inner {
            open: Semaphore::new(concurrent as usize),
            per_minute: limits.requests_per_minute.map(|count| count.max(1) as usize),
            state: Mutex::new(State { begun: VecDeque::new(), not_before: Instant::now() }),
        }))
    }

    /// Waits for a request's turn, and says when that would be where it is not before `deadline`.
    pub(super) async fn enter(&self, deadline: &Deadline) -> Result<SemaphorePermit<'_>, Instant> {
        let Some(Ok(permit)) = deadline.limit(self.0.open.acquire()).await else {
            return Err(deadline.now());
        };
        let turn = self.turn(deadline.now())?;
        sleep_until(turn).await;
        Ok(permit)
    }

    /// Nothing is asked for so long, within reason: whoever asks after that is told again.
    pub(super) fn hold(&self, pause: Duration) {
        let mut state = self.state();
        state.not_before = state.not_before.max(Instant::now() + pause.min(LONGEST_HOLD));
    }

    /// In no minute there are more requests than allowed.
    fn turn(&self, deadline: Instant) -> Result<Instant, Instant> {
        let mut state = self.state();
        let mut turn = Instant::now().max(state.not_before);
        if let Some(limit) = self.0.per_minute {
            if let Some(over) = state.begun.len().checked_sub(limit) {
                turn = turn.max(state.begun[over] + MINUTE);
            }
            if turn < deadline {
                state.begun.push_back(turn);
                while state.begun.len() > limit {
                    state.begun.pop_front();
                }
            }
        }
        if turn < deadline { Ok(turn) } else { Err(turn) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn no_minute_has_more_requests_than_allowed() {
        let gate = gate(Limits { requests_per_minute: Some(3), ..Limits::default() });
        let (start, end) = (Instant::now(), Instant::now() + 10 * MINUTE);
        let mut turns = Vec::new();
        for _ in 0..7 {
            drop(gate.enter(&Deadline::at(end)).await.unwrap());
            turns.push(start.elapsed().as_secs());
        }
        assert_eq!(turns, [0, 0, 0, 60, 60, 60, 120]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_after_the_deadline_is_said_at_once_and_not_taken() {
        let gate = gate(Limits { requests_per_minute: Some(1), ..Limits::default() });
        let start = Instant::now();
        drop(gate.enter(&Deadline::at(start + MINUTE)).await.unwrap());
        for _ in 0..3 {
            let turn = gate.enter(&Deadline::at(start + MINUTE / 2)).await.unwrap_err();
            assert_eq!((turn - start, start.elapsed()), (MINUTE, Duration::ZERO));
        }
        drop(gate.enter(&Deadline::at(start + 2 * MINUTE)).await.unwrap());
        assert_eq!(start.elapsed(), MINUTE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_the_provider_asks_for_holds_for_all() {
        let gate = gate(Limits { max_concurrent: Some(1), ..Limits::default() });
        let start = Instant::now();
        gate.hold(Duration::from_secs(7));
        gate.hold(Duration::from_secs(3));
        let permit = gate.enter(&Deadline::at(start + MINUTE)).await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 7);
        // The only place is taken.
        assert!(gate.enter(&Deadline::at(start + MINUTE)).await.is_err());
        drop(permit);
    }

    #[tokio::test(start_paused = true)]
    async fn an_absurd_pause_shuts_nobody_out_for_long() {
        let gate = gate(Limits::default());
        let start = Instant::now();
        gate.hold(Duration::MAX);
        drop(gate.enter(&Deadline::at(start + 10 * MINUTE)).await.unwrap());
        assert_eq!(start.elapsed(), LONGEST_HOLD);
    }

    fn gate(limits: Limits) -> Gate {
        Gate::new(&limits)
    }
}
