//! Approximate nearest neighbours: immutable segments with a graph, exact heads, filters.
