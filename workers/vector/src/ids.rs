//! The ids of a segment: by row, and the row of an id without reading more than a few bytes of the file.
//!
//! ```text
//! ids.text   the ids, one behind the other
//! ids.ends   u32 per row: where its id ends
//! ids.hash   u32 slots, a power of two: rows by the hash of their id, the next free slot where several meet
//! ```

use lakehouse_ann::sections::{self, Name};
use sha2::{Digest, Sha256};

use crate::Result;

const TEXT: Name = *b"ids.text";
const ENDS: Name = *b"ids.ends";
const HASH: Name = *b"ids.hash";
/// A slot without a row.
const FREE: u32 = u32::MAX;

/// Spreads ids evenly, in the same way for ever: shards and the tables in files follow from it.
pub(crate) fn hash(id: &str) -> u64 {
    let digest = Sha256::digest(id);
    u64::from_le_bytes(digest[..8].try_into().expect("a digest has 32 bytes"))
}

/// The shard that an id belongs to.
pub fn shard(id: &str, shards: u32) -> u32 {
    u32::try_from(hash(id) % u64::from(shards.max(1))).expect("below the number of shards")
}

/// Ids of the rows of a segment that is being written.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    text: Vec<u8>,
    ends: Vec<u32>,
}

impl Builder {
    pub(crate) fn push(&mut self, id: &str) {
        self.text.extend_from_slice(id.as_bytes());
        self.ends.push(u32::try_from(self.text.len()).expect("a million ids of at most 1 KiB"));
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, row: usize) -> &[u8] {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start as usize..self.ends[row] as usize]
    }

    pub(crate) fn write(&self, out: &mut sections::Writer) -> Result<()> {
        out.put_section(TEXT, &self.text)?;
        out.section(ENDS)?.put_all(&self.ends)?;
        out.section(HASH)?.put_all(&self.table())?;
        Ok(())
    }

    fn table(&self) -> Vec<u32> {
        let slots = (self.len() * 2).max(8).next_power_of_two();
        let mut table = vec![FREE; slots];
        for row in 0..self.len() {
            let id = std::str::from_utf8(self.get(row)).expect("pushed as text");
            let slot = slots_of(hash(id), slots).find(|slot| table[*slot] == FREE);
            table[slot.expect("half of the slots stay free")] =
                u32::try_from(row).expect("a segment has at most a million rows");
        }
        table
    }
}

/// The slots in which an id may be, in their order. The upper half of the hash decides: the lower one chose the shard.
fn slots_of(hash: u64, slots: usize) -> impl Iterator<Item = usize> {
    let first = usize::try_from(hash >> 32).expect("32 bits");
    (0..slots).map(move |step| (first + step) & (slots - 1))
}

/// Ids in a file.
#[derive(Clone, Copy)]
pub(crate) struct Ids<'f> {
    text: &'f [u8],
    ends: &'f [u32],
    table: &'f [u32],
}

impl<'f> Ids<'f> {
    pub(crate) fn of(file: &'f sections::File) -> Result<Self> {
        Ok(Self { text: file.section(TEXT)?, ends: file.numbers(ENDS)?, table: file.numbers(HASH)? })
    }

    /// Checks once that nothing in here leads outside.
    pub(crate) fn check(&self, rows: u32) -> Result<(), String> {
        let rising =
            self.ends.is_sorted() && self.ends.last().is_none_or(|end| *end as usize == self.text.len());
        if self.ends.len() != rows as usize || !rising {
            return Err(format!("the ids of its {rows} rows do not fit together"));
        }
        if !self.table.len().is_power_of_two() || self.table.iter().all(|row| *row != FREE) {
            return Err("the table of its ids has a wrong size".into());
        }
        Ok(())
    }

    /// The id of a row.
    pub(crate) fn get(&self, row: u32) -> &'f str {
        let row = row as usize;
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        std::str::from_utf8(&self.text[start as usize..self.ends[row] as usize]).unwrap_or_default()
    }

    /// The row of an id with this [`hash`].
    pub(crate) fn find(&self, id: &str, hash: u64) -> Option<u32> {
        let slots = slots_of(hash, self.table.len());
        let rows = slots.map(|slot| self.table[slot]).take_while(|row| *row != FREE);
        rows.filter(|row| (*row as usize) < self.ends.len()).find(|row| self.get(*row) == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_is_found_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        for rows in [0, 1, 5, 1000] {
            let path = dir.path().join(rows.to_string());
            let mut builder = Builder::default();
            (0..rows).for_each(|row| builder.push(&format!("w-{row}")));
            let mut out = sections::Writer::create(&path).unwrap();
            builder.write(&mut out).unwrap();
            out.finish().unwrap();
            let file = sections::File::open(&path).unwrap();
            let ids = Ids::of(&file).unwrap();
            ids.check(rows).unwrap();
            for row in 0..rows {
                assert_eq!(ids.get(row), format!("w-{row}"));
                assert_eq!(find(&ids, &format!("w-{row}")), Some(row));
            }
            assert_eq!(find(&ids, "w-x"), None);
            assert!(ids.check(rows + 1).is_err());
        }
    }

    fn find(ids: &Ids<'_>, id: &str) -> Option<u32> {
        ids.find(id, hash(id))
    }

    #[test]
    fn the_shard_of_an_id_never_changes() {
        let shards = ["a", "b", "w-17", "ü", "w-18", "d"].map(|id| shard(id, 4));
        assert_eq!(shards, [2, 2, 2, 0, 3, 0]);
    }
}
