//! What a Job of the cluster is asked for, and what its container leaves behind.
//!
//! The operator writes an [`IngestJob`] into a ConfigMap; the Job's pod reads it as a file. When the pod ends, its last words are a
//! [`Summary`]: Kubernetes keeps them as the container's termination message, so the operator needs no way into the bucket.

use std::num::NonZeroU32;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{embed::ModelIdentity, ingest::IngestSpec, vectors::BuildSpec};

/// What Kubernetes keeps of a termination message, in bytes.
pub const MAX_SUMMARY_BYTES: usize = 4096;

/// The file that tells an ingest Job what to do. Never holds a secret: those are mounted beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IngestJob {
    /// Everything but the source.
    pub spec: IngestSpec,
    /// Where the rows come from.
    pub source: JobSource,
    /// How many versions stay in the store when the new one is there.
    pub keep_versions: NonZeroU32,
}

/// Where an ingest Job reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum JobSource {
    /// A file behind a URL. Each entry of the mounted Secret, where there is one, is sent as a header.
    Http {
        /// With scheme `http` or `https` and without user or password.
        url: String,
        /// What the file must hash to, lower-case hexadecimal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sha256: Option<String>,
    },
    /// An object in a bucket. `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and perhaps `AWS_SESSION_TOKEN` are entries of
    /// the mounted Secret; without one the object is read anonymously.
    S3 {
        /// The bucket.
        bucket: String,
        /// The object's key.
        key: String,
        /// The address of an S3 that is not Amazon's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        endpoint: Option<String>,
        /// The bucket's region.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        region: Option<String>,
    },
    /// An entry of a ConfigMap, mounted under its key.
    ConfigMap {
        /// The ConfigMap.
        name: String,
        /// The entry.
        key: String,
        /// What its content hashed to when the Job was made, lower-case hexadecimal. A node may mount an older one for a moment.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sha256: Option<String>,
    },
}

/// The file that tells a build Job what to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BuildJob {
    /// What to build.
    pub spec: BuildSpec,
    /// The dataset's version to read.
    pub dataset_version: u64,
    /// The model as it was when the Job was planned. Another one fails the build: a new Job is about to be planned.
    pub model: ModelIdentity,
    /// How many versions stay in the store when the new one is there.
    pub keep_versions: NonZeroU32,
    /// Where texts are embedded, for a model that is not local.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedd: Option<String>,
}

/// The last words of a Job's container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Summary {
    /// What the source holds is published.
    Done(Done),
    /// An index was built and published.
    Built(Built),
    /// Everything of the dataset or index was removed.
    Purged(Purged),
    /// It failed, and nothing was published.
    Failed {
        /// A word of the closed vocabulary of reasons (`lakehouse_plan::Reason`).
        reason: String,
        /// The error, fit for a user's eyes.
        message: String,
        /// When the work began.
        started: Timestamp,
        /// When it ended.
        finished: Timestamp,
    },
}

/// An ingest that ended well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    /// The version that is current now.
    pub version: u64,
    /// Its rows.
    pub rows: u64,
    /// Bytes of its Parquet files.
    pub bytes: u64,
    /// Its Parquet files.
    pub files: u64,
    /// Rows of the source that did not fit the declared types.
    pub rejected_rows: u64,
    /// Whether the version was there before: the source had not changed, or gave the same files.
    pub unchanged: bool,
    /// Names the content of the source as it was read.
    pub source_digest: String,
    /// `CSV`, `NDJSON` or `Parquet`.
    pub format: String,
    /// When the work began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// One sentence for `status.lastIngest.message`.
    pub message: String,
}

/// A build that ended well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Built {
    /// The index's version that is current now.
    pub version: u64,
    /// The dataset's version that it was built from.
    pub dataset_version: u64,
    /// [`BuildSpec::inputs_digest`].
    pub inputs: String,
    /// Vectors in it.
    pub vectors: u64,
    /// Rows without a vector, because their text or id is empty or was refused.
    pub failed: u64,
    /// Texts that this run embedded.
    pub embedded: u64,
    /// Texts whose vectors were there.
    pub reused: u64,
    /// The model.
    pub model: ModelIdentity,
    /// The share of true neighbours that searches of a sample found, from 0 to 1; absent for an index without vectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recall: Option<f64>,
    /// Bytes of its segments.
    pub bytes: u64,
    /// Whether the version was there before.
    pub unchanged: bool,
    /// When the work began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// One sentence.
    pub message: String,
}

/// A purge that ended well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Purged {
    /// Objects that this run removed; an earlier run may have removed others.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When the work began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// One sentence.
    pub message: String,
}

impl Summary {
    /// The summary as JSON of at most [`MAX_SUMMARY_BYTES`]: a message that is too long ends in `…`.
    pub fn to_json(&self) -> String {
        let whole = self.json();
        if whole.len() <= MAX_SUMMARY_BYTES {
            return whole;
        }
        let mut cut = self.clone();
        let message = std::mem::take(cut.message_mut());
        let room = MAX_SUMMARY_BYTES.saturating_sub(cut.json().len());
        *cut.message_mut() = shortened(&message, room);
        cut.json()
    }

    fn json(&self) -> String {
        serde_json::to_string(self).expect("plain data with text keys always has a JSON form")
    }

    fn message_mut(&mut self) -> &mut String {
        match self {
            Self::Done(done) => &mut done.message,
            Self::Built(built) => &mut built.message,
            Self::Purged(purged) => &mut purged.message,
            Self::Failed { message, .. } => message,
        }
    }
}

/// As much of `text` as takes at most `room` bytes within a JSON string, with `…` behind it.
fn shortened(text: &str, room: usize) -> String {
    let mut room = room.saturating_sub('…'.len_utf8());
    let mut kept = String::new();
    for c in text.chars() {
        let written = serde_json::to_string(&c).map_or(c.len_utf8(), |quoted| quoted.len() - 2);
        let Some(left) = room.checked_sub(written) else { break };
        room = left;
        kept.push(c);
    }
    kept.push('…');
    kept
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{DatasetName, ingest::Format};

    #[test]
    fn a_job_reads_back_as_it_was_written() {
        let spec = IngestSpec::inferred(DatasetName::parse("sales").unwrap(), Format::CSV);
        let sources = [
            (
                JobSource::Http { url: "https://host/a.csv?b".into(), sha256: None },
                json!({ "kind": "http", "url": "https://host/a.csv?b" }),
            ),
            (
                JobSource::S3 { bucket: "b".into(), key: "a/b.csv".into(), endpoint: None, region: None },
                json!({ "kind": "s3", "bucket": "b", "key": "a/b.csv" }),
            ),
            (
                JobSource::ConfigMap { name: "prices".into(), key: "prices.csv".into(), sha256: None },
                json!({ "kind": "configMap", "name": "prices", "key": "prices.csv" }),
            ),
        ];
        for (source, written) in sources {
            let keep_versions = NonZeroU32::new(3).unwrap();
            let job = IngestJob { spec: spec.clone(), source, keep_versions };
            let text = serde_json::to_string(&job).unwrap();
            assert_eq!(serde_json::from_str::<IngestJob>(&text).unwrap(), job);
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["source"], written);
        }
    }

    #[test]
    fn a_job_that_says_what_nobody_understands_is_refused() {
        let job = json!({
            "spec": { "name": "sales", "format": "CSV" },
            "source": { "kind": "http", "url": "http://host/a.csv" },
            "keepVersions": 3,
        });
        serde_json::from_value::<IngestJob>(job.clone()).unwrap();
        for (pointer, value) in [("/keepVersions", json!(0)), ("/source/kind", json!("ftp"))] {
            let mut job = job.clone();
            *job.pointer_mut(pointer).unwrap() = value;
            assert!(serde_json::from_value::<IngestJob>(job).is_err(), "{pointer}");
        }
        for pointer in ["", "/source"] {
            let mut job = job.clone();
            job.pointer_mut(pointer).unwrap().as_object_mut().unwrap().insert("tyop".into(), json!(1));
            assert!(serde_json::from_value::<IngestJob>(job).is_err(), "{pointer}/tyop");
        }
    }

    #[test]
    fn a_summary_reads_back_as_it_was_written() {
        let purged =
            Purged { objects: 3, bytes: 9, started: now(), finished: now(), message: "Gone.".into() };
        for summary in [done("Version 7 was published."), Summary::Purged(purged), failed("no")] {
            assert_eq!(serde_json::from_str::<Summary>(&summary.to_json()).unwrap(), summary);
        }
        let written: Value = serde_json::from_str(&done("m").to_json()).unwrap();
        assert_eq!((&written["result"], &written["rejectedRows"]), (&json!("done"), &json!(2)));
    }

    #[test]
    fn a_summary_always_fits_into_a_termination_message() {
        for message in
            ["x".repeat(5000), "…".repeat(5000), "\u{1}".repeat(5000), "\"\n".repeat(5000), "🦀".repeat(5000)]
        {
            for summary in [done(&message), failed(&message)] {
                let json = summary.to_json();
                assert!(json.len() <= MAX_SUMMARY_BYTES && json.len() > MAX_SUMMARY_BYTES - 10, "{json}");
                let mut read: Summary = serde_json::from_str(&json).unwrap();
                let cut = read.message_mut().strip_suffix('…').unwrap();
                assert!(message.starts_with(cut), "{cut}");
            }
        }
    }

    #[test]
    fn a_message_that_fits_is_kept_to_its_last_byte() {
        let room = MAX_SUMMARY_BYTES - failed("").to_json().len();
        let summary = failed(&"x".repeat(room));
        assert_eq!(summary.to_json().len(), MAX_SUMMARY_BYTES);
        assert_eq!(serde_json::from_str::<Summary>(&summary.to_json()).unwrap(), summary);
    }

    fn done(message: &str) -> Summary {
        Summary::Done(Done {
            version: 7,
            rows: 100,
            bytes: 4096,
            files: 1,
            rejected_rows: 2,
            unchanged: false,
            source_digest: "sha256:00".into(),
            format: "CSV".into(),
            started: now(),
            finished: now(),
            message: message.into(),
        })
    }

    fn failed(message: &str) -> Summary {
        let reason = "InvalidData".into();
        Summary::Failed { reason, message: message.into(), started: now(), finished: now() }
    }

    fn now() -> Timestamp {
        "2026-01-02T03:04:05.678Z".parse().unwrap()
    }
}
