//! Names that fit where a cluster is strict: how a resource's name stands at the start of its children's.
//!
//! The operator calls its objects so, and the gateway finds the Service of an index by it.

use sha2::{Digest, Sha256};

use crate::dataset::hex;

/// What most names in a cluster may have: a label's value, a Service, a Job.
const MAX_LABEL: usize = 63;
/// Hexadecimal digits of a digest in a name: 40 bits, for the handful of Jobs that one resource ever has at once.
const DIGEST: usize = 10;

/// A resource's name as a label's value and at the start of its children's names.
///
/// A short name stays as it is; of a long one, or one that a label cannot hold, a part stays and a digest tells it from others.
pub fn short(name: &str) -> String {
    const MAX: usize = MAX_LABEL - "-ingest-".len() - DIGEST;
    let fits = name.len() <= MAX
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric());
    if fits {
        return name.to_owned();
    }
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .take(MAX - 1 - DIGEST)
        .collect();
    let plain = plain.trim_matches('-');
    let digest = digest(&[name]);
    if plain.is_empty() { format!("d-{digest}") } else { format!("{plain}-{digest}") }
}

/// The first digits of the SHA-256 over `parts`, each with its length, so that no two lists share a text.
pub fn digest(parts: &[&str]) -> String {
    let mut digest = full_digest(parts);
    digest.truncate(DIGEST);
    digest
}

/// The SHA-256 over `parts`, each with its length.
pub fn full_digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_fits_stays() {
        for name in ["sales", "a", "0", "sales-2026"] {
            assert_eq!(short(name), name);
        }
    }

    #[test]
    fn every_other_name_fits_too_and_is_told_from_others() {
        let long = "x".repeat(253);
        let names = ["Sales", "sales.eu", "sales_eu", "sales-", "_", "___", "...", &long, &long[1..]];
        let shorts: std::collections::BTreeSet<String> = names.iter().map(|name| short(name)).collect();
        assert_eq!(shorts.len(), names.len(), "{shorts:?}");
        for short in &shorts {
            let job = format!("{short}-ingest-0123456789");
            assert!(job.len() <= MAX_LABEL, "{job}");
            assert!(job.starts_with(|c: char| c.is_ascii_alphanumeric()), "{job}");
            assert!(
                job.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'),
                "{job}"
            );
        }
    }

    #[test]
    fn a_digest_tells_lists_apart() {
        assert_ne!(full_digest(&["ab", "c"]), full_digest(&["a", "bc"]));
        assert_eq!(digest(&["a"]).len(), DIGEST);
    }
}
