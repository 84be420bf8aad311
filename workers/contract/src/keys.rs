//! Where things lie in the bucket. The only place that spells a path.
//!
//! ```text
//! _catalog/manifests/<dataset>.parquet                         the current manifest
//! _catalog/history/<dataset>/<version>.parquet                 earlier ones, by version
//! _catalog/expired/<dataset>/<version>.parquet                 versions that are kept no longer, until their rows may go
//! _catalog/collecting/<dataset>.json                           held by who removes rows that no version names
//! _catalog/declared/<dataset>.json                             what a resource says of uploads, where an operator has told it
//! datasets/<dataset>/<schema fingerprint>/<sha256>.parquet     rows
//! datasets/<dataset>/<schema fingerprint>/<writer>/<sha256>.parquet   rows of a writer who could not rely on the file above
//! datasets/<dataset>/_rejects/<run>.parquet                    rows that did not fit
//! _vectors/<index>/manifest.json                               what an index is, and which segments it is made of
//! _vectors/<index>/history/<version>.json                      earlier versions of an index that is built from a dataset
//! _vectors/<index>/expired/<version>.json                      versions that are kept no longer, until their segments may go
//! _vectors/<index>/segments/<sha256>.{segment,dead}            vectors, their graph, ids and metadata; and lists of what was deleted
//! _vectors/<index>/rejects/<inputs>.ndjson                     rows that gave a build no vector, by the digest of its inputs
//! _vectors/<index>/log/<number>                                writes of clients that no segment holds yet
//! _embeddings/<model digest>/<sha256>.vectors                  vectors by the hash of their text: shared by all indexes
//! _models/<name>/                                              a local model's files
//! ```

use crate::{DatasetName, IndexName, Key};

/// The prefix under which every current manifest lies, with its `/`.
pub const MANIFESTS: &str = "_catalog/manifests/";

/// The current manifest of a dataset.
pub fn manifest(dataset: &DatasetName) -> Key {
    key(format!("{MANIFESTS}{dataset}.parquet"))
}

/// The dataset whose current manifest lies under `key`; `None` for any other key.
pub fn dataset_of_manifest(key: &str) -> Option<DatasetName> {
    DatasetName::parse(key.strip_prefix(MANIFESTS)?.strip_suffix(".parquet")?).ok()
}

/// The prefix of a dataset's earlier manifests, with its `/`.
pub fn history(dataset: &DatasetName) -> String {
    format!("_catalog/history/{dataset}/")
}

/// One earlier manifest. Numbers are zero-padded so that a listing is in order.
pub fn history_entry(dataset: &DatasetName, version: u64) -> Key {
    key(format!("{}{version:020}.parquet", history(dataset)))
}

/// The prefix of manifests that are no longer kept, with its `/`.
pub fn expired(dataset: &DatasetName) -> String {
    format!("_catalog/expired/{dataset}/")
}

/// One manifest that is no longer kept.
pub fn expired_entry(dataset: &DatasetName, version: u64) -> Key {
    key(format!("{}{version:020}.parquet", expired(dataset)))
}

/// Held by the one collector that removes rows of the dataset.
pub fn collecting(dataset: &DatasetName) -> Key {
    key(format!("_catalog/collecting/{dataset}.json"))
}

/// What a resource declares of the dataset, for whoever takes uploads.
pub fn declared(dataset: &DatasetName) -> Key {
    key(format!("_catalog/declared/{dataset}.json"))
}

/// The prefix of everything that a dataset's rows occupy, with its `/`.
pub fn dataset(dataset: &DatasetName) -> String {
    format!("datasets/{dataset}/")
}

/// The folder of rows of one schema, without a trailing `/`. Objects in it are `<sha256>.parquet`.
pub fn rows(dataset: &DatasetName, schema_fingerprint: &str) -> Key {
    key(format!("datasets/{dataset}/{schema_fingerprint}"))
}

/// A folder of rows for one writer alone, where the one that all share may hold a file that is about to be removed.
pub fn rows_apart(dataset: &DatasetName, schema_fingerprint: &str, writer: &str) -> Key {
    key(format!("datasets/{dataset}/{schema_fingerprint}/{writer}"))
}

/// The rows that one ingest run could not fit.
pub fn rejects(dataset: &DatasetName, run: &str) -> Key {
    key(format!("datasets/{dataset}/_rejects/{run}.parquet"))
}

/// The prefix under which every index lies, with its `/`.
pub const VECTORS: &str = "_vectors/";
/// The prefix under which local models lie, with its `/`.
pub const MODELS: &str = "_models/";

/// The prefix of everything that an index occupies, with its `/`.
pub fn index(index: &IndexName) -> String {
    format!("{VECTORS}{index}/")
}

/// The current manifest of an index.
pub fn index_manifest(index: &IndexName) -> Key {
    key(format!("{VECTORS}{index}/manifest.json"))
}

/// The prefix of an index's earlier versions, with its `/`.
pub fn index_history(index: &IndexName) -> String {
    format!("{VECTORS}{index}/history/")
}

/// One earlier version of an index. Numbers are zero-padded so that a listing is in order.
pub fn index_version(index: &IndexName, version: u64) -> Key {
    key(format!("{}{version:020}.json", index_history(index)))
}

/// The prefix of versions of an index that are no longer kept, with its `/`.
pub fn index_expired(index: &IndexName) -> String {
    format!("{VECTORS}{index}/expired/")
}

/// One version of an index that is no longer kept.
pub fn index_expired_entry(index: &IndexName, version: u64) -> Key {
    key(format!("{}{version:020}.json", index_expired(index)))
}

/// The folder of an index's immutable parts, without a trailing `/`. Objects in it are named by their SHA-256.
pub fn segments(index: &IndexName) -> Key {
    key(format!("{VECTORS}{index}/segments"))
}

/// The prefix of what builds have turned away, with its `/`.
pub fn index_rejects(index: &IndexName) -> String {
    format!("{VECTORS}{index}/rejects/")
}

/// The rows that gave no vector to the build of these inputs, a JSON object a line. `inputs` is hexadecimal.
pub fn index_rejects_of(index: &IndexName, inputs: &str) -> Key {
    key(format!("{}{inputs}.ndjson", index_rejects(index)))
}

/// The log of an index's writes, without a trailing `/`.
pub fn index_log(index: &IndexName) -> Key {
    key(format!("{VECTORS}{index}/log"))
}

/// The folder of vectors by the hash of their text, without a trailing `/`. `model` is hexadecimal.
pub fn embeddings(model: &str) -> Key {
    key(format!("_embeddings/{model}"))
}

fn key(text: String) -> Key {
    Key::parse(text).expect("made of checked names, each far below the longest key")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_key_leads_back_to_its_dataset() {
        let name = DatasetName::parse("us-airports.v2").unwrap();
        assert_eq!(dataset_of_manifest(manifest(&name).as_str()), Some(name));
        assert_eq!(dataset_of_manifest("_catalog/history/a/1.parquet"), None);
        assert_eq!(dataset_of_manifest("_catalog/manifests/a/b.parquet"), None);
    }

    #[test]
    fn history_lists_in_the_order_of_versions() {
        let name = DatasetName::parse("a").unwrap();
        assert!(history_entry(&name, 9) < history_entry(&name, 10));
    }
}
