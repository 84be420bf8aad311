//! A document against its schema: the part of `OpenAPI` v3 that the API server accepts in a definition.
//!
//! Every fault is found. A message says what is allowed, and repeats only values of an enumeration: any other value
//! could be a secret.

use std::collections::HashMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use regex::Regex;
use serde_json::Value as Json;

use super::{
    Fault,
    yaml::{Entry, Node, Value, join},
};

/// Finds every fault of a document.
pub(super) fn check(schema: &Json, root: &Node, faults: &mut Vec<Fault>) {
    Checker { faults }.node(schema, "", root);
}

/// The known word that a mistyped one most likely means.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    known
        .map(|known| (strsim::damerau_levenshtein(&lower, &known.to_lowercase()), known))
        .filter(|(distance, known)| *distance <= 1.max(known.chars().count() / 3))
        .min()
        .map(|(_, known)| known)
}

struct Checker<'a> {
    faults: &'a mut Vec<Fault>,
}

impl Checker<'_> {
    fn fault(&mut self, path: &str, message: impl Into<String>) {
        self.faults.push(Fault::new(path, message));
    }

    fn node(&mut self, schema: &Json, path: &str, node: &Node) {
        if schema["x-kubernetes-int-or-string"] == true {
            return self.quantity(schema, path, node);
        }
        match schema["type"].as_str() {
            Some("object") => self.object(schema, path, node),
            Some("array") => self.list(schema, path, node),
            Some("string") => self.string(schema, path, node),
            Some("integer") => self.integer(schema, path, node),
            Some("number") => self.number(schema, path, node),
            Some("boolean") if !matches!(node.value, Value::Bool(_)) => {
                self.wrong_type(path, "true or false", node);
            }
            _ => {}
        }
    }

    fn wrong_type(&mut self, path: &str, wanted: &str, node: &Node) {
        let (found, hint) = match &node.value {
            Value::Null => ("nothing", ""),
            Value::Bool(_) => ("a boolean", "; put it into quotes if a text is meant"),
            Value::Number(_) => ("a number", "; put it into quotes if a text is meant"),
            Value::String(_) => ("a text", ""),
            Value::List(_) => ("a list", ""),
            Value::Map(_) => ("a map", ""),
        };
        let hint = if wanted == "a text" { hint } else { "" };
        self.fault(path, format!("must be {wanted}, not {found}{hint}"));
    }

    fn object(&mut self, schema: &Json, path: &str, node: &Node) {
        let Value::Map(entries) = &node.value else {
            return self.wrong_type(path, "a map of fields", node);
        };
        let properties = schema["properties"].as_object();
        let values = schema.get("additionalProperties").filter(|values| values.is_object());
        let open = schema["x-kubernetes-preserve-unknown-fields"] == true
            || (properties.is_none() && values.is_none());
        for Entry { key, place, node } in entries {
            let child = join(path, key);
            match (properties.and_then(|properties| properties.get(key)), values) {
                // The API server drops a null as if the field were absent.
                (Some(_), _) | (_, Some(_)) if matches!(node.value, Value::Null) => {}
                (Some(schema), _) | (None, Some(schema)) => self.node(schema, &child, node),
                (None, None) if open => {}
                (None, None) => {
                    let names =
                        properties.into_iter().flat_map(|properties| properties.keys().map(String::as_str));
                    self.faults.push(Fault::new(child, unknown_field(key, names)).at(*place));
                }
            }
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str) {
            if node.field(name).is_none() {
                let about = properties.and_then(|properties| properties.get(name)?["description"].as_str());
                let about = about
                    .and_then(|text| text.split('\n').next())
                    .map(|text| format!(": {}", lower_first(text)));
                self.fault(&join(path, name), format!("is missing{}", about.unwrap_or_default()));
            }
        }
        self.count(schema, path, "Properties", entries.len(), "fields");
    }

    fn list(&mut self, schema: &Json, path: &str, node: &Node) {
        let Value::List(items) = &node.value else {
            return self.wrong_type(path, "a list", node);
        };
        for (i, item) in items.iter().enumerate() {
            self.node(&schema["items"], &format!("{path}[{i}]"), item);
        }
        self.count(schema, path, "Items", items.len(), "items");
        let keys: Vec<&str> = schema["x-kubernetes-list-map-keys"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Json::as_str)
            .collect();
        match schema["x-kubernetes-list-type"].as_str() {
            Some("set") => self.unique(path, items, |item| Some(item.to_json().to_string())),
            Some("map") => self.unique(path, items, |item| {
                keys.iter().map(|key| Some(item.field(key)?.to_json().to_string())).collect()
            }),
            _ => {}
        }
    }

    fn unique(&mut self, path: &str, items: &[Node], name: impl Fn(&Node) -> Option<String>) {
        let mut first: HashMap<String, usize> = HashMap::new();
        for (i, item) in items.iter().enumerate() {
            let Some(name) = name(item) else { continue };
            match first.get(&name) {
                Some(earlier) => {
                    self.fault(&format!("{path}[{i}]"), format!("{name} stands already at [{earlier}]"));
                }
                None => {
                    first.insert(name, i);
                }
            }
        }
    }

    fn string(&mut self, schema: &Json, path: &str, node: &Node) {
        let Value::String(text) = &node.value else {
            return match schema["enum"].as_array() {
                Some(words) => self.fault(path, format!("must be one of {}", listed(words))),
                None => self.wrong_type(path, "a text", node),
            };
        };
        if let Some(words) = schema["enum"].as_array()
            && !words.iter().any(|word| word == text)
        {
            self.fault(path, format!("{text:?} is not allowed; one of {}", listed(words)));
        }
        self.count(schema, path, "Length", text.chars().count(), "characters");
        match schema["format"].as_str() {
            Some("byte") if BASE64_STANDARD.decode(text).is_err() => {
                self.fault(path, "is not Base64; a Secret takes plain texts under `stringData`");
            }
            Some("date-time") if text.parse::<Timestamp>().is_err() => {
                self.fault(path, "must be a time with its offset, such as `2026-11-20T12:00:00Z`");
            }
            _ => {}
        }
    }

    /// A number or a text; what this project's schemas hold of that kind are quantities.
    fn quantity(&mut self, schema: &Json, path: &str, node: &Node) {
        let sound = match &node.value {
            Value::Number(_) => true,
            Value::String(text) => {
                let pattern = schema["pattern"].as_str().and_then(|pattern| Regex::new(pattern).ok());
                pattern.is_none_or(|pattern| pattern.is_match(text))
            }
            Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => false,
        };
        if !sound {
            self.fault(path, "must be a quantity, such as `2`, `500m` or `1Gi`");
        }
    }

    fn integer(&mut self, schema: &Json, path: &str, node: &Node) {
        match &node.value {
            // The API server's whole numbers end where 64 bits with a sign do.
            Value::Number(number) if number.is_u64() && !number.is_i64() => {
                self.fault(path, format!("{number} is not allowed; must be at most {}", i64::MAX));
            }
            Value::Number(number) if number.is_i64() => {
                let (low, high) = match schema["format"].as_str() {
                    Some("int32") => (f64::from(i32::MIN), f64::from(i32::MAX)),
                    _ => (i64::MIN as f64, i64::MAX as f64),
                };
                self.range(schema, path, number.as_f64().unwrap_or_default(), low, high);
            }
            Value::Number(_) => self.fault(path, "must be a whole number"),
            _ => self.wrong_type(path, "a whole number", node),
        }
    }

    fn number(&mut self, schema: &Json, path: &str, node: &Node) {
        match &node.value {
            Value::Number(number) => {
                self.range(schema, path, number.as_f64().unwrap_or_default(), f64::MIN, f64::MAX);
            }
            _ => self.wrong_type(path, "a number", node),
        }
    }

    fn range(&mut self, schema: &Json, path: &str, number: f64, low: f64, high: f64) {
        let minimum = schema["minimum"].as_f64();
        let maximum = schema["maximum"].as_f64();
        if number < minimum.unwrap_or(low) || number > maximum.unwrap_or(high) {
            let allowed = match (minimum, maximum) {
                (Some(minimum), Some(maximum)) => format!("from {minimum} to {maximum}"),
                (Some(minimum), None) if number < minimum => format!("at least {minimum}"),
                (None, Some(maximum)) if number > maximum => format!("at most {maximum}"),
                _ => format!("from {} to {high}", minimum.unwrap_or(low)),
            };
            self.fault(path, format!("{number} is not allowed; must be {allowed}"));
        }
    }

    /// `minItems`, `maxLength` and their like.
    fn count(&mut self, schema: &Json, path: &str, what: &str, count: usize, things: &str) {
        let limit = |bound: &str| {
            schema[format!("{bound}{what}")].as_u64().and_then(|limit| usize::try_from(limit).ok())
        };
        let things = if count == 1 { things.trim_end_matches('s') } else { things };
        match (limit("min"), limit("max")) {
            (Some(1), _) if count == 0 => self.fault(path, "must not be empty"),
            (Some(least), _) if count < least => {
                self.fault(path, format!("has {count} {things}; at least {least} are needed"));
            }
            (_, Some(most)) if count > most => {
                self.fault(path, format!("has {count} {things}; at most {most} are allowed"));
            }
            _ => {}
        }
    }
}

fn unknown_field<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let mut known: Vec<&str> = known.collect();
    known.sort_unstable();
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("unknown field; did you mean `{near}`?"),
        // The list of an object's metadata would hide the sentence.
        None if known.len() > 12 || known.is_empty() => "unknown field".to_owned(),
        None => format!("unknown field; the fields here are {}", known.join(", ")),
    }
}

fn listed(words: &[Json]) -> String {
    words.iter().filter_map(Json::as_str).collect::<Vec<_>>().join(", ")
}

/// A description as the second half of a sentence.
fn lower_first(text: &str) -> String {
    let text = text.trim_end_matches('.');
    let mut rest = text.chars();
    match (rest.next(), text.chars().nth(1)) {
        // `SQL …` keeps its capitals.
        (Some(first), Some(second)) if !second.is_uppercase() => first.to_lowercase().chain(rest).collect(),
        _ => text.to_owned(),
    }
}
