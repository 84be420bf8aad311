//! A result as bytes: JSON in one piece, Arrow IPC and CSV in a stream.

use std::mem;

use arrow::{
    array::{Array, RecordBatch, StructArray},
    datatypes::SchemaRef,
    ipc::writer::StreamWriter,
};

use bytes::Bytes;

use crate::{
    Error,
    sink::Sink,
    values::{Column, Shape},
};

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `{"columns", "rows", "row_count"}`
    #[default]
    Json,
    /// An Arrow IPC stream.
    Arrow,
    /// RFC 4180 with a header.
    Csv,
}

impl Format {
    /// The media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Csv => "text/csv; charset=utf-8; header=present",
        }
    }
}

/// How much more room a value may take in Arrow than in JSON: eight bytes for a digit and a comma.
const WIDER: usize = 4;

/// Turns batches into bytes.
pub(crate) enum Encoder {
    Json { out: Vec<u8>, rows: u64, limit: usize },
    Arrow(Box<StreamWriter<Vec<u8>>>),
    Csv { out: Vec<u8>, field: Vec<u8> },
}

impl Encoder {
    /// Writes what comes before the first row.
    pub(crate) fn start(
        format: Format,
        shape: &Shape,
        schema: &SchemaRef,
        limit: usize,
    ) -> Result<Self, Error> {
        Ok(match format {
            Format::Json => {
                let mut out = b"{\"columns\":".to_vec();
                serde_json::to_writer(&mut out, &shape.columns).expect("a Vec takes any text");
                out.extend_from_slice(b",\"rows\":[");
                Self::Json { out, rows: 0, limit }
            }
            Format::Arrow => {
                Self::Arrow(Box::new(StreamWriter::try_new(Vec::new(), schema).map_err(|error| ipc(&error))?))
            }
            Format::Csv => {
                let mut out = Vec::new();
                for (position, column) in shape.columns.iter().enumerate() {
                    if position > 0 {
                        out.push(b',');
                    }
                    csv_field(column.name.as_bytes(), &mut out);
                }
                out.extend_from_slice(b"\r\n");
                Self::Csv { out, field: Vec::new() }
            }
        })
    }
}

/// Bytes of a streamed body that are handed on together.
const PIECE: usize = 256 << 10;

impl Sink for Encoder {
    type Piece = Bytes;

    fn rows(&mut self, batch: StructArray) -> Result<(), Error> {
        match self {
            Self::Json { out, rows, limit } => {
                // A row of huge texts is refused before it is written, and not after.
                if batch.get_array_memory_size() > limit.saturating_mul(WIDER) {
                    return Err(Error::TooLarge { limit: *limit });
                }
                let columns = Column::members(&batch)?;
                for row in 0..batch.len() {
                    out.extend_from_slice(if *rows == 0 { b"[" } else { b",[" });
                    for (position, (_, column)) in columns.iter().enumerate() {
                        if position > 0 {
                            out.push(b',');
                        }
                        column.json(row, out);
                    }
                    out.push(b']');
                    *rows += 1;
                    if out.len() > *limit {
                        return Err(Error::TooLarge { limit: *limit });
                    }
                }
                Ok(())
            }
            Self::Arrow(writer) => writer.write(&RecordBatch::from(batch)).map_err(|error| ipc(&error)),
            Self::Csv { out, field } => {
                let columns = Column::members(&batch)?;
                for row in 0..batch.len() {
                    for (position, (_, column)) in columns.iter().enumerate() {
                        if position > 0 {
                            out.push(b',');
                        }
                        if !column.is_null(row) {
                            field.clear();
                            column.text(row, field);
                            csv_field(field, out);
                        }
                    }
                    out.extend_from_slice(b"\r\n");
                }
                Ok(())
            }
        }
    }

    /// JSON is one piece: it is not known before the end whether it becomes too large.
    fn ready(&mut self) -> Option<Bytes> {
        let out = match self {
            Self::Json { .. } => return None,
            Self::Arrow(writer) => writer.get_mut(),
            Self::Csv { out, .. } => out,
        };
        (out.len() >= PIECE).then(|| mem::take(out).into())
    }

    fn finish(self) -> Result<Option<Bytes>, Error> {
        let rest = match self {
            Self::Json { mut out, rows, .. } => {
                out.extend_from_slice(format!("],\"row_count\":{rows}}}").as_bytes());
                out
            }
            Self::Arrow(writer) => writer.into_inner().map_err(|error| ipc(&error))?,
            Self::Csv { out, .. } => out,
        };
        Ok((!rest.is_empty()).then(|| rest.into()))
    }
}

fn ipc(error: &arrow::error::ArrowError) -> Error {
    Error::Internal(format!("Arrow IPC: {error}"))
}

/// A field, quoted where RFC 4180 asks for it; an empty text is quoted too, for a null has no quotes.
fn csv_field(field: &[u8], out: &mut Vec<u8>) {
    if !field.is_empty() && !field.iter().any(|byte| matches!(byte, b'"' | b',' | b'\r' | b'\n')) {
        out.extend_from_slice(field);
        return;
    }
    out.push(b'"');
    for &byte in field {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_csv_field_is_quoted_when_it_must_be() {
        for (field, expected) in
            [("a", "a"), ("", "\"\""), ("a,b", "\"a,b\""), ("\"", "\"\"\"\""), ("a\nb", "\"a\nb\"")]
        {
            let mut out = Vec::new();
            csv_field(field.as_bytes(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
