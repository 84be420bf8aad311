//! What stories on a real Kubernetes stand on.
