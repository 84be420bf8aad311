//! The commands that talk to a running lakehouse, one module each.
