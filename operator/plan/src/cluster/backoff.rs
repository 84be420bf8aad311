//! When a Job that failed is followed by another one.

use std::time::Duration;

use crate::{Reason, Retry};

/// What may pass by itself.
const SOON: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(5));
/// What somebody has to mend; a file behind a URL may be mended without a word to us.
const LATER: (Duration, Duration) = (Duration::from_secs(30), Duration::from_mins(30));

/// How long to wait after the `attempt`-th Job; `None` waits for an edit.
pub(super) fn wait(reason: Reason, attempt: u32) -> Option<Duration> {
    if reason.is_of_the_spec() {
        return None;
    }
    let (first, longest) = match reason.retry() {
        Retry::Backoff => SOON,
        Retry::OnEdit => LATER,
    };
    Some(first.saturating_mul(2u32.saturating_pow(attempt.saturating_sub(1))).min(longest))
}

/// How long to wait when what the Job ran on has changed since.
pub(super) const AFTER_A_CHANGE: Duration = SOON.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_longest() {
        let seconds = |reason, attempt| wait(reason, attempt).map(|wait: Duration| wait.as_secs());
        let soon: Vec<_> = (0..9).map(|attempt| seconds(Reason::StoreFailed, attempt)).collect();
        assert_eq!(soon, [5, 5, 10, 20, 40, 80, 160, 300, 300].map(Some));
        assert_eq!(seconds(Reason::InvalidData, 1), Some(30));
        assert_eq!(seconds(Reason::InvalidData, u32::MAX), Some(1800));
        assert_eq!(seconds(Reason::NotSupported, 1), None);
    }
}
