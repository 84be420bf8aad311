//! Generators of sample tables.
