//! What the API server checks of an object's name, which no schema says.

use super::{Fault, yaml::Node};

/// The longest name of an object and the longest of a namespace, in bytes.
const MAX_NAME_BYTES: usize = 253;
const MAX_NAMESPACE_BYTES: usize = 63;

pub(super) fn check(root: &Node, faults: &mut Vec<Fault>) {
    let metadata = root.field("metadata");
    let text = |field: &str| metadata?.field(field)?.text();
    match (text("name"), metadata.and_then(|metadata| metadata.field("generateName"))) {
        (Some(name), _) => {
            if let Some(sentence) = fault_of_name(name) {
                faults.push(Fault::new("metadata.name", sentence));
            }
        }
        (None, Some(_)) => faults.push(Fault::new(
            "metadata.generateName",
            "only an API server makes up names; set `metadata.name`",
        )),
        (None, None) if metadata.is_none_or(|metadata| metadata.field("name").is_none()) => {
            faults.push(Fault::new("metadata.name", "is missing; every resource has a name"));
        }
        // A name that is no text; the schema has said so.
        (None, None) => {}
    }
    if let Some(namespace) = text("namespace")
        && (fault_of_name(namespace).is_some()
            || namespace.contains('.')
            || namespace.len() > MAX_NAMESPACE_BYTES)
    {
        let sentence = format!(
            "`{namespace}` cannot be a namespace; up to {MAX_NAMESPACE_BYTES} lower-case letters, digits and `-` are \
             allowed, with a letter or digit at both ends"
        );
        faults.push(Fault::new("metadata.namespace", sentence));
    }
}

/// What makes a text no object's name (RFC 1123's subdomain), with a name that would do.
fn fault_of_name(name: &str) -> Option<String> {
    let is_edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let sound = name.len() <= MAX_NAME_BYTES
        && name.split('.').all(|label| {
            label.starts_with(is_edge)
                && label.ends_with(is_edge)
                && label.chars().all(|c| is_edge(c) || c == '-')
        });
    if sound {
        return None;
    }
    let would_do: String =
        name.to_ascii_lowercase().chars().map(|c| if is_edge(c) || c == '.' { c } else { '-' }).collect();
    let would_do = would_do.trim_matches(['-', '.']);
    let hint = if name.len() <= MAX_NAME_BYTES && !would_do.is_empty() && fault_of_name(would_do).is_none() {
        format!("; `{would_do}` would do")
    } else {
        String::new()
    };
    Some(format!(
        "`{name}` cannot be an object's name: up to {MAX_NAME_BYTES} lower-case letters, digits, `-` and `.` are \
         allowed, with a letter or digit at both ends{hint}"
    ))
}
