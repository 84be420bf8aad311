//! Paths of requests, as they were sent.

/// The first segment of a path that starts with `/`.
pub(crate) fn first_segment(path: &str) -> &str {
    path.trim_start_matches('/').split('/').next().unwrap_or_default()
}

/// Whether a segment means "up" or "here", written plainly or percent-encoded. Servers differ in what they make of such
/// paths, so one could reach past the base path of a service; none is passed on.
pub(crate) fn has_dot_segment(path: &str) -> bool {
    let plain = path.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/").replace("%5c", "\\");
    plain.split(['/', '\\']).any(|segment| matches!(segment, "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_segment_owns_the_path() {
        for (path, segment) in [("/sql", "sql"), ("/storage/get/a", "storage"), ("/", ""), ("/sql/", "sql")] {
            assert_eq!(first_segment(path), segment);
        }
    }

    #[test]
    fn dot_segments_are_seen_however_they_are_written() {
        for path in [
            "/storage/../x",
            "/storage/..",
            "/storage/%2e%2E/x",
            "/a/.%2e",
            "/a%2F..%2fb",
            "/a\\..\\b",
            "/a/./b",
        ] {
            assert!(has_dot_segment(path), "{path}");
        }
        for path in
            ["/storage/get/a..b", "/storage/get/...", "/storage/get/.hidden", "/storage/get/a%2Fb", "/"]
        {
            assert!(!has_dot_segment(path), "{path}");
        }
    }
}
