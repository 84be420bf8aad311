//! Where a store lies, as a person writes it: `s3://bucket/prefix`, a folder's path, or `memory:`.

use std::{fmt, path::PathBuf, str::FromStr};

use lakehouse_contract::Key;

use crate::{Error, Result};

/// A place that [`Store::open`](crate::Store::open) can open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A bucket, or the part of it below a prefix. How to reach it stands in the environment.
    S3 {
        /// The bucket's name.
        bucket: String,
        /// What every key starts with, without a `/` at its end.
        prefix: Option<Key>,
    },
    /// A folder of this machine; it is made when it is not there.
    Folder(PathBuf),
    /// Gone when the process ends.
    Memory,
}

impl Location {
    /// Reads `s3://bucket[/prefix]`, `memory:`, or else a path.
    pub fn parse(text: &str) -> Result<Self> {
        let unfit = |message: String| Error::Unfit { message };
        if text.is_empty() {
            return Err(unfit("the store's location is empty: give a folder or s3://bucket/prefix".into()));
        }
        if text == "memory:" {
            return Ok(Self::Memory);
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            if text.starts_with("s3:") {
                return Err(unfit(format!("`{text}` is no bucket: one is written as s3://bucket/prefix")));
            }
            return Ok(Self::Folder(PathBuf::from(text)));
        };
        if scheme != "s3" {
            return Err(unfit(format!(
                "a store cannot lie at `{scheme}://…`: give a folder or s3://bucket/prefix"
            )));
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        // S3's own rule, so that a slip is found here and not by an unclear answer of the server.
        let fits = (3..=63).contains(&bucket.len())
            && bucket.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
        if !fits {
            return Err(unfit(format!(
                "`{bucket}` is no name of a bucket: 3 to 63 letters, digits, `.`, `-` or `_` are allowed"
            )));
        }
        let prefix = match prefix.trim_end_matches('/') {
            "" => None,
            prefix => Some(Key::parse(prefix).map_err(|error| {
                unfit(format!("`{prefix}` cannot be a prefix in bucket `{bucket}`: {error}"))
            })?),
        };
        Ok(Self::S3 { bucket: bucket.to_owned(), prefix })
    }
}

impl FromStr for Location {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::S3 { bucket, prefix: None } => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix: Some(prefix) } => write!(f, "s3://{bucket}/{prefix}"),
            Self::Folder(path) => write!(f, "{}", path.display()),
            Self::Memory => f.write_str("memory:"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_written_as_it_is_read() {
        for text in ["s3://sales", "s3://sales/team/a", "/var/lib/lakehouse", "data", "memory:"] {
            assert_eq!(Location::parse(text).unwrap().to_string(), text);
        }
        let trailing = Location::parse("s3://sales/team/").unwrap();
        assert_eq!(trailing.to_string(), "s3://sales/team");
    }

    #[test]
    fn a_location_that_cannot_be_is_refused_with_its_reason() {
        let cases = [
            ("", "is empty"),
            ("gs://sales", "`gs://…`"),
            ("s3:/sales", "written as s3://bucket/prefix"),
            ("s3://", "`` is no name of a bucket"),
            ("s3://user:secret@host", "is no name of a bucket"),
            ("s3://sales/../other", "a `..` segment"),
            ("s3://sales//a", "starts with `/`"),
        ];
        for (text, part) in cases {
            let message = Location::parse(text).unwrap_err().to_string();
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
