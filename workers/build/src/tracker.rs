//! How far a build has come, told to whoever asks.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use lakehouse_contract::{
    IndexName,
    build::{Phase, Progress},
};

use crate::Error;

/// The counters of one build. Clones are the same counters.
#[derive(Clone, Debug)]
pub struct Tracker(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    name: IndexName,
    started: Instant,
    phase: Phase,
    rows: u64,
    done: u64,
    total: Option<u64>,
    embedded: u64,
    reused: u64,
    failed: u64,
    /// When rows began to get their vectors.
    embedding_since: Option<Instant>,
    message: Option<String>,
    ended: Option<Duration>,
}

impl Tracker {
    /// Starts the clock of a build.
    pub fn new(name: IndexName) -> Self {
        Self(Arc::new(Mutex::new(State {
            name,
            started: Instant::now(),
            phase: Phase::Reading,
            rows: 0,
            done: 0,
            total: None,
            embedded: 0,
            reused: 0,
            failed: 0,
            embedding_since: None,
            message: None,
            ended: None,
        })))
    }

    /// Where it stands now.
    pub fn progress(&self) -> Progress {
        let state = self.state();
        let elapsed = state.ended.unwrap_or_else(|| state.started.elapsed());
        let embeds = matches!(state.phase, Phase::Embedding | Phase::Waiting);
        let since = state.embedding_since.filter(|_| embeds).map_or(elapsed, |since| since.elapsed());
        let counted = if state.phase == Phase::Reading { state.rows } else { state.done };
        let left =
            state.total.filter(|_| embeds && state.done > 0).map(|total| total.saturating_sub(state.done));
        Progress {
            name: state.name.to_string(),
            phase: state.phase,
            rows: state.rows,
            done: state.done,
            total: state.total,
            embedded: state.embedded,
            reused: state.reused,
            failed: state.failed,
            elapsed_ms: whole(elapsed),
            rows_per_second: scale(counted, 1000, whole(since)),
            remaining_ms: left.map(|left| scale(left, whole(since), state.done)),
            message: state.message.clone(),
        }
    }

    pub(crate) fn enter(&self, phase: Phase) {
        let mut state = self.state();
        if phase == Phase::Embedding && state.embedding_since.is_none() {
            state.embedding_since = Some(Instant::now());
        }
        state.phase = phase;
        state.message = None;
    }

    /// The embedding service is waited for, and this sentence says why.
    pub(crate) fn wait(&self, sentence: String) {
        let mut state = self.state();
        state.phase = Phase::Waiting;
        state.message = Some(sentence);
    }

    pub(crate) fn expect(&self, total: u64) {
        self.state().total = Some(total);
    }

    pub(crate) fn read(&self, rows: u64) {
        self.state().rows += rows;
    }

    pub(crate) fn reject(&self, rows: u64) {
        let mut state = self.state();
        state.failed += rows;
        state.done += rows;
    }

    /// Rows have their vectors: of texts that were embedded now, and of texts whose vectors were there.
    pub(crate) fn give(&self, embedded: u64, reused: u64) {
        let mut state = self.state();
        state.embedded += embedded;
        state.reused += reused;
        state.done += embedded + reused;
    }

    /// So many of the vectors are in their graphs.
    pub(crate) fn indexed(&self, done: u64, of: u64) {
        self.state().message = Some(format!("{done} of {of} vectors"));
    }

    /// Stops the clock.
    pub(crate) fn end<T>(&self, result: &Result<T, Error>) {
        let mut state = self.state();
        state.message = result.as_ref().err().map(ToString::to_string);
        state.phase = if state.message.is_some() { Phase::Failed } else { Phase::Done };
        state.ended = Some(state.started.elapsed());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every method leaves the counters whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `number * numerator / denominator`, with a denominator of at least one.
fn scale(number: u64, numerator: u64, denominator: u64) -> u64 {
    let scaled = u128::from(number) * u128::from(numerator) / u128::from(denominator.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

fn whole(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_the_rows_that_have_their_vectors() {
        let tracker = Tracker::new(IndexName::parse("shelf").unwrap());
        tracker.expect(1000);
        tracker.read(1000);
        tracker.enter(Phase::Embedding);
        tracker.give(200, 40);
        tracker.reject(10);
        std::thread::sleep(Duration::from_millis(8));
        let progress = tracker.progress();
        assert_eq!((progress.done, progress.embedded, progress.reused, progress.failed), (250, 200, 40, 10));
        let left = progress.remaining_ms.unwrap();
        assert!((20..=progress.elapsed_ms * 4).contains(&left), "{progress:?}");
    }

    #[test]
    fn a_wait_is_told_until_it_is_over() {
        let tracker = Tracker::new(IndexName::parse("shelf").unwrap());
        tracker.enter(Phase::Embedding);
        tracker.wait("`ollama` answers 429".to_owned());
        let progress = tracker.progress();
        assert_eq!(
            (progress.phase, progress.message.as_deref()),
            (Phase::Waiting, Some("`ollama` answers 429"))
        );
        tracker.enter(Phase::Embedding);
        assert_eq!((tracker.progress().phase, tracker.progress().message), (Phase::Embedding, None));
    }
}
