//! Values of metadata: which ones there are, and how they compare.
//!
//! A value is a text, a number, a boolean or a list of texts. Numbers compare by what they are, not by how they are written: `1` is
//! `1.0`, and integers beyond 2^53 keep all their digits.

use std::{cmp::Ordering, fmt};

use lakehouse_contract::vectors::Metadata;
use serde_json::Value;

/// The longest id, in bytes.
const MAX_ID_BYTES: usize = 1024;
/// The longest name of a field, in bytes.
const MAX_FIELD_BYTES: usize = 256;
/// The most metadata that one vector has, in bytes of its JSON form.
const MAX_METADATA_BYTES: usize = 64 << 10;

/// What a value takes beside its text.
const PER_VALUE: usize = 16;

/// What kind of value it is. The order is that of a column's dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Bool,
    Number,
    Text,
    List,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Bool, Self::Number, Self::Text, Self::List];

    /// The kind of a checked value; `None` for what is no value of metadata.
    pub(crate) fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(_) => Some(Self::Bool),
            Value::Number(_) => Some(Self::Number),
            Value::String(_) => Some(Self::Text),
            Value::Array(items) if items.iter().all(Value::is_string) => Some(Self::List),
            _ => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bool => "a boolean",
            Self::Number => "a number",
            Self::Text => "a text",
            Self::List => "a list of texts",
        })
    }
}

/// The kinds of values that a field has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kinds(u8);

impl Kinds {
    pub(crate) fn of(kind: Kind) -> Self {
        Self(1 << kind as u8)
    }

    pub(crate) fn has(self, kind: Kind) -> bool {
        self.0 & Self::of(kind).0 != 0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub(crate) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Display for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = Kind::ALL.into_iter().filter(|kind| self.has(*kind));
        let words: Vec<String> = kinds.map(|kind| kind.to_string()).collect();
        f.write_str(&words.join(" or "))
    }
}

/// A number with a total order that agrees with arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number {
    /// As 64 bits hold it.
    near: Near,
    /// Exactly, where it is a whole number: integers that round to the same float differ here.
    whole: i128,
}

#[derive(Clone, Copy, Debug)]
struct Near(f64);

impl PartialEq for Near {
    fn eq(&self, other: &Self) -> bool {
        self.0.total_cmp(&other.0).is_eq()
    }
}

impl Eq for Near {}

impl Number {
    pub(crate) fn of(number: &serde_json::Number) -> Self {
        if let Some(whole) = number.as_i128() {
            return Self { near: Near(whole as f64), whole };
        }
        // -0 is 0.
        let near = number.as_f64().unwrap_or(f64::NAN) + 0.0;
        #[expect(clippy::cast_possible_truncation, reason = "only floats that hold a whole number get one")]
        let whole = if near.fract() == 0.0 { near as i128 } else { 0 };
        Self { near: Near(near), whole }
    }

    /// The number that a JSON text says.
    pub(crate) fn parse(text: &str) -> Self {
        serde_json::from_str(text).map_or(Self { near: Near(f64::NAN), whole: 0 }, |number| Self::of(&number))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        self.near.0.total_cmp(&other.near.0).then(self.whole.cmp(&other.whole))
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Checks an id; the sentence says what is wrong with it.
pub fn check_id(id: &str) -> Result<(), String> {
    match id.len() {
        0 => Err("the id is empty".into()),
        1..=MAX_ID_BYTES => Ok(()),
        bytes => Err(format!("the id has {bytes} bytes; at most {MAX_ID_BYTES} are allowed")),
    }
}

/// Checks what is kept with a vector; the sentence names the field.
pub fn check_metadata(metadata: &Metadata) -> Result<(), String> {
    let mut bytes = 0;
    for (field, value) in metadata {
        if field.is_empty() || field.len() > MAX_FIELD_BYTES || field.starts_with('$') {
            return Err(format!(
                "`{field}` cannot name a field of metadata: a name has 1 to {MAX_FIELD_BYTES} bytes and does not start with `$`"
            ));
        }
        if Kind::of(value).is_none() {
            let found = match value {
                Value::Null => "null; leave the field out instead",
                Value::Object(_) => "an object",
                _ => "a list of something else",
            };
            return Err(format!(
                "metadata `{field}` is {found}; a value is a text, a number, a boolean or a list of texts"
            ));
        }
        bytes += field.len() + size(value);
    }
    if bytes > MAX_METADATA_BYTES {
        return Err(format!("the metadata has {bytes} bytes; at most {MAX_METADATA_BYTES} are allowed"));
    }
    Ok(())
}

/// About the bytes that metadata takes, in memory and as JSON.
pub(crate) fn bytes_of(metadata: &Metadata) -> usize {
    metadata.iter().map(|(field, value)| field.len() + size(value) + PER_VALUE).sum()
}

fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(size).sum(),
        _ => size_of::<f64>(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_ordered_by_what_they_are() {
        let rising = [
            "-1e300",
            "-9007199254740993",
            "-9007199254740992",
            "-1.5",
            "0",
            "0.5",
            "1",
            "9007199254740992",
            "9007199254740993",
            "18446744073709551615",
            "1e300",
        ];
        for (at, left) in rising.iter().enumerate() {
            for (other, right) in rising.iter().enumerate() {
                assert_eq!(Number::parse(left).cmp(&Number::parse(right)), at.cmp(&other), "{left} {right}");
            }
        }
        for (left, right) in [("1", "1.0"), ("-0.0", "0"), ("100", "1e2")] {
            assert_eq!(Number::parse(left), Number::parse(right));
        }
    }

    #[test]
    fn what_is_no_value_is_refused_with_its_field() {
        for (metadata, part) in [
            (json!({"a": null}), "metadata `a` is null"),
            (json!({"a": {"b": 1}}), "metadata `a` is an object"),
            (json!({"a": ["x", 1]}), "metadata `a` is a list of something else"),
            (json!({"": 1}), "cannot name a field"),
            (json!({"$and": 1}), "cannot name a field"),
            (json!({"a": "x".repeat(70_000)}), "at most 65536"),
        ] {
            let sentence = check_metadata(metadata.as_object().unwrap()).unwrap_err();
            assert!(sentence.contains(part), "{sentence}");
        }
        let fine = json!({"a": "x", "b": 1.5, "c": true, "d": ["x", "y"], "e": []});
        assert_eq!(check_metadata(fine.as_object().unwrap()), Ok(()));
    }
}
