//! The key of an object in the bucket, checked once.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest key that S3 accepts, in bytes.
pub const MAX_BYTES: usize = 1024;

/// A key that any backend can hold: relative, without `..`, without control characters, 1 to 1,024 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(String);

/// Why a text is no key. The sentence is fit for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// The text is empty.
    #[error("the key is empty")]
    Empty,
    /// More than [`MAX_BYTES`] bytes.
    #[error("the key has {0} bytes; at most {MAX_BYTES} are allowed")]
    TooLong(usize),
    /// A NUL, CR, LF, tab or another control character.
    #[error("the key holds a control character at byte {0}")]
    ControlCharacter(usize),
    /// A leading `/`.
    #[error("the key starts with `/`; keys are relative to the bucket")]
    LeadingSlash,
    /// A segment that a file system would read as a direction.
    #[error("the key has a `{0}` segment")]
    DotSegment(&'static str),
    /// `a//b` or a trailing `/`: one object in S3, another or none in a folder.
    #[error("the key has an empty segment (`//`, or `/` at its end)")]
    EmptySegment,
}

impl Key {
    /// Checks `text` against the rules that every backend shares.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidKey> {
        let text = text.into();
        if text.is_empty() {
            return Err(InvalidKey::Empty);
        }
        if text.len() > MAX_BYTES {
            return Err(InvalidKey::TooLong(text.len()));
        }
        if let Some((at, _)) = text.char_indices().find(|(_, c)| c.is_control()) {
            return Err(InvalidKey::ControlCharacter(at));
        }
        if text.starts_with('/') {
            return Err(InvalidKey::LeadingSlash);
        }
        for segment in text.split('/') {
            match segment {
                "" => return Err(InvalidKey::EmptySegment),
                "." => return Err(InvalidKey::DotSegment(".")),
                ".." => return Err(InvalidKey::DotSegment("..")),
                _ => {}
            }
        }
        Ok(Self(text))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Key {
    type Error = InvalidKey;
    fn try_from(text: String) -> Result<Self, InvalidKey> {
        Self::parse(text)
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_keys_are_accepted() {
        for text in ["a", "datasets/sales/ab12/cd.parquet", "ünï/ço dé", "a..b/…", &"k".repeat(MAX_BYTES)]
        {
            assert_eq!(Key::parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn keys_that_some_backend_cannot_hold_are_refused() {
        let cases = [
            (String::new(), InvalidKey::Empty),
            ("k".repeat(1025), InvalidKey::TooLong(1025)),
            ("a\0b".into(), InvalidKey::ControlCharacter(1)),
            ("a\r".into(), InvalidKey::ControlCharacter(1)),
            ("\n".into(), InvalidKey::ControlCharacter(0)),
            ("a\tb".into(), InvalidKey::ControlCharacter(1)),
            ("a\u{85}b".into(), InvalidKey::ControlCharacter(1)),
            ("/a".into(), InvalidKey::LeadingSlash),
            ("a/../b".into(), InvalidKey::DotSegment("..")),
            ("..".into(), InvalidKey::DotSegment("..")),
            ("a/./b".into(), InvalidKey::DotSegment(".")),
            ("a//b".into(), InvalidKey::EmptySegment),
            ("a/".into(), InvalidKey::EmptySegment),
        ];
        for (text, reason) in cases {
            assert_eq!(Key::parse(text.clone()), Err(reason), "{text:?}");
        }
    }
}
