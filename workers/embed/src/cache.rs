//! What was embedded lately: bounded by a number of texts, and by bytes, since vectors differ in length.

use lakehouse_contract::embed::EmbedStats;
use lru::LruCache;

use crate::Vector;

/// The model's number on this board, and the SHA-256 of the text.
pub(crate) type Key = (u32, [u8; 32]);

/// What an entry costs beside its numbers: its key, its links and the vector's head.
const ENTRY_BYTES: u64 = 128;

/// Least recently used texts go first.
#[derive(Debug)]
pub(crate) struct Cache {
    entries: LruCache<Key, Vector>,
    capacity: u64,
    max_bytes: u64,
    bytes: u64,
    hits: u64,
    misses: u64,
}

impl Cache {
    /// A cache of so many texts; none are kept with 0.
    pub(crate) fn new(capacity: u64, max_bytes: u64) -> Self {
        Self { entries: LruCache::unbounded(), capacity, max_bytes, bytes: 0, hits: 0, misses: 0 }
    }

    /// Counts as a hit or a miss.
    pub(crate) fn get(&mut self, key: &Key) -> Option<Vector> {
        let found = self.entries.get(key).cloned();
        match found {
            Some(_) => self.hits += 1,
            None => self.misses += 1,
        }
        found
    }

    pub(crate) fn put(&mut self, key: Key, vector: Vector) {
        if self.capacity == 0 {
            return;
        }
        self.bytes += cost(&vector);
        if let Some(replaced) = self.entries.put(key, vector) {
            self.bytes -= cost(&replaced);
        }
        while self.size() > self.capacity || self.bytes > self.max_bytes {
            let Some((_, oldest)) = self.entries.pop_lru() else { break };
            self.bytes -= cost(&oldest);
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn size(&self) -> u64 {
        self.entries.len() as u64
    }

    pub(crate) fn stats(&self) -> EmbedStats {
        let (hits, misses) = (self.hits, self.misses);
        let hit_rate = if hits == 0 { 0.0 } else { hits as f64 / (hits + misses) as f64 };
        EmbedStats { hits, misses, hit_rate, size: self.size(), capacity: self.capacity }
    }
}

fn cost(vector: &Vector) -> u64 {
    ENTRY_BYTES + size_of_val(&**vector) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_that_was_used_longest_ago_goes_first() {
        let mut cache = Cache::new(2, u64::MAX);
        put(&mut cache, 1);
        put(&mut cache, 2);
        assert!(cache.get(&key(1)).is_some());
        put(&mut cache, 3);
        assert!(cache.get(&key(2)).is_none());
        assert!(cache.get(&key(1)).is_some() && cache.get(&key(3)).is_some());
        let stats = cache.stats();
        assert_eq!((stats.hits, stats.misses, stats.size, stats.capacity), (3, 1, 2, 2));
        assert!((stats.hit_rate - 0.75).abs() < 1e-9);
    }

    #[test]
    fn bytes_are_a_bound_too() {
        let mut cache = Cache::new(1_000, 2 * (ENTRY_BYTES + 40));
        for text in 0..10 {
            put(&mut cache, text);
            put(&mut cache, text);
        }
        assert_eq!((cache.size(), cache.bytes()), (2, 2 * (ENTRY_BYTES + 40)));
    }

    #[test]
    fn nothing_is_kept_with_a_capacity_of_0() {
        let mut cache = Cache::new(0, u64::MAX);
        put(&mut cache, 1);
        assert_eq!((cache.get(&key(1)), cache.size(), cache.bytes()), (None, 0, 0));
    }

    fn put(cache: &mut Cache, text: u8) {
        cache.put(key(text), [0.5; 10].into());
    }

    fn key(text: u8) -> Key {
        (0, [text; 32])
    }
}
