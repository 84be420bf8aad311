//! The manifest of an index: what it is, and which immutable parts it is made of.
//!
//! It is JSON, so that anybody can read an index without us, with a checksum over its own text.

use bytes::Bytes;
use jiff::Timestamp;
use lakehouse_contract::{
    IndexName,
    dataset::hex,
    embed::ModelIdentity,
    vectors::{BuiltFrom, IndexInfo, Shape},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Counts up when an older release could not read what is written.
const FORMAT: u32 = 1;

/// Who fills an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Builds from a dataset, version by version.
    Built,
    /// Clients, through the log.
    Pushed,
}

/// An index as it is in the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Tells indexes apart that had the same name one after the other.
    pub id: Uuid,
    /// The index.
    pub name: IndexName,
    /// What it is, whatever is in it.
    pub shape: Shape,
    /// Who fills it.
    pub kind: Kind,
    /// Counts from 1 in a built index and names a content for ever; 0 in a pushed one.
    pub version: u64,
    /// The highest version that was given out.
    pub latest_version: u64,
    /// The model that made the vectors, where that is known.
    pub embedding: Option<ModelIdentity>,
    /// What it was built from.
    pub source: Option<BuiltFrom>,
    /// Metadata fields that vectors may have, beside those that they do have.
    pub fields: Vec<String>,
    /// What it is made of.
    pub segments: Vec<SegmentEntry>,
    /// Records of the log from here on are not in the segments.
    pub log_from: u64,
    /// Vectors that a search can find, without those in the log.
    pub length: u64,
    /// Rows that gave no vector.
    pub failed: u64,
    /// The share of neighbours that searches find.
    pub recall: Option<f64>,
    /// Parts that the vectors are spread over.
    pub shards: u32,
    /// When the index was made.
    pub created_at: Timestamp,
    /// When this manifest was.
    pub updated_at: Timestamp,
}

/// A segment of an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentEntry {
    /// Names it, and its content.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// Vectors in it, with those that were deleted.
    pub rows: u32,
    /// The shard that its ids belong to.
    pub shard: u32,
    /// Which rows were deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead: Option<DeadEntry>,
}

/// A list of deleted rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadEntry {
    /// Names it, and its content.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// How many they are.
    pub rows: u32,
}

impl SegmentEntry {
    /// Vectors that were not deleted.
    pub fn alive(&self) -> u32 {
        self.rows.saturating_sub(self.dead.as_ref().map_or(0, |dead| dead.rows))
    }
}

impl Manifest {
    /// Bytes of its parts.
    pub fn bytes(&self) -> u64 {
        let part = |segment: &SegmentEntry| segment.size + segment.dead.as_ref().map_or(0, |dead| dead.size);
        self.segments.iter().map(part).sum()
    }

    /// What clients hear of it. `versions` are those that are kept.
    pub fn info(&self, versions: Vec<u64>) -> IndexInfo {
        IndexInfo {
            name: self.name.clone(),
            shape: self.shape.clone(),
            length: self.length,
            version: self.version,
            latest_version: self.latest_version,
            versions,
            embedding: self.embedding.clone(),
            source: self.source.clone(),
            failed: self.failed,
            recall: self.recall,
            bytes: self.bytes(),
            shards: self.shards,
            created_at: self.created_at,
            updated_at: self.updated_at,
            damaged: Vec::new(),
        }
    }
}

/// The file.
#[derive(Serialize, Deserialize)]
struct Signed<M> {
    format: u32,
    /// SHA-256 of the JSON text of `manifest`.
    checksum: String,
    manifest: M,
}

fn checksum(manifest: &Manifest) -> String {
    let text = serde_json::to_vec(manifest).expect("plain data with text keys always has a JSON form");
    hex(&Sha256::digest(text))
}

/// What stays under the name of an index that was removed: whoever is late with removing it finds this, and leaves the next one alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Removed {
    /// No two marks are equal.
    pub(crate) mark: Uuid,
    /// Records of the log before this one are of the removed index, or of earlier ones.
    pub(crate) log_until: u64,
    /// Whether everything that it had is gone.
    pub(crate) cleared: bool,
}

pub(crate) fn encode_removed(removed: &Removed) -> Bytes {
    let file = serde_json::json!({ "format": FORMAT, "removed": removed });
    serde_json::to_vec_pretty(&file).expect("plain data with text keys always has a JSON form").into()
}

/// What a name says whose index was removed; `None` where it says something else.
pub(crate) fn decode_removed(bytes: &[u8]) -> Option<Removed> {
    #[derive(Deserialize)]
    struct File {
        format: u32,
        removed: Removed,
    }
    let file: File = serde_json::from_slice(bytes).ok()?;
    (file.format == FORMAT).then_some(file.removed)
}

pub(crate) fn encode(manifest: &Manifest) -> Bytes {
    let signed = Signed { format: FORMAT, checksum: checksum(manifest), manifest };
    serde_json::to_vec_pretty(&signed).expect("plain data with text keys always has a JSON form").into()
}

/// Reads the manifest of `name`; the sentence says why it cannot be.
pub(crate) fn decode(name: &IndexName, bytes: &[u8]) -> Result<Manifest, String> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let unreadable = |error: serde_json::Error| format!("its manifest cannot be read: {error}");
    let Version { format } = serde_json::from_slice(bytes).map_err(unreadable)?;
    if format != FORMAT {
        return Err(format!("its manifest has format {format}, and this release reads {FORMAT}"));
    }
    let signed: Signed<Manifest> = serde_json::from_slice(bytes).map_err(unreadable)?;
    if signed.checksum != checksum(&signed.manifest) {
        return Err("its manifest does not have its checksum".into());
    }
    let manifest = signed.manifest;
    if manifest.name != *name {
        return Err(format!("its manifest is that of `{}`", manifest.name));
    }
    Ok(manifest)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_read_as_it_was_written() {
        let manifest = sample("shelf");
        assert_eq!(decode(&manifest.name, &encode(&manifest)), Ok(manifest));
    }

    #[test]
    fn a_changed_manifest_is_not_believed() {
        let manifest = sample("shelf");
        let text = String::from_utf8(encode(&manifest).to_vec()).unwrap();
        for (from, to, part) in [
            ("\"rows\": 7", "\"rows\": 8", "checksum"),
            ("\"format\": 1", "\"format\": 2", "format 2"),
            ("{", "", "cannot be read"),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text, "{from}");
            let sentence = decode(&manifest.name, changed.as_bytes()).unwrap_err();
            assert!(sentence.contains(part), "{sentence}");
        }
        let other = IndexName::parse("other").unwrap();
        assert!(decode(&other, text.as_bytes()).unwrap_err().contains("that of `shelf`"));
    }

    pub(crate) fn sample(name: &str) -> Manifest {
        let segment = SegmentEntry { sha256: "ab".into(), size: 100, rows: 7, shard: 0, dead: None };
        Manifest {
            id: Uuid::from_u128(1),
            name: IndexName::parse(name).unwrap(),
            shape: serde_json::from_str(r#"{"dimension": 3}"#).unwrap(),
            kind: Kind::Built,
            version: 2,
            latest_version: 3,
            embedding: None,
            source: None,
            fields: vec!["state".into()],
            segments: vec![segment],
            log_from: 0,
            length: 7,
            failed: 1,
            recall: Some(0.987_654_321),
            shards: 1,
            created_at: "2026-01-02T03:04:05Z".parse().unwrap(),
            updated_at: "2026-01-02T03:04:06.5Z".parse().unwrap(),
        }
    }
}
