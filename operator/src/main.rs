//! `lakehouse-operator`: brings Lakehouse resources in a cluster to what they ask for.

fn main() {}
