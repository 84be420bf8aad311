//! The rows of a dataset version become vectors and an index version.
