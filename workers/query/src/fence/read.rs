//! Texts as DuckDB reads them, remembered while they are short: the same ones come again and again.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
};

use lru::LruCache;
use serde_json::Value;

/// A text as DuckDB reads it, not yet judged.
#[derive(Debug)]
pub(crate) struct Parsed {
    /// The statement that is judged: what `EXPLAIN` would explain, or all of the text.
    pub(super) judged: String,
    /// Whether the caller asks for the plan.
    pub(super) explained: bool,
    pub(super) tree: Value,
    /// What will run.
    pub(super) sql: String,
    /// How long the tree is as JSON.
    pub(super) size: usize,
}

/// So many texts are remembered, …
const MOST: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// … each with a tree of so many bytes as JSON: all of them take some 40 MB at most.
const LONGEST: usize = 16 << 10;

/// What a caller wrote, and the most rows that he wants.
type Text = (String, Option<u64>);

/// What was read last. Nothing of the catalogue is in it.
#[derive(Debug)]
pub(crate) struct Memory {
    seen: Mutex<LruCache<Text, Arc<Parsed>>>,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self { seen: Mutex::new(LruCache::new(MOST)) }
    }

    /// What `read` makes of a text with this limit on its rows, or made of it before.
    pub(super) fn recall<E>(
        &self,
        sql: &str,
        limit: Option<u64>,
        read: impl FnOnce() -> Result<Parsed, E>,
    ) -> Result<Arc<Parsed>, E> {
        // The map is whole between any two statements that hold the lock.
        let seen = || self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if sql.len() > LONGEST {
            return read().map(Arc::new);
        }
        let key = (sql.to_owned(), limit);
        if let Some(parsed) = seen().get(&key) {
            return Ok(parsed.clone());
        }
        let parsed = Arc::new(read()?);
        if parsed.size <= LONGEST {
            seen().put(key, parsed.clone());
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[test]
    fn a_text_is_read_once_while_it_is_short() {
        let memory = Memory::new();
        let reads = |sql: &str, limit, size| {
            let mut read = false;
            let parse = || {
                read = true;
                let (judged, tree) = (String::new(), Value::Null);
                Ok::<_, Infallible>(Parsed { judged, explained: false, tree, sql: sql.to_owned(), size })
            };
            let Ok(parsed) = memory.recall(sql, limit, parse);
            assert_eq!(parsed.sql, sql);
            read
        };
        assert!(reads("a", None, 1) && !reads("a", None, 1));
        assert!(reads("a", Some(1), 1), "a limit makes another statement of it");
        assert!(reads("b", None, LONGEST + 1) && reads("b", None, 1), "its tree was too large to keep");
        for other in 0..MOST.get() {
            reads(&other.to_string(), None, 1);
        }
        assert!(reads("a", None, 1), "others have come since");
    }
}
