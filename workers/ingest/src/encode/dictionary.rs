//! Dictionaries: the distinct values of a column chunk, numbered in the order of their first use.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::layout;

/// The distinct values, in plain encoding.
///
/// Hashes are seeded anew in each process and decide nothing but the speed: numbers follow from the order of first use alone.
pub(super) struct Dictionary {
    hasher: DefaultHashBuilder,
    table: HashTable<Entry>,
    /// The entries one after another, each in plain encoding.
    entries: Vec<u8>,
    /// Where each entry starts.
    starts: Vec<u32>,
}

#[derive(Clone, Copy)]
struct Entry {
    hash: u64,
    number: u32,
}

/// The number of a value.
#[derive(Clone, Copy)]
pub(super) enum Found {
    Old(u32),
    New(u32),
}

impl Dictionary {
    pub(super) fn new() -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            table: HashTable::new(),
            entries: Vec::new(),
            starts: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    /// All entries in plain encoding.
    pub(super) fn entries(&self) -> &[u8] {
        &self.entries
    }

    /// The plain encoding of one entry.
    pub(super) fn entry(&self, number: u32) -> &[u8] {
        let number = number as usize;
        let end = self.starts.get(number + 1).map_or(self.entries.len(), |&end| end as usize);
        &self.entries[self.starts[number] as usize..end]
    }

    /// Whether it costs more than it saves, after `values` values.
    pub(super) fn is_a_loss(&self, values: usize) -> bool {
        self.len() > layout::DICTIONARY_ENTRIES
            || self.entries.len() > layout::DICTIONARY_BYTES
            || layout::TRIALS.iter().any(|&(after, most)| values == after && self.len() > most)
    }

    /// The number of a text, which plain encoding gives a length.
    #[inline]
    pub(super) fn text(&mut self, text: &[u8]) -> Found {
        let hash = self.hasher.hash_one(text);
        let Self { table, entries, starts, .. } = self;
        let same = |entry: &Entry| {
            entry.hash == hash && {
                let number = entry.number as usize;
                let end = starts.get(number + 1).map_or(entries.len(), |&end| end as usize);
                entries[starts[number] as usize + 4..end] == *text
            }
        };
        if let Some(entry) = table.find(hash, same) {
            return Found::Old(entry.number);
        }
        let number = self.insert(hash);
        self.entries.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.entries.extend_from_slice(text);
        Found::New(number)
    }

    /// The number of a value of fixed size, at most eight bytes, given as its plain encoding.
    #[inline]
    pub(super) fn fixed<const N: usize>(&mut self, value: [u8; N]) -> Found {
        let mut word = [0; 8];
        word[..N].copy_from_slice(&value);
        let hash = self.hasher.hash_one(u64::from_le_bytes(word));
        let Self { table, entries, .. } = self;
        let same = |entry: &Entry| entry.hash == hash && entries[entry.number as usize * N..][..N] == value;
        if let Some(entry) = table.find(hash, same) {
            return Found::Old(entry.number);
        }
        let number = self.insert(hash);
        self.entries.extend_from_slice(&value);
        Found::New(number)
    }

    fn insert(&mut self, hash: u64) -> u32 {
        let number = u32::try_from(self.starts.len()).unwrap_or(u32::MAX);
        self.table.insert_unique(hash, Entry { hash, number }, |entry| entry.hash);
        self.starts.push(u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
        number
    }
}
