//! The `Range` header (RFC 9110, section 14).

use axum::http::{HeaderMap, header};
use lakehouse_store::ByteRange;

/// The one range that a request asks for. Several ranges, other units and what does not parse are ignored, as the RFC
/// allows: the answer is the whole object.
pub(crate) fn of(headers: &HeaderMap) -> Option<ByteRange> {
    let spec = headers.get(header::RANGE)?.to_str().ok()?.strip_prefix("bytes=")?;
    let (first, last) = spec.trim().split_once('-')?;
    match (number(first), number(last)) {
        (Some(start), Some(last)) if start <= last => {
            Some(ByteRange::Bounded { start, end: last.saturating_add(1) })
        }
        (Some(start), None) if last.is_empty() => Some(ByteRange::From(start)),
        (None, Some(count)) if first.is_empty() => Some(ByteRange::Last(count)),
        _ => None,
    }
}

/// Digits and nothing else; `parse` alone would take a `+`.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_a_range_is_read() {
        assert_eq!(range("bytes=0-0"), Some(ByteRange::Bounded { start: 0, end: 1 }));
        assert_eq!(range("bytes=5-"), Some(ByteRange::From(5)));
        assert_eq!(range("bytes=-5"), Some(ByteRange::Last(5)));
    }

    #[test]
    fn what_is_no_single_range_of_bytes_is_ignored() {
        for text in
            ["bytes=", "bytes=-", "bytes=5-4", "bytes=0-1,3-4", "lines=1-2", "bytes=+1-2", "bytes=x-", "0-1"]
        {
            assert_eq!(range(text), None, "{text}");
        }
        assert_eq!(of(&HeaderMap::new()), None);
    }

    fn range(text: &str) -> Option<ByteRange> {
        of(&HeaderMap::from_iter([(header::RANGE, text.parse().unwrap())]))
    }
}
