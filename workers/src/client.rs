//! Talks to a running lakehouse over HTTP.
