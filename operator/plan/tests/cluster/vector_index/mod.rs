//! What planning an index promises.

mod builds;
mod objects;
mod walks;
mod world;
