//! Objects by key over HTTP.
