//! The memory backend keeps every promise.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as its body does")]

use lakehouse_store::Store;

mod suite;

for_each_promise!(async { (Store::memory(), ()) });
