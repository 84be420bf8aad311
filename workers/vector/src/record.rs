//! Records of an index's log: one for each write, so that a batch is taken whole or not at all.
//!
//! ```text
//! kind u8   version u8   index 16 bytes   time i64 (µs)   count u32   then, count times:
//!   write   id (u32 length, text)   metadata (u32 length or 0xFFFF_FFFF, JSON)   numbers (u32 count, f32 each)
//!   removal id (u32 length, text)   stamp u64 (0: whichever)
//! ```
//! Integers are little-endian. `index` is the manifest's id: a write to an index that was removed is none to the one that has its name now;
//! zeros stand for any. What a record does follows from the records before it alone, never from how far segments were made of
//! them: every process that reads the log comes to the same index.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use jiff::Timestamp;
use lakehouse_contract::vectors::Metadata;
use uuid::Uuid;

const VERSION: u8 = 1;
const NONE: u32 = u32::MAX;

const UPSERT: u8 = 1;
const INSERT: u8 = 2;
const REMOVE: u8 = 3;
const CLOSE: u8 = 4;

/// A vector that is written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Write {
    pub(crate) id: String,
    pub(crate) vector: Vec<f32>,
    /// `None` leaves what is there.
    pub(crate) metadata: Option<Metadata>,
}

/// A vector that is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Removal {
    pub(crate) id: String,
    /// Only the row that has this stamp; 0 for whichever is there.
    pub(crate) stamp: u64,
}

/// What a record does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Op {
    /// Adds or replaces.
    Upsert(Vec<Write>),
    /// Adds those whose ids are not there.
    Insert(Vec<Write>),
    /// Removes.
    Remove(Vec<Removal>),
    /// Ends the index: nothing after it counts.
    Close,
}

/// What a record does, and when it was written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    pub(crate) index: Uuid,
    pub(crate) at: Timestamp,
    pub(crate) op: Op,
}

/// The record that ends an index; nil ends whichever it is.
pub(crate) fn close(index: Uuid) -> Bytes {
    Record { index, at: Timestamp::now(), op: Op::Close }.encode()
}

impl Record {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        let (kind, count) = match &self.op {
            Op::Upsert(writes) => (UPSERT, writes.len()),
            Op::Insert(writes) => (INSERT, writes.len()),
            Op::Remove(removals) => (REMOVE, removals.len()),
            Op::Close => (CLOSE, 0),
        };
        out.put_slice(&[kind, VERSION]);
        out.put_slice(self.index.as_bytes());
        out.put_i64_le(self.at.as_microsecond());
        out.put_u32_le(length(count));
        match &self.op {
            Op::Upsert(writes) | Op::Insert(writes) => {
                for Write { id, vector, metadata } in writes {
                    put_text(&mut out, id.as_bytes());
                    match metadata {
                        None => out.put_u32_le(NONE),
                        Some(metadata) => put_text(
                            &mut out,
                            &serde_json::to_vec(metadata)
                                .expect("a map with text keys always has a JSON form"),
                        ),
                    }
                    out.put_u32_le(length(vector.len()));
                    out.reserve(size_of_val(vector.as_slice()));
                    for number in vector {
                        out.put_f32_le(*number);
                    }
                }
            }
            Op::Remove(removals) => {
                for Removal { id, stamp } in removals {
                    put_text(&mut out, id.as_bytes());
                    out.put_u64_le(*stamp);
                }
            }
            Op::Close => {}
        }
        out.freeze()
    }

    /// Reads a record. Its checksum was right, so what cannot be read was written by a newer release.
    pub(crate) fn decode(mut bytes: Bytes) -> Result<Self, String> {
        decoded(&mut bytes).ok_or_else(|| "it is written in a way that this release does not know".to_owned())
    }
}

fn decoded(bytes: &mut Bytes) -> Option<Record> {
    let (kind, version) = (bytes.try_get_u8().ok()?, bytes.try_get_u8().ok()?);
    if version != VERSION {
        return None;
    }
    let index = Uuid::from_slice(&take(bytes, 16)?).ok()?;
    let at = Timestamp::from_microsecond(bytes.try_get_i64_le().ok()?).ok()?;
    let count = bytes.try_get_u32_le().ok()?;
    let op = match kind {
        UPSERT => Op::Upsert((0..count).map(|_| take_write(bytes)).collect::<Option<_>>()?),
        INSERT => Op::Insert((0..count).map(|_| take_write(bytes)).collect::<Option<_>>()?),
        REMOVE => Op::Remove((0..count).map(|_| take_removal(bytes)).collect::<Option<_>>()?),
        CLOSE => Op::Close,
        _ => return None,
    };
    bytes.is_empty().then_some(Record { index, at, op })
}

fn take_write(bytes: &mut Bytes) -> Option<Write> {
    let id = take_id(bytes)?;
    let metadata = match bytes.try_get_u32_le().ok()? {
        NONE => None,
        length => Some(serde_json::from_slice(&take(bytes, length)?).ok()?),
    };
    let count = bytes.try_get_u32_le().ok()?;
    let mut numbers = take(bytes, count.checked_mul(4)?)?;
    let vector = (0..count).map(|_| numbers.get_f32_le()).collect();
    Some(Write { id, vector, metadata })
}

fn take_removal(bytes: &mut Bytes) -> Option<Removal> {
    Some(Removal { id: take_id(bytes)?, stamp: bytes.try_get_u64_le().ok()? })
}

fn take_id(bytes: &mut Bytes) -> Option<String> {
    let length = bytes.try_get_u32_le().ok()?;
    String::from_utf8(take(bytes, length)?.to_vec()).ok()
}

fn take(bytes: &mut Bytes, length: u32) -> Option<Bytes> {
    let length = length as usize;
    (bytes.len() >= length).then(|| bytes.split_to(length))
}

fn put_text(out: &mut BytesMut, text: &[u8]) {
    out.put_u32_le(length(text.len()));
    out.put_slice(text);
}

fn length(length: usize) -> u32 {
    u32::try_from(length).expect("a request has far less than 4 GiB")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let write = |id: &str, metadata: Option<serde_json::Value>| Write {
            id: id.into(),
            vector: vec![1.5, -0.0, 3e-20],
            metadata: metadata.map(|value| value.as_object().unwrap().clone()),
        };
        let writes =
            vec![write("a", None), write("ü", Some(json!({}))), write("", Some(json!({"x": [1, "y"]})))];
        let removals = vec![Removal { id: "a".into(), stamp: 0 }, Removal { id: "b".into(), stamp: 1 << 60 }];
        for op in [Op::Upsert(writes.clone()), Op::Insert(writes), Op::Remove(removals), Op::Close] {
            let record =
                Record { index: Uuid::from_u128(7), at: "2026-01-02T03:04:05.000006Z".parse().unwrap(), op };
            assert_eq!(Record::decode(record.encode()), Ok(record));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_lead_astray(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Record::decode(bytes.into());
        }

        #[test]
        fn a_record_that_is_cut_is_refused(cut in 1_usize..100) {
            let write = Write { id: "id".into(), vector: vec![1.0; 20], metadata: Some(Metadata::new()) };
            let bytes = Record { index: Uuid::nil(), at: Timestamp::UNIX_EPOCH, op: Op::Upsert(vec![write]) }.encode();
            let left = bytes.len().saturating_sub(cut);
            prop_assert!(Record::decode(bytes.slice(..left)).is_err());
        }
    }
}
