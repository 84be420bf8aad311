//! What makes a manifest sound, whatever it is written as.
//!
//! Receives what somebody wrote or offers; hands on a sentence about what contradicts itself, if anything does.

use lakehouse_contract::{DataObject, DatasetManifest, DatasetName, dataset::schema_fingerprint};

use crate::schema;

/// What contradicts itself in a manifest, if anything does.
pub(crate) fn fault(name: &DatasetName, manifest: &DatasetManifest) -> Option<String> {
    let DatasetManifest {
        dataset_id,
        name: inner_name,
        schema_fingerprint: fingerprint,
        schema,
        objects,
        row_count,
        version,
        latest_version,
        created_at,
        updated_at,
        origin: _,
    } = manifest;
    if inner_name != name {
        return Some(format!("it is the manifest of `{inner_name}`"));
    }
    if *dataset_id != name.id() {
        return Some(format!("its dataset_id is {dataset_id}; the id of this name is {}", name.id()));
    }
    if let Some(message) = schema::fault(schema) {
        return Some(message);
    }
    if *fingerprint != schema_fingerprint(schema) {
        return Some("its schema_fingerprint is not that of its schema".to_owned());
    }
    for (i, object) in objects.iter().enumerate() {
        if let Some(message) = object_fault(name, object) {
            return Some(format!("objects[{i}]: {message}"));
        }
    }
    let rows = sum_of_rows(objects);
    if rows != Some(*row_count) {
        return Some(format!("its row_count is {row_count}, which is not the sum of its objects' rows"));
    }
    if *version == 0 || version > latest_version {
        return Some(format!(
            "its version {version} is not between 1 and its latest_version {latest_version}"
        ));
    }
    if *latest_version == u64::MAX {
        return Some(format!("its latest_version {latest_version} leaves no version after it"));
    }
    if created_at > updated_at {
        return Some(format!("it was updated at {updated_at}, before it was created at {created_at}"));
    }
    None
}

/// What is wrong with an object of the dataset `name`, if anything is.
pub(crate) fn object_fault(name: &DatasetName, object: &DataObject) -> Option<String> {
    let DataObject { key, size: _, rows: _, sha256 } = object;
    let is_hash = sha256.len() == 64 && sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !is_hash {
        return Some(format!("`{sha256}` is no SHA-256 in lower-case hexadecimal"));
    }
    let folder = lakehouse_contract::keys::dataset(name);
    if !key.as_str().starts_with(&folder) {
        return Some(format!("`{key}` does not lie below `{folder}`"));
    }
    let file = key.as_str().rsplit_once('/').map_or(key.as_str(), |(_, file)| file);
    if file.strip_suffix(".parquet") != Some(sha256) {
        return Some(format!("`{key}` does not end in `{sha256}.parquet`"));
    }
    None
}

/// Rows of all objects; `None` when the sum passes 64 bits.
pub(crate) fn sum_of_rows(objects: &[DataObject]) -> Option<u64> {
    objects.iter().try_fold(0_u64, |sum, object| sum.checked_add(object.rows))
}
