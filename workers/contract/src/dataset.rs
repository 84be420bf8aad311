//! A dataset as the catalogue knows it: its name, its schema, its manifest.

use std::{fmt, path::Path};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::{Uuid, uuid};

use crate::Key;

/// The namespace of dataset ids: the same name has the same id on every machine.
const ID_NAMESPACE: Uuid = uuid!("a8f3c1d2-4e5b-5a6c-9d8e-7f0a1b2c3d4e");

/// The longest name, in bytes: that of a Kubernetes object.
pub const MAX_NAME_BYTES: usize = 253;

/// A dataset's name: ASCII letters, digits, `_`, `-` and `.`, not starting with `-` or `.`, 1 to 253 bytes.
///
/// It is a path segment of the bucket, a view's name in SQL and, in a cluster, an object's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DatasetName(String);

/// Why a text is no dataset name. The sentence is fit for the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// The text is empty.
    #[error("the name is empty")]
    Empty,
    /// More than [`MAX_NAME_BYTES`] bytes.
    #[error("the name has {0} bytes; at most {MAX_NAME_BYTES} are allowed")]
    TooLong(usize),
    /// A character outside the allowed set.
    #[error("the name `{0}` holds {1:?}; letters, digits, `_`, `-` and `.` are allowed")]
    Character(String, char),
    /// A first character that a path or a command line would misread.
    #[error("the name `{0}` starts with `-` or `.`; it must start with a letter, a digit or `_`")]
    Start(String),
}

impl DatasetName {
    /// Checks a name.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidName> {
        let text = text.into();
        if text.is_empty() {
            return Err(InvalidName::Empty);
        }
        if text.len() > MAX_NAME_BYTES {
            return Err(InvalidName::TooLong(text.len()));
        }
        if let Some(c) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))) {
            return Err(InvalidName::Character(text, c));
        }
        if text.starts_with(['-', '.']) {
            return Err(InvalidName::Start(text));
        }
        Ok(Self(text))
    }

    /// The name that a data file gives: its stem, with `_` for each run of characters that a name cannot hold.
    ///
    /// `None` when nothing of it is left.
    pub fn of_file(path: &Path) -> Option<Self> {
        let stem = path.file_stem()?.to_string_lossy();
        let mut name = String::with_capacity(stem.len());
        for c in stem.chars() {
            match c {
                c if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') => name.push(c),
                _ if !name.ends_with('_') => name.push('_'),
                _ => {}
            }
        }
        let name = name.trim_start_matches(['-', '.']);
        let name = &name[..name.len().min(MAX_NAME_BYTES)];
        Self::parse(name).ok().filter(|name| name.as_str().contains(|c: char| c.is_ascii_alphanumeric()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id that this name has everywhere: `UUIDv5` of the name (RFC 9562).
    pub fn id(&self) -> Uuid {
        Uuid::new_v5(&ID_NAMESPACE, self.0.as_bytes())
    }
}

impl fmt::Display for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for DatasetName {
    type Error = InvalidName;
    fn try_from(text: String) -> Result<Self, InvalidName> {
        Self::parse(text)
    }
}

impl From<DatasetName> for String {
    fn from(name: DatasetName) -> Self {
        name.0
    }
}

/// The types a column can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// Signed, 64 bits.
    Int64,
    /// IEEE 754 double; only values that it shows again exactly.
    Float64,
    /// `true` or `false`.
    Boolean,
    /// A day of the proleptic Gregorian calendar.
    Date,
    /// Microseconds in UTC; a value without an offset is read as UTC.
    Timestamp,
    /// UTF-8.
    String,
}

impl ColumnType {
    /// All types, in the order a document lists them.
    pub const ALL: [Self; 6] =
        [Self::Int64, Self::Float64, Self::Boolean, Self::Date, Self::Timestamp, Self::String];

    /// The type's name in YAML, manifests and fingerprints.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Int64 => "int64",
            Self::Float64 => "float64",
            Self::Boolean => "boolean",
            Self::Date => "date",
            Self::Timestamp => "timestamp",
            Self::String => "string",
        }
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A column of a dataset's schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// The name, as the source's header spells it.
    pub name: String,
    /// The type of every value.
    #[serde(rename = "type")]
    pub column_type: ColumnType,
    /// The field id in the Parquet files: a column keeps it for ever, whatever its position.
    pub field_id: i32,
}

/// SHA-256 over (name, type) in header order, lower-case hexadecimal.
///
/// 0x1F stands between a record's two fields and 0x1E between records, so no two schemas can share a text.
/// Nullability and field ids are not part of it.
pub fn schema_fingerprint(columns: &[Column]) -> String {
    let mut hash = Sha256::new();
    for (i, Column { name, column_type, field_id: _ }) in columns.iter().enumerate() {
        if i > 0 {
            hash.update([0x1e]);
        }
        hash.update(name.as_bytes());
        hash.update([0x1f]);
        hash.update(column_type.as_str().as_bytes());
    }
    hex(&hash.finalize())
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes any text");
        text
    })
}

/// One immutable Parquet file of a dataset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataObject {
    /// Where it lies in the bucket; its last segment is `<sha256>.parquet`.
    pub key: Key,
    /// Bytes.
    pub size: u64,
    /// Rows in it.
    pub rows: u64,
    /// SHA-256 of its bytes, lower-case hexadecimal.
    pub sha256: String,
}

/// What a version was made from. It tells whether a source has changed without reading it again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The digest of everything that decides the output: source, options, declared columns, format version.
    pub inputs: String,
    /// The source in words: a path or URL, never with credentials.
    pub source: String,
    /// `ETag` or SHA-256 of the source as it was read.
    pub source_digest: String,
    /// `CSV`, `NDJSON` or `Parquet`.
    pub format: String,
    /// Bytes read.
    pub source_bytes: u64,
    /// Rows that did not fit the declared types.
    pub rejected_rows: u64,
    /// How long the ingest took, in milliseconds.
    pub duration_ms: u64,
}

/// What is current for a dataset. The write of this record is the commit of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetManifest {
    /// [`DatasetName::id`] of `name`.
    pub dataset_id: Uuid,
    /// The dataset.
    pub name: DatasetName,
    /// [`schema_fingerprint`] of `schema`.
    pub schema_fingerprint: String,
    /// Columns in header order.
    pub schema: Vec<Column>,
    /// The files that together hold the rows, in row order.
    pub objects: Vec<DataObject>,
    /// Rows in all objects.
    pub row_count: u64,
    /// Names this content for ever: a rollback brings an old number back, it does not make a new one.
    pub version: u64,
    /// The highest version given out so far; the next one is this plus one.
    pub latest_version: u64,
    /// When the dataset was first registered.
    pub created_at: Timestamp,
    /// When this record was last written.
    pub updated_at: Timestamp,
    /// What this version was made from, where the writer said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_the_same_id_everywhere() {
        // Computed with Python: uuid.uuid5(uuid.UUID("a8f3c1d2-4e5b-5a6c-9d8e-7f0a1b2c3d4e"), "workers").
        assert_eq!(DatasetName::parse("workers").unwrap().id().to_string(), WORKERS_ID);
    }

    #[test]
    fn a_fingerprint_tells_names_types_and_order_apart() {
        // Computed with Python: hashlib.sha256(b"id\x1fint64\x1ename\x1fstring").hexdigest().
        let schema = [column("id", ColumnType::Int64), column("name", ColumnType::String)];
        assert_eq!(schema_fingerprint(&schema), ID_NAME_FINGERPRINT);
        let swapped = [schema[1].clone(), schema[0].clone()];
        assert_ne!(schema_fingerprint(&swapped), ID_NAME_FINGERPRINT);
        let joined = [column("id\u{1f}int64\u{1e}name", ColumnType::String)];
        assert_eq!(
            schema_fingerprint(&joined),
            ID_NAME_FINGERPRINT,
            "control characters must not reach a header"
        );
    }

    #[test]
    fn field_ids_are_not_part_of_the_fingerprint() {
        let one = [Column { field_id: 1, ..column("id", ColumnType::Int64) }];
        let two = [Column { field_id: 2, ..column("id", ColumnType::Int64) }];
        assert_eq!(schema_fingerprint(&one), schema_fingerprint(&two));
    }

    #[test]
    fn names_that_cannot_be_a_path_segment_are_refused() {
        for text in ["", "a/b", "a b", "..", ".hidden", "-rf", "naïve", "a\n", "a@3", &"n".repeat(254)] {
            assert!(DatasetName::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_file_gives_its_stem_as_a_name() {
        let cases = [
            ("data/sales.csv", "sales"),
            ("Sales Q1 (final).CSV", "Sales_Q1_final_"),
            ("my_sales.tar.csv", "my_sales.tar"),
            ("-.x.csv", "x"),
            ("städte.csv", "st_dte"),
        ];
        for (path, name) in cases {
            assert_eq!(DatasetName::of_file(Path::new(path)).unwrap().as_str(), name);
        }
        for path in ["", "/", "__.csv", "日本.csv", "..csv"] {
            assert_eq!(DatasetName::of_file(Path::new(path)), None, "{path:?}");
        }
    }

    #[test]
    fn a_type_has_one_name_in_every_document() {
        for t in ColumnType::ALL {
            assert_eq!(serde_json::to_value(t).unwrap(), t.as_str());
        }
    }

    const WORKERS_ID: &str = "4ee908eb-05e4-5c26-a4ad-4ca54bb01062";
    const ID_NAME_FINGERPRINT: &str = "36900d38f5a2f81db9b9cb6c5e6b80d769984c8f066d589ce38ccdfe1e5cb31c";

    fn column(name: &str, column_type: ColumnType) -> Column {
        Column { name: name.into(), column_type, field_id: 0 }
    }
}
