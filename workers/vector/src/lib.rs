//! Vector indexes in the store, and vectord.
