//! What a change makes of the current manifest: values in, the next manifest out.

use jiff::{SignedDuration, Timestamp};
use lakehouse_contract::{
    Column, DataObject, DatasetManifest, DatasetName, Origin,
    catalog::RegisterRequest,
    dataset::schema_fingerprint,
    ingest::{SchemaPolicy, WriteMode},
};

use crate::{Error, Result, SchemaDiff, schema, sound};

/// A register request that was checked once.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    pub(crate) name: DatasetName,
    pub(crate) fingerprint: String,
    pub(crate) schema: Vec<Column>,
    pub(crate) objects: Vec<DataObject>,
    origin: Option<Origin>,
    policy: SchemaPolicy,
    mode: WriteMode,
}

impl Offer {
    /// Checks all that can be checked without the store.
    pub(crate) fn check(request: &RegisterRequest) -> Result<Self> {
        let RegisterRequest { name, schema_fingerprint: fingerprint, schema, objects, origin, .. } = request;
        let name = DatasetName::parse(name.as_str()).map_err(|error| Error::Invalid(error.to_string()))?;
        if fingerprint.is_empty() {
            return Err(Error::Invalid("schema_fingerprint is empty".to_owned()));
        }
        if let Some(message) = schema::fault(schema) {
            return Err(Error::Invalid(message));
        }
        let expected = schema_fingerprint(schema);
        if *fingerprint != expected {
            let message = format!("schema_fingerprint is not that of the schema, which is {expected}");
            return Err(Error::Invalid(message));
        }
        for (index, object) in objects.iter().enumerate() {
            if let Some(message) = sound::object_fault(&name, object) {
                return Err(Error::Object { index, message });
            }
        }
        Ok(Self {
            name,
            fingerprint: expected,
            schema: schema.clone(),
            objects: objects.clone(),
            origin: origin.clone(),
            policy: request.schema_policy,
            mode: request.write_mode,
        })
    }
}

/// The first manifest of a dataset. `highest` is the last version that the name had before it was removed, or 0.
pub(crate) fn first(offer: &Offer, highest: u64, now: Timestamp) -> Result<DatasetManifest> {
    let at = moment(now, None);
    Ok(DatasetManifest {
        dataset_id: offer.name.id(),
        name: offer.name.clone(),
        schema_fingerprint: offer.fingerprint.clone(),
        schema: offer.schema.clone(),
        objects: offer.objects.clone(),
        row_count: rows(&offer.objects)?,
        version: highest + 1,
        latest_version: highest + 1,
        created_at: at,
        updated_at: at,
        origin: offer.origin.clone(),
    })
}

/// The manifest that follows `current`.
///
/// The same content keeps its version; only `updated_at` and the origin are new. `retired` are columns of later
/// versions from before a rollback, whose field ids must not be given to other columns.
pub(crate) fn following(
    offer: &Offer,
    current: &DatasetManifest,
    retired: &[Column],
    now: Timestamp,
) -> Result<DatasetManifest> {
    let schema = allowed_schema(&offer.name, &offer.schema, offer.policy, current, retired)?;
    let objects = match offer.mode {
        WriteMode::Replace => offer.objects.clone(),
        WriteMode::Append => appended(&current.objects, &offer.objects),
    };
    let same = schema == current.schema && same_content(&objects, &current.objects);
    let version = if same { current.version } else { current.latest_version + 1 };
    Ok(DatasetManifest {
        dataset_id: current.dataset_id,
        name: current.name.clone(),
        schema_fingerprint: offer.fingerprint.clone(),
        schema,
        row_count: rows(&objects)?,
        objects,
        version,
        latest_version: current.latest_version.max(version),
        created_at: current.created_at,
        updated_at: moment(now, Some(current.updated_at)),
        origin: offer.origin.clone(),
    })
}

/// The columns as they would be recorded after `current`, with their lasting field ids.
pub(crate) fn allowed_schema(
    name: &DatasetName,
    offered: &[Column],
    policy: SchemaPolicy,
    current: &DatasetManifest,
    retired: &[Column],
) -> Result<Vec<Column>> {
    let diff = SchemaDiff::between(&current.schema, offered);
    if !diff.allowed_by(policy) {
        return Err(Error::SchemaConflict {
            name: name.clone(),
            current: current.schema_fingerprint.clone(),
            offered: schema_fingerprint(offered),
            diff: Box::new(diff),
        });
    }
    let known = [&current.schema, retired].concat();
    Ok(schema::with_lasting_ids(offered, &known))
}

/// `target` as the manifest that follows `current`.
pub(crate) fn restored(
    target: &DatasetManifest,
    current: Option<&DatasetManifest>,
    latest_version: u64,
    now: Timestamp,
) -> DatasetManifest {
    let before = current.map_or(target.updated_at, |current| current.updated_at);
    DatasetManifest {
        latest_version,
        created_at: current.map_or(target.created_at, |current| current.created_at),
        updated_at: moment(now, Some(before)),
        ..target.clone()
    }
}

/// Whether two lists of files hold the same rows. Where the files lie does not matter.
fn same_content(one: &[DataObject], other: &[DataObject]) -> bool {
    let contents = |objects: &[DataObject]| -> Vec<_> {
        objects.iter().map(|object| (object.sha256.clone(), object.size, object.rows)).collect()
    };
    contents(one) == contents(other)
}

/// The current objects and then the new ones; the same file is not appended twice.
fn appended(current: &[DataObject], new: &[DataObject]) -> Vec<DataObject> {
    let is_new = |object: &&DataObject| current.iter().all(|known| known.sha256 != object.sha256);
    current.iter().chain(new.iter().filter(is_new)).cloned().collect()
}

fn rows(objects: &[DataObject]) -> Result<u64> {
    sound::sum_of_rows(objects)
        .ok_or_else(|| Error::Invalid("the rows of all objects together do not fit 64 bits".to_owned()))
}

/// Now, in the microseconds that a manifest can hold, and after `before`: no two writes in a row look the same, even
/// when a clock stands still or goes back.
fn moment(now: Timestamp, before: Option<Timestamp>) -> Timestamp {
    let now =
        Timestamp::from_microsecond(now.as_microsecond()).expect("no farther from zero than a timestamp");
    match before {
        Some(before) if before >= now => before.checked_add(SignedDuration::from_micros(1)).unwrap_or(before),
        _ => now,
    }
}
