//! Other programs' words, made fit for a condition's message.

use k8s_openapi::api::core::v1::Event;
use serde_json::Value;

/// The longest text of a container that is repeated, in bytes.
const MAX_WORDS: usize = 1000;
/// What an image's pull says before its reason, by turns.
const PULL_PREFIXES: [&str; 2] = ["Back-off pulling image ", "ErrImagePull: "];

/// A text that another sentence can follow.
pub(super) fn sentence(text: &str) -> String {
    let text = text.trim();
    if text.ends_with(['.', '!', '?']) { text.to_owned() } else { format!("{text}.") }
}

/// The reason of a failed pull, told the same whether the kubelet tries or waits.
pub(super) fn of_pull(message: &str) -> &str {
    let [back_off, tried] = PULL_PREFIXES;
    let reason = if message.starts_with(back_off) { message.split_once(": ") } else { None };
    let message = reason.map_or(message, |(_, reason)| reason);
    message.strip_prefix(tried).unwrap_or(message)
}

/// What a container wrote last: its last line, and of a line of the log as JSON what a person would read.
pub(in crate::cluster) fn last_words(log: &str) -> Option<String> {
    let line = log.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    let logged = serde_json::from_str::<Value>(line).ok();
    let field = |name: &str| logged.as_ref()?.get(name)?.as_str().map(str::to_owned);
    let words = match (field("message"), field("error")) {
        (Some(message), Some(error)) => format!("{message}: {error}"),
        (Some(message), None) => message,
        _ => line.to_owned(),
    };
    Some(shortened(words))
}

fn shortened(mut words: String) -> String {
    if words.len() > MAX_WORDS {
        words.truncate(words.floor_char_boundary(MAX_WORDS));
        words.push('…');
    }
    words
}

/// The newest event with one of these reasons.
pub(super) fn newest<'a>(events: &'a [Event], reasons: &[&str]) -> Option<&'a Event> {
    let time = |event: &Event| {
        let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref());
        let last = event.last_timestamp.as_ref().map(|time| time.0);
        series.map(|time| time.0).or(last).or(event.event_time.as_ref().map(|time| time.0))
    };
    events
        .iter()
        .filter(|event| event.reason.as_deref().is_some_and(|reason| reasons.contains(&reason)))
        .max_by_key(|event| time(event))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pulls_reason_is_told_the_same_by_turns() {
        let reason = "rpc error: code = NotFound desc = failed to resolve reference \"h/i:1\": not found";
        for message in [
            reason.to_owned(),
            format!("ErrImagePull: {reason}"),
            format!("Back-off pulling image \"h/i:1\": ErrImagePull: {reason}"),
        ] {
            assert_eq!(of_pull(&message), reason);
        }
        assert_eq!(of_pull("Back-off pulling image \"i\""), "Back-off pulling image \"i\"");
    }

    #[test]
    fn the_last_line_is_what_counts_and_json_is_read() {
        for (log, words) in [
            (
                "starting\nlakehouse: the store s3://b: denied\n\n",
                Some("lakehouse: the store s3://b: denied"),
            ),
            (r#"{"level":"ERROR","message":"It broke","error":"disk full"}"#, Some("It broke: disk full")),
            (r#"{"level":"INFO","message":"It drains"}"#, Some("It drains")),
            (r#"{"a":1}"#, Some(r#"{"a":1}"#)),
            (" \n", None),
        ] {
            assert_eq!(last_words(log).as_deref(), words);
        }
        assert!(last_words(&"ä".repeat(5000)).unwrap().len() < 1010);
    }
}
