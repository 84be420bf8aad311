//! Rows that give no vector: every one is written down with its reason.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use serde::Serialize;

/// So many are told in the log.
const TOLD: usize = 100;

/// Why a row gives no vector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "reason", content = "message", rename_all = "camelCase")]
pub(crate) enum Why {
    /// The id column is null or empty.
    #[error("its id is empty")]
    NoId,
    /// Every column of the template is null or blank.
    #[error("its text is empty")]
    NoText,
    /// The model does not take the text.
    #[error("its text was refused: {0}")]
    Refused(String),
    /// The index does not take the vector, the id or the metadata.
    #[error("{0}")]
    Unfit(String),
}

/// A line of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Reject {
    /// Counts the rows that the source's predicate lets through, in the dataset's order, from 1.
    pub row: u64,
    /// Its id, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Why.
    #[serde(flatten)]
    pub why: Why,
}

/// The list of one build: a JSON object a line, in a file of this run.
pub(crate) struct Rejects {
    path: PathBuf,
    out: BufWriter<File>,
    count: u64,
    /// The first ones, for people.
    first: Vec<Reject>,
}

impl Rejects {
    pub(crate) fn create(folder: &Path) -> io::Result<Self> {
        let path = folder.join("rejects.ndjson");
        let out = BufWriter::new(File::create(&path)?);
        Ok(Self { path, out, count: 0, first: Vec::new() })
    }

    pub(crate) fn push(&mut self, row: u64, id: Option<&str>, why: Why) -> io::Result<()> {
        let reject = Reject { row, id: id.map(str::to_owned), why };
        serde_json::to_writer(&mut self.out, &reject)?;
        self.out.write_all(b"\n")?;
        self.count += 1;
        if self.first.len() < TOLD {
            self.first.push(reject);
        }
        Ok(())
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The first of them.
    pub(crate) fn first(&self) -> &[Reject] {
        &self.first
    }

    /// The whole list; `None` where nothing was rejected.
    pub(crate) fn finish(&mut self) -> io::Result<Option<&Path>> {
        self.out.flush()?;
        Ok((self.count > 0).then_some(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reject_is_a_line_with_its_row_and_reason() {
        let folder = tempfile::tempdir().unwrap();
        let mut rejects = Rejects::create(folder.path()).unwrap();
        assert_eq!(rejects.finish().unwrap(), None);
        rejects.push(3, None, Why::NoId).unwrap();
        rejects.push(7, Some("w-7"), Why::Refused("too long".into())).unwrap();
        let text = std::fs::read_to_string(rejects.finish().unwrap().unwrap()).unwrap();
        let lines = [
            r#"{"row":3,"reason":"noId"}"#,
            r#"{"row":7,"id":"w-7","reason":"refused","message":"too long"}"#,
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), lines);
        assert_eq!(
            (rejects.count(), rejects.first()[1].why.to_string().as_str()),
            (2, "its text was refused: too long")
        );
    }
}
