//! The bytes of a log's object.
//!
//! ```text
//! "LAKELOG1"  first number u64  count u32                      20 bytes
//! length u32  checksum 8 bytes  content                        once per record
//! ```
//! Integers are little-endian. A checksum is the start of the SHA-256 of the record's number, as u64, and its content: a
//! record that was moved to another place does not pass.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use sha2::{Digest, Sha256};

const MAGIC: &[u8; 8] = b"LAKELOG1";
const HEADER: usize = 8 + 8 + 4;
const FRAME: usize = 4 + CHECKSUM;
const CHECKSUM: usize = 8;

/// What an object holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    /// The whole records, up to the first one that is not.
    pub(super) records: Vec<Bytes>,
    /// What is wrong after them.
    pub(super) damage: Option<String>,
}

pub(super) fn encode(first: u64, records: &[&Bytes]) -> Bytes {
    let size = HEADER + records.iter().map(|record| FRAME + record.len()).sum::<usize>();
    let mut out = BytesMut::with_capacity(size);
    out.put_slice(MAGIC);
    out.put_u64_le(first);
    out.put_u32_le(u32::try_from(records.len()).expect("an append has few records"));
    for (number, record) in (first..).zip(records) {
        out.put_u32_le(u32::try_from(record.len()).expect("an append is far below 4 GiB"));
        out.put_slice(&checksum(number, record));
        out.put_slice(record);
    }
    out.freeze()
}

pub(super) fn decode(first: u64, mut object: Bytes) -> Decoded {
    let mut decoded = Decoded { records: Vec::new(), damage: None };
    if object.len() < HEADER || !object.starts_with(MAGIC) {
        decoded.damage = Some("it does not start like a log's object".into());
        return decoded;
    }
    object.advance(MAGIC.len());
    let (said_first, count) = (object.get_u64_le(), object.get_u32_le());
    if said_first != first {
        decoded.damage = Some(format!("it was written as the object of record {said_first}"));
        return decoded;
    }
    for number in (first..).take(count as usize) {
        let Some(record) = take_record(number, &mut object) else {
            decoded.damage = Some(format!("record {number} of {count} from {first} on is cut or changed"));
            return decoded;
        };
        decoded.records.push(record);
    }
    if object.has_remaining() {
        decoded.damage = Some(format!("{} bytes follow its last record", object.remaining()));
    }
    decoded
}

fn take_record(number: u64, object: &mut Bytes) -> Option<Bytes> {
    let length = object.try_get_u32_le().ok()? as usize;
    if object.len() < CHECKSUM + length {
        return None;
    }
    let said = object.split_to(CHECKSUM);
    let record = object.split_to(length);
    (said == checksum(number, &record)[..]).then_some(record)
}

fn checksum(number: u64, content: &[u8]) -> [u8; CHECKSUM] {
    let digest = Sha256::new().chain_update(number.to_le_bytes()).chain_update(content).finalize();
    let mut start = [0; CHECKSUM];
    start.copy_from_slice(&digest[..CHECKSUM]);
    start
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn records_come_back_as_they_were(first in 0..u64::MAX / 2, contents in contents()) {
            let decoded = decode(first, encoded(first, &contents));
            prop_assert_eq!(decoded, Decoded { records: contents, damage: None });
        }

        #[test]
        fn whatever_is_cut_off_the_records_before_it_are_whole(contents in contents(), cut in 1_usize..500) {
            let object = encoded(7, &contents);
            let left = object.len().saturating_sub(cut);
            let decoded = decode(7, object.slice(..left));
            prop_assert!(decoded.damage.is_some());
            prop_assert_eq!(&contents[..decoded.records.len()], &decoded.records[..]);
        }

        #[test]
        fn a_changed_byte_never_passes(contents in contents(), at in 0_usize..10_000, change in 1_u8..) {
            let mut object = encoded(7, &contents).to_vec();
            let at = at % object.len();
            object[at] ^= change;
            let decoded = decode(7, object.into());
            prop_assert!(decoded.damage.is_some(), "byte {}", at);
            prop_assert_eq!(&contents[..decoded.records.len()], &decoded.records[..]);
        }
    }

    #[test]
    fn an_object_under_another_name_is_not_taken_for_the_right_one() {
        let decoded = decode(8, encoded(7, &[Bytes::from_static(b"a")]));
        assert_eq!(decoded.damage.as_deref(), Some("it was written as the object of record 7"));
    }

    fn contents() -> impl Strategy<Value = Vec<Bytes>> {
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from), 1..8)
    }

    fn encoded(first: u64, contents: &[Bytes]) -> Bytes {
        encode(first, &contents.iter().collect::<Vec<_>>())
    }
}
