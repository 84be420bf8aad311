//! CEL rules that more than one field carries: the rule and the sentence for who breaks it.
//!
//! The API server evaluates them on `kubectl apply`, and `lakehouse up` evaluates the same ones.

/// An address that an HTTP client can call.
pub(crate) const HTTP_URL: (&str, &str) = (
    "self.matches('^https?://[^/?#\\\\s]+[^\\\\s]*$')",
    "must be a URL that starts with `http://` or `https://` and names a host",
);

/// A time span with its unit.
pub(crate) const DURATION: (&str, &str) = (
    "self.matches('^([0-9]+(ms|s|m|h))+$') && self.matches('[1-9]')",
    "must be a duration above zero with its unit, such as `500ms`, `30s` or `2m`",
);

/// A name that an object in the cluster can have.
pub(crate) const OBJECT_NAME: (&str, &str) = (
    "self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')",
    "must be the name of an object: lower-case letters, digits, `-` and `.`, with a letter or digit at both ends",
);
