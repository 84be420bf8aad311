//! The public edge.
