//! The memory backend keeps every promise.

use lakehouse_store::Store;

mod suite;

for_each_promise!(async { (Store::memory(), ()) });
