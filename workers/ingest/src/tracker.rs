//! How far an ingest has come, told to whoever asks, and the way to end it early.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use lakehouse_contract::ingest::{Phase, Progress};

use crate::Error;

/// The counters of one ingest. Clones are the same counters; adding to them costs next to nothing.
#[derive(Clone, Debug)]
pub struct Tracker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    started: Instant,
    /// Milliseconds from the start to the beginning of the reading that `bytes` counts.
    reading_since: AtomicU64,
    phase: AtomicU8,
    bytes: AtomicU64,
    /// 0 while unknown.
    total_bytes: AtomicU64,
    rows: AtomicU64,
    cancelled: AtomicBool,
    end: Mutex<Option<End>>,
}

#[derive(Clone, Debug)]
struct End {
    elapsed: Duration,
    message: Option<String>,
}

const PHASES: [Phase; 6] =
    [Phase::Fetching, Phase::Converting, Phase::Uploading, Phase::Publishing, Phase::Done, Phase::Failed];

impl Tracker {
    /// Starts the clock of an ingest into the dataset `name`.
    pub fn new(name: impl Into<String>) -> Self {
        let shared = Shared {
            name: name.into(),
            started: Instant::now(),
            reading_since: AtomicU64::new(0),
            phase: AtomicU8::new(0),
            bytes: AtomicU64::new(0),
            total_bytes: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            cancelled: AtomicBool::new(false),
            end: Mutex::new(None),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Asks the ingest to end. It removes what it spooled and fails with [`Error::Cancelled`].
    pub fn cancel(&self) {
        self.shared.cancelled.store(true, Relaxed);
    }

    /// Where it stands now.
    pub fn progress(&self) -> Progress {
        let Shared { name, started, reading_since, phase, bytes, total_bytes, rows, cancelled: _, end } =
            &*self.shared;
        let end = end.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let elapsed = end.as_ref().map_or_else(|| started.elapsed(), |end| end.elapsed);
        let bytes = bytes.load(Relaxed);
        let total_bytes = Some(total_bytes.load(Relaxed)).filter(|&total| total > 0);
        let phase = PHASES[usize::from(phase.load(Relaxed))];
        let elapsed_ms = whole(elapsed);
        let reading_ms = elapsed_ms.saturating_sub(reading_since.load(Relaxed));
        let reads = matches!(phase, Phase::Fetching | Phase::Converting);
        let left = total_bytes.filter(|_| reads && bytes > 0);
        Progress {
            name: name.clone(),
            phase,
            bytes,
            total_bytes,
            rows: rows.load(Relaxed),
            rejected_rows: 0,
            elapsed_ms,
            bytes_per_second: scale(bytes, 1000, reading_ms),
            remaining_ms: left.map(|total| scale(total.saturating_sub(bytes), reading_ms, bytes)),
            message: end.and_then(|end| end.message),
        }
    }

    /// So much of the source has been brought to this machine.
    pub fn fetched(&self, bytes: u64, total_bytes: Option<u64>) {
        self.shared.total_bytes.store(total_bytes.unwrap_or(0), Relaxed);
        self.shared.bytes.store(bytes, Relaxed);
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.shared.cancelled.load(Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// A reading of the source begins, perhaps a second one.
    pub(crate) fn reading(&self, total_bytes: u64) {
        self.shared.reading_since.store(self.elapsed_ms(), Relaxed);
        self.shared.total_bytes.store(total_bytes, Relaxed);
        self.shared.bytes.store(0, Relaxed);
        self.shared.rows.store(0, Relaxed);
    }

    pub(crate) fn add(&self, bytes: u64, rows: u64) {
        self.shared.bytes.fetch_add(bytes, Relaxed);
        self.shared.rows.fetch_add(rows, Relaxed);
    }

    pub(crate) fn enter(&self, phase: Phase) {
        let place = PHASES.iter().position(|&other| other == phase);
        self.shared.phase.store(place.and_then(|place| u8::try_from(place).ok()).unwrap_or(0), Relaxed);
    }

    pub(crate) fn elapsed_ms(&self) -> u64 {
        whole(self.shared.started.elapsed())
    }

    /// Stops the clock.
    pub(crate) fn end<T>(&self, result: &Result<T, Error>) {
        let message = result.as_ref().err().map(ToString::to_string);
        self.enter(if message.is_some() { Phase::Failed } else { Phase::Done });
        let end = End { elapsed: self.shared.started.elapsed(), message };
        *self.shared.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
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
    fn progress_tells_the_rate_and_the_time_left() {
        let tracker = Tracker::new("sales");
        tracker.reading(1000);
        tracker.add(250, 10);
        std::thread::sleep(Duration::from_millis(5));
        let progress = tracker.progress();
        assert_eq!((progress.bytes, progress.total_bytes, progress.rows), (250, Some(1000), 10));
        assert!(progress.bytes_per_second > 0);
        let left = progress.remaining_ms.unwrap();
        assert!((progress.elapsed_ms * 2..=progress.elapsed_ms * 4 + 8).contains(&left), "{progress:?}");
    }

    #[test]
    fn the_rate_of_a_reading_does_not_count_the_time_before_it() {
        let tracker = Tracker::new("sales");
        tracker.fetched(1000, Some(1000));
        std::thread::sleep(Duration::from_millis(300));
        tracker.reading(1000);
        tracker.add(500, 10);
        std::thread::sleep(Duration::from_millis(5));
        let progress = tracker.progress();
        assert!(progress.elapsed_ms >= 300, "{progress:?}");
        let whole_time = 500 * 1000 / progress.elapsed_ms;
        assert!(progress.bytes_per_second > whole_time, "{progress:?}");
    }

    #[test]
    fn the_clock_stops_at_the_end_and_the_reason_stays() {
        let tracker = Tracker::new("sales");
        tracker.end::<()>(&Err(Error::Cancelled));
        let first = tracker.progress();
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(tracker.progress(), first);
        assert_eq!(first.phase, Phase::Failed);
        assert_eq!(first.message.as_deref(), Some("the ingest was cancelled"));
    }
}
