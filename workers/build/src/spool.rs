//! The rows of one build as a file of this machine, between the query that reads them and the model that takes its time.
//!
//! So a slow model holds neither a query's place nor a view of the data, and memory does not grow with the rows.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, Write},
    path::Path,
};

/// A row as the index takes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    /// Counts the rows that the query gave, from 1.
    pub(crate) number: u64,
    pub(crate) id: String,
    pub(crate) text: String,
    /// A JSON object.
    pub(crate) metadata: String,
}

/// A file that takes rows.
pub(crate) struct Writer(BufWriter<File>);

/// The rows of a file, in their order.
pub(crate) struct Reader(BufReader<File>);

impl Writer {
    /// A file without a name below `folder`: it goes when nobody holds it.
    pub(crate) fn create(folder: &Path) -> io::Result<Self> {
        Ok(Self(BufWriter::with_capacity(1 << 20, tempfile::tempfile_in(folder)?)))
    }

    pub(crate) fn push(&mut self, number: u64, id: &str, text: &str, metadata: &str) -> io::Result<()> {
        self.0.write_all(&number.to_le_bytes())?;
        for part in [id, text, metadata] {
            let length = u32::try_from(part.len()).map_err(io::Error::other)?;
            self.0.write_all(&length.to_le_bytes())?;
        }
        [id, text, metadata].into_iter().try_for_each(|part| self.0.write_all(part.as_bytes()))
    }

    pub(crate) fn finish(self) -> io::Result<Reader> {
        let mut file = self.0.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        Ok(Reader(BufReader::with_capacity(1 << 20, file)))
    }
}

impl Reader {
    /// At most so many of the next rows, with about this many bytes of text at most; none at the end.
    pub(crate) fn take(&mut self, rows: usize, bytes: usize) -> io::Result<Vec<Row>> {
        let (mut taken, mut size) = (Vec::with_capacity(rows), 0);
        while taken.len() < rows && size < bytes {
            let Some(row) = self.next()? else { break };
            size += row.text.len();
            taken.push(row);
        }
        Ok(taken)
    }

    fn next(&mut self) -> io::Result<Option<Row>> {
        let mut number = [0; 8];
        match self.0.read_exact(&mut number) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let mut lengths = [[0; 4]; 3];
        for length in &mut lengths {
            self.0.read_exact(length)?;
        }
        let [id, text, metadata] = lengths.map(u32::from_le_bytes);
        Ok(Some(Row {
            number: u64::from_le_bytes(number),
            id: self.text(id)?,
            text: self.text(text)?,
            metadata: self.text(metadata)?,
        }))
    }

    fn text(&mut self, length: u32) -> io::Result<String> {
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.0.read_exact(&mut bytes)?;
        String::from_utf8(bytes).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_in_batches_that_are_neither_too_many_nor_too_long() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::create(folder.path()).unwrap();
        for number in 1..=5 {
            writer.push(number, &format!("w-{number}"), "nürse", "{}").unwrap();
        }
        let mut reader = writer.finish().unwrap();
        let first = Row { number: 1, id: "w-1".into(), text: "nürse".into(), metadata: "{}".into() };
        assert_eq!(reader.take(1, 100).unwrap(), [first]);
        assert_eq!(reader.take(100, 7).unwrap().len(), 2);
        assert_eq!(reader.take(100, 100).unwrap().last().unwrap().id, "w-5");
        assert_eq!(reader.take(100, 100).unwrap(), []);
    }
}
