//! Text to vectors: providers, the cache, and embedd.
